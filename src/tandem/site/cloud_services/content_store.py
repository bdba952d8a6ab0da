from dataclasses import dataclass
from datetime import datetime

import msgspec
from psycopg.types.json import Jsonb

from tandem.infra.database import Tx
from tandem.protocols import tunnel


@dataclass(frozen=True, slots=True)
class Distributed:
    """A content and a gateway that serves it, or has served it."""

    service_name: str
    sha256: str
    name: str
    version: str
    size_bytes: int
    distribution: int
    removed: bool
    changed_at: datetime


@dataclass(frozen=True, slots=True)
class Said:
    """What an instance said of its copies, and when."""

    state: tunnel.ContentState
    reported_at: datetime


_COLUMNS = "service_name, sha256, name, version, size_bytes, distribution, removed, changed_at"


async def insert(tx: Tx, made: Distributed, sealed_key: bytes) -> None:
    await tx.execute(
        f"INSERT INTO cloud_content ({_COLUMNS}, sealed_key)"  # noqa: S608 - a constant
        " VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s) ON CONFLICT DO NOTHING",
        (
            made.service_name,
            made.sha256,
            made.name,
            made.version,
            made.size_bytes,
            made.distribution,
            made.removed,
            made.changed_at,
            sealed_key,
        ),
    )


async def contents(tx: Tx, service_name: str) -> list[Distributed]:
    found = await tx.execute(
        f"SELECT {_COLUMNS} FROM cloud_content"  # noqa: S608 - a constant
        " WHERE service_name = %s ORDER BY name, version, sha256",
        (service_name,),
    )
    return [Distributed(**row) async for row in found]


async def find(tx: Tx, service_name: str, sha256: str) -> tuple[Distributed, bytes] | None:
    """With the sealed key of its distribution."""
    found = await tx.execute(
        f"SELECT {_COLUMNS}, sealed_key FROM cloud_content"  # noqa: S608 - a constant
        " WHERE service_name = %s AND sha256 = %s",
        (service_name, sha256),
    )
    row = await found.fetchone()
    if row is None:
        return None
    key = bytes(row.pop("sealed_key"))
    return Distributed(**row), key


async def distribute_again(
    tx: Tx, service_name: str, sha256: str, sealed_key: bytes, now: datetime
) -> bool:
    """Under another key. False when the gateway never served it."""
    done = await tx.execute(
        "UPDATE cloud_content SET distribution = distribution + 1, removed = false,"
        " sealed_key = %s, changed_at = %s WHERE service_name = %s AND sha256 = %s",
        (sealed_key, now, service_name, sha256),
    )
    return done.rowcount == 1


async def remove(tx: Tx, service_name: str, sha256: str, now: datetime) -> bool:
    """False when it is not served there."""
    done = await tx.execute(
        "UPDATE cloud_content SET removed = true, changed_at = %s"
        " WHERE service_name = %s AND sha256 = %s AND NOT removed",
        (now, service_name, sha256),
    )
    return done.rowcount == 1


async def save_state(tx: Tx, service_name: str, state: tunnel.ContentState, now: datetime) -> None:
    await tx.execute(
        "INSERT INTO cloud_content_state (service_name, instance, state, reported_at)"
        " VALUES (%s, %s, %s, %s) ON CONFLICT (service_name, instance) DO UPDATE"
        " SET state = EXCLUDED.state, reported_at = EXCLUDED.reported_at",
        (service_name, state.instance, Jsonb(msgspec.to_builtins(state)), now),
    )


async def states(tx: Tx, service_name: str) -> list[Said]:
    found = await tx.execute(
        "SELECT state, reported_at FROM cloud_content_state"
        " WHERE service_name = %s ORDER BY instance",
        (service_name,),
    )
    return [
        Said(msgspec.convert(row["state"], tunnel.ContentState), row["reported_at"])
        async for row in found
    ]
