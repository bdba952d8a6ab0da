"""Whether a gateway answers check-ins without news itself."""

from alembic import op

revision = "0054"
down_revision = "0050"


def upgrade() -> None:
    op.execute("ALTER TABLE cloud_gateway ADD COLUMN edge_answers boolean NOT NULL DEFAULT true")
