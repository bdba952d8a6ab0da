"""Sign-in: sessions of browsers, device codes, certificates of applications, and the log."""

from alembic import op

revision = "0012"
down_revision = "0011"


def upgrade() -> None:
    op.execute("""
-- Who keeps the private key: `sealed` is that keeper's handle of it.
ALTER TABLE oidc_key ADD COLUMN keeper text NOT NULL DEFAULT 'software';

CREATE TABLE oidc_certificate (
    key_id uuid PRIMARY KEY,
    application_id uuid NOT NULL REFERENCES oidc_application (id) ON DELETE CASCADE,
    display_name text,
    certificate bytea NOT NULL,
    sha1 bytea NOT NULL,
    sha256 bytea NOT NULL,
    starts_at timestamptz NOT NULL,
    ends_at timestamptz NOT NULL,
    UNIQUE (application_id, sha256)
);
CREATE INDEX oidc_secret_ends ON oidc_secret (ends_at);
CREATE INDEX oidc_certificate_ends ON oidc_certificate (ends_at);

-- Where an assertion was first used: some clients send one several times.
ALTER TABLE oidc_assertion ADD COLUMN address text NOT NULL DEFAULT '';

-- Accounts that are signed in to a browser, which holds a random value whose hash is `digest`.
CREATE TABLE oidc_session (
    id uuid PRIMARY KEY,
    digest bytea NOT NULL,
    user_id uuid NOT NULL REFERENCES directory_user (id) ON DELETE CASCADE,
    signed_in_at timestamptz NOT NULL,
    used_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL,
    UNIQUE (digest, user_id)
);
CREATE INDEX oidc_session_user ON oidc_session (user_id);

CREATE TABLE oidc_device_code (
    sha256 bytea PRIMARY KEY,
    user_code text NOT NULL UNIQUE,
    app_id uuid NOT NULL,
    scope text NOT NULL,
    state text NOT NULL DEFAULT 'pending'
        CHECK (state IN ('pending', 'approved', 'declined', 'used')),
    user_id uuid REFERENCES directory_user (id) ON DELETE CASCADE,
    signed_in_at timestamptz,
    polled_at timestamptz,
    expires_at timestamptz NOT NULL
);

ALTER TABLE oidc_code ADD COLUMN session_id uuid;

-- Sign-ins whose tokens were revoked, for as long as those could live.
CREATE TABLE oidc_revoked (
    family uuid PRIMARY KEY,
    until timestamptz NOT NULL
);

-- Wrong names are locked like accounts, so that a lock does not tell which names exist.
CREATE TABLE oidc_unknown_name (
    sha256 bytea PRIMARY KEY,
    failures integer NOT NULL,
    locked_until timestamptz,
    last_at timestamptz NOT NULL
);

CREATE TABLE oidc_sign_in (
    id uuid PRIMARY KEY,
    at timestamptz NOT NULL,
    sort text NOT NULL
        CHECK (sort IN ('interactive', 'refresh', 'device-code', 'password', 'app', 'device')),
    user_id uuid,
    upn text NOT NULL DEFAULT '',
    user_name text NOT NULL DEFAULT '',
    app_id text NOT NULL,
    app_name text NOT NULL DEFAULT '',
    resource_id text NOT NULL DEFAULT '',
    resource_name text NOT NULL DEFAULT '',
    device_id text NOT NULL DEFAULT '',
    address text NOT NULL,
    client text NOT NULL DEFAULT '',
    number integer NOT NULL,
    reason text NOT NULL DEFAULT '',
    conditions text NOT NULL DEFAULT 'notApplied'
        CHECK (conditions IN ('success', 'failure', 'notApplied')),
    correlation_id text NOT NULL
);
CREATE INDEX oidc_sign_in_at ON oidc_sign_in (at DESC, id);
CREATE INDEX oidc_sign_in_user ON oidc_sign_in (user_id, at DESC);
CREATE INDEX oidc_sign_in_failed ON oidc_sign_in (address, at) WHERE number <> 0;
""")
