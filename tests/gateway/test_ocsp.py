"""Responders of clients' certificates, asked by a gateway that is a process: our own, and OpenSSL's."""

import asyncio
import contextlib
import json
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
import pytest_asyncio
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp

from tandem import pki
from tandem.protocols import tunnel

from .conftest import MUTUAL, Rig, code, free_port, serving
from .test_who_may_pass import Open, s_client

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180), pytest.mark.asyncio(loop_scope="module")]


@dataclass
class Responder:
    """Answers for an authority by HTTP, as a test says; `away` closes without a word."""

    authority: pki.Authority
    revoked: set[int] = field(default_factory=set)
    unknown: set[int] = field(default_factory=set)
    seconds: float = 3600
    away: bool = False
    asked: list[int] = field(default_factory=list)
    port: int = field(default_factory=free_port)
    writers: set[asyncio.StreamWriter] = field(default_factory=set)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/ocsp"

    def answer(self, request: bytes) -> bytes:
        asked = ocsp.load_der_ocsp_request(request)
        serial, now = asked.serial_number, datetime.now(UTC)
        self.asked.append(serial)
        status = ocsp.OCSPCertStatus.GOOD
        if serial in self.unknown:
            status = ocsp.OCSPCertStatus.UNKNOWN
        if serial in self.revoked:
            status = ocsp.OCSPCertStatus.REVOKED
        builder = ocsp.OCSPResponseBuilder().add_response_by_hash(
            asked.issuer_name_hash, asked.issuer_key_hash, serial, asked.hash_algorithm, status,
            now, now + timedelta(seconds=self.seconds),
            now if serial in self.revoked else None, None,
        )  # fmt: skip
        builder = builder.responder_id(ocsp.OCSPResponderEncoding.HASH, self.authority.certificate)
        made = builder.sign(self.authority.key, hashes.SHA256())  # type: ignore[arg-type]
        return made.public_bytes(Encoding.DER)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writers.add(writer)
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while not self.away:
                head = await reader.readuntil(b"\r\n\r\n")
                size = next(
                    int(line.split(b":")[1])
                    for line in head.lower().split(b"\r\n")
                    if line.startswith(b"content-length")
                )
                content = self.answer(await reader.readexactly(size))
                if self.away:
                    break
                writer.write(
                    b"HTTP/1.1 200 OK\r\nContent-Type: application/ocsp-response\r\n"
                    b"Content-Length: %d\r\n\r\n%s" % (len(content), content)
                )
                await writer.drain()
        writer.transport.abort()

    @asynccontextmanager
    async def serving(self) -> AsyncIterator["Responder"]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        try:
            yield self
        finally:
            server.close()
            for writer in self.writers:
                writer.transport.abort()
            await asyncio.sleep(0)


class Asked(Rig):
    """A gateway that is told to ask."""

    how: tunnel.Ocsp = "soft"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.roots = [pki.pem(self.clients_root.certificate).decode()]
        self.crls = [self.crl()]

    def configuration(self) -> tunnel.Configuration:
        made = super().configuration()
        endpoints = [
            tunnel.Endpoint(f"{MUTUAL}/{name}", ["GET"], 100_000, ["certificate"])
            for name in ("echo", "big", "slow")
        ]
        return msgspec.structs.replace(
            made, ocsp=self.how, endpoints=endpoints, limits=tunnel.Limits(request_seconds=30)
        )

    def give(self, name: str, url: str) -> x509.Certificate:
        """A client's certificate that names this responder."""
        key = pki.generate_key()
        made = self.clients_root.issue(
            key.public_key(), pki.name(name), now=self.now, days=9, usages=["client"], ocsp_url=url
        )
        (self.folder / f"{name}.pem").write_bytes(pki.pem(made))
        (self.folder / f"{name}.key").write_bytes(pki.key_pem(key))
        return made

    async def answers(self, name: str, wanted: str, path: str = "echo") -> Any:
        """Until a client with this certificate, on a new connection each, is answered so: a status,
        or a status text."""
        for _ in range(300):
            async with self.client(name) as client:
                got = await client.get(f"{MUTUAL}/{path}")
            if wanted in {str(got.status_code), code(got) if got.status_code >= 400 else ""}:
                return got
            await asyncio.sleep(0.1)
        raise AssertionError((got.status_code, got.text))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def asked(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Asked]:
    async with serving(Asked(tmp_path_factory.mktemp("ocsp"))) as made:
        yield made  # type: ignore[misc]


