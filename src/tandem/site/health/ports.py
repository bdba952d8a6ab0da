"""Every address that the site listens on or dials, and every path that gateways publish."""

from dataclasses import dataclass
from typing import Any

import msgspec

from tandem.infra.database import Tx
from tandem.site.cloud_services import Connections, Gateways
from tandem.site.collections import as_dict
from tandem.site.health.model import Listener, SitePlaces


@dataclass(frozen=True)
class Ports:
    places: SitePlaces
    gateways: Gateways
    connections: Connections

    async def describe(self, tx: Tx) -> dict[str, Any]:
        found = list(self.places.listeners)
        points = await self.connections.connection_points(tx)
        for gateway in await self.gateways.gateways(tx):
            mine = [point.name for point in points if point.service_name == gateway.service_name]
            for item in await self.gateways.instances(tx, gateway.service_name):
                name = f"{gateway.service_name} {item.instance}"
                health = self.gateways.settings.gateway.health_host
                found += [
                    Listener(
                        "gateway",
                        item.host,
                        item.port,
                        "HTTPS",
                        "in",
                        "devices",
                        "management",
                        name,
                    ),
                    Listener(
                        "gateway",
                        item.host,
                        item.tunnel_port,
                        "TLS 1.3",
                        "in",
                        "connection-points",
                        "tunnel",
                        name,
                    ),
                    Listener(
                        "gateway", health, item.health_port, "HTTP", "in", "site", "health", name
                    ),
                ]
                found += [
                    Listener(
                        "connection-point",
                        item.host,
                        item.tunnel_port,
                        "TLS 1.3",
                        "out",
                        "gateway",
                        "tunnel",
                        point,
                    )
                    for point in mine
                ]
        return {
            "listeners": [as_dict(item) for item in found],
            "published": [
                msgspec.to_builtins(item)
                for item in (
                    *await self.connections.endpoints(tx),
                    *await self.connections.update_endpoints(tx),
                )
            ],
        }
