"""The connection to a tenant: Azure services, their two apps, and tokens of the tenant (step 2).

A global administrator's access token comes with the one request that needs it, is used for that
request's calls to Graph, and is kept nowhere here.
"""

import base64
import contextlib
import json
import re
import time
import uuid
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

import httpx
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet

from tandem import audit
from tandem.infra.clock import Clock
from tandem.infra.database import Tx
from tandem.infra.errors import AppError
from tandem.infra.logs import get_logger
from tandem.infra.secrets import SecretBox
from tandem.protocols import tunnel
from tandem.site import clients, collections
from tandem.site.cloud_services import store
from tandem.site.cloud_services.model import (
    COMMAND_LINE_APP,
    DEFAULT_APP_ID_URI,
    DEFAULT_REPLY_URL,
    DISCOVERY_PERMISSION,
    SERVER_APP_SCOPES,
    App,
    AppExists,
    AppIdUriInUse,
    AzureService,
    BadApp,
    BadTenantToken,
    Check,
    CloudEnvironment,
    CloudSettings,
    ConsentMissing,
    DeltaGone,
    Directory,
    NoMdmAuthority,
    NoSuchService,
    NotGlobalAdministrator,
    NotInTenant,
    ServiceExists,
    TenantRefuses,
    TenantUnreachable,
    UnknownAccount,
)

GLOBAL_ADMINISTRATOR = "62e90394-69f5-4237-9190-012177145e10"
GRAPH_APP = "00000003-0000-0000-c000-000000000000"
_SECRET_CONTEXT = "cloud.app-secret"  # noqa: S105
_CLOCK_SKEW_SECONDS = 300
# Strangers' tokens must not make us ask the tenant for its keys all the time.
_RETRY_SECONDS = 10.0
_KEPT_SECONDS = 60.0
_NEW_TOKEN = "Get a new token from the tenant."  # noqa: S105
# An administrator wants to know of a secret's end before it comes.
_SECRET_WARNING = timedelta(days=30)


log = get_logger("cloud_services")


