"""A managed device's name as administrators give it, in place of the one that is put together."""

from alembic import op

revision = "0015"
down_revision = "0014"


def upgrade() -> None:
    op.execute("ALTER TABLE enrollment_device ADD COLUMN managed_name text")
