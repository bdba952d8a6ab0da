"""The gateway's end of the tunnels: who may open one, by which carrier, and whose turn it is."""

import asyncio
import hmac
import ssl
from collections.abc import Callable
from typing import Any

import msgspec

from tandem.gateway.counts import Ledger
from tandem.gateway.mux import Mux
from tandem.infra.logs import get_logger
from tandem.protocols.tunnel import (
    NEWEST,
    OLDEST,
    TELLS,
    BadFrame,
    Carrier,
    Configuration,
    Frame,
    GatewayHello,
    Hello,
    Limits,
    Told,
    Type,
    encode,
)

log = get_logger("gateway.tunnels")

_HELLO_SECONDS = 10


class Tunnels:
    """The tunnels that this worker holds, asked in turn."""

    def __init__(self, limits: Callable[[], Limits]) -> None:
        self._held: list[Tunnel] = []
        # They take no more requests, and answer those that they have.
        self._leaving: set[Tunnel] = set()
        self._turn = self._teller = 0
        self.limits = limits
        self.opened: Callable[[], None] = lambda: None  # There is one more.
        self.ledger = Ledger()
        self.told: Callable[[Told], None] = lambda _: None

    def __len__(self) -> int:
        return len(self._held)

    def holds(self, tunnel: "Tunnel") -> bool:
        """Whether it takes requests."""
        return tunnel in self._held

    @property
    def connection_points(self) -> list[str]:
        return sorted({tunnel.connection_point for tunnel in self._held})

    def add(self, tunnel: "Tunnel") -> None:
        self._held.append(tunnel)
        self.opened()

    def remove(self, tunnel: "Tunnel") -> None:
        self._leaving.discard(tunnel)
        if tunnel in self._held:
            self._held.remove(tunnel)

    def leaves(self, tunnel: "Tunnel") -> None:
        """No more requests for this one; what it has, it ends."""
        if tunnel in self._held:
            self._held.remove(tunnel)
            self._leaving.add(tunnel)

    def tell(self, telling: bytes) -> bool:
        """By the tunnel whose turn it is, of those that know the frame."""
        knowing = [tunnel for tunnel in self._held if tunnel.mux.version >= TELLS]
        if not knowing:
            return False
        self._teller += 1
        knowing[self._teller % len(knowing)].mux.put(encode(Type.TELL, 0, telling))
        return True

    @property
    def held(self) -> int:
        """How many requests wait for news at the site: each of a device that is online."""
        return sum(len(tunnel.held) for tunnel in (*self._held, *self._leaving))

    @property
    def carriers(self) -> dict[str, int]:
        """How many tunnels come by each carrier."""
        counts: dict[str, int] = {}
        for tunnel in self._held:
            counts[tunnel.carrier] = counts.get(tunnel.carrier, 0) + 1
        return counts

    def next(self, besides: "Tunnel | None" = None, held: bool = False) -> "Tunnel | None":
        """Round-robin, without those that have as many requests as they may. `held`: for a request
        that waits at the site for its answer."""
        limits = self.limits()
        most = limits.held_per_connection_point if held else limits.requests_per_connection_point
        for _ in range(len(self._held)):
            self._turn += 1
            tunnel = self._held[self._turn % len(self._held)]
            under_way = len(tunnel.held) if held else len(tunnel.mux.streams) - len(tunnel.held)
            if tunnel is not besides and under_way < most:
                return tunnel
        return None

    def close(self, reason: str = "The gateway's instance is stopping.") -> None:
        """The connection points dial whoever takes this worker's place."""
        for tunnel in [*self._held, *self._leaving]:
            tunnel.mux.leave(reason)
            tunnel.mux.close()


