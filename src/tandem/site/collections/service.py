"""Collections and their members, computed when somebody asks.

A collection's members are those of its limiting collection to whom a rule of it applies. Nothing
is stored per device and collection: a change of a rule or of a device takes effect at once.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from tandem import audit
from tandem.infra.database import Tx
from tandem.site.collections import store
from tandem.site.collections.model import (
    ALL_SYSTEMS,
    BadName,
    BuiltIn,
    Circular,
    Collection,
    CollectionId,
    InUse,
    KnownResource,
    KnownUser,
    NameTaken,
    NoSuchCollection,
    NoSuchResource,
    NoSuchRule,
    Resource,
    Rule,
    UserResource,
)
from tandem.site.collections.query import Condition, compile_query


async def upsert_resource(tx: Tx, resource: Resource, now: datetime) -> int:
    """The number of this device's resource, made or brought up to date."""
    return await store.save_resource(tx, resource, now)


async def upsert_user(tx: Tx, user: UserResource, now: datetime) -> bool:
    """Make the user's resource or bring it up to date. Returns whether it is new."""
    return await store.save_user(tx, user, now)


async def find_user(tx: Tx, tenant_id: str, object_id: str) -> KnownUser | None:
    return await store.user_by(tx, tenant_id, object_id)


async def find_user_named(tx: Tx, tenant_id: str, upn: str) -> KnownUser | None:
    return await store.user_named(tx, tenant_id, upn)


async def users(tx: Tx, limit: int = 1000, offset: int = 0) -> list[KnownUser]:
    return await store.users(tx, limit, offset)


async def count_users(tx: Tx) -> int:
    return await store.count_users(tx)


async def resource(tx: Tx, wanted: str) -> KnownResource:
    """By number, client id or name. Raises NoSuchResource."""
    found = await store.resource(tx, wanted)
    if found is None:
        raise NoSuchResource(
            f"The site knows no device {wanted}.",
            cure="A device is known once its client has registered; look at `tandem collection"
            " members SMS00001`.",
        )
    return found


async def resource_of(tx: Tx, client_id: str) -> KnownResource:
    """The device of a client. Raises NoSuchResource."""
    found = await store.resource_of(tx, client_id)
    if found is None:
        raise NoSuchResource(
            f"The site knows no device of the client {client_id}.",
            cure="The client becomes one when it registers again.",
        )
    return found


async def resources(tx: Tx, limit: int = 1000, offset: int = 0) -> list[KnownResource]:
    return await store.resources(tx, "true", (), limit, offset)


async def forget(tx: Tx, id: int, *, actor: str, now: datetime) -> None:
    """The resource, with the direct rules for it. Raises NoSuchResource."""
    found = await resource(tx, str(id))
    await store.delete_resource(tx, found.id)
    await _audit(
        tx, actor, "resource.delete", found.client_id, now, name=found.name, resource=found.id
    )


async def create(
    tx: Tx,
    site_code: str,
    name: str,
    *,
    limiting: str = ALL_SYSTEMS,
    query: str = "",
    comment: str = "",
    actor: str,
    now: datetime,
) -> Collection:
    """A device collection. Raises BadName, NameTaken, NoSuchCollection, BadQuery."""
    name = _named(name, comment)
    limit = await collection(tx, limiting)
    if query:
        compile_query(query)
    number = await store.next_number(tx)
    made = Collection(CollectionId(f"{site_code}{number:05X}"), name, comment, limit.id, now)
    if not await store.insert_collection(tx, made):
        raise NameTaken(
            f"There is a collection {name!r} already.",
            cure="Take another name, or change the rules of that one.",
        )
    if query:
        await store.add_rule(tx, made.id, "query", name, query)
    await _audit(tx, actor, "collection.create", made.id, now, name=name, query=query)
    return made


def _named(name: str, comment: str) -> str:
    """The name as it is kept. Raises BadName."""
    name = name.strip()
    if not name or len(name) > 256:
        raise BadName("A collection has a name of 1 to 256 characters.")
    if len(comment) > 1024:
        raise BadName("A comment has at most 1,024 characters.")
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
    found = await collection(tx, wanted)
    name = found.name if name is None else name
    comment = found.comment if comment is None else comment
    name = _named(name, comment)
    if (name, comment) == (found.name, found.comment):
        return found
    if found.id == ALL_SYSTEMS:
        raise BuiltIn("All Systems is built in and keeps its name.")
    if not await store.save_description(tx, found.id, name, comment):
        raise NameTaken(f"There is a collection {name!r} already.", cure="Take another name.")
    await _audit(tx, actor, "collection.describe", found.id, now, name=name, before=found.name)
    return await collection(tx, found.id)


