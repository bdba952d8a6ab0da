"""The connection to a tenant: Azure services, their two apps, and tokens of the tenant (step 2).

A global administrator's access token comes with the one request that needs it, is used for that
request's calls to Graph, and is kept nowhere.
"""

import asyncio
import base64
import json
import time
import uuid
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

import httpx
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet

from tandem import audit
from tandem.infra.database import Tx
from tandem.infra.secrets import SecretBox
from tandem.protocols import tunnel
from tandem.site import clients
from tandem.site.cloud_services import store
from tandem.site.cloud_services.model import (
    DEFAULT_APP_ID_URI,
    DEFAULT_REPLY_URL,
    DISCOVERY_PERMISSION,
    SERVER_APP_SCOPES,
    App,
    AppExists,
    AppIdUriInUse,
    AzureService,
    BadTenantToken,
    CloudEnvironment,
    CloudSettings,
    ConsentMissing,
    NoMdmAuthority,
    NoSuchService,
    NotGlobalAdministrator,
    ServiceExists,
    TenantRefuses,
    TenantUnreachable,
)

_GLOBAL_ADMINISTRATOR = "62e90394-69f5-4237-9190-012177145e10"
_GRAPH_APP = "00000003-0000-0000-c000-000000000000"
_SECRET_CONTEXT = "cloud.app-secret"  # noqa: S105
_CLOCK_SKEW_SECONDS = 300


