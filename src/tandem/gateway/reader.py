"""Requests of clients, read strictly and written anew (RFC 9112), without I/O.

    bytes ──▶ Reader ──▶ owner.head_read()            the head is whole: who asks, for what
                         owner.body_read(piece)       none, or some
                         owner.request_read()         the message is whole

A request that came in one piece and is written as nearly all are is read here, line by line, and
remembered line by line: devices say the same again and again. Every other is llhttp's, whose word
on what is an error counts; what both read, both read alike.

Whatever a client's framing was, what goes on is written here from the parsed parts: one request
line, one line for each field that may pass, and a Content-Length of ours. What follows a request
before its answer is never read: a second request that somebody hid behind the first stays bytes.
"""

import re
from typing import Any, Final, Protocol

import httptools

from tandem.gateway.model import Refusal
from tandem.gateway.statuses import refusal

TARGET_LIMIT = 8192
FIELD_LIMIT = 100
# What the chunks of a body may cost beyond it: one byte a chunk is five, and that is spite.
_FRAMING_BYTES = 65_536
_FRAMING_FACTOR = 8
IDEMPOTENT = frozenset({"GET", "HEAD"})


# What becomes of a field.
_PASSED: Final = 0
_DROPPED: Final = 1
_HOST: Final = 2
_AUTHORIZATION: Final = 3
_LENGTH: Final = 4
_ENCODING: Final = 5
_CONNECTION: Final = 6
_EXPECT: Final = 7
_CORRELATION: Final = 8
_UPGRADE: Final = 9

_KINDS = {
    b"host": _HOST,
    b"authorization": _AUTHORIZATION,
    b"content-length": _LENGTH,
    b"transfer-encoding": _ENCODING,
    b"connection": _CONNECTION,
    b"expect": _EXPECT,
    b"x-correlation-id": _CORRELATION,
    b"upgrade": _UPGRADE,
}
# Fields that end at this hop (RFC 9110, 7.6.1), and those that only a proxy may say.
_HOP = {
    *(b"keep-alive", b"proxy-connection", b"proxy-authorization", b"proxy-authenticate"),
    *(b"te", b"trailer", b"http2-settings", b"forwarded", b"via", b"x-real-ip"),
}
# The identity that the gateway vouches for, and what others vouch with: no client says it, also
# not in a spelling that a CGI-like reader behind us would take for it (`CMG_Client_Identity`).
_VOUCHED = re.compile(rb"cmg-|x-forwarded-|x-client-cert|x-ssl-|ssl-client-|x-arr-")
_known = dict(_KINDS)
_KNOWN_LIMIT = 1000

_PLAIN = re.compile(rb"[0-9A-Za-z._-]{1,64}")
# What is read without llhttp: less than it allows, and nothing of which two readers could think
# differently.
_FIRST = re.compile(
    rb"(GET|POST|HEAD|PUT|DELETE) (/[0-9A-Za-z/._~%?&=:;,+@!$'()*-]{0,2000}) HTTP/1\.1"
)
_FIELD = re.compile(
    rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+): ?((?:[\x21-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?)?)"
)
# By a field's line: what becomes of it, the line that goes on, and its value.
_lines: dict[bytes, tuple[int, bytes, bytes]] = {}
_MOST_LINES, _LONGEST_LINE = 4_000, 128
# A head up to this size is kept with its connection, in case that it comes again.
_REMEMBERED = 2_048
_NOT_PLAIN: Final = 10


def _kind(name: bytes) -> int:
    """What becomes of a field, by its lower-case name; remembered for names that come often."""
    plain = name.replace(b"_", b"-")
    dropped = plain in _HOP or _VOUCHED.match(plain) or (plain != name and plain in _KINDS)
    kind = _DROPPED if dropped else _PASSED
    if len(_known) < _KNOWN_LIMIT:
        _known[name] = kind
    return kind


def _line(line: bytes) -> tuple[int, bytes, bytes]:
    """A field that stands on this line, if it is one that can be read so."""
    found = _FIELD.fullmatch(line)
    if found is None:
        return _NOT_PLAIN, b"", b""
    name, value = found[1].lower(), found[2]
    if name == b"proxy-connection":
        return _NOT_PLAIN, b"", b""  # llhttp still takes its word about the connection.
    kind = _known.get(name)
    if kind is None:
        kind = _kind(name)
    read = kind, name + b": " + value, value
    if len(line) <= _LONGEST_LINE and kind is not _AUTHORIZATION and kind is not _CORRELATION:
        if len(_lines) >= _MOST_LINES:
            _lines.clear()
        _lines[line] = read
    return read


