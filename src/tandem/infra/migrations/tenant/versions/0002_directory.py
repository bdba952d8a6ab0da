"""The directory: tenant, domains, users, groups, roles, devices, MDM authority and user scope."""

from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.execute("""
CREATE TABLE directory_tenant (
    only_one boolean PRIMARY KEY DEFAULT true CHECK (only_one),
    id uuid NOT NULL,
    display_name text NOT NULL,
    created_at timestamptz NOT NULL,
    mdm_authority text NOT NULL DEFAULT 'unknown' CHECK (mdm_authority IN ('unknown', 'intune')),
    mdm_authority_set_at timestamptz,
    mdm_scope text NOT NULL DEFAULT 'none' CHECK (mdm_scope IN ('none', 'some', 'all'))
);

CREATE TABLE directory_domain (
    name text PRIMARY KEY CHECK (name = lower(name)),
    is_default boolean NOT NULL DEFAULT false,
    is_initial boolean NOT NULL DEFAULT false
);
CREATE UNIQUE INDEX directory_domain_default ON directory_domain (is_default) WHERE is_default;

-- One row for each thing that can be a member, hold a role or own: its own table has the rest.
CREATE TABLE directory_object (
    id uuid PRIMARY KEY,
    sort text NOT NULL CHECK (sort IN ('user', 'group', 'device', 'servicePrincipal'))
);

CREATE TABLE directory_user (
    id uuid PRIMARY KEY REFERENCES directory_object (id) ON DELETE CASCADE,
    user_principal_name text NOT NULL,
    display_name text NOT NULL,
    account_enabled boolean NOT NULL DEFAULT true,
    mail_nickname text NOT NULL,
    usage_location text,
    profile jsonb NOT NULL DEFAULT '{}',
    created_at timestamptz NOT NULL,
    password_hash text NOT NULL,
    password_changed_at timestamptz NOT NULL,
    sessions_valid_from timestamptz NOT NULL,
    failures integer NOT NULL DEFAULT 0,
    locked_until timestamptz
);
CREATE UNIQUE INDEX directory_user_upn ON directory_user (lower(user_principal_name));

CREATE TABLE directory_group (
    id uuid PRIMARY KEY REFERENCES directory_object (id) ON DELETE CASCADE,
    display_name text NOT NULL,
    description text,
    mail_nickname text NOT NULL,
    created_at timestamptz NOT NULL
);
CREATE INDEX directory_group_name ON directory_group (lower(display_name));

CREATE TABLE directory_member (
    group_id uuid NOT NULL REFERENCES directory_group (id) ON DELETE CASCADE,
    member_id uuid NOT NULL REFERENCES directory_object (id) ON DELETE CASCADE,
    PRIMARY KEY (group_id, member_id)
);
CREATE INDEX directory_member_of ON directory_member (member_id);

CREATE TABLE directory_mdm_scope_group (
    group_id uuid PRIMARY KEY REFERENCES directory_group (id) ON DELETE CASCADE
);

CREATE TABLE directory_role_holder (
    role_id uuid NOT NULL,
    holder_id uuid NOT NULL REFERENCES directory_object (id) ON DELETE CASCADE,
    PRIMARY KEY (role_id, holder_id)
);
CREATE INDEX directory_role_of ON directory_role_holder (holder_id);

CREATE TABLE directory_device (
    id uuid PRIMARY KEY REFERENCES directory_object (id) ON DELETE CASCADE,
    device_id uuid NOT NULL UNIQUE,
    display_name text NOT NULL,
    account_enabled boolean NOT NULL DEFAULT true,
    operating_system text NOT NULL,
    operating_system_version text NOT NULL,
    trust_type text NOT NULL DEFAULT 'AzureAd',
    key_thumbprint text NOT NULL UNIQUE,
    owner_id uuid REFERENCES directory_user (id) ON DELETE SET NULL,
    is_managed boolean NOT NULL DEFAULT false,
    is_compliant boolean,
    mdm_app_id uuid,
    registered_at timestamptz NOT NULL,
    last_sign_in_at timestamptz
);
CREATE INDEX directory_device_owner ON directory_device (owner_id);
""")
