"""Azure services: the wizard that connects a tenant (tutorial 2), and the properties afterwards."""

from typing import Any
from urllib.parse import quote

from starlette.responses import Response
from starlette.routing import BaseRoute

from tandem.console.areas.cloud.sign_in import (
    SIGN_IN,
    sign_in_facts,
    tenant_sign_in_step,
)
from tandem.console.kit import (
    N_,
    ROOT,
    Console,
    Draft,
    Fact,
    Notice,
    Outcome,
    Page,
    Place,
    Problem,
    Step,
    Wizard,
    drawn,
    field,
    read,
)
from tandem.infra.errors import AppError, Kind

PATH = f"{ROOT}/azure-services"
API = "/api/v1/azure-services"
PLACE = Place(PATH, N_("Azure services"), "link", N_("Cloud"))
KEY, RENEW, CONSENT = "azure-service", "azure-service-secret", "azure-service-consent"
UPDATE = "azure-service-update"
REFRESH_SECONDS = 3

_CREATE, _IMPORT = "create", "import"
_HOW = (
    (_CREATE, N_("Create it in the tenant"), N_("A global administrator signs in once.")),
    (_IMPORT, N_("Import one that exists"), N_("Its ids, and for the server app its secret.")),
)
_YEARS = (("1", N_("1 year")), ("2", N_("2 years")))
TABS = (
    ("", N_("General")),
    ("applications", N_("Applications")),
    ("consent", N_("Consent")),
    ("discovery", N_("Discovery")),
)
PERMISSION = {"application": N_("Application"), "delegated": N_("Delegated")}
RUN = {
    "running": ("waiting", N_("Running")),
    "succeeded": ("good", N_("Succeeded")),
    "failed": ("bad", N_("Failed")),
}


def _of(id: str) -> str:
    return f"{API}/{quote(id, safe='')}"


def _creates(kind: str) -> Any:
    return lambda draft: draft.values.get(f"{kind}_how", _CREATE) == _CREATE


def _imports(kind: str) -> Any:
    return lambda draft: draft.values.get(f"{kind}_how") == _IMPORT


def _signs_in(draft: Draft) -> bool:
    return bool(_creates("server")(draft) or _creates("client")(draft))


async def _name_is_free(page: Page[Any], draft: Draft | None, value: str) -> None:
    mine = draft.values.get("service_id") if draft is not None else None
    for item in await page.api.get(API):
        if item["name"].casefold() == value.strip().casefold() and item["id"] != mine:
            raise Problem(
                "name",
                N_("There is an Azure service %(name)s already."),
                cure=N_("Take another name."),
                name=value,
            )


async def _environments(page: Page[Any], draft: Draft | None) -> list[tuple[str, str]]:
    found = await page.api.get("/api/v1/cloud-environments")
    return [(item["name"], f"{item['name']} ({item['authority']})") for item in found]


async def _is_uri(page: Page[Any], draft: Draft | None, value: str) -> None:
    if not value.startswith(("api://", "https://")) or " " in value:
        raise Problem(
            "app_id_uri",
            N_("An App ID URI begins with api:// or https://."),
            cure=N_("Like api://<tenant id>/ConfigMgrService, or https:// and a verified domain."),
        )


async def _verify_import(page: Page[Any], draft: Draft) -> None:
    """The Verify button: the secret is tried at the tenant, and nothing is kept there."""
    expires = str(draft.values.get("import_secret_expires", ""))
    if expires <= page.now.date().isoformat():
        raise Problem(
            "import_secret_expires",
            N_("The secret has expired on that day."),
            cure=N_("Add a new secret in the tenant."),
        )
    try:
        found = await page.api.post(
            "/api/v1/azure-service-apps/verify",
            {
                "tenant_id": draft.values["import_tenant_id"],
                "client_id": draft.values["import_client_id"],
                "secret": draft.secret("import_secret"),
            },
        )
    except AppError as error:
        at = str(error.details.get("field", ""))
        fields = {"tenant_id": "import_tenant_id", "client_id": "import_client_id"}
        known = "import_secret" if error.code == "tenant.refuses" else ""
        error.details["field"] = fields.get(at, known)
        raise
    if found["tenant_name"] and not draft.values.get("import_tenant_name"):
        draft.values["import_tenant_name"] = found["tenant_name"]


