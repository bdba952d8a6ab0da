"""Discovered users and discovery; the site's administrators, and one's own password."""

from typing import Any
from urllib.parse import quote

from starlette.responses import Response
from starlette.routing import BaseRoute

from tandem.console import labels
from tandem.console.areas.collections.lists import every, listed
from tandem.console.kit import (
    N_,
    ROOT,
    Console,
    Notice,
    NotSignedIn,
    Page,
    Problem,
    csv,
    drawn,
    field,
    read,
)
from tandem.infra.errors import HTTP_STATUS, AppError, Kind

USERS, GROUPS, DISCOVERY, ADMINISTRATORS = (
    f"{ROOT}/users",
    f"{ROOT}/user-groups",
    f"{ROOT}/discovery",
    f"{ROOT}/administrators",
)
_API = "/api/v1/administrators"
_SCOPES = "/api/v1/scopes"
SCOPES = f"{ROOT}/scopes"
_GROUPS = "/api/v1/user-groups"
_RUNS = "/api/v1/discovery/runs"
REFRESH_SECONDS = 2
FULL = "Full Administrator"
STATES = {
    "running": ("waiting", N_("Under way")),
    "succeeded": ("good", N_("Done")),
    "failed": ("bad", N_("Failed")),
}
KINDS = {"full": N_("Full"), "delta": N_("Delta"), "groups": N_("Groups")}

# Users and discovery --------------------------------------------------------------------


async def users(page: Page[Any]) -> Response:
    sorts = ("upn", "name", "mail", "discovered_at")
    shown = await listed(page, "/api/v1/users", sorts)
    runs = await page.api.get(_RUNS)
    return page.render(
        "collections/users.html", list=shown, last=runs[0] if runs else None, states=STATES
    )


async def export_users(page: Page[Any]) -> Response:
    names = ("upn", "name", "mail", "tenant_id", "object_id", "discovered_at")
    search = page.request.query_params.get("search", "").replace("\0", "")[:200]
    return csv("users", names, every(page, "/api/v1/users", names, search=search))


async def groups(page: Page[Any]) -> Response:
    shown = await listed(page, _GROUPS, ("name", "members", "discovered_at"))
    return page.render("collections/user_groups.html", list=shown)


async def group(page: Page[Any]) -> Response:
    path = f"{_GROUPS}/{quote(page.request.path_params['id'], safe='')}"
    found = await page.api.get(path)
    shown = await listed(page, f"{path}/members", ("upn", "name", "mail", "discovered_at"))
    return page.render("collections/user_group.html", group=found, list=shown)


async def discovery(page: Page[Any]) -> Response:
    runs = await page.api.get(_RUNS)
    return page.render(
        "collections/discovery.html",
        runs=runs,
        states=STATES,
        kinds=KINDS,
        refresh_seconds=REFRESH_SECONDS,
    )


async def discover(page: Page[Any]) -> Response:
    await page.form()
    await page.api.post(_RUNS)
    return page.to(DISCOVERY, N_("Full discovery has begun."))


async def notices(page: Page[Any]) -> list[Notice]:
    """Discovery while it is under way, and the last run when it failed."""
    runs = await page.api.get(_RUNS)
    if not runs:
        return []
    last = runs[0]
    if last["state"] == "running":
        title = N_("User discovery is under way; users so far: %(users)s")
        values = {"users": last["users"]}
        return [Notice(title=title, values=values, url=DISCOVERY, text=last["service"])]
    if last["state"] == "failed":
        text = f"{last['reason']} {last['cure']}".strip()
        return [Notice(title=N_("User discovery failed"), url=DISCOVERY, state="bad", text=text)]
    return []


# Administrators --------------------------------------------------------------------------

_ROLES = (
    (
        "Full Administrator",
        N_("Full administrator"),
        N_("Everything, co-management and administrators too."),
    ),
    (
        "Infrastructure Administrator",
        N_("Infrastructure administrator"),
        N_("Gateways, cloud services, certificates and site systems."),
    ),
    (
        "Operations Administrator",
        N_("Operations administrator"),
        N_("Everything but administrators and what needs a full administrator."),
    ),
    ("Read-only Analyst", N_("Read-only analyst"), N_("Sees everything and changes nothing.")),
)


def _local(values: dict[str, Any]) -> bool:
    return values.get("sort") != "tenant"


