"""The admin API of a site in this process: over ASGI for requests, over a socket for commands."""

import asyncio
import os
import socket
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx

from tandem import audit
from tandem.cli import context
from tandem.cli.lab.commands import CommandFailed, Commands
from tandem.infra import http
from tandem.infra.clock import Clock
from tandem.infra.database import Database, Tx
from tandem.infra.errors import AppError, Kind
from tandem.infra.secrets import SecretBox
from tandem.protocols import ccm
from tandem.site import (
    administrators,
    adminservice,
    auditing,
    clients,
    collections,
    comanagement,
    deployments,
    fleet,
    notifications,
    properties,
    search,
    software_updates,
)
from tandem.site import settings as client_settings
from tandem.site.collections import Resource

NOW = datetime(2026, 11, 24, 9, 0, tzinfo=UTC)
TENANT = "11111111-2222-4333-8444-555555555555"
PASSWORD = "Correct-Horse-2"
CHEAP = administrators.AdministratorsSettings(password_memory_kib=64, password_passes=1)


class NoMdmAuthority(AppError):
    kind, code = Kind.CONFLICT, "cloud.no-mdm-authority"


@dataclass
class Cloud:
    """What the modules of the cloud say, as a test wants it."""

    gateway: str | None = "cmg.contoso.com/CCM_Proxy_MutualAuth/72057594037927941"
    tenant: str = TENANT
    mdm_authority: bool = True
    graph: "Graph" = field(default_factory=lambda: Graph())

    async def gateway_host(self, tx: Tx) -> str | None:
        return self.gateway

    async def tenant_id(self, tx: Tx) -> str:
        return self.tenant

    async def account(self, tx: Tx, tenant_id: str, upn: str) -> str:
        return f"o-{upn.lower()}"

    async def check_tenant(self, tx: Tx, token: str) -> None:
        if not self.mdm_authority:
            raise NoMdmAuthority("The tenant's MDM authority is not set.", cure="Set it first.")

    async def tenant_graph(self) -> fleet.Graph:
        return self.graph

    async def _gateways(self, tx: Tx) -> Sequence[tuple[str, str]]:
        return [(self.gateway.partition("/")[0], "Ready")] if self.gateway else []

    async def gateways(self, tx: Tx) -> Sequence[tuple[str, str]]:
        return [(name, name) for name, _ in await self._gateways(tx)]

    async def _apps(self, text: str, limit: int) -> Sequence[Mapping[str, Any]]:
        if not self.tenant:
            raise NoMdmAuthority("The tenant does not answer.")
        every = [{"id": "a-1", "displayName": "Contoso client", "publisher": "Contoso"}]
        return [app for app in every if app["displayName"].lower().startswith(text.lower())]

    @property
    def searched(self) -> search.Collaborators:
        return search.Collaborators(self._gateways, self._apps)

    @property
    def others(self) -> comanagement.Collaborators:
        return comanagement.Collaborators(
            self.gateway_host, self.tenant_id, self.check_tenant, graph=self.tenant_graph
        )

    @property
    def fleet(self) -> fleet.Collaborators:
        return fleet.Collaborators(self.tenant_id, self.tenant_graph)


class Unreachable(AppError):
    kind, code = Kind.UNAVAILABLE, "test.unreachable"


class NotInGraph(AppError):
    kind, code = Kind.NOT_FOUND, "test.not-in-graph"