async def _summary(page: Page[Any], draft: Draft) -> list[Fact]:
    values = draft.values
    facts = [
        Fact(N_("Name"), values["name"]),
        Fact(N_("Service"), N_("Cloud Management")),
        Fact(N_("Azure environment"), values["environment"]),
    ]
    if _signs_in(draft):
        facts += await sign_in_facts(page, draft)
    if _creates("server")(draft):
        facts += [
            Fact(N_("Server app to create"), values["server_name"]),
            Fact(N_("App ID URI"), values["app_id_uri"]),
            Fact(N_("Secret valid for"), f"{values['secret_years']} × 365 d"),
        ]
    else:
        facts += [
            Fact(N_("Server app to import"), values["import_client_id"]),
            Fact(N_("Secret expires"), values["import_secret_expires"]),
        ]
    if _creates("client")(draft):
        facts.append(Fact(N_("Client app to create"), values["client_name"]))
    else:
        facts.append(Fact(N_("Client app to import"), values["import_client_app_id"]))
    return [*facts, Fact(N_("User discovery"), bool(values["user_discovery"]))]


def _quoted(text: object) -> str:
    return "'" + str(text).replace("'", "'\\''") + "'"


async def _command(page: Page[Any], draft: Draft) -> str:
    values = draft.values
    service = f" --service {_quoted(values['name'])}"
    lines = [
        f"tandem azure-service create {_quoted(values['name'])}"
        + (f" --description {_quoted(values['description'])}" if values["description"] else "")
    ]
    if _creates("server")(draft):
        lines.append(
            f"tandem azure-service app create server --name {_quoted(values['server_name'])}"
            f" --app-id-uri {_quoted(values['app_id_uri'])} --home-page {_quoted(values['home_page'])}"
            f" --secret-years {values['secret_years']}{service}"
        )
    else:
        lines.append(
            f"tandem azure-service app import server --client-id {values['import_client_id']}"
            f" --tenant-id {values['import_tenant_id']} --app-id-uri"
            f" {_quoted(values['import_app_id_uri'])} --secret-file FILE"
            f" --secret-expires {values['import_secret_expires']}{service}"
        )
    if _creates("client")(draft):
        lines.append(
            f"tandem azure-service app create client --name {_quoted(values['client_name'])}"
            f" --reply-url {_quoted(values['reply_url'])}{service}"
        )
    else:
        client_id = values["import_client_app_id"]
        lines.append(f"tandem azure-service app import client --client-id {client_id}{service}")
    if values["user_discovery"]:
        lines.append(f"tandem discovery enable{service}")
    return "\n".join(lines)


async def _finish(page: Page[Any], draft: Draft) -> Outcome:
    """Service, apps and discovery. What was made before a refusal is found again by the next try."""
    values = draft.values
    service = await _service_of(page, draft)
    have = {app["kind"] for app in service["apps"]}
    try:
        if "server" not in have:
            await _server_app(page, draft, service["id"])
            have.add("server")
        if "client" not in have:
            await _client_app(page, draft, service["id"])
    except AppError:
        if not have:  # Nothing of it is in the tenant: nothing of it stays here.
            await page.api.delete(_of(service["id"]))
            del draft.values["service_id"]
        raise
    if values["user_discovery"]:
        await page.api.put(f"{_of(service['id'])}/discovery", {"enabled": True})
    return Outcome(
        N_("%(name)s is connected. Now grant its apps their permissions."),
        f"{PATH}/{service['id']}/consent",
        {"name": values["name"]},
    )