class Tenants:
    """Azure services, calls to their tenants, and what their tokens say."""

    def __init__(
        self, settings: CloudSettings, box: SecretBox, http: httpx.AsyncClient, now: Clock
    ) -> None:
        self.settings = settings
        self._box = box
        self.http = http
        self._now = now
        # By Azure service: what it was opened with, when, and the client.
        self._kept: dict[str, tuple[tuple[str, bytes | None], float, Graph]] = {}

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
                field="name",
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
        service = await self._without_app(tx, wanted, kind)
        claims = global_administrator(access_token)
        if service.tenant_id and service.tenant_id != claims["tid"]:
            raise TenantRefuses(
                "This administrator belongs to another tenant than the other app.",
                cure="Sign in with an administrator of the same tenant.",
            )
        graph = Graph(self.http, self.environment.graph, access_token)
        organization = (await graph.get("/organization"))["value"][0]
        if kind == "server":
            body = _server_app(name, home_page, app_id_uri)
        else:
            body = _client_app(name, reply_url, await self._delegated(tx, service, graph))
        made = await graph.post("/applications", body, app_id_uri=app_id_uri)
        try:
            sealed, expires_at = await self._complete(graph, made, kind, secret_years, now)
        except AppError:
            # Half an app would keep the App ID URI from the next attempt.
            with contextlib.suppress(AppError):
                await graph.delete(f"/applications/{made['id']}")
            raise
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

    async def _complete(
        self, graph: "Graph", made: dict[str, Any], kind: str, secret_years: int, now: datetime
    ) -> tuple[bytes | None, datetime | None]:
        """Service principal and, for the server app, the secret: sealed, with its end."""
        await graph.post("/servicePrincipals", {"appId": made["appId"]})
        if kind != "server":
            return None, None
        return await self._add_secret(graph, str(made["id"]), secret_years, now)

    async def _add_secret(
        self, graph: "Graph", object_id: str, years: int, now: datetime
    ) -> tuple[bytes, datetime]:
        expires_at = now + timedelta(days=365 * years)
        answer = await graph.post(
            f"/applications/{object_id}/addPassword",
            {
                "passwordCredential": {
                    "displayName": "Configuration site",
                    "endDateTime": expires_at.strftime("%Y-%m-%dT%H:%M:%SZ"),
                }
            },
        )
        return self._box.seal(answer["secretText"].encode(), _SECRET_CONTEXT), expires_at

    async def renew_secret(
        self,
        tx: Tx,
        wanted: str,
        *,
        access_token: str,
        secret_years: int = 1,
        actor: str,
        now: datetime,
    ) -> App:
        """A new secret for the server app; the old one ends by itself in the tenant.

        Raises NoSuchService, NotGlobalAdministrator, TenantRefuses.
        """
        service = await self.service(tx, wanted)
        known = {app.kind: app for app in await self.apps(tx, service.id)}.get("server")
        claims = global_administrator(access_token)
        if known is None or claims["tid"] != service.tenant_id:
            raise TenantRefuses(
                f"{service.name} has no server app in this administrator's tenant.",
                cure="Sign in with an administrator of the connected tenant.",
            )
        graph = Graph(self.http, self.environment.graph, access_token)
        found = (await graph.get(f"/applications?$filter=appId eq '{known.app_id}'"))["value"]
        if not found:
            raise TenantRefuses(
                f"The tenant has no app {known.app_id} any more.",
                cure="Delete this Azure service, and create or import its apps again.",
            )
        sealed, ends = await self._add_secret(graph, str(found[0]["id"]), secret_years, now)
        await store.save_secret(tx, service.id, sealed, ends)
        await _audit(tx, actor, "azure-service.renew-secret", known.app_id, now)
        return replace(known, secret_expires_at=ends)

    async def _without_app(self, tx: Tx, wanted: str, kind: str) -> AzureService:
        service = await self.service(tx, wanted)
        # A second administrator waits here, and then finds the first one's app.
        await store.lock_service(tx, service.id)
        if any(app.kind == kind for app in await self.apps(tx, service.id)):
            raise AppExists(
                f"{service.name} has its {kind} app already.", cure="Go on with the next step."
            )
        return service

    async def _delegated(
        self, tx: Tx, service: AzureService, graph: "Graph"
    ) -> dict[str, Any] | None:
        """What the client app asks for of the server app: to speak to it for the user."""
        for app in await self.apps(tx, service.id):
            found = await graph.get(f"/applications?$filter=appId eq '{app.app_id}'")
            for item in found["value"]:
                scopes = item["api"]["oauth2PermissionScopes"]
                access = [{"id": scope["id"], "type": "Scope"} for scope in scopes]
                return {"resourceAppId": app.app_id, "resourceAccess": access} if access else None
        return None

    async def import_app(
        self,
        tx: Tx,
        wanted: str,
        kind: str,
        *,
        name: str,
        app_id: str,
        tenant_id: str = "",
        tenant_name: str = "",
        app_id_uri: str = "",
        secret: str = "",
        secret_expires_at: datetime | None = None,
        actor: str,
        now: datetime,
    ) -> App:
        """Take an app that was registered elsewhere; the server app's secret is tried at once.

        Raises NoSuchService, AppExists, BadApp, TenantRefuses, TenantUnreachable.
        """
        service = await self._without_app(tx, wanted, kind)
        sealed = None
        if kind == "server":
            if not (tenant_id and app_id_uri and secret and secret_expires_at):
                raise BadApp(
                    "A server app needs tenant id, App ID URI, secret and the secret's end.",
                    cure="Take them from the app registration in the tenant.",
                )
            if secret_expires_at <= now:
                raise BadApp(
                    "The secret has expired.",
                    cure="Add a new secret in the tenant.",
                    field="secret_expires_at",
                )
            known = await self.check_app(tenant_id, app_id, secret)
            tenant_id, tenant_name = tenant_id.strip(), tenant_name or known
            sealed = self._box.seal(secret.encode(), _SECRET_CONTEXT)
            await store.set_tenant(
                tx, service.id, tenant_id, tenant_name or service.tenant_name or tenant_id
            )
        app = App(service.id, kind, app_id, "", name, app_id_uri, secret_expires_at, now)
        await store.insert_app(tx, app, sealed)
        await _audit(tx, actor, f"azure-service.import-{kind}-app", app_id, now)
        return app

    async def verify(self, tx: Tx, wanted: str, now: datetime) -> list[Check]:
        """Whether both apps work: secret, consent, and the native client app."""
        service = await self.service(tx, wanted)
        apps = {app.kind: app for app in await self.apps(tx, service.id)}
        ends = apps["server"].secret_expires_at if "server" in apps else None
        checks = [
            await _check("The server app gets a token", self.app_token(tx, service)),
            await _check("The server app may read users", self._try_reading(tx, service)),
        ]
        if ends is not None and ends <= now + _SECRET_WARNING:
            cure = "Renew it: `tandem azure-service renew-secret`."
            text = "The server app's secret lasts"
            checks.append(Check(text, False, f"It ends on {ends:%Y-%m-%d}.", cure))
        if "client" not in apps:
            cure = "Create it: `tandem azure-service app create client`."
            checks.append(Check("There is a native client app", False, "It is missing.", cure))
        return checks

    async def _try_reading(self, tx: Tx, service: AzureService) -> None:
        await (await self.graph(tx, service)).get("/users?$top=1&$select=id")

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

    async def change_service(
        self,
        tx: Tx,
        wanted: str,
        *,
        name: str | None = None,
        description: str | None = None,
        authentication_enabled: bool | None = None,
        actor: str,
        now: datetime,
    ) -> AzureService:
        """What is not named stays. Without authentication, tokens of this tenant open nothing at
        the site and at its gateways; discovery goes on. Raises NoSuchService, ServiceExists."""
        before = await self.service(tx, wanted)
        made = replace(
            before,
            name=before.name if name is None else name.strip(),
            description=before.description if description is None else description.strip(),
            authentication_enabled=before.authentication_enabled
            if authentication_enabled is None
            else authentication_enabled,
        )
        if not made.name:
            raise ServiceExists("It needs a name.", cure="Give it one.", field="name")
        if any(
            item.id != made.id and item.name.casefold() == made.name.casefold()
            for item in await store.services(tx)
        ):
            raise ServiceExists(
                f"There is an Azure service {made.name!r} already.",
                cure="Take another name, or go on with that one.",
                field="name",
            )
        await store.change_service(tx, made)
        if made.authentication_enabled != before.authentication_enabled:
            action = "enable" if made.authentication_enabled else "disable"
            await _audit(tx, actor, f"azure-service.{action}-authentication", made.name, now)
        if (made.name, made.description) != (before.name, before.description):
            await _audit(tx, actor, "azure-service.change", made.name, now)
        return made

    async def check_app(self, tenant_id: str, app_id: str, secret: str) -> str:
        """Try a server app's secret before it is taken; the tenant's name, as far as the app may
        read it. Raises BadApp, TenantRefuses, TenantUnreachable."""
        for value, what, at in (
            (tenant_id, "a tenant", "tenant_id"),
            (app_id, "an app", "client_id"),
        ):
            _check_id(value, what, at)
        token = await self._token(tenant_id.strip(), app_id.strip(), secret)
        graph = Graph(self.http, self.environment.graph, token, app_id)
        try:
            return str((await graph.get("/organization"))["value"][0]["displayName"])
        except (AppError, LookupError, TypeError):
            return ""

    async def delete_service(self, tx: Tx, wanted: str, *, actor: str, now: datetime) -> None:
        """Removes the site's side; the apps stay in the directory."""
        service = await self.service(tx, wanted)
        await store.delete_service(tx, service.id)
        await _audit(tx, actor, "azure-service.delete", service.name, now)

    async def tenant_id(self, tx: Tx) -> str:
        """The tenant that the site is connected to by both apps; empty without one."""
        ready = await self._onboarded(tx)
        return ready[0][0].tenant_id if ready else ""

    async def _admitted(self, tx: Tx) -> list[tuple[AzureService, App, App]]:
        """Connected tenants whose tokens count here."""
        return [item for item in await self._onboarded(tx) if item[0].authentication_enabled]

    async def _onboarded(self, tx: Tx) -> list[tuple[AzureService, App, App]]:
        apps = {(app.service_id, app.kind): app for app in await store.apps(tx)}
        return [
            (service, server, client)
            for service in await store.services(tx)
            if service.tenant_id
            and (server := apps.get((service.id, "server"))) is not None
            and (client := apps.get((service.id, "client"))) is not None
        ]

    async def sources(self, tx: Tx) -> list["Source"]:
        """The tenants for discovery."""
        return [Source(self, item) for item in await store.services(tx)]

    # -------------------------------------------------------------- tokens

    async def app_token(self, tx: Tx, service: AzureService) -> str:
        """Our own token for Graph, with the server app's secret. It is asked for anew each time:
        consent that was granted meanwhile is in it.

        Raises NoSuchService without a server app, TenantRefuses, TenantUnreachable.
        """
        secret = await store.sealed_secret(tx, service.id)
        apps = {app.kind: app for app in await self.apps(tx, service.id)}
        if secret is None or "server" not in apps:
            raise NoSuchService(
                f"{service.name} has no server app yet.",
                cure="Create it: `tandem azure-service app create server`.",
            )
        plain = self._box.unseal(secret, _SECRET_CONTEXT).decode()
        return await self._token(service.tenant_id, apps["server"].app_id, plain)

    async def _token(self, tenant_id: str, app_id: str, secret: str) -> str:
        answer = await self.send(
            "POST",
            f"{self.environment.authority}/{tenant_id}/oauth2/v2.0/token",
            data={
                "grant_type": "client_credentials",
                "client_id": app_id,
                "client_secret": secret,
                "scope": "https://graph.microsoft.com/.default",
            },
        )
        value = read_json(answer)
        if answer.status_code != 200:
            raise TenantRefuses(
                f"The tenant gives the site no token: {value.get('error_description', '')[:300]}",
                cure="Check that the server app and its secret still exist in the tenant.",
            )
        return str(value["access_token"])

    async def graph(self, tx: Tx, service: AzureService) -> "Graph":
        """Graph as the server app. Refusals for a permission become ConsentMissing."""
        token = await self.app_token(tx, service)
        apps = {app.kind: app for app in await self.apps(tx, service.id)}
        return Graph(self.http, self.environment.graph, token, apps["server"].app_id)

    async def kept_graph(self, tx: Tx, service: AzureService) -> "Graph":
        """As `graph`, for who asks every few seconds: one token for a minute, so that the tenant's
        sign-in log is not full of ours. After a refusal the next call asks for a new one: consent
        may have been granted meanwhile."""
        opened_with = (service.tenant_id, await store.sealed_secret(tx, service.id))
        kept = self._kept.get(service.id)
        if kept is not None:
            before, since, client = kept
            fresh = time.monotonic() - since < _KEPT_SECONDS
            if before == opened_with and fresh and not client.refused:
                return client
        client = await self.graph(tx, service)
        self._kept[service.id] = (opened_with, time.monotonic(), client)
        return client

    async def trusted_tenants(self, tx: Tx) -> list[tunnel.Tenant]:
        """The directories whose tokens the gateway lets pass."""
        found = []
        for service, server, client in await self._admitted(tx):
            known = await self._directory(tx, service.tenant_id)
            found.append(
                tunnel.Tenant(
                    tenant_id=service.tenant_id,
                    client_app_id=client.app_id,
                    app_id_uri=server.app_id_uri,
                    server_app_id=server.app_id,
                    issuers=_issuers(known.issuer),
                    jwks=known.jwks,
                    authority=f"{self.environment.authority}/{service.tenant_id}",
                )
            )
        return found

    async def sign_in_scopes(self, tx: Tx) -> list[dict[str, str]]:
        """What a tenant's account asks for, to speak to the site."""
        return [
            {
                "tenant_id": service.tenant_id,
                "authority": self.environment.authority,
                "scope": f"{server.app_id_uri}/user_impersonation",
            }
            for service, server, _ in await self._admitted(tx)
        ]

    async def verify_token(self, tx: Tx, token: str) -> clients.TenantIdentity:
        """Whom a tenant's access token for the site speaks for. Raises BadTenantToken."""
        try:
            tenant_id = str(claims_of(token).get("tid", ""))
        except ValueError:
            tenant_id = ""
        for service, server, _ in await self._admitted(tx):
            if service.tenant_id == tenant_id:
                claims = await self._verified(tx, tenant_id, token, server)
                return _identity(tenant_id, claims)
        raise BadTenantToken(
            "The token is of no tenant that this site is connected to.",
            cure="Connect the device's tenant: `tandem azure-service create`.",
        )

    async def verify_administrator(self, tx: Tx, token: str) -> clients.TenantIdentity:
        """Which account of a tenant wants to sign in to the site. Raises BadTenantToken.

        A gateway has seen tokens of the apps that were ever published for the AdminService: they
        open no session.
        """
        who = await self.verify_account(tx, token)
        if await store.adminservice_app(tx, who.app_id) is not None:
            raise BadTenantToken(
                "This token is of an app whose tokens travel through the gateway. It opens no"
                " session.",
                cure="Sign in with `tandem sign-in site --with-tenant`.",
            )
        return who

    async def verify_account(self, tx: Tx, token: str) -> clients.TenantIdentity:
        """Which account of a tenant an app speaks for here. Raises BadTenantToken.

        Devices send tokens of their users for the same audience through the gateway, which nobody
        has to trust. They are of the client app, and open nothing here.
        """
        who = await self.verify_token(tx, token)
        devices = {client.app_id for _, _, client in await self._onboarded(tx)}
        if who.kind != "user" or who.app_id in devices:
            raise BadTenantToken(
                "This token is for a device's client, not for an administrator's sign-in.",
                cure="Sign in with `tandem sign-in site --with-tenant`.",
            )
        if "user_impersonation" not in who.scopes:
            raise BadTenantToken(
                "This token does not let its app act for a user of the site.",
                cure="Ask the tenant for the scope user_impersonation of the server app.",
            )
        return who

    async def check_adminservice_app(self, tx: Tx, app_id: str) -> str:
        """An app's id as tokens spell it, when its tokens may travel. Raises BadApp."""
        try:
            folded = str(uuid.UUID(app_id.strip()))
        except ValueError:
            raise BadApp(
                f"{app_id!r} is not an app's client id.", cure="See `tandem app-registration list`."
            ) from None
        if folded == COMMAND_LINE_APP or any(app.app_id == folded for app in await store.apps(tx)):
            raise BadApp(
                "This app has another use: sign-in of administrators, or the site's own devices.",
                cure="Register an app for your scripts: docs/guide/adminservice.md.",
            )
        return folded

    async def account(self, tx: Tx, tenant_id: str, upn: str) -> str:
        """The object id of an account of a connected tenant, as discovery found it.

        Raises NoSuchService, UnknownAccount.
        """
        if tenant_id not in {service.tenant_id for service, _, _ in await self._onboarded(tx)}:
            raise NoSuchService(
                f"The site is not connected to the tenant {tenant_id}.",
                cure="Connect it first: `tandem azure-service create` (step 2).",
            )
        found = await collections.find_user_named(tx, tenant_id, upn)
        if found is None:
            raise UnknownAccount(
                f"Discovery has not found {upn} in the tenant.",
                cure="Check the name, and run it: `tandem discovery run` (step 2.6).",
            )
        return found.object_id

    async def _verified(self, tx: Tx, tenant_id: str, token: str, server: App) -> dict[str, Any]:
        known = await self._directory(tx, tenant_id)
        claims = _signed_claims(token, known)
        if claims is None:
            # A key that we do not know may be newer than what we have: look once more.
            known = await self._directory(tx, tenant_id, fresh=True)
            claims = _signed_claims(token, known)
        if claims is None:
            raise BadTenantToken("The token is not signed by the tenant.", cure=_NEW_TOKEN)
        if claims.get("aud") not in {server.app_id_uri, server.app_id}:
            raise BadTenantToken("The token is meant for another service.", cure=_NEW_TOKEN)
        if claims.get("iss") not in _issuers(known.issuer):
            raise BadTenantToken("The token is of another issuer.", cure=_NEW_TOKEN)
        now = self._now().timestamp()
        if now > float(claims.get("exp", 0)):
            raise BadTenantToken("The token has expired.", cure=_NEW_TOKEN)
        if now + _CLOCK_SKEW_SECONDS < float(claims.get("nbf", 0)):
            raise BadTenantToken("The token is not valid yet.", cure="Check the clocks.")
        return claims

    async def _directory(self, tx: Tx, tenant_id: str, *, fresh: bool = False) -> Directory:
        """The tenant's public keys and its issuer, as its discovery document says.

        They are fetched again when they are old, or at once when a token needs a newer key. While
        the tenant is away the kept ones count: tokens are verified offline.
        """
        kept = await store.directory(tx, tenant_id)
        if kept is not None:
            seconds = _RETRY_SECONDS if fresh else self.settings.jwks_seconds
            if self._now() - kept.fetched_at < timedelta(seconds=seconds):
                return kept
        base = f"{self.environment.authority}/{tenant_id}/v2.0"
        try:
            document = read_json(await self.send("GET", f"{base}/.well-known/openid-configuration"))
            jwks = read_json(await self.send("GET", document["jwks_uri"]))
            KeySet.import_key_set(jwks)  # type: ignore[arg-type]
            found = Directory(str(document["issuer"]), jwks, self._now())
        except (TenantUnreachable, JoseError, KeyError, ValueError) as error:
            if kept is not None:
                return kept
            if isinstance(error, TenantUnreachable):
                raise
            raise TenantUnreachable(
                "The tenant's discovery document cannot be used.",
                cure="Check the environment in the site's settings.",
            ) from None
        await store.save_directory(tx, tenant_id, found)
        return found

    async def send(self, method: str, url: str, **options: Any) -> httpx.Response:
        return await ask(self.http, method, url, **options)

    # -------------------------------------------------------------- checks with the administrator

    async def check_subscription(self, tx: Tx, access_token: str) -> str:
        """The tenant whose administrator makes a gateway, asked whether the token is good.

        Raises NoSuchService when the site is not connected, NotGlobalAdministrator, TenantRefuses.
        """
        claims = global_administrator(access_token)
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
        graph = Graph(self.http, self.environment.graph, access_token)
        await graph.get("/organization")
        return mine

    async def check_mdm_authority(self, tx: Tx, access_token: str) -> None:
        """Raises NoMdmAuthority, NotGlobalAdministrator, TenantRefuses."""
        claims = global_administrator(access_token)
        mine = await self.tenant_id(tx)
        if mine and claims["tid"] != mine:
            raise TenantRefuses(
                "This administrator belongs to another tenant than the site is connected to.",
                cure="Sign in with an administrator of the connected tenant.",
            )
        graph = Graph(self.http, self.environment.graph, access_token)
        organization = (await graph.get("/organization"))["value"][0]
        authority = str(organization.get("mobileDeviceManagementAuthority", "unknown"))
        if authority != "intune":
            raise NoMdmAuthority(
                "The tenant's MDM authority is not set.",
                cure="Set it first: `tandem mdm-authority set`.",
                authority=authority,
            )


