"""Enable co-management, move workloads, and say what a client is to do about it."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime

from tandem import audit
from tandem.infra import events
from tandem.infra.database import Tx
from tandem.protocols import ccm
from tandem.site import clients, collections, deployments, properties, settings
from tandem.site.comanagement import store
from tandem.site.comanagement.dashboard import DeviceFacts, TenantFacts, facts
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
from tandem.workloads import Authority, Position, Workload, effective, merge, owner_of, owners

_SENTENCE = "Please ensure the proper prerequisites are installed."


async def _no_devices() -> Mapping[str, TenantFacts]:
    return {}


@dataclass(frozen=True)
class Collaborators:
    """What other modules know, handed in by `roles/`.

    `gateway_host` is the CCMHOSTNAME of the gateway that clients use, None without one. `tenant_id`
    is the tenant that the site is connected to, empty without one. `check_tenant` asks the tenant
    with a global administrator's token whether its MDM authority is set, and raises if not; the
    token is not kept. `tenant_devices` is what the tenant knows of its devices, by device id; it
    raises when it cannot be asked.
    """

    gateway_host: Callable[[Tx], Awaitable[str | None]]
    tenant_id: Callable[[Tx], Awaitable[str]]
    check_tenant: Callable[[Tx, str], Awaitable[None]]
    tenant_devices: Callable[[], Awaitable[Mapping[str, TenantFacts]]] = _no_devices


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
    every = await store.policies(tx)
    of = await collections.memberships(tx, [item.collection_id for item in every], resource_id)
    return [
        ccm.ConfigurationPolicy(
            policy.id,
            policy.name,
            policy.version,
            policy.kind,
            policy.allow,
            policy.auto_enroll,
            policy.capabilities,
        )
        for policy in every
        if policy.collection_id in of
    ]


async def policy_content(tx: Tx, client_id: clients.ClientId) -> ccm.PolicyContent:
    """Everything that the site wants of one client, computed when it asks."""
    device = await collections.resource_of(tx, client_id)
    return ccm.PolicyContent(
        settings=dict(await settings.resultant(tx, device.id)),
        configuration_policies=await policies_for(tx, device.id),
        configurations=await deployments.configurations_for(tx, device.id),
    )


async def decided(tx: Tx, client_id: str) -> dict[Workload, Authority]:
    """Who is to have each workload of a device, by what is set now."""
    device = await collections.resource_of(tx, client_id)
    return owners(merge(await policies_for(tx, device.id)).flags)


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
        return self.changed == self.devices

    @property
    def devices(self) -> int:
        """All that are co-managed."""
        return self.to_mdm + self.to_site

    @property
    def changed(self) -> int:
        """Those of them that have it where it is to be."""
        return self.with_mdm + self.with_site


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
    together = {one.id: one for one in everyone if one.mdm_enrolled and one.policy_present}
    deployed = [
        (policy, await collections.client_ids(tx, policy.collection_id))
        for policy in await store.policies(tx)
    ]
    moves = []
    for slider in (await store.sliders(tx)).values():
        wanted: set[str] = set()
        for policy, members in deployed:
            if owner_of(slider.workload, policy.capabilities) is Authority.MDM:
                wanted |= members & together.keys()
        have = {
            id
            for id, one in together.items()
            if owner_of(slider.workload, effective(one.flags, one.mdm_enrolled)) is Authority.MDM
        }
        stay = together.keys() - wanted
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


async def fleet(
    tx: Tx, tenant: Mapping[str, TenantFacts], *, tenant_asked: bool = True
) -> list[DeviceFacts]:
    """What is known of every device of both authorities; `tenant` is by device id."""
    registered = {one.device_id: one for one in await clients.list_clients(tx)}
    progress = {one.device_id: one for one in await clients.enrollment_progress(tx)}
    return [
        facts(id, registered.get(id), tenant.get(id), progress.get(id), tenant_asked)
        for id in dict.fromkeys([*registered, *tenant, *progress])
    ]
