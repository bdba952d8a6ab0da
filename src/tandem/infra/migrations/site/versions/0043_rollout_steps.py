"""Each place where a workload stood, to go back to; rings that keep what they have; users moved."""

from alembic import op

revision = "0043"
down_revision = "0042"


def upgrade() -> None:
    op.execute("""
        -- Every change of a slider: where it stands since then, and what put it there.
        CREATE TABLE comanagement_step (
            id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
            workload text NOT NULL,
            at timestamptz NOT NULL,
            by text NOT NULL,
            position text NOT NULL,
            collection_id text NOT NULL DEFAULT '',
            also text[] NOT NULL DEFAULT '{}',
            -- The roll-out that did it, and with which ring; a way back has no ring.
            rollout_id text NOT NULL DEFAULT '',
            ring integer NOT NULL DEFAULT 0,
            -- The step whose place this one took up again.
            back_to bigint
        );
        CREATE INDEX comanagement_step_workload ON comanagement_step (workload, id DESC);
        INSERT INTO comanagement_step (workload, at, by, position, collection_id, also)
            SELECT w.workload, coalesce(w.changed_at, now()), w.changed_by, w.position,
                coalesce(w.collection_id, ''),
                ARRAY(SELECT p.collection_id FROM comanagement_pilot p
                    WHERE p.workload = w.workload ORDER BY p.place)
            FROM comanagement_workload w;

        -- Rings up to this one keep what they have although the roll-out was switched back.
        ALTER TABLE comanagement_rollout ADD COLUMN kept_rings integer NOT NULL DEFAULT 0;
        -- Whose device it is, by the tenant.
        ALTER TABLE comanagement_rollout_device ADD COLUMN user_name text NOT NULL DEFAULT '';
    """)
