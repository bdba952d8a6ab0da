"""The connection analyzer: the site walks the way of a device through the gateway (spec 2.3).

Each row is a check with its description. The gateway is dialled as devices dial it, by address and
with its public name, and only its own certificate is believed. Who asks may be an account of the
tenant (its token for the site), a client certificate (a PFX), or, when nothing is given, the site
itself: with a token that is good for a minute and for no message, since its key is thrown away.
"""

import asyncio
import ssl
import tempfile
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import msgspec
from cryptography import x509

from tandem import pki
from tandem.infra.clock import Clock
from tandem.infra.database import Database, Tx
from tandem.infra.secrets import write_private
from tandem.site import properties
from tandem.site.cloud_services import Connections, Gateway, GatewayInstance, Gateways, Tenants
from tandem.site.health.chain import DEVICE, SITE, Chain, day
from tandem.site.health.model import End, Finding, State

_SECONDS = 5.0
_CAUSES = {
    "CMGService_Not_Published": "probe.not-published",
    "CMGConnector_Not_Mapped": "probe.not-published",
    "CMGConnector_Management_Point_Unreachable": "probe.management-point",
    "CMGConnector_Timeout": "probe.management-point",
}


@dataclass(frozen=True, slots=True)
class Identity:
    """Who asks: a token, or a certificate with its key; neither is the site itself."""

    token: str = ""
    pfx: pki.Pfx | None = None


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
        async with self.db.transaction() as tx:
            gateway = await self.gateways.gateway(tx, wanted)
            items = await self.gateways.instances(tx, gateway.service_name)
            held = (await self.gateways.certificate(tx, gateway.service_name)).certificate
            site = await properties.site(tx)
            tenant = await self.tenants.tenant_id(tx)
            found = [
                replace(self.chain.service(gateway), check="service"),
                self._certificate(gateway),
                replace(await self.chain.name(gateway, items, fresh=True), check="dns"),
            ]
            channels = await self._channels(tx, gateway, items)
            if not identity.token and identity.pfx is None:
                identity = Identity(await self.site_token(tx))
            authority = await self._authority(tx)
        with tempfile.TemporaryDirectory() as folder:
            tls = _context(held, identity.pfx, Path(folder))
            probes = await asyncio.gather(
                *(
                    self._probe(tls, gateway, item, identity, site.management_point_id, tenant)
                    for item in items
                )
            )
        for item, rows in zip(items, probes, strict=True):
            channel = [row for row in channels if row.source.name.endswith(f" {item.instance}")]
            found += [*rows[:-1], *channel, rows[-1]]
        return [*found, authority]

    def _certificate(self, gateway: Gateway) -> Finding:
        name = gateway.service_name
        state, cause = self.chain.lifetime(gateway.expires_at, "gateway.certificate")
        values = {"day": day(gateway.expires_at)}
        end = End("gateway", name)
        return Finding(
            f"certificate:{name}", name, DEVICE, end, state, cause, values, check="certificate"
        )

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

    async def _probe(
        self,
        tls: ssl.SSLContext,
        gateway: Gateway,
        item: GatewayInstance,
        identity: Identity,
        role_id: int,
        tenant: str,
    ) -> list[Finding]:
        name = gateway.service_name
        address = f"{item.host}:{item.port}"
        target = End("instance", f"{name} {item.instance}")
        rows = [
            Finding(f"{check}:{name}:{item.instance}", name, SITE, target, state, check=check)
            for check, state in (
                ("instance", State.SKIPPED),
                ("tenant", State.SKIPPED),
                ("management-point", State.SKIPPED),
            )
        ]
        base = f"https://{address}"
        entry = "MutualAuth" if identity.pfx is not None else "ServerAuth"
        named: dict[str, Any] = {"headers": {"Host": name}, "extensions": {"sni_hostname": name}}

        async def ask(client: httpx.AsyncClient, path: str, token: str = "") -> httpx.Response:
            headers = dict(named["headers"])
            if token:
                headers["Authorization"] = f"Bearer {token}"
            return await client.get(path, headers=headers, extensions=named["extensions"])

        try:
            async with httpx.AsyncClient(
                base_url=base, verify=tls, trust_env=False, timeout=_SECONDS
            ) as client:
                await ask(client, "/CCM_Proxy_ServerAuth/ServiceMetadata")
                rows[0] = replace(rows[0], state=State.GOOD)
                query = f"/CCM_Proxy_ServerAuth/AADAuthInfo?TenantID={tenant or '-'}"
                answer = await ask(client, query)
                known = answer.status_code == 200 and bool(answer.content)
                rows[1] = replace(
                    rows[1],
                    state=State.GOOD if known else State.BAD,
                    cause="" if known else "probe.tenant-unknown",
                )
                path = f"/CCM_Proxy_{entry}/{role_id}/SMS_MP/.sms_aut?MPLIST"
                answer = await ask(client, path, identity.token)
                rows[2] = _judge(rows[2], answer)
        except httpx.HTTPError as error:
            cause = "probe.no-connection"
            if "CERTIFICATE_VERIFY_FAILED" in str(error):
                cause = "probe.other-certificate"
            said = type(error).__name__ if not str(error) else str(error)[:200]
            values = {"address": address, "said": said}
            broken = next(i for i, row in enumerate(rows) if row.state is State.SKIPPED)
            rows[broken] = replace(rows[broken], state=State.BAD, cause=cause, values=values)
        return rows


def _judge(row: Finding, answer: httpx.Response) -> Finding:
    if answer.status_code == 200:
        return replace(row, state=State.GOOD)
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
    said = f"{answer.status_code} {code}".strip()
    return replace(row, state=State.BAD, cause=cause, values={"said": said})


def _context(held: x509.Certificate, pfx: pki.Pfx | None, folder: Path) -> ssl.SSLContext:
    """Trust in exactly this certificate, and our own when we have one."""
    context = ssl.create_default_context(cadata=pki.pem(held).decode())
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if pfx is not None:
        chain, key = folder / "chain.pem", folder / "key.pem"
        write_private(chain, pki.pem(pfx.certificate, *pfx.chain))
        write_private(key, pki.key_pem(pfx.key))
        context.load_cert_chain(chain, key)
    return context