class Refused(Exception):
    """This request gets the refusal, and the connection cannot be used any further."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.code)
        self.refusal = refusal


class Owner(Protocol):
    def head_read(self) -> None: ...
    def body_read(self, piece: bytes) -> None: ...
    def request_read(self) -> None: ...


class _Again:
    """A request that the same connection may send again: devices ask for the same all day."""

    __slots__ = (
        "after",
        "authorization",
        "before",
        "data",
        "identity",
        "lines",
        "method",
        "target",
    )

    def __init__(
        self,
        data: bytes,
        method: str,
        target: bytes,
        authorization: bytes | None,
        lines: list[bytes],
    ) -> None:
        self.data = data
        self.method = method
        self.target = target
        self.authorization = authorization
        self.lines = lines
        # The head as it was written for this client, without its correlation id.
        self.identity: bytes | None = None
        self.before = self.after = b""


class Reader:
    """The requests of one connection, one after the other."""

    __slots__ = (
        "_again",
        "_begun",
        "_connection",
        "_count",
        "_encoded",
        "_fed",
        "_hosts",
        "_lines",
        "_most_head",
        "_owner",
        "_parser",
        "_size",
        "_upgrade",
        "authorization",
        "body_bytes",
        "correlation",
        "expects",
        "head_done",
        "keep_alive",
        "length",
        "method",
        "rest",
        "surplus",
        "target",
        "whole",
    )

    def __init__(self, owner: Owner, header_bytes: int) -> None:
        self._owner = owner
        self._most_head = header_bytes
        self._parser: Any = None
        # The last request, when it was plain and without a body, and what its head was made to.
        self._again: _Again | None = None
        self.begin()

    def begin(self) -> None:
        """Forget the request that was answered."""
        self.method = ""
        self.target = b""
        self.authorization: bytes | None = None
        self.correlation = b""
        self.length: int | None = None
        self.expects = False
        self.body_bytes = 0
        self.head_done = False
        self.whole = False
        # Whether the client wants the connection for another request; known when this one is whole.
        self.keep_alive = False
        # More came than one request, or an upgrade: nothing after this one is read.
        self.surplus = False
        self._upgrade = b""
        self.rest = b""  # What came behind a request for an upgrade.
        self._lines: list[bytes] = []
        self._connection = b""
        self._encoded = False
        self._hosts = 0
        self._count = 0
        self._size = 0
        self._fed = 0
        # Whether the parser is within a request. Its owner may have answered and begun anew meanwhile.
        self._begun = False

    def feed(self, data: bytes) -> None:
        """Raises Refused: nothing more can be read then."""
        if not self._fed and not self.whole and self._read_plain(data):
            return
        if self._parser is None:
            self._parser = httptools.HttpRequestParser(self)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserCallbackError as error:
            cause = error.__context__
            if isinstance(cause, _Surplus):
                self.surplus = True
                return
            if cause is not None:
                raise cause from None
            raise
        except httptools.HttpParserError:
            if self.whole:
                # What follows is no request, and nobody would have read it.
                self.surplus = True
                return
            raise Refused(_NOT_HTTP) from None
        except httptools.HttpParserUpgrade as upgrade:
            # Nothing is upgraded here; the request itself counts (RFC 9110, 7.8).
            self.surplus = True
            self.rest = bytes(data[upgrade.args[0] :])
            return
        if self._begun and not self.whole:
            self._fed += len(data)
            if not self.head_done:
                # The parser itself keeps a field of any size until its end.
                if self._fed > self._most_head + TARGET_LIMIT:
                    raise Refused(_HEADERS)
            elif self._encoded and (
                self._fed > self._size + _FRAMING_BYTES + _FRAMING_FACTOR * self.body_bytes
            ):
                raise Refused(_FRAMING)

    def _read_plain(self, data: bytes) -> bool:
        """A request that came in one piece and is written plainly; False when llhttp has to tell."""
        again = self._again
        if again is not None and data == again.data:
            self.method, self.target, self._lines = again.method, again.target, again.lines
            self.authorization = again.authorization
            self.head_done = True
            self._owner.head_read()
            self.whole = self.keep_alive = True
            self._owner.request_read()
            return True
        self._again = None
        end = data.find(b"\r\n\r\n")
        if end < 0 or end > self._most_head:
            return False
        first, *lines = data[:end].split(b"\r\n")
        found = _FIRST.fullmatch(first)
        if found is None or len(lines) > FIELD_LIMIT:
            return False
        written: list[bytes] = []
        known = _lines
        hosts, length, keep = 0, -1, b""
        authorization: bytes | None = None
        correlation = b""
        for line in lines:
            kind, text, value = known.get(line) or _line(line)
            if kind is _PASSED:
                written.append(text)
            elif kind is _HOST:
                hosts += 1
                written.append(text)
            elif kind is _AUTHORIZATION and authorization is None:
                authorization = value
                written.append(text)
            elif kind is _LENGTH and length < 0 and value.isdigit() and len(value) <= 18:
                length = int(value)
            elif kind is _CONNECTION and not keep:
                keep = value.lower()
                if keep not in (b"keep-alive", b"close"):
                    return False
            elif kind is _CORRELATION:
                if _PLAIN.fullmatch(value):
                    correlation = value
            elif kind is not _DROPPED:
                return False
        body = data[end + 4 :]
        if hosts != 1 or len(body) != max(length, 0):
            return False
        self.method = found[1].decode("ascii")
        self.target = found[2]
        self.authorization = authorization
        self.correlation = correlation
        self.length = length if length >= 0 else None
        self._lines = written
        self.head_done = True
        if not body and not correlation and not keep and end <= _REMEMBERED:
            self._again = _Again(data, self.method, self.target, authorization, written)
        owner = self._owner
        owner.head_read()
        if body:
            self.body_bytes = len(body)
            owner.body_read(body)
        self.whole = True
        self.keep_alive = keep != b"close"
        owner.request_read()
        return True

    @property
    def has_body(self) -> bool:
        return self._encoded or bool(self.length)

    def fields(self) -> list[tuple[bytes, bytes]]:
        """Those that pass, by lower-case name."""
        return [(name, value) for name, _, value in (line.partition(b": ") for line in self._lines)]

    def once(self, names: frozenset[bytes]) -> dict[bytes, bytes] | None:
        """The values of those fields that are there; None when one of them came twice."""
        found: dict[bytes, bytes] = {}
        for line in self._lines:
            name, _, value = line.partition(b": ")
            if name in names:
                if name in found:
                    return None
                found[name] = value
        return found

    def handshake(self) -> list[tuple[bytes, bytes]]:
        """Those of a request for an upgrade, with what is this hop's."""
        named = self._connection.rstrip(b",")
        return [*self.fields(), (b"connection", named), (b"upgrade", self._upgrade)]

    def headers(self) -> dict[str, str]:
        """The same as text, for what is answered here; of several with one name the last."""
        return {name.decode("latin-1"): value.decode("latin-1") for name, value in self.fields()}

    def written(self, identity: bytes, correlation: bytes) -> bytes:
        """The head for the inside. `identity` and `correlation` hold printable ASCII alone."""
        again, lines = self._again, self._lines
        if again is not None and again.identity is identity and again.lines is lines:
            return again.before + correlation + again.after
        length = self.length or 0
        if self._encoded:
            # Not known yet when the body goes on as it comes.
            length = self.body_bytes if self.whole else -1
        framed = b""
        if length > 0 or (length == 0 and self.method not in IDEMPOTENT):
            framed = b"content-length: %d\r\n" % length
        before = b"%s %s HTTP/1.1\r\n%s\r\nx-correlation-id: " % (
            self.method.encode(),
            self.target,
            b"\r\n".join(lines),
        )
        after = b"\r\ncmg-client-identity: %s\r\n%s\r\n" % (identity, framed)
        head = before + correlation + after
        # By construction: as many lines as were written, whatever the parser let through.
        wanted = len(lines) + 4 + bool(framed)
        if head.count(b"\n") != wanted or head.count(b"\r") != wanted or b"\0" in head:
            raise Refused(_NOT_HTTP)
        if again is not None and again.lines is lines:
            again.identity, again.before, again.after = identity, before, after
        return head

    # -------------------------------------------------------------- what the parser tells

    def on_message_begin(self) -> None:
        if self.whole:
            raise _Surplus
        self._begun = True

    def on_url(self, url: bytes) -> None:
        self.target += url
        if len(self.target) > TARGET_LIMIT:
            raise Refused(_TARGET)

    def on_header(self, name: bytes, value: bytes) -> None:
        if self.head_done:
            return  # A trailer: it was not there when the request was judged.
        name = name.lower()
        self._size += len(name) + len(value)
        self._count += 1
        if self._count > FIELD_LIMIT or self._size > self._most_head:
            raise Refused(_HEADERS)
        kind = _known.get(name)
        if kind is None:
            kind = _kind(name)
        if kind is _PASSED:
            self._lines.append(name + b": " + value)
        elif kind is not _DROPPED:
            self._special(kind, name, value)

    def _special(self, kind: int, name: bytes, value: bytes) -> None:
        if kind is _HOST:
            self._hosts += 1
            self._lines.append(b"host: " + value)
        elif kind is _AUTHORIZATION:
            if self.authorization is not None:
                # Which one counts must not depend on who reads them.
                raise Refused(_TWO_TOKENS)
            self.authorization = value
            self._lines.append(b"authorization: " + value)
        elif kind is _LENGTH:
            if self.length is not None or not value.isdigit() or len(value) > 18:
                raise Refused(_BAD_LENGTH)
            self.length = int(value)
        elif kind is _ENCODING:
            if self._encoded or value.lower() != b"chunked":
                raise Refused(_BAD_ENCODING)
            self._encoded = True
        elif kind is _CONNECTION:
            self._connection += value + b","
        elif kind is _EXPECT:
            if value.lower() != b"100-continue":
                raise Refused(_BAD_EXPECT)
            self.expects = True
        elif kind is _CORRELATION:
            if _PLAIN.fullmatch(value):
                self.correlation = value
        elif kind is _UPGRADE:
            self._upgrade = value

    def on_headers_complete(self) -> None:
        self.head_done = True
        if self._hosts != 1:
            raise Refused(_ONE_HOST)
        if self._encoded and self.length is not None:
            raise Refused(_BOTH)
        if self._upgrade and self.has_body:
            raise Refused(_BAD_UPGRADE)
        if self._parser.get_http_version() != "1.1":
            raise Refused(_VERSION)
        method = self._parser.get_method()
        self.method = _METHODS.get(method) or method.decode("ascii")
        if b"#" in self.target:
            raise Refused(_FRAGMENT)
        if self._connection:
            self._drop_named()
        self._owner.head_read()

    def _drop_named(self) -> None:
        """Fields that `Connection` names are this hop's, too."""
        for word in self._connection.lower().split(b","):
            named = word.strip()
            if named in (b"", b"close", b"keep-alive", b"upgrade"):
                continue
            start = named + b": "
            self._lines = [line for line in self._lines if not line.startswith(start)]

    def on_body(self, piece: bytes) -> None:
        self.body_bytes += len(piece)
        self._owner.body_read(piece)

    def on_message_complete(self) -> None:
        self.whole = True
        self.keep_alive = self._parser.should_keep_alive()
        self._owner.request_read()


