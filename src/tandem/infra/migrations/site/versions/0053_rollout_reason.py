"""Why a roll-out that reaches far is asked for, and until when it may be approved."""

from alembic import op

revision = "0053"
down_revision = "0049"


def upgrade() -> None:
    op.execute("""
        ALTER TABLE comanagement_rollout
            ADD COLUMN reason text NOT NULL DEFAULT '',
            ADD COLUMN asked_at timestamptz;
        UPDATE comanagement_rollout SET asked_at = created_at;
    """)
