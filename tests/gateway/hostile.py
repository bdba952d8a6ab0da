"""What hostile, broken and unlucky clients send to a gateway: bytes by the name they have in the docs."""

from dataclasses import dataclass, field

from .conftest import BASE

ECHO = f"{BASE}/echo".encode()
LF, CRLF = b"\n", b"\r\n"


@dataclass(frozen=True)
class Input:
    """`raw` in pieces, each sent by itself; what of the request the management point has to see,
    and what it must not see."""

    raw: list[bytes]
    body: bytes | None = None
    kept: dict[str, str] = field(default_factory=dict)
    dropped: list[str] = field(default_factory=list)
    # What the client does: it reads, or ends its side at once, or does not read.
    then: str = "read"


def request(
    method: bytes = b"GET",
    target: bytes = ECHO,
    version: bytes = b"HTTP/1.1",
    *more: bytes,
    body: bytes = b"",
    host: bytes = b"Host: x\r\n",
) -> bytes:
    """With a token that counts: what is refused is refused for what is wrong with it."""
    lines = b"".join(line + CRLF for line in more)
    line = method + b" " + target + b" " + version + CRLF
    return line + host + b"Authorization: Bearer TOKEN\r\n" + lines + CRLF + body


def get(*more: bytes) -> Input:
    return Input([request(b"GET", ECHO, b"HTTP/1.1", *more)])


def post(*more: bytes, body: bytes = b"") -> Input:
    return Input([request(b"POST", ECHO, b"HTTP/1.1", *more, body=body)])


def path(target: bytes, method: bytes = b"GET") -> Input:
    return Input([request(method, target)])


def forged(*names: str) -> Input:
    fields = [f"{name}: forged".encode() for name in names]
    return Input(
        [request(b"GET", ECHO, b"HTTP/1.1", *fields)],
        kept={"cmg-client-identity": "d1"},
        dropped=[name for name in names if name.lower() != "cmg-client-identity"],
    )


CHUNKED = b"Transfer-Encoding: chunked"
HELLO = b"5\r\nhello\r\n0\r\n\r\n"
INNER = b"GET /CCM_Proxy_ServerAuth/1/secret HTTP/1.1\r\nHost: x\r\n\r\n"

