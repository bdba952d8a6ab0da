"""Cloud services of the admin API, and the two documents of connection points."""

from base64 import b64decode, b64encode
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from typing import Any

import msgspec
from cryptography import x509
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from tandem import audit, pki
from tandem.infra import http
from tandem.infra.clock import Clock
from tandem.infra.database import Database, Tx
from tandem.infra.errors import Invalid
from tandem.infra.net import Resolver
from tandem.infra.secrets import SecretBox
from tandem.protocols import tunnel
from tandem.site import administrators, properties, software_updates
from tandem.site.administrators import Administrator, Gate
from tandem.site.cloud_services import app_settings, certificates, consent, site_http, store, trust
from tandem.site.cloud_services.acme_orders import Orders
from tandem.site.cloud_services.connection import Connections, News
from tandem.site.cloud_services.gateway_http import (
    Check,
    GatewayApi,
    days_of,
    gateway_shape,
    pfx_of,
    version,
)
from tandem.site.cloud_services.gateways import Gateways
from tandem.site.cloud_services.lists import Lists
from tandem.site.cloud_services.model import (
    DEFAULT_APP_ID_URI,
    DEFAULT_REPLY_URL,
    AzureService,
    CertificateRequest,
    ConnectionPoint,
    Gateway,
    TenantSignIn,
)
from tandem.site.cloud_services.sign_ins import SignIns
from tandem.site.cloud_services.tenants import Tenants
from tandem.site.collections import as_dict

_FILE_LIMIT = 1_000_000
_MAX_WAIT_SECONDS = 50.0
_MOST_ROOTS = 16
_NO_STORE = {"Cache-Control": "no-store"}


class NewRequest(msgspec.Struct):
    service_name: str
    organization: str = ""
    organizational_unit: str = ""
    locality: str = ""
    state: str = ""
    country: str = ""
    acme: bool = False  # Order it of the ACME authority of the settings.


class File(msgspec.Struct):
    """A file of the administrator's, in base64."""

    data: str
    password: str = ""

    def content(self) -> bytes:
        try:
            return b64decode(self.data, validate=True)
        except ValueError:
            raise Invalid("The file did not arrive whole (its base64 is broken).") from None


class Password(msgspec.Struct):
    password: str


class AccountSignIn(msgspec.Struct):
    access_token: str


class NewService(msgspec.Struct):
    name: str
    description: str = ""


class NewApp(msgspec.Struct):
    """By a global administrator: `tenant_sign_in` is the id of a sign-in that was begun here,
    `access_token` one of somebody who signed in elsewhere, for this one request."""

    name: str
    access_token: str = ""
    tenant_sign_in: str = ""
    app_id_uri: str = DEFAULT_APP_ID_URI
    home_page: str = DEFAULT_APP_ID_URI
    reply_url: str = DEFAULT_REPLY_URL
    secret_years: int = 1


class Renewal(msgspec.Struct):
    """By a global administrator, as in NewApp."""

    access_token: str = ""
    tenant_sign_in: str = ""
    secret_years: int = 1


class ExistingApp(msgspec.Struct):
    client_id: str
    name: str = ""
    tenant_id: str = ""
    tenant_name: str = ""
    app_id_uri: str = ""
    secret: str = ""
    secret_expires_at: datetime | None = None


class ServiceChange(msgspec.Struct):
    """What is not named stays as it is."""

    name: str | None = None
    description: str | None = None
    authentication_enabled: bool | None = None


class AppCheck(msgspec.Struct):
    tenant_id: str
    client_id: str
    secret: str


class Consenting(msgspec.Struct):
    """By a global administrator, as in NewApp."""

    access_token: str = ""
    tenant_sign_in: str = ""


class Switch(msgspec.Struct):
    enabled: bool


class NewGateway(msgspec.Struct):
    """By a global administrator, as in NewApp. `certificate` is the id of one in the site's store,
    `data` and `password` are a PFX. `trusted_roots` are files (base64), of clients' authorities."""

    data: str = ""
    password: str = ""
    certificate: str = ""
    trusted_roots: list[str] = []
    access_token: str = ""
    tenant_sign_in: str = ""
    service_name: str = ""
    environment: str = ""
    region: str = ""
    resource_group: str = ""
    description: str = ""
    instances: int = 1
    check_revocation: bool = True
    serve_content: bool = True
    content_only: bool = False
    edge_answers: bool = True
    alerts: dict[str, Any] = {}


class NewConnectionPoint(msgspec.Struct):
    name: str = "CP01"
    gateway: str = ""


class GatewayTraffic(msgspec.Struct):
    allow_gateway_traffic: bool


