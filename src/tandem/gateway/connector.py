"""The connection point: dials every worker of every gateway instance, and accepts nothing.

site  ── configuration (polled, waits for news) ──▶  connection point  ── dials ──▶  gateway
      ◀── report: connections, traffic ──────────
"""

import asyncio
import contextlib
import random
import ssl
import time
from http import HTTPStatus
from typing import Any
from urllib.parse import urlsplit

import aiofastnet
import httpx
import msgspec

from tandem.gateway import health
from tandem.gateway.backend import Backend, BadRequest, Head, Passed, Request, Target, Traffic
from tandem.gateway.model import ConnectorSettings
from tandem.gateway.mux import Mux
from tandem.infra import logs, net
from tandem.infra.clock import utc_now
from tandem.infra.logs import LogFile, get_logger
from tandem.infra.process import run_role
from tandem.infra.secrets import private_folder, write_private
from tandem.protocols import cmtrace, tunnel
from tandem.protocols.tunnel import (
    BadFrame,
    ConnectionState,
    ConnectorConfiguration,
    ConnectorReport,
    Frame,
    GatewayHello,
    GatewayTarget,
    Hello,
    Type,
    encode,
)

log = get_logger("connector")

_COMPONENT = "SMS_Cloud_ProxyConnector"
_LOG_SECONDS = 1.0


def run(settings: ConnectorSettings) -> None:
    logs.configure("connector", settings.logs)
    run_role(Connector(settings).main)


