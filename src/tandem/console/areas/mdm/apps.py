"""The tenant's apps: list, page, properties, assignments, what became of them, another package."""

from collections.abc import AsyncIterator, Mapping
from typing import Any
from urllib.parse import quote

from starlette.responses import RedirectResponse, Response

from tandem.console.areas.mdm import app_wizard, assigning, lists, packages, words
from tandem.console.areas.mdm.packages import APPS
from tandem.console.kit import (
    CHANGED,
    N_,
    ROOT,
    Fact,
    Hit,
    Notice,
    Page,
    Problem,
    Values,
    csv,
    drawn,
    read,
)
from tandem.infra.errors import AppError, Kind

# Counting the devices of an app costs more than a look at its package.
REFRESH_SECONDS = 15
PUBLISHING_SECONDS = 3
TABS = {
    "": N_("Overview"),
    "properties": N_("Properties"),
    "assignments": N_("Assignments"),
    "devices": N_("Device install status"),
    "users": N_("User install status"),
}
COLUMNS = (
    ("displayName", N_("Name")),
    ("", N_("Type")),
    ("", N_("Publisher")),
    ("", N_("Version")),
    ("publishingState", N_("State")),
    ("", N_("Assigned")),
    ("lastModifiedDateTime", N_("Changed")),
)
CONFLICT = N_("Somebody else has changed this in the meantime; what you typed is still here.")
CONFLICT_CURE = N_("Look at what is there now, and save again to put yours in its place.")


def path(id: str) -> str:
    return f"{APPS}/{quote(id, safe='')}"


def sort_of(app: Mapping[str, Any]) -> str:
    return str(app["@odata.type"]).rpartition(".")[2]


async def index(page: Page[Any]) -> Response:
    asked = lists.Asked.of(page, sorts=("displayName", "publishingState", "lastModifiedDateTime"))
    found = await page.api.get(
        APPS,
        **{
            "$filter": lists.begins(asked.search, "displayName", "publisher"),
            "$orderby": asked.order or "displayName",
            "$expand": "assignments",
            **asked.slice,
        },
    )
    assigned = await _assigned(page, found["value"])
    return page.render(
        "mdm/apps.html",
        rows=found["value"],
        assigned=assigned,
        asked=asked,
        total=found.get("@odata.count", len(found["value"])),
        pages=asked.pages(found.get("@odata.count", len(found["value"]))),
        columns=COLUMNS,
        words=words,
        sort_of=sort_of,
        refresh_seconds=REFRESH_SECONDS,
    )


async def _assigned(page: Page[Any], apps: list[dict[str, Any]]) -> dict[str, str]:
    """In a line, whom each app is for."""
    names = await assigning.group_names(page, [one for app in apps for one in app["assignments"]])
    found = {}
    for app in apps:
        values = assigning.values_of(app["assignments"], names)
        parts = []
        for intent in assigning.INTENTS:
            if line := assigning.said(page, values, intent):
                parts.append(f"{page.language.text(words.INTENT[intent])}: {line}")
        found[app["id"]] = "; ".join(parts)
    return found


# ---------------------------------------------------------------------------------- one app


async def _app(page: Page[Any]) -> tuple[dict[str, Any], str]:
    answer = await page.api.ask("GET", path(page.request.path_params["app_id"]))
    return answer.json, answer.etag


def _frame(
    app: Mapping[str, Any], tab: str, refresh_seconds: int = REFRESH_SECONDS
) -> dict[str, Any]:
    base = f"{ROOT}/apps/{app['id']}"
    return {
        "app": app,
        "tab": tab,
        "tabs": [
            (f"{base}/{key}" if key else base, title, key == tab) for key, title in TABS.items()
        ],
        "base": base,
        "words": words,
        "sort": sort_of(app),
        "refresh_seconds": refresh_seconds,
    }


