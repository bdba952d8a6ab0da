"""Collections and their members, computed when somebody asks.

A collection's members are those of its limiting collection to whom a rule of it applies. What a
device gets is asked of the rules: a change of a rule or of a device takes effect at once. The members
that `evaluating` keeps are for lists, counts and costs.
"""

import hashlib
import re
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence, Set
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from psycopg.errors import QueryCanceled

from tandem import audit
from tandem.infra.database import Tx
from tandem.infra.errors import AppError
from tandem.site import administrators, traces
from tandem.site.collections import evaluation_store, reach, store
from tandem.site.collections.classes import Class
from tandem.site.collections.conditions import (
    CLASS_OF,
    DEEPEST,
    MOST_CONDITIONS,
    all_of,
    condition_of,
    conditions_of,
    direct,
    graph_of,
)
from tandem.site.collections.evaluating import evaluate_fully
from tandem.site.collections.model import (
    ALL_SYSTEMS,
    BUILT_IN,
    ROOTS,
    RULE_KINDS,
    WEEK_MINUTES,
    BadName,
    BadQuery,
    BadRule,
    BadSchedule,
    BuiltIn,
    Circular,
    Collection,
    CollectionId,
    Dependencies,
    Edge,
    Evaluation,
    GrowsTooFar,
    Guard,
    InUse,
    KnownGroup,
    KnownResource,
    KnownUser,
    MemberType,
    NameTaken,
    NeedsOverAll,
    NoSuchCollection,
    NoSuchResource,
    NoSuchRule,
    Preview,
    ReadsOthers,
    Reported,
    Resource,
    Rule,
    TooComplex,
    Use,
    UsedFor,
    UserResource,
    WantedRule,
    WrongType,
)
from tandem.site.collections.query import compile_query


async def upsert_resource(tx: Tx, resource: Resource, now: datetime) -> int:
    """The number of this device's resource, made or brought up to date."""
    return await store.save_resource(tx, resource, now)


async def report(tx: Tx, client_id: str, of: Class, rows: Reported, now: datetime) -> None:
    """What is known of this client's device by one class from now on, for queries to read. What
    the class has no attribute for, or is not of the attribute's type, is left out."""
    kept = [_kept(of, row) for row in rows]
    folded = [
        {name.lower(): v.lower() if isinstance(v, str) else v for name, v in row.items()}
        for row in kept
    ]
    await store.save_inventory(tx, client_id, of.key, list(zip(kept, folded, strict=True)), now)


def _kept(of: Class, row: Mapping[str, str | int]) -> dict[str, str | int]:
    found: dict[str, str | int] = {}
    for name, value in row.items():
        known = of.attribute_named(name)
        if known is not None and isinstance(value, int if known.number else str):
            found[known.name] = int(value) if known.number else str(value)[:_LONGEST_VALUE]
    return found


# Longer than a name or a version is, shorter than what an index entry may be.
_LONGEST_VALUE = 512


async def upsert_user(tx: Tx, user: UserResource, now: datetime) -> bool:
    """Make the user's resource or bring it up to date. Returns whether it is new."""
    return await store.save_user(tx, user, now)


async def user_groups(
    tx: Tx, limit: int, offset: int, *, search: str = "", order: tuple[str, bool] = ("name", False)
) -> list[KnownGroup]:
    """Groups of users whose name begins with `search`."""
    seen = await visible_users_sql(tx)
    return await store.user_groups(tx, seen, search, order, limit, offset)


async def count_user_groups(tx: Tx, search: str = "") -> int:
    return await store.count_user_groups(tx, await visible_users_sql(tx), search)


async def user_group(tx: Tx, wanted: str) -> KnownGroup:
    """By number, object id or name. Raises NoSuchResource."""
    found = await store.user_group(tx, await visible_users_sql(tx), wanted)
    if found is None:
        raise NoSuchResource(
            f"The site knows no user group {wanted[:256]!r}.",
            cure="Discovery finds groups: `tandem discovery run --groups`, then `tandem collection groups`.",
        )
    return found


async def group_members(
    tx: Tx, group_id: int, search: str, order: tuple[str, bool], limit: int, offset: int
) -> tuple[list[KnownUser], int]:
    """A page of the users in a group that who asks may see, and how many match."""
    seen = await _seen_users(tx)
    return await store.group_members(tx, seen, group_id, search, order, limit, offset)


async def set_group_members(
    tx: Tx, tenant_id: str, group: str, users: Sequence[str]
) -> tuple[int, int]:
    """These of the tenant's users, by object id, are in the group, and nobody else. Returns how many
    came, and how many went."""
    return await store.save_group_members(tx, tenant_id, group, users)


async def mark_gone(tx: Tx, tenant_id: str, object_ids: Sequence[str], now: datetime) -> int:
    """These users or groups are not in the tenant any more: they leave their collections, and come back to
    them when they are found again. Returns how many were there until now."""
    return await store.mark_gone(tx, tenant_id, object_ids, now)


async def mark_others_gone(tx: Tx, tenant_id: str, object_ids: Sequence[str], now: datetime) -> int:
    """As `mark_gone`, of all users of the tenant but these."""
    return await store.mark_others_gone(tx, tenant_id, object_ids, now)


async def forget_gone(tx: Tx, before: datetime) -> None:
    """Delete who has been gone since before then, and the direct rules that name them."""
    await store.forget_gone(tx, before)


async def find_user(tx: Tx, tenant_id: str, object_id: str) -> KnownUser | None:
    return await store.user_by(tx, tenant_id, object_id)


async def find_user_named(tx: Tx, tenant_id: str, upn: str) -> KnownUser | None:
    return await store.user_named(tx, tenant_id, upn)


async def user(tx: Tx, wanted: str) -> KnownUser:
    """By number, object id or sign-in name. Raises NoSuchResource."""
    found = (await store.named_users(tx, [wanted.strip()])).get(wanted.strip())
    if found is None or found.kind != "user":
        raise _no_user(wanted)
    return found


async def told_user(tx: Tx, found: KnownUser) -> str:
    """The sign-in name of a user for who asks; that it is hidden, where they may not see them."""
    seen = await reach.sees(tx, [found.id], MemberType.USER)
    return found.upn if found.id in seen else reach.HIDDEN


def _no_user(wanted: str) -> NoSuchResource:
    return NoSuchResource(
        f"The site knows no user {wanted[:256]!r}.",
        cure="Discovery finds users: `tandem discovery run`, then `tandem collection users`.",
    )


async def users(
    tx: Tx,
    limit: int = 1000,
    offset: int = 0,
    *,
    search: str = "",
    order: tuple[str, bool] = ("upn", False),
) -> list[KnownUser]:
    """Those whose sign-in name, name or mail begins with `search`."""
    if administrators.limit() is None:
        return await store.users(tx, search, order, limit, offset)
    sql, values = await _seen_users(tx)
    return await store.user_members(tx, sql, values, limit, offset, search, order)


