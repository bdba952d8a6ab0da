"""Client notification: ask devices to do something now, and see what became of it on each."""

from typing import Any
from urllib.parse import quote, urlencode

from starlette.responses import Response
from starlette.routing import BaseRoute

from tandem.console.kit import N_, ROOT, Area, Console, Page, Place, UnknownPage, drawn, field, read
from tandem.infra.errors import AppError, Kind

__all__ = ["AREA"]

PATH = f"{ROOT}/client-notifications"
_URL = "/api/v1/client-notifications"
_REFRESH_SECONDS = 3
_SHOWN = 50
# By the API's names.
ACTIONS = {
    "download-computer-policy": (
        N_("Download computer policy"),
        N_("The device asks for its policy, acts on it, and asks the MDM service for a session."),
    ),
    "download-user-policy": (
        N_("Download user policy"),
        N_("The device asks for the policy of whoever is signed in."),
    ),
    "collect-discovery-data": (
        N_("Collect discovery data"),
        N_("The device sends its heartbeat."),
    ),
    "collect-hardware-inventory": (
        N_("Collect hardware inventory"),
        N_("The device reports its hardware whole, not only what has changed."),
    ),
    "evaluate-application-deployments": (
        N_("Evaluate application deployments"),
        N_(
            "Apps are looked for again; what is missing is installed, where the site owns client"
            " apps."
        ),
    ),
    "evaluate-software-update-deployments": (
        N_("Evaluate software update deployments"),
        N_(
            "Approved updates are asked for and compared again; what is due is installed, where the"
            " site owns Windows Update policies."
        ),
    ),
    "evaluate-configurations": (
        N_("Evaluate configurations and compliance"),
        N_("Every value is compared with the device again, and compliance is found out anew."),
    ),
    "evaluate-co-management": (
        N_("Evaluate co-management"),
        N_(
            "The policies of co-management are merged again, and the MDM service is asked for a"
            " session."
        ),
    ),
    "evaluate-location": (
        N_("Evaluate location"),
        N_("The device finds out again whether it is on the intranet, and which way it takes."),
    ),
    "restart": (
        N_("Restart"),
        N_("The device restarts after a minute. Unsaved work is lost."),
    ),
}
STATES = {
    "waiting": ("plain", N_("Waits for the device")),
    "sent": ("waiting", N_("Sent")),
    "received": ("waiting", N_("Taken by the device")),
    "done": ("good", N_("Done")),
    "failed": ("bad", N_("Failed")),
    "canceled": ("plain", N_("Called back")),
    "expired": ("bad", N_("Expired")),
}
FIELDS = (
    field(
        "action",
        N_("Action"),
        "radio",
        required=True,
        options=tuple((id, title) for id, (title, _) in ACTIONS.items()),
    ),
    field(
        "hours",
        N_("Hours for which devices that are offline still get it"),
        "number",
        default=24,
        least=1,
        most=168,
    ),
)


