"""Schema history of both databases, run by Alembic, written as SQL."""

import logging

import psycopg
from alembic import context, op
from sqlalchemy import create_engine, pool, text

# Any process may start first; the others wait for its migration.
_LOCK = 7_265_482

BASE = """
CREATE TABLE event (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at timestamptz NOT NULL DEFAULT now(),
    kind text NOT NULL,
    subject text NOT NULL,
    data jsonb NOT NULL
);
CREATE INDEX event_kind ON event (kind, id);
CREATE INDEX event_subject ON event (subject, id);

CREATE TABLE audit_entry (
    id bigint PRIMARY KEY,
    at timestamptz NOT NULL,
    actor text NOT NULL,
    action text NOT NULL,
    target text NOT NULL,
    outcome text NOT NULL,
    details jsonb NOT NULL,
    previous bytea NOT NULL,
    digest bytea NOT NULL
);
"""

# Added to both databases in the same words: the log only grows, and its heads are signed.
AUDIT_HEADS = """
CREATE TABLE audit_head (
    number bigint PRIMARY KEY,
    at timestamptz NOT NULL,
    entries bigint NOT NULL,
    digest bytea NOT NULL,
    previous bytea NOT NULL,
    key_id text NOT NULL,
    signature bytea NOT NULL
);
CREATE INDEX audit_entry_at ON audit_entry (at, id);
CREATE INDEX audit_entry_target ON audit_entry (target, id);

CREATE FUNCTION audit_append_only() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% is append-only: rows cannot be changed or removed', TG_TABLE_NAME
        USING ERRCODE = 'insufficient_privilege';
END $$;
CREATE TRIGGER audit_entry_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_entry
    FOR EACH STATEMENT EXECUTE FUNCTION audit_append_only();
CREATE TRIGGER audit_head_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_head
    FOR EACH STATEMENT EXECUTE FUNCTION audit_append_only();
"""


# Also in both databases, in the same words: what wizards of the console were told so far.
CONSOLE_DRAFTS = """
-- A wizard on its way, one row a draft. Secrets and small files are sealed, and gone when it is done.
CREATE TABLE console_draft (
    id uuid PRIMARY KEY,
    kind text NOT NULL,
    owner text NOT NULL,
    -- SHA-256 of the session that last wrote: its typed text is kept when it has ended meanwhile.
    session bytea NOT NULL,
    given jsonb NOT NULL DEFAULT '{}',
    sealed bytea,
    -- The steps that were accepted.
    passed text[] NOT NULL DEFAULT '{}',
    claimed_at timestamptz,
    outcome jsonb,
    created_at timestamptz NOT NULL,
    changed_at timestamptz NOT NULL
);
CREATE INDEX ON console_draft (owner, kind, changed_at);
CREATE INDEX ON console_draft (changed_at);
"""


def jobs_schema() -> None:
    """Procrastinate's own tables, in the version that is installed."""
    from procrastinate.schema import SchemaManager

    # Its SQL holds colons that SQLAlchemy would take for bind parameters.
    op.get_bind().exec_driver_sql(SchemaManager.get_schema().replace("%", "%%"))


def run() -> None:
    logging.getLogger("alembic").setLevel(logging.WARNING)
    dsn: str = context.config.attributes["dsn"]
    # psycopg reads the DSN itself: SQLAlchemy's URLs know fewer forms of it.
    engine = create_engine(
        "postgresql+psycopg://", creator=lambda: psycopg.connect(dsn), poolclass=pool.NullPool
    )
    with engine.connect() as connection:
        connection.execute(text("SELECT pg_advisory_lock(:key)"), {"key": _LOCK})
        connection.commit()
        context.configure(connection=connection, transaction_per_migration=True)
        with context.begin_transaction():
            context.run_migrations()
    engine.dispose()
