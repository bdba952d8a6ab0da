"""Hostile enrolment over HTTP: XML, bodies, tokens and certificate requests (section 20).

Whatever comes is answered in SOAP's words, tells nothing of the inside, and leaves the service as it
was: each test ends with a device that enrols.
"""

import asyncio
import base64
import hmac
import json
import re
import time
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from joserfc import jwt
from joserfc.jwk import RSAKey
from lxml import etree

from mdm_world import (
    WSSE,
    Mdm,
    bearer,
    certificate_request,
    discover,
    get_policies,
    live_mdm,
    new_id,
    request_token,
    said,
    subcode,
)
from tandem import pki
from tandem.infra.database import Database
from tandem.tenant import directory, enrollment
from tenant_world import Joined

FORMAT = {"s:MessageFormat"}
Bend = Callable[[bytes], bytes]
SECRET = "s3cret-of-a-file"
AT = datetime(2026, 1, 1, tzinfo=UTC)


async def someone(mdm: Mdm, name: str = "alex") -> tuple[directory.User, Joined, str]:
    user = await mdm.world.user(name)
    joined = await mdm.world.joined(user.user_principal_name)
    return user, joined, await mdm.mdm_token(joined)


# ---------------------------------------------------------------------- XML


def typed(text: str) -> Bend:
    return lambda message: text.encode() + message


def swap(old: str, new: str) -> Bend:
    def bent(message: bytes) -> bytes:
        assert old.encode() in message, old
        return message.replace(old.encode(), new.encode(), 1)

    return bent


def coded(name: str, declared: str = "") -> Bend:
    head = f'<?xml version="1.0" encoding="{declared}"?>' if declared else ""
    return lambda message: (head + message.decode()).encode(name)


