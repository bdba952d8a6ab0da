"""Software updates: the list, one update, devices; and the software update point's own page."""

from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote, urlencode

from starlette.responses import Response
from starlette.routing import BaseRoute

from tandem.console import approvals
from tandem.console.kit import (
    N_,
    ROOT,
    Area,
    Console,
    Draft,
    NotSignedIn,
    Page,
    Place,
    UnknownPage,
    drawn,
    field,
    read,
)
from tandem.infra.errors import HTTP_STATUS, AppError, Kind

__all__ = ["AREA"]

PATH = f"{ROOT}/software-updates"
POINT = f"{ROOT}/site-systems/software-update-point"
_URL = "/api/v1/software-updates"
_POINT_URL = "/api/v1/software-update-point"
_SHOWN = 50
_FILE_BYTES = 16 * 1024 * 1024
_REFRESH_SECONDS = 5
STATES = {
    "failed": ("bad", N_("Failed")),
    "required": ("waiting", N_("Required")),
    "unknown": ("plain", N_("Unknown")),
    "installed": ("good", N_("Installed")),
    "not-applicable": ("plain", N_("Not applicable")),
}
CLASSIFICATIONS = {
    "critical": N_("Critical update"),
    "security": N_("Security update"),
    "update": N_("Update"),
    "feature": N_("Feature"),
}
SEVERITIES = {
    "none": N_("None"),
    "low": N_("Low"),
    "moderate": N_("Moderate"),
    "important": N_("Important"),
    "critical": N_("Critical"),
}
DECISIONS = {"approved": ("good", N_("Approved")), "declined": ("bad", N_("Declined"))}
TABS = ((PATH, N_("Updates")), (f"{PATH}/devices", N_("Devices")))


async def _collections(page: Page[Any], draft: Draft | None) -> list[tuple[str, str]]:
    found = await page.api.get("/api/v1/collections", limit=500, type="device")
    return [(item["id"], item["name"]) for item in found["items"]]


_COLLECTION = field("collection", N_("Collection"), "select", required=True, options=_collections)
DECIDE = (
    _COLLECTION,
    field(
        "decision",
        N_("Decision"),
        "radio",
        required=True,
        default="approved",
        options=(
            (
                "approved",
                N_("Approve"),
                N_("Devices are offered it, and say whether they need it."),
            ),
            (
                "declined",
                N_("Decline"),
                N_("No device of the collection is offered it, whatever else is approved."),
            ),
        ),
    ),
    field(
        "deadline",
        N_("Deadline"),
        "date",
        hint=N_(
            "From the beginning of this day (UTC) it is installed, where the site owns Windows Update"
            " policies. Without a deadline nothing is installed."
        ),
        when=lambda values: values.get("decision") != "declined",
    ),
    approvals.REASON,
)
CREATE = (
    field("package", N_("Package"), required=True, limit=101),
    field("source", N_("It is a source package: all that is built from it counts"), "checkbox"),
    field("fixed_version", N_("Version that has the fix"), required=True, limit=110),
    field("article", N_("Article"), required=True, limit=64, hint=N_("A CVE or an advisory.")),
    field("name", N_("Name"), limit=256),
    field("release", N_("Release"), limit=32, hint=N_("Its code name, like bookworm; empty: all.")),
    field(
        "classification",
        N_("Classification"),
        "select",
        required=True,
        default="security",
        options=tuple(CLASSIFICATIONS.items()),
    ),
    field(
        "severity",
        N_("Severity"),
        "select",
        required=True,
        default="none",
        options=tuple(SEVERITIES.items()),
    ),
    field("superseded_by", N_("Superseded by the article"), limit=64),
    field(
        "url",
        N_("Address of its content"),
        limit=2000,
        hint=N_("Empty: apt takes it from the archives that each device has."),
    ),
    field("sha256", N_("SHA-256 of the content"), limit=64),
)
IMPORT = (
    field(
        "format",
        N_("Kind of file"),
        "radio",
        required=True,
        default="csv",
        options=(
            (
                "csv",
                N_("CSV"),
                N_("A first line with package, fixed_version, article, and more if you like."),
            ),
            ("debian-tracker", N_("JSON of the Debian security tracker"), ""),
        ),
    ),
    field("release", N_("Only for the release"), limit=32, placeholder="bookworm"),
    field("file", N_("File"), "file", accept=".csv,.json", required=True),
)
ALLOW = field(
    "allow_gateway_traffic",
    N_("Allow Configuration Manager cloud management gateway traffic"),
    "checkbox",
    locked=lambda values: (
        ""
        if values.get("possible") or values.get("allow_gateway_traffic")
        else N_(
            "The software update point answers plain HTTP. Switch enhanced HTTP on in the site's"
            " properties first."
        )
    ),
    hint=N_(
        "Its endpoint is published through every gateway then. Clearing it closes the way at once."
    ),
)