async def _seen_users(tx: Tx) -> tuple[str, tuple[Any, ...]]:
    """The condition, over a row r, of the users that who asks may see, without groups."""
    sql, values = await reach.members(tx, MemberType.USER)
    return f"r.kind = 'user' AND ({sql})", values


async def count_users(tx: Tx, search: str = "") -> int:
    if administrators.limit() is None:
        return await store.count_users(tx, search)
    sql, values = await _seen_users(tx)
    return await store.count(tx, sql, values, search, MemberType.USER)


async def resource(tx: Tx, wanted: str) -> KnownResource:
    """By number, client id or name. Raises NoSuchResource."""
    found = await store.resource(tx, wanted)
    if found is None or not await reach.sees(tx, [found.id]):
        raise NoSuchResource(
            f"The site knows no device {wanted}.",
            cure="A device is known once its client has registered; look at `tandem collection"
            " members SMS00001`.",
        )
    return found


async def resource_of(tx: Tx, client_id: str) -> KnownResource:
    """The device of a client. Raises NoSuchResource."""
    found = await store.resource_of(tx, client_id)
    if found is None or not await reach.sees(tx, [found.id]):
        raise _no_device_of(client_id)
    return found


def _no_device_of(client_id: str) -> NoSuchResource:
    return NoSuchResource(
        f"The site knows no device of the client {client_id}.",
        cure="The client becomes one when it registers again.",
    )


async def resources(
    tx: Tx,
    limit: int = 1000,
    offset: int = 0,
    *,
    search: str = "",
    order: tuple[str, bool] = ("name", False),
) -> list[KnownResource]:
    """Those whose name begins with `search`."""
    sql, values = await reach.members(tx)
    return await store.resources(tx, sql, values, limit, offset, search, order)


async def count_resources(tx: Tx, search: str = "") -> int:
    sql, values = await reach.members(tx)
    return await store.count(tx, sql, values, search)


async def forget(tx: Tx, id: int, *, actor: str, now: datetime) -> None:
    """The resource, with the direct rules for it. Raises NoSuchResource."""
    found = await resource(tx, str(id))
    await store.delete_resource(tx, found.id)
    await _audit(
        tx, actor, "resource.delete", found.client_id, now, name=found.name, resource=found.id
    )


# A collection, how many rules it has and which is the newest.
Version = tuple[Collection, tuple[int, int]]


async def create(
    tx: Tx,
    site_code: str,
    name: str,
    *,
    limiting: str = "",
    query: str = "",
    comment: str = "",
    rules: Sequence[WantedRule] = (),
    incremental: bool = True,
    full_every_minutes: int = WEEK_MINUTES,
    type: MemberType = MemberType.DEVICE,
    actor: str,
    now: datetime,
) -> Collection:
    """A collection of devices or of users, within all of them when no other one is to limit it.

    Raises BadName, NameTaken, NoSuchCollection, WrongType, BadQuery, BadRule, NoSuchResource,
    TooComplex, BadSchedule.
    """
    _check_schedule(full_every_minutes)
    await store.lock(tx)
    name = _named(name, comment)
    limit = await _limiting(tx, limiting or type.root, type)
    if query:
        _check_query(query, type)
    wanted = [*([WantedRule("query", name, query)] if query else ()), *rules]
    planned = await _planned(tx, wanted, type)
    number = await store.next_number(tx)
    id = CollectionId(f"{site_code}{number:05X}")
    made = Collection(id, name, comment, limit.id, now, incremental, full_every_minutes, type)
    if not await store.insert_collection(tx, made):
        raise _taken(name)
    await _add(tx, made, planned)
    await _check_complexity(tx)
    said = {"rules": _all_said(planned)} if planned else {}
    await _audit(tx, actor, "collection.create", made.id, now, name=name, limiting=limit.id, **said)
    return made


_LONGEST_SCHEDULE = 366 * 24 * 60


def _check_schedule(every_minutes: int) -> None:
    if not 0 <= every_minutes <= _LONGEST_SCHEDULE:
        raise BadSchedule(
            "Full evaluations come every 1 to 527,040 minutes (a year), or with 0 never by themselves.",
            cure="Take 10080 for once a week.",
            field="full_every_minutes",
        )


def _check_query(query: str, type: MemberType) -> None:
    """Raises BadQuery, which names the field."""
    try:
        compile_query(query, CLASS_OF[type])
    except BadQuery as refused:
        refused.details["field"] = "query"
        raise


def _taken(name: str) -> NameTaken:
    return NameTaken(
        f"There is a collection {name!r} already.",
        cure="Take another name, or change the rules of that one.",
        field="name",
    )


async def _limiting(tx: Tx, wanted: str, type: MemberType) -> Collection:
    """Raises NoSuchCollection or WrongType, which name the field."""
    try:
        return _of(type, await collection(tx, wanted))
    except (NoSuchCollection, WrongType) as refused:
        refused.details["field"] = "limiting"
        raise


def _of(type: MemberType, found: Collection) -> Collection:
    """Raises WrongType."""
    if found.type is type:
        return found
    if type is MemberType.DEVICE:
        raise WrongType(
            f"{found.name} is a collection of users, and devices are meant here.",
            cure="Take a collection of devices: `tandem collection list --type device`.",
        )
    raise WrongType(
        f"{found.name} is a collection of devices, and users are meant here.",
        cure="Take a collection of users: `tandem collection list --type user`.",
    )


def _named(name: str, comment: str) -> str:
    """The name as it is kept. Raises BadName."""
    name = name.strip()
    if not name or len(name) > 256 or not name.isprintable():
        raise BadName(
            "A collection has a name of 1 to 256 characters, on one line.",
            cure="Take a name like Pilot devices.",
            field="name",
        )
    if len(comment) > 1024:
        raise BadName("A comment has at most 1,024 characters.", field="comment")
    return name


async def describe(
    tx: Tx,
    wanted: str,
    *,
    name: str | None = None,
    comment: str | None = None,
    actor: str,
    now: datetime,
) -> Collection:
    """Another name or comment; None leaves it. Raises NoSuchCollection, BuiltIn, NameTaken."""
    return await change(tx, wanted, name=name, comment=comment, actor=actor, now=now)


async def limit(tx: Tx, wanted: str, limiting: str, *, actor: str, now: datetime) -> Collection:
    """Limit a collection by another one. Raises NoSuchCollection, BuiltIn, Circular."""
    return await change(tx, wanted, limiting=limiting, actor=actor, now=now)


