"""One table of all devices, kept up to date from both authorities, and what is asked of it.

    a client's row, message or state changes   a trigger notes the device, in that transaction
    the tenant was read, and says otherwise    the same, for the account that changed
    `settle`                                   makes the rows of noted devices anew

Whoever asks settles first what is waiting, up to a bound; `Keeper` does the rest, and reads the
tenant: soon when somebody looks, seldom when nobody does, and never so often that reading is all
that it does. One replica reads at a time, by a claim that ends with it.
"""

import asyncio
import base64
import binascii
import contextlib
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

import msgspec

from tandem.infra.clock import Clock
from tandem.infra.database import Database, Tx
from tandem.infra.errors import AppError
from tandem.infra.logs import get_logger
from tandem.infra.rounds import rounds
from tandem.site import clients, collections, comanagement, deployments, ledgers, settings
from tandem.site.fleet import graph, model, store, stories
from tandem.site.fleet.model import (
    NOT_CONNECTED,
    NOT_READ_YET,
    BadFilter,
    Device,
    EnrollmentState,
    Figures,
    Filter,
    FunnelStep,
    NoSuchDevice,
    NothingSelected,
    OsGroup,
    Reading,
    SelectionChanged,
    Sort,
    Stage,
    TenantFacts,
)
from tandem.workloads import Authority, Finding, Workload, effective, owners, same_setting, shown

log = get_logger("fleet")

# So many rows are made anew before a question is answered; the rest is the keeper's.
_FOR_A_QUESTION = 200
_AT_ONCE = 1000
MOST_NAMED = 1000
_ERRORS_SHOWN = 50
_NAMES_SHOWN = 10


@dataclass(frozen=True)
class Collaborators:
    """`tenant_id` is the tenant that the site is connected to, empty without one; `graph` is its
    Graph with the site's application, or raises why it cannot be asked."""

    tenant_id: Callable[[Tx], Awaitable[str]]
    graph: Callable[[], Awaitable[graph.Graph]]


class Pace(msgspec.Struct, frozen=True):
    """How often the tenant is read. `factor`: a pause is at least so many times the reading."""

    watched_seconds: float = 2
    idle_seconds: float = 60
    # Who looked so long ago does not look any more.
    looks_seconds: float = 30
    factor: float = 10
    claim_seconds: float = 60


# Rows


async def settle(tx: Tx, limit: int = _AT_ONCE) -> int:
    """Make the rows of devices that have changed. Returns how many changes it took; another
    transaction that is doing the same is not waited for."""
    if not await store.try_lock(tx):
        return 0
    noted = await store.take_changed(tx, limit)
    changed = list(dict.fromkeys(noted))
    if not changed:
        return 0
    known = await clients.facts(tx, changed)
    told = await store.accounts(tx, changed)
    asked = (await store.reading(tx)).asked
    rows = [model.merge(id, known.get(id), told.get(id), asked) for id in changed]
    await store.save(tx, [row for row in rows if row is not None])
    gone = [id for id, row in zip(changed, rows, strict=True) if row is None]
    await store.delete(tx, gone)
    return len(noted)