class Tenants:
    """Calls to the tenant, and what is remembered of it: its keys and our own token."""

    def __init__(self, settings: CloudSettings, box: SecretBox, http: httpx.AsyncClient) -> None:
        self.settings = settings
        self._box = box
        self._http = http
        self._keys: dict[str, tuple[float, dict[str, Any], str]] = {}
        self._token: dict[str, tuple[float, str]] = {}
        self._fetching = asyncio.Lock()

    @property
    def environment(self) -> CloudEnvironment:
        return self.settings.environment

    # -------------------------------------------------------------- services

    async def create_service(
        self, tx: Tx, name: str, description: str, *, actor: str, now: datetime
    ) -> AzureService:
        """An Azure service for Cloud Management, without a tenant yet. Raises ServiceExists."""
        name = name.strip()
        made = AzureService(
            str(uuid.uuid4()), name, description, self.environment.name, "", "", now
        )
        if not name or not await store.insert_service(tx, made):
            raise ServiceExists(
                f"There is an Azure service {name!r} already." if name else "It needs a name.",
                cure="Take another name, or go on with that one.",
            )
        await _audit(tx, actor, "azure-service.create", name, now)
        return made

    async def create_app(
        self,
        tx: Tx,
        wanted: str,
        kind: str,
        *,
        name: str,
        access_token: str,
        app_id_uri: str = DEFAULT_APP_ID_URI,
        home_page: str = DEFAULT_APP_ID_URI,
        reply_url: str = DEFAULT_REPLY_URL,
        secret_years: int = 1,
        actor: str,
        now: datetime,
    ) -> App:
        """Register the server (web) or the native client app in the tenant.

        Raises NoSuchService, AppExists, NotGlobalAdministrator, AppIdUriInUse, TenantRefuses.
        """
        service = await self.service(tx, wanted)
        if any((a.service_id, a.kind) == (service.id, kind) for a in await store.apps(tx)):
            raise AppExists(
                f"{service.name} has its {kind} app already.", cure="Go on with the next step."
            )
        claims = _global_administrator(access_token)
        if service.tenant_id and service.tenant_id != claims["tid"]:
            raise TenantRefuses(
                "This administrator belongs to another tenant than the other app.",
                cure="Sign in with an administrator of the same tenant.",
            )
        graph = Graph(self._http, self.environment.graph, access_token)
        if kind == "server":
            body = _server_app(name, home_page, app_id_uri)
        else:
            body = _client_app(name, reply_url)
        made = await graph.post("/applications", body, app_id_uri=app_id_uri)
        await graph.post("/servicePrincipals", {"appId": made["appId"]})
        sealed, expires_at = None, None
        if kind == "server":
            expires_at = now + timedelta(days=365 * secret_years)
            answer = await graph.post(
                f"/applications/{made['id']}/addPassword",
                {
                    "passwordCredential": {
                        "displayName": "Configuration site",
                        "endDateTime": expires_at.strftime("%Y-%m-%dT%H:%M:%SZ"),
                    }
                },
            )
            sealed = self._box.seal(answer["secretText"].encode(), _SECRET_CONTEXT)
        organization = (await graph.get("/organization"))["value"][0]
        await store.set_tenant(tx, service.id, claims["tid"], organization["displayName"])
        app = App(
            service.id,
            kind,
            made["appId"],
            made["id"],
            name,
            app_id_uri if kind == "server" else "",
            expires_at,
            now,
        )
        await store.insert_app(tx, app, sealed)
        await _audit(tx, actor, f"azure-service.create-{kind}-app", app.app_id, now)
        return app

    async def services(self, tx: Tx) -> list[AzureService]:
        return await store.services(tx)

    async def service(self, tx: Tx, wanted: str = "") -> AzureService:
        """By name or id; the only one when none is named. Raises NoSuchService."""
        found = await store.services(tx)
        if not wanted and len(found) == 1:
            return found[0]
        for item in found:
            if wanted.strip().casefold() in {item.id, item.name.casefold()}:
                return item
        raise NoSuchService(
            f"There is no Azure service {wanted!r}." if wanted else "There is no Azure service.",
            cure="Make one: `tandem azure-service create NAME`.",
        )

    async def apps(self, tx: Tx, service_id: str) -> list[App]:
        return [app for app in await store.apps(tx) if app.service_id == service_id]

    async def enable_discovery(
        self, tx: Tx, wanted: str, enabled: bool, *, actor: str, now: datetime
    ) -> AzureService:
        service = await self.service(tx, wanted)
        await store.set_discovery(tx, service.id, enabled)
        await _audit(
            tx, actor, "discovery.enable" if enabled else "discovery.disable", service.name, now
        )
        return await self.service(tx, service.id)

    async def delete_service(self, tx: Tx, wanted: str, *, actor: str, now: datetime) -> None:
        """Removes the site's side; the apps stay in the directory."""
        service = await self.service(tx, wanted)
        await store.delete_service(tx, service.id)
        await _audit(tx, actor, "azure-service.delete", service.name, now)

    async def tenant_id(self, tx: Tx) -> str:
        """The tenant that the site is connected to by both apps; empty without one."""
        ready = await self._onboarded(tx)
        return ready[0][0].tenant_id if ready else ""

    async def _onboarded(self, tx: Tx) -> list[tuple[AzureService, App, App]]:
        apps = {(app.service_id, app.kind): app for app in await store.apps(tx)}
        return [
            (service, server, client)
            for service in await store.services(tx)
            if service.tenant_id
            and (server := apps.get((service.id, "server"))) is not None
            and (client := apps.get((service.id, "client"))) is not None
        ]

    # -------------------------------------------------------------- tokens

    async def app_token(self, tx: Tx, service: AzureService) -> str:
        """Our own token for Graph, with the server app's secret.

        Raises NoSuchService without a server app, TenantRefuses, TenantUnreachable.
        """
        kept = self._token.get(service.id)
        if kept is not None and kept[0] > time.monotonic():
            return kept[1]
        secret = await store.sealed_secret(tx, service.id)
        apps = {app.kind: app for app in await self.apps(tx, service.id)}
        if secret is None or "server" not in apps:
            raise NoSuchService(
                f"{service.name} has no server app yet.",
                cure="Create it: `tandem azure-service app create server`.",
            )
        answer = await self._send(
            "POST",
            f"{self.environment.authority}/{service.tenant_id}/oauth2/v2.0/token",
            data={
                "grant_type": "client_credentials",
                "client_id": apps["server"].app_id,
                "client_secret": self._box.unseal(secret, _SECRET_CONTEXT).decode(),
                "scope": "https://graph.microsoft.com/.default",
            },
        )
        value = _json(answer)
        if answer.status_code != 200:
            raise TenantRefuses(
                f"The tenant gives the site no token: {value.get('error_description', '')[:300]}",
                cure="Check that the server app and its secret still exist in the tenant.",
            )
        token = str(value["access_token"])
        # Consent that is granted meanwhile must count soon: kept for a minute at most.
        self._token[service.id] = (time.monotonic() + min(int(value["expires_in"]) / 2, 60), token)
        return token

    def forget_tokens(self) -> None:
        self._token.clear()

    async def graph(self, tx: Tx, service: AzureService) -> "Graph":
        """Graph as the server app. Refusals for a permission become ConsentMissing."""
        token = await self.app_token(tx, service)
        return Graph(self._http, self.environment.graph, token)

    async def trusted_tenants(self, tx: Tx) -> list[tunnel.Tenant]:
        """The directories whose tokens the gateway lets pass."""
        found = []
        for service, server, client in await self._onboarded(tx):
            jwks, issuer = await self._directory(service.tenant_id)
            found.append(
                tunnel.Tenant(
                    tenant_id=service.tenant_id,
                    client_app_id=client.app_id,
                    app_id_uri=server.app_id_uri,
                    issuers=_issuers(issuer, service.tenant_id),
                    jwks=jwks,
                    authority=f"{self.environment.authority}/{service.tenant_id}",
                )
            )
        return found

    async def verify_token(self, tx: Tx, token: str) -> clients.TenantIdentity:
        """Whom a tenant's access token for the site speaks for. Raises BadTenantToken."""
        try:
            tenant_id = str(_claims(token).get("tid", ""))
        except ValueError:
            tenant_id = ""
        for service, server, _ in await self._onboarded(tx):
            if service.tenant_id == tenant_id:
                claims = await self._verified(tenant_id, token, server)
                return _identity(tenant_id, claims)
        raise BadTenantToken(
            "The token is of no tenant that this site is connected to.",
            cure="Connect the device's tenant: `tandem azure-service create`.",
        )

    async def _verified(self, tenant_id: str, token: str, server: App) -> dict[str, Any]:
        for fresh in (False, True):
            jwks, issuer = await self._directory(tenant_id, fresh=fresh)
            try:
                claims = dict(
                    jwt.decode(token, KeySet.import_key_set(jwks), algorithms=["RS256"]).claims  # type: ignore[arg-type]
                )
                break
            except (JoseError, ValueError):
                # A key that we do not know may be newer than what we have: look once more.
                continue
        else:
            raise BadTenantToken("The token is not signed by the tenant.")
        now = time.time()
        audiences = {server.app_id_uri, server.app_id}
        if claims.get("aud") not in audiences or claims.get("iss") not in _issuers(
            issuer, tenant_id
        ):
            raise BadTenantToken("The token is meant for another service, or of another issuer.")
        if now > float(claims.get("exp", 0)):
            raise BadTenantToken("The token has expired.", cure="Get a new one from the tenant.")
        if now + _CLOCK_SKEW_SECONDS < float(claims.get("nbf", 0)):
            raise BadTenantToken("The token is not valid yet.", cure="Check the clocks.")
        return claims

    async def _directory(
        self, tenant_id: str, *, fresh: bool = False
    ) -> tuple[dict[str, Any], str]:
        """The tenant's public keys and its issuer, as its discovery document says."""
        async with self._fetching:
            kept = self._keys.get(tenant_id)
            young = kept is not None and time.monotonic() - kept[0] < 10
            if kept is not None and (
                young or (not fresh and time.monotonic() - kept[0] < self.settings.jwks_seconds)
            ):
                return kept[1], kept[2]
            base = f"{self.environment.authority}/{tenant_id}/v2.0"
            try:
                document = _json(
                    await self._send("GET", f"{base}/.well-known/openid-configuration")
                )
                jwks = _json(await self._send("GET", document["jwks_uri"]))
                issuer = str(document["issuer"])
            except (TenantUnreachable, KeyError):
                if kept is not None:
                    # Tokens stay good while the tenant is away: they are verified offline.
                    return kept[1], kept[2]
                raise
            self._keys[tenant_id] = (time.monotonic(), jwks, issuer)
            return jwks, issuer

    async def _send(self, method: str, url: str, **options: Any) -> httpx.Response:
        try:
            return await self._http.request(method, url, **options)
        except httpx.HTTPError as error:
            raise TenantUnreachable(
                f"The tenant does not answer ({type(error).__name__}).",
                cure="Check the network of the site server, and the environment in its settings.",
            ) from None

    # -------------------------------------------------------------- checks with the administrator

    async def check_subscription(self, tx: Tx, access_token: str) -> str:
        """The tenant whose administrator makes a gateway, asked whether the token is good.

        Raises NoSuchService when the site is not connected, NotGlobalAdministrator, TenantRefuses.
        """
        claims = _global_administrator(access_token)
        mine = await self.tenant_id(tx)
        if not mine:
            raise NoSuchService(
                "The site is not connected to a tenant.",
                cure="Connect it first: `tandem azure-service create` (step 2).",
            )
        if claims["tid"] != mine:
            raise TenantRefuses(
                "This administrator belongs to another tenant than the site is connected to.",
                cure="Sign in with an administrator of the connected tenant.",
            )
        graph = Graph(self._http, self.environment.graph, access_token)
        await graph.get("/organization")
        return mine

    async def check_mdm_authority(self, tx: Tx, access_token: str) -> None:
        """Raises NoMdmAuthority, NotGlobalAdministrator, TenantRefuses."""
        claims = _global_administrator(access_token)
        mine = await self.tenant_id(tx)
        if mine and claims["tid"] != mine:
            raise TenantRefuses(
                "This administrator belongs to another tenant than the site is connected to.",
                cure="Sign in with an administrator of the connected tenant.",
            )
        graph = Graph(self._http, self.environment.graph, access_token)
        organization = (await graph.get("/organization"))["value"][0]
        authority = str(organization.get("mobileDeviceManagementAuthority", "unknown"))
        if authority != "intune":
            raise NoMdmAuthority(
                "The tenant's MDM authority is not set.",
                cure="Set it first: `tandem mdm-authority set`.",
                authority=authority,
            )


