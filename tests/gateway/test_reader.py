"""A request that comes in one piece is read without llhttp: what comes of it is the same."""

from dataclasses import dataclass, field
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st

from tandem.gateway.reader import Reader, Refused


@dataclass
class Owner:
    body: bytes = b""
    told: list[str] = field(default_factory=list)

    def head_read(self) -> None:
        self.told.append("head")

    def body_read(self, piece: bytes) -> None:
        self.body += piece

    def request_read(self) -> None:
        self.told.append("whole")


def read(*pieces: bytes) -> tuple[Any, ...]:
    """All that the gateway goes by."""
    owner = Owner()
    reader = Reader(owner, 16_384)
    refused = ""
    try:
        for piece in pieces:
            if not reader.whole:
                reader.feed(piece)
            else:
                reader.surplus = True
        head = reader.written(b"somebody", b"1234") if reader.head_done else b""
    except Refused as error:
        refused, head = error.refusal.message + error.refusal.code, b""
    if refused:
        return (refused,)
    return (
        owner.told, owner.body, head, reader.method, reader.target, reader.authorization,
        reader.correlation, reader.length, reader.whole, reader.keep_alive or reader.surplus,
        reader.surplus, reader.has_body, reader.expects, reader.fields(),
    )  # fmt: skip


_LINES = st.lists(
    st.sampled_from(
        [
            *(b"Host: a", b"host:b", b"Host: ", b"User-Agent: ccm 5.0", b"Accept:", b"accept: */*"),
            *(b"Authorization: Bearer x", b"Content-Length: 3", b"content-length:0"),
            *(b"Content-Length: +3", b"Content-Length: 3 ", b"Content-Length: 3, 3"),
            *(b"Transfer-Encoding: chunked", b"Connection: close", b"Connection: Keep-Alive"),
            *(b"Connection: close, x-a", b"X-A: 1", b"X-Correlation-Id: abc-1"),
            *(b"x-correlation-id: a b", b"CMG-Client-Identity: root", b"cmg_client_identity: root"),
            *(b"Content_Length: 9", b"Expect: 100-continue", b"Upgrade: h2c", b"TE: trailers"),
            *(b" folded", b"X-B : 1", b"X-C: a\tb", b"X-D: \xc3\xa9", b"X-E: a\0b", b"X-F: a\nb"),
            *(
                b"X-G: a ",
                b"X-H:\ta",
                b"X-I: a\x7f",
                b": nothing",
                b"nothing",
                b"X(J): 1",
                b"X-K: a\rb",
            ),
            *(b"Proxy-Connection: close", b"Keep-Alive: 5", b"Via: 1.1 x"),
        ]
    )
    | st.binary(max_size=12),
    max_size=7,
)
_FIRST = st.sampled_from(
    [
        *(b"GET /a HTTP/1.1", b"POST /a?b=c HTTP/1.1", b"HEAD / HTTP/1.1", b"get /a HTTP/1.1"),
        *(b"GET /a HTTP/1.0", b"GET  /a HTTP/1.1", b"GET /a HTTP/1.1 ", b"GET /a#b HTTP/1.1"),
        *(b"GET http://a/ HTTP/1.1", b"OPTIONS * HTTP/1.1", b"PATCH /a HTTP/1.1", b"GET /a"),
        *(
            b"DELETE /a%2e HTTP/1.1",
            b"GET /\xff HTTP/1.1",
            b'GET /"<> HTTP/1.1',
            b"\r\nGET / HTTP/1.1",
        ),
    ]
)


@given(
    _FIRST,
    _LINES,
    st.sampled_from([b"", b"abc", b"abcd", b"GET / HTTP/1.1\r\n\r\n"]),
    st.booleans(),
)
@example(b"POST /a HTTP/1.1", [b"Content-Length: 3"], b"abc", True)
@example(b"GET /a HTTP/1.1", [b"Proxy-Connection: close"], b"", True)
def test_in_one_piece_or_in_two_a_request_means_the_same(
    first: bytes, lines: list[bytes], body: bytes, with_host: bool
) -> None:
    if with_host:
        lines = [b"Host: a", *lines]
    data = b"\r\n".join([first, *lines]) + b"\r\n\r\n" + body
    # The first byte alone is not plain, so the rest of it is llhttp's.
    assert read(data) == read(data[:1], data[1:])


def test_what_is_plain_does_without_llhttp() -> None:
    for data in (
        b"GET /a HTTP/1.1\r\nHost: a\r\nUser-Agent: ccm\r\n\r\n",
        b"POST /a?b HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nConnection: close\r\n\r\nabc",
    ):
        reader = Reader(Owner(), 16_384)
        reader.feed(data)
        assert reader.whole
        assert reader._parser is None


def test_a_request_that_is_answered_at_its_end_does_not_count_for_the_next() -> None:
    """Refused with its connection kept, while llhttp still has the piece that it came in."""
    refused: list[int] = []

    class Refusing(Owner):
        def request_read(self) -> None:
            refused.append(1)
            reader.begin()

    reader = Reader(Refusing(), 16_384)
    head = b"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 50000\r\n\r\n"
    for _ in range(2):
        reader.feed(head[:40])
        reader.feed(head[40:])
        reader.feed(b"a" * 50_000)
    assert len(refused) == 2
    # And what comes then can be plain again.
    reader.feed(b"GET /a HTTP/1.1\r\nHost: a\r\n\r\n")
    assert len(refused) == 3