async def limit(tx: Tx, wanted: str, limiting: str, *, actor: str, now: datetime) -> Collection:
    """Limit a collection by another one. Raises NoSuchCollection, BuiltIn, Circular."""
    await store.lock(tx)
    found, by = await collection(tx, wanted), await collection(tx, limiting)
    if found.id == ALL_SYSTEMS:
        raise BuiltIn("All Systems is built in, and nothing limits it.")
    known = {item.id: item for item in await store.collections(tx)}
    if found.id in _chain(known, by.id):
        raise Circular(
            f"{by.name} is itself limited by {found.name}.",
            cure="Choose a collection that does not depend on this one.",
        )
    await store.save_limiting(tx, found.id, by.id)
    await _audit(tx, actor, "collection.limit", found.id, now, limiting=by.id)
    return await collection(tx, found.id)


async def delete(tx: Tx, wanted: str, *, actor: str, now: datetime) -> None:
    """Raises NoSuchCollection, BuiltIn, InUse."""
    found = await collection(tx, wanted)
    if found.id == ALL_SYSTEMS:
        raise BuiltIn("All Systems is built in and stays.")
    limited = await store.limited_by(tx, found.id)
    if limited:
        raise InUse(
            f"{found.name} limits other collections: {', '.join(limited)}.",
            cure="Delete those first.",
        )
    if not await store.delete_collection(tx, found.id):
        raise InUse(
            f"Something is deployed to {found.name}.",
            cure="Take it back first: look at `tandem configuration list` and"
            " `tandem comanagement show`.",
        )
    await _audit(tx, actor, "collection.delete", found.id, now, name=found.name)


async def add_members(
    tx: Tx, wanted: str, devices: Sequence[str], *, actor: str, now: datetime
) -> list[KnownResource]:
    """Direct rules for devices, by number, client id or name. Harmless twice.

    Raises NoSuchCollection, NoSuchResource (and adds none then), BuiltIn.
    """
    found = await collection(tx, wanted)
    if found.id == ALL_SYSTEMS:
        raise BuiltIn("All Systems has every device already.")
    members = [await resource(tx, device) for device in devices]
    for member in members:
        await store.add_rule(tx, found.id, "direct", member.name, resource_id=member.id)
    names = [member.name for member in members]
    await _audit(tx, actor, "collection.add-members", found.id, now, devices=names)
    return members


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
    found = await collection(tx, wanted)
    if found.id == ALL_SYSTEMS:
        raise BuiltIn("All Systems has every device already.")
    added = await store.add_clients(tx, found.id, client_ids)
    await _audit(tx, actor, "collection.add-many", found.id, now, **details, added=added)
    return added


async def add_query(
    tx: Tx, wanted: str, name: str, query: str, *, actor: str, now: datetime
) -> None:
    """Raises NoSuchCollection, BadQuery, BuiltIn, NameTaken."""
    found = await collection(tx, wanted)
    if found.id == ALL_SYSTEMS:
        raise BuiltIn("All Systems has every device already.")
    compile_query(query)
    if not await store.add_rule(tx, found.id, "query", name, query):
        raise NameTaken(
            f"{found.name} has a query rule {name!r} already.",
            cure="Give the new rule another name, or remove the other one first.",
        )
    await _audit(tx, actor, "collection.add-query", found.id, now, name=name, query=query)


async def remove_rule(tx: Tx, wanted: str, rule: int, *, actor: str, now: datetime) -> None:
    """By the rule's number. Raises NoSuchCollection, NoSuchRule."""
    found = await collection(tx, wanted)
    removed = await store.remove_rule(tx, found.id, rule)
    if removed is None:
        raise NoSuchRule(f"{found.name} has no rule {rule}.")
    await _audit(tx, actor, "collection.remove-rule", found.id, now, rule=removed)


async def collections(tx: Tx) -> list[Collection]:
    return await store.collections(tx)


async def collection(tx: Tx, wanted: str) -> Collection:
    """By id or name. Raises NoSuchCollection."""
    found = await store.collection(tx, wanted)
    if found is None:
        raise NoSuchCollection(
            f"There is no collection {wanted!r}.", cure="List them: `tandem collection list`."
        )
    return found


async def rules(tx: Tx, id: CollectionId) -> list[Rule]:
    return [rule for _, rule in await store.rules(tx, [id])]