async def overview(page: Page[Any]) -> Response:
    app, _ = await _app(page)
    counts = await page.api.get(f"/v1.0/tandem/mobileApps/{app['id']}/installSummary")
    given = (await page.api.get(f"{path(app['id'])}/assignments"))["value"]
    values = await assigning.held(page, given)
    far = await assigning.reach(page, values) if assigning.targets(values, "required") else None
    coming = await packages.newest(page, app)
    waiting = coming is not None and coming["state"] == "commitFilePending"
    sort = sort_of(app)
    facts = [
        Fact(N_("Type"), page.language.text(words.APP_TYPE.get(sort, sort))),
        Fact(N_("Publisher"), app.get("publisher")),
        Fact(N_("Version"), app.get("productVersion") or app.get("displayVersion")),
        Fact(N_("Product code"), app.get("productCode")),
        Fact(N_("Package file"), app.get("fileName")),
        Fact(N_("Size in bytes"), app.get("size")),
        Fact(N_("Content version"), app.get("committedContentVersion")),
        Fact(N_("Command-line arguments"), app.get("commandLine") or app.get("installCommandLine")),
        Fact(N_("Description"), app.get("description")),
        Fact(N_("Developer"), app.get("developer")),
        Fact(N_("Owner"), app.get("owner")),
        Fact(N_("Notes"), app.get("notes")),
    ]
    base = f"{ROOT}/apps/{app['id']}/devices"
    tiles = [
        (words.INSTALLATION[state][1], counts[f"{state}Count"], f"{base}?state={state}",
         words.INSTALLATION[state][0])
        for state in (
            "installed", "installing", "offered", "notInstalled", "failed", "excluded",
            *(more for more in ("withheld", "available", "absent") if counts[f"{more}Count"]),
        )
    ]  # fmt: skip
    return page.render(
        "mdm/app.html",
        **_frame(app, "", PUBLISHING_SECONDS if waiting else REFRESH_SECONDS),
        facts=facts,
        counts=counts,
        tiles=tiles,
        lines=[
            (words.INTENT[intent], assigning.said(page, values, intent))
            for intent in assigning.INTENTS
            if assigning.said(page, values, intent)
        ],
        far=far,
        coming=coming,
        waiting=waiting,
    )


async def properties(page: Page[Any]) -> Response:
    app, etag = await _app(page)
    values: Values = {
        "package": {"type": sort_of(app), "app": app["id"], "file": app.get("fileName")},
        "name": app["displayName"],
        "description": app.get("description") or "",
        "publisher": app.get("publisher") or "",
        "command_line": app.get("commandLine") or "",
        "ignore_version": bool(app.get("ignoreVersionDetection")),
        **app_wizard.timing(app),
        "install_command": app.get("installCommandLine") or "",
        "uninstall_command": app.get("uninstallCommandLine") or "",
        "information_url": app.get("informationUrl") or "",
        "privacy_url": app.get("privacyInformationUrl") or "",
        "developer": app.get("developer") or "",
        "owner": app.get("owner") or "",
        "notes": app.get("notes") or "",
        **_detection(app),
    }
    held = (await page.api.get(f"{path(app['id'])}/categories"))["value"]
    values["category"] = held[0]["id"] if held else ""
    return await _properties(page, app, values, {}, etag, 200)


def _detection(app: Mapping[str, Any]) -> dict[str, str]:
    found = {"detect_product": "", "detect_file": ""}
    for rule in app.get("rules") or []:
        if rule.get("productCode"):
            found["detect_product"] = str(rule["productCode"])
        elif rule.get("fileOrFolderName"):
            found["detect_file"] = f"{rule.get('path')}\\{rule['fileOrFolderName']}"
    return found


async def _properties(
    page: Page[Any],
    app: dict[str, Any],
    values: Values,
    problems: dict[str, AppError],
    etag: str,
    status: int,
    general: AppError | None = None,
) -> Response:
    fields = await drawn(page, app_wizard.INFORMATION, values, problems)
    return page.render(
        "mdm/app_form.html",
        status,
        **_frame(app, "properties"),
        fields=fields,
        etag=etag,
        general=general,
        far=None,
        action=f"{ROOT}/apps/{app['id']}/properties",
    )


async def save_properties(page: Page[Any]) -> Response:
    form = await page.form()
    app, etag = await _app(page)
    sort = sort_of(app)
    values, problems = read(app_wizard.INFORMATION, form, page.form_lists)
    values["package"] = {"type": sort, "app": app["id"], "file": app.get("fileName")}
    for item in app_wizard.INFORMATION:
        if not item.shown(values):
            problems.pop(item.name, None)
    try:
        if not problems:
            await app_wizard.check_name(page, values["name"], app["id"])
            if sort == packages.MSI:
                app_wizard.check_line(values["command_line"], values["package"])
            body = app_wizard.properties(values, sort)
            await page.api.patch(path(app["id"]), body, version=form.get("version", ""))
            await _categorise(page, app["id"], values["category"])
            said = N_("The properties of %(name)s were saved.")
            return page.to(f"{ROOT}/apps/{app['id']}", said, name=values["name"])
    except AppError as error:
        if error.code == CHANGED:
            conflict = Problem("", CONFLICT, cure=CONFLICT_CURE)
            return await _properties(page, app, values, {}, etag, 409, conflict)
        at = str(error.details.get("field", ""))
        if not any(item.name == at for item in app_wizard.INFORMATION):
            return await _properties(page, app, values, {}, form.get("version", ""), 422, error)
        problems = {at: error}
    return await _properties(page, app, values, problems, form.get("version", ""), 422)


