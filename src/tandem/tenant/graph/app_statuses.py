"""What became of an app on each device and for each user, and whom an assignment would reach.

    POST deviceManagement/reports/retrieveDeviceAppInstallationStatusReport   as the vendor serves it
    GET  tandem/mobileApps/{id}/deviceStatuses    the same rows as a collection: pages, $filter,
                                                  $orderby, and the client that the app brings
    GET  tandem/mobileApps/{id}/userStatuses      by user
    GET  tandem/mobileApps/{id}/installSummary    how many
    GET  deviceAppManagement/mobileApps/{id}/deviceStatuses   all of them at once, as it was in beta
    GET  tandem/managedDevices/{id}/apps          the apps of one device, and why
    POST tandem/managedDevices/{id}/requestApp, /withdrawApp   choosing what is available
    GET  tandem/installErrors                     what the codes mean
    POST tandem/assignmentReach                   how many users and devices targets mean

All of it is counted and paged in SQL: an app is for a hundred thousand devices as for one.
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from tandem.infra import listing
from tandem.infra.database import Tx
from tandem.infra.listing import Row
from tandem.protocols.ccm import ConfigInfo
from tandem.protocols.odata import Primitive
from tandem.tenant import assignments, directory, enrollment, mobile_apps, sessions
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
from tandem.tenant.mobile_apps import intents, outcomes

_READ, _WRITE = APPS
_APP_ID = Field("mobileAppId", writable=True, required=True)
_INTUNE = Family.INTUNE
_ONE = "tandem/mobileApps/{mobileApp}"
_CLIENT, _CO_MANAGED = "configurationManagerClient", "configurationManagerClientMdm"
_MOST = 10_000
_MOST_TARGETS = 1_000


def _of_app(call: Call) -> tuple[str, Mapping[str, Any]]:
    return store.CONCERNED, store.app_parameters(call.keys["mobileApp"])


def _of_users(call: Call) -> tuple[str, Mapping[str, Any]]:
    return "true", store.app_parameters(call.keys["mobileApp"])


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
    given = await assignments.of(call.tx, mobile_apps.OWNER, call.keys["mobileApp"])
    found = {}
    for row in left_out:
        device = await enrollment.device(call.tx, row["id"])
        why = intents.explain(given, await enrollment.groups_of(call.tx, device))
        out = [one.assignment for one in why.reasons if one.outcome == "excludes"]
        if out:
            group = await directory.group(call.tx, out[0].target.subject)
            found[row["id"]] = group.display_name
    return found


def problem_of(code: int) -> dict[str, Any] | None:
    """A code in words; None for none."""
    known = outcomes.outcome(code)
    if known is None:
        return None
    return {
        "code": known.hexadecimal,
        "name": known.name,
        "source": known.source.value,
        "message": known.cause,
        "cure": known.cure,
        "triedAgainAfterMinutes": int(known.after.total_seconds() // 60),
    }


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
        Field("intent"),
        Field("installState"),
        Field("errorCode", Primitive.INTEGER),
        Field(
            "error",
            Primitive.COMPLEX,
            value=lambda row: problem_of(row["error_code"]),
            needs=("error_code",),
        ),
        Field("installerStatus", Primitive.INTEGER, column="detail"),
        Field("attempts", Primitive.INTEGER),
        Field("installedVersion"),
        Field("foundOnDevice", Primitive.BOOLEAN, column="found"),
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
                "intent": row["intent"],
                "installState": row["install_state"],
                "excludedBy": by.get(row["id"]),
                "errorCode": row["error_code"],
                "error": problem_of(row["error_code"]),
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
    for state, agent, number in await store.count_app_states(call.tx, app.id):
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
        "withheld",
        "available",
        "absent",
    )
    return Value(
        {
            "bringsClient": app.brings_client,
            **{f"{name}Count": states[name] for name in names},
            "clientRegisteredCount": registered,
            "clientPolicyCount": policy,
        }
    )


async def apps_of(
    tx: Tx, device: enrollment.Device, *, reasons: bool = True
) -> list[dict[str, Any]]:
    """The apps that concern a device: what assignments come to, why, and how far it got."""
    groups = await enrollment.groups_of(tx, device)
    known = {one.app_id: one for one in await mobile_apps.statuses(tx, device_id=device.id)}
    chosen = await mobile_apps.choices(tx, device.id)
    names = _GroupNames(tx)
    found = []
    for one in await mobile_apps.meant(tx, groups, every=True):
        app, explained = one.app, one.explained
        status = known.get(app.id)
        if status is None and not explained.reasons:
            continue
        withheld = sessions.withheld(app, device.flags)
        state = state_of(explained, status, withheld)
        code = status.code if status is not None else 0
        choice = chosen.get(app.id)
        found.append(
            {
                "id": app.id,
                "displayName": app.name,
                "publisher": app.publisher,
                "description": app.description,
                "type": app.type,
                "version": app.product_version,
                "publishingState": app.state,
                "intent": explained.resolved.word,
                "required": explained.resolved.required,
                "available": explained.resolved.available,
                "uninstall": explained.resolved.uninstall or None,
                "requestedDateTime": choice.requested_at if choice is not None else None,
                "removedDateTime": choice.removed_at if choice is not None else None,
                "withheldReason": WITHHELD if withheld else None,
                "reasons": [await names.told(reason) for reason in explained.reasons]
                if reasons
                else [],
                "installState": state,
                "errorCode": code,
                "error": problem_of(code),
                "installerStatus": status.detail if status is not None else 0,
                "attempts": status.attempts if status is not None else 0,
                "installedVersion": status.version if status is not None else "",
                "foundOnDevice": status.found if status is not None else False,
                "repairs": status.repairs if status is not None else 0,
                "lastSyncDateTime": status.at if status is not None else None,
                "bringsClient": app.brings_client,
                "client": client_state(app.brings_client, state == "installed", device.config_info),
            }
        )
    return found


WITHHELD = (
    "The site has the say about apps on this device: its workload Client apps is not with the MDM"
    " service."
)


def state_of(
    explained: mobile_apps.Explained, status: mobile_apps.Status | None, withheld: bool
) -> str:
    """As the collections over all devices say it, in SQL."""
    resolved = explained.resolved
    if explained.left_out:
        return "excluded"
    if status is not None:
        return status.state
    if withheld and resolved != mobile_apps.Resolved():
        return "withheld"
    if resolved.required:
        return "notInstalled"
    if resolved.available is not None:
        return "available"
    return "absent"


class _GroupNames:
    """Reasons in Graph's words, with the names of their groups, each read once."""

    def __init__(self, tx: Tx) -> None:
        self._tx = tx
        self._known: dict[str, str] = {}

    async def told(self, reason: intents.Reason) -> dict[str, Any]:
        target = reason.assignment.target
        group = target.subject if target.subject else None
        if group is not None and group not in self._known:
            try:
                self._known[group] = (await directory.group(self._tx, group)).display_name
            except directory.UnknownObject:
                self._known[group] = group
        return {
            "assignmentId": reason.assignment.id,
            "intent": reason.assignment.values.get("intent", "required"),
            "side": reason.side,
            "outcome": reason.outcome,
            "target": target.kind.value,
            "groupId": group,
            "groupDisplayName": self._known[group] if group is not None else None,
        }


