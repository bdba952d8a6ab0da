"""Enable co-management, move workloads, and say what a client is to do about it."""

import uuid
from collections.abc import Awaitable, Callable, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Any, Protocol

import msgspec

from tandem import audit
from tandem.infra import events, http
from tandem.infra.database import Tx
from tandem.infra.errors import AppError, Invalid, Kind
from tandem.protocols import ccm
from tandem.site import (
    clients,
    collections,
    deployments,
    notifications,
    properties,
    settings,
    traces,
)
from tandem.site.collections import CollectionId
from tandem.site.comanagement import leaving_store, store
from tandem.site.comanagement.leaving_model import OPEN, Offboarding, policy_of
from tandem.site.comanagement.leaving_model import State as LeavingState
from tandem.site.comanagement.model import (
    MOST_SPREAD_MINUTES,
    AutoEnroll,
    BadStaging,
    Begun,
    Enablement,
    NeedsCollection,
    NeedsSignIn,
    NewCollection,
    NotEnabled,
    NothingToEnroll,
    OtherRequest,
    Planned,
    Policy,
    Prerequisite,
    Prerequisites,
    Settings,
    Slider,
    Wish,
    command_line,
    new_policy_id,
    spread_minutes,
    wanted_policies,
)
from tandem.site.comanagement.rollout_model import UnderWay
from tandem.workloads import Authority, Position, Workload, effective, merge, owner_of, owners

# Devices leave one by one; a plan knows so many.
MOST_LEAVING = 10_000
# A finished wizard that is sent again comes within minutes; a week is for whoever comes back late.
_KEEP_REQUESTS = timedelta(days=7)
_SENTENCE = "Please ensure the proper prerequisites are installed."
_NO_TENANT = "The site is not connected to a tenant."
_CONNECT = "Connect it first: `tandem azure-service create` (step 2)."
_NO_GATEWAY = "No gateway is ready whose traffic a management point allows."
_ADD_GATEWAY = (
    "Create the gateway and its connection point (steps 3 and 4), and allow gateway traffic:"
    " `tandem management-point set --allow-gateway-traffic`."
)


async def _no_sign_ins(tx: Tx, sign_in: str, administrator: str) -> str:
    raise Invalid("There are no sign-ins to a tenant here.", field="tenant_sign_in")


class Graph(Protocol):
    """Graph below /v1.0, with the rights of the site's application. Raises AppError."""

    async def get(self, path: str) -> Mapping[str, Any]: ...

    async def post(self, path: str, body: dict[str, Any]) -> Mapping[str, Any]: ...


class NoGraph(AppError):
    kind, code = Kind.UNAVAILABLE, "comanagement.no-graph"


class NotSettled(AppError):
    """What a policy says was decided anew while it was made."""

    kind, code = Kind.UNAVAILABLE, "comanagement.not-settled"


async def _no_graph() -> Graph:
    raise NoGraph(_NO_TENANT, cure=_CONNECT)


@dataclass(frozen=True)
class Collaborators:
    """What other modules know, handed in by `roles/`.

    `gateway_host` is the CCMHOSTNAME of the gateway that clients use, None without one. `tenant_id`
    is the tenant that the site is connected to, empty without one. `check_tenant` asks the tenant
    with a global administrator's token whether its MDM authority is set, and raises if not; the
    token is not kept. `administrator_token` is the access token of the tenant's administrator
    behind a sign-in of the console, by its id and the site's administrator. `graph` is the tenant's
    Graph with the site's application, or raises why it cannot be asked.
    """

    gateway_host: Callable[[Tx], Awaitable[str | None]]
    tenant_id: Callable[[Tx], Awaitable[str]]
    check_tenant: Callable[[Tx, str], Awaitable[None]]
    administrator_token: Callable[[Tx, str, str], Awaitable[str]] = _no_sign_ins
    graph: Callable[[], Awaitable[Graph]] = _no_graph


async def hold(tx: Tx) -> None:
    """One administrator at a time changes co-management, until this transaction ends."""
    await store.lock(tx)


