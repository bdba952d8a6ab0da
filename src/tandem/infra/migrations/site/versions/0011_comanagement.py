"""Tables of comanagement."""

from alembic import op

revision = "0011"
down_revision = "0010"


def upgrade() -> None:
    op.execute("""
        CREATE TABLE comanagement_enablement (
            singleton boolean PRIMARY KEY DEFAULT true CHECK (singleton),
            tenant_id text NOT NULL,
            auto_enroll text NOT NULL,
            -- The policy that is deployed to it keeps it from being deleted while it matters.
            collection_id text REFERENCES collections_collection ON DELETE SET NULL,
            enabled_at timestamptz NOT NULL,
            enabled_by text NOT NULL
        );

        CREATE TABLE comanagement_workload (
            workload text PRIMARY KEY,
            position text NOT NULL,
            collection_id text REFERENCES collections_collection ON DELETE SET NULL,
            changed_at timestamptz NOT NULL,
            changed_by text NOT NULL
        );

        CREATE TABLE comanagement_policy (
            id text PRIMARY KEY,
            name text NOT NULL UNIQUE,
            kind text NOT NULL CHECK (kind IN ('production', 'pilot')),
            collection_id text NOT NULL REFERENCES collections_collection,
            allow boolean NOT NULL,
            auto_enroll boolean NOT NULL,
            capabilities integer NOT NULL,
            version integer NOT NULL,
            changed_at timestamptz NOT NULL
        );
    """)