def _check_id(value: str, what: str, at: str) -> None:
    # A tenant may also be named by one of its domains.
    shape = r"[0-9A-Za-z.-]{1,253}" if what == "a tenant" else r"[0-9A-Fa-f-]{36}"
    if not re.fullmatch(shape, value.strip()):
        raise BadApp(
            f"{value[:80]!r} is not the id of {what}.",
            cure="Take it from the app registration in the tenant.",
            field=at,
        )


async def ask(http: httpx.AsyncClient, method: str, url: str, **options: Any) -> httpx.Response:
    """One request to the tenant; the log tells of each. Raises TenantUnreachable."""
    path = urlsplit(url).path
    try:
        answer = await http.request(method, url, **options)
    except httpx.HTTPError as error:
        log.warning("tenant asked", method=method, path=path, failure=type(error).__name__)
        raise TenantUnreachable(
            f"The tenant does not answer ({type(error).__name__}).",
            cure="Check the network of the site server, and the environment in its settings.",
        ) from None
    log.info("tenant asked", method=method, path=path, status=answer.status_code)
    return answer


async def _check(text: str, work: Awaitable[Any]) -> Check:
    try:
        await work
    except AppError as error:
        return Check(text, False, error.message, error.cure)
    return Check(text, True)


def claims_of(token: str) -> dict[str, Any]:
    """What a token says, unverified: only to choose whom to ask. Raises ValueError."""
    parts = token.split(".")
    if len(parts) != 3 or len(token) > 16_384:
        raise ValueError("not a token")
    raw = base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4))
    value = json.loads(raw)
    if not isinstance(value, dict):
        raise ValueError("not a token")
    return value


