"""Tables of deployments."""

from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    op.execute("""
        CREATE TABLE deployments_configuration (
            id text PRIMARY KEY,
            name text NOT NULL,
            workload text NOT NULL,
            setting text NOT NULL,
            value text NOT NULL,
            collection_id text NOT NULL REFERENCES collections_collection,
            created_at timestamptz NOT NULL
        );
        CREATE UNIQUE INDEX ON deployments_configuration (lower(name));
    """)
