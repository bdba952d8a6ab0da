"""The connection analyzer: the site walks the way of a device through the gateway (spec 2.3).

Each row is a check with its description. The gateway is dialled as devices dial it, by address and
with its public name, and believed by the authority of its own certificate. Who asks may be an account
of the tenant (its token for the site), a client certificate (a PFX), or, when nothing is given, the
site itself: with a token that is good for a minute and for no message, since its key is thrown away.
"""

import asyncio
import itertools
import ssl
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import msgspec
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from tandem import pki
from tandem.infra.clock import Clock
from tandem.infra.database import Database, Tx
from tandem.infra.errors import AppError
from tandem.infra.secrets import write_private
from tandem.site import properties
from tandem.site.cloud_services import (
    BadTenantToken,
    Connections,
    Gateway,
    GatewayInstance,
    Gateways,
    ListUnavailable,
    Tenants,
    fetch_list,
    revocation_alarms,
    verify_client_certificate,
)
from tandem.site.health.chain import DEVICE, Chain, day
from tandem.site.health.model import End, Finding, State

_SECONDS = 5.0
# What the gateway or the connection point calls a refusal → whose it is.
_CAUSES = {
    "CMGService_Not_Published": "probe.not-published",
    "CMGService_Invalid_Token": "probe.token-refused",
    "CMGService_Certificate_Revoked": "probe.revoked",
    "CMGService_Crl_Missing": "probe.no-list",
    "CMGService_Crl_Expired": "probe.no-list",
    "CMGConnector_Not_Mapped": "probe.not-published",
    "CMGConnector_Management_Point_Unreachable": "probe.management-point",
    "CMGConnector_Timeout": "probe.management-point",
    "CMGConnector_Forbidden": "probe.management-point-untrusted",
}
# OpenSSL's number of what is wrong with a certificate (X509_V_ERR_…).
_SHOWN = {
    9: "probe.certificate-early",
    10: "probe.certificate-expired",
    **dict.fromkeys((2, 18, 19, 20, 21), "probe.certificate-unknown"),
    62: "probe.certificate-name",
}
_REASONS = {
    pki.Reason.REVOKED: "identity.certificate-revoked",
    pki.Reason.EXPIRED: "identity.certificate-expired",
    pki.Reason.NOT_YET_VALID: "identity.certificate-expired",
    pki.Reason.SELF_SIGNED: "identity.certificate-unknown",
    pki.Reason.UNKNOWN_AUTHORITY: "identity.certificate-unknown",
}
_LISTS = {
    pki.Alarm.MISSING: (State.BAD, "crl.missing"),
    pki.Alarm.EXPIRED: (State.BAD, "crl.expired"),
    pki.Alarm.EXPIRES: (State.WAITING, "crl.expires"),
}
# What is asked of an instance, in this order: what comes behind a broken one is not tried.
_PROBES = ("instance", "tls", "configuration", "tenant", "management-point")


@dataclass(frozen=True, slots=True)
class Identity:
    """Who asks: a token, or a certificate with its key; neither is the site itself."""

    token: str = ""
    pfx: pki.Pfx | None = None


@dataclass(frozen=True, slots=True)
class _Way:
    """What the probes of all instances have in common."""

    gateway: Gateway
    held: x509.Certificate
    plain: ssl.SSLContext
    tls: ssl.SSLContext  # With the client's certificate, where there is one.
    identity: Identity
    role_id: int
    tenant: str
    version: int  # Of the configuration that the site has for it.


