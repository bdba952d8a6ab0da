"""One instance of a gateway: its listening sockets, its workers, its configuration."""

import asyncio
import contextlib
import ctypes
import os
import secrets
import signal
import socket
import ssl
import sys
import time
from pathlib import Path
from typing import Any

import msgspec
from cryptography import x509
from prometheus_client import Gauge

from tandem import pki
from tandem.gateway import health
from tandem.gateway.carriers import Doors
from tandem.gateway.counts import COUNTED, Teller, by_endpoint
from tandem.gateway.desk import Desk
from tandem.gateway.gate import Gate
from tandem.gateway.handshakes import Handshakes
from tandem.gateway.listener import BACKLOG, Listener
from tandem.gateway.model import GatewaySettings
from tandem.gateway.ocsp import Responders
from tandem.gateway.origin import Origin
from tandem.gateway.relay import Client, Front
from tandem.gateway.service_log import ServiceLog
from tandem.gateway.shelf import Shelf
from tandem.gateway.tunnels import Tunnel, Tunnels, tunnel_context
from tandem.infra import logs
from tandem.infra.errors import AppError, Kind
from tandem.infra.logs import get_logger
from tandem.infra.process import run_role, settle
from tandem.infra.secrets import private_folder, write_private
from tandem.protocols import cmtrace
from tandem.protocols.tunnel import Carrier, Configuration, GatewayHello, Told

log = get_logger("gateway")

_CONNECTED = Gauge("gateway_tunnels", "Tunnels that connection points hold to this worker")
_CLIENTS = Gauge("gateway_connections", "Connections of clients that are open")
_ONLINE = Gauge("gateway_online_clients", "Requests that wait for news at the site")
_RESTART_SECONDS = 0.5
# When the instance ends: until the site has what was counted last. Without an answer it is lost.
_LAST_WORD_SECONDS = 2.0
_MOST_CONTEXTS = 4
_PR_SET_PDEATHSIG = 1  # <linux/prctl.h>


_HANDSHAKES = (
    "TLS connections that ended before they began: clients that went away or speak something else, or"
    " whose certificate is not of an uploaded authority, not valid now or not for clients."
)


def _failed(context: ssl.SSLContext) -> int:
    stats = context.session_stats()
    return stats["accept"] - stats["accept_good"]


class _ClientContext(ssl.SSLContext):
    """For the certificates of clients, which nobody here reads out of `peercert`.

    At every handshake aiofastnet (1.2) writes the certificate to a temporary file and makes a
    dictionary of it, a fifth of what the handshake costs, unless `verify_mode` says that nothing is
    verified. OpenSSL does not ask this attribute: it goes by what was set.
    """

    @property  # type: ignore[override]
    def verify_mode(self) -> ssl.VerifyMode:
        return ssl.CERT_NONE

    @verify_mode.setter
    def verify_mode(self, value: ssl.VerifyMode) -> None:
        ssl.SSLContext.verify_mode.__set__(self, value)  # type: ignore[attr-defined]


class CannotStart(AppError):
    kind, code = Kind.UNAVAILABLE, "gateway.cannot-start"


def run(settings: GatewaySettings) -> None:
    """Serve until SIGTERM. With several workers this process is their parent and only that."""
    private_folder(settings.state)
    # To be told of another certificate before there is anything to show is no reason to end.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    certificate, key = _certificate(settings)
    front, tunnel = (
        _listen(settings.host, settings.port),
        _listen(settings.host, settings.tunnel_port),
    )
    if settings.workers <= 1:
        logs.configure(f"gateway-{settings.instance}", settings.logs)
        _work(settings, certificate, key, front, tunnel, worker=1)
        return
    _keep_workers(settings, certificate, key, front, tunnel)


