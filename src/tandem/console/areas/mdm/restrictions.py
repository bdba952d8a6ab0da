"""Enrolment restrictions: which devices users may enrol and how many of their own, by priority."""

import shlex
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from starlette.responses import Response

from tandem.console.areas.mdm import assigning, lists
from tandem.console.areas.mdm.apps import CONFLICT, CONFLICT_CURE
from tandem.console.areas.mdm.comanagement_settings import PATH
from tandem.console.areas.mdm.policies import type_of
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
    UnknownPage,
    Values,
    Wizard,
    field,
    read,
)
from tandem.infra.errors import AppError

BASE = f"{ROOT}/enrolment-restrictions"
LIMIT = "deviceEnrollmentLimitConfiguration"
PLATFORM = "deviceEnrollmentPlatformRestrictionConfiguration"
PLATFORMS = "deviceEnrollmentPlatformRestrictionsConfiguration"
_WINDOWS = ("", "windows", "allplatforms")
COLUMNS = (
    ("", N_("Priority")),
    ("", N_("Name")),
    ("", N_("What it says")),
    ("", N_("Assigned to")),
    ("", N_("Change the order")),
)
BASICS: tuple[Field, ...] = (
    field("name", N_("Name"), required=True, limit=200),
    field("description", N_("Description"), "textarea", limit=1000),
)
RULES: tuple[Field, ...] = (
    field("blocked", N_("Block Windows devices"), "checkbox"),
    field(
        "personal_blocked",
        N_("Block personal devices"),
        "checkbox",
        hint=N_("A device that is joined to the directory is corporate; any other is personal."),
    ),
    field(
        "minimum",
        N_("Lowest version of Windows"),
        limit=40,
        hint=N_("For example 10.0.22631; empty: any."),
    ),
    field("maximum", N_("Highest version of Windows"), limit=40),
)
LIMITS: tuple[Field, ...] = (
    field(
        "limit",
        N_("Personal devices that a user may enrol"),
        "number",
        required=True,
        least=1,
        most=15,
        default=5,
    ),
)
GROUPS: tuple[Field, ...] = (assigning.picker("required", N_("Included groups of users")),)


def body(type: str, values: Mapping[str, Any]) -> dict[str, Any]:
    shown: dict[str, Any] = {"@odata.type": f"#microsoft.graph.{type}"}
    if "name" in values:
        shown |= {"displayName": values["name"], "description": values["description"]}
    if type == LIMIT:
        return {**shown, "limit": int(values["limit"])}
    rule = {
        "platformBlocked": bool(values["blocked"]),
        "personalDeviceEnrollmentBlocked": bool(values["personal_blocked"]),
        "osMinimumVersion": values["minimum"].strip(),
        "osMaximumVersion": values["maximum"].strip(),
    }
    if type == PLATFORM:
        return {**shown, "platformType": "windows", "platformRestriction": rule}
    return {**shown, "windowsRestriction": rule}


def _rule(item: Mapping[str, Any]) -> Mapping[str, Any]:
    key = "platformRestriction" if type_of(item) == PLATFORM else "windowsRestriction"
    return item.get(key) or {}


def says(page: Page[Any], item: Mapping[str, Any]) -> str:
    """What a restriction says, in a line."""
    text = page.language.text
    if type_of(item) == LIMIT:
        return text(N_("At most %(number)s personal devices"), number=item["limit"])
    if type_of(item) == PLATFORM and str(item.get("platformType") or "").lower() not in _WINDOWS:
        return text(N_("Nothing of Windows"))
    rule = _rule(item)
    if rule.get("platformBlocked"):
        return text(N_("Windows is blocked"))
    words = []
    if rule.get("osMinimumVersion"):
        words.append(text(N_("from version %(version)s"), version=rule["osMinimumVersion"]))
    if rule.get("osMaximumVersion"):
        words.append(text(N_("up to version %(version)s"), version=rule["osMaximumVersion"]))
    if rule.get("personalDeviceEnrollmentBlocked"):
        words.append(text(N_("no personal devices")))
    return ", ".join(words) or text(N_("Everything is allowed"))


# ---------------------------------------------------------------------------------- wizards


def _wizard(key: str, type: str, title: str, fields: tuple[Field, ...], verb: str) -> Wizard:
    async def summary(page: Page[Any], draft: Draft) -> list[Fact]:
        return [
            Fact(N_("Name"), draft.values["name"]),
            Fact(N_("What it says"), says(page, body(type, draft.values))),
            *await assigning.facts(page, draft.values, intents=False),
        ]

    async def command(page: Page[Any], draft: Draft) -> str:
        values = draft.values
        words = ["tandem", "enrollment-restriction", verb, values["name"]]
        if type == LIMIT:
            words.append(str(values["limit"]))
        else:
            words += ["--block"] if values["blocked"] else []
            words += ["--block-personal"] if values["personal_blocked"] else []
            for name in ("minimum", "maximum"):
                words += [f"--{name}", values[name]] if values[name] else []
        if values["description"]:
            words += ["--description", values["description"]]
        names = values.get("required--names") or {}
        for id in values.get("required") or []:
            words += ["--include", str(names.get(id, id))]
        return shlex.join(words)

    async def finish(page: Page[Any], draft: Draft) -> Outcome:
        made = draft.values.get("made")
        if not made:
            made = (await page.api.post(PATH, body(type, draft.values)))["id"]
            draft.values["made"] = made
        else:
            await page.api.patch(f"{PATH}/{made}", body(type, draft.values))
        given = assigning.assignments(draft.values, intents=False)
        await page.api.post(f"{PATH}/{made}/assign", {"enrollmentConfigurationAssignments": given})
        return Outcome(N_("%(name)s was created."), BASE, {"name": draft.values["name"]})

    async def check(page: Page[Any], draft: Draft) -> None:
        assigning.check(draft.values)

    return Wizard(
        key=key,
        title=title,
        back=BASE,
        steps=(
            Step(key="basics", title=N_("Basics"), fields=BASICS),
            Step(key="settings", title=N_("Settings"), fields=fields),
            Step(
                key="assignments",
                title=N_("Assignments"),
                fields=GROUPS,
                check=check,
                intro=N_("This restriction is for groups of users."),
            ),
        ),
        summary=summary,
        command=command,
        finish=finish,
        finish_label=N_("Create the restriction"),
    )