LAUGHS = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 10))
REFUSED: dict[str, Bend] = {
    "an entity": lambda m: swap("urn:uuid:1", "&e;")(typed('<!DOCTYPE x [<!ENTITY e "v">]>')(m)),
    "entities of entities": lambda m: swap("urn:uuid:1", "&l9;")(
        typed(f'<!DOCTYPE x [<!ENTITY l0 "ha">{LAUGHS}]>')(m)
    ),
    "a file": lambda m: swap("urn:uuid:1", "&f;")(
        typed('<!DOCTYPE x [<!ENTITY f SYSTEM "file://FILE">]>')(m)
    ),
    "a file as parameter": typed('<!DOCTYPE x [<!ENTITY % p SYSTEM "file://FILE"> %p;]>'),
    "a document type elsewhere": typed('<!DOCTYPE x SYSTEM "http://127.0.0.1:1/x.dtd">'),
    "a bare document type": typed("<!DOCTYPE x>"),
    "a document type after a comment": typed("<!-- a --><!DOCTYPE x>"),
    "a document type in UTF-16": lambda m: (
        b"\xff\xfe" + ('<!DOCTYPE x [<!ENTITY e "v">]>' + m.decode()).encode("utf-16-le")
    ),
    "an entity that is not declared": swap("urn:uuid:1", "&nothing;"),
    "no end": lambda m: m[:-3],
    "two roots": lambda m: m + m,
    "a NUL": swap("urn:uuid:1", "urn:\0uuid"),
    "a NUL by number": swap("urn:uuid:1", "urn:&#0;uuid"),
    "no UTF-8": lambda m: m.replace(b"urn:uuid:1", b"urn:\xff\xfe\xfd"),
    "half of a surrogate": lambda m: m.replace(b"urn:uuid:1", b"urn:\xed\xa0\x80"),
    "UTF-16 that says UTF-8": lambda m: (
        b'<?xml version="1.0" encoding="utf-8"?>' + m.decode().encode("utf-16-le")
    ),
    "UTF-8 that says UTF-16": typed('<?xml version="1.0" encoding="utf-16"?>'),
    "UTF-7": coded("utf-7", "utf-7"),
    "an encoding that is none": typed('<?xml version="1.0" encoding="klingon"?>'),
    "EBCDIC": coded("cp037", "no-such-cp037"),
    "65 levels": swap("<s:Body>", "<s:Body>" + "<x>" * 63 + "</x>" * 63),
    "60,000 levels": lambda m: b"<x>" * 15_000 + b"</x>" * 5_000,
    "only open tags": lambda m: b"<s:Envelope>" * 5_000,
    "an attribute twice": swap("<s:Header>", '<s:Header a="1" a="2">'),
    "a prefix that is not declared": swap("<s:Header>", "<s:Header><z:Action/>"),
    "another SOAP": lambda m: m.replace(b"2003/05/soap-envelope", b"2003/05/soap-envelopes"),
    "no namespace": lambda m: m.replace(
        b' xmlns:s="http://www.w3.org/2003/05/soap-envelope"', b""
    ).replace(b"s:", b""),
    "an Action of another namespace": lambda m: m.replace(
        b"www.w3.org/2005/08/addressing", b"x.example"
    ),
    "two Actions": swap("<a:MessageID>", "<a:Action>urn:other</a:Action><a:MessageID>"),
    "two MessageIDs": swap("<a:MessageID>", "<a:MessageID>urn:uuid:2</a:MessageID><a:MessageID>"),
    "two headers": swap("<s:Body>", "<s:Header/><s:Body>"),
    "two bodies": swap("<s:Body>", "<s:Body/><s:Body>"),
    "a body in the header": swap("</s:Header><s:Body>", "<s:Body>"),
    "what belongs elsewhere": lambda m: (
        get_policies("a.b.c") if b"IDiscoveryService" in m else discover()
    ),
    "JSON": lambda _: b'{"Envelope": {}}',
    "nothing": lambda _: b"",
    "white space": lambda _: b" \r\n" * 99,
    "a compressed body": lambda m: b"\x1f\x8b\x08\x00" + m,
    "WBXML": lambda _: b"\x02\x9f\x53\x6a\x00",
}
TAKEN: dict[str, Bend] = {
    "a BOM": lambda m: b"\xef\xbb\xbf" + m,
    "white space before": lambda m: b"\r\n \t" + m,
    "a BOM and white space": lambda m: b"\xef\xbb\xbf\r\n" + m,
    "a declaration": typed('<?xml version="1.0" encoding="utf-8" standalone="yes"?>'),
    "latin-1 that says so": coded("latin-1", "iso-8859-1"),
    "comments and instructions": lambda m: swap("<s:Header>", "<!-- a --><?b c?><s:Header>")(m),
    "other prefixes": lambda m: re.sub(rb"(</?|xmlns:| )s(:|=)", rb"\1S0AP\2", m),
    "the same id twice": swap("<s:Header>", '<s:Header xml:id="i"><x xml:id="j"/>'),
    "names of strangers": swap("<s:Header>", '<s:Header><x xmlns="urn:s" Action="urn:other"/>'),
}


@pytest.mark.parametrize("path", ["Discovery", "Policy", "Enrollment"])
async def test_xml_that_means_harm_is_refused_in_soap(mdm: Mdm, tmp_path: Path, path: str) -> None:
    (tmp_path / "secret").write_text(SECRET)
    _, _, token = await someone(mdm)
    request = certificate_request(pki.generate_key("rsa2048"))
    good = {
        "Discovery": discover(),
        "Policy": get_policies(token),
        "Enrollment": request_token(token, request),
    }[path]
    began = time.monotonic()
    for name, bend in REFUSED.items():
        message = bend(good).replace(b"FILE", str(tmp_path / "secret").encode())
        answer = await mdm.soap(path, message)
        assert (name, answer.status_code, subcode(answer)) == (name, 200, "s:MessageFormat")
        assert int(answer.headers["content-length"]) == len(answer.content)
        for word in (SECRET, "lxml", "Traceback", "line 1", str(tmp_path)):
            assert word not in answer.text, name
    assert time.monotonic() - began < 10, "nothing of it takes long"
    assert subcode(await mdm.soap(path, good)) == ""


