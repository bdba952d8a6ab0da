"""The software update point, updates, what is decided about them, and what clients say of them."""

from alembic import op

revision = "0046"
down_revision = "0045"


def upgrade() -> None:
    op.execute("""
        -- The role's number in addresses is drawn once, as that of the management point is.
        CREATE TABLE software_updates_point (
            singleton boolean PRIMARY KEY DEFAULT true CHECK (singleton),
            role_id bigint NOT NULL,
            allowed boolean NOT NULL DEFAULT false,
            changed_at timestamptz,
            changed_by text NOT NULL DEFAULT ''
        );
        INSERT INTO software_updates_point (role_id)
            VALUES (72057594037927936 + floor(random() * 281474976710656)::bigint);

        CREATE TABLE software_updates_update (
            id text PRIMARY KEY,
            name text NOT NULL,
            package text NOT NULL,
            source boolean NOT NULL,
            fixed_version text NOT NULL,
            release text NOT NULL,
            classification text NOT NULL,
            severity text NOT NULL,
            article text NOT NULL,
            superseded_by text NOT NULL,
            url text NOT NULL,
            sha256 text NOT NULL,
            created_at timestamptz NOT NULL,
            created_by text NOT NULL,
            changed_at timestamptz NOT NULL
        );
        -- One update is one fix of one package in one release, however often a file brings it.
        CREATE UNIQUE INDEX software_updates_update_one ON software_updates_update
            (package, lower(article), release);
        CREATE INDEX software_updates_update_article ON software_updates_update (lower(article));

        CREATE TABLE software_updates_decision (
            update_id text NOT NULL REFERENCES software_updates_update ON DELETE CASCADE,
            collection_id text NOT NULL,
            decision text NOT NULL CHECK (decision IN ('approved', 'declined')),
            deadline timestamptz,
            decided_at timestamptz NOT NULL,
            decided_by text NOT NULL,
            PRIMARY KEY (update_id, collection_id),
            CHECK (decision = 'approved' OR deadline IS NULL)
        );
        CREATE INDEX software_updates_decision_of ON software_updates_decision (collection_id);

        CREATE TABLE software_updates_state (
            client_id text NOT NULL REFERENCES clients_client ON DELETE CASCADE,
            update_id text NOT NULL REFERENCES software_updates_update ON DELETE CASCADE,
            state text NOT NULL CHECK (state IN ('required', 'installed', 'not-applicable', 'failed')),
            version text NOT NULL,
            code text NOT NULL,
            text text NOT NULL,
            at timestamptz NOT NULL,
            series text NOT NULL,
            number bigint NOT NULL,
            PRIMARY KEY (client_id, update_id)
        ) WITH (fillfactor = 80);
        CREATE INDEX software_updates_state_of ON software_updates_state (update_id);

        CREATE TABLE software_updates_scan (
            client_id text PRIMARY KEY REFERENCES clients_client ON DELETE CASCADE,
            state text NOT NULL CHECK (state IN ('completed', 'failed')),
            installs boolean NOT NULL,
            code text NOT NULL,
            text text NOT NULL,
            at timestamptz NOT NULL,
            series text NOT NULL,
            number bigint NOT NULL,
            -- When the client last asked what is approved for it.
            asked_at timestamptz
        ) WITH (fillfactor = 70);
    """)