@dataclass
class Graph:
    """A tenant's Graph as its wire looks, of lists that a test writes; by pages of `size`.

    `gone` is why nothing is answered. `installed` and `offered` are MDM ids in the app's report.
    """

    lists: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    installed: set[str] = field(default_factory=set)
    offered: set[str] = field(default_factory=set)
    gone: str = ""
    size: int = 2
    asked: list[str] = field(default_factory=list)

    async def get(self, path: str) -> dict[str, Any]:
        self._answers(path)
        name, _, query = path.partition("?")
        if name not in self.lists:
            raise NotInGraph("Resource not found for the segment.")
        start = int(query.partition("$skiptoken=")[2] or 0)
        page: dict[str, Any] = {"value": self.lists[name][start : start + self.size]}
        if start + self.size < len(self.lists[name]):
            onward = f"{name}?$skiptoken={start + self.size}"
            page["@odata.nextLink"] = f"https://graph.test/v1.0/{onward}"
        return page

    async def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        self._answers(path)
        if path == "tandem/deviceOffers":
            return self._offers(body["ids"])
        if path.endswith("/why"):
            if path not in self.lists:
                raise NotInGraph("Resource not found for the segment.")
            return {"policies": self.lists[path]}
        states = {**dict.fromkeys(self.offered, 3), **dict.fromkeys(self.installed, 1)}
        rows = [[device, state] for device, state in sorted(states.items())]
        return {
            "TotalRowCount": len(rows),
            "Schema": [{"Column": "DeviceId"}, {"Column": "AppInstallState"}],
            "Values": rows[body["skip"] : body["skip"] + self.size],
        }

    def _offers(self, ids: list[str]) -> dict[str, Any]:
        """Of devices whose settings are among the lists; a Graph with none does not know this."""
        path = "deviceManagement/managedDevices/{}/settings"
        if not any(name.endswith("/settings") for name in self.lists):
            raise NotInGraph("Resource not found for the segment.")
        known = [id for id in ids if path.format(id) in self.lists]
        offers = [
            {
                "settings": self.lists[path.format(id)],
                "apps": self.lists.get(f"tandem/managedDevices/{id}/apps", []),
                "compliancePolicies": self.lists.get(f"compliance/{id}", []),
            }
            for id in known
        ]
        told = [{"id": id, "offer": number} for number, id in enumerate(known)]
        return {"offers": offers, "devices": told}

    def _answers(self, path: str) -> None:
        self.asked.append(path)
        if self.gone:
            raise Unreachable(self.gone)

    def knows(
        self, device: str, *, enrolled: bool = True, licensed: bool = True, **more: Any
    ) -> None:
        """A device of this directory id, with its user."""
        upn = more.pop("user", f"{device}@contoso.com")
        self.lists.setdefault("devices", []).append(
            {"deviceId": device, "displayName": more.get("name", device), **more.pop("joined", {})}
        )
        self.lists.setdefault("users", []).append(
            {"userPrincipalName": upn, "assignedLicenses": [{"skuId": "x"}] if licensed else []}
        )
        if enrolled:
            self.lists.setdefault("deviceManagement/managedDevices", []).append(
                {
                    "id": f"m-{device}",
                    "azureADDeviceId": device,
                    "deviceName": more.get("name", device),
                    "userPrincipalName": upn,
                    "osVersion": more.get("os", "10.0.22631.1"),
                    "enrolledDateTime": "2026-11-24T08:00:00Z",
                    "lastSyncDateTime": "2026-11-24T08:30:00Z",
                    **more.get("managed", {}),
                }
            )

    def refuses(self, device: str, code: int, at: str = "2026-11-24T08:00:00Z") -> None:
        self.lists.setdefault("deviceManagement/troubleshootingEvents", []).append(
            {"deviceId": device, "eventDateTime": at, "failureReason": f"refused ({code:#x})"}
        )


@dataclass
class Api:
    db: Database
    app: Any
    cloud: Cloud
    web: httpx.AsyncClient
    clock: list[datetime]
    keeper: fleet.Keeper
    folder: Path
    evaluator: collections.Evaluator
    commands: Commands = field(default_factory=Commands)

    async def sign_in(self, name: str = "siteadmin", password: str = PASSWORD) -> httpx.Response:
        given = {"name": name, "password": password}
        answer = await self.web.post("/api/v1/sign-in", json=given)
        if answer.status_code == 200:
            self.web.headers["Authorization"] = f"Bearer {answer.json()['token']}"
        return answer

    async def get(self, path: str, **query: Any) -> Any:
        answer = await self.web.get(path, params=query)
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def post(self, path: str, json: Any) -> Any:
        answer = await self.web.post(path, json=json)
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def refusal(self, method: str, path: str, json: Any = None) -> tuple[int, dict[str, Any]]:
        answer = await self.web.request(method, path, json=json)
        assert answer.status_code >= 400, answer.text
        assert "Traceback" not in answer.text
        return answer.status_code, answer.json()["error"]

    def wait(self, **much: float) -> None:
        self.clock[0] += timedelta(**much)


