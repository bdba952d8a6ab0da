"""Update application settings: registrations made elsewhere, or by an older site, get what is missing.

Directory read and the other permissions of discovery for the server app, the scope by which devices
get tokens for it, and the client app's use of that scope (spec F1 step 6). Nothing that somebody
else put into a registration is taken out; consent stays a step of its own.
"""

from dataclasses import dataclass
from typing import Any

from tandem.infra.database import Tx
from tandem.site.cloud_services.consent import SERVER_SCOPE
from tandem.site.cloud_services.model import SERVER_APP_SCOPES, App, AzureService, TenantRefuses
from tandem.site.cloud_services.tenants import (
    Graph,
    Tenants,
    client_access,
    global_administrator,
    permission_ids,
    server_access,
    server_scope,
)


@dataclass(frozen=True, slots=True)
class Updated:
    """One app, and what its registration was given; empty when it had everything."""

    kind: str
    app_id: str
    name: str
    added: tuple[str, ...]


async def update(
    tx: Tx, tenants: Tenants, service: AzureService, access_token: str
) -> list[Updated]:
    """Bring both registrations up to date. Raises NotGlobalAdministrator, TenantRefuses."""
    claims = global_administrator(access_token)
    apps = {app.kind: app for app in await tenants.apps(tx, service.id)}
    if "server" not in apps or claims["tid"] != service.tenant_id:
        raise TenantRefuses(
            f"{service.name} has no server app in this administrator's tenant.",
            cure="Sign in with an administrator of the connected tenant.",
        )
    graph = Graph(tenants.http, tenants.environment.graph, access_token)
    server = await _registration(graph, apps["server"])
    scope, done = await _update_server(graph, apps["server"], server)
    found = [Updated("server", apps["server"].app_id, apps["server"].name, done)]
    if "client" in apps:
        client = await _registration(graph, apps["client"])
        own = {
            "resourceAppId": apps["server"].app_id,
            "resourceAccess": [{"id": scope, "type": "Scope"}],
        }
        needed = _with(_with(client["requiredResourceAccess"], client_access()), own)
        added = _news(client["requiredResourceAccess"], needed, {scope: SERVER_SCOPE})
        if added:
            path = f"/applications/{client['id']}"
            await graph.patch(path, {"requiredResourceAccess": needed})
        found.append(Updated("client", apps["client"].app_id, apps["client"].name, added))
    return found


async def _registration(graph: Graph, app: App) -> dict[str, Any]:
    found = (await graph.get(f"/applications?$filter=appId eq '{app.app_id}'"))["value"]
    if not found:
        raise TenantRefuses(
            f"The tenant has no app {app.app_id} any more.",
            cure="Delete this Azure service, and create or import its apps again.",
        )
    return dict(found[0])


async def _update_server(
    graph: Graph, app: App, known: dict[str, Any]
) -> tuple[str, tuple[str, ...]]:
    """The id of the scope for devices, and what was added."""
    scopes = list(known["api"]["oauth2PermissionScopes"])
    needed = _with(known["requiredResourceAccess"], server_access())
    added = _news(known["requiredResourceAccess"], needed, {})
    body: dict[str, Any] = {}
    if added:
        body["requiredResourceAccess"] = needed
    mine = next((item for item in scopes if item["value"] == SERVER_SCOPE), None)
    if mine is None:
        mine = server_scope(app.name or "the site")
        # Graph replaces the whole list: what is there goes along.
        body["api"] = {"oauth2PermissionScopes": [*scopes, mine]}
        added = (*added, SERVER_SCOPE)
    if body:
        await graph.patch(f"/applications/{known['id']}", body)
    return str(mine["id"]), added


def _with(present: list[dict[str, Any]], wanted: dict[str, Any]) -> list[dict[str, Any]]:
    """What is asked for already, and `wanted` with it."""
    kept, found = [], False
    for item in present:
        if item["resourceAppId"] == wanted["resourceAppId"]:
            found = True
            held = {entry["id"] for entry in item["resourceAccess"]}
            news = [entry for entry in wanted["resourceAccess"] if entry["id"] not in held]
            kept.append({**item, "resourceAccess": [*item["resourceAccess"], *news]})
        else:
            kept.append(item)
    return kept if found else [*kept, wanted]


def _news(
    before: list[dict[str, Any]], after: list[dict[str, Any]], names: dict[str, str]
) -> tuple[str, ...]:
    """The permissions by which two lists differ, by name where one is known."""
    ids = permission_ids()
    known = {ids[name]: name for name in SERVER_APP_SCOPES}
    known |= {client_access()["resourceAccess"][0]["id"]: "User.Read"} | names
    held = {(i["resourceAppId"], e["id"]) for i in before for e in i["resourceAccess"]}
    return tuple(
        known.get(entry["id"], entry["id"])
        for item in after
        for entry in item["resourceAccess"]
        if (item["resourceAppId"], entry["id"]) not in held
    )
