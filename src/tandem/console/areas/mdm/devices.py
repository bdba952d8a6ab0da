"""The tenant's devices: those that the MDM service manages, and those that only joined."""

from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import timedelta
from typing import Any
from urllib.parse import quote, urlencode

import msgspec
from starlette.responses import Response

from tandem.console import labels
from tandem.console.areas.mdm import apps, device_orders, lists, settings, troubled, words
from tandem.console.kit import (
    N_,
    ROOT,
    Fact,
    Field,
    Hit,
    Notice,
    Page,
    UnknownPage,
    csv,
    drawn,
    field,
    read,
)
from tandem.infra.errors import AppError, Kind
from tandem.workloads import CATALOGUE

MANAGED = "/v1.0/deviceManagement/managedDevices"
OVERDUE = "/v1.0/tandem/overdueDevices"
JOINED = "/v1.0/devices"
REFRESH_SECONDS = 5
# What a page shows of a device; the rest is not read from the database for it.
_LISTED = (
    "id,deviceName,userPrincipalName,osVersion,managementAgent,complianceState,managementState,"
    "lastSyncDateTime,azureADDeviceId"
)
VIEWS = {"": N_("Enrolled in MDM"), "joined": N_("Joined only")}
COLUMNS = (
    ("", N_("Chosen")),
    ("deviceName", N_("Device name")),
    ("userPrincipalName", N_("Primary user")),
    ("osVersion", N_("OS version")),
    ("managementAgent", N_("Managed by")),
    ("", N_("Compliance")),
    ("managementState", N_("State")),
    ("lastSyncDateTime", N_("Last check-in")),
)
JOINED_COLUMNS = (
    ("displayName", N_("Device name")),
    ("operatingSystemVersion", N_("OS version")),
    ("", N_("Join")),
    ("", N_("Enabled")),
    ("", N_("Registered at")),
    ("", N_("Last sign-in")),
)
# Days since the last check-in that a filter asks for.
SILENT = ("1", "7", "30", "90")
TABS = {
    "": N_("Overview"),
    "timeline": N_("Timeline"),
    "apps": N_("Apps"),
    "configuration": N_("Configuration"),
    "compliance": N_("Compliance"),
    "comanagement": N_("Co-management"),
}
# In the order of the menu. Those behind are asked for with care: nothing brings the data back.
ACTIONS = (
    "syncDevice",
    "rebootNow",
    "setDeviceName",
    "windowsDefenderScan",
    "windowsDefenderUpdateSignatures",
    "cleanWindowsDevice",
    "retire",
    "wipe",
    "delete",
)
BULK = (
    "syncDevice",
    "rebootNow",
    "windowsDefenderScan",
    "windowsDefenderUpdateSignatures",
    "retire",
    "wipe",
    "delete",
)
WHAT_IT_DOES = {
    "syncDevice": N_(
        "The device checks in, and takes what waits for it: within seconds where the client waits"
        " for a call, else at its next poll."
    ),
    "rebootNow": N_("The device restarts at its next check-in. Unsaved work on it is lost."),
    "setDeviceName": N_("The device gets another computer name at its next check-in."),
    "windowsDefenderScan": N_("The device scans itself for malware."),
    "windowsDefenderUpdateSignatures": N_("The device updates its definitions of malware."),
    "cleanWindowsDevice": N_(
        "The device removes its apps, and what they kept. It stays joined; the files of its users"
        " go unless they are kept."
    ),
    "retire": N_(
        "The device leaves the MDM service: its settings and its certificate go. The site's client"
        " and the files of its users stay."
    ),
    "wipe": N_(
        "Everything on the device is lost, the site's client with it. Nothing brings it back."
    ),
    "delete": N_(
        "The device leaves the list, and the MDM service at its next check-in. The site's client"
        " stays."
    ),
}
DANGEROUS = ("cleanWindowsDevice", "retire", "wipe", "delete")
OPTIONS: dict[str, tuple[Field, ...]] = {
    "setDeviceName": (
        field(
            "deviceName",
            N_("New name"),
            required=True,
            limit=63,
            hint=N_("At most 15 letters, digits and hyphens; %SERIAL% and %RAND:n% are filled in."),
        ),
    ),
    "windowsDefenderScan": (
        field(
            "quickScan",
            N_("Sort of scan"),
            "radio",
            options=(("quick", N_("Quick")), ("full", N_("Full"))),
            default="quick",
        ),
    ),
    "cleanWindowsDevice": (field("keepUserData", N_("Keep the files of its users"), "checkbox"),),
    "wipe": (
        field("keepEnrollmentData", N_("Keep it enrolled"), "checkbox"),
        field("keepUserData", N_("Keep the files of its users"), "checkbox"),
        field(
            "useProtectedWipe",
            N_("Keep trying, whatever the user does"),
            "checkbox",
            hint=N_(
                "It goes on after the device was switched off. Some models do not start again."
            ),
        ),
    ),
}
# Asked for with what nothing brings back.
_WHY = field(
    "reason",
    N_("Reason"),
    "textarea",
    limit=1000,
    hint=N_("A second administrator reads it, where one has to agree."),
)