async def version(tx: Tx) -> str:
    """An ETag of what administrators have set."""
    return http.version_of(
        [
            await store.enablement(tx),
            list((await store.sliders(tx)).values()),
            await store.exclusions(tx),
        ]
    )


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

    Raises Prerequisites, NeedsSignIn, NeedsCollection, NoSuchCollection, and what the tenant refuses.
    """
    wanted = Settings(auto_enroll, collection)
    return await configure(tx, others, wanted, access_token=access_token, actor=actor, now=now)


async def configure(
    tx: Tx,
    others: Collaborators,
    wanted: Settings,
    *,
    access_token: str = "",
    actor: str,
    now: datetime,
) -> Enablement:
    """Enablement, workloads and pilot collections in one step, all of it or nothing.

    A tenant administrator's token is needed the first time; later changes are the site's own. Raises
    Prerequisites, NeedsSignIn, NeedsCollection, NoSuchCollection, what the tenant refuses, and what
    a new collection is refused for.
    """
    await store.lock(tx)
    await check_tenant(tx, others, access_token)
    return await configure_checked(tx, others, wanted, actor=actor, now=now)


async def check_tenant(tx: Tx, others: Collaborators, access_token: str) -> None:
    """What `configure` asks of the tenant. Raises Prerequisites, NeedsSignIn, what it refuses."""
    if await store.enablement(tx) is None:
        await _ready(tx, others)
        if not access_token:
            raise NeedsSignIn(
                "Enabling co-management needs a sign-in to the tenant.",
                cure="Sign in as a global administrator of the tenant; it is kept nowhere.",
                field="tenant_sign_in",
            )
    if access_token:
        await others.check_tenant(tx, access_token)


async def configure_checked(
    tx: Tx, others: Collaborators, wanted: Settings, *, actor: str, now: datetime
) -> Enablement:
    """`configure`, when the tenant was asked already."""
    await store.lock(tx)
    before = await store.enablement(tx)
    tenant_id = before.tenant_id if before else await _ready(tx, others)
    return await _apply(tx, tenant_id, before, wanted, actor, now)


async def _ready(tx: Tx, others: Collaborators) -> str:
    """The tenant to be co-managed with. Raises Prerequisites."""
    tenant_id = await others.tenant_id(tx)
    if not tenant_id:
        raise Prerequisites(f"{_SENTENCE} {_NO_TENANT}", cure=_CONNECT)
    await command_line_now(tx, others)
    return tenant_id


async def _apply(
    tx: Tx,
    tenant_id: str,
    before: Enablement | None,
    wanted: Settings,
    actor: str,
    now: datetime,
) -> Enablement:
    owned = await decided_now(tx)
    for new in wanted.collections:
        await _create(tx, new, actor, now)
    if wanted.exclusions is not None:
        await _exclude(tx, wanted.exclusions, actor, now)
    enrols = wanted.auto_enroll or (before.auto_enroll if before else AutoEnroll.NONE)
    kept = before.collection_id if before else ""
    piloted = enrols is AutoEnroll.PILOT
    collection_id = await _pilot(tx, piloted, wanted.collection or kept, "collection")
    made = Enablement(
        tenant_id,
        enrols,
        collection_id,
        before.enabled_at if before else now,
        actor,
        now,
    )
    same = before is not None and (before.auto_enroll, before.collection_id) == (
        made.auto_enroll,
        made.collection_id,
    )
    if before is None or not same or wanted.spread_minutes not in (None, before.spread_minutes):
        made = replace(made, spread_minutes=await _spread(tx, made, wanted.spread_minutes))
        await store.save_enablement(tx, made)
        await audit.record(
            tx,
            actor=actor,
            action="comanagement.enable",
            target=tenant_id,
            now=now,
            details={
                "auto_enroll": made.auto_enroll.value,
                "collection": collection_id,
                "spread_minutes": made.spread_minutes,
            },
        )
    else:
        made = before
    moved = {}
    for workload, wish in wanted.workloads.items():
        given = wish
        if wish.position is Position.PILOT and not wish.pilots and wanted.pilots:
            given = replace(wish, pilots=wanted.pilots, exact=True)
        _, changed = await _put(tx, workload, given, actor, now)
        if changed:
            moved[workload.value] = wish.position.value
    if wanted.pilots:
        for workload, slider in (await store.sliders(tx)).items():
            if slider.position is Position.PILOT and workload not in wanted.workloads:
                same_pilots = Wish(Position.PILOT, wanted.pilots, exact=True)
                _, changed = await _put(tx, workload, same_pilots, actor, now)
                if changed:
                    moved[workload.value] = Position.PILOT.value
    about = {"moved": moved, "auto_enroll": made.auto_enroll.value}
    await _settle(tx, made, traces.Kind.CONFIGURE, about, actor, now)
    await _note_moves(tx, owned, actor, now)
    return made


async def _exclude(tx: Tx, named: Sequence[str], actor: str, now: datetime) -> None:
    """Keep the devices of these collections out of co-management, and no others."""
    ids = [await _pilot(tx, True, name, "exclusions") for name in named]
    if collections.ALL_SYSTEMS in ids:
        raise BadStaging(
            "All Systems cannot be excluded: nobody would be left.",
            cure="Name the collection of the devices that are to stay out.",
            field="exclusions",
        )
    before, wanted = await store.exclusions(tx), list(dict.fromkeys(ids))
    if before == wanted:
        return
    await store.save_exclusions(tx, wanted)
    await traces.begin(
        tx,
        traces.Kind.CONFIGURE,
        actor=actor,
        collections=[collections.ALL_SYSTEMS],
        details={"exclusions": wanted},
        now=now,
    )
    await audit.record(
        tx,
        actor=actor,
        action="comanagement.exclude",
        target="comanagement",
        now=now,
        details={"before": before, "after": wanted},
    )


async def _spread(tx: Tx, made: Enablement, asked: int | None) -> int:
    """Over how many minutes the clients that wait now draw their moment."""
    if asked is not None:
        if not 0 <= asked <= MOST_SPREAD_MINUTES:
            raise Invalid(
                f"The spread is a number of minutes from 0 to {MOST_SPREAD_MINUTES} (14 days).",
                cure="Leave it out: it grows with the number of clients.",
                field="spread_minutes",
            )
        return asked
    return spread_minutes(len(await _enrolling(tx, made, await clients.reported(tx))))


async def _create(tx: Tx, new: NewCollection, actor: str, now: datetime) -> None:
    """Its refusals name it, for there may be several."""
    try:
        made = await collections.create(
            tx,
            (await properties.site(tx)).code,
            new.name,
            limiting=new.limiting,
            query=new.query,
            comment=new.comment,
            actor=actor,
            now=now,
        )
        if new.devices:
            await collections.add_members(tx, made.id, new.devices, actor=actor, now=now)
    except AppError as error:
        error.details.setdefault("new_collection", new.name)
        raise


async def _pilot(tx: Tx, piloted: bool, collection: str, field: str) -> str:
    if not piloted:
        return ""
    if not collection:
        raise NeedsCollection(
            "Pilot needs a collection that the pilot is for.",
            cure="Name it with --collection; make one with `tandem collection create`.",
            field=field,
        )
    try:
        return (await collections.device_collection(tx, collection)).id
    except AppError as error:
        error.details.setdefault("field", field)
        raise


async def switch(
    tx: Tx,
    workload: Workload,
    position: Position,
    *,
    collection: str = "",
    pilots: Sequence[str] = (),
    actor: str,
    now: datetime,
) -> Slider:
    """Move one workload. At Pilot, the collection that it had is kept when none is named; `pilots`
    are all that it is to have.

    Raises NotEnabled, NeedsCollection, NoSuchCollection.
    """
    await store.lock(tx)
    enablement = await required(tx)
    owned = await decided_now(tx)
    wish = Wish(position, tuple(pilots) or ((collection,) if collection else ()), bool(pilots))
    slider, changed = await _put(tx, workload, wish, actor, now)
    if changed:
        about = {"workload": workload.value, "position": position.value}
        await _settle(tx, enablement, traces.Kind.SWITCH, about, actor, now)
        await _note_moves(tx, owned, actor, now)
    return slider


async def _put(
    tx: Tx, workload: Workload, wish: Wish, actor: str, now: datetime
) -> tuple[Slider, bool]:
    """The slider as it stands then, and whether that is news."""
    before, position = (await store.sliders(tx))[workload], wish.position
    also: tuple[str, ...] = ()
    if position is Position.PILOT:
        wanted = wish.pilots or (before.collection_id,)
        found = [await _pilot(tx, True, one, workload.value) for one in wanted]
        collection_id, *others = dict.fromkeys(found)
        also = tuple(others)
    else:
        # Remembered, so going back to the pilot takes no thought.
        collection_id = before.collection_id
    same = (before.position, before.collection_id) == (position, collection_id)
    if same and (before.also == also or not wish.exact):
        return before, False
    under_way = await store.rollout_under_way(tx, workload)
    if under_way:
        raise UnderWay(
            f"A roll-out is moving {workload.title} now.",
            cure=f"Cancel it, or switch it back: `tandem rollout back {under_way}`.",
            field=workload.value,
            rollout=under_way,
        )
    return await _place(tx, Slider(workload, position, collection_id, now, actor, also), before)


async def place(
    tx: Tx, wanted: Slider, *, about: Mapping[str, Any], actor: str, now: datetime
) -> None:
    """Put a slider where a roll-out wants it: policies and what devices have to follow come of it.
    `about` says which step of which roll-out.

    Raises NotEnabled.
    """
    enablement = await required(tx)
    before = (await store.sliders(tx))[wanted.workload]
    if (before.position, before.collection_id, before.also) == (
        wanted.position,
        wanted.collection_id,
        wanted.also,
    ):
        return
    owned = await decided_now(tx)
    await _place(tx, wanted, before, about)
    about = {"workload": wanted.workload.value, "position": wanted.position.value, **about}
    await _settle(tx, enablement, traces.Kind.ROLLOUT, about, actor, now)
    await _note_moves(tx, owned, actor, now)


async def _place(
    tx: Tx, slider: Slider, before: Slider, about: Mapping[str, Any] | None = None
) -> tuple[Slider, bool]:
    workload, position, now = slider.workload, slider.position, slider.changed_at
    assert now is not None
    await store.save_slider(tx, slider)
    why = about or {}
    await store.add_step(
        tx, slider, before, why.get("rollout", ""), why.get("ring", 0), why.get("back_to")
    )
    details: dict[str, Any] = {
        "from": before.position.value,
        "to": position.value,
        "pilot": slider.collection_id,
    }
    if slider.also or before.also:
        details["also"] = list(slider.also)
    await audit.record(
        tx,
        actor=slider.changed_by,
        action="comanagement.switch",
        target=workload.value,
        now=now,
        details=details,
    )
    await events.record(tx, "comanagement.switched", workload.value, details)
    return slider, True


Owned = dict[Workload, set[str]]


async def decided_now(tx: Tx) -> Owned:
    """For each workload, the clients that are to have it with the MDM service."""
    found: Owned = {workload: set() for workload in Workload}
    kept_out = await excluded_clients(tx)
    for policy in await store.policies(tx):
        moved = [w for w in Workload if owner_of(w, policy.capabilities) is Authority.MDM]
        if moved:
            members = await collections.client_ids(tx, policy.collection_id) - kept_out
            for workload in moved:
                found[workload] |= members
    leaving = await leaving_store.client_ids(tx)
    return {workload: ids | leaving for workload, ids in found.items()}


async def excluded_clients(tx: Tx) -> set[str]:
    """The clients that get no policy of co-management (exclusion goes before pilot and production)."""
    found: set[str] = set()
    for id in await store.exclusions(tx):
        found |= await collections.client_ids(tx, CollectionId(id))
    return found


async def exclusions(tx: Tx) -> list[tuple[str, str]]:
    """Id and name of the collections whose devices are kept out."""
    ids = await store.exclusions(tx)
    return [(id, (await collections.collection(tx, id)).name) for id in ids]


async def _note_moves(tx: Tx, before: Owned, actor: str, now: datetime) -> None:
    """How many co-managed devices have to follow what was just decided, for each workload."""
    after = await decided_now(tx)
    changed = {w: before[w] ^ after[w] for w in Workload}
    if any(changed.values()):
        together = {one.id for one in await clients.reported(tx) if one.co_managed}
        for workload, devices in changed.items():
            if devices:
                await store.save_begun(tx, Begun(workload, now, actor, len(devices & together)))


@dataclass(frozen=True, slots=True)
class Change:
    """What a change does to the co-managed devices, for one workload. Names are the first of them."""

    workload: Workload
    to_mdm: int
    to_site: int
    names: tuple[str, ...]
    along: bool  # It follows another workload's slider, not its own.


@dataclass(frozen=True, slots=True)
class Preview:
    """What would come of settings. Counts are of devices that are co-managed now; `enrols` is of
    clients that would be enrolled into MDM by the site."""

    changes: tuple[Change, ...]
    devices: int
    co_managed: int
    enrols: int
    creates: tuple[str, ...]
    alters: tuple[str, ...]
    removes: tuple[str, ...]
    collections: dict[str, int]
    # Devices that get the MDM service for some workload, and clients that are enrolled by this.
    reaches: int = 0
    # Another value when it is others, or they get something else.
    seen: str = ""


_NAMES = 20


async def preview(
    tx: Tx, others: Collaborators, wanted: Settings, *, actor: str, now: datetime
) -> Preview:
    """What `configure` would do: it is done, counted, and undone. Refusals are those of `configure`,
    but nobody has to sign in for it and prerequisites may still be missing."""
    async with tx.transaction(force_rollback=True):
        await store.lock(tx)
        before = await store.enablement(tx)
        owned = await decided_now(tx)
        known = {policy.id: policy for policy in await store.policies(tx)}
        tenant_id = before.tenant_id if before else await others.tenant_id(tx)
        enrolled = await _enrolling(tx, before, await clients.reported(tx)) if before else set()
        made = await _apply(tx, tenant_id, before, wanted, actor, now)
        after = await decided_now(tx)
        policies = {policy.id: policy for policy in await store.policies(tx)}
        every = await clients.reported(tx)
        enrols = await _enrolling(tx, made, every)
        sizes = {}
        for new in wanted.collections:
            found = await collections.collection(tx, new.name)
            sizes[found.name] = await collections.count(tx, found.id)
    together = {one.id: one.name for one in every if one.co_managed}
    moved = {id for workload in Workload for id in after[workload] - owned[workload]}
    enrolled_by_this = enrols - enrolled
    who = [sorted(enrolled_by_this)]
    who += [sorted((after[w] - owned[w]) & together.keys()) for w in Workload]
    changes = []
    for workload in Workload:
        to_mdm = [name for id, name in together.items() if id in after[workload] - owned[workload]]
        to_site = [name for id, name in together.items() if id in owned[workload] - after[workload]]
        names = tuple((to_mdm + to_site)[:_NAMES])
        along = workload not in wanted.workloads
        changes.append(Change(workload, len(to_mdm), len(to_site), names, along))
    return Preview(
        changes=tuple(changes),
        devices=len(every),
        co_managed=len(together),
        enrols=len(enrols),
        creates=tuple(p.name for id, p in policies.items() if id not in known),
        alters=tuple(p.name for id, p in policies.items() if id in known and p != known[id]),
        removes=tuple(p.name for id, p in known.items() if id not in policies),
        collections=sizes,
        reaches=len((moved & together.keys()) | enrolled_by_this),
        seen=sha256(msgspec.json.encode(who)).hexdigest(),
    )


async def _enrolling(tx: Tx, wanted: Enablement, every: list[clients.Reported]) -> set[str]:
    """The clients that the site has enrolled by these settings."""
    if wanted.auto_enroll is AutoEnroll.NONE:
        return set()
    waiting: set[str] = {one.id for one in every if not one.mdm_enrolled}
    waiting -= await excluded_clients(tx)
    if wanted.auto_enroll is AutoEnroll.PILOT:
        pilot = CollectionId(wanted.collection_id)
        waiting &= await collections.client_ids(tx, pilot)
    return waiting


async def applied_before(tx: Tx, key: str, digest: bytes) -> bool:
    """Whether the request of this idempotency key was applied. Raises OtherRequest."""
    known = await store.request_digest(tx, key)
    if known is not None and known != digest:
        raise OtherRequest(
            "This Idempotency-Key was used for another request.", cure="Take a new key for it."
        )
    return known is not None


async def note_applied(tx: Tx, key: str, digest: bytes, now: datetime) -> None:
    await store.keep_request(tx, key, digest, now, now - _KEEP_REQUESTS)


async def _settle(
    tx: Tx,
    enablement: Enablement,
    kind: traces.Kind,
    about: Mapping[str, Any],
    actor: str,
    now: datetime,
) -> None:
    """Bring the policies to what the settings come to: new versions of what differs. That is a
    cause, with a trace id of its own, for everybody whose policies these are."""
    touched: set[str] = set()
    wanted = {
        item.name: item
        for item in wanted_policies(enablement, await store.sliders(tx), collections.ALL_SYSTEMS)
    }
    known = {policy.name: policy for policy in await store.policies(tx)}
    for name, item in wanted.items():
        have = known.get(name)
        if have is None:
            await store.insert_policy(tx, new_policy_id(), item, now)
            touched.add(item.collection_id)
        elif (have.collection_id, have.auto_enroll, have.capabilities) != (
            item.collection_id,
            item.auto_enroll,
            item.capabilities,
        ):
            await store.change_policy(tx, have.id, item, now)
            touched |= {have.collection_id, item.collection_id}
    for name, have in known.items():
        if name not in wanted:
            await store.delete_policy(tx, have.id)
            touched.add(have.collection_id)
    await notifications.policy_changed(tx, touched)
    if touched:
        await traces.begin(tx, kind, actor=actor, collections=touched, details=about, now=now)


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


async def used_for(tx: Tx, id: collections.CollectionId) -> list[collections.Use]:
    """The sliders, the enrolment and the policies that a collection is the pilot of. A slider that
    is not at Pilot only remembers it, and keeps nobody from deleting it."""
    found = [
        collections.Use(
            "workload",
            slider.workload.value,
            slider.position.value,
            blocks=slider.position is Position.PILOT,
        )
        for slider in (await store.sliders(tx)).values()
        if id in (slider.collection_id, *slider.also)
    ]
    found += [
        collections.Use("rollout", workload, state)
        for workload, state in await store.rollouts_with(tx, id)
    ]
    if id in await store.exclusions(tx):
        found.append(collections.Use("exclusion", "co-management"))
    enabled = await store.enablement(tx)
    if enabled is not None and enabled.collection_id == id:
        found.append(
            collections.Use("enrollment", "automatic enrollment", enabled.auto_enroll.value)
        )
    found += [
        collections.Use("policy", policy.name, policy.kind)
        for policy in await store.policies(tx)
        if policy.collection_id == id
    ]
    return found


async def command_line_now(tx: Tx, others: Collaborators) -> str:
    """The line for the client's MSI, made of what is true now. Raises Prerequisites."""
    host = await others.gateway_host(tx)
    if host is None:
        raise Prerequisites(f"{_SENTENCE} {_NO_GATEWAY}", cure=_ADD_GATEWAY)
    return command_line(host, (await properties.site(tx)).code)


