from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any

from tandem.infra.database import Tx
from tandem.protocols import ccm
from tandem.site.software_updates.model import (
    Counts,
    Decision,
    OnDevice,
    Point,
    Scan,
    State,
    Update,
    Wanted,
)

_UPDATE = (
    "id, name, package, source, fixed_version, release, classification, severity, article,"
    " superseded_by, url, sha256, created_at, created_by, changed_at"
)
_SEARCHED = "(%(search)s = '' OR strpos(lower(u.name || ' ' || u.package || ' ' || u.article), lower(%(search)s)) > 0)"


# The point.


async def point(tx: Tx) -> Point:
    row = await (
        await tx.execute(
            "SELECT role_id::text AS role_id, allowed, changed_at, changed_by"
            " FROM software_updates_point"
        )
    ).fetchone()
    assert row is not None  # The migration drew it.
    return Point(**row)


async def allow(tx: Tx, allowed: bool, actor: str, now: datetime) -> None:
    await tx.execute(
        "UPDATE software_updates_point SET allowed = %s, changed_at = %s, changed_by = %s",
        (allowed, now, actor),
    )


# Updates.


async def save(tx: Tx, id: str, wanted: Wanted, actor: str, now: datetime) -> tuple[str, bool]:
    """By package, article and release: made, or changed. Its id, and whether anything is new."""
    row = await (
        await tx.execute(
            f"""INSERT INTO software_updates_update AS u ({_UPDATE})
                VALUES (%(id)s, %(name)s, %(package)s, %(source)s, %(fixed_version)s, %(release)s,
                    %(classification)s, %(severity)s, %(article)s, %(superseded_by)s, %(url)s,
                    %(sha256)s, %(now)s, %(actor)s, %(now)s)
                ON CONFLICT (package, lower(article), release) DO UPDATE SET name = excluded.name,
                    source = excluded.source, fixed_version = excluded.fixed_version,
                    classification = excluded.classification, severity = excluded.severity,
                    superseded_by = excluded.superseded_by, url = excluded.url,
                    sha256 = excluded.sha256, changed_at = excluded.changed_at
                WHERE (u.name, u.source, u.fixed_version, u.classification, u.severity,
                    u.superseded_by, u.url, u.sha256)
                    IS DISTINCT FROM (excluded.name, excluded.source, excluded.fixed_version,
                    excluded.classification, excluded.severity, excluded.superseded_by,
                    excluded.url, excluded.sha256)
                RETURNING u.id""".encode(),  # noqa: S608
            {
                **{name: getattr(wanted, name) for name in wanted.__struct_fields__},
                "id": id,
                "now": now,
                "actor": actor,
            },
        )
    ).fetchone()
    return (str(row["id"]), True) if row else ("", False)


async def insert(tx: Tx, made: Update) -> bool:
    """False when there is one of this package, article and release."""
    done = await tx.execute(
        f"INSERT INTO software_updates_update ({_UPDATE})"  # noqa: S608
        " VALUES (%(id)s, %(name)s, %(package)s, %(source)s, %(fixed_version)s, %(release)s,"
        " %(classification)s, %(severity)s, %(article)s, %(superseded_by)s, %(url)s, %(sha256)s,"
        " %(created_at)s, %(created_by)s, %(changed_at)s) ON CONFLICT DO NOTHING",
        {name: getattr(made, name) for name in made.__struct_fields__},
    )
    return done.rowcount == 1


async def update(tx: Tx, wanted: str) -> Update | None:
    """By id, or by an article that only one update has."""
    found = await tx.execute(
        f"SELECT {_UPDATE} FROM software_updates_update"  # noqa: S608
        " WHERE id = %(w)s OR lower(article) = lower(%(w)s) ORDER BY id = %(w)s DESC LIMIT 2",
        {"w": wanted},
    )
    rows = [Update(**row) async for row in found]
    if not rows or (len(rows) > 1 and rows[0].id != wanted):
        return None
    return rows[0]