def options(action: str) -> tuple[Field, ...]:
    return (*OPTIONS.get(action, ()), *((_WHY,) if action in DANGEROUS else ()))


_FEATURES = {entry.feature: workload for workload, entry in CATALOGUE.items()}
MOST_AT_ONCE = 100


class Filter(msgspec.Struct, frozen=True):
    """What the address asks for; a word that is not known filters nothing."""

    agent: str = ""
    compliance: str = ""
    owner: str = ""
    silent: str = ""
    overdue: str = ""

    @property
    def path(self) -> str:
        """Where Graph lists these: it says which devices are overdue."""
        return OVERDUE if self.overdue else MANAGED

    @classmethod
    def of(cls, page: Page[Any]) -> "Filter":
        query = page.request.query_params

        def one(name: str, known: Sequence[str] | Mapping[str, Any]) -> str:
            value = query.get(name, "")
            return value if value in known else ""

        return cls(
            one("agent", words.AGENT),
            one("compliance", words.COMPLIANCE),
            one("owner", words.OWNERSHIP),
            one("silent", SILENT),
            one("overdue", ("1",)),
        )

    def condition(self, page: Page[Any], search: str) -> str:
        conditions = [lists.begins(search, "deviceName", "userPrincipalName", "serialNumber")]
        if self.agent:
            conditions.append(f"managementAgent eq '{self.agent}'")
        if self.compliance:
            conditions.append(f"complianceState eq '{self.compliance}'")
        if self.owner:
            conditions.append(f"managedDeviceOwnerType eq '{self.owner}'")
        if self.silent:
            before = page.now - timedelta(days=int(self.silent))
            conditions.append(f"lastSyncDateTime lt {before:%Y-%m-%dT%H:%M:%SZ}")
        return lists.both(*conditions)


async def index(page: Page[Any]) -> Response:
    view = "joined" if page.request.query_params.get("view") == "joined" else ""
    return await (_joined(page) if view else _enrolled(page))


def _views(view: str) -> list[tuple[str, str, bool]]:
    return [
        (f"{ROOT}/devices" + (f"?view={key}" if key else ""), title, key == view)
        for key, title in VIEWS.items()
    ]