class Connector:
    def __init__(self, settings: ConnectorSettings) -> None:
        self.settings = settings
        self.traffic = Traffic()
        self._kept = settings.state / "configuration.json"
        self._log = LogFile(settings.logs / f"{_COMPONENT}.log") if settings.logs else None
        self.configuration: ConnectorConfiguration | None = None
        self._etag = ""
        self._links: dict[tuple[str, int, int], Link] = {}
        self._backends: dict[str, Backend] = {}
        self._news = asyncio.Event()
        self._lines: list[str] = []

    def say(self, text: str, severity: int = cmtrace.INFORMATION) -> None:
        if self._log is not None:
            self._lines.append(cmtrace.line(text, _COMPONENT, utc_now(), severity))
            self._flush_log()

    async def main(self, stop: asyncio.Event) -> None:
        private_folder(self.settings.state)
        settings = self.settings
        self.gateway_context = net.tls_context(
            settings.gateway_ca_file, (settings.certificate, settings.key)
        )
        self.site_context = net.tls_context(settings.site_root)
        self._http = net.client(
            ca_file=settings.site_root,
            certificate=(settings.certificate, settings.key),
            base_url=settings.management_point_url,
            timeout=settings.poll_seconds + 15,
        )
        probe = await health.serve(settings.health, self._ready) if settings.health else None
        self._use_kept()
        tasks = [
            asyncio.create_task(work())
            for work in (self._poll, self._report_always, self._tend, self._log_always)
        ]
        await stop.wait()
        for task in tasks:
            task.cancel()
        for link in self._links.values():
            link.stop()
        await asyncio.gather(*tasks, return_exceptions=True)
        with contextlib.suppress(httpx.HTTPError, TimeoutError):
            async with asyncio.timeout(2):
                await self._report()
        self._flush_log()
        await self._http.aclose()
        for backend in self._backends.values():
            backend.close()
        if probe is not None:
            probe.close()

    def _ready(self) -> tuple[bool, dict[str, Any]]:
        states = [link.state for link in self._links.values()]
        connected = sum(state.state == "connected" for state in states)
        facts = {"connections": len(states), "connected": connected}
        return bool(states) and connected == len(states), facts

    # -------------------------------------------------------------- configuration

    def _use_kept(self) -> None:
        """What the site said last: a connection point starts while the site is away."""
        with contextlib.suppress(FileNotFoundError, msgspec.DecodeError):
            raw = self._kept.read_bytes()
            self._use(msgspec.json.decode(raw, type=ConnectorConfiguration))

    async def _poll(self) -> None:
        while True:
            try:
                await self._ask()
            except (httpx.HTTPError, msgspec.DecodeError, OSError) as error:
                self.say(
                    f"The site cannot be asked for the configuration: {error}", cmtrace.WARNING
                )
                await asyncio.sleep(self.settings.retry_seconds)

    async def _ask(self) -> None:
        headers = {"If-None-Match": self._etag} if self._etag else {}
        answer = await self._http.get(
            "/SMS_CMG/connector/configuration",
            params={"wait": self.settings.poll_seconds if self._etag else 0},
            headers=headers,
        )
        if answer.status_code == 304:
            return
        if answer.status_code != 200:
            self.say(
                f"missing role certificate or role: {answer.status_code}. reload in next cycle",
                cmtrace.WARNING,
            )
            await asyncio.sleep(self.settings.retry_seconds * 2)
            return
        self._use(msgspec.json.decode(answer.content, type=ConnectorConfiguration))
        self._etag = answer.headers.get("etag", "")
        write_private(self._kept, answer.content)

    def _use(self, configuration: ConnectorConfiguration) -> None:
        self.configuration = configuration
        wanted = {
            (gateway.service_name, item.instance, 0): (gateway, item)
            for gateway in configuration.gateways
            for item in gateway.instances
        }
        for key in [key for key in self._links if (key[0], key[1], 0) not in wanted]:
            self._links.pop(key).stop()
        for key, (gateway, item) in wanted.items():
            for known, link in self._links.items():
                if known[:2] == key[:2]:
                    link.update(gateway, item)
            if key not in self._links:
                self._links[key] = Link(self, gateway, item, 0)
        self.changed()

    def workers(self, gateway: GatewayTarget, item: tunnel.Instance, count: int) -> None:
        """An instance has so many workers: a link for each."""
        mine = (gateway.service_name, item.instance)
        for number in range(1, min(count, 64)):
            if (*mine, number) not in self._links:
                self._links[*mine, number] = Link(self, gateway, item, number)
        # An instance that was started again with fewer workers.
        for key in [key for key in self._links if key[:2] == mine and key[2] >= max(count, 1)]:
            self._links.pop(key).stop()
            self.changed()

    def held(self, service_name: str, instance: int, worker: str, besides: "Link") -> bool:
        return any(
            link is not besides and link.state.worker == worker
            for key, link in self._links.items()
            if key[:2] == (service_name, instance)
        )

    # -------------------------------------------------------------- requests

    def request(self, link: "Link", frame: Frame) -> None:
        """A client's request, from a gateway."""
        head, body = None, b""
        with contextlib.suppress(BadRequest):
            head, body = Head.read(frame.payload)
        stream = Request(
            link.mux,
            frame.stream,
            head,
            body,
            frame.fin,
            target=self._target(head.path) if head else None,
            service_name=link.gateway.service_name,
            most_bytes=link.gateway.configuration.limits.body_bytes,
            traffic=self.traffic,
            passed=self._passed,
        )
        if not stream.over:
            link.mux.streams[frame.stream] = stream

    def _target(self, path: str) -> Target | None:
        """Where a request leads: the mapping of its path, and nothing without one."""
        for mapping in self.configuration.map if self.configuration else []:
            rest = path[len(mapping.prefix) :]
            if path.lower().startswith(mapping.prefix.lower()) and rest[:1] in ("", "/"):
                parts = urlsplit(mapping.url)
                inside = parts.path.rstrip("/")
                return Target(
                    self._backend(f"{parts.scheme}://{parts.netloc}"),
                    len(mapping.prefix),
                    inside.encode(),
                    (inside + rest).strip("/").partition("/")[0][:64],
                    mapping.hold_seconds,
                )
        return None

    def _passed(self, request: Passed) -> None:
        """A line for the log. Many go to the disk at once: a write each would cost more than all
        else that a request costs here."""
        if self._log is None:
            return
        text = (
            f"MessageID: {request.correlation} RequestURI: {request.path}"
            f" EndpointName: {request.endpoint} ResponseHeader: HTTP/1.1 {request.status}"
            f" {_phrase(request.status)} ElapsedTime: {request.milliseconds:.0f} ms"
        )
        self._lines.append(cmtrace.line(text, _COMPONENT, utc_now()))

    async def _log_always(self) -> None:
        while True:
            await asyncio.sleep(_LOG_SECONDS)
            self._flush_log()

    def _flush_log(self) -> None:
        lines, self._lines = self._lines, []
        if self._log is not None and lines:
            self._log.write_all(lines)

    def _backend(self, url: str) -> Backend:
        if url not in self._backends:
            self._backends[url] = Backend(
                url, self.site_context, self.settings.fast_tls, self.settings.request_seconds
            )
        return self._backends[url]

    # -------------------------------------------------------------- reports

    def changed(self) -> None:
        """Something about the connections is new: report it soon."""
        self._news.set()

    async def _report_always(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self.settings.report_seconds):
                    await self._news.wait()
            # What belongs together arrives together.
            await asyncio.sleep(0.1)
            self._news.clear()
            try:
                await self._report()
            except httpx.HTTPError as error:
                log.warning("report not delivered", reason=str(error))
                await asyncio.sleep(self.settings.retry_seconds)
                self._news.set()

    async def _report(self) -> None:
        if self.configuration is None:
            return
        taken = self.traffic.take()
        report = ConnectorReport(
            self.configuration.connection_point,
            [link.state for link in self._links.values()],
            [
                tunnel.Traffic(
                    service_name,
                    endpoint,
                    tally.requests,
                    tally.failures,
                    tally.request_bytes,
                    tally.response_bytes,
                    tally.elapsed_ms,
                    tally.most,
                )
                for (service_name, endpoint), tally in taken.items()
            ],
        )
        for item in report.traffic:
            self.say(
                "ReportTrafficData - state message to send: <ProxyTrafficStateDetails"
                f' ServiceName="{item.service_name}" EndpointName="{item.endpoint}"'
                f' RequestCount="{item.requests}" FailureCount="{item.failures}"'
                f' RequestSize="{item.request_bytes}" ResponseSize="{item.response_bytes}"'
                f' ElapsedTime="{item.elapsed_ms:.0f}"'
                f' MaxConcurrentRequests="{item.max_concurrent}"/>'
            )
        answer = await self._http.post(
            "/SMS_CMG/connector/report", content=msgspec.json.encode(report)
        )
        if answer.status_code >= 400:
            log.warning("report refused", status=answer.status_code)

    async def _tend(self) -> None:
        while True:
            await asyncio.sleep(self.settings.ping_seconds)
            self.say("Maintaining connections...")
            for link in list(self._links.values()):
                link.tend()