async def _categorise(page: Page[Any], id: str, category: str) -> None:
    held = [item["id"] for item in (await page.api.get(f"{path(id)}/categories"))["value"]]
    for old in held:
        if old != category:
            await page.api.delete(f"{path(id)}/categories/{old}/$ref")
    if category and category not in held:
        base = "https://graph.microsoft.com/v1.0/deviceAppManagement/mobileAppCategories"
        await page.api.post(f"{path(id)}/categories/$ref", {"@odata.id": f"{base}/{category}"})


# ---------------------------------------------------------------------------------- assignments


async def assignments(page: Page[Any]) -> Response:
    app, _ = await _app(page)
    given = (await page.api.get(f"{path(app['id'])}/assignments"))["value"]
    values = await assigning.held(page, given)
    return await _assignments(page, app, values, {}, assigning.digest(given), 200)


async def _assignments(
    page: Page[Any],
    app: dict[str, Any],
    values: Values,
    problems: dict[str, AppError],
    version: str,
    status: int,
    general: AppError | None = None,
) -> Response:
    fields = await assigning.pickers(page, assigning.APP_FIELDS, values, problems)
    far = await assigning.reach(page, values) if assigning.targets(values, "required") else None
    return page.render(
        "mdm/app_form.html",
        status,
        **_frame(app, "assignments"),
        fields=fields,
        etag=version,
        general=general,
        far=far,
        action=f"{ROOT}/apps/{app['id']}/assignments",
    )


async def save_assignments(page: Page[Any]) -> Response:
    """Saved once the form says that its reach has been seen; before that it is shown."""
    form = await page.form(512 * 1024)
    app, _ = await _app(page)
    values, _ignored = read(assigning.APP_FIELDS, form, page.form_lists)
    for item in assigning.APP_FIELDS:
        if item.kind == "picker":
            values[f"{item.name}--names"] = lists.names(page, item.name)
    given = (await page.api.get(f"{path(app['id'])}/assignments"))["value"]
    version = form.get("version", "")
    if any(name.endswith("--search") for name in form):
        return await _assignments(page, app, values, {}, version, 200)
    try:
        assigning.check(values)
        win32 = sort_of(app) == packages.WIN32
        await assigning.check_kinds(page, values, win32=win32)
    except Problem as problem:
        return await _assignments(page, app, values, {problem.field: problem}, version, 422)
    now = assigning.digest(given)
    if version != now:
        conflict = Problem("", CONFLICT, cure=CONFLICT_CURE)
        return await _assignments(page, app, values, {}, now, 409, conflict)
    try:
        body = {"mobileAppAssignments": assigning.assignments(values)}
        await page.api.post(f"{path(app['id'])}/assign", body)
    except AppError as error:
        return await _assignments(page, app, values, {}, version, 422, error)
    far = await assigning.reach(page, values) if assigning.targets(values, "required") else None
    return page.to(
        f"{ROOT}/apps/{app['id']}",
        N_("%(name)s is assigned: required on %(devices)s enrolled devices."),
        name=app["displayName"],
        devices=page.language.number(far.devices if far else 0),
    )


# ---------------------------------------------------------------------------------- statuses


DEVICE_COLUMNS = (
    ("deviceName", N_("Device name")),
    ("userPrincipalName", N_("Primary user")),
    ("intent", N_("Intent")),
    ("installState", N_("State of the app")),
    ("", N_("What to do")),
    ("", N_("Client")),
    ("lastSyncDateTime", N_("Last change")),
)


def _device_query(asked: lists.Asked, state: str) -> dict[str, Any]:
    conditions = [lists.begins(asked.search, "deviceName", "userPrincipalName")]
    if state in words.INSTALLATION:
        conditions.append(f"installState eq '{state}'")
    return {
        "$filter": lists.both(*conditions),
        "$orderby": asked.order or "deviceName",
        **asked.slice,
    }