async def prerequisites(tx: Tx, others: Collaborators) -> list[Prerequisite]:
    """What the command line, and so the wizard, needs; each with whether it is there."""
    connected = bool(await others.tenant_id(tx))
    host = await others.gateway_host(tx)
    return [
        Prerequisite(
            "tenant",
            connected,
            "The site is connected to a tenant." if connected else _NO_TENANT,
            "" if connected else _CONNECT,
        ),
        Prerequisite(
            "gateway",
            host is not None,
            f"Clients use the gateway {host}." if host is not None else _NO_GATEWAY,
            "" if host is not None else _ADD_GATEWAY,
        ),
    ]


async def policies_for(tx: Tx, resource_id: int, spread: int = 0) -> list[ccm.ConfigurationPolicy]:
    """The co-management policies that are deployed to a device: exclusion goes before pilot, and
    pilot before production."""
    every, kept_out = await store.policies(tx), await store.exclusions(tx)
    asked = [item.collection_id for item in every] + [CollectionId(id) for id in kept_out]
    of = await collections.memberships(tx, asked, resource_id)
    return _deployed(every, kept_out, of, spread)


def _deployed(
    every: Sequence[Policy], kept_out: Sequence[str], of: Set[CollectionId], spread: int
) -> list[ccm.ConfigurationPolicy]:
    if not of.isdisjoint(kept_out):
        return []
    return [
        ccm.ConfigurationPolicy(
            policy.id,
            policy.name,
            policy.version,
            policy.kind,
            policy.allow,
            policy.auto_enroll,
            policy.capabilities,
            spread if policy.auto_enroll else 0,
        )
        for policy in every
        if policy.collection_id in of
    ]