async def updates(
    tx: Tx, search: str, filter: Mapping[str, str], limit: int, offset: int
) -> tuple[list[Update], int]:
    """A page of them, the newest first, and how many there are."""
    where = (
        f" FROM software_updates_update u WHERE {_SEARCHED}"  # noqa: S608
        " AND (%(classification)s = '' OR u.classification = %(classification)s)"
        " AND (%(severity)s = '' OR u.severity = %(severity)s)"
        " AND (%(release)s = '' OR u.release = %(release)s)"
        " AND (%(decision)s = '' OR (%(decision)s = 'none') <> EXISTS ("
        " SELECT 1 FROM software_updates_decision d WHERE d.update_id = u.id"
        " AND (%(decision)s = 'none' OR d.decision = %(decision)s)))"
    )
    values = {"search": search, "limit": limit, "offset": offset, **filter}
    found = await tx.execute(
        f"SELECT {_UPDATE}{where} ORDER BY u.created_at DESC, u.article DESC, u.package, u.release"
        " LIMIT %(limit)s OFFSET %(offset)s",
        values,
    )
    page = [Update(**row) async for row in found]
    row = await (await tx.execute(f"SELECT count(*) AS n{where}", values)).fetchone()
    return page, int(row["n"]) if row else 0


async def some(tx: Tx, ids: Sequence[str]) -> list[Update]:
    found = await tx.execute(
        f"SELECT {_UPDATE} FROM software_updates_update WHERE id = ANY(%s) ORDER BY id",  # noqa: S608
        (list(ids),),
    )
    return [Update(**row) async for row in found]


async def superseding(tx: Tx, packages: Sequence[str]) -> dict[tuple[str, str, str], str]:
    """Of these packages: which article takes the place of which, each with its release."""
    found = await tx.execute(
        "SELECT package, release, lower(article) AS article, lower(superseded_by) AS by"
        " FROM software_updates_update WHERE package = ANY(%s) AND superseded_by <> ''",
        (list(packages),),
    )
    return {(row["package"], row["release"], row["article"]): row["by"] async for row in found}


async def delete(tx: Tx, id: str) -> bool:
    done = await tx.execute("DELETE FROM software_updates_update WHERE id = %s", (id,))
    return done.rowcount == 1


# Decisions.


async def decide(
    tx: Tx,
    ids: Sequence[str],
    collection_id: str,
    decision: str,
    deadline: datetime | None,
    actor: str,
    now: datetime,
) -> None:
    await tx.execute(
        "INSERT INTO software_updates_decision"
        " (update_id, collection_id, decision, deadline, decided_at, decided_by)"
        " SELECT unnest(%s::text[]), %s, %s, %s, %s, %s"
        " ON CONFLICT (update_id, collection_id) DO UPDATE SET decision = excluded.decision,"
        " deadline = excluded.deadline, decided_at = excluded.decided_at,"
        " decided_by = excluded.decided_by",
        (list(ids), collection_id, decision, deadline, now, actor),
    )


async def withdraw(tx: Tx, update_id: str, collection_id: str) -> bool:
    done = await tx.execute(
        "DELETE FROM software_updates_decision WHERE update_id = %s AND collection_id = %s",
        (update_id, collection_id),
    )
    return done.rowcount == 1


async def decisions(tx: Tx, ids: Sequence[str]) -> list[Decision]:
    found = await tx.execute(
        "SELECT d.update_id, d.collection_id, d.decision, d.deadline, d.decided_at, d.decided_by,"
        " coalesce(c.name, d.collection_id) AS collection FROM software_updates_decision d"
        " LEFT JOIN collections_collection c ON c.id = d.collection_id"
        " WHERE d.update_id = ANY(%s) ORDER BY d.decided_at, d.collection_id",
        (list(ids),),
    )
    return [Decision(**row) async for row in found]


async def decided_for(tx: Tx, collection_id: str) -> list[tuple[str, str]]:
    """Names of updates, with what is decided about them for a collection; what is approved first."""
    found = await tx.execute(
        "SELECT u.name, d.decision FROM software_updates_decision d"
        " JOIN software_updates_update u ON u.id = d.update_id WHERE d.collection_id = %s"
        " ORDER BY d.decision, u.name LIMIT 100",
        (collection_id,),
    )
    return [(row["name"], row["decision"]) async for row in found]


