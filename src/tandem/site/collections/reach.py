"""What of collections and devices whoever asks may see: all of it, or what they are limited to.

Every look-up and every list of this module asks here. Evaluation does not: who is in a collection
depends on its rules alone, and nobody is in one who is not in what limits it.
"""

from collections.abc import Collection as Several
from typing import Any

from tandem.infra.database import Tx
from tandem.site import administrators
from tandem.site.collections import store
from tandem.site.collections.conditions import conditions_of
from tandem.site.collections.model import Collection, CollectionId, LimitsYou


async def collections(tx: Tx) -> frozenset[CollectionId] | None:
    """Those that are seen; None: all of them."""
    limit = administrators.limit()
    return None if limit is None else frozenset(await store.limited_to(tx, limit))


async def roots(tx: Tx) -> list[CollectionId] | None:
    """Those of devices that who asks is limited to, of which there may be none any more; None: not
    limited."""
    limit = administrators.limit()
    if limit is None:
        return None
    there = await store.of_devices(tx, limit)
    return [CollectionId(id) for id in limit if id in there]


async def devices(tx: Tx) -> tuple[str, tuple[Any, ...]]:
    """The condition, over a resource r, of the devices that are seen."""
    limits = await roots(tx)
    if limits is None:
        return "true", ()
    conditions = await conditions_of(tx, limits) if limits else []
    sql = " OR ".join(f"({one.sql})" for one in conditions) or "false"
    return f"({sql})", tuple(value for one in conditions for value in one.values)


async def sees(tx: Tx, ids: Several[int]) -> set[int]:
    """Those of these devices that are seen."""
    if administrators.limit() is None or not ids:
        return set(ids)
    sql, values = await devices(tx)
    found = await store.resources(
        tx, f"r.id = ANY(%s) AND {sql}", (list(ids), *values), len(ids), 0
    )
    return {item.id for item in found}


def check_changeable(found: Collection) -> None:
    """Who is limited to a collection does not say who is in it. Raises LimitsYou."""
    if found.id in (administrators.limit() or ()):
        raise LimitsYou(
            f"{found.name} is what you are limited to: you cannot change it.",
            cure="Make a collection that is limited to it, or ask a full administrator.",
        )
