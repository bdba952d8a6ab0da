"""Configure co-management: tenant, sign-in, enablement, workloads, staging (tutorial 5)."""

import shlex
from collections.abc import Mapping
from typing import Any

from starlette.responses import Response
from starlette.routing import BaseRoute

from tandem.console.areas.cloud.sign_in import SIGN_IN, sign_in_facts, tenant_sign_in_step
from tandem.console.areas.comgmt.words import (
    API,
    ENROL,
    ENROLS,
    FULL,
    NOT_FULL,
    PATH,
    POSITION,
    POSITIONS,
    WIZARD,
    WORKLOADS,
    locked,
    moving,
    reach,
)
from tandem.console.kit import (
    N_,
    ROOT,
    Console,
    Draft,
    Fact,
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

NEW = "+new"
NEW_COLLECTION = N_("A new collection, described below")
ENROLMENT_COLLECTION = "collection"


# ---------------------------------------------------------------------- what may be chosen


def _counted(page: Page[Any], count: int | None) -> str:
    """A list that took too long to count says nothing of those that were never evaluated."""
    return "–" if count is None else page.language.number(count)


async def _collections(page: Page[Any], draft: Draft | None, query: str) -> list[tuple[str, ...]]:
    found = await page.api.get("/api/v1/collections", search=query, limit=20, type="device")
    fresh = [(NEW, page.language.text(NEW_COLLECTION))] if not query else []
    return [
        *fresh,
        *((item["id"], item["name"], _counted(page, item["members"])) for item in found["items"]),
    ]


async def _devices(page: Page[Any], draft: Draft | None, query: str) -> list[tuple[str, ...]]:
    found = await page.api.get("/api/v1/devices", search=query, limit=20)
    return [
        (item["client_id"], item["name"], item["user"])
        for item in found["devices"]
        if item["client_id"]
    ]


def _pilots(values: Mapping[str, Any]) -> list[str]:
    return [name for name in WORKLOADS if values.get(name) == "pilot"]


def _enrols_pilot(values: Values) -> bool:
    return values.get("automatic_enrollment") == "pilot"


def _chosen(values: Mapping[str, Any]) -> list[str]:
    """The fields of this draft that a collection is chosen in, and matter."""
    fields = [f"pilot-{name}" for name in _pilots(values)]
    return [*([ENROLMENT_COLLECTION] if _enrols_pilot(dict(values)) else []), *fields]


def _makes_new(values: Mapping[str, Any]) -> bool:
    return any(values.get(name) == NEW for name in _chosen(values))


def _staged(draft: Draft) -> bool:
    return bool(_pilots(draft.values)) or _makes_new(draft.values)


# ---------------------------------------------------------------------- what is asked of the API


def _new_collection(values: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "name": str(values.get("new_name", "")).strip(),
        "query": str(values.get("new_query", "")).strip(),
        "devices": list(values.get("new_devices") or ()),
    }


def wanted(values: Mapping[str, Any]) -> dict[str, Any]:
    """The draft as the one request that it comes to."""
    new = _new_collection(values)

    def named(field: str) -> str:
        chosen = str(values.get(field) or "")
        return new["name"] if chosen == NEW else chosen

    return {
        "automatic_enrollment": values.get("automatic_enrollment") or "none",
        "collection": named(ENROLMENT_COLLECTION) if _enrols_pilot(dict(values)) else "",
        "workloads": {
            name: {
                "position": values.get(name) or "site",
                "collection": named(f"pilot-{name}") if values.get(name) == "pilot" else "",
            }
            for name in WORKLOADS
        },
        "new_collections": [new] if _makes_new(values) else [],
        "reason": str(values.get("reason") or ""),
    }


async def _preview(page: Page[Any], draft: Draft) -> dict[str, Any]:
    try:
        found: dict[str, Any] = await page.api.post(f"{API}/preview", wanted(draft.values))
    except AppError as error:
        raise _at_its_field(error) from None
    return found


def _at_its_field(error: AppError) -> AppError:
    """The API names a workload; here its collection has a field of its own."""
    at = str(error.details.get("field", ""))
    if at in WORKLOADS and "collection" in error.code:
        error.details["field"] = f"pilot-{at}"
    elif "new_collection" in error.details:
        error.details["field"] = {
            "collection.bad-query": "new_query",
            "resource.not-found": "new_devices",
        }.get(error.code, "new_name")
    return error


# ---------------------------------------------------------------------- steps


async def _prerequisites(page: Page[Any], draft: Draft) -> Mapping[str, Any]:
    services = await page.api.get("/api/v1/azure-services")
    return {
        "prerequisites": await page.api.get(f"{API}/prerequisites"),
        "service": services[0] if services else None,
        "enabled": (await page.api.get(API))["enabled"],
        "settings_path": PATH,
    }


async def _check_prerequisites(page: Page[Any], draft: Draft) -> None:
    if page.session.role != FULL:
        raise Problem("", NOT_FULL)
    if (await page.api.get(API))["enabled"]:
        raise Problem(
            "",
            N_("Co-management is enabled already."),
            cure=N_("Change it on the page of its settings."),
        )
    if not (await page.api.get(f"{API}/prerequisites"))["ok"]:
        raise Problem("", N_("Please ensure the proper prerequisites are installed."))


async def _line(page: Page[Any], draft: Draft) -> Mapping[str, Any]:
    return {"prerequisites": await page.api.get(f"{API}/prerequisites")}


async def _role(page: Page[Any], draft: Draft) -> Mapping[str, Any]:
    draft.values["locked"] = locked(page)
    return {}


async def _members(page: Page[Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """Who would be in the new collection: for its preview in place."""
    new = _new_collection(values)
    rules = [{"kind": "direct", "device": one} for one in new["devices"]]
    if new["query"]:
        rules.append({"kind": "query", "name": "pilot", "query": new["query"]})
    try:
        found = await page.api.post(
            "/api/v1/collections/preview", {"limiting": "SMS00001", "rules": rules, "first": 10}
        )
    except AppError as error:
        return {"preview_error": error, "preview": None}
    return {"preview_error": None, "preview": found}


async def _staging(page: Page[Any], draft: Draft) -> Mapping[str, Any]:
    makes = _makes_new(draft.values)
    members = await _members(page, draft.values) if makes else {}
    try:
        lines = reach(page, await _preview(page, draft))
    except AppError:
        lines = []
    return {"makes_new": makes, "reach": lines, **members}


async def _check_staging(page: Page[Any], draft: Draft) -> None:
    values = draft.values
    for name in _chosen(values):
        if not values.get(name) and name != ENROLMENT_COLLECTION:
            raise Problem(name, N_("Choose the collection that the pilot is for."))
    if _makes_new(values):
        new = _new_collection(values)
        if not new["name"]:
            raise Problem("new_name", N_("Give the new collection a name."))
        if not new["query"] and not new["devices"]:
            raise Problem("new_devices", N_("Choose devices, or write a query."))
    await _preview(page, draft)


async def _check_enablement(page: Page[Any], draft: Draft) -> None:
    if _enrols_pilot(draft.values) and not draft.values.get(ENROLMENT_COLLECTION):
        raise Problem(ENROLMENT_COLLECTION, N_("Choose the collection that the pilot is for."))


async def _pilot_preview(page: Page[Any]) -> Response:
    """The members of the new collection, while it is described."""
    form = await page.form()
    values, _ = read(_NEW_FIELDS, form, page.form_lists)
    return page.render("comgmt/_members.html", **await _members(page, values))


_NEW_FIELDS = (
    field(
        "new_name",
        N_("Name of the new collection"),
        limit=256,
        hint=N_("It is made together with everything else, when you finish."),
    ),
    field("new_devices", N_("Devices"), "picker", several=True, options=_devices),
    field(
        "new_query",
        N_("Or a query"),
        "textarea",
        limit=4000,
        rows=2,
        hint=N_("Like: select * from SMS_R_System where Name like 'LAB-%'"),
    ),
)


def _of_new(values: Values) -> bool:
    return _makes_new(values)


def _locked_by(values: Values) -> str:
    return str(values.get("locked") or "")


STEPS = (
    Step(
        key="environment",
        title=N_("Environment"),
        intro=N_("What co-management needs, and the tenant that it is shared with."),
        template="comgmt/environment_step.html",
        load=_prerequisites,
        check=_check_prerequisites,
    ),
    tenant_sign_in_step("sign-in"),
    Step(
        key="enablement",
        title=N_("Enablement"),
        intro=N_("Whom the site enrols into the MDM service, of the clients that it has already."),
        template="comgmt/enablement_step.html",
        load=_line,
        check=_check_enablement,
        fields=(
            field(
                "automatic_enrollment",
                N_("Automatic enrolment into the MDM service"),
                "radio",
                options=ENROLS,
                default="pilot",
                required=True,
            ),
            field(
                ENROLMENT_COLLECTION,
                N_("Collection whose clients are enrolled"),
                "picker",
                options=_collections,
                hint=N_("Where automatic enrolment is for a pilot."),
            ),
            field(
                "reason",
                N_("Reason"),
                limit=1024,
                hint=N_(
                    "Only when all of this reaches more devices than one administrator may reach"
                    " alone: a second one then reads it, and approves or not."
                ),
            ),
        ),
    ),
    Step(
        key="workloads",
        title=N_("Workloads"),
        intro=N_(
            "Who owns each workload. Nothing need be switched on the first day: everything can stay"
            " with the site, and be moved later."
        ),
        load=_role,
        fields=tuple(
            field(
                name,
                text,
                "slider",
                options=POSITIONS,
                default="site",
                required=True,
                locked=_locked_by,
            )
            for name, text in WORKLOADS.items()
        ),
    ),
    Step(
        key="staging",
        title=N_("Staging"),
        intro=N_(
            "The collection that each pilot is for: one that there is, or a new one that is made in"
            " place."
        ),
        template="comgmt/staging_step.html",
        when=_staged,
        load=_staging,
        check=_check_staging,
        fields=(
            *(
                field(
                    f"pilot-{name}",
                    text,
                    "picker",
                    options=_collections,
                    when=lambda values, name=name: values.get(name) == "pilot",
                )
                for name, text in WORKLOADS.items()
            ),
            *(
                field(
                    item.name,
                    item.label,
                    item.kind,
                    several=item.several,
                    options=item.options,
                    limit=item.limit,
                    rows=item.rows,
                    hint=item.hint,
                    when=_of_new,
                )
                for item in _NEW_FIELDS
            ),
        ),
    ),
)


# ---------------------------------------------------------------------- ending


def _collection_name(values: Mapping[str, Any], name: str) -> str:
    chosen = str(values.get(name) or "")
    if chosen == NEW:
        return str(_new_collection(values)["name"])
    known = values.get(f"{name}--names")
    return str(known.get(chosen, chosen)) if isinstance(known, Mapping) else chosen


async def _summary(page: Page[Any], draft: Draft) -> list[Fact]:
    text, values = page.language.text, draft.values
    facts = await sign_in_facts(page, draft)
    how = values.get("automatic_enrollment") or "none"
    enrols = text(ENROL[how])
    if _enrols_pilot(values):
        enrols += f": {_collection_name(values, ENROLMENT_COLLECTION)}"
    facts.append(Fact(N_("Automatic enrolment into the MDM service"), enrols))
    for name, label in WORKLOADS.items():
        where = values.get(name) or "site"
        position = text(POSITION[where])
        if values.get(name) == "pilot":
            position += f": {_collection_name(values, f'pilot-{name}')}"
        facts.append(Fact(label, position))
    preview = await _preview(page, draft)
    facts.append(Fact(N_("Devices that change owner"), moving(preview)))
    facts.append(Fact(N_("What this will do"), "\n".join(reach(page, preview))))
    return facts


async def _command(page: Page[Any], draft: Draft) -> str:
    asked = wanted(draft.values)
    words = [
        "tandem comanagement enable",
        f"--automatic-enrollment {asked['automatic_enrollment']}",
    ]
    if asked["collection"]:
        words.append(f"--collection {shlex.quote(asked['collection'])}")
    for name, item in asked["workloads"].items():
        if item["position"] != "site":
            where = item["position"] + (f":{item['collection']}" if item["collection"] else "")
            words.append(f"--workload {shlex.quote(f'{name}={where}')}")
    for new in asked["new_collections"]:
        words.append(f"--new-collection {shlex.quote('='.join((new['name'], new['query'])))}")
    if asked["reason"]:
        words.append(f"--reason {shlex.quote(asked['reason'])}")
    return " ".join([*words, "--tenant-admin UPN --tenant-password-file FILE"])


async def _finish(page: Page[Any], draft: Draft) -> Outcome:
    """All of it in one request; the draft's id makes sure that it is done once."""
    asked = {**wanted(draft.values), SIGN_IN: str(draft.values.get(SIGN_IN, ""))}
    try:
        made = await page.api.ask(
            "PUT", API, asked, headers={"Idempotency-Key": f"wizard-{draft.id}"}
        )
    except AppError as error:
        raise _at_its_field(error) from None
    if made.json.get("state") == "approval":
        return Outcome(
            N_("It reaches many devices: a second administrator has to approve it."), PATH
        )
    return Outcome(N_("Co-management is enabled. Here is how far devices have followed."), PATH)


WIZARD_OF_COMANAGEMENT = Wizard(
    key=WIZARD,
    title=N_("Configure co-management"),
    steps=STEPS,
    summary=_summary,
    command=_command,
    finish=_finish,
    finish_label=N_("Enable co-management"),
    back=PATH,
)


def routes(console: Console[Any]) -> list[BaseRoute]:
    return [console.route(f"{ROOT}/comanagement/pilot-preview", _pilot_preview, post=True)]