async def approved_for(
    tx: Tx, collection_ids: Sequence[str]
) -> list[tuple[Update, datetime | None]]:
    """What is approved for a device that is in these collections, with the earliest deadline."""
    names = ", ".join(f"u.{name.strip()}" for name in _UPDATE.split(","))
    found = await tx.execute(
        f"SELECT {names}, min(d.deadline) AS deadline"  # noqa: S608
        " FROM software_updates_decision d JOIN software_updates_update u ON u.id = d.update_id"
        " WHERE d.collection_id = ANY(%s) GROUP BY u.id"
        " HAVING NOT bool_or(d.decision = 'declined') ORDER BY u.id",
        (list(collection_ids),),
    )
    rows: list[tuple[Update, datetime | None]] = []
    async for row in found:
        deadline = row.pop("deadline")
        rows.append((Update(**row), deadline))
    return rows


async def collections_decided(tx: Tx, about: Sequence[str] | None = None) -> list[str]:
    """For which something is decided; `about`: about one of these updates."""
    found = await tx.execute(
        "SELECT DISTINCT collection_id FROM software_updates_decision"
        " WHERE %(about)s::text[] IS NULL OR update_id = ANY(%(about)s::text[])",
        {"about": None if about is None else list(about)},
    )
    return [row["collection_id"] async for row in found]


async def with_superseding(tx: Tx, ids: Sequence[str]) -> list[str]:
    """These updates, and what may take their place where it is approved."""
    found = await tx.execute(
        "SELECT n.id FROM software_updates_update u JOIN software_updates_update n"
        " ON lower(n.article) = lower(u.superseded_by) AND n.package = u.package"
        " AND n.release = u.release WHERE u.id = ANY(%s) AND u.superseded_by <> ''",
        (list(ids),),
    )
    return sorted({*ids, *[row["id"] async for row in found]})


# What clients say.


async def keep_states(
    tx: Tx, client_id: str, state: str, facts: ccm.UpdateFacts, at: datetime
) -> None:
    """Unless something newer is known: of a series the higher number, or what was said later."""
    items = list(facts.updates.items())
    await tx.execute(
        """INSERT INTO software_updates_state AS s
               (client_id, update_id, state, version, code, text, at, series, number)
           SELECT %(client)s, u.id, %(state)s, f.version, f.code, f.text, %(at)s, %(series)s,
               %(number)s
           FROM unnest(%(ids)s::text[], %(versions)s::text[], %(codes)s::text[], %(texts)s::text[])
               AS f (id, version, code, text)
           JOIN software_updates_update u ON u.id = f.id
           ON CONFLICT (client_id, update_id) DO UPDATE SET state = excluded.state,
               version = excluded.version, code = excluded.code, text = excluded.text,
               at = excluded.at, series = excluded.series, number = excluded.number
           WHERE CASE WHEN excluded.series = s.series THEN excluded.number > s.number
               ELSE excluded.at > s.at END""",
        {
            "client": client_id,
            "state": state,
            "at": at,
            "series": facts.series,
            "number": facts.number,
            "ids": [id for id, _ in items],
            "versions": [fact.version for _, fact in items],
            "codes": [fact.code for _, fact in items],
            "texts": [fact.text for _, fact in items],
        },
    )


async def keep_scan(tx: Tx, client_id: str, state: str, said: ccm.ScanResult, at: datetime) -> None:
    await tx.execute(
        """INSERT INTO software_updates_scan AS s
               (client_id, state, installs, code, text, at, series, number)
           VALUES (%s, %s, %s, %s, %s, %s, %s, %s)
           ON CONFLICT (client_id) DO UPDATE SET state = excluded.state,
               installs = excluded.installs, code = excluded.code, text = excluded.text,
               at = excluded.at, series = excluded.series, number = excluded.number
           WHERE CASE WHEN excluded.series = s.series THEN excluded.number > s.number
               ELSE excluded.at > s.at END""",
        (client_id, state, said.installs, said.code, said.text, at, said.series, said.number),
    )


async def asked(tx: Tx, client_id: str, now: datetime, before: datetime) -> None:
    """The client has asked for its list; not written again within a while."""
    await tx.execute(
        """INSERT INTO software_updates_scan AS s
               (client_id, state, installs, code, text, at, series, number, asked_at)
           VALUES (%(id)s, 'completed', false, 'scan.asked', '', '-infinity', '', 0, %(now)s)
           ON CONFLICT (client_id) DO UPDATE SET asked_at = excluded.asked_at
           WHERE s.asked_at IS NULL OR s.asked_at < %(before)s""",
        {"id": client_id, "now": now, "before": before},
    )