class AdminServicePublication(msgspec.Struct):
    """`writes`: whether users of the app may also change things, as their roles allow."""

    writes: bool = False


@dataclass(frozen=True)
class CloudServices:
    """Everything of this module that the routes need, made in `roles/`."""

    db: Database
    box: SecretBox
    tenants: Tenants
    gateways: Gateways
    connections: Connections
    resolver: Resolver
    news: News
    now: Clock
    orders: Orders
    lists: Lists

    @property
    def sign_ins(self) -> SignIns:
        return SignIns(self.db, self.tenants, self.box, self.now)


def routes(cloud: CloudServices, require: Gate) -> list[BaseRoute]:
    """The admin API."""
    api = _Api(cloud, require)
    gateways = GatewayApi(cloud, require, api.token, lambda data: File(data).content())
    one = "/api/v1/certificates/{id}"
    gateway = "/api/v1/gateways/{name}"
    service = "/api/v1/azure-services/{name}"
    return [
        Route("/api/v1/sign-in/tenant", api.tenants_of_accounts, methods=["GET"]),
        Route("/api/v1/sign-in/tenant", api.sign_in, methods=["POST"]),
        Route("/api/v1/tenant-sign-in", api.begin_sign_in, methods=["POST"]),
        Route("/api/v1/tenant-sign-in/{id}", api.tenant_sign_in, methods=["GET"]),
        Route("/api/v1/tenant-sign-in/{id}", api.forget_sign_in, methods=["DELETE"]),
        Route("/api/v1/gateway-names/{name}", api.check_name, methods=["GET"]),
        Route("/api/v1/certificates", api.certificates, methods=["GET"]),
        Route("/api/v1/certificates", api.request, methods=["POST"]),
        Route("/api/v1/certificates/import", api.import_certificate, methods=["POST"]),
        Route("/api/v1/certificates/import-pfx", api.import_pfx, methods=["POST"]),
        Route(f"{one}/export", api.export, methods=["POST"]),
        Route(f"{one}/order", api.order, methods=["POST"]),
        Route(one, api.certificate, methods=["GET"]),
        Route(one, api.remove, methods=["DELETE"]),
        Route("/api/v1/cloud-environments", api.environments, methods=["GET"]),
        Route("/api/v1/azure-services", api.services, methods=["GET"]),
        Route("/api/v1/azure-service-apps/verify", api.check_app, methods=["POST"]),
        Route("/api/v1/azure-services", api.create_service, methods=["POST"]),
        Route(service, api.service, methods=["GET"]),
        Route(service, api.change_service, methods=["PATCH"]),
        Route(service, api.delete_service, methods=["DELETE"]),
        Route(f"{service}/consent", api.consent, methods=["GET"]),
        Route(f"{service}/consent", api.grant_consent, methods=["POST"]),
        Route(f"{service}/app-settings", api.update_apps, methods=["POST"]),
        Route(f"{service}/apps/{{kind}}", api.create_app, methods=["POST"]),
        Route(f"{service}/apps/{{kind}}/import", api.import_app, methods=["POST"]),
        Route(f"{service}/secret", api.renew_secret, methods=["POST"]),
        Route(f"{service}/verify", api.verify, methods=["POST"]),
        Route(f"{service}/discovery", api.enable_discovery, methods=["PUT"]),
        *gateways.routes(),
        Route("/api/v1/gateways", api.gateways, methods=["GET"]),
        Route("/api/v1/gateways", api.create_gateway, methods=["POST"]),
        Route(gateway, api.gateway, methods=["GET"]),
        Route(gateway, api.delete_gateway, methods=["DELETE"]),
        Route(f"{gateway}/dns", api.check_dns, methods=["GET"]),
        Route(f"{gateway}/stop", api.stop_gateway, methods=["POST"]),
        Route(f"{gateway}/start", api.start_gateway, methods=["POST"]),
        Route("/api/v1/trust/roots", api.add_root, methods=["POST"]),
        Route("/api/v1/trust/crls", api.add_crl, methods=["POST"]),
        Route("/api/v1/connection-points", api.points, methods=["GET"]),
        Route("/api/v1/connection-points", api.add_point, methods=["POST"]),
        Route("/api/v1/connection-points/{name}", api.point, methods=["GET"]),
        Route("/api/v1/connection-points/{name}", api.remove_point, methods=["DELETE"]),
        Route("/api/v1/connection-points/{name}/credentials", api.credentials, methods=["POST"]),
        Route("/api/v1/management-point", api.management_point, methods=["GET"]),
        Route("/api/v1/management-point", api.set_management_point, methods=["PATCH"]),
        Route("/api/v1/software-update-point", api.update_point, methods=["GET"]),
        Route("/api/v1/software-update-point", api.set_update_point, methods=["PATCH"]),
        Route(
            "/api/v1/management-point/adminservice/{app_id}",
            api.publish_adminservice,
            methods=["PUT"],
        ),
        Route(
            "/api/v1/management-point/adminservice/{app_id}",
            api.unpublish_adminservice,
            methods=["DELETE"],
        ),
        Route("/api/v1/traffic", api.traffic, methods=["GET"]),
        *site_http.routes(cloud, require),
    ]


