"""The site's record of a device is deleted: first what goes with it, and what does not."""

from typing import Any
from urllib.parse import quote

from starlette.responses import Response

from tandem.console import labels
from tandem.console.areas.fleet.words import DEVICES
from tandem.console.kit import N_, ROOT, Page, Refused, UnknownPage
from tandem.infra.errors import AppError


async def show(page: Page[Any]) -> Response:
    device, collections = await _device(page)
    problem: AppError | None = None
    if page.request.method == "POST":
        await page.form()
        try:
            await page.api.delete(f"/api/v1/clients/{quote(device['client_id'], safe='')}")
        except Refused as error:
            if error.code != "client.still-blocked":
                raise
            problem = error
        else:
            return page.to(
                f"{ROOT}/devices",
                N_("The site's record of %(name)s is deleted."),
                name=device["name"],
            )
    return page.render(
        "fleet/delete.html",
        409 if problem else 200,
        device=device,
        collections=collections,
        error=problem,
        back=f"{ROOT}/devices/{quote(device['id'], safe='')}",
    )


async def _device(page: Page[Any]) -> tuple[dict[str, Any], list[str]]:
    """A device of which the site has a record, and the collections that it is in."""
    try:
        found = await page.api.get(
            f"{DEVICES}/{quote(page.request.path_params['device_id'], safe='')}"
        )
    except Refused as error:
        if error.code != "fleet.no-such-device":
            raise
        found = None
    if found is None or not found["device"]["client_id"]:
        raise UnknownPage(labels.NO_SUCH_DEVICE, cure=labels.NO_SUCH_DEVICE_CURE)
    return found["device"], [one["name"] for one in found["collections"]]
