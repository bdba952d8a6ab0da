"""Settings one by one: of the catalogue and by OMA-URI in policies, and why a device has one."""

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

from starlette.responses import Response

from tandem.console import labels
from tandem.console.areas.mdm import policies, words
from tandem.console.areas.mdm.apps import CONFLICT, CONFLICT_CURE
from tandem.console.kit import (
    CHANGED,
    N_,
    ROOT,
    Fact,
    Field,
    Page,
    Problem,
    UnknownPage,
    Values,
    drawn,
    field,
    read,
)
from tandem.infra.errors import AppError
from tandem.workloads import Workload

GRAPH = "/beta"
DEFINITIONS = f"{GRAPH}/deviceManagement/configurationSettings"
SEARCH = f"{GRAPH}/tandem/settingsCatalogue/search"
_NAMESPACE = "#microsoft.graph.deviceManagementConfiguration"
_MOST_SHOWN = 50
NO_SETTING = N_("There is no such setting in this policy.")
TYPES = {
    "omaSettingString": N_("Text"),
    "omaSettingStringXml": N_("XML"),
    "omaSettingInteger": N_("Whole number"),
    "omaSettingBoolean": N_("True or false"),
    "omaSettingFloatingPoint": N_("Number with decimals"),
    "omaSettingDateTime": N_("Date and time"),
    "omaSettingBase64": N_("Bytes in base64"),
}
WORKLOAD = {item.value: labels.WORKLOAD[item] for item in Workload}


def title(page: Page[Any], item: Mapping[str, Any]) -> str:
    """What a setting is called in the reader's language."""
    found = (item.get("translations") or {}).get(page.language.code)
    if isinstance(found, Mapping):
        found = found.get("displayName")
    return str(found or item.get("displayName") or item.get("setting") or item.get("id") or "")


# ---------------------------------------------------------------------------------- why


async def why(page: Page[Any]) -> Response:
    """Everything that decides about one setting on one device."""
    id = page.request.path_params["device_id"]
    setting = page.request.query_params.get("setting", "")[:1024]
    path = f"{GRAPH}/tandem/managedDevices/{quote(id, safe='')}/why"
    found = await page.api.post(path, {"setting": setting})
    last = found["lastOutcome"]
    state = words.OUTCOME.get(found["outcome"], ("plain", found["outcome"]))
    workload = WORKLOAD.get(found["workload"], found["workload"])
    owner = words.OWNER[found["workloadOwner"]]
    facts = [
        Fact(N_("OMA-URI"), found["omaUri"]),
        Fact(N_("Value"), found["wanted"]),
        Fact(N_("Workload"), page.language.text(workload)),
        Fact(N_("Owner of the workload"), page.language.text(owner)),
    ]
    if last is not None and not last["lapsed"]:
        facts += [
            Fact(N_("Delivered"), last["value"]),
            Fact(N_("Status"), last["status"]),
            Fact(N_("Error of the device"), last["error"]),
            Fact(N_("Answered"), policies.moment_of(last["dateTime"])),
        ]
    return page.render(
        "mdm/device_why.html",
        found=found,
        name=title(page, found),
        state=state,
        facts=facts,
        device_url=f"{ROOT}/devices/{quote(id, safe='')}",
        roles=words.ROLE,
        policy_url=_policy_url,
    )


def _policy_url(one: Mapping[str, Any]) -> str:
    key = "catalogue" if one["policyKind"] == "configurationPolicies" else "profiles"
    return f"{policies.BASE}/{key}/{one['policyId']}"


# ---------------------------------------------------------------------------------- status


async def status(page: Page[Any]) -> Response:
    """How many devices answered what for each setting of a policy."""
    sort, item = await policies.found(page)
    if not policies.delivered(sort, item):
        raise UnknownPage(N_("There is no such page."))
    report = await page.api.get(f"{policies.path_of(page, sort)}/settingStatuses")
    return page.render(
        "mdm/policy_status.html",
        **policies.frame(sort, item, "status"),
        rows=[(one, title(page, one)) for one in report["settings"]],
        problems=report["problems"],
        policy_url=_policy_url,
        short=policies.short,
    )


