"""Managed devices as administrators' scripts list and order them about."""

from alembic import op

revision = "0011"
down_revision = "0010"


def upgrade() -> None:
    op.execute("""
        -- What lists filter by, out of the agent's own account (config_info).
        ALTER TABLE enrollment_device
            ADD COLUMN management_agent text NOT NULL DEFAULT 'mdm',
            ADD COLUMN workload_flags integer NOT NULL DEFAULT 0,
            ADD COLUMN management_state text NOT NULL DEFAULT 'managed',
            ADD COLUMN owner_type text NOT NULL DEFAULT 'company',
            ADD COLUMN notes text;
        UPDATE enrollment_device SET
            management_agent = CASE
                WHEN config_info LIKE '%policy=1%' THEN 'configurationManagerClientMdm'
                WHEN config_info ~ 'client=[^;]' THEN 'configurationManagerClient'
                ELSE 'mdm' END,
            workload_flags = coalesce(substring(config_info FROM 'flags=([0-9]{1,9})')::integer, 0),
            management_state = CASE state WHEN 'unenrolling' THEN 'retirePending' ELSE 'managed' END;
        CREATE INDEX enrollment_device_name ON enrollment_device (lower(name) text_pattern_ops);
        CREATE INDEX enrollment_device_upn ON enrollment_device (lower(upn) text_pattern_ops);
        CREATE INDEX enrollment_device_agent ON enrollment_device (lower(management_agent))
            WHERE management_agent <> 'mdm';

        -- What an order carries besides its kind, and what the device answered.
        ALTER TABLE sessions_command
            ADD COLUMN data text NOT NULL DEFAULT '',
            ADD COLUMN code integer;
        CREATE INDEX sessions_command_of ON sessions_command (device_id, id);
    """)