WIZARDS = (
    _wizard(
        "platform-restriction",
        PLATFORM,
        N_("Create a platform restriction"),
        RULES,
        "create-platform",
    ),
    _wizard("device-limit", LIMIT, N_("Create a device limit"), LIMITS, "create-limit"),
)

# ---------------------------------------------------------------------------------- pages


def _order(item: Mapping[str, Any]) -> tuple[bool, int]:
    number = int(item["priority"] or 0)
    return number == 0, number


async def index(page: Page[Any]) -> Response:
    found = (await page.api.get(PATH, **{"$top": 500}))["value"]
    kinds = ((PLATFORM, PLATFORMS), (LIMIT,))
    sorted_ = [
        sorted((item for item in found if type_of(item) in kind), key=_order) for kind in kinds
    ]
    given = {
        item["id"]: (await page.api.get(f"{PATH}/{item['id']}/assignments"))["value"]
        for rows in sorted_
        for item in rows
        if item["priority"]
    }
    names = await assigning.group_names(page, [one for items in given.values() for one in items])
    return page.render(
        "mdm/restrictions.html",
        kinds=[
            (title, rows)
            for title, rows in zip(
                (N_("Platform restrictions"), N_("Device limits")), sorted_, strict=True
            )
        ],
        says={item["id"]: says(page, item) for rows in sorted_ for item in rows},
        assigned={
            id: assigning.said(page, assigning.values_of(items, names))
            for id, items in given.items()
        },
        columns=COLUMNS,
        base=BASE,
    )


def _path(page: Page[Any]) -> str:
    return f"{PATH}/{quote(page.request.path_params['restriction_id'], safe='')}"


def _fields(item: Mapping[str, Any]) -> tuple[Field, ...]:
    """Of a default, only what it says: it has no name and is for everybody else."""
    if type_of(item) not in {LIMIT, PLATFORM, PLATFORMS}:
        raise UnknownPage(N_("There is no such page."))
    rules = LIMITS if type_of(item) == LIMIT else RULES
    return (*BASICS, *rules, *GROUPS) if item["priority"] else rules


async def edit(page: Page[Any]) -> Response:
    answer = await page.api.ask("GET", _path(page))
    item, rule = answer.json, _rule(answer.json)
    values: Values = {
        "name": item["displayName"],
        "description": item.get("description") or "",
        "limit": item.get("limit"),
        "blocked": bool(rule.get("platformBlocked")),
        "personal_blocked": bool(rule.get("personalDeviceEnrollmentBlocked")),
        "minimum": rule.get("osMinimumVersion") or "",
        "maximum": rule.get("osMaximumVersion") or "",
    }
    if item["priority"]:
        given = (await page.api.get(f"{_path(page)}/assignments"))["value"]
        values |= await assigning.held(page, given)
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
    fields = await assigning.pickers(page, _fields(item), values, problems)
    return page.render(
        "mdm/restriction_form.html",
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
    fields = _fields(item)
    values, problems = read(fields, form, page.form_lists)
    if item["priority"]:
        values["required--names"] = lists.names(page, "required")
    if any(name.endswith("--search") for name in form):
        return await _form(page, item, values, {}, version, 200)
    try:
        if not problems:
            await page.api.patch(_path(page), body(type_of(item), values), version=version)
            if item["priority"]:
                given = assigning.assignments(values, intents=False)
                await page.api.post(
                    f"{_path(page)}/assign", {"enrollmentConfigurationAssignments": given}
                )
            return page.to(BASE, N_("%(name)s was saved."), name=item["displayName"])
    except AppError as error:
        if error.code == CHANGED:
            conflict = Problem("", CONFLICT, cure=CONFLICT_CURE)
            return await _form(page, item, values, {}, answer.etag, 409, conflict)
        return await _form(page, item, values, {}, version, 422, error)
    return await _form(page, item, values, problems, version, 422)


async def move(page: Page[Any]) -> Response:
    """To another place in the order of its kind; the others make room."""
    form = await page.form()
    text = form.get("priority", "")
    number = int(text) if text.isascii() and text.isdigit() and len(text) < 5 else 1
    await page.api.post(f"{_path(page)}/setPriority", {"priority": max(number, 1)})
    return page.to(BASE, N_("The order was changed."))


async def delete(page: Page[Any]) -> Response:
    item = await page.api.get(_path(page))
    if not item["priority"]:
        raise UnknownPage(N_("There is no such page."))
    text = page.language.text
    if page.request.method == "GET":
        return page.confirm(
            text(N_("Delete %(name)s?"), name=item["displayName"]),
            text(N_("Its users follow the next restriction in the order, or the default.")),
            text(N_("Delete")),
            back=BASE,
        )
    await page.form()
    await page.api.delete(_path(page))
    return page.to(BASE, N_("%(name)s was deleted."), name=item["displayName"])
