"""The audit log of the admin API.

GET  /api/v1/audit                who did what, by pages: actor, action, target, outcome, from, to
GET  /api/v1/audit/entries        entries with their digests, oldest first: what an export takes
GET  /api/v1/audit/heads          signed heads, oldest first
GET  /api/v1/audit/key            the public key, after the newest head was signed
GET  /api/v1/audit/verification   what the last walk found
POST /api/v1/audit/verification   walk along the whole log now
"""

from datetime import UTC, datetime
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from tandem import audit
from tandem.infra import http
from tandem.infra.clock import Clock
from tandem.infra.database import Database, Tx
from tandem.site.administrators import Require
from tandem.site.auditing import service
from tandem.site.auditing.model import BadFilter, Filter, Verification

_PAGE = 1000


def routes(db: Database, require: Require, now: Clock, signer: audit.Signer) -> list[BaseRoute]:
    async def listed(request: Request) -> Response:
        await require(request)
        asked = http.listing(request, ("-id", "id"))
        wanted = _filter(request)
        async with db.transaction() as tx:
            found, total = await service.entries(
                tx, wanted, asked.order[1], asked.limit, asked.offset
            )
        items = [msgspec.to_builtins(entry) for entry in found]
        return http.reply({"items": items, "total": total})

    async def entries(request: Request) -> Response:
        await require(request)
        async with db.transaction() as tx:
            found = await audit.stored_entries(tx, http.number_of(request, "after", 0), _PAGE)
        return http.reply(found)

    async def heads(request: Request) -> Response:
        await require(request)
        async with db.transaction() as tx:
            found = await audit.heads(tx, http.number_of(request, "after", 0), _PAGE)
        return http.reply(found)

    async def key(request: Request) -> Response:
        await require(request)
        async with db.transaction() as tx:
            head = await service.sign(tx, signer, now())
        shape = {
            "key_id": signer.key_id,
            "public_key": signer.public_pem(),
            "entries": head.entries if head else 0,
        }
        return http.reply(shape)

    async def shown(request: Request) -> Response:
        await require(request)
        async with db.transaction() as tx:
            return http.reply(await _verified(tx, await service.last_verification(tx)))

    async def verify(request: Request) -> Response:
        await require(request)
        async with db.transaction() as tx:
            return http.reply(await _verified(tx, await service.verify(tx, signer, now())))

    async def _verified(tx: Tx, made: Verification | None) -> dict[str, Any]:
        count, heads, signed = await service.state(tx)
        shape = {"key_id": signer.key_id, "entries": count, "heads": heads, "signed": signed}
        if made is None:
            return {**shape, "verification": None}
        verification = {
            "at": made.at,
            "entries": made.entries,
            "heads": made.heads,
            "signed": made.signed,
            "took_ms": made.took_ms,
            "whole": made.whole,
            "problems": [msgspec.to_builtins(problem) for problem in made.problems],
        }
        return {**shape, "verification": verification}

    base = "/api/v1/audit"
    return [
        Route(base, listed, methods=["GET"]),
        Route(f"{base}/entries", entries, methods=["GET"]),
        Route(f"{base}/heads", heads, methods=["GET"]),
        Route(f"{base}/key", key, methods=["GET"]),
        Route(f"{base}/verification", shown, methods=["GET"]),
        Route(f"{base}/verification", verify, methods=["POST"]),
    ]


def _filter(request: Request) -> Filter:
    """Raises BadFilter, which names the field."""
    asked = request.query_params
    texts = {name: asked.get(name, "").strip() for name in ("actor", "action", "target", "outcome")}
    for name, text in texts.items():
        if len(text) > 256 or "\x00" in text:
            raise BadFilter("A filter has at most 256 characters.", field=name)
    if texts["outcome"] not in ("", "done", "refused"):
        raise BadFilter("An outcome is done or refused.", cure="Take one.", field="outcome")
    return Filter(**texts, since=_time(request, "from"), until=_time(request, "to"))


def _time(request: Request, name: str) -> datetime | None:
    text = request.query_params.get(name, "").strip()
    if not text:
        return None
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise BadFilter(
            f"{name} is no time: {text[:64]!r}.",
            cure="Write it like 2026-11-26 or 2026-11-26T09:30:00Z.",
            field=name,
        ) from None
    return at if at.tzinfo else at.replace(tzinfo=UTC)
