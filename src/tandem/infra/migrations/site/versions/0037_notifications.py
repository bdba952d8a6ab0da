"""Client notification: operations, what became of them on each device, and who can be told now."""

from alembic import op

revision = "0037"
down_revision = "0036"


def upgrade() -> None:
    op.execute("""
        CREATE TABLE notifications_operation (
            id text PRIMARY KEY,
            action text NOT NULL,
            -- The name of the device or collection, as it was then.
            target text NOT NULL,
            collection_id text,
            client_id text,
            devices integer NOT NULL,
            created_at timestamptz NOT NULL,
            created_by text NOT NULL,
            expires_at timestamptz NOT NULL,
            canceled_at timestamptz,
            canceled_by text NOT NULL DEFAULT ''
        );
        CREATE INDEX notifications_operation_newest ON notifications_operation (created_at DESC, id);
        CREATE TABLE notifications_order (
            operation_id text NOT NULL REFERENCES notifications_operation ON DELETE CASCADE,
            client_id text NOT NULL REFERENCES clients_client ON DELETE CASCADE,
            state text NOT NULL CHECK
                (state IN ('waiting', 'sent', 'received', 'done', 'failed', 'canceled')),
            sent_at timestamptz,
            received_at timestamptz,
            ended_at timestamptz,
            code text NOT NULL DEFAULT '',
            text text NOT NULL DEFAULT '',
            PRIMARY KEY (operation_id, client_id)
        );
        CREATE INDEX notifications_order_client ON notifications_order (client_id);
        -- What each device is asked on every request of its channel.
        CREATE INDEX notifications_order_due ON notifications_order (client_id)
            WHERE state IN ('waiting', 'sent');
        CREATE TABLE notifications_channel (
            client_id text PRIMARY KEY REFERENCES clients_client ON DELETE CASCADE,
            asked_at timestamptz NOT NULL,
            network text NOT NULL,
            reason text NOT NULL,
            since timestamptz
        ) WITH (fillfactor = 70);
    """)
