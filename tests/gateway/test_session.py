"""Both ends of a tunnel without a network: what is promised of streams, and what hostile peers get."""

from dataclasses import dataclass, field

import msgspec
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    precondition,
    rule,
)

from tandem.protocols.tunnel import (
    MAX_DATA,
    MOST_STREAM,
    WINDOW,
    BadFrame,
    Decoder,
    Frame,
    GatewayHello,
    Hello,
    Incoming,
    Outgoing,
    Reset,
    Session,
    Type,
    credit,
    encode,
)


@dataclass(eq=False)
class Asked:
    """A request at the gateway's end; `ends` says how it came to an end, and how often."""

    session: Session
    outgoing: Outgoing | None = None
    incoming: Incoming | None = None
    number: int = 0
    answer: bytearray = field(default_factory=bytearray)
    heads: int = 0
    ends: list[str] = field(default_factory=list)
    owed: int = 0

    def begin(self) -> None:
        self.number = self.session.begin(self)
        self.outgoing = Outgoing(self.session, self.number)
        self.incoming = Incoming(self.session, self.number)
        self.session.put(encode(Type.OPEN, self.number, b"request", fin=True))

    def head(self, payload: bytes, fin: bool) -> None:
        self.heads += 1

    def data(self, payload: bytes, fin: bool) -> None:
        assert not self.ends
        self.answer += payload
        self.owed += len(payload)
        if fin:
            self.session.streams.pop(self.number)
            self.ends.append("answered")

    def read(self) -> None:
        assert self.incoming is not None
        self.incoming.passed(self.owed)
        self.owed = 0

    def writable(self) -> None:
        pass

    def reset(self, reason: str) -> None:
        self.ends.append("failed")

    def again(self, reason: str) -> None:
        self.ends.append("again")


@dataclass(eq=False)
class Answering:
    """The same at the connection point's end."""

    session: Session
    number: int
    outgoing: Outgoing
    incoming: Incoming
    said: bytearray = field(default_factory=bytearray)
    over: bool = False
    gone: bool = False
    headed: bool = False

    def head(self, payload: bytes, fin: bool) -> None:
        raise AssertionError

    def data(self, payload: bytes, fin: bool) -> None:
        raise AssertionError

    def writable(self) -> None:
        if self.over and self.outgoing.empty:
            self.session.streams.pop(self.number, None)

    def reset(self, reason: str) -> None:
        self.gone = True

    def say(self, data: bytes, fin: bool = False) -> None:
        if not self.headed:
            self.headed = True
            self.session.put(encode(Type.HEAD, self.number, b"HTTP/1.1 200 OK\r\n\r\n"))
        self.said += data
        self.over = fin
        self.outgoing.send(data, fin)
        self.writable()


class Tunnel:
    """Two ends, and what is on the way between them."""

    def __init__(self, version: int = 2) -> None:
        self.answering: dict[int, Answering] = {}
        self.gateway = Session(lambda frame: None)
        self.point = Session(lambda frame: None, self._opened)
        self.inward, self.outward = bytearray(encode(Type.HELLO)), bytearray(encode(Type.HELLO))
        self.gateway.version = self.point.version = version

    def _opened(self, frame: Frame) -> None:
        made = Answering(
            self.point,
            frame.stream,
            Outgoing(self.point, frame.stream),
            Incoming(self.point, frame.stream),
        )
        self.point.streams[frame.stream] = self.answering[frame.stream] = made

    def carry(self, inward: int, outward: int) -> None:
        """So many bytes arrive on either end."""
        self.inward += self.gateway.take()
        self.outward += self.point.take()
        data, self.inward = bytes(self.inward[:inward]), self.inward[inward:]
        self.point.feed(data)
        data, self.outward = bytes(self.outward[:outward]), self.outward[outward:]
        self.gateway.feed(data)

    def settle(self) -> None:
        while self.gateway.pending or self.point.pending or self.inward or self.outward:
            self.carry(1 << 30, 1 << 30)


