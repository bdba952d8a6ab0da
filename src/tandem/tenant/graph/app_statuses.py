"""What became of an app on each device and for each user, and whom an assignment would reach.

    POST deviceManagement/reports/retrieveDeviceAppInstallationStatusReport   as the vendor serves it
    GET  tandem/mobileApps/{id}/deviceStatuses    the same rows as a collection: pages, $filter,
                                                  $orderby, and the client that the app brings
    GET  tandem/mobileApps/{id}/userStatuses      by user
    GET  tandem/mobileApps/{id}/installSummary    how many
    GET  deviceAppManagement/mobileApps/{id}/deviceStatuses   all of them at once, as it was in beta
    GET  tandem/managedDevices/{id}/apps          the apps of one device
    POST tandem/assignmentReach                   how many users and devices targets mean

All of it is counted and paged in SQL: an app is for a hundred thousand devices as for one.
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from tandem.infra import listing
from tandem.infra.listing import Row
from tandem.protocols.ccm import ConfigInfo
from tandem.protocols.odata import Primitive
from tandem.tenant import assignments, directory, enrollment, mobile_apps
from tandem.tenant.assignments import TargetKind
from tandem.tenant.graph import store
from tandem.tenant.graph.model import (
    Action,
    Answer,
    BadProperty,
    Body,
    Call,
    Family,
    Field,
    Part,
    Resource,
    Stream,
    Value,
)
from tandem.tenant.graph.policy_kinds import APPS
from tandem.tenant.graph.targets import read_target

_READ, _ = APPS
_INTUNE = Family.INTUNE
_ONE = "tandem/mobileApps/{mobileApp}"
# What devices are told to do with an app; the other intents are kept, and offered nowhere.
_INTENT = "required"
_CLIENT, _CO_MANAGED = "configurationManagerClient", "configurationManagerClientMdm"
_MOST = 10_000
_MOST_TARGETS = 1_000


def _of_app(call: Call) -> tuple[str, Mapping[str, Any]]:
    return store.CONCERNED, {"app": call.keys["mobileApp"], "intent": _INTENT}


def _of_users(call: Call) -> tuple[str, Mapping[str, Any]]:
    return "true", {"app": call.keys["mobileApp"], "intent": _INTENT}


def stands_at(agent: ConfigInfo | None) -> str:
    """Where a client without policy stands: its log line, and a line of ours before it has one."""
    if agent is None:
        return "The client has not said anything yet."
    if agent.client:
        return agent.log or "The client is registered and waits for its policy."
    return agent.log or "The client's setup has not logged anything yet."


def client_state(brings: bool, installed: bool, config_info: str) -> dict[str, Any]:
    """Of the client that an app brings: the MSI's fate says nothing of it."""
    agent = ConfigInfo.read(config_info) if config_info else None
    stuck = brings and installed and (agent is None or not agent.policy)
    return {
        "step": str(agent.setup or "") if agent is not None else "",
        "code": agent.code if agent is not None else None,
        "registered": bool(agent.client) if agent is not None else False,
        "policyPresent": agent.policy if agent is not None else False,
        "stuckAt": stands_at(agent) if stuck else "",
    }


def _client(row: Row) -> dict[str, Any]:
    installed = row["install_state"] == "installed"
    return client_state(row["brings_client"], installed, row["config_info"])


async def _excluders(call: Call, rows: Sequence[Row]) -> Mapping[str, Any]:
    """The group that leaves a device out, of those that are left out."""
    left_out = [row for row in rows if row.get("install_state", "excluded") == "excluded"]
    if not left_out:
        return {}
    given = [
        item
        for item in await assignments.of(call.tx, mobile_apps.OWNER, call.keys["mobileApp"])
        if item.values.get("intent") == _INTENT
    ]
    found = {}
    for row in left_out:
        device = await enrollment.device(call.tx, row["id"])
        _, out = assignments.reasons(given, await enrollment.groups_of(call.tx, device))
        if out:
            group = await directory.group(call.tx, out[0].target.subject)
            found[row["id"]] = group.display_name
    return found


_DEVICES = Resource(
    path=f"{_ONE}/deviceStatuses",
    type="tandemAppDeviceStatus",
    family=_INTUNE,
    rows=store.DEVICE_STATUSES,
    scope=_of_app,
    read=_READ,
    key_is_guid=False,
    page_size=100,
    fields=(
        Field("id"),
        Field("deviceId", column="id"),
        Field("deviceName"),
        Field("userPrincipalName"),
        Field("userId"),
        Field("azureADDeviceId", column="azure_ad_device_id"),
        Field("osVersion"),
        Field("installState"),
        Field("errorCode", Primitive.INTEGER),
        Field("lastSyncDateTime", Primitive.TIME),
        Field("managementAgent"),
        Field("excludedBy", load=_excluders),
        Field(
            "client",
            Primitive.COMPLEX,
            value=_client,
            needs=("brings_client", "install_state", "config_info"),
        ),
    ),
)
_USERS = Resource(
    path=f"{_ONE}/userStatuses",
    type="tandemAppUserStatus",
    family=_INTUNE,
    rows=store.USER_STATUSES,
    scope=_of_users,
    read=_READ,
    key_is_guid=False,
    page_size=100,
    fields=(
        Field("id"),
        Field("userPrincipalName"),
        Field("deviceCount", Primitive.INTEGER),
        Field("installedCount", Primitive.INTEGER),
        Field("failedCount", Primitive.INTEGER),
        Field("excludedCount", Primitive.INTEGER),
        Field("waitingCount", Primitive.INTEGER),
    ),
)


