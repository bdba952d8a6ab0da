"""Tables of collections."""

from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    op.execute("""
        CREATE TABLE collections_resource (
            id bigint GENERATED ALWAYS AS IDENTITY (START WITH 16777216) PRIMARY KEY,
            client_id text NOT NULL UNIQUE,
            name text NOT NULL,
            tenant_id text NOT NULL,
            device_id text NOT NULL,
            os_name text NOT NULL,
            os_version text NOT NULL,
            client_version text NOT NULL,
            discovered_at timestamptz NOT NULL
        );
        CREATE INDEX ON collections_resource (lower(name));

        CREATE TABLE collections_user (
            id bigint GENERATED ALWAYS AS IDENTITY (START WITH 2063597568) PRIMARY KEY,
            tenant_id text NOT NULL,
            object_id text NOT NULL,
            upn text NOT NULL,
            name text NOT NULL,
            mail text NOT NULL,
            sid text NOT NULL,
            properties jsonb NOT NULL,
            discovered_at timestamptz NOT NULL,
            UNIQUE (tenant_id, object_id)
        );
        CREATE INDEX ON collections_user (lower(upn));

        -- The site's own collections are numbered from 20 (hexadecimal 14), as in the field.
        CREATE SEQUENCE collections_collection_number START WITH 20;

        CREATE TABLE collections_collection (
            id text PRIMARY KEY,
            name text NOT NULL,
            comment text NOT NULL,
            limiting_id text REFERENCES collections_collection,
            created_at timestamptz NOT NULL
        );
        CREATE UNIQUE INDEX ON collections_collection (lower(name));
        INSERT INTO collections_collection (id, name, comment, limiting_id, created_at)
            VALUES ('SMS00001', 'All Systems', 'All devices that the site knows.', NULL, now());

        CREATE TABLE collections_rule (
            id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
            collection_id text NOT NULL REFERENCES collections_collection ON DELETE CASCADE,
            kind text NOT NULL CHECK (kind IN ('direct', 'query')),
            name text NOT NULL,
            query text NOT NULL,
            resource_id bigint REFERENCES collections_resource ON DELETE CASCADE,
            CHECK ((kind = 'direct') = (resource_id IS NOT NULL))
        );
        CREATE UNIQUE INDEX ON collections_rule (collection_id, resource_id);
        CREATE UNIQUE INDEX ON collections_rule (collection_id, lower(name)) WHERE kind = 'query';
    """)
