"""Rules that name other collections, evaluations, and what lists of devices and users look up."""

from alembic import op

revision = "0020"
down_revision = "0019"


def upgrade() -> None:
    op.execute("""
        ALTER TABLE collections_rule
            ADD COLUMN other_id text REFERENCES collections_collection,
            DROP CONSTRAINT collections_rule_kind_check,
            ADD CONSTRAINT collections_rule_kind_check
                CHECK (kind IN ('direct', 'query', 'include', 'exclude')),
            ADD CONSTRAINT collections_rule_other_check
                CHECK ((kind IN ('include', 'exclude')) = (other_id IS NOT NULL));
        CREATE UNIQUE INDEX ON collections_rule (collection_id, kind, other_id)
            WHERE other_id IS NOT NULL;
        CREATE INDEX ON collections_rule (other_id) WHERE other_id IS NOT NULL;

        -- What it took to find the members, when somebody asked for it.
        CREATE TABLE collections_evaluation (
            collection_id text PRIMARY KEY REFERENCES collections_collection ON DELETE CASCADE,
            at timestamptz NOT NULL,
            members bigint NOT NULL,
            took_ms double precision NOT NULL,
            before bigint
        );

        CREATE INDEX ON collections_resource (name, id);
        CREATE INDEX ON collections_resource (lower(name) text_pattern_ops);
        CREATE INDEX ON collections_user (upn, id);
        CREATE INDEX ON collections_user (lower(upn) text_pattern_ops);
        CREATE INDEX ON collections_user (lower(name) text_pattern_ops);
        CREATE INDEX ON collections_user (lower(mail) text_pattern_ops);

        -- Who, what and to what are looked for by how they begin.
        CREATE INDEX audit_entry_who ON audit_entry (lower(actor) text_pattern_ops, id);
        CREATE INDEX audit_entry_what ON audit_entry (lower(action) text_pattern_ops, id);
        CREATE INDEX audit_entry_which ON audit_entry (lower(target) text_pattern_ops, id);
        CREATE INDEX audit_entry_named ON audit_entry
            (lower(coalesce(details->>'name', '')) text_pattern_ops, id);

        -- What the last walk along the audit log's chain found.
        CREATE TABLE auditing_verification (
            singleton boolean PRIMARY KEY DEFAULT true CHECK (singleton),
            at timestamptz NOT NULL,
            entries bigint NOT NULL,
            heads bigint NOT NULL,
            signed bigint NOT NULL,
            took_ms double precision NOT NULL,
            problems jsonb NOT NULL
        );
    """)
