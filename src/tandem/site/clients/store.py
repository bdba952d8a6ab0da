"""SQL of the tables clients_…, and nothing else."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec
from psycopg.types.json import Jsonb

from tandem.infra.database import Tx
from tandem.protocols import ccm
from tandem.site.clients.model import (
    POLICY_DELIVERED,
    REGISTERED,
    REGISTERED_AGAIN,
    SITE_TOPIC,
    Client,
    ClientId,
    Conflict,
    FailedEffect,
    InForce,
    Milestone,
    RegistrationToken,
    Reported,
)

_CLIENT = """id, tenant_id, device_id, thumbprint, name, os_name, os_version, client_version,
    approval, blocked, registered_at, last_seen_at, policy_at, policy_version, state_at, state,
    registered_by, registration_token, hardware_id, obsolete"""


def _client(row: dict[str, Any]) -> Client:
    state = row.pop("state")
    found = msgspec.convert(state, ccm.ComanagementState) if state is not None else None
    return Client(**row, state=found)


class TokenKeyRow(msgspec.Struct, frozen=True):
    id: str
    sealed: bytes
    public_jwk: dict[str, str]


async def token_key_rows(tx: Tx) -> list[TokenKeyRow]:
    """Newest first."""
    cursor = await tx.execute(
        "SELECT id, sealed, public_jwk FROM clients_token_key ORDER BY created_at DESC, id"
    )
    return [TokenKeyRow(**row) for row in await cursor.fetchall()]


async def lock_token_keys(tx: Tx) -> None:
    """Two management points that start together make one key."""
    await tx.execute("LOCK TABLE clients_token_key IN SHARE ROW EXCLUSIVE MODE")


async def add_token_key(tx: Tx, row: TokenKeyRow, now: datetime) -> None:
    await tx.execute(
        "INSERT INTO clients_token_key (id, sealed, public_jwk, created_at) VALUES (%s, %s, %s, %s)",
        (row.id, row.sealed, Jsonb(row.public_jwk), now),
    )


async def use_nonce(tx: Tx, thumbprint: str, nonce: str, now: datetime) -> bool:
    """False when this key has used this nonce before."""
    cursor = await tx.execute(
        "INSERT INTO clients_nonce (thumbprint, nonce, used_at) VALUES (%s, %s, %s)"
        " ON CONFLICT DO NOTHING",
        (thumbprint, nonce, now),
    )
    return cursor.rowcount == 1


async def forget_nonces(tx: Tx, before: datetime) -> int:
    cursor = await tx.execute("DELETE FROM clients_nonce WHERE used_at < %s", (before,))
    return cursor.rowcount


async def client(tx: Tx, client_id: str) -> Client | None:
    return await _one(tx, "id = %s", client_id)


async def known_and_new(
    tx: Tx, client_id: str, thumbprint: str, nonce: str, now: datetime
) -> tuple[Client | None, bool]:
    """`client` and `use_nonce` in one statement: each request asks for both."""
    cursor = await tx.execute(
        f"""WITH used AS (
                INSERT INTO clients_nonce (thumbprint, nonce, used_at)
                VALUES (%s, %s, %s) ON CONFLICT DO NOTHING RETURNING 1)
            SELECT {_CLIENT}, fresh FROM (SELECT EXISTS (SELECT FROM used) AS fresh) n
                LEFT JOIN clients_client ON id = %s""".encode(),  # noqa: S608
        (thumbprint, nonce, now, client_id),
    )
    row = await cursor.fetchone()
    assert row is not None
    fresh = bool(row.pop("fresh"))
    return _client(row) if row["id"] is not None else None, fresh


async def client_of_device(tx: Tx, tenant_id: str, device_id: str) -> Client | None:
    return await _one(tx, "tenant_id = %s AND device_id = %s", tenant_id, device_id)


async def client_of_key(tx: Tx, thumbprint: str) -> Client | None:
    return await _one(tx, "thumbprint = %s", thumbprint)


async def _one(tx: Tx, condition: str, *values: str) -> Client | None:
    cursor = await tx.execute(
        f"SELECT {_CLIENT} FROM clients_client WHERE {condition}".encode(),  # noqa: S608
        values,
    )
    row = await cursor.fetchone()
    return _client(row) if row is not None else None


class Wanted(msgspec.Struct, frozen=True):
    """Which clients a list is of. `active` counts from `since`; None: whether active or not."""

    search: str = ""
    obsolete: bool = False
    active: bool | None = None
    since: datetime | None = None


_LISTED = """(%(obsolete)s OR NOT obsolete)
    AND (%(active)s::boolean IS NULL OR (last_seen_at >= %(since)s) = %(active)s)
    AND (%(search)s = '' OR name ILIKE %(like)s ESCAPE '!' OR id = %(search)s
        OR device_id = %(search)s)"""


# A SELECT of client ids with its parameters: no other clients are there. None: all of them.
Within = tuple[str, dict[str, Any]] | None


def _within(within: Within) -> tuple[str, dict[str, Any]]:
    return (f"id IN ({within[0]})", within[1]) if within is not None else ("true", {})


async def clients(
    tx: Tx, wanted: Wanted, limit: int | None, offset: int, within: Within = None
) -> list[Client]:
    seen, bound = _within(within)
    cursor = await tx.execute(
        f"""SELECT {_CLIENT} FROM clients_client WHERE {_LISTED} AND {seen}
            ORDER BY lower(name), id LIMIT %(limit)s OFFSET %(offset)s""".encode(),  # noqa: S608
        {**bound, **_values(wanted), "limit": limit, "offset": offset},
    )
    return [_client(row) for row in await cursor.fetchall()]


def _values(wanted: Wanted) -> dict[str, Any]:
    return {**msgspec.structs.asdict(wanted), "like": _like(wanted.search)}


async def reported(tx: Tx) -> list[Reported]:
    cursor = await tx.execute(
        """SELECT id, name, coalesce((state->>'flags')::bigint, 0) AS flags,
               coalesce((state->>'mdm_enrolled')::boolean, false) AS mdm_enrolled,
               coalesce((state->>'policy_present')::boolean, false) AS policy_present, policy_at,
               device_id, blocked, last_seen_at, state_at
           FROM clients_client WHERE NOT obsolete ORDER BY lower(name), id"""
    )
    return [Reported(**row) for row in await cursor.fetchall()]


async def in_force(tx: Tx, setting: str) -> dict[str, InForce]:
    cursor = await tx.execute(
        """SELECT id, state->'applied'->%(s)s->>'value' AS value,
               state->'applied'->%(s)s->>'source' AS source,
               state->'applied'->%(s)s->>'configuration' AS configuration
           FROM clients_client WHERE state->'applied'->%(s)s IS NOT NULL""",
        {"s": setting},
    )
    return {
        row["id"]: InForce(row["value"] or "", row["source"] or "", row["configuration"] or "")
        for row in await cursor.fetchall()
    }


async def signed_in(tx: Tx, client_ids: Sequence[str]) -> dict[str, tuple[str, str]]:
    cursor = await tx.execute(
        """SELECT id, tenant_id, state->>'user' AS object_id FROM clients_client
           WHERE id = ANY(%s) AND state->>'user' <> ''""",
        (list(client_ids),),
    )
    return {row["id"]: (row["tenant_id"], row["object_id"]) async for row in cursor}


async def failed_effects(tx: Tx, source: str) -> list[FailedEffect]:
    cursor = await tx.execute(
        """SELECT c.id AS client_id, e.key AS setting,
               coalesce(c.state->'applied'->e.key->>'workload', '') AS workload,
               coalesce(e.value->>'text', '') AS text
           FROM clients_client c, jsonb_each(c.state->'enacted') e
           WHERE c.state @? '$.enacted.*.failed ? (@ == true)'
               AND e.value->>'failed' = 'true' AND e.value->>'source' = %s
           ORDER BY c.id, e.key""",
        (source,),
    )
    return [FailedEffect(**row) for row in await cursor.fetchall()]


async def count(tx: Tx, wanted: Wanted, within: Within = None) -> int:
    seen, bound = _within(within)
    cursor = await tx.execute(
        f"SELECT count(*) AS n FROM clients_client WHERE {_LISTED} AND {seen}".encode(),  # noqa: S608
        {**bound, **_values(wanted)},
    )
    row = await cursor.fetchone()
    return int(row["n"]) if row else 0


def _like(search: str) -> str:
    escaped = search.replace("!", "!!").replace("%", "!%").replace("_", "!_")
    return f"%{escaped}%"


async def save_client(tx: Tx, wanted: Client) -> Client:
    """The client as it is now. A device that registers again keeps the id of its record."""
    cursor = await tx.execute(
        f"""INSERT INTO clients_client (id, tenant_id, device_id, thumbprint, name, os_name,
                os_version, client_version, approval, registered_at, last_seen_at, registered_by,
                registration_token, hardware_id)
            VALUES (%(id)s, %(tenant_id)s, %(device_id)s, %(thumbprint)s, %(name)s, %(os_name)s,
                %(os_version)s, %(client_version)s, %(approval)s, %(registered_at)s,
                %(last_seen_at)s, %(registered_by)s, %(registration_token)s, %(hardware_id)s)
            ON CONFLICT (tenant_id, device_id) DO UPDATE SET
                approval = excluded.approval, registered_by = excluded.registered_by,
                registration_token = excluded.registration_token,
                hardware_id = excluded.hardware_id, obsolete = false,
                thumbprint = excluded.thumbprint, name = excluded.name,
                os_name = excluded.os_name, os_version = excluded.os_version,
                client_version = excluded.client_version, last_seen_at = excluded.last_seen_at
            RETURNING {_CLIENT}""".encode(),  # noqa: S608
        msgspec.structs.asdict(wanted),
    )
    row = await cursor.fetchone()
    assert row is not None
    return _client(row)


async def move_client(tx: Tx, client_id: str, tenant_id: str, device_id: str) -> None:
    """The same machine under the device id that its new join gave it."""
    await tx.execute(
        "UPDATE clients_client SET tenant_id = %s, device_id = %s WHERE id = %s",
        (tenant_id, device_id, client_id),
    )


async def move_timeline(tx: Tx, before: Client, tenant_id: str, device_id: str) -> None:
    """Its history with it: else a message that comes again after the move would count again."""
    await tx.execute(
        """UPDATE clients_timeline t SET tenant_id = %(tenant)s, device_id = %(device)s
           WHERE tenant_id = %(was)s AND device_id = %(old)s AND NOT EXISTS (
               SELECT FROM clients_timeline n WHERE n.tenant_id = %(tenant)s
                   AND n.device_id = %(device)s AND n.message_id = t.message_id)""",
        {
            "tenant": tenant_id,
            "device": device_id,
            "was": before.tenant_id,
            "old": before.device_id,
        },
    )


async def retire_key(tx: Tx, client_id: str) -> None:
    """The record stays for its history; its key speaks for another client now."""
    await tx.execute(
        "UPDATE clients_client SET thumbprint = 'retired:' || id WHERE id = %s", (client_id,)
    )


async def mark_seen(tx: Tx, client_id: str, now: datetime, unless_since: datetime) -> None:
    await tx.execute(
        "UPDATE clients_client SET last_seen_at = %s WHERE id = %s AND last_seen_at < %s",
        (now, client_id, unless_since),
    )


async def mark_all_seen(tx: Tx, seen: Mapping[str, datetime]) -> None:
    await tx.execute(
        """UPDATE clients_client c SET last_seen_at = s.at
           FROM unnest(%s::text[], %s::timestamptz[]) s (id, at)
           WHERE c.id = s.id AND c.last_seen_at < s.at""",
        (list(seen), list(seen.values())),
    )


async def set_blocked(tx: Tx, client_id: str, blocked: bool) -> Client | None:
    cursor = await tx.execute(
        f"UPDATE clients_client SET blocked = %s WHERE id = %s RETURNING {_CLIENT}".encode(),  # noqa: S608
        (blocked, client_id),
    )
    row = await cursor.fetchone()
    return _client(row) if row is not None else None


async def delete_client(tx: Tx, client_id: str) -> None:
    await tx.execute("DELETE FROM clients_client WHERE id = %s", (client_id,))


async def deliver(
    tx: Tx, client: Client, digest: str, entry_id: str, told: Mapping[str, Any], now: datetime
) -> int:
    """Note that this client gets this content now, also in its timeline, with what is told of it
    there. Returns the content's number: one more than the last, when it differs."""
    cursor = await tx.execute(
        """WITH given AS (
               UPDATE clients_client SET policy_at = %(now)s, policy_digest = %(digest)s,
                   policy_version = policy_version
                       + CASE WHEN policy_digest = %(digest)s THEN 0 ELSE 1 END
               WHERE id = %(id)s RETURNING policy_version
           ), entered AS (
               INSERT INTO clients_timeline
                   (tenant_id, device_id, message_id, topic, state, at, received_at, data)
               SELECT %(tenant)s, %(device)s, %(entry)s, %(topic)s, %(state)s, %(now)s, %(now)s,
                   jsonb_build_object('version', policy_version) || %(told)s::jsonb
               FROM given
           )
           SELECT policy_version FROM given""",
        {
            "digest": digest,
            "id": client.id,
            "now": now,
            "tenant": client.tenant_id,
            "device": client.device_id,
            "entry": entry_id,
            "topic": SITE_TOPIC,
            "state": POLICY_DELIVERED,
            "told": Jsonb(dict(told)),
        },
    )
    row = await cursor.fetchone()
    assert row is not None
    return int(row["policy_version"])


