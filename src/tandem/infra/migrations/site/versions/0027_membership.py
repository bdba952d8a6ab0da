"""Members that were found, what changed since, and how often collections are evaluated."""

from alembic import op

revision = "0027"
down_revision = "0026"


def upgrade() -> None:
    op.execute("""
        ALTER TABLE collections_collection
            ADD incremental boolean NOT NULL DEFAULT true,
            -- 0: never by itself.
            ADD full_every_minutes integer NOT NULL DEFAULT 10080 CHECK (full_every_minutes >= 0),
            -- A collection that is new is due at once.
            ADD full_due_at timestamptz DEFAULT now(),
            -- Why it could not be evaluated.
            ADD trouble text NOT NULL DEFAULT '';
        CREATE INDEX ON collections_collection (full_due_at);

        ALTER TABLE collections_evaluation
            ADD changed_at timestamptz,
            ADD incremental_at timestamptz,
            ADD incremental_ms double precision,
            ADD incremental_runs bigint NOT NULL DEFAULT 0,
            ADD incremental_total_ms double precision NOT NULL DEFAULT 0;

        CREATE TABLE collections_member (
            collection_id text NOT NULL REFERENCES collections_collection ON DELETE CASCADE,
            resource_id bigint NOT NULL REFERENCES collections_resource ON DELETE CASCADE,
            since timestamptz NOT NULL,
            PRIMARY KEY (collection_id, resource_id)
        );
        CREATE INDEX ON collections_member (resource_id);

        -- Resources that queries may answer otherwise than before, and collections whose rules did.
        -- What is noted twice is looked at once. No row is shared, so nobody waits for anybody.
        CREATE TABLE collections_changed (
            sequence bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
            resource_id bigint NOT NULL
        );
        CREATE TABLE collections_stale (
            sequence bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
            collection_id text NOT NULL
        );

        CREATE FUNCTION collections_note_resource() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            INSERT INTO collections_changed (resource_id) VALUES (NEW.id);
            RETURN NULL;
        END $$;
        CREATE TRIGGER collections_note AFTER INSERT ON collections_resource
            FOR EACH ROW EXECUTE FUNCTION collections_note_resource();
        CREATE TRIGGER collections_note_change AFTER UPDATE ON collections_resource FOR EACH ROW
            WHEN ((OLD.name, OLD.client_id, OLD.tenant_id, OLD.device_id, OLD.os_name,
                OLD.os_version, OLD.client_version) IS DISTINCT FROM (NEW.name, NEW.client_id,
                NEW.tenant_id, NEW.device_id, NEW.os_name, NEW.os_version, NEW.client_version))
            EXECUTE FUNCTION collections_note_resource();

        CREATE FUNCTION collections_note_inventory() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            INSERT INTO collections_changed (resource_id) SELECT DISTINCT resource_id FROM touched;
            RETURN NULL;
        END $$;
        CREATE TRIGGER collections_note_new AFTER INSERT ON collections_inventory
            REFERENCING NEW TABLE AS touched FOR EACH STATEMENT
            EXECUTE FUNCTION collections_note_inventory();
        CREATE TRIGGER collections_note_change AFTER UPDATE ON collections_inventory
            REFERENCING NEW TABLE AS touched FOR EACH STATEMENT
            EXECUTE FUNCTION collections_note_inventory();
        CREATE TRIGGER collections_note_gone AFTER DELETE ON collections_inventory
            REFERENCING OLD TABLE AS touched FOR EACH STATEMENT
            EXECUTE FUNCTION collections_note_inventory();

        CREATE FUNCTION collections_note_rules() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            INSERT INTO collections_stale (collection_id)
                SELECT DISTINCT collection_id FROM touched;
            RETURN NULL;
        END $$;
        CREATE TRIGGER collections_note_new AFTER INSERT ON collections_rule
            REFERENCING NEW TABLE AS touched FOR EACH STATEMENT
            EXECUTE FUNCTION collections_note_rules();
        CREATE TRIGGER collections_note_gone AFTER DELETE ON collections_rule
            REFERENCING OLD TABLE AS touched FOR EACH STATEMENT
            EXECUTE FUNCTION collections_note_rules();

        -- Collections of a device that goes have a member less.
        CREATE FUNCTION collections_note_leaver() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            INSERT INTO collections_stale (collection_id)
                SELECT collection_id FROM collections_member WHERE resource_id = OLD.id;
            RETURN OLD;
        END $$;
        CREATE TRIGGER collections_note_leaver BEFORE DELETE ON collections_resource
            FOR EACH ROW EXECUTE FUNCTION collections_note_leaver();

        CREATE FUNCTION collections_note_limit() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            INSERT INTO collections_stale (collection_id) VALUES (NEW.id);
            RETURN NULL;
        END $$;
        CREATE TRIGGER collections_note_limit AFTER UPDATE ON collections_collection FOR EACH ROW
            WHEN (OLD.limiting_id IS DISTINCT FROM NEW.limiting_id)
            EXECUTE FUNCTION collections_note_limit();
    """)