# ---------------------------------------------------------------------------------- catalogue

NEW: tuple[Field, ...] = (
    field("name", N_("Name"), required=True, limit=200),
    field("description", N_("Description"), "textarea", limit=1000),
)


async def new(page: Page[Any]) -> Response:
    return await _new(page, {}, {}, 200)


async def _new(
    page: Page[Any],
    values: Values,
    problems: dict[str, AppError],
    code: int,
    general: AppError | None = None,
) -> Response:
    fields = await drawn(page, NEW, values, problems)
    return page.render("mdm/catalogue_new.html", code, fields=fields, general=general)


async def create(page: Page[Any]) -> Response:
    """A policy of no settings; they are chosen next."""
    values, problems = read(NEW, await page.form(), page.form_lists)
    if problems:
        return await _new(page, values, problems, 422)
    body = {
        "name": values["name"],
        "description": values["description"],
        "platforms": "windows10",
        "technologies": "mdm",
        "settings": [],
    }
    try:
        made = await page.api.post(f"{GRAPH}/deviceManagement/configurationPolicies", body)
    except AppError as error:
        return await _new(page, values, {}, 422, error)
    to = f"{policies.BASE}/catalogue/{made['id']}/settings"
    return page.to(to, N_("%(name)s was created. Choose its settings."), name=values["name"])


async def _catalogue(page: Page[Any]) -> tuple[policies.Sort, dict[str, Any], list[Any], str]:
    sort = policies.BY_KEY["catalogue"]
    answer = await page.api.ask("GET", policies.path_of(page, sort))
    held = (await page.api.get(f"{policies.path_of(page, sort)}/settings"))["value"]
    return sort, answer.json, [one["settingInstance"] for one in held], answer.etag


async def choose(page: Page[Any]) -> Response:
    """The settings of a catalogue policy, and a search for more of them."""
    sort, item, held, _ = await _catalogue(page)
    search = page.request.query_params.get("search", "")[:100]
    workload = page.request.query_params.get("workload", "")
    hits: list[dict[str, Any]] = []
    if search.strip() or workload in WORKLOAD:
        asked = {"text": search, "workload": workload if workload in WORKLOAD else ""}
        hits = (await page.api.post(SEARCH, asked))["value"]
    has = {str(one.get("settingDefinitionId")) for one in held}
    rows = []
    for one in held:
        definition = await _definition(page, str(one.get("settingDefinitionId")))
        rows.append((one, definition, _shown_value(page, one, definition)))
    return page.render(
        "mdm/catalogue_settings.html",
        **policies.frame(sort, item, ""),
        rows=rows,
        hits=[(one, title(page, one), _described(page, one)) for one in hits[:_MOST_SHOWN]],
        more=max(len(hits) - _MOST_SHOWN, 0),
        has=has,
        search=search,
        workload=workload,
        workloads=WORKLOAD,
        asked=bool(search.strip() or workload in WORKLOAD),
        title=lambda one: title(page, one),
    )


def _described(page: Page[Any], definition: Mapping[str, Any]) -> str:
    found = (definition.get("translations") or {}).get(page.language.code) or {}
    return str(found.get("description") or definition.get("description") or "")


async def _definition(page: Page[Any], id: str) -> dict[str, Any] | None:
    try:
        return dict(await page.api.get(f"{DEFINITIONS}/{quote(id, safe='')}"))
    except AppError:
        return None


def _shown_value(
    page: Page[Any], instance: Mapping[str, Any], definition: Mapping[str, Any] | None
) -> str:
    values = _held(instance)
    if definition is not None:
        names = _options(page, definition)
        values = [names.get(value, value) for value in values]
    return ", ".join(values)