async def change(
    tx: Tx,
    wanted: str,
    *,
    name: str | None = None,
    comment: str | None = None,
    limiting: str | None = None,
    rules: Sequence[WantedRule] | None = None,
    incremental: bool | None = None,
    full_every_minutes: int | None = None,
    check: Callable[[Version], None] = lambda version: None,
    actor: str,
    now: datetime,
) -> Collection:
    """What is not None becomes so, `rules` all of them. `check` sees the version first, and may
    refuse. Raises NoSuchCollection, BuiltIn, BadName, NameTaken, Circular, BadQuery, BadRule,
    NoSuchResource, TooComplex, BadSchedule."""
    await store.lock(tx)
    found = await collection(tx, wanted)
    reach.check_changeable(found)
    check(await version(tx, found))
    changed: list[dict[str, Any]] = []

    def note(field: str, old: Any, new: Any) -> None:
        if old != new:
            changed.append({"name": field, "old": old, "new": new})

    new_name = found.name if name is None else name.strip()
    new_comment = found.comment if comment is None else comment
    if (new_name, new_comment) != (found.name, found.comment):
        if found.built_in:
            raise BuiltIn(f"{found.name} is built in and keeps its name.", cure=_MAKE_ANOTHER)
        _named(new_name, new_comment)
        if not await store.save_description(tx, found.id, new_name, new_comment):
            raise _taken(new_name)
        note("name", found.name, new_name)
        note("comment", found.comment, new_comment)
    if limiting is not None:
        by = await _limiting(tx, limiting, found.type)
        if found.id in ROOTS:
            raise BuiltIn(f"{found.name} is built in, and nothing limits it.")
        if found.built_in:
            raise BuiltIn(f"{found.name} is built in and keeps its limit.", cure=_MAKE_ANOTHER)
        if by.id != found.limiting_id:
            await _check_circle(tx, found, by, "limiting")
            await store.save_limiting(tx, found.id, by.id)
            note("limiting", found.limiting_id, by.id)
    # When it is evaluated is the administrator's, also for what is built in.
    updates = found.incremental if incremental is None else incremental
    every = found.full_every_minutes if full_every_minutes is None else full_every_minutes
    if (updates, every) != (found.incremental, found.full_every_minutes):
        _check_schedule(every)
        await store.save_schedule(tx, found.id, updates, every)
        note("incremental", found.incremental, updates)
        note("full_every_minutes", found.full_every_minutes, every)
    if rules is not None:
        before, after = await _replace_rules(tx, found, rules)
        note("rules", before, after)
    if changed:
        await _check_complexity(tx)
        await _audit(tx, actor, "collection.change", found.id, now, name=new_name, changed=changed)
    return await collection(tx, found.id)


async def _replace_rules(
    tx: Tx, found: Collection, wanted: Sequence[WantedRule]
) -> tuple[list[str], list[str]]:
    """What went and what came, in words."""
    _check_changeable(found)
    planned = {_identity(rule): rule for rule in await _planned(tx, wanted, found.type, found)}
    known = {_identity(rule): rule for _, rule in await store.rules(tx, [found.id])}
    gone = [rule for key, rule in known.items() if key not in planned]
    come = [rule for key, rule in planned.items() if key not in known]
    await store.remove_rules(tx, found.id, [rule.id for rule in gone])
    await _add(tx, found, come)
    return _all_said(gone), _all_said(come)


def _identity(rule: Rule) -> tuple[object, ...]:
    if rule.kind == "query":
        return ("query", rule.name, rule.query)
    return (rule.kind, rule.resource_id, rule.other_id)


# Of so many rules the log names each.
_MOST_SAID = 100


def _all_said(rules: Sequence[Rule]) -> list[str]:
    more = len(rules) - _MOST_SAID
    said = [_said(rule) for rule in rules[:_MOST_SAID]]
    return [*said, f"and {more} more"] if more > 0 else said


def _said(rule: Rule) -> str:
    """A rule in the audit log's words."""
    return f"{rule.kind} {rule.name}: {rule.query}" if rule.query else f"{rule.kind} {rule.name}"


async def version(tx: Tx, found: Collection) -> Version:
    """Another value whenever the collection or its rules are others."""
    return found, await store.rules_version(tx, found.id)


async def delete(
    tx: Tx,
    wanted: str,
    *,
    used_for: Sequence[UsedFor] = (),
    check: Callable[[Version], None] = lambda version: None,
    actor: str,
    now: datetime,
) -> None:
    """Raises NoSuchCollection, BuiltIn, InUse, which says what for."""
    await store.lock(tx)
    found = await collection(tx, wanted)
    reach.check_changeable(found)
    check(await version(tx, found))
    if found.built_in:
        raise BuiltIn(
            f"{found.name} is built in and stays.",
            cure="Collections of yours may be limited by it, include it or exclude it.",
        )
    blocking = [use for use in await uses(tx, found.id, used_for) if use.blocks]
    seen = [use for use in await seen_uses(tx, found.id, used_for) if use.blocks]
    if blocking:
        words = [f"{_USES.get(use.kind, use.kind)} {use.name}" for use in seen[:10]]
        named = ", ".join(words) or "something that you may not see"
        more = f" and {len(seen) - 10} more" if len(seen) > 10 else ""
        raise InUse(
            f"{found.name} is used by {named}{more}.",
            cure="Give those another collection, or delete them, first: `tandem configuration list`,"
            " `tandem comanagement show`, `tandem collection uses`.",
            uses=[{"kind": use.kind, "name": use.name} for use in seen],
        )
    if not await store.delete_collection(tx, found.id):
        raise InUse(
            f"Something is deployed to {found.name}.",
            cure="Take it back first: look at `tandem configuration list` and"
            " `tandem comanagement show`.",
        )
    await _audit(tx, actor, "collection.delete", found.id, now, name=found.name)


# How a use is named in a sentence.
_USES = {
    "limit": "the collection that it limits,",
    "include": "the rule that includes it of",
    "exclude": "the rule that excludes it of",
    "workload": "the pilot of the workload",
    "rollout": "the roll-out of",
    "enrollment": "the pilot of",
    "policy": "the co-management policy",
    "configuration": "the configuration",
    "client-settings": "the client settings",
    "software-update": "the decision about the software update",
}


async def visible(tx: Tx) -> frozenset[CollectionId] | None:
    """The collections that who asks may see; None: all of them."""
    return await reach.collections(tx)


async def visible_devices_sql(tx: Tx) -> tuple[str, dict[str, Any]] | None:
    """A SELECT of the client ids of the devices that who asks may see, with named parameters; None:
    all of them."""
    roots = await reach.roots(tx)
    if roots is None:
        return None
    sql, values = await memberships_sql(tx, roots)
    # Beside the parameters of whoever puts it into a larger question.
    sql = re.sub(r"%\((m\d+)\)s", r"%(seen_\1)s", sql)
    named = {f"seen_{name}": value for name, value in values.items()}
    return (
        "SELECT seen_r.client_id FROM collections_resource seen_r"  # noqa: S608
        f" JOIN ({sql}) seen_m ON seen_m.resource_id = seen_r.id",
        named,
    )


