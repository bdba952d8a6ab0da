"""A gateway and a connection point, as processes, in front of a real management point."""

import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

from joserfc import jwt

from gateway.conftest import BASE, NAME, ROLE, TENANT, URI, Rig, free_port, serving
from one_site import PREFIX, UPDATES_PREFIX, Broker, Moment, Site
from tandem import pki
from tandem.infra.database import Database
from tandem.infra.secrets import SecretBox
from tandem.protocols import tunnel
from tandem.site import clients, software_updates

MUTUAL = f"/CCM_Proxy_MutualAuth/{ROLE}"


class Edge(Rig):
    """The gateway in front of a real management point."""

    point: Site
    site_keys: dict[str, object]
    # Whether the software update point is published.
    updates: bool = False

    def configuration(self) -> tunnel.Configuration:
        jwks = {"keys": [self.tenant_key.as_dict(private=False)]}
        return tunnel.Configuration(
            self.version,
            NAME,
            "CM1",
            tenants=[
                tunnel.Tenant(TENANT, "app", URI, ["https://sts.test/"], jwks, self.authority)
            ],
            site_token_keys=self.site_keys,
            endpoints=[
                tunnel.Endpoint(
                    f"{BASE}/{one.path}",
                    list(one.methods),
                    one.max_body_bytes,
                    ["token"],
                    one.hold_seconds,
                )
                for one in clients.ENDPOINTS
            ]
            + [
                tunnel.Endpoint(
                    f"{MUTUAL}/{one.path}",
                    list(one.methods),
                    one.max_body_bytes,
                    ["certificate"],
                    one.hold_seconds,
                )
                for one in clients.ENDPOINTS
            ]
            + [
                tunnel.Endpoint(
                    f"{UPDATES_PREFIX}/{one.path}",
                    list(one.methods),
                    one.max_body_bytes,
                    ["token"],
                )
                for one in software_updates.ENDPOINTS
                if self.updates
            ],
            trusted_roots=[pki.pem(self.clients_root.certificate).decode()],
            check_revocation=False,
        )

    def connector_configuration(self, name: str = "CP01") -> tunnel.ConnectorConfiguration:
        found = super().connector_configuration(name)
        inside = f"https://localhost:{self.point.port}{PREFIX}"
        mappings = [
            tunnel.Mapping(f"{entry}/{one.path}", f"{inside}/{one.path}", one.hold_seconds)
            for one in clients.ENDPOINTS
            for entry in (BASE, MUTUAL)
        ]
        mappings += [
            tunnel.Mapping(
                f"{UPDATES_PREFIX}/{one.path}", f"https://localhost:{self.point.port}/{one.path}"
            )
            for one in software_updates.ENDPOINTS
            if self.updates
        ]
        return tunnel.ConnectorConfiguration(name, found.gateways, mappings)

    @property
    def authority(self) -> str:
        """Where the device gets its tokens: the management point's process plays the tenant."""
        return f"https://localhost:{self.point.port}/{TENANT}"

    @property
    def command_line(self) -> str:
        host = f"localhost:{self.port}/CCM_Proxy_MutualAuth/{ROLE}"
        return f'CCMSETUPCMD="CCMHOSTNAME={host} SMSSITECODE=CM1"'

    def restart_gateway(self) -> None:
        self.stop("gateway", signal.SIGKILL)
        self.start_gateway()


class JoinedBroker(Broker):
    """Tokens as a tenant makes them: the gateway reads them too."""

    edge: Edge

    async def device_token(self, authority: str, client_app_id: str, resource: str) -> str:
        return self.edge.token(deviceid=self.device, oid=f"o-{self.device}")


def now() -> Moment:
    """A clock that starts at the real time, which TLS and the gateway look at."""
    clock = Moment()
    clock.at = datetime.now(UTC).replace(microsecond=0)
    return clock


@asynccontextmanager
async def edge_of(
    db: Database, folder: Path, moment: Moment, python: str = "", kind: type[Edge] = Edge
) -> AsyncIterator[Edge]:
    """Everything but the management point, which a test starts and stops (`point.serving`)."""
    below = folder / "edge"
    below.mkdir()
    made = kind(below)
    made.python = python or made.python
    made.point = Site(db, folder, moment, free_port())
    made.point.tls_root = made.site_root
    made.point.token_of = lambda device: made.token(deviceid=device, oid=f"o-{device}")

    async def verify(_: object, token: str) -> clients.TenantIdentity:
        claims = jwt.decode(token, made.tenant_key, algorithms=["RS256"]).claims
        return clients.TenantIdentity(TENANT, claims["deviceid"], "device", claims["oid"])

    made.point.verify_token = verify
    async with db.transaction() as tx:
        box = SecretBox.open(folder / "keys" / "box")
        made.site_keys = await clients.token_keys(tx, box, moment())
    async with serving(made):
        yield made
