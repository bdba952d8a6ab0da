"""The devices of both authorities as one table."""

from alembic import op

revision = "0019"
down_revision = "0018"


def upgrade() -> None:
    op.execute("""
        -- What the tenant says of each device: its two accounts, and the last refused enrolment.
        CREATE TABLE fleet_account (
            device_id text PRIMARY KEY,
            directory jsonb,
            mdm jsonb,
            error bigint
        );

        -- How it goes with reading the tenant. One row.
        CREATE TABLE fleet_reading (
            one boolean PRIMARY KEY DEFAULT true CHECK (one),
            tenant_id text NOT NULL DEFAULT '',
            read_at timestamptz,
            took_seconds double precision NOT NULL DEFAULT 0,
            error text NOT NULL DEFAULT '',
            tried_at timestamptz,
            -- Somebody looked.
            wanted_at timestamptz,
            -- A replica that reads has so long; after that another one may.
            claimed_until timestamptz
        );
        INSERT INTO fleet_reading DEFAULT VALUES;

        -- Devices of which something has changed since their row was made.
        CREATE TABLE fleet_changed (
            sequence bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
            device_id text NOT NULL
        );

        CREATE TABLE fleet_device (
            device_id text COLLATE "C" PRIMARY KEY,
            name text NOT NULL,
            user_name text NOT NULL,
            os_version text NOT NULL,
            client_version text NOT NULL,
            client_id text NOT NULL,
            mdm_id text NOT NULL,
            blocked boolean NOT NULL,
            joined boolean NOT NULL,
            hybrid boolean NOT NULL,
            licensed boolean NOT NULL,
            mdm_enrolled boolean NOT NULL,
            app_offered boolean NOT NULL,
            msi_installed boolean NOT NULL,
            registered boolean NOT NULL,
            policy_present boolean NOT NULL,
            scheduled boolean NOT NULL,
            initiated boolean NOT NULL,
            pending_sign_in boolean NOT NULL,
            flags bigint NOT NULL,
            enrollment_error bigint,
            last_seen_at timestamptz,
            trouble text NOT NULL,
            -- Answers to what lists and tiles ask, made of the columns above.
            management text COLLATE "C" NOT NULL,
            os_group text NOT NULL,
            funnel integer NOT NULL,
            enrollment text,
            stages integer NOT NULL,
            stage smallint NOT NULL,
            workloads integer NOT NULL,
            unlicensed boolean NOT NULL,
            name_key text COLLATE "C" NOT NULL,
            user_key text COLLATE "C" NOT NULL,
            os_key text COLLATE "C" NOT NULL,
            client_key text COLLATE "C" NOT NULL,
            seen_key timestamptz NOT NULL
        );
        CREATE INDEX ON fleet_device (name_key, device_id);
        CREATE INDEX ON fleet_device (user_key, device_id);
        CREATE INDEX ON fleet_device (os_key, device_id);
        CREATE INDEX ON fleet_device (management, device_id);
        CREATE INDEX ON fleet_device (stage, device_id);
        CREATE INDEX ON fleet_device (client_key, device_id);
        CREATE INDEX ON fleet_device (seen_key, device_id);
        CREATE INDEX ON fleet_device (enrollment_error) WHERE enrollment_error IS NOT NULL;
        CREATE INDEX ON fleet_device (user_key) WHERE unlicensed;
        CREATE INDEX ON fleet_device (device_id) WHERE blocked;

        -- The newest client, and the newest word on set-up and enrolment, of one device.
        CREATE INDEX ON clients_client (device_id, registered_at);
        CREATE INDEX clients_timeline_setup ON clients_timeline (device_id, at, sequence)
            WHERE topic = 800;
        CREATE INDEX clients_timeline_enrollment ON clients_timeline (device_id, at, sequence)
            WHERE topic = 810 AND state > 100;

        CREATE FUNCTION fleet_note() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            IF TG_OP <> 'INSERT' THEN
                INSERT INTO fleet_changed (device_id) VALUES (OLD.device_id);
            END IF;
            IF TG_OP = 'INSERT' OR (TG_OP = 'UPDATE' AND NEW.device_id <> OLD.device_id) THEN
                INSERT INTO fleet_changed (device_id) VALUES (NEW.device_id);
            END IF;
            RETURN NULL;
        END $$;
        CREATE TRIGGER fleet_note AFTER INSERT OR DELETE ON clients_client
            FOR EACH ROW EXECUTE FUNCTION fleet_note();
        CREATE TRIGGER fleet_note_change
            AFTER UPDATE OF device_id, name, os_version, client_version, blocked, state, last_seen_at
            ON clients_client FOR EACH ROW EXECUTE FUNCTION fleet_note();
        CREATE TRIGGER fleet_note AFTER INSERT ON clients_timeline FOR EACH ROW
            WHEN (NEW.topic = 800 OR (NEW.topic = 810 AND NEW.state > 100))
            EXECUTE FUNCTION fleet_note();
        CREATE TRIGGER fleet_note AFTER INSERT OR UPDATE OR DELETE ON fleet_account
            FOR EACH ROW EXECUTE FUNCTION fleet_note();

        INSERT INTO fleet_changed (device_id)
            SELECT device_id FROM clients_client
            UNION SELECT device_id FROM clients_timeline WHERE topic IN (800, 810);
    """)
