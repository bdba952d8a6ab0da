"""The site's pages on the site's own modules, with the tenant's account read over Graph."""

from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any

from tandem.console import labels, summary
from tandem.console.labels import N_
from tandem.console.model import (
    Dashboard,
    Device,
    DeviceFacts,
    Devices,
    Fact,
    Filter,
    Gateways,
    Happening,
    LogText,
    Owner,
    Session,
    Slice,
    UnknownDevice,
)
from tandem.console.tenant_view import TenantDevice, TenantDevices, account
from tandem.infra.clock import Clock
from tandem.infra.database import Database, Tx
from tandem.infra.errors import AppError
from tandem.protocols import ccm
from tandem.site import administrators, clients, comanagement
from tandem.workloads import Authority, Workload, capabilities, effective, owners

EVERY = 1_000_000
FAILED_SETUP = range(301, 330)
SITE = N_("Site")

ReadGateways = Callable[[Tx], Awaitable[Gateways]]


async def no_gateways(_: Tx) -> Gateways:
    return Gateways(())


class SitePages:
    """Implements SiteReads. `tenant` is None while the site is connected to no tenant."""

    def __init__(
        self,
        db: Database,
        *,
        now: Clock,
        settings: administrators.AdministratorsSettings,
        tenant: TenantDevices | None = None,
        gateways: ReadGateways = no_gateways,
    ) -> None:
        self._db = db
        self._now = now
        self._settings = settings
        self._tenant = tenant
        self._gateways = gateways

    async def sign_in(self, user: str, password: str) -> Session:
        found = await administrators.sign_in(self._db, user, password, self._now(), self._settings)
        return _session(found.token, found.administrator)

    async def session(self, token: str) -> Session | None:
        async with self._db.transaction() as tx:
            try:
                who = await administrators.session(tx, token, self._now(), self._settings)
            except administrators.NotSignedIn:
                return None
        return _session(token, who)

    async def sign_out(self, session: Session) -> None:
        async with self._db.transaction() as tx:
            await administrators.sign_out(tx, session.token)

    async def dashboard(self, session: Session) -> Dashboard:
        known, without = await self._known_to_tenant()
        async with self._db.transaction() as tx:
            devices = await self._fleet(tx, known)
            sliders = await comanagement.sliders(tx)
        positions = {workload: slider.position for workload, slider in sliders.items()}
        return summary.dashboard(devices, positions, without)

    async def devices(self, session: Session, wanted: Filter, part: Slice) -> Devices:
        known, without = await self._known_to_tenant()
        async with self._db.transaction() as tx:
            devices = await self._fleet(tx, known)
        return summary.listing(devices, wanted, part, without)

    async def device(self, session: Session, device_id: str) -> Device:
        known, without = await self._known_to_tenant()
        async with self._db.transaction() as tx:
            devices = await self._fleet(tx, known)
            facts = next((device for device in devices if device.id == device_id), None)
            if facts is None:
                raise UnknownDevice(labels.NO_SUCH_DEVICE, cure=labels.NO_SUCH_DEVICE_CURE)
            summaries = await clients.list_clients(tx, device_id, limit=1)
            client = await clients.find(tx, summaries[0].id) if summaries else None
            decided = await _decided(tx, client)
            entries = []
            if client is not None:
                entries = await clients.timeline(tx, client.tenant_id, client.device_id)
        mine = known.get(device_id)
        by_tenant, silent = await self._timeline_of_tenant(mine)
        return Device(
            facts=facts,
            mdm=account(mine),
            site=_account_of_site(client, decided),
            owners=_owners(facts, decided),
            timeline=summary.timeline((*by_tenant, *map(_happening, entries))),
            logs=_logs(entries),
            without_tenant=without or silent,
        )

    async def gateways(self, session: Session) -> Gateways:
        async with self._db.transaction() as tx:
            return await self._gateways(tx)

    async def _known_to_tenant(self) -> tuple[Mapping[str, TenantDevice], str]:
        """What the tenant says of its devices, and why it says nothing when it does not."""
        if self._tenant is None:
            return {}, labels.TENANT_TURNED_OFF
        try:
            return await self._tenant(), ""
        except AppError as error:
            return {}, error.message

    async def _timeline_of_tenant(
        self, device: TenantDevice | None
    ) -> tuple[tuple[Happening, ...], str]:
        if self._tenant is None or device is None:
            return (), ""
        try:
            return await self._tenant.timeline(device), ""
        except AppError as error:
            return (), error.message

    async def _fleet(self, tx: Tx, known: Mapping[str, TenantDevice]) -> list[DeviceFacts]:
        registered = {
            client.device_id: client for client in await clients.list_clients(tx, limit=EVERY)
        }
        setups = {item.device_id: item for item in await clients.setup_states(tx, EVERY)}
        progress = {item.device_id: item for item in await clients.enrollment_progress(tx)}
        ids = dict.fromkeys([*registered, *known, *setups])
        # Without the tenant, a client's own word on its enrolment is the best there is.
        asked = bool(known)
        return [
            _facts(
                key,
                registered.get(key),
                known.get(key),
                setups.get(key),
                progress.get(key),
                asked,
            )
            for key in ids
        ]


def _session(token: str, who: administrators.Administrator) -> Session:
    return Session(token, who.name, who.role.value)


