"""Staging of co-management: who is kept out, how enrolment is spread, and who is enrolled now."""

from alembic import op

revision = "0031"
down_revision = "0030"


def upgrade() -> None:
    op.execute("""
        -- Devices of these collections get no policy of co-management at all.
        CREATE TABLE comanagement_exclusion (
            collection_id text PRIMARY KEY REFERENCES collections_collection,
            place integer NOT NULL
        );
        -- Since when whom automatic enrolment is for is as it is, and over how many minutes clients
        -- that were there before draw their moment.
        ALTER TABLE comanagement_enablement
            ADD COLUMN enrolls_since timestamptz,
            ADD COLUMN spread_minutes integer NOT NULL DEFAULT 0;
        UPDATE comanagement_enablement SET enrolls_since = enabled_at, spread_minutes = 10;
        ALTER TABLE comanagement_enablement ALTER COLUMN enrolls_since SET NOT NULL;
        -- "Enrol now": a client takes each order once.
        CREATE TABLE comanagement_enroll_now (
            client_id text PRIMARY KEY REFERENCES clients_client ON DELETE CASCADE,
            order_id text NOT NULL,
            ordered_at timestamptz NOT NULL,
            ordered_by text NOT NULL
        );
    """)