def _signed_claims(token: str, known: Directory) -> dict[str, Any] | None:
    """What a token says, when one of the tenant's keys signed it."""
    try:
        keys = KeySet.import_key_set(known.jwks)  # type: ignore[arg-type]
        return dict(jwt.decode(token, keys, algorithms=["RS256"]).claims)
    except (JoseError, ValueError):
        return None


def global_administrator(access_token: str) -> dict[str, Any]:
    """The token's claims. Graph decides what it may do; this only says early what will not work."""
    try:
        claims = claims_of(access_token)
    except ValueError:
        claims = {}
    if "tid" not in claims:
        raise NotGlobalAdministrator(
            "That is not an access token of the tenant.", cure="Sign in to the tenant again."
        )
    if GLOBAL_ADMINISTRATOR not in claims.get("wids", []):
        who = claims.get("upn") or claims.get("preferred_username") or "This account"
        raise NotGlobalAdministrator(
            f"{who} is not a global administrator of the tenant.",
            cure="Sign in with an account that has the role Global Administrator.",
        )
    return claims


def _issuers(issuer: str) -> list[str]:
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
        str(claims.get("appid") or claims.get("azp") or ""),
        tuple(str(claims.get("scp") or "").split()),
    )


def permission_ids() -> dict[str, str]:
    return {
        "User.Read.All": "df021288-bdef-4463-88db-98f22de89214",
        "Directory.Read.All": "7ab1d382-f21e-4acd-a863-ba3e13f7da61",
        "Device.Read.All": "7438b122-aefc-4978-80ed-43db9fcc7715",
        "DeviceManagementManagedDevices.Read.All": "2f51be20-0bb4-4fed-bf7b-db946066c75e",
        "DeviceManagementApps.Read.All": "7a6ee1e7-141e-4cec-ae74-d9db155731ff",
    }


