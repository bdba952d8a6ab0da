"""SQL of the tables fleet_…, and nothing else."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from typing import Any

import msgspec
from msgspec.structs import replace
from psycopg.types.json import Jsonb

from tandem.infra.database import Tx
from tandem.site.fleet import model
from tandem.site.fleet.model import (
    FAILED,
    Account,
    Device,
    Filter,
    FunnelStep,
    OsGroup,
    Reading,
    Sort,
    Stage,
    TenantFacts,
)
from tandem.workloads import Authority, Workload

_LOCK = 7_311_016
_STAGES, _STEPS, _WORKLOADS = list(Stage), list(FunnelStep), list(Workload)

_COLUMNS = """device_id AS id, name, user_name AS user, os_version, client_version, client_id, mdm_id,
    blocked, joined, hybrid, licensed, mdm_enrolled, app_offered, msi_installed, registered,
    policy_present, scheduled, initiated, pending_sign_in, flags, enrollment_error, last_seen_at,
    trouble"""
_KEYS = {
    Sort.NAME: "name_key",
    Sort.USER: "user_key",
    Sort.OS: "os_key",
    Sort.MANAGEMENT: "management",
    Sort.STAGE: "stage",
    Sort.CLIENT: "client_key",
    Sort.SEEN: "seen_key",
}
_TYPES = {Sort.STAGE: "smallint", Sort.SEEN: "timestamptz"}
# What devices are counted by.
_COUNTED = (
    *("management", "os_group", "funnel", "enrollment", "stages", "workloads"),
    *("unlicensed", "blocked"),
)
_LAST = "\U0010ffff"


def _mask(every: Sequence[Any], some: Iterable[Any]) -> int:
    return sum(1 << every.index(item) for item in some)


# Of the versions of a group, one stands for all: rules know groups, and fleets many versions.
_EXAMPLES = {
    OsGroup.LEGACY: "6.1.7601",
    OsGroup.BEFORE_1709: "10.0.15063",
    OsGroup.CURRENT: "10.0.22631",
    OsGroup.OTHER: "",
}


@lru_cache(4096)
def _example(os_version: str) -> str:
    return _EXAMPLES[model.operating_system(Device(id="", name="", os_version=os_version))]


@lru_cache(4096)
def _answers(asked: Device) -> dict[str, Any]:
    """What lists and tiles ask of a device, for devices that differ in nothing that matters."""
    state = model.enrollment_state(asked)
    reached = model.stages(asked)
    return {
        "management": asked.management.value,
        "os_group": model.operating_system(asked).value,
        "funnel": _mask(_STEPS, model.steps(asked)),
        "enrollment": state.value if state else "",
        "stages": _mask(_STAGES, reached),
        "stage": max((_STAGES.index(stage) for stage in reached), default=-1),
        "workloads": _mask(_WORKLOADS, model.with_mdm(asked)),
        "unlicensed": asked.unlicensed,
    }


def _row(device: Device) -> dict[str, Any]:
    """The columns of a device, with the answers to what lists and tiles ask."""
    alike = replace(
        device,
        id="",
        name="",
        user=device.user and "x",
        os_version=_example(device.os_version),
        client_version="",
        client_id="",
        mdm_id="",
        enrollment_error=None if device.enrollment_error is None else 0,
        last_seen_at=None,
        trouble="",
    )
    row: dict[str, Any] = {
        **msgspec.structs.asdict(device),
        **_answers(alike),
        "os_key": model.version_key(device.os_version),
        "client_key": model.version_key(device.client_version),
        "name_key": model.key(device.name),
        "user_key": model.key(device.user),
        "seen_key": device.last_seen_at or "-infinity",
    }
    row["device_id"], row["user_name"] = row.pop("id"), row.pop("user")
    return row


# Rows are brought up to date


async def try_lock(tx: Tx) -> bool:
    """One transaction at a time makes rows, so no older word overtakes a newer one."""
    cursor = await tx.execute("SELECT pg_try_advisory_xact_lock(%s) AS got", (_LOCK,))
    row = await cursor.fetchone()
    return bool(row and row["got"])


async def take_changed(tx: Tx, limit: int) -> list[str]:
    cursor = await tx.execute(
        """DELETE FROM fleet_changed WHERE sequence IN
               (SELECT sequence FROM fleet_changed ORDER BY sequence LIMIT %s)
           RETURNING device_id""",
        (limit,),
    )
    return [row["device_id"] for row in await cursor.fetchall()]


async def note_all(tx: Tx) -> None:
    """Every row is made anew: a rule that holds for all of them has changed."""
    await tx.execute("INSERT INTO fleet_changed (device_id) SELECT device_id FROM fleet_device")


async def save(tx: Tx, devices: Sequence[Device]) -> None:
    """Rows as they are now, with the counts that go with them. Under the lock."""
    if not devices:
        return
    rows = [_row(device) for device in devices]
    await _uncount(tx, [device.id for device in devices])
    await _count(tx, Counter(tuple(row[name] for name in _COUNTED) for row in rows))
    names = list(rows[0])
    # That a client was heard of is written beside this, by a trigger, and may be newer.
    newest = "CASE WHEN f.client_id = excluded.client_id THEN greatest(f.{0}, excluded.{0})"
    newest += " ELSE excluded.{0} END"
    change = ", ".join(
        f"{name} = " + (newest if name in _SEEN else "excluded.{0}").format(name)
        for name in names
        if name != "device_id"
    )
    await tx.execute(
        f"""INSERT INTO fleet_device AS f ({", ".join(names)})
            SELECT {", ".join(names)} FROM jsonb_populate_recordset(NULL::fleet_device, %s)
            ON CONFLICT (device_id) DO UPDATE SET {change}""".encode(),  # noqa: S608
        (Jsonb(rows, dumps=_dumps),),
    )


_SEEN = {"last_seen_at", "seen_key"}


def _dumps(value: Any) -> bytes:
    return msgspec.json.encode(value)


async def _uncount(tx: Tx, device_ids: Sequence[str]) -> None:
    """What these rows are counted as until now is not so any more."""
    names = ", ".join(_COUNTED)
    cursor = await tx.execute(
        f"SELECT {names}, count(*) AS n FROM fleet_device WHERE device_id = ANY(%s)"  # noqa: S608
        f" GROUP BY {names}".encode(),
        (list(device_ids),),
    )
    found = {tuple(row[name] for name in _COUNTED): -row["n"] for row in await cursor.fetchall()}
    await _count(tx, found)


async def _count(tx: Tx, changes: Mapping[tuple[Any, ...], int]) -> None:
    rows = [{**dict(zip(_COUNTED, key, strict=True)), "n": n} for key, n in changes.items() if n]
    if not rows:
        return
    names = ", ".join([*_COUNTED, "n"])
    await tx.execute(
        f"""INSERT INTO fleet_count AS c ({names})
            SELECT {names} FROM jsonb_populate_recordset(NULL::fleet_count, %s)
            ON CONFLICT ({", ".join(_COUNTED)}) DO UPDATE SET n = c.n + excluded.n""".encode(),  # noqa: S608
        (Jsonb(rows, dumps=_dumps),),
    )


async def delete(tx: Tx, device_ids: Sequence[str]) -> None:
    if device_ids:
        await _uncount(tx, device_ids)
        await tx.execute("DELETE FROM fleet_device WHERE device_id = ANY(%s)", (list(device_ids),))


# What the tenant says


async def accounts(tx: Tx, device_ids: Sequence[str]) -> dict[str, TenantFacts]:
    cursor = await tx.execute(
        "SELECT device_id, directory, mdm, error FROM fleet_account WHERE device_id = ANY(%s)",
        (list(device_ids),),
    )
    return {
        row.pop("device_id"): msgspec.convert(row, TenantFacts) for row in await cursor.fetchall()
    }


async def save_accounts(tx: Tx, part: str, found: dict[str, Account]) -> None:
    """One account of these devices; those that say what they said before are left alone."""
    assert part in ("directory", "mdm")
    await tx.execute(
        f"""INSERT INTO fleet_account AS a (device_id, {part})
            SELECT key, value FROM jsonb_each(%s)
            ON CONFLICT (device_id) DO UPDATE SET {part} = excluded.{part}
            WHERE a.{part} IS DISTINCT FROM excluded.{part}""".encode(),  # noqa: S608
        (Jsonb(found, dumps=_dumps),),
    )


async def known(tx: Tx, part: str) -> set[str]:
    assert part in ("directory", "mdm")
    cursor = await tx.execute(
        f"SELECT device_id FROM fleet_account WHERE {part} IS NOT NULL".encode()  # noqa: S608
    )
    return {row["device_id"] for row in await cursor.fetchall()}


async def forget_accounts(tx: Tx, part: str, device_ids: Sequence[str]) -> None:
    assert part in ("directory", "mdm")
    await tx.execute(
        f"UPDATE fleet_account SET {part} = NULL WHERE device_id = ANY(%s)".encode(),  # noqa: S608
        (list(device_ids),),
    )


async def save_errors(tx: Tx, errors: dict[str, int]) -> None:
    """The error of each device whose enrolment was refused, and of no other."""
    await tx.execute(
        """INSERT INTO fleet_account AS a (device_id, error)
           SELECT key, value::bigint FROM jsonb_each(%s)
           ON CONFLICT (device_id) DO UPDATE SET error = excluded.error
           WHERE a.error IS DISTINCT FROM excluded.error""",
        (Jsonb(errors, dumps=_dumps),),
    )
    await tx.execute(
        "UPDATE fleet_account SET error = NULL WHERE error IS NOT NULL AND NOT %s ? device_id",
        (Jsonb(errors, dumps=_dumps),),
    )
    await tx.execute(
        "DELETE FROM fleet_account WHERE directory IS NULL AND mdm IS NULL AND error IS NULL"
    )


async def forget_tenant(tx: Tx, tenant_id: str) -> None:
    """Another tenant, or none: nothing that was heard counts any more."""
    await note_all(tx)
    await tx.execute("DELETE FROM fleet_account")
    await tx.execute(
        "UPDATE fleet_reading SET tenant_id = %s, read_at = NULL, error = '', took_seconds = 0,"
        " tried_at = NULL",
        (tenant_id,),
    )


async def reading(tx: Tx) -> Reading:
    cursor = await tx.execute(
        "SELECT tenant_id, read_at, took_seconds, error, wanted_at FROM fleet_reading"
    )
    row = await cursor.fetchone()
    return Reading(**row) if row else Reading()


async def want(tx: Tx, now: datetime, unless_since: datetime) -> None:
    await tx.execute(
        "UPDATE fleet_reading SET wanted_at = %s WHERE wanted_at IS NULL OR wanted_at < %s",
        (now, unless_since),
    )


async def claim(
    tx: Tx, now: datetime, *, tried_before: datetime, until: datetime, factor: float
) -> bool:
    """Whether this replica is to read now: it is time, and nobody else does. The pause is at
    least `factor` times what the last reading took."""
    cursor = await tx.execute(
        """UPDATE fleet_reading SET claimed_until = %(until)s
           WHERE (claimed_until IS NULL OR claimed_until < %(now)s)
             AND (tried_at IS NULL OR (tried_at <= %(before)s
                  AND tried_at + make_interval(secs => took_seconds * %(factor)s) <= %(now)s))""",
        {"now": now, "before": tried_before, "until": until, "factor": factor},
    )
    return cursor.rowcount == 1


async def hold(tx: Tx, until: datetime) -> None:
    await tx.execute("UPDATE fleet_reading SET claimed_until = %s", (until,))


async def finish(tx: Tx, now: datetime, took_seconds: float, error: str) -> None:
    await tx.execute(
        """UPDATE fleet_reading SET claimed_until = NULL, tried_at = %(now)s, error = %(error)s,
               took_seconds = %(took)s,
               read_at = CASE WHEN %(error)s = '' THEN %(now)s ELSE read_at END""",
        {"now": now, "took": took_seconds, "error": error},
    )


# Questions over all rows


# A SELECT of client ids with its parameters: no other devices are there. None: all of them.
Within = tuple[str, dict[str, Any]] | None


def _where(wanted: Filter, within: Within = None) -> tuple[str, dict[str, Any]]:
    conditions: list[str] = []
    values: dict[str, Any] = {}

    def hold(condition: str, **bound: Any) -> None:
        conditions.append(condition)
        values.update(bound)

    text = model.key(wanted.search.strip())
    if text.startswith("*") and len(text) > 1:
        hold(
            "(strpos(name_key, %(part)s) > 0 OR strpos(user_key, %(part)s) > 0)",
            part=text[1:],
        )
    elif text:
        hold(
            "((name_key >= %(first)s AND name_key < %(last)s)"
            " OR (user_key >= %(first)s AND user_key < %(last)s))",
            first=text,
            last=text + _LAST,
        )
    if wanted.management:
        hold("management = %(management)s", management=wanted.management.value)
    if wanted.os:
        hold("os_group = %(os)s", os=wanted.os.value)
    if wanted.funnel:
        hold("funnel & %(funnel)s <> 0", funnel=_mask(_STEPS, [wanted.funnel]))
    if wanted.enrollment:
        hold("enrollment = %(enrollment)s", enrollment=wanted.enrollment.value)
    if wanted.failed:
        hold("enrollment = ANY(%(failed)s)", failed=[state.value for state in FAILED])
    if wanted.stage:
        hold("stages & %(reached)s <> 0", reached=_mask(_STAGES, [wanted.stage]))
    if wanted.missing:
        hold("stages & %(missing)s = 0", missing=_mask(_STAGES, [wanted.missing]))
    if wanted.error is not None:
        hold("enrollment_error = %(error)s", error=wanted.error)
    if wanted.workload:
        hold("management = %(both)s", both=model.Management.CO_MANAGED.value)
        if wanted.owner:
            sign = "<>" if wanted.owner is Authority.MDM else "="
            hold(
                f"workloads & %(workload)s {sign} 0", workload=_mask(_WORKLOADS, [wanted.workload])
            )
    if wanted.unlicensed:
        hold("unlicensed")
    if wanted.blocked:
        hold("blocked")
    if within is not None:
        hold(f"client_id IN ({within[0]})", **within[1])
    return " AND ".join(conditions) or "true", values


async def count(tx: Tx, wanted: Filter, within: Within = None) -> int:
    """How many match. Only what is asked of names, codes and a part of the fleet has to be looked
    for."""
    where, values = _where(wanted, within)
    counted = not wanted.search.strip() and wanted.error is None and within is None
    what = (
        "coalesce(sum(n), 0)::bigint AS n FROM fleet_count"
        if counted
        else "count(*) AS n FROM fleet_device"
    )
    cursor = await tx.execute(f"SELECT {what} WHERE {where}".encode(), values)
    row = await cursor.fetchone()
    return int(row["n"]) if row else 0


async def page(
    tx: Tx,
    wanted: Filter,
    sort: Sort,
    descending: bool,
    limit: int,
    offset: int = 0,
    after: tuple[Any, str] | None = None,
    within: Within = None,
) -> list[tuple[Any, Device]]:
    """Rows with the value that they are ordered by; `after` goes on behind such a row."""
    where, values = _where(wanted, within)
    key, way = _KEYS[sort], "DESC" if descending else "ASC"
    if after is not None:
        kind = _TYPES.get(sort, "text")
        where += (
            f" AND ({key}, device_id) {'<' if descending else '>'}"
            f" (%(after_key)s::{kind}, %(after_id)s)"
        )
        values |= {"after_key": after[0], "after_id": after[1]}
    # What is skipped is skipped in the index; whole rows are read of the page alone.
    cursor = await tx.execute(
        f"""SELECT {_COLUMNS}, {key}::text AS ordered_by FROM fleet_device
            JOIN (SELECT device_id FROM fleet_device WHERE {where}
                  ORDER BY {key} {way}, device_id {way}
                  LIMIT %(limit)s OFFSET %(offset)s) AS part USING (device_id)
            ORDER BY {key} {way}, device_id {way}""".encode(),  # noqa: S608
        {**values, "limit": limit, "offset": offset},
    )
    return [(row.pop("ordered_by"), Device(**row)) for row in await cursor.fetchall()]


async def page_within(
    tx: Tx,
    wanted: Filter,
    sort: Sort,
    descending: bool,
    limit: int,
    offset: int,
    within: Within = None,
) -> tuple[list[tuple[Any, Device]], int]:
    """A page with the count, for what no index finds: every name is looked at, and only once."""
    where, values = _where(wanted, within)
    key, way = _KEYS[sort], "DESC" if descending else "ASC"
    cursor = await tx.execute(
        f"""WITH found AS MATERIALIZED (SELECT device_id, {key} FROM fleet_device WHERE {where}),
            part AS (SELECT device_id FROM found ORDER BY {key} {way}, device_id {way}
                LIMIT %(limit)s OFFSET %(offset)s)
            SELECT (SELECT count(*) FROM found) AS total, {_COLUMNS}, {key}::text AS ordered_by
            FROM (SELECT 1) AS once LEFT JOIN (fleet_device JOIN part USING (device_id)) ON true
            ORDER BY {key} {way}, device_id {way}""".encode(),  # noqa: S608
        {**values, "limit": limit, "offset": offset},
    )
    rows = await cursor.fetchall()
    total = int(rows[0]["total"])
    for row in rows:
        del row["total"]
    found = [row for row in rows if row["id"] is not None]
    return [(row.pop("ordered_by"), Device(**row)) for row in found], total


async def device(tx: Tx, device_id: str, within: Within = None) -> Device | None:
    where, values = _where(Filter(), within)
    cursor = await tx.execute(
        f"SELECT {_COLUMNS} FROM fleet_device"  # noqa: S608
        f" WHERE device_id = %(id)s AND {where}".encode(),
        {**values, "id": device_id},
    )
    row = await cursor.fetchone()
    return Device(**row) if row else None


async def selected(
    tx: Tx, wanted: Filter | None, device_ids: Sequence[str], within: Within = None
) -> list[dict[str, Any]]:
    """Of each device of a selection, by name: its name and its client."""
    where, values = _where(wanted or Filter(), within)
    if wanted is None:
        where += " AND device_id = ANY(%(ids)s)"
    cursor = await tx.execute(
        f"SELECT name, client_id, blocked FROM fleet_device WHERE {where}"  # noqa: S608
        " ORDER BY name_key, device_id".encode(),
        {**values, "ids": list(device_ids)},
    )
    return await cursor.fetchall()


async def groups(tx: Tx) -> list[dict[str, Any]]:
    """Devices counted by what tiles ask: a few hundred groups, however many devices."""
    cursor = await tx.execute(
        f"SELECT {', '.join(_COUNTED)}, n FROM fleet_count WHERE n > 0".encode()  # noqa: S608
    )
    return await cursor.fetchall()


async def errors(tx: Tx, most: int) -> dict[int, int]:
    cursor = await tx.execute(
        """SELECT enrollment_error, count(*) AS n FROM fleet_device
           WHERE enrollment_error IS NOT NULL GROUP BY 1 ORDER BY n DESC, 1 LIMIT %s""",
        (most,),
    )
    return {row["enrollment_error"]: row["n"] for row in await cursor.fetchall()}


async def unlicensed_users(tx: Tx) -> int:
    cursor = await tx.execute(
        "SELECT count(DISTINCT user_key) AS n FROM fleet_device WHERE unlicensed"
    )
    row = await cursor.fetchone()
    return int(row["n"]) if row else 0
