"""The way in, hop by hop: state, cause and cure of each.

device ─▶ DNS ─▶ gateway instance    the name, the process, the certificate
instance ─▶ connection point         one line for each tunnel, as the connection point reports
connection point ─▶ site             alive while its reports come
site ─▶ management point             open only while gateway traffic is allowed
site ─▶ tenant                       whose tokens the gateway and the management point check
"""

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from tandem.infra.clock import Clock
from tandem.infra.database import Tx
from tandem.site import properties
from tandem.site.cloud_services import (
    ConnectionPoint,
    Connections,
    Gateway,
    GatewayInstance,
    Gateways,
    GatewayState,
    NameView,
    Tenants,
)
from tandem.site.health.model import End, Finding, State

# Certificates and secrets are told of so long before they end.
_SOON = timedelta(days=14)
# DNS is asked again after so many seconds: a page that is looked at asks every few.
_DNS_SECONDS = 15.0

DEVICE, SITE = End("device"), End("site")
_STATES = {
    GatewayState.PROVISIONING: (State.WAITING, "gateway.being-made"),
    GatewayState.STARTING: (State.WAITING, "gateway.being-made"),
    GatewayState.DELETING: (State.WAITING, "gateway.being-deleted"),
    GatewayState.STOPPED: (State.BAD, "gateway.stopped"),
    GatewayState.FAILED: (State.BAD, "gateway.failed"),
}


