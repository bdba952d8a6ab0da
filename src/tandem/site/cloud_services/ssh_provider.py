"""Instances on hosts with systemd, reached by SSH (RFC 4251 to 4254).

Of each host its key is known beforehand and nothing else is believed; the site proves itself by a key
in a file. Contents go through the standard input of a command, so no secret is an argument of anything.
What an instance says of its health comes back through the same connection: its health port is open
to its own host alone.
"""

import asyncio
import contextlib
import re
import shlex
import stat
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path, PurePosixPath

import asyncssh

from tandem.infra.logs import get_logger
from tandem.site.cloud_services.model import (
    Check,
    Gateway,
    GatewayInstance,
    GatewaySettings,
    SshHost,
    SshSettings,
)
from tandem.site.cloud_services.providers import (
    ProviderFault,
    Seen,
    Work,
    facts_of,
    instance_settings,
)
from tandem.site.cloud_services.units import Unit, unit, unit_name

log = get_logger("gateways")

_UNITS = PurePosixPath("/etc/systemd/system")
# All or nothing, and never readable by others: the file appears with its owner and its mode.
_WRITE = 'umask 077 && cat > "$1.new" && chown "$2" "$1.new" && chmod "$3" "$1.new" && mv -fT "$1.new" "$1"'
_LIFTED = 240  # The first systemd that knows every line of the unit (Type=exec, ProtectHostname).
_MOST_WORDS = 400
_MOST_BYTES = 65_536


