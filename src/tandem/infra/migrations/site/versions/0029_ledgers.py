"""Ledgers of devices: entries as their keys signed them, and what the site found out about each."""

from alembic import op

revision = "0029"
down_revision = "0028"


def upgrade() -> None:
    op.execute("""
        CREATE TABLE ledgers_ledger (
            id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
            client_id text NOT NULL REFERENCES clients_client ON DELETE CASCADE,
            thumbprint text NOT NULL,
            key jsonb NOT NULL,
            began_at timestamptz NOT NULL,
            received_at timestamptz NOT NULL,
            account jsonb NOT NULL,
            findings jsonb NOT NULL,
            UNIQUE (client_id, thumbprint)
        );
        -- Two entries of one number are a fork, and both are kept.
        CREATE TABLE ledgers_entry (
            ledger_id bigint NOT NULL REFERENCES ledgers_ledger ON DELETE CASCADE,
            number bigint NOT NULL,
            digest bytea NOT NULL,
            text text NOT NULL,
            received_at timestamptz NOT NULL,
            PRIMARY KEY (ledger_id, digest)
        );
        CREATE INDEX ON ledgers_entry (ledger_id, number);
    """)