def _held(instance: Mapping[str, Any]) -> list[str]:
    """The values of an instance; an option by what stands behind its id."""
    id = str(instance.get("settingDefinitionId") or "")
    found: list[str] = []
    for name in (
        "choiceSettingValue",
        "simpleSettingValue",
        "choiceSettingCollectionValue",
        "simpleSettingCollectionValue",
    ):
        given = instance.get(name) or []
        for one in given if isinstance(given, list) else [given]:
            if isinstance(one, Mapping) and one.get("value") is not None:
                raw = one["value"]
                text = ("true" if raw else "false") if isinstance(raw, bool) else str(raw)
                found.append(text.removeprefix(f"{id}_"))
    return found


def _options(page: Page[Any], definition: Mapping[str, Any]) -> dict[str, str]:
    """The values that a setting takes, each with what it means to the reader."""
    return {
        str(one["optionValue"]["value"]): str(
            one["translations"].get(page.language.code) or one["displayName"]
        )
        for one in definition["options"]
    }


def fields_of(page: Page[Any], definition: Mapping[str, Any]) -> tuple[Field, ...]:
    """The field of a setting, of the kind that its node takes."""
    label = title(page, definition)
    hint = _described(page, definition)
    ranges = definition["allowed"]["ranges"]
    options = _options(page, definition)
    if options:
        return (
            field(
                "value",
                label,
                "select",
                required=True,
                hint=hint,
                options=tuple(options.items()),
                default=definition["default"] or next(iter(options)),
            ),
        )
    if definition["format"] == "bool":
        pairs = (("true", N_("Yes")), ("false", N_("No")))
        return (field("value", label, "select", required=True, hint=hint, options=pairs),)
    if definition["format"] == "int" and len(ranges) == 1:
        span = ranges[0]
        return (
            field(
                "value",
                label,
                "number",
                required=True,
                hint=hint,
                least=span["minimum"],
                most=span["maximum"],
                default=definition["default"] or "",
            ),
        )
    if definition["allowed"]["delimiter"]:
        return (field("value", label, "textarea", required=True, hint=hint, rows=6, limit=50_000),)
    return (
        field(
            "value",
            label,
            "text" if definition["format"] in ("int", "float", "date", "time") else "textarea",
            required=True,
            hint=hint,
            limit=100_000,
            default=definition["default"] or "",
        ),
    )


async def setting(page: Page[Any]) -> Response:
    """The form of one setting of a catalogue policy."""
    _, _, held, etag = await _catalogue(page)
    definition = await _known(page)
    current = next((one for one in held if one["settingDefinitionId"] == definition["id"]), None)
    values: Values = {}
    if current is not None:
        found = _held(current)
        values["value"] = "\n".join(found) if definition["allowed"]["delimiter"] else found[0]
    return await _setting_form(page, definition, values, {}, etag, 200)


async def _known(page: Page[Any]) -> dict[str, Any]:
    found = await _definition(page, page.request.path_params["definition"])
    if found is None:
        raise UnknownPage(N_("The catalogue has no such setting."))
    return found


async def _setting_form(
    page: Page[Any],
    definition: Mapping[str, Any],
    values: Values,
    problems: dict[str, AppError],
    etag: str,
    code: int,
    general: AppError | None = None,
) -> Response:
    sort, item, _, _ = await _catalogue(page)
    frame = policies.frame(sort, item, "")
    workload, scope = WORKLOAD[definition["workload"]], words.SCOPE[definition["scope"]]
    facts = [
        Fact(N_("OMA-URI"), definition["omaUri"]),
        Fact(N_("Workload"), page.language.text(workload)),
        Fact(N_("Scope"), page.language.text(scope)),
        Fact(N_("From Windows"), ", ".join(definition["builds"]) or None),
        Fact(N_("Default"), definition["default"]),
    ]
    return page.render(
        "mdm/setting_form.html",
        code,
        **frame,
        setting_name=title(page, definition),
        facts=facts,
        fields=await drawn(page, fields_of(page, definition), values, problems),
        etag=etag,
        general=general,
        back=f"{frame['base']}/settings",
        action=f"{frame['base']}/settings/{quote(definition['id'], safe='')}",
        removable=False,
    )