class Keeper:
    """Keeps the table of one site up to date, until it is stopped."""

    def __init__(
        self, db: Database, others: Collaborators, now: Clock, pace: Pace = Pace()
    ) -> None:
        self._db = db
        self._others = others
        self._now = now
        self._pace = pace

    async def run(self, stop: asyncio.Event, every_seconds: float = 0.5) -> None:
        """Until `stop`; what it is at then is left, and done by whoever comes next."""
        failed = "the device list is not tended"
        await rounds(stop, self.tend, every_seconds, failed=failed, cut_off=True)

    async def tend(self) -> None:
        """What is due now: rows to make, the tenant to read."""
        await self.settle_all()
        if await self._due():
            await self.read()
            await self.settle_all()

    async def settle_all(self) -> None:
        while True:
            async with self._db.transaction() as tx:
                if await settle(tx) < _AT_ONCE:
                    return

    async def _due(self) -> bool:
        now, pace = self._now(), self._pace
        async with self._db.transaction() as tx:
            tenant_id = await self._others.tenant_id(tx)
            before = await store.reading(tx)
            if tenant_id != before.tenant_id:
                await store.forget_tenant(tx, tenant_id)
            if not tenant_id:
                return False
            looks = before.wanted_at is not None and now - before.wanted_at <= timedelta(
                seconds=pace.looks_seconds
            )
            pause = pace.watched_seconds if looks else pace.idle_seconds
            return await store.claim(
                tx,
                now,
                tried_before=now - timedelta(seconds=pause),
                until=now + timedelta(seconds=pace.claim_seconds),
                factor=pace.factor,
            )

    async def read(self) -> None:
        """Read the tenant once, whatever the pace. What prevents it is kept, and not raised."""
        begun = time.perf_counter()
        error = ""
        try:
            await graph.read(self._db, await self._others.graph(), self._alive)
        except AppError as refused:
            error = refused.message or "The tenant does not answer."
        except asyncio.CancelledError:
            await self._let_go()
            raise
        took = time.perf_counter() - begun
        async with self._db.transaction() as tx:
            before = await store.reading(tx)
            await store.finish(tx, self._now(), took, error)
            if not error and not before.asked:
                # Until now each client's own word on its enrolment counted.
                await store.note_all(tx)

    async def _let_go(self) -> None:
        """Another replica, or this one when it is back, need not wait for the claim's end."""
        with contextlib.suppress(AppError):
            async with self._db.transaction() as tx:
                await store.hold(tx, self._now())

    async def _alive(self) -> None:
        """On the way: the claim holds on, and rows do not wait for the end."""
        async with self._db.transaction() as tx:
            await store.hold(tx, self._now() + timedelta(seconds=self._pace.claim_seconds))
        await self.settle_all()


# Questions


async def look(tx: Tx, now: datetime) -> Reading:
    """Somebody asks: rows are brought up to date, and the tenant is read soon."""
    await settle(tx, _FOR_A_QUESTION)
    await store.want(tx, now, now - timedelta(seconds=5))
    return await store.reading(tx)


def silence(reading: Reading) -> str:
    """Why the tenant's half is missing or old; empty while it is here."""
    if not reading.tenant_id:
        return NOT_CONNECTED
    return reading.error or ("" if reading.asked else NOT_READ_YET)


@dataclass(frozen=True, slots=True)
class Part:
    """Rows of a list. `total` is -1 where it was not asked for; `after` is where the next begins."""

    devices: list[Device]
    total: int
    after: str


async def listing(
    tx: Tx,
    wanted: Filter,
    *,
    sort: Sort = Sort.NAME,
    descending: bool = False,
    limit: int = 50,
    offset: int = 0,
    after: str = "",
    counted: bool = True,
) -> Part:
    """Raises BadFilter where `after` is no word of ours."""
    behind = _read_after(after, sort) if after else None
    within = await collections.visible_devices_sql(tx)
    if behind is None and counted and wanted.search.strip().startswith("*"):
        found, total = await store.page_within(tx, wanted, sort, descending, limit, offset, within)
        return Part([device for _, device in found], total, _onward(found, limit))
    total = await store.count(tx, wanted, within) if counted else -1
    if behind is None and counted and offset > total // 2:
        # Nearer to the end, so from there: skipping costs as much as what is skipped.
        size = min(limit, max(0, total - offset))
        found = await store.page(
            tx, wanted, sort, not descending, size, max(0, total - offset - size), within=within
        )
        found.reverse()
    else:
        found = await store.page(tx, wanted, sort, descending, limit, offset, behind, within)
    return Part([device for _, device in found], total, _onward(found, limit))


def _onward(found: list[tuple[Any, Device]], limit: int) -> str:
    if not found or len(found) < limit:
        return ""
    key, device_id = found[-1][0], found[-1][1].id
    return base64.urlsafe_b64encode(msgspec.json.encode([str(key), device_id])).decode()


