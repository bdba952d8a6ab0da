"""That a device came is written in place, without touching an index.

The index of devices that never came had `seen_at` in its condition, so each session wrote all indexes
of the table anew. It asks a column now that changes once in a device's life; pages keep room for the
new version of a row.
"""

from alembic import op

revision = "0027"
down_revision = "0026"


def upgrade() -> None:
    op.execute("""
        DROP INDEX enrollment_device_pending;
        ALTER TABLE enrollment_device SET (fillfactor = 85);
        ALTER TABLE enrollment_device
            ADD COLUMN never_came boolean GENERATED ALWAYS AS (seen_at IS NULL) STORED;
        CREATE INDEX enrollment_device_pending ON enrollment_device (enrolled_at)
            WHERE never_came AND state = 'enrolled';
        ALTER TABLE sessions_session SET (fillfactor = 70);
    """)
