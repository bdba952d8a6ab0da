"""What changed in the directory, for delta queries: written by triggers, whoever changes it."""

from alembic import op

revision = "0014"
down_revision = "0013"

# The table, its objects' sort, and columns whose change nobody asks about.
_LOGGED = (
    ("directory_user", "user", ("failures", "locked_until", "password_hash")),
    ("directory_group", "group", ()),
    ("directory_device", "device", ("last_sign_in_at",)),
    ("oidc_application", "application", ()),
    ("oidc_service_principal", "servicePrincipal", ()),
)


def upgrade() -> None:
    op.execute("""
-- A reader may take every row whose transaction is older than all that still run: by `xid` nothing
-- that commits late is missed, as it would be by `seq`.
CREATE TABLE graph_change (
    seq bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    xid bigint NOT NULL DEFAULT pg_current_xact_id()::text::bigint,
    at timestamptz NOT NULL DEFAULT now(),
    sort text NOT NULL,
    object_id uuid NOT NULL,
    what text NOT NULL
        CHECK (what IN ('write', 'delete', 'soft-delete', 'purge', 'member', 'no-member')),
    member_id uuid,
    member_sort text
);
CREATE INDEX graph_change_sort ON graph_change (sort, xid);
CREATE INDEX graph_change_at ON graph_change (at);

CREATE FUNCTION graph_log_inserted() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO graph_change (sort, object_id, what) SELECT TG_ARGV[0], id, 'write' FROM fresh;
    RETURN NULL;
END $$;

CREATE FUNCTION graph_log_updated() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF to_jsonb(OLD) - TG_ARGV[1:] IS DISTINCT FROM to_jsonb(NEW) - TG_ARGV[1:] THEN
        INSERT INTO graph_change (sort, object_id, what) VALUES (TG_ARGV[0], NEW.id, 'write');
    END IF;
    RETURN NULL;
END $$;

CREATE FUNCTION graph_log_deleted() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO graph_change (sort, object_id, what) SELECT TG_ARGV[0], id, 'delete' FROM gone;
    RETURN NULL;
END $$;

CREATE FUNCTION graph_log_soft() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        INSERT INTO graph_change (sort, object_id, what) VALUES (NEW.sort, NEW.id, 'soft-delete');
    ELSE
        INSERT INTO graph_change (sort, object_id, what) VALUES (OLD.sort, OLD.id, 'purge');
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER graph_log AFTER INSERT OR DELETE ON directory_deleted
    FOR EACH ROW EXECUTE FUNCTION graph_log_soft();

CREATE FUNCTION graph_log_joined() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO graph_change (sort, object_id, what, member_id, member_sort)
    SELECT 'group', f.group_id, 'member', f.member_id, o.sort
    FROM fresh f LEFT JOIN directory_object o ON o.id = f.member_id;
    RETURN NULL;
END $$;
CREATE TRIGGER graph_log_joined AFTER INSERT ON directory_member
    REFERENCING NEW TABLE AS fresh FOR EACH STATEMENT EXECUTE FUNCTION graph_log_joined();

CREATE FUNCTION graph_log_left() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO graph_change (sort, object_id, what, member_id, member_sort)
    SELECT 'group', g.group_id, 'no-member', g.member_id, o.sort
    FROM gone g LEFT JOIN directory_object o ON o.id = g.member_id;
    RETURN NULL;
END $$;
CREATE TRIGGER graph_log_left AFTER DELETE ON directory_member
    REFERENCING OLD TABLE AS gone FOR EACH STATEMENT EXECUTE FUNCTION graph_log_left();
""")
    for table, sort, ignored in _LOGGED:
        arguments = ", ".join(f"'{item}'" for item in (sort, *ignored))
        op.execute(f"""
CREATE TRIGGER graph_log_inserted AFTER INSERT ON {table}
    REFERENCING NEW TABLE AS fresh FOR EACH STATEMENT
    EXECUTE FUNCTION graph_log_inserted('{sort}');
CREATE TRIGGER graph_log_updated AFTER UPDATE ON {table}
    FOR EACH ROW EXECUTE FUNCTION graph_log_updated({arguments});
CREATE TRIGGER graph_log_deleted AFTER DELETE ON {table}
    REFERENCING OLD TABLE AS gone FOR EACH STATEMENT
    EXECUTE FUNCTION graph_log_deleted('{sort}');
""")