async def _enrolled(page: Page[Any]) -> Response:
    asked = lists.Asked.of(page, sorts=tuple(name for name, _ in COLUMNS if name))
    wanted = Filter.of(page)
    found = await page.api.get(
        wanted.path,
        **{
            "$select": _LISTED,
            "$filter": wanted.condition(page, asked.search),
            "$orderby": asked.order or "deviceName",
            **asked.slice,
        },
    )
    total = found.get("@odata.count", len(found["value"]))
    query = dict(page.request.query_params)
    return page.render(
        "mdm/devices.html",
        rows=found["value"],
        overdue=await overdue(page, [item["id"] for item in found["value"]]),
        asked=asked,
        wanted=wanted,
        total=total,
        pages=asked.pages(total),
        columns=COLUMNS,
        views=_views(""),
        words=words,
        bulk=BULK,
        silent=SILENT,
        export=f"{ROOT}/devices.csv" + (f"?{urlencode(query)}" if query else ""),
        refresh_seconds=REFRESH_SECONDS,
    )


async def overdue(page: Page[Any], ids: Sequence[str]) -> dict[str, Any]:
    """Since when those of these devices are overdue that are."""
    if not ids:
        return {}
    found = await page.api.get(
        OVERDUE,
        **{
            "$filter": "id in (" + ",".join(lists.quoted(id) for id in ids) + ")",
            "$select": "id,overdueSinceDateTime",
            "$top": len(ids),
        },
    )
    return {item["id"]: item["overdueSinceDateTime"] for item in found["value"]}


async def _joined(page: Page[Any]) -> Response:
    """Devices of the directory that the MDM service does not manage."""
    asked = lists.Asked.of(page, sorts=("displayName", "operatingSystemVersion"))
    answer = await page.api.ask(
        "GET",
        JOINED,
        query={
            "$filter": lists.both("isManaged eq false", lists.begins(asked.search, "displayName")),
            "$orderby": asked.order or "displayName",
            **asked.slice,
        },
        # The directory counts and sorts filtered lists for those only who know of this.
        headers={"ConsistencyLevel": "eventual"},
    )
    found = answer.json
    total = found.get("@odata.count", len(found["value"]))
    return page.render(
        "mdm/devices_joined.html",
        rows=found["value"],
        asked=asked,
        total=total,
        pages=asked.pages(total),
        columns=JOINED_COLUMNS,
        views=_views("joined"),
        words=words,
        refresh_seconds=REFRESH_SECONDS,
    )


async def export(page: Page[Any]) -> Response:
    text = page.language.text
    asked, wanted = lists.Asked.of(page), Filter.of(page)
    query = {
        "$select": f"{_LISTED},serialNumber,model,manufacturer,enrolledDateTime",
        "$filter": wanted.condition(page, asked.search),
        "$top": 1000,
    }

    async def rows() -> AsyncIterator[list[Any]]:
        async for item in lists.every(page, wanted.path, query):
            yield [
                item["deviceName"],
                item["userPrincipalName"],
                item["osVersion"],
                text(words.AGENT.get(item["managementAgent"], item["managementAgent"])),
                text(words.COMPLIANCE.get(item["complianceState"], ("", ""))[1]),
                item["serialNumber"],
                item["manufacturer"],
                item["model"],
                item["enrolledDateTime"],
                item["lastSyncDateTime"],
            ]

    header = (
        N_("Device name"),
        N_("Primary user"),
        N_("OS version"),
        N_("Managed by"),
        N_("Compliance"),
        N_("Serial number"),
        N_("Manufacturer"),
        N_("Model"),
        N_("Enrolled at"),
        N_("Last check-in"),
    )
    return csv("devices", [text(title) for title in header], rows())


# ---------------------------------------------------------------------------------- one device


