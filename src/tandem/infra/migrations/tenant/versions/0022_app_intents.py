"""Apps: what devices say of them in more words, what their users chose, and repairs of the client."""

from alembic import op

revision = "0022"
down_revision = "0021"


def upgrade() -> None:
    op.execute("""
        -- `detail` is the number that the device's installer reports; `found` says that it was there
        -- before, and did not come from here. `repairs` counts how often the client was reinstalled.
        ALTER TABLE mobile_apps_status
            ADD attempts integer NOT NULL DEFAULT 0,
            ADD detail integer NOT NULL DEFAULT 0,
            ADD version text NOT NULL DEFAULT '',
            ADD found boolean NOT NULL DEFAULT false,
            ADD repairs integer NOT NULL DEFAULT 0,
            ADD repaired_at timestamptz;
        CREATE INDEX mobile_apps_status_device ON mobile_apps_status (device_id);

        ALTER TABLE mobile_apps_app ADD package_type text NOT NULL DEFAULT 'perMachine';

        -- What the user of a device chose of what is available, and whether the copy that was there
        -- has been removed once (comanagement, 2.12).
        CREATE TABLE mobile_apps_choice (
            app_id text NOT NULL REFERENCES mobile_apps_app ON DELETE CASCADE,
            device_id text NOT NULL,
            user_id text NOT NULL DEFAULT '',
            requested_at timestamptz,
            removed_at timestamptz,
            PRIMARY KEY (app_id, device_id)
        );
        CREATE INDEX mobile_apps_choice_device ON mobile_apps_choice (device_id);
        -- Somebody who chooses an app changes what a settled session would do.
        CREATE TRIGGER sessions_changed AFTER INSERT OR UPDATE OR DELETE ON mobile_apps_choice
            FOR EACH STATEMENT EXECUTE FUNCTION sessions_changed();
    """)