@dataclass(frozen=True)
class Plan:
    """What the site wants of its clients, as far as it does not depend on the client."""

    settings: settings.Standing
    policies: Sequence[Policy]
    kept_out: Sequence[str]
    configurations: Sequence[deployments.Configuration]
    # In which of the collections that all these name a user is, and a device.
    of_users: collections.Question
    collections: collections.Question
    enablement: Enablement | None
    # Whether any client was ordered to enrol now.
    ordered: bool
    # Clients that are on their way out.
    leaving: Mapping[str, Offboarding]
    # Of each collection all that decide who is in it.
    upstream: Mapping[CollectionId, Set[CollectionId]]


async def plan(tx: Tx) -> Plan:
    every, kept_out = await store.policies(tx), await store.exclusions(tx)
    configurations = await deployments.configurations(tx)
    standing = await settings.standing(tx)
    named = [*standing.collections, *(item.collection_id for item in every)]
    named += [CollectionId(id) for id in kept_out]
    named += (deployed_to := [item.collection_id for item in configurations])
    asked = await collections.question(tx, named)
    return Plan(
        standing,
        every,
        kept_out,
        configurations,
        await collections.question(tx, deployed_to, collections.MemberType.USER),
        asked,
        await store.enablement(tx),
        await store.enrolment_ordered(tx),
        {one.client_id: one for one in await leaving_store.some(tx, OPEN, MOST_LEAVING)},
        await collections.upstream(tx, asked.ids),
    )