def connector_routes(cloud: CloudServices) -> list[BaseRoute]:
    """For connection points, on the management point's listener (mutual TLS)."""

    async def configuration(request: Request) -> Response:
        der = http.peer_certificate(request)
        async with cloud.db.transaction() as tx:
            point = await cloud.connections.authenticate(tx, der)

        async def read() -> tuple[str, bytes]:
            async with cloud.db.transaction() as tx:
                made = await cloud.connections.connector_configuration(tx, point)
            document = msgspec.json.encode(made)
            return f'"{sha256(document).hexdigest()[:32]}"', document

        have = request.headers.get("if-none-match", "")
        tag, document = await cloud.news.wait(read, have, _seconds(request))
        if tag == have:
            return Response(status_code=304, headers={"ETag": tag})
        return Response(document, headers={"ETag": tag}, media_type="application/json")

    async def report(request: Request) -> Response:
        der = http.peer_certificate(request)
        told = await http.decode(request, tunnel.ConnectorReport, _FILE_LIMIT)
        async with cloud.db.transaction() as tx:
            point = await cloud.connections.authenticate(tx, der)
            answer = await cloud.connections.report(tx, point, told)
        return Response(msgspec.json.encode(answer), media_type="application/json")

    return [
        Route("/SMS_CMG/connector/configuration", configuration, methods=["GET"]),
        Route("/SMS_CMG/connector/report", report, methods=["POST"]),
    ]


def _name(request: Request) -> str:
    """The name in the path; `-` is the only one there is."""
    name: str = request.path_params["name"]
    return "" if name == "-" else name


def _kind(request: Request) -> str:
    kind: str = request.path_params["kind"]
    if kind not in {"server", "client"}:
        raise Invalid("An app is of kind server or client.")
    return kind


def _check_years(years: int) -> None:
    if years not in {1, 2}:
        raise Invalid("A secret is valid for 1 or 2 years.")


def _seconds(request: Request) -> float:
    raw = request.query_params.get("wait", "0")
    try:
        wanted = float(raw)
    except ValueError:
        raise Invalid("wait is a number of seconds.") from None
    return min(max(wanted, 0.0), _MAX_WAIT_SECONDS)


def _labelled(request: Request, item: Gateway) -> bool:
    """Whether it has the labels that the query asks for, whatever their letter case."""
    return all(
        request.query_params.get(label, "").strip().casefold()
        in {"", str(getattr(item, label)).casefold()}
        for label in ("environment", "region", "resource_group")
    )


