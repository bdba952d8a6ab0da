"""Where instances of gateways live: one interface, this machine, and hosts that are reached by SSH.

A provider is asked for five things: is it usable, start an instance, give a running one another
certificate, how is it, end it. What is wanted of a gateway lies in the database; a provider keeps
nothing that could not be written anew.
"""

import asyncio
import contextlib
import os
import shutil
import signal
import socket
import subprocess
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import httpx
import msgspec
import psutil

from tandem.infra import config, net
from tandem.infra.errors import AppError, Kind
from tandem.infra.secrets import private_folder, write_private
from tandem.site.cloud_services.model import Check, CloudSettings, Gateway, GatewayInstance


class ProviderFault(AppError):
    """The provider cannot do what was asked of it, and says why."""

    kind, code = Kind.UNAVAILABLE, "gateway.provider"


@dataclass(frozen=True, slots=True)
class Work:
    """A gateway, and the files without which no instance of it runs."""

    gateway: Gateway
    files: dict[str, bytes]  # server.pfx, server.password, connector-ca.pem


@dataclass(frozen=True, slots=True)
class Seen:
    """An instance as it was found: running, starting or failed; `certificate` is the fingerprint of
    what it shows."""

    state: str
    reason: str = ""
    certificate: str = ""


class Provider(Protocol):
    @property
    def environment(self) -> str:
        """What the wizard calls it."""
        ...

    @property
    def regions(self) -> tuple[str, ...]: ...

    def hosts(self, region: str) -> tuple[str, ...]:
        """Addresses, one for each instance that can be there."""
        ...

    def place(self, gateway: Gateway, number: int, host: str) -> GatewayInstance: ...

    async def test(self, hosts: Sequence[str]) -> list[Check]:
        """What an instance on these hosts needs, tried. Nothing is left behind."""
        ...

    async def start(self, work: Work, item: GatewayInstance) -> GatewayInstance:
        """Start it unless it runs. Raises ProviderFault, OSError."""
        ...

    async def renew(self, work: Work, item: GatewayInstance) -> None:
        """Let a running instance read its certificate anew. Raises ProviderFault, OSError."""
        ...

    async def look(self, item: GatewayInstance, seconds: float) -> Seen:
        """Raises ProviderFault when it cannot be asked."""
        ...

    async def end(self, item: GatewayInstance) -> None:
        """Until its requests are answered, and at most a few seconds. Raises ProviderFault."""
        ...

    async def remove(self, item: GatewayInstance) -> None:
        """What belongs to this instance alone, once it has ended. Raises ProviderFault."""
        ...

    async def forget(self, gateway: Gateway) -> None:
        """What is left of a gateway that has no instance any more."""
        ...


def instance_settings(
    gateway: Gateway, item: GatewayInstance, *, folder: Path, state: Path, health_host: str,
    workers: int, logs: Path | None,
) -> bytes:  # fmt: skip
    """What `tandem gateway run --config` reads. Its secrets lie in files beside it."""
    table: dict[str, Any] = {
        "service_name": gateway.service_name,
        "instance": item.instance,
        "host": item.host,
        "port": item.port,
        "tunnel_port": item.tunnel_port,
        "health": f"{health_host}:{item.health_port}",
        "pfx": str(folder / "server.pfx"),
        "pfx_password_file": str(folder / "server.password"),
        "connector_ca": str(folder / "connector-ca.pem"),
        "connection_id": gateway.connection_id,
        "state": str(state),
        "workers": workers,
    }
    if logs is not None:
        table["logs"] = str(logs)
    return config.toml(table).encode()


class Facts(msgspec.Struct):
    """Of what an instance says of itself at /readyz: the part that counts here."""

    certificate: str = ""


def facts_of(content: bytes) -> Facts:
    with contextlib.suppress(msgspec.DecodeError, msgspec.ValidationError):
        return msgspec.json.decode(content, type=Facts)
    return Facts()