async def _of_device(call: Call, body: Body) -> Answer:
    """The apps that one device is to have, may have or has, and why."""
    device = await enrollment.device(call.tx, call.keys["managedDevice"])
    return Value(await apps_of(call.tx, device))


async def _request(call: Call, body: Body) -> Answer:
    """Somebody chooses an app for a device, on its user's behalf."""
    device = await enrollment.device(call.tx, call.keys["managedDevice"])
    await choose(call, device, str(body["mobileAppId"]))
    return Value(await apps_of(call.tx, device), 200)


async def choose(call: Call, device: enrollment.Device, app_id: str) -> None:
    groups = await enrollment.groups_of(call.tx, device)
    await mobile_apps.request(call.tx, app_id, device.id, call.caller.object_id, groups, call.now)


async def _withdraw(call: Call, body: Body) -> Answer:
    device = await enrollment.device(call.tx, call.keys["managedDevice"])
    await mobile_apps.withdraw(call.tx, str(body["mobileAppId"]), device.id)
    return Value(await apps_of(call.tx, device), 200)


async def _outcomes(call: Call, body: Body) -> Answer:
    """Every code that has a text."""
    return Value([problem_of(one.code) for one in outcomes.every()])


# ---------------------------------------------------------------------------------- the report

_STATES = {
    "installed": 1,
    "failed": 2,
    "notInstalled": 3,
    "uninstallFailed": 4,
    "excluded": 5,
    "available": 3,
    "absent": 3,
    "withheld": 5,
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
    where, parameters = [store.CONCERNED], store.app_parameters(app.id)
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
            Action(
                "tandem/managedDevices/{managedDevice}/requestApp",
                _request,
                _WRITE,
                body=(_APP_ID,),
                family=_INTUNE,
            ),
            Action(
                "tandem/managedDevices/{managedDevice}/withdrawApp",
                _withdraw,
                _WRITE,
                body=(_APP_ID,),
                family=_INTUNE,
            ),
            Action("tandem/installErrors", _outcomes, _READ, method="GET", family=_INTUNE),
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
