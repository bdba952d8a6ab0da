"""The guide and the story in the admin API."""

from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from tandem.infra import http
from tandem.infra.clock import Clock
from tandem.infra.database import Database
from tandem.site.administrators import Require
from tandem.site.guide import service
from tandem.site.guide.model import PARTS, Do, Happened, Standing, State
from tandem.site.guide.service import Collaborators


def routes(db: Database, others: Collaborators, require: Require, now: Clock) -> list[BaseRoute]:
    async def guide(request: Request) -> Response:
        await require(request)
        async with db.transaction() as tx:
            found = await service.standings(tx, others, now())
        parts = [
            {
                "part": part,
                "title": title,
                "steps": [_step(item) for item in found if item.step.part == part],
            }
            for part, title in PARTS.items()
        ]
        counts = {
            state.value: sum(item.finding.state is state for item in found) for state in State
        }
        # What comes next is the first step that is not done and could be.
        open_ = [i for i in found if i.finding.state in (State.NOT_YET, State.PARTLY)]
        value = {"parts": parts, "counts": counts, "next": open_[0].step.id if open_ else ""}
        return http.reply(value)

    async def story(request: Request) -> Response:
        await require(request)
        wanted = http.listing(request, ("at",), limit=50, most=200)
        async with db.transaction() as tx:
            found = await service.happened(tx, wanted.limit)
        return http.reply([_happened(item) for item in found])

    return [
        Route("/api/v1/guide", guide, methods=["GET"]),
        Route("/api/v1/guide/story", story, methods=["GET"]),
    ]


def _step(item: Standing) -> dict[str, Any]:
    step = item.step
    return {
        "id": step.id,
        "title": step.title,
        "why": step.why,
        "where": step.where,
        "state": item.finding.state.value,
        "text": item.finding.said.text,
        "values": item.finding.said.values,
        "command": step.command,
        "do": _do(item.do) if item.do else None,
    }


def _do(item: Do) -> dict[str, Any]:
    return {
        "method": item.method,
        "path": item.path,
        "body": item.body,
        "says": item.says,
        "warns": item.warns,
    }


def _happened(item: Happened) -> dict[str, Any]:
    return {
        "at": item.at,
        "until": item.until,
        "who": item.who,
        "text": item.said.text,
        "action": item.action,
        "target": item.target,
        "devices": item.count,
        "values": item.said.values,
    }
