"""When a device was last seen is written into its row: most check-ins change nothing else."""

from alembic import op

revision = "0034"
down_revision = "0033"


def upgrade() -> None:
    op.execute("""
        DROP TRIGGER fleet_note_change ON clients_client;
        CREATE TRIGGER fleet_note_change
            AFTER UPDATE OF device_id, name, os_version, client_version, blocked, state
            ON clients_client FOR EACH ROW EXECUTE FUNCTION fleet_note();

        -- A row that is just being made anew, or is not there yet, is left to whoever makes it.
        CREATE FUNCTION fleet_note_seen() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            WITH seen AS (
                SELECT n.device_id, max(n.last_seen_at) AS at
                FROM after n JOIN before o ON o.id = n.id AND n.last_seen_at > o.last_seen_at
                GROUP BY n.device_id
            ), free AS (
                SELECT f.device_id FROM fleet_device f JOIN seen s ON s.device_id = f.device_id
                FOR UPDATE OF f SKIP LOCKED
            ), written AS (
                UPDATE fleet_device f SET last_seen_at = s.at, seen_key = s.at
                FROM free JOIN seen s ON s.device_id = free.device_id
                WHERE f.device_id = free.device_id
                    AND (f.last_seen_at IS NULL OR f.last_seen_at < s.at)
            )
            INSERT INTO fleet_changed (device_id) SELECT s.device_id FROM seen s
                WHERE NOT EXISTS (SELECT FROM free WHERE free.device_id = s.device_id);
            RETURN NULL;
        END $$;
        CREATE TRIGGER fleet_note_seen AFTER UPDATE ON clients_client
            REFERENCING OLD TABLE AS before NEW TABLE AS after
            FOR EACH STATEMENT EXECUTE FUNCTION fleet_note_seen();
    """)
