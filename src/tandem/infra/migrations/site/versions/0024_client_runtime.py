"""The client package with or without a Windows Python runtime: another file, another product."""

from alembic import op

revision = "0024"
down_revision = "0023"


def upgrade() -> None:
    op.execute("""
        ALTER TABLE content_client_package ADD runtime_sha256 text NOT NULL DEFAULT '',
            DROP CONSTRAINT content_client_package_pkey,
            ADD PRIMARY KEY (version, site_code, root_sha256, runtime_sha256);
    """)
