"""What is done to many devices at once, or to one: asked first, with how far it reaches."""

from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl, urlencode

from starlette.responses import Response

from tandem.console.areas.fleet import words
from tandem.console.areas.fleet.words import DEVICES, filter_of
from tandem.console.kit import (
    N_,
    ROOT,
    Field,
    Option,
    Page,
    Problem,
    Refused,
    Values,
    drawn,
    field,
    read,
)
from tandem.infra.errors import AppError

ALL_SYSTEMS = "SMS00001"
CHANGED_MEANWHILE = "fleet.selection-changed"

# Of each action: its question, its button, and what is said when it is done.
ACTIONS = {
    "block": (
        N_("Block devices"),
        N_("Block"),
        N_("Clients blocked: %(changed)s."),
        N_(
            "From then on the site takes nothing from these clients and gives them nothing, until"
            " they are unblocked. What the MDM service does with them goes on."
        ),
    ),
    "unblock": (
        N_("Unblock devices"),
        N_("Unblock"),
        N_("Clients unblocked: %(changed)s."),
        N_("The site speaks with these clients again, from their next request on."),
    ),
    "add-to-collection": (
        N_("Add devices to a collection"),
        N_("Add"),
        N_("Devices added to the collection: %(changed)s."),
        N_(
            "Each device gets a direct rule. What is deployed to the collection reaches it with its"
            " next policy, a pilot of co-management included."
        ),
    ),
}


async def _collections(page: Page[Any], values: Values) -> list[Option]:
    found = await page.api.get(
        "/api/v1/collections", sort="name", limit=1000, count="false", type="device"
    )
    return [(item["id"], item["name"]) for item in found["items"] if not item["built_in"]]


COLLECTION: tuple[Field, ...] = (
    field("collection", N_("Collection"), kind="select", required=True, options=_collections),
)


async def act(page: Page[Any]) -> Response:
    given = await page.form()
    do = given.get("do", "")
    if do not in ACTIONS:
        raise Problem("do", N_("This page knows no such action, so nothing was done."))
    wanted = filter_of(dict(parse_qsl(given.get("filter", "")[:2000])))
    everything = given.get("all") == "1"
    devices = _devices(page, given)
    back = given.get("back", "")
    if not back.startswith(f"{ROOT}/devices"):
        back = f"{ROOT}/devices" + (f"?{urlencode(wanted)}" if wanted else "")
    selection: dict[str, Any] = (
        {"filter": words.asked(wanted)} if everything else {"devices": devices}
    )
    try:
        reach = await page.api.post(f"{DEVICES}/selection", selection)
    except Refused as error:
        return await _asked(page, do, back, error=error, status=422)
    kept = {
        "do": do,
        "back": back,
        "filter": urlencode(wanted),
        "all": "1" if everything else "",
        "devices": "\n".join(devices),
        "expected": str(reach["devices"]),
    }
    fields = _fields(do)
    values, problems = read(fields, given, page.form_lists, page.files)
    if given.get("confirmed") != "1":
        return await _asked(page, do, back, reach, kept, wanted, everything, values)
    if problems:
        return await _asked(
            page, do, back, reach, kept, wanted, everything, values, problems, status=422
        )
    expected = given.get("expected", "")
    agreed = int(expected) if expected.isascii() and expected.isdigit() else -1
    try:
        done = await page.api.post(f"{DEVICES}/{do}", {**selection, "expected": agreed, **values})
    except Refused as error:
        status = 409 if error.code == CHANGED_MEANWHILE else 422
        return await _asked(
            page, do, back, reach, kept, wanted, everything, values, error=error, status=status
        )
    return page.to(back, ACTIONS[do][2], changed=page.language.number(done["changed"]))


def _fields(do: str) -> tuple[Field, ...]:
    return COLLECTION if do == "add-to-collection" else ()


def _devices(page: Page[Any], given: Mapping[str, str]) -> list[str]:
    ticked = page.form_lists.get("device", ())
    every = [*ticked, *given.get("devices", "").split("\n")]
    return [id.replace("\0", "") for id in dict.fromkeys(every) if id.strip()]


async def _asked(
    page: Page[Any],
    do: str,
    back: str,
    reach: Mapping[str, Any] | None = None,
    kept: Mapping[str, str] | None = None,
    wanted: Mapping[str, str] | None = None,
    everything: bool = False,
    values: Values | None = None,
    problems: Mapping[str, AppError] | None = None,
    *,
    error: Refused | None = None,
    status: int = 200,
) -> Response:
    return page.render(
        "fleet/action.html",
        status,
        action=ACTIONS[do],
        do=do,
        back=back,
        reach=reach,
        kept=dict(kept or {}),
        filters=words.shown(wanted or {}) if everything else [],
        everything=everything,
        fields=await drawn(page, _fields(do), values or {}, problems or {}),
        error=error,
    )
