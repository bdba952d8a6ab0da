from typing import Any

from tandem.infra.database import Tx


async def database(tx: Tx) -> dict[str, Any]:
    found = await tx.execute(
        "SELECT current_setting('server_version') AS version,"
        " pg_database_size(current_database()) AS size_bytes, clock_timestamp() AS now,"
        " (SELECT version_num FROM alembic_version) AS migration,"
        " (SELECT count(*) FROM pg_stat_activity WHERE datname = current_database())"
        " AS connections"
    )
    row = await found.fetchone()
    assert row is not None
    return row


async def jobs(tx: Tx) -> dict[str, Any]:
    """How much work waits, runs or has failed, and the last that failed."""
    counted = await tx.execute(
        "SELECT count(*) FILTER (WHERE status = 'todo') AS waiting,"
        " count(*) FILTER (WHERE status = 'doing') AS running,"
        " count(*) FILTER (WHERE status = 'failed') AS failed,"
        " min(coalesce(scheduled_at, now())) FILTER (WHERE status = 'todo') AS oldest_waiting_at"
        " FROM procrastinate_jobs WHERE status IN ('todo', 'doing', 'failed')"
    )
    row = await counted.fetchone()
    failed = await tx.execute(
        "SELECT j.task_name AS name, j.attempts, max(e.at) AS at FROM procrastinate_jobs j"
        " JOIN procrastinate_events e ON e.job_id = j.id WHERE j.status = 'failed'"
        " GROUP BY j.id, j.task_name, j.attempts ORDER BY at DESC LIMIT 10"
    )
    return {**(row or {}), "last_failed": await failed.fetchall()}