async def _service_of(page: Page[Any], draft: Draft) -> dict[str, Any]:
    values = draft.values
    body = {"name": values["name"], "description": values["description"]}
    if values.get("service_id"):
        try:
            made: dict[str, Any] = await page.api.patch(_of(values["service_id"]), body)
            return made
        except AppError as error:
            if error.kind is not Kind.NOT_FOUND:
                raise
    made = await page.api.post(API, body)
    values["service_id"] = made["id"]
    await page.drafts.save(draft, page.session.token)
    return made


async def _server_app(page: Page[Any], draft: Draft, service: str) -> None:
    values = draft.values
    if _creates("server")(draft):
        await page.api.post(
            f"{_of(service)}/apps/server",
            {
                "name": values["server_name"],
                "app_id_uri": values["app_id_uri"],
                "home_page": values["home_page"],
                "secret_years": int(values["secret_years"]),
                "tenant_sign_in": values.get(SIGN_IN, ""),
            },
        )
        return
    await page.api.post(
        f"{_of(service)}/apps/server/import",
        {
            "name": values["import_name"],
            "client_id": values["import_client_id"],
            "tenant_id": values["import_tenant_id"],
            "tenant_name": values["import_tenant_name"],
            "app_id_uri": values["import_app_id_uri"],
            "secret": draft.secret("import_secret"),
            "secret_expires_at": f"{values['import_secret_expires']}T00:00:00Z",
        },
    )


async def _client_app(page: Page[Any], draft: Draft, service: str) -> None:
    values = draft.values
    if _creates("client")(draft):
        await page.api.post(
            f"{_of(service)}/apps/client",
            {
                "name": values["client_name"],
                "reply_url": values["reply_url"],
                "tenant_sign_in": values.get(SIGN_IN, ""),
            },
        )
        return
    await page.api.post(
        f"{_of(service)}/apps/client/import",
        {"name": values["import_client_name"], "client_id": values["import_client_app_id"]},
    )


_SECRET_YEARS = field(
    "secret_years",
    N_("Secret valid for"),
    "select",
    options=_YEARS,
    default="1",
    required=True,
    hint=N_("The calendar warns 60, 30 and 7 days before its end."),
)

