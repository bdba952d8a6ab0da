"""The web proxy by which a connection point leaves its network, with its account's password sealed."""

from alembic import op

revision = "0058"
down_revision = "0054"


def upgrade() -> None:
    op.execute("""
        ALTER TABLE cloud_connection_point
            ADD COLUMN web_proxy text NOT NULL DEFAULT '',
            ADD COLUMN web_proxy_user text NOT NULL DEFAULT '',
            ADD COLUMN sealed_web_proxy_password bytea;
    """)