class Streams(RuleBasedStateMachine):
    """Whatever happens in whatever order, a request is answered or fails, once, and never in part."""

    requests = Bundle("requests")

    def __init__(self) -> None:
        super().__init__()
        self.tunnel = Tunnel()
        self.all: list[Asked] = []

    def _there(self, request: Asked) -> Answering | None:
        """What answers it, while it can."""
        found = self.tunnel.answering.get(request.number)
        mine = request.session is self.tunnel.gateway
        return found if mine and found is not None and not found.over and not found.gone else None

    @initialize()
    def greet(self) -> None:
        self.tunnel.settle()

    @precondition(lambda self: not self.tunnel.gateway.peer_leaves)
    @rule(target=requests)
    def ask(self) -> Asked:
        made = Asked(self.tunnel.gateway)
        made.begin()
        self.all.append(made)
        return made

    @rule(
        request=requests,
        size=st.sampled_from([0, 1, 900, 20_000, 70_000, 300_000]),
        end=st.booleans(),
    )
    def answer(self, request: Asked, size: int, end: bool) -> None:
        there = self._there(request)
        if there is not None:
            there.say(bytes([request.number % 256]) * size, end)

    @rule(request=requests)
    def client_reads(self, request: Asked) -> None:
        if not request.ends and request in self.all:
            request.read()

    @rule(request=consumes(requests))
    def client_goes(self, request: Asked) -> None:
        if not request.ends and request in self.all:
            request.ends.append("cancelled")
            self.tunnel.gateway.reset(request.number, Reset.CANCELLED, "The client went away.")

    @rule(request=requests, code=st.sampled_from([Reset.FAILED, Reset.REPEAT]))
    def point_gives_up(self, request: Asked, code: Reset) -> None:
        there = self._there(request)
        if there is not None:
            there.gone = True
            self.tunnel.point.reset(request.number, code, "No.")

    @rule()
    def point_leaves(self) -> None:
        self.tunnel.point.leave("It is restarted.")

    @rule(inward=st.integers(0, 100_000), outward=st.integers(0, 400_000))
    def carry(self, inward: int, outward: int) -> None:
        self.tunnel.carry(inward, outward)

    @rule()
    def break_down(self) -> None:
        self.tunnel.gateway.lost("It broke.")
        self.tunnel.point.lost("It broke.")
        assert all(len(request.ends) == 1 for request in self.all)
        self.all.clear()
        self.tunnel = Tunnel()

    @invariant()
    def nobody_ends_twice(self) -> None:
        for request in self.all:
            assert len(request.ends) <= 1, request.ends
            assert request.heads <= 1
            assert len(request.answer) <= WINDOW or request.heads

    @invariant()
    def answers_are_whole(self) -> None:
        for request in self.all:
            if request.ends == ["answered"]:
                assert request.answer == self.tunnel.answering[request.number].said

    def teardown(self) -> None:
        # Everybody reads, every answer ends: then nothing is left on either side.
        while True:
            before = sum(len(request.answer) + len(request.ends) for request in self.all)
            self.tunnel.settle()
            for there in self.tunnel.answering.values():
                if not there.over and not there.gone:
                    there.say(b"end", True)
            for request in self.all:
                if not request.ends:
                    request.read()
            self.tunnel.settle()
            if before == sum(len(request.answer) + len(request.ends) for request in self.all):
                break
        assert [request.ends for request in self.all if len(request.ends) != 1] == []
        assert not self.tunnel.gateway.streams
        assert not self.tunnel.point.streams
        leaving = self.tunnel.point.leaving
        for request in self.all:
            if request.ends == ["again"] and request.number not in self.tunnel.answering:
                assert leaving
        self.answers_are_whole()


Streams.TestCase.settings = settings(max_examples=25, stateful_step_count=25, deadline=None)
TestStreams = Streams.TestCase


# ------------------------------------------------------------------ turns


