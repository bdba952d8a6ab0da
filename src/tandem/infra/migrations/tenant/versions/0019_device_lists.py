"""Lists of a hundred thousand managed devices: by name, by user, by serial number, by state."""

from alembic import op

revision = "0019"
down_revision = "0018"


def upgrade() -> None:
    # Nothing here is on what changes at each check-in, so a check-in costs no more.
    op.execute("""
        CREATE INDEX enrollment_device_by_name ON enrollment_device (name, id)
            WHERE state <> 'unenrolled';
        CREATE INDEX enrollment_device_by_user ON enrollment_device (upn, id)
            WHERE state <> 'unenrolled';
        CREATE INDEX enrollment_device_serial ON enrollment_device
            (lower(inventory->>'serial_number') text_pattern_ops);
        CREATE INDEX enrollment_device_management ON enrollment_device (lower(management_state));
    """)