class _Api:
    def __init__(self, cloud: CloudServices, require: Gate) -> None:
        self._cloud = cloud
        self._require = require

    # -------------------------------------------------------------- certificates

    async def check_name(self, request: Request) -> Response:
        await self._require(request)
        async with self._cloud.db.transaction() as tx:
            found = await certificates.check_name(
                tx,
                request.path_params["name"],
                deployment_domain=self._cloud.gateways.settings.gateway.deployment_domain,
                resolver=self._cloud.resolver,
            )
        return http.reply(as_dict(found))

    async def certificates(self, request: Request) -> Response:
        await self._require(request)
        async with self._cloud.db.transaction() as tx:
            return http.reply([_certificate(c) for c in await certificates.certificates(tx)])

    async def certificate(self, request: Request) -> Response:
        await self._require(request)
        async with self._cloud.db.transaction() as tx:
            found = await certificates.certificate(tx, request.path_params["id"])
        return http.reply(_certificate(found))

    async def request(self, request: Request) -> Response:
        who = await self._require(request)
        new = await http.decode(request, NewRequest)
        apart = {"service_name", "acme"}
        subject = {k: v for k, v in msgspec.to_builtins(new).items() if k not in apart}
        async with self._cloud.db.transaction() as tx:
            if new.acme:
                made = await self._cloud.orders.request(
                    tx, new.service_name, subject, actor=who.name
                )
            else:
                made = await certificates.request(
                    tx,
                    self._cloud.box,
                    new.service_name,
                    subject,
                    actor=who.name,
                    now=self._cloud.now(),
                )
        _, note = certificates.fold(new.service_name)
        return http.reply({**_certificate(made), "note": note}, 201)

    async def import_certificate(self, request: Request) -> Response:
        who = await self._require(request)
        file = await http.decode(request, File, _FILE_LIMIT)
        async with self._cloud.db.transaction() as tx:
            made = await certificates.import_certificate(
                tx, self._cloud.box, file.content(), actor=who.name, now=self._cloud.now()
            )
        return http.reply(_certificate(made))

    async def import_pfx(self, request: Request) -> Response:
        who = await self._require(request)
        file = await http.decode(request, File, _FILE_LIMIT)
        async with self._cloud.db.transaction() as tx:
            made = await certificates.import_pfx(
                tx,
                self._cloud.box,
                file.content(),
                file.password,
                actor=who.name,
                now=self._cloud.now(),
            )
        return http.reply(_certificate(made), 201)

    async def export(self, request: Request) -> Response:
        who = await self._require(request)
        wanted = await http.decode(request, Password)
        id = request.path_params["id"]
        async with self._cloud.db.transaction() as tx:
            pfx = await certificates.export_pfx(
                tx, self._cloud.box, id, wanted.password, actor=who.name, now=self._cloud.now()
            )
            item = await certificates.certificate(tx, id)
        answer = {**_certificate(item), "pfx": b64encode(pfx).decode()}
        return http.reply(answer, headers={"Cache-Control": "no-store"})

    async def order(self, request: Request) -> Response:
        """Ask the ACME authority once more for what it refused."""
        who = await self._require(request)
        async with self._cloud.db.transaction() as tx:
            made = await self._cloud.orders.again(tx, request.path_params["id"], actor=who.name)
        return http.reply(_certificate(made), 202)

    async def remove(self, request: Request) -> Response:
        who = await self._require(request)
        id = request.path_params["id"]
        async with self._cloud.db.transaction() as tx:
            gone = await certificates.remove(tx, id, actor=who.name, now=self._cloud.now())
        return http.reply(_certificate(gone))

    # -------------------------------------------------------------- tenants

    async def tenants_of_accounts(self, _: Request) -> Response:
        """What an account of a tenant asks its tenant for, to sign in here. For anybody."""
        async with self._cloud.db.transaction() as tx:
            return http.reply(await self._cloud.tenants.sign_in_scopes(tx))

    async def sign_in(self, request: Request) -> Response:
        """A session for an administrator who is an account of a connected tenant."""
        given = await http.decode(request, AccountSignIn)
        async with self._cloud.db.transaction() as tx:
            who = await self._cloud.tenants.verify_administrator(tx, given.access_token)
            session = await administrators.sign_in_external(
                tx,
                who.tenant_id,
                who.object_id,
                who.upn,
                self._cloud.now(),
                self._require.settings,
            )
        answer = {
            "token": session.token,
            "expires_at": session.expires_at,
            "administrator": {
                "name": session.administrator.name,
                "role": session.administrator.role.value,
            },
        }
        return http.reply(answer, headers={"Cache-Control": "no-store"})

    async def begin_sign_in(self, request: Request) -> Response:
        """A code with which a tenant's administrator signs in, on the tenant's own page."""
        who = await self._require(request)
        made = await self._cloud.sign_ins.begin(who.name)
        return http.reply(_sign_in(made), 201, _NO_STORE)

    async def tenant_sign_in(self, request: Request) -> Response:
        who = await self._require(request)
        found = await self._cloud.sign_ins.look(request.path_params["id"], who.name)
        return http.reply(_sign_in(found), headers=_NO_STORE)

    async def forget_sign_in(self, request: Request) -> Response:
        who = await self._require(request)
        async with self._cloud.db.transaction() as tx:
            await self._cloud.sign_ins.forget(tx, request.path_params["id"], who.name)
        return Response(status_code=204)

    async def token(
        self,
        tx: Tx,
        who: Administrator,
        given: NewApp | Renewal | NewGateway | Check | Consenting,
    ) -> str:
        """The token of the tenant's administrator who stands behind a request."""
        if given.tenant_sign_in:
            return await self._cloud.sign_ins.token(tx, given.tenant_sign_in, who.name)
        if given.access_token:
            return given.access_token
        raise Invalid(
            "A global administrator of the tenant has to sign in for this.",
            cure="Begin at /api/v1/tenant-sign-in, and name the sign-in as tenant_sign_in.",
            field="tenant_sign_in",
        )

    async def services(self, request: Request) -> Response:
        await self._require(request)
        async with self._cloud.db.transaction() as tx:
            found = await self._cloud.tenants.services(tx)
            return http.reply([await self._service(tx, item) for item in found])

    async def service(self, request: Request) -> Response:
        await self._require(request)
        async with self._cloud.db.transaction() as tx:
            found = await self._cloud.tenants.service(tx, _name(request))
            shape = await self._service(tx, found)
        return http.reply(shape, headers={"ETag": http.version_of(shape)})

    async def change_service(self, request: Request) -> Response:
        who = await self._require(request)
        wanted = await http.decode(request, ServiceChange)
        async with self._cloud.db.transaction() as tx:
            found = await self._cloud.tenants.service(tx, _name(request))
            await store.lock_service(tx, found.id)
            found = await self._cloud.tenants.service(tx, found.id)
            http.check_version(request, http.version_of(await self._service(tx, found)))
            made = await self._cloud.tenants.change_service(
                tx,
                found.id,
                name=wanted.name,
                description=wanted.description,
                authentication_enabled=wanted.authentication_enabled,
                actor=who.name,
                now=self._cloud.now(),
            )
            shape = await self._service(tx, made)
        self._cloud.news.tell()
        return http.reply(shape, headers={"ETag": http.version_of(shape)})

    async def environments(self, request: Request) -> Response:
        """Where this site can be connected: the one cloud of its settings."""
        await self._require(request)
        here = self._cloud.tenants.environment
        known = {"name": here.name, "authority": here.authority, "graph": here.graph}
        return http.reply([known] if here.authority else [])

    async def check_app(self, request: Request) -> Response:
        """Verify, before an app is imported: nothing of it is kept."""
        await self._require(request)
        given = await http.decode(request, AppCheck)
        name = await self._cloud.tenants.check_app(given.tenant_id, given.client_id, given.secret)
        return http.reply({"ok": True, "tenant_name": name})

    async def consent(self, request: Request) -> Response:
        await self._require(request)
        async with self._cloud.db.transaction() as tx:
            found = await self._cloud.tenants.service(tx, _name(request))
            return http.reply(await self._consent(tx, found))

    async def grant_consent(self, request: Request) -> Response:
        """Grant both apps everything that they need, by a sign-in to the tenant."""
        who = await self._require(request)
        given = await http.decode(request, Consenting)
        async with self._cloud.db.transaction() as tx:
            found = await self._cloud.tenants.service(tx, _name(request))
            token = await self.token(tx, who, given)
            await consent.grant(tx, self._cloud.tenants, found, token)
            await audit.record(
                tx,
                actor=who.name,
                action="azure-service.consent",
                target=found.name,
                now=self._cloud.now(),
            )
            shape = await self._consent(tx, found)
        self._cloud.news.tell()
        return http.reply(shape)

    async def update_apps(self, request: Request) -> Response:
        """Update application settings, by a sign-in to the tenant."""
        who = await self._require(request)
        given = await http.decode(request, Consenting)
        async with self._cloud.db.transaction() as tx:
            found = await self._cloud.tenants.service(tx, _name(request))
            token = await self.token(tx, who, given)
            done = await app_settings.update(tx, self._cloud.tenants, found, token)
            await audit.record(
                tx,
                actor=who.name,
                action="azure-service.update-apps",
                target=found.name,
                now=self._cloud.now(),
                details={item.kind: list(item.added) for item in done},
            )
        self._cloud.news.tell()
        return http.reply({"name": found.name, "apps": [as_dict(item) for item in done]})

    async def _consent(self, tx: Tx, service: AzureService) -> dict[str, Any]:
        apps = await consent.consent_of(tx, self._cloud.tenants, service)
        return {
            "ok": bool(apps) and all(p.granted for app in apps for p in app.permissions),
            "apps": [{**as_dict(app), "missing": app.missing} for app in apps],
        }

    async def create_service(self, request: Request) -> Response:
        who = await self._require(request)
        new = await http.decode(request, NewService)
        async with self._cloud.db.transaction() as tx:
            made = await self._cloud.tenants.create_service(
                tx, new.name, new.description, actor=who.name, now=self._cloud.now()
            )
            return http.reply(await self._service(tx, made), 201)

    async def delete_service(self, request: Request) -> Response:
        who = await self._require(request)
        async with self._cloud.db.transaction() as tx:
            await self._cloud.tenants.delete_service(
                tx, _name(request), actor=who.name, now=self._cloud.now()
            )
        return Response(status_code=204)

    async def create_app(self, request: Request) -> Response:
        who = await self._require(request)
        new = await http.decode(request, NewApp)
        kind = _kind(request)
        _check_years(new.secret_years)
        async with self._cloud.db.transaction() as tx:
            made = await self._cloud.tenants.create_app(
                tx,
                _name(request),
                kind,
                name=new.name,
                access_token=await self.token(tx, who, new),
                app_id_uri=new.app_id_uri,
                home_page=new.home_page,
                reply_url=new.reply_url,
                secret_years=new.secret_years,
                actor=who.name,
                now=self._cloud.now(),
            )
        self._cloud.news.tell()
        return http.reply(as_dict(made), 201)

    async def import_app(self, request: Request) -> Response:
        who = await self._require(request)
        given = await http.decode(request, ExistingApp)
        async with self._cloud.db.transaction() as tx:
            made = await self._cloud.tenants.import_app(
                tx,
                _name(request),
                _kind(request),
                name=given.name,
                app_id=given.client_id,
                tenant_id=given.tenant_id,
                tenant_name=given.tenant_name,
                app_id_uri=given.app_id_uri,
                secret=given.secret,
                secret_expires_at=given.secret_expires_at,
                actor=who.name,
                now=self._cloud.now(),
            )
        self._cloud.news.tell()
        return http.reply(as_dict(made), 201)

    async def renew_secret(self, request: Request) -> Response:
        who = await self._require(request)
        wanted = await http.decode(request, Renewal)
        _check_years(wanted.secret_years)
        async with self._cloud.db.transaction() as tx:
            app = await self._cloud.tenants.renew_secret(
                tx,
                _name(request),
                access_token=await self.token(tx, who, wanted),
                secret_years=wanted.secret_years,
                actor=who.name,
                now=self._cloud.now(),
            )
        return http.reply(as_dict(app))

    async def verify(self, request: Request) -> Response:
        await self._require(request)
        async with self._cloud.db.transaction() as tx:
            checks = await self._cloud.tenants.verify(tx, _name(request), self._cloud.now())
        value = {"ok": all(item.ok for item in checks), "checks": [as_dict(c) for c in checks]}
        return http.reply(value)

    async def enable_discovery(self, request: Request) -> Response:
        who = await self._require(request)
        wanted = await http.decode(request, Switch)
        async with self._cloud.db.transaction() as tx:
            found = await self._cloud.tenants.enable_discovery(
                tx,
                _name(request),
                wanted.enabled,
                actor=who.name,
                now=self._cloud.now(),
            )
            return http.reply(await self._service(tx, found))

    async def _service(self, tx: Tx, item: AzureService) -> dict[str, Any]:
        apps = await self._cloud.tenants.apps(tx, item.id)
        return {**as_dict(item), "apps": [as_dict(app) for app in apps]}

    # -------------------------------------------------------------- gateways

    async def gateways(self, request: Request) -> Response:
        who = await self._require(request)
        async with self._cloud.db.transaction() as tx:
            found = [
                item for item in await self._cloud.gateways.gateways(tx) if _labelled(request, item)
            ]
            names = [item.service_name for item in found]
            seen = await administrators.visible(tx, who, "gateway", names)
            return http.reply(
                [await self._gateway(tx, item) for item in found if item.service_name in seen]
            )

    async def gateway(self, request: Request) -> Response:
        await self._require(request)
        async with self._cloud.db.transaction() as tx:
            found = await self._cloud.gateways.gateway(tx, _name(request))
            shape = await self._gateway(tx, found)
        return http.reply(shape, headers={"ETag": version(shape)})

    async def create_gateway(self, request: Request) -> Response:
        who = await self._require(request)
        new = await http.decode(request, NewGateway, _FILE_LIMIT)
        if (new.trusted_roots or new.certificate) and not who.over_all:
            raise administrators.NotAllowed(
                f"{who.name} is {who.title}: what the whole site trusts, and its certificates, need"
                " all scopes and no limiting collection.",
                cure="Send the gateway's certificate as a file without trusted roots, or ask a full"
                " administrator over All.",
            )
        async with self._cloud.db.transaction() as tx:
            token = await self.token(tx, who, new)
            tenant_id = await self._cloud.tenants.check_subscription(tx, token)
            data = File(new.data).content()
            pfx, password = await pfx_of(self._cloud, tx, data, new.password, new.certificate)
            ordered = (
                bool(new.certificate) and (await certificates.certificate(tx, new.certificate)).acme
            )
            for root in new.trusted_roots[:_MOST_ROOTS]:
                await trust.add_root(
                    tx, File(root).content(), actor=who.name, now=self._cloud.now()
                )
            made = await self._cloud.gateways.create(
                tx,
                pfx=pfx or b"",
                password=password,
                tenant_id=tenant_id,
                service_name=new.service_name,
                environment=new.environment,
                region=new.region,
                resource_group=new.resource_group,
                description=new.description,
                instances=new.instances,
                check_revocation=new.check_revocation,
                serve_content=new.serve_content,
                content_only=new.content_only,
                acme=ordered,
                edge_answers=new.edge_answers,
                alerts=new.alerts,
                actor=who.name,
            )
            scopes = administrators.inherited(who)
            await administrators.created(tx, "gateway", made.gateway.service_name, scopes)
            shape = await self._gateway(tx, made.gateway)
        return http.reply({**shape, "notes": made.notes}, 201)

    async def delete_gateway(self, request: Request) -> Response:
        who = await self._require(request)
        async with self._cloud.db.transaction() as tx:
            await self._cloud.gateways.delete(tx, _name(request), actor=who.name)
        return Response(status_code=204)

    async def stop_gateway(self, request: Request) -> Response:
        who = await self._require(request)
        found = await self._cloud.gateways.stop(_name(request), actor=who.name)
        async with self._cloud.db.transaction() as tx:
            shape = await self._gateway(tx, found)
        self._cloud.news.tell()
        return http.reply(shape)

    async def start_gateway(self, request: Request) -> Response:
        who = await self._require(request)
        async with self._cloud.db.transaction() as tx:
            found = await self._cloud.gateways.start(tx, _name(request), actor=who.name)
            return http.reply(await self._gateway(tx, found))

    async def check_dns(self, request: Request) -> Response:
        await self._require(request)
        async with self._cloud.db.transaction() as tx:
            return http.reply(await self._cloud.gateways.check_dns(tx, _name(request)))

    async def _gateway(self, tx: Tx, item: Gateway) -> dict[str, Any]:
        return await gateway_shape(self._cloud, tx, item)

    # -------------------------------------------------------------- trust

    async def add_root(self, request: Request) -> Response:
        who = await self._require(request)
        file = await http.decode(request, File, _FILE_LIMIT)
        async with self._cloud.db.transaction() as tx:
            added = await trust.add_root(tx, file.content(), actor=who.name, now=self._cloud.now())
        self._cloud.news.tell()
        return http.reply({"added": added}, 201)

    async def add_crl(self, request: Request) -> Response:
        who = await self._require(request)
        file = await http.decode(request, File, _FILE_LIMIT)
        async with self._cloud.db.transaction() as tx:
            issuer = await trust.add_crl(tx, file.content(), actor=who.name, now=self._cloud.now())
        self._cloud.news.tell()
        return http.reply({"issuer": issuer}, 201)

    # -------------------------------------------------------------- connection points

    async def points(self, request: Request) -> Response:
        await self._require(request)
        async with self._cloud.db.transaction() as tx:
            found = await self._cloud.connections.connection_points(tx)
            return http.reply([await self._point(tx, item) for item in found])

    async def point(self, request: Request) -> Response:
        await self._require(request)
        async with self._cloud.db.transaction() as tx:
            found = await self._cloud.connections.connection_point(tx, _name(request))
            return http.reply(await self._point(tx, found))

    async def add_point(self, request: Request) -> Response:
        who = await self._require(request)
        new = await http.decode(request, NewConnectionPoint)
        async with self._cloud.db.transaction() as tx:
            made = await self._cloud.connections.add(tx, new.name, new.gateway, actor=who.name)
            return http.reply(await self._point(tx, made), 201)

    async def _point(self, tx: Tx, item: ConnectionPoint) -> dict[str, Any]:
        connections = await self._cloud.connections.connections(tx)
        mine = [c for c in connections if c["connection_point"] == item.name]
        connected = await self._cloud.connections.connected(tx, item)
        return {**as_dict(item), "connected": connected, "connections": mine}

    async def remove_point(self, request: Request) -> Response:
        who = await self._require(request)
        async with self._cloud.db.transaction() as tx:
            await self._cloud.connections.remove(tx, _name(request), actor=who.name)
        return Response(status_code=204)

    async def credentials(self, request: Request) -> Response:
        """Role certificate, key and site root: once more for the server with the role."""
        await self._require(request)
        async with self._cloud.db.transaction() as tx:
            found = await self._cloud.connections.credentials(tx, _name(request))
        return http.reply(found, headers={"Cache-Control": "no-store"})

    # -------------------------------------------------------------- management point

    async def management_point(self, request: Request) -> Response:
        await self._require(request)
        async with self._cloud.db.transaction() as tx:
            return http.reply(await self._management_point(tx))

    async def set_management_point(self, request: Request) -> Response:
        who = await self._require(request)
        wanted = await http.decode(request, GatewayTraffic)
        async with self._cloud.db.transaction() as tx:
            await self._cloud.connections.allow(tx, wanted.allow_gateway_traffic, actor=who.name)
            shape = await self._management_point(tx)
        self._cloud.news.tell()
        return http.reply(shape)

    async def update_point(self, request: Request) -> Response:
        await self._require(request)
        async with self._cloud.db.transaction() as tx:
            return http.reply(await self._update_point(tx))

    async def set_update_point(self, request: Request) -> Response:
        who = await self._require(request)
        wanted = await http.decode(request, GatewayTraffic)
        async with self._cloud.db.transaction() as tx:
            await self._cloud.connections.allow_updates(
                tx, wanted.allow_gateway_traffic, actor=who.name
            )
            shape = await self._update_point(tx)
        self._cloud.news.tell()
        return http.reply(shape)

    async def _update_point(self, tx: Tx) -> dict[str, Any]:
        connections = self._cloud.connections
        point = await software_updates.point(tx)
        return {
            "role_id": point.role_id,
            "url": connections.settings.management_point_url,
            "allow_gateway_traffic": point.allowed,
            "can_allow_gateway_traffic": await connections.can_allow(tx),
            "gateway_host": await connections.update_point_host(tx) or "",
            "endpoints": [as_dict_struct(e) for e in await connections.update_endpoints(tx)],
            "changed_at": point.changed_at,
            "changed_by": point.changed_by,
        }

    async def publish_adminservice(self, request: Request) -> Response:
        who = await self._require(request)
        wanted = await http.decode(request, AdminServicePublication)
        app_id = request.path_params["app_id"]
        async with self._cloud.db.transaction() as tx:
            await self._cloud.connections.publish_adminservice(
                tx, app_id, writes=wanted.writes, actor=who.name
            )
            shape = await self._management_point(tx)
        self._cloud.news.tell()
        return http.reply(shape)

    async def unpublish_adminservice(self, request: Request) -> Response:
        who = await self._require(request)
        app_id = request.path_params["app_id"]
        async with self._cloud.db.transaction() as tx:
            await self._cloud.connections.unpublish_adminservice(tx, app_id, actor=who.name)
            shape = await self._management_point(tx)
        self._cloud.news.tell()
        return http.reply(shape)

    async def _management_point(self, tx: Tx) -> dict[str, Any]:
        return {
            "role_id": str((await properties.site(tx)).management_point_id),
            "url": self._cloud.connections.settings.management_point_url,
            "allow_gateway_traffic": await self._cloud.connections.allowed(tx),
            "can_allow_gateway_traffic": await self._cloud.connections.can_allow(tx),
            "gateway_host": await self._cloud.connections.gateway_host(tx) or "",
            "endpoints": [as_dict_struct(e) for e in await self._cloud.connections.endpoints(tx)],
            "adminservice": [
                {"app_id": app.app_id, "writes": app.writes, "published_by": app.changed_by}
                for app in await self._cloud.connections.adminservice_apps(tx)
            ],
        }

    async def traffic(self, request: Request) -> Response:
        await self._require(request)
        by = request.query_params.get("by", "endpoint")
        if by not in {"endpoint", "day", "connection-point"}:
            raise Invalid("by is endpoint, day or connection-point.", field="by")
        name = request.query_params.get("gateway", "")
        async with self._cloud.db.transaction() as tx:
            if by == "endpoint":
                found = await self._cloud.connections.traffic(tx)
            else:
                days = days_of(request)
                found = await self._cloud.connections.traffic_by(tx, by, name, days)
        return http.reply(found)