async def _scope_options(page: Page[Any], _: Any) -> list[tuple[str, str, str]]:
    found = await page.api.get(_SCOPES)
    return [(item["name"], item["name"], item["comment"]) for item in found]


async def _given_options(page: Page[Any], _: Any) -> list[tuple[str, str, str]]:
    """All is an administrator's, never an object's."""
    return [one for one in await _scope_options(page, _) if one[0] != "All"]


_REACH = (
    field(
        "scopes",
        N_("Security scopes"),
        "checks",
        options=_scope_options,
        default=["All"],
        hint=N_("Configurations and gateways that have one of these. All: every one."),
    ),
    field(
        "collections",
        N_("Limiting collections"),
        limit=2000,
        hint=N_(
            "Names or ids with commas between them: devices in these, and what is limited to them."
            " Empty: everything."
        ),
    ),
)


def _reach(values: dict[str, Any]) -> dict[str, Any]:
    named = [item.strip() for item in values["collections"].split(",")]
    return {"scopes": values["scopes"], "collections": [item for item in named if item]}


_ADD = (
    field("name", N_("Name"), required=True, limit=128, hint=N_("What to sign in with.")),
    field("role", N_("Role"), "radio", required=True, default="Read-only Analyst", options=_ROLES),
    field(
        "sort",
        N_("Signs in with"),
        "radio",
        required=True,
        default="local",
        options=(
            (
                "local",
                N_("A password of the site"),
                N_("Works when the tenant or the internet is away."),
            ),
            ("tenant", N_("An account of the tenant"), N_("The tenant asks for the password.")),
        ),
    ),
    field(
        "password",
        N_("Password"),
        "password",
        secret=True,
        hint=N_("At least 10 characters. Only for a password of the site."),
    ),
    field(
        "upn",
        N_("Account of the tenant"),
        limit=256,
        placeholder="name@domain",
        hint=N_("Only for an account of the tenant. Discovery has to know it."),
    ),
    field(
        "tenant_id",
        N_("Tenant id"),
        limit=64,
        hint=N_("Only for an account of the tenant."),
    ),
    *_REACH,
)
_CHANGE = (field("role", N_("Role"), "radio", required=True, options=_ROLES), *_REACH)
_NEW_SCOPE = (
    field("name", N_("Name"), required=True, limit=128),
    field("comment", N_("Comment"), limit=512),
)
_GIVEN = (field("scopes", N_("Security scopes"), "checks", options=_given_options),)
_PASSWORD = (
    field(
        "current",
        N_("Current password"),
        "password",
        secret=True,
        required=True,
        autocomplete="current-password",
    ),
    field(
        "password",
        N_("New password"),
        "password",
        secret=True,
        required=True,
        hint=N_("At least 10 characters."),
    ),
    field("again", N_("New password again"), "password", secret=True, required=True),
)


async def administrators(page: Page[Any]) -> Response:
    found = await page.api.get(_API)
    return page.render(
        "collections/administrators.html", administrators=found, may=page.session.role == FULL
    )


async def ask_add(page: Page[Any]) -> Response:
    return await _form(page, "add", _ADD, {"tenant_id": await _tenant(page)}, {}, 200)


async def _tenant(page: Page[Any]) -> str:
    """The tenant that the site is connected to, when there is one."""
    try:
        services = await page.api.get("/api/v1/azure-services")
        return str(services[0]["tenant_id"]) if services else ""
    except NotSignedIn:
        raise
    except AppError:
        return ""


async def add(page: Page[Any]) -> Response:
    form = await page.form()
    values, problems = read(_ADD, form, page.form_lists)
    local = _local(values)
    needed = ("password",) if local else ("upn", "tenant_id")
    for name in needed:
        if not values[name] and name not in problems:
            problems[name] = Problem(name, N_("Fill this in."))
    if not problems:
        wanted = {"name": values["name"], "role": values["role"], **_reach(values)}
        wanted |= {name: values[name] for name in needed}
        try:
            made = await page.api.post(_API, wanted)
            return page.to(ADMINISTRATORS, N_("%(name)s was added."), name=made["name"])
        except AppError as error:
            problems = _at(error, values)
    return await _form(page, "add", _ADD, values, problems, _status(problems))


