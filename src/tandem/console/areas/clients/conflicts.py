"""Clients that are two machines, and machines that are two clients."""

from typing import Any

from starlette.responses import Response
from starlette.routing import BaseRoute

from tandem.console.kit import N_, ROOT, Console, Notice, Page, Place

PATH = f"{ROOT}/client-conflicts"
API = "/api/v1/client-conflicts"
PLACE = Place(PATH, N_("Conflicting records"), "warning", N_("Assets and compliance"))


async def show(page: Page[Any]) -> Response:
    found = (await page.api.get(API, resolved="true"))["conflicts"]
    return page.render(
        "clients/conflicts.html",
        waiting=[one for one in found if not one["resolved_at"]],
        done=[one for one in found if one["resolved_at"]][:50],
    )


async def decide(page: Page[Any]) -> Response:
    decision = (await page.form()).get("decision", "")
    await page.api.post(
        f"{API}/{page.request.path_params['id']}/decide", {"decision": str(decision)}
    )
    if decision == "dismiss":
        return page.to(PATH, N_("The conflict is dismissed."))
    return page.to(
        PATH, N_("The copy takes an identity of its own when it next reports, and registers anew.")
    )


async def notices(page: Page[Any]) -> list[Notice]:
    """Conflicts of which nothing is decided."""
    found = (await page.api.get(API))["conflicts"]
    waiting = [one for one in found if not one["decision"]]
    if not waiting:
        return []
    return [
        Notice(
            title=N_("Two machines may be one client: %(name)s."),
            text=one["text"],
            state="bad" if one["times"] > 1 else "waiting",
            url=PATH,
            values={"name": one["name"]},
        )
        for one in waiting[:3]
    ]


def routes(console: Console[Any]) -> list[BaseRoute]:
    return [
        console.route(PATH, show),
        console.route(f"{PATH}/{{id}}/decide", decide, post=True),
    ]
