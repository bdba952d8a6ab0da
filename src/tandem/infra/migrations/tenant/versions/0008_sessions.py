"""Tables of sessions."""

from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    op.execute("""
        -- The one session that a device has at a time.
        CREATE TABLE sessions_session (
            device_id text PRIMARY KEY REFERENCES enrollment_device ON DELETE CASCADE,
            session text NOT NULL,
            number integer NOT NULL,
            answer bytea NOT NULL,
            sent jsonb NOT NULL,
            asked boolean NOT NULL,
            changed_at timestamptz NOT NULL
        );

        -- Single orders of an administrator. Settings and apps are not here: they are computed.
        CREATE TABLE sessions_command (
            id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
            device_id text NOT NULL REFERENCES enrollment_device ON DELETE CASCADE,
            kind text NOT NULL,
            state text NOT NULL,
            created_at timestamptz NOT NULL,
            sent_at timestamptz,
            done_at timestamptz
        );
        CREATE INDEX ON sessions_command (device_id) WHERE state <> 'done';

        -- What a device has taken, and what of it, so nothing is sent twice.
        CREATE TABLE sessions_delivery (
            device_id text NOT NULL REFERENCES enrollment_device ON DELETE CASCADE,
            subject text NOT NULL,
            value text NOT NULL,
            code integer NOT NULL,
            source text NOT NULL,
            at timestamptz NOT NULL,
            PRIMARY KEY (device_id, subject)
        );
    """)