async def scan(tx: Tx, client_id: str) -> Scan | None:
    row = await (
        await tx.execute(
            "SELECT client_id, state, installs, code, text, nullif(at, '-infinity') AS at,"
            " asked_at FROM software_updates_scan WHERE client_id = %s",
            (client_id,),
        )
    ).fetchone()
    if row is None:
        return None
    row["at"] = row["at"] or row["asked_at"]
    return Scan(**row)


# Compliance. `members` is a SELECT of collection_id and resource_id, with its parameters. It has the
# collections of what is asked about: of these updates (`about`) and of what supersedes them, or all.


def _offered(members: str) -> str:
    """What is approved for whom: declined wins, and what is superseded by something that is approved
    for the same device is not offered to it.

    Devices that are in the same collections are offered the same. There are few such kinds, so it is
    decided for a kind and not for each device and update.
    """
    return f"""WITH placed AS MATERIALIZED (
            SELECT resource_id, array_agg(collection_id ORDER BY collection_id) AS places
            FROM ({members}) m GROUP BY resource_id),
        kinds AS MATERIALIZED (
            SELECT places, row_number() OVER () AS kind, count(*) AS devices
            FROM placed GROUP BY places),
        targeted AS MATERIALIZED (
            SELECT k.kind, d.update_id, min(d.deadline) AS deadline
            FROM kinds k JOIN software_updates_decision d ON d.collection_id = ANY(k.places)
            WHERE %(about)s::text[] IS NULL OR d.update_id = ANY(%(about)s::text[])
            GROUP BY 1, 2 HAVING NOT bool_or(d.decision = 'declined')),
        replaced AS MATERIALIZED (
            SELECT o.id AS update_id, n.id AS by
            FROM software_updates_update o JOIN software_updates_update n
                ON lower(n.article) = lower(o.superseded_by) AND n.package = o.package
                    AND n.release = o.release
            WHERE o.superseded_by <> ''),
        offered AS MATERIALIZED (
            SELECT t.kind, t.update_id, t.deadline FROM targeted t
            WHERE (t.kind, t.update_id) NOT IN (
                SELECT n.kind, r.update_id FROM replaced r
                JOIN targeted n ON n.update_id = r.by)),
        device AS MATERIALIZED (
            SELECT r.client_id, r.name AS device, k.kind
            FROM placed p JOIN kinds k USING (places)
            JOIN collections_resource r ON r.id = p.resource_id)
    """  # noqa: S608


_COUNTS = """, said AS (
        SELECT s.update_id, s.state, count(*) AS n
        FROM software_updates_state s JOIN device v ON v.client_id = s.client_id
        JOIN offered o ON o.update_id = s.update_id AND o.kind = v.kind
        WHERE s.update_id = ANY(%(wanted_ids)s) GROUP BY 1, 2),
    every AS (
        SELECT o.update_id, sum(k.devices) AS n FROM offered o JOIN kinds k USING (kind)
        WHERE o.update_id = ANY(%(wanted_ids)s) GROUP BY 1)
    SELECT update_id, state, n FROM said
    UNION ALL SELECT update_id, 'unknown', n - coalesce(
        (SELECT sum(s.n) FROM said s WHERE s.update_id = e.update_id), 0) FROM every e"""