def _claims(token: str) -> dict[str, Any]:
    """What a token says, unverified: only to choose whom to ask. Raises ValueError."""
    parts = token.split(".")
    if len(parts) != 3 or len(token) > 16_384:
        raise ValueError("not a token")
    raw = base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4))
    value = json.loads(raw)
    if not isinstance(value, dict):
        raise ValueError("not a token")
    return value


def _global_administrator(access_token: str) -> dict[str, Any]:
    """The token's claims. Graph decides what it may do; this only says early what will not work."""
    try:
        claims = _claims(access_token)
    except ValueError:
        claims = {}
    if "tid" not in claims:
        raise NotGlobalAdministrator(
            "That is not an access token of the tenant.", cure="Sign in to the tenant again."
        )
    if _GLOBAL_ADMINISTRATOR not in claims.get("wids", []):
        who = claims.get("upn") or claims.get("preferred_username") or "This account"
        raise NotGlobalAdministrator(
            f"{who} is not a global administrator of the tenant.",
            cure="Sign in with an account that has the role Global Administrator.",
        )
    return claims


def _issuers(issuer: str, tenant_id: str) -> list[str]:
    """Tokens of both versions: sts-like for version 1, …/v2.0 for version 2."""
    base = issuer.removesuffix("/v2.0").rstrip("/")
    return sorted({issuer, f"{base}/", f"{base}/v2.0", base})


