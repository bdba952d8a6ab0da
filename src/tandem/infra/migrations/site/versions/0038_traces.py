"""Why devices' policies changed, and devices that leave co-management one by one."""

from alembic import op

revision = "0038"
down_revision = "0037"


def upgrade() -> None:
    op.execute("""
        CREATE TABLE traces_cause (
            id text PRIMARY KEY CHECK (id ~ '^[0-9a-f]{32}$'),
            at timestamptz NOT NULL,
            kind text NOT NULL,
            actor text NOT NULL,
            collections text[] NOT NULL,
            details jsonb NOT NULL
        );
        CREATE INDEX ON traces_cause (at);

        -- One row a client, so that many devices that changed by themselves leave no heap of causes.
        CREATE TABLE traces_given (
            client_id text PRIMARY KEY REFERENCES clients_client ON DELETE CASCADE,
            trace_id text NOT NULL,
            cause_at timestamptz NOT NULL,
            kind text NOT NULL,
            actor text NOT NULL,
            details jsonb NOT NULL,
            given_at timestamptz NOT NULL,
            collections text[] NOT NULL,
            digest text NOT NULL
        );

        -- A device on its way to the MDM service alone, and those that are there: the record of a
        -- client that the site has not any more, so it refers to none.
        CREATE TABLE comanagement_offboarding (
            id text PRIMARY KEY,
            client_id text NOT NULL,
            tenant_id text NOT NULL,
            device_id text NOT NULL,
            resource_id bigint NOT NULL,
            name text NOT NULL,
            state text NOT NULL
                CHECK (state IN ('moving', 'leaving', 'taken', 'done', 'cancelled', 'readmitted')),
            lacking text[] NOT NULL,
            begun_at timestamptz NOT NULL,
            begun_by text NOT NULL,
            changed_at timestamptz NOT NULL,
            changed_by text NOT NULL,
            proof jsonb NOT NULL
        );
        CREATE UNIQUE INDEX comanagement_offboarding_one ON comanagement_offboarding
            (tenant_id, device_id) WHERE state NOT IN ('cancelled', 'readmitted');
        CREATE INDEX comanagement_offboarding_of ON comanagement_offboarding (client_id);
        SELECT clients_policy_reads('comanagement_offboarding');
    """)