async def policy_digest(tx: Tx, client_id: str) -> str:
    cursor = await tx.execute(
        "SELECT policy_digest FROM clients_client WHERE id = %s", (client_id,)
    )
    row = await cursor.fetchone()
    return str(row["policy_digest"]) if row else ""


async def save_state(tx: Tx, client_id: str, state: ccm.ComanagementState, at: datetime) -> bool:
    """Keeps the newest: messages may arrive out of their order. False when it knew a newer one."""
    done = await tx.execute(
        """UPDATE clients_client SET state = %(state)s, state_at = %(at)s
           WHERE id = %(id)s AND (state_at IS NULL OR state_at <= %(at)s)""",
        {"state": Jsonb(msgspec.to_builtins(state)), "at": at, "id": client_id},
    )
    return done.rowcount == 1


async def add_entry(
    tx: Tx, tenant_id: str, device_id: str, message: ccm.Message, received_at: datetime
) -> bool:
    """False when this message of this device was here before."""
    cursor = await tx.execute(
        """INSERT INTO clients_timeline
               (tenant_id, device_id, message_id, topic, state, at, received_at, data)
           VALUES (%s, %s, %s, %s, %s, %s, %s, %s) ON CONFLICT DO NOTHING""",
        (
            tenant_id,
            device_id,
            message.id,
            message.topic,
            message.state,
            message.at,
            received_at,
            Jsonb(message.data),
        ),
    )
    return cursor.rowcount == 1


