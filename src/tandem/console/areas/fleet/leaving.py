"""A device leaves the site for the MDM service alone: what it would come to, and how far it is."""

from typing import Any
from urllib.parse import quote

from starlette.responses import Response

from tandem.console import labels
from tandem.console.areas.fleet import words
from tandem.console.areas.fleet.words import DEVICES
from tandem.console.kit import N_, ROOT, Page, Refused, UnknownPage
from tandem.infra.errors import AppError, Kind

_URL = "/api/v1/comanagement/offboardings"
STATES = {
    "moving": ("waiting", N_("Its workloads go to the MDM service")),
    "leaving": ("waiting", N_("Its client is told to leave")),
    "taken": ("waiting", N_("Its client was told to leave")),
    "done": ("good", N_("It has left")),
    "cancelled": ("plain", N_("Cancelled")),
    "readmitted": ("plain", N_("It may register again")),
}
_OPEN = ("moving", "leaving", "taken", "done")
_SAID = {
    "cancel": N_("Cancelled. The device stays with both."),
    "readmit": N_("The device may register again."),
}


async def show(page: Page[Any]) -> Response:
    """The preview with its confirmation, or where the device stands by now."""
    device = await _device(page)
    at = f"{ROOT}/devices/{quote(device['id'], safe='')}"
    form = await page.form() if page.request.method == "POST" else {}
    problem: AppError | None = None
    going = await _under_way(page, device["id"])
    if form and going is None:
        wanted = {
            "device": str(device["resource_id"] or ""),
            "confirm": form.get("confirm", ""),
            "accept_lacking": "accept_lacking" in form,
        }
        try:
            await page.api.post(_URL, wanted)
        except AppError as error:
            if error.kind not in (Kind.INVALID, Kind.CONFLICT):
                raise
            problem = error
        else:
            return page.to(
                f"{at}/leave", N_("The device is on its way. Nothing is taken from it yet.")
            )
    preview, trouble = None, None
    if going is None:
        try:
            preview = await page.api.get(f"{_URL}/preview", device=str(device["resource_id"] or ""))
        except AppError as error:
            if error.kind not in (Kind.INVALID, Kind.CONFLICT, Kind.NOT_FOUND):
                raise
            trouble = error
    return page.render(
        "fleet/leave.html",
        422 if problem else 200,
        device=device,
        going=going,
        states=STATES,
        preview=preview,
        trouble=trouble,
        error=problem,
        typed=form.get("confirm", ""),
        words=words,
        at=at,
        back=at,
    )


async def act(page: Page[Any]) -> Response:
    await page.form()
    device_id, action = (page.request.path_params[name] for name in ("device_id", "action"))
    if action not in _SAID:
        raise UnknownPage(labels.NO_SUCH_DEVICE)
    await page.api.post(f"{_URL}/{quote(device_id, safe='')}/{action}", {})
    return page.to(f"{ROOT}/devices/{quote(device_id, safe='')}/leave", _SAID[action])


async def _device(page: Page[Any]) -> dict[str, Any]:
    device_id = page.request.path_params["device_id"]
    try:
        found = await page.api.get(f"{DEVICES}/{quote(device_id, safe='')}")
    except Refused as error:
        if error.code != "fleet.no-such-device":
            raise
        raise UnknownPage(labels.NO_SUCH_DEVICE, cure=labels.NO_SUCH_DEVICE_CURE) from None
    return {**found["device"], "resource_id": found["resource_id"]}


async def _under_way(page: Page[Any], device_id: str) -> dict[str, Any] | None:
    try:
        found: dict[str, Any] = await page.api.get(f"{_URL}/{quote(device_id, safe='')}")
    except Refused as error:
        if error.code != "offboarding.not-found":
            raise
        return None
    return found if found["state"] in _OPEN else None