def _read_after(text: str, sort: Sort) -> tuple[Any, str]:
    try:
        key, device_id = msgspec.json.decode(
            base64.urlsafe_b64decode(text.encode("ascii")), type=tuple[str, str]
        )
    except (binascii.Error, UnicodeError, msgspec.MsgspecError):
        raise BadFilter(
            "This is not where a list goes on.", cure="Ask for it from its beginning."
        ) from None
    return key, device_id


async def find(tx: Tx, device_id: str) -> Device:
    """Raises NoSuchDevice, also for one that who asks may not see."""
    found = await store.device(tx, device_id, await collections.visible_devices_sql(tx))
    if found is None:
        raise NoSuchDevice("There is no such device.", cure="The device list shows all of them.")
    return found


async def figures(tx: Tx, reading: Reading) -> Figures:
    """The dashboard, of the counts that are kept with the rows."""
    rows = await store.groups(tx)
    devices = sum(row["n"] for row in rows)

    def counted(kind: Any, column: str) -> dict[str, int]:
        return {item.value: sum(r["n"] for r in rows if r[column] == item.value) for item in kind}

    def masked(kind: Any, column: str) -> dict[str, int]:
        return {
            item.value: sum(row["n"] for row in rows if row[column] >> place & 1)
            for place, item in enumerate(kind)
        }

    return Figures(
        devices=devices,
        operating_systems=counted(OsGroup, "os_group"),
        funnel=masked(FunnelStep, "funnel"),
        enrollment=counted(EnrollmentState, "enrollment"),
        workloads=masked(Workload, "workloads"),
        errors={str(code): n for code, n in (await store.errors(tx, _ERRORS_SHOWN)).items()},
        stages=masked(Stage, "stages"),
        unlicensed_users=await store.unlicensed_users(tx),
        blocked=sum(row["n"] for row in rows if row["blocked"]),
        positions={
            workload.value: slider.position.value
            for workload, slider in (await comanagement.sliders(tx)).items()
        },
        without_tenant=silence(reading),
        tenant_read_at=reading.read_at,
    )


# One device


@dataclass(frozen=True, slots=True)
class Detail:
    """All that both authorities say of a device, but the MDM service's own timeline.

    `decided` is None for a client for which nothing has been decided yet.
    """

    device: Device
    tenant: TenantFacts
    client: clients.Client | None
    decided: dict[Workload, Authority] | None
    settings: dict[str, Any]
    settings_from: dict[str, str]
    policies: list[dict[str, Any]]
    configurations: list[dict[str, Any]]
    collections: list[dict[str, str]]
    timeline: list[clients.TimelineEntry]
    resource_id: int | None


async def detail(tx: Tx, device_id: str) -> Detail:
    """Raises NoSuchDevice."""
    device = await find(tx, device_id)
    told = (await store.accounts(tx, [device_id])).get(device_id, TenantFacts())
    known = (await clients.facts(tx, [device_id])).get(device_id)
    client = await clients.find(tx, device.client_id) if device.client_id else None
    tenant_id = client.tenant_id if client else ""
    if not tenant_id and known is not None and known.setup is not None:
        tenant_id = known.setup.tenant_id
    entries = await clients.timeline(tx, tenant_id, device_id) if tenant_id else []
    try:
        resource = await collections.resource_of(tx, client.id) if client else None
    except AppError:
        resource = None  # It becomes one when the client registers again.
    if client is None or resource is None:
        return Detail(device, told, client, None, {}, {}, [], [], [], entries, None)
    every = await collections.collections(tx)
    only = await collections.visible(tx)

    configured = await deployments.visible(tx)

    def seen(id: collections.CollectionId) -> bool:
        return only is None or id in only

    of = await collections.memberships(tx, [item.id for item in every], resource.id)
    set_to = await settings.resultant_of(tx, resource.id)
    name, theirs = await _of_user(tx, client)
    ours = [(item, "") for item in await deployments.holding(tx, resource.id)]
    held = dict[str, tuple[deployments.Configuration, str]]()
    for item, by in [*ours, *((item, name) for item in theirs)]:
        held.setdefault(same_setting(item.setting), (item, by))
    return Detail(
        device,
        told,
        client,
        await comanagement.decided(tx, client.id),
        {item.setting.name: item.value for item in set_to},
        {item.setting.name: item.winner.name for item in set_to},
        [msgspec.to_builtins(p) for p in await comanagement.policies_for(tx, resource.id)],
        [
            {
                "id": item.id,
                "name": item.name,
                "workload": item.workload.value,
                "setting": item.setting,
                "value": shown(item.setting, item.value),
                "user": of_user,
            }
            for item, of_user in held.values()
            if configured is None or item.id in configured
        ],
        [{"id": item.id, "name": item.name} for item in every if item.id in of and seen(item.id)],
        entries,
        resource.id,
    )


