"""What reaches devices has a revision; imported parts of the settings catalogue; outcomes."""

from alembic import op

revision = "0025"
down_revision = "0024"


def upgrade() -> None:
    op.execute("""
        CREATE TABLE policies_ddf (
            name text PRIMARY KEY,
            sha256 text NOT NULL,
            imported_at timestamptz NOT NULL,
            imported_by text NOT NULL,
            -- Nodes as protocols/ddf reads them.
            leaves jsonb NOT NULL
        );

        -- One row. Whoever compiled the policies at a revision may go on with that until it grows.
        CREATE TABLE policies_revision (
            revision bigint NOT NULL,
            catalogue bigint NOT NULL,
            changed_in xid8
        );
        INSERT INTO policies_revision VALUES (1, 0, NULL);

        -- Deferred to the end of a transaction: nobody who holds this row waits for another lock,
        -- so changes made at the same time cannot wait for each other. Once a transaction.
        CREATE FUNCTION policies_changed() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            UPDATE policies_revision SET revision = revision + 1, changed_in = pg_current_xact_id(),
                catalogue = catalogue + CASE WHEN TG_TABLE_NAME = 'policies_ddf' THEN 1 ELSE 0 END
            WHERE changed_in IS DISTINCT FROM pg_current_xact_id() OR TG_TABLE_NAME = 'policies_ddf';
            RETURN NULL;
        END $$;
        CREATE CONSTRAINT TRIGGER policies_changed AFTER INSERT OR UPDATE OR DELETE
            ON policies_ddf DEFERRABLE INITIALLY DEFERRED
            FOR EACH ROW EXECUTE FUNCTION policies_changed();
        -- Another description of a node may change the format in which a setting goes.
        CREATE TRIGGER sessions_changed AFTER INSERT OR UPDATE OR DELETE ON policies_ddf
            FOR EACH STATEMENT EXECUTE FUNCTION sessions_changed();
    """)
    for table, column in (("policies_object", "kind"), ("assignments_assignment", "owner_kind")):
        for event, row in (("INSERT OR UPDATE", "NEW"), ("DELETE", "OLD")):
            name = f"policies_changed_{event[:3].lower()}"
            op.execute(f"""
                CREATE CONSTRAINT TRIGGER {name} AFTER {event}
                    ON {table} DEFERRABLE INITIALLY DEFERRED FOR EACH ROW
                    WHEN ({row}.{column} IN ('deviceConfigurations', 'configurationPolicies'))
                    EXECUTE FUNCTION policies_changed();
            """)
    op.execute("""
        ALTER TABLE sessions_delivery
            ADD COLUMN error text NOT NULL DEFAULT '',
            -- The value went by Add, after the node's Replace had said that it is not there.
            ADD COLUMN added boolean NOT NULL DEFAULT false;
        -- What became of one setting on all devices.
        CREATE INDEX sessions_delivery_subject ON sessions_delivery (subject);
    """)