async def entries(tx: Tx, tenant_id: str, device_id: str, limit: int) -> list[dict[str, Any]]:
    """Oldest first, of the newest `limit`."""
    cursor = await tx.execute(
        """SELECT topic, state, at, received_at, data FROM (
               SELECT * FROM clients_timeline WHERE tenant_id = %s AND device_id = %s
               ORDER BY at DESC, sequence DESC LIMIT %s) AS newest
           ORDER BY at, sequence""",
        (tenant_id, device_id, limit),
    )
    return await cursor.fetchall()


async def topics(tx: Tx) -> list[int]:
    """Those of the timeline, each found in the index by the one before it."""
    cursor = await tx.execute(
        """WITH RECURSIVE found AS (
               SELECT min(topic) AS topic FROM clients_timeline
               UNION ALL
               SELECT (SELECT min(topic) FROM clients_timeline WHERE topic > found.topic)
               FROM found WHERE topic IS NOT NULL)
           SELECT topic FROM found WHERE topic IS NOT NULL"""
    )
    return [int(row["topic"]) async for row in cursor]


async def forget_entries(tx: Tx, topic: int, before: datetime, most: int) -> int:
    """Drop entries that came before, but the newest of each state of each device. Returns how many."""
    cursor = await tx.execute(
        """DELETE FROM clients_timeline WHERE (tenant_id, device_id, message_id) IN (
               SELECT tenant_id, device_id, message_id FROM clients_timeline t
               WHERE topic = %(topic)s AND received_at < %(before)s AND EXISTS (
                   SELECT FROM clients_timeline n
                   WHERE n.tenant_id = t.tenant_id AND n.device_id = t.device_id
                   AND n.topic = t.topic AND n.state = t.state
                   AND n.at >= t.at AND (n.at, n.sequence) > (t.at, t.sequence))
               LIMIT %(most)s)""",
        {"topic": topic, "before": before, "most": most},
    )
    return cursor.rowcount