def _identity(tenant_id: str, claims: Mapping[str, Any]) -> clients.TenantIdentity:
    device = claims.get("idtyp") == "device"
    return clients.TenantIdentity(
        tenant_id,
        str(claims.get("deviceid", "")),
        "device" if device else "user",
        str(claims.get("oid", "")),
        str(claims.get("upn") or claims.get("preferred_username") or ""),
    )


def _permission_ids() -> dict[str, str]:
    return {
        "User.Read.All": "df021288-bdef-4463-88db-98f22de89214",
        "Directory.Read.All": "7ab1d382-f21e-4acd-a863-ba3e13f7da61",
    }


def _server_app(name: str, home_page: str, app_id_uri: str) -> dict[str, Any]:
    ids = _permission_ids()
    return {
        "displayName": name,
        "identifierUris": [app_id_uri],
        "web": {"homePageUrl": home_page, "redirectUris": []},
        "api": {
            "oauth2PermissionScopes": [
                {
                    "id": str(uuid.uuid4()),
                    "value": "user_impersonation",
                    "type": "User",
                    "isEnabled": True,
                    "adminConsentDisplayName": f"Access {name}",
                    "adminConsentDescription": "Lets devices talk to the site for the user.",
                    "userConsentDisplayName": f"Access {name}",
                    "userConsentDescription": "Lets this device talk to the site for you.",
                }
            ]
        },
        "requiredResourceAccess": [
            {
                "resourceAppId": _GRAPH_APP,
                "resourceAccess": [
                    {"id": ids[scope], "type": "Role"} for scope in SERVER_APP_SCOPES
                ],
            }
        ],
    }