async def content_of(
    tx: Tx, plan: Plan, client_id: clients.ClientId, registered_at: datetime | None = None
) -> ccm.PolicyContent:
    """Everything that the site wants of one client, computed when it asks. When it was registered
    is looked up where it is not known."""
    _, of = await collections.answer(tx, plan.collections, client_id)
    spread, enabled = 0, plan.enablement
    if enabled is not None and enabled.auto_enroll is not AutoEnroll.NONE:
        since = registered_at or (await clients.find(tx, client_id)).registered_at
        # Whoever comes later is one more, and enrols at once (spec F15).
        spread = enabled.spread_minutes if since <= (enabled.enrolls_since or since) else 0
    values, given_by = settings.resulting(plan.settings.default, plan.settings.custom, of)
    content = ccm.PolicyContent(
        settings=dict(values),
        settings_by=sorted(given_by),
        configuration_policies=_deployed(plan.policies, plan.kept_out, of, spread),
        configurations=deployments.in_policy(deployments.held(plan.configurations, of)),
        enroll_now=await store.enrolment_order(tx, client_id) if plan.ordered else "",
    )
    leaves = plan.leaving.get(client_id)
    if leaves is None:
        return content
    moved = [*content.configuration_policies, policy_of(leaves)]
    if leaves.state is LeavingState.MOVING:
        # What the site set stays until the MDM service's values are there.
        return msgspec.structs.replace(content, configuration_policies=moved)
    return msgspec.structs.replace(
        content, configuration_policies=moved, configurations=[], leave=True
    )


