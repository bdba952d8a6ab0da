"""Tables of content."""

from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    op.execute("""
    CREATE TABLE content_client_package (
        version text NOT NULL,
        site_code text NOT NULL,
        root_sha256 text NOT NULL,
        product_code text NOT NULL,
        msi_sha256 text NOT NULL,
        msi_size_bytes bigint NOT NULL,
        file_name text NOT NULL,
        sha256 text NOT NULL,
        size_bytes bigint NOT NULL,
        built_at timestamptz NOT NULL,
        PRIMARY KEY (version, site_code, root_sha256)
    );
    """)