async def _find(page: Page[Any]) -> tuple[dict[str, Any] | None, dict[str, Any] | None]:
    """A device by its id at the MDM service or in the directory: managed, joined, or both.

    Raises UnknownPage.
    """
    id = page.request.path_params["device_id"]
    managed: dict[str, Any] | None = None
    try:
        managed = await page.api.get(f"{MANAGED}/{quote(id, safe='')}")
    except AppError as error:
        if error.kind not in (Kind.NOT_FOUND, Kind.INVALID):
            raise
        found = await page.api.get(
            MANAGED, **{"$filter": f"azureADDeviceId eq {lists.quoted(id)}", "$top": 1}
        )
        managed = found["value"][0] if found["value"] else None
    directory_id = managed["azureADDeviceId"] if managed else id
    found = {"value": []}
    try:
        found = await page.api.get(
            JOINED, **{"$filter": f"deviceId eq {lists.quoted(directory_id)}", "$top": 1}
        )
    except AppError as error:
        if error.kind is not Kind.INVALID:
            raise
    joined = found["value"][0] if found["value"] else None
    if managed is None and joined is None:
        raise UnknownPage(labels.NO_SUCH_DEVICE, cure=labels.NO_SUCH_DEVICE_CURE)
    return managed, joined


async def show(page: Page[Any]) -> Response:
    tab = page.request.path_params.get("tab", "")
    if tab not in TABS:
        raise UnknownPage(N_("There is no such page."))
    managed, joined = await _find(page)
    if managed is None:
        assert joined is not None
        return await _show_joined(page, joined)
    base = f"{ROOT}/devices/{managed['id']}"
    more = await _TAB[tab](page, managed, joined)
    return page.render(
        f"mdm/device_{tab or 'overview'}.html",
        device=managed,
        joined=joined,
        base=base,
        tab=tab,
        tabs=[(f"{base}/{key}" if key else base, title, key == tab) for key, title in TABS.items()],
        words=words,
        actions=ACTIONS,
        refresh_seconds=REFRESH_SECONDS,
        **more,
    )


async def _show_joined(page: Page[Any], joined: dict[str, Any]) -> Response:
    failures = await page.api.get(
        "/v1.0/deviceManagement/troubleshootingEvents",
        **{"$filter": f"deviceId eq '{joined['deviceId']}'", "$top": 5},
    )
    text = page.language.text
    return page.render(
        "mdm/device_joined.html",
        device=joined,
        failures=[
            (item, words.enrolment_failure(item["failureCode"])) for item in failures["value"]
        ],
        facts=[
            Fact(labels.DIRECTORY_ID, joined["deviceId"]),
            Fact(N_("Join"), text(words.JOIN.get(joined["trustType"], joined["trustType"] or ""))),
            Fact(N_("Enabled"), bool(joined["accountEnabled"])),
            Fact(N_("Operating system"), joined["operatingSystem"]),
            Fact(N_("OS version"), joined["operatingSystemVersion"]),
            Fact(N_("Registered at"), _at(joined["registrationDateTime"])),
            Fact(N_("Last sign-in"), _at(joined["approximateLastSignInDateTime"])),
        ],
        words=words,
        refresh_seconds=REFRESH_SECONDS,
    )


def _at(value: Any) -> Any:
    from tandem.console.pages import moment

    found = moment(value)
    return None if found is None or found.year < 1900 else found


async def _overview(
    page: Page[Any], device: dict[str, Any], joined: dict[str, Any] | None
) -> dict[str, Any]:
    text = page.language.text
    late = (await overdue(page, [device["id"]])).get(device["id"])
    return {
        "orders": await device_orders.of_device(page, device["id"]),
        "orders_base": device_orders.BASE,
        "overdue": bool(late),
        "set_aside": await troubled.set_aside(page, device["id"]),
        "release_url": troubled.release_url,
        "certificates": (
            await page.api.get(f"/v1.0/tandem/managedDevices/{device['id']}/certificates")
        )["value"],
        "facts": [
            Fact(labels.OWNER, device["userPrincipalName"]),
            Fact(
                N_("Ownership"),
                text(words.OWNERSHIP.get(device["managedDeviceOwnerType"], "")),
            ),
            Fact(N_("OS version"), device["osVersion"]),
            Fact(N_("Manufacturer"), device["manufacturer"]),
            Fact(labels.MODEL, device["model"]),
            Fact(labels.SERIAL, device["serialNumber"]),
            Fact(labels.ENROLLED_AT, _at(device["enrolledDateTime"])),
            Fact(labels.LAST_CHECK_IN, _at(device["lastSyncDateTime"])),
            *([Fact(N_("Overdue since"), _at(late))] if late else []),
            Fact(
                N_("Management certificate ends"),
                _at(device["managementCertificateExpirationDate"]),
            ),
            Fact(labels.MDM_ID, device["id"]),
            Fact(labels.DIRECTORY_ID, device["azureADDeviceId"]),
            Fact(
                N_("Join"),
                text(words.JOIN.get(joined["trustType"], "")) if joined else "",
            ),
            Fact(N_("Notes"), device["notes"]),
        ],
    }