async def _statuses(call: Call, body: Body) -> Answer:
    await mobile_apps.app(call.tx, call.keys["mobileApp"])
    where, parameters = _of_app(call)
    names = list(store.DEVICE_STATUSES.columns)
    rows = await listing.rows(
        call.tx, store.DEVICE_STATUSES, names, where=[where], parameters=parameters
    )
    by = await _excluders(call, rows)
    return Value(
        [
            {
                "deviceId": row["id"],
                "deviceName": row["device_name"],
                "userPrincipalName": row["user_principal_name"],
                "installState": row["install_state"],
                "excludedBy": by.get(row["id"]),
                "errorCode": row["error_code"],
                "lastSyncDateTime": row["last_sync_date_time"],
                "client": _client(row),
            }
            for row in rows
        ]
    )


async def _summary(call: Call, body: Body) -> Answer:
    """How many devices an app is for, where it stands on them, and where its client does."""
    app = await mobile_apps.app(call.tx, call.keys["mobileApp"])
    states: Counter[str] = Counter()
    registered = policy = 0
    for state, agent, number in await store.count_app_states(call.tx, app.id, _INTENT):
        states[state] += number
        if state == "installed":
            registered += number if agent in (_CLIENT, _CO_MANAGED) else 0
            policy += number if agent == _CO_MANAGED else 0
    names = (
        "installed",
        "failed",
        "installing",
        "offered",
        "notInstalled",
        "uninstallFailed",
        "excluded",
    )
    return Value(
        {
            "bringsClient": app.brings_client,
            **{f"{name}Count": states[name] for name in names},
            "clientRegisteredCount": registered,
            "clientPolicyCount": policy,
        }
    )


async def _of_device(call: Call, body: Body) -> Answer:
    """The apps that one device is to have or has, with the client that one of them brings."""
    device = await enrollment.device(call.tx, call.keys["managedDevice"])
    groups = await enrollment.groups_of(call.tx, device)
    known = {one.app_id: one for one in await mobile_apps.statuses(call.tx, device_id=device.id)}
    given: dict[str, list[assignments.Assignment]] = {}
    for one in await assignments.every(call.tx, mobile_apps.OWNER):
        given.setdefault(one.owner_id, []).append(one)
    found = []
    for app in await mobile_apps.apps(call.tx):
        status = known.get(app.id)
        mine = [one for one in given.get(app.id, []) if one.values.get("intent") == _INTENT]
        included, excluded = assignments.reasons(mine, groups)
        if status is None and not included:
            continue
        state = str(status.state) if status is not None else "notInstalled"
        if excluded:
            state = "excluded"
        found.append(
            {
                "id": app.id,
                "displayName": app.name,
                "version": app.product_version,
                "publishingState": app.state,
                "installState": state,
                "errorCode": status.code if status is not None else 0,
                "lastSyncDateTime": status.at if status is not None else None,
                "bringsClient": app.brings_client,
                "client": client_state(app.brings_client, state == "installed", device.config_info),
            }
        )
    return Value(found)


# ---------------------------------------------------------------------------------- the report

_STATES = {
    "installed": 1,
    "failed": 2,
    "notInstalled": 3,
    "uninstallFailed": 4,
    "excluded": 5,
}  # resultantAppState
_PENDING = 7  # pendingInstall
_COLUMNS = {
    "DeviceName": ("String", "device_name"),
    "UserPrincipalName": ("String", "user_principal_name"),
    "UserId": ("String", "user_id"),
    "DeviceId": ("String", "id"),
    "Platform": ("String", ""),
    "AppVersion": ("String", ""),
    "ApplicationId": ("String", ""),
    "AppInstallState": ("Int32", "install_state"),
    "AppInstallState_loc": ("String", "install_state"),
    "ErrorCode": ("Int64", "error_code"),
    "HexErrorCode": ("String", "error_code"),
    "LastModifiedDateTime": ("DateTime", "last_sync_date_time"),
}
_APPLICATION = re.compile(r"\(?\s*ApplicationId\s+eq\s+'([0-9A-Fa-f-]{36})'\s*\)?")


