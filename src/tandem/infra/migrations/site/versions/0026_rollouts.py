"""Roll-outs of workloads: rings, gates, and where each device is; several collections of a pilot."""

from alembic import op

revision = "0026"
down_revision = "0025"


def upgrade() -> None:
    op.execute("""
        -- Collections that a roll-out added to a pilot, besides the slider's own.
        CREATE TABLE comanagement_pilot (
            workload text NOT NULL REFERENCES comanagement_workload,
            place integer NOT NULL,
            collection_id text NOT NULL REFERENCES collections_collection ON DELETE CASCADE,
            PRIMARY KEY (workload, place),
            UNIQUE (workload, collection_id)
        );

        CREATE TABLE comanagement_rollout (
            id text PRIMARY KEY,
            workload text NOT NULL,
            state text NOT NULL,
            created_at timestamptz NOT NULL,
            created_by text NOT NULL,
            automatic_back boolean NOT NULL,
            second_approval boolean NOT NULL,
            approved_by text NOT NULL DEFAULT '',
            offline_minutes double precision NOT NULL,
            ring integer NOT NULL DEFAULT 0,
            -- Where the slider stood when it started; null before.
            before_position text,
            before_collection text NOT NULL DEFAULT '',
            before_also text[] NOT NULL DEFAULT '{}',
            started_at timestamptz,
            started_by text NOT NULL DEFAULT '',
            paused_at timestamptz,
            ended_at timestamptz,
            ended_by text NOT NULL DEFAULT '',
            -- When no device was left to follow, or nobody waits for them any more.
            settled_at timestamptz,
            cause_code text NOT NULL DEFAULT '',
            cause text NOT NULL DEFAULT '',
            analysed_at timestamptz,
            gaps jsonb NOT NULL DEFAULT '[]'
        );
        CREATE UNIQUE INDEX comanagement_rollout_under_way ON comanagement_rollout (workload)
            WHERE state IN ('running', 'paused', 'halted');
        CREATE INDEX comanagement_rollout_created ON comanagement_rollout (created_at DESC);

        CREATE TABLE comanagement_ring (
            rollout_id text NOT NULL REFERENCES comanagement_rollout ON DELETE CASCADE,
            place integer NOT NULL,
            collection_id text REFERENCES collections_collection ON DELETE SET NULL,
            collection text NOT NULL,
            minutes double precision NOT NULL,
            soak_minutes double precision NOT NULL,
            done_percent double precision NOT NULL,
            failed_percent double precision NOT NULL,
            state text NOT NULL DEFAULT 'waiting',
            asked integer NOT NULL DEFAULT 0,
            started_at timestamptz,
            deadline_at timestamptz,
            soak_until timestamptz,
            ended_at timestamptz,
            PRIMARY KEY (rollout_id, place)
        );

        CREATE TABLE comanagement_rollout_device (
            rollout_id text NOT NULL REFERENCES comanagement_rollout ON DELETE CASCADE,
            client_id text NOT NULL,
            device_id text NOT NULL,
            name text NOT NULL,
            place integer NOT NULL,
            standing text NOT NULL DEFAULT 'waiting',
            cause_code text NOT NULL DEFAULT '',
            cause text NOT NULL DEFAULT '',
            at timestamptz,
            mdm_id text NOT NULL DEFAULT '',
            compliance_before text NOT NULL DEFAULT '',
            compliance text NOT NULL DEFAULT '',
            told text NOT NULL DEFAULT '',
            told_text text NOT NULL DEFAULT '',
            checked_at timestamptz,
            -- Numbers of the roll-out's gaps that concern it; null until it was analysed.
            gaps integer[],
            PRIMARY KEY (rollout_id, client_id)
        );
        CREATE INDEX comanagement_rollout_device_standing
            ON comanagement_rollout_device (rollout_id, standing, place, lower(name), client_id);
        CREATE INDEX comanagement_rollout_device_unanalysed
            ON comanagement_rollout_device (rollout_id) WHERE gaps IS NULL;
    """)