@dataclass
class Chain:
    """Looks at every hop. What DNS said is kept for a moment; all else is read anew."""

    gateways: Gateways
    connections: Connections
    tenants: Tenants
    now: Clock
    _names: dict[str, tuple[float, Finding]] = field(default_factory=dict)

    async def hops(self, tx: Tx, *, fresh: bool = False) -> list[Finding]:
        """`fresh` asks DNS in any case."""
        points = await self.connections.connection_points(tx)
        lines = await self.connections.connections(tx)
        found: list[Finding] = []
        for gateway in await self.gateways.gateways(tx):
            instances = await self.gateways.instances(tx, gateway.service_name)
            found.append(await self.name(gateway, instances, fresh=fresh))
            mine = [point for point in points if point.service_name == gateway.service_name]
            for item in instances:
                found.append(self.instance(gateway, item))
                found += self.tunnels(gateway, item, mine, lines)
            if not instances:
                found.append(self.service(gateway))
        found += [self.point(point) for point in points]
        found.append(await self.management_point(tx))
        if await self.connections.adminservice_apps(tx):
            end = End("admin-service")
            found.append(Finding("admin-service", "", SITE, end, State.GOOD))
        found.append(await self.tenant(tx))
        return found

    # -------------------------------------------------------------- outside

    async def name(
        self, gateway: Gateway, instances: Sequence[GatewayInstance], *, fresh: bool = False
    ) -> Finding:
        kept = self._names.get(gateway.service_name)
        if kept is not None and not fresh and time.monotonic() - kept[0] < _DNS_SECONDS:
            return kept[1]
        made = await self._look_up(gateway, instances)
        self._names[gateway.service_name] = (time.monotonic(), made)
        return made

    async def names(self, gateway: Gateway, instances: Sequence[GatewayInstance]) -> list[Finding]:
        """Each view of the name by itself, asked now: outside, and inside where that is another
        server."""
        hosts = [item.host for item in instances]
        outside, *inside = await self.gateways.name_views(gateway, hosts)
        found = self._named(gateway, hosts, outside)
        self._names[gateway.service_name] = (time.monotonic(), found)
        rows = [replace(found, check="dns")]
        for view in inside:
            row = self._named(gateway, hosts, view)
            rows.append(
                replace(
                    row,
                    id=f"dns-internal:{gateway.service_name}",
                    cause=row.cause.replace("dns.", "dns-inside."),
                    check="dns-internal",
                )
            )
        return rows

    async def _look_up(self, gateway: Gateway, instances: Sequence[GatewayInstance]) -> Finding:
        hosts = [item.host for item in instances]
        # Outside is the way that devices come; what is wrong inside alone the analyzer says.
        return self._named(gateway, hosts, (await self.gateways.name_views(gateway, hosts))[0])

    def _named(self, gateway: Gateway, hosts: Sequence[str], found: NameView) -> Finding:
        name, deployment = gateway.service_name, gateway.deployment_name
        values: dict[str, Any] = {
            "name": name,
            "deployment": deployment,
            "record": f"{name}. CNAME {deployment}.",
            "addresses": ", ".join(hosts),
        }
        cause = found.code
        if cause == "dns.elsewhere":
            values["target"] = found.target or ", ".join(found.addresses)
        state = State.WAITING if cause == "dns.no-answer" else State.BAD if cause else State.GOOD
        return Finding(f"dns:{name}", name, DEVICE, End("dns", name), state, cause, values)

    def service(self, gateway: Gateway) -> Finding:
        """The gateway as a whole."""
        name = gateway.service_name
        state, cause = _STATES.get(gateway.state, (State.GOOD, ""))
        values = {"said": gateway.reason}
        return Finding(
            f"service:{name}",
            name,
            DEVICE,
            End("gateway", name),
            state,
            cause,
            values,
            gateway.changed_at,
        )

    def instance(self, gateway: Gateway, item: GatewayInstance) -> Finding:
        name = gateway.service_name
        target = End("instance", f"{name} {item.instance}")
        values: dict[str, Any] = {"said": item.reason or gateway.reason, "number": item.instance}
        state, cause = _STATES.get(gateway.state, (State.GOOD, ""))
        if state is State.GOOD:
            if item.state == "starting":
                state, cause = State.WAITING, "instance.silent"
            elif item.state != "running":
                state, cause = State.BAD, "instance.down"
            else:
                state, cause = self.lifetime(gateway.expires_at, "gateway.certificate")
                values["day"] = day(gateway.expires_at)
        id = f"instance:{name}:{item.instance}"
        return Finding(id, name, DEVICE, target, state, cause, values, gateway.changed_at)

    def lifetime(self, ends: datetime, prefix: str) -> tuple[State, str]:
        left = ends - self.now()
        if left <= timedelta(0):
            return State.BAD, f"{prefix}-expired"
        return (State.WAITING, f"{prefix}-ends") if left < _SOON else (State.GOOD, "")

    # -------------------------------------------------------------- tunnels

    def tunnels(
        self,
        gateway: Gateway,
        item: GatewayInstance,
        points: Sequence[ConnectionPoint],
        lines: Iterable[Mapping[str, Any]],
    ) -> list[Finding]:
        name = gateway.service_name
        source = End("instance", f"{name} {item.instance}")
        address = f"{item.host}:{item.tunnel_port}"
        begin = f"tunnel:{name}:{item.instance}"
        if not points:
            none = End("connection-point")
            return [Finding(begin, name, source, none, State.BAD, "tunnel.no-point")]
        found, seen = [], set()
        for row in lines:
            if (row["service_name"], row["instance"]) != (name, item.instance):
                continue
            point = next((p for p in points if p.name == row["connection_point"]), None)
            if point is None:
                continue
            seen.add(point.name)
            state, cause = _tunnel(str(row["state"]), str(row["reason"]))
            values: dict[str, Any] = {"said": str(row["reason"]), "address": address}
            if self.silent(point):
                state, cause = State.BAD, "point.silent"
                values["at"] = _time(point.reported_at)
            found.append(
                Finding(
                    f"{begin}:{point.name}:{row['worker']}",
                    name,
                    source,
                    End("connection-point", point.name),
                    state,
                    cause,
                    values,
                    row["since"],
                )
            )
        values = {"address": address}
        found += [
            Finding(
                f"{begin}:{point.name}",
                name,
                source,
                End("connection-point", point.name),
                State.WAITING,
                "tunnel.none",
                values,
            )
            for point in points
            if point.name not in seen
        ]
        return found

    def silent(self, point: ConnectionPoint) -> bool:
        if point.reported_at is None:
            return False
        limit = timedelta(seconds=self.connections.settings.silent_seconds)
        return self.now() - point.reported_at > limit

    # -------------------------------------------------------------- inside

    def point(self, point: ConnectionPoint) -> Finding:
        state, cause, values = State.GOOD, "", {}
        if point.reported_at is None:
            state, cause = State.WAITING, "point.never"
        elif self.silent(point):
            state, cause, values = State.BAD, "point.silent", {"at": _time(point.reported_at)}
        source = End("connection-point", point.name)
        id = f"point:{point.name}"
        return Finding(
            id, point.service_name, source, SITE, state, cause, values, point.reported_at
        )

    async def management_point(self, tx: Tx) -> Finding:
        site = await properties.site(tx)
        target = End("management-point", str(site.management_point_id))
        state, cause = State.GOOD, ""
        if not await self.connections.allowed(tx):
            possible = await self.connections.can_allow(tx)
            cause = "management-point.closed" if possible else "management-point.insecure"
            state = State.BAD
        values: dict[str, Any] = {}
        certified, _ = await properties.answering(tx)
        if state is State.GOOD and certified is not None and certified[1] <= self.now():
            state, cause = State.BAD, "management-point.certificate-expired"
            values["day"] = day(certified[1])
        return Finding("management-point", "", SITE, target, state, cause, values)

    async def tenant(self, tx: Tx) -> Finding:
        services = await self.tenants.services(tx)
        for service in services:
            target = End("tenant", service.tenant_name or service.tenant_id)
            apps = {app.kind: app for app in await self.tenants.apps(tx, service.id)}
            server = apps.get("server")
            if server is None:
                return Finding(
                    "tenant", "", SITE, End("tenant"), State.WAITING, "tenant.no-server-app"
                )
            state, cause, values = State.GOOD, "", {}
            if server.secret_expires_at is not None:
                state, cause = self.lifetime(server.secret_expires_at, "tenant.secret")
                values["day"] = day(server.secret_expires_at)
            return Finding("tenant", "", SITE, target, state, cause, values)
        return Finding("tenant", "", SITE, End("tenant"), State.BAD, "tenant.not-connected")


def _tunnel(state: str, reason: str) -> tuple[State, str]:
    """The code of what a connection point says of a tunnel in words."""
    if state == "connected":
        return State.GOOD, ""
    if state == "connecting" and not reason:
        return State.WAITING, "tunnel.connecting"
    known = {
        "Nothing listens on": "tunnel.refused",
        "is not trusted": "tunnel.untrusted",
        "does not answer": "tunnel.no-answer",
    }
    cause = next((code for words, code in known.items() if words in reason), "tunnel.lost")
    return (State.BAD if state == "disconnected" else State.WAITING), cause


def day(at: datetime) -> str:
    return f"{at:%Y-%m-%d}"


def _time(at: datetime | None) -> str:
    return f"{at:%Y-%m-%d %H:%M} UTC" if at else ""
