"""Policies of the MDM service: every kind that Graph keeps, and which of them devices receive.

A page shows what is stored, in the service's own names of settings. Two kinds are made here, those
that devices receive: custom profiles of OMA-URIs, and policies of the settings catalogue.
"""

import asyncio
import re
import shlex
from base64 import b64decode, b64encode
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

import msgspec
from starlette.responses import Response

from tandem.console import labels
from tandem.console.areas.mdm import assigning, lists
from tandem.console.areas.mdm.apps import CONFLICT, CONFLICT_CURE
from tandem.console.kit import (
    CHANGED,
    N_,
    ROOT,
    Draft,
    Fact,
    Field,
    Hit,
    Outcome,
    Page,
    Problem,
    Step,
    UnknownPage,
    Values,
    Wizard,
    drawn,
    field,
    read,
)
from tandem.infra.errors import AppError, Kind
from tandem.workloads import Workload

GRAPH = "/beta"
BASE = f"{ROOT}/policies"
POLICY_CSP = "./Device/Vendor/MSFT/Policy/Config/"
CUSTOM = "windows10CustomConfiguration"
MOST = 500


class Sort(msgspec.Struct, frozen=True):
    """A kind of policy: where Graph has it, and whether devices receive it in this version."""

    key: str
    path: str
    title: str
    delivered: bool = False
    name: str = "displayName"
    assigned: bool = True


SORTS = (
    Sort("profiles", "deviceManagement/deviceConfigurations", N_("Configuration profile"), True),
    Sort(
        "catalogue",
        "deviceManagement/configurationPolicies",
        N_("Settings catalogue"),
        True,
        name="name",
    ),
    Sort(
        "compliance",
        "deviceManagement/deviceCompliancePolicies",
        N_("Compliance policy"),
    ),
    Sort(
        "compliance-catalogue",
        "deviceManagement/compliancePolicies",
        N_("Compliance policy (catalogue)"),
        name="name",
    ),
    Sort(
        "enrolment",
        "deviceManagement/deviceEnrollmentConfigurations",
        N_("Enrolment restriction or status page"),
    ),
    Sort(
        "autopilot",
        "deviceManagement/windowsAutopilotDeploymentProfiles",
        N_("Deployment profile"),
    ),
    Sort("scripts", "deviceManagement/deviceManagementScripts", N_("PowerShell script")),
    Sort("remediations", "deviceManagement/deviceHealthScripts", N_("Remediation")),
    Sort("templates", "deviceManagement/groupPolicyConfigurations", N_("Administrative template")),
    Sort("baselines", "deviceManagement/intents", N_("Security baseline")),
    Sort("feature-updates", "deviceManagement/windowsFeatureUpdateProfiles", N_("Feature update")),
    Sort("quality-updates", "deviceManagement/windowsQualityUpdateProfiles", N_("Quality update")),
    Sort("driver-updates", "deviceManagement/windowsDriverUpdateProfiles", N_("Driver update")),
    Sort(
        "app-configurations",
        "deviceAppManagement/mobileAppConfigurations",
        N_("App configuration"),
    ),
    Sort(
        "filters",
        "deviceManagement/assignmentFilters",
        N_("Assignment filter"),
        assigned=False,
    ),
)
BY_KEY = {sort.key: sort for sort in SORTS}
# Kept with an object, and no setting of it.
_FRAME = frozenset(
    (
        "@odata.type", "@odata.context", "id", "displayName", "name", "description", "version",
        "createdDateTime", "lastModifiedDateTime", "modifiedDateTime", "roleScopeTagIds",
        "roleScopeTags", "supportsScopeTags", "isAssigned", "assignments", "omaSettings",
        "deviceManagementApplicabilityRuleOsEdition", "deviceManagementApplicabilityRuleOsVersion",
        "deviceManagementApplicabilityRuleDeviceMode", "settingCount", "creationSource",
        "priorityMetaData", "templateReference", "scheduledActionsForRule",
        "deviceEnrollmentConfigurationType",
    )
)  # fmt: skip
_SCRIPTS = ("scriptContent", "detectionScriptContent", "remediationScriptContent")
# Words of Graph for a setting that sets nothing.
_UNSET = ("notConfigured", "userDefined", "deviceDefault", "none", "unavailable")
TABS = {
    "": N_("Settings"),
    "status": N_("Status on devices"),
    "assignments": N_("Assignments"),
    "history": N_("History"),
}
COMANAGEMENT = "deviceComanagementAuthorityConfiguration"


