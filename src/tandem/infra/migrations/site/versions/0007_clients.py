"""Tables of clients."""

from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    op.execute("""
        CREATE TABLE clients_token_key (
            id text PRIMARY KEY,
            sealed bytea NOT NULL,
            public_jwk jsonb NOT NULL,
            created_at timestamptz NOT NULL
        );

        CREATE TABLE clients_client (
            id text PRIMARY KEY,
            tenant_id text NOT NULL,
            device_id text NOT NULL,
            thumbprint text NOT NULL UNIQUE,
            name text NOT NULL,
            os_name text NOT NULL,
            os_version text NOT NULL,
            client_version text NOT NULL,
            approval integer NOT NULL,
            blocked boolean NOT NULL DEFAULT false,
            registered_at timestamptz NOT NULL,
            last_seen_at timestamptz NOT NULL,
            policy_at timestamptz,
            policy_digest text NOT NULL DEFAULT '',
            policy_version integer NOT NULL DEFAULT 0,
            state_at timestamptz,
            state jsonb,
            UNIQUE (tenant_id, device_id)
        );
        CREATE INDEX ON clients_client (lower(name));

        -- What a device reported, and what the site did for it. The message's own id keeps a
        -- message that is sent twice from counting twice.
        CREATE TABLE clients_timeline (
            tenant_id text NOT NULL,
            device_id text NOT NULL,
            message_id text NOT NULL,
            topic integer NOT NULL,
            state integer NOT NULL,
            at timestamptz NOT NULL,
            received_at timestamptz NOT NULL,
            data jsonb NOT NULL,
            -- Messages of one moment stay in the order in which they came.
            sequence bigint GENERATED ALWAYS AS IDENTITY,
            PRIMARY KEY (tenant_id, device_id, message_id)
        );
        CREATE INDEX ON clients_timeline (tenant_id, device_id, at);
        CREATE INDEX ON clients_timeline (topic, received_at);

        CREATE TABLE clients_nonce (
            thumbprint text NOT NULL,
            nonce text NOT NULL,
            used_at timestamptz NOT NULL,
            PRIMARY KEY (thumbprint, nonce)
        );
        CREATE INDEX ON clients_nonce (used_at);
    """)