async def devices(page: Page[Any]) -> Response:
    app, _ = await _app(page)
    asked = lists.Asked.of(
        page,
        sorts=("deviceName", "userPrincipalName", "intent", "installState", "lastSyncDateTime"),
    )
    state = page.request.query_params.get("state", "")
    found = await page.api.get(
        f"/v1.0/tandem/mobileApps/{app['id']}/deviceStatuses", **_device_query(asked, state)
    )
    counts = await page.api.get(f"/v1.0/tandem/mobileApps/{app['id']}/installSummary")
    total = found.get("@odata.count", len(found["value"]))
    return page.render(
        "mdm/app_devices.html",
        **_frame(app, "devices"),
        rows=found["value"],
        asked=asked,
        state=state if state in words.INSTALLATION else "",
        brings_client=counts["bringsClient"],
        columns=DEVICE_COLUMNS if counts["bringsClient"] else [
            column for column in DEVICE_COLUMNS if column[1] != "Client"
        ],
        total=total,
        pages=asked.pages(total),
        client_of=client_of,
        hexadecimal=hexadecimal,
    )  # fmt: skip


def hexadecimal(code: int) -> str:
    return f"0x{code & 0xFFFFFFFF:08X}"


def client_of(row: Mapping[str, Any]) -> tuple[str, str, str]:
    """(kind, state, more) of the client that the app brings, apart from the app itself."""
    client = row["client"]
    if client["policyPresent"]:
        return "good", N_("Registered, with its policy"), ""
    step = int(client["step"] or 0)
    why = words.setup_step(step, client["code"] or 0)
    if client["registered"]:
        return "waiting", N_("Registered; its policy has not arrived"), why
    if row["installState"] != "installed":
        return "plain", N_("Not there yet"), ""
    if 300 <= step < 400 or step >= 600:
        return "bad", N_("Its setup failed"), why
    return "waiting", N_("Its setup has not ended"), why


async def devices_csv(page: Page[Any]) -> Response:
    app, _ = await _app(page)
    text = page.language.text
    asked = lists.Asked.of(page)
    state = page.request.query_params.get("state", "")
    query = {**_device_query(asked, state), "$top": 500, "$skip": None, "$orderby": ""}

    async def rows() -> AsyncIterator[list[Any]]:
        base = f"/v1.0/tandem/mobileApps/{app['id']}/deviceStatuses"
        async for row in lists.every(page, base, query):
            code, error = row["errorCode"], row["error"]
            said = page.language.said
            yield [
                row["deviceName"],
                row["userPrincipalName"],
                text(words.RESOLVED.get(row["intent"], row["intent"])),
                text(words.INSTALLATION.get(row["installState"], ("", row["installState"]))[1]),
                hexadecimal(code) if code else "",
                f"{said(error['message'])} {said(error['cure'])}" if error else "",
                text(client_of(row)[1]),
                row["client"]["stuckAt"],
                row["lastSyncDateTime"],
            ]

    header = (
        N_("Device name"),
        N_("Primary user"),
        N_("Intent"),
        N_("State of the app"),
        N_("Code"),
        N_("What to do"),
        N_("Client"),
        N_("Stands still at"),
        N_("Last change"),
    )
    return csv("app-devices", [text(title) for title in header], rows())


USER_COLUMNS = (
    ("userPrincipalName", N_("User")),
    ("deviceCount", N_("Devices")),
    ("installedCount", N_("Installed")),
    ("failedCount", N_("Failed")),
    ("waitingCount", N_("Waiting")),
    ("excludedCount", N_("Excluded")),
)


async def users(page: Page[Any]) -> Response:
    app, _ = await _app(page)
    asked = lists.Asked.of(page, sorts=tuple(name for name, _ in USER_COLUMNS))
    found = await page.api.get(
        f"/v1.0/tandem/mobileApps/{app['id']}/userStatuses",
        **{
            "$filter": lists.begins(asked.search, "userPrincipalName"),
            "$orderby": asked.order or "userPrincipalName",
            **asked.slice,
        },
    )
    total = found.get("@odata.count", len(found["value"]))
    return page.render(
        "mdm/app_users.html",
        **_frame(app, "users"),
        rows=found["value"],
        asked=asked,
        columns=USER_COLUMNS,
        total=total,
        pages=asked.pages(total),
    )


async def ask_again(page: Page[Any]) -> Response:
    """A device checks in, and what failed is offered to it anew."""
    await page.form()
    app, _ = await _app(page)
    device = page.request.path_params["device_id"]
    await page.api.post(
        f"/v1.0/deviceManagement/managedDevices/{quote(device, safe='')}/syncDevice", {}
    )
    return page.to(f"{ROOT}/apps/{app['id']}/devices", N_("The device is asked to check in."))