def type_of(item: Mapping[str, Any]) -> str:
    return str(item.get("@odata.type") or "").rpartition(".")[2]


def delivered(sort: Sort, item: Mapping[str, Any]) -> bool:
    return sort.delivered and (sort.key == "catalogue" or type_of(item) == CUSTOM)


# ---------------------------------------------------------------------------------- the list


async def index(page: Page[Any]) -> Response:
    wanted = page.request.query_params.get("kind", "")
    chosen = [BY_KEY[wanted]] if wanted in BY_KEY else list(SORTS)
    search = page.request.query_params.get("search", "")[:100].casefold().strip()
    _ = page.session
    answers = await asyncio.gather(*(_all_of(page, sort) for sort in chosen))
    rows = [
        (sort, item)
        for sort, items in zip(chosen, answers, strict=True)
        for item in items
        if search in str(item.get(sort.name) or "").casefold()
    ]
    rows.sort(key=lambda row: str(row[1].get(row[0].name) or "").casefold())
    asked = lists.Asked.of(page)
    first = (asked.page - 1) * lists.SIZE
    return page.render(
        "mdm/policies.html",
        rows=rows[first : first + lists.SIZE],
        total=len(rows),
        pages=asked.pages(len(rows)),
        asked=asked,
        sorts=SORTS,
        wanted=wanted,
        search=page.request.query_params.get("search", "")[:100],
        delivered=delivered,
        name_of=name_of,
        type_of=type_of,
        base=BASE,
    )


def name_of(sort: Sort, item: Mapping[str, Any]) -> str:
    return str(item.get(sort.name) or item["id"])


async def _all_of(page: Page[Any], sort: Sort) -> list[dict[str, Any]]:
    """The policies of a kind. Co-management settings have a page of their own."""
    found = await page.api.get(f"{GRAPH}/{sort.path}", **{"$top": MOST})
    return [item for item in found["value"] if type_of(item) != COMANAGEMENT]


# ---------------------------------------------------------------------------------- one policy


def _sort(page: Page[Any]) -> Sort:
    found = BY_KEY.get(page.request.path_params["kind"])
    if found is None:
        raise UnknownPage(N_("There is no such kind of policy."))
    return found


def path_of(page: Page[Any], sort: Sort) -> str:
    return f"{GRAPH}/{sort.path}/{quote(page.request.path_params['policy_id'], safe='')}"


def frame(sort: Sort, item: Mapping[str, Any], tab: str) -> dict[str, Any]:
    base = f"{BASE}/{sort.key}/{item['id']}"
    tabs = {
        key: title
        for key, title in TABS.items()
        if (sort.assigned or key != "assignments") and (key != "status" or delivered(sort, item))
    }
    return {
        "sort": sort,
        "item": item,
        "name": name_of(sort, item),
        "base": base,
        "tab": tab,
        "tabs": [
            (f"{base}/{key}" if key else base, title, key == tab) for key, title in tabs.items()
        ],
        "delivered": delivered(sort, item),
        "custom": type_of(item) == CUSTOM,
    }


async def found(page: Page[Any]) -> tuple[Sort, dict[str, Any]]:
    """The policy that the address names."""
    sort = _sort(page)
    return sort, dict(await page.api.get(path_of(page, sort)))


async def show(page: Page[Any]) -> Response:
    sort = _sort(page)
    item = await page.api.get(path_of(page, sort))
    rules: list[dict[str, Any]] = []
    if sort.key.startswith("compliance"):
        # What follows is contained in a policy, and not said with it.
        found = await page.api.get(
            f"{path_of(page, sort)}/scheduledActionsForRule",
            **{"$expand": "scheduledActionConfigurations"},
        )
        rules = found["value"]
    catalogue = []
    if sort.name == "name":
        found = await page.api.get(f"{path_of(page, sort)}/settings")
        catalogue = [line for one in found["value"] for line in _instance(one["settingInstance"])]
    text = page.language.text
    facts = [
        Fact(N_("Kind"), text(sort.title)),
        Fact(N_("Type"), _spaced(type_of(item))),
        Fact(N_("Description"), item.get("description")),
        Fact(N_("Version"), item.get("version")),
        Fact(N_("Changed"), moment_of(item.get("lastModifiedDateTime"))),
    ]
    return page.render(
        "mdm/policy.html",
        **frame(sort, item, ""),
        facts=facts,
        oma=[(_oma_name(one), readable(one)) for one in item.get("omaSettings") or []],
        plain=_plain(page, item),
        catalogue=catalogue,
        scripts=[(_spaced(name), _script(item[name])) for name in _SCRIPTS if item.get(name)],
        consequences=_consequences(rules),
        read_only=str(item["id"]).partition("_")[2].startswith("Default"),
    )


