"""Co-management settings: what a new device gets of the site's client by itself, by priority."""

import shlex
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from starlette.responses import Response

from tandem.console.areas.mdm import app_wizard, assigning, lists
from tandem.console.areas.mdm.apps import CONFLICT, CONFLICT_CURE
from tandem.console.areas.mdm.policies import COMANAGEMENT, target_options, type_of
from tandem.console.kit import (
    CHANGED,
    N_,
    ROOT,
    Draft,
    Fact,
    Field,
    Outcome,
    Page,
    Problem,
    Step,
    Values,
    Wizard,
    field,
    read,
)
from tandem.infra.errors import AppError

PATH = "/v1.0/deviceManagement/deviceEnrollmentConfigurations"
BASE = f"{ROOT}/comanagement-settings"
COLUMNS = (
    ("", N_("Priority")),
    ("", N_("Name")),
    ("", N_("Installs the client")),
    ("", N_("MDM service for all workloads")),
    ("", N_("Assigned to")),
    ("", N_("Change the order")),
)
NEEDS_LINE = N_("The client cannot be installed without its parameters.")
ADVANCED_WARNING = N_(
    "Do not change this once devices are provisioned: it also concerns devices that are there"
    " already, and what it does to them is not determined."
)


async def _line(page: Page[Any], draft: Draft | None, text: str) -> None:
    app_wizard.check_line(text)


BASICS: tuple[Field, ...] = (
    field("name", N_("Name"), required=True, limit=200),
    field("description", N_("Description"), "textarea", limit=1000),
)
SETTINGS: tuple[Field, ...] = (
    field(
        "install",
        N_("Install the Configuration Manager client by itself"),
        "checkbox",
        default=True,
    ),
    field(
        "command_line",
        N_("Parameters of the client's installation"),
        "textarea",
        limit=app_wizard.MORE_THAN_A_LINE,
        rows=3,
        check=_line,
        hint=N_("One line, at most 1,024 characters. For the client: the line that the site made."),
    ),
)
ADVANCED: tuple[Field, ...] = (
    field(
        "override",
        N_("Override the co-management policy: the MDM service owns all workloads"),
        "checkbox",
        hint=ADVANCED_WARNING,
    ),
)


async def _check_settings(page: Page[Any], draft: Draft) -> None:
    check(draft.values)


def check(values: Mapping[str, Any]) -> None:
    """Raises Problem."""
    line = str(values.get("command_line") or "")
    if values.get("install") and not line.strip():
        raise Problem("command_line", NEEDS_LINE, cure=app_wizard.TAKE_THE_LINE)
    if line:
        app_wizard.check_line(line)


def body(values: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "@odata.type": f"#microsoft.graph.{COMANAGEMENT}",
        "displayName": values["name"],
        "description": values["description"],
        "installConfigurationManagerAgent": bool(values["install"]),
        "configurationManagerAgentCommandLineArgument": values["command_line"].strip(),
        "managedDeviceAuthority": int(bool(values["override"])),
    }


async def _check_assignments(page: Page[Any], draft: Draft) -> None:
    assigning.check(draft.values)
    await assigning.check_devices(page, draft.values)


async def _summary(page: Page[Any], draft: Draft) -> list[Fact]:
    values = draft.values
    found = [
        Fact(N_("Name"), values["name"]),
        Fact(N_("Installs the client"), bool(values["install"])),
        Fact(N_("Parameters of the client's installation"), values["command_line"]),
        Fact(N_("MDM service for all workloads"), bool(values["override"])),
        *await assigning.facts(page, values, intents=False),
    ]
    if values["override"]:
        found.append(Fact(N_("Warning"), page.language.text(ADVANCED_WARNING)))
    return found


async def _command(page: Page[Any], draft: Draft) -> str:
    values = draft.values
    words = ["tandem", "comanagement-settings", "create", values["name"]]
    if values["description"]:
        words += ["--description", values["description"]]
    words.append("--install" if values["install"] else "--no-install")
    if values["command_line"]:
        words += ["--command-line", values["command_line"]]
    words += ["--mdm-for-all"] if values["override"] else []
    return shlex.join([*words, *target_options(values)])


async def _finish(page: Page[Any], draft: Draft) -> Outcome:
    made = draft.values.get("made")
    if not made:
        made = (await page.api.post(PATH, body(draft.values)))["id"]
        draft.values["made"] = made
    else:
        await page.api.patch(f"{PATH}/{made}", body(draft.values))
    given = assigning.assignments(draft.values, intents=False)
    await page.api.post(f"{PATH}/{made}/assign", {"enrollmentConfigurationAssignments": given})
    return Outcome(N_("%(name)s was created."), BASE, {"name": draft.values["name"]})