@dataclass(frozen=True)
class Analyzer:
    db: Database
    chain: Chain
    gateways: Gateways
    connections: Connections
    tenants: Tenants
    site_token: Callable[[Tx], Awaitable[str]]
    now: Clock

    async def analyze(self, wanted: str, identity: Identity) -> list[Finding]:
        """Raises NoSuchGateway."""
        return [row async for row in self.walk(wanted, identity)]

    async def walk(self, wanted: str, identity: Identity) -> AsyncIterator[Finding]:
        """Row by row, each as soon as it is known. Raises NoSuchGateway before the first."""
        async with self.db.transaction() as tx:
            gateway = await self.gateways.gateway(tx, wanted)
            items = await self.gateways.instances(tx, gateway.service_name)
            held = await self.gateways.certificate(tx, gateway.service_name)
            site = await properties.site(tx)
            tenant = await self.tenants.tenant_id(tx)
            who = await self._identity(tx, gateway, identity)
            lists = await self._lists(tx, gateway)
            channels = await self._channels(tx, gateway, items)
            if not identity.token and identity.pfx is None:
                identity = Identity(await self.site_token(tx))
            version = (await self.connections.configuration(tx, gateway)).version
        yield replace(self.chain.service(gateway), check="service")
        yield who
        for name in await self.chain.names(gateway, items):
            yield name
        yield self._certificate(gateway)
        yield await self._server_lists(gateway, held)
        yield lists
        with tempfile.TemporaryDirectory() as folder:
            way = _Way(
                gateway,
                held.certificate,
                _context(held, None, Path(folder)),
                _context(held, identity.pfx, Path(folder)),
                identity,
                site.management_point_id,
                tenant,
                version,
            )
            probes = [asyncio.ensure_future(self._probe(way, item)) for item in items]
            try:
                for item, probe in zip(items, probes, strict=True):
                    rows = await probe
                    for row in rows[:-1]:
                        yield row
                    for row in channels:
                        if row.source.name.endswith(f" {item.instance}"):
                            yield row
                    yield rows[-1]
            finally:
                for probe in probes:
                    probe.cancel()
        async with self.db.transaction() as tx:
            yield await self._authority(tx)

    # -------------------------------------------------------------- what the site knows

    def _certificate(self, gateway: Gateway) -> Finding:
        state, cause = self.chain.lifetime(gateway.expires_at, "gateway.certificate")
        return _of(gateway, "certificate", state, cause, {"day": day(gateway.expires_at)})

    async def _identity(self, tx: Tx, gateway: Gateway, who: Identity) -> Finding:
        """By the site's own rules, which say more than the gateway tells a stranger."""
        cause, values = "", {}
        try:
            if who.pfx is not None:
                await verify_client_certificate(tx, who.pfx.certificate, self.now())
            elif who.token:
                await self.tenants.verify_token(tx, who.token)
        except pki.NotAClient as error:
            cause = _REASONS.get(error.reason, "identity.certificate")
            values = {"said": error.message, "cure": error.cure}
        except BadTenantToken as error:
            cause, values = "identity.token", {"said": error.message}
        except AppError as error:
            cause, values = "identity.unknown", {"said": error.message, "cure": error.cure}
        state = State.BAD if cause else State.GOOD
        name = gateway.service_name
        return Finding(
            f"identity:{name}", name, DEVICE, DEVICE, state, cause, values, check="identity"
        )

    async def _lists(self, tx: Tx, gateway: Gateway) -> Finding:
        alarms = await revocation_alarms(tx, gateway, self.now())
        worst = next((one for one in alarms if _LISTS[one.alarm][0] is State.BAD), None)
        found = worst or next(iter(alarms), None)
        if found is None:
            return _of(gateway, "crl", State.GOOD)
        state, cause = _LISTS[found.alarm]
        values = {"authority": found.authority, "day": day(found.at) if found.at else ""}
        return _of(gateway, "crl", state, cause, values)

    async def _server_lists(self, gateway: Gateway, held: pki.Pfx) -> Finding:
        """Whether devices can learn that the gateway's certificate, and what is above it, is not
        revoked. Without a place to look they do not ask."""
        path = pki.build_path(held.certificate, held.chain).certificates
        for certificate, issuer in itertools.pairwise(path):
            urls = pki.crl_urls(certificate)
            if not urls and pki.names_lists(certificate):
                return _of(gateway, "server-crl", State.BAD, "server-crl.no-web")
            found = [await self._server_list(certificate, issuer, url) for url in urls]
            # One of several places is enough.
            if found and not any(cause == "" for cause, _ in found):
                cause, values = found[0]
                return _of(gateway, "server-crl", State.BAD, cause, values)
        return _of(gateway, "server-crl", State.GOOD)

    async def _server_list(
        self, certificate: x509.Certificate, issuer: x509.Certificate, url: str
    ) -> tuple[str, dict[str, Any]]:
        try:
            crl = await fetch_list(url, seconds=_SECONDS)
        except ListUnavailable as error:
            return "server-crl.unreachable", {"said": error.message}
        except pki.BadCertificate:
            return "server-crl.wrong", {"url": url}
        if not pki.signed_by(crl, issuer):
            return "server-crl.wrong", {"url": url}
        if crl.get_revoked_certificate_by_serial_number(certificate.serial_number) is not None:
            return "server-crl.revoked", {"url": url}
        ends = crl.next_update_utc
        if ends is not None and ends < self.now():
            return "server-crl.expired", {"url": url, "day": day(ends)}
        return "", {}

    async def _channels(
        self, tx: Tx, gateway: Gateway, items: list[GatewayInstance]
    ) -> list[Finding]:
        points = [
            point
            for point in await self.connections.connection_points(tx)
            if point.service_name == gateway.service_name
        ]
        lines = await self.connections.connections(tx)
        return [
            replace(row, check="channel")
            for item in items
            for row in self.chain.tunnels(gateway, item, points, lines)
        ]

    async def _authority(self, tx: Tx) -> Finding:
        known = replace(await self.chain.tenant(tx), check="authority")
        if known.state is State.BAD:
            return known
        for check in await self.tenants.verify(tx, "", self.now()):
            if not check.ok:
                values = {"said": f"{check.text}. {check.reason}", "cure": check.cure}
                return replace(known, state=State.BAD, cause="tenant.fails", values=values)
        return known

    # -------------------------------------------------------------- as a device

    async def _probe(self, way: _Way, item: GatewayInstance) -> list[Finding]:
        """A row for each of _PROBES."""
        name = way.gateway.service_name
        target = End("instance", f"{name} {item.instance}")
        rows = {
            check: Finding(
                f"{check}:{name}:{item.instance}", name, DEVICE, target, State.SKIPPED, check=check
            )
            for check in _PROBES
        }
        inside = End("management-point", str(way.role_id))
        rows["management-point"] = replace(rows["management-point"], source=target, target=inside)
        values: dict[str, Any] = {
            "address": f"{item.host}:{item.port}",
            "name": name,
            "number": item.instance,
        }
        for check, cause, said in await self._ask(way, item):
            state = State.BAD if cause else State.GOOD
            if cause == "probe.older-rules":
                state = State.WAITING
            rows[check] = replace(
                rows[check], state=state, cause=cause, values=values | said if cause else {}
            )
        return list(rows.values())

    async def _ask(self, way: _Way, item: GatewayInstance) -> list[tuple[str, str, dict[str, Any]]]:
        """(check, cause, values) of each question that was put, up to one that is broken."""
        cause, said = await _shown(way, item)
        if cause in {"probe.no-connection", "probe.no-tls"}:
            return [("instance", cause, said)]
        found: list[tuple[str, str, dict[str, Any]]] = [("instance", "", {}), ("tls", cause, said)]
        if cause:
            return found
        base = f"https://{item.host}:{item.port}"
        name = way.gateway.service_name
        options: dict[str, Any] = {"base_url": base, "trust_env": False, "timeout": _SECONDS}
        named = {"headers": {"Host": name}, "extensions": {"sni_hostname": name}}
        at = "configuration"
        try:
            async with httpx.AsyncClient(verify=way.plain, **options) as client:
                answer = await client.get("/CCM_Proxy_ServerAuth/ServiceMetadata", **named)  # type: ignore[arg-type]
                has = _number(answer, "configurationVersion")
                older = has < way.version
                values = {"has": has, "wanted": way.version}
                found.append((at, "probe.older-rules" if older else "", values))
                at = "tenant"
                query = f"/CCM_Proxy_ServerAuth/AADAuthInfo?TenantID={way.tenant or '-'}"
                answer = await client.get(query, **named)  # type: ignore[arg-type]
                known = answer.status_code == 200 and bool(answer.content)
                found.append((at, "" if known else "probe.tenant-unknown", {}))
            at = "management-point"
            entry = "MutualAuth" if way.identity.pfx is not None else "ServerAuth"
            headers = {"Host": name}
            if way.identity.token:
                headers["Authorization"] = f"Bearer {way.identity.token}"
            async with httpx.AsyncClient(verify=way.tls, **options) as client:
                path = f"/CCM_Proxy_{entry}/{way.role_id}/SMS_MP/.sms_aut?MPLIST"
                answer = await client.get(path, headers=headers, extensions={"sni_hostname": name})
                found.append((at, *_judge(answer)))
        except (httpx.HTTPError, ssl.SSLError) as error:
            cause = "probe.no-connection"
            if at == "management-point" and way.identity.pfx is not None:
                cause = "probe.certificate-refused"
            found.append((at, cause, {"said": _said(error)}))
        except ValueError:
            # A token with line ends, say, is no field of a head.
            found.append((at, "probe.token-refused", {"said": "-"}))
        return found