async def newest_of_topics(
    tx: Tx, tenant_id: str, device_id: str, topics: Sequence[int]
) -> dict[int, datetime]:
    cursor = await tx.execute(
        """SELECT topic, max(received_at) AS at FROM clients_timeline
           WHERE tenant_id = %s AND device_id = %s AND topic = ANY(%s) GROUP BY topic""",
        (tenant_id, device_id, list(topics)),
    )
    return {row["topic"]: row["at"] async for row in cursor}


async def has_entry(
    tx: Tx, tenant_id: str, device_id: str, topic: int, state: int, since: datetime
) -> bool:
    row = await (
        await tx.execute(
            "SELECT 1 FROM clients_timeline WHERE tenant_id = %s AND device_id = %s AND topic = %s"
            " AND state = %s AND received_at >= %s LIMIT 1",
            (tenant_id, device_id, topic, state, since),
        )
    ).fetchone()
    return row is not None


async def newest_of_topic(tx: Tx, topic: int, limit: int) -> Sequence[dict[str, Any]]:
    """The newest entry of each device in a topic."""
    cursor = await tx.execute(
        """SELECT DISTINCT ON (tenant_id, device_id) tenant_id, device_id, state, at, data
           FROM clients_timeline WHERE topic = %s
           ORDER BY tenant_id, device_id, at DESC, sequence DESC LIMIT %s""",
        (topic, limit),
    )
    return await cursor.fetchall()


