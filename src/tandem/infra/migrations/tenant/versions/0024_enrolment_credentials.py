"""Credentials of enrolment: tokens that are good once, and the tenant's choices about the ways."""

from alembic import op

revision = "0024"
down_revision = "0023"


def upgrade() -> None:
    op.execute("""
        CREATE TABLE enrollment_options (
            single boolean PRIMARY KEY DEFAULT true CHECK (single),
            password_enrollment boolean NOT NULL,
            terms_en text NOT NULL,
            terms_fr text NOT NULL,
            maintenance boolean NOT NULL,
            refusal_text text NOT NULL
        );

        -- Directory tokens are here only once they were used.
        CREATE TABLE enrollment_token (
            id uuid PRIMARY KEY,
            token_sha256 bytea NOT NULL UNIQUE,
            way text NOT NULL CHECK (way IN ('federated', 'programmatic', 'directory')),
            user_id text NOT NULL,
            upn text NOT NULL,
            device_name text NOT NULL,
            issued_by text NOT NULL,
            issued_at timestamptz NOT NULL,
            expires_at timestamptz NOT NULL,
            terms_sha256 text NOT NULL,
            used_at timestamptz,
            windows_id text NOT NULL DEFAULT '',
            device_id text NOT NULL DEFAULT ''
        );
        CREATE INDEX ON enrollment_token (expires_at);

        CREATE INDEX directory_user_sam_account ON directory_user
            (lower(profile->>'onPremisesSamAccountName'))
            WHERE profile ? 'onPremisesSamAccountName';
    """)