class _Surplus(Exception):
    """A second request before the first was answered."""


_METHODS = {b"GET": "GET", b"POST": "POST", b"HEAD": "HEAD", b"PUT": "PUT", b"DELETE": "DELETE"}
_NOT_HTTP = refusal("CMGService_Bad_Request", "The request is not valid HTTP/1.1.")
_ONE_HOST = refusal("CMGService_Bad_Request", "A request names one host.")
_TWO_TOKENS = refusal("CMGService_Bad_Request", "A request has one token.")
_BAD_LENGTH = refusal("CMGService_Bad_Request", "The length of the body is said once, as a number.")
_BAD_ENCODING = refusal("CMGService_Bad_Request", "A body comes as it is, or in chunks.")
_BOTH = refusal("CMGService_Bad_Request", "A body has a length or comes in chunks, not both.")
_BAD_UPGRADE = refusal("CMGService_Bad_Request", "A request that asks for an upgrade has no body.")
_FRAMING = refusal("CMGService_Bad_Request", "The body comes in too many pieces.")
_TARGET = refusal("CMGService_Url_Too_Long")
_FRAGMENT = refusal("CMGService_Invalid_Url")
_HEADERS = refusal("CMGService_Headers")
_BAD_EXPECT = refusal("CMGService_Expectation")
_VERSION = refusal("CMGService_Http_Version")