def moment_of(value: Any) -> Any:
    from tandem.console.pages import moment

    return moment(value)


def short(setting: str) -> str:
    """A setting without what every policy of a device begins with."""
    return setting.removeprefix(POLICY_CSP)


def readable(setting: Mapping[str, Any]) -> str:
    """The value of a custom setting as somebody wrote it: XML is carried as base64."""
    value = setting.get("value")
    if isinstance(value, bool):
        return "true" if value else "false"
    text = "" if value is None else str(value)
    if str(setting.get("@odata.type") or "").endswith("StringXml") and "<" not in text:
        try:
            return b64decode(text, validate=True).decode()
        except ValueError:
            return text
    return text


def oma_body(name: str, type: str, value: str, description: str = "") -> dict[str, Any]:
    """A custom setting as Graph takes it; a value that does not fit its type goes as it is."""
    shown: Any = value
    if type == "omaSettingStringXml":
        shown = b64encode(value.encode()).decode()
    elif type == "omaSettingInteger" and value.strip().lstrip("-").isdigit():
        shown = int(value)
    elif type == "omaSettingBoolean" and value.strip().lower() in ("true", "false"):
        shown = value.strip().lower() == "true"
    uri = name if name.startswith("./") else POLICY_CSP + name
    return {
        "@odata.type": f"#microsoft.graph.{type}",
        "displayName": name,
        "description": description or None,
        "omaUri": uri,
        "value": shown,
    }


def _oma_name(setting: Mapping[str, Any]) -> str:
    return str(setting.get("omaUri") or "").removeprefix(POLICY_CSP)


def _spaced(name: str) -> str:
    """A name of Graph's as words: passwordMinimumLength → Password minimum length."""
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", name)
    return words[:1].upper() + words[1:].lower()