def as_dict_struct(value: msgspec.Struct) -> dict[str, Any]:
    shape: dict[str, Any] = msgspec.to_builtins(value)
    return shape


def _sign_in(item: TenantSignIn) -> dict[str, Any]:
    shape = as_dict(item)
    del shape["administrator"]
    return {
        **shape,
        # The page takes the code out of its address, so that nobody has to type it.
        "verification_uri_complete": f"{item.verification_uri}?user_code={item.user_code}",
        "global_administrator": "Global Administrator" in item.roles,
    }


def _certificate(item: CertificateRequest) -> dict[str, Any]:
    shape: dict[str, Any] = {
        "id": item.id,
        "service_name": item.service_name,
        "subject": item.subject,
        "state": item.state,
        "created_at": item.created_at,
        "request": item.request.decode() if item.request else "",
        "missing_issuer": item.missing_issuer,
        "acme": item.acme,
        "problem": item.problem,
    }
    if item.certificate is not None:
        leaf = x509.load_der_x509_certificate(item.certificate)
        shape |= {
            "thumbprint": pki.sha1_thumbprint(leaf),
            "issuer": leaf.issuer.rfc4514_string(),
            "expires_at": leaf.not_valid_after_utc,
            "path": [c.subject.rfc4514_string() for c in _path(item)],
        }
    return shape


def _path(item: CertificateRequest) -> list[x509.Certificate]:
    return list(pki.read_certificates(item.chain)) if item.chain else []
