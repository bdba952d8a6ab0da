"""Custom client settings: a wizard that makes them, their properties, and to whom they are deployed."""

import shlex
from typing import Any
from urllib.parse import quote

from starlette.responses import Response
from starlette.routing import BaseRoute

from tandem.console import approvals
from tandem.console.areas.comgmt.client_settings import (
    API,
    GROUPS,
    PATH,
    SETTINGS,
    TITLES,
    TYPES,
    Known,
    grouped,
    locked,
    typed_values,
)
from tandem.console.kit import (
    CHANGED,
    N_,
    Console,
    Draft,
    Fact,
    Outcome,
    Page,
    Problem,
    Step,
    Wizard,
    field,
)
from tandem.infra.errors import AppError, Kind

CUSTOM = f"{API}/custom"
BASE = f"{PATH}/custom"
_MOST_COLLECTIONS = 1000
_YES_NO = (("yes", N_("Yes")), ("no", N_("No")))


def path_of(id: str) -> str:
    return f"{BASE}/{quote(id, safe='')}"


def _api(page: Page[Any]) -> str:
    return f"{CUSTOM}/{quote(page.request.path_params['id'], safe='')}"


async def _collections(page: Page[Any], type: str) -> list[tuple[str, str]]:
    found = await page.api.get("/api/v1/collections", limit=_MOST_COLLECTIONS, type=type)
    return [(item["id"], item["name"]) for item in found["items"]]


# ------------------------------------------------------------------------- one of them


async def show(
    page: Page[Any],
    typed: dict[str, str] | None = None,
    error: AppError | None = None,
) -> Response:
    answer = await page.api.ask("GET", _api(page))
    found = answer.json
    changed = error is not None and error.code == CHANGED
    status = 200 if error is None else 409 if changed else 422
    to = {one["collection_id"] for one in found["deployments"]}
    return page.render(
        "comgmt/custom_settings.html",
        status,
        found=found,
        own=path_of(found["id"]),
        etag=answer.etag,
        groups=grouped(found["settings"]),
        collections=[one for one in await _collections(page, found["type"]) if one[0] not in to],
        typed=typed or {},
        typed_groups=page.form_lists.get("groups") if error else None,
        error=None if changed else error,
        conflict=changed,
        at=str(error.details.get("field", "")) if error else "",
        titles=TITLES,
        group_titles=GROUPS,
        types=TYPES,
        locked=locked(page),
        path_of=PATH,
    )


async def save(page: Page[Any]) -> Response:
    form = await page.form()
    found = await page.api.get(_api(page))
    groups = list(page.form_lists.get("groups", ()))
    kept = [item for item in found["settings"] if item["group"] in groups]
    wanted = {
        "name": form.get("name", ""),
        "description": form.get("description", ""),
        "groups": groups,
        "settings": typed_values(kept, form),
    }
    try:
        made = await page.api.patch(_api(page), wanted, version=form.get("version", ""))
    except AppError as error:
        if error.code != CHANGED and error.kind not in (Kind.INVALID, Kind.CONFLICT):
            raise
        return await show(page, dict(form), error)
    return page.to(path_of(made["id"]), N_("Saved. Clients follow with their next policy."))


async def move(page: Page[Any]) -> Response:
    form = await page.form()
    said = form.get("priority", "")
    place = int(said) if said.isascii() and said.isdigit() and len(said) < 6 else 0
    made = await page.api.patch(_api(page), {"priority": place})
    return page.to(
        PATH,
        N_("%(name)s has the priority %(priority)s now."),
        name=made["name"],
        priority=made["priority"],
    )


async def deploy(page: Page[Any]) -> Response:
    """Says for how many they would hold, and deploys them once that is confirmed."""
    form = await page.form()
    wanted = form.get("collection", "")[:256]
    text, number = page.language.text, page.language.number
    found = await page.api.get(_api(page))
    if "confirmed" not in form:
        if not wanted:
            return page.to(path_of(found["id"]), N_("Choose a collection."))
        try:
            reach = await page.api.get(f"{_api(page)}/reach", collection=wanted)
        except AppError as error:
            if error.kind not in (Kind.CONFLICT, Kind.NOT_FOUND):
                raise
            return await show(page, dict(form), error)
        warning = text(
            N_(
                "These settings forbid the gateway: a device that is on the internet hears nothing of"
                " the site from then on, not even that they were taken back."
            )
        )
        return page.confirm(
            text(N_("Deploy %(name)s"), name=found["name"]),
            text(
                N_("%(name)s will hold for the members of %(collection)s: %(members)s now."),
                name=found["name"],
                collection=reach["collection"],
                members=number(reach["members"]),
            ),
            text(N_("Deploy")),
            back=path_of(found["id"]),
            fields={"collection": reach["collection_id"], "reason": form.get("reason", "")[:1024]},
            items=[
                *([warning] if reach["leave_the_gateway"] else []),
                *([text(_SECOND)] if reach["needs_approval"] else []),
            ],
            danger=reach["leave_the_gateway"],
        )
    body = {"collection": wanted, "reason": form.get("reason", "")}
    try:
        made = await page.api.post(f"{_api(page)}/deployments", body)
    except AppError as error:
        if error.kind is not Kind.INVALID:
            raise
        return await show(page, dict(form), error)
    if made.get("state") == "approval":
        count = number(made["devices"])
        return page.to(PATH, approvals.ASKED, name=found["name"], count=count)
    return page.to(
        path_of(found["id"]),
        N_("%(name)s was deployed. Clients follow with their next policy."),
        name=found["name"],
    )


