"""Changes of co-management that wait for a second administrator."""

from alembic import op

revision = "0042"
down_revision = "0041"


def upgrade() -> None:
    op.execute("""
        -- `wanted` is the change as the API reads it, without tokens; `devices` how many it reached
        -- when it was asked for.
        CREATE TABLE comanagement_waiting (
            id text PRIMARY KEY,
            wanted jsonb NOT NULL,
            devices integer NOT NULL,
            reason text NOT NULL,
            asked_by text NOT NULL,
            asked_at timestamptz NOT NULL,
            expires_at timestamptz NOT NULL
        );
    """)