async def clients_of_devices(tx: Tx, device_ids: Sequence[str]) -> list[Client]:
    """The newest client of each device."""
    cursor = await tx.execute(
        f"""SELECT DISTINCT ON (device_id) {_CLIENT} FROM clients_client
            WHERE device_id = ANY(%s) AND NOT obsolete
            ORDER BY device_id, registered_at DESC, id""".encode(),  # noqa: S608
        (list(device_ids),),
    )
    return [_client(row) for row in await cursor.fetchall()]


async def newest_setup_of(tx: Tx, device_ids: Sequence[str]) -> list[dict[str, Any]]:
    return await _newest_of(tx, device_ids, f"topic = {ccm.SETUP_TOPIC:d}")


async def newest_enrollment_of(tx: Tx, device_ids: Sequence[str]) -> list[dict[str, Any]]:
    """The newest that says how the enrolment goes, not only where it stands."""
    return await _newest_of(tx, device_ids, f"topic = {ccm.COMANAGEMENT_TOPIC:d} AND state > 100")


async def _newest_of(tx: Tx, device_ids: Sequence[str], condition: str) -> list[dict[str, Any]]:
    cursor = await tx.execute(
        f"""SELECT found.* FROM unnest(%s::text[]) AS asked (device_id), LATERAL (
                SELECT tenant_id, device_id, state, at, data FROM clients_timeline t
                WHERE t.device_id = asked.device_id AND {condition}
                ORDER BY at DESC, sequence DESC LIMIT 1) AS found""".encode(),  # noqa: S608
        (list(device_ids),),
    )
    return await cursor.fetchall()


