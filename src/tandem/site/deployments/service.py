"""What the site deploys, and what of it is meant for a device."""

import uuid
from collections.abc import Container, Sequence
from dataclasses import dataclass
from datetime import datetime

from tandem import audit
from tandem.infra.database import Tx
from tandem.protocols import ccm
from tandem.site import clients, collections
from tandem.site.deployments import store
from tandem.site.deployments.model import (
    Configuration,
    NameTaken,
    NoSuchConfiguration,
    check,
)
from tandem.workloads import Workload, is_secret, shown


async def create(
    tx: Tx,
    name: str,
    *,
    setting: str,
    value: str,
    collection: str,
    workload: Workload = Workload.DEVICE_CONFIGURATION,
    actor: str,
    now: datetime,
) -> Configuration:
    """Deploy one setting to a collection. Raises BadConfiguration, NameTaken, NoSuchCollection."""
    check(name, setting, value, workload)
    target = await collections.device_collection(tx, collection)
    made = Configuration(str(uuid.uuid4()), name.strip(), workload, setting, value, target.id, now)
    if not await store.insert(tx, made):
        raise NameTaken(
            f"There is a configuration {name!r} already.", cure="Take another name.", field="name"
        )
    await audit.record(
        tx,
        actor=actor,
        action="configuration.create",
        target=made.name,
        now=now,
        details={"setting": setting, "value": shown(setting, value), "collection": target.id},
    )
    return made


async def delete(tx: Tx, wanted: str, *, actor: str, now: datetime) -> None:
    """Raises NoSuchConfiguration."""
    gone = await store.delete(tx, wanted, now)
    if gone is None:
        raise NoSuchConfiguration(
            f"There is no configuration {wanted!r}.", cure="List them: `tandem configuration list`."
        )
    await audit.record(tx, actor=actor, action="configuration.delete", target=gone.name, now=now)


async def configurations(tx: Tx) -> list[Configuration]:
    return await store.configurations(tx)


@dataclass(frozen=True, slots=True)
class Deployed:
    """A configuration with its collection: on how many clients its value is in force, and on how
    many the MDM service has set the same thing."""

    configuration: Configuration
    collection: str
    members: int
    applied: int
    with_mdm: int


async def deployed(tx: Tx) -> list[Deployed]:
    """The configurations, and how far each has come by the clients' own account."""
    found = []
    for item in await store.configurations(tx):
        target = await collections.collection(tx, item.collection_id)
        held = await clients.in_force(tx, item.setting)
        members = await collections.client_ids(tx, target.id)
        mine = [held[id] for id in members if id in held]
        applied = sum(_is_in_force(item, one) for one in mine)
        with_mdm = sum(one.source == "mdm" for one in mine)
        found.append(Deployed(item, target.name, len(members), applied, with_mdm))
    return found


def _is_in_force(item: Configuration, held: clients.InForce) -> bool:
    if held.source != "site":
        return False
    # Of a secret nobody says the value; two configurations may say the same where it is none.
    same = held.value == item.value and not is_secret(item.setting, item.value)
    return same or held.configuration == item.id


async def holding(tx: Tx, resource_id: int) -> list[Configuration]:
    """What is deployed to a device. Of two that set the same, the older one holds."""
    every = await store.configurations(tx)
    of = await collections.memberships(tx, [item.collection_id for item in every], resource_id)
    return held(every, of)


def held(
    every: Sequence[Configuration], of: Container[collections.CollectionId]
) -> list[Configuration]:
    """What is deployed to a device that is in these collections. `every` is oldest first."""
    found: dict[str, Configuration] = {}
    for item in every:
        if item.collection_id in of:
            found.setdefault(item.setting, item)
    return list(found.values())


def in_policy(held: Sequence[Configuration]) -> list[ccm.Configuration]:
    """What is deployed to a device, as its policy has it."""
    return [
        ccm.Configuration(item.id, item.workload.value, item.setting, item.value) for item in held
    ]


async def used_for(tx: Tx, id: collections.CollectionId) -> list[collections.Use]:
    """What is deployed to a collection."""
    return [
        collections.Use(
            "configuration", item.name, f"{item.setting} = {shown(item.setting, item.value)}"
        )
        for item in await store.configurations(tx)
        if item.collection_id == id
    ]
