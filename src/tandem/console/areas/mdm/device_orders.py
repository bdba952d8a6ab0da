"""Orders to devices: what waits, who else has to agree, and what guards devices from them."""

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

from starlette.responses import Response

from tandem.console.areas.mdm import words
from tandem.console.kit import N_, ROOT, Field, Notice, Page, UnknownPage, drawn, field, read
from tandem.console.pages import moment
from tandem.infra.errors import AppError, Kind

ORDERS = "/v1.0/tandem/actions"
REQUESTS = "/v1.0/tandem/actionRequests"
SAFEGUARDS = "/v1.0/tandem/actionSafeguards"
BASE = f"{ROOT}/device-actions"
REFRESH_SECONDS = 5
_SHOWN = 100
COLUMNS = (
    ("", N_("Action")),
    ("", N_("Device name")),
    ("", N_("State")),
    ("", N_("Ordered by")),
    ("", N_("Ordered at")),
    ("", ""),
)
WHAT_NEXT = {
    "approve": (
        N_("Approve"),
        N_("The hold window begins: until it is over, anybody who may order this can cancel it."),
    ),
    "reject": (N_("Reject"), N_("No device gets it.")),
    "cancel": (N_("Cancel the order"), N_("Devices that have it already are not called back.")),
}
REASON = (field("reason", N_("Reason"), "textarea", limit=1000),)
FIELDS: tuple[Field, ...] = (
    field(
        "budgetPerHour",
        N_("Devices that one administrator may retire or wipe in an hour"),
        "number",
        required=True,
        least=0,
        most=10_000,
    ),
    field(
        "approvalAbove",
        N_("Devices in one order that need no second administrator"),
        "number",
        required=True,
        least=0,
        most=10_000,
        hint=N_("An order for more is approved by somebody else. 0: each of them is."),
    ),
    field(
        "holdMinutes",
        N_("Minutes during which an order can be cancelled"),
        "number",
        required=True,
        least=0,
        most=1440,
    ),
    field(
        "approvalHours",
        N_("Hours that a second administrator has to decide"),
        "number",
        required=True,
        least=1,
        most=720,
    ),
)


async def of_device(page: Page[Any], device_id: str) -> list[dict[str, Any]]:
    """What was ordered of a device, the newest first, with the minutes that it is held back."""
    wanted = f"deviceId eq '{device_id.replace(chr(39), chr(39) * 2)}'"
    found = await page.api.get(ORDERS, **{"$filter": wanted, "$top": 20})
    return [_counted(page, item) for item in found["value"]]


