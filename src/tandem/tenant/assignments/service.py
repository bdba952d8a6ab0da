"""Giving objects to targets, and asking whom they are for."""

from collections.abc import Sequence

from tandem.infra.database import Tx
from tandem.tenant import directory
from tandem.tenant.assignments import store
from tandem.tenant.assignments.model import (
    Assignment,
    New,
    NoSuchAssignment,
    Target,
    TargetKind,
    numbered,
)


async def every(tx: Tx, kind: str) -> list[Assignment]:
    """All assignments of all owners of this kind."""
    return await store.assignments(tx, kind, None)


async def of(tx: Tx, kind: str, *owner_ids: str) -> list[Assignment]:
    return await store.assignments(tx, kind, list(owner_ids))


async def owners(tx: Tx, kind: str) -> frozenset[str]:
    """The ids of the owners that are assigned to anybody."""
    return await store.owners(tx, kind)


async def replace(tx: Tx, kind: str, owner_id: str, wanted: Sequence[New]) -> list[Assignment]:
    """These and no others. Raises BadAssignment; UnknownObject for a group that does not exist."""
    made = numbered(owner_id, wanted)
    for item in made:
        await _check(tx, item.target)
    await store.replace(tx, kind, owner_id, made)
    return made


async def add(tx: Tx, kind: str, owner_id: str, new: New) -> Assignment:
    """One more; for a target that has one already, this one instead. Raises as `replace`."""
    await store.lock(tx, kind, owner_id)
    before = await of(tx, kind, owner_id)
    kept = [
        New(item.target, item.values)
        for item in before
        if (item.target.kind, item.target.id) != (new.target.kind, new.target.id)
    ]
    made = await replace(tx, kind, owner_id, [*kept, new])
    return made[-1]


async def remove(tx: Tx, kind: str, owner_id: str, id: str) -> None:
    """Raises NoSuchAssignment."""
    if not await store.delete(tx, kind, owner_id, id):
        raise NoSuchAssignment(
            f"There is no assignment {id!r}.", cure="List the assignments of the object."
        )


async def forget(tx: Tx, kind: str, owner_id: str) -> None:
    """The owner is gone."""
    await store.replace(tx, kind, owner_id, [])


def targets(included: Sequence[str], excluded: Sequence[str] = ()) -> list[New]:
    """Groups as assignments without more."""
    return [
        *(New(Target(TargetKind.GROUP, group)) for group in included),
        *(New(Target(TargetKind.EXCLUDED_GROUP, group)) for group in excluded),
    ]


async def _check(tx: Tx, target: Target) -> None:
    if target.kind in {TargetKind.GROUP, TargetKind.EXCLUDED_GROUP}:
        await directory.group(tx, target.subject)
