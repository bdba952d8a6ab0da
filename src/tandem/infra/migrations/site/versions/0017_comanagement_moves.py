"""Moves of workloads under way, and requests that were applied."""

from alembic import op

revision = "0017"
down_revision = "0016"


def upgrade() -> None:
    op.execute("""
        CREATE TABLE comanagement_move (
            workload text PRIMARY KEY,
            began_at timestamptz NOT NULL,
            began_by text NOT NULL,
            -- How many co-managed devices were to change owner.
            devices integer NOT NULL
        );

        -- Idempotency keys: what comes twice is done once.
        CREATE TABLE comanagement_request (
            key text PRIMARY KEY,
            digest bytea NOT NULL,
            applied_at timestamptz NOT NULL
        );
    """)