async def save_setting(page: Page[Any]) -> Response:
    form = await page.form(256 * 1024)
    sort, item, held, etag = await _catalogue(page)
    definition = await _known(page)
    values, problems = read(fields_of(page, definition), form, page.form_lists)
    version = form.get("version", "")
    if problems:
        return await _setting_form(page, definition, values, problems, version, 422)
    made = instance(definition, str(values["value"]))
    kept = [one for one in held if one["settingDefinitionId"] != definition["id"]]
    try:
        await _save(page, sort, [*kept, made], version)
    except AppError as error:
        if error.code == CHANGED:
            clash = Problem("", CONFLICT, cure=CONFLICT_CURE)
            return await _setting_form(page, definition, values, {}, etag, 409, clash)
        return await _setting_form(page, definition, values, {"value": error}, version, 422)
    to = f"{policies.BASE}/catalogue/{item['id']}/settings"
    return page.to(to, N_("%(name)s was set."), name=title(page, definition))


async def remove_setting(page: Page[Any]) -> Response:
    await page.form()
    sort, item, held, _ = await _catalogue(page)
    id = page.request.path_params["definition"]
    kept = [one for one in held if one["settingDefinitionId"] != id]
    await _save(page, sort, kept, "")
    to = f"{policies.BASE}/catalogue/{item['id']}/settings"
    return page.to(to, N_("The setting was taken out of the policy."))


async def _save(
    page: Page[Any], sort: policies.Sort, instances: Sequence[Any], version: str
) -> None:
    settings = [
        {"@odata.type": f"{_NAMESPACE}Setting", "settingInstance": one} for one in instances
    ]
    path = policies.path_of(page, sort)
    if version:
        await page.api.patch(path, {"settings": settings}, version=version)
    else:
        await page.api.patch(path, {"settings": settings})


def instance(definition: Mapping[str, Any], value: str) -> dict[str, Any]:
    """A setting of the catalogue with a value, in the vendor's words."""
    id = definition["id"]
    head = {"settingDefinitionId": id}
    for one in definition["options"]:
        if one["optionValue"]["value"] == value:
            held = {"value": one["itemId"], "children": []}
            return {
                "@odata.type": f"{_NAMESPACE}ChoiceSettingInstance",
                **head,
                "choiceSettingValue": held,
            }
    number = definition["format"] == "int" and value.strip().lstrip("-").isdigit()
    sort = f"{_NAMESPACE}{'Integer' if number else 'String'}SettingValue"
    if definition["allowed"]["delimiter"]:
        parts = [part.strip() for part in value.splitlines() if part.strip()]
        return {
            "@odata.type": f"{_NAMESPACE}SimpleSettingCollectionInstance",
            **head,
            "simpleSettingCollectionValue": [
                {"@odata.type": sort, "value": part} for part in parts
            ],
        }
    shown: Any = int(value) if number else value
    return {
        "@odata.type": f"{_NAMESPACE}SimpleSettingInstance",
        **head,
        "simpleSettingValue": {"@odata.type": sort, "value": shown},
    }


# ---------------------------------------------------------------------------------- OMA-URI


async def _is_whole(page: Page[Any], draft: Any, value: Any) -> None:
    if not str(value).startswith("./"):
        raise Problem("omaUri", N_("Write the whole OMA-URI, from ./Device/ or ./User/ on."))


OMA: tuple[Field, ...] = (
    field(
        "omaUri",
        N_("OMA-URI"),
        required=True,
        limit=1024,
        check=_is_whole,
        placeholder="./Device/Vendor/MSFT/Policy/Config/…",
    ),
    field(
        "type",
        N_("Data type"),
        "select",
        required=True,
        options=tuple(TYPES.items()),
        default="omaSettingString",
    ),
    field("value", N_("Value"), "textarea", required=True, rows=8, limit=240_000),
    field("description", N_("Description"), limit=1000),
)