_BY_DEVICE = """, said AS (
        SELECT v.client_id,
            count(*) FILTER (WHERE s.state = 'required') AS required,
            count(*) FILTER (WHERE s.state = 'installed') AS installed,
            count(*) FILTER (WHERE s.state = 'not-applicable') AS not_applicable,
            count(*) FILTER (WHERE s.state = 'failed') AS failed, count(*) AS known
        FROM software_updates_state s JOIN device v ON v.client_id = s.client_id
        JOIN offered o ON o.update_id = s.update_id AND o.kind = v.kind
        GROUP BY 1),
    every AS (SELECT kind, count(*) AS n FROM offered GROUP BY 1),
    told AS (
        SELECT v.client_id, v.device, coalesce(s.required, 0) AS required,
            coalesce(s.installed, 0) AS installed,
            coalesce(s.not_applicable, 0) AS not_applicable, coalesce(s.failed, 0) AS failed,
            e.n - coalesce(s.known, 0) AS unknown
        FROM device v JOIN every e ON e.kind = v.kind LEFT JOIN said s USING (client_id))
    SELECT t.client_id, t.device, sc.asked_at, coalesce(sc.installs, false) AS installs,
        t.required, t.installed, t.not_applicable, t.failed, t.unknown
    FROM told t LEFT JOIN software_updates_scan sc USING (client_id)
    WHERE CASE %(state)s WHEN 'required' THEN t.required WHEN 'installed' THEN t.installed
        WHEN 'not-applicable' THEN t.not_applicable WHEN 'failed' THEN t.failed
        WHEN 'unknown' THEN t.unknown ELSE 1 END > 0
    ORDER BY failed DESC, required DESC, unknown DESC, lower(t.device), t.client_id
    LIMIT %(limit)s OFFSET %(offset)s"""

_ON_DEVICES = """SELECT o.update_id, v.client_id, v.device, o.deadline,
        coalesce(s.state, 'unknown') AS state, coalesce(s.version, '') AS version,
        coalesce(s.code, '') AS code, coalesce(s.text, '') AS text, s.at
    FROM device v JOIN offered o ON o.kind = v.kind LEFT JOIN software_updates_state s
        ON s.update_id = o.update_id AND s.client_id = v.client_id
    WHERE (%(update)s = '' OR o.update_id = %(update)s)
        AND (%(state)s = '' OR coalesce(s.state, 'unknown') = %(state)s)
    ORDER BY array_position(
        ARRAY['failed', 'required', 'unknown', 'installed', 'not-applicable'],
        coalesce(s.state, 'unknown')), lower(v.device), v.client_id, o.update_id
    LIMIT %(limit)s OFFSET %(offset)s"""


@asynccontextmanager
async def _in_bulk(tx: Tx) -> AsyncIterator[None]:
    """What is asked here goes through what all devices have said. The planner cannot know how many
    kinds of devices there are, takes them for few, and would look up each state by itself."""
    await tx.execute("SET LOCAL enable_nestloop TO off")
    yield
    await tx.execute("SET LOCAL enable_nestloop TO DEFAULT")


async def counts(
    tx: Tx, members: str, values: Mapping[str, Any], ids: Sequence[str], about: Sequence[str]
) -> dict[str, Counts]:
    """Of each of these updates: on how many devices it stands how."""
    async with _in_bulk(tx):
        found = await tx.execute(
            (_offered(members) + _COUNTS).encode(),
            {**values, "wanted_ids": list(ids), "about": list(about)},
        )
    return _by(await found.fetchall(), "update_id")


async def counts_by_device(
    tx: Tx, members: str, values: Mapping[str, Any], limit: int, offset: int, state: str
) -> list[dict[str, Any]]:
    """Devices for which something is approved, the least compliant first."""
    async with _in_bulk(tx):
        found = await tx.execute(
            (_offered(members) + _BY_DEVICE).encode(),
            {**values, "about": None, "limit": limit, "offset": offset, "state": state},
        )
    return [dict(row) async for row in found]


async def on_devices(
    tx: Tx,
    members: str,
    values: Mapping[str, Any],
    *,
    about: Sequence[str] | None = None,
    update_id: str = "",
    state: str = "",
    limit: int,
    offset: int,
) -> list[OnDevice]:
    """How an update stands on each of these devices, or all that are offered to them; what went wrong first."""
    found = await tx.execute(
        (_offered(members) + _ON_DEVICES).encode(),
        {
            **values,
            "about": None if about is None else list(about),
            "update": update_id,
            "state": state,
            "limit": limit,
            "offset": offset,
        },
    )
    return [OnDevice(**row) async for row in found]


def _by(rows: Sequence[Mapping[str, Any]], key: str) -> dict[str, Counts]:
    found: dict[str, dict[str, int]] = {}
    for row in rows:
        name = State(row["state"]).name.lower()
        found.setdefault(row[key], {})[name] = int(row["n"])
    return {name: Counts(**values) for name, values in found.items()}
