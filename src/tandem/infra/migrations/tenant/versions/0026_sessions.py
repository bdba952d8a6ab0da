"""Sessions without a certificate, how sessions go, large objects, and commands set aside."""

from alembic import op

revision = "0026"
down_revision = "0025"


def upgrade() -> None:
    op.execute("""
        CREATE TABLE enrollment_session_secret (
            device_id text PRIMARY KEY REFERENCES enrollment_device ON DELETE CASCADE,
            sealed bytea NOT NULL,
            nonce bytea NOT NULL,
            accepted bigint NOT NULL DEFAULT 0
        );
        ALTER TABLE sessions_session ADD COLUMN course jsonb NOT NULL DEFAULT '{}';
        -- The data of a node that a device sends in parts; one at a time.
        CREATE TABLE sessions_object (
            device_id text PRIMARY KEY REFERENCES enrollment_device ON DELETE CASCADE,
            size integer NOT NULL,
            data text NOT NULL
        );
        CREATE TABLE sessions_hold (
            device_id text NOT NULL REFERENCES enrollment_device ON DELETE CASCADE,
            kind text NOT NULL,
            subject text NOT NULL,
            value_mark text NOT NULL,
            code integer NOT NULL,
            reason text NOT NULL,
            at timestamptz NOT NULL,
            PRIMARY KEY (device_id, kind, subject)
        );
        CREATE INDEX sessions_hold_subject ON sessions_hold (subject);
        CREATE TABLE sessions_capability (
            device_id text PRIMARY KEY REFERENCES enrollment_device ON DELETE CASCADE,
            build text NOT NULL,
            csps jsonb NOT NULL
        );
        -- Devices that have left and still call: a restored image, or one that was never told.
        CREATE TABLE sessions_stray (
            device_id text PRIMARY KEY REFERENCES enrollment_device ON DELETE CASCADE,
            first_at timestamptz NOT NULL,
            last_at timestamptz NOT NULL,
            calls integer NOT NULL DEFAULT 1,
            ordered_at timestamptz,
            told_at timestamptz
        );
    """)