def _certificate(settings: GatewaySettings) -> tuple[Path, Path]:
    """Chain and key out of the PFX, as files that only this user reads. Raises CannotStart, and
    what a PFX can be refused for."""
    try:
        data = settings.pfx.read_bytes()
        password = settings.pfx_password_file.read_text("utf-8").rstrip("\n")
    except OSError as error:
        raise CannotStart(
            f"The gateway's certificate cannot be read: {error}.",
            cure="Check pfx and pfx_password_file in the settings.",
        ) from None
    pfx = pki.pfx_open(data, password)
    chain, key = settings.state / "chain.pem", settings.state / "server.key"
    # The root is the clients' to have; sending it costs every handshake.
    above = [c for c in pfx.chain if c.issuer != c.subject]
    write_private(chain, pki.pem(pfx.certificate, *above))
    write_private(key, pki.key_pem(pfx.key))
    return chain, key


def _read_again(settings: GatewaySettings) -> bool:
    """Whether another certificate lies ready now; what cannot be used leaves the one before."""
    try:
        _certificate(settings)
    except AppError as error:
        log.error("certificate not renewed", reason=error.message)
        return False
    return True


def _listen(host: str, port: int) -> socket.socket:
    """A listening socket that workers inherit: a restarted worker drops no queued connection."""
    made = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        made.bind((host, port))
    except OSError as error:
        raise CannotStart(
            f"{host}:{port} cannot be listened on: {error.strerror}.",
            cure="Stop what holds this address, or change it in the settings.",
        ) from None
    made.listen(BACKLOG)
    made.setblocking(False)
    return made


def _work(
    settings: GatewaySettings,
    certificate: Path,
    key: Path,
    front: socket.socket,
    tunnel: socket.socket,
    worker: int,
) -> None:
    made = Worker(settings, certificate, key, front, tunnel, worker)
    run_role(made.main)


