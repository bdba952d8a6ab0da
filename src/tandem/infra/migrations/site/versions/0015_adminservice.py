"""The AdminService through the gateway, and numbers of administrators."""

from alembic import op

revision = "0015"
down_revision = "0014"


def upgrade() -> None:
    op.execute("""
        -- Client apps whose tokens travelled through a gateway. A row stays when the app is not
        -- published any more: what a gateway has seen must never count for more later.
        CREATE TABLE cloud_adminservice_app (
            app_id text PRIMARY KEY,
            published boolean NOT NULL,
            writes boolean NOT NULL,
            changed_at timestamptz NOT NULL,
            changed_by text NOT NULL
        );

        -- The AdminID of the field: never changes, whatever the account is called.
        ALTER TABLE administrators_administrator
            ADD COLUMN number bigint GENERATED ALWAYS AS IDENTITY (START WITH 16777217);
        CREATE UNIQUE INDEX ON administrators_administrator (number);
    """)
