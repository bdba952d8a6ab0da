"""Everything that waits for a second administrator, of whatever kind; each is decided on its own page."""

from collections.abc import Mapping
from typing import Any

from starlette.responses import Response
from starlette.routing import BaseRoute

from tandem.console import approvals
from tandem.console.areas.comgmt import client_settings, configurations, rollouts
from tandem.console.areas.comgmt.words import API, title
from tandem.console.areas.comgmt.words import PATH as COMANAGEMENT
from tandem.console.kit import N_, ROOT, Console, Page, Place
from tandem.infra.errors import AppError, Kind

PATH = f"{ROOT}/approvals"
PLACE = Place(PATH, N_("Approvals"), "checkmark", N_("Monitoring"))
_UPDATES = ("/api/v1/software-updates", f"{ROOT}/software-updates")
_PLANS = 200


async def show(page: Page[Any]) -> Response:
    found = [
        *await _of(page, N_("Configuration"), configurations.API, configurations.PATH),
        *await _of(page, N_("Client settings"), client_settings.API, client_settings.PATH),
        *await _of(page, N_("Software update"), *_UPDATES),
        *await _of(page, N_("Co-management"), API, COMANAGEMENT),
        *await _plans(page),
    ]
    found.sort(key=lambda one: str(one["asked_at"]))
    return page.render("comgmt/approvals.html", waiting=found)


async def _of(page: Page[Any], kind: str, api: str, path: str) -> list[dict[str, Any]]:
    return [
        {
            "collection": "",
            "collection_id": "",
            **one,
            "kind": kind,
            "name": _name(one),
            "url": path,
        }
        for one in await approvals.waiting(page, api)
    ]


def _name(one: Mapping[str, Any]) -> str:
    return str(one.get("name") or "; ".join(one.get("changes", ())))


async def _plans(page: Page[Any]) -> list[dict[str, Any]]:
    """Roll-outs that do not start before somebody else agrees."""
    try:
        found = await page.api.get(f"{API}/rollouts", limit=_PLANS)
    except AppError as error:
        if error.kind is not Kind.FORBIDDEN:
            raise
        return []
    return [
        {
            "kind": N_("Roll-out"),
            "name": title(page, one["workload"]),
            "url": f"{rollouts.ROLLOUTS}/{one['id']}",
            "collection": ", ".join(ring["collection"] for ring in one["rings"]),
            "collection_id": "",
            "reaches": sum(one["counts"].values()),
            "asked_by": one["created_by"],
            "asked_at": one["created_at"],
            "expires_at": one["expires_at"],
            "reason": one["reason"],
        }
        for one in found["items"]
        if one["needs_approval"]
    ]


def routes(console: Console[Any]) -> list[BaseRoute]:
    return [console.route(PATH, show)]
