"""The connection point: dials every worker of every gateway instance, and accepts nothing.

site  ── configuration (polled, waits for news) ──▶  connection point  ── dials ──▶  gateway
      ◀── report: connections, traffic ──────────
"""

import asyncio
import contextlib
import random
import secrets
import ssl
import time
from http import HTTPStatus
from typing import Any
from urllib.parse import urlsplit

import httpx
import msgspec
from prometheus_client import Counter, Gauge

from tandem.gateway import carriers, health
from tandem.gateway.backend import Backend, BadRequest, Head, Request, Target, Traffic
from tandem.gateway.carriers import Unreachable
from tandem.gateway.model import ConnectorSettings
from tandem.gateway.mux import Mux
from tandem.infra import logs, net
from tandem.infra.clock import utc_now
from tandem.infra.logs import LogFile, get_logger
from tandem.infra.process import run_role, settle
from tandem.infra.secrets import private_folder, write_private
from tandem.protocols import cmtrace, tunnel
from tandem.protocols.tunnel import (
    NEWEST,
    OLDEST,
    TELLS,
    BadFrame,
    Carrier,
    ConnectionState,
    ConnectorConfiguration,
    ConnectorReport,
    Failure,
    Frame,
    GatewayHello,
    GatewayTarget,
    GatewayTelling,
    Hello,
    ReportAnswer,
    Telling,
    Told,
    Type,
    encode,
)

log = get_logger("connector")

_COMPONENT = "SMS_Cloud_ProxyConnector"
_TUNNELS = Gauge("connector_tunnels", "Tunnels to workers of gateways", ["state"])
_REQUESTS = Counter("connector_requests", "Requests that were passed on", ["endpoint"])
_FAILED = Counter("connector_failures", "Requests that the site did not answer", ["endpoint"])
_ENDPOINTS = 32  # So many series; a site that publishes more is no reason for more.
_LOG_SECONDS = 1.0
_MOST_TARGETS, _LONGEST_PATH = 2_000, 256
# A way that has another one behind it is not waited for as long as the last one.
_PATIENCE = {True: 5.0, False: 15.0}
_GREETING_SECONDS = 10.0
# A tunnel that was held for so long is dialled again at once when it breaks.
_HELD_SECONDS = 1.0
_FAILURES = 5
# So many tellings go into one report, which the site takes up to a size.
_TELLINGS = 8
# A report that the site did not take and will: it does not know this role just now, or is busy.
_LATER = {401, 403, 408, 429}
_ENDS = "The connection point is being stopped."
_DIAL_ERRORS = (OSError, TimeoutError, ssl.SSLError, BadFrame)


def run(settings: ConnectorSettings) -> None:
    logs.configure("connector", settings.logs)
    run_role(Connector(settings).main)


