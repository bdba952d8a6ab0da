"""Deployments to many devices, which wait for a second administrator."""

from alembic import op

revision = "0035"
down_revision = "0034"


def upgrade() -> None:
    op.execute("""
        CREATE TABLE deployments_request (
            id text PRIMARY KEY,
            name text NOT NULL,
            workload text NOT NULL,
            setting text NOT NULL,
            value text NOT NULL,
            collection_id text NOT NULL REFERENCES collections_collection ON DELETE CASCADE,
            reason text NOT NULL,
            devices bigint NOT NULL,
            asked_by text NOT NULL,
            asked_at timestamptz NOT NULL,
            expires_at timestamptz NOT NULL
        );
    """)