async def _report(call: Call, body: Body) -> Answer:
    """The vendor's report of one app: names of columns once, then rows of values."""
    named = _APPLICATION.fullmatch(str(body.get("filter") or "").strip())
    if named is None:
        raise BadProperty(
            "The filter of this report names one app.",
            cure='Send "filter": "(ApplicationId eq \'{id of the app}\')".',
            target="filter",
        )
    app = await mobile_apps.app(call.tx, named[1].lower())
    chosen = [str(name) for name in body.get("select") or []] or list(_COLUMNS)
    order = []
    for text in body.get("orderBy") or []:
        name, _, way = str(text).partition(" ")
        if not _COLUMNS.get(name, ("", ""))[1]:
            raise _unknown(name)
        order.append((_COLUMNS[name][1], way.strip().lower() == "desc"))
    if unknown := [name for name in chosen if name not in _COLUMNS]:
        raise _unknown(unknown[0])
    where, parameters = [store.CONCERNED], {"app": app.id, "intent": _INTENT}
    if search := str(body.get("search") or "")[:100]:
        where.append("position(lower(%(search)s) IN lower(r.name || ' ' || r.upn)) > 0")
        parameters["search"] = search
    source = store.DEVICE_STATUSES
    top = body.get("top")
    rows = await listing.rows(
        call.tx,
        source,
        list(source.columns),
        where=where,
        parameters=parameters,
        order=order,
        limit=min(_MOST, 50 if top is None else max(0, top)),
        offset=max(0, body.get("skip") or 0),
    )
    document = {
        "TotalRowCount": await listing.count(call.tx, source, where, parameters),
        "Schema": [{"Column": name, "PropertyType": _COLUMNS[name][0]} for name in chosen],
        "Values": [[_cell(app, name, row) for name in chosen] for row in rows],
    }
    return Stream(msgspec.json.encode(document), "application/json")


def _unknown(name: str) -> BadProperty:
    return BadProperty(
        f"The report has no column {name[:64]!r}.",
        cure="Its columns: " + ", ".join(_COLUMNS) + ".",
        target="select",
    )


def _cell(app: mobile_apps.App, name: str, row: Row) -> Any:
    match name:
        case "Platform":
            return "Windows"
        case "AppVersion":
            return app.product_version
        case "ApplicationId":
            return app.id
        case "AppInstallState":
            return _STATES.get(row["install_state"], _PENDING)
        case "HexErrorCode":
            return f"0x{row['error_code'] & 0xFFFFFFFF:08X}" if row["error_code"] else ""
    return row[_COLUMNS[name][1]]


# ---------------------------------------------------------------------------------- reach


async def _reach(call: Call, body: Body) -> Answer:
    """Whom a list of targets would mean, and what the groups among them consist of."""
    given = body["assignments"]
    if not isinstance(given, list) or len(given) > _MOST_TARGETS:
        raise BadProperty("'assignments' is a list.", cure="Send the targets in it.")
    targets = [
        read_target(item.get("target") if isinstance(item, Mapping) else None) for item in given
    ]
    kinds = {item.kind for item in targets}
    included = [item.subject for item in targets if item.kind is TargetKind.GROUP]
    excluded = [item.subject for item in targets if item.kind is TargetKind.EXCLUDED_GROUP]
    groups = [await directory.group(call.tx, id) for id in dict.fromkeys([*included, *excluded])]
    found = await store.reach(
        call.tx,
        included,
        excluded,
        all_users=TargetKind.ALL_USERS in kinds,
        all_devices=TargetKind.ALL_DEVICES in kinds,
    )
    members = await store.count_members(call.tx, [group.id for group in groups])
    return Value(
        {
            "userCount": found.users,
            "deviceCount": found.devices,
            "joinedDeviceCount": found.joined,
            "groups": [
                {
                    "id": group.id,
                    "displayName": group.display_name,
                    "excluded": group.id in excluded,
                    "userCount": members[group.id][0],
                    "deviceCount": members[group.id][1],
                }
                for group in groups
            ],
        }
    )


def app_statuses() -> Part:
    strings = ("filter", "search", "name", "sessionId")
    return Part(
        (_DEVICES, _USERS),
        (
            Action(
                "deviceAppManagement/mobileApps/{mobileApp}/deviceStatuses",
                _statuses,
                _READ,
                method="GET",
                family=_INTUNE,
            ),
            Action(
                "tandem/managedDevices/{managedDevice}/apps",
                _of_device,
                _READ,
                method="GET",
                family=_INTUNE,
            ),
            Action(f"{_ONE}/installSummary", _summary, _READ, method="GET", family=_INTUNE),
            Action(
                "deviceManagement/reports/retrieveDeviceAppInstallationStatusReport",
                _report,
                _READ,
                body=(
                    *(Field(name, writable=True) for name in strings),
                    *(
                        Field(name, collection=True, writable=True)
                        for name in ("select", "groupBy", "orderBy")
                    ),
                    *(Field(name, Primitive.INTEGER, writable=True) for name in ("skip", "top")),
                ),
                family=_INTUNE,
                asks=True,
            ),
            Action(
                "tandem/assignmentReach",
                _reach,
                _READ,
                body=(
                    Field(
                        "assignments",
                        Primitive.COMPLEX,
                        collection=True,
                        writable=True,
                        required=True,
                    ),
                ),
                family=_INTUNE,
                asks=True,
            ),
        ),
    )