class Local:
    """Processes of this machine that outlive the site, on addresses from its settings."""

    def __init__(
        self, settings: Callable[[], CloudSettings], logs: Path | None, command: Sequence[str]
    ) -> None:
        self._settings = settings
        self._logs = logs
        self._command = command

    @property
    def environment(self) -> str:
        return self._settings().environment.name

    @property
    def regions(self) -> tuple[str, ...]:
        return self._settings().gateway.regions

    def hosts(self, region: str) -> tuple[str, ...]:
        return self._settings().gateway.hosts

    def place(self, gateway: Gateway, number: int, host: str) -> GatewayInstance:
        here = self._settings().gateway
        return GatewayInstance(
            gateway.service_name,
            number,
            host,
            here.port,
            here.tunnel_port + number - 1,
            here.health_port + here.hosts.index(host),
        )

    async def test(self, hosts: Sequence[str]) -> list[Check]:
        here = self._settings().gateway
        return [_bindable(host, port) for host in hosts for port in (here.port, here.tunnel_port)]

    def _folder(self, service_name: str) -> Path:
        return self._settings().folder / service_name

    async def start(self, work: Work, item: GatewayInstance) -> GatewayInstance:
        self._write(work)
        if process_of(item) is not None:
            return item
        folder = self._folder(item.service_name)
        path = folder / f"instance-{item.instance}.toml"
        here = self._settings().gateway
        written = instance_settings(
            work.gateway,
            item,
            folder=folder,
            state=private_folder(folder / f"instance-{item.instance}"),
            health_host=here.health_host,
            workers=here.workers,
            logs=self._logs,
        )
        write_private(path, written)
        command = [*self._command, "--config", str(path)]
        pid = await asyncio.to_thread(_find, command)
        if pid is None:
            pid = await asyncio.to_thread(_start, command, self._output(item))
        started = psutil.Process(pid).create_time()
        return replace(item, pid=pid, started=started, state="starting", reason="")

    def _write(self, work: Work) -> None:
        folder = private_folder(self._folder(work.gateway.service_name))
        for name, content in work.files.items():
            write_private(folder / name, content)

    async def renew(self, work: Work, item: GatewayInstance) -> None:
        self._write(work)
        process = process_of(item)
        if process is not None:
            with contextlib.suppress(psutil.Error):
                process.send_signal(signal.SIGHUP)

    async def look(self, item: GatewayInstance, seconds: float) -> Seen:
        if process_of(item) is None:
            return Seen("failed", self._last_words(item))
        url = f"http://{self._settings().gateway.health_host}:{item.health_port}/readyz"
        try:
            async with net.plain_client(timeout=seconds) as client:
                answer = await client.get(url)
        except httpx.HTTPError:
            return Seen("starting", "It does not answer yet.")
        # Without a tunnel it is not ready for clients (503), and running all the same.
        return Seen("running", certificate=facts_of(answer.content).certificate)

    def _output(self, item: GatewayInstance) -> Path:
        return self._folder(item.service_name) / f"instance-{item.instance}.out"

    def _last_words(self, item: GatewayInstance) -> str:
        with contextlib.suppress(OSError):
            lines = self._output(item).read_text("utf-8", "replace").strip().splitlines()
            if lines:
                return f"The process ended: {' '.join(lines[-2:])}"[:400]
        return "The process ended and said nothing."

    async def end(self, item: GatewayInstance) -> None:
        process = process_of(item)
        if process is None:
            return
        with contextlib.suppress(psutil.Error):
            process.send_signal(signal.SIGTERM)
        deadline = asyncio.get_running_loop().time() + _END_SECONDS
        while process_of(item) is not None and asyncio.get_running_loop().time() < deadline:
            await asyncio.sleep(0.05)
        with contextlib.suppress(psutil.Error):
            if process_of(item) is not None:
                process.kill()

    async def remove(self, item: GatewayInstance) -> None:
        return None  # The next one by its number goes on with its folder.

    async def forget(self, gateway: Gateway) -> None:
        await asyncio.to_thread(
            shutil.rmtree, self._folder(gateway.service_name), ignore_errors=True
        )


_END_SECONDS = 8.0


def _bindable(host: str, port: int) -> Check:
    text = f"{host}:{port} is free"
    try:
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as one:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            one.bind((host, port))
    except OSError as error:
        return Check(
            text,
            False,
            f"{host}:{port} cannot be listened on: {error.strerror}.",
            "Stop what holds this address, give this machine the address, or change gateway.hosts"
            " in the site's settings.",
        )
    return Check(text, True)


def process_of(item: GatewayInstance) -> psutil.Process | None:
    """The instance's process, if it is still the same one."""
    if item.pid is None or item.started is None:
        return None
    try:
        process = psutil.Process(item.pid)
        same = abs(process.create_time() - item.started) < 1.0
        alive = process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return None
    return process if same and alive else None


def _find(command: Sequence[str]) -> int | None:
    """A process that runs this command: a site that was killed before it could write down the
    number of what it had just started finds it so."""
    wanted = list(command[1:])
    for process in psutil.process_iter(["cmdline", "uids"]):
        arguments = process.info["cmdline"] or []
        if arguments[1:] == wanted and process.info["uids"].real == os.getuid():
            return int(process.pid)
    return None


def _start(command: Sequence[str], output: Path) -> int:
    """Start an instance in a session of its own: it outlives this process."""
    with output.open("wb") as file:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            start_new_session=True,
            close_fds=True,
        )
    _reap(process)
    return process.pid


def _reap(process: "subprocess.Popen[bytes]") -> None:
    """Collect the exit status of a child, so a dead instance does not stay as a zombie."""
    threading.Thread(target=process.wait, daemon=True).start()
