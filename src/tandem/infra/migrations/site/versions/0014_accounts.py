"""Administrators of the tenant are known by their object id."""

from alembic import op

revision = "0014"
down_revision = "0013"


def upgrade() -> None:
    # Names may be given to somebody else. Whoever was added by name alone is found by discovery.
    op.execute("""
        ALTER TABLE administrators_administrator ADD COLUMN object_id text NOT NULL DEFAULT '';
        UPDATE administrators_administrator a SET object_id = u.object_id
            FROM collections_user u
            WHERE a.tenant_id <> '' AND u.tenant_id = a.tenant_id AND lower(u.upn) = lower(a.upn);
        CREATE UNIQUE INDEX ON administrators_administrator (tenant_id, object_id)
            WHERE object_id <> '';
    """)