WIZARD = Wizard(
    key=KEY,
    title=N_("Connect to a tenant (Azure Services)"),
    back=PATH,
    steps=(
        Step(
            key="service",
            title=N_("Azure service"),
            fields=(
                field("name", N_("Name"), required=True, limit=200, check=_name_is_free),
                field("description", N_("Description"), limit=500),
                field(
                    "service",
                    N_("Service"),
                    "select",
                    required=True,
                    default="cloud",
                    options=(("cloud", N_("Cloud Management")),),
                ),
                field(
                    "environment",
                    N_("Azure environment"),
                    "select",
                    required=True,
                    options=_environments,
                    hint=N_("The cloud that the site's settings name."),
                ),
            ),
        ),
        Step(
            key="apps",
            title=N_("Apps"),
            intro=N_(
                "The site speaks to the tenant as the server app; devices get their tokens through"
                " the native client app."
            ),
            fields=(
                field("server_how", N_("Server app (web)"), "radio", options=_HOW, default=_CREATE),
                field(
                    "client_how", N_("Native client app"), "radio", options=_HOW, default=_CREATE
                ),
            ),
        ),
        tenant_sign_in_step("sign-in", when=_signs_in),
        Step(
            key="server",
            title=N_("Create server app"),
            when=_creates("server"),
            fields=(
                field(
                    "server_name",
                    N_("Application name"),
                    required=True,
                    limit=120,
                    default="ConfigMgr Server",
                ),
                field(
                    "home_page",
                    N_("Home page URL"),
                    "url",
                    required=True,
                    default="https://ConfigMgrService",
                    hint=N_("The directory wants one; nothing opens it."),
                ),
                field(
                    "app_id_uri",
                    N_("App ID URI"),
                    required=True,
                    limit=255,
                    default="https://ConfigMgrService",
                    check=_is_uri,
                    hint=N_("It names the site in tokens, so no other app of the tenant has it."),
                ),
                _SECRET_YEARS,
            ),
        ),
        Step(
            key="import-server",
            title=N_("Import server app"),
            when=_imports("server"),
            next_label=N_("Verify"),
            check=_verify_import,
            fields=(
                field("import_tenant_name", N_("Tenant name"), limit=200),
                field("import_tenant_id", N_("Tenant id"), required=True, limit=253),
                field("import_name", N_("Application name"), limit=120),
                field("import_client_id", N_("Client id"), required=True, limit=36),
                field("import_secret", N_("Secret key"), "password", secret=True, required=True),
                field("import_secret_expires", N_("Secret expires"), "date", required=True),
                field("import_app_id_uri", N_("App ID URI"), required=True, limit=255),
            ),
        ),
        Step(
            key="client",
            title=N_("Create client app"),
            when=_creates("client"),
            fields=(
                field(
                    "client_name",
                    N_("Application name"),
                    required=True,
                    limit=120,
                    default="ConfigMgr Client",
                ),
                field(
                    "reply_url",
                    N_("Reply URL"),
                    "url",
                    required=True,
                    default="https://ConfigMgrClient",
                    hint=N_("The directory wants one; nothing opens it."),
                ),
            ),
        ),
        Step(
            key="import-client",
            title=N_("Import client app"),
            when=_imports("client"),
            fields=(
                field("import_client_name", N_("Application name"), limit=120),
                field("import_client_app_id", N_("Client id"), required=True, limit=36),
            ),
        ),
        Step(
            key="discovery",
            title=N_("Discovery"),
            fields=(
                field(
                    "user_discovery",
                    N_("Enable user discovery"),
                    "checkbox",
                    default=True,
                    hint=N_("The tenant's users become user resources of the site."),
                ),
                field(
                    "no_groups",
                    N_(
                        "Full discovery repeats every 7 days after its first run; the service's page"
                        " changes that, and has discovery of groups."
                    ),
                    "note",
                ),
            ),
        ),
    ),
    summary=_summary,
    command=_command,
    finish=_finish,
)


# ---------------------------------------------------------------------------- a sign-in for one deed


async def _deed_service(page: Page[Any], draft: Draft) -> dict[str, Any]:
    found: dict[str, Any] = await page.api.get(_of(str(draft.values.get("service") or "-")))
    return found


async def _renew_summary(page: Page[Any], draft: Draft) -> list[Fact]:
    found = await _deed_service(page, draft)
    server = next((app for app in found["apps"] if app["kind"] == "server"), None)
    return [
        Fact(N_("Azure service"), found["name"]),
        Fact(N_("Server app"), server["name"] if server else ""),
        Fact(N_("Secret valid for"), f"{draft.values['secret_years']} × 365 d"),
        *await sign_in_facts(page, draft),
    ]


async def _renew_command(page: Page[Any], draft: Draft) -> str:
    found = await _deed_service(page, draft)
    return (
        f"tandem azure-service renew-secret --service {_quoted(found['name'])}"
        f" --secret-years {draft.values['secret_years']}"
    )


async def _renew(page: Page[Any], draft: Draft) -> Outcome:
    found = await _deed_service(page, draft)
    years = int(draft.values["secret_years"])
    body = {"secret_years": years, "tenant_sign_in": draft.values.get(SIGN_IN, "")}
    await page.api.post(f"{_of(found['id'])}/secret", body)
    return Outcome(
        N_("The server app of %(name)s has a new secret."),
        f"{PATH}/{found['id']}/applications",
        {"name": found["name"]},
    )


_SERVICE = Step(key="which", title="", fields=(field("service", ""),), when=lambda draft: False)

RENEW_WIZARD = Wizard(
    key=RENEW,
    title=N_("Renew the secret"),
    back=PATH,
    finish_label=N_("Renew"),
    steps=(
        _SERVICE,
        tenant_sign_in_step("sign-in"),
        Step(key="years", title=N_("Secret"), fields=(_SECRET_YEARS,)),
    ),
    summary=_renew_summary,
    command=_renew_command,
    finish=_renew,
)


