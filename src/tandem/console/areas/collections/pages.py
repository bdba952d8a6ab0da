"""Collections: the list, one with its rules, members and uses, and what is done to it."""

from typing import Any
from urllib.parse import quote

from starlette.responses import Response
from starlette.routing import BaseRoute

from tandem.console.areas.collections.builder import API, LIMITING, PATH, USER_LIMITING
from tandem.console.areas.collections.lists import SIZE, every, listed, number_of
from tandem.console.kit import (
    N_,
    Console,
    Page,
    Problem,
    Refused,
    csv,
    drawn,
    field,
    read,
)
from tandem.infra.errors import HTTP_STATUS, AppError

TABS = {
    "": N_("General"),
    "rules": N_("Membership rules"),
    "members": N_("Members"),
    "uses": N_("Where it is used"),
    "evaluation": N_("Evaluation"),
}
KINDS = {
    "direct": N_("Device"),
    "query": N_("Query"),
    "include": N_("Include"),
    "exclude": N_("Exclude"),
}
USES = {
    "limit": N_("Limits the collection"),
    "include": N_("Included by the collection"),
    "exclude": N_("Excluded by the collection"),
    "workload": N_("Pilot of the workload"),
    "rollout": N_("Ring of the roll-out of"),
    "enrollment": N_("Pilot of"),
    "policy": N_("Co-management policy"),
    "configuration": N_("Configuration deployed to it"),
    "software-update": N_("Software update decided for it"),
    "client-settings": N_("Client settings"),
}
HOWS = {
    "limit": N_("is limited by"),
    "include": N_("includes"),
    "exclude": N_("excludes"),
}
_USERS = ("upn", "name", "mail", "id", "discovered_at")
_DEVICES = ("name", "id", "os_version", "client_version", "discovered_at")
_NAMED = (
    field("name", N_("Name"), required=True, limit=256),
    field("comment", N_("Comment"), "textarea", limit=1024, rows=2),
)
_FIELDS = {"device": (*_NAMED, LIMITING), "user": (*_NAMED, USER_LIMITING)}


def path_of(id: str) -> str:
    return f"{PATH}/{quote(id, safe='')}"


def _api(page: Page[Any]) -> str:
    return f"{API}/{quote(page.request.path_params['id'], safe='')}"


async def show_all(page: Page[Any]) -> Response:
    sorts = ("name", "id", "type", "limiting", "rules", "evaluated_at", "cost")
    return page.render("collections/list.html", list=await listed(page, API, sorts))


async def export_all(page: Page[Any]) -> Response:
    names = (
        "id",
        "name",
        "type",
        "comment",
        "limiting_id",
        "limiting_name",
        "rule_count",
        "members",
    )
    search = page.request.query_params.get("search", "").replace("\0", "")[:200]
    return csv("collections", names, every(page, API, names, search=search))


async def _frame(page: Page[Any], tab: str) -> dict[str, Any]:
    found = await page.api.ask("GET", _api(page))
    shown = found.json
    own = path_of(shown["id"])
    return {
        "collection": shown,
        "etag": found.etag,
        "own": own,
        "tab": tab,
        "tabs": [
            (f"{own}/{key}" if key else own, title, key == tab) for key, title in TABS.items()
        ],
        "kinds": KINDS,
    }


async def show(page: Page[Any]) -> Response:
    return page.render("collections/show.html", **await _frame(page, ""))


