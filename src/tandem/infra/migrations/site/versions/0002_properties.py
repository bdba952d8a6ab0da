"""Tables of properties."""

from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.execute("""
        -- A database holds one site.
        CREATE TABLE properties_site (
            singleton boolean PRIMARY KEY DEFAULT true CHECK (singleton),
            code text NOT NULL,
            name text NOT NULL,
            management_point_id bigint NOT NULL,
            established_at timestamptz NOT NULL
        );

        CREATE TABLE properties_credential (
            role text PRIMARY KEY,
            sealed_key bytea NOT NULL,
            certificate bytea NOT NULL,
            expires_at timestamptz NOT NULL
        );
    """)
