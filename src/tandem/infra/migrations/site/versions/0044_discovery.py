"""When discovery of a tenant's users runs by itself, and users who are not in the tenant any more."""

from alembic import op

revision = "0044"
down_revision = "0043"


def upgrade() -> None:
    op.execute("""
        CREATE TABLE discovery_schedule (
            service_id text PRIMARY KEY,
            -- 0 is never.
            full_days integer NOT NULL DEFAULT 7,
            delta_minutes integer NOT NULL DEFAULT 0,
            -- When a run of each kind was last asked for, by the schedule or by somebody.
            full_at timestamptz,
            delta_at timestamptz,
            -- Graph's deltaLink; empty before the first full run that delta follows.
            delta_link text NOT NULL DEFAULT ''
        );
        ALTER TABLE discovery_run ADD removed integer NOT NULL DEFAULT 0;

        -- Who is not in the tenant any more is in no collection, and may still come back.
        ALTER TABLE collections_user ADD gone_at timestamptz;
        CREATE INDEX ON collections_user (gone_at) WHERE gone_at IS NOT NULL;
        CREATE VIEW collections_known_user AS
            SELECT id, tenant_id, object_id, upn, name, mail, sid, properties, discovered_at
            FROM collections_user WHERE gone_at IS NULL;

        CREATE TRIGGER collections_note_gone AFTER UPDATE ON collections_user FOR EACH ROW
            WHEN (OLD.gone_at IS NULL AND NEW.gone_at IS NOT NULL)
            EXECUTE FUNCTION collections_note_user_leaver();
        CREATE FUNCTION collections_note_user_return() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            INSERT INTO collections_changed (resource_id, class) VALUES (NEW.id, '');
            RETURN NULL;
        END $$;
        CREATE TRIGGER collections_note_return AFTER UPDATE ON collections_user FOR EACH ROW
            WHEN (OLD.gone_at IS NOT NULL AND NEW.gone_at IS NULL)
            EXECUTE FUNCTION collections_note_user_return();
    """)