def test_a_small_answer_goes_before_bulk_that_began_earlier_and_bulk_takes_turns() -> None:
    tunnel = Tunnel()
    bulk = [Asked(tunnel.gateway) for _ in range(3)]
    small = Asked(tunnel.gateway)
    for request in [*bulk, small]:
        request.begin()
    tunnel.settle()
    for request in bulk:
        tunnel.answering[request.number].say(b"b" * WINDOW, fin=True)
    tunnel.answering[small.number].say(b"s" * 1000, fin=True)
    decoder = Decoder(greeted=True)
    round_ = decoder.feed(tunnel.point.take())
    # The first round has all heads and the small answer, and not more bulk than two frames.
    assert [f.stream for f in round_ if f.type is Type.HEAD] == [1, 2, 3, 4]
    order = [frame.stream for frame in round_ if frame.type is Type.DATA]
    assert order == [4, 1, 2]
    while tunnel.point.pending:
        frames = decoder.feed(tunnel.point.take())
        assert sum(len(frame.payload) for frame in frames) <= 2 * MAX_DATA
        order += [frame.stream for frame in frames if frame.type is Type.DATA]
    # Nobody has a second turn before everybody had one.
    assert order[1:10] == [1, 2, 3] * 3


def test_a_source_is_told_to_pause_before_a_window_is_waiting_and_when_to_go_on() -> None:
    tunnel = Tunnel()
    request = Asked(tunnel.gateway)
    request.begin()
    tunnel.settle()
    there = tunnel.answering[request.number]
    there.say(b"x" * WINDOW)
    assert there.outgoing.blocked
    tunnel.settle()
    assert not there.outgoing.blocked
    there.say(b"x" * WINDOW)
    tunnel.settle()  # There is no credit any more.
    assert there.outgoing.blocked
    request.read()
    tunnel.settle()
    assert not there.outgoing.blocked
    assert len(request.answer) == 2 * WINDOW


# ------------------------------------------------------------------ versions


def test_a_peer_of_the_version_before_is_neither_told_of_goaway_nor_of_codes() -> None:
    tunnel = Tunnel(version=1)
    first, second = Asked(tunnel.gateway), Asked(tunnel.gateway)
    first.begin()
    tunnel.settle()
    tunnel.point.leave("It is restarted.")
    assert tunnel.point.take() == b""
    # It goes on asking, and is answered: it was told of nothing.
    second.begin()
    tunnel.settle()
    tunnel.answering[second.number].say(b"answer", fin=True)
    tunnel.point.reset(first.number, Reset.REPEAT, "No.")
    said = Decoder(greeted=True).feed(tunnel.point.take())
    assert said[-1] == Frame(Type.RESET, first.number, b"No.", False)
    tunnel.gateway.feed(encode(Type.RESET, first.number, b"No."))
    assert first.ends == ["failed"]


def test_the_greetings_of_the_version_before_are_read_and_ours_are_by_it() -> None:
    """Recorded of version 1: nothing in it about versions."""
    said = b'{"connection_id":"c","connection_point":"CP01"}'
    assert msgspec.json.decode(said, type=Hello) == Hello("c", "CP01", 1, 1)
    answer = b'{"instance":1,"worker":"1-7","workers":2,"version":5}'
    assert msgspec.json.decode(answer, type=GatewayHello) == GatewayHello(1, "1-7", 2, 5, 1)


def test_numbers_are_used_once() -> None:
    session = Session(lambda frame: None)
    session._last = MOST_STREAM - 1
    assert not session.used_up
    assert session.begin(Asked(session)) == MOST_STREAM
    assert session.used_up


# ------------------------------------------------------------------ hostile peers


def _asked() -> tuple[Session, Asked]:
    """A gateway's end that has asked for one thing and was answered another."""
    session = Session(lambda frame: None)
    session.version = 2
    session.feed(encode(Type.HELLO))
    done = Asked(session)
    done.begin()
    session.feed(encode(Type.HEAD, 1, b"h") + encode(Type.DATA, 1, b"", fin=True))
    request = Asked(session)
    request.begin()
    return session, request