def _ends_with(parent: int) -> bool:
    """Be told to end when the parent dies: its workers would go on to hold the instance's ports, and
    whoever takes its place would not come up. False when it is dead already."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGTERM))
    return os.getppid() == parent


def _keep_workers(
    settings: GatewaySettings,
    certificate: Path,
    key: Path,
    front: socket.socket,
    tunnel: socket.socket,
) -> None:
    """Fork the workers and start again whichever ends, until SIGTERM."""
    children: dict[int, int] = {}
    stopping = False
    parent = os.getpid()

    def stop(*_: Any) -> None:
        nonlocal stopping
        stopping = True
        # Whoever dials now is to go elsewhere at once, and not to wait for nobody.
        front.close()
        tunnel.close()
        for pid in children:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)

    def renew(*_: Any) -> None:
        """Once for all workers: each reads the files that this leaves."""
        if not stopping and _read_again(settings):
            for pid in children:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGHUP)

    def fork(worker: int) -> None:
        pid = os.fork()
        if pid:
            children[pid] = worker
            return
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        if not _ends_with(parent):
            sys.exit(1)
        # Until it listens for it itself a worker is not ended by it: it reads the newest anyway.
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        logs.configure(f"gateway-{settings.instance}", settings.logs)
        _work(settings, certificate, key, front, tunnel, worker)
        sys.exit(0)

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    signal.signal(signal.SIGHUP, renew)
    for number in range(1, settings.workers + 1):
        fork(number)
    while children:
        begun = time.monotonic()
        pid, _ = os.wait()
        number = children.pop(pid, 0)
        if number and not stopping:
            # One that cannot start must not keep a core busy.
            time.sleep(max(0.0, _RESTART_SECONDS - (time.monotonic() - begun)))
            if not stopping:
                fork(number)


class Worker:
    """One process of an instance."""

    def __init__(
        self,
        settings: GatewaySettings,
        certificate: Path,
        key: Path,
        front: socket.socket,
        tunnel: socket.socket,
        number: int,
    ) -> None:
        self._settings = settings
        self._certificate = str(certificate)
        self._key = str(key)
        self._front_socket = front
        self._tunnel_socket = tunnel
        self._name = f"{number}-{os.getpid()}"
        self._number = number
        self._kept = settings.state / "configuration.json"
        self._kept_from = settings.state / "configuration.from"
        self._clients: Listener | None = None
        # Of clients, the one in use last. OpenSSL counts what came by each; those of trust that was
        # changed often are counted together.
        self._contexts: list[ssl.SSLContext] = []
        self._failed_before = 0
        self._failures_told = 0
        self._handshakes = Handshakes()
        self._alarms: dict[tuple[str, str], pki.RevocationAlarm] = {}
        self._dialling: Listener | None = None  # For connection points.
        self._shown = self._fingerprint()
        self._service_log = ServiceLog(
            settings.logs, settings.service_name, settings.instance, number
        )
        self._teller = Teller(secrets.token_hex(8), self._described)

    async def main(self, stop: asyncio.Event) -> None:
        self._loop = asyncio.get_running_loop()
        self._tunnels = Tunnels(lambda: self._front.gate.configuration.limits)
        self._responders = Responders(lambda der: self._front.doubt(der))
        self._front = Front(
            self._tunnels, self._last_gate(), self._settings.connection_id, self._name
        )
        self._tunnels.told = self._told
        self._desk = self._front.desk = self._open_desk()
        self._desk.configure(self._front.gate.configuration)
        self._tell_alarms()
        self._loop.add_signal_handler(signal.SIGHUP, self._renew)
        counting = self._loop.create_task(self._count_always())
        sweeping = self._loop.create_task(self._front.sweep_always())
        asking = self._loop.create_task(self._responders.look_always(self._shown_by_clients))
        answering = self._loop.create_task(self._front.answers.run())
        telling = self._loop.create_task(self._tell_content())
        self._serve_clients()
        self._serve_tunnels()
        probe: asyncio.Server | None = None
        if self._number == 1:
            probe = await health.serve(self._settings.health, self._ready)
        settle()
        log.info("ready", instance=self._settings.instance, worker=self._name)
        await stop.wait()
        # Whoever dials now reaches the one that takes this one's place.
        assert self._clients is not None
        assert self._dialling is not None
        self._dialling.stop()
        self._clients.stop()
        clients = self._clients
        await self._front.drain(self._settings.drain_seconds, lambda: clients.arriving)
        counting.cancel()
        sweeping.cancel()
        asking.cancel()
        self._tell_failures()
        await self._responders.close()
        answering.cancel()
        await self._front.answers.end()
        telling.cancel()
        await asyncio.sleep(0)  # What the drain cut off is counted with the loss of its connection.
        self._count()
        await self._tell_last()
        self._desk.close()
        self._tunnels.close()
        if probe is not None:
            probe.close()
        await asyncio.sleep(0)

    def _open_desk(self) -> Desk:
        """Raises BadShelf."""
        settings = self._settings
        shelf = Shelf.open(
            settings.content or settings.state / "content", settings.content_options_file
        )
        origin = Origin(self._tunnels, settings.connection_id, self._front.new_id)
        made = Desk(shelf, settings.state / "content-locks", origin)
        made.alarm = self._alarm
        return made

    async def _tell_content(self) -> None:
        """The workers of an instance share a shelf: one of them speaks of it."""
        if self._number == 1:
            await self._desk.tell_always(self._settings.instance)

    def _alarm(self, name: str, text: str) -> None:
        self._service_log.say(f"{name}: {text}", cmtrace.WARNING)

    def _make_tunnel(self, carrier: Carrier = "tls") -> Tunnel:
        return Tunnel(
            self._tunnels, self._settings.connection_id, self._hello, self._configured, carrier
        )

    def _serve_clients(self) -> None:
        """Accept clients with the trust of the present configuration, instead of before."""
        context = self._client_context()
        if self._clients is None:
            self._clients = Listener(
                lambda: Client(self._front),
                self._front_socket,
                context,
                self._settings.fast_tls,
                self._handshakes.failed,
            )
        self._clients.context = context

    def _serve_tunnels(self) -> None:
        context = tunnel_context(self._certificate, self._key, str(self._settings.connector_ca))
        fast = self._settings.fast_tls
        self._front.doors = Doors(lambda: self._make_tunnel("https"), context, fast)
        if self._dialling is None:
            self._dialling = Listener(self._make_tunnel, self._tunnel_socket, context, fast)
        self._dialling.context = context

    def _renew(self) -> None:
        """SIGHUP: show another certificate from the next connection on. Those that are open stay."""
        if self._front.draining:
            return
        # With several workers their parent has read the PFX before it told them.
        if self._settings.workers <= 1 and not _read_again(self._settings):
            return
        self._serve_clients()
        self._serve_tunnels()
        self._shown = self._fingerprint()
        log.info("certificate renewed", instance=self._settings.instance, sha256=self._shown)

    def _fingerprint(self) -> str:
        leaf = x509.load_pem_x509_certificate(Path(self._certificate).read_bytes())
        return pki.sha256_fingerprint(leaf)

    def _client_context(self) -> ssl.SSLContext:
        context = _ClientContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.load_cert_chain(self._certificate, self._key)
        context.set_alpn_protocols(["http/1.1"])
        # A client must not make us work without asking anything.
        context.options |= ssl.OP_NO_RENEGOTIATION
        roots = self._front.gate.configuration.trusted_roots
        self._contexts.append(context)
        if len(self._contexts) > _MOST_CONTEXTS:
            self._failed_before += _failed(self._contexts.pop(0))
        if roots:
            # Asked for, not required: tokens and certificates share the port. Revocation is the
            # gate's, at every connection: a resumed session asks no list.
            context.load_verify_locations(cadata="\n".join(roots))
            context.verify_mode = ssl.CERT_OPTIONAL
            # An uploaded authority counts by itself: who uploads an issuing one without its root lets
            # in its clients and nobody else's.
            context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        return context

    def _last_gate(self) -> Gate:
        """With the rules from before a restart; without any it publishes nothing."""
        try:
            return self._gate(msgspec.json.decode(self._kept.read_bytes(), type=Configuration))
        except FileNotFoundError:
            pass
        except Exception:
            log.exception("what was kept cannot be used")
        return Gate(Configuration(0, self._settings.service_name, ""))

    def _gate(self, configuration: Configuration) -> Gate:
        self._responders.seconds = configuration.ocsp_seconds
        return Gate(configuration, responders=self._responders)

    def _shown_by_clients(self) -> set[bytes]:
        return {one.peer for one in self._front.connections if one.peer is not None}

    def _hello(self) -> GatewayHello:
        version = self._front.gate.configuration.version
        return GatewayHello(self._settings.instance, self._name, self._settings.workers, version)

    def _given_by(self) -> str:
        try:
            return self._kept_from.read_text("utf-8")
        except FileNotFoundError:
            return ""

    def _configured(self, configuration: Configuration, raw: bytes, giver: str) -> None:
        before = self._front.gate.configuration
        if configuration.version == before.version:
            return
        # A connection point that starts while the site is away brings what it kept, and others
        # have brought newer rules since. A site that was restored from a backup counts anew: it is
        # believed by the way that its last word came.
        if configuration.version < before.version and giver != self._given_by():
            log.warning("older configuration", given=configuration.version, connection_point=giver)
            return
        if configuration.service_name != self._settings.service_name:
            log.error("configuration of another gateway", given=configuration.service_name)
            return
        try:
            gate = self._gate(configuration)
        except Exception:
            # What was read says nothing that can be used: the rules from before stay.
            log.exception("configuration cannot be used", version=configuration.version)
            return
        self._front.swap(gate)
        self._desk.configure(configuration)
        self._tell_alarms()
        try:
            write_private(self._kept, raw)
            write_private(self._kept_from, giver.encode())
        except OSError as error:
            # These rules count; after a restart those of before would, until the site is heard.
            log.error(
                "configuration not kept", reason=error.strerror, version=configuration.version
            )
        log.info(
            "configured",
            version=configuration.version,
            endpoints=len(configuration.endpoints),
            tenants=len(configuration.tenants),
        )
        if configuration.trusted_roots != before.trusted_roots:
            try:
                self._serve_clients()
            except (OSError, ssl.SSLError):
                log.exception("roots cannot be used", version=configuration.version)

    def _tell_alarms(self) -> None:
        """Revocation lists that are missing, over or nearly so: once each, and again when it ends."""
        found = {(str(one.alarm), one.authority): one for one in self._front.gate.alarms()}
        for key in self._alarms.keys() - found.keys():
            log.info("alarm over", alarm=key[0], authority=key[1])
        for key in found.keys() - self._alarms.keys():
            log.warning("alarm", alarm=key[0], authority=key[1], text=found[key].text)
            self._alarm(key[0], f"{found[key].text} {found[key].cure}")
        self._alarms = found

    def _failed_handshakes(self) -> int:
        """Since the worker began, with those that are under way. TLS says no more about them to us
        than to the clients: it closes the connection."""
        return self._failed_before + sum(_failed(context) for context in self._contexts)

    def _tell_failures(self) -> None:
        failed = self._failed_handshakes()
        new, self._failures_told = failed - self._failures_told, failed
        if new > 0:
            causes = self._handshakes.take()
            log.warning("handshakes failed", count=new, causes=causes, text=_HANDSHAKES)
            said = ", ".join(f"{cause}: {count}" for cause, count in causes.items())
            text = f"TLS handshakes failed: {new}. {said}".rstrip(". ") + "."
            self._service_log.say(text, cmtrace.WARNING)

    def _ready(self) -> tuple[bool, dict[str, Any]]:
        held = len(self._tunnels)
        _CONNECTED.set(held)
        _CLIENTS.set(len(self._front.connections))
        _ONLINE.set(self._tunnels.held)
        configuration = self._front.gate.configuration
        facts = {
            "instance": self._settings.instance,
            "tunnels": held,
            "connection_points": self._tunnels.connection_points,
            "carriers": self._tunnels.carriers,
            "version": configuration.version,
            "endpoints": len(configuration.endpoints),
            "connections": len(self._front.connections),
            "failed_handshakes": self._failed_handshakes(),
            "answers": self._front.answers.facts(),
            "alarms": [
                *(str(one.alarm) for one in self._alarms.values()),
                *(["CMGService_Storage_Full"] if self._desk.problem else []),
                *(["CMGService_Ocsp_Unavailable"] if self._responders.faulty else []),
            ],
            "certificate": self._shown,
        }
        return held > 0, facts

    async def _count_always(self) -> None:
        while True:
            await asyncio.sleep(self._settings.tell_seconds)
            self._count()
            self._tunnels.tell(self._teller.telling())
            self._tell_alarms()
            self._tell_failures()

    def _count(self) -> None:
        taken = self._tunnels.ledger.take()
        self._teller.add(taken)
        COUNTED.add(taken)
        self._service_log.say_all(count.line(endpoint) for endpoint, count in by_endpoint(taken))

    def _described(self) -> dict[str, Any]:
        return {
            "worker": self._number,
            "connections": len(self._front.connections),
            "online": self._tunnels.held,
            "lines": self._service_log.take(),
        }

    def _told(self, told: Told) -> None:
        """The site has it; what could not be told with it follows at once."""
        if self._teller.told(told) and not self._teller.idle:
            self._tunnels.tell(self._teller.telling())

    async def _tell_last(self) -> None:
        """Nobody counts any more: the site is to have the rest before the tunnels end."""
        if self._teller.idle or not self._tunnels.tell(self._teller.telling()):
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LAST_WORD_SECONDS):
                while not self._teller.idle:
                    await asyncio.sleep(0.02)
