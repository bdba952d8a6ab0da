"""What the site's two apps may do in the tenant, what is still missing, and granting it (step 2.5).

A token of the server app names the application permissions that it was granted, so nobody else has
to be asked. The client app's delegated ones are grants in the directory, which the server app reads
once it may read that.
"""

from dataclasses import dataclass
from typing import Any

from tandem.infra.database import Tx
from tandem.infra.errors import AppError
from tandem.site.cloud_services.model import SERVER_APP_SCOPES, App, AzureService, TenantRefuses
from tandem.site.cloud_services.tenants import (
    GRAPH_APP,
    Graph,
    Tenants,
    claims_of,
    global_administrator,
    permission_ids,
)

# What the native client app asks for: to sign its user in, and to speak to the server app.
CLIENT_SCOPES = ("User.Read",)
SERVER_SCOPE = "user_impersonation"


@dataclass(frozen=True, slots=True)
class Permission:
    """`granted` is None while nobody can tell."""

    resource: str
    name: str
    kind: str  # application or delegated
    granted: bool | None


@dataclass(frozen=True, slots=True)
class AppConsent:
    kind: str
    app_id: str
    name: str
    permissions: tuple[Permission, ...]
    reason: str = ""
    cure: str = ""

    @property
    def missing(self) -> list[str]:
        return [item.name for item in self.permissions if item.granted is False]


async def consent_of(tx: Tx, tenants: Tenants, service: AzureService) -> list[AppConsent]:
    """What each app of a service was granted."""
    found = []
    apps = {app.kind: app for app in await tenants.apps(tx, service.id)}
    server = apps.get("server")
    token = ""
    if server is not None:
        reason = cure = ""
        roles: set[str] | None = None
        try:
            token = await tenants.app_token(tx, service)
            roles = {str(role) for role in claims_of(token).get("roles") or ()}
        except AppError as error:
            reason, cure = error.message, error.cure
        except ValueError:
            reason = "The tenant's token for the server app cannot be read."
        wanted = tuple(
            Permission(
                "Microsoft Graph", name, "application", None if roles is None else name in roles
            )
            for name in SERVER_APP_SCOPES
        )
        found.append(AppConsent("server", server.app_id, server.name, wanted, reason, cure))
    if "client" in apps:
        graph = (
            Graph(tenants.http, tenants.environment.graph, token, server.app_id)
            if (token and server is not None)
            else None
        )
        found.append(await _client(graph, apps["client"], server))
    return found


async def _client(graph: Graph | None, client: App, server: App | None) -> AppConsent:
    wanted = [("Microsoft Graph", GRAPH_APP, name) for name in CLIENT_SCOPES]
    if server is not None:
        wanted.append((server.name, server.app_id, SERVER_SCOPE))
    held: dict[str, set[str]] | None = None
    reason = cure = ""
    if graph is None:
        reason = "Nobody can ask before the server app works."
    else:
        try:
            held = await _delegated(graph, client.app_id)
        except AppError as error:
            reason, cure = error.message, error.cure
    permissions = tuple(
        Permission(
            resource, name, "delegated", None if held is None else name in held.get(app_id, set())
        )
        for resource, app_id, name in wanted
    )
    return AppConsent("client", client.app_id, client.name, permissions, reason, cure)


async def _principal(graph: Graph, app_id: str) -> dict[str, Any] | None:
    found = (await graph.get(f"/servicePrincipals?$filter=appId eq '{app_id}'"))["value"]
    return found[0] if found else None


async def _delegated(graph: Graph, app_id: str) -> dict[str, set[str]]:
    """The scopes that everybody's use of an app was granted, by the app that they are of."""
    principal = await _principal(graph, app_id)
    if principal is None:
        return {}
    held: dict[str, set[str]] = {}
    for grant in await graph.pages(f"/servicePrincipals/{principal['id']}/oauth2PermissionGrants"):
        if grant["consentType"] == "AllPrincipals":
            resource = await graph.get(f"/servicePrincipals/{grant['resourceId']}")
            held.setdefault(str(resource["appId"]), set()).update(str(grant["scope"]).split())
    return held


async def grant(tx: Tx, tenants: Tenants, service: AzureService, access_token: str) -> None:
    """Grant both apps what they need, for everybody. Raises NotGlobalAdministrator, TenantRefuses."""
    claims = global_administrator(access_token)
    if claims["tid"] != service.tenant_id:
        raise TenantRefuses(
            "This administrator belongs to another tenant than the site is connected to.",
            cure="Sign in with an administrator of the connected tenant.",
        )
    graph = Graph(tenants.http, tenants.environment.graph, access_token)
    apps = {app.kind: app for app in await tenants.apps(tx, service.id)}
    if "server" in apps:
        await _grant_roles(graph, apps["server"])
    if "client" in apps:
        wanted = [(GRAPH_APP, set(CLIENT_SCOPES))]
        if "server" in apps:
            wanted.append((apps["server"].app_id, {SERVER_SCOPE}))
        for app_id, scopes in wanted:
            await _grant_scopes(graph, apps["client"], app_id, scopes)


async def _own_principal(graph: Graph, app: App) -> dict[str, Any]:
    found = await _principal(graph, app.app_id)
    return found or await graph.post("/servicePrincipals", {"appId": app.app_id})


async def _resource(graph: Graph, app_id: str) -> dict[str, Any]:
    found = await _principal(graph, app_id)
    if found is None:
        raise TenantRefuses(
            f"The tenant does not know the application {app_id}.",
            cure="Delete this Azure service, and create or import its apps again.",
        )
    return found


async def _grant_roles(graph: Graph, server: App) -> None:
    principal, resource = await _own_principal(graph, server), await _resource(graph, GRAPH_APP)
    at = f"/servicePrincipals/{principal['id']}/appRoleAssignments"
    held = {item["appRoleId"] for item in await graph.pages(at)}
    ids = permission_ids()
    for name in SERVER_APP_SCOPES:
        if ids[name] not in held:
            body = {"principalId": principal["id"], "resourceId": resource["id"]}
            await graph.post(at, {**body, "appRoleId": ids[name]})


async def _grant_scopes(graph: Graph, client: App, app_id: str, scopes: set[str]) -> None:
    """One grant for everybody holds all scopes of a resource: it is made, or it grows."""
    principal, resource = await _own_principal(graph, client), await _resource(graph, app_id)
    at = f"/servicePrincipals/{principal['id']}/oauth2PermissionGrants"
    for held in await graph.pages(at):
        if (held["resourceId"], held["consentType"]) == (resource["id"], "AllPrincipals"):
            every = scopes | set(str(held["scope"]).split())
            if every != set(str(held["scope"]).split()):
                body = {"scope": " ".join(sorted(every))}
                await graph.patch(f"/oauth2PermissionGrants/{held['id']}", body)
            return
    await graph.post(
        "/oauth2PermissionGrants",
        {
            "clientId": principal["id"],
            "consentType": "AllPrincipals",
            "resourceId": resource["id"],
            "scope": " ".join(sorted(scopes)),
        },
    )
