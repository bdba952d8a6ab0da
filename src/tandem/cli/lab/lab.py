"""One lab: its folder, its processes, and how it begins, goes on and ends."""

import asyncio
import sys
import time
from pathlib import Path
from typing import Any

import msgspec

from tandem.cli.lab import topology
from tandem.cli.lab.commands import Commands
from tandem.cli.lab.report import ExpectedRefusal, Screen, StepReport
from tandem.cli.lab.supervisor import Supervisor, answers
from tandem.cli.lab.topology import ON_PREMISES, Timers, Topology
from tandem.infra import config
from tandem.infra.database import Embedded
from tandem.infra.errors import AppError, Kind
from tandem.infra.secrets import private_folder, write_private


class AnotherLab(AppError):
    kind, code = Kind.CONFLICT, "lab.another"


class Progress(msgspec.Struct):
    """What an interrupted or stopped lab goes on from."""

    devices: int
    cadence: str
    instances: int
    steps: list[StepReport] = []
    refusals: list[ExpectedRefusal] = []
    seconds: float = 0.0  # How long the steps took, over all starts.
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
        self.secrets = private_folder(self.folder / "secrets")
        self.settings = private_folder(self.folder / "settings")
        self.topology: Topology = topology.load(self.folder, devices, instances)
        self.timers = Timers.of(cadence)
        self.supervisor = Supervisor(self.folder, self.logs)
        self.commands = Commands()
        self.begun = time.monotonic()
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
        path = self.secrets / name
        if not path.exists() or path.read_text() != secret:
            write_private(path, secret.encode())
        return path

    @property
    def admin_password_file(self) -> Path:
        return self.secret_file("tenant-admin", self.topology.admin.password)

    @property
    def site_password_file(self) -> Path:
        return self.secret_file("site-admin", self.topology.site_admin.password)

    @property
    def ca_file(self) -> Path:
        return self.folder / "contoso-trust.pem"

    @property
    def public_root(self) -> Path:
        return self.folder / "public-root.pem"

    # The roles.

    async def begin(self) -> None:
        """Start what does not depend on the tutorial's steps: databases, aids, tenant and site."""
        left = await self.supervisor.stop_leftovers()
        if left:
            self.screen.line(f"  Stopped {left} processes that an earlier lab had left behind.")
        await asyncio.gather(self._start_postgresql(), self._start_ca(), self._start_dns())
        await asyncio.gather(self._start_tenant(), self._start_site())
        await self._sign_in()

    async def _start_postgresql(self) -> None:
        self._postgresql = await asyncio.to_thread(Embedded.start, self.folder / "pg")
        if self._postgresql.pid is not None:
            self.supervisor.adopt("postgresql", self._postgresql.pid)

    def _dsn(self, database: str) -> str:
        assert self._postgresql is not None
        return self._postgresql.dsn(database)

    def write_settings(self, name: str, table: dict[str, Any]) -> Path:
        path = self.settings / f"{name}.toml"
        plain = {key: _plain(value) for key, value in table.items() if value is not None}
        write_private(path, config.toml(plain).encode())
        return path

    def command(self, *words: str) -> list[str]:
        return [sys.executable, "-m", "tandem.cli", *words]

    async def _start_ca(self) -> None:
        ports = self.topology.ports
        settings = self.write_settings(
            "public-ca",
            {
                "state": self.folder / "public-ca",
                "host": ON_PREMISES,
                "port": ports.ca,
                "logs": self.logs,
            },
        )
        await self.supervisor.start(
            "public-ca",
            self.command("lab", "public-ca", "--config", str(settings)),
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
            self.command("lab", "dns", "--config", str(settings)),
            lambda: answers(f"http://{ON_PREMISES}:{ports.dns_control}/readyz"),
        )