async def content_of_user(
    tx: Tx, plan: Plan, client_id: clients.ClientId, tenant_id: str, object_id: str
) -> list[ccm.Configuration]:
    """What is deployed to a user of the directory who is signed in on this client's device: nothing
    to one whom the site does not know, nor on a device that leaves."""
    leaves = plan.leaving.get(client_id)
    gone = leaves is not None and leaves.state is not LeavingState.MOVING
    if gone or not plan.of_users.ids:
        return []
    user = await collections.find_user(tx, tenant_id, object_id)
    if user is None:
        return []
    of = await collections.answer_of_user(tx, plan.of_users, user.id)
    return deployments.in_policy(deployments.held(plan.configurations, of))


async def policy_content(tx: Tx, client_id: clients.ClientId) -> ccm.PolicyContent:
    return await content_of(tx, await plan(tx), client_id)


async def enroll_now(
    tx: Tx, named: Sequence[str], collection: str, *, actor: str, now: datetime
) -> int:
    """Have clients enrol with the MDM service when they next get their policy, whatever moment they
    drew: these by id or name of the device, and those of a collection. How many were not enrolled.

    Raises NotEnabled, NoSuchDevice, NoSuchCollection, NothingToEnroll.
    """
    enabled = await required(tx)
    wanted: set[str] = set()
    if collection:
        found = await collections.device_collection(tx, collection)
        wanted |= await collections.client_ids(tx, found.id)
    by_name = {one.name.casefold(): one.id for one in await clients.reported(tx)}
    for name in named:
        known = by_name.get(name.strip().casefold())
        wanted.add(known if known is not None else (await clients.find(tx, name)).id)
    enrolled = {one.id for one in await clients.reported(tx) if one.mdm_enrolled}
    enrols = await excluded_clients(tx)
    allowed = set[str]()
    for policy in await store.policies(tx):
        if policy.auto_enroll:
            allowed |= await collections.client_ids(tx, policy.collection_id)
    allowed -= enrols
    chosen = sorted((wanted & allowed) - enrolled)
    if not chosen:
        raise NothingToEnroll(
            "None of these clients waits for its enrolment.",
            cure="Automatic enrolment has to be for them"
            f" (it is: {enabled.auto_enroll.value}), and they must not be enrolled yet.",
        )
    await store.order_enrolment(tx, chosen, str(uuid.uuid4()), actor, now)
    await audit.record(
        tx,
        actor=actor,
        action="comanagement.enroll-now",
        target=collection or ", ".join(named)[:200],
        now=now,
        details={"devices": len(chosen)},
    )
    return len(chosen)