@dataclass(frozen=True, slots=True)
class Known:
    """What the site itself knows of a device's settings; the tenant's part is not in it."""

    device: Device
    applied: dict[str, dict[str, str]]
    deployed: list[deployments.Configuration]
    written: dict[str, dict[str, Any]]
    owners: dict[Workload, Authority]
    failed: dict[str, str]
    # Of the configurations, those that who asks may not see.
    hidden: frozenset[str] = frozenset()
    # What is deployed to the user whose policy the device has, and what that user is called.
    of_user: Sequence[deployments.Configuration] = ()
    user: str = ""


async def _of_user(tx: Tx, client: clients.Client) -> tuple[str, list[deployments.Configuration]]:
    """The user whose policy the device says it has, and what is deployed to them, the oldest
    first."""
    object_id = client.state.user if client.state is not None else ""
    found = await collections.find_user(tx, client.tenant_id, object_id) if object_id else None
    if found is None:
        return object_id, []
    of = await deployments.reaching(tx, found.id, collections.MemberType.USER)
    return await collections.told_user(tx, found), of


async def known_settings(tx: Tx, device_id: str) -> Known:
    """Raises NoSuchDevice."""
    device = await find(tx, device_id)
    client = await clients.find(tx, device.client_id) if device.client_id else None
    state = client.state if client is not None else None
    deployed, written, seen = [], {}, await deployments.visible(tx)
    user, of_user = "", list[deployments.Configuration]()
    if client is not None:
        user, of_user = await _of_user(tx, client)
        every = await deployments.configurations(tx)
        try:
            resource = await collections.resource_of(tx, client.id)
        except AppError:
            every = []  # It becomes one when the client registers again.
        else:
            of = await collections.memberships(
                tx, [item.collection_id for item in every], resource.id
            )
            deployed = [item for item in every if item.collection_id in of]
        try:
            account = (await ledgers.find(tx, client.id)).account
        except ledgers.NoLedger:
            account = None
        if account is not None:
            written = {name: msgspec.structs.asdict(one) for name, one in account.settings.items()}
    return Known(
        device,
        dict(state.applied) if state is not None else {},
        deployed,
        written,
        owners(effective(device.flags, device.mdm_enrolled)),
        {name: one.text for name, one in state.enacted.items() if one.failed}
        if state is not None
        else {},
        frozenset(
            item.id for item in (*deployed, *of_user) if seen is not None and item.id not in seen
        ),
        of_user,
        user,
    )


async def recorded(tx: Tx, device_id: str) -> tuple[Device, stories.Told]:
    """What the site knows of what happened on a device; the MDM service's part is not in it.

    Raises NoSuchDevice.
    """
    found = await detail(tx, device_id)
    ahead = None
    if found.client is not None and found.resource_id is not None:
        ahead = await comanagement.ahead(tx, found.client)
    if ahead is not None:
        ahead = replace(ahead, details=await clients.seen_details(tx, ahead.details))
    only = await collections.visible(tx)
    names: dict[str, str] = {
        item.id: item.name
        for item in await collections.collections(tx)
        if only is None or item.id in only
    }
    return found.device, stories.Told(found.timeline, None, ahead, names=names)


