"""Content at gateways: what each of them serves, under which key its copies lie, what it says of them."""

from alembic import op

revision = "0050"
down_revision = "0051"


def upgrade() -> None:
    op.execute("""
        -- `distribution` counts how often it was distributed anew; copies of earlier ones count no more.
        CREATE TABLE cloud_content (
            service_name text NOT NULL REFERENCES cloud_gateway ON DELETE CASCADE,
            sha256 text NOT NULL CHECK (sha256 ~ '^[0-9a-f]{64}$'),
            name text NOT NULL,
            version text NOT NULL,
            size_bytes bigint NOT NULL CHECK (size_bytes >= 0),
            distribution integer NOT NULL DEFAULT 1 CHECK (distribution > 0),
            removed boolean NOT NULL DEFAULT false,
            sealed_key bytea NOT NULL,
            changed_at timestamptz NOT NULL,
            PRIMARY KEY (service_name, sha256)
        );
        CREATE TABLE cloud_content_state (
            service_name text NOT NULL REFERENCES cloud_gateway ON DELETE CASCADE,
            instance integer NOT NULL,
            state jsonb NOT NULL,
            reported_at timestamptz NOT NULL,
            PRIMARY KEY (service_name, instance)
        );
    """)
