"""One lab: its folder, its processes, and how it begins and ends."""

import asyncio
import contextlib
import os
import sys
import time
from pathlib import Path
from typing import Any

import msgspec
import psutil

from tandem import pki
from tandem.agent import mdm
from tandem.cli import context
from tandem.cli.context import Api, Profile
from tandem.cli.lab import topology
from tandem.cli.lab.commands import Commands
from tandem.cli.lab.real_device import small_system
from tandem.cli.lab.report import ExpectedRefusal, Screen, StepReport
from tandem.cli.lab.supervisor import Known, Supervisor, answers
from tandem.cli.lab.topology import (
    DEPLOYMENT_DOMAIN,
    DOMAIN,
    INTERNET,
    ON_PREMISES,
    SITE_CODE,
    Person,
    Timers,
    Topology,
    gateway_hosts,
)
from tandem.infra import config, net
from tandem.infra.database import Embedded
from tandem.infra.errors import AppError, Kind
from tandem.infra.secrets import private_folder, write_private
from tandem.roles import lab_network

# What each process is, for who reads their list.
ROLES = {
    "postgresql": "the two databases, tenant and site",
    "public-ca": "lab aid: a public certificate authority",
    "dns": "lab aid: DNS for contoso.com",
    "tenant": "directory, licences, sign-in, Graph, MDM",
    "site": "collections, policies, content, management point, console",
    "gateway": "the way in, on the internet",
    "connector": "connection point: dials the gateway from inside",
    "network": "lab aid: doors of the real device's own network",
    "agent": "one real device",
    "simulator": "simulated devices",
}

# Less work per password: the lab makes its own passwords, and checks dozens of them in a minute.
_CHEAP = {"password_memory_kib": 1024, "password_passes": 1}


# Devices of the largest lab.
LARGEST = 2000


class AnotherLab(AppError):
    kind, code = Kind.CONFLICT, "lab.another"


class NoOwnNetwork(AppError):
    kind, code = Kind.UNAVAILABLE, "lab.no-own-network"


class Progress(msgspec.Struct):
    """What an interrupted or stopped lab goes on from."""

    devices: int
    cadence: str
    instances: int
    steps: list[StepReport] = []
    refusals: list[ExpectedRefusal] = []
    co_managed_after_seconds: float | None = None
    kept: dict[str, Any] = {}  # Names and ids that later steps need.