async def _update_summary(page: Page[Any], draft: Draft) -> list[Fact]:
    found = await _deed_service(page, draft)
    return [
        Fact(N_("Azure service"), found["name"]),
        *(
            Fact(
                N_("Server app") if app["kind"] == "server" else N_("Native client app"),
                app["name"] or app["app_id"],
            )
            for app in found["apps"]
        ),
        *await sign_in_facts(page, draft),
    ]


async def _update_command(page: Page[Any], draft: Draft) -> str:
    found = await _deed_service(page, draft)
    return f"tandem azure-service update-apps --service {_quoted(found['name'])}"


async def _update(page: Page[Any], draft: Draft) -> Outcome:
    found = await _deed_service(page, draft)
    body = {"tenant_sign_in": draft.values.get(SIGN_IN, "")}
    done = await page.api.post(f"{_of(found['id'])}/app-settings", body)
    added = [name for app in done["apps"] for name in app["added"]]
    if not added:
        return Outcome(
            N_("Both apps had everything already; nothing was changed."),
            f"{PATH}/{found['id']}/applications",
        )
    return Outcome(
        N_("The apps now also ask for: %(names)s. Consent to it where it is missing."),
        f"{PATH}/{found['id']}/consent",
        {"names": ", ".join(added)},
    )


UPDATE_WIZARD = Wizard(
    key=UPDATE,
    title=N_("Update application settings"),
    back=PATH,
    finish_label=N_("Update"),
    steps=(_SERVICE, tenant_sign_in_step("sign-in")),
    summary=_update_summary,
    command=_update_command,
    finish=_update,
)


async def _consent_summary(page: Page[Any], draft: Draft) -> list[Fact]:
    found = await _deed_service(page, draft)
    wanted = await page.api.get(f"{_of(found['id'])}/consent")
    return [
        Fact(N_("Azure service"), found["name"]),
        *(
            Fact(
                N_("Server app") if app["kind"] == "server" else N_("Native client app"),
                ", ".join(item["name"] for item in app["permissions"]),
            )
            for app in wanted["apps"]
        ),
        *await sign_in_facts(page, draft),
    ]


async def _consent_command(page: Page[Any], draft: Draft) -> str:
    found = await _deed_service(page, draft)
    return f"tandem azure-service consent --grant --service {_quoted(found['name'])}"


async def _grant(page: Page[Any], draft: Draft) -> Outcome:
    found = await _deed_service(page, draft)
    body = {"tenant_sign_in": draft.values.get(SIGN_IN, "")}
    await page.api.post(f"{_of(found['id'])}/consent", body)
    return Outcome(
        N_("Both apps have their permissions. Now run discovery."),
        f"{PATH}/{found['id']}/consent",
    )


CONSENT_WIZARD = Wizard(
    key=CONSENT,
    title=N_("Grant consent"),
    back=PATH,
    finish_label=N_("Grant"),
    steps=(_SERVICE, tenant_sign_in_step("sign-in")),
    summary=_consent_summary,
    command=_consent_command,
    finish=_grant,
)


# ---------------------------------------------------------------------------- pages

_GENERAL = (
    field("name", N_("Name"), required=True, limit=200),
    field("description", N_("Description"), limit=500),
)


_SCHEDULE = (
    field(
        "full_days",
        N_("Full discovery every … days"),
        "number",
        required=True,
        hint=N_("It repeats from its first run on. 0 is never."),
    ),
    field(
        "delta_minutes",
        N_("Delta discovery every … minutes"),
        "number",
        required=True,
        hint=N_("Only what changed since the last run. 0 is never."),
    ),
)
SCHEDULES = "/api/v1/discovery/schedules"
GROUPS = "/api/v1/discovery/groups"
_EVERY = (
    field(
        "every_hours",
        N_("Discovery of groups every … hours"),
        "number",
        required=True,
        hint=N_("It repeats from its first run on. 0 is never."),
    ),
)
GROUP_STATE = {
    "security": ("good", N_("Security group")),
    "other": ("plain", N_("Only its members: it is no security group")),
    "gone": ("bad", N_("Not in the tenant any more")),
    "": ("waiting", N_("Not read yet")),
}


