"""Tables of console."""

from alembic import op

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    op.execute("""
        -- A sign-in on its way through the token service. What the browser holds is hashed.
        CREATE TABLE console_sign_in (
            digest bytea PRIMARY KEY,
            state text NOT NULL,
            verifier bytea NOT NULL,
            return_to text NOT NULL,
            expires_at timestamptz NOT NULL
        );

        CREATE TABLE console_session (
            digest bytea PRIMARY KEY,
            user_id text NOT NULL,
            upn text NOT NULL,
            -- The Graph token that pages read with, sealed.
            token bytea NOT NULL,
            expires_at timestamptz NOT NULL
        );
        CREATE INDEX ON console_session (expires_at);
    """)