async def visible_users_sql(tx: Tx) -> tuple[str, dict[str, Any]]:
    """The condition, over a row r of the users, of those that who asks may see, with named
    parameters."""
    sql, values = await reach.members(tx, MemberType.USER)
    given = iter(range(len(values)))
    named = re.sub("%[%s]", lambda one: f"%(u{next(given)})s" if one[0] == "%s" else "%%", sql)
    return named, {f"u{place}": value for place, value in enumerate(values)}


async def seen_uses(tx: Tx, id: CollectionId, used_for: Sequence[UsedFor] = ()) -> list[Use]:
    """`uses`, without what who asks may not see."""
    found = await uses(tx, id, used_for)
    return found if administrators.sees_all() else [use for use in found if use.seen]


@asynccontextmanager
async def guarded(tx: Tx, wanted: str, guard: Guard) -> AsyncIterator[None]:
    """A change of who is in a collection, inside the `with`, and so in those that depend on it, is
    a change of what these are used for. Raises NeedsOverAll, GrowsTooFar, after the change: the
    transaction undoes it."""
    who = administrators.asking()
    found = await store.collection(tx, wanted)
    if who is None or found is None:
        yield
        return
    await store.lock(tx)
    rules = await store.rules_version(tx, found.id)
    every = {item.id: item for item in await store.collections(tx)}
    edges = await _edges(tx, every.values())
    below = _reached(found.id, [(edge.on, edge.of) for edge in edges])
    used = {id: uses for id in (found.id, *below) if (uses := await _blocking(tx, id, guard))}
    members = {
        id: await _member_ids(tx, every[id])
        for id, uses in used.items()
        if any((use.kind in _GROWS and use.reaches) or use.kind == _KEEPS_OUT for use in uses)
    }
    yield
    now = await store.collection(tx, found.id)
    if now is None or (now.limiting_id, await store.rules_version(tx, found.id)) == (
        found.limiting_id,
        rules,
    ):
        return
    only = await reach.collections(tx)
    for id, uses in used.items():
        named = every[id].name if only is None or id in only else "Another collection"
        if any(use.kind in _COMANAGEMENT for use in uses) and not (
            who.over_all and who.role.covers(administrators.Role.FULL_ADMINISTRATOR)
        ):
            raise NeedsOverAll(
                f"{named} decides about co-management: who is in it is changed by full"
                " administrators over All.",
                cure="Ask a full administrator over All to change the collection.",
            )
        if id not in members:
            continue
        current, kinds = await _member_ids(tx, every[id]), {use.kind for use in uses}
        gone = len(members[id] - current)
        if _KEEPS_OUT in kinds and gone > guard.approval_above:
            raise GrowsTooFar(
                f"{named} keeps its members out of co-management, and {gone} would be in it at once:"
                " more than one administrator may reach alone.",
                cure="Take fewer out of the collection at once.",
                devices=gone,
            )
        # Who comes counts, and not how many more there are: others may go at the same time.
        more = len(current - members[id]) if kinds & _GROWS else 0
        if more > guard.approval_above:
            raise GrowsTooFar(
                f"{named} is in use, and {more} more members would come into it at once: more than"
                " one administrator may reach alone.",
                cure="Make another collection with these rules and use it instead: a second"
                " administrator is asked then. Or add fewer members.",
                devices=more,
            )


_COMANAGEMENT = frozenset({"workload", "rollout", "exclusion", "enrollment", "policy"})
# Who goes from there is reached by it.
_KEEPS_OUT = "exclusion"
_GROWS = frozenset(
    {"configuration", "client-settings", "software-update", "workload", "rollout", "enrollment"}
)


async def _blocking(tx: Tx, id: CollectionId, guard: Guard) -> list[Use]:
    """What a collection is used for by other modules; what only remembers it is none."""
    return [use for asked in guard.used_for for use in await asked(tx, id) if use.blocks]


async def _member_ids(tx: Tx, of: Collection) -> set[int]:
    condition = await condition_of(tx, of.id)
    async with _in_time(tx, of):
        return await store.member_ids(tx, condition.sql, condition.values, of.type)


async def uses(tx: Tx, id: CollectionId, used_for: Sequence[UsedFor] = ()) -> list[Use]:
    """What this collection is used for, by other collections and by the modules that say so."""
    only = await reach.collections(tx)
    found = [
        Use(how, name, other, seen=only is None or other in only)
        for how, other, name in await store.used_by(tx, id)
    ]
    for asked in used_for:
        found += await asked(tx, id)
    return found


async def add_members(
    tx: Tx, wanted: str, devices: Sequence[str], *, actor: str, now: datetime
) -> list[KnownResource]:
    """Direct rules for devices, by number, client id or name. Harmless twice.

    Raises NoSuchCollection, NoSuchResource (and adds none then), BuiltIn.
    """
    found = _of(MemberType.DEVICE, await _changeable(tx, wanted))
    members = [await resource(tx, device) for device in devices]
    rules = [_direct(member) for member in members]
    await store.add_plain_rules(tx, found.id, rules, MemberType.DEVICE)
    names = [member.name for member in members]
    await _audit(tx, actor, "collection.add-members", found.id, now, devices=names)
    return members


def _direct(member: KnownResource | KnownUser) -> Rule:
    name = (isinstance(member, KnownUser) and member.upn) or member.name
    return Rule(0, "direct", name, resource_id=member.id)


async def add_clients(
    tx: Tx,
    wanted: str,
    client_ids: Sequence[str],
    *,
    actor: str,
    now: datetime,
    details: Mapping[str, Any],
) -> int:
    """Direct rules for many devices, by their clients, told as one. Returns how many are new.

    Raises NoSuchCollection, BuiltIn.
    """
    found = _of(MemberType.DEVICE, await _changeable(tx, wanted))
    added = await store.add_clients(tx, found.id, client_ids)
    about = {**details, "added": len(added)}
    await _audit(tx, actor, "collection.add-many", found.id, now, concerned=added, **about)
    return len(added)


async def _changeable(tx: Tx, wanted: str) -> Collection:
    """Raises NoSuchCollection, BuiltIn."""
    found = await collection(tx, wanted)
    reach.check_changeable(found)
    _check_changeable(found)
    return found


_MAKE_ANOTHER = "Make a collection of your own that includes it, or is limited by it."


def _check_changeable(found: Collection) -> None:
    """Raises BuiltIn."""
    if found.id == ALL_SYSTEMS:
        raise BuiltIn("All Systems has every device already.")
    if found.built_in:
        raise BuiltIn(
            f"{found.name} is built in: who is a member follows from what the site knows.",
            cure=_MAKE_ANOTHER,
        )