async def _list(page: Page[Any]) -> Response:
    return page.render("cloud/services.html", services=await page.api.get(API), path_of=PATH)


async def _show(page: Page[Any], tab: str = "", status: int = 200, **more: Any) -> Response:
    id = page.request.path_params["id"]
    answer = await page.api.ask("GET", _of(id))
    found = answer.json
    shown: dict[str, Any] = {
        "service": found,
        "version_of": answer.etag,
        "tab": tab,
        "tabs": [
            (f"{PATH}/{id}" + (f"/{key}" if key else ""), title, key == tab) for key, title in TABS
        ],
        "path_of": PATH,
        "permission": PERMISSION,
        "run_state": RUN,
        "run_kind": {"full": N_("Full"), "delta": N_("Delta"), "groups": N_("Groups")},
        "group_state": GROUP_STATE,
        "groups": None,
        "group_fields": (),
        "found": None,
        "searched": {"search": "", "all": ""},
        "error": None,
        "checks": None,
        "consent": None,
        "runs": (),
        "fields": (),
        "refresh_seconds": REFRESH_SECONDS,
        **more,
    }
    if tab == "":
        problems = more.get("problems", {})
        values = more.get("values", found)
        shown["fields"] = await drawn(page, _GENERAL, values, problems)
    if tab == "consent":
        shown["consent"] = await page.api.get(f"{_of(id)}/consent")
    if tab == "discovery":
        runs = await page.api.get("/api/v1/discovery/runs")
        shown["runs"] = [run for run in runs if run["service"] == found["name"]]
        if found["discovery_enabled"]:
            values = more.get("values") or await page.api.get(f"{SCHEDULES}/{id}")
            shown["fields"] = await drawn(page, _SCHEDULE, values, more.get("problems", {}))
        shown["groups"] = groups = await page.api.get(f"{GROUPS}/{id}")
        given = more.get("group_values") or groups
        shown["group_fields"] = await drawn(page, _EVERY, given, more.get("group_problems", {}))
    return page.render("cloud/service.html", status, **shown)


def _tab(key: str) -> Any:
    async def view(page: Page[Any]) -> Response:
        return await _show(page, key)

    return view


async def _save_general(page: Page[Any]) -> Response:
    form = await page.form()
    values, problems = read(_GENERAL, form)
    id = page.request.path_params["id"]
    if not problems:
        try:
            await page.api.patch(_of(id), values, version=form.get("version", ""))
            return page.to(f"{PATH}/{id}", N_("The changes were saved."))
        except AppError as error:
            problems[str(error.details.get("field", ""))] = error
    general = problems.get("")
    return await _show(
        page, status=409 if general else 422, values=values, problems=problems, error=general
    )


async def _authentication(page: Page[Any]) -> Response:
    form = await page.form()
    id = page.request.path_params["id"]
    wanted = form.get("enabled") == "1"
    found = await page.api.get(_of(id))
    if not wanted and "confirmed" not in form:
        _ = page.language.text
        return page.confirm(
            _(N_("Disable directory authentication")),
            _(
                N_(
                    "Tokens of the tenant %(tenant)s open nothing any more: devices that come in"
                    " through a gateway with them are refused, and its accounts cannot sign in to"
                    " the site. Discovery goes on."
                ),
                tenant=found["tenant_name"],
            ),
            _(N_("Disable")),
            back=f"{PATH}/{id}/applications",
            fields={"enabled": "0"},
        )
    await page.api.patch(_of(id), {"authentication_enabled": wanted})
    return page.to(
        f"{PATH}/{id}/applications",
        N_("Tokens of this tenant count again.")
        if wanted
        else N_("Tokens of this tenant do not count any more."),
    )