@pytest.mark.parametrize("path", ["Discovery", "Policy"])
async def test_xml_that_real_devices_send_is_taken(mdm: Mdm, path: str) -> None:
    _, _, token = await someone(mdm)
    good = discover() if path == "Discovery" else get_policies(token)
    for name, bend in TAKEN.items():
        answer = await mdm.soap(path, bend(good))
        assert (name, subcode(answer)) == (name, "")
        assert said(answer)["RelatesTo"] == "urn:uuid:1", name


# ---------------------------------------------------------------------- size


@pytest.mark.parametrize(("path", "most"), [("Discovery", 64), ("Policy", 64), ("Enrollment", 256)])
async def test_a_body_that_never_ends_is_read_no_further_than_the_limit(
    mdm: Mdm, path: str, most: int
) -> None:
    pulled = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal pulled
        for _ in range(1600):
            pulled += 64
            yield b" " * 65536

    url = f"/EnrollmentServer/{path}.svc"
    answer = await mdm.world.client.post(url, content=endless())
    assert (answer.status_code, subcode(answer)) == (200, "s:MessageFormat")
    assert pulled <= most + 128, "kilobytes"
    pulled = 0
    announced = {"content-length": str(100 * 1024 * 1024)}
    answer = await mdm.world.client.post(url, content=endless(), headers=announced)
    assert (answer.status_code, subcode(answer)) == (200, "s:MessageFormat")
    assert pulled <= 64, "what is announced is refused unread"


async def test_a_hundred_megabytes_over_tls_do_not_arrive(
    tenant_db: Database, tmp_path: Path
) -> None:
    """Of both listeners: the answer comes while the body is on its way, and the rest is not read."""
    import ssl
    from urllib.parse import urlsplit

    async with live_mdm(tenant_db, tmp_path) as (mdm, root, url):
        device = await mdm.enrolled()
        pem = ssl.DER_cert_to_PEM_cert(device.certificate).encode()
        (tmp_path / "mine.pem").write_bytes(pki.key_pem(device.key) + pem)
        context = ssl.create_default_context(cafile=str(root))
        context.load_cert_chain(tmp_path / "mine.pem")
        for address, code in (
            (f"{mdm.enrollment.public_url}/EnrollmentServer/Enrollment.svc", b"200"),
            (url, b"413"),
        ):
            parts = urlsplit(address)
            for announced in (True, False):
                sent, answer = await _flood(
                    parts.hostname, parts.port, parts.path, context, announced
                )
                assert answer.startswith(b"HTTP/1.1 " + code), address
                assert sent < 32 * 1024 * 1024, address
        assert await device.check_in() == []


async def _flood(
    host: Any, port: Any, path: str, context: Any, announced: bool
) -> tuple[int, bytes]:
    """Send 100 MB until there is an answer; how many bytes went out, and the answer's begin."""
    reader, writer = await asyncio.open_connection(host, port, ssl=context)
    length = f"Content-Length: {100 << 20}" if announced else "Transfer-Encoding: chunked"
    head = f"POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: text/xml\r\n{length}\r\n\r\n"
    writer.write(head.encode())
    piece = b" " * 65536
    framed = piece if announced else b"10000\r\n" + piece + b"\r\n"
    sent = 0
    first = asyncio.create_task(reader.read(200))
    try:
        while sent < 100 << 20 and not first.done():
            writer.write(framed)
            await writer.drain()
            sent += len(piece)
            await asyncio.sleep(0)
    except ConnectionError:
        pass
    answer = await asyncio.wait_for(first, 20)
    writer.transport.abort()
    return sent, answer


# ---------------------------------------------------------------------- tokens


