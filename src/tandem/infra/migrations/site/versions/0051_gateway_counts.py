"""What gateways count themselves, by the hour, each word of theirs once."""

from alembic import op

revision = "0051"
down_revision = "0053"


def upgrade() -> None:
    op.execute("""
        -- Beside cloud_traffic, which is what connection points counted: here is what went over the
        -- internet. Days that are long past are kept as one hour, their first.
        CREATE TABLE cloud_gateway_traffic (
            service_name text NOT NULL,
            instance integer NOT NULL,
            connection_point text NOT NULL,
            endpoint text NOT NULL,
            hour timestamptz NOT NULL,
            requests bigint NOT NULL,
            failures bigint NOT NULL,
            request_bytes bigint NOT NULL,
            response_bytes bigint NOT NULL,
            elapsed_ms double precision NOT NULL,
            PRIMARY KEY (service_name, hour, endpoint, connection_point, instance)
        );

        -- The last that was taken of each process that counts: what has come counts once.
        CREATE TABLE cloud_told (
            source text NOT NULL,
            run text NOT NULL,
            sequence bigint NOT NULL,
            told_at timestamptz NOT NULL,
            PRIMARY KEY (source, run)
        );

        -- Who is online at each worker of a gateway.
        CREATE TABLE cloud_gateway_worker (
            service_name text NOT NULL REFERENCES cloud_gateway ON DELETE CASCADE,
            instance integer NOT NULL,
            worker integer NOT NULL,
            connections integer NOT NULL,
            online integer NOT NULL,
            told_at timestamptz NOT NULL,
            PRIMARY KEY (service_name, instance, worker)
        );
    """)
