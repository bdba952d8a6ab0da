"""Lines of a device's timeline say what of the site they follow."""

from alembic import op

revision = "0028"
down_revision = "0027"


def upgrade() -> None:
    op.execute("""
        ALTER TABLE enrollment_event ADD COLUMN trace text NOT NULL DEFAULT '';
        CREATE INDEX enrollment_event_trace ON enrollment_event (trace) WHERE trace <> '';
    """)
