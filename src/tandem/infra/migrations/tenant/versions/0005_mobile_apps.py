"""Tables of mobile_apps."""

from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    op.execute("""
        CREATE TABLE mobile_apps_app (
            id text PRIMARY KEY,
            name text NOT NULL,
            description text NOT NULL,
            publisher text NOT NULL,
            command_line text NOT NULL,
            file_name text NOT NULL,
            product_code text NOT NULL,
            product_version text NOT NULL,
            upgrade_code text NOT NULL,
            sha256 text NOT NULL,
            size_bytes bigint NOT NULL,
            state text NOT NULL CHECK (state IN ('processing', 'published', 'failed')),
            reason text NOT NULL,
            created_at timestamptz NOT NULL
        );

        CREATE TABLE mobile_apps_assignment (
            app_id text NOT NULL REFERENCES mobile_apps_app ON DELETE CASCADE,
            group_id text NOT NULL,
            excluded boolean NOT NULL,
            PRIMARY KEY (app_id, group_id)
        );

        -- What became of an app on a device: of the MSI, not of what the MSI starts.
        CREATE TABLE mobile_apps_status (
            app_id text NOT NULL REFERENCES mobile_apps_app ON DELETE CASCADE,
            device_id text NOT NULL,
            state text NOT NULL,
            code bigint NOT NULL,
            sha256 text NOT NULL,
            at timestamptz NOT NULL,
            PRIMARY KEY (app_id, device_id)
        );
    """)
