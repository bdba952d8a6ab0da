"""Audit heads, deleted items, owners, managers, rules of groups, domains to verify, licence runs."""

from alembic import op

from tandem.infra.migrations import AUDIT_HEADS

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    op.get_bind().exec_driver_sql(AUDIT_HEADS.replace("%", "%%"))
    op.execute("""
CREATE INDEX audit_entry_activity ON audit_entry ((details->>'activity'), id);

ALTER TABLE directory_domain
    ADD is_verified boolean NOT NULL DEFAULT true,
    ADD challenge text NOT NULL DEFAULT '';

-- A deleted user's or group's own row lies in directory_deleted, so that nothing finds it; what
-- points at it by directory_object stays, and counts again when it is restored.
ALTER TABLE directory_object ADD deleted_at timestamptz;
CREATE TABLE directory_deleted (
    id uuid PRIMARY KEY,
    sort text NOT NULL CHECK (sort IN ('user', 'group', 'application')),
    display_name text NOT NULL,
    deleted_at timestamptz NOT NULL,
    kept jsonb NOT NULL
);
CREATE INDEX directory_deleted_at ON directory_deleted (deleted_at);
CREATE TABLE directory_deleted_member (
    group_id uuid NOT NULL REFERENCES directory_object (id) ON DELETE CASCADE,
    member_id uuid NOT NULL REFERENCES directory_object (id) ON DELETE CASCADE,
    PRIMARY KEY (group_id, member_id)
);
CREATE INDEX directory_deleted_member_of ON directory_deleted_member (member_id);

ALTER TABLE directory_user
    ADD manager_id uuid REFERENCES directory_object (id) ON DELETE SET NULL,
    ADD must_change_password boolean NOT NULL DEFAULT false;
CREATE INDEX directory_user_manager ON directory_user (manager_id);

ALTER TABLE directory_group
    ADD group_types text[] NOT NULL DEFAULT '{}',
    ADD membership_rule text,
    ADD rule_processing text CHECK (rule_processing IN ('On', 'Paused')),
    ADD mail_enabled boolean NOT NULL DEFAULT false,
    ADD security_enabled boolean NOT NULL DEFAULT true,
    ADD is_assignable_to_role boolean NOT NULL DEFAULT false,
    ADD visibility text,
    ADD profile jsonb NOT NULL DEFAULT '{}';

ALTER TABLE directory_device ADD profile jsonb NOT NULL DEFAULT '{}';
ALTER TABLE directory_device ADD CONSTRAINT directory_device_trust
    CHECK (trust_type IN ('AzureAd', 'ServerAd', 'Workplace'));

-- Owners of groups and of applications; the latter are no directory objects.
CREATE TABLE directory_owner (
    owned_id uuid NOT NULL,
    owner_id uuid NOT NULL REFERENCES directory_object (id) ON DELETE CASCADE,
    PRIMARY KEY (owned_id, owner_id)
);
CREATE INDEX directory_owner_of ON directory_owner (owner_id);

CREATE INDEX licensing_seat_waiting ON licensing_seat (sku_id) WHERE error = 'CountViolation';
CREATE INDEX licensing_assignment_holder ON licensing_assignment (holder_id);

-- A change of a group's licences on its way through the members.
CREATE TABLE licensing_run (
    id uuid PRIMARY KEY,
    group_id uuid NOT NULL REFERENCES directory_object (id) ON DELETE CASCADE,
    state text NOT NULL DEFAULT 'queued' CHECK (state IN ('queued', 'running', 'done')),
    total integer NOT NULL,
    done integer NOT NULL DEFAULT 0,
    failed integer NOT NULL DEFAULT 0,
    position uuid,
    queued_at timestamptz NOT NULL,
    finished_at timestamptz
);
CREATE INDEX licensing_run_group ON licensing_run (group_id, queued_at);
""")