async def members(tx: Tx, wanted: str, limit: int = 1000, offset: int = 0) -> list[KnownResource]:
    """Raises NoSuchCollection."""
    condition = await _condition(tx, (await collection(tx, wanted)).id)
    return await store.resources(tx, condition.sql, condition.values, limit, offset)


async def count(tx: Tx, id: CollectionId) -> int:
    condition = await _condition(tx, id)
    return await store.count(tx, condition.sql, condition.values)


async def is_member(tx: Tx, id: CollectionId, resource_id: int) -> bool:
    return id in await memberships(tx, [id], resource_id)


async def memberships(tx: Tx, ids: Iterable[CollectionId], resource_id: int) -> set[CollectionId]:
    """In which of these collections a resource is: three queries, however many are asked."""
    asked = list(dict.fromkeys(ids))
    if not asked:
        return set()
    conditions = await _conditions(tx, asked)
    found = await store.true_of(tx, [(c.sql, c.values) for c in conditions], resource_id)
    return {id for id, so in zip(asked, found, strict=True) if so}


async def client_ids(tx: Tx, id: CollectionId) -> set[str]:
    """The clients of a collection's members."""
    condition = await _condition(tx, id)
    return await store.client_ids(tx, condition.sql, condition.values)


async def memberships_sql(tx: Tx, ids: Iterable[CollectionId]) -> tuple[str, dict[str, Any]]:
    """A SELECT of collection_id, resource_id and is_direct for every member of these collections,
    with named parameters: for listings that filter and page in the database."""
    asked = list(dict.fromkeys(ids))
    direct: dict[CollectionId, list[int]] = {}
    for id, rule in await store.rules(tx, asked):
        if rule.resource_id is not None:
            direct.setdefault(id, []).append(rule.resource_id)
    parts, parameters = [], dict[str, Any]()

    def bind(value: Any) -> str:
        parameters[name := f"m{len(parameters)}"] = value
        return f"%({name})s"

    for id, condition in zip(asked, await _conditions(tx, asked), strict=True):
        values = iter(condition.values)
        sql = re.sub(
            "%[%s]",
            lambda found, of=values: bind(next(of)) if found[0] == "%s" else "%%",  # type: ignore[misc]
            condition.sql,
        )
        parts.append(
            f"SELECT {bind(id)}::text AS collection_id, r.id AS resource_id,"  # noqa: S608
            f" r.id = ANY({bind(direct.get(id, []))}::bigint[]) AS is_direct"
            f" FROM collections_resource r WHERE {sql}"
        )
    nobody = (
        "SELECT ''::text AS collection_id, 0::bigint AS resource_id, false AS is_direct LIMIT 0"
    )
    return " UNION ALL ".join(parts) or nobody, parameters


async def _condition(tx: Tx, id: CollectionId) -> Condition:
    return (await _conditions(tx, [id]))[0]


async def _conditions(tx: Tx, ids: Sequence[CollectionId]) -> list[Condition]:
    """For each collection, the whole chain of what limits it as one condition over `r`."""
    if all(id == ALL_SYSTEMS for id in ids):
        return [Condition("true")] * len(ids)
    known = {item.id: item for item in await store.collections(tx)}
    chains = [_chain(known, id) for id in ids]
    rules: dict[CollectionId, list[Rule]] = {step: [] for chain in chains for step in chain}
    for step, rule in await store.rules(tx, list(rules)):
        rules[step].append(rule)
    return [_all_of([_applies(rules[step]) for step in chain]) for chain in chains]


def _all_of(parts: list[Condition]) -> Condition:
    if not parts:
        return Condition("true")
    sql = " AND ".join(f"({part.sql})" for part in parts)
    return Condition(sql, tuple(value for part in parts for value in part.values))


def _chain(known: Mapping[CollectionId, Collection], id: CollectionId) -> list[CollectionId]:
    """A collection and what limits it, without All Systems, which limits nothing."""
    found: list[CollectionId] = []
    step: CollectionId | None = id
    while step is not None and step != ALL_SYSTEMS and step not in found:
        found.append(step)
        step = known[step].limiting_id if step in known else None
    return found


def _applies(rules: list[Rule]) -> Condition:
    if not rules:
        return Condition("false")
    parts = [
        Condition("r.id = %s", (rule.resource_id,))
        if rule.kind == "direct"
        else compile_query(rule.query)
        for rule in rules
    ]
    return Condition(
        " OR ".join(f"({part.sql})" for part in parts),
        tuple(value for part in parts for value in part.values),
    )


async def _audit(
    tx: Tx, actor: str, action: str, target: str, now: datetime, **details: object
) -> None:
    await audit.record(tx, actor=actor, action=action, target=target, now=now, details=details)