class Ssh:
    """The hosts of one environment."""

    def __init__(self, settings: SshSettings, gateways: GatewaySettings) -> None:
        self._settings = settings
        self._gateways = gateways
        self._hosts = {host.address: _Host(host, settings) for host in settings.hosts}
        self._folder = PurePosixPath(settings.folder)

    @property
    def environment(self) -> str:
        return self._settings.environment

    @property
    def regions(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(host.region for host in self._settings.hosts))

    def hosts(self, region: str) -> tuple[str, ...]:
        return tuple(host.address for host in self._settings.hosts if host.region == region)

    def place(self, gateway: Gateway, number: int, host: str) -> GatewayInstance:
        here = self._gateways
        return GatewayInstance(
            gateway.service_name,
            number,
            host,
            here.port,
            here.tunnel_port + number - 1,
            here.health_port,
            environment=self.environment,
        )

    async def aclose(self) -> None:
        for host in self._hosts.values():
            await host.aclose()

    def _host(self, item: GatewayInstance) -> "_Host":
        try:
            return self._hosts[item.host]
        except KeyError:
            raise ProviderFault(
                f"The settings name no host {item.host} in {self.environment}.",
                cure="Name it in the site's settings again, or redeploy the gateway.",
            ) from None

    # -------------------------------------------------------------- the wizard's "Next"

    async def test(self, hosts: Sequence[str]) -> list[Check]:
        """Every host by itself, all at once: which of them fails, and what to do there."""
        found = await asyncio.gather(*(self._test(self._hosts[host]) for host in hosts))
        return [check for checks in found for check in checks]

    async def _test(self, host: "_Host") -> list[Check]:
        name, here = host.name, self._settings
        reached = f"{name} is reached, with its key and ours"
        try:
            async with host.connection():
                pass
        except ProviderFault as fault:
            return [Check(reached, False, fault.message, fault.cure)]
        account, program, port = here.account, here.program, self._gateways.port
        checks = [
            Check(reached, True),
            await self._try(
                host,
                f"{name}: {host.settings.user} may manage services",
                ("test", "-w", str(_UNITS)),
                f"{host.settings.user} cannot write to {_UNITS} on {name}.",
                "Let the site sign in as root, or let this account use sudo without a password.",
            ),
            await self._systemd(host),
            await self._try(
                host,
                f"{name}: the account {account} is there",
                ("id", "-u", account),
                f"{name} has no account {account}, as which gateways run.",
                f"On {name}: useradd --system --shell /usr/sbin/nologin --user-group {account}",
            ),
            await self._try(
                host,
                f"{name}: {program} is there",
                (program, "gateway", "run", "--help"),
                f"{program} cannot be run on {name}.",
                f"Install Tandem there: python3 -m venv {PurePosixPath(program).parents[1]}, then"
                " its pip install tandem.",
            ),
            await self._free(host, port),
        ]
        return checks

    async def _try(
        self, host: "_Host", text: str, command: Sequence[str], reason: str, cure: str
    ) -> Check:
        try:
            await host.run(*command)
        except ProviderFault as fault:
            said = fault.details.get("said")
            return Check(text, False, f"{reason} {said}".strip() if said else reason, cure)
        return Check(text, True)

    async def _systemd(self, host: "_Host") -> Check:
        text = f"{host.name}: systemd {_LIFTED} or later"
        cure = "Take a host whose services systemd runs, like Debian 10 or later."
        try:
            said = await host.run("systemctl", "--version")
        except ProviderFault as fault:
            return Check(text, False, fault.message, cure)
        number = re.match(r"systemd (\d+)", said)
        if number is None or int(number[1]) < _LIFTED:
            return Check(text, False, f"{host.name} has {said.splitlines()[0][:80]!r}.", cure)
        return Check(text, True)

    async def _free(self, host: "_Host", port: int) -> Check:
        text = f"{host.name}: port {port} is free"
        try:
            said = await host.run("ss", "-Hltn", f"sport = :{port}")
        except ProviderFault as fault:
            return Check(text, False, fault.message, "Install iproute2 there.")
        if said.strip():
            return Check(
                text,
                False,
                f"Something listens on port {port} of {host.name} already.",
                f"Stop it; `ss -ltnp 'sport = :{port}'` there names it.",
            )
        return Check(text, True)

    # -------------------------------------------------------------- the life of an instance

    async def start(self, work: Work, item: GatewayInstance) -> GatewayInstance:
        """Bring files and unit, let systemd check the unit, and start it; one that runs goes on."""
        host, made = self._host(item), self._unit(work.gateway, item)
        await self._bring(host, made, work, item)
        await host.write(_UNITS / made.name, made.text.encode(), "root", 0o644)
        # It says what it would not understand, where starting would pass over it.
        await host.run("systemd-analyze", "verify", "--man=no", str(_UNITS / made.name))
        await host.run("systemctl", "daemon-reload")
        await host.run("systemctl", "enable", "--now", made.name)
        return replace(item, state="starting", reason="")

    def _unit(self, gateway: Gateway, item: GatewayInstance) -> Unit:
        here = self._settings
        return unit(gateway, item, folder=self._folder, program=here.program, account=here.account)

    async def _bring(self, host: "_Host", made: Unit, work: Work, item: GatewayInstance) -> None:
        account = self._settings.account
        state = made.folder / "state"
        await host.run("install", "-d", "-m", "755", str(self._folder))
        for folder in (made.folder, state):
            await host.run("install", "-d", "-m", "700", "-o", account, "-g", account, str(folder))
        written = instance_settings(
            work.gateway,
            item,
            folder=Path(made.folder),
            state=Path(state),
            health_host="127.0.0.1",
            workers=self._gateways.workers,
            logs=Path(state / "logs"),
        )
        for name, content in {**work.files, "instance.toml": written}.items():
            await host.write(made.folder / name, content, account, 0o600)

    async def renew(self, work: Work, item: GatewayInstance) -> None:
        host, made = self._host(item), self._unit(work.gateway, item)
        await self._bring(host, made, work, item)
        await host.run("systemctl", "reload", made.name)

    async def look(self, item: GatewayInstance, seconds: float) -> Seen:
        host, name = self._host(item), unit_name(item)
        said = await host.run(
            "systemctl", "show", "-p", "ActiveState", "-p", "SubState", "-p", "Result", name
        )
        facts = dict(line.partition("=")[::2] for line in said.splitlines())
        state, sub = facts.get("ActiveState", ""), facts.get("SubState", "")
        # One that ended is started again by systemd; until it stays, it is one that ended.
        if state not in {"active", "activating", "reloading"} or sub == "auto-restart":
            words = await self._last_words(host, name)
            return Seen("failed", f"{name} is {sub or state or 'not there'}. {words}".strip())
        try:
            async with asyncio.timeout(seconds):
                content = await host.ask(item.health_port, "/readyz")
        except (TimeoutError, ProviderFault):
            return Seen("starting", "It does not answer yet.")
        return Seen("running", certificate=facts_of(content).certificate)

    async def _last_words(self, host: "_Host", name: str) -> str:
        with contextlib.suppress(ProviderFault):
            said = await host.run(
                "journalctl", f"_SYSTEMD_UNIT={name}", "-n", "3", "--no-pager", "-o", "cat"
            )
            return " ".join(said.split())[:_MOST_WORDS]
        return ""

    async def end(self, item: GatewayInstance) -> None:
        host, name = self._host(item), unit_name(item)
        if await host.has(_UNITS / name):
            await host.run("systemctl", "disable", "--now", name)

    async def remove(self, item: GatewayInstance) -> None:
        host, name = self._host(item), unit_name(item)
        await host.run("rm", "-f", str(_UNITS / name))
        await host.run("rm", "-rf", str(self._folder / name.removesuffix(".service")))
        await host.run("systemctl", "daemon-reload")

    async def forget(self, gateway: Gateway) -> None:
        return None  # Nothing lies where no instance is.


