"""Connection points and the management point's gateway traffic (tutorial 4)."""

import asyncio
import contextlib
import re
from base64 import b64encode
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from datetime import timedelta
from hashlib import sha256
from typing import Any

import msgspec
from cryptography import x509

from tandem import audit, pki
from tandem.infra.clock import Clock
from tandem.infra.database import Tx
from tandem.infra.secrets import SecretBox
from tandem.protocols import ccm, tunnel
from tandem.site import clients, properties, software_updates
from tandem.site.cloud_services import contents, store, traffic
from tandem.site.cloud_services.edge_answers import DOOR as ANSWERS_DOOR
from tandem.site.cloud_services.edge_answers import PREFIX as ANSWERS_PREFIX
from tandem.site.cloud_services.gateways import Gateways
from tandem.site.cloud_services.model import (
    AdminServiceApp,
    BadProxy,
    CloudSettings,
    ConnectionPoint,
    ConnectionPointExists,
    Gateway,
    GatewayState,
    ManagementPointInsecure,
    NoSuchApp,
    NoSuchConnectionPoint,
    NotAConnectionPoint,
    NotPublished,
)
from tandem.site.cloud_services.tenants import Tenants

_PROXY_CONTEXT = "cloud.web-proxy-password"
SERVER, MUTUAL = "/CCM_Proxy_ServerAuth", "/CCM_Proxy_MutualAuth"
# Where the AdminService waits for what came through a gateway, on the management point's listener.
ADMINSERVICE_DOOR = "AdminService_Gateway"
ADMINSERVICE_LIMIT = 256 * 1024


