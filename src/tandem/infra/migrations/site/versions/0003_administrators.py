"""Tables of administrators."""

from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.execute("""
        CREATE TABLE administrators_administrator (
            name text PRIMARY KEY,
            role text NOT NULL,
            created_at timestamptz NOT NULL,
            -- argon2id; null for an administrator who signs in with the tenant's account.
            password text,
            tenant_id text NOT NULL DEFAULT '',
            upn text NOT NULL DEFAULT '',
            failures integer NOT NULL DEFAULT 0,
            locked_until timestamptz
        );
        CREATE UNIQUE INDEX ON administrators_administrator (lower(name));
        CREATE UNIQUE INDEX ON administrators_administrator (tenant_id, lower(upn))
            WHERE tenant_id <> '';

        CREATE TABLE administrators_session (
            digest bytea PRIMARY KEY,
            administrator text NOT NULL REFERENCES administrators_administrator ON DELETE CASCADE,
            used_at timestamptz NOT NULL,
            expires_at timestamptz NOT NULL
        );
    """)
