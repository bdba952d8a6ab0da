"""Security scopes: which objects an administrator sees, and which devices and collections.

Two limits, as in the field. Scopes are on objects that stand by themselves (`KINDS`): an
administrator sees those that share a scope with them; new ones get the scopes of who made them.
Devices and collections carry no scopes: an administrator is limited to collections, and sees
these, what is limited to them, and their members.
"""

from collections.abc import Iterable, Sequence
from contextvars import ContextVar
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

# What carries scopes. A module that adds a kind keeps it with `created` and `gone`.
KINDS = ("configuration", "gateway")

# The collections that whoever asks is limited to; None where nobody is. Set by the gate for the
# rest of a request, so that every look-up of a collection or a device asks, and none can forget.
_asking: ContextVar[tuple[str, ...] | None] = ContextVar("administrators_asking", default=None)


def ask_as(who: Administrator) -> None:
    """From here on, this request sees what this administrator may."""
    _asking.set(who.collections or None)


def limit() -> tuple[str, ...] | None:
    """The collections that who asks is limited to; None: not limited, or the site itself asks."""
    return _asking.get()


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


async def created(tx: Tx, who: Administrator, kind: str, id: str) -> None:
    """A new object has the scopes of who made it."""
    names = (DEFAULT,) if who.all_scopes else who.scopes
    await store.save_scoped(tx, kind, key(kind, id), names)


async def gone(tx: Tx, kind: str, id: str) -> None:
    """What is made later by the same name does not inherit its scopes."""
    await store.save_scoped(tx, kind, key(kind, id), ())


async def give(
    tx: Tx, kind: str, id: str, names: Sequence[str], *, actor: str, now: datetime
) -> tuple[str, ...]:
    """Scopes for one object instead of those that it has. Raises NoSuchScope, BadScope."""
    if kind not in KINDS:
        raise BadScope(
            f"Nothing of the kind {kind[:64]!r} carries scopes.",
            cure=f"Take one of: {', '.join(KINDS)}.",
            field="kind",
        )
    wanted = await known(tx, names)
    if ALL in wanted:
        raise BadScope(
            "All is what an administrator has, not an object.",
            cure=f"Give the object {DEFAULT}, or scopes of your own.",
            field="scopes",
        )
    await store.lock(tx)
    before = (await scopes_of(tx, kind)).get(key(kind, id), (DEFAULT,))
    await store.save_scoped(tx, kind, key(kind, id), wanted)
    if set(before) != set(wanted):
        changed = [{"name": "scopes", "old": list(before), "new": list(wanted)}]
        await audit.record(
            tx,
            actor=actor,
            action="scope.give",
            target=f"{kind} {id}",
            now=now,
            details={"changed": changed},
        )
    return wanted


def key(kind: str, id: str) -> str:
    """Objects are found in any letter case, and so are their scopes."""
    return id.strip().lower()
