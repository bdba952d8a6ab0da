"""The way in, hop by hop: from each gateway instance to the site, with the cause where it breaks.

device ─▶ gateway instance   the site watches the process
instance ─▶ connection point one line for each worker, as the connection point reports
connection point ─▶ site     alive while its reports come
site ─▶ management point     open only while gateway traffic is allowed
"""

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Protocol

from tandem.console.labels import N_
from tandem.console.model import Gateway, Gateways, Health, Hop, Instance
from tandem.infra.clock import Clock
from tandem.infra.database import Tx


class HasName(Protocol):
    @property
    def value(self) -> str: ...


class KnownGateway(Protocol):
    @property
    def service_name(self) -> str: ...
    @property
    def deployment_name(self) -> str: ...
    @property
    def state(self) -> HasName: ...
    @property
    def reason(self) -> str: ...


class KnownInstance(Protocol):
    @property
    def instance(self) -> int: ...
    @property
    def host(self) -> str: ...
    @property
    def port(self) -> int: ...
    @property
    def state(self) -> str: ...
    @property
    def reason(self) -> str: ...


class KnownPoint(Protocol):
    @property
    def name(self) -> str: ...
    @property
    def service_name(self) -> str: ...
    @property
    def reported_at(self) -> datetime | None: ...


class KnownApp(Protocol):
    @property
    def writes(self) -> bool: ...


class GatewayService(Protocol):
    async def gateways(self, tx: Tx) -> Sequence[KnownGateway]: ...
    async def instances(self, tx: Tx, service_name: str) -> Sequence[KnownInstance]: ...


class ConnectionService(Protocol):
    async def connection_points(self, tx: Tx) -> Sequence[KnownPoint]: ...
    async def connections(self, tx: Tx) -> list[dict[str, Any]]: ...
    async def allowed(self, tx: Tx) -> bool: ...
    async def adminservice_apps(self, tx: Tx) -> Sequence[KnownApp]: ...


STATES = {
    "Ready": Health.GOOD,
    "Failed": Health.BAD,
    "Stopped": Health.BAD,
    "running": Health.GOOD,
    "failed": Health.BAD,
    "stopped": Health.BAD,
    "connected": Health.GOOD,
    "disconnected": Health.BAD,
}
SILENT = N_("The connection point has not reported for some time.")
SILENT_CURE = N_("Look whether it runs: “tandem connector run”.")
NO_POINT = N_("No connection point serves this gateway.")
NO_POINT_CURE = N_("Add one: “tandem connection-point add”.")
CLOSED = N_("The management point takes no gateway traffic.")
CLOSED_CURE = N_("Allow it: “tandem management-point set --allow-gateway-traffic”.")
INSTANCE_DOWN = N_("The instance does not run.")
ADMINSERVICE, ADMINSERVICE_READS = N_("AdminService"), N_("AdminService, reading only")
POINT, MANAGEMENT_POINT, SITE = N_("Connection point"), N_("Management point"), N_("Site")


def reader(
    gateways: GatewayService,
    connections: ConnectionService,
    *,
    now: Clock,
    silent_seconds: float = 90,
) -> Callable[[Tx], Awaitable[Gateways]]:
    """`silent_seconds`: after how long without a report a connection point counts as lost."""

    async def read(tx: Tx) -> Gateways:
        points = await connections.connection_points(tx)
        lines = await connections.connections(tx)
        since = now() - timedelta(seconds=silent_seconds)
        lost = {point.name for point in points if point.reported_at and point.reported_at < since}
        shown = []
        for gateway in await gateways.gateways(tx):
            mine = [point for point in points if point.service_name == gateway.service_name]
            instances = await gateways.instances(tx, gateway.service_name)
            shown.append(_gateway(gateway, instances, mine, lines, lost))
        inside = _inside(points, lost, await connections.allowed(tx))
        return Gateways(tuple(shown), inside + _scripts(await connections.adminservice_apps(tx)))

    return read


def _gateway(
    gateway: KnownGateway,
    instances: Iterable[KnownInstance],
    points: Sequence[KnownPoint],
    lines: Sequence[Mapping[str, Any]],
    lost: set[str],
) -> Gateway:
    shown = []
    for item in instances:
        hops = [
            _line(row, lost)
            for row in lines
            if (row["service_name"], row["instance"]) == (gateway.service_name, item.instance)
        ]
        connected = {row.target for row in hops}
        source = f"{gateway.service_name} {item.instance}"
        hops += [
            Hop(source, point.name, Health.WAITING)
            for point in points
            if point.name not in connected
        ]
        if not points:
            hops.append(Hop(source, "–", Health.BAD, cause=NO_POINT, cure=NO_POINT_CURE))
        own = STATES.get(item.state, Health.WAITING)
        cause = item.reason or (INSTANCE_DOWN if own is Health.BAD else "")
        shown.append(Instance(item.instance, f"{item.host}:{item.port}", own, tuple(hops), cause))
    return Gateway(
        gateway.service_name,
        gateway.deployment_name,
        gateway.state.value,
        STATES.get(gateway.state.value, Health.WAITING),
        tuple(shown),
        gateway.reason,
    )


def _line(row: Mapping[str, Any], lost: set[str]) -> Hop:
    source = f"{row['service_name']} {row['instance']}"
    point = str(row["connection_point"])
    if point in lost:
        return Hop(source, point, Health.BAD, row["since"], SILENT, SILENT_CURE)
    health = STATES.get(str(row["state"]), Health.WAITING)
    cause = "" if health is Health.GOOD else str(row["reason"])
    return Hop(source, point, health, row["since"], cause)


def _inside(points: Sequence[KnownPoint], lost: set[str], allowed: bool) -> tuple[Hop, ...]:
    hops = []
    for point in points:
        if point.reported_at is None:
            hops.append(Hop(point.name, SITE, Health.WAITING))
        elif point.name in lost:
            hops.append(Hop(point.name, SITE, Health.BAD, point.reported_at, SILENT, SILENT_CURE))
        else:
            hops.append(Hop(point.name, SITE, Health.GOOD, point.reported_at))
    if allowed:
        hops.append(Hop(POINT, MANAGEMENT_POINT, Health.GOOD))
    else:
        hops.append(Hop(POINT, MANAGEMENT_POINT, Health.BAD, cause=CLOSED, cure=CLOSED_CURE))
    return tuple(hops)


def _scripts(apps: Sequence[KnownApp]) -> tuple[Hop, ...]:
    """The AdminService, when it is published for an app: what else a gateway leads to."""
    if not apps:
        return ()
    target = ADMINSERVICE if any(app.writes for app in apps) else ADMINSERVICE_READS
    return (Hop(POINT, target, Health.GOOD),)