async def _verify(page: Page[Any]) -> Response:
    await page.form()
    found = await page.api.post(f"{_of(page.request.path_params['id'])}/verify")
    return await _show(page, "applications", checks=found["checks"])


async def _set_discovery(page: Page[Any]) -> Response:
    form = await page.form()
    id = page.request.path_params["id"]
    wanted = form.get("enabled") == "1"
    await page.api.put(f"{_of(id)}/discovery", {"enabled": wanted})
    return page.to(
        f"{PATH}/{id}/discovery",
        N_("User discovery is on.") if wanted else N_("User discovery is off."),
    )


async def _run_discovery(page: Page[Any]) -> Response:
    await page.form()
    id = page.request.path_params["id"]
    try:
        await page.api.post("/api/v1/discovery/runs")
    except AppError as error:
        return await _show(page, "discovery", 409, error=error)
    return page.to(f"{PATH}/{id}/discovery", N_("Full discovery has begun."))


async def _run_delta(page: Page[Any]) -> Response:
    await page.form()
    id = page.request.path_params["id"]
    try:
        await page.api.post("/api/v1/discovery/delta-runs")
    except AppError as error:
        return await _show(page, "discovery", 409, error=error)
    return page.to(f"{PATH}/{id}/discovery", N_("Delta discovery has begun."))


async def _run_groups(page: Page[Any]) -> Response:
    await page.form()
    id = page.request.path_params["id"]
    try:
        await page.api.post("/api/v1/discovery/group-runs")
    except AppError as error:
        return await _show(page, "discovery", 409, error=error)
    return page.to(f"{PATH}/{id}/discovery", N_("Discovery of groups has begun."))


async def _set_groups(page: Page[Any]) -> Response:
    form = await page.form()
    id = page.request.path_params["id"]
    wanted = form.get("enabled") == "1"
    await page.api.patch(f"{GROUPS}/{id}", {"enabled": wanted})
    return page.to(
        f"{PATH}/{id}/discovery",
        N_("Discovery of groups is on.") if wanted else N_("Discovery of groups is off."),
    )


async def _set_group_schedule(page: Page[Any]) -> Response:
    form = await page.form()
    values, problems = read(_EVERY, form)
    id = page.request.path_params["id"]
    if not problems:
        try:
            await page.api.patch(f"{GROUPS}/{id}", {"every_hours": int(values["every_hours"])})
            return page.to(f"{PATH}/{id}/discovery", N_("The schedule was saved."))
        except AppError as error:
            problems[str(error.details.get("field", ""))] = error
    return await _show(page, "discovery", 422, group_values=values, group_problems=problems)


async def _find_groups(page: Page[Any]) -> Response:
    asked = page.request.query_params
    id = page.request.path_params["id"]
    searched = {"search": asked.get("search", "").strip()[:200], "all": asked.get("all", "")}
    try:
        found = await page.api.get(f"{GROUPS}/{id}/found", **searched)
    except AppError as error:
        return await _show(page, "discovery", 409, error=error, searched=searched)
    return await _show(page, "discovery", found=found, searched=searched)


async def _choose_group(page: Page[Any]) -> Response:
    form = await page.form()
    id = page.request.path_params["id"]
    try:
        await page.api.post(f"{GROUPS}/{id}/scope", {"groups": [form.get("group", "")]})
    except AppError as error:
        return await _show(page, "discovery", 409, error=error)
    return page.to(f"{PATH}/{id}/discovery", N_("The group is read with the next run."))


async def _unchoose_group(page: Page[Any]) -> Response:
    form = await page.form()
    id = page.request.path_params["id"]
    group = form.get("group", "")
    if "confirmed" not in form:
        _ = page.language.text
        found = await page.api.get(f"{GROUPS}/{id}")
        name = next((item["name"] for item in found["groups"] if item["object_id"] == group), group)
        return page.confirm(
            _(N_("Discover %(name)s no more"), name=name),
            _(
                N_(
                    "The group leaves its collections and the list of groups. Its members stay users."
                )
            ),
            _(N_("Remove")),
            back=f"{PATH}/{id}/discovery",
            fields={"group": group},
        )
    try:
        await page.api.delete(f"{GROUPS}/{id}/scope/{quote(group, safe='')}")
    except AppError as error:
        return await _show(page, "discovery", 409, error=error)
    return page.to(f"{PATH}/{id}/discovery", N_("The group is discovered no more."))