def _counted(page: Page[Any], item: Mapping[str, Any]) -> dict[str, Any]:
    until = moment(item["heldUntilDateTime"])
    left = 0
    if item["state"] == "held" and until is not None:
        left = max(0, -int((page.now - until).total_seconds() // 60))
    return {**item, "minutesLeft": left}


async def index(page: Page[Any]) -> Response:
    waiting = await page.api.get(REQUESTS, **{"$filter": "state eq 'waiting'", "$top": 50})
    found = await page.api.get(ORDERS, **{"$top": _SHOWN})
    guarded = await page.api.get(SAFEGUARDS)
    return page.render(
        "mdm/device_actions.html",
        waiting=waiting["value"],
        rows=[_counted(page, item) for item in found["value"]],
        columns=COLUMNS,
        base=BASE,
        proposal=guarded["proposal"],
        words=words,
        refresh_seconds=REFRESH_SECONDS,
    )


async def cancel(page: Page[Any]) -> Response:
    """One order, of one device."""
    id = quote(page.request.path_params["order_id"], safe="")
    await page.form()
    item = await page.api.get(f"{ORDERS}/{id}")
    back = f"{ROOT}/devices/{quote(item['deviceId'], safe='')}"
    await page.api.post(f"{ORDERS}/{id}/cancel", {})
    return page.to(
        back,
        N_("%(action)s of %(device)s was cancelled."),
        action=page.language.text(words.ACTION.get(item["action"], item["action"])),
        device=item["deviceName"],
    )


async def decide(page: Page[Any]) -> Response:
    """Approve, reject or cancel an order for several devices, which names them all first."""
    step = page.request.path_params["step"]
    if step not in WHAT_NEXT:
        raise UnknownPage(N_("There is no such action."))
    id = quote(page.request.path_params["request_id"], safe="")
    request = await page.api.get(f"{REQUESTS}/{id}")
    error: AppError | None = None
    if page.request.method == "POST":
        form = await page.form()
        body = {"reason": form.get("reason", "")[:1000]} if step == "reject" else {}
        try:
            await page.api.post(f"{REQUESTS}/{id}/{step}", body)
            return page.to(BASE, N_("The order was decided."))
        except AppError as refused:
            if refused.kind not in (Kind.FORBIDDEN, Kind.CONFLICT):
                raise
            error = refused
    title, text = WHAT_NEXT[step]
    return page.render(
        "mdm/device_request.html",
        422 if error else 200,
        request=request,
        step=step,
        title=title,
        text=text,
        error=error,
        fields=await drawn(page, REASON if step == "reject" else (), {}, {}),
        base=BASE,
        words=words,
    )


async def safeguards(page: Page[Any]) -> Response:
    """What guards devices. Weaker ones are proposed here, and approved by somebody else."""
    found = await page.api.get(SAFEGUARDS)
    values: dict[str, Any] = {item.name: found[item.name] for item in FIELDS}
    status = 200
    problems: dict[str, AppError] = {}
    if page.request.method == "POST":
        values, problems = read(FIELDS, await page.form(), page.form_lists)
        status = 422
        if not problems:
            try:
                changed = await page.api.patch(SAFEGUARDS, values)
                if changed["proposal"]:
                    said = N_("These protect less: another administrator has to approve them.")
                    return page.to(f"{BASE}/safeguards", said)
                return page.to(BASE, N_("The safeguards were changed."))
            except AppError as error:
                at = str(error.details.get("field", ""))
                if not any(item.name == at for item in FIELDS):
                    raise
                problems = {at: error}
    return page.render(
        "mdm/device_safeguards.html",
        status,
        fields=await drawn(page, FIELDS, values, problems),
        found=found,
        changes=_changes(found),
        proposed={item.name: found["proposal"][item.name] for item in FIELDS}
        if found["proposal"]
        else {},
        base=BASE,
    )


def _changes(found: Mapping[str, Any]) -> Sequence[tuple[str, int, int]]:
    proposal = found["proposal"]
    if not proposal:
        return ()
    return [
        (item.label, found[item.name], proposal[item.name])
        for item in FIELDS
        if found[item.name] != proposal[item.name]
    ]


async def decide_safeguards(page: Page[Any]) -> Response:
    step = page.request.path_params["step"]
    if step not in ("approve", "withdraw"):
        raise UnknownPage(N_("There is no such action."))
    form = await page.form()
    # What the page showed: another proposal that came since is not approved.
    seen = {
        item.name: int(value)
        for item in FIELDS
        if (value := str(form.get(item.name, ""))).isascii() and value.isdigit()
    }
    await page.api.post(f"{SAFEGUARDS}/{step}", seen if step == "approve" else {})
    said = N_("The safeguards were changed.") if step == "approve" else N_("It was withdrawn.")
    return page.to(f"{BASE}/safeguards", said)


async def notices(page: Page[Any]) -> list[Notice]:
    """What waits for a second administrator."""
    found = await page.api.get(REQUESTS, **{"$filter": "state eq 'waiting'", "$top": 10})
    return [
        Notice(
            title=N_(
                "%(name)s asks to do something to %(number)s devices that nothing brings back"
            ),
            values={"name": item["requestedBy"], "number": item["deviceCount"]},
            state="waiting",
            url=BASE,
        )
        for item in found["value"]
    ]
