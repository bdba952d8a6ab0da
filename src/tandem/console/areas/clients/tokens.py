"""Bulk registration tokens: issue, block, unblock, delete."""

from typing import Any

from starlette.responses import Response
from starlette.routing import BaseRoute

from tandem.console.kit import N_, ROOT, Console, Page, Place, drawn, field, read
from tandem.infra.errors import HTTP_STATUS, AppError

PATH = f"{ROOT}/registration-tokens"
API = "/api/v1/registration-tokens"
PLACE = Place(PATH, N_("Bulk registration tokens"), "key", N_("Administration"))

_FIELDS = (
    field(
        "description",
        N_("Description"),
        limit=200,
        hint=N_("What it is for: the list shows it, devices do not."),
    ),
    field(
        "minutes",
        N_("Good for how many minutes"),
        "number",
        required=True,
        least=1,
        most=10_080,
        default=4_320,
        hint=N_("Three days unless said otherwise, seven at most. A token cannot be renewed."),
    ),
)


async def show(page: Page[Any]) -> Response:
    found = (await page.api.get(API))["tokens"]
    return page.render("clients/tokens.html", tokens=found, now=page.now.isoformat())


async def new(page: Page[Any]) -> Response:
    """A token; its text is on the answer and nowhere else."""
    values: dict[str, Any] = {item.name: item.initial() for item in _FIELDS}
    problems: dict[str, AppError] = {}
    general: AppError | None = None
    status = 200
    if page.request.method == "POST":
        values, problems = read(_FIELDS, await page.form(), page.form_lists, page.files)
        if not problems:
            try:
                made = await page.api.post(
                    API, {"minutes": values["minutes"], "description": values["description"]}
                )
            except AppError as error:
                general, status = error, HTTP_STATUS[error.kind]
            else:
                return page.render("clients/token.html", made=made, back=PATH)
        else:
            status = 422
    shown = await drawn(page, _FIELDS, values, problems)
    return page.render(
        "clients/new_token.html", status=status, fields=shown, general=general, back=PATH
    )


async def act(page: Page[Any]) -> Response:
    id, what = page.request.path_params["id"], page.request.path_params["what"]
    match what:
        case "delete":
            await page.api.delete(f"{API}/{id}")
            return page.to(PATH, N_("The token is deleted."))
        case "unblock":
            await page.api.post(f"{API}/{id}/unblock")
            return page.to(PATH, N_("The token is not blocked any more."))
        case _:
            await page.api.post(f"{API}/{id}/block")
            return page.to(PATH, N_("The token is blocked."))


def routes(console: Console[Any]) -> list[BaseRoute]:
    return [
        console.route(PATH, show),
        console.route(f"{PATH}/new", new),
        console.route(f"{PATH}/new", new, post=True),
        console.route(f"{PATH}/{{id}}/{{what}}", act, post=True),
    ]
