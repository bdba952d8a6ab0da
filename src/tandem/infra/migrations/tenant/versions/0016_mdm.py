"""MDM: whose key a certificate is for, and what a session's first message said."""

from alembic import op

revision = "0016"
down_revision = "0015"


def upgrade() -> None:
    op.execute("""
        -- SHA-256 of the public key; empty for enrollments from before.
        ALTER TABLE enrollment_device ADD COLUMN key_sha256 text NOT NULL DEFAULT '';
        CREATE INDEX ON enrollment_device (key_sha256) WHERE key_sha256 <> '';
        CREATE INDEX ON enrollment_device (windows_id);

        -- SHA-256 of the first message: the same again is a repetition, another a new session.
        ALTER TABLE sessions_session ADD COLUMN first_sha256 text NOT NULL DEFAULT '';
    """)
