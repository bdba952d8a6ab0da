"""Device configurations: what of them a device is to have now."""

import uuid
from collections.abc import Iterable, Sequence
from datetime import datetime

from tandem.infra.database import Tx
from tandem.tenant import assignments
from tandem.tenant.assignments import Assignment, Membership
from tandem.tenant.policies import store
from tandem.tenant.policies.model import (
    KIND,
    Configuration,
    NoSuchObject,
    PolicyObject,
    oma_setting,
    settings_of,
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
    """A custom configuration of one setting. Raises BadObject."""
    properties = {"workload": workload.value, "omaSettings": [oma_setting(setting, value)]}
    made = PolicyObject(
        KIND,
        str(uuid.uuid4()),
        "windows10CustomConfiguration",
        name.strip(),
        1,
        now,
        now,
        properties,
    )
    await store.add(tx, made, "")
    return settings_of(made)[0]


async def change(tx: Tx, id: str, value: str, now: datetime) -> None:
    """Another value for a configuration of one setting. Raises BadObject, NoSuchObject."""
    found = await store.find(tx, KIND, id)
    if found is None:
        raise NoSuchObject(
            f"There is no configuration {id!r}.",
            cure="List them: `tandem device-configuration list`.",
        )
    (known,) = settings_of(found)
    properties = {**found.properties, "omaSettings": [oma_setting(known.setting, value)]}
    await store.save(tx, found, found.name, properties, now, "")


async def configurations(tx: Tx) -> list[Configuration]:
    """Every setting that is configured."""
    return [found for item in await store.objects(tx, KIND) for found in settings_of(item)]


async def assign(tx: Tx, id: str, included: Sequence[str], excluded: Sequence[str]) -> None:
    """Give it to these groups, and to nobody else."""
    await assignments.replace(tx, KIND, id, assignments.targets(included, excluded))


async def effective(tx: Tx, groups: Membership, flags: int | None) -> dict[str, Configuration]:
    """Setting → configuration, for a device of these groups. See `choose`."""
    given = await assignments.every(tx, KIND)
    return choose(await configurations(tx), given, groups, flags)


def choose(
    configurations: Iterable[Configuration],
    given: Iterable[Assignment],
    groups: Membership,
    flags: int | None,
) -> dict[str, Configuration]:
    """What a device gets. `flags` are its agent's workload flags, None without an agent.

    A workload that the site owns on this device is left alone. Of two configurations of one
    setting, the older one holds.
    """
    by_owner: dict[str, list[Assignment]] = {}
    for one in given:
        by_owner.setdefault(one.owner_id, []).append(one)
    found: dict[str, Configuration] = {}
    for item in configurations:
        mine = by_owner.get(item.id, [])
        if item.setting in found or not assignments.given_to(mine, groups):
            continue
        if flags is None or owner_of(item.workload, flags) is Authority.MDM:
            found[item.setting] = item
    return found
