"""Sign-in and tokens: keys, applications, consent, codes and refresh tokens."""

from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    op.execute("""
CREATE TABLE oidc_key (
    kid text PRIMARY KEY,
    purpose text NOT NULL CHECK (purpose IN ('token', 'join')),
    certificate bytea NOT NULL,
    sealed bytea NOT NULL,
    created_at timestamptz NOT NULL,
    active_from timestamptz NOT NULL
);

CREATE TABLE oidc_application (
    id uuid PRIMARY KEY,
    app_id uuid NOT NULL UNIQUE,
    display_name text NOT NULL,
    built_in boolean NOT NULL DEFAULT false,
    token_version integer NOT NULL DEFAULT 1 CHECK (token_version IN (1, 2)),
    identifier_uris text[] NOT NULL DEFAULT '{}',
    public_redirect_uris text[] NOT NULL DEFAULT '{}',
    web_redirect_uris text[] NOT NULL DEFAULT '{}',
    scopes jsonb NOT NULL DEFAULT '[]',
    app_roles jsonb NOT NULL DEFAULT '[]',
    required_access jsonb NOT NULL DEFAULT '[]',
    properties jsonb NOT NULL DEFAULT '{}',
    created_at timestamptz NOT NULL
);

CREATE TABLE oidc_identifier_uri (
    uri text PRIMARY KEY CHECK (uri = lower(uri)),
    application_id uuid NOT NULL REFERENCES oidc_application (id) ON DELETE CASCADE
);

CREATE TABLE oidc_service_principal (
    id uuid PRIMARY KEY REFERENCES directory_object (id) ON DELETE CASCADE,
    app_id uuid NOT NULL UNIQUE REFERENCES oidc_application (app_id) ON DELETE CASCADE,
    account_enabled boolean NOT NULL DEFAULT true,
    properties jsonb NOT NULL DEFAULT '{}',
    created_at timestamptz NOT NULL
);

CREATE TABLE oidc_secret (
    key_id uuid PRIMARY KEY,
    application_id uuid NOT NULL REFERENCES oidc_application (id) ON DELETE CASCADE,
    display_name text,
    hint text NOT NULL,
    sha256 bytea NOT NULL,
    starts_at timestamptz NOT NULL,
    ends_at timestamptz NOT NULL
);
CREATE INDEX oidc_secret_application ON oidc_secret (application_id);

CREATE TABLE oidc_grant (
    id uuid PRIMARY KEY,
    client_id uuid NOT NULL REFERENCES oidc_service_principal (id) ON DELETE CASCADE,
    resource_id uuid NOT NULL REFERENCES oidc_service_principal (id) ON DELETE CASCADE,
    user_id uuid REFERENCES directory_user (id) ON DELETE CASCADE,
    scopes text[] NOT NULL
);
CREATE UNIQUE INDEX oidc_grant_once ON oidc_grant
    (client_id, resource_id, coalesce(user_id, '00000000-0000-0000-0000-000000000000'));

CREATE TABLE oidc_role_assignment (
    id uuid PRIMARY KEY,
    role_id uuid NOT NULL,
    principal_id uuid NOT NULL REFERENCES directory_object (id) ON DELETE CASCADE,
    resource_id uuid NOT NULL REFERENCES oidc_service_principal (id) ON DELETE CASCADE,
    created_at timestamptz NOT NULL,
    UNIQUE (principal_id, resource_id, role_id)
);

CREATE TABLE oidc_code (
    sha256 bytea PRIMARY KEY,
    family uuid NOT NULL,
    app_id uuid NOT NULL,
    user_id uuid NOT NULL REFERENCES directory_user (id) ON DELETE CASCADE,
    redirect_uri text NOT NULL,
    scope text NOT NULL,
    nonce text NOT NULL,
    challenge text NOT NULL,
    public boolean NOT NULL,
    signed_in_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL,
    used_at timestamptz
);

CREATE TABLE oidc_refresh_token (
    sha256 bytea PRIMARY KEY,
    family uuid NOT NULL,
    app_id uuid NOT NULL,
    user_id uuid NOT NULL REFERENCES directory_user (id) ON DELETE CASCADE,
    scope text NOT NULL,
    public boolean NOT NULL,
    signed_in_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL,
    used_at timestamptz
);
CREATE INDEX oidc_refresh_token_family ON oidc_refresh_token (family);

-- Assertions that were used, until they expire by themselves.
CREATE TABLE oidc_assertion (
    sha256 bytea PRIMARY KEY,
    expires_at timestamptz NOT NULL
);
""")
