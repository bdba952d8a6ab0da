"""What of collections and devices whoever asks may see: all of it, or what they are limited to.

Every look-up and every list of this module asks here. Evaluation does not: who is in a collection
depends on its rules alone, and nobody is in one who is not in what limits it.
"""

from collections.abc import Collection as Several
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from tandem.infra.database import Tx
from tandem.site import administrators
from tandem.site.collections import store
from tandem.site.collections.conditions import conditions_of
from tandem.site.collections.model import (
    Collection,
    CollectionId,
    KnownResource,
    KnownUser,
    LimitsYou,
    MemberType,
    Rule,
)


async def collections(tx: Tx) -> frozenset[CollectionId] | None:
    """Those that are seen; None: all of them."""
    limit = administrators.limit()
    return None if limit is None else frozenset(await store.limited_to(tx, limit))


async def roots(tx: Tx, of: MemberType = MemberType.DEVICE) -> list[CollectionId] | None:
    """Those of devices, or of users, that who asks is limited to, of which there may be none any
    more; None: not limited."""
    limit = administrators.limit()
    if limit is None:
        return None
    there = await store.of_type(tx, limit, of)
    return [CollectionId(id) for id in limit if id in there]


async def members(tx: Tx, of: MemberType = MemberType.DEVICE) -> tuple[str, tuple[Any, ...]]:
    """The condition, over a resource r, of the devices, or the users, that are seen."""
    limits = await roots(tx, of)
    if limits is None:
        return "true", ()
    conditions = await conditions_of(tx, limits) if limits else []
    sql = " OR ".join(f"({one.sql})" for one in conditions) or "false"
    return f"({sql})", tuple(value for one in conditions for value in one.values)


async def sees(tx: Tx, ids: Several[int], of: MemberType = MemberType.DEVICE) -> set[int]:
    """Those of these devices, or users, that are seen."""
    if administrators.limit() is None or not ids:
        return set(ids)
    sql, values = await members(tx, of)
    found: Sequence[KnownResource | KnownUser]
    sql, values = f"r.id = ANY(%s) AND {sql}", (list(ids), *values)
    if of is MemberType.USER:
        found = await store.user_members(tx, sql, values, len(ids), 0)
    else:
        found = await store.resources(tx, sql, values, len(ids), 0)
    return {item.id for item in found}


# What a rule is called that names a device, a user or a collection which who reads it may not see.
HIDDEN = "(hidden from you)"


async def told(tx: Tx, rules: Sequence[Rule], of: MemberType) -> list[Rule]:
    """Rules without what is hidden: neither its name nor its number."""
    only = await collections(tx)
    if only is None:
        return list(rules)
    seen = await sees(tx, {rule.resource_id for rule in rules if rule.resource_id}, of)
    return [
        replace(rule, name=HIDDEN, resource_id=None, other_id=None)
        if (rule.resource_id is not None and rule.resource_id not in seen)
        or (rule.other_id is not None and rule.other_id not in only)
        else rule
        for rule in rules
    ]


def check_changeable(found: Collection) -> None:
    """Who is limited to a collection does not say who is in it. Raises LimitsYou."""
    if found.id in (administrators.limit() or ()):
        raise LimitsYou(
            f"{found.name} is what you are limited to: you cannot change it.",
            cure="Make a collection that is limited to it, or ask a full administrator.",
        )