async def _timeline(
    page: Page[Any], device: dict[str, Any], joined: dict[str, Any] | None
) -> dict[str, Any]:
    found = await page.api.get(f"{MANAGED}/{device['id']}/timeline")
    source = page.language.text(N_("MDM service"))
    return {
        "items": [
            (
                at,
                source,
                page.language.said(item["text"] or ""),
                bool(item["code"]),
                item["traceId"],
            )
            for item in found["value"]
            if (at := _at(item["dateTime"])) is not None
        ]
    }


async def _apps(
    page: Page[Any], device: dict[str, Any], joined: dict[str, Any] | None
) -> dict[str, Any]:
    found = await page.api.get(f"/v1.0/tandem/managedDevices/{device['id']}/apps")
    return {
        "rows": found["value"],
        "client_of": apps.client_of,
        "hexadecimal": apps.hexadecimal,
    }


async def choose_app(page: Page[Any]) -> Response:
    """An administrator chooses an app for a device's user, or takes the choice back."""
    await page.form()
    device, app = (page.request.path_params[name] for name in ("device_id", "app_id"))
    asks = page.request.url.path.endswith("/request")
    call = "requestApp" if asks else "withdrawApp"
    base = f"/v1.0/tandem/managedDevices/{quote(device, safe='')}"
    await page.api.post(f"{base}/{call}", {"mobileAppId": app})
    said = (
        N_("The app is installed at the device's next check-in.")
        if asks
        else N_("The app is not installed any more where it is not there yet.")
    )
    return page.to(f"{ROOT}/devices/{device}/apps", said)


async def _configuration(
    page: Page[Any], device: dict[str, Any], joined: dict[str, Any] | None
) -> dict[str, Any]:
    found = await page.api.get(f"{MANAGED}/{device['id']}/settings")
    return {"rows": [(item, _setting(item), settings.title(page, item)) for item in found["value"]]}


def _setting(item: Mapping[str, Any]) -> tuple[str, str]:
    """(kind, words) of where a setting stands on a device."""
    if item["outcome"] == "pending" and item["delivered"] is not None:
        return "waiting", N_("Changes at the next check-in")
    return words.OUTCOME.get(item["outcome"], ("plain", item["outcome"]))


async def _compliance(
    page: Page[Any], device: dict[str, Any], joined: dict[str, Any] | None
) -> dict[str, Any]:
    found = await page.api.get(f"{MANAGED}/{device['id']}/deviceCompliancePolicyStates")
    return {"rows": found["value"]}


async def _comanagement(
    page: Page[Any], device: dict[str, Any], joined: dict[str, Any] | None
) -> dict[str, Any]:
    features = device["configurationManagerClientEnabledFeatures"]
    client = device["configurationManagerClientInformation"] or {}
    health = device["configurationManagerClientHealthState"] or {}
    step = int(client.get("setupState") or 0)
    return {
        "owners": [
            (labels.WORKLOAD[workload], features[name]) for name, workload in _FEATURES.items()
        ]
        if features
        else [],
        "setup": words.setup_step(step, client.get("setupCode") or 0),
        "log": client.get("setupLog") or "",
        "facts": [
            Fact(labels.REGISTERED, bool(client.get("clientIdentifier"))),
            Fact(labels.CLIENT_ID, client.get("clientIdentifier")),
            Fact(labels.AGENT, client.get("clientVersion")),
            Fact(labels.POLICY_PRESENT, bool(client.get("policyPresent"))),
            Fact(labels.FLAGS, str(client["workloadFlags"]) if client else ""),
            Fact(N_("Told at"), _at(health.get("lastSyncDateTime"))),
        ],
    }


