"""GET /api/v1/search?q=…&limit=5: at most so many of each kind."""

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from tandem.infra import http
from tandem.infra.database import Database
from tandem.infra.errors import Invalid
from tandem.site.administrators import Require
from tandem.site.collections import as_dict
from tandem.site.search import service

_MOST = 50


def routes(
    db: Database, require: Require, others: service.Collaborators | None = None
) -> list[BaseRoute]:
    collaborators = others or service.Collaborators()

    async def search(request: Request) -> Response:
        who = await require(request)
        text = request.query_params.get("q", "").strip()
        if not text or len(text) > 256 or "\x00" in text:
            raise Invalid("Search for 1 to 256 characters.", cure="Write q=….", field="q")
        limit = http.number_of(request, "limit", 5)
        if not 1 <= limit <= _MOST:
            raise Invalid(f"limit is a number from 1 to {_MOST}.", field="limit")
        found, missing = await service.search(db, collaborators, who, text, limit)
        shape = {"query": text, "results": [as_dict(item) for item in found], "missing": missing}
        return http.reply(shape)

    return [Route("/api/v1/search", search, methods=["GET"])]
