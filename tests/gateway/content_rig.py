"""A gateway that serves content, and a site that a test turns: it gives keys and content, or worse."""

import asyncio
import secrets
import time
from base64 import urlsafe_b64encode
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

import httpx
import msgspec
from joserfc import jwt
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from gateway.conftest import CONNECTION_ID, NAME, Rig
from tandem import pki
from tandem.infra import http
from tandem.protocols import ccm, tunnel

CHUNK = 1024 * 1024


@dataclass
class ContentRig(Rig):
    # By SHA-256, what the site gives; and what it knows as right.
    contents: dict[str, bytes] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)
    keys: dict[str, bytes] = field(default_factory=dict)
    distributions: dict[str, int] = field(default_factory=dict)
    asked: Counter[str] = field(default_factory=Counter)
    given: Counter[str] = field(default_factory=Counter)  # Bytes, by content.
    dropped: dict[str, int] = field(default_factory=dict)
    serves: bool = True
    quota: int = 0
    # While it is not set, content stops after `stops_after` bytes of an answer.
    flows: asyncio.Event = field(default_factory=asyncio.Event)
    stops_after: int = 0
    file_limit: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        self.device = pki.generate_key("p256")
        self.flows.set()

    def add(self, content: bytes) -> str:
        name = sha256(content).hexdigest()
        self.contents[name], self.sizes[name] = content, len(content)
        self.keys[name], self.distributions[name] = secrets.token_bytes(32), 1
        return name

    def distribute_again(self, name: str) -> None:
        self.keys[name], self.distributions[name] = secrets.token_bytes(32), 2

    def configuration(self) -> tunnel.Configuration:
        service = tunnel.ContentService(dict(self.dropped), self.quota) if self.serves else None
        return msgspec.structs.replace(super().configuration(), content=service)

    def connector_configuration(self, name: str = "CP01") -> tunnel.ConnectorConfiguration:
        found = super().connector_configuration(name)
        origin = f"https://127.0.0.1:{self.site_port}{tunnel.ORIGIN}/{NAME}"
        mapped = [*found.map, tunnel.Mapping(tunnel.ORIGIN, origin)]
        return msgspec.structs.replace(found, map=mapped)

    def site(self) -> Starlette:
        def proven(request: Request, path: str, body: bytes) -> bool:
            said = request.headers.get(tunnel.PROOF_HEADER, "")
            return tunnel.is_proven(
                said, CONNECTION_ID, request.method, path, body, time.time()
            ) and not tunnel.is_proven(said, "another id", request.method, path, body, time.time())

        async def key(request: Request) -> Response:
            body = await request.body()
            assert proven(request, "/key", body)
            wanted = msgspec.json.decode(body, type=tunnel.KeyRequest)
            self.asked["key"] += 1
            if self.distributions.get(wanted.sha256) != wanted.distribution:
                return Response(status_code=404)
            return http.reply(
                tunnel.ContentKey(
                    wanted.sha256,
                    wanted.distribution,
                    self.sizes[wanted.sha256],
                    self.keys[wanted.sha256].hex(),
                )
            )

        async def read(request: Request) -> Response:
            name = request.path_params["sha256"]
            assert proven(request, f"/{name}", b"")
            self.asked[name] += 1
            first, last = request.headers["range"].removeprefix("bytes=").split("-")
            content = self.contents[name][int(first) : int(last) + 1]

            async def pieces() -> Any:
                for at in range(0, len(content), 65536):
                    if self.stops_after and at >= self.stops_after:
                        await self.flows.wait()
                    self.given[name] += len(content[at : at + 65536])
                    yield content[at : at + 65536]

            headers = {
                "content-length": str(len(content)),
                "content-range": f"bytes {first}-{last}/{self.sizes[name]}",
            }
            return StreamingResponse(pieces(), 206, headers)

        async def state(request: Request) -> Response:
            body = await request.body()
            assert proven(request, "/state", body)
            self.states.append(msgspec.json.decode(body, type=tunnel.ContentState))
            return Response(status_code=204)

        made = super().site()
        base = f"{tunnel.ORIGIN}/{NAME}"
        made.router.routes += [
            Route(f"{base}/key", key, methods=["POST"]),
            Route(f"{base}/state", state, methods=["POST"]),
            Route(f"{base}/{{sha256}}", read, methods=["GET"]),
        ]
        return made

    states: list[tunnel.ContentState] = field(default_factory=list)

    def start_gateway(self) -> None:
        """Where `file_limit` is set, no file can be larger: a disk that takes nothing more."""
        if not self.file_limit:
            super().start_gateway()
            return
        wrapper = self.folder / "limited"
        wrapper.write_text(
            f'#!/bin/sh\nulimit -f {self.file_limit // 512}\nexec {self.python} "$@"\n'
        )
        wrapper.chmod(0o755)
        before, self.python = self.python, str(wrapper)
        try:
            super().start_gateway()
        finally:
            self.python = before

    # -------------------------------------------------------------- devices

    def content_token(
        self, name: str, *, key: Any = None, device: Any = None, **changes: Any
    ) -> str:
        now = int(time.time())
        claims = {
            "iss": "urn:sccm:site:CM1", "aud": ccm.CONTENT_AUDIENCE, "sub": name,
            "size": self.sizes.get(name, 0), "gateway": NAME,
            "dist": self.distributions.get(name, 1), "deviceid": "d1",
            "nbf": now - 5, "exp": now + 86400,
            "cnf": {"jwk": pki.public_jwk((device or self.device).public_key())},
            **changes,
        }  # fmt: skip
        return jwt.encode({"alg": "ES256", "kid": "s1"}, claims, key or self.site_key)

    def signed(
        self, name: str, *, method: str = "GET", key: Any = None, at: datetime | None = None
    ) -> dict[str, str]:
        return ccm.sign_request(
            key or self.device,
            method=method,
            target=f"{tunnel.CONTENT}/{name}",
            body=b"",
            client_id="",
            now=at or datetime.now(UTC),
            nonce=secrets.token_urlsafe(18),
        )

    def headers(self, name: str, token: str = "", **more: str) -> dict[str, str]:
        return {
            "Authorization": f"Bearer {token or self.content_token(name)}",
            **self.signed(name),
            **more,
        }

    async def fetch(self, name: str, method: str = "GET", **more: str) -> httpx.Response:
        async with self.client(timeout=60) as client:
            headers = {**self.headers(name, **more), **self.signed(name, method=method)}
            return await client.request(method, f"{tunnel.CONTENT}/{name}", headers=headers)

    # -------------------------------------------------------------- what lies on the disk

    @property
    def shelf(self) -> Path:
        return self.folder / "gateway" / "content"

    def files(self, name: str = "") -> list[Path]:
        return sorted(path for path in (self.shelf / name).rglob("*") if path.is_file())


def plain(size: int, seed: int = 1) -> bytes:
    """Content that repeats nothing which a test would look for."""
    made, block = bytearray(), seed.to_bytes(8)
    while len(made) < size:
        block = sha256(block).digest()
        made += block * 64
    return bytes(made[:size])


def unforged(token: str) -> str:
    """The same token with another claim, under the old signature."""
    head, body, signature = token.split(".")
    other = urlsafe_b64encode(b'{"sub":"0"}').rstrip(b"=").decode()
    return ".".join([head, other or body, signature])
