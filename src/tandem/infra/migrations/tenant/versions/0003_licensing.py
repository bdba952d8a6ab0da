"""Licences: subscriptions, assignments to users and groups, and the seats that result."""

from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.execute("""
CREATE TABLE licensing_subscription (
    sku_id uuid PRIMARY KEY,
    seats integer CHECK (seats > 0),
    created_at timestamptz NOT NULL
);

CREATE TABLE licensing_requirement (
    only_one boolean PRIMARY KEY DEFAULT true CHECK (only_one),
    required boolean NOT NULL
);

CREATE TABLE licensing_assignment (
    sku_id uuid NOT NULL REFERENCES licensing_subscription (sku_id),
    holder_id uuid NOT NULL REFERENCES directory_object (id) ON DELETE CASCADE,
    disabled_plans uuid[] NOT NULL DEFAULT '{}',
    assigned_at timestamptz NOT NULL,
    PRIMARY KEY (sku_id, holder_id)
);

-- What each assignment comes to for each user: a seat, or the reason why there is none.
CREATE TABLE licensing_seat (
    sku_id uuid NOT NULL,
    holder_id uuid NOT NULL,
    user_id uuid NOT NULL REFERENCES directory_user (id) ON DELETE CASCADE,
    error text NOT NULL DEFAULT 'None',
    updated_at timestamptz NOT NULL,
    PRIMARY KEY (sku_id, holder_id, user_id),
    FOREIGN KEY (sku_id, holder_id)
        REFERENCES licensing_assignment (sku_id, holder_id) ON DELETE CASCADE
);
CREATE INDEX licensing_seat_user ON licensing_seat (user_id);
""")