async def _shown(way: _Way, item: GatewayInstance) -> tuple[str, dict[str, Any]]:
    """What is wrong with the connection, or with the certificate that the instance shows."""
    address = f"{item.host}:{item.port}"
    try:
        async with asyncio.timeout(_SECONDS):
            _, writer = await asyncio.open_connection(
                item.host, item.port, ssl=way.plain, server_hostname=way.gateway.service_name
            )
    except ssl.SSLCertVerificationError as error:
        cause = _SHOWN.get(error.verify_code, "probe.certificate-unknown")
        return cause, {"said": error.verify_message.rstrip(".") + "."}
    except (ssl.SSLError, ConnectionResetError) as error:
        return "probe.no-tls", {"said": _said(error)}
    except TimeoutError:
        return "probe.no-connection", {"said": f"{address} does not answer."}
    except OSError as error:
        return "probe.no-connection", {"said": _said(error)}
    der = writer.get_extra_info("ssl_object").getpeercert(True)
    writer.transport.abort()
    if der != way.held.public_bytes(Encoding.DER):
        return "probe.other-certificate", {}
    return "", {}


def _of(
    gateway: Gateway,
    check: str,
    state: State,
    cause: str = "",
    values: dict[str, Any] | None = None,
) -> Finding:
    """A check of the gateway as a whole."""
    name = gateway.service_name
    end = End("gateway", name)
    return Finding(f"{check}:{name}", name, DEVICE, end, state, cause, values or {}, check=check)


