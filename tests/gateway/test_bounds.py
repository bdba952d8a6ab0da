"""What a gateway keeps of strangers has bounds, and what they do at them costs nobody else."""

import asyncio
import contextlib
import os
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp

from tandem import pki
from tandem.gateway import listener as listeners
from tandem.gateway import ocsp as responders
from tandem.gateway.listener import Listener
from tandem.gateway.ocsp import Responders
from tandem.infra.logs import LogFile

NOW = datetime.now(UTC).replace(microsecond=0)


# ---------------------------------------------------------------------- responders


class Responder:
    """Says what it is told to say, `age` hours old; or a byte at a time, without an end."""

    def __init__(self, authority: pki.Authority, port: int) -> None:
        self._authority = authority
        self.url = f"http://127.0.0.1:{port}/"
        self.revoked = False
        self.age = 0
        self.drips = False
        self.writers: set[asyncio.StreamWriter] = set()

    def answer(self, request: bytes) -> bytes:
        asked = ocsp.load_der_ocsp_request(request)
        standing = ocsp.OCSPCertStatus.REVOKED if self.revoked else ocsp.OCSPCertStatus.GOOD
        begins = NOW - timedelta(hours=self.age)
        builder = ocsp.OCSPResponseBuilder().add_response_by_hash(
            asked.issuer_name_hash, asked.issuer_key_hash, asked.serial_number,
            asked.hash_algorithm, standing, begins, NOW + timedelta(days=2),
            begins if self.revoked else None, None,
        )  # fmt: skip
        builder = builder.responder_id(ocsp.OCSPResponderEncoding.HASH, self._authority.certificate)
        made = builder.sign(self._authority.key, hashes.SHA256())  # type: ignore[arg-type]
        return made.public_bytes(Encoding.DER)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writers.add(writer)
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                size = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
                content = self.answer(await reader.readexactly(size))
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(content))
                while self.drips:
                    writer.write(content[:1])
                    await writer.drain()
                    await asyncio.sleep(0.05)
                writer.write(content)
                await writer.drain()
        writer.transport.abort()


@asynccontextmanager
async def responding() -> AsyncIterator[tuple[Responder, pki.Authority]]:
    root = pki.new_root(pki.name("Clients"), now=NOW)
    made = Responder(root, 0)
    async with await asyncio.start_server(made.serve, "127.0.0.1", 0) as server:
        made.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        yield made, root
        for writer in made.writers:
            writer.transport.abort()
        await asyncio.sleep(0)


def certificate(root: pki.Authority, url: str) -> x509.Certificate:
    key = pki.generate_key("p256")
    return (
        x509.CertificateBuilder()
        .subject_name(pki.name("PC01"))
        .issuer_name(root.certificate.subject)
        .public_key(key.public_key())  # type: ignore[arg-type]
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW)
        .not_valid_after(NOW + timedelta(days=1))
        .add_extension(
            x509.AuthorityInformationAccess(
                [
                    x509.AccessDescription(
                        x509.AuthorityInformationAccessOID.OCSP,
                        x509.UniformResourceIdentifier(url),
                    )
                ]
            ),
            critical=False,
        )
        .sign(root.key, hashes.SHA256())  # type: ignore[arg-type]
    )


async def asked(
    known: Responders, one: x509.Certificate, root: pki.Authority
) -> responders.Verdict:
    """Ask now, whatever is known, and wait for what comes of it."""
    der = one.public_bytes(Encoding.DER)
    if (before := known._kept.get(der)) is not None:
        before.again_at = 0.0
    verdict = known.verdict(der, one, root.certificate)
    assert verdict is not None
    async with asyncio.timeout(30):
        while verdict.asking:
            await asyncio.sleep(0.01)
    return verdict