class Link:
    """The tunnel to one worker of one instance: held, or dialled again and again."""

    def __init__(
        self, connector: Connector, gateway: GatewayTarget, item: tunnel.Instance, number: int
    ) -> None:
        self._connector = connector
        self.gateway = gateway
        self._item = item
        self._number = number
        self._sent = -1
        self.mux: Mux
        self.state = self._state("connecting")
        self._task = asyncio.get_running_loop().create_task(self._hold())

    def _state(self, state: Any, reason: str = "", worker: str = "") -> ConnectionState:
        return ConnectionState(
            self.gateway.service_name,
            self._item.instance,
            state,
            worker or f"#{self._number}",
            time.time(),
            reason,
        )

    def _set(self, state: str, reason: str = "", worker: str = "") -> None:
        if (self.state.state, self.state.reason) != (state, reason):
            self.state = self._state(state, reason, worker)
            self._connector.changed()

    def update(self, gateway: GatewayTarget, item: tunnel.Instance) -> None:
        """News of the site: pass them on, or dial where the instance now is."""
        moved = (self._item, self.gateway.connection_id) != (item, gateway.connection_id)
        self.gateway, self._item = gateway, item
        if self.state.state == "connected":
            if moved:
                self.mux.close()
            else:
                self._configure()

    def stop(self) -> None:
        self._task.cancel()
        if self.state.state == "connected":
            self.mux.close()

    def tend(self) -> None:
        """A sign of life; a tunnel that gives none for three rounds is closed."""
        if self.state.state != "connected":
            return
        silent = self.mux.silent_seconds
        if silent > 3 * self._connector.settings.ping_seconds:
            self.mux.abort(f"The gateway has given no sign of life for {silent:.0f} seconds.")
        else:
            self.mux.ping()

    async def _hold(self) -> None:
        settings = self._connector.settings
        wait = settings.retry_seconds
        while True:
            try:
                lost = await self._dial()
                wait = settings.retry_seconds
                reason = await lost
            except (OSError, TimeoutError, ssl.SSLError, BadFrame) as error:
                reason = _why(error, self._item)
            self._set("disconnected", reason)
            self._connector.say(
                f"Connection to {self.gateway.service_name} instance {self._item.instance} is"
                f" lost: {reason}",
                cmtrace.WARNING,
            )
            await asyncio.sleep(wait * random.uniform(0.5, 1.0))  # noqa: S311
            wait = min(wait * 2, settings.retry_most_seconds)

    async def _dial(self) -> "asyncio.Future[str]":
        """A tunnel to a worker that no other link holds; resolves when it is lost."""
        loop = asyncio.get_running_loop()
        lost: asyncio.Future[str] = loop.create_future()
        greeted: asyncio.Future[GatewayHello] = loop.create_future()
        end = _End(self, greeted, lost)
        create = aiofastnet.create_connection if self._connector.settings.fast_tls else None
        arguments: dict[str, Any] = {
            "ssl": self._connector.gateway_context,
            "server_hostname": self.gateway.server_name,
        }
        where = (self._item.host, self._item.tunnel_port)
        dialled = (
            create(loop, lambda: end, *where, **arguments)
            if create is not None
            else loop.create_connection(lambda: end, *where, **arguments)
        )
        async with asyncio.timeout(15):
            await dialled
        self.mux = end.mux
        configuration = self._connector.configuration
        point = configuration.connection_point if configuration else "?"
        hello = Hello(self.gateway.connection_id, point)
        end.mux.put(encode(Type.HELLO, 0, msgspec.json.encode(hello)))
        try:
            async with asyncio.timeout(10):
                said = await greeted
            mine = (self.gateway.service_name, self._item.instance)
            if self._connector.held(*mine, said.worker, self):
                raise TimeoutError(f"worker {said.worker} is held already")
        except BaseException:
            # Also when the link is given up meanwhile: the gateway would count a tunnel that nobody
            # holds, and send requests into it.
            end.mux.close()
            raise
        self._set("connected", worker=said.worker)
        self._connector.say(
            f"Connected to {self.gateway.service_name} instance {self._item.instance}"
            f" ({self._item.host}:{self._item.tunnel_port})"
        )
        self._sent = said.version
        self._configure()
        self._connector.workers(self.gateway, self._item, said.workers)
        return lost

    def _configure(self) -> None:
        configuration = self.gateway.configuration
        if configuration.version != self._sent:
            self._sent = configuration.version
            self.mux.put(encode(Type.CONFIGURATION, 0, msgspec.json.encode(configuration)))

    def opened(self, frame: Frame) -> None:
        self._connector.request(self, frame)


