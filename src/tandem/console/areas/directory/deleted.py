"""What was deleted: restored, or gone for good."""

from typing import Any

from starlette.responses import Response
from starlette.routing import BaseRoute

from tandem.console.areas.directory import asking, words
from tandem.console.areas.directory.asking import GRAPH, key
from tandem.console.kit import N_, ROOT, Console, Page, UnknownPage

DELETED = f"{ROOT}/deleted-items"
SORTS = {
    "user": (N_("Users"), f"{ROOT}/users"),
    "group": (N_("Groups"), f"{ROOT}/groups"),
    "application": (N_("App registrations"), f"{ROOT}/app-registrations"),
}
_ITEMS = f"{GRAPH}/directory/deletedItems"


async def deleted(page: Page[Any]) -> Response:
    sort = asking.query(page, "sort") or "user"
    if sort not in SORTS:
        raise UnknownPage(N_("There is no such page."))
    shown = await asking.listed(page, f"{_ITEMS}/microsoft.graph.{sort}")
    return page.render(
        "directory/deleted.html",
        shown=shown,
        sort=sort,
        tabs=[(f"{DELETED}?sort={one}", title, one == sort) for one, (title, _) in SORTS.items()],
        rights=await asking.rights(page),
        words=words,
    )


async def act(page: Page[Any]) -> Response:
    form = await page.form()
    sort = form.get("sort", "")
    if sort not in SORTS:
        raise UnknownPage(N_("There is no such page."))
    path = f"{_ITEMS}/{key(page)}"
    back = f"{DELETED}?sort={sort}"
    found = await page.api.get(path)
    name, text = found["displayName"], page.language.text
    match page.request.path_params["what"]:
        case "restore":
            await page.api.post(f"{path}/restore", {})
            return page.to(
                f"{SORTS[sort][1]}/{found['id']}", N_("%(name)s was restored."), name=name
            )
        case "purge" if form.get("confirmed") != "1":
            return page.confirm(
                text("Delete %(name)s for ever?", name=name),
                text("It cannot be restored after that, by nobody."),
                text("Delete for ever"),
                back=back,
                fields={"sort": sort},
            )
        case "purge":
            await page.api.delete(path)
            return page.to(back, N_("%(name)s was deleted for ever."), name=name)
    raise UnknownPage(N_("There is no such page."))


def routes(console: Console[Any]) -> list[BaseRoute]:
    return [
        console.route(DELETED, deleted),
        console.route(f"{DELETED}/{{id}}/{{what}}", act, post=True),
    ]
