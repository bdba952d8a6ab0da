"""Properties of the site's communication, and tenants whose tokens do not count."""

from alembic import op

revision = "0022"
down_revision = "0021"


def upgrade() -> None:
    op.execute("""
        ALTER TABLE cloud_service
            ADD COLUMN authentication_enabled boolean NOT NULL DEFAULT true;

        CREATE TABLE properties_communication (
            singleton boolean PRIMARY KEY DEFAULT true CHECK (singleton),
            enhanced_http boolean NOT NULL,
            pki_client_certificate boolean NOT NULL,
            check_crl boolean NOT NULL,
            changed_at timestamptz NOT NULL,
            changed_by text NOT NULL
        );

        -- Since when the management point answers with which certificate, by its SHA-256.
        CREATE TABLE properties_answering (
            role text PRIMARY KEY,
            fingerprint text NOT NULL,
            since timestamptz NOT NULL
        );
    """)