async def planned(tx: Tx) -> list[Planned]:
    """The clients whose enrolment is to come or was tried, by what they said last."""
    waiting = {one.device_id: one for one in await clients.reported(tx) if not one.mdm_enrolled}
    orders = await store.enrolment_orders(tx)
    found = []
    for one in await clients.enrollment_progress(tx):
        client = waiting.get(one.device_id)
        if client is None:
            continue
        at, by = orders.get(client.id, (None, ""))
        found.append(
            Planned(
                one.device_id,
                client.name,
                one.state,
                one.text,
                one.planned_at,
                one.tries,
                one.code,
                one.at,
                at,
                by,
            )
        )
    return sorted(
        found, key=lambda one: (one.planned_at is None, one.planned_at or one.reported_at)
    )


async def trace(
    tx: Tx,
    plan: Plan,
    client: clients.Client,
    content: ccm.PolicyContent,
    digest: str,
    now: datetime,
) -> clients.Traced:
    """What the policy that a client is given now follows. `digest` is of its content."""
    if content.leave:
        await _tell_to_leave(tx, plan.leaving.get(client.id), client, now)
    last = await traces.given(tx, client.id)
    if last is not None and last.digest == digest:
        return clients.Traced(last.cause.id)
    of = _sources(plan, content)

    async def member_since() -> Mapping[str, datetime]:
        return await collections.member_since(tx, client.id)

    made = await traces.follow(
        tx,
        client.id,
        last,
        digest=digest,
        name=client.name,
        collections=sorted(of),
        upstream=_upstream(plan, of, last),
        member_since=member_since,
        now=now,
    )
    told = {**_told(made.cause), "came": made.came, "left": made.left}
    return clients.Traced(made.cause.id, told, [_told(one) for one in made.also])