async def add_query(
    tx: Tx, wanted: str, name: str, query: str, *, actor: str, now: datetime
) -> None:
    """Raises NoSuchCollection, BadQuery, BuiltIn, NameTaken, TooComplex."""
    await add_rules(tx, wanted, [WantedRule("query", name, query)], actor=actor, now=now)


async def add_rules(
    tx: Tx, wanted: str, rules: Sequence[WantedRule], *, actor: str, now: datetime
) -> list[Rule]:
    """Rules of any kind, all or none. A direct, include or exclude rule is harmless twice.

    Raises NoSuchCollection, BuiltIn, BadQuery, BadRule, NoSuchResource, NameTaken, Circular,
    TooComplex.
    """
    await store.lock(tx)
    found = await _changeable(tx, wanted)
    planned = await _planned(tx, rules, found.type, found)
    await _add(tx, found, planned)
    await _check_complexity(tx)
    said = _all_said(planned)
    await _audit(tx, actor, "collection.add-rules", found.id, now, name=found.name, rules=said)
    return planned


async def _add(tx: Tx, found: Collection, rules: Sequence[Rule]) -> None:
    """Raises NameTaken."""
    plain = [rule for rule in rules if rule.kind != "query"]
    await store.add_plain_rules(tx, found.id, plain, found.type)
    for rule in rules:
        if rule.kind == "query" and not await store.add_rule(tx, found.id, rule):
            raise NameTaken(
                f"{found.name} has a query rule {rule.name!r} already.",
                cure="Give the new rule another name, or remove the other one first.",
                field="rules",
            )
    if any(rule.kind == "query" for rule in rules):
        # Whoever asks later, as devices do, waits for it without an end.
        await _counted(tx, found)


@asynccontextmanager
async def _in_time(tx: Tx, of: Collection) -> AsyncIterator[None]:
    """For what asks a collection's rules. Raises TooComplex when it takes longer than it may."""
    try:
        async with tx.transaction():
            await evaluation_store.limit_time(tx, _PREVIEW_SECONDS)
            yield
            await evaluation_store.end_limit(tx)
    except QueryCanceled:
        raise TooComplex(
            f"{of.name} takes too long to evaluate.",
            cure="Use fewer queries with % at the beginning, or include fewer collections.",
            field="rules",
        ) from None


Known = Mapping[str, KnownResource] | Mapping[str, KnownUser]


async def _planned(
    tx: Tx, wanted: Sequence[WantedRule], type: MemberType, of: Collection | None = None
) -> list[Rule]:
    """The rules that are asked for, with what they name. A refusal says which rule, from 0."""
    named = [item for item in wanted if item.kind == "direct"]
    known: Known = {}
    if named and type is MemberType.DEVICE:
        known = await store.named_resources(tx, [item.device.strip() for item in named])
    elif named:
        known = await store.named_users(tx, [item.user.strip() for item in named])
    if administrators.limit() is not None:
        seen = await reach.sees(tx, [item.id for item in known.values()], type)
        known = {name: item for name, item in known.items() if item.id in seen}  # type: ignore[assignment]
    planned: dict[tuple[object, ...], Rule] = {}
    for place, item in enumerate(wanted):
        try:
            rule = await _rule(tx, item, known, type, of)
        except AppError as refused:
            refused.details.update(field="rules", rule=place)
            raise
        if rule.kind == "query" and ("query", rule.name.lower()) in planned:
            raise BadRule(
                f"Two query rules are named {rule.name!r}.",
                cure="Give one of them another name.",
                field="rules",
                rule=place,
            )
        key = ("query", rule.name.lower()) if rule.kind == "query" else _identity(rule)
        planned[key] = rule
    return list(planned.values())


async def _rule(
    tx: Tx, item: WantedRule, known: Known, type: MemberType, of: Collection | None
) -> Rule:
    """Raises BadRule, BadQuery, NoSuchResource, NoSuchCollection, WrongType, Circular."""
    if item.kind == "direct" and type is MemberType.USER:
        if item.device:
            raise BadRule(
                "A collection of users cannot have devices as members.",
                cure="Name a user, or make a collection of devices.",
            )
        named = known.get(item.user.strip())
        if named is None:
            raise _no_user(item.user)
        return _direct(named)
    if item.kind == "direct":
        if item.user:
            raise BadRule(
                "A collection of devices cannot have users as members.",
                cure="Name a device, or make a collection of users.",
            )
        member = known.get(item.device.strip())
        if member is None:
            raise NoSuchResource(
                f"The site knows no device {item.device[:256]!r}.",
                cure="Search for it by its name; a device is known once its client has registered.",
            )
        return _direct(member)
    if item.kind == "query":
        if compile_query(item.query, CLASS_OF[type]).of_others:
            await _check_reads_own(tx, item.query, of)
        name = (item.name.strip() or item.query.strip())[:256]
        return Rule(0, "query", name, query=item.query)
    if item.kind in ("include", "exclude"):
        other = _of(type, await collection(tx, item.collection))
        if of is not None:
            await _check_circle(tx, of, other, "rules")
        return Rule(0, item.kind, other.name, other_id=other.id)
    raise BadRule(
        f"There are no {item.kind[:64]!r} rules.", cure=f"Take one of: {', '.join(RULE_KINDS)}."
    )


async def _check_reads_own(tx: Tx, query: str, of: Collection | None) -> None:
    """Who is limited asks about no devices of others by whether theirs are members. A rule that the
    collection has already may stay. Raises ReadsOthers."""
    if administrators.limit() is None:
        return
    if of is not None and any(rule.query == query for _, rule in await store.rules(tx, [of.id])):
        return
    raise ReadsOthers(
        "The query compares with devices or users other than the one it decides about, and you are"
        " limited to collections.",
        cure="Join classes by ResourceID, as in: ResourceId in (select ResourceID from …). A full"
        " administrator over All can add this rule.",
    )


async def remove_rule(
    tx: Tx,
    wanted: str,
    rule: int,
    *,
    check: Callable[[Version], None] = lambda version: None,
    actor: str,
    now: datetime,
) -> None:
    """By the rule's number. Raises NoSuchCollection, NoSuchRule."""
    await store.lock(tx)
    found = await collection(tx, wanted)
    reach.check_changeable(found)
    check(await version(tx, found))
    removed = await store.remove_rule(tx, found.id, rule)
    if removed is None:
        raise NoSuchRule(
            f"{found.name} has no rule {rule}.", cure="Read its rules again: somebody removed it."
        )
    await _audit(tx, actor, "collection.remove-rule", found.id, now, rule=removed)


async def collections(tx: Tx) -> list[Collection]:
    return await store.collections(tx)


# A list does not wait longer than this for its numbers of members; a preview of rules may.
_LIST_SECONDS = 1.0
_PREVIEW_SECONDS = 20.0