def api_routes(
    db: Database,
    cloud: Cloud,
    now: Clock,
    folder: Path,
    safeguards: deployments.Safeguards = deployments.Safeguards(),
) -> list[Any]:
    """The admin API of one replica."""
    gate = administrators.Gate(db, now, CHEAP)
    signer = audit.Signer.open(folder / "keys" / "audit.key")
    return [
        *administrators.routes(
            db,
            gate,
            now,
            cloud.account,
            collections.id_of,
            {"configuration": deployments.named, "gateway": cloud.gateways},
        ),
        *properties.routes(db, gate),
        *collections.routes(
            db,
            gate,
            now,
            (
                client_settings.used_for,
                deployments.used_for,
                comanagement.used_for,
                software_updates.used_for,
            ),
            safeguards.approval_above,
        ),
        *client_settings.routes(db, gate, now),
        *deployments.routes(db, gate, now, safeguards),
        *software_updates.routes(db, gate, now),
        *comanagement.routes(db, cloud.others, gate, now, safeguards),
        *auditing.routes(db, gate, now, signer),
        *search.routes(db, gate, cloud.searched),
        *clients.admin_routes(db, require=gate, now=now),
        *clients.identity_routes(
            db, SecretBox.open(folder / "keys" / "box.key"), "CM1", require=gate, now=now
        ),
        *notifications.admin_routes(db, gate, now),
        *fleet.routes(db, cloud.fleet, gate, now),
        *adminservice.routes(db, gate, now),
    ]


@asynccontextmanager
async def site_api(
    db: Database, folder: Path, safeguards: deployments.Safeguards = deployments.Safeguards()
) -> AsyncIterator[Api]:
    clock = [NOW]
    box = SecretBox.open(folder / "keys" / "box.key")
    cloud = Cloud()

    def now() -> datetime:
        return clock[0]

    async with db.transaction() as tx:
        await properties.establish(tx, box, code="cm1", name="Contoso", now=NOW)
        await administrators.create_first(tx, "siteadmin", PASSWORD, NOW, CHEAP)
    app = http.application(api_routes(db, cloud, now, folder, safeguards), role="site")
    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=transport, base_url="https://site.test") as web:
        keeper, evaluator = fleet.Keeper(db, cloud.fleet, now), collections.Evaluator(db, now)
        yield Api(db, app, cloud, web, clock, keeper, folder, evaluator)


@asynccontextmanager
async def commands(api: Api, folder: Path) -> AsyncIterator[Commands]:
    """The commands of `tandem`, signed in to this site."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    stop = asyncio.Event()
    serving = asyncio.create_task(
        http.serve([http.Listener(api.app, "127.0.0.1", port)], stop, drain_seconds=1)
    )
    before = os.environ.get("TANDEM_PROFILE")
    os.environ["TANDEM_PROFILE"] = str(folder / "profile" / "profile.toml")
    try:
        (folder / "profile").mkdir(mode=0o700)
        context.save_profile(context.Profile(site_url=f"http://127.0.0.1:{port}"))
        token = (await api.sign_in()).json()["token"]
        context.save_session("site", context.Session(token, time.time() + 3600))
        async with httpx.AsyncClient(trust_env=False) as probing:
            for _ in range(200):
                try:
                    await probing.get(f"http://127.0.0.1:{port}/")
                    break
                except httpx.ConnectError:
                    await asyncio.sleep(0.02)
        yield api.commands
    finally:
        del os.environ["TANDEM_PROFILE"]
        if before is not None:
            os.environ["TANDEM_PROFILE"] = before
        stop.set()
        await serving


async def add_device(
    tx: Tx, name: str, *, flags: int = 0, enrolled: bool = True, policy: bool = True
) -> clients.ClientId:
    """A registered client that reports this state, and its resource."""
    id = clients.ClientId(f"GUID:{name.upper()}")
    await tx.execute(
        "INSERT INTO clients_client (id, tenant_id, device_id, thumbprint, name, os_name,"
        " os_version, client_version, approval, registered_at, last_seen_at)"
        " VALUES (%s, %s, %s, %s, %s, 'Windows', '10.0.22631.1', '0.1.0', 3, %s, %s)"
        " ON CONFLICT DO NOTHING",
        (id, TENANT, f"d-{name}", f"t-{name}", name, NOW, NOW),
    )
    resource = Resource(id, name, TENANT, f"d-{name}", "Windows", "10.0.22631.1", "0.1.0")
    await collections.upsert_resource(tx, resource, NOW)
    await report(tx, id, flags=flags, enrolled=enrolled, policy=policy)
    return id


async def report(
    tx: Tx, id: clients.ClientId, *, flags: int, enrolled: bool = True, policy: bool = True
) -> None:
    """What the client says of itself from now on."""
    state = ccm.ComanagementState(flags, enrolled, policy, flags)
    await clients.keep_state(tx, id, state, NOW)


__all__ = [
    "CHEAP",
    "NOW",
    "PASSWORD",
    "TENANT",
    "Api",
    "Cloud",
    "CommandFailed",
    "add_device",
    "commands",
    "report",
    "site_api",
]