async def set_blocked_all(tx: Tx, client_ids: Sequence[str], blocked: bool) -> list[str]:
    """The clients that this changed."""
    cursor = await tx.execute(
        "UPDATE clients_client SET blocked = %s WHERE id = ANY(%s) AND blocked <> %s RETURNING id",
        (blocked, list(client_ids), blocked),
    )
    return [row["id"] for row in await cursor.fetchall()]


async def newest_enrollment(tx: Tx) -> Sequence[dict[str, Any]]:
    """The newest entry of each device that says how its enrolment goes, not only where it stands."""
    cursor = await tx.execute(
        """SELECT DISTINCT ON (tenant_id, device_id) device_id, state, at, data
           FROM clients_timeline WHERE topic = %s AND state > 100
           ORDER BY tenant_id, device_id, at DESC, sequence DESC""",
        (ccm.COMANAGEMENT_TOPIC,),
    )
    return await cursor.fetchall()


async def milestones(tx: Tx, limit: int) -> list[Milestone]:
    """The newest first, of the newest `limit` entries of each of the two topics."""
    newest = """(SELECT received_at AS at, device_id, topic, state, data FROM clients_timeline
                 WHERE topic = {} ORDER BY received_at DESC LIMIT {})"""
    parts = " UNION ALL ".join([newest.format("%s", "%s")] * 2)
    cursor = await tx.execute(
        f"""SELECT at, device_id, topic = %s AS registered,
                coalesce((data->>'mdm_enrolled')::boolean
                    AND (data->>'policy_present')::boolean, false) AS co_managed
            FROM ({parts}) AS newest
            WHERE (topic = %s AND state IN (%s, %s)) OR (topic = %s AND state = 100)
            ORDER BY at DESC""".encode(),  # noqa: S608
        (
            SITE_TOPIC,
            SITE_TOPIC,
            limit,
            ccm.COMANAGEMENT_TOPIC,
            limit,
            SITE_TOPIC,
            REGISTERED,
            REGISTERED_AGAIN,
            ccm.COMANAGEMENT_TOPIC,
        ),
    )
    return [Milestone(**row) for row in await cursor.fetchall()]


async def same_hardware(tx: Tx, hardware_id: str, but: str) -> list[Client]:
    """Other clients that are not obsolete and say they are this hardware."""
    cursor = await tx.execute(
        f"SELECT {_CLIENT} FROM clients_client"  # noqa: S608
        " WHERE hardware_id = %s AND hardware_id <> '' AND id <> %s AND NOT obsolete"
        " AND NOT blocked".encode(),
        (hardware_id, but),
    )
    return [_client(row) for row in await cursor.fetchall()]


async def set_obsolete(tx: Tx, client_id: str, obsolete: bool, now: datetime) -> bool:
    """False when it was so already."""
    done = await tx.execute(
        "UPDATE clients_client SET obsolete = %s, obsolete_at = %s WHERE id = %s AND obsolete <> %s",
        (obsolete, now if obsolete else None, client_id, obsolete),
    )
    return done.rowcount == 1


async def obsolete_since(tx: Tx, before: datetime) -> list[str]:
    """Clients that have been obsolete, and unheard of, since then."""
    cursor = await tx.execute(
        "SELECT id FROM clients_client WHERE obsolete AND greatest(obsolete_at, last_seen_at) < %s",
        (before,),
    )
    return [row["id"] for row in await cursor.fetchall()]


class Continuity(msgspec.Struct, frozen=True):
    """The last batch of messages of a client: its number, and the hardware that sent it. `decided`:
    an administrator wants one of two machines to take an identity of its own; `resync`: the whole
    inventory is wanted."""

    sequence: int
    hardware: str
    decided: bool = False
    resync: bool = False


