"""What did not go as it should: commands that devices choke on, and devices that left and call."""

from collections import Counter
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, urlencode

from starlette.responses import Response

from tandem.console import labels
from tandem.console.areas.mdm import words
from tandem.console.areas.mdm.packages import APPS
from tandem.console.kit import N_, ROOT, Notice, Page, UnknownPage
from tandem.infra.errors import AppError, Kind

MANAGED = "/v1.0/deviceManagement/managedDevices"
STRAYS = "/v1.0/tandem/strayDevices"
EVERYWHERE = "/v1.0/tandem/setAsideCommands"
BASE = f"{ROOT}/stray-devices"
_MOST_NOTICES = 10
REFRESH_SECONDS = 5
_OF_APPS = ("install", "uninstall")
COLUMNS = (
    ("", N_("Device name")),
    ("", N_("Calls")),
    ("", N_("First call")),
    ("", N_("Last call")),
    ("", N_("State")),
    ("", ""),
)

# ---------------------------------------------------------------------------------- set aside


async def set_aside(page: Page[Any], device_id: str) -> list[dict[str, Any]]:
    """The commands that a device does not get any more, each with `of`: whose it is, in words."""
    found = (await page.api.get(f"{_managed(device_id)}/setAsideCommands"))["value"]
    return [{**item, "of": await _subject(page, item)} for item in found]


async def _subject(page: Page[Any], item: Mapping[str, Any]) -> str:
    if item["kind"] not in _OF_APPS:
        return str(item["subject"])
    try:
        app = await page.api.get(f"{APPS}/{quote(item['subject'], safe='')}")
    except AppError as error:
        if error.kind not in (Kind.NOT_FOUND, Kind.INVALID):
            raise
        return str(item["subject"])  # The app is gone; the order to remove it may have been last.
    return str(app["displayName"])


async def release(page: Page[Any]) -> Response:
    """Give a device again what was set aside: one command that the address names, or all."""
    id = page.request.path_params["device_id"]
    try:
        device = await page.api.get(_managed(id), **{"$select": "id,deviceName"})
    except AppError as error:
        if error.kind not in (Kind.NOT_FOUND, Kind.INVALID):
            raise
        raise UnknownPage(labels.NO_SUCH_DEVICE, cure=labels.NO_SUCH_DEVICE_CURE) from None
    query, text = page.request.query_params, page.language.text
    chosen = {name: query.get(name, "") for name in ("kind", "subject")}
    back = f"{ROOT}/devices/{quote(device['id'], safe='')}"
    held = [
        item
        for item in await set_aside(page, device["id"])
        if all(not value or item[name] == value for name, value in chosen.items())
    ]
    if page.request.method == "POST":
        await page.form()
        done = await page.api.post(f"{_managed(device['id'])}/releaseCommands", chosen)
        if not done["value"]:
            return page.to(back, N_("Nothing is set aside any more."))
        return page.to(back, N_("It was released, and comes at the device's next check-in."))
    if not held:
        return page.to(back, N_("Nothing is set aside any more."))
    return page.confirm(
        text(N_("Release for %(device)s?"), device=device["deviceName"]),
        text(
            N_(
                "The device is given this again at its next check-in. Where it still chokes on it, it"
                " is set aside anew, after three sessions that broke off."
            )
        ),
        text(N_("Release")),
        back=back,
        items=[f"{text(words.SET_ASIDE.get(item['kind'], item['kind']))}: {item['of']}"
               for item in held],
        danger=False,
    )  # fmt: skip


def release_url(device_id: str, kind: str = "", subject: str = "") -> str:
    query = urlencode({"kind": kind, "subject": subject}) if subject else ""
    return f"{ROOT}/devices/{quote(device_id, safe='')}/release" + (f"?{query}" if query else "")


async def notices(page: Page[Any]) -> list[Notice]:
    """Devices that do not get everything: nobody would look for them one by one."""
    found = await page.api.get(EVERYWHERE, **{"$top": 500})
    names = {item["deviceId"]: item["deviceName"] for item in found["value"]}
    counts = Counter(item["deviceId"] for item in found["value"])
    return [
        Notice(
            title=N_("%(name)s does not get everything: set aside are %(number)s"),
            values={"name": names[id] or id, "number": count},
            state="bad",
            url=f"{ROOT}/devices/{quote(id, safe='')}",
        )
        for id, count in counts.most_common(_MOST_NOTICES)
    ]


def _managed(id: str) -> str:
    return f"{MANAGED}/{quote(id, safe='')}"


# ---------------------------------------------------------------------------------- strays


async def strays(page: Page[Any]) -> Response:
    found = await page.api.get(STRAYS)
    return page.render(
        "mdm/strays.html",
        rows=found["value"],
        columns=COLUMNS,
        base=BASE,
        refresh_seconds=REFRESH_SECONDS,
    )


async def tell_to_leave(page: Page[Any]) -> Response:
    """Asked for with what the device loses, then ordered: it hears of it when it calls."""
    id = page.request.path_params["device_id"]
    found = (await page.api.get(STRAYS))["value"]
    stray = next((item for item in found if item["id"] == id), None)
    text = page.language.text
    if page.request.method == "POST":
        await page.form()
        await page.api.post(f"{STRAYS}/{quote(id, safe='')}/unenroll", {})
        return page.to(BASE, N_("The device is told to leave at its next call."))
    if stray is None:
        return page.to(BASE, N_("This device does not call any more."))
    return page.confirm(
        text(N_("Tell %(device)s to leave?"), device=stray["deviceName"] or id),
        text(
            N_(
                "The device gives up its enrolment, with all settings and certificates that came by"
                " it, at its next call. It can enrol again afterwards."
            )
        ),
        text(N_("Tell it to leave")),
        back=BASE,
    )