async def _custom(page: Page[Any]) -> tuple[policies.Sort, dict[str, Any], list[Any], str]:
    sort = policies.BY_KEY["profiles"]
    answer = await page.api.ask("GET", policies.path_of(page, sort))
    if policies.type_of(answer.json) != policies.CUSTOM:
        raise UnknownPage(N_("This kind of policy is changed through Graph."))
    return sort, answer.json, list(answer.json.get("omaSettings") or []), answer.etag


def _numbered(page: Page[Any], held: Sequence[Any]) -> int | None:
    """The place of the setting that the address names; None for a new one."""
    number = page.request.path_params["number"]
    if number == "new":
        return None
    if not number.isdigit() or int(number[:6]) >= len(held):
        raise UnknownPage(NO_SETTING)
    return int(number)


async def oma(page: Page[Any]) -> Response:
    """The form of one setting of a custom profile."""
    _, _, held, etag = await _custom(page)
    number = _numbered(page, held)
    values: Values = {}
    if number is not None:
        one = held[number]
        values = {
            "omaUri": one.get("omaUri"),
            "type": str(one.get("@odata.type") or "").rpartition(".")[2],
            "value": policies.readable(one),
            "description": one.get("description") or "",
        }
    return await _oma_form(page, values, {}, etag, 200)


async def _oma_form(
    page: Page[Any],
    values: Values,
    problems: dict[str, AppError],
    etag: str,
    code: int,
    general: AppError | None = None,
) -> Response:
    sort, item, _, _ = await _custom(page)
    frame = policies.frame(sort, item, "")
    return page.render(
        "mdm/setting_form.html",
        code,
        **frame,
        setting_name=values.get("omaUri") or page.language.text(N_("Add a setting")),
        facts=[],
        fields=await drawn(page, OMA, values, problems),
        etag=etag,
        general=general,
        back=frame["base"],
        action=f"{frame['base']}/oma/{page.request.path_params['number']}",
        removable=page.request.path_params["number"] != "new",
    )


async def save_oma(page: Page[Any]) -> Response:
    form = await page.form(512 * 1024)
    sort, item, held, etag = await _custom(page)
    number = _numbered(page, held)
    values, problems = read(OMA, form, page.form_lists)
    version = form.get("version", "")
    if not problems:
        try:
            await _is_whole(page, None, values["omaUri"])
        except Problem as problem:
            problems["omaUri"] = problem
    if problems:
        return await _oma_form(page, values, problems, version, 422)
    made = policies.oma_body(
        values["omaUri"], values["type"], values["value"], values["description"]
    )
    changed = [*held, made] if number is None else [*held[:number], made, *held[number + 1 :]]
    body = {"@odata.type": f"#microsoft.graph.{policies.CUSTOM}", "omaSettings": changed}
    try:
        await page.api.patch(policies.path_of(page, sort), body, version=version)
    except AppError as error:
        if error.code == CHANGED:
            clash = Problem("", CONFLICT, cure=CONFLICT_CURE)
            return await _oma_form(page, values, {}, etag, 409, clash)
        at = str(error.details.get("target") or "value")
        return await _oma_form(
            page, values, {at if at in ("omaUri", "value") else "value": error}, version, 422
        )
    to = f"{policies.BASE}/profiles/{item['id']}"
    return page.to(to, N_("%(name)s was set."), name=values["omaUri"])


async def remove_oma(page: Page[Any]) -> Response:
    await page.form()
    sort, item, held, etag = await _custom(page)
    number = _numbered(page, held)
    if number is None:
        raise UnknownPage(NO_SETTING)
    body = {
        "@odata.type": f"#microsoft.graph.{policies.CUSTOM}",
        "omaSettings": [*held[:number], *held[number + 1 :]],
    }
    await page.api.patch(policies.path_of(page, sort), body, version=etag)
    to = f"{policies.BASE}/profiles/{item['id']}"
    return page.to(to, N_("The setting was taken out of the policy."))