async def hold_continuity(tx: Tx, client_id: str) -> Continuity:
    """Two batches at once wait for each other here."""
    cursor = await tx.execute(
        """SELECT sequence, sequence_hardware AS hardware, inventory_wanted AS resync,
               EXISTS (SELECT FROM clients_conflict f WHERE f.client_id = c.id
                   AND f.resolved_at IS NULL AND f.decision <> '') AS decided
           FROM clients_client c WHERE id = %s FOR UPDATE OF c""",
        (client_id,),
    )
    row = await cursor.fetchone()
    return Continuity(**row) if row is not None else Continuity(0, "")


async def save_continuity(tx: Tx, client_id: str, found: Continuity) -> None:
    await tx.execute(
        "UPDATE clients_client SET sequence = %s, sequence_hardware = %s WHERE id = %s",
        (found.sequence, found.hardware, client_id),
    )


async def forget_last_hardware(tx: Tx, client_id: str) -> None:
    """What the copy said of itself is not what this client is."""
    await tx.execute("UPDATE clients_client SET sequence_hardware = '' WHERE id = %s", (client_id,))


async def settle_hardware(tx: Tx, client_id: str) -> None:
    """The client is on the hardware that it speaks from now."""
    await tx.execute(
        "UPDATE clients_client SET hardware_id = sequence_hardware"
        " WHERE id = %s AND sequence_hardware <> ''",
        (client_id,),
    )


async def add_conflict(
    tx: Tx, client_id: str, kind: str, other: str, now: datetime
) -> tuple[int, str]:
    """How often this was seen since somebody last decided, and what was decided."""
    cursor = await tx.execute(
        """INSERT INTO clients_conflict AS c (client_id, kind, other, first_at, last_at)
           VALUES (%s, %s, %s, %s, %s)
           ON CONFLICT (client_id, kind, other) WHERE resolved_at IS NULL
           DO UPDATE SET times = c.times + 1, last_at = excluded.last_at
           RETURNING times, decision""",
        (client_id, kind, other, now, now),
    )
    row = await cursor.fetchone()
    assert row is not None
    return int(row["times"]), str(row["decision"])


async def open_conflicts(tx: Tx, client_id: str, kind: str, but: str) -> int:
    """How many of this kind wait for a decision, without the one of `but`."""
    row = await (
        await tx.execute(
            "SELECT count(*) AS n FROM clients_conflict"
            " WHERE client_id = %s AND kind = %s AND other <> %s AND resolved_at IS NULL",
            (client_id, kind, but),
        )
    ).fetchone()
    assert row is not None
    return int(row["n"])


_CONFLICT = """f.id, f.client_id, c.name, f.kind, f.other, f.first_at, f.last_at, f.times,
    f.decision, f.decided_by, f.resolved_at, c.registered_by"""


async def conflicts(tx: Tx, resolved: bool, limit: int) -> list[Conflict]:
    cursor = await tx.execute(
        f"""SELECT {_CONFLICT} FROM clients_conflict f JOIN clients_client c ON c.id = f.client_id
            WHERE %s OR f.resolved_at IS NULL
            ORDER BY f.resolved_at IS NOT NULL, f.last_at DESC, f.id LIMIT %s""".encode(),  # noqa: S608
        (resolved, limit),
    )
    return [Conflict(**row) for row in await cursor.fetchall()]


async def conflict(tx: Tx, id: int) -> Conflict | None:
    cursor = await tx.execute(
        f"""SELECT {_CONFLICT} FROM clients_conflict f JOIN clients_client c ON c.id = f.client_id
            WHERE f.id = %s FOR UPDATE OF f""".encode(),  # noqa: S608
        (id,),
    )
    row = await cursor.fetchone()
    return Conflict(**row) if row is not None else None


async def decide(tx: Tx, id: int, decision: str, actor: str, resolved_at: datetime | None) -> None:
    await tx.execute(
        "UPDATE clients_conflict SET decision = %s, decided_by = %s, resolved_at = %s"
        " WHERE id = %s",
        (decision, actor, resolved_at, id),
    )


