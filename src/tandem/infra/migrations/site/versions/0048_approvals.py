"""What waits for a second administrator; a decision about an update is of a collection that exists."""

from alembic import op

revision = "0048"
down_revision = "0047"


def upgrade() -> None:
    op.execute("""
        CREATE TABLE approvals_request (
            id text PRIMARY KEY,
            kind text NOT NULL,
            name text NOT NULL,
            subject jsonb NOT NULL,
            collection_id text NOT NULL REFERENCES collections_collection ON DELETE CASCADE,
            reason text NOT NULL,
            devices integer NOT NULL,
            asked_by text NOT NULL,
            asked_at timestamptz NOT NULL,
            expires_at timestamptz NOT NULL
        );

        DELETE FROM software_updates_decision d WHERE NOT EXISTS (
            SELECT FROM collections_collection c WHERE c.id = d.collection_id);
        ALTER TABLE software_updates_decision ADD CONSTRAINT software_updates_decision_of_collection
            FOREIGN KEY (collection_id) REFERENCES collections_collection;
    """)
