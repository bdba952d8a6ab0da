"""Changes of what policies are computed from are told, so that answers can be kept in memory."""

from alembic import op

revision = "0032"
down_revision = "0031"


def upgrade() -> None:
    op.execute(r"""
        -- Of one client by its id; '' of all of them.
        CREATE FUNCTION clients_policy_tell(client_id text) RETURNS void LANGUAGE sql AS $$
            SELECT pg_notify('clients_policy', client_id)
        $$;

        CREATE FUNCTION clients_policy_of_all() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            IF EXISTS (SELECT FROM touched) THEN
                PERFORM clients_policy_tell('');
            END IF;
            RETURN NULL;
        END $$;

        -- For a table of which any row may concern any device. Migrations that add such a table to
        -- what a policy is computed from call this with its name.
        CREATE FUNCTION clients_policy_reads(read regclass) RETURNS void LANGUAGE plpgsql AS $$
        DECLARE
            what text;
        BEGIN
            FOREACH what IN ARRAY ARRAY['INSERT', 'UPDATE', 'DELETE'] LOOP
                EXECUTE format(
                    'CREATE TRIGGER clients_policy_%s AFTER %s ON %s REFERENCING %s TABLE AS touched'
                    ' FOR EACH STATEMENT EXECUTE FUNCTION clients_policy_of_all()',
                    lower(what), what, read, CASE what WHEN 'DELETE' THEN 'OLD' ELSE 'NEW' END
                );
            END LOOP;
        END $$;

        SELECT clients_policy_reads('settings_default');
        SELECT clients_policy_reads('comanagement_policy');
        SELECT clients_policy_reads('comanagement_exclusion');
        SELECT clients_policy_reads('comanagement_enablement');
        SELECT clients_policy_reads('comanagement_enroll_now');
        SELECT clients_policy_reads('deployments_configuration');
        SELECT clients_policy_reads('collections_rule');
        SELECT clients_policy_reads('clients_token_key');

        -- Of a collection only what it is limited by; when it is evaluated is written all the time.
        CREATE FUNCTION clients_policy_of_collection() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            PERFORM clients_policy_tell('');
            RETURN NULL;
        END $$;
        CREATE TRIGGER clients_policy_known AFTER INSERT OR DELETE ON collections_collection
            FOR EACH ROW EXECUTE FUNCTION clients_policy_of_collection();
        CREATE TRIGGER clients_policy_limit AFTER UPDATE ON collections_collection FOR EACH ROW
            WHEN ((OLD.id, OLD.limiting_id) IS DISTINCT FROM (NEW.id, NEW.limiting_id))
            EXECUTE FUNCTION clients_policy_of_collection();

        -- Whether a query may ask one device about another: it has a select in brackets that is
        -- compared with something else than the device's own number, or joins by something else.
        -- What is in doubt may.
        CREATE FUNCTION collections_looks_across(query text) RETURNS boolean
            LANGUAGE sql IMMUTABLE PARALLEL SAFE COST 1000 AS $$
            SELECT regexp_count(query, '\(\s*select\M', 1, 'i') > regexp_count(query,
                '\mresourceid\s+(not\s+)?in\s*\(\s*select\s+(distinct\s+)?(\w+\.)?resourceid\M',
                1, 'i')
            OR regexp_count(query, '\mjoin\M', 1, 'i') > regexp_count(query,
                '\mon\s+(\w+\.)?resourceid\s*=\s*(\w+\.)?resourceid\M', 1, 'i')
        $$;
        CREATE INDEX collections_rule_across ON collections_rule (id)
            WHERE collections_looks_across(query);
        CREATE FUNCTION clients_policy_across() RETURNS boolean LANGUAGE sql STABLE AS $$
            SELECT EXISTS (SELECT FROM collections_rule WHERE collections_looks_across(query))
        $$;

        CREATE FUNCTION clients_policy_of_resource() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            IF clients_policy_across() THEN
                PERFORM clients_policy_tell('');
                RETURN NULL;
            END IF;
            IF TG_OP <> 'INSERT' THEN
                PERFORM clients_policy_tell(OLD.client_id);
            END IF;
            IF TG_OP = 'UPDATE' AND NEW.client_id <> OLD.client_id THEN
                PERFORM clients_policy_tell(NEW.client_id);
            END IF;
            RETURN NULL;
        END $$;
        CREATE TRIGGER clients_policy_known AFTER INSERT OR DELETE ON collections_resource
            FOR EACH ROW EXECUTE FUNCTION clients_policy_of_resource();
        CREATE TRIGGER clients_policy_change AFTER UPDATE ON collections_resource FOR EACH ROW
            WHEN ((OLD.id, OLD.name, OLD.client_id, OLD.tenant_id, OLD.device_id, OLD.os_name,
                OLD.os_version, OLD.client_version) IS DISTINCT FROM (NEW.id, NEW.name,
                NEW.client_id, NEW.tenant_id, NEW.device_id, NEW.os_name, NEW.os_version,
                NEW.client_version))
            EXECUTE FUNCTION clients_policy_of_resource();

        CREATE FUNCTION clients_policy_of_inventory() RETURNS trigger LANGUAGE plpgsql AS $$
        DECLARE
            concerned text[];
        BEGIN
            concerned := ARRAY(SELECT r.client_id FROM collections_resource r WHERE r.id IN
                (SELECT t.resource_id FROM touched t) LIMIT 1000);
            IF cardinality(concerned) = 0 THEN
                RETURN NULL;
            END IF;
            -- Of very many at once it is told as of all.
            IF cardinality(concerned) = 1000 OR clients_policy_across() THEN
                PERFORM clients_policy_tell('');
            ELSE
                PERFORM clients_policy_tell(c) FROM unnest(concerned) c;
            END IF;
            RETURN NULL;
        END $$;
        CREATE TRIGGER clients_policy_insert AFTER INSERT ON collections_inventory
            REFERENCING NEW TABLE AS touched FOR EACH STATEMENT
            EXECUTE FUNCTION clients_policy_of_inventory();
        CREATE TRIGGER clients_policy_update AFTER UPDATE ON collections_inventory
            REFERENCING NEW TABLE AS touched FOR EACH STATEMENT
            EXECUTE FUNCTION clients_policy_of_inventory();
        CREATE TRIGGER clients_policy_delete AFTER DELETE ON collections_inventory
            REFERENCING OLD TABLE AS touched FOR EACH STATEMENT
            EXECUTE FUNCTION clients_policy_of_inventory();

        CREATE FUNCTION clients_policy_of_client() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            PERFORM clients_policy_tell(OLD.id);
            RETURN NULL;
        END $$;
        CREATE TRIGGER clients_policy_gone AFTER DELETE ON clients_client
            FOR EACH ROW EXECUTE FUNCTION clients_policy_of_client();
        CREATE TRIGGER clients_policy_change
            AFTER UPDATE OF id, tenant_id, device_id, thumbprint, blocked ON clients_client
            FOR EACH ROW WHEN ((OLD.id, OLD.tenant_id, OLD.device_id, OLD.thumbprint, OLD.blocked)
                IS DISTINCT FROM (NEW.id, NEW.tenant_id, NEW.device_id, NEW.thumbprint, NEW.blocked))
            EXECUTE FUNCTION clients_policy_of_client();
    """)