_SECOND = N_("A second administrator has to approve it.")


async def withdraw(page: Page[Any]) -> Response:
    form = await page.form()
    text, number = page.language.text, page.language.number
    found = await page.api.get(_api(page))
    id = page.request.path_params["collection"]
    here = next((one for one in found["deployments"] if one["collection_id"] == id), None)
    if here is None:
        return page.to(path_of(found["id"]), N_("It was taken back already."))
    if "confirmed" not in form:
        return page.confirm(
            text(N_("Take back %(name)s"), name=found["name"]),
            text(
                N_(
                    "The members of %(collection)s (%(members)s) go back to what other settings say."
                ),
                collection=here["collection"],
                members=number(here["members"]),
            ),
            text(N_("Take back")),
            back=path_of(found["id"]),
        )
    await page.api.delete(f"{_api(page)}/deployments/{quote(id, safe='')}")
    return page.to(path_of(found["id"]), N_("%(name)s was taken back."), name=found["name"])


async def delete(page: Page[Any]) -> Response:
    form = await page.form()
    text, number = page.language.text, page.language.number
    answer = await page.api.ask("GET", _api(page))
    found = answer.json
    if "confirmed" not in form:
        return page.confirm(
            text(N_("Delete %(name)s"), name=found["name"]),
            text(
                N_("What it says holds no more, and the settings behind it move up by one place.")
                if found["deployments"]
                else N_("It is deployed to nobody. The settings behind it move up by one place.")
            ),
            text(N_("Delete")),
            back=path_of(found["id"]),
            fields={"version": answer.etag},
            items=[
                f"{one['collection']} ({number(one['members'])})" for one in found["deployments"]
            ],
        )
    await page.api.delete(_api(page), version=form.get("version", ""))
    return page.to(PATH, N_("%(name)s was deleted."), name=found["name"])


# ---------------------------------------------------------------------------- the wizard


async def _groups(page: Page[Any], draft: Draft | None) -> list[tuple[str, ...]]:
    type = draft.values.get("type") if draft else "device"
    there = {one.group for one in SETTINGS if one.of_users or type != "user"}
    return [(group, GROUPS[group]) for group in GROUPS if group in there]


async def _to(page: Page[Any], draft: Draft | None) -> list[tuple[str, str]]:
    return await _collections(page, draft.values.get("type", "device") if draft else "device")


def _asked(one: Known, values: dict[str, Any]) -> bool:
    """Whether a setting belongs to what was chosen. A step alone does not know that."""
    if "groups" not in values:
        return True
    return one.group in values["groups"] and (one.of_users or values.get("type") != "user")


def _field(one: Known) -> Any:
    def when(values: dict[str, Any]) -> bool:
        return _asked(one, values)

    if one.most:
        return field(one.name, one.title, "number", least=one.least, most=one.most, when=when)
    return field(one.name, one.title, "select", options=_YES_NO, when=when)


def _said(draft: Draft) -> dict[str, Any]:
    """The settings that were filled in, of the groups that were chosen."""
    return {
        one.name: draft.values[one.name]
        for one in SETTINGS
        if _asked(one, draft.values) and draft.values.get(one.name) not in ("", None)
    }


async def _free_name(page: Page[Any], draft: Draft | None, value: str) -> None:
    for item in await page.api.get(CUSTOM):
        if item["name"].casefold() == value.casefold():
            raise Problem(
                "name",
                N_("There are client settings %(name)s already."),
                cure=N_("Take another name."),
                name=item["name"],
            )


