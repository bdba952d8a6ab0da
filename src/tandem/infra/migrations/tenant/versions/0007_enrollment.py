"""Tables of enrollment."""

from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    op.execute("""
        CREATE TABLE enrollment_authority (
            singleton boolean PRIMARY KEY DEFAULT true CHECK (singleton),
            sealed_key bytea NOT NULL,
            certificate bytea NOT NULL
        );

        CREATE TABLE enrollment_device (
            id text PRIMARY KEY,
            windows_id text NOT NULL,
            hardware_id text NOT NULL,
            directory_device_id text NOT NULL,
            user_id text NOT NULL,
            upn text NOT NULL,
            name text NOT NULL,
            os_version text NOT NULL,
            kind text NOT NULL,
            state text NOT NULL CHECK (state IN ('enrolled', 'unenrolling', 'unenrolled')),
            fingerprint text NOT NULL UNIQUE,
            enrolled_at timestamptz NOT NULL,
            seen_at timestamptz,
            ended_at timestamptz,
            inventory jsonb NOT NULL DEFAULT '{}',
            inventory_at timestamptz,
            -- What the agent says of itself (DeviceManageability ConfigInfo).
            config_info text NOT NULL DEFAULT '',
            config_info_at timestamptz
        );
        CREATE INDEX ON enrollment_device (directory_device_id);
        CREATE INDEX ON enrollment_device (user_id);

        CREATE TABLE enrollment_event (
            id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
            device_id text NOT NULL,
            directory_device_id text NOT NULL,
            at timestamptz NOT NULL,
            kind text NOT NULL,
            text text NOT NULL,
            code text NOT NULL
        );
        CREATE INDEX ON enrollment_event (device_id, id);
        CREATE INDEX ON enrollment_event (directory_device_id, id);
    """)
