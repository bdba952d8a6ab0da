"""When a client became obsolete, and a client known by something else is noticed at once."""

from alembic import op

revision = "0039"
down_revision = "0038"


def upgrade() -> None:
    op.execute("""
        ALTER TABLE clients_client ADD COLUMN obsolete_at timestamptz;
        -- The site's own token ends with it, so it gets no answer from memory.
        DROP TRIGGER clients_policy_change ON clients_client;
        CREATE TRIGGER clients_policy_change
            AFTER UPDATE OF id, tenant_id, device_id, thumbprint, blocked, obsolete, registered_by
            ON clients_client FOR EACH ROW
            WHEN ((OLD.id, OLD.tenant_id, OLD.device_id, OLD.thumbprint, OLD.blocked, OLD.obsolete,
                OLD.registered_by) IS DISTINCT FROM (NEW.id, NEW.tenant_id, NEW.device_id,
                NEW.thumbprint, NEW.blocked, NEW.obsolete, NEW.registered_by))
            EXECUTE FUNCTION clients_policy_of_client();
    """)