async def test_a_token_of_every_wrong_kind_is_no_credential(mdm: Mdm) -> None:
    user, joined, token = await someone(mdm)
    world = mdm.world
    head, body, signature = token.split(".")
    claims = jwt_claims(token)
    stranger = RSAKey.generate_key(2048, {"kid": "stranger"})
    (public,) = [key for key in (await keys(mdm)) if key["kid"] == jwt_header(token)["kid"]]
    confused = RSAKey.import_key(public).as_pem(private=False)
    none = part({"alg": "none", "typ": "JWT"})
    tokens = await world.user_tokens("openid profile offline_access", upn=user.user_principal_name)
    graph = (await world.bearer(user.user_principal_name))["Authorization"].removeprefix("Bearer ")

    def forged(
        key: Any, algorithm: str = "RS256", header: dict[str, Any] | None = None, **change: Any
    ) -> str:
        made = {"alg": algorithm, "kid": jwt_header(token)["kid"], **(header or {})}
        return jwt.encode(made, {**claims, **change}, key, algorithms=[algorithm])

    wrong = {
        "alg none": f"{none}.{body}.",
        "alg none with the signature": f"{none}.{body}.{signature}",
        "the public key as a secret": with_secret(
            {**jwt_header(token), "alg": "HS256"}, body, confused
        ),
        "a stranger's key under our name": forged(stranger),
        "a stranger's key under its own": forged(stranger, header={"kid": "stranger"}),
        "a key that it brings along": forged(
            stranger, header={"jwk": stranger.as_dict(private=False)}
        ),
        "a key to be fetched": forged(stranger, header={"jku": "http://127.0.0.1:1/keys"}),
        "no key named": forged(stranger, header={"kid": ""}),
        "other claims": f"{head}.{part({**claims, 'upn': 'admin@contoso.com'})}.{signature}",
        "a broken signature": token[:-8] + ("A" * 8),
        "no signature": f"{head}.{body}.",
        "a token for Graph": graph,
        "an id token": tokens["id_token"],
        "a refresh token": joined.refresh_token,
        "a device's own word": world.assertion(joined),
        "two dots": "..",
        "three dots": f"{token}.x",
        "nothing like a token": "hello",
        "a large one": "A" * 100_000,
        "no text": "\x7f\x01",
        "a script": "<script>alert(1)</script>",
    }
    request = certificate_request(pki.generate_key("rsa2048"))
    for name, value in wrong.items():
        for path, message in (
            ("Policy", get_policies("x").replace(bearer("x").encode(), bearer(value).encode())),
            ("Enrollment", request_token(value, request)),
        ):
            answer = await mdm.soap(path, message)
            assert (name, subcode(answer)) in {
                (name, "s:Authentication"),
                (name, "s:MessageFormat"),
            }, name
            if len(value) < 50_000:
                assert subcode(answer) == "s:Authentication", name
            assert "script" not in answer.text
    assert subcode(await mdm.soap("Enrollment", request_token(token, request))) == ""


async def test_a_token_that_is_over_or_whose_user_is_gone_is_no_credential(mdm: Mdm) -> None:
    user, _, token = await someone(mdm)
    request = certificate_request(pki.generate_key("rsa2048"))
    at = mdm.world.at
    for when in (at - timedelta(days=1), at + timedelta(days=2)):
        mdm.world.at = when
        assert (
            subcode(await mdm.soap("Enrollment", request_token(token, request)))
            == "s:Authentication"
        )
    mdm.world.at = at
    answer = await mdm.graph("PATCH", f"users/{user.id}", {"accountEnabled": False})
    assert answer.status_code == 204, answer.text
    refused = subcode(await mdm.soap("Enrollment", request_token(token, request)))
    assert refused in {"s:Authentication", "s:Authorization"}
    answer = await mdm.graph("DELETE", f"users/{user.id}")
    assert answer.status_code == 204, answer.text
    refused = subcode(await mdm.soap("Enrollment", request_token(token, request)))
    assert refused in {"s:Authentication", "s:Authorization"}
    async with mdm.database.transaction() as tx:
        assert await enrollment.devices(tx) == []


def part(value: dict[str, Any]) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