def _said(error: Exception) -> str:
    return str(error)[:200] or type(error).__name__


def _number(answer: httpx.Response, field: str) -> int:
    try:
        return int(msgspec.json.decode(answer.content)[field])
    except (msgspec.DecodeError, LookupError, TypeError, ValueError):
        return 0


def _judge(answer: httpx.Response) -> tuple[str, dict[str, Any]]:
    if answer.status_code == 200:
        return "", {}
    try:
        code = str(msgspec.json.decode(answer.content)["error"]["code"])[:80]
    except (msgspec.DecodeError, LookupError, TypeError):
        code = ""
    if code in _CAUSES:
        cause = _CAUSES[code]
    elif answer.status_code in {401, 403}:
        cause = "probe.not-believed"
    elif answer.status_code in {502, 503, 504}:
        cause = "probe.no-point"
    else:
        cause = "probe.unexpected"
    return cause, {"said": f"{answer.status_code} {code}".strip()}


def broken(rows: Iterable[Finding]) -> Finding | None:
    """Where a device's way is cut: the first row that is, in the order in which it goes."""
    return next((row for row in rows if row.state is State.BAD), None)


def _context(held: pki.Pfx, pfx: pki.Pfx | None, folder: Path) -> ssl.SSLContext:
    """Trust in the authority of the gateway's own certificate, and ours when we have one."""
    top = pki.build_path(held.certificate, held.chain).certificates[-1]
    context = ssl.create_default_context(cadata=pki.pem(top).decode())
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if pfx is not None:
        chain, key = folder / "chain.pem", folder / "key.pem"
        write_private(chain, pki.pem(pfx.certificate, *pfx.chain))
        write_private(key, pki.key_pem(pfx.key))
        context.load_cert_chain(chain, key)
    return context