def server_scope(name: str) -> dict[str, Any]:
    """What the server app offers, so that devices get tokens for it."""
    return {
        "id": str(uuid.uuid4()),
        "value": "user_impersonation",
        "type": "User",
        "isEnabled": True,
        "adminConsentDisplayName": f"Access {name}",
        "adminConsentDescription": "Lets devices talk to the site for the user.",
        "userConsentDisplayName": f"Access {name}",
        "userConsentDescription": "Lets this device talk to the site for you.",
    }


def server_access() -> dict[str, Any]:
    """What the server app asks of Graph."""
    ids = permission_ids()
    access = [{"id": ids[scope], "type": "Role"} for scope in SERVER_APP_SCOPES]
    return {"resourceAppId": GRAPH_APP, "resourceAccess": access}


def client_access() -> dict[str, Any]:
    """What the native client app asks of Graph: User.Read."""
    access = [{"id": "e1fe6dd8-ba31-4d61-89e7-88639da4683d", "type": "Scope"}]
    return {"resourceAppId": GRAPH_APP, "resourceAccess": access}


def _server_app(name: str, home_page: str, app_id_uri: str) -> dict[str, Any]:
    return {
        "displayName": name,
        "identifierUris": [app_id_uri],
        "web": {"homePageUrl": home_page, "redirectUris": []},
        "api": {"oauth2PermissionScopes": [server_scope(name)]},
        "requiredResourceAccess": [server_access()],
    }


