"""What waits for a second administrator: shown on the page of its kind, approved there, or cancelled."""

from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import quote

from starlette.responses import Response
from starlette.routing import BaseRoute

from tandem.console.kit import N_, Console, Page, field
from tandem.infra.errors import AppError, Kind

REASON = field(
    "reason",
    N_("Reason"),
    limit=1024,
    hint=N_(
        "Only when it reaches more devices than one administrator may reach alone: a second"
        " one then reads it, and approves or not."
    ),
)
ASKED = N_("%(name)s reaches %(count)s devices: a second administrator has to approve it.")
_REFUSED = (Kind.CONFLICT, Kind.NOT_FOUND, Kind.FORBIDDEN)


async def waiting(page: Page[Any], api: str) -> list[dict[str, Any]]:
    """What waits; nothing for who may not see it."""
    try:
        found: list[dict[str, Any]] = await page.api.get(f"{api}/waiting")
    except AppError as error:
        if error.kind is not Kind.FORBIDDEN:
            raise
        return []
    return found


def routes(
    console: Console[Any],
    path: str,
    api: str,
    show: Callable[[Page[Any], AppError], Awaitable[Response]],
) -> list[BaseRoute]:
    """`show` draws the page at `path` again, with a refusal."""

    async def approve(page: Page[Any]) -> Response:
        form = await page.form()
        id = page.request.path_params["id"]
        devices, seen = form.get("devices", "")[:12], form.get("seen", "")[:64]
        name = form.get("name", "")[:256]
        if "confirmed" not in form:
            text = page.language.text
            return page.confirm(
                text(N_("Approve a deployment")),
                text(
                    N_("%(name)s reaches %(count)s devices. They apply it with their next policy."),
                    name=name,
                    count=devices,
                ),
                text(N_("Approve")),
                back=path,
                fields={"devices": devices, "seen": seen, "name": name},
            )
        number = int(devices) if devices.isascii() and devices.isdigit() else -1
        body = {"devices": number, "seen": seen}
        try:
            await page.api.post(f"{api}/waiting/{quote(id, safe='')}/approve", body)
        except AppError as error:
            if error.kind not in _REFUSED:
                raise
            return await show(page, error)
        return page.to(
            path,
            N_("%(name)s was deployed. Devices apply it with their next policy."),
            name=name,
        )

    async def cancel(page: Page[Any]) -> Response:
        await page.form()
        id = page.request.path_params["id"]
        try:
            await page.api.delete(f"{api}/waiting/{quote(id, safe='')}")
        except AppError as error:
            if error.kind not in _REFUSED:
                raise
            return await show(page, error)
        return page.to(path, N_("It was cancelled: no device gets it."))

    return [
        console.route(f"{path}/waiting/{{id}}/approve", approve, post=True),
        console.route(f"{path}/waiting/{{id}}/cancel", cancel, post=True),
    ]