async def listed(
    tx: Tx,
    search: str,
    order: tuple[str, bool],
    limit: int,
    offset: int,
    *,
    counted: bool,
    of: MemberType | None = None,
) -> tuple[list[dict[str, Any]], int]:
    """A page of the list of collections, with the number of members of each where it is wanted.

    Where counting takes too long for a list, it is the number of the last evaluation, `members_at`
    that time, and None when there was none."""
    only = await reach.collections(tx)
    found, total = await store.listed(tx, search, order, limit, offset, of, only)
    for row in found:
        row["built_in"] = row["id"] in BUILT_IN
    for type in MemberType if counted else ():
        some = [row for row in found if row["type"] == type]
        conditions = await conditions_of(tx, [row["id"] for row in some])
        asked = [(c.sql, c.values) for c in conditions]
        numbers = await store.counts(tx, asked, _LIST_SECONDS, type)
        for place, row in enumerate(some):
            row["members"] = numbers[place] if numbers else row["evaluated_members"]
            row["members_at"] = None if numbers else row["evaluated_at"]
    return found, total


async def collection(tx: Tx, wanted: str) -> Collection:
    """By id or name. Raises NoSuchCollection, also for one that who asks may not see."""
    found = await store.collection(tx, wanted)
    only = await reach.collections(tx) if found is not None else None
    if found is None or (only is not None and found.id not in only):
        raise NoSuchCollection(
            f"There is no collection {wanted[:256]!r}.", cure="List them: `tandem collection list`."
        )
    return found


async def dependencies(tx: Tx, wanted: str) -> Dependencies:
    """What a collection depends on, and what depends on it. Raises NoSuchCollection."""
    found = await collection(tx, wanted)
    known = {item.id: item for item in await store.collections(tx)}
    edges = await _edges(tx, known.values())
    needs = _reached(found.id, [(edge.of, edge.on) for edge in edges])
    needed_by = _reached(found.id, [(edge.on, edge.of) for edge in edges])
    up, down = {found.id, *needs}, {found.id, *needed_by}
    shown = [
        edge
        for edge in edges
        if (edge.of in up and edge.on in up) or (edge.of in down and edge.on in down)
    ]
    only = await reach.collections(tx)
    if only is not None:
        needs, needed_by = (
            [id for id in needs if id in only],
            [id for id in needed_by if id in only],
        )
        shown = [edge for edge in shown if edge.of in only and edge.on in only]
    return Dependencies(
        tuple(known[id] for id in needs), tuple(known[id] for id in needed_by), tuple(shown)
    )


async def _edges(tx: Tx, known: Iterable[Collection]) -> list[Edge]:
    """What each collection names: its limit, and its rules' collections."""
    limits = [Edge(item.id, item.limiting_id, "limit") for item in known if item.limiting_id]
    return limits + [
        Edge(id, rule.other_id, rule.kind)
        for id, rule in await store.every_rule(tx)
        if rule.other_id
    ]


def _reached(
    begin: CollectionId, pairs: Sequence[tuple[CollectionId, CollectionId]]
) -> list[CollectionId]:
    """Where one comes from `begin` by these steps, the nearest first."""
    onward: dict[CollectionId, list[CollectionId]] = {}
    for one, other in pairs:
        onward.setdefault(one, []).append(other)
    found: dict[CollectionId, None] = {}
    waiting = [begin]
    for id in waiting:
        for other in onward.get(id, ()):
            if other != begin and other not in found:
                found[other] = None
                waiting.append(other)
    return list(found)


async def device_collection(tx: Tx, wanted: str) -> Collection:
    """By id or name, for what only devices can get. Raises NoSuchCollection, WrongType."""
    return await collection_of(tx, MemberType.DEVICE, wanted)


async def collection_of(tx: Tx, type: MemberType, wanted: str) -> Collection:
    """By id or name, of this type. Raises NoSuchCollection, WrongType."""
    return _of(type, await collection(tx, wanted))


async def id_of(tx: Tx, wanted: str) -> CollectionId:
    """Raises NoSuchCollection."""
    return (await collection(tx, wanted)).id


async def name_of(tx: Tx, id: CollectionId) -> str:
    """What a collection is called, whoever asks: what limits somebody they may know by name."""
    found = await store.collection(tx, id)
    return found.name if found else ""


async def rules(tx: Tx, id: CollectionId) -> list[Rule]:
    """Raises NoSuchCollection."""
    of = await collection(tx, id)
    return await reach.told(tx, [rule for _, rule in await store.rules(tx, [id])], of.type)


_EVERY_RULE = 1_000_000


async def some_rules(
    tx: Tx, wanted: str, kind: str, search: str, limit: int, offset: int
) -> tuple[list[Rule], int]:
    """A page of a collection's rules, and how many there are. Raises NoSuchCollection."""
    found = await collection(tx, wanted)
    if search and administrators.limit() is not None:
        # A search would say whether what is hidden is called so.
        every, _ = await store.some_rules(tx, found.id, kind, search, _EVERY_RULE, 0)
        told = await reach.told(tx, every, found.type)
        seen = [rule for rule in told if rule.name != reach.HIDDEN]
        return seen[offset : offset + limit], len(seen)
    some, total = await store.some_rules(tx, found.id, kind, search, limit, offset)
    return await reach.told(tx, some, found.type), total


async def members(tx: Tx, wanted: str, limit: int = 1000, offset: int = 0) -> list[KnownResource]:
    """Of a collection of devices. Raises NoSuchCollection, WrongType, TooComplex."""
    found = await device_collection(tx, wanted)
    condition = await condition_of(tx, found.id)
    async with _in_time(tx, found):
        return await store.resources(tx, condition.sql, condition.values, limit, offset)


async def user_members(tx: Tx, wanted: str, limit: int = 1000, offset: int = 0) -> list[KnownUser]:
    """Of a collection of users. Raises NoSuchCollection, WrongType, TooComplex."""
    found = _of(MemberType.USER, await collection(tx, wanted))
    condition = await condition_of(tx, found.id)
    async with _in_time(tx, found):
        return await store.user_members(tx, condition.sql, condition.values, limit, offset)


async def some_members(
    tx: Tx, of: Collection, search: str, order: tuple[str, bool], limit: int, offset: int
) -> tuple[Sequence[KnownResource | KnownUser], int]:
    """A page of the members whose name begins with `search`, and how many such there are. Raises
    TooComplex."""
    condition = await condition_of(tx, of.id)
    sql, values = condition.sql, condition.values
    some: Sequence[KnownResource | KnownUser]
    async with _in_time(tx, of):
        if of.type is MemberType.USER:
            some = await store.user_members(tx, sql, values, limit, offset, search, order)
        else:
            some = await store.resources(tx, sql, values, limit, offset, search, order)
        return some, await store.count(tx, sql, values, search, of.type)


async def count(tx: Tx, id: CollectionId) -> int:
    """Members, by the rules. Raises NoSuchCollection, TooComplex."""
    return await _counted(tx, await collection(tx, id))


