"""What is reported of resources, for queries of collections."""

from alembic import op

revision = "0025"
down_revision = "0024"


def upgrade() -> None:
    op.execute("""
        CREATE TABLE collections_inventory (
            resource_id bigint NOT NULL REFERENCES collections_resource ON DELETE CASCADE,
            -- By its name in small letters.
            class text NOT NULL,
            instance integer NOT NULL,
            properties jsonb NOT NULL,
            -- The same in small letters, which is how queries compare.
            folded jsonb NOT NULL,
            reported_at timestamptz NOT NULL,
            PRIMARY KEY (resource_id, class, instance)
        );
        CREATE INDEX ON collections_inventory USING gin (folded jsonb_path_ops);

        -- What clients have said of themselves until now.
        INSERT INTO collections_inventory
            SELECT r.id, 'sms_client_comanagementstate', 1, s.said, lower(s.said::text)::jsonb,
                c.state_at
            FROM clients_client c JOIN collections_resource r ON r.client_id = c.id,
            LATERAL (SELECT jsonb_build_object(
                'ComgmtPolicyPresent', (c.state->>'policy_present')::boolean::int,
                'MDMEnrolled', (c.state->>'mdm_enrolled')::boolean::int,
                'MDMProvisioned', ((c.state->>'mdm_enrolled')::boolean
                    AND (c.state->>'flags')::bigint > 0)::int,
                'WorkloadFlags', (c.state->>'flags')::bigint,
                'ClientVersion', coalesce(c.state->>'client_version', ''),
                'UPN', coalesce(c.state->>'upn', '')) AS said) s
            WHERE c.state IS NOT NULL AND c.state_at IS NOT NULL;
    """)
