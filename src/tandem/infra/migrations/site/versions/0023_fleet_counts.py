"""Counts of the devices, kept with their rows: tiles and lists do not count them one by one."""

from alembic import op

revision = "0023"
down_revision = "0022"


def upgrade() -> None:
    op.execute("""
        -- One row for each set of answers that devices share; a few hundred, however many devices.
        CREATE TABLE fleet_count (
            management text NOT NULL,
            os_group text NOT NULL,
            funnel integer NOT NULL,
            enrollment text NOT NULL,
            stages integer NOT NULL,
            workloads integer NOT NULL,
            unlicensed boolean NOT NULL,
            blocked boolean NOT NULL,
            n bigint NOT NULL,
            PRIMARY KEY (management, os_group, funnel, enrollment, stages, workloads, unlicensed,
                blocked)
        );
        UPDATE fleet_device SET enrollment = '' WHERE enrollment IS NULL;
        INSERT INTO fleet_count SELECT management, os_group, funnel, enrollment, stages, workloads,
            unlicensed, blocked, count(*) FROM fleet_device GROUP BY 1, 2, 3, 4, 5, 6, 7, 8;
        ALTER TABLE fleet_device ALTER enrollment SET NOT NULL;
    """)