def with_secret(header: dict[str, Any], body: str, secret: bytes) -> str:
    signed = f"{part(header)}.{body}"
    found = hmac.new(secret, signed.encode(), sha256).digest()
    return f"{signed}.{base64.urlsafe_b64encode(found).rstrip(b'=').decode()}"


def unpacked(text: str) -> dict[str, Any]:
    return dict(json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))))


def jwt_header(token: str) -> dict[str, Any]:
    return unpacked(token.split(".")[0])


def jwt_claims(token: str) -> dict[str, Any]:
    return unpacked(token.split(".")[1])


async def keys(mdm: Mdm) -> list[dict[str, Any]]:
    async with mdm.database.transaction() as tx:
        return list((await mdm.world.tokens.jwks(tx))["keys"])


# ---------------------------------------------------------------------- certificate requests


def asking(key: Any, sign: Any = hashes.SHA256(), **more: Any) -> bytes:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "x")])
    made = x509.CertificateSigningRequestBuilder().subject_name(name)
    return made.sign(key, sign, **more).public_bytes(Encoding.DER)


def requests(good: bytes) -> dict[str, bytes]:
    """Every request that is not to be certified."""
    other = certificate_request(pki.generate_key("p256"))
    large = rsa.generate_private_key(65537, 2048)
    nested = b"\x30\x80" * 3000
    return {
        "nothing": b"",
        "text": b"no request",
        "a weak RSA key": asking(rsa.generate_private_key(65537, 1024)),
        "exponent 3": asking(rsa.generate_private_key(3, 2048)),
        "an unexpected curve": asking(ec.generate_private_key(ec.SECP256K1())),
        "a short curve": asking(ec.generate_private_key(ec.SECP224R1())),
        "Ed25519": asking(ed25519.Ed25519PrivateKey.generate(), None),
        "DSA": asking(dsa.generate_private_key(2048)),
        "another padding": asking(
            large, rsa_padding=padding.PSS(padding.MGF1(hashes.SHA256()), 32)
        ),
        "a bad signature": good[:-1] + bytes([good[-1] ^ 1]),
        "another key's signature": good[: len(good) - 40] + other[-40:],
        "the end cut off": good[:-10],
        "something behind": good + b"\0",
        "two requests": good + other,
        "two requests in one sequence": b"\x30\x82" + (2 * len(good)).to_bytes(2, "big") + good * 2,
        "PEM": base64.b64encode(good),
        "a certificate": pki.new_root(pki.name("x"), now=AT).certificate.public_bytes(Encoding.DER),
        "sequences of sequences": nested,
        "a length of four gigabytes": b"\x30\x84\xff\xff\xff\xff" + good,
        "random bytes": bytes(range(256)) * 200,
    }


async def test_a_request_that_may_not_be_certified_is_refused_as_one(mdm: Mdm) -> None:
    _, _, token = await someone(mdm)
    good = certificate_request(pki.generate_key("rsa2048"))
    for name, request in requests(good).items():
        answer = await mdm.soap("Enrollment", request_token(token, request))
        assert (name, subcode(answer)) == (name, "s:CertificateRequest")
        assert "asn1" not in answer.text.lower(), name
    async with mdm.database.transaction() as tx:
        assert await enrollment.devices(tx) == []
    assert subcode(await mdm.soap("Enrollment", request_token(token, good))) == ""


async def test_two_requests_in_one_message_are_refused(mdm: Mdm) -> None:
    _, _, token = await someone(mdm)
    good = request_token(token, certificate_request(pki.generate_key("rsa2048"))).decode()
    start, end = good.index("<wst:RequestType>"), good.index("<ac:AdditionalContext>")
    twice = good.replace(good[start:end], good[start:end] * 2)
    start, end = good.index("<wst:RequestSecurityToken>"), good.index("</s:Body>")
    both = good.replace(good[start:end], good[start:end] * 2)
    for message in (twice, both):
        assert subcode(await mdm.soap("Enrollment", message.encode())) == "s:MessageFormat"