async def listed(page: Page[Any]) -> Response:
    number = _page(page)
    found = await page.api.get(_URL, limit=_SHOWN, offset=(number - 1) * _SHOWN)
    return page.render(
        "notify/list.html",
        operations=found["operations"],
        actions=ACTIONS,
        states=STATES,
        of_page=number,
        pages=max(1, -(-found["total"] // _SHOWN)),
        path_of=PATH,
        refresh_seconds=_REFRESH_SECONDS,
    )


async def show(page: Page[Any]) -> Response:
    id, number = page.request.path_params["id"], _page(page)
    state = page.request.query_params.get("state", "")
    state = state if state in STATES else ""
    try:
        found = await page.api.get(
            f"{_URL}/{quote(id, safe='')}",
            state=state,
            limit=_SHOWN,
            offset=(number - 1) * _SHOWN,
        )
    except AppError as error:
        if error.kind is not Kind.NOT_FOUND:
            raise
        raise UnknownPage(
            N_("There is no such operation."), cure=N_("They are kept for 31 days.")
        ) from None
    counts = found["operation"]["counts"]
    total = counts[state] if state else sum(counts.values())
    return page.render(
        "notify/show.html",
        found=found["operation"],
        devices=found["devices"],
        actions=ACTIONS,
        states=STATES,
        chosen=state,
        of_page=number,
        pages=max(1, -(-total // _SHOWN)),
        at=f"{PATH}/{quote(id, safe='')}",
        path_of=PATH,
        refresh_seconds=_REFRESH_SECONDS,
    )


async def ask(page: Page[Any]) -> Response:
    """Which action; then, for many devices or what interrupts people, whether so many shall do it."""
    form = await page.form() if page.request.method == "POST" else {}
    given = {**dict(page.request.query_params), **form}
    name = "collection" if given.get("collection") else "client"
    to = {name: given.get(name, "").replace("\0", "")[:256]}
    back = _back(given.get("back", ""))
    try:
        reach = await page.api.get(f"{_URL}/reach", **to)
    except AppError as error:
        if error.kind not in (Kind.NOT_FOUND, Kind.INVALID):
            raise
        raise UnknownPage(
            N_("There is no such device or collection to ask."),
            cure=N_("Begin at the page of a device or a collection."),
        ) from None
    values: dict[str, Any] = {one.name: one.default for one in FIELDS}
    problems: dict[str, AppError] = {}
    if given.get("action") in ACTIONS:
        values["action"] = given["action"]
    if form:
        values, problems = read(FIELDS, form)
        if not problems:
            asked = await _asked(page, to, back, reach, values, form, problems)
            if asked is not None:
                return asked
    return page.render(
        "notify/ask.html",
        422 if problems else 200,
        reach=reach,
        fields=await drawn(page, FIELDS, values, problems),
        general=problems.get(""),
        actions=ACTIONS,
        to=to,
        back=back,
        many=name == "collection",
    )


async def _asked(
    page: Page[Any],
    to: dict[str, str],
    back: str,
    reach: dict[str, Any],
    values: dict[str, Any],
    form: Any,
    problems: dict[str, AppError],
) -> Response | None:
    """What comes of a form without problems; None when the API has found one."""
    action, text = values["action"], page.language.text
    if (action == "restart" or "collection" in to) and form.get("confirmed") != "1":
        question = page.language.plural(
            "%(number)s device of %(target)s is asked: %(action)s",
            "%(number)s devices of %(target)s are asked: %(action)s",
            reach["devices"],
            target=reach["target"],
            action=text(ACTIONS[action][0]),
        )
        online = text(N_("Online now: %(count)s"), count=page.language.number(reach["online"]))
        kept = {**to, "action": action, "hours": str(values["hours"]), "back": back}
        return page.confirm(
            text(N_("Ask devices")),
            question,
            text(N_("Ask them")),
            back=back,
            fields={**kept, "expected": str(reach["devices"])},
            items=[text(ACTIONS[action][1]), online],
            danger=action == "restart",
        )
    agreed = form.get("expected", "")
    known = agreed.isascii() and agreed.isdigit() and len(agreed) < 10
    wanted = {
        "action": action,
        "minutes": int(values["hours"]) * 60,
        "expected": int(agreed) if known else reach["devices"],
        **to,
    }
    try:
        made = await page.api.post(_URL, wanted)
    except AppError as error:
        if error.kind not in (Kind.INVALID, Kind.CONFLICT):
            raise
        problems[""] = error
        return None
    return page.to(f"{PATH}/{made['id']}", N_("Devices that are online are told now."))


async def cancel(page: Page[Any]) -> Response:
    id = page.request.path_params["id"]
    at = f"{PATH}/{quote(id, safe='')}"
    form = await page.form()
    text = page.language.text
    if form.get("confirmed") != "1":
        return page.confirm(
            text(N_("Call back")),
            text(N_("Devices that have not taken it yet do not get it any more.")),
            text(N_("Call back")),
            back=at,
        )
    try:
        await page.api.post(f"{_URL}/{quote(id, safe='')}/cancel", {})
    except AppError as error:
        if error.kind is not Kind.CONFLICT:
            raise
        return page.to(at, N_("It was over already: nothing was called back."))
    return page.to(at, N_("Called back from every device that had not taken it."))


def ask_path(back: str, **to: str) -> str:
    return f"{PATH}/new?{urlencode({**to, 'back': back})}"


def _back(path: str) -> str:
    fits = path.startswith((f"{ROOT}/devices", f"{ROOT}/collections"))
    return path[:500] if fits and "\\" not in path else PATH


def _page(page: Page[Any]) -> int:
    text = page.request.query_params.get("page", "")
    return max(1, int(text[:6])) if text.isascii() and text.isdigit() else 1


def _routes(console: Console[Any]) -> list[BaseRoute]:
    return [
        console.route(PATH, listed),
        console.route(f"{PATH}/new", ask),
        console.route(f"{PATH}/new", ask, post=True),
        console.route(f"{PATH}/{{id}}", show),
        console.route(f"{PATH}/{{id}}/cancel", cancel, post=True),
    ]


AREA = Area(
    name="notify",
    places=(Place(PATH, N_("Client notification"), "arrow_sync", N_("Monitoring")),),
    routes=_routes,
)
