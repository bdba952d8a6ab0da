"""What the tenant says of its devices, read over Graph with the site's own application.

    GET  users?…assignedLicenses                  who may enrol by licence
    GET  deviceManagement/troubleshootingEvents   enrolments that were refused, with their code
    GET  deviceAppManagement/mobileApps           which apps bring the site's client …
    POST deviceManagement/reports/retrieveDeviceAppInstallationStatusReport   … and where they are
    GET  deviceManagement/managedDevices          enrolled, by whom, when, and what the client said
    GET  devices                                  joined to the directory, perhaps not enrolled

Every list is read by its pages, and of a page only what the site keeps is kept: at no time is a
fleet in memory, but the ids and names that the pages are joined by. A part that this Graph does not
have is left out; one that cannot be reached is an error, and what was heard before it stays.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from datetime import datetime
from typing import Any, Protocol

import msgspec

from tandem.infra.database import Database
from tandem.infra.errors import AppError, Kind
from tandem.site.fleet import store
from tandem.site.fleet.model import Account, plain

PAGE = 999
_REPORT = "deviceManagement/reports/retrieveDeviceAppInstallationStatusReport"
_REPORT_ROWS = 1000  # Asked for; a tenant that gives fewer is asked again from there.
# AppInstallState of the report.
_INSTALLED, _EXCLUDED = 1, 5
_BOTH = "configurationManagerClientMdm"
_ABSENT = (Kind.NOT_FOUND, Kind.INVALID, Kind.UNSUPPORTED)
_LONGEST = 1000


class Graph(Protocol):
    """Graph below /v1.0, with the rights of the site's application. Both raise AppError."""

    async def get(self, path: str) -> Mapping[str, Any]: ...

    async def post(self, path: str, body: dict[str, Any]) -> Mapping[str, Any]: ...


class Happening(msgspec.Struct, frozen=True):
    """A line of the MDM service's own record of a device."""

    at: datetime
    text: str
    failed: bool
    kind: str = ""
    trace: str = ""


class _Apps(msgspec.Struct):
    """The MDM's ids of devices on which the site's client is offered, and installed."""

    offered: set[str]
    installed: set[str]


async def read(db: Database, graph: Graph, alive: Callable[[], Awaitable[None]]) -> None:
    """Bring what the tenant says up to date. `alive` is called now and then, on the way."""
    licensed = await _licensed(graph, alive)
    apps = await _apps(graph, alive)
    heard: set[str] = set()
    async for page in _pages(graph, f"deviceManagement/managedDevices?$top={PAGE}"):
        found = dict(_managed(item, licensed, apps) for item in page)
        await _save(db, "mdm", found, heard)
        await alive()
    await _forget(db, "mdm", heard)
    joined: set[str] = set()
    async for page in _pages(graph, f"devices?$top={PAGE}"):
        found = dict(_joined(item, licensed) for item in page)
        await _save(db, "directory", found, joined)
        await alive()
    await _forget(db, "directory", joined)
    errors = await _errors(graph)
    async with db.transaction() as tx:
        await store.save_errors(tx, errors)


async def timeline(graph: Graph, mdm_id: str) -> list[Happening]:
    """What the MDM service recorded of a device; nothing where this Graph does not say it."""
    path = f"deviceManagement/managedDevices/{mdm_id}/timeline"
    return [
        Happening(
            at,
            plain(str(item.get("text") or "")),
            bool(item.get("code")),
            _text(item.get("kind")),
            _text(item.get("traceId")),
        )
        async for page in _pages(graph, path)
        for item in page
        if (at := _when(item.get("dateTime"))) is not None
    ]


class Offered(msgspec.Struct, frozen=True):
    """A policy's value of a setting on a device, and what became of it."""

    setting: str
    workload: str
    outcome: str
    policy: str = ""
    value: str = ""
    reason: str = ""


