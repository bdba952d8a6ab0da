"""Security scopes: which objects an administrator sees, and which devices and collections.

Two limits, as in the field. Scopes are on objects that stand by themselves (`Objects`): an
administrator sees those that share a scope with them; new ones get the scopes of who made them.
Devices and collections carry no scopes: an administrator is limited to collections, and sees
these, what is limited to them, and their members.
"""

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import datetime

from tandem import audit
from tandem.infra.database import Tx
from tandem.site.administrators import store
from tandem.site.administrators.model import (
    ALL,
    DEFAULT,
    Administrator,
    BadScope,
    NoSuchScope,
    NotInScope,
    Scope,
    ScopeInUse,
    check_scope,
)

# What carries scopes, by its kind: each object's id and name, as the module that keeps them knows.
# A module that adds a kind keeps its scopes with `created` and `gone`.
Objects = Mapping[str, Callable[[Tx], Awaitable[Sequence[tuple[str, str]]]]]


@dataclass(frozen=True, slots=True)
class Scoped:
    """An object that carries scopes."""

    kind: str
    id: str
    name: str
    scopes: tuple[str, ...]


# Who asks; None where the site itself does. Set by the gate for the rest of a request, so that every
# look-up of a collection or a device asks, and none can forget.
_asking: ContextVar[Administrator | None] = ContextVar("administrators_asking", default=None)


def ask_as(who: Administrator) -> None:
    """From here on, this request sees what this administrator may."""
    _asking.set(who)


def limit() -> tuple[str, ...] | None:
    """The collections that who asks is limited to; None: not limited, or the site itself asks."""
    who = _asking.get()
    return (who.collections or None) if who is not None else None


def asking() -> Administrator | None:
    """Who asks; None: the site itself."""
    return _asking.get()


def sees_all() -> bool:
    """Whether nothing of the site is hidden from who asks, or the site itself does."""
    who = _asking.get()
    return who is None or who.over_all


# Scopes themselves


async def scopes(tx: Tx) -> list[Scope]:
    return await store.scopes(tx)


async def scope(tx: Tx, name: str) -> Scope:
    """In any letter case. Raises NoSuchScope."""
    for found in await store.scopes(tx):
        if found.name.lower() == name.strip().lower():
            return found
    raise NoSuchScope(
        f"There is no scope {name[:128]!r}.", cure="List them: `tandem administrator scopes`."
    )


async def known(tx: Tx, names: Sequence[str]) -> tuple[str, ...]:
    """Scopes as they are written here, All alone where it is among them. Raises NoSuchScope,
    BadScope."""
    found = tuple(dict.fromkeys([(await scope(tx, name)).name for name in names]))
    if not found:
        raise BadScope(
            "An administrator and an object have at least one scope.",
            cure=f"Name one, such as {DEFAULT}.",
            field="scopes",
        )
    return (ALL,) if ALL in found else found


async def add_scope(tx: Tx, name: str, comment: str, *, actor: str, now: datetime) -> Scope:
    """Raises BadScope."""
    kept = check_scope(name)
    if not await store.insert_scope(tx, kept, comment.strip()[:512], now):
        raise BadScope(f"There is a scope {kept} already.", cure="Take another name.", field="name")
    await audit.record(tx, actor=actor, action="scope.add", target=kept, now=now)
    return await scope(tx, kept)


async def remove_scope(tx: Tx, name: str, *, actor: str, now: datetime) -> None:
    """Raises NoSuchScope, ScopeInUse."""
    await store.lock(tx)
    found = await scope(tx, name)
    if found.built_in:
        raise ScopeInUse(f"Every site has the scope {found.name}.", cure="Remove another one.")
    if found.administrators or not await store.delete_scope(tx, found.name):
        raise ScopeInUse(
            f"The scope {found.name} is given to {found.administrators} administrators and"
            f" {found.objects} objects.",
            cure="Give them other scopes first.",
        )
    await audit.record(tx, actor=actor, action="scope.remove", target=found.name, now=now)


# Objects that carry them


async def scopes_of(tx: Tx, kind: str) -> dict[str, tuple[str, ...]]:
    """Objects of a kind that were given scopes; the others have Default."""
    found: dict[str, tuple[str, ...]] = {}
    for id, name in await store.scoped(tx, kind):
        found[id] = (*found.get(id, ()), name)
    return found