WIZARD = Wizard(
    key="comanagement-settings",
    title=N_("Create a co-management settings policy"),
    back=BASE,
    steps=(
        Step(key="basics", title=N_("Basics"), fields=BASICS),
        Step(key="settings", title=N_("Settings"), fields=SETTINGS, check=_check_settings),
        Step(key="advanced", title=N_("Advanced"), fields=ADVANCED),
        Step(
            key="assignments",
            title=N_("Assignments"),
            fields=assigning.DEVICE_FIELDS,
            check=_check_assignments,
            intro=N_("This policy is for groups of devices."),
        ),
    ),
    summary=_summary,
    command=_command,
    finish=_finish,
    finish_label=N_("Create the policy"),
)


# ---------------------------------------------------------------------------------- pages


async def _every(page: Page[Any]) -> list[dict[str, Any]]:
    found = await page.api.get(PATH, **{"$top": 500})
    mine = [item for item in found["value"] if type_of(item) == COMANAGEMENT]
    return sorted(mine, key=lambda item: int(item["priority"]))


async def index(page: Page[Any]) -> Response:
    rows = await _every(page)
    given = {
        item["id"]: (await page.api.get(f"{PATH}/{item['id']}/assignments"))["value"]
        for item in rows
    }
    names = await assigning.group_names(page, [one for items in given.values() for one in items])
    return page.render(
        "mdm/comanagement_settings.html",
        rows=rows,
        assigned={
            id: assigning.said(page, assigning.values_of(items, names))
            for id, items in given.items()
        },
        columns=COLUMNS,
        base=BASE,
    )


def _path(page: Page[Any]) -> str:
    return f"{PATH}/{quote(page.request.path_params['policy_id'], safe='')}"


FIELDS = (*BASICS, *SETTINGS, *ADVANCED, *assigning.DEVICE_FIELDS)


async def edit(page: Page[Any]) -> Response:
    answer = await page.api.ask("GET", _path(page))
    item = answer.json
    given = (await page.api.get(f"{_path(page)}/assignments"))["value"]
    values = {
        "name": item["displayName"],
        "description": item.get("description") or "",
        "install": bool(item.get("installConfigurationManagerAgent")),
        "command_line": item.get("configurationManagerAgentCommandLineArgument") or "",
        "override": bool(item.get("managedDeviceAuthority")),
        **await assigning.held(page, given),
    }
    return await _form(page, item, values, {}, answer.etag, 200)


async def _form(
    page: Page[Any],
    item: Mapping[str, Any],
    values: Values,
    problems: dict[str, AppError],
    etag: str,
    status: int,
    general: AppError | None = None,
) -> Response:
    fields = await assigning.pickers(page, FIELDS, values, problems)
    return page.render(
        "mdm/comanagement_settings_form.html",
        status,
        item=item,
        fields=fields,
        etag=etag,
        general=general,
        base=BASE,
    )


async def save(page: Page[Any]) -> Response:
    form = await page.form(256 * 1024)
    answer = await page.api.ask("GET", _path(page))
    item, version = answer.json, form.get("version", "")
    values, problems = read(FIELDS, form, page.form_lists)
    for one in assigning.DEVICE_FIELDS:
        values[f"{one.name}--names"] = lists.names(page, one.name)
    if any(name.endswith("--search") for name in form):
        return await _form(page, item, values, {}, version, 200)
    try:
        if not problems:
            check(values)
            assigning.check(values)
            await assigning.check_devices(page, values)
            await page.api.patch(_path(page), body(values), version=version)
            given = assigning.assignments(values, intents=False)
            await page.api.post(
                f"{_path(page)}/assign", {"enrollmentConfigurationAssignments": given}
            )
            return page.to(BASE, N_("%(name)s was saved."), name=values["name"])
    except AppError as error:
        if error.code == CHANGED:
            conflict = Problem("", CONFLICT, cure=CONFLICT_CURE)
            return await _form(page, item, values, {}, answer.etag, 409, conflict)
        at = str(error.details.get("field", ""))
        if not any(one.name == at for one in FIELDS):
            return await _form(page, item, values, {}, version, 422, error)
        problems = {at: error}
    return await _form(page, item, values, problems, version, 422)


async def move(page: Page[Any]) -> Response:
    """To another place in the order; the others make room."""
    form = await page.form()
    text = form.get("priority", "")
    number = int(text) if text.isascii() and text.isdigit() and len(text) < 5 else 1
    await page.api.post(f"{_path(page)}/setPriority", {"priority": max(number, 1)})
    return page.to(BASE, N_("The order was changed."))


async def delete(page: Page[Any]) -> Response:
    item = await page.api.get(_path(page))
    text = page.language.text
    if page.request.method == "GET":
        given = (await page.api.get(f"{_path(page)}/assignments"))["value"]
        line = assigning.said(page, await assigning.held(page, given))
        return page.confirm(
            text(N_("Delete %(name)s?"), name=item["displayName"]),
            text(N_("New devices follow the next policy in the order.")),
            text(N_("Delete")),
            back=BASE,
            items=[text(N_("It is assigned to: %(groups)s"), groups=line)] if line else [],
        )
    await page.form()
    await page.api.delete(_path(page))
    return page.to(BASE, N_("%(name)s was deleted."), name=item["displayName"])
