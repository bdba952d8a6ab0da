"""By which carrier a connection point holds a tunnel, and what failed before."""

from alembic import op

revision = "0047"
down_revision = "0046"


def upgrade() -> None:
    op.execute("""
        ALTER TABLE cloud_connection
            ADD COLUMN carrier text NOT NULL DEFAULT '',
            -- The web proxy that it goes through.
            ADD COLUMN through text NOT NULL DEFAULT '',
            -- Of late, the latest first: at (seconds since 1970), carrier, reason.
            ADD COLUMN failures jsonb NOT NULL DEFAULT '[]';
    """)
