"""Drafts of the console's wizards."""

from alembic import op

from tandem.infra import migrations

revision = "0017"
down_revision = "0016"


def upgrade() -> None:
    op.execute(migrations.CONSOLE_DRAFTS)