# Of so many settings at most is asked which policies are in conflict.
_MOST_ASKED = 20


async def offered(graph: Graph, mdm_id: str) -> list[Offered]:
    """What the tenant has for a device; every policy of a setting that several set differently.
    Nothing where this Graph does not say it."""
    base = f"deviceManagement/managedDevices/{mdm_id}/settings"
    found: list[Offered] = []
    asked = 0
    async for page in _pages(graph, base):
        for item in page:
            setting, outcome = _text(item.get("setting")), _text(item.get("outcome"))
            one = Offered(
                setting,
                _text(item.get("workload")),
                outcome,
                _text(item.get("policyName")),
                _text(item.get("policyValue")),
                _text(item.get("reason")),
            )
            if outcome == "conflict" and asked < _MOST_ASKED:
                asked += 1
                found += await _rivals(graph, mdm_id, one) or [one]
            else:
                found.append(one)
    return found


async def _rivals(graph: Graph, mdm_id: str, one: Offered) -> list[Offered]:
    try:
        told = await graph.post(f"tandem/managedDevices/{mdm_id}/why", {"setting": one.setting})
    except AppError as error:
        if error.kind not in _ABSENT:
            raise
        return []
    return [
        msgspec.structs.replace(
            one, policy=_text(item.get("policyName")), value=_text(item.get("value"))
        )
        for item in told.get("policies") or ()
        if isinstance(item, Mapping) and item.get("role") == "conflicts"
    ]


async def pending(graph: Graph, mdm_id: str) -> list[str]:
    """Settings that the MDM service has for a device and that it has not taken yet; nothing where
    this Graph does not say it."""
    path = f"deviceManagement/managedDevices/{mdm_id}/settings"
    return [
        _text(item.get("setting"))
        async for page in _pages(graph, path)
        for item in page
        if item.get("outcome") == "pending"
    ]


async def _save(db: Database, part: str, found: dict[str, Account], heard: set[str]) -> None:
    found.pop("", None)
    heard.update(found)
    async with db.transaction() as tx:
        await store.save_accounts(tx, part, found)


async def _forget(db: Database, part: str, heard: set[str]) -> None:
    async with db.transaction() as tx:
        gone = await store.known(tx, part) - heard
        if gone:
            await store.forget_accounts(tx, part, sorted(gone))


async def _licensed(graph: Graph, alive: Callable[[], Awaitable[None]]) -> set[str]:
    found: set[str] = set()
    path = f"users?$select=id,userPrincipalName,assignedLicenses&$top={PAGE}"
    async for page in _pages(graph, path):
        found.update(
            str(user.get("userPrincipalName") or "").casefold()
            for user in page
            if user.get("assignedLicenses")
        )
        await alive()
    return found


async def _apps(graph: Graph, alive: Callable[[], Awaitable[None]]) -> _Apps:
    found = _Apps(set(), set())
    async for page in _pages(graph, "deviceAppManagement/mobileApps"):
        for app in page:
            # The site's client comes as a line-of-business MSI that carries its command line.
            if "CCMHOSTNAME" in str(app.get("commandLine") or ""):
                await _statuses(graph, str(app.get("id")), found, alive)
    return found


async def _statuses(
    graph: Graph, app_id: str, found: _Apps, alive: Callable[[], Awaitable[None]]
) -> None:
    skip, total = 0, 1
    while skip < total:
        body = {
            "filter": f"(ApplicationId eq '{app_id}')",
            "select": ["DeviceId", "AppInstallState"],
            "skip": skip,
            "top": _REPORT_ROWS,
        }
        try:
            report = await graph.post(_REPORT, body)
        except AppError as error:
            if error.kind in _ABSENT:
                return
            raise
        names = [str(column.get("Column")) for column in report.get("Schema") or ()]
        rows = [dict(zip(names, values, strict=False)) for values in report.get("Values") or ()]
        for row in rows:
            device, state = str(row.get("DeviceId") or ""), row.get("AppInstallState")
            if state != _EXCLUDED:
                found.offered.add(device)
            if state == _INSTALLED:
                found.installed.add(device)
        total = int(report.get("TotalRowCount") or 0)
        if not rows:
            return
        skip += len(rows)
        await alive()


