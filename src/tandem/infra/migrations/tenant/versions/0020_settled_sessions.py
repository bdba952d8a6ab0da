"""Which sessions need not be computed: the device was told everything, and nothing has changed since."""

from alembic import op

revision = "0020"
down_revision = "0019"

# What a session's work is computed from, beside the device's own rows: table, and what of it.
_WATCHED = (
    ("assignments_assignment", "INSERT OR UPDATE OR DELETE"),
    ("directory_deleted", "INSERT OR DELETE"),
    ("directory_member", "INSERT OR UPDATE OR DELETE"),
    ("directory_group", "INSERT OR DELETE"),
    ("directory_user", "INSERT OR DELETE"),
    ("directory_device", "INSERT OR DELETE"),
    ("enrollment_device", "UPDATE OF user_id, directory_device_id"),
    ("licensing_requirement", "INSERT OR UPDATE OR DELETE"),
    ("licensing_seat", "INSERT OR UPDATE OR DELETE"),
    ("licensing_assignment", "INSERT OR UPDATE OR DELETE"),
    ("licensing_subscription", "INSERT OR UPDATE OR DELETE"),
    ("mobile_apps_app", "INSERT OR UPDATE OR DELETE"),
    ("mobile_apps_version", "INSERT OR UPDATE OR DELETE"),
    ("policies_object", "INSERT OR UPDATE OR DELETE"),
)


def upgrade() -> None:
    op.execute("""
        -- Transactions that changed what devices are to have. Whoever keeps the snapshot that it
        -- computed in can ask whether any of them was not seen by it: exact, and nobody waits.
        CREATE TABLE sessions_change (
            xid xid8 PRIMARY KEY,
            at timestamptz NOT NULL DEFAULT now()
        );

        CREATE FUNCTION sessions_changed() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            INSERT INTO sessions_change (xid) VALUES (pg_current_xact_id())
                ON CONFLICT DO NOTHING;
            RETURN NULL;
        END $$;

        ALTER TABLE sessions_session
            ADD settled pg_snapshot,
            ADD settled_at timestamptz;
    """)
    for table, events in _WATCHED:
        op.execute(
            f"CREATE TRIGGER sessions_changed AFTER {events} ON {table}"
            " FOR EACH STATEMENT EXECUTE FUNCTION sessions_changed()"
        )
