"""Enable co-management, move workloads, and say what a client is to do about it."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime

from tandem import audit
from tandem.infra import events
from tandem.infra.database import Tx
from tandem.protocols import ccm
from tandem.site import clients, collections, deployments, properties, settings
from tandem.site.comanagement import store
from tandem.site.comanagement.model import (
    AutoEnroll,
    Enablement,
    NeedsCollection,
    NotEnabled,
    Policy,
    Prerequisites,
    Slider,
    command_line,
    new_policy_id,
    wanted_policies,
)
from tandem.workloads import Authority, Position, Workload, effective, owner_of

_SENTENCE = "Please ensure the proper prerequisites are installed."


@dataclass(frozen=True)
class Collaborators:
    """What other modules know, handed in by `roles/`.

    `gateway_host` is the CCMHOSTNAME of the gateway that clients use, None without one. `tenant_id`
    is the tenant that the site is connected to, empty without one. `check_tenant` asks the tenant
    with a global administrator's token whether its MDM authority is set, and raises if not; the
    token is not kept.
    """

    gateway_host: Callable[[Tx], Awaitable[str | None]]
    tenant_id: Callable[[Tx], Awaitable[str]]
    check_tenant: Callable[[Tx, str], Awaitable[None]]


async def enable(
    tx: Tx,
    others: Collaborators,
    *,
    auto_enroll: AutoEnroll,
    collection: str = "",
    access_token: str,
    actor: str,
    now: datetime,
) -> Enablement:
    """Turn co-management on, or change whom automatic enrolment is for.

    Raises Prerequisites, NeedsCollection, NoSuchCollection, and what the tenant refuses.
    """
    tenant_id = await others.tenant_id(tx)
    if not tenant_id:
        raise Prerequisites(
            f"{_SENTENCE} The site is not connected to a tenant.",
            cure="Connect it first: `tandem azure-service create` (step 2).",
        )
    await command_line_now(tx, others)
    await others.check_tenant(tx, access_token)
    collection_id = await _pilot(tx, auto_enroll is AutoEnroll.PILOT, collection)
    await store.lock(tx)
    before = await store.enablement(tx)
    wanted = Enablement(
        tenant_id, auto_enroll, collection_id, before.enabled_at if before else now, actor
    )
    await store.save_enablement(tx, wanted)
    await _settle(tx, wanted, now)
    details = {"auto_enroll": auto_enroll.value, "collection": collection_id}
    await audit.record(
        tx,
        actor=actor,
        action="comanagement.enable",
        target=tenant_id,
        now=now,
        details=details,
    )
    return wanted


async def _pilot(tx: Tx, piloted: bool, collection: str) -> str:
    if not piloted:
        return ""
    if not collection:
        raise NeedsCollection(
            "Pilot needs a collection that the pilot is for.",
            cure="Name it with --collection; make one with `tandem collection create`.",
        )
    return (await collections.collection(tx, collection)).id


async def switch(
    tx: Tx,
    workload: Workload,
    position: Position,
    *,
    collection: str = "",
    actor: str,
    now: datetime,
) -> Slider:
    """Move one workload. At Pilot, the collection that it had is kept when none is named.

    Raises NotEnabled, NeedsCollection, NoSuchCollection.
    """
    await store.lock(tx)
    enablement = await required(tx)
    before = (await store.sliders(tx))[workload]
    if position is Position.PILOT:
        collection_id = await _pilot(tx, True, collection or before.collection_id)
    else:
        # Remembered, so going back to the pilot takes no thought.
        collection_id = before.collection_id
    slider = Slider(workload, position, collection_id, now, actor)
    if (before.position, before.collection_id) != (position, collection_id):
        await store.save_slider(tx, slider)
        await _settle(tx, enablement, now)
        details = {"from": before.position.value, "to": position.value, "pilot": collection_id}
        await audit.record(
            tx,
            actor=actor,
            action="comanagement.switch",
            target=workload.value,
            now=now,
            details=details,
        )
        await events.record(tx, "comanagement.switched", workload.value, details)
    return slider


async def _settle(tx: Tx, enablement: Enablement, now: datetime) -> None:
    """Bring the policies to what the settings come to: new versions of what differs."""
    wanted = {
        item.name: item
        for item in wanted_policies(enablement, await store.sliders(tx), collections.ALL_SYSTEMS)
    }
    known = {policy.name: policy for policy in await store.policies(tx)}
    for name, item in wanted.items():
        have = known.get(name)
        if have is None:
            await store.insert_policy(tx, new_policy_id(), item, now)
        elif (have.collection_id, have.auto_enroll, have.capabilities) != (
            item.collection_id,
            item.auto_enroll,
            item.capabilities,
        ):
            await store.change_policy(tx, have.id, item, now)
    for name, have in known.items():
        if name not in wanted:
            await store.delete_policy(tx, have.id)


async def enablement(tx: Tx) -> Enablement | None:
    return await store.enablement(tx)


async def required(tx: Tx) -> Enablement:
    """Raises NotEnabled."""
    found = await store.enablement(tx)
    if found is None:
        raise NotEnabled(
            "Co-management is not enabled.", cure="Enable it first: `tandem comanagement enable`."
        )
    return found


async def sliders(tx: Tx) -> dict[Workload, Slider]:
    return await store.sliders(tx)


async def policies(tx: Tx) -> list[Policy]:
    return await store.policies(tx)


async def command_line_now(tx: Tx, others: Collaborators) -> str:
    """The line for the client's MSI, made of what is true now. Raises Prerequisites."""
    host = await others.gateway_host(tx)
    if host is None:
        raise Prerequisites(
            f"{_SENTENCE} No gateway is ready whose traffic a management point allows.",
            cure="Create the gateway and its connection point (steps 3 and 4), and allow gateway"
            " traffic: `tandem management-point set --allow-gateway-traffic`.",
        )
    return command_line(host, (await properties.site(tx)).code)