class Lab:
    def __init__(
        self, folder: Path, devices: int, cadence: str, instances: int, screen: Screen
    ) -> None:
        self.folder = private_folder(folder.absolute())
        self.screen = screen
        self.progress = self._progress(Progress(devices, cadence, instances))
        self.logs = self.folder / "logs"
        self.settings = private_folder(self.folder / "settings")
        self._secrets = private_folder(self.folder / "secrets")
        self.topology: Topology = topology.load(self.folder, devices, instances)
        self.timers = Timers.of(cadence)
        self.supervisor = Supervisor(self.folder, self.logs, self._say_started)
        self.commands = Commands()
        # From the command on, the interpreter and the imports included.
        self.begun = time.monotonic() - (time.time() - psutil.Process().create_time())
        self.tenant_id = ""
        self.own_network = False  # Whether the real device has one.
        self._ending = False
        self._devices_up: asyncio.Task[None] | None = None
        self._postgresql: Embedded | None = None

    def _progress(self, wanted: Progress) -> Progress:
        try:
            raw = (self.folder / "progress.json").read_bytes()
        except FileNotFoundError:
            return wanted
        kept = msgspec.json.decode(raw, type=Progress)
        same = (kept.devices, kept.cadence, kept.instances)
        if same != (wanted.devices, wanted.cadence, wanted.instances):
            raise AnotherLab(
                f"{self.folder} holds a lab of {kept.devices} devices, {kept.instances} gateway"
                f" instances, cadence {kept.cadence}.",
                cure="Start it with the same options, or name another folder with --state.",
            )
        return kept

    def keep(self) -> None:
        write_private(self.folder / "progress.json", msgspec.json.encode(self.progress))

    @property
    def kept(self) -> dict[str, Any]:
        return self.progress.kept

    # Secrets go to commands and roles by file, as an administrator would hand them over.

    def secret_file(self, name: str, secret: str) -> Path:
        path = self._secrets / name
        if not path.exists() or path.read_text() != secret:
            write_private(path, secret.encode())
        return path

    def password_file(self, person: Person) -> Path:
        return self.secret_file(person.upn, person.password)

    @property
    def as_tenant_admin(self) -> tuple[str, ...]:
        """The separate sign-in of the tenant's administrator inside a step."""
        admin = self.topology.admin
        file = str(self.password_file(admin))
        return ("--tenant-admin", admin.upn, "--tenant-password-file", file)

    @property
    def ca_file(self) -> Path:
        """Roots for everything in the lab: the public CA's, and the site's own."""
        return self.folder / "ca.pem"

    @property
    def public_root(self) -> Path:
        return self.folder / "public-root.pem"

    @property
    def real(self) -> Person:
        """Whose device is a real agent."""
        return self.topology.people[0]

    @property
    def simulated(self) -> list[Person]:
        return [person for person in self.topology.people if person.device][1:]

    @property
    def managed(self) -> list[Person]:
        """Those whose devices must become co-managed."""
        return self.topology.people[: self.progress.devices]

    # ------------------------------------------------------------------ beginning

    def _say_started(self, process: Known, seconds: float) -> None:
        if self._ending:
            return
        what = ROLES.get(process.role.rstrip("-0123456789"), "")
        # What others started and the lab adopts has been running for longer than it knows.
        after = f", {seconds:.1f} s" if seconds else ""
        self.screen.line(f"      [dim]{process.pid:>7}  {process.role:<11} {what}{after}[/]")

    async def begin(self) -> None:
        """Start what does not depend on the tutorial's steps."""
        left = await self.supervisor.stop_leftovers()
        if left:
            self.screen.line(f"  Stopped {left} processes that an earlier lab had left behind.")
        os.environ["TANDEM_PROFILE"] = str(self.settings / "profile.toml")
        await asyncio.gather(self._start_postgresql(), self._start_ca(), self._start_dns())
        await self._fetch_public_root()
        await asyncio.gather(self._start_tenant(), self._start_site())
        await self._learn()
        await self.start_connectors()
        # They take a second to start, and nobody needs them before step 0.2.
        self._devices_up = asyncio.create_task(self._start_devices())
        if self.kept.get("devices_started"):
            await self.devices_up()
        await self.adopt_gateways()

    async def devices_up(self) -> None:
        """Until the devices wait for someone to sign in."""
        assert self._devices_up is not None
        await self._devices_up

    def write_settings(self, name: str, table: dict[str, Any]) -> Path:
        path = self.settings / f"{name}.toml"
        write_private(path, config.toml(_plain(table)).encode())
        return path

    def _command(self, *words: object) -> list[str]:
        return [sys.executable, "-m", "tandem.cli", *map(str, words)]

    async def _start_postgresql(self) -> None:
        begun = time.monotonic()
        self._postgresql = await asyncio.to_thread(Embedded.start, self.folder / "pg")
        if self._postgresql.pid is not None:
            seconds = time.monotonic() - begun
            self.supervisor.adopt("postgresql", self._postgresql.pid, seconds)

    def _dsn(self, database: str) -> str:
        assert self._postgresql is not None
        return self._postgresql.dsn(database)

    async def _start_ca(self) -> None:
        ports = self.topology.ports
        loopback = [ON_PREMISES, INTERNET, *topology.gateway_hosts(self.progress.instances)]
        settings = self.write_settings(
            "public-ca",
            {
                "state": self.folder / "public-ca",
                "host": ON_PREMISES,
                "port": ports.ca,
                "addresses": loopback,
                "logs": self.logs,
            },
        )
        await self.supervisor.start(
            "public-ca",
            self._command("lab", "public-ca", "--config", settings),
            lambda: answers(f"http://{ON_PREMISES}:{ports.ca}/readyz"),
        )

    async def _start_dns(self) -> None:
        ports = self.topology.ports
        settings = self.write_settings(
            "dns",
            {
                "state": self.folder / "dns",
                "host": ON_PREMISES,
                "port": ports.dns,
                "control_port": ports.dns_control,
                "logs": self.logs,
            },
        )
        await self.supervisor.start(
            "dns",
            self._command("lab", "dns", "--config", settings),
            lambda: answers(f"http://{ON_PREMISES}:{ports.dns_control}/readyz"),
        )

    async def record(self, name: str, kind: str, *values: str) -> None:
        """Set a DNS record, as the owner of the zone does."""
        url = f"http://{ON_PREMISES}:{self.topology.ports.dns_control}/records/{name}"
        async with net.plain_client() as client:
            answer = await client.put(url, json={"kind": kind, "values": list(values)})
            answer.raise_for_status()

    async def certify(self, request: bytes) -> bytes:
        """What the public CA answers to a certificate request."""
        url = f"http://{ON_PREMISES}:{self.topology.ports.ca}/certificates"
        async with net.plain_client() as client:
            answer = await client.post(url, content=request)
            answer.raise_for_status()
            return answer.content

    async def _fetch_public_root(self) -> None:
        url = f"http://{ON_PREMISES}:{self.topology.ports.ca}/root.pem"
        async with net.plain_client() as client:
            write_private(self.public_root, (await client.get(url)).content)
        if not self.ca_file.exists():
            write_private(self.ca_file, self.public_root.read_bytes())

    async def _certificate(self, name: str) -> tuple[Path, Path]:
        """A TLS certificate of the public CA for one of the roles."""
        certificate, key = self._secrets / f"{name}.pem", self._secrets / f"{name}.key"
        if not certificate.exists():
            made = pki.generate_key()
            host = f"{name}.{DOMAIN}"
            request = pki.certificate_request(made, pki.name(host), [host])
            write_private(key, pki.key_pem(made))
            write_private(certificate, await self.certify(request))
        return certificate, key

    async def _start_tenant(self) -> None:
        here, ports = self.topology, self.topology.ports
        certificate, key = await self._certificate("login")
        settings = self.write_settings(
            "tenant",
            {
                "state": self.folder / "tenant",
                "dsn": await asyncio.to_thread(self._dsn, "tenant"),
                "public_url": here.tenant_url,
                "site_console_url": here.site_url,
                "management_url": here.management_url,
                "certificate": certificate,
                "key": key,
                "host": INTERNET,
                "port": ports.tenant,
                "management_port": ports.management,
                "health_host": ON_PREMISES,
                "health_port": ports.tenant_health,
                "resolver": here.resolver,
                "ca_file": self.public_root,
                "logs": self.logs,
                "sign_in": _CHEAP,
                "first": {
                    "name": "Contoso",
                    "domain": DOMAIN,
                    "administrator_upn": here.admin.upn,
                    "password_file": self.password_file(here.admin),
                },
            },
        )
        await self.supervisor.start(
            "tenant",
            self._command("tenant", "run", "--config", settings),
            lambda: answers(f"http://{ON_PREMISES}:{ports.tenant_health}/readyz"),
        )

    async def _start_site(self) -> None:
        here, ports = self.topology, self.topology.ports
        certificate, key = await self._certificate("site")
        settings = self.write_settings(
            "site",
            {
                "state": self.folder / "site",
                "dsn": await asyncio.to_thread(self._dsn, "site"),
                "site_code": SITE_CODE,
                "site_name": "Contoso Primary",
                "host": ON_PREMISES,
                "port": ports.site,
                "certificate": certificate,
                "key": key,
                "management_point_host": ON_PREMISES,
                "management_point_port": ports.management_point,
                "health_host": ON_PREMISES,
                "health_port": ports.site_health,
                "resolver": here.resolver,
                "ca_file": self.public_root,
                "logs": self.logs,
                "sign_in": _CHEAP,
                # The lab has one administrator of the site, however many devices it has.
                "safeguards": {"approval_above": LARGEST},
                "first": {
                    "administrator": here.site_admin.upn,
                    "password_file": self.password_file(here.site_admin),
                },
                "cloud": {
                    "management_point_url": here.management_point_url,
                    "folder": self.folder / "gateways",
                    "environment": {
                        "name": "Contoso lab",
                        "authority": here.tenant_url,
                        "graph": f"{here.tenant_url}/v1.0",
                    },
                    "gateway": {
                        "hosts": topology.gateway_hosts(self.progress.instances),
                        "port": ports.gateway,
                        "tunnel_port": ports.tunnel,
                        "health_port": ports.gateway_health,
                        "deployment_domain": DEPLOYMENT_DOMAIN,
                        "regions": ["West Europe", "Local"],
                        "check_seconds": self.timers.gateway_check_seconds,
                    },
                },
            },
        )
        await self.supervisor.start(
            "site",
            self._command("site", "run", "--config", settings),
            lambda: answers(f"http://{ON_PREMISES}:{ports.site_health}/readyz"),
        )

    async def _learn(self) -> None:
        """Tell the commands whom to talk to, and sign in as both administrators."""
        url = f"http://{ON_PREMISES}:{self.topology.ports.tenant_health}/readyz"
        async with net.plain_client() as client:
            self.tenant_id = str((await client.get(url)).json()["tenant_id"])
        here = self.topology
        context.save_profile(
            Profile(
                site_url=here.site_url,
                tenant_url=here.tenant_url,
                tenant_id=self.tenant_id,
                ca_file=self.ca_file,
                resolver=here.resolver,
            )
        )
        await self.sign_in()
        site = await self.commands.run("site", "show")
        roots = self.public_root.read_bytes() + site["issuing_root"]["certificate"].encode()
        if self.ca_file.read_bytes() != roots:
            write_private(self.ca_file, roots)

    async def sign_in(self) -> None:
        here = self.topology
        for role, person in (("tenant", here.admin), ("site", here.site_admin)):
            await self.commands.run(
                "sign-in",
                role,
                "--user",
                person.upn,
                "--password-file",
                self.password_file(person),
            )

    def graph(self) -> Api:
        return context.graph_client()

    def site(self) -> Api:
        return context.site_client()

    # ------------------------------------------------------------------ what steps start

    async def start_connectors(self) -> None:
        """Every connection point that step 4.1 has made."""
        files = self.kept.get("connectors", [])
        await asyncio.gather(*(self.start_connector(number) for number in range(len(files))))

    async def start_connector(self, number: int) -> None:
        health = self.connector_health(number)
        await self.supervisor.start(
            f"connector-{number + 1}",
            self._command("connector", "run", "--config", self.kept["connectors"][number]),
            lambda: answers(f"http://{health}/healthz"),
        )

    def connector_health(self, number: int) -> str:
        return f"{ON_PREMISES}:{self.topology.ports.connector_health + number}"

    def _control(self, role: str) -> Path:
        return self.folder / f"{role}.sock"

    async def _start_devices(self) -> None:
        """The real agent and the simulator: devices that nobody has enrolled yet."""
        here = self.topology
        shared = {
            "tenant_url": here.tenant_url,
            "tenant_id": self.tenant_id,
            "resolver": here.resolver,
            "ca_file": self.public_root,
            "minute_seconds": self.timers.mdm_minute_seconds,
            "client_minute_seconds": self.timers.client_minute_seconds,
            "logs": self.logs,
        }
        own_network = await self._own_network()
        self.own_network = bool(own_network)
        root = small_system(self.folder / "devices" / f"{self.real.device}-root")
        agent = self.write_settings(
            "agent",
            {
                **shared,
                "root": root,
                "own_network": self.own_network,
                "name": self.real.device,
                "state": self.folder / "devices" / self.real.device,
                "control": self._control("agent"),
                "upn": self.real.upn,
                "password_file": self.password_file(self.real),
            },
        )
        simulator = self.write_settings(
            "simulator",
            {
                **shared,
                "state": self.folder / "devices" / "simulated",
                "control": self._control("simulator"),
                "devices": [
                    {
                        "name": person.device,
                        "upn": person.upn,
                        "password_file": self.password_file(person),
                    }
                    for person in self.simulated
                ],
            },
        )
        await asyncio.gather(
            self.supervisor.start(
                "agent",
                [*own_network, *self._command("agent", "run", "--config", agent)],
                lambda: self._directed("agent"),
            ),
            self.supervisor.start(
                "simulator",
                self._command("simulate", "run", "--config", simulator),
                lambda: self._directed("simulator"),
            ),
        )
        self.kept["devices_started"] = True

    async def _own_network(self) -> list[str]:
        """What to put before the agent's command, so that it runs in a network of its own; nothing
        where there can be none, which is said."""
        why = await asyncio.to_thread(lab_network.unavailable)
        if why:
            self.screen.line(f"  The real device shares this machine's network. {why}")
            if os.environ.get("CI"):
                raise NoOwnNetwork(
                    why, cure="Run the lab as root in CI: nothing is left out there."
                )
            return []
        here, ports = self.topology, self.topology.ports
        doors = [
            lab_network.Door(INTERNET, ports.tenant),
            lab_network.Door(INTERNET, ports.management),
            lab_network.Door(ON_PREMISES, ports.dns),
            lab_network.Door(ON_PREMISES, ports.dns, udp=True),
            *(lab_network.Door(host, ports.gateway) for host in gateway_hosts(here.instances)),
        ]
        file = self.folder / "network.sock"
        settings = self.write_settings(
            "network",
            {"socket": file, "doors": msgspec.to_builtins(doors), "logs": self.logs},
        )

        async def listens() -> bool:
            return file.exists()

        file.unlink(missing_ok=True)
        await self.supervisor.start(
            "network", self._command("lab", "network", "--config", settings), listens
        )
        starter = self._command("lab", "inside", "--config", settings, "--")
        return ["unshare", "--net", *starter]

    async def _directed(self, role: str) -> bool:
        try:
            return (await mdm.ask(self._control(role), "list")).ok
        except AppError:
            return False

    def _role_of(self, person: Person) -> str:
        return "agent" if person is self.real or person == self.real else "simulator"

    async def enroll(self, person: Person, manual: bool = False) -> mdm.Answer:
        """Have a person sign in on the device: join, and where it is offered, enrol."""
        control = self._control(self._role_of(person))
        return await mdm.ask(control, "enrol", person.device, manual=manual)

    async def sync(self, person: Person) -> None:
        await mdm.ask(self._control(self._role_of(person)), "sync", person.device)

    async def devices(self) -> dict[str, mdm.Status]:
        """The devices' own account, by name."""
        found: dict[str, mdm.Status] = {}
        for role in ("agent", "simulator"):
            answer = await mdm.ask(self._control(role), "list")
            found |= {status.name: status for status in answer.devices or []}
        return found

    # ------------------------------------------------------------------ ending

    async def adopt_gateways(self) -> None:
        """Gateways outlive the site, but not the lab: they are stopped with it."""
        with contextlib.suppress(AppError):
            for gateway in await asyncio.to_thread(self.site().get, "/api/v1/gateways"):
                for node in gateway["nodes"]:
                    if node["pid"]:
                        self.supervisor.adopt(f"gateway-{node['instance']}", node["pid"])

    async def end(self) -> None:
        self._ending = True
        if self._devices_up is not None:
            self._devices_up.cancel()
            with contextlib.suppress(asyncio.CancelledError, AppError):
                await self._devices_up
        await self.adopt_gateways()
        # The database last: the roles drain into it.
        others = [p.role for p in self.supervisor.processes if p.role != "postgresql"]
        first = [role for role in others if role.startswith(("simulator", "agent", "connector"))]
        # The doors of the agent's network stand open until it has gone.
        site = [role for role in others if role not in first]
        for roles in (first, site):
            await asyncio.gather(*(self.supervisor.stop(role) for role in roles))
        if self._postgresql is not None:
            await asyncio.to_thread(self._postgresql.stop)
        await self.supervisor.stop_all()

    def processes(self) -> list[dict[str, Any]]:
        """What runs, with the gateway's instances."""
        return [
            {"role": item.role, "pid": item.pid}
            for item in self.supervisor.processes
            if psutil.pid_exists(item.pid)
        ]


def _plain(value: Any) -> Any:
    """What TOML can hold: paths as text, nothing that is None."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items() if item is not None}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value