def _plain(page: Page[Any], item: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The properties that say something, each with its value in a line."""
    return [
        (_spaced(name), _value(page, value))
        for name, value in item.items()
        if name not in _FRAME
        and name not in _SCRIPTS
        and "@" not in name
        and value not in (None, False, "", [], {}, *_UNSET)
    ]


def _value(page: Page[Any], value: Any) -> str:
    if isinstance(value, bool):
        return page.language.text(N_("Yes") if value else N_("No"))
    if isinstance(value, list):
        return ", ".join(_value(page, one) for one in value)
    if isinstance(value, Mapping):
        return "; ".join(
            f"{_spaced(str(key))}: {_value(page, one)}"
            for key, one in value.items()
            if "@" not in str(key) and one not in (None, "", [])
        )
    return str(value)


def _script(value: Any) -> str:
    try:
        return b64decode(str(value), validate=True).decode("utf-8", "replace")
    except ValueError:
        return str(value)


def _consequences(rules: Sequence[Mapping[str, Any]]) -> list[tuple[str, int]]:
    """What follows from non-compliance, and after how many hours."""
    return [
        (_spaced(str(one.get("actionType") or "")), int(one.get("gracePeriodHours") or 0))
        for rule in rules
        for one in rule.get("scheduledActionConfigurations") or []
    ]


def _instance(given: Any, depth: int = 0) -> list[tuple[str, str]]:
    """A setting of the catalogue, and those inside it, each with its value."""
    if not isinstance(given, Mapping) or depth > 8:
        return []
    name = str(given.get("settingDefinitionId") or "")
    found: list[tuple[str, str]] = []
    values: list[str] = []
    inner: list[Any] = []
    for key, value in given.items():
        if not key.endswith("Value") and not key.endswith("Collection"):
            continue
        for one in value if isinstance(value, list) else [value]:
            if isinstance(one, Mapping):
                if one.get("value") is not None:
                    values.append(str(one["value"]).removeprefix(f"{name}_"))
                inner += one.get("children") or []
    found.append((name, ", ".join(values)))
    for child in inner:
        found += _instance(child, depth + 1)
    return found


async def assignments(page: Page[Any]) -> Response:
    sort = _sort(page)
    item = await page.api.get(path_of(page, sort))
    given = (await page.api.get(f"{path_of(page, sort)}/assignments"))["value"]
    values = await assigning.held(page, given)
    return await _assignments(page, sort, item, values, {}, assigning.digest(given), 200)


async def _assignments(
    page: Page[Any],
    sort: Sort,
    item: Mapping[str, Any],
    values: Values,
    problems: dict[str, AppError],
    version: str,
    status: int,
    general: AppError | None = None,
) -> Response:
    fields = await assigning.pickers(page, assigning.POLICY_FIELDS, values, problems)
    far = await assigning.reach(page, values) if assigning.targets(values, "required") else None
    drawn_frame = frame(sort, item, "assignments")
    return page.render(
        "mdm/policy_form.html",
        status,
        **drawn_frame,
        fields=fields,
        etag=version,
        general=general,
        far=far,
        action=f"{drawn_frame['base']}/assignments",
    )


async def save_assignments(page: Page[Any]) -> Response:
    form = await page.form(512 * 1024)
    sort = _sort(page)
    item = await page.api.get(path_of(page, sort))
    values, _ignored = read(assigning.POLICY_FIELDS, form, page.form_lists)
    for one in assigning.POLICY_FIELDS:
        values[f"{one.name}--names"] = lists.names(page, one.name)
    version = form.get("version", "")
    if any(name.endswith("--search") for name in form):
        return await _assignments(page, sort, item, values, {}, version, 200)
    given = (await page.api.get(f"{path_of(page, sort)}/assignments"))["value"]
    now = assigning.digest(given)
    try:
        assigning.check(values)
    except Problem as problem:
        return await _assignments(page, sort, item, values, {problem.field: problem}, version, 422)
    if version != now:
        conflict = Problem("", CONFLICT, cure=CONFLICT_CURE)
        return await _assignments(page, sort, item, values, {}, now, 409, conflict)
    try:
        await page.api.post(
            f"{path_of(page, sort)}/assign",
            {"assignments": assigning.assignments(values, intents=False)},
        )
    except AppError as error:
        return await _assignments(page, sort, item, values, {}, version, 422, error)
    base = f"{BASE}/{sort.key}/{item['id']}"
    return page.to(base, N_("The assignments of %(name)s were saved."), name=name_of(sort, item))


async def history(page: Page[Any]) -> Response:
    sort = _sort(page)
    item = await page.api.get(path_of(page, sort))
    found: list[dict[str, Any]] = []
    try:
        found = (await page.api.get(f"{path_of(page, sort)}/versions"))["value"]
    except AppError as error:
        if error.kind is not Kind.NOT_FOUND:
            raise
    return page.render("mdm/policy_history.html", **frame(sort, item, "history"), rows=found)


async def delete(page: Page[Any]) -> Response:
    sort = _sort(page)
    item = await page.api.get(path_of(page, sort))
    name, text = name_of(sort, item), page.language.text
    back = f"{BASE}/{sort.key}/{item['id']}"
    if page.request.method == "GET":
        items = []
        if sort.assigned:
            given = (await page.api.get(f"{path_of(page, sort)}/assignments"))["value"]
            values = await assigning.held(page, given)
            far = await assigning.reach(page, values)
            items.append(
                page.language.plural(
                    "It is meant for %(number)s enrolled device.",
                    "It is meant for %(number)s enrolled devices.",
                    far.devices,
                )
            )
        return page.confirm(
            text(N_("Delete %(name)s?"), name=name),
            text(
                N_("Settings that devices have of it are taken away at their next check-in.")
                if delivered(sort, item)
                else N_("No device has anything of it.")
            ),
            text(N_("Delete")),
            back=back,
            items=items,
        )
    await page.form()
    await page.api.delete(path_of(page, sort))
    return page.to(BASE, N_("%(name)s was deleted."), name=name)


# ---------------------------------------------------------------------------------- custom profiles

_LINE = re.compile(
    r"\s*(\./[^=\n]{2,1000}?|[A-Za-z0-9_.~]+/[A-Za-z0-9_.~/-]+)(?:\s+\((\w{1,40})\))?\s*=\s*(.*?)\s*"
)
BAD_LINE = N_("Line %(number)s is no setting: write Area/Name = value, or an OMA-URI = value.")
BAD_TYPE = N_("Line %(number)s names a data type that is not known.")
TWICE = N_("Line %(number)s names %(setting)s for the second time.")
NO_LINE = N_("Write at least one setting.")
BY_CATALOGUE = N_("As the settings catalogue says, setting by setting")
WORKLOADS = (
    ("", BY_CATALOGUE),
    *((item.value, labels.WORKLOAD[item]) for item in Workload),
)
_TEXT = "omaSettingString"
_TYPES = {
    "string": _TEXT,
    "xml": "omaSettingStringXml",
    "integer": "omaSettingInteger",
    "boolean": "omaSettingBoolean",
    "float": "omaSettingFloatingPoint",
    "datetime": "omaSettingDateTime",
    "base64": "omaSettingBase64",
}


class Line(msgspec.Struct, frozen=True):
    """A setting of a profile in one line: its name, its type at Graph, its value."""

    name: str
    type: str
    value: str


def settings(text: str) -> list[Line]:
    """The settings of a profile, a line each. Raises Problem."""
    found: dict[str, Line] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        match = _LINE.fullmatch(line.removeprefix(POLICY_CSP))
        if match is None or not match[3]:
            raise Problem("settings", BAD_LINE, number=number)
        name, type = match[1], _TYPES.get((match[2] or "string").lower())
        if type is None:
            raise Problem("settings", BAD_TYPE, number=number)
        if name in found:
            raise Problem("settings", TWICE, number=number, setting=name)
        found[name] = Line(name, type, _unquoted(match[3]))
    if not found:
        raise Problem("settings", NO_LINE)
    return list(found.values())


def _unquoted(text: str) -> str:
    """A value; in quotes, as JSON has them, when it has line breaks."""
    if text.startswith('"') and text.endswith('"') and len(text) > 1:
        try:
            return str(msgspec.json.decode(text, type=str))
        except msgspec.DecodeError:
            return text
    return text


def _line(setting: Mapping[str, Any]) -> str:
    """A setting as the line that it can be written by."""
    type = str(setting.get("@odata.type") or "").rpartition(".")[2]
    word = next((word for word, one in _TYPES.items() if one == type), "string")
    value = readable(setting)
    if len(value.splitlines()) > 1 or value != value.strip() or value.startswith('"'):
        value = msgspec.json.encode(value).decode()
    shown = "" if type == _TEXT else f" ({word})"
    return f"{_oma_name(setting)}{shown} = {value}"


async def _lines(page: Page[Any], draft: Draft | None, text: str) -> None:
    settings(text)


BASICS: tuple[Field, ...] = (
    field("name", N_("Name"), required=True, limit=200),
    field("description", N_("Description"), "textarea", limit=1000),
)
SETTINGS: tuple[Field, ...] = (
    field(
        "workload",
        N_("Workload"),
        "select",
        options=WORKLOADS,
        hint=N_("On a device whose site owns a workload, its settings are not sent."),
    ),
    field(
        "settings",
        N_("Settings"),
        "textarea",
        required=True,
        limit=50_000,
        rows=8,
        check=_lines,
        hint=N_(
            "One a line, by area and name or by OMA-URI, for example:"
            " DeviceLock/MaxInactivityTimeDeviceLock = 15"
        ),
    ),
)


def body(values: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "@odata.type": f"#microsoft.graph.{CUSTOM}",
        "displayName": values["name"],
        "description": values["description"],
        "workload": values["workload"] or None,
        "omaSettings": [
            oma_body(one.name, one.type, one.value) for one in settings(values["settings"])
        ],
    }


async def _check_assignments(page: Page[Any], draft: Draft) -> None:
    assigning.check(draft.values)


async def _summary(page: Page[Any], draft: Draft) -> list[Fact]:
    values = draft.values
    workload = dict(WORKLOADS)[values["workload"]]
    return [
        Fact(N_("Name"), values["name"]),
        Fact(N_("Workload"), page.language.text(workload)),
        *(Fact(one.name, one.value) for one in settings(values["settings"])),
        *await assigning.facts(page, values, intents=False),
    ]


async def _command(page: Page[Any], draft: Draft) -> str:
    values = draft.values
    words = ["tandem", "device-configuration", "create", values["name"]]
    if values["workload"]:
        words += ["--workload", values["workload"]]
    found = settings(values["settings"])
    types = {one.type for one in found}
    if types != {_TEXT}:
        words += ["--type", min(types).removeprefix("omaSetting")]
    for one in found:
        words += ["--set", f"{one.name}={one.value}"]
    lines = [shlex.join(words)]
    if assigning.targets(values, "required"):
        assign = ["tandem", "device-configuration", "assign", values["name"]]
        lines.append(shlex.join([*assign, *target_options(values)]))
    return "\n".join(lines)


def target_options(values: Mapping[str, Any]) -> list[str]:
    everybody = values.get("required_everybody") or []
    words = ["--all-users"] if "users" in everybody else []
    words += ["--all-devices"] if "devices" in everybody else []
    for option, name in (("--include", "required"), ("--exclude", "required_excluded")):
        names = values.get(f"{name}--names") or {}
        for id in values.get(name) or []:
            words += [option, names.get(id, id)]
    return words


async def _finish(page: Page[Any], draft: Draft) -> Outcome:
    path = f"{GRAPH}/deviceManagement/deviceConfigurations"
    made = draft.values.get("made")
    if not made:
        made = (await page.api.post(path, body(draft.values)))["id"]
        # What fails afterwards is tried again on the same profile.
        draft.values["made"] = made
    else:
        await page.api.patch(f"{path}/{made}", body(draft.values))
    given = assigning.assignments(draft.values, intents=False)
    await page.api.post(f"{path}/{made}/assign", {"assignments": given})
    name = {"name": draft.values["name"]}
    return Outcome(N_("%(name)s was created."), f"{BASE}/profiles/{made}", name)


WIZARD = Wizard(
    key="configuration-profile",
    title=N_("Create a configuration profile"),
    back=BASE,
    steps=(
        Step(key="basics", title=N_("Basics"), fields=BASICS),
        Step(key="settings", title=N_("Settings"), fields=SETTINGS),
        Step(
            key="assignments",
            title=N_("Assignments"),
            fields=assigning.POLICY_FIELDS,
            check=_check_assignments,
        ),
    ),
    summary=_summary,
    command=_command,
    finish=_finish,
    finish_label=N_("Create the profile"),
)


async def edit(page: Page[Any]) -> Response:
    """The properties of a custom profile."""
    sort = BY_KEY["profiles"]
    answer = await page.api.ask("GET", path_of(page, sort))
    item = answer.json
    if type_of(item) != CUSTOM:
        raise UnknownPage(N_("This kind of policy is changed through Graph."))
    values = {
        "name": item["displayName"],
        "description": item.get("description") or "",
        "workload": item.get("workload") or "",
        "settings": "\n".join(_line(one) for one in item.get("omaSettings") or []),
    }
    return await _edit(page, sort, item, values, {}, answer.etag, 200)


async def _edit(
    page: Page[Any],
    sort: Sort,
    item: Mapping[str, Any],
    values: Values,
    problems: dict[str, AppError],
    etag: str,
    status: int,
    general: AppError | None = None,
) -> Response:
    drawn_frame = frame(sort, item, "")
    return page.render(
        "mdm/policy_form.html",
        status,
        **drawn_frame,
        fields=await drawn(page, (*BASICS, *SETTINGS), values, problems),
        etag=etag,
        general=general,
        far=None,
        action=f"{drawn_frame['base']}/edit",
    )


async def save(page: Page[Any]) -> Response:
    form = await page.form(128 * 1024)
    sort = BY_KEY["profiles"]
    answer = await page.api.ask("GET", path_of(page, sort))
    item, version = answer.json, form.get("version", "")
    values, problems = read((*BASICS, *SETTINGS), form, page.form_lists)
    try:
        if not problems:
            await page.api.patch(path_of(page, sort), body(values), version=version)
            to = f"{BASE}/profiles/{item['id']}"
            return page.to(to, N_("%(name)s was saved."), name=values["name"])
    except AppError as error:
        if error.code == CHANGED:
            conflict = Problem("", CONFLICT, cure=CONFLICT_CURE)
            return await _edit(page, sort, item, values, {}, answer.etag, 409, conflict)
        at = str(error.details.get("field", ""))
        if at == "settings":
            problems = {at: error}
        else:
            return await _edit(page, sort, item, values, {}, version, 422, error)
    return await _edit(page, sort, item, values, problems, version, 422)


async def search(page: Page[Any], query: str) -> list[Hit]:
    """Profiles and compliance policies whose name begins so."""
    hits = []
    for sort in SORTS[:3]:
        for item in await _all_of(page, sort):
            if query.casefold() in name_of(sort, item).casefold():
                url = f"{BASE}/{sort.key}/{item['id']}"
                detail = page.language.text(sort.title)
                hits.append(Hit(N_("Policies"), name_of(sort, item), detail, url))
    return hits[:20]
