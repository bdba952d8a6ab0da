"""Tables of discovery."""

from alembic import op

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    op.execute("""
        CREATE TABLE discovery_run (
            id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
            service text NOT NULL,
            kind text NOT NULL,
            state text NOT NULL,
            started_at timestamptz NOT NULL,
            finished_at timestamptz,
            users integer NOT NULL DEFAULT 0,
            added integer NOT NULL DEFAULT 0,
            reason text NOT NULL DEFAULT '',
            cure text NOT NULL DEFAULT '',
            code text NOT NULL DEFAULT ''
        );
    """)
