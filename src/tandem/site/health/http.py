"""The way in, the analyzer, ports and endpoints, and the site about itself, in the admin API."""

from base64 import b64decode
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import BaseRoute, Route

from tandem import pki
from tandem.infra import http
from tandem.infra.clock import Clock
from tandem.infra.database import Database, Tx
from tandem.infra.errors import Invalid
from tandem.site import clients, properties
from tandem.site.administrators import Gate
from tandem.site.cloud_services import CloudServices
from tandem.site.collections import as_dict
from tandem.site.health.about import About
from tandem.site.health.analyzer import Analyzer, Identity, broken
from tandem.site.health.chain import Chain
from tandem.site.health.model import CHECKS, Finding, SitePlaces, State
from tandem.site.health.ports import Ports

_FILE_LIMIT = 256 * 1024
# Who waits for the analyzer gets each row as it is found, and the whole at the end.
_LINES = "application/x-ndjson"
_NOT_KEPT = {"Cache-Control": "no-store"}


class Asker(msgspec.Struct):
    """Who walks the way: a token for the site, or a client certificate (PFX in base64)."""

    access_token: str = ""
    data: str = ""
    password: str = ""

    def identity(self) -> Identity:
        if not self.data:
            return Identity(self.access_token)
        try:
            data = b64decode(self.data, validate=True)
        except ValueError:
            raise Invalid(
                "The file did not arrive whole (its base64 is broken).", field="data"
            ) from None
        return Identity(pfx=pki.pfx_open(data, self.password))


@dataclass(frozen=True)
class Health:
    """What the routes need, made in `roles/`."""

    db: Database
    chain: Chain
    analyzer: Analyzer
    ports: Ports
    about: About
    now: Clock

    @classmethod
    def of(cls, cloud: CloudServices, places: SitePlaces) -> "Health":
        chain = Chain(cloud.gateways, cloud.connections, cloud.tenants, cloud.now)

        async def site_token(tx: Tx) -> str:
            code = (await properties.site(tx)).code
            return await clients.probe_token(tx, cloud.box, code, cloud.now())

        analyzer = Analyzer(
            cloud.db,
            chain,
            cloud.gateways,
            cloud.connections,
            cloud.tenants,
            site_token,
            cloud.now,
        )
        ports = Ports(places, cloud.gateways, cloud.connections)
        return cls(cloud.db, chain, analyzer, ports, About(places, cloud.now), cloud.now)


def routes(health: Health, require: Gate) -> list[BaseRoute]:
    async def chain(request: Request) -> Response:
        await require(request)
        async with health.db.transaction() as tx:
            found = await health.chain.hops(tx, fresh="fresh" in request.query_params)
        return http.reply(
            {
                "state": _worst(found).value,
                "checked_at": health.now(),
                "hops": [finding(item) for item in found],
            }
        )

    async def analyze(request: Request) -> Response:
        await require(request)
        asked = await http.decode(request, Asker, _FILE_LIMIT)
        name = request.path_params["name"]
        rows = health.analyzer.walk("" if name == "-" else name, asked.identity())
        if _LINES in request.headers.get("accept", ""):
            # What is refused at all is so before the first line.
            first = await anext(rows)
            return StreamingResponse(
                _lines(first, rows, health.now), media_type=_LINES, headers=_NOT_KEPT
            )
        return http.reply(_walked([row async for row in rows], health.now), headers=_NOT_KEPT)

    async def endpoints(request: Request) -> Response:
        await require(request)
        async with health.db.transaction() as tx:
            return http.reply(await health.ports.describe(tx))

    async def about(request: Request) -> Response:
        await require(request)
        async with health.db.transaction() as tx:
            return http.reply(await health.about.describe(tx))

    return [
        Route("/api/v1/health", chain, methods=["GET"]),
        Route("/api/v1/gateways/{name}/analyze", analyze, methods=["POST"]),
        Route("/api/v1/endpoints", endpoints, methods=["GET"]),
        Route("/api/v1/about", about, methods=["GET"]),
    ]


async def _lines(first: Finding, rest: AsyncIterator[Finding], now: Clock) -> AsyncIterator[bytes]:
    found = [first]
    yield msgspec.json.encode({"check": finding(first)}) + b"\n"
    async for row in rest:
        found.append(row)
        yield msgspec.json.encode({"check": finding(row)}) + b"\n"
    yield msgspec.json.encode({"whole": _walked(found, now)}) + b"\n"


def _walked(found: list[Finding], now: Clock) -> dict[str, Any]:
    cut = broken(found)
    return {
        "ok": all(item.state in {State.GOOD, State.SKIPPED} for item in found),
        "checked_at": now(),
        "broken": finding(cut) if cut else None,
        "checks": [finding(item) for item in found],
    }


def _worst(found: list[Finding]) -> State:
    states = {item.state for item in found}
    return next((s for s in (State.BAD, State.WAITING) if s in states), State.GOOD)


def finding(item: Finding) -> dict[str, Any]:
    name, about = CHECKS.get(item.check, ("", ""))
    return {
        "id": item.id,
        "gateway": item.gateway,
        "source": as_dict(item.source),
        "target": as_dict(item.target),
        "state": item.state.value,
        "since": item.since,
        "cause": item.cause,
        "values": item.values,
        "text": item.text,
        "cure": item.cure,
        "check": item.check,
        "name": name,
        "description": about,
    }
