"""Where a gateway's instances are, certificates by ACME, and a connection point that moves."""

from alembic import op

revision = "0049"
down_revision = "0048"


def upgrade() -> None:
    op.execute("""
        ALTER TABLE cloud_gateway
            ADD COLUMN environment text NOT NULL DEFAULT '',
            ADD COLUMN content_only boolean NOT NULL DEFAULT false,
            ADD COLUMN acme boolean NOT NULL DEFAULT false,
            ADD COLUMN renewal_reason text NOT NULL DEFAULT '',
            ADD COLUMN renewal_tried_at timestamptz;
        ALTER TABLE cloud_instance ADD COLUMN environment text NOT NULL DEFAULT '';

        -- Whether an ACME authority is asked for the certificate, and what it said.
        ALTER TABLE cloud_certificate
            ADD COLUMN acme boolean NOT NULL DEFAULT false,
            ADD COLUMN problem text NOT NULL DEFAULT '';
        CREATE TABLE cloud_acme_account (
            directory text PRIMARY KEY,
            sealed_key bytea NOT NULL,
            created_at timestamptz NOT NULL
        );
    """)
