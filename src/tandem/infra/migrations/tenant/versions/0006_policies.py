"""Tables of policies."""

from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    op.execute("""
        CREATE TABLE policies_configuration (
            id text PRIMARY KEY,
            name text NOT NULL,
            workload text NOT NULL,
            setting text NOT NULL,
            value text NOT NULL,
            created_at timestamptz NOT NULL,
            changed_at timestamptz NOT NULL
        );
        CREATE UNIQUE INDEX ON policies_configuration (lower(name));

        CREATE TABLE policies_assignment (
            configuration_id text NOT NULL REFERENCES policies_configuration ON DELETE CASCADE,
            group_id text NOT NULL,
            excluded boolean NOT NULL,
            PRIMARY KEY (configuration_id, group_id)
        );
    """)