def _managed(item: Mapping[str, Any], licensed: set[str], apps: _Apps) -> tuple[str, Account]:
    mdm_id, user = _text(item.get("id")), _text(item.get("userPrincipalName"))
    agent = item.get("configurationManagerClientInformation")
    stands = agent.get("setupLog") if isinstance(agent, Mapping) else None
    installed = mdm_id in apps.installed
    return _text(item.get("azureADDeviceId")) or mdm_id, Account(
        mdm_id=mdm_id,
        name=_text(item.get("deviceName")),
        user=user,
        os_version=_text(item.get("osVersion")),
        model=_text(item.get("model")),
        serial_number=_text(item.get("serialNumber")),
        licensed=user.casefold() in licensed,
        enrolled_at=_when(item.get("enrolledDateTime")),
        checked_in_at=_when(item.get("lastSyncDateTime")),
        app_offered=mdm_id in apps.offered,
        msi_installed=installed,
        trouble=_text(stands) if installed and item.get("managementAgent") != _BOTH else "",
    )


def _joined(item: Mapping[str, Any], licensed: set[str]) -> tuple[str, Account]:
    owners = item.get("registeredOwners") or item.get("registeredUsers") or ()
    user = next((_text(o.get("userPrincipalName")) for o in owners if isinstance(o, Mapping)), "")
    return _text(item.get("deviceId")), Account(
        name=_text(item.get("displayName")),
        user=user,
        os_version=_text(item.get("operatingSystemVersion")),
        hybrid=item.get("trustType") == "ServerAd",
        licensed=user.casefold() in licensed,
    )


async def _errors(graph: Graph) -> dict[str, int]:
    """The code of each device's last refused enrolment."""
    newest: dict[str, tuple[str, int]] = {}
    async for page in _pages(graph, "deviceManagement/troubleshootingEvents"):
        for item in page:
            device, at, code = (
                _text(item.get("deviceId")),
                str(item.get("eventDateTime") or ""),
                _code(item),
            )
            if device and code is not None and at >= newest.get(device, ("", 0))[0]:
                newest[device] = (at, code)
    return {device: code for device, (_, code) in newest.items()}


async def _pages(graph: Graph, path: str) -> AsyncIterator[list[Mapping[str, Any]]]:
    """Each page of a list; none where this tenant's Graph has no such thing."""
    following: str | None = path
    while following:
        try:
            page = await graph.get(following)
        except AppError as error:
            if error.kind in _ABSENT:
                return
            raise
        yield [item for item in page.get("value", ()) if isinstance(item, Mapping)]
        onward = page.get("@odata.nextLink")
        following = str(onward).partition("/v1.0/")[2] if onward else None


def _text(value: object) -> str:
    return plain(value)[:_LONGEST] if isinstance(value, str) else ""


def _when(value: object) -> datetime | None:
    if not isinstance(value, str) or value.startswith("0001"):
        return None
    try:
        return msgspec.convert(value, datetime)
    except msgspec.ValidationError:
        return None


def _code(event: Mapping[str, Any]) -> int | None:
    """The HRESULT of a refused enrolment, from the fields that may carry it."""
    for name in ("failureCode", "errorCode", "failureReason"):
        value = event.get(name)
        if isinstance(value, int) and not isinstance(value, bool):
            return value & 0xFFFFFFFF
        if isinstance(value, str):
            for word in value.replace("(", " ").replace(")", " ").replace(".", " ").split():
                if word.lower().startswith("0x"):
                    try:
                        return int(word, 16) & 0xFFFFFFFF
                    except ValueError:
                        continue
    return None