class _Host:
    """One host, and a connection to it that is kept while it holds."""

    def __init__(self, settings: SshHost, of: SshSettings) -> None:
        self.settings = settings
        self._of = of
        self._lock = asyncio.Lock()
        self._held: asyncssh.SSHClientConnection | None = None

    @property
    def name(self) -> str:
        return self.settings.ssh_host or self.settings.address

    def close(self) -> None:
        if self._held is not None:
            self._held.close()
            self._held = None

    async def aclose(self) -> None:
        """At once: what the host says of the end is of no use to anybody."""
        if (held := self._held) is not None:
            self._held = None
            held.abort()
            await held.wait_closed()

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[asyncssh.SSHClientConnection]:
        """Raises ProviderFault."""
        async with self._lock:
            if self._held is None or self._held.is_closed():
                self._held = await self._connect()
            held = self._held
        try:
            yield held
        except (asyncssh.ConnectionLost, asyncssh.DisconnectError, OSError) as error:
            self.close()
            raise ProviderFault(
                f"The connection to {self.name} broke: {error}.",
                cure="Look whether the host runs; it is tried again within a minute.",
            ) from None

    async def _connect(self) -> asyncssh.SSHClientConnection:
        key = _private(self._of.key)
        try:
            pinned = asyncssh.import_public_key(self.settings.host_key)
        except asyncssh.KeyImportError as error:
            raise ProviderFault(
                f"The host key of {self.name} in the settings cannot be read: {error}.",
                cure=f"Write it as `ssh-keyscan {self.name}` shows it: its kind and its base64.",
            ) from None
        try:
            return await asyncssh.connect(
                self.name,
                self.settings.port,
                username=self.settings.user,
                # Only what is said here counts: no agent, no settings of the account.
                config=None,
                agent_path=None,
                client_keys=[key],
                preferred_auth="publickey",
                known_hosts=([pinned], [], []),
                connect_timeout=self._of.seconds,
                login_timeout=self._of.seconds,
                keepalive_interval=30,
            )
        except asyncssh.HostKeyNotVerifiable:
            raise ProviderFault(
                f"{self.name} shows another host key than the one in the settings: it is not"
                " believed, and got nothing from us.",
                cure="If the host was installed anew, compare the new key on its own screen, and"
                " write it into host_key.",
            ) from None
        except asyncssh.PermissionDenied:
            raise ProviderFault(
                f"{self.name} does not let {self.settings.user} in with the key {self._of.key}.",
                cure=f"Add its public part to authorized_keys of {self.settings.user} there.",
            ) from None
        except (OSError, asyncssh.Error, TimeoutError) as error:
            raise ProviderFault(
                f"{self.name} is not reached by SSH on port {self.settings.port}:"
                f" {str(error) or 'it does not answer'}.",
                cure="Look whether the host runs, and whether a firewall is between it and the site.",
            ) from None

    async def run(self, *command: str, content: bytes = b"") -> str:
        """What the command prints. Raises ProviderFault with its own words."""
        if self.settings.user != "root":
            command = ("sudo", "-n", *command)
        line = shlex.join(command)
        try:
            async with self.connection() as connection:
                ended = await connection.run(
                    line, input=content, encoding=None, timeout=self._of.seconds
                )
        except asyncssh.TimeoutError:
            raise ProviderFault(
                f"{self.name} did not finish {command[0]} in {self._of.seconds:.0f} seconds.",
                cure="Look how busy the host is.",
            ) from None
        except asyncssh.ChannelOpenError as error:
            raise ProviderFault(f"{self.name} runs no command: {error.reason}.") from None
        if ended.exit_status != 0:
            said = " ".join(_text(ended.stderr).split() or _text(ended.stdout).split())
            tool = next(word for word in command if word not in {"sudo", "-n"})
            raise ProviderFault(
                f"{tool} on {self.name} failed: {said[:_MOST_WORDS] or ended.exit_status}",
                cure="Correct it on the host.",
                said=said[:_MOST_WORDS],
            )
        return _text(ended.stdout)

    async def write(self, path: PurePosixPath, content: bytes, owner: str, mode: int) -> None:
        await self.run("sh", "-c", _WRITE, "sh", str(path), owner, f"{mode:o}", content=content)

    async def has(self, path: PurePosixPath) -> bool:
        said = await self.run("sh", "-c", 'test -e "$1" && echo yes || true', "sh", str(path))
        return said.strip() == "yes"

    async def ask(self, port: int, path: str) -> bytes:
        """The body of an answer over HTTP on the host's own loopback. Raises ProviderFault."""
        try:
            async with self.connection() as connection:
                reader, writer = await connection.open_connection("127.0.0.1", port)
                writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
                async with asyncio.timeout(self._of.seconds):
                    answer = await _read(reader)
                writer.close()
        except asyncssh.ChannelOpenError as error:
            raise ProviderFault(f"Port {port} of {self.name}: {error.reason}.") from None
        return bytes(answer.partition(b"\r\n\r\n")[2])


async def _read(reader: "asyncssh.SSHReader[bytes]") -> bytes:
    """Until the other end has no more to say, and no more than an answer about health can be."""
    found = bytearray()
    while len(found) < _MOST_BYTES and (piece := await reader.read(_MOST_BYTES)):
        found += piece
    return bytes(found)


def _private(path: Path) -> str:
    """The key's file, when only its owner reads it. Raises ProviderFault."""
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
    except OSError as error:
        raise ProviderFault(
            f"The key {path} cannot be read: {error.strerror}.",
            cure="Check key in the settings of the provider.",
        ) from None
    if mode & 0o077:
        raise ProviderFault(
            f"Others can read the key {path}: it is not used.", cure=f"chmod 600 {path}"
        )
    return str(path)


def _text(output: bytes | str | None) -> str:
    return output.decode("utf-8", "replace") if isinstance(output, bytes) else str(output or "")
