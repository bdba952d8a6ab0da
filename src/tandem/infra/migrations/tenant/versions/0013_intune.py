"""Assignments of one kind for all; policy objects with history; app content with its upload."""

from alembic import op

revision = "0013"
down_revision = "0012"


def upgrade() -> None:
    op.execute("""
        CREATE TABLE assignments_assignment (
            owner_kind text NOT NULL,
            owner_id text NOT NULL,
            id text NOT NULL,
            position integer NOT NULL,
            target text NOT NULL,
            -- The group's or the collection's id; empty for everybody.
            subject text NOT NULL,
            filter_id text NOT NULL,
            filter_mode text NOT NULL CHECK (filter_mode IN ('none', 'include', 'exclude')),
            "values" jsonb NOT NULL,
            PRIMARY KEY (owner_kind, owner_id, id)
        );

        -- What an administrator wrote, in Graph's words: the shape is the user's.
        CREATE TABLE policies_object (
            kind text NOT NULL,
            id text NOT NULL,
            type text NOT NULL,
            name text NOT NULL,
            version integer NOT NULL,
            created_at timestamptz NOT NULL,
            changed_at timestamptz NOT NULL,
            properties jsonb NOT NULL,
            PRIMARY KEY (kind, id)
        );
        CREATE INDEX ON policies_object (kind, created_at, id);

        -- Each version as it was, the last one with the object's end. It outlives the object.
        CREATE TABLE policies_version (
            kind text NOT NULL,
            object_id text NOT NULL,
            version integer NOT NULL,
            type text NOT NULL,
            name text NOT NULL,
            properties jsonb NOT NULL,
            at timestamptz NOT NULL,
            by text NOT NULL,
            deleted boolean NOT NULL,
            PRIMARY KEY (kind, object_id, version)
        );

        INSERT INTO policies_object
        SELECT 'deviceConfigurations', id, 'windows10CustomConfiguration', name, 1, created_at,
               changed_at, jsonb_build_object('workload', workload, 'omaSettings',
                   jsonb_build_array(jsonb_build_object(
                       '@odata.type', '#microsoft.graph.omaSettingString',
                       'displayName', setting,
                       'description', null,
                       'omaUri', './Device/Vendor/MSFT/Policy/Config/' || setting,
                       'value', value,
                       'isEncrypted', false,
                       'secretReferenceValueId', null)))
        FROM policies_configuration;
        INSERT INTO policies_version
        SELECT kind, id, version, type, name, properties, changed_at, '', false
        FROM policies_object;
        INSERT INTO assignments_assignment
        SELECT 'deviceConfigurations', configuration_id, configuration_id || '_' || group_id, 0,
               CASE WHEN excluded THEN 'exclusionGroupAssignmentTarget'
                    ELSE 'groupAssignmentTarget' END, group_id, '', 'none', '{}'
        FROM policies_assignment;
        DROP TABLE policies_assignment, policies_configuration;

        INSERT INTO assignments_assignment
        SELECT 'mobileApps', app_id, app_id || '_' || group_id, 0,
               CASE WHEN excluded THEN 'exclusionGroupAssignmentTarget'
                    ELSE 'groupAssignmentTarget' END, group_id, '', 'none',
               '{"intent": "required"}'
        FROM mobile_apps_assignment;
        DROP TABLE mobile_apps_assignment;

        ALTER TABLE mobile_apps_app
            DROP CONSTRAINT mobile_apps_app_state_check,
            ADD COLUMN type text NOT NULL DEFAULT 'windowsMobileMSI',
            ADD COLUMN properties jsonb NOT NULL DEFAULT '{}',
            ADD COLUMN committed_version text NOT NULL DEFAULT '',
            ADD COLUMN changed_at timestamptz;
        UPDATE mobile_apps_app SET changed_at = created_at,
            state = CASE WHEN state = 'published' THEN state ELSE 'notPublished' END,
            committed_version = CASE WHEN state = 'published' THEN '1' ELSE '' END;
        ALTER TABLE mobile_apps_app
            ALTER COLUMN changed_at SET NOT NULL,
            ADD CHECK (state IN ('notPublished', 'processing', 'published'));

        CREATE TABLE mobile_apps_version (
            app_id text NOT NULL REFERENCES mobile_apps_app ON DELETE CASCADE,
            number integer NOT NULL,
            PRIMARY KEY (app_id, number)
        );

        CREATE TABLE mobile_apps_file (
            id text PRIMARY KEY,
            app_id text NOT NULL,
            version integer NOT NULL,
            name text NOT NULL,
            size_bytes bigint NOT NULL,
            encrypted_bytes bigint NOT NULL,
            manifest text,
            is_dependency boolean NOT NULL,
            state text NOT NULL,
            reason text NOT NULL,
            -- Part of the signature of the upload's URL: one more, and older URLs are void.
            generation integer NOT NULL,
            expires_at timestamptz NOT NULL,
            -- The block list in force: [name of the staged object, bytes] each.
            blocks jsonb,
            -- What the content is decrypted with, until it is.
            sealed bytea,
            sha256 text NOT NULL,
            -- What was read from the content: product code, version.
            facts jsonb NOT NULL,
            created_at timestamptz NOT NULL,
            FOREIGN KEY (app_id, version) REFERENCES mobile_apps_version ON DELETE CASCADE
        );
        CREATE INDEX ON mobile_apps_file (app_id, version);
        INSERT INTO mobile_apps_version
        SELECT id, 1 FROM mobile_apps_app WHERE state = 'published';
        INSERT INTO mobile_apps_file
        SELECT id, id, 1, file_name, size_bytes, size_bytes, null, false, 'commitFileSuccess', '',
               0, created_at, null, null, sha256, jsonb_build_object('productCode', product_code,
               'productVersion', product_version, 'upgradeCode', upgrade_code), created_at
        FROM mobile_apps_app WHERE state = 'published';

        -- Blocks that were put and are in no block list yet.
        CREATE TABLE mobile_apps_block (
            file_id text NOT NULL REFERENCES mobile_apps_file ON DELETE CASCADE,
            block_id text NOT NULL,
            object text NOT NULL,
            size_bytes bigint NOT NULL,
            PRIMARY KEY (file_id, block_id)
        );
    """)