@dataclass(frozen=True)
class Connections:
    """What leads from a gateway to the management point."""

    settings: CloudSettings
    box: SecretBox
    tenants: Tenants
    gateways: Gateways
    token_keys: Callable[[Tx], Awaitable[dict[str, Any]]]
    now: Clock

    # -------------------------------------------------------------- connection points

    async def add(self, tx: Tx, name: str, gateway: str, *, actor: str) -> ConnectionPoint:
        """Give a server the role, and make its certificate. Raises NoSuchGateway."""
        found = await self.gateways.gateway(tx, gateway)
        name = name.strip() or "CP01"
        certificate = await self._certificate(tx, name)
        made = ConnectionPoint(name, found.service_name, self.now())
        fingerprint = pki.sha256_fingerprint(certificate.certificate)
        if not await store.insert_connection_point(tx, made, fingerprint):
            raise ConnectionPointExists(
                f"There is a connection point {name} already.", cure="Take another name."
            )
        await self._audit(tx, actor, "connection-point.add", name)
        return made

    async def _certificate(self, tx: Tx, name: str) -> properties.RoleCertificate:
        return await properties.role_certificate(
            tx,
            self.box,
            f"connection-point:{name}",
            dns=[f"{name.lower()}.connection-point.invalid"],
            usages=["client"],
            now=self.now(),
        )

    async def credentials(self, tx: Tx, name: str) -> dict[str, str]:
        """The role's certificate, its key and the root of the site, in PEM, for the server that
        has the role. Raises NoSuchConnectionPoint."""
        found = await self.connection_point(tx, name)
        role = await self._certificate(tx, found.name)
        await store.set_fingerprint(tx, found.name, pki.sha256_fingerprint(role.certificate))
        return {
            "certificate": pki.pem(role.certificate).decode(),
            "key": pki.key_pem(role.key).decode(),
            "root": pki.pem(await properties.root_certificate(tx)).decode(),
            "management_point_url": self.settings.management_point_url,
            "service_name": found.service_name,
        }

    async def connection_points(self, tx: Tx) -> list[ConnectionPoint]:
        return await store.connection_points(tx)

    async def connection_point(self, tx: Tx, wanted: str) -> ConnectionPoint:
        """Raises NoSuchConnectionPoint."""
        found = await store.connection_points(tx)
        if not wanted and len(found) == 1:
            return found[0]
        for item in found:
            if item.name.casefold() == wanted.strip().casefold():
                return item
        raise NoSuchConnectionPoint(
            f"There is no connection point {wanted!r}." if wanted else "No server has the role.",
            cure="Add it: `tandem connection-point add`.",
        )

    async def remove(self, tx: Tx, wanted: str, *, actor: str) -> None:
        found = await self.connection_point(tx, wanted)
        await store.delete_connection_point(tx, found.name)
        await self._audit(tx, actor, "connection-point.remove", found.name)

    async def change_gateway(
        self, tx: Tx, wanted: str, gateway: str, *, actor: str
    ) -> ConnectionPoint:
        """Let it dial another gateway. Raises NoSuchConnectionPoint, NoSuchGateway."""
        found = await self.connection_point(tx, wanted)
        other = await self.gateways.gateway(tx, gateway)
        if other.service_name != found.service_name:
            await store.change_gateway_of_point(tx, found.name, other.service_name)
            await self._audit(tx, actor, "connection-point.change-gateway", found.name)
        return await self.connection_point(tx, found.name)

    async def set_web_proxy(
        self,
        tx: Tx,
        wanted: str,
        address: str | None,
        user: str | None,
        password: str | None,
        *,
        actor: str,
    ) -> ConnectionPoint:
        """The proxy by which a connection point dials HTTPS; None leaves a part as it is, and an empty
        address takes it away. A password stays with its address and account: another one gets it only
        when it is said again. Raises NoSuchConnectionPoint, BadProxy."""
        found = await self.connection_point(tx, wanted)
        address = found.web_proxy if address is None else address.strip()
        user = (found.web_proxy_user if user is None else user.strip()) if address else ""
        if address:
            _proxy_of(address)
        if ":" in user or not user.isprintable():
            raise BadProxy(
                "An account at a proxy has no colon in its name.",
                cure="Write the account alone; its password has a place of its own.",
                field="web_proxy_user",
            )
        if password and not user:
            raise BadProxy(
                "A password is of no use without an account.",
                cure="Say whose it is, too.",
                field="web_proxy_user",
            )
        sealed = None
        if password:
            sealed = self.box.seal(password.encode(), _PROXY_CONTEXT)
        elif password is None and (address, user) == (found.web_proxy, found.web_proxy_user):
            sealed = await store.sealed_web_proxy_password(tx, found.name)
        await store.save_web_proxy(tx, found.name, address, user, sealed)
        await self._audit(tx, actor, "connection-point.set-web-proxy", found.name)
        return await self.connection_point(tx, found.name)

    async def _web_proxy(self, tx: Tx, point: ConnectionPoint) -> tunnel.WebProxy | None:
        if not point.web_proxy:
            return None
        sealed = await store.sealed_web_proxy_password(tx, point.name)
        password = self.box.unseal(sealed, _PROXY_CONTEXT).decode() if sealed else ""
        return tunnel.WebProxy(*_proxy_of(point.web_proxy), point.web_proxy_user, password)

    async def connections(self, tx: Tx) -> list[dict[str, Any]]:
        """Every tunnel that connection points told of."""
        return await store.connections(tx)

    async def connected(self, tx: Tx, point: ConnectionPoint) -> bool:
        """Whether it holds a tunnel to every instance of its gateway, and said so lately: a
        client may reach any of them."""
        if point.reported_at is None:
            return False
        silent = self.now() - point.reported_at
        if silent > timedelta(seconds=self.settings.silent_seconds):
            return False
        mine = [c for c in await store.connections(tx) if c["connection_point"] == point.name]
        reached = {c["instance"] for c in mine if c["state"] == "connected"}
        broken = {c["instance"] for c in mine if c["state"] != "connected"}
        wanted = {item.instance for item in await store.instances(tx, point.service_name)}
        return bool(wanted) and wanted <= reached - broken

    async def traffic(self, tx: Tx) -> list[dict[str, Any]]:
        return await store.traffic(tx)

    async def traffic_by(
        self, tx: Tx, what: str, service_name: str, days: int
    ) -> list[dict[str, Any]]:
        """Of the last days: by `day`, or by `connection-point` and the role that was asked."""
        since = self.now().date() - timedelta(days=days - 1)
        if what == "day":
            return await store.traffic_by_day(tx, service_name, since)
        found: dict[tuple[str, str, str], dict[str, Any]] = {}
        for row in await store.traffic_by_point(tx, service_name, since):
            role = traffic.role_of(str(row.pop("endpoint")))
            key = (row["connection_point"], row["service_name"], role)
            known = found.setdefault(
                key, {"connection_point": key[0], "service_name": key[1], "role": role}
            )
            for name, value in row.items():
                if name not in known or name not in {"connection_point", "service_name"}:
                    known[name] = known.get(name, 0) + value
        return list(found.values())

    async def authenticate(self, tx: Tx, der: bytes | None) -> ConnectionPoint:
        """The connection point that holds this certificate. Raises NotAConnectionPoint."""
        found = None
        if der is not None:
            found = await store.connection_point_by(tx, sha256(der).hexdigest())
        if found is None:
            raise NotAConnectionPoint(
                "Only a connection point of this site is answered here.",
                cure="Present the role certificate that the site issued.",
            )
        return found

    async def report(
        self, tx: Tx, point: ConnectionPoint, report: tunnel.ConnectorReport
    ) -> tunnel.ReportAnswer:
        now = self.now()
        await store.save_report(tx, point.name, report, now)
        told, news = await traffic.take(tx, point, report, now)
        for item in news:
            await self.gateways.keep_lines(tx, item)
        return tunnel.ReportAnswer(told)

    # -------------------------------------------------------------- what is published

    async def allowed(self, tx: Tx) -> bool:
        return await store.gateway_traffic_allowed(tx)

    async def can_allow(self, tx: Tx) -> bool:
        """Only a management point with HTTPS or enhanced HTTP takes gateway traffic (2.5)."""
        return await properties.enhanced_http(tx)

    async def allow(self, tx: Tx, allowed: bool, *, actor: str) -> None:
        """The management point's "Allow … cloud management gateway traffic".

        Raises ManagementPointInsecure.
        """
        if allowed and not await self.can_allow(tx):
            raise ManagementPointInsecure(
                "The management point answers plain HTTP: it cannot take gateway traffic.",
                cure="Switch enhanced HTTP on in the site's properties, or give it HTTPS.",
                field="allow_gateway_traffic",
            )
        await store.allow_gateway_traffic(tx, allowed, self.now())
        action = "management-point.allow-gateway" if allowed else "management-point.deny-gateway"
        await self._audit(tx, actor, action, "management point")

    async def allow_updates(self, tx: Tx, allowed: bool, *, actor: str) -> None:
        """The software update point's "Allow … cloud management gateway traffic", apart from the
        management point's. Raises ManagementPointInsecure."""
        if allowed and not await self.can_allow(tx):
            raise ManagementPointInsecure(
                "The software update point answers plain HTTP: it cannot take gateway traffic.",
                cure="Switch enhanced HTTP on in the site's properties, or give it HTTPS.",
                field="allow_gateway_traffic",
            )
        await software_updates.allow(tx, allowed, actor=actor, now=self.now())

    async def endpoints(self, tx: Tx) -> list[tunnel.Endpoint]:
        """The published URL prefixes of the management point: none while gateway traffic is not
        allowed."""
        if not await store.gateway_traffic_allowed(tx):
            return []
        role = str((await properties.site(tx)).management_point_id)
        found = await self._endpoints_of(tx, role, clients.ENDPOINTS)
        methods = adminservice_methods(await store.adminservice_apps(tx))
        if methods:
            found += [
                tunnel.Endpoint(
                    f"{entry}/{role}/AdminService", methods, ADMINSERVICE_LIMIT, ["token"]
                )
                for entry in (SERVER, MUTUAL)
            ]
        return found

    async def update_endpoints(self, tx: Tx) -> list[tunnel.Endpoint]:
        """Those of the software update point, under its own role id (F6)."""
        point = await software_updates.point(tx)
        if not point.allowed:
            return []
        return await self._endpoints_of(tx, point.role_id, software_updates.ENDPOINTS)

    async def _endpoints_of(
        self, tx: Tx, role: str, items: Iterable[clients.Endpoint]
    ) -> list[tunnel.Endpoint]:
        certificates = (await properties.communication(tx)).pki_client_certificate
        found = []
        for item in items:
            token = tunnel.Endpoint(
                f"{SERVER}/{role}/{item.path}",
                list(item.methods),
                item.max_body_bytes,
                ["token"],
                item.hold_seconds,
            )
            found.append(token)
            if certificates:
                found.append(
                    msgspec.structs.replace(
                        token, prefix=f"{MUTUAL}/{role}/{item.path}", auth=["certificate"]
                    )
                )
        return found

    # -------------------------------------------------------------- the AdminService, published

    async def adminservice_apps(self, tx: Tx) -> list[AdminServiceApp]:
        """The apps whose users' tokens are let through now."""
        return [app for app in await store.adminservice_apps(tx) if app.published]

    async def adminservice_app(self, tx: Tx, app_id: str) -> AdminServiceApp | None:
        """An app whose tokens a gateway has seen, whether or not it is published now."""
        return await store.adminservice_app(tx, app_id)

    async def publish_adminservice(
        self, tx: Tx, app_id: str, *, writes: bool, actor: str
    ) -> AdminServiceApp:
        """Let users of this app reach the AdminService through the gateway. Raises BadApp."""
        app_id = await self.tenants.check_adminservice_app(tx, app_id)
        made = AdminServiceApp(app_id, True, writes, self.now(), actor)
        await store.save_adminservice_app(tx, made)
        action = "adminservice.publish-writes" if writes else "adminservice.publish"
        await self._audit(tx, actor, action, app_id)
        return made

    async def unpublish_adminservice(self, tx: Tx, app_id: str, *, actor: str) -> None:
        """Raises NoSuchApp."""
        found = await store.adminservice_app(tx, app_id.strip())
        if found is None or not found.published:
            raise NoSuchApp(
                f"The AdminService is not published for the app {app_id}.",
                cure="See `tandem management-point show`.",
            )
        gone = AdminServiceApp(found.app_id, False, False, self.now(), actor)
        await store.save_adminservice_app(tx, gone)
        await self._audit(tx, actor, "adminservice.unpublish", found.app_id)

    async def adminservice_address(self, tx: Tx, service_name: str, entry: str) -> str:
        """How a client on the internet writes the address of the AdminService: what came through
        this gateway's entry gets links that lead back there. Raises NotPublished."""
        apps = await self.adminservice_apps(tx)
        found = [item for item in await store.gateways(tx) if item.service_name == service_name]
        entries = {"serverauth": SERVER, "mutualauth": MUTUAL}
        if (
            not apps
            or not found
            or entry.lower() not in entries
            or not await store.gateway_traffic_allowed(tx)
        ):
            raise NotPublished(
                "The AdminService is not published through the gateway.",
                cure="A full administrator publishes it: `tandem management-point"
                " publish-adminservice APP`.",
            )
        role = (await properties.site(tx)).management_point_id
        where = entries[entry.lower()]
        return f"https://{self.authority(found[0])}{where}/{role}/AdminService"

    async def gateway_host(self, tx: Tx) -> str | None:
        """The CCMHOSTNAME of the gateway that clients use; None while there is none."""
        if not await store.gateway_traffic_allowed(tx):
            return None
        role = (await properties.site(tx)).management_point_id
        for gateway in await store.gateways(tx):
            if gateway.state is GatewayState.READY and not gateway.content_only:
                return f"{self.authority(gateway)}/CCM_Proxy_MutualAuth/{role}"
        return None

    def authority(self, gateway: Gateway) -> str:
        """The gateway's name, with its port where that is another one than 443."""
        port = self.settings.gateway.port
        return gateway.service_name if port == 443 else f"{gateway.service_name}:{port}"

    async def management_points(self, tx: Tx) -> list[ccm.ManagementPoint]:
        host = await self.gateway_host(tx)
        return [ccm.ManagementPoint(host, "Internet")] if host else []

    async def update_points(self, tx: Tx) -> list[ccm.UpdatePoint]:
        """Where clients find the software update point: inside always, outside while it is
        published by a gateway that is ready."""
        found = [ccm.UpdatePoint(self.settings.management_point_url.rstrip("/"), "Intranet")]
        host = await self.update_point_host(tx)
        return [*found, ccm.UpdatePoint(host, "Internet")] if host else found

    async def update_point_host(self, tx: Tx) -> str | None:
        """Its name for clients on the internet; None while there is none."""
        point = await software_updates.point(tx)
        if not point.allowed:
            return None
        for gateway in await store.gateways(tx):
            if gateway.state is GatewayState.READY and not gateway.content_only:
                return f"{self.authority(gateway)}/CCM_Proxy_MutualAuth/{point.role_id}"
        return None

    async def connector_configuration(
        self, tx: Tx, point: ConnectionPoint
    ) -> tunnel.ConnectorConfiguration:
        """Everything that one connection point needs, computed when it asks."""
        gateway = await self.gateways.gateway(tx, point.service_name)
        configuration = await self.configuration(tx, gateway)
        targets = []
        if gateway.state in {GatewayState.READY, GatewayState.STARTING}:
            instances = [
                tunnel.Instance(item.instance, item.host, item.port, item.tunnel_port)
                for item in await store.instances(tx, gateway.service_name)
            ]
            targets.append(
                tunnel.GatewayTarget(
                    gateway.service_name,
                    gateway.service_name,
                    gateway.connection_id,
                    instances,
                    configuration,
                )
            )
        return tunnel.ConnectorConfiguration(
            point.name,
            targets,
            await self._map(tx, gateway),
            await self._web_proxy(tx, point),
        )

    async def _map(self, tx: Tx, gateway: Gateway) -> list[tunnel.Mapping]:
        """Where each published prefix leads. Nothing else of the management point is reachable by
        way of a gateway, not even by a stolen one: this listener also serves connection points."""
        inside = self.settings.management_point_url.rstrip("/")
        updates = await software_updates.point(tx)
        found = _mappings(inside, updates.role_id, software_updates.ENDPOINTS)
        found = found if updates.allowed else []
        if gateway.serve_content:
            # Which gateway asks there is the connection point's to say.
            origin = f"{inside}{tunnel.ORIGIN}/{gateway.service_name}"
            found.append(tunnel.Mapping(tunnel.ORIGIN, origin))
        if not await store.gateway_traffic_allowed(tx):
            return found
        role = str((await properties.site(tx)).management_point_id)
        found += _mappings(inside, role, clients.ENDPOINTS)
        if gateway.edge_answers and not gateway.content_only:
            door = f"{inside}/{ANSWERS_DOOR}/{gateway.service_name}"
            found.append(tunnel.Mapping(ANSWERS_PREFIX, door))
        if await self.adminservice_apps(tx):
            door = f"{inside}/{ADMINSERVICE_DOOR}/{gateway.service_name}"
            found += [
                tunnel.Mapping(f"{entry}/{role}/AdminService", f"{door}/{name}")
                for entry, name in ((SERVER, "ServerAuth"), (MUTUAL, "MutualAuth"))
            ]
        return found

    async def _answers(self, tx: Tx, gateway: Gateway) -> tunnel.EdgeAnswers | None:
        """What it may answer itself; None while it is not to, or nothing is published."""
        wanted = gateway.edge_answers and not gateway.content_only
        if not wanted or not await store.gateway_traffic_allowed(tx):
            return None
        role = (await properties.site(tx)).management_point_id
        policy = [f"{entry}/{role}{clients.POLICY_PATH}" for entry in (SERVER, MUTUAL)]
        return tunnel.EdgeAnswers(ANSWERS_PREFIX, policy)

    async def configuration(self, tx: Tx, gateway: Gateway) -> tunnel.Configuration:
        """What this gateway is told."""
        made = tunnel.Configuration(
            version=0,
            service_name=gateway.service_name,
            site_code=(await properties.site(tx)).code,
            tenants=await self.tenants.trusted_tenants(tx),
            site_token_keys=await self.token_keys(tx),
            trusted_roots=[_pem(der) for der in await store.trust(tx, "root")],
            crls=[_b64(der) for der in await store.trust(tx, "crl")],
            check_revocation=gateway.check_revocation,
            ocsp=self.settings.ocsp,
            # What a content gateway is not for is not there to be attacked, either.
            endpoints=[]
            if gateway.content_only
            else [*await self.endpoints(tx), *await self.update_endpoints(tx)],
            limits=self.settings.gateway_limits.published(),
            answers=await self._answers(tx, gateway),
            content=await contents.service(tx, gateway),
        )
        version = await store.configuration_version(
            tx, gateway.service_name, sha256(msgspec.json.encode(made)).hexdigest()
        )
        return msgspec.structs.replace(made, version=version)

    async def _audit(self, tx: Tx, actor: str, action: str, target: str) -> None:
        await audit.record(tx, actor=actor, action=action, target=target, now=self.now())