async def test_nothing_but_the_key_of_a_request_is_certified(mdm: Mdm) -> None:
    """Another device's name, a CA, names of servers, more purposes: all of it is the sender's wish."""
    victim = await mdm.enrolled("sam", new_id())
    _, _, token = await someone(mdm)
    key = pki.generate_key("rsa2048")
    wish = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(x509.load_der_x509_certificate(victim.certificate).subject)
        .add_extension(x509.BasicConstraints(True, 9), True)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("tenant.example")]), False)
        .add_extension(
            x509.ExtendedKeyUsage(
                [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CODE_SIGNING]
            ),
            False,
        )
        .sign(key, hashes.SHA256())
        .public_bytes(Encoding.DER)
    )
    answer = await mdm.soap("Enrollment", request_token(token, wish))
    assert subcode(answer) == ""
    document: Any = etree.fromstring(base64.b64decode(said(answer)["BinarySecurityToken"]))
    (encoded,) = document.xpath("//*[@type='My']//parm[@name='EncodedCertificate']/@value")
    leaf = x509.load_der_x509_certificate(base64.b64decode(encoded))
    assert leaf.subject != x509.load_der_x509_certificate(victim.certificate).subject
    assert not leaf.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    purposes = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(purposes) == [ExtendedKeyUsageOID.CLIENT_AUTH]
    with pytest.raises(x509.ExtensionNotFound):
        leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    assert await victim.check_in() == []


async def test_what_a_device_calls_itself_is_kept_as_text(mdm: Mdm) -> None:
    _, _, token = await someone(mdm)
    name = (
        "=cmd|' /C calc'!A0\"&gt;&lt;script&gt;alert(1)&lt;/script&gt;'; DROP TABLE x;--"
        + "y" * 5000
    )
    request = certificate_request(pki.generate_key("rsa2048"))
    message = request_token(
        token, request, DeviceName=name, HWDevID="z" * 5000, OSVersion="9" * 500
    )
    assert subcode(await mdm.soap("Enrollment", message)) == ""
    (row,) = (await mdm.graph("GET", "deviceManagement/managedDevices")).json()["value"]
    assert row["deviceName"].startswith("=cmd|' /C calc'!A0\"><script>")
    assert len(row["deviceName"]) <= 128
    assert len(row["osVersion"]) <= 32
    async with mdm.database.transaction() as tx:
        found = await tx.execute("SELECT data FROM event WHERE kind = 'device.enrolled'")
        events = await found.fetchall()
    assert [event["data"]["name"] for event in events] == [row["deviceName"]]


async def test_a_credential_beside_the_security_header_is_none(mdm: Mdm) -> None:
    """Wrapping: a token in the body, in a foreign header, or in a Security of another namespace."""
    _, _, token = await someone(mdm)
    request = certificate_request(pki.generate_key("rsa2048"))
    proof = bearer(token)
    for security in (
        f'<x xmlns="urn:x">{proof}</x>',
        proof.replace("wsse:Security", "s:Security"),
        proof.replace("wsse:BinarySecurityToken", "s:BinarySecurityToken"),
        f"<wsse:Security><x>{proof}</x></wsse:Security>",
        f'<wsse:Security xmlns:wsse="{WSSE}s"><wsse:BinarySecurityToken/></wsse:Security>',
    ):
        answer = await mdm.soap("Enrollment", request_token("", request, security=security))
        assert subcode(answer) == "a:InvalidSecurity"
    two = f"{proof}{proof}"
    answer = await mdm.soap("Enrollment", request_token("", request, security=two))
    assert subcode(answer) == "a:InvalidSecurity"


async def test_other_methods_and_paths_have_nothing_to_say(mdm: Mdm) -> None:
    client: httpx.AsyncClient = mdm.world.client
    for method in ("PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"):
        answer = await client.request(method, "/EnrollmentServer/Enrollment.svc")
        assert answer.status_code in (404, 405)
    for path in ("/EnrollmentServer/Enrollment.svc/x", "/EnrollmentServer/..%2fEnrollment.svc"):
        answer = await client.post(path, content=discover())
        assert answer.status_code == 404
