"""Collections of users, built-in collections, what a change changed, deployments that wait."""

from alembic import op

revision = "0036"
down_revision = "0035"


def upgrade() -> None:
    op.execute("""
        ALTER TABLE collections_collection ADD type text NOT NULL DEFAULT 'device'
            CHECK (type IN ('device', 'user'));

        ALTER TABLE collections_rule
            ADD user_id bigint REFERENCES collections_user ON DELETE CASCADE,
            DROP CONSTRAINT collections_rule_check,
            ADD CONSTRAINT collections_rule_direct_check
                CHECK ((kind = 'direct') = (num_nonnulls(resource_id, user_id) = 1)),
            ADD CONSTRAINT collections_rule_one_check
                CHECK (num_nonnulls(resource_id, user_id) < 2);
        CREATE UNIQUE INDEX ON collections_rule (collection_id, user_id) WHERE user_id IS NOT NULL;
        -- Which collections name a resource that has changed.
        CREATE INDEX ON collections_rule (resource_id) WHERE resource_id IS NOT NULL;
        CREATE INDEX ON collections_rule (user_id) WHERE user_id IS NOT NULL;

        CREATE TABLE collections_user_member (
            collection_id text NOT NULL REFERENCES collections_collection ON DELETE CASCADE,
            resource_id bigint NOT NULL REFERENCES collections_user ON DELETE CASCADE,
            since timestamptz NOT NULL,
            PRIMARY KEY (collection_id, resource_id)
        );
        CREATE INDEX ON collections_user_member (resource_id);

        -- Empty: the resource is new. Otherwise the class that says something else of it now.
        ALTER TABLE collections_changed ADD class text NOT NULL DEFAULT '';

        CREATE OR REPLACE FUNCTION collections_note_resource() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            INSERT INTO collections_changed (resource_id, class) VALUES (NEW.id,
                CASE WHEN TG_OP = 'INSERT' THEN '' ELSE coalesce(TG_ARGV[0], 'sms_r_system') END);
            RETURN NULL;
        END $$;
        CREATE OR REPLACE FUNCTION collections_note_inventory() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            INSERT INTO collections_changed (resource_id, class)
                SELECT DISTINCT resource_id, class FROM touched;
            RETURN NULL;
        END $$;

        CREATE TRIGGER collections_note AFTER INSERT ON collections_user
            FOR EACH ROW EXECUTE FUNCTION collections_note_resource('sms_r_user');
        CREATE TRIGGER collections_note_change AFTER UPDATE ON collections_user FOR EACH ROW
            WHEN ((OLD.tenant_id, OLD.object_id, OLD.upn, OLD.name, OLD.mail, OLD.sid,
                OLD.properties) IS DISTINCT FROM (NEW.tenant_id, NEW.object_id, NEW.upn, NEW.name,
                NEW.mail, NEW.sid, NEW.properties))
            EXECUTE FUNCTION collections_note_resource('sms_r_user');
        CREATE FUNCTION collections_note_user_leaver() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            INSERT INTO collections_stale (collection_id)
                SELECT collection_id FROM collections_user_member WHERE resource_id = OLD.id;
            RETURN OLD;
        END $$;
        CREATE TRIGGER collections_note_leaver BEFORE DELETE ON collections_user
            FOR EACH ROW EXECUTE FUNCTION collections_note_user_leaver();

        -- A name that an administrator has given stays: the built-in one then gets a mark.
        INSERT INTO collections_collection (id, name, comment, limiting_id, created_at, type)
            SELECT b.id, CASE WHEN EXISTS (SELECT 1 FROM collections_collection c
                WHERE lower(c.name) = lower(b.name)) THEN b.name || ' (' || b.id || ')'
                ELSE b.name END, b.comment, b.limiting_id, now(), b.type
            FROM (VALUES
                (1, 'SMS00004', 'All Users and User Groups', 'All users that the site knows.',
                    NULL, 'user'),
                (2, 'SMS00002', 'All Users', 'All users that discovery has found.', 'SMS00004',
                    'user'),
                (3, 'SMSDM003', 'All Desktop and Server Clients', 'All devices that have a client.',
                    'SMS00001', 'device'),
                (4, 'SMS000CE', 'Co-management Eligible Devices',
                    'All devices that could be co-managed.', 'SMS00001', 'device')
            ) b (place, id, name, comment, limiting_id, type) ORDER BY place;

        -- Deployments to many devices wait for a second administrator.
        CREATE TABLE deployments_request (
            id text PRIMARY KEY,
            name text NOT NULL,
            workload text NOT NULL,
            setting text NOT NULL,
            value text NOT NULL,
            collection_id text NOT NULL REFERENCES collections_collection ON DELETE CASCADE,
            reason text NOT NULL,
            devices bigint NOT NULL,
            asked_by text NOT NULL,
            asked_at timestamptz NOT NULL,
            expires_at timestamptz NOT NULL
        );
    """)