async def policies_for(tx: Tx, resource_id: int) -> list[ccm.ConfigurationPolicy]:
    """The co-management policies that are deployed to a device."""
    found = []
    for policy in await store.policies(tx):
        wanted = collections.CollectionId(policy.collection_id)
        if await collections.is_member(tx, wanted, resource_id):
            found.append(
                ccm.ConfigurationPolicy(
                    policy.id,
                    policy.name,
                    policy.version,
                    policy.kind,
                    policy.allow,
                    policy.auto_enroll,
                    policy.capabilities,
                )
            )
    return found


async def policy_content(tx: Tx, client_id: clients.ClientId) -> ccm.PolicyContent:
    """Everything that the site wants of one client, computed when it asks."""
    device = await collections.resource(tx, client_id)
    return ccm.PolicyContent(
        settings=dict(await settings.resultant(tx, device.id)),
        configuration_policies=await policies_for(tx, device.id),
        configurations=await deployments.configurations_for(tx, device.id),
    )


async def decided(tx: Tx, client_id: str) -> dict[Workload, Authority]:
    """Who is to have each workload of a device, by what is set now."""
    device = await collections.resource(tx, client_id)
    flags = 0
    for policy in await policies_for(tx, device.id):
        flags |= policy.capabilities if policy.allow else 0
    return {workload: owner_of(workload, flags) for workload in Workload}


@dataclass(frozen=True, slots=True)
class Move:
    """How far a workload's move has come: devices that are to be with the MDM, and are."""

    workload: Workload
    position: Position
    collection_id: str
    to_mdm: int
    with_mdm: int
    to_site: int
    with_site: int

    @property
    def done(self) -> bool:
        return self.to_mdm == self.with_mdm and self.to_site == self.with_site


@dataclass(frozen=True, slots=True)
class Status:
    """Counts over the clients, as they themselves report."""

    clients: int
    policy_present: int
    mdm_enrolled: int
    co_managed: int
    moves: tuple[Move, ...]


async def status(tx: Tx) -> Status:
    """Where the fleet stands. `moves` compares what is set with what each device reports."""
    everyone = await clients.list_clients(tx)
    together = [one for one in everyone if one.mdm_enrolled and one.policy_present]
    moves = []
    for slider in (await store.sliders(tx)).values():
        wanted = await _wanted(tx, slider.workload, {one.id for one in together})
        have = {
            one.id
            for one in together
            if owner_of(slider.workload, effective(one.flags, one.mdm_enrolled)) is Authority.MDM
        }
        stay = {one.id for one in together} - wanted
        moves.append(
            Move(
                slider.workload,
                slider.position,
                slider.collection_id,
                len(wanted),
                len(wanted & have),
                len(stay),
                len(stay - have),
            )
        )
    return Status(
        len(everyone),
        sum(one.policy_present for one in everyone),
        sum(one.mdm_enrolled for one in everyone),
        len(together),
        tuple(moves),
    )


async def _wanted(
    tx: Tx, workload: Workload, together: set[clients.ClientId]
) -> set[clients.ClientId]:
    """The co-managed clients whose workload the policies hand to the MDM."""
    found: set[str] = set()
    for policy in await store.policies(tx):
        if owner_of(workload, policy.capabilities) is Authority.MDM:
            wanted = collections.CollectionId(policy.collection_id)
            found |= await collections.client_ids(tx, wanted)
    return {one for one in together if one in found}
