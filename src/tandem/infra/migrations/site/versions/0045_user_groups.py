"""Groups of the tenant among the resources, who is in them, and the scope of their discovery."""

from alembic import op

revision = "0045"
down_revision = "0044"


def upgrade() -> None:
    op.execute("""
        ALTER TABLE collections_user ADD kind text NOT NULL DEFAULT 'user'
            CHECK (kind IN ('user', 'group'));
        CREATE OR REPLACE VIEW collections_known_user AS
            SELECT id, tenant_id, object_id, upn, name, mail, sid, properties, discovered_at, kind
            FROM collections_user WHERE gone_at IS NULL;
        CREATE INDEX ON collections_user (lower(name)) WHERE kind = 'group';

        CREATE TABLE collections_group_member (
            group_id bigint NOT NULL REFERENCES collections_user ON DELETE CASCADE,
            user_id bigint NOT NULL REFERENCES collections_user ON DELETE CASCADE,
            PRIMARY KEY (group_id, user_id)
        );
        CREATE INDEX ON collections_group_member (user_id);

        -- Who comes into a group or leaves it is another user for queries, and so is everybody in a
        -- group of which the name changes, or that is gone.
        CREATE FUNCTION collections_note_membership() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            INSERT INTO collections_changed (resource_id, class)
                SELECT DISTINCT user_id, 'sms_r_user' FROM touched;
            RETURN NULL;
        END $$;
        CREATE TRIGGER collections_note_came AFTER INSERT ON collections_group_member
            REFERENCING NEW TABLE AS touched
            FOR EACH STATEMENT EXECUTE FUNCTION collections_note_membership();
        CREATE TRIGGER collections_note_went AFTER DELETE ON collections_group_member
            REFERENCING OLD TABLE AS touched
            FOR EACH STATEMENT EXECUTE FUNCTION collections_note_membership();
        CREATE FUNCTION collections_note_group() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            INSERT INTO collections_changed (resource_id, class)
                SELECT user_id, 'sms_r_user' FROM collections_group_member
                WHERE group_id = NEW.id;
            RETURN NULL;
        END $$;
        CREATE TRIGGER collections_note_group AFTER UPDATE ON collections_user FOR EACH ROW
            WHEN (NEW.kind = 'group'
                AND (OLD.name, OLD.gone_at) IS DISTINCT FROM (NEW.name, NEW.gone_at))
            EXECUTE FUNCTION collections_note_group();

        -- A name that an administrator has given stays: the built-in one then gets a mark.
        INSERT INTO collections_collection (id, name, comment, limiting_id, created_at, type)
            SELECT 'SMS00003', CASE WHEN EXISTS (SELECT 1 FROM collections_collection
                WHERE lower(name) = lower('All User Groups')) THEN 'All User Groups (SMS00003)'
                ELSE 'All User Groups' END, 'All groups of users that discovery has found.',
                'SMS00004', now(), 'user';

        ALTER TABLE discovery_schedule
            ADD groups_enabled boolean NOT NULL DEFAULT false,
            -- 0 is never.
            ADD groups_hours integer NOT NULL DEFAULT 24,
            ADD groups_at timestamptz;
        ALTER TABLE discovery_run ADD groups integer NOT NULL DEFAULT 0;
        CREATE TABLE discovery_group (
            service_id text NOT NULL,
            object_id text NOT NULL,
            name text NOT NULL,
            added_at timestamptz NOT NULL,
            -- As the last run found it: security (it is a resource), other (only its members are),
            -- gone (the tenant does not have it any more); empty before.
            state text NOT NULL DEFAULT '',
            members integer NOT NULL DEFAULT 0,
            PRIMARY KEY (service_id, object_id)
        );
    """)