async def visible(tx: Tx, who: Administrator, kind: str, ids: Iterable[str]) -> set[str]:
    """Those of these objects that an administrator sees."""
    asked = set(ids)
    if who.all_scopes:
        return asked
    given = await scopes_of(tx, kind)
    return {id for id in asked if set(given.get(key(kind, id), (DEFAULT,))) & set(who.scopes)}


async def check_visible(tx: Tx, who: Administrator, kind: str, id: str) -> None:
    """Raises NotInScope, whether the object is hidden or not there."""
    # Some paths write - for "the only one there is", which may be one that is hidden.
    if not who.all_scopes and (id == "-" or not await visible(tx, who, kind, [id])):
        raise NotInScope(
            f"There is no {kind} {id[:128]!r} that you may see.",
            cure="Check how it is written; a full administrator can give it one of your scopes.",
        )


def inherited(who: Administrator) -> tuple[str, ...]:
    """The scopes of what an administrator makes."""
    return (DEFAULT,) if who.all_scopes else who.scopes


async def created(tx: Tx, kind: str, id: str, names: Sequence[str]) -> None:
    """A new object has the scopes that who made it had then (`inherited`), of which some may be
    gone by now."""
    there = {item.name for item in await store.scopes(tx)}
    left = [name for name in names if name in there] or [DEFAULT]
    await store.save_scoped(tx, kind, key(kind, id), left)


async def gone(tx: Tx, kind: str, id: str) -> None:
    """What is made later by the same name does not inherit its scopes."""
    await store.save_scoped(tx, kind, key(kind, id), ())


async def scoped(tx: Tx, objects: Objects, kind: str) -> list[Scoped]:
    """Every object of a kind with its scopes, by name. Raises BadScope."""
    if kind not in objects:
        raise BadScope(
            f"Nothing of the kind {kind[:64]!r} carries scopes.",
            cure=f"Take one of: {', '.join(objects)}.",
            field="kind",
        )
    given = await scopes_of(tx, kind)
    found = [
        Scoped(kind, id, name, given.get(key(kind, id), (DEFAULT,)))
        for id, name in await objects[kind](tx)
    ]
    return sorted(found, key=lambda item: (item.name.casefold(), item.id))


async def every_scoped(tx: Tx, objects: Objects, name: str = "") -> list[Scoped]:
    """Every object, or those that have this scope."""
    found = [item for kind in objects for item in await scoped(tx, objects, kind)]
    return [item for item in found if not name or name in item.scopes]


async def find_scoped(tx: Tx, objects: Objects, kind: str, wanted: str) -> Scoped:
    """By id or name, in any letter case. Raises BadScope, NotInScope."""
    folded = key(kind, wanted)
    every = await scoped(tx, objects, kind)
    for item in every:
        if key(kind, item.id) == folded:
            return item
    for item in every:
        if item.name.strip().lower() == folded:
            return item
    raise NotInScope(
        f"No {kind} that carries scopes is called {wanted[:128]!r}.",
        cure="List what carries scopes: `tandem administrator objects`.",
    )


async def give(
    tx: Tx,
    objects: Objects,
    kind: str,
    wanted: str,
    names: Sequence[str] | None = None,
    *,
    add: Sequence[str] = (),
    remove: Sequence[str] = (),
    check: Callable[[Scoped], None] = lambda item: None,
    actor: str,
    now: datetime,
) -> Scoped:
    """Scopes for one object, by id or name: `names` in the place of those that it has, or more and
    fewer of them. What has none left has Default. `check` sees it first, and may refuse. Raises
    NoSuchScope, BadScope, NotInScope."""
    await store.lock(tx)
    before = await find_scoped(tx, objects, kind, wanted)
    check(before)
    if names is None:
        gone = {(await scope(tx, name)).name for name in remove}
        kept = [name for name in before.scopes if name not in gone]
        names = [*kept, *add] or [DEFAULT]
    given = await known(tx, names)
    if ALL in given:
        raise BadScope(
            "All is what an administrator has, not an object.",
            cure=f"Give the object {DEFAULT}, or scopes of your own.",
            field="scopes",
        )
    await store.save_scoped(tx, kind, key(kind, before.id), given)
    if set(before.scopes) != set(given):
        changed = [{"name": "scopes", "old": list(before.scopes), "new": list(given)}]
        await audit.record(
            tx,
            actor=actor,
            action="scope.give",
            target=f"{kind} {before.name}",
            now=now,
            details={"changed": changed, "id": before.id},
        )
    return await find_scoped(tx, objects, kind, before.id)


def key(kind: str, id: str) -> str:
    """Objects are found in any letter case, and so are their scopes."""
    return id.strip().lower()