async def rules(page: Page[Any]) -> Response:
    frame = await _frame(page, "rules")
    query = page.request.query_params
    number = number_of(query.get("page", ""))
    search = query.get("search", "").replace("\0", "").strip()[:200]
    found = await page.api.get(
        f"{_api(page)}/rules", limit=SIZE, offset=(number - 1) * SIZE, search=search
    )
    pages = max(1, -(-found["total"] // SIZE))
    return page.render(
        "collections/rules.html",
        **frame,
        rules=found["items"],
        total=found["total"],
        number_of_page=number,
        pages=pages,
        search=search,
    )


async def members(page: Page[Any]) -> Response:
    frame = await _frame(page, "members")
    sorts = _USERS if frame["collection"]["type"] == "user" else _DEVICES
    shown = await listed(page, f"{_api(page)}/members", sorts)
    return page.render("collections/members.html", **frame, list=shown)


async def export_members(page: Page[Any]) -> Response:
    names = ("id", "name", "client_id", "device_id", "os_name", "os_version", "client_version")
    if (await page.api.get(_api(page)))["type"] == "user":
        names = ("id", "upn", "name", "mail", "tenant_id", "object_id", "discovered_at")
    search = page.request.query_params.get("search", "").replace("\0", "")[:200]
    return csv("members", names, every(page, f"{_api(page)}/members", names, search=search))


async def uses(page: Page[Any]) -> Response:
    frame = await _frame(page, "uses")
    found = await page.api.get(f"{_api(page)}/uses")
    graph = await page.api.get(f"{_api(page)}/dependencies")
    names = {item["id"]: item["name"] for item in (*graph["needs"], *graph["needed_by"])}
    names[frame["collection"]["id"]] = frame["collection"]["name"]
    return page.render(
        "collections/uses.html",
        **frame,
        uses=found,
        words=USES,
        edges=graph["edges"],
        names=names,
        hows=HOWS,
    )


_SCHEDULE = (
    field(
        "incremental",
        N_("Use incremental updates"),
        "checkbox",
        hint=N_("A device that changes is looked at within seconds."),
    ),
    field(
        "full_every_minutes",
        N_("Full update every so many minutes"),
        "number",
        required=True,
        least=0,
        most=527_040,
        hint=N_("All devices are looked at. 10080 is a week; with 0 only by hand."),
    ),
)


async def evaluation(page: Page[Any]) -> Response:
    frame = await _frame(page, "evaluation")
    return await _evaluation_page(page, frame, dict(frame["collection"]), {}, 200)


async def _evaluation_page(
    page: Page[Any],
    frame: dict[str, Any],
    values: dict[str, Any],
    problems: dict[str, AppError],
    status: int,
) -> Response:
    found = frame["collection"]["evaluation"]
    runs = found["incremental_runs"] if found else 0
    return page.render(
        "collections/evaluation.html",
        status,
        **frame,
        fields=await drawn(page, _SCHEDULE, values, problems),
        version_of=frame["etag"],
        each_ms=round(found["incremental_total_ms"] / runs, 1) if runs else None,
        waiting=await page.api.get(f"{API}/waiting"),
    )


async def save_schedule(page: Page[Any]) -> Response:
    form = await page.form()
    frame = await _frame(page, "evaluation")
    values, problems = read(_SCHEDULE, form)
    if problems:
        return await _evaluation_page(page, frame, values, problems, 422)
    wanted = {item.name: values[item.name] for item in _SCHEDULE}
    made = await page.api.patch(_api(page), wanted, version=form.get("version", ""))
    return page.to(
        f"{path_of(made['id'])}/evaluation", N_("%(name)s was saved."), name=made["name"]
    )


async def evaluate(page: Page[Any]) -> Response:
    await page.form()
    found = await page.api.post(f"{_api(page)}/evaluate")
    return page.to(
        path_of(page.request.path_params["id"]),
        N_("Membership is up to date. Members: %(members)s, found in %(took)s ms."),
        members=found["members"],
        took=found["took_ms"],
    )


# Changes ---------------------------------------------------------------------------------


async def edit(page: Page[Any]) -> Response:
    frame = await _frame(page, "")
    shown = frame["collection"]
    values = {
        "name": shown["name"],
        "comment": shown["comment"],
        "limiting": shown["limiting_id"] or "",
        "limiting--names": {shown["limiting_id"] or "": shown["limiting_name"]},
    }
    return await _edit_page(page, frame, values, {}, frame["etag"], 200)


async def save(page: Page[Any]) -> Response:
    form = await page.form()
    frame = await _frame(page, "")
    values, problems = read(_FIELDS[frame["collection"]["type"]], form, page.form_lists)
    version = form.get("version", "")
    if any(name.endswith("--search") for name in form):
        return await _edit_page(page, frame, values, {}, version, 200)
    if problems:
        return await _edit_page(page, frame, values, problems, version, 422)
    wanted = {name: values[name] for name in ("name", "comment", "limiting")}
    try:
        made = await page.api.patch(_api(page), wanted, version=version)
    except Refused as refused:
        if refused.changed:
            # What was typed stays; to save it now is to save it over what the other one did.
            error = Problem(
                "",
                N_("Somebody else has changed this collection since you opened it."),
                cure=N_("Compare with what it is now; save again to keep what you typed."),
            )
            now = frame["etag"]
            return await _edit_page(page, frame, values, {"": error}, now, 412, conflict=True)
        at = str(refused.details.get("field", ""))
        at = at if at in wanted else ""
        status = 422 if HTTP_STATUS[refused.kind] == 400 else HTTP_STATUS[refused.kind]
        return await _edit_page(page, frame, values, {at: refused}, version, status)
    return page.to(path_of(made["id"]), N_("%(name)s was saved."), name=made["name"])


async def _edit_page(
    page: Page[Any],
    frame: dict[str, Any],
    values: dict[str, Any],
    problems: dict[str, AppError],
    version: str,
    status: int,
    *,
    conflict: bool = False,
) -> Response:
    type = frame["collection"]["type"]
    fields = await drawn(
        page,
        _FIELDS[type],
        values,
        {name: problem for name, problem in problems.items() if name},
        options_url=f"{PATH}/options/{type}",
        lists=page.form_lists,
        form=page.form_values,
    )
    return page.render(
        "collections/edit.html",
        status,
        **frame,
        fields=fields,
        general=problems.get(""),
        version_of=version,
        conflict=conflict,
    )


async def options(page: Page[Any]) -> Response:
    query = page.request.query_params.get("limiting--query", "")[:100].replace("\0", "")
    item = USER_LIMITING if page.request.path_params["type"] == "user" else LIMITING
    found = await item.options(page, None, query)
    return page.render("_picker_found.html", item=item, found=found[:20], query=query)


async def ask_delete(page: Page[Any]) -> Response:
    frame = await _frame(page, "")
    uses = await page.api.get(f"{_api(page)}/uses")
    blocking = [use for use in uses if use["blocks"]]
    if blocking:
        return page.render("collections/blocked.html", 409, **frame, uses=blocking, words=USES)
    shown = frame["collection"]
    _ = page.language.text
    remembered = [f"{_(USES.get(use['kind'], use['kind']))} {use['name']}" for use in uses]
    return page.confirm(
        _("Delete %(name)s", name=shown["name"]),
        page.language.plural(
            "The collection and its rules go. %(number)s device is a member, and stays as it is.",
            "The collection and its rules go. %(number)s devices are members, and stay as they are.",
            shown["members"],
        ),
        _("Delete"),
        back=frame["own"],
        fields={"version": frame["etag"]},
        items=remembered,
    )


async def delete(page: Page[Any]) -> Response:
    form = await page.form()
    if form.get("confirmed") != "1":
        return await ask_delete(page)
    name = (await page.api.get(_api(page)))["name"]
    await page.api.delete(_api(page), version=form.get("version", ""))
    return page.to(PATH, N_("The collection %(name)s was deleted."), name=name)


async def remove_rule(page: Page[Any]) -> Response:
    form = await page.form()
    frame = await _frame(page, "rules")
    rule = page.request.path_params["rule"]
    _ = page.language.text
    if form.get("confirmed") != "1":
        return page.confirm(
            _("Remove the rule"),
            _(
                "%(rule)s is removed from %(name)s. Members now: %(members)s.",
                rule=form.get("name", "")[:300],
                name=frame["collection"]["name"],
                members=page.language.number(frame["collection"]["members"]),
            ),
            _("Remove"),
            back=f"{frame['own']}/rules",
            fields={"version": frame["etag"], "name": form.get("name", "")[:300]},
        )
    await page.api.delete(f"{_api(page)}/rules/{rule}", version=form.get("version", ""))
    return page.to(f"{frame['own']}/rules", N_("The rule %(name)s was removed."), name=form["name"])


def routes(console: Console[Any]) -> list[BaseRoute]:
    one = f"{PATH}/{{id}}"
    return [
        console.route(PATH, show_all),
        console.route(f"{PATH}.csv", export_all),
        console.route(f"{PATH}/options/{{type}}/limiting", options),
        console.route(one, show),
        console.route(f"{one}/rules", rules),
        console.route(f"{one}/rules/{{rule:int}}/remove", remove_rule, post=True),
        console.route(f"{one}/members", members),
        console.route(f"{one}/members.csv", export_members),
        console.route(f"{one}/uses", uses),
        console.route(f"{one}/evaluate", evaluate, post=True),
        console.route(f"{one}/evaluation", evaluation),
        console.route(f"{one}/evaluation", save_schedule, post=True),
        console.route(f"{one}/edit", edit),
        console.route(f"{one}/edit", save, post=True),
        console.route(f"{one}/delete", ask_delete),
        console.route(f"{one}/delete", delete, post=True),
    ]