async def _summary(page: Page[Any], draft: Draft) -> list[Fact]:
    values, text, number = draft.values, page.language.text, page.language.number
    type = TYPES[values["type"]]
    facts = [
        Fact(N_("Name"), values["name"]),
        Fact(N_("Description"), values.get("description", "")),
        Fact(N_("Settings of"), text(type)),
        Fact(N_("Groups"), ", ".join(text(GROUPS.get(one, one)) for one in values["groups"])),
    ]
    said = _said(draft)
    words = {"yes": text(N_("Yes")), "no": text(N_("No"))}
    for one in SETTINGS:
        if _asked(one, values):
            given = said.get(one.name)
            shown = (
                text(N_("as the default settings have it now"))
                if given is None
                else words.get(given, "")
                if isinstance(given, str)
                else number(given)
            )
            facts.append(Fact(one.title, shown))
    wanted = values.get("collection")
    names = dict(await _to(page, draft))
    to = names.get(wanted, "") if wanted else text(N_("Nobody yet"))
    facts.append(Fact(N_("Deployed to"), to))
    return facts


async def _command(page: Page[Any], draft: Draft) -> str:
    values, said = draft.values, _said(draft)
    line = ["tandem", "client-settings", "create", values["name"], "--type", values["type"]]
    if values.get("description"):
        line += ["--description", values["description"]]
    for group in values["groups"]:
        line += ["--group", group]
    for name, value in said.items():
        line += ["--set", f"{name}={value}"]
    if values.get("collection"):
        line += ["--deploy-to", values["collection"]]
        if values.get("reason"):
            line += ["--reason", values["reason"]]
    return shlex.join(line)


async def _finish(page: Page[Any], draft: Draft) -> Outcome:
    values = draft.values
    wanted = {
        "name": values["name"],
        "description": values.get("description", ""),
        "type": values["type"],
        "groups": values["groups"],
        "settings": _said(draft),
    }
    made = await page.api.post(CUSTOM, wanted)
    if values.get("collection"):
        to = {"collection": values["collection"], "reason": values.get("reason", "")}
        try:
            deployed = await page.api.post(f"{CUSTOM}/{made['id']}/deployments", to)
        except AppError as error:
            if error.code != "approval.needs-reason":
                raise
            return Outcome(
                said=N_(
                    "%(name)s was created, and is deployed to nobody yet: a second administrator has"
                    " to approve that, and needs a reason."
                ),
                path=path_of(made["id"]),
                values={"name": made["name"]},
            )
        if deployed.get("state") == "approval":
            count = page.language.number(deployed["devices"])
            return Outcome(
                said=approvals.ASKED, path=PATH, values={"name": made["name"], "count": count}
            )
    return Outcome(
        said=N_("%(name)s was created, behind all other custom settings."),
        path=path_of(made["id"]),
        values={"name": made["name"]},
    )


WIZARD = Wizard(
    key="client-settings",
    title=N_("Create custom client settings"),
    back=PATH,
    finish_label=N_("Create"),
    steps=(
        Step(
            key="general",
            title=N_("General"),
            fields=(
                field("name", N_("Name"), required=True, limit=256, check=_free_name),
                field("description", N_("Description"), "textarea", limit=1024, rows=2),
                field(
                    "type",
                    N_("Settings of"),
                    "radio",
                    required=True,
                    default="device",
                    options=(
                        (
                            "device",
                            N_("Devices"),
                            N_("They are deployed to collections of devices."),
                        ),
                        (
                            "user",
                            N_("Users"),
                            N_("They can withhold user policy from the users of a collection."),
                        ),
                    ),
                ),
            ),
        ),
        Step(
            key="groups",
            title=N_("Groups of settings"),
            intro=N_(
                "These settings say everything of the groups that you choose, and nothing of the"
                " others."
            ),
            fields=(field("groups", N_("Groups"), "checks", required=True, options=_groups),),
        ),
        Step(
            key="settings",
            title=N_("Settings"),
            intro=N_("What you leave empty is as the default settings have it now, and stays so."),
            fields=tuple(_field(one) for one in SETTINGS),
        ),
        Step(
            key="deployment",
            title=N_("Deployment"),
            fields=(
                field(
                    "collection",
                    N_("Collection"),
                    "select",
                    options=_to,
                    hint=N_("You can deploy them later, and to more than one."),
                ),
                approvals.REASON,
            ),
        ),
    ),
    summary=_summary,
    command=_command,
    finish=_finish,
)


def routes(console: Console[Any]) -> list[BaseRoute]:
    one = f"{BASE}/{{id}}"
    return [
        console.route(one, show),
        console.route(one, save, post=True),
        console.route(f"{one}/move", move, post=True),
        console.route(f"{one}/deploy", deploy, post=True),
        console.route(f"{one}/deployments/{{collection}}/withdraw", withdraw, post=True),
        console.route(f"{one}/delete", delete, post=True),
    ]