class _End(asyncio.Protocol):
    """Our end of one tunnel connection."""

    def __init__(
        self,
        link: Link,
        greeted: "asyncio.Future[GatewayHello]",
        lost: "asyncio.Future[str]",
    ) -> None:
        self._greeted = greeted
        self._lost = lost
        self._reason = "The gateway closed the connection."
        self.mux = Mux(self._control, link.opened)

    def connection_made(self, transport: Any) -> None:
        self.mux.attach(transport)

    def data_received(self, data: bytes) -> None:
        try:
            self.mux.feed(data)
        except (BadFrame, msgspec.DecodeError, IndexError) as error:
            self._reason = f"The gateway does not speak the tunnel's protocol: {error}."
            self.mux.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self.mux.lost("The tunnel to the gateway broke.")
        reason = self.mux.reason or f"{self._reason} {exc or ''}".strip()
        if not self._greeted.done():
            self._greeted.set_exception(ConnectionError(reason))
            # Nobody may be waiting any more.
            self._greeted.exception()
        if not self._lost.done():
            self._lost.set_result(reason)

    def _control(self, frame: Frame) -> None:
        if frame.type is Type.HELLO and not self._greeted.done():
            self._greeted.set_result(msgspec.json.decode(frame.payload, type=GatewayHello))


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return ""


def _why(error: BaseException, item: tunnel.Instance) -> str:
    where = f"{item.host}:{item.tunnel_port}"
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"The certificate of {where} is not trusted: {error.verify_message}."
    if isinstance(error, ConnectionRefusedError):
        return f"Nothing listens on {where}."
    if isinstance(error, TimeoutError):
        return f"{where} does not answer. {error}".strip()
    return f"{where}: {error}"
