"""Traffic of gateways by connection point."""

from alembic import op

revision = "0021"
down_revision = "0020"


def upgrade() -> None:
    op.execute("""
        -- Beside cloud_traffic, whose sums stay right while older code writes them.
        CREATE TABLE cloud_point_traffic (
            connection_point text NOT NULL,
            service_name text NOT NULL,
            endpoint text NOT NULL,
            day date NOT NULL,
            requests bigint NOT NULL,
            failures bigint NOT NULL,
            request_bytes bigint NOT NULL,
            response_bytes bigint NOT NULL,
            elapsed_ms double precision NOT NULL,
            PRIMARY KEY (connection_point, service_name, endpoint, day)
        );
    """)
