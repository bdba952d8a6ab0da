"""Custom client settings with priorities, and the collections that they are deployed to."""

from alembic import op

revision = "0041"
down_revision = "0040"


def upgrade() -> None:
    op.execute("""
        CREATE TABLE settings_custom (
            id text PRIMARY KEY,
            name text NOT NULL,
            description text NOT NULL,
            type text NOT NULL CHECK (type IN ('device', 'user')),
            -- 1 wins. All are moved by one statement, so they are looked at when it ends.
            priority integer NOT NULL CHECK (priority > 0) UNIQUE DEFERRABLE,
            -- By the setting's name, of all settings of the groups that were chosen.
            given jsonb NOT NULL,
            created_at timestamptz NOT NULL,
            created_by text NOT NULL,
            changed_at timestamptz NOT NULL,
            changed_by text NOT NULL
        );
        CREATE UNIQUE INDEX ON settings_custom (lower(name));

        CREATE TABLE settings_deployment (
            settings_id text NOT NULL REFERENCES settings_custom,
            collection_id text NOT NULL REFERENCES collections_collection,
            deployed_at timestamptz NOT NULL,
            deployed_by text NOT NULL,
            PRIMARY KEY (settings_id, collection_id)
        );
        CREATE INDEX ON settings_deployment (collection_id);

        SELECT clients_policy_reads('settings_custom');
        SELECT clients_policy_reads('settings_deployment');
    """)