async def _counted(tx: Tx, of: Collection) -> int:
    condition = await condition_of(tx, of.id)
    async with _in_time(tx, of):
        return await store.count(tx, condition.sql, condition.values, of=of.type)


async def fingerprint(tx: Tx, id: CollectionId) -> str:
    """Another value when others are members, or the collection or its rules were changed.
    Raises NoSuchCollection."""
    of = await collection(tx, id)
    seen = repr((await version(tx, of), sorted(await _member_ids(tx, of))))
    return hashlib.sha256(seen.encode()).hexdigest()


# Of so many rules a preview says what each brings.
_MOST_TOLD = 50


async def preview(
    tx: Tx,
    limiting: str,
    rules: Sequence[WantedRule],
    *,
    of: str = "",
    first: int = 20,
    type: MemberType = MemberType.DEVICE,
) -> Preview:
    """Who would be a member of a collection with these rules, without making one. `of` is the
    collection that the rules are thought of for, if there is one. Raises as `create` does."""
    started = time.perf_counter()
    found = await collection(tx, of) if of else None
    type = found.type if found is not None else type
    by = await _limiting(tx, limiting or type.root, type)
    if found is not None:
        await _check_circle(tx, found, by, "limiting")
    planned = await _planned(tx, rules, type, found)
    others = [rule.other_id for rule in planned if rule.other_id is not None]
    graph = await graph_of(tx, [by.id, *others])
    limit = graph.members(by.id)
    named = [rule for rule in planned if rule.kind == "direct"]
    told = [rule for rule in planned if rule.kind != "direct"][:_MOST_TOLD]
    each = [graph.applies(named, type), *(graph.one(rule, type) for rule in told)]
    whole = all_of([limit, graph.applies(planned, type)])
    conditions = [whole, *(all_of([limit, one]) for one in each)]
    if sum(len(one.values) + 1 for one in conditions) > MOST_CONDITIONS:
        raise _too_complex(by.name)
    bound = [(one.sql, one.values) for one in conditions]
    numbers = await store.counts(tx, bound, _PREVIEW_SECONDS, type)
    if numbers is None:
        raise TooComplex(
            "These rules take too long to evaluate.",
            cure="Use fewer queries with % at the beginning, or include fewer collections.",
            field="rules",
        )
    total, direct_ones, *counts = numbers
    some: Sequence[KnownResource | KnownUser]
    if type is MemberType.USER:
        some = await store.user_members(tx, whole.sql, whole.values, first, 0)
    else:
        some = await store.resources(tx, whole.sql, whole.values, first, 0)
    took = round((time.perf_counter() - started) * 1000, 1)
    return Preview(total, some, took, direct_ones, list(zip(told, counts, strict=True)))


async def evaluate(tx: Tx, wanted: str, *, actor: str, now: datetime) -> Evaluation:
    """Find the members among all resources now, and keep them with what it took. Devices get what
    they get by the rules themselves, so none waits for this. Raises NoSuchCollection, TooComplex."""
    found = await collection(tx, wanted)
    await evaluation_store.lock(tx)
    async with _in_time(tx, found):
        await evaluate_fully(tx, found.id, now)
    evaluation = await evaluation_store.last(tx, found.id)
    assert evaluation is not None
    await _audit(
        tx,
        actor,
        "collection.evaluate",
        found.id,
        now,
        name=found.name,
        members=evaluation.members,
    )
    return evaluation


async def last_evaluation(tx: Tx, id: CollectionId) -> Evaluation | None:
    return await evaluation_store.last(tx, id)


async def schedule(tx: Tx, id: CollectionId) -> tuple[datetime | None, str]:
    """When the next full evaluation is due, and why the last one failed, if it did."""
    return await evaluation_store.schedule(tx, id)


async def waiting(tx: Tx, now: datetime) -> tuple[int, int]:
    """How many changed resources and how many collections wait to be looked at. Who is limited hears
    of collections that they see, and of no resources: these may be anybody's."""
    only = await reach.collections(tx)
    if only is not None:
        return 0, await evaluation_store.waiting_among(tx, sorted(only), now)
    return await evaluation_store.waiting(tx, now)


async def is_member(tx: Tx, id: CollectionId, resource_id: int) -> bool:
    """Whether a device is in a collection of devices."""
    return id in await memberships(tx, [id], resource_id)


# So many are asked in one statement: a row has at most 1,600 columns.
_AT_ONCE = 500


async def memberships(
    tx: Tx,
    ids: Iterable[CollectionId],
    resource_id: int,
    type: MemberType = MemberType.DEVICE,
) -> set[CollectionId]:
    """In which of these collections a device (or a user) is: a few queries, however many are
    asked. It is in none of the other type."""
    asked = await _of_type(tx, type, ids)
    conditions = await conditions_of(tx, asked) if asked else []
    among: set[CollectionId] = set()
    for begin in range(0, len(asked), _AT_ONCE):
        some = [(c.sql, c.values) for c in conditions[begin : begin + _AT_ONCE]]
        found = await store.true_of(tx, type, some, resource_id)
        here = asked[begin : begin + _AT_ONCE]
        among |= {id for id, so in zip(here, found, strict=True) if so}
    return among


@dataclass(frozen=True)
class Question:
    """In which of some collections a device (or a user) is. It holds until a rule or a limit
    changes."""

    ids: tuple[CollectionId, ...]
    conditions: tuple[tuple[str, tuple[Any, ...]], ...]


async def question(
    tx: Tx, ids: Iterable[CollectionId], type: MemberType = MemberType.DEVICE
) -> Question:
    """About those of the collections that are of this type."""
    asked = tuple(await _of_type(tx, type, ids))
    conditions = await conditions_of(tx, asked) if asked else []
    return Question(asked, tuple((c.sql, c.values) for c in conditions))


async def answer(tx: Tx, asked: Question, client_id: str) -> tuple[int, set[CollectionId]]:
    """The device of a client, and its collections of those that are asked: mostly one statement.
    Raises NoSuchResource."""
    among: set[CollectionId] = set()
    resource_id = None
    for begin in range(0, max(1, len(asked.ids)), _AT_ONCE):
        found = await store.true_of_client(
            tx, asked.conditions[begin : begin + _AT_ONCE], client_id
        )
        if found is None:
            raise _no_device_of(client_id)
        resource_id, so = found
        among |= {id for id, is_so in zip(asked.ids[begin:], so, strict=False) if is_so}
    assert resource_id is not None
    return resource_id, among


async def answer_of_user(tx: Tx, asked: Question, user_id: int) -> set[CollectionId]:
    """The collections of a user, of those that are asked."""
    among: set[CollectionId] = set()
    for begin in range(0, len(asked.ids), _AT_ONCE):
        some = asked.conditions[begin : begin + _AT_ONCE]
        found = await store.true_of(tx, MemberType.USER, some, user_id)
        among |= {id for id, so in zip(asked.ids[begin:], found, strict=False) if so}
    return among


