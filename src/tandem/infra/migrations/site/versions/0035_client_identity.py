"""How clients came to be known: bulk registration tokens, hardware, records that are superseded."""

from alembic import op

revision = "0035"
down_revision = "0034"


def upgrade() -> None:
    op.execute("""
        -- Of a bulk registration token everything but the token: who holds a copy of this table
        -- registers nothing.
        CREATE TABLE clients_registration_token (
            id text PRIMARY KEY,
            description text NOT NULL,
            created_by text NOT NULL,
            created_at timestamptz NOT NULL,
            expires_at timestamptz NOT NULL,
            blocked boolean NOT NULL DEFAULT false
        );

        ALTER TABLE clients_client
            ADD COLUMN registered_by text NOT NULL DEFAULT 'directory',
            ADD COLUMN registration_token text NOT NULL DEFAULT '',
            ADD COLUMN hardware_id text NOT NULL DEFAULT '',
            ADD COLUMN obsolete boolean NOT NULL DEFAULT false,
            -- The number of the last batch of messages, and the hardware that sent it.
            ADD COLUMN sequence bigint NOT NULL DEFAULT 0,
            ADD COLUMN sequence_hardware text NOT NULL DEFAULT '',
            -- Which series of inventory reports is being followed, how far, and those before it.
            ADD COLUMN inventory_series text NOT NULL DEFAULT '',
            ADD COLUMN inventory_number bigint NOT NULL DEFAULT 0,
            ADD COLUMN inventory_past text[] NOT NULL DEFAULT '{}',
            ADD COLUMN inventory_wanted boolean NOT NULL DEFAULT false;
        CREATE INDEX ON clients_client (hardware_id) WHERE hardware_id <> '';
        CREATE INDEX ON clients_client (registration_token) WHERE registration_token <> '';
        CREATE INDEX ON clients_client (id) WHERE obsolete;

        -- Two machines that say they are one client, and one machine that is two.
        CREATE TABLE clients_conflict (
            id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
            client_id text NOT NULL REFERENCES clients_client ON DELETE CASCADE,
            kind text NOT NULL,
            other text NOT NULL,
            first_at timestamptz NOT NULL,
            last_at timestamptz NOT NULL,
            times integer NOT NULL DEFAULT 1,
            -- What an administrator decided, until the devices have followed; then resolved_at.
            decision text NOT NULL DEFAULT '',
            decided_by text NOT NULL DEFAULT '',
            resolved_at timestamptz
        );
        CREATE UNIQUE INDEX ON clients_conflict (client_id, kind, other) WHERE resolved_at IS NULL;

        -- The table of devices of both authorities leaves out a record that is superseded.
        DROP TRIGGER fleet_note_change ON clients_client;
        CREATE TRIGGER fleet_note_change
            AFTER UPDATE OF device_id, name, os_version, client_version, blocked, state, obsolete
            ON clients_client FOR EACH ROW EXECUTE FUNCTION fleet_note();

        -- An obsolete client that speaks again has to be noticed, so it gets no answer from memory.
        DROP TRIGGER clients_policy_change ON clients_client;
        CREATE TRIGGER clients_policy_change
            AFTER UPDATE OF id, tenant_id, device_id, thumbprint, blocked, obsolete
            ON clients_client FOR EACH ROW
            WHEN ((OLD.id, OLD.tenant_id, OLD.device_id, OLD.thumbprint, OLD.blocked, OLD.obsolete)
                IS DISTINCT FROM (NEW.id, NEW.tenant_id, NEW.device_id, NEW.thumbprint, NEW.blocked,
                NEW.obsolete))
            EXECUTE FUNCTION clients_policy_of_client();
    """)