def _one(page: Page[Any]) -> str:
    return f"{_API}/{quote(page.request.path_params['name'], safe='')}"


async def ask_role(page: Page[Any]) -> Response:
    found = await page.api.ask("GET", _one(page))
    who = found.json
    limits = ", ".join(who["collections"])
    values = {"role": who["role"], "scopes": who["scopes"], "collections": limits}
    return await _form(page, "role", _CHANGE, values, {}, 200, who=found.json, etag=found.etag)


async def change_role(page: Page[Any]) -> Response:
    form = await page.form()
    found = await page.api.ask("GET", _one(page))
    values, problems = read(_CHANGE, form, page.form_lists)
    if not problems:
        try:
            wanted = {"role": values["role"], **_reach(values)}
            await page.api.patch(_one(page), wanted, version=form.get("version", ""))
            return page.to(
                ADMINISTRATORS, N_("The role of %(name)s was changed."), name=found.json["name"]
            )
        except AppError as error:
            problems = _at(error, values)
    status = _status(problems)
    return await _form(
        page, "role", _CHANGE, values, problems, status, who=found.json, etag=found.etag
    )


async def permissions(page: Page[Any]) -> Response:
    """What one administrator may do."""
    found = await page.api.get(f"{_one(page)}/permissions")
    return page.render(
        "collections/permissions.html", who=found["administrator"], operations=found["operations"]
    )


async def scopes(page: Page[Any]) -> Response:
    return await _scopes(page, {}, {}, 200)


async def _scopes(
    page: Page[Any], values: dict[str, Any], problems: dict[str, AppError], status: int
) -> Response:
    return page.render(
        "collections/scopes.html",
        status,
        scopes=await page.api.get(_SCOPES),
        may=page.session.role == FULL,
        fields=await drawn(page, _NEW_SCOPE, values, {k: v for k, v in problems.items() if k}),
        general=problems.get(""),
    )


async def add_scope(page: Page[Any]) -> Response:
    values, problems = read(_NEW_SCOPE, await page.form())
    if not problems:
        try:
            made = await page.api.post(_SCOPES, values)
            return page.to(SCOPES, N_("%(name)s was added."), name=made["name"])
        except AppError as error:
            problems = _at(error, values)
    return await _scopes(page, values, problems, _status(problems))


async def remove_scope(page: Page[Any]) -> Response:
    await page.form()
    name = page.request.path_params["name"]
    try:
        await page.api.delete(f"{_SCOPES}/{quote(name, safe='')}")
    except AppError as error:
        if error.kind is not Kind.CONFLICT:
            raise
        return await _scopes(page, {}, {"": error}, 409)
    return page.to(SCOPES, N_("%(name)s was removed."), name=name)


async def scope(page: Page[Any]) -> Response:
    """Who and what has one scope."""
    name = page.request.path_params["name"]
    found = await page.api.get(f"{_SCOPES}/{quote(name, safe='')}")
    return page.render("collections/scope.html", scope=found, kinds=labels.SCOPED)


async def objects(page: Page[Any]) -> Response:
    found = await page.api.get(f"{_SCOPES}/objects")
    return page.render(
        "collections/scoped.html",
        objects=found,
        kinds=labels.SCOPED,
        may=page.session.role == FULL,
    )


def _object(page: Page[Any]) -> str:
    kind, id = (quote(page.request.path_params[name], safe="") for name in ("kind", "id"))
    return f"{_SCOPES}/objects/{kind}/{id}"


async def ask_give(page: Page[Any]) -> Response:
    found = await page.api.ask("GET", _object(page))
    return await _given(page, found, {"scopes": found.json["scopes"]}, {}, 200)


async def give(page: Page[Any]) -> Response:
    form = await page.form()
    found = await page.api.ask("GET", _object(page))
    values, problems = read(_GIVEN, form, page.form_lists)
    if not problems:
        try:
            await page.api.put(_object(page), values, version=form.get("version", ""))
            return page.to(
                f"{SCOPES}/objects",
                N_("The scopes of %(name)s were changed."),
                name=found.json["name"],
            )
        except AppError as error:
            problems = _at(error, values)
    return await _given(page, found, values, problems, _status(problems))


