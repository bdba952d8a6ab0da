"""Tables of settings."""

from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    op.execute("""
        CREATE TABLE settings_default (
            name text PRIMARY KEY,
            value jsonb NOT NULL,
            changed_at timestamptz NOT NULL,
            changed_by text NOT NULL
        );
    """)