_TAB = {
    "": _overview,
    "timeline": _timeline,
    "apps": _apps,
    "configuration": _configuration,
    "compliance": _compliance,
    "comanagement": _comanagement,
}


# ---------------------------------------------------------------------------------- actions


def body_of(action: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """What Graph takes with an action."""
    if action == "windowsDefenderScan":
        return {"quickScan": values.get("quickScan") != "full"}
    if action == "setDeviceName":
        return {"deviceName": values["deviceName"]}
    return {item.name: bool(values.get(item.name)) for item in OPTIONS.get(action, ())}


async def _order(page: Page[Any], id: str, action: str, values: Mapping[str, Any]) -> None:
    await page.api.post(f"{MANAGED}/{quote(id, safe='')}/{action}", body_of(action, values))


async def _order_away(
    page: Page[Any], ids: Sequence[str], action: str, values: Mapping[str, Any]
) -> Response:
    """What nothing brings back is one order for all, with its safeguards."""
    body = {
        **body_of(action, values),
        "action": action,
        "devices": list(ids),
        "reason": values.get("reason") or "",
    }
    made = await page.api.post("/v1.0/tandem/orderAction", body)
    name = page.language.text(words.ACTION[action])
    to = f"{ROOT}/devices/{quote(ids[0], safe='')}" if len(ids) == 1 else device_orders.BASE
    if made["state"] == "approval":
        said = N_("%(action)s waits for a second administrator.")
    elif made["state"] == "held":
        said = N_("%(action)s was ordered; it can be cancelled for now.")
    else:
        said = N_("%(action)s was ordered.")
    return page.to(to, said, action=name)


async def act(page: Page[Any]) -> Response:
    """Asked for with what it does to which device, then ordered."""
    action = page.request.path_params["action"]
    if action not in ACTIONS:
        raise UnknownPage(N_("There is no such action."))
    managed, _joined_device = await _find(page)
    if managed is None:
        raise UnknownPage(labels.NO_SUCH_DEVICE, cure=labels.NO_SUCH_DEVICE_CURE)
    if page.request.method == "GET":
        return await _ask(page, managed, action, {}, {}, 200)
    form = await page.form()
    fields = options(action)
    values, problems = read(fields, form, page.form_lists)
    if problems:
        return await _ask(page, managed, action, values, problems, 422)
    try:
        if action in DANGEROUS:
            return await _order_away(page, [managed["id"]], action, values)
        await _order(page, managed["id"], action, values)
    except AppError as error:
        at = str(error.details.get("field", ""))
        if any(item.name == at for item in fields):
            return await _ask(page, managed, action, values, {at: error}, 422)
        if error.kind in _REFUSALS:
            return await _ask(page, managed, action, values, {}, 422, error)
        raise
    return page.to(
        f"{ROOT}/devices/{managed['id']}",
        N_("%(action)s was ordered for %(device)s."),
        action=page.language.text(words.ACTION[action]),
        device=managed["deviceName"],
    )


# Of an order: said where it was asked for.
_REFUSALS = (Kind.RATE_LIMITED, Kind.CONFLICT)


async def _reach(page: Page[Any], ids: Sequence[str], action: str) -> dict[str, Any] | None:
    """How far something goes that nothing brings back."""
    if action not in DANGEROUS:
        return None
    body = {"action": action, "devices": list(ids)}
    try:
        return dict(await page.api.post("/v1.0/tandem/assessAction", body))
    except AppError as error:
        if error.kind is Kind.FORBIDDEN:
            return None  # Who may only read is told so when ordering.
        raise


async def _ask(
    page: Page[Any],
    device: Mapping[str, Any],
    action: str,
    values: Mapping[str, Any],
    problems: Mapping[str, AppError],
    status: int,
    general: AppError | None = None,
) -> Response:
    return page.render(
        "mdm/device_action.html",
        status,
        general=general,
        reach=await _reach(page, [device["id"]], action),
        names=[device["deviceName"]],
        users=[device["userPrincipalName"]],
        ids=[],
        action=action,
        title=words.ACTION[action],
        text=WHAT_IT_DOES[action],
        fields=await drawn(page, options(action), values, problems),
        danger=action in DANGEROUS,
        back=f"{ROOT}/devices/{device['id']}",
        to=f"{ROOT}/devices/{device['id']}/actions/{action}",
    )


async def bulk(page: Page[Any]) -> Response:
    """One action for several devices: named with all of them first, then a result for each."""
    form = await page.form()
    action = form.get("action", "")
    ids = list(dict.fromkeys(page.form_lists.get("device", ())))[:MOST_AT_ONCE]
    if action not in BULK or not ids:
        return page.to(f"{ROOT}/devices", N_("Choose devices, and what to do with them."))
    found = await page.api.get(
        MANAGED,
        **{
            "$filter": "id in (" + ",".join(lists.quoted(id) for id in ids) + ")",
            "$select": "id,deviceName,userPrincipalName",
            "$top": MOST_AT_ONCE,
        },
    )
    devices = found["value"]
    if not devices:
        return page.to(f"{ROOT}/devices", N_("Choose devices, and what to do with them."))
    values, problems = read(options(action), form, page.form_lists)
    general: AppError | None = None
    confirmed = form.get("confirmed") == "1"
    if confirmed and action in DANGEROUS:
        try:
            return await _order_away(page, [item["id"] for item in devices], action, values)
        except AppError as error:
            at = str(error.details.get("field", ""))
            if any(item.name == at for item in options(action)):
                problems = {at: error}
            elif error.kind in _REFUSALS:
                general = error
            else:
                raise
    if general or problems or not confirmed:
        return page.render(
            "mdm/device_action.html",
            422 if general or problems else 200,
            general=general,
            reach=await _reach(page, [item["id"] for item in devices], action),
            names=[item["deviceName"] for item in devices],
            users=sorted({item["userPrincipalName"] for item in devices}),
            ids=[item["id"] for item in devices],
            action=action,
            title=words.ACTION[action],
            text=WHAT_IT_DOES[action],
            fields=await drawn(page, options(action), values, problems),
            danger=action in DANGEROUS,
            back=f"{ROOT}/devices",
            to=f"{ROOT}/devices/bulk",
        )
    results: list[tuple[Mapping[str, Any], AppError | None]] = []
    for item in devices:
        try:
            await _order(page, item["id"], action, values)
            results.append((item, None))
        except AppError as error:
            if error.kind is Kind.UNAUTHENTICATED:
                raise
            results.append((item, error))
    known = {item["id"] for item in devices}
    gone = [id for id in ids if id not in known]
    return page.render(
        "mdm/device_results.html", title=words.ACTION[action], results=results, gone=gone
    )


EDITABLE: tuple[Field, ...] = (
    field(
        "managedDeviceName",
        N_("Name in the MDM service"),
        limit=256,
        hint=N_("For administrators; the computer keeps its own name."),
    ),
    field(
        "managedDeviceOwnerType",
        N_("Ownership"),
        "radio",
        required=True,
        options=(
            ("company", words.OWNERSHIP["company"]),
            ("personal", words.OWNERSHIP["personal"]),
        ),
    ),
    field("notes", N_("Notes"), "textarea", limit=4000),
)


async def properties(page: Page[Any]) -> Response:
    """What an administrator writes about a device."""
    managed, _joined_device = await _find(page)
    if managed is None:
        raise UnknownPage(labels.NO_SUCH_DEVICE, cure=labels.NO_SUCH_DEVICE_CURE)
    values: dict[str, Any] = {item.name: managed.get(item.name) or "" for item in EDITABLE}
    status = 200
    problems: dict[str, AppError] = {}
    general: AppError | None = None
    base = f"{ROOT}/devices/{managed['id']}"
    if page.request.method == "POST":
        values, problems = read(EDITABLE, await page.form(), page.form_lists)
        status = 422
        if not problems:
            try:
                body = {**values, "notes": values["notes"] or None}
                await page.api.patch(f"{MANAGED}/{managed['id']}", body)
                said = N_("%(name)s was saved.")
                return page.to(base, said, name=managed["deviceName"])
            except AppError as error:
                at = str(error.details.get("field", ""))
                if any(item.name == at for item in EDITABLE):
                    problems = {at: error}
                else:
                    general = error
    return page.render(
        "mdm/device_form.html",
        status,
        device=managed,
        base=base,
        fields=await drawn(page, EDITABLE, values, problems),
        general=general,
    )


async def delete_joined(page: Page[Any]) -> Response:
    """A device of the directory that nobody manages goes for good."""
    managed, joined = await _find(page)
    if joined is None or managed is not None:
        raise UnknownPage(labels.NO_SUCH_DEVICE, cure=labels.NO_SUCH_DEVICE_CURE)
    name, text = joined["displayName"], page.language.text
    if page.request.method == "GET":
        return page.confirm(
            text(N_("Delete %(name)s?"), name=name),
            text(
                N_("The device leaves the directory: it has to join again, and loses its groups.")
            ),
            text(N_("Delete")),
            back=f"{ROOT}/devices/{joined['deviceId']}",
        )
    await page.form()
    await page.api.delete(f"{JOINED}/{joined['id']}")
    return page.to(f"{ROOT}/devices?view=joined", N_("%(name)s was deleted."), name=name)


# ---------------------------------------------------------------------------------- the shell


async def search(page: Page[Any], query: str) -> list[Hit]:
    found = await page.api.get(
        MANAGED,
        **{
            "$filter": lists.begins(query, "deviceName", "userPrincipalName", "serialNumber"),
            "$select": "id,deviceName,userPrincipalName",
            "$top": 10,
        },
    )
    hits = [
        Hit(N_("Devices"), item["deviceName"], item["userPrincipalName"] or "",
            f"{ROOT}/devices/{item['id']}")
        for item in found["value"]
    ]  # fmt: skip
    joined = await page.api.get(
        JOINED,
        **{
            "$filter": lists.both("isManaged eq false", lists.begins(query, "displayName")),
            "$select": "deviceId,displayName",
            "$top": 10,
        },
    )
    hits += [
        Hit(N_("Devices"), item["displayName"], page.language.text(N_("Joined only")),
            f"{ROOT}/devices/{item['deviceId']}")
        for item in joined["value"]
    ]  # fmt: skip
    return hits


async def notices(page: Page[Any]) -> list[Notice]:
    """Wipes that wait or failed: what an administrator wants to see the end of."""
    found = await page.api.get(
        MANAGED,
        **{
            "$filter": "managementState in ('wipePending','wipeIssued','wipeFailed')",
            "$select": "id,deviceName,managementState",
            "$top": 10,
        },
    )
    return [
        Notice(
            title=N_("%(name)s is being wiped")
            if item["managementState"] != "wipeFailed"
            else N_("%(name)s refused to be wiped"),
            values={"name": item["deviceName"]},
            state="bad" if item["managementState"] == "wipeFailed" else "waiting",
            url=f"{ROOT}/devices/{item['id']}",
        )
        for item in found["value"]
    ]