async def _given(
    page: Page[Any],
    found: Any,
    values: dict[str, Any],
    problems: dict[str, AppError],
    status: int,
) -> Response:
    return page.render(
        "collections/scoped_one.html",
        status,
        one=found.json,
        etag=found.etag,
        kinds=labels.SCOPED,
        fields=await drawn(page, _GIVEN, values, {k: v for k, v in problems.items() if k}),
        general=problems.get(""),
    )


async def ask_remove(page: Page[Any]) -> Response:
    who = await page.api.get(_one(page))
    _ = page.language.text
    return page.confirm(
        _("Remove %(name)s", name=who["name"]),
        _(
            "%(name)s, %(role)s, can no longer sign in, and every open session ends.",
            name=who["name"],
            role=_(labels.ROLE.get(who["role"], who["role"])),
        ),
        _("Remove"),
        back=ADMINISTRATORS,
    )


async def remove(page: Page[Any]) -> Response:
    form = await page.form()
    if form.get("confirmed") != "1":
        return await ask_remove(page)
    await page.api.delete(_one(page))
    name = page.request.path_params["name"]
    return page.to(ADMINISTRATORS, N_("%(name)s is no longer an administrator."), name=name)


async def ask_password(page: Page[Any]) -> Response:
    who = await page.api.get("/api/v1/me")
    return await _form(page, "password", _PASSWORD, {}, {}, 200, who=who)


async def change_password(page: Page[Any]) -> Response:
    form = await page.form()
    values, problems = read(_PASSWORD, form)
    if not problems and values["password"] != values["again"]:
        problems["again"] = Problem("again", N_("This is not the same password."))
    if not problems:
        given = {name: values[name] for name in ("current", "password")}
        try:
            await page.api.post("/api/v1/me/password", given)
            return page.to(
                f"{ROOT}/password", N_("Your password was changed, and your other sessions ended.")
            )
        except AppError as error:
            problems = _at(error, values)
    who = await page.api.get("/api/v1/me")
    return await _form(page, "password", _PASSWORD, {}, problems, _status(problems), who=who)


def _at(error: AppError, values: dict[str, Any]) -> dict[str, AppError]:
    at = str(error.details.get("field", ""))
    return {at if at in values else "": error}


def _status(problems: dict[str, AppError]) -> int:
    first = next(iter(problems.values()))
    status = HTTP_STATUS[first.kind]
    return 422 if status == 400 or first.kind is Kind.FORBIDDEN else status


async def _form(
    page: Page[Any],
    what: str,
    fields: Any,
    values: dict[str, Any],
    problems: dict[str, AppError],
    status: int,
    *,
    who: dict[str, Any] | None = None,
    etag: str = "",
) -> Response:
    shown = await drawn(page, fields, values, {k: v for k, v in problems.items() if k})
    return page.render(
        "collections/administrator.html",
        status,
        what=what,
        who=who,
        etag=etag,
        fields=shown,
        general=problems.get(""),
    )


def routes(console: Console[Any]) -> list[BaseRoute]:
    one = f"{ADMINISTRATORS}/{{name}}"
    return [
        console.route(USERS, users),
        console.route(f"{USERS}.csv", export_users),
        console.route(GROUPS, groups),
        console.route(f"{GROUPS}/{{id}}", group),
        console.route(DISCOVERY, discovery),
        console.route(DISCOVERY, discover, post=True),
        console.route(ADMINISTRATORS, administrators),
        console.route(f"{ADMINISTRATORS}/add", ask_add),
        console.route(f"{ADMINISTRATORS}/add", add, post=True),
        console.route(f"{one}/role", ask_role),
        console.route(f"{one}/role", change_role, post=True),
        console.route(f"{one}/permissions", permissions),
        console.route(SCOPES, scopes),
        console.route(SCOPES, add_scope, post=True),
        console.route(f"{SCOPES}/objects", objects),
        console.route(f"{SCOPES}/objects/{{kind}}/{{id}}", ask_give),
        console.route(f"{SCOPES}/objects/{{kind}}/{{id}}", give, post=True),
        console.route(f"{SCOPES}/{{name}}", scope),
        console.route(f"{SCOPES}/{{name}}/remove", remove_scope, post=True),
        console.route(f"{one}/remove", ask_remove),
        console.route(f"{one}/remove", remove, post=True),
        console.route(f"{ROOT}/password", ask_password),
        console.route(f"{ROOT}/password", change_password, post=True),
    ]
