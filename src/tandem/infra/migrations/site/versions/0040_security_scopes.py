"""Security scopes, and what an administrator is limited to."""

from alembic import op

revision = "0040"
down_revision = "0039"


def upgrade() -> None:
    op.execute("""
        CREATE TABLE administrators_scope (
            name text PRIMARY KEY,
            comment text NOT NULL DEFAULT '',
            created_at timestamptz NOT NULL DEFAULT now()
        );
        CREATE UNIQUE INDEX ON administrators_scope (lower(name));
        INSERT INTO administrators_scope (name, comment) VALUES
            ('All', 'Every object, whatever its scopes.'),
            ('Default', 'What no other scope was given to.');

        -- Who was an administrator before there were scopes stays one over everything. Without a
        -- collection somebody is not limited by collections.
        ALTER TABLE administrators_administrator
            ADD COLUMN scopes text[] NOT NULL DEFAULT ARRAY['All'],
            ADD COLUMN collections text[] NOT NULL DEFAULT ARRAY[]::text[];

        -- An object without a row has the scope Default.
        CREATE TABLE administrators_scoped (
            kind text NOT NULL,
            object_id text NOT NULL,
            scope text NOT NULL REFERENCES administrators_scope ON UPDATE CASCADE,
            PRIMARY KEY (kind, object_id, scope)
        );
        CREATE INDEX ON administrators_scoped (scope);

        -- What waits for a second administrator is to have the scopes of who asked.
        ALTER TABLE deployments_request
            ADD COLUMN scopes text[] NOT NULL DEFAULT ARRAY['Default'];
    """)