def _facts(
    key: str,
    client: clients.ClientSummary | None,
    mdm: TenantDevice | None,
    setup: clients.SetupState | None,
    progress: clients.EnrollmentProgress | None,
    asked: bool,
) -> DeviceFacts:
    mine = mdm or TenantDevice(device_id=key, mdm_enrolled=not asked and _says_enrolled(client))
    trouble = mine.trouble
    if client is None and setup is not None and setup.state in FAILED_SETUP:
        trouble = trouble or _line(setup.data) or setup.text
    times = (client.last_seen_at if client else None, mine.checked_in_at)
    seen = [at for at in times if at is not None]
    return DeviceFacts(
        id=key,
        name=(client.name if client else "") or mine.name or key,
        user=mine.user,
        os_version=(client.os_version if client else "") or mine.os_version,
        hybrid=mine.hybrid,
        joined=mine.joined,
        licensed=mine.licensed,
        scheduled=progress is not None and progress.scheduled,
        initiated=progress is not None and progress.initiated,
        pending_sign_in=progress is not None and progress.pending_sign_in,
        mdm_enrolled=mine.mdm_enrolled,
        app_offered=mine.app_offered,
        msi_installed=mine.msi_installed,
        registered=client is not None,
        policy_present=client is not None and client.policy_present,
        flags=client.flags if client else 0,
        enrollment_error=_error(mine, progress),
        client_version=client.client_version if client else "",
        last_seen_at=max(seen, default=None),
        trouble=trouble,
    )


def _error(mine: TenantDevice, progress: clients.EnrollmentProgress | None) -> int | None:
    """Of a device that is not enrolled: the tenant's account of it, or else its own."""
    if mine.mdm_enrolled or mine.enrollment_error is not None or progress is None:
        return mine.enrollment_error
    return progress.error


def _says_enrolled(client: clients.ClientSummary | None) -> bool:
    return client is not None and client.mdm_enrolled


async def _decided(tx: Tx, client: clients.Client | None) -> dict[Workload, Authority] | None:
    if client is None:
        return None
    try:
        return await comanagement.decided(tx, client.id)
    except AppError:
        # A client that is in no collection yet: nothing has been decided for it.
        return None


def _owners(facts: DeviceFacts, decided: Mapping[Workload, Authority] | None) -> tuple[Owner, ...]:
    reported = owners(effective(facts.flags, facts.mdm_enrolled))
    wanted = decided if decided is not None and facts.mdm_enrolled else {}
    return tuple(
        Owner(workload, reported[workload], wanted.get(workload, Authority.SITE))
        for workload in Workload
    )


def _account_of_site(
    client: clients.Client | None, decided: Mapping[Workload, Authority] | None
) -> tuple[Fact, ...]:
    if client is None:
        return (Fact(labels.REGISTERED, False),)
    state = client.state
    moved = [w for w, owner in (decided or {}).items() if owner is Authority.MDM]
    return (
        Fact(labels.REGISTERED, True),
        Fact(labels.CLIENT_ID, client.id),
        Fact(labels.CLIENT_VERSION, client.client_version),
        Fact(labels.REGISTERED_AT, client.registered_at),
        Fact(labels.BLOCKED, client.blocked),
        Fact(labels.LAST_POLICY, client.policy_at),
        Fact(labels.POLICY_PRESENT, state is not None and state.policy_present),
        Fact(labels.LAST_STATE, client.state_at),
        Fact(labels.FLAGS, str(state.flags) if state else ""),
        Fact(labels.DECIDED_FLAGS, "" if decided is None else str(capabilities(moved))),
        Fact(labels.WORKLOADS_APPLIED, _applied(state)),
    )


def _applied(state: ccm.ComanagementState | None) -> str:
    return "\n".join(_settings(state.applied)) if state is not None else ""


def _settings(applied: Mapping[str, Any]) -> list[str]:
    """Each setting in force, with the authority whose value it is."""
    return [
        f"{name} = {value.get('value', '')} ({value.get('source', '')})"
        for name, value in applied.items()
        if isinstance(value, Mapping)
    ]


def _happening(entry: clients.TimelineEntry) -> Happening:
    failed = entry.topic == ccm.SETUP_TOPIC and entry.state in FAILED_SETUP
    return Happening(entry.at, SITE, entry.text, failed)


def _line(data: Mapping[str, object]) -> str:
    return next((str(data[key]) for key in ("log", "line", "text", "detail") if data.get(key)), "")


def _logs(entries: Iterable[clients.TimelineEntry]) -> tuple[LogText, ...]:
    """What the device itself wrote, as far as its messages carry it."""
    setup, handler = [], []
    for entry in entries:
        moment = f"{entry.at:%Y-%m-%d %H:%M:%S}"
        if entry.topic == ccm.SETUP_TOPIC:
            setup.append(f"{moment}  {_line(entry.data) or entry.text}")
        elif entry.topic == ccm.COMANAGEMENT_TOPIC:
            handler.append(f"{moment}  {entry.text}{_said(entry.data)}")
    named = (("ccmsetup.log", setup), ("CoManagementHandler.log", handler))
    return tuple(LogText(name, tuple(lines)) for name, lines in named if lines)


def _said(data: Mapping[str, Any]) -> str:
    """What a co-management message carries, on one line."""
    said = [f"workload flags {data['flags']}"] if "flags" in data else []
    applied = data.get("applied")
    said += _settings(applied) if isinstance(applied, Mapping) else []
    said += [f"{name} {data[name]}" for name in ("code", "hresult", "message") if data.get(name)]
    return f": {', '.join(said)}" if said else ""