async def _set_schedule(page: Page[Any]) -> Response:
    form = await page.form()
    values, problems = read(_SCHEDULE, form)
    id = page.request.path_params["id"]
    if not problems:
        try:
            wanted = {name: int(value) for name, value in values.items()}
            await page.api.put(f"{SCHEDULES}/{id}", wanted)
            return page.to(f"{PATH}/{id}/discovery", N_("The schedule was saved."))
        except AppError as error:
            problems[str(error.details.get("field", ""))] = error
    return await _show(
        page, "discovery", 422, values=values, problems=problems, error=problems.get("")
    )


async def _delete(page: Page[Any]) -> Response:
    form = await page.form()
    id = page.request.path_params["id"]
    found = await page.api.get(_of(id))
    if "confirmed" not in form:
        _ = page.language.text
        return page.confirm(
            _(N_("Delete the Azure service")),
            _(
                N_(
                    "The site forgets %(name)s and the secret of its server app. Devices of the"
                    " tenant %(tenant)s are not let in any more, and its users are not discovered."
                    " The apps stay in the directory: delete them there if nothing else uses them."
                ),
                name=found["name"],
                tenant=found["tenant_name"] or "–",
            ),
            _(N_("Delete")),
            back=f"{PATH}/{id}",
            items=[f"{app['name']} {app['app_id']}" for app in found["apps"]],
        )
    await page.api.delete(_of(id))
    return page.to(
        PATH, N_("%(name)s was deleted. Its apps stay in the directory."), name=found["name"]
    )


def routes(console: Console[Any]) -> list[BaseRoute]:
    one = f"{PATH}/{{id}}"
    return [
        console.route(PATH, _list),
        console.route(one, _tab("")),
        console.route(one, _save_general, post=True),
        *(console.route(f"{one}/{key}", _tab(key)) for key, _ in TABS if key),
        console.route(f"{one}/authentication", _authentication, post=True),
        console.route(f"{one}/verify", _verify, post=True),
        console.route(f"{one}/discovery", _set_discovery, post=True),
        console.route(f"{one}/discovery/run", _run_discovery, post=True),
        console.route(f"{one}/discovery/delta", _run_delta, post=True),
        console.route(f"{one}/discovery/schedule", _set_schedule, post=True),
        console.route(f"{one}/discovery/groups", _find_groups),
        console.route(f"{one}/discovery/groups", _set_groups, post=True),
        console.route(f"{one}/discovery/groups/run", _run_groups, post=True),
        console.route(f"{one}/discovery/groups/schedule", _set_group_schedule, post=True),
        console.route(f"{one}/discovery/groups/add", _choose_group, post=True),
        console.route(f"{one}/discovery/groups/remove", _unchoose_group, post=True),
        console.route(f"{one}/delete", _delete, post=True),
    ]


async def notices(page: Page[Any]) -> list[Notice]:
    """Discovery that runs, or whose last run failed."""
    runs = await page.api.get("/api/v1/discovery/runs")
    if not runs or runs[0]["state"] == "succeeded":
        return []
    last = runs[0]
    services = await page.api.get(API)
    id = next((item["id"] for item in services if item["name"] == last["service"]), "")
    failed = last["state"] == "failed"
    return [
        Notice(
            title=N_("Discovery failed: %(service)s")
            if failed
            else N_("Discovery is under way: %(service)s"),
            values={"service": last["service"]},
            text=last["reason"],
            state="bad" if failed else "waiting",
            url=f"{PATH}/{id}/discovery" if id else PATH,
        )
    ]