@dataclass(frozen=True, slots=True)
class Proof:
    """A device's ledger, its newest entries, and what is wrong with it; `checked`: all of it was
    checked again for this answer, and not only what came since the last."""

    device: Device
    ledger: ledgers.Ledger
    findings: list[Finding]
    entries: list[ledgers.Entry]
    checked: bool


async def ledger(tx: Tx, device_id: str, *, check: bool = False) -> Proof:
    """Raises NoSuchDevice, NoLedger."""
    device = await find(tx, device_id)
    found = await ledgers.find(tx, device.client_id)
    findings = await ledgers.check(tx, found) if check else found.findings
    return Proof(device, found, findings, await ledgers.entries(tx, found), check)


async def acknowledge(
    tx: Tx, device_id: str, *, seen: int, reason: str, actor: str, now: datetime
) -> Proof:
    """Raises NoSuchDevice, NoLedger, NothingToAcknowledge, FoundMore, Invalid."""
    device = await find(tx, device_id)
    done = await ledgers.acknowledge(
        tx, device.client_id, seen=seen, reason=reason, actor=actor, now=now
    )
    return Proof(device, done, done.findings, await ledgers.entries(tx, done), False)


# Many devices at once


class Selection(msgspec.Struct, frozen=True):
    """Devices by id, or all that a filter matches. `expected` is how many somebody agreed to."""

    devices: list[str] = []
    filter: Filter | None = None
    expected: int | None = None

    @property
    def told(self) -> dict[str, Any]:
        """As an entry of the audit names it."""
        if self.filter is not None:
            return {"filter": msgspec.to_builtins(self.filter)}
        return {"devices": self.devices}


@dataclass(frozen=True, slots=True)
class Reach:
    """What an action on a selection would touch: `clients` of its `devices` are registered.
    `names` are the first few, for whoever is asked."""

    devices: int
    names: list[str]
    clients: list[str]
    blocked: int


async def reach(tx: Tx, wanted: Selection) -> Reach:
    """Raises NothingSelected, SelectionChanged."""
    if wanted.filter is None and not wanted.devices:
        raise NothingSelected("No device is selected.", cure="Select devices, or give a filter.")
    if len(wanted.devices) > MOST_NAMED:
        raise NothingSelected(
            f"At most {MOST_NAMED} devices are named one by one.",
            cure="Give the filter that they match.",
        )
    # What is acted on is what is so now, however much has changed.
    while await settle(tx) == _AT_ONCE:
        pass
    within = await collections.visible_devices_sql(tx)
    rows = await store.selected(tx, wanted.filter, wanted.devices, within)
    matching = len(rows)
    if wanted.expected is not None and wanted.expected != matching:
        raise SelectionChanged(
            f"Now {matching} devices match; {wanted.expected} were agreed to.",
            cure="Look at them again, and confirm the new number.",
            devices=matching,
            expected=wanted.expected,
        )
    return Reach(
        len(rows),
        [row["name"] for row in rows[:_NAMES_SHOWN]],
        [row["client_id"] for row in rows if row["client_id"]],
        sum(row["blocked"] for row in rows),
    )


async def set_blocked(
    tx: Tx, wanted: Selection, blocked: bool, *, actor: str, now: datetime
) -> tuple[Reach, int]:
    """Block or unblock the clients of a selection. Returns what it reached and what changed.

    Raises NothingSelected, SelectionChanged.
    """
    found = await reach(tx, wanted)
    changed = await clients.set_blocked(
        tx, found.clients, blocked, actor=actor, now=now, details=wanted.told
    )
    return found, len(changed)


async def add_to_collection(
    tx: Tx, wanted: Selection, collection: str, *, actor: str, now: datetime
) -> tuple[Reach, int]:
    """A direct rule for each client of a selection. Returns what it reached and what is new.

    Raises NothingSelected, SelectionChanged, NoSuchCollection, BuiltIn.
    """
    found = await reach(tx, wanted)
    added = await collections.add_clients(
        tx, collection, found.clients, actor=actor, now=now, details=wanted.told
    )
    return found, added