async def test_yesterdays_good_news_does_not_follow_todays_bad() -> None:
    async with responding() as (responder, root):
        changes: list[bytes] = []
        known = Responders(changes.append)
        one = certificate(root, responder.url)
        responder.revoked = True
        verdict = await asked(known, one, root)
        assert verdict.answer is not None
        assert verdict.answer.standing is pki.Standing.REVOKED
        responder.revoked, responder.age = False, 5
        verdict = await asked(known, one, root)
        assert verdict.answer.standing is pki.Standing.REVOKED
        assert verdict.fault == "its answer is older than the one before"
        # The same said by one that lags behind is no fault, and no news.
        responder.revoked, told = True, len(changes)
        verdict = await asked(known, one, root)
        assert (verdict.fault, verdict.answer.standing) == ("", pki.Standing.REVOKED)
        await asked(known, one, root)
        assert len(changes) == told + 1, "the fault that is over, and nothing else"
        await known.close()


async def test_a_responder_without_an_end_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(responders, "_SECONDS", 0.5)
    async with responding() as (responder, root):
        known = Responders(lambda _: None)
        responder.drips = True
        verdict = await asked(known, certificate(root, responder.url), root)
        assert (verdict.answer, verdict.fault) == (None, "it takes too long")
        responder.drips = False
        await known.close()


async def test_who_is_revoked_is_not_forgotten_for_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(responders, "_MOST_KEPT", 3)
    async with responding() as (responder, root):
        known = Responders(lambda _: None)
        responder.revoked = True
        bad = certificate(root, responder.url)
        await asked(known, bad, root)
        responder.revoked = False
        for _ in range(6):
            await asked(known, certificate(root, responder.url), root)
        assert len(known._kept) == 3
        kept = known._kept[bad.public_bytes(Encoding.DER)]
        assert kept.answer is not None
        assert kept.answer.standing is pki.Standing.REVOKED
        await known.close()


# ---------------------------------------------------------------------- the door


@pytest.mark.parametrize("fast", [True, False])
async def test_who_never_shakes_hands_gives_way(
    fast: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listeners, "_MOST_ARRIVING", 2)
    root = pki.new_root(pki.name("Root"), now=NOW)
    key = pki.generate_key("p256")
    leaf = root.issue(
        key.public_key(), pki.name("localhost"), now=NOW, days=1, dns=["localhost"],
        usages=["server"],
    )  # fmt: skip
    (tmp_path / "leaf.pem").write_bytes(pki.pem(leaf) + pki.key_pem(key))
    (tmp_path / "root.pem").write_bytes(pki.pem(root.certificate))
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(tmp_path / "leaf.pem")
    sock = socket.create_server(("127.0.0.1", 0))
    sock.setblocking(False)

    class Silent(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            transport.write(b"served")  # type: ignore[attr-defined]
            transport.close()

    made = Listener(Silent, sock, context, fast)
    port = sock.getsockname()[1]
    silent = [await asyncio.open_connection("127.0.0.1", port) for _ in range(4)]
    async with asyncio.timeout(20):
        # The oldest two are let go; the newest two may still say something.
        for reader, _ in silent[:2]:
            with contextlib.suppress(ConnectionError):
                assert await reader.read() == b""
        trusting = ssl.create_default_context(cafile=str(tmp_path / "root.pem"))
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", port, ssl=trusting, server_hostname="localhost"
        )
        assert await reader.read() == b"served"
        writer.transport.abort()
        for _, writer in silent:
            writer.transport.abort()
        while made.arriving:
            await asyncio.sleep(0.01)
    made.stop()


# ---------------------------------------------------------------------- a disk that takes nothing


def test_a_log_that_cannot_be_written_ends_no_other_work(tmp_path: Path) -> None:
    log = LogFile(tmp_path / "logs" / "CMGService.log")
    log.write("one")
    os.symlink("/dev/full", tmp_path / "logs" / "full.log")
    full = LogFile(tmp_path / "logs" / "full.log")
    full.write("nobody reads this")
    log.write("two")
    assert log.path.read_text().split() == ["one", "two"]