def _proxy_of(address: str) -> tuple[str, int]:
    """Host and port. Raises BadProxy."""
    host, _, port = address.rpartition(":")
    host = host.strip("[]")
    fits = re.fullmatch(r"[0-9A-Za-z.:_-]{1,253}", host) and re.fullmatch(r"[0-9]{1,5}", port)
    if not fits or not 0 < int(port) < 65536:
        raise BadProxy(
            f"A web proxy is host:port, not {address[:80]!r}.",
            cure="Write it like proxy.corp:8080, without http://.",
            field="web_proxy",
        )
    return host, int(port)


def adminservice_methods(apps: Iterable[AdminServiceApp]) -> list[str]:
    """What a gateway lets through: nothing, reading, or writing as well when an app may write."""
    published = [app for app in apps if app.published]
    if not published:
        return []
    writes = any(app.writes for app in published)
    return ["GET", "POST", "PUT", "PATCH", "DELETE"] if writes else ["GET"]


def _mappings(inside: str, role: str, items: Iterable[clients.Endpoint]) -> list[tunnel.Mapping]:
    return [
        tunnel.Mapping(f"{entry}/{role}/{item.path}", f"{inside}/{item.path}", item.hold_seconds)
        for item in items
        for entry in (SERVER, MUTUAL)
    ]


def _pem(der: bytes) -> str:
    return pki.pem(x509.load_der_x509_certificate(der)).decode()


def _b64(der: bytes) -> str:
    return b64encode(der).decode()


class News:
    """Wakes who waits for a change of configuration. What another process changed is noticed by
    looking now and then, so a missed wake-up costs seconds and nothing else."""

    def __init__(self, look_seconds: float = 5.0) -> None:
        self._look_seconds = look_seconds
        self._changed = asyncio.Event()

    def tell(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    async def wait(
        self, read: Callable[[], Awaitable[tuple[str, bytes]]], have: str, seconds: float
    ) -> tuple[str, bytes]:
        """The document and its tag, when the tag differs from `have` or the time is over."""
        deadline = asyncio.get_running_loop().time() + seconds
        while True:
            changed = self._changed
            tag, document = await read()
            left = deadline - asyncio.get_running_loop().time()
            if tag != have or left <= 0:
                return tag, document
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(self._look_seconds, left)):
                    await changed.wait()
