"""Orders of administrators with their states and deadlines, and what guards devices from them."""

from alembic import op

revision = "0023"
down_revision = "0022"


def upgrade() -> None:
    # A table of its own: a process of the version before must not hand out what is held here.
    op.execute("""
        -- An order that nothing brings back, for one device or many. A decision is empty, approved,
        -- rejected or cancelled.
        CREATE TABLE sessions_request (
            id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
            kind text NOT NULL,
            data text NOT NULL,
            reason text NOT NULL,
            asked_by text NOT NULL,
            asked_by_name text NOT NULL,
            asked_at timestamptz NOT NULL,
            device_count integer NOT NULL,
            user_count integer NOT NULL,
            needs_approval boolean NOT NULL,
            decision text NOT NULL DEFAULT '',
            decided_by_name text NOT NULL DEFAULT '',
            decided_at timestamptz,
            decision_reason text NOT NULL DEFAULT ''
        );
        CREATE INDEX sessions_request_budget ON sessions_request (asked_by, asked_at);
        CREATE INDEX sessions_request_newest ON sessions_request (asked_at DESC, id);

        CREATE TABLE sessions_order (
            id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
            device_id text NOT NULL REFERENCES enrollment_device ON DELETE CASCADE,
            request_id uuid REFERENCES sessions_request ON DELETE CASCADE,
            kind text NOT NULL,
            data text NOT NULL,
            state text NOT NULL,
            asked_by_name text NOT NULL,
            created_at timestamptz NOT NULL,
            expires_at timestamptz NOT NULL,
            held_until timestamptz,
            sent_at timestamptz,
            accepted_at timestamptz,
            ended_at timestamptz,
            code integer,
            why text NOT NULL DEFAULT ''
        );
        CREATE INDEX sessions_order_open ON sessions_order (device_id) WHERE ended_at IS NULL;
        CREATE INDEX sessions_order_timed ON sessions_order (state) WHERE ended_at IS NULL;
        CREATE INDEX sessions_order_of ON sessions_order (device_id, id);
        CREATE INDEX sessions_order_request ON sessions_order (request_id);

        -- One row at most: without one, the settings file's values are in force.
        CREATE TABLE sessions_safeguards (
            one boolean PRIMARY KEY DEFAULT true CHECK (one),
            settings jsonb,
            proposal jsonb,
            proposed_by text NOT NULL DEFAULT '',
            proposed_by_name text NOT NULL DEFAULT '',
            proposed_at timestamptz
        );

        WITH moved AS (DELETE FROM sessions_command RETURNING *)
        INSERT INTO sessions_order
            (id, device_id, kind, data, state, asked_by_name, created_at, expires_at, sent_at,
             ended_at, code)
            OVERRIDING SYSTEM VALUE
        SELECT id, device_id, kind, data,
            CASE WHEN state <> 'done' THEN state
                 WHEN code IS NULL OR code BETWEEN 200 AND 299 THEN 'done' ELSE 'failed' END,
            '', created_at, created_at + interval '180 days', sent_at,
            CASE WHEN state = 'done' THEN coalesce(done_at, created_at) END, code
        FROM moved ORDER BY id;
        SELECT setval(pg_get_serial_sequence('sessions_order', 'id'),
            (SELECT coalesce(max(id), 0) + 1 FROM sessions_order), false);
    """)
