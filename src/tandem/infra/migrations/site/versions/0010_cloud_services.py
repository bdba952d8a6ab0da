"""Tables of cloud_services."""

from alembic import op

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    op.execute("""
        CREATE TABLE cloud_certificate (
            id text PRIMARY KEY,
            service_name text NOT NULL,
            subject jsonb NOT NULL,
            created_at timestamptz NOT NULL,
            request bytea,
            certificate bytea,
            chain bytea NOT NULL,
            missing_issuer text,
            sealed_key bytea NOT NULL
        );

        CREATE TABLE cloud_service (
            id text PRIMARY KEY,
            name text NOT NULL UNIQUE,
            description text NOT NULL,
            environment text NOT NULL,
            tenant_id text NOT NULL,
            tenant_name text NOT NULL,
            created_at timestamptz NOT NULL,
            discovery_enabled boolean NOT NULL
        );

        CREATE TABLE cloud_app (
            service_id text NOT NULL REFERENCES cloud_service ON DELETE CASCADE,
            kind text NOT NULL CHECK (kind IN ('server', 'client')),
            app_id text NOT NULL,
            object_id text NOT NULL,
            name text NOT NULL,
            app_id_uri text NOT NULL,
            secret_expires_at timestamptz,
            created_at timestamptz NOT NULL,
            sealed_secret bytea,
            PRIMARY KEY (service_id, kind)
        );

        -- Public keys of tenants, so tokens can be verified while a tenant is away.
        CREATE TABLE cloud_directory (
            tenant_id text PRIMARY KEY,
            issuer text NOT NULL,
            jwks jsonb NOT NULL,
            fetched_at timestamptz NOT NULL
        );

        CREATE TABLE cloud_gateway (
            service_name text PRIMARY KEY,
            deployment_name text NOT NULL UNIQUE,
            tenant_id text NOT NULL,
            region text NOT NULL,
            resource_group text NOT NULL,
            description text NOT NULL,
            instances integer NOT NULL CHECK (instances BETWEEN 1 AND 16),
            check_revocation boolean NOT NULL,
            serve_content boolean NOT NULL,
            alerts jsonb NOT NULL,
            state text NOT NULL,
            reason text NOT NULL,
            connection_id text NOT NULL,
            created_at timestamptz NOT NULL,
            changed_at timestamptz NOT NULL,
            expires_at timestamptz NOT NULL,
            sealed_pfx bytea NOT NULL,
            sealed_password bytea NOT NULL,
            configuration_version integer NOT NULL DEFAULT 0,
            configuration_digest text NOT NULL DEFAULT ''
        );

        CREATE TABLE cloud_instance (
            service_name text NOT NULL REFERENCES cloud_gateway ON DELETE CASCADE,
            instance integer NOT NULL,
            host text NOT NULL,
            port integer NOT NULL,
            tunnel_port integer NOT NULL,
            health_port integer NOT NULL,
            pid integer,
            started double precision,
            state text NOT NULL,
            reason text NOT NULL,
            PRIMARY KEY (service_name, instance)
        );

        -- Roots and revocation lists for clients with certificates.
        CREATE TABLE cloud_trust (
            id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
            kind text NOT NULL CHECK (kind IN ('root', 'crl')),
            issuer text NOT NULL,
            der bytea NOT NULL,
            added_at timestamptz NOT NULL,
            UNIQUE (kind, der)
        );

        CREATE TABLE cloud_connection_point (
            name text PRIMARY KEY,
            service_name text NOT NULL REFERENCES cloud_gateway,
            created_at timestamptz NOT NULL,
            reported_at timestamptz,
            -- SHA-256 of the role certificate, by which it is known when it asks.
            fingerprint text NOT NULL UNIQUE
        );

        CREATE TABLE cloud_connection (
            connection_point text NOT NULL
                REFERENCES cloud_connection_point ON DELETE CASCADE,
            service_name text NOT NULL,
            instance integer NOT NULL,
            worker text NOT NULL,
            state text NOT NULL,
            since timestamptz NOT NULL,
            reason text NOT NULL,
            PRIMARY KEY (connection_point, service_name, instance, worker)
        );

        CREATE TABLE cloud_traffic (
            service_name text NOT NULL,
            endpoint text NOT NULL,
            day date NOT NULL,
            requests bigint NOT NULL,
            failures bigint NOT NULL,
            request_bytes bigint NOT NULL,
            response_bytes bigint NOT NULL,
            elapsed_ms double precision NOT NULL,
            PRIMARY KEY (service_name, endpoint, day)
        );

        CREATE TABLE cloud_management_point (
            singleton boolean PRIMARY KEY DEFAULT true CHECK (singleton),
            allowed boolean NOT NULL,
            changed_at timestamptz NOT NULL
        );
    """)
