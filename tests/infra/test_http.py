"""The server, with real sockets and real TLS."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from socket import socket

import msgspec
import pytest
from cryptography import x509
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from tandem import pki
from tandem.infra import http, net
from tandem.infra.errors import AppError, Kind


class Full(AppError):
    kind, code = Kind.CONFLICT, "room.full"


class Guest(msgspec.Struct):
    name: str


async def who(request: Request) -> Response:
    certificate = http.peer_certificate(request)
    if certificate is None:
        return http.reply({"cn": None})
    return http.reply({"cn": x509.load_der_x509_certificate(certificate).subject.rfc4514_string()})


async def enter(request: Request) -> Response:
    guest = await http.decode(request, Guest, limit=100)
    if guest.name == "bug":
        raise RuntimeError("secret detail")
    raise Full("The room is full.", cure="Wait outside.", guests=3)


def free_port() -> int:
    with socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[tuple[str, Path]]:
    now = datetime.now(UTC)
    root = pki.new_root(pki.name("test root"), now=now)
    for name in ("server", "client"):
        key = pki.generate_key()
        certificate = root.issue(
            key.public_key(), pki.name(name), dns=["localhost"], usages=["server", "client"],
            now=now, days=1,
        )  # fmt: skip
        (tmp_path / f"{name}.pem").write_bytes(pki.pem(certificate))
        (tmp_path / f"{name}.key").write_bytes(pki.key_pem(key))
    (tmp_path / "ca.pem").write_bytes(pki.pem(root.certificate))
    app = http.application(
        [Route("/who", who), Route("/enter", enter, methods=["POST"])], role="test"
    )
    port, stop = free_port(), asyncio.Event()
    tls = http.TLS(tmp_path / "server.pem", tmp_path / "server.key", tmp_path / "ca.pem")
    task = asyncio.create_task(http.serve([http.Listener(app, "127.0.0.1", port, tls)], stop))
    await asyncio.sleep(0.2)
    yield f"https://localhost:{port}", tmp_path
    stop.set()
    await task


async def test_the_peer_certificate_reaches_the_application(server: tuple[str, Path]) -> None:
    url, folder = server
    certificate = (folder / "client.pem", folder / "client.key")
    async with net.client(ca_file=folder / "ca.pem", certificate=certificate) as client:
        assert (await client.get(f"{url}/who")).json() == {"cn": "CN=client"}
    async with net.client(ca_file=folder / "ca.pem") as client:
        assert (await client.get(f"{url}/who")).json() == {"cn": None}


async def test_a_refusal_says_what_why_and_what_next(server: tuple[str, Path]) -> None:
    url, folder = server
    async with net.client(ca_file=folder / "ca.pem") as client:
        answer = await client.post(f"{url}/enter", json={"name": "ann"})
        assert answer.status_code == 409
        assert answer.json()["error"] == {
            "code": "room.full",
            "message": "The room is full.",
            "cure": "Wait outside.",
            "details": {"guests": 3},
        }
        assert answer.headers["x-correlation-id"]


@pytest.mark.parametrize(
    ("content", "status", "code"),
    [
        (b'{"name": 5}', 400, "request.invalid"),
        (b"{", 400, "request.invalid"),
        (b"[" * 90, 400, "request.invalid"),
        (b'"' + b"x" * 200 + b'"', 413, "request.too-large"),
    ],
)
async def test_bad_bodies_are_refused(
    server: tuple[str, Path], content: bytes, status: int, code: str
) -> None:
    url, folder = server
    async with net.client(ca_file=folder / "ca.pem") as client:
        answer = await client.post(f"{url}/enter", content=content)
        assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)


async def test_a_bug_is_answered_without_its_detail(server: tuple[str, Path]) -> None:
    url, folder = server
    async with net.client(ca_file=folder / "ca.pem") as client:
        answer = await client.post(f"{url}/enter", json={"name": "bug"})
        assert answer.status_code == 500
        assert "secret" not in answer.text


async def test_an_unknown_path_is_refused_in_the_same_shape(server: tuple[str, Path]) -> None:
    url, folder = server
    async with net.client(ca_file=folder / "ca.pem") as client:
        answer = await client.get(f"{url}/nowhere")
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "http.not-found")