# ---------------------------------------------------------------------------------- packages


async def package(page: Page[Any]) -> Response:
    app, _ = await _app(page)
    return await _package(page, app, None, 200)


async def _package(
    page: Page[Any], app: dict[str, Any], problem: AppError | None, status: int
) -> Response:
    return page.render(
        "mdm/app_package.html",
        status,
        **_frame(app, ""),
        problem_found=problem,
        action=f"{ROOT}/apps/{app['id']}/package",
    )


async def replace_package(page: Page[Any]) -> Response:
    """Another package for an app: a new content version, in force once it has been checked."""
    app, _ = await _app(page)
    try:
        upload, _fields = await packages.received(page)
    except packages.CutOff:
        return Response(status_code=400)
    except Problem as problem:
        return await _package(page, app, problem, 422)
    if upload is None:
        return await _package(page, app, Problem("package", packages.CHOOSE), 422)
    to = f"{ROOT}/apps/{app['id']}"
    try:
        sent = await packages.sent(page, upload, {"id": app["id"], "type": sort_of(app)})
        await packages.published(page, sent)
    except AppError as error:
        if error.kind is not Kind.INVALID or error.message == packages.STILL_CHECKED:
            return page.to(to, packages.STILL_CHECKED)
        return await _package(page, app, error, 422)
    finally:
        await upload.close()
    said = N_("%(name)s has its new package, version %(version)s.")
    return page.to(to, said, name=app["displayName"], version=sent["version"] or sent["content"])


async def publish(page: Page[Any]) -> Response:
    """The newest content in force, after it has been checked."""
    await page.form()
    app, _ = await _app(page)
    coming = await packages.newest(page, app)
    to = f"{ROOT}/apps/{app['id']}"
    if coming is None:
        return page.to(to)
    try:
        await packages.published(page, coming)
    except Problem as problem:
        return page.to(to, problem.message, **problem.values)
    return page.to(to, N_("%(name)s is published."), name=app["displayName"])


async def delete(page: Page[Any]) -> Response:
    app, etag = await _app(page)
    text = page.language.text
    if page.request.method == "GET":
        counts = await page.api.get(f"/v1.0/tandem/mobileApps/{app['id']}/installSummary")
        has = page.language.plural(
            "%(number)s device has it and keeps it.",
            "%(number)s devices have it and keep it.",
            counts["installedCount"],
        )
        waiting = counts["notInstalledCount"] + counts["offeredCount"] + counts["installingCount"]
        waits = page.language.plural(
            "%(number)s device that waits for it does not get it.",
            "%(number)s devices that wait for it do not get it.",
            waiting,
        )
        return page.confirm(
            text(N_("Delete %(name)s?"), name=app["displayName"]),
            text(N_("The app goes with its packages and its assignments.")),
            text(N_("Delete")),
            back=f"{ROOT}/apps/{app['id']}",
            fields={"version": etag},
            items=[has, waits],
        )
    form = await page.form()
    await page.api.delete(path(app["id"]), version=form.get("version", ""))
    return page.to(f"{ROOT}/apps", N_("%(name)s was deleted."), name=app["displayName"])


# ---------------------------------------------------------------------------------- the shell


async def search(page: Page[Any], query: str) -> list[Hit]:
    found = await page.api.get(APPS, **{"$filter": lists.begins(query, "displayName"), "$top": 10})
    return [
        Hit(
            N_("Apps"),
            item["displayName"],
            item.get("publisher") or "",
            f"{ROOT}/apps/{item['id']}",
        )
        for item in found["value"]
    ]


async def notices(page: Page[Any]) -> list[Notice]:
    """Packages that are being checked, or that were refused."""
    found = await page.api.get(APPS, **{"$filter": "publishingState ne 'published'", "$top": 20})
    told = []
    for app in found["value"]:
        coming = await packages.newest(page, app)
        if coming is None:
            continue
        url = f"{ROOT}/apps/{app['id']}"
        values = {"name": app["displayName"]}
        if coming["state"] == "commitFilePending":
            told.append(
                Notice(title=N_("%(name)s: its package is being checked"), values=values, url=url)
            )
        elif coming["state"] == "commitFileFailed":
            told.append(
                Notice(
                    title=N_("%(name)s: its package was refused"),
                    values=values,
                    text=coming["reason"],
                    state="bad",
                    url=url,
                )
            )
    return told


async def to_list(page: Page[Any]) -> Response:
    return RedirectResponse(f"{ROOT}/apps", 303)