async def decided(tx: Tx, client_id: str, decision: str) -> list[int]:
    """Conflicts of this client of which this was decided, and which are not over."""
    cursor = await tx.execute(
        "SELECT id FROM clients_conflict"
        " WHERE client_id = %s AND decision = %s AND resolved_at IS NULL",
        (client_id, decision),
    )
    return [row["id"] for row in await cursor.fetchall()]


async def resolve(tx: Tx, ids: Sequence[int], now: datetime) -> None:
    await tx.execute(
        "UPDATE clients_conflict SET resolved_at = %s WHERE id = ANY(%s)", (now, list(ids))
    )


class InventoryPlace(msgspec.Struct, frozen=True):
    """How far a client's inventory was followed."""

    series: str
    number: int
    past: list[str]
    wanted: bool


async def inventory_place(tx: Tx, client_id: str) -> InventoryPlace:
    cursor = await tx.execute(
        "SELECT inventory_series AS series, inventory_number AS number, inventory_past AS past,"
        " inventory_wanted AS wanted FROM clients_client WHERE id = %s FOR UPDATE",
        (client_id,),
    )
    row = await cursor.fetchone()
    return InventoryPlace(**row) if row is not None else InventoryPlace("", 0, [], False)


async def save_inventory_place(tx: Tx, client_id: str, place: InventoryPlace) -> None:
    await tx.execute(
        "UPDATE clients_client SET inventory_series = %s, inventory_number = %s,"
        " inventory_past = %s, inventory_wanted = %s WHERE id = %s",
        (place.series, place.number, place.past, place.wanted, client_id),
    )


async def want_inventory(tx: Tx, client_id: str) -> bool:
    done = await tx.execute(
        "UPDATE clients_client SET inventory_wanted = true WHERE id = %s", (client_id,)
    )
    return done.rowcount == 1


async def inventory_wanted(tx: Tx, client_id: str) -> bool:
    cursor = await tx.execute(
        "SELECT inventory_wanted FROM clients_client WHERE id = %s", (client_id,)
    )
    row = await cursor.fetchone()
    return bool(row and row["inventory_wanted"])


_REGISTRATION = """t.id, t.description, t.created_by, t.created_at, t.expires_at, t.blocked,
    (SELECT count(*) FROM clients_client c WHERE c.registration_token = t.id) AS registered"""


async def add_registration_token(tx: Tx, made: RegistrationToken) -> None:
    await tx.execute(
        "INSERT INTO clients_registration_token (id, description, created_by, created_at,"
        " expires_at) VALUES (%s, %s, %s, %s, %s)",
        (made.id, made.description, made.created_by, made.created_at, made.expires_at),
    )


async def registration_token(tx: Tx, id: str) -> RegistrationToken | None:
    cursor = await tx.execute(
        f"SELECT {_REGISTRATION} FROM clients_registration_token t WHERE t.id = %s".encode(),  # noqa: S608
        (id,),
    )
    row = await cursor.fetchone()
    return RegistrationToken(**row) if row is not None else None


async def registration_tokens(tx: Tx) -> list[RegistrationToken]:
    cursor = await tx.execute(
        f"SELECT {_REGISTRATION} FROM clients_registration_token t"  # noqa: S608
        " ORDER BY t.created_at DESC, t.id".encode()
    )
    return [RegistrationToken(**row) for row in await cursor.fetchall()]


async def block_registration_token(tx: Tx, id: str, blocked: bool) -> bool:
    done = await tx.execute(
        "UPDATE clients_registration_token SET blocked = %s WHERE id = %s", (blocked, id)
    )
    return done.rowcount == 1


async def delete_registration_token(tx: Tx, id: str) -> bool:
    done = await tx.execute("DELETE FROM clients_registration_token WHERE id = %s", (id,))
    return done.rowcount == 1


def new_id(guid: str) -> ClientId:
    return ClientId(f"GUID:{guid.upper()}")
