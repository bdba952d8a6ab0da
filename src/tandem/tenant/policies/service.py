"""What is configured, and what of it a device is to have now."""

import uuid
from collections.abc import Collection, Iterable, Sequence
from datetime import datetime

from tandem.infra.database import Tx
from tandem.tenant.policies import store
from tandem.tenant.policies.model import (
    Assignment,
    BadConfiguration,
    Configuration,
    NameTaken,
    NoSuchConfiguration,
    check,
)
from tandem.workloads import Authority, Workload, owner_of


async def create(
    tx: Tx,
    name: str,
    setting: str,
    value: str,
    now: datetime,
    workload: Workload = Workload.DEVICE_CONFIGURATION,
) -> Configuration:
    """Raises BadConfiguration, NameTaken."""
    check(name, setting, value)
    made = Configuration(str(uuid.uuid4()), name.strip(), workload, setting, value, now, now)
    if not await store.insert(tx, made):
        raise NameTaken(f"There is a configuration {name!r} already.", cure="Take another name.")
    return made


async def change(tx: Tx, id: str, value: str, now: datetime) -> None:
    """Raises BadConfiguration, NoSuchConfiguration."""
    if len(value) > 4096:
        raise BadConfiguration("A value has at most 4,096 characters.")
    if not await store.change(tx, id, value, now):
        raise _unknown(id)


async def delete(tx: Tx, id: str) -> None:
    if not await store.delete(tx, id):
        raise _unknown(id)


def _unknown(id: str) -> NoSuchConfiguration:
    return NoSuchConfiguration(
        f"There is no configuration {id!r}.", cure="List them: `tandem device-configuration list`."
    )


async def configurations(tx: Tx) -> list[Configuration]:
    return await store.configurations(tx)


async def assignments(tx: Tx, id: str) -> list[Assignment]:
    return [item for item in await store.assignments(tx) if item.configuration_id == id]


async def assign(tx: Tx, id: str, included: Sequence[str], excluded: Sequence[str]) -> None:
    """Give it to these groups, and to nobody else. Exclusion wins. Raises NoSuchConfiguration."""
    if all(item.id != id for item in await store.configurations(tx)):
        raise _unknown(id)
    groups = dict.fromkeys(included, False) | dict.fromkeys(excluded, True)
    await store.assign(tx, id, list(groups.items()))


async def effective(tx: Tx, groups: Collection[str], flags: int | None) -> dict[str, Configuration]:
    """Setting → configuration, for a member of these groups. See `choose`."""
    return choose(await store.configurations(tx), await store.assignments(tx), groups, flags)


def choose(
    configurations: Iterable[Configuration],
    assignments: Iterable[Assignment],
    groups: Collection[str],
    flags: int | None,
) -> dict[str, Configuration]:
    """What a device gets. `flags` are its agent's workload flags, None without an agent.

    A workload that the site owns on this device is left alone. Of two configurations of one
    setting, the older one holds.
    """
    given = list(assignments)
    found: dict[str, Configuration] = {}
    for item in configurations:
        mine = [a for a in given if a.configuration_id == item.id and a.group_id in groups]
        if not mine or any(a.excluded for a in mine) or item.setting in found:
            continue
        if flags is None or owner_of(item.workload, flags) is Authority.MDM:
            found[item.setting] = item
    return found
