"""Sign-ins of a tenant's administrator for the site's console."""

from alembic import op

revision = "0018"
down_revision = "0017"


def upgrade() -> None:
    op.execute("""
        -- `sealed` is the device code while the sign-in is pending, and the access token after it.
        CREATE TABLE cloud_tenant_sign_in (
            id text PRIMARY KEY,
            administrator text NOT NULL,
            state text NOT NULL CHECK (state IN ('pending', 'done', 'refused', 'expired')),
            environment text NOT NULL,
            user_code text NOT NULL,
            verification_uri text NOT NULL,
            interval_seconds integer NOT NULL,
            asked_at timestamptz,
            began_at timestamptz NOT NULL,
            expires_at timestamptz NOT NULL,
            tenant_id text NOT NULL DEFAULT '',
            tenant_name text NOT NULL DEFAULT '',
            upn text NOT NULL DEFAULT '',
            roles text[] NOT NULL DEFAULT '{}',
            mdm_licence boolean,
            reason text NOT NULL DEFAULT '',
            cure text NOT NULL DEFAULT '',
            sealed bytea
        );
        CREATE INDEX ON cloud_tenant_sign_in (administrator, began_at);
    """)
