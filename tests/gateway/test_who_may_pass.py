"""Who may pass: every kind of token and certificate, good and bad, at a gateway that is a process.

OpenSSL's s_client is the foreign client: it sends what our own libraries refuse to send.
"""

import asyncio
import contextlib
import hmac
import json
import ssl
import subprocess
import time
from base64 import b64encode, urlsafe_b64encode
from collections.abc import AsyncIterator, Callable
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Any

import msgspec
import pytest
import pytest_asyncio
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from joserfc import jws, jwt
from joserfc.jwk import ECKey, OctKey, RSAKey

from tandem import pki
from tandem.protocols import tunnel

from .conftest import BASE, MUTUAL, TENANT, URI, Rig, code, serving

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120), pytest.mark.asyncio(loop_scope="module")]

OTHER = "99999999-7b1c-4c55-9d58-0e6f9b6f5a22"
STS = f"{BASE}/CCM_STS"


class Doors(Rig):
    """A gateway for two tenants, the site's own tokens and clients with certificates."""

    others: bool = True  # Whether the second tenant is connected.

    def __post_init__(self) -> None:
        super().__post_init__()
        self.other_key = RSAKey.generate_key(2048, {"kid": "o1"}, private=True)
        self.known = [self.tenant_key]
        self.roots = [pki.pem(self.clients_root.certificate).decode()]
        self.crls = [self.crl()]

    def configuration(self) -> tunnel.Configuration:
        made = super().configuration()
        keys = {"keys": [key.as_dict(private=False) for key in self.known]}
        first = tunnel.Tenant(TENANT, "app", URI, ["https://sts.test/"], keys)
        jwks = {"keys": [self.other_key.as_dict(private=False)]}
        second = tunnel.Tenant(OTHER, "app2", "https://Other", ["https://sts.test/2/"], jwks)

        def one(prefix: str, auth: Any) -> tunnel.Endpoint:
            return tunnel.Endpoint(prefix, ["GET", "POST"], 100_000, [auth])

        changes: dict[str, Any] = {
            "tenants": [first, second] if self.others else [first],
            "endpoints": [
                *(one(f"{BASE}/{name}", "token") for name in ("echo", "CCM_STS")),
                *(one(f"{MUTUAL}/{name}", "certificate") for name in ("echo", "big", "slow")),
            ],
            "limits": tunnel.Limits(request_seconds=30),
        }
        return msgspec.structs.replace(made, **changes)

    def connector_configuration(self, name: str = "CP01") -> tunnel.ConnectorConfiguration:
        made = super().connector_configuration(name)
        inside = f"https://127.0.0.1:{self.site_port}/echo"
        return msgspec.structs.replace(made, map=[*made.map, tunnel.Mapping(STS, inside)])

    def said(self) -> list[dict[str, Any]]:
        """The gateway's log."""
        lines = []
        for path in (self.folder / "logs").glob("gateway-1*"):
            lines += [json.loads(line) for line in path.read_text().splitlines()]
        return lines

    def give(self, name: str, key: Any, certificate: x509.Certificate, *above: Any) -> None:
        (self.folder / f"{name}.pem").write_bytes(pki.pem(certificate, *above))
        (self.folder / f"{name}.key").write_bytes(pki.key_pem(key))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Doors]:
    async with serving(Doors(tmp_path_factory.mktemp("doors"))) as made:
        yield made


@pytest_asyncio.fixture(loop_scope="module")
async def doors(world: Doors) -> AsyncIterator[Doors]:
    """As it was made; a test that changes what the site says has it changed back."""
    world.seen.clear()
    before = {name: getattr(world, name) for name in ("roots", "crls", "known", "others")}
    version = world.version
    yield world
    if world.version != version:
        await world.news(**before)


# ------------------------------------------------------------------ tokens


def part(value: object) -> str:
    return text(json.dumps(value).encode())