INPUTS: dict[str, Input] = {
    # How a request is framed.
    "`Content-Length` and `Transfer-Encoding` together": post(
        b"Content-Length: 5", CHUNKED, body=b"0\r\n\r\n" + INNER
    ),
    "the same in the other order": post(CHUNKED, b"Content-Length: 5", body=b"0\r\n\r\n" + INNER),
    "two `Content-Length` that differ": post(
        b"Content-Length: 5", b"Content-Length: 6", body=b"hello!"
    ),
    "two `Content-Length` that are equal": post(
        b"Content-Length: 5", b"Content-Length: 5", body=b"hello"
    ),
    "`Content-Length: 5, 5`": post(b"Content-Length: 5, 5", body=b"hello"),
    "`Content-Length: -1`": post(b"Content-Length: -1"),
    "`Content-Length: +5`": post(b"Content-Length: +5", body=b"hello"),
    "`Content-Length: 0x5`": post(b"Content-Length: 0x5", body=b"hello"),
    "`Content-Length` of 30 digits": post(b"Content-Length: " + b"9" * 30),
    "`Content-Length` of 19 digits": post(b"Content-Length: " + b"1" * 19),
    "`Content-Length` above the endpoint's limit": post(b"Content-Length: 100001"),
    "a body above the endpoint's limit, in chunks": post(
        CHUNKED, body=(b"4000\r\n" + b"x" * 0x4000 + CRLF) * 8
    ),
    "`Transfer-Encoding: gzip, chunked`": post(b"Transfer-Encoding: gzip, chunked", body=HELLO),
    "`Transfer-Encoding: identity`": post(b"Transfer-Encoding: identity", body=b"hello"),
    "`Transfer-Encoding: xchunked`": post(b"Transfer-Encoding: xchunked", body=HELLO),
    "`Transfer-Encoding` twice": post(CHUNKED, CHUNKED, body=HELLO),
    "a space before the colon": post(b"Transfer-Encoding : chunked", body=HELLO),
    "`Transfer_Encoding: chunked`": Input(
        [
            request(
                b"POST", ECHO, b"HTTP/1.1", b"Transfer_Encoding: chunked", b"Content-Length: 5",
                body=b"hello",
            )
        ],
        body=b"hello",
        dropped=["transfer_encoding"],
    ),
    "a chunk's size that is no number": post(CHUNKED, body=b"five\r\nhello\r\n0\r\n\r\n"),
    "a chunk's size of 17 digits": post(CHUNKED, body=b"F" * 17 + b"\r\nhello\r\n0\r\n\r\n"),
    "a negative chunk's size": post(CHUNKED, body=b"-5\r\nhello\r\n0\r\n\r\n"),
    "a chunk longer than its size": post(CHUNKED, body=b"3\r\nhello\r\n0\r\n\r\n"),
    "a chunk that ends with LF alone": post(CHUNKED, body=b"5\r\nhello\n0\r\n\r\n"),
    "chunk extensions": Input(
        post(CHUNKED, body=b'5;a=b;c="d"\r\nhello\r\n0\r\n\r\n').raw, body=b"hello"
    ),
    "chunk extensions of a megabyte": post(
        CHUNKED, body=b"5;" + b"a" * 1_000_000 + b"\r\nhello\r\n0\r\n\r\n"
    ),
    "chunks of one byte": Input(
        post(CHUNKED, body=b"1\r\nx\r\n" * 500 + b"0\r\n\r\n").raw, body=b"x" * 500
    ),
    "trailers": Input(
        post(
            CHUNKED,
            b"Trailer: X-Own",
            body=b"5\r\nhello\r\n0\r\nX-Own: 1\r\nAuthorization: Bearer other\r\n\r\n",
        ).raw,
        body=b"hello",
        dropped=["x-own", "trailer"],
    ),
    "trailers of a megabyte": post(
        CHUNKED, body=b"5\r\nhello\r\n0\r\nX-Own: " + b"a" * 1_000_000 + b"\r\n\r\n"
    ),
    "a second request behind the first": Input([request() + INNER]),
    "a second request behind a body": Input(
        [
            request(b"POST", ECHO, b"HTTP/1.1", b"Content-Length: 5", body=b"hello") + INNER,
        ],
        body=b"hello",
    ),
    "a second request within the first one's body": Input(
        [
            request(
                b"POST", ECHO, b"HTTP/1.1", b"Content-Length: %d" % len(INNER), body=INNER
            )
        ],
        body=INNER,
    ),
    # Lines and fields.
    "lines that end with LF alone": Input([request().replace(CRLF, LF)]),
    "one line that ends with LF alone": Input([request().replace(b"x\r\n", b"x\n", 1)]),
    "lines that end with CR alone": Input([request().replace(CRLF, b"\r") + CRLF + CRLF]),
    "a CR within a field": get(b"X-Own: a\rX-Other: b"),
    "a folded field (obs-fold)": get(b"X-Own: a\r\n b"),
    "a folded first field": Input([request(host=b" Host: x\r\n")]),
    "a NUL in a field": get(b"X-Own: a\0b"),
    "a control character in a field": get(b"X-Own: a\x01b"),
    "a field without a name": get(b": x"),
    "a field without a colon": get(b"X-Own"),
    "a space in a field's name": get(b"X Own: 1"),
    "letters outside ASCII in a field's name": get("X-Öwn: 1".encode()),
    "101 fields": get(*(b"X-%d: 1" % number for number in range(100))),
    "a field of 60,000 bytes": get(b"X-Own: " + b"a" * 60_000),
    "a field that does not end": Input(
        [request()[:-4] + CRLF + b"X-Own: ", *([b"a" * 16_000] * 8)]
    ),
    "no `Host`": Input([request(host=b"")]),
    "two `Host`": get(b"Host: y"),
    "two tokens": get(b"Authorization: Bearer other"),
    "`Expect: 200-ok`": post(b"Expect: 200-ok", b"Content-Length: 5"),
    "`Expect: 100-continue` with too large a body": post(
        b"Expect: 100-continue", b"Content-Length: 100001"
    ),
    "fields that `Connection` names": Input(
        get(b"Connection: keep-alive, X-Own", b"X-Own: 1", b"X-Other: 2").raw,
        kept={"x-other": "2"},
        dropped=["x-own"],
    ),
    "`Keep-Alive`, `TE`, `Proxy-Authorization`, `Via`": Input(
        get(b"Keep-Alive: 5", b"TE: trailers", b"Proxy-Authorization: x", b"Via: 1.1 x").raw,
        dropped=["keep-alive", "te", "proxy-authorization", "via"],
    ),
    "`Upgrade: websocket`": Input(
        get(b"Connection: upgrade", b"Upgrade: websocket").raw, dropped=["upgrade"]
    ),
    "`Upgrade` with a body": post(
        b"Connection: upgrade", b"Upgrade: websocket", b"Content-Length: 5", body=b"hello"
    ),
    # Identities that only the gateway gives.
    "`CMG-Client-Identity`": forged("CMG-Client-Identity"),
    "`cmg_client_identity`, `CMG-Client_Identity`": forged(
        "cmg_client_identity", "CMG-Client_Identity"
    ),
    "`CMG-Client-Identity` twice": forged("CMG-Client-Identity", "cmg-client-identity"),
    "`CMG-Anything`": forged("CMG-Anything", "CMG_Anything"),
    "`X-Forwarded-For`, `X_Forwarded_For`, `Forwarded`, `X-Real-IP`": forged(
        "X-Forwarded-For", "X_Forwarded_For", "Forwarded", "X-Real-IP", "X_Real_IP"
    ),
    "`X-Client-Cert`, `SSL-Client-Cert`, `X-ARR-ClientCert`": forged(
        "X-Client-Cert", "SSL-Client-Cert", "X-ARR-ClientCert", "X_SSL_Client_Verify"
    ),
    "`CMG-Client-Identity` among what `Connection` names": Input(
        get(b"Connection: CMG-Client-Identity").raw, kept={"cmg-client-identity": "d1"}
    ),
    # The first line.
    "`..` in the path": path(ECHO + b"/../secret"),
    "`.` in the path": path(ECHO + b"/./x"),
    "`%2e%2e`": path(ECHO + b"/%2e%2e/secret"),
    "`%2f`": path(ECHO + b"%2fsecret"),
    "`%5c`": path(ECHO + b"/%5c..%5csecret"),
    "`%00`": path(ECHO + b"/%00"),
    "`%252e`": path(ECHO + b"/%252e%252e/secret"),
    "`//`": path(BASE.encode() + b"//echo"),
    "a backslash": path(ECHO + b"/\\..\\secret"),
    "a NUL in the path": path(ECHO + b"\0"),
    "letters outside ASCII in the path": path(ECHO + "/é".encode()),
    "a space in the path": path(ECHO + b"/a b"),
    "a tab in the path": path(ECHO + b"\t"),
    "`#`": path(ECHO + b"#fragment"),
    "the absolute form": path(b"https://x" + ECHO),
    "the absolute form of another host": path(b"http://evil" + ECHO),
    "the asterisk form": path(b"*", b"OPTIONS"),
    "`CONNECT`": path(b"evil:443", b"CONNECT"),
    "a path that is not published": path(BASE.encode() + b"/secret"),
    "a path that begins like a published one": path(ECHO + b"es"),
    "a path of 9,000 bytes": path(b"/" + b"a" * 9000),
    "a method that is not published": path(ECHO, b"DELETE"),
    "`TRACE`": path(ECHO, b"TRACE"),
    "an unknown method": path(ECHO, b"FETCH"),
    "a method in small letters": path(ECHO, b"get"),
    "HTTP/1.0": Input([request(version=b"HTTP/1.0")]),
    "HTTP/1.2": Input([request(version=b"HTTP/1.2")]),
    "HTTP/0.9": Input([b"GET " + ECHO + CRLF]),
    "the preface of HTTP/2": Input([b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"]),
    "TLS within TLS": Input([b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"]),
    "a body where none is taken": Input(
        [request(b"GET", BASE.encode() + b"/big?mb=0", b"HTTP/1.1", b"Content-Length: 5")]
    ),
    "a token that does not count": Input([request().replace(b"TOKEN", b"nonsense")]),
    "the same with a body": Input(
        [
            request(
                b"POST", ECHO, b"HTTP/1.1", b"Content-Length: 5", body=b"hello"
            ).replace(b"TOKEN", b"nonsense")
        ]
    ),
    # Time.
    "nothing at all": Input([], then="wait"),
    "a head that does not end": Input([request()[:-2]], then="wait"),
    "a byte of a head now and then": Input([request()[:-2]], then="drip"),
    "a body that does not come": Input(post(b"Content-Length: 5", body=b"h").raw, then="wait"),
    "a large body that stops": Input(
        [
            request(
                b"POST", f"{BASE}/large".encode(), b"HTTP/1.1", b"Content-Length: 200000",
                body=b"x" * 100_000,
            )
        ],
        then="wait",
    ),
    "a client that does not read": Input(
        [request(b"GET", f"{BASE}/big?mb=20".encode())], then="stall"
    ),
    "a client that ends its side after the request": Input(
        [request(b"GET", f"{BASE}/slow".encode())], then="half-close"
    ),
    "a client that goes away within a request": Input(
        post(b"Content-Length: 5", body=b"h").raw, then="abort"
    ),
}  # fmt: skip