def _client_app(name: str, reply_url: str) -> dict[str, Any]:
    return {
        "displayName": name,
        "publicClient": {"redirectUris": [reply_url]},
        "isFallbackPublicClient": True,
        "requiredResourceAccess": [
            {
                "resourceAppId": _GRAPH_APP,
                "resourceAccess": [{"id": "e1fe6dd8-ba31-4d61-89e7-88639da4683d", "type": "Scope"}],
            }
        ],
    }


def _json(answer: httpx.Response) -> dict[str, Any]:
    try:
        value = answer.json()
    except ValueError:
        raise TenantUnreachable(
            f"The tenant answered {answer.status_code} with something that is not JSON.",
            cure="Check the environment in the site's settings.",
        ) from None
    return value if isinstance(value, dict) else {}


class Graph:
    """Microsoft Graph with one token. Its refusals become ours."""

    def __init__(self, http: httpx.AsyncClient, base: str, token: str) -> None:
        self._http = http
        self._base = base
        self._headers = {"Authorization": f"Bearer {token}"}

    async def get(self, path: str) -> dict[str, Any]:
        return await self._call("GET", path)

    async def post(
        self, path: str, body: dict[str, Any], *, app_id_uri: str = ""
    ) -> dict[str, Any]:
        return await self._call("POST", path, body, app_id_uri)

    async def pages(self, path: str) -> list[dict[str, Any]]:
        """All pages of a list."""
        found: list[dict[str, Any]] = []
        url = path
        while url:
            page = await self._call("GET", url)
            found += page.get("value", [])
            url = str(page.get("@odata.nextLink", ""))
        return found

    async def _call(
        self, method: str, path: str, body: dict[str, Any] | None = None, app_id_uri: str = ""
    ) -> dict[str, Any]:
        # A next link is followed only within the Graph that we were told to ask.
        if path.startswith("http") and not path.startswith(self._base):
            raise TenantRefuses("The tenant's next page leads somewhere else.")
        url = path if path.startswith("http") else f"{self._base}{path}"
        try:
            answer = await self._http.request(method, url, json=body, headers=self._headers)
        except httpx.HTTPError as error:
            raise TenantUnreachable(
                f"The tenant does not answer ({type(error).__name__}).",
                cure="Check the network of the site server, and the environment in its settings.",
            ) from None
        value = _json(answer) if answer.content else {}
        if answer.status_code >= 400:
            raise _refusal(answer.status_code, value, app_id_uri)
        return value


def _refusal(status: int, value: dict[str, Any], app_id_uri: str) -> Exception:
    error = value.get("error", {})
    message = str(error.get("message", f"status {status}"))[:300]
    if (
        app_id_uri
        and status in {400, 409}
        and ("identifierUris" in json.dumps(error) or "already exists" in message)
    ):
        return AppIdUriInUse(
            f"The App ID URI {app_id_uri} is in use by another app of the tenant.",
            cure="Take another one, like api://<tenant id>/ConfigMgrService.",
        )
    if status == 403:
        return ConsentMissing(
            f"The tenant does not allow it: {message}"
            f" The app lacks the application permission {DISCOVERY_PERMISSION}.",
            cure="A global administrator grants it: `tandem app-registration consent APP`.",
        )
    return TenantRefuses(f"The tenant refuses: {message}", cure="See the tenant's sign-in log.")


async def _audit(tx: Tx, actor: str, action: str, target: str, now: datetime) -> None:
    await audit.record(tx, actor=actor, action=action, target=target, now=now)