HEAD = encode(Type.HEAD, 2, b"HTTP/1.1 200 OK\r\n\r\n")
HOSTILE: dict[str, bytes] = {
    "a frame on a stream that was never opened": encode(Type.DATA, 3, b"x"),
    "a stream that who answers opens": encode(Type.OPEN, 3, b"GET / HTTP/1.1\r\n\r\n", fin=True),
    "DATA before HEAD": encode(Type.DATA, 2, b"x"),
    "a second HEAD": HEAD + HEAD,
    "more DATA than there is credit for": HEAD + encode(Type.DATA, 2, b"x" * MAX_DATA) * 5,
    "more credit than was used": credit(2, 1),
    "no credit": credit(2, 0),
    "credit without an amount": encode(Type.CREDIT, 2, b"\x01"),
    "DATA without an end on a stream that is over": encode(Type.DATA, 1, b"x" * MAX_DATA) * 14,
    "a frame of the connection on a stream": encode(Type.PING, 2, b"x"),
    "a frame of a stream on the connection": encode(Type.DATA, 0, b"x"),
    "DATA of more than 64 KB": encode(Type.DATA, 2, b"x" * (MAX_DATA + 1)),
    "GOAWAY without a stream": encode(Type.GOAWAY, 0, b"x"),
    "garbage": b"\xff" * 64,
    "HTTP": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_peer_is_cut_off_and_what_was_asked_of_it_fails_once(name: str) -> None:
    session, request = _asked()
    with pytest.raises(BadFrame):
        session.feed(HOSTILE[name])
    session.lost("The tunnel broke.")
    assert request.ends == ["failed"]


def test_what_was_on_the_way_when_a_stream_ended_is_no_offence() -> None:
    session, request = _asked()
    session.reset(request.number, Reset.CANCELLED, "The client went away.")
    session.feed(HEAD + encode(Type.DATA, 2, b"x" * MAX_DATA) * 4 + encode(Type.RESET, 2, b"\x01-"))
    assert request.ends == []


@pytest.mark.parametrize(
    "first",
    [encode(Type.CONFIGURATION, 0, b"{}"), encode(Type.PING), encode(Type.OPEN, 1, b"x", fin=True)],
)
def test_nothing_is_read_before_hello_and_no_large_frame_waited_for(first: bytes) -> None:
    session = Session(lambda frame: pytest.fail("it was taken"), lambda frame: None)
    with pytest.raises(BadFrame):
        session.feed(first[:9])


def _opened(*, version: int = 2) -> tuple[Session, list[int]]:
    numbers: list[int] = []
    session = Session(lambda frame: None, lambda frame: numbers.append(frame.stream))
    session.version = version
    session.feed(encode(Type.HELLO))
    return session, numbers


def test_a_connection_point_takes_each_number_once_and_no_answers() -> None:
    opened = encode(Type.OPEN, 5, b"x", fin=True)
    for bad in (opened, encode(Type.OPEN, 4, b"x", fin=True), encode(Type.DATA, 6, b"x")):
        session, numbers = _opened()
        session.feed(opened)
        assert numbers == [5]
        with pytest.raises(BadFrame):
            session.feed(bad)
    session, _ = _opened()
    session.feed(opened)
    session.streams[5] = Answering(session, 5, Outgoing(session, 5), Incoming(session, 5))
    with pytest.raises(BadFrame):
        session.feed(encode(Type.HEAD, 5, b"HTTP/1.1 200 OK\r\n\r\n"))


def test_after_goaway_new_streams_are_left_to_others_and_the_rest_goes_on() -> None:
    tunnel = Tunnel()
    first, late = Asked(tunnel.gateway), Asked(tunnel.gateway)
    first.begin()
    tunnel.settle()
    tunnel.point.leave("It is restarted.")
    late.begin()  # It crosses the GOAWAY.
    tunnel.settle()
    assert late.ends == ["again"]
    assert first.ends == []
    tunnel.answering[first.number].say(b"answer", fin=True)
    tunnel.settle()
    assert (first.ends, bytes(first.answer)) == (["answered"], b"answer")
    assert list(tunnel.answering) == [first.number]


def test_who_leaves_is_known_before_what_it_did_not_begin_is_asked_again() -> None:
    """Else the request would be waiting for a connection point that is leaving."""
    order: list[str] = []

    class Again(Asked):
        def again(self, reason: str) -> None:
            order.append(f"again {self.number}")

    session = Session(lambda frame: order.append(frame.type.name))
    session.feed(encode(Type.HELLO, 0, b"{}"))
    for _ in range(2):
        Again(session).begin()
    session.feed(encode(Type.GOAWAY, 0, (1).to_bytes(4) + b"leaving"))
    assert order == ["HELLO", "GOAWAY", "again 2"]