def text(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode()


def headed(doors: Doors, key: Any, payload: bytes | None = None, **header: Any) -> str:
    """A token whose header is what a test wants, signed for real."""
    body = payload if payload is not None else payload_of(doors.token())
    signed = f"{part(header)}.{text(body)}"
    # By hand: libraries that sign do not make what a stranger makes.
    signature = jws.JWSRegistry.algorithms[header["alg"]].sign(signed.encode(), key)
    return f"{signed}.{text(signature)}"


def payload_of(token: str) -> bytes:
    return jws.extract_compact(token.encode()).payload


def unsigned(doors: Doors) -> str:
    return f"{part({'alg': 'none', 'kid': 't1'})}.{doors.token().split('.')[1]}."


def by_public_key(doors: Doors) -> str:
    """The tenant's public key, which everybody has, taken as a secret of both."""
    pem = doors.tenant_key.raw_value.public_key().public_bytes(  # type: ignore[union-attr]
        Encoding.PEM, PublicFormat.SubjectPublicKeyInfo
    )
    head, body = part({"alg": "HS256", "kid": "t1"}), doors.token().split(".")[1]
    mac = hmac.new(pem, f"{head}.{body}".encode(), sha256).digest()
    return f"{head}.{body}.{urlsafe_b64encode(mac).rstrip(b'=').decode()}"


STRANGER = RSAKey.generate_key(2048, {"kid": "t1"}, private=True)
EC_STRANGER = ECKey.generate_key("P-256", {"kid": "s1"}, private=True)
Make = Callable[[Doors], str]
# What is wrong → how it is made, what the log says of it.
TOKENS: dict[str, tuple[Make, str]] = {
    "alg none": (unsigned, "Unsupported"),
    "HS256 by the public key": (by_public_key, "Unsupported"),
    "HS256 by a secret": (
        lambda d: headed(d, OctKey.import_key("x" * 32), alg="HS256", kid="t1"),
        "Unsupported",
    ),
    "a strange key under a known id": (lambda d: d.token(key=STRANGER), "BadSignature"),
    "an unknown key id": (lambda d: headed(d, STRANGER, alg="RS256", kid="t9"), "no such key"),
    "its own key in the header": (
        lambda d: headed(
            d, STRANGER, alg="RS256", kid="t1", jwk=STRANGER.as_dict(private=False)
        ),
        "ExceededSize",
    ),
    "of the site, with its own key in the header": (
        lambda d: headed(
            d,
            EC_STRANGER,
            payload_of(d.site_token()),
            alg="ES256",
            kid="s1",
            jwk=EC_STRANGER.as_dict(private=False),
        ),
        "BadSignature",
    ),
    "a place of keys in the header": (
        lambda d: headed(d, STRANGER, alg="RS256", kid="t1", jku="https://evil/keys"),
        "BadSignature",
    ),
    "a critical header that is not understood": (
        lambda d: headed(d, d.tenant_key, alg="RS256", kid="t1", crit=["b64x"], b64x=True),
        "",
    ),
    "another audience": (lambda d: d.token(aud="https://graph"), "audience"),
    "several audiences": (lambda d: d.token(aud=[URI]), "audience"),
    "no audience": (lambda d: d.token(aud=None), "audience"),
    "an unknown issuer": (lambda d: d.token(iss="https://evil/"), "issuer"),
    "an issuer that is no text": (lambda d: headed(d, d.tenant_key, b'{"iss":[1]}', alg="RS256"), "issuer"),
    "expired": (lambda d: d.token(seconds=-5), "expired"),
    "not valid yet": (lambda d: d.token(nbf=int(time.time()) + 3600), "not valid yet"),
    "no end": (lambda d: d.token(exp=None), "no end"),
    "an end that is no number": (lambda d: d.token(exp="never"), "no end"),
    "an end beyond all numbers": (
        lambda d: headed(
            d,
            d.tenant_key,
            payload_of(d.token(exp=7)).replace(b'"exp":7', b'"exp":1e999'),
            alg="RS256",
            kid="t1",
        ),
        "",
    ),
    "of another tenant by its name": (lambda d: d.token(tid=OTHER), "another tenant"),
    "by another tenant's key": (lambda d: d.token(key=d.other_key), ""),
    "another tenant's, meant for this": (
        lambda d: jwt.encode(
            {"alg": "RS256", "kid": "o1"},
            {**json.loads(payload_of(d.token())), "iss": "https://sts.test/2/"},
            d.other_key,
        ),
        "another",
    ),
    "of another site": (lambda d: d.site_token(iss="urn:sccm:site:XYZ"), "issuer"),
    "of the site, by a tenant": (lambda d: d.token(iss="urn:sccm:site:CM1", aud="urn:sccm:service"), ""),
    "of a tenant that is not connected, by the site": (
        lambda d: d.site_token(token_type="DA", tid="00000000-0000-0000-0000-000000000000"),
        "not connected any more",
    ),
    "two parts": (lambda d: d.token().rpartition(".")[0], ""),
    "five parts": (lambda d: "a.b.c.d.e", ""),
    "half of it": (lambda d: d.token()[:-100], ""),
    "no JSON": (lambda d: headed(d, d.tenant_key, b"no", alg="RS256", kid="t1"), ""),
    "a list": (lambda d: headed(d, d.tenant_key, b"[]", alg="RS256", kid="t1"), ""),
    "without end inside": (
        lambda d: f"{part({'alg': 'RS256'})}.{urlsafe_b64encode(b'[' * 9000).decode()}.AA",
        "",
    ),
    "a header without end inside": (
        lambda d: f"{urlsafe_b64encode(b'[' * 9000).decode()}.{part({})}.AA",
        "",
    ),
    "longer than a token": (lambda d: "a" * 17_000, "longer"),
}  # fmt: skip


async def test_no_bad_token_passes_and_the_log_says_why(doors: Doors) -> None:
    async with doors.client() as client:
        for name, (make, why) in TOKENS.items():
            token = make(doors)
            headers = {"Authorization": f"Bearer {token}"}
            answer = await client.get(f"{BASE}/echo?{name.replace(' ', '-')}", headers=headers)
            assert (answer.status_code, code(answer)) == (401, "CMGService_Invalid_Token"), name
            assert token not in answer.text
            told = [line for line in doors.said() if line["event"] == "refused"][-1]
            assert (told["code"], why in told["why"]) == ("CMGService_Invalid_Token", True), told
            # At the token service the site itself decides about new keys, and about nothing else.
            if name != "an unknown key id":
                answer = await client.post(STS, headers=headers)
                assert answer.status_code == 401, name
        good = {"Authorization": f"Bearer {doors.token()}"}
        assert (await client.get(f"{BASE}/echo", headers=good)).status_code == 200
    assert len(doors.seen) == 1
    assert not any(line.get("level") == "error" for line in doors.said())


async def test_tokens_of_every_tenant_pass_until_it_is_removed(doors: Doors) -> None:
    theirs = {"iss": "https://sts.test/2/", "aud": "https://Other", "tid": OTHER}
    claims = {**json.loads(payload_of(doors.token())), **theirs}
    token = jwt.encode({"alg": "RS256", "kid": "o1"}, claims, doors.other_key)
    ours = doors.site_token(token_type="DA", tid=OTHER)
    for one in (token, ours, doors.token()):
        assert (await doors.ask("GET", f"{BASE}/echo", one)).status_code == 200
    await doors.news(others=False)
    for one in (token, ours):
        gone = await doors.ask("GET", f"{BASE}/echo", one)
        assert (gone.status_code, code(gone)) == (401, "CMGService_Invalid_Token")
    assert (await doors.ask("GET", f"{BASE}/echo", doors.token())).status_code == 200


async def test_a_bulk_registration_token_is_good_at_the_token_service_alone(doors: Doors) -> None:
    bulk = doors.site_token(SCCMTokenCategory="SCCMPreAuthToken", UniqueId="u1", sub=None)
    away = await doors.ask("GET", f"{BASE}/echo", bulk)
    assert (away.status_code, code(away)) == (401, "CMGService_Invalid_Token")
    assert "CCM_STS" in away.json()["error"]["message"]
    assert (await doors.ask("POST", STS, bulk)).status_code == 200
    assert doors.seen[-1]["headers"]["cmg-client-identity"] == "u1"
    # Also after it was seen there.
    assert (await doors.ask("GET", f"{BASE}/echo", bulk)).status_code == 401


async def test_a_tenant_that_changes_its_keys_is_believed_again_at_once(doors: Doors) -> None:
    """The token service hears of the new key first: the site fetches the tenant's keys when it
    does, and the gateway gets them. Who makes up key ids reaches it some times a minute."""
    fresh = RSAKey.generate_key(2048, {"kid": "t2"}, private=True)
    token = jwt.encode({"alg": "RS256", "kid": "t2"}, json.loads(payload_of(doors.token())), fresh)
    assert (await doors.ask("GET", f"{BASE}/echo", token)).status_code == 401
    assert (await doors.ask("POST", STS, token)).status_code == 200
    assert doors.seen[-1]["headers"]["cmg-client-identity"] == "unknown-key"
    async with doors.client() as client:
        headers = {"Authorization": f"Bearer {token}"}
        for _ in range(100):
            if (await client.post(STS, headers=headers)).status_code == 401:
                break
        # A minute may begin in between, and only one.
        assert 29 <= len(doors.seen) <= 61
    old = doors.token()
    await doors.news(known=[doors.tenant_key, fresh])
    for one in (token, old):
        assert (await doors.ask("GET", f"{BASE}/echo", one)).status_code == 200
    await doors.news(known=[fresh])
    assert (await doors.ask("GET", f"{BASE}/echo", token)).status_code == 200
    assert (await doors.ask("GET", f"{BASE}/echo", old)).status_code == 401


FORGED = [
    "CMG-Client-Identity",
    "cmg-client-identity",
    "CMG_Client_Identity",
    "CMG-Client_Identity",
    "CMG_Client-Identity",
    "Forwarded",
    "X-Forwarded-For",
]


async def test_no_client_says_who_it_is(doors: Doors) -> None:
    headers = [(name, f"forged-{number}") for number, name in enumerate(FORGED)]
    headers.append(("Authorization", f"Bearer {doors.token()}"))
    async with doors.client() as client:
        assert (await client.get(f"{BASE}/echo", headers=headers)).status_code == 200
    (seen,) = doors.seen
    assert seen["headers"]["cmg-client-identity"] == "d1"
    assert not any("forged" in value for value in seen["headers"].values())


# ------------------------------------------------------------------ certificates


def s_client(doors: Doors, name: str, path: str, *options: str) -> str:
    """What OpenSSL's client gets for one request, and what it says of the connection."""
    files = doors.folder
    words = [
        *("openssl", "s_client", "-connect", f"localhost:{doors.port}", "-ign_eof"),
        *("-servername", "localhost", "-CAfile", str(files / "public.pem")),
        *(("-cert", str(files / f"{name}.pem"), "-key", str(files / f"{name}.key")) if name else ()),
        *(("-cert_chain", str(files / f"{name}.pem")) if name else ()),
        *options,
    ]  # fmt: skip
    request = f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    done = subprocess.run(words, input=request.encode(), capture_output=True, timeout=20)
    return (done.stdout + done.stderr).decode("utf-8", "replace")


def made(
    authority: pki.Authority, now: datetime, *, days: int = 9, key: Any = None, **changes: Any
) -> tuple[Any, x509.Certificate]:
    key = key or pki.generate_key()
    given: dict[str, Any] = {"now": now, "days": days, "usages": ["client"], **changes}
    return key, authority.issue(key.public_key(), pki.name("PC-1"), **given)


def weak(doors: Doors) -> tuple[Any, x509.Certificate]:
    return made(doors.clients_root, doors.now, key=rsa.generate_private_key(65537, 1024))


def self_signed(doors: Doors) -> tuple[Any, x509.Certificate]:
    key = pki.generate_key()
    who = pki.name("PC-1")
    return made(pki.Authority(placeholder(key, who, doors.now), key), doors.now, key=key)


def placeholder(key: Any, who: x509.Name, now: datetime) -> x509.Certificate:
    builder = x509.CertificateBuilder().subject_name(who).issuer_name(who)
    builder = builder.public_key(key.public_key()).serial_number(7)
    builder = builder.not_valid_before(now).not_valid_after(now + timedelta(days=9))
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    return builder.add_extension(identifier, critical=False).sign(key, hashes.SHA256())


def by_a_client(doors: Doors) -> tuple[Any, x509.Certificate, x509.Certificate]:
    """Somebody whose certificate is good certifies a friend."""
    above, certificate = made(doors.clients_root, doors.now)
    return *made(pki.Authority(certificate, above), doors.now), certificate


# What TLS itself does not let through gets no answer at all.
NOTHING = ""
# What is wrong → how it is made, and what the gateway answers.
CERTIFICATES: dict[str, tuple[Callable[[Doors], Any], str]] = {
    "expired": (lambda d: made(d.clients_root, d.now - timedelta(days=30)), NOTHING),
    "not valid yet": (lambda d: made(d.clients_root, d.now + timedelta(days=3)), NOTHING),
    "self-signed": (self_signed, NOTHING),
    "for servers": (lambda d: made(d.clients_root, d.now, usages=["server"]), NOTHING),
    "for any use": (
        lambda d: made(d.clients_root, d.now, usages=[]),
        "CMGService_Invalid_Certificate",
    ),
    "of an authority of the same name": (
        lambda d: made(pki.new_root(pki.name("Clients' root"), now=d.now), d.now),
        NOTHING,
    ),
    "of another tenant's authority": (
        lambda d: made(pki.new_root(pki.name("Fabrikam"), now=d.now), d.now),
        NOTHING,
    ),
    "of the site's authority, which certifies roles": (
        lambda d: made(d.site_root, d.now),
        NOTHING,
    ),
    "weak": (weak, NOTHING),
    "by another client": (by_a_client, NOTHING),
}


async def test_no_bad_certificate_passes(doors: Doors) -> None:
    failed = (await doors.health())["failed_handshakes"]
    for name, (make, answer) in CERTIFICATES.items():
        key, certificate, *above = make(doors)
        doors.give("bad", key, certificate, *above)
        for version in ("-tls1_2", "-tls1_3"):
            got = await asyncio.to_thread(
                s_client, doors, "bad", f"{MUTUAL}/echo", version, "-cipher", "DEFAULT@SECLEVEL=0"
            )
            assert ("HTTP/1.1 403" in got, "HTTP/1.1" in got) == (bool(answer),) * 2, (name, got)
            assert answer in got, (name, version)
            failed += answer == NOTHING
    # Whoever looks after the gateway can see that there are such clients.
    assert (await doors.health())["failed_handshakes"] == failed
    assert doors.seen == []
    doors.client_certificate("good")
    got = await asyncio.to_thread(s_client, doors, "good", f"{MUTUAL}/echo")
    assert "HTTP/1.1 200" in got
    # Who shows nothing is told what to show.
    got = await asyncio.to_thread(s_client, doors, "", f"{MUTUAL}/echo")
    assert "CMGService_Clientcertificaterequired" in got
    assert len(doors.seen) == 1


async def test_the_log_says_why_handshakes_failed(tmp_path_factory: pytest.TempPathFactory) -> None:
    """At the end at the latest; and whoever goes away within the handshake leaves no traceback."""
    doors = Doors(tmp_path_factory.mktemp("causes"))
    async with serving(doors):
        for name in ("expired", "for servers", "of another tenant's authority"):
            key, certificate, *above = CERTIFICATES[name][0](doors)
            doors.give("bad", key, certificate, *above)
            await asyncio.to_thread(s_client, doors, "bad", f"{MUTUAL}/echo", "-tls1_2")
        old = ("-tls1_1", "-cipher", "DEFAULT@SECLEVEL=0")
        await asyncio.to_thread(s_client, doors, "", f"{MUTUAL}/echo", *old)
        for said in (b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01"):
            _, writer = await asyncio.open_connection("localhost", doors.port)
            writer.write(said)
            await writer.drain()
            writer.close()
            await writer.wait_closed()
        await doors.until(lambda facts: facts["failed_handshakes"] >= 6)
        await asyncio.to_thread(doors.stop, "gateway")
        told = [line for line in doors.said() if line["event"] == "handshakes failed"]
        causes = {cause for line in told for cause in line["causes"]}
        assert {
            "certificate expired",
            "certificate not for clients",
            "certificate of an unknown authority",
            "no shared protocol",
            "no TLS",
            "went away",
        } <= causes, told
        (service,) = (doors.folder / "logs").glob("CMG-*-CMGService.log")
        assert "certificate expired: 1" in service.read_text()
        assert "Logging error" not in (doors.folder / "gateway.out").read_text()
        assert "Traceback" not in (doors.folder / "gateway.out").read_text()


async def test_an_issuing_authority_without_its_root_lets_in_its_own_clients_alone(
    doors: Doors,
) -> None:
    issuing = [subordinate(doors, f"Issuing {number}") for number in (1, 2)]
    for number, one in enumerate(issuing):
        doors.give(f"of-{number}", *made(one, doors.now), one.certificate)
    uploaded = pki.pem(issuing[0].certificate).decode()
    await doors.news(roots=[uploaded], crls=[doors.crl(root=issuing[0])])
    async with doors.client("of-0") as client:
        assert (await client.get(f"{MUTUAL}/echo")).status_code == 200
    got = await asyncio.to_thread(s_client, doors, "of-1", f"{MUTUAL}/echo")
    assert "HTTP/1.1" not in got
    # With the root as well, the root's list is asked about the authority between.
    both = [uploaded, pki.pem(doors.clients_root.certificate).decode()]
    await doors.news(roots=both)
    async with doors.client("of-0") as client:
        missing = await client.get(f"{MUTUAL}/echo")
        assert code(missing) == "CMGService_Crl_Missing"
        assert "Clients' root" in missing.json()["error"]["message"]
    await doors.news(crls=[doors.crl(root=issuing[0]), doors.crl()])
    async with doors.client("of-0") as client:
        assert (await client.get(f"{MUTUAL}/echo")).status_code == 200
    gone = (issuing[0].certificate.serial_number, doors.now)
    await doors.news(crls=[doors.crl(root=issuing[0]), doors.crl([gone])])
    async with doors.client("of-0") as client:
        revoked = await client.get(f"{MUTUAL}/echo")
        assert code(revoked) == "CMGService_Certificate_Revoked"
        assert "authority" in revoked.json()["error"]["message"]


def subordinate(doors: Doors, name: str) -> pki.Authority:
    key = pki.generate_key()
    certificate = doors.clients_root.issue(
        key.public_key(), pki.name(name), now=doors.now, days=60, ca=True, path_length=0
    )
    return pki.Authority(certificate, key)


# ------------------------------------------------------------------ revocation


class Open:
    """A connection of a client with a certificate, whatever it is doing."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    @classmethod
    async def of(cls, doors: Doors, name: str, path: str) -> "Open":
        # A small window: what is large stays under way as long as nobody reads it.
        reader, writer = await asyncio.open_connection(
            "localhost", doors.port, ssl=doors.context(name), limit=1024
        )
        writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        return cls(reader, writer)

    async def ended(self) -> bool:
        """Whether the gateway ends it, after whatever was on its way."""
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            while await self.reader.read(65536):
                pass
        return True


async def test_a_revoked_client_is_refused_everywhere_within_five_seconds(doors: Doors) -> None:
    """On a new connection, on a resumed one, and on those that are open: one that waits for its
    next request, one whose answer is on its way, one whose request waits at the site."""
    victim, _ = doors.client_certificate("victim"), doors.client_certificate("good")
    session = doors.folder / "victim.session"
    first = await asyncio.to_thread(
        s_client, doors, "victim", f"{MUTUAL}/echo", "-sess_out", str(session)
    )
    assert "HTTP/1.1 200" in first
    again = await asyncio.to_thread(
        s_client, doors, "victim", f"{MUTUAL}/echo", "-sess_in", str(session)
    )
    assert "Reused" in again
    assert "HTTP/1.1 200" in again
    held = {
        name: [await Open.of(doors, name, f"{MUTUAL}/{path}") for path in ("echo", "big?mb=300", "slow")]
        for name in ("victim", "good")
    }  # fmt: skip
    for idle, large, _ in held.values():
        assert b" 200 " in await idle.reader.readline()
        assert b" 200 " in await large.reader.readline()
    begun = time.monotonic()
    await doors.news(crls=[doors.crl([(victim.serial_number, doors.now)])])
    async with asyncio.timeout(5):
        for one in held["victim"]:
            assert await one.ended()
    async with doors.client("victim") as client:
        assert code(await client.get(f"{MUTUAL}/echo")) == "CMGService_Certificate_Revoked"
    got = await asyncio.to_thread(
        s_client, doors, "victim", f"{MUTUAL}/echo", "-sess_in", str(session)
    )
    assert "Reused" in got
    assert "CMGService_Certificate_Revoked" in got
    assert time.monotonic() - begun < 5
    # Nobody else is disturbed: neither who waits nor who is served.
    idle, large, waits = held["good"]
    idle.writer.write(f"GET {MUTUAL}/echo HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    assert await idle.reader.readuntil(b"HTTP/1.1 200")
    assert len(await large.reader.readexactly(1_000_000)) == 1_000_000
    assert not waits.reader.at_eof()
    for one in (idle, large, waits):
        one.writer.transport.abort()
    assert any(line["event"] == "client cut" and line["busy"] for line in doors.said())


async def test_a_list_that_is_missing_or_over_is_an_alarm_with_a_name(doors: Doors) -> None:
    async def alarms() -> Any:
        return (await doors.health())["alarms"]

    assert await alarms() == []
    for crls, name in (
        ([], "CMGService_Crl_Missing"),
        ([doors.crl(days=-1)], "CMGService_Crl_Expired"),
        ([expiring(doors)], "CMGService_Crl_Expires"),
    ):
        await doors.news(crls=crls)
        assert await alarms() == [name]
        told = [line for line in doors.said() if line["event"] == "alarm"][-1]
        assert (told["alarm"], told["authority"]) == (name, "CN=Clients' root")
        (service,) = (doors.folder / "logs").glob("CMG-*-CMGService.log")
        assert f"{name}: The certificate revocation list" in service.read_text()
    await doors.news(crls=[doors.crl()])
    assert await alarms() == []
    assert doors.said()[-1]["event"] != "alarm"
    assert any(line["event"] == "alarm over" for line in doors.said())


def expiring(doors: Doors) -> str:
    made = doors.clients_root.crl(
        [],
        now=doors.now - timedelta(days=7),
        next_update=doors.now + timedelta(hours=12),
        number=1,
    )
    return b64encode(made).decode()