async def _tell_to_leave(
    tx: Tx, leaves: Offboarding | None, client: clients.Client, now: datetime
) -> None:
    """It is told with this policy: from now on it is too late to cancel. Raises NotSettled when that
    was done meanwhile: the plan was read before."""
    if leaves is not None and leaves.state is LeavingState.LEAVING:
        made = await leaving_store.save(tx, leaves, LeavingState.TAKEN, "off-boarding", now)
        if made is not None:
            return
    current = await leaving_store.under_way(tx, client.id)
    if current is None or current.state is not LeavingState.TAKEN:
        raise NotSettled(
            f"Whether {client.name} leaves was decided anew at this moment.",
            cure="The device asks again.",
        )


async def ahead(tx: Tx, client: clients.Client) -> traces.Cause | None:
    """What was decided for a client whose policy it has not fetched yet; None when that is news of
    the device's own, or there is none."""
    whole = await plan(tx)
    content = await content_of(tx, whole, client.id)
    if await clients.was_given(tx, client.id, content):
        return None
    last = await traces.given(tx, client.id)
    upstream = _upstream(whole, _sources(whole, content), last)
    found = await traces.since(tx, last, client.name, upstream)
    return found[0] if found else None


def _sources(plan: Plan, content: ccm.PolicyContent) -> set[CollectionId]:
    """The collections that a device's policy comes of."""
    policies = {item.id for item in content.configuration_policies}
    configurations = {item.id for item in content.configurations}
    found = {one.collection_id for one in plan.policies if one.id in policies}
    found |= {one.collection_id for one in plan.configurations if one.id in configurations}
    found |= {CollectionId(id) for id in content.settings_by}
    return found | {collections.ALL_SYSTEMS}


def _upstream(plan: Plan, of: Set[CollectionId], last: traces.Given | None) -> list[str]:
    """All that decide who is in these collections, in those of its policy before, or kept out."""
    before = [CollectionId(id) for id in (*(last.collections if last else ()), *plan.kept_out)]
    return sorted({one for id in (*of, *before) for one in plan.upstream.get(id, {id})})


def _told(cause: traces.Cause) -> dict[str, Any]:
    return {
        "id": cause.id,
        "at": cause.at.isoformat(),
        "kind": cause.kind.value,
        "actor": cause.actor,
        "details": dict(cause.details),
    }


async def decided(tx: Tx, client_id: str) -> dict[Workload, Authority]:
    """Who is to have each workload of a device, by what is set now."""
    device = await collections.resource_of(tx, client_id)
    if await leaving_store.under_way(tx, client_id) is not None:
        return dict.fromkeys(Workload, Authority.MDM)
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
    begun: Begun | None = None

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

    @property
    def moving(self) -> int:
        """Devices that the last change, or their coming and going since, gave another owner."""
        return max(self.begun.devices if self.begun else 0, self.devices - self.changed)

    @property
    def followed(self) -> int:
        """Those of them that have followed."""
        return self.moving - (self.devices - self.changed)


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
    everyone = await clients.reported(tx)
    together = {one.id: one for one in everyone if one.co_managed}
    decided = await decided_now(tx)
    begun = await store.begun(tx)
    moves = []
    for slider in (await store.sliders(tx)).values():
        wanted = decided[slider.workload] & together.keys()
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
                begun.get(slider.workload),
            )
        )
    return Status(
        len(everyone),
        sum(one.policy_present for one in everyone),
        sum(one.mdm_enrolled for one in everyone),
        len(together),
        tuple(moves),
    )


@dataclass(frozen=True, slots=True)
class Deployed:
    """A policy with the collection that it is deployed to. A client has applied it when it fetched
    its policy since the last change, and reports what this policy hands over."""

    policy: Policy
    collection: str
    members: int
    applied: int


async def deployed(tx: Tx) -> list[Deployed]:
    """The production and pilot policies, with how many clients have applied each."""
    every: dict[str, clients.Reported] = {one.id: one for one in await clients.reported(tx)}
    found, kept_out = [], await excluded_clients(tx)
    for policy in await store.policies(tx):
        target = await collections.collection(tx, policy.collection_id)
        here = await collections.client_ids(tx, target.id) - kept_out
        members = [every[id] for id in here if id in every]
        applied = sum(_has_applied(one, policy) for one in members)
        found.append(Deployed(policy, target.name, len(members), applied))
    return found


def _has_applied(client: clients.Reported, policy: Policy) -> bool:
    held = client.flags & policy.capabilities == policy.capabilities
    fresh = client.policy_at is not None and client.policy_at >= policy.changed_at
    return client.policy_present and held and fresh