async def _of_type(tx: Tx, type: MemberType, ids: Iterable[CollectionId]) -> list[CollectionId]:
    asked = list(dict.fromkeys(ids))
    if not asked or all(id == type.root for id in asked):
        return asked
    known = {item.id: item.type for item in await store.collections(tx)}
    return [id for id in asked if known.get(id, type) is type]


async def upstream(tx: Tx, ids: Iterable[CollectionId]) -> dict[CollectionId, Set[CollectionId]]:
    """Of each of these collections itself, and all whose rules or limits decide who is in it."""
    asked = sorted(set(ids))
    graph = await graph_of(tx, asked)
    return {id: graph.upstream(id) for id in asked}


async def member_since(tx: Tx, client_id: str) -> dict[str, datetime]:
    """When a client's device came into its collections, as far as that was evaluated by now."""
    return await evaluation_store.member_since(tx, client_id)


async def client_ids(tx: Tx, id: CollectionId) -> set[str]:
    """The clients of a collection's members; users have none."""
    if not await _of_type(tx, MemberType.DEVICE, [id]):
        return set()
    condition = await condition_of(tx, id)
    return await store.client_ids(tx, condition.sql, condition.values)


async def user_ids(tx: Tx, id: CollectionId) -> set[tuple[str, str]]:
    """Tenant and object id of each user of a collection; devices have none."""
    if not await _of_type(tx, MemberType.USER, [id]):
        return set()
    condition = await condition_of(tx, id)
    return await store.object_ids(tx, condition.sql, condition.values)


async def memberships_sql(tx: Tx, ids: Iterable[CollectionId]) -> tuple[str, dict[str, Any]]:
    """A SELECT of collection_id, resource_id and is_direct for every device in these collections,
    with named parameters: for listings that filter and page in the database."""
    asked = await _of_type(tx, MemberType.DEVICE, ids)
    parts, parameters = [], dict[str, Any]()

    def bind(value: Any) -> str:
        parameters[name := f"m{len(parameters)}"] = value
        return f"%({name})s"

    for id, condition in zip(asked, await conditions_of(tx, asked), strict=True):
        values = iter(condition.values)
        sql = re.sub(
            "%[%s]",
            lambda found, of=values: bind(next(of)) if found[0] == "%s" else "%%",  # type: ignore[misc]
            condition.sql,
        )
        parts.append(
            f"SELECT {bind(id)}::text AS collection_id, r.id AS resource_id,"  # noqa: S608
            f" {direct(MemberType.DEVICE).replace('%s', bind(id))} AS is_direct"
            f" FROM collections_resource r WHERE {sql}"
        )
    nobody = (
        "SELECT ''::text AS collection_id, 0::bigint AS resource_id, false AS is_direct LIMIT 0"
    )
    return " UNION ALL ".join(parts) or nobody, parameters


# ------------------------------------------------------------------------------- circles


async def _check_circle(tx: Tx, of: Collection, named: Collection, field: str) -> None:
    """Raises Circular when what `of` would name depends on `of` itself."""
    if named.id in ROOTS:
        return
    if named.id == of.id:
        raise Circular(
            f"{of.name} cannot name itself.", cure="Choose another collection.", field=field
        )
    if of.id in (await graph_of(tx, [named.id])).rules:
        raise Circular(
            f"{named.name} is itself limited by {of.name}, or has a rule that names it.",
            cure="Choose a collection that does not depend on this one.",
            field=field,
        )


async def _check_complexity(tx: Tx) -> None:
    """Every collection stays something that one statement can ask for. Raises TooComplex."""
    known = {item.id: item for item in await store.collections(tx)}
    rules: dict[CollectionId, list[Rule]] = {}
    for id, rule in await store.every_rule(tx):
        rules.setdefault(id, []).append(rule)
    weights: dict[CollectionId, tuple[int, int]] = dict.fromkeys(ROOTS, (0, 0))
    for id in known:
        _weigh(id, known, rules, weights)
        if weights[id][0] > MOST_CONDITIONS or weights[id][1] > DEEPEST:
            only = await reach.collections(tx)
            raise _too_complex(known[id].name if only is None or id in only else "another one")


def _too_complex(name: str) -> TooComplex:
    return TooComplex(
        f"With this, {name} would depend on more rules than can be evaluated at once.",
        cure="Include fewer collections in collections, or use one query instead of many.",
        field="rules",
    )


def _weigh(
    id: CollectionId,
    known: Mapping[CollectionId, Collection],
    rules: Mapping[CollectionId, Sequence[Rule]],
    weights: dict[CollectionId, tuple[int, int]],
) -> None:
    """How many values a collection's condition has, and how deep it nests. Without recursion: a
    chain that somebody made may be longer than the interpreter's stack."""
    waiting = [id]
    while waiting:
        step = waiting[-1]
        if step in weights:
            waiting.pop()
            continue
        limiting = known[step].limiting_id or ALL_SYSTEMS
        own = rules.get(step, ())
        needed = [limiting, *(rule.other_id for rule in own if rule.other_id is not None)]
        missing = [other for other in needed if other not in weights and other not in waiting]
        if missing:
            waiting += missing
            continue
        size, depth = weights.get(limiting, (0, 0))
        for rule in own:
            more, nested = weights.get(rule.other_id or ALL_SYSTEMS, (0, 0))
            of = CLASS_OF[known[step].type]
            size += 1 + (len(compile_query(rule.query, of).values) if rule.query else more)
            depth = max(depth, nested + 1)
        weights[step] = (min(size + 1, MOST_CONDITIONS + 1), depth)
        waiting.pop()


async def _audit(
    tx: Tx,
    actor: str,
    action: str,
    target: str,
    now: datetime,
    *,
    concerned: Sequence[str] | None = None,
    **details: Any,
) -> None:
    """`concerned`: the names of the devices whose story it is, where the details do not have them."""
    if _decides_members(action, details):
        about = {"action": action, "collection": target, **_plain(details)}
        if concerned is not None:
            about["devices"] = list(concerned)
        details["trace"] = await traces.begin(
            tx, traces.Kind.COLLECTION, actor=actor, collections=[target], details=about, now=now
        )
    await audit.record(tx, actor=actor, action=action, target=target, now=now, details=details)


def _decides_members(action: str, details: Mapping[str, Any]) -> bool:
    if action == "collection.change":
        return any(one["name"] in ("rules", "limiting") for one in details["changed"])
    return action.removeprefix("collection.") in (
        "add-members",
        "add-many",
        "add-rules",
        "remove-rule",
    )


def _plain(details: Mapping[str, Any]) -> dict[str, Any]:
    """As much of it as says who is meant."""
    return {name: details[name] for name in ("name", "devices") if name in details}