def _client_app(name: str, reply_url: str, server: dict[str, Any] | None) -> dict[str, Any]:
    return {
        "displayName": name,
        "publicClient": {"redirectUris": [reply_url]},
        "isFallbackPublicClient": True,
        "requiredResourceAccess": [client_access(), *([server] if server else [])],
    }


def read_json(answer: httpx.Response) -> dict[str, Any]:
    try:
        value = answer.json()
    except ValueError:
        raise TenantUnreachable(
            f"The tenant answered {answer.status_code} with something that is not JSON.",
            cure="Check the environment in the site's settings.",
        ) from None
    return value if isinstance(value, dict) else {}


@dataclass(frozen=True)
class Source:
    """A tenant as discovery sees it."""

    _tenants: Tenants
    _service: AzureService

    @property
    def id(self) -> str:
        return self._service.id

    @property
    def service(self) -> str:
        return self._service.name

    @property
    def tenant_id(self) -> str:
        return self._service.tenant_id

    @property
    def enabled(self) -> bool:
        return self._service.discovery_enabled

    async def graph(self, tx: Tx) -> "Graph":
        return await self._tenants.graph(tx, self._service)


class Graph:
    """Microsoft Graph with one token, of the site's server app (`app_id`) or of a person. Its
    refusals become ours."""

    def __init__(self, http: httpx.AsyncClient, base: str, token: str, app_id: str = "") -> None:
        self._http = http
        self._base = base
        self._app_id = app_id
        self._headers = {"Authorization": f"Bearer {token}"}
        # The tenant did not take this token for something: another one may be.
        self.refused = False

    async def get(self, path: str) -> dict[str, Any]:
        return await self._call("GET", path)

    async def post(
        self, path: str, body: dict[str, Any], *, app_id_uri: str = ""
    ) -> dict[str, Any]:
        return await self._call("POST", path, body, app_id_uri)

    async def patch(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        return await self._call("PATCH", path, body)

    async def delete(self, path: str) -> None:
        await self._call("DELETE", path)

    async def pages(
        self, path: str, seen: Callable[[int], Awaitable[None]] | None = None
    ) -> list[dict[str, Any]]:
        """All pages of a list. `seen` hears after each page how many items there are so far."""
        found: list[dict[str, Any]] = []
        url = path
        while url:
            page = await self._call("GET", url)
            found += page.get("value", [])
            url = str(page.get("@odata.nextLink", ""))
            if seen is not None:
                await seen(len(found))
        return found

    async def changes(self, path: str) -> tuple[list[dict[str, Any]], str]:
        """A delta query to its end: what it tells of, and the link that goes on from there.

        Raises DeltaGone where the tenant no longer knows the link.
        """
        found: list[dict[str, Any]] = []
        while True:
            page = await self._call("GET", path)
            found += page.get("value", [])
            path = str(page.get("@odata.nextLink", ""))
            if not path:
                return found, str(page.get("@odata.deltaLink", ""))

    async def _call(
        self, method: str, path: str, body: dict[str, Any] | None = None, app_id_uri: str = ""
    ) -> dict[str, Any]:
        # A next link is followed only within the Graph that we were told to ask.
        if path.startswith("http") and not path.startswith(self._base):
            raise TenantRefuses("The tenant's next page leads somewhere else.")
        url = path if path.startswith("http") else f"{self._base}{path}"
        answer = await ask(self._http, method, url, json=body, headers=self._headers)
        value = read_json(answer) if answer.content else {}
        if answer.status_code in {401, 403}:
            self.refused = True
        if answer.status_code >= 400:
            raise _refusal(answer.status_code, value, app_id_uri, self._app_id, _permission(path))
        return value


# Which of the server app's permissions a path of Graph needs; the directory's is the rest.
_PERMISSION_OF = {
    "deviceManagement": "DeviceManagementManagedDevices.Read.All",
    "deviceAppManagement": "DeviceManagementApps.Read.All",
}


def _permission(path: str) -> str:
    """The application permission that a GET of this path needs."""
    segments = urlsplit(path).path.strip("/").split("/")
    return next((_PERMISSION_OF[s] for s in segments if s in _PERMISSION_OF), DISCOVERY_PERMISSION)


def _refusal(
    status: int, value: dict[str, Any], app_id_uri: str, app_id: str, permission: str
) -> AppError:
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
            field="app_id_uri",
        )
    if status == 403 and not app_id:
        return NotGlobalAdministrator(
            f"The tenant does not let this account do it: {message}",
            cure="Sign in with an account that has the role Global Administrator.",
        )
    if status == 403:
        return ConsentMissing(
            f"The app {app_id} lacks the application permission {permission}."
            f" The tenant says: {message}",
            cure=f"A global administrator grants it: `tandem app-registration consent {app_id}`.",
        )
    if status == 410:
        return DeltaGone(
            f"The tenant no longer knows from where to go on: {message}",
            cure="Run full discovery: `tandem discovery run`.",
        )
    # For a part that it does not have, Graph answers 400 and not 404.
    absent = status == 404 or (status == 400 and _ABSENT.match(message))
    kind = NotInTenant if absent else TenantRefuses
    return kind(f"The tenant refuses: {message}", cure="See the tenant's sign-in log.")


_ABSENT = re.compile(r"Resource not found for the segment", re.IGNORECASE)


async def _audit(tx: Tx, actor: str, action: str, target: str, now: datetime) -> None:
    await audit.record(tx, actor=actor, action=action, target=target, now=now)
