"""The packages that a gateway serves: where their copies are, distributed again, removed."""

from typing import Any
from urllib.parse import quote

from starlette.responses import Response
from starlette.routing import BaseRoute

from tandem.console.areas.gateways.pages import BASE, api_of, named, path_of, tabs
from tandem.console.kit import N_, Console, Page, UnknownPage

REFRESH_SECONDS = 3
STATES = {
    "stored": (N_("Stored"), "good"),
    "pulling": (N_("Being fetched from the site"), "waiting"),
    "waiting": (N_("Fetched when the first device asks"), "plain"),
    "removed": (N_("Removed"), "plain"),
}
ACTIONS = {
    "redistribute": (
        N_("Distribute %(package)s to %(name)s again?"),
        N_(
            "The gateway drops its copies and fetches the package from the site anew when the next"
            " device asks. Devices that are downloading it go on at the management point."
        ),
        N_("Distribute again"),
        N_("%(package)s is distributed again."),
        False,
    ),
    "remove": (
        N_("Remove %(package)s from %(name)s?"),
        N_(
            "The gateway drops its copies (%(size)s MB). Devices on the internet get the package at"
            " the management point, each through the tunnel, until it is distributed again."
        ),
        N_("Remove"),
        N_("%(package)s is removed from the gateway."),
        True,
    ),
}


async def contents(page: Page[Any]) -> Response:
    name = named(page)
    found = await page.api.get(api_of(name, "/content"))
    rows = []
    for one in found["contents"]:
        text, look = STATES[one["state"]]
        where = f"{path_of(name)}/content/{one['sha256']}"
        rows.append({**one, "text": text, "look": look, "url": where})
    return page.render(
        "gateways/content.html",
        name=name,
        tabs=tabs(name, "content"),
        serves=found["serve_content"],
        rows=rows,
        stores=found["stores"],
        refresh_seconds=REFRESH_SECONDS,
    )


async def ask(page: Page[Any]) -> Response:
    return await _question(page, *await _asked(page))


async def act(page: Page[Any]) -> Response:
    one, verb = await _asked(page)
    form = await page.form()
    if not form.get("confirmed"):
        return await _question(page, one, verb)
    name = named(page)
    where = api_of(name, f"/content/{quote(one['sha256'], safe='')}")
    if verb == "remove":
        await page.api.delete(where)
    else:
        await page.api.post(f"{where}/redistribute")
    return page.to(f"{path_of(name)}/content", ACTIONS[verb][3], package=one["name"])


async def _asked(page: Page[Any]) -> tuple[dict[str, Any], str]:
    verb: str = page.request.path_params["verb"]
    found = await page.api.get(api_of(named(page), "/content"))
    for one in found["contents"]:
        if one["sha256"] == page.request.path_params["content"] and verb in ACTIONS:
            return one, verb
    raise UnknownPage(N_("There is no such page."))


async def _question(page: Page[Any], one: dict[str, Any], verb: str) -> Response:
    name, say = named(page), page.language.text
    title, text, label, _, danger = ACTIONS[verb]
    size = page.language.number(round(one["stored_bytes"] / 1e6, 1))
    return page.confirm(
        say(title, package=one["name"], name=name),
        say(text, size=size),
        say(label),
        back=f"{path_of(name)}/content",
        danger=danger,
    )


def routes(console: Console[Any]) -> list[BaseRoute]:
    one = f"{BASE}/{{name}}/content"
    return [
        console.route(one, contents),
        console.route(f"{one}/{{content}}/{{verb}}", ask),
        console.route(f"{one}/{{content}}/{{verb}}", act, post=True),
    ]
