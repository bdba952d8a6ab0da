"""Points at which devices shortened their ledgers, from which the site may drop older entries."""

from alembic import op

revision = "0033"
down_revision = "0032"


def upgrade() -> None:
    op.execute(
        "ALTER TABLE ledgers_ledger"
        " ADD COLUMN checkpoints jsonb NOT NULL DEFAULT '[]',"
        " ADD COLUMN kept_from bigint NOT NULL DEFAULT 1"
    )