class Connector:
    def __init__(self, settings: ConnectorSettings) -> None:
        self.settings = settings
        self.traffic = Traffic()
        # What the site has not taken yet of it, under which number.
        self._run, self._sequence = secrets.token_hex(8), 0
        self._under_way: list[tunnel.Traffic] | None = None
        self._told_of: set[str] = set()
        # What gateways' workers told and the site has not yet: one a tunnel, a worker waits for TOLD.
        self._tellings: dict[Link, tuple[GatewayTelling, Mux]] = {}
        self._kept = settings.state / "configuration.json"
        self._log = LogFile(settings.logs / f"{_COMPONENT}.log") if settings.logs else None
        self.configuration: ConnectorConfiguration | None = None
        self._etag = ""
        self._links: dict[tuple[str, int, int], Link] = {}
        self._backends: dict[str, Backend] = {}
        self._news = asyncio.Event()
        self._lines: list[str] = []
        self._requests: list[tuple[float, str, str, str, int, float]] = []
        self._targets: dict[str, Target] = {}  # By path, of those that were asked for lately.
        self._proxy = settings.proxy()
        # Tunnels that were given up and still answer what they have.
        self._leaving: set[asyncio.Task[None]] = set()

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
        self.outer_context = net.tls_context(settings.gateway_ca_file)
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
        settle()
        await stop.wait()
        for link in self._links.values():
            link.stop(_ENDS)
        if self._leaving:
            self.say("Connections are ended when their requests are answered.")
            await asyncio.wait(self._leaving)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        with contextlib.suppress(httpx.HTTPError, msgspec.DecodeError, TimeoutError):
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
        for state in ("connected", "connecting", "disconnected"):
            _TUNNELS.labels(state).set(sum(one.state == state for one in states))
        by = [state.carrier for state in states if state.state == "connected"]
        facts = {
            "connections": len(states),
            "connected": connected,
            "carriers": {carrier: by.count(carrier) for carrier in sorted(set(by))},
        }
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
        self._targets.clear()
        wanted = {
            (gateway.service_name, item.instance, 0): (gateway, item)
            for gateway in configuration.gateways
            for item in gateway.instances
        }
        for key in [key for key in self._links if (key[0], key[1], 0) not in wanted]:
            self._links.pop(key).stop("The connection point serves this gateway no more.")
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
            self._links.pop(key).stop("The instance has fewer workers now.")
            self.changed()

    def held(self, service_name: str, instance: int, worker: str, besides: "Link") -> bool:
        return any(
            link is not besides and link.state.worker == worker
            for key, link in self._links.items()
            if key[:2] == (service_name, instance)
        )

    @property
    def web_proxy(self) -> tunnel.WebProxy | None:
        """Of the settings here, or else of the site."""
        site = self.configuration.web_proxy if self.configuration else None
        return self._proxy or site

    def retire(self, end: "_End", reason: str) -> None:
        """Take nothing more by this tunnel, and close it when all that it has is answered."""
        task = asyncio.get_running_loop().create_task(
            end.finish(reason, self.settings.drain_seconds)
        )
        self._leaving.add(task)
        task.add_done_callback(self._leaving.discard)

    # -------------------------------------------------------------- requests

    def request(self, link: "Link", mux: Mux, frame: Frame) -> None:
        """A client's request, from a gateway."""
        head, body = None, b""
        with contextlib.suppress(BadRequest):
            head, body = Head.read(frame.payload)
        stream = Request(
            mux,
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
            mux.streams[frame.stream] = stream

    def _target(self, path: str) -> Target | None:
        """Where a request leads: the mapping of its path, and nothing without one."""
        known = self._targets.get(path)
        if known is not None:
            return known
        for mapping in self.configuration.map if self.configuration else []:
            rest = path[len(mapping.prefix) :]
            if path.lower().startswith(mapping.prefix.lower()) and rest[:1] in ("", "/"):
                parts = urlsplit(mapping.url)
                inside = parts.path.rstrip("/")
                found = Target(
                    self._backend(f"{parts.scheme}://{parts.netloc}"),
                    len(mapping.prefix),
                    inside.encode(),
                    (inside + rest).strip("/").partition("/")[0][:64],
                    mapping.hold_seconds,
                )
                if len(self._targets) >= _MOST_TARGETS:
                    self._targets.clear()
                if len(path) <= _LONGEST_PATH:
                    self._targets[path] = found
                return found
        return None

    def _passed(self, *values: Any) -> None:
        """What a line of the log is made of. Many are made and go to the disk at once: a write each
        would cost more than all else that a request costs here."""
        # A gateway's own questions are many, and nobody's request.
        if self._log is not None and values[2] != tunnel.ANSWERS_ENDPOINT:
            self._requests.append((time.time(), *values))

    async def _log_always(self) -> None:
        while True:
            await asyncio.sleep(_LOG_SECONDS)
            self._flush_log()

    def _flush_log(self) -> None:
        requests, self._requests = self._requests, []
        lines, self._lines = self._lines, []
        if self._log is None:
            return
        lines += cmtrace.lines(
            (
                (
                    at,
                    f"MessageID: {correlation} RequestURI: {path} EndpointName: {endpoint}"
                    f" ResponseHeader: HTTP/1.1 {status} {_phrase(status)}"
                    f" ElapsedTime: {milliseconds:.0f} ms",
                )
                for at, correlation, path, endpoint, status, milliseconds in requests
            ),
            _COMPONENT,
        )
        if lines:
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
            except (httpx.HTTPError, msgspec.DecodeError) as error:
                log.warning("report not delivered", reason=str(error))
                await asyncio.sleep(self.settings.retry_seconds)
                self._news.set()

    def tells(self, link: "Link", mux: Mux, telling: Telling) -> None:
        """A gateway's worker has counted something: the site hears of it with the next report."""
        item = GatewayTelling(link.gateway.service_name, link.instance, telling)
        self._tellings[link] = (item, mux)
        self.changed()

    async def _report(self) -> None:
        if self.configuration is None:
            return
        if self._under_way is None:
            self._take_traffic()
        tellings = dict(list(self._tellings.items())[:_TELLINGS])
        report = ConnectorReport(
            self.configuration.connection_point,
            [link.state for link in self._links.values()],
            self._under_way or [],
            self._run,
            self._sequence,
            [item for item, _ in tellings.values()],
        )
        answer = await self._http.post(
            "/SMS_CMG/connector/report", content=msgspec.json.encode(report)
        )
        if answer.status_code in _LATER or answer.status_code >= 500:
            log.warning("report not taken", status=answer.status_code)
            return
        self._under_way = None
        told: list[Told] = []
        if answer.status_code >= 400:
            log.warning("report refused", status=answer.status_code)
        elif answer.content:
            told = msgspec.json.decode(answer.content, type=ReportAnswer).told
        for link, (item, mux) in tellings.items():
            # What the site has not taken, the worker says again in its time.
            if self._tellings.get(link, (None,))[0] is item:
                del self._tellings[link]
            taken = Told(item.telling.run, item.telling.sequence)
            if taken in told and mux.open:
                mux.put(encode(Type.TOLD, 0, msgspec.json.encode(taken)))
        if self._tellings:
            self.changed()

    def _take_traffic(self) -> None:
        """What was counted since; it stays until the site has it."""
        self._sequence += 1
        self._under_way = [
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
            for (service_name, endpoint), tally in self.traffic.take().items()
            if endpoint != tunnel.ANSWERS_ENDPOINT
        ]
        for item in self._under_way:
            if len(self._told_of) < _ENDPOINTS:
                self._told_of.add(item.endpoint)
            series = item.endpoint if item.endpoint in self._told_of else "other"
            _REQUESTS.labels(series).inc(item.requests)
            _FAILED.labels(series).inc(item.failures)
            self.say(
                "ReportTrafficData - state message to send: <ProxyTrafficStateDetails"
                f' ServiceName="{item.service_name}" EndpointName="{item.endpoint}"'
                f' RequestCount="{item.requests}" FailureCount="{item.failures}"'
                f' RequestSize="{item.request_bytes}" ResponseSize="{item.response_bytes}"'
                f' ElapsedTime="{item.elapsed_ms:.0f}"'
                f' MaxConcurrentRequests="{item.max_concurrent}"/>'
            )

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
        self._end: _End | None = None
        self._failures: list[Failure] = []
        self._good: Carrier | None = None  # What worked last.
        self.state = self._state("connecting")
        self._task = asyncio.get_running_loop().create_task(self._hold())

    def _state(self, state: Any, reason: str = "", worker: str = "") -> ConnectionState:
        carrier = self._end.carrier if self._end else ""
        proxy = self._connector.web_proxy
        return ConnectionState(
            self.gateway.service_name,
            self._item.instance,
            state,
            worker or f"#{self._number}",
            time.time(),
            reason,
            carrier,
            f"{proxy.host}:{proxy.port}" if proxy and carrier == "https" else "",
            self._failures[:_FAILURES],
        )

    def _set(self, state: str, reason: str = "", worker: str = "") -> None:
        new = self._state(state, reason, worker)
        old = self.state
        if (old.state, old.reason, old.carrier) != (new.state, new.reason, new.carrier):
            self.state = new
            self._connector.changed()

    def _failed(self, carrier: Carrier, reason: str) -> None:
        """Kept for whoever asks what was before; what goes on the same way is one failure."""
        last = self._failures[0] if self._failures else None
        if last is None or (last.carrier, last.reason) != (carrier, reason):
            self._failures.insert(0, Failure(time.time(), carrier, reason[:300]))
            del self._failures[_FAILURES:]

    def update(self, gateway: GatewayTarget, item: tunnel.Instance) -> None:
        """News of the site: pass them on, or dial where the instance now is."""
        moved = (self._item, self.gateway.connection_id) != (item, gateway.connection_id)
        self.gateway, self._item = gateway, item
        if self._end is not None:
            if moved:
                self._end.ends("The instance has another address now.")
            else:
                self._configure(self._end)

    @property
    def instance(self) -> int:
        return self._item.instance

    def stop(self, reason: str) -> None:
        self._task.cancel()
        if self._end is not None:
            self._connector.retire(self._end, reason)

    def tend(self) -> None:
        """A sign of life; a tunnel that gives none for three rounds is closed."""
        if self._end is None:
            return
        mux = self._end.mux
        silent = mux.silent_seconds
        if silent > 3 * self._connector.settings.ping_seconds:
            mux.abort(f"The gateway has given no sign of life for {silent:.0f} seconds.")
        else:
            mux.ping()

    async def _hold(self) -> None:
        settings = self._connector.settings
        wait, others = settings.retry_seconds, 0
        while True:
            try:
                self._end = await self._dial_ways()
            except _HeldAlready:
                # Which worker answers is chance: soon again, and not ever later.
                others += 1
                await asyncio.sleep(min(0.02 * 2 ** min(others, 8), settings.retry_seconds))
                continue
            except Unreachable as error:
                reason, pause = str(error), wait
                wait = min(wait * 2, settings.retry_most_seconds)
            else:
                begun = time.monotonic()
                self._take_up(self._end)
                reason = await self._stay(self._end)
                wait = pause = settings.retry_seconds
                if time.monotonic() - begun > _HELD_SECONDS:
                    pause = min(0.1, wait)  # At once, only not all at the same moment.
            self._end, others = None, 0
            self._set("disconnected", reason)
            self._connector.say(
                f"Connection to {self.gateway.service_name} instance {self._item.instance} is"
                f" lost: {reason}",
                cmtrace.WARNING,
            )
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311

    async def _stay(self, end: "_End") -> str:
        """Until the tunnel is over; why it is. Over a worse way, a better one is looked for."""
        settings = self._connector.settings
        while True:
            seconds = settings.repair_seconds if end.carrier != settings.carriers[0] else None
            if (await asyncio.wait({end.over}, timeout=seconds))[0]:
                reason = end.over.result()
                self._failed(end.carrier, reason)
                if end.mux.open:
                    self._connector.retire(end, reason)
                return reason
            end = await self._repaired(end)

    async def _repaired(self, end: "_End") -> "_End":
        """The tunnel by a better way, when there is one by now."""
        ways = self._connector.settings.carriers
        for carrier in ways[: ways.index(end.carrier)]:
            try:
                better = await self._dial(carrier, _PATIENCE[True])
            except _HeldAlready:
                continue  # Another worker of the instance answered; the next time it may be ours.
            except _DIAL_ERRORS as error:
                self._failed(carrier, self._why(error, carrier))
                self.state = msgspec.structs.replace(self.state, failures=list(self._failures))
                continue
            self._end = better
            self._take_up(better)
            self._connector.retire(end, "The connection point has a better way.")
            return better
        return end

    async def _dial_ways(self) -> "_End":
        """A tunnel by the way that worked last, or else the first that works.

        Raises Unreachable with what is wrong with each, _HeldAlready.
        """
        ways = sorted(self._connector.settings.carriers, key=lambda way: way != self._good)
        reasons = []
        for way in ways:
            try:
                return await self._dial(way, _PATIENCE[way != ways[-1]])
            except _HeldAlready:
                raise
            except _DIAL_ERRORS as error:
                reasons.append(self._why(error, way))
                self._failed(way, reasons[-1])
        self._good = None
        raise Unreachable(" ".join(reasons))

    async def _dial(self, carrier: Carrier, patience: float) -> "_End":
        """A tunnel to a worker that no other link holds. Raises _DIAL_ERRORS, _HeldAlready."""
        connector = self._connector
        end = _End(self, carrier)
        inner = (connector.gateway_context, self.gateway.server_name)
        fast = connector.settings.fast_tls
        async with asyncio.timeout(patience):
            if carrier == "tls":
                where = (self._item.host, self._item.tunnel_port)
                await carriers.dial_tls(lambda: end, *where, *inner, fast)
            else:
                context, name = inner
                outer, proxy = connector.outer_context, connector.web_proxy
                where = (self._item.host, self._item.https_port)
                await carriers.dial_https(lambda: end, *where, context, outer, name, fast, proxy)
        configuration = connector.configuration
        point = configuration.connection_point if configuration else "?"
        hello = Hello(self.gateway.connection_id, point, NEWEST, OLDEST)
        end.mux.put(encode(Type.HELLO, 0, msgspec.json.encode(hello)))
        try:
            async with asyncio.timeout(_GREETING_SECONDS):
                said = await end.greeted
        except BaseException:
            # Also when the link is given up meanwhile: the gateway would count a tunnel that nobody
            # holds, and send requests into it.
            end.mux.close()
            raise
        if connector.held(self.gateway.service_name, self._item.instance, said.worker, self):
            # The gateway may have sent requests into it already.
            connector.retire(end, "This worker's tunnel is held already.")
            raise _HeldAlready
        return end

    def _take_up(self, end: "_End") -> None:
        said = end.greeted.result()
        self._good = end.carrier
        self._set("connected", worker=said.worker)
        proxy = f" through {self.state.through}" if self.state.through else ""
        self._connector.say(
            f"Connected to {self.gateway.service_name} instance {self._item.instance}"
            f" ({self._where(end.carrier)}) by {end.carrier.upper()}{proxy}"
        )
        self._sent = said.version
        self._configure(end)
        self._connector.workers(self.gateway, self._item, said.workers)

    def _configure(self, end: "_End") -> None:
        configuration = self.gateway.configuration
        if configuration.version != self._sent:
            self._sent = configuration.version
            end.mux.put(encode(Type.CONFIGURATION, 0, msgspec.json.encode(configuration)))

    def opened(self, end: "_End", frame: Frame) -> None:
        self._connector.request(self, end.mux, frame)

    def tells(self, end: "_End", telling: Telling) -> None:
        self._connector.tells(self, end.mux, telling)

    def _where(self, carrier: Carrier) -> str:
        port = self._item.tunnel_port if carrier == "tls" else self._item.https_port
        return f"{self._item.host}:{port}"

    def _why(self, error: BaseException, carrier: Carrier) -> str:
        where = self._where(carrier)
        if isinstance(error, Unreachable):
            return str(error)
        if isinstance(error, ssl.SSLCertVerificationError):
            return f"The certificate of {where} is not trusted: {error.verify_message}."
        if isinstance(error, ConnectionRefusedError):
            return f"Nothing listens on {where}."
        if isinstance(error, TimeoutError):
            return f"{where} does not answer. {error}".strip()
        return f"{where}: {error}"


class _HeldAlready(Exception):
    """Another link holds the tunnel to the worker that answered."""


class _End(asyncio.Protocol):
    """Our end of one tunnel connection."""

    def __init__(self, link: Link, carrier: Carrier) -> None:
        loop = asyncio.get_running_loop()
        self.carrier = carrier
        self.greeted: asyncio.Future[GatewayHello] = loop.create_future()
        self.over: asyncio.Future[str] = loop.create_future()
        self._lost = asyncio.Event()
        self._reason = "The gateway closed the connection."
        self._link = link
        self.mux = Mux(self._control, lambda frame: link.opened(self, frame))

    def connection_made(self, transport: Any) -> None:
        self.mux.attach(transport)
        self.mux.tune()

    def pause_writing(self) -> None:
        self.mux.pause()

    def resume_writing(self) -> None:
        self.mux.resume()

    def data_received(self, data: bytes) -> None:
        try:
            self.mux.feed(data)
        except (BadFrame, msgspec.DecodeError, IndexError) as error:
            self._reason = f"The gateway does not speak the tunnel's protocol: {error}."
            self.mux.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self.mux.lost("The tunnel to the gateway broke.")
        self.ends(self.mux.reason or f"{self._reason} {exc or ''}".strip())
        self._lost.set()

    def ends(self, reason: str) -> None:
        """There will be no more requests by this tunnel."""
        if not self.greeted.done():
            self.greeted.set_exception(Unreachable(reason))
            # Nobody may be waiting any more.
            self.greeted.exception()
        if not self.over.done():
            self.over.set_result(reason)

    def _control(self, frame: Frame) -> None:
        if frame.type is Type.HELLO and not self.greeted.done():
            said = msgspec.json.decode(frame.payload, type=GatewayHello)
            if not OLDEST <= said.protocol <= NEWEST:
                raise BadFrame(f"it speaks version {said.protocol}")
            self.mux.version = said.protocol
            self.greeted.set_result(said)
        elif frame.type is Type.TELL and self.mux.version >= TELLS:
            self._link.tells(self, msgspec.json.decode(frame.payload, type=Telling))
        elif frame.type in (Type.TELL, Type.TOLD):
            raise BadFrame(f"{frame.type.name} out of place")
        elif frame.type is Type.GOAWAY:
            self.ends(frame.payload[4:].decode("utf-8", "replace") or self._reason)

    async def finish(self, reason: str, seconds: float) -> None:
        """Take no more requests, answer those that are under way, and close.

        Those that wait for news go back: the gateway asks another connection point.
        """
        mux = self.mux
        mux.leave(reason)
        for stream in list(mux.streams.values()):
            if isinstance(stream, Request) and stream.held:
                stream.give_back(reason)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds if mux.version > 1 else min(seconds, 1.0)):
                while mux.open and (mux.streams or mux.pending):
                    await asyncio.sleep(0.01)
        mux.close()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(2):
                await self._lost.wait()


_PHRASES = {int(status): status.phrase for status in HTTPStatus}


def _phrase(status: int) -> str:
    return _PHRASES.get(status, "")