async def test_who_is_revoked_at_the_responder_is_refused_new_resumed_and_open(
    asked: Asked,
) -> None:
    await asked.news(how="soft")
    async with Responder(asked.clients_root, seconds=4).serving() as responder:
        victim, _ = asked.give("victim", responder.url), asked.give("good", responder.url)
        await asked.answers("victim", "200")
        session = asked.folder / "victim.session"
        for options in (("-sess_out", str(session)), ("-sess_in", str(session))):
            got = await asyncio.to_thread(s_client, asked, "victim", f"{MUTUAL}/echo", *options)
            assert "HTTP/1.1 200" in got
        assert "Reused" in got
        held = {
            name: [await Open.of(asked, name, f"{MUTUAL}/{path}") for path in ("echo", "slow")]
            for name in ("victim", "good")
        }
        for idle, _ in held.values():
            assert b" 200 " in await idle.reader.readline()
        responder.revoked.add(victim.serial_number)
        async with asyncio.timeout(60):
            for one in held["victim"]:
                assert await one.ended()
        await asked.answers("victim", "CMGService_Certificate_Revoked")
        got = await asyncio.to_thread(
            s_client, asked, "victim", f"{MUTUAL}/echo", "-sess_in", str(session)
        )
        assert "Reused" in got
        assert "CMGService_Certificate_Revoked" in got
        # Nobody else is disturbed.
        idle, waits = held["good"]
        idle.writer.write(f"GET {MUTUAL}/echo HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        assert await idle.reader.readuntil(b"HTTP/1.1 200")
        assert not waits.reader.at_eof()
        for pair in held.values():
            for one in pair:
                one.writer.transport.abort()
        # Who was revoked stays so when the responder is away.
        responder.away = True
        await asyncio.sleep(0)
        await asked.answers("victim", "CMGService_Certificate_Revoked")


async def test_an_answer_is_kept_until_it_ends(asked: Asked) -> None:
    await asked.news(how="soft")
    async with Responder(asked.clients_root).serving() as responder:
        asked.give("kept", responder.url)
        for _ in range(5):
            await asked.answers("kept", "200")
        assert len(responder.asked) == 1


async def test_soft_lets_in_who_cannot_be_asked_about_and_hard_does_not(asked: Asked) -> None:
    responder = Responder(asked.clients_root)
    asked.give("soft", responder.url)
    known = asked.give("known", responder.url)
    asked.client_certificate("silent")  # It names no responder: lists alone count.
    await asked.news(how="soft")
    await asked.answers("soft", "200")
    await asked.until(lambda facts: "CMGService_Ocsp_Unavailable" in facts["alarms"])
    await asked.news(how="hard")
    got = await asked.answers("soft", "CMGService_Ocsp_Unavailable")
    assert got.status_code == 503
    assert got.headers["retry-after"] == "2"
    await asked.answers("silent", "200")
    async with responder.serving():
        responder.unknown.add(known.serial_number)
        await asked.answers("known", "CMGService_Ocsp_Unavailable")
        # The responder is there: who waited is let in, and the alarm is over.
        await asked.answers("soft", "200")
        lines = (asked.folder / "logs" / "gateway-1.jsonl").read_text().splitlines()
        over = [json.loads(line) for line in lines if '"alarm over"' in line]
        assert responder.url in {line["responder"] for line in over}
    await asked.news(how="off")
    await asked.answers("known", "200")


async def test_an_answer_of_somebody_else_says_nothing(asked: Asked) -> None:
    await asked.news(how="hard")
    stranger = pki.new_root(pki.name("Clients' root"), now=asked.now)
    async with Responder(stranger).serving() as responder:
        asked.give("fooled", responder.url)
        await asked.answers("fooled", "CMGService_Ocsp_Unavailable")
        told = "not signed by the certificate's authority"
        for _ in range(300):
            if told in (asked.folder / "logs" / "gateway-1.jsonl").read_text():
                break
            await asyncio.sleep(0.1)
        else:
            raise AssertionError("The log says nothing of it.")
    await asked.news(how="soft")


@dataclass
class OpenSsl(Responder):
    """OpenSSL makes the answers; they are signed by a certificate that is for this alone."""

    folder: Any = None

    def answer(self, request: bytes) -> bytes:
        asked, answered = self.folder / "asked.der", self.folder / "answered.der"
        asked.write_bytes(request)
        subprocess.run(
            [
                *("openssl", "ocsp", "-index", str(self.folder / "index.txt"), "-nmin", "5"),
                *("-CA", str(self.folder / "clients-ca.pem")),
                *("-rsigner", str(self.folder / "signer.pem")),
                *("-rkey", str(self.folder / "signer.key")),
                *("-reqin", str(asked), "-respout", str(answered)),
            ],
            check=True,
            capture_output=True,
            timeout=30,
        )
        return answered.read_bytes()


async def test_openssl_as_the_responder(asked: Asked) -> None:
    responder = OpenSsl(asked.clients_root, folder=asked.folder)
    folder = asked.folder
    good, gone = (asked.give(name, responder.url) for name in ("ossl-good", "ossl-gone"))
    key = pki.generate_key()
    signer = asked.clients_root.issue(
        key.public_key(), pki.name("Responder"), now=asked.now, days=9, usages=["ocsp"]
    )
    (folder / "signer.pem").write_bytes(pki.pem(signer))
    (folder / "signer.key").write_bytes(pki.key_pem(key))
    (folder / "clients-ca.pem").write_bytes(pki.pem(asked.clients_root.certificate))
    (folder / "index.txt").write_text(
        _entry(good, "V", "") + _entry(gone, "R", f"{asked.now:%y%m%d%H%M%SZ}")
    )
    await asked.news(how="hard")
    async with responder.serving():
        await asked.answers("ossl-good", "200")
        await asked.answers("ossl-gone", "CMGService_Certificate_Revoked")
    await asked.news(how="soft")


def _entry(certificate: x509.Certificate, state: str, revoked: str) -> str:
    ends = f"{certificate.not_valid_after_utc:%y%m%d%H%M%SZ}"
    serial = f"{certificate.serial_number:X}"
    serial = serial if len(serial) % 2 == 0 else f"0{serial}"
    return f"{state}\t{ends}\t{revoked}\t{serial}\tunknown\t/CN=x\n"
