"""The site's pages on the site's own modules, with the tenant's account read over Graph."""

from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any

import msgspec

from tandem.console import labels, summary
from tandem.console.labels import N_
from tandem.console.model import (
    Dashboard,
    Device,
    DeviceFacts,
    Devices,
    EnrollmentState,
    ErrorCount,
    Fact,
    Filter,
    FunnelStep,
    Happening,
    LogText,
    Moved,
    OsGroup,
    Owner,
    Session,
    Slice,
    Stage,
    UnknownDevice,
)
from tandem.infra.clock import Clock
from tandem.infra.database import Database
from tandem.infra.errors import AppError
from tandem.protocols import ccm
from tandem.site import administrators, clients, comanagement, fleet
from tandem.workloads import Authority, Workload, capabilities, effective, owners

FAILED_SETUP = range(301, 330)
SITE = N_("Site")


class SitePages:
    """Implements SiteReads. `tenant` is the tenant's Graph with the site's application."""

    def __init__(
        self,
        db: Database,
        *,
        now: Clock,
        settings: administrators.AdministratorsSettings,
        tenant: Callable[[], Awaitable[fleet.Graph]] | None = None,
    ) -> None:
        self._db = db
        self._now = now
        self._settings = settings
        self._tenant = tenant

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
        async with self._db.transaction() as tx:
            reading = await fleet.look(tx, self._now())
            figures = await fleet.figures(tx, reading)
            sliders = await comanagement.sliders(tx)
        together = figures.stages[Stage.CO_MANAGED.value]
        return Dashboard(
            devices=figures.devices,
            operating_systems={kind: figures.operating_systems[kind.value] for kind in OsGroup},
            funnel={step: figures.funnel[step.value] for step in FunnelStep},
            enrollment={state: figures.enrollment[state.value] for state in EnrollmentState},
            workloads={
                workload: Moved(
                    sliders[workload].position,
                    together - figures.workloads[workload.value],
                    figures.workloads[workload.value],
                )
                for workload in Workload
            },
            errors=tuple(ErrorCount(int(code), n) for code, n in figures.errors.items()),
            stages={stage: figures.stages[stage.value] for stage in Stage},
            without_tenant=figures.without_tenant,
        )

    async def devices(self, session: Session, wanted: Filter, part: Slice) -> Devices:
        async with self._db.transaction() as tx:
            reading = await fleet.look(tx, self._now())
            found = await fleet.listing(
                tx,
                _filter(wanted),
                sort=fleet.Sort(part.sort.value),
                descending=part.descending,
                limit=part.size,
                offset=(part.page - 1) * part.size,
            )
        rows = tuple(_facts(device) for device in found.devices)
        return Devices(rows, found.total, fleet.silence(reading))

    async def device(self, session: Session, device_id: str) -> Device:
        async with self._db.transaction() as tx:
            reading = await fleet.look(tx, self._now())
            try:
                found = await fleet.detail(tx, device_id)
            except fleet.NoSuchDevice:
                raise UnknownDevice(
                    labels.NO_SUCH_DEVICE, cure=labels.NO_SUCH_DEVICE_CURE
                ) from None
        facts = _facts(found.device)
        by_tenant, silent = await self._timeline_of_tenant(found.device.mdm_id)
        return Device(
            facts=facts,
            mdm=_account_of_tenant(found),
            site=_account_of_site(found.client, found.decided),
            owners=_owners(facts, found.decided),
            timeline=summary.timeline((*by_tenant, *map(_happening, found.timeline))),
            logs=_logs(found.timeline),
            without_tenant=fleet.silence(reading) or silent,
        )

    async def _timeline_of_tenant(self, mdm_id: str) -> tuple[tuple[Happening, ...], str]:
        if self._tenant is None or not mdm_id:
            return (), ""
        source = labels.AUTHORITY[Authority.MDM]
        try:
            said = await fleet.timeline(await self._tenant(), mdm_id)
        except AppError as error:
            return (), error.message
        return tuple(Happening(item.at, source, item.text, item.failed) for item in said), ""


def _session(token: str, who: administrators.Administrator) -> Session:
    return Session(token, who.name, who.role.value)


def _facts(device: fleet.Device) -> DeviceFacts:
    names = set(DeviceFacts.__struct_fields__)
    known = msgspec.structs.asdict(device)
    return DeviceFacts(**{name: value for name, value in known.items() if name in names})


def _filter(wanted: Filter) -> fleet.Filter:
    given = msgspec.to_builtins(wanted)
    given["os"] = given.pop("operating_system")
    return msgspec.convert(given, fleet.Filter)


def _account_of_tenant(found: fleet.Detail) -> tuple[Fact, ...]:
    told = found.tenant.mdm or found.tenant.directory
    if told is None:
        return (Fact(labels.ENROLLED, False),)
    return (
        Fact(labels.ENROLLED, found.device.mdm_enrolled),
        Fact(labels.ENROLLED_AT, told.enrolled_at),
        Fact(labels.LAST_CHECK_IN, told.checked_in_at),
        Fact(labels.OWNER, told.user),
        Fact(labels.DIRECTORY_ID, found.device.id),
        Fact(labels.MDM_ID, told.mdm_id),
        Fact(labels.MODEL, told.model),
        Fact(labels.SERIAL, told.serial_number),
        Fact(labels.APP_OFFERED, told.app_offered),
        Fact(labels.MSI_INSTALLED, told.msi_installed),
    )


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