def _page(page: Page[Any]) -> int:
    text = page.request.query_params.get("page", "")
    return max(1, int(text[:6])) if text.isascii() and text.isdigit() else 1


def _choice(page: Page[Any], name: str, known: Any) -> str:
    value = page.request.query_params.get(name, "")
    return value if value in known else ""


def _query(page: Page[Any], name: str) -> str:
    return page.request.query_params.get(name, "").replace("\0", "")[:200]


# The list.


async def listed(page: Page[Any], error: AppError | None = None) -> Response:
    number = _page(page)
    asked = {
        "search": _query(page, "search"),
        "release": _query(page, "release"),
        "decision": _choice(page, "decision", (*DECISIONS, "none")),
    }
    found = await page.api.get(_URL, limit=_SHOWN, offset=(number - 1) * _SHOWN, **asked)
    return page.render(
        "updates/list.html",
        422 if error else 200,
        error=error,
        waiting=await approvals.waiting(page, _URL),
        titles={},
        updates=found["updates"],
        total=found["total"],
        asked=asked,
        of_page=number,
        pages=max(1, -(-found["total"] // _SHOWN)),
        **_words(),
    )


def _words() -> dict[str, Any]:
    return {
        "states": STATES,
        "severities": SEVERITIES,
        "classifications": CLASSIFICATIONS,
        "decisions": DECISIONS,
        "tabs_of": TABS,
        "path_of": PATH,
        "point_of": POINT,
    }


async def chosen(page: Page[Any]) -> Response:
    """What was ticked in the list, on the way to a decision."""
    await page.form()
    ids = page.form_lists.get("update", ())
    if not ids:
        return page.to(PATH, N_("Choose at least one update."))
    return page.to(f"{PATH}/decide?{urlencode([('update', id[:64]) for id in ids[:_SHOWN]])}")


async def decide(page: Page[Any]) -> Response:
    """Approve or decline, for one update or those that were chosen."""
    posted = page.request.method == "POST"
    form = await page.form() if posted else {}
    ids = list(
        page.form_lists.get("update", ()) if posted else page.request.query_params.getlist("update")
    )[:_SHOWN]
    ids = [id.replace("\0", "")[:64] for id in ids]
    updates = [await _one(page, id, limit=0) for id in ids]
    if not updates:
        raise UnknownPage(N_("There is no such update."), cure=N_("Choose it in the list."))
    back = f"{PATH}/{quote(ids[0], safe='')}" if len(ids) == 1 else PATH
    values: dict[str, Any] = {one.name: one.initial() for one in DECIDE}
    problems: dict[str, AppError] = {}
    if posted:
        values, problems = read(DECIDE, form)
        if not problems:
            answer = await _decided(page, ids, updates, values, form, problems, back)
            if answer is not None:
                return answer
    return page.render(
        "updates/decide.html",
        422 if problems else 200,
        updates=updates,
        fields=await drawn(page, DECIDE, values, problems),
        general=problems.get("") or problems.get("updates"),
        back=back,
        **_words(),
    )


async def _decided(
    page: Page[Any],
    ids: list[str],
    updates: list[dict[str, Any]],
    values: dict[str, Any],
    form: Any,
    problems: dict[str, AppError],
    back: str,
) -> Response | None:
    """What comes of a form without problems; None when the API has found one."""
    body: dict[str, Any] = {
        "updates": ids,
        "collection": values["collection"],
        "decision": values["decision"],
        "reason": values.get("reason", ""),
    }
    deadline = values.get("deadline") if values["decision"] == "approved" else ""
    if deadline:
        day = datetime.fromisoformat(str(deadline)).replace(tzinfo=UTC)
        body["deadline"] = day.isoformat()
        if form.get("confirmed") != "1":
            return await _ask(page, ids, updates, values, str(deadline), back)
    try:
        made = await page.api.post(f"{_URL}/decisions", body)
    except NotSignedIn:
        raise
    except AppError as error:
        if error.kind not in (Kind.INVALID, Kind.CONFLICT, Kind.NOT_FOUND):
            raise
        name = str(error.details.get("field", ""))
        problems[name if name in ("collection", "deadline", "updates", "reason") else ""] = error
        return None
    if isinstance(made, dict):
        count = page.language.number(made["devices"])
        return page.to(PATH, approvals.ASKED, name=made["name"], count=count)
    said = N_("Approved.") if values["decision"] == "approved" else N_("Declined.")
    return page.to(back, said)


async def _ask(
    page: Page[Any],
    ids: list[str],
    updates: list[dict[str, Any]],
    values: dict[str, Any],
    deadline: str,
    back: str,
) -> Response:
    text, number = page.language.text, page.language.number
    reach = await page.api.get(f"{_URL}/reach", collection=values["collection"])
    return page.render(
        "updates/confirm.html",
        ids=ids,
        values=values,
        deadline=deadline,
        items=[one["name"] for one in updates],
        question=text(
            N_("%(devices)s devices of %(collection)s install this from %(deadline)s on."),
            devices=number(reach["devices"]),
            collection=reach["collection"],
            deadline=deadline,
        ),
        back=back,
    )


async def create(page: Page[Any]) -> Response:
    posted = page.request.method == "POST"
    values: dict[str, Any] = {one.name: one.initial() for one in CREATE}
    problems: dict[str, AppError] = {}
    if posted:
        values, problems = read(CREATE, await page.form())
        if not problems:
            try:
                made = await page.api.post(_URL, values)
            except AppError as error:
                if error.kind not in (Kind.INVALID, Kind.CONFLICT):
                    raise
                name = str(error.details.get("field", ""))
                problems[name if name in values else ""] = error
            else:
                said = N_("%(name)s was created. It reaches nobody before it is approved.")
                return page.to(f"{PATH}/{made['id']}", said, name=made["name"])
    return page.render(
        "updates/create.html",
        422 if problems else 200,
        fields=await drawn(page, CREATE, values, problems),
        general=problems.get(""),
        back=PATH,
    )


async def take(page: Page[Any]) -> Response:
    """A file, whole or not at all."""
    posted = page.request.method == "POST"
    values: dict[str, Any] = {one.name: one.initial() for one in IMPORT}
    problems: dict[str, AppError] = {}
    if posted:
        form = await page.form(_FILE_BYTES)
        values, problems = read(IMPORT, form, page.form_lists, page.files)
        if not problems:
            data = page.files["file"].data
            body = {
                "format": values["format"],
                # What is no UTF-8 is refused by the API in its words, with its place.
                "content": data.decode("utf-8", "replace"),
                "release": values["release"],
            }
            try:
                made = await page.api.post(f"{_URL}/import", body)
            except AppError as error:
                if error.kind not in (Kind.INVALID, Kind.CONFLICT, Kind.TOO_LARGE):
                    raise
                problems["file"] = error
            else:
                said = N_("%(new)s new, %(changed)s changed, %(same)s as they were.")
                number = page.language.number
                return page.to(
                    PATH,
                    said,
                    new=number(made["created"]),
                    changed=number(made["changed"]),
                    same=number(made["same"]),
                )
    return page.render(
        "updates/import.html",
        422 if problems else 200,
        fields=await drawn(page, IMPORT, values, problems),
        back=PATH,
    )


# One update.


async def _one(page: Page[Any], id: str, **asked: Any) -> dict[str, Any]:
    try:
        found: dict[str, Any] = await page.api.get(f"{_URL}/{quote(id, safe='')}", **asked)
    except AppError as error:
        if error.kind is not Kind.NOT_FOUND:
            raise
        raise UnknownPage(
            N_("There is no such update."), cure=N_("Choose it in the list.")
        ) from None
    return found


async def show(page: Page[Any]) -> Response:
    number, state = _page(page), _choice(page, "state", STATES)
    id = page.request.path_params["id"]
    found = await _one(page, id, state=state, limit=_SHOWN, offset=(number - 1) * _SHOWN)
    counts = {name: found["counts"][name.replace("-", "_")] for name in STATES}
    total = counts[state] if state else sum(counts.values())
    return page.render(
        "updates/show.html",
        update=found,
        counts=counts,
        every=sum(counts.values()),
        chosen=state,
        of_page=number,
        pages=max(1, -(-total // _SHOWN)),
        at=f"{PATH}/{quote(found['id'], safe='')}",
        refresh_seconds=_REFRESH_SECONDS,
        **_words(),
    )


async def withdraw(page: Page[Any]) -> Response:
    await page.form()
    id, collection = page.request.path_params["id"], page.request.path_params["collection"]
    at = f"{PATH}/{quote(id, safe='')}"
    path = f"{_URL}/{quote(id, safe='')}/decisions/{quote(collection, safe='')}"
    try:
        await page.api.delete(path)
    except AppError as error:
        if error.kind is not Kind.NOT_FOUND:
            raise
        return page.to(at, N_("Nothing was decided there any more."))
    return page.to(at, N_("The decision was taken back. What is installed stays installed."))


async def delete(page: Page[Any]) -> Response:
    form = await page.form()
    id = page.request.path_params["id"]
    if form.get("confirmed") != "1":
        found = await _one(page, id, limit=0)
        text = page.language.text
        return page.confirm(
            text(N_("Delete %(name)s?"), name=found["name"]),
            text(N_("It is offered to no device any more. What is installed stays installed.")),
            text(N_("Delete")),
            back=f"{PATH}/{quote(id, safe='')}",
        )
    await page.api.delete(f"{_URL}/{quote(id, safe='')}")
    return page.to(PATH, N_("The update is deleted."))


# Devices.


async def devices(page: Page[Any]) -> Response:
    state, number = _choice(page, "state", STATES), _page(page)
    found = await page.api.get(
        f"{_URL}/devices", state=state, limit=_SHOWN, offset=(number - 1) * _SHOWN
    )
    # How many there are is not counted: a full page has another behind it, perhaps an empty one.
    more = number + (len(found["devices"]) == _SHOWN)
    return page.render(
        "updates/devices.html",
        devices=found["devices"],
        chosen=state,
        of_page=number,
        pages=more,
        **_words(),
    )


async def of_device(page: Page[Any]) -> Response:
    state, number = _choice(page, "state", STATES), _page(page)
    id = page.request.path_params["device"]
    try:
        found = await page.api.get(
            f"{_URL}/devices/{quote(id, safe='')}",
            state=state,
            limit=_SHOWN,
            offset=(number - 1) * _SHOWN,
        )
    except AppError as error:
        if error.kind is not Kind.NOT_FOUND:
            raise
        raise UnknownPage(
            N_("The site knows no such device."), cure=N_("Choose it in the list.")
        ) from None
    counts = {name: found["counts"][name.replace("-", "_")] for name in STATES}
    total = counts[state] if state else sum(counts.values())
    return page.render(
        "updates/device.html",
        found=found,
        counts=counts,
        chosen=state,
        of_page=number,
        pages=max(1, -(-total // _SHOWN)),
        at=f"{PATH}/devices/{quote(found['client_id'], safe='')}",
        refresh_seconds=_REFRESH_SECONDS,
        **_words(),
    )


# The software update point.


async def point(page: Page[Any]) -> Response:
    return await _draw_point(page)


async def _draw_point(
    page: Page[Any], problems: dict[str, AppError] | None = None, status: int = 200
) -> Response:
    found = await page.api.get(_POINT_URL)
    values = {**found, "possible": found["can_allow_gateway_traffic"]}
    return page.render(
        "updates/point.html",
        status,
        point=found,
        fields=await drawn(page, (ALLOW,), values, problems or {}),
        locked=bool(ALLOW.locked and ALLOW.locked(values)),
        **_words(),
    )


async def save_point(page: Page[Any]) -> Response:
    values, _ = read((ALLOW,), await page.form())
    wanted = bool(values["allow_gateway_traffic"])
    try:
        await page.api.patch(_POINT_URL, {"allow_gateway_traffic": wanted})
    except NotSignedIn:
        raise
    except AppError as error:
        return await _draw_point(page, {"allow_gateway_traffic": error}, HTTP_STATUS[error.kind])
    said = (
        N_("The software update point takes gateway traffic.")
        if wanted
        else N_("The software update point takes no gateway traffic.")
    )
    return page.to(POINT, said)


def _routes(console: Console[Any]) -> list[BaseRoute]:
    one = f"{PATH}/{{id}}"
    return [
        console.route(POINT, point),
        console.route(POINT, save_point, post=True),
        console.route(PATH, listed),
        console.route(PATH, chosen, post=True),
        *approvals.routes(console, PATH, _URL, listed),
        console.route(f"{PATH}/new", create),
        console.route(f"{PATH}/new", create, post=True),
        console.route(f"{PATH}/import", take),
        console.route(f"{PATH}/import", take, post=True),
        console.route(f"{PATH}/decide", decide),
        console.route(f"{PATH}/decide", decide, post=True),
        console.route(f"{PATH}/devices", devices),
        console.route(f"{PATH}/devices/{{device}}", of_device),
        console.route(one, show),
        console.route(f"{one}/delete", delete, post=True),
        console.route(f"{one}/decisions/{{collection}}/withdraw", withdraw, post=True),
    ]


AREA = Area(
    name="updates",
    places=(Place(PATH, N_("Software updates"), "arrow_download", N_("Assets and compliance")),),
    routes=_routes,
)