class Tunnel(asyncio.Protocol):
    """One connection of a connection point, from its first byte on."""

    def __init__(
        self,
        tunnels: Tunnels,
        connection_id: str,
        hello: Callable[[], GatewayHello],
        configured: Callable[[Configuration, bytes, str], None],
        carrier: Carrier = "tls",
    ) -> None:
        self._tunnels = tunnels
        self._connection_id = connection_id
        self._hello = hello
        self._configured = configured
        self.carrier = carrier
        self.connection_point = ""
        # Of its streams, those whose requests wait at the site for their answers.
        self.held: set[int] = set()
        self.counts = tunnels.ledger.own  # From its greeting on, those of its connection point.
        self.mux = Mux(self._control)

    def connection_made(self, transport: Any) -> None:
        self.mux.attach(transport)
        self.mux.tune()
        self._timer = asyncio.get_running_loop().call_later(_HELLO_SECONDS, self._too_late)

    def _too_late(self) -> None:
        if not self.connection_point:
            self.mux.close()

    def pause_writing(self) -> None:
        self.mux.pause()

    def resume_writing(self) -> None:
        self.mux.resume()

    def data_received(self, data: bytes) -> None:
        try:
            self.mux.feed(data)
        except (BadFrame, msgspec.DecodeError) as error:
            log.warning("tunnel closed", reason=str(error), connection_point=self.connection_point)
            self.mux.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self._timer.cancel()
        self._tunnels.remove(self)
        self.mux.lost("The tunnel to the connection point broke.")
        if self.connection_point:
            log.info("tunnel lost", connection_point=self.connection_point)

    def _control(self, frame: Frame) -> None:
        if frame.type is Type.HELLO:
            if self.connection_point:
                raise BadFrame("a second HELLO")
            self._greet(msgspec.json.decode(frame.payload, type=Hello))
        elif frame.type is Type.CONFIGURATION:
            configuration = msgspec.json.decode(frame.payload, type=Configuration)
            self._configured(configuration, frame.payload, self.connection_point)
        elif frame.type is Type.TOLD:
            self._tunnels.told(msgspec.json.decode(frame.payload, type=Told))
        elif frame.type is Type.TELL:
            raise BadFrame("TELL from who answers")
        elif frame.type is Type.GOAWAY:
            self._tunnels.leaves(self)
            log.info("tunnel leaves", connection_point=self.connection_point)

    def _greet(self, said: Hello) -> None:
        mux = self.mux
        mux.version = min(said.newest, NEWEST)
        if mux.version < max(said.oldest, OLDEST):
            mux.version = NEWEST  # Whoever speaks a later one still knows GOAWAY.
            mux.leave(
                f"This gateway speaks versions {OLDEST} to {NEWEST} of the tunnel's protocol, the"
                f" connection point {said.oldest} to {said.newest}. Update the older one."
            )
            raise BadFrame(f"no version in common: {said.oldest} to {said.newest}")
        if not hmac.compare_digest(said.connection_id.encode(), self._connection_id.encode()):
            mux.leave("The connection id is not this gateway's.")
            raise BadFrame("the connection id is not this gateway's")
        self.connection_point = said.connection_point[:128] or "?"
        self.counts = self._tunnels.ledger.of(self.connection_point)
        hello = msgspec.structs.replace(self._hello(), protocol=mux.version)
        mux.put(encode(Type.HELLO, 0, msgspec.json.encode(hello)))
        self._tunnels.add(self)
        self._listen()
        log.info(
            "tunnel opened",
            connection_point=self.connection_point,
            carrier=self.carrier,
            protocol=mux.version,
        )

    def _listen(self) -> None:
        """Look now and then whether the connection point still lives.

        A machine that lost its power or its way never says so, and would get its share of requests.
        """
        most = self._tunnels.limits().tunnel_silence_seconds
        if self.mux.silent_seconds > most:
            log.warning("tunnel silent", connection_point=self.connection_point)
            self.mux.abort("silent")
            return
        self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(most / 4, self._listen)

    def open(self, stream: Any) -> int:
        """A new stream for a request; its number."""
        number = self.mux.begin(stream)
        if self.mux.used_up:
            # The connection point dials another one, whose numbers begin anew.
            self.mux.leave("The numbers of this connection are used up.")
            self._tunnels.leaves(self)
        return number


def tunnel_context(certificate: str, key: str, connector_ca: str) -> ssl.SSLContext:
    """TLS that only a certificate of the site's authority gets through."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_cert_chain(certificate, key)
    context.load_verify_locations(cafile=connector_ca)
    context.verify_mode = ssl.CERT_REQUIRED
    return context
