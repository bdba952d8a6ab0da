"""Directory roles: who holds which, given and taken."""

from typing import Any

from starlette.responses import Response
from starlette.routing import BaseRoute

from tandem.console.areas.directory import asking, forms, words
from tandem.console.areas.directory.asking import GRAPH, key
from tandem.console.kit import N_, ROOT, Console, NotSignedIn, Page, UnknownPage, drawn, field
from tandem.infra.errors import AppError

ROLES = f"{ROOT}/roles"
PLACE = (ROLES, N_("Roles"))
_ADD = field(
    "holder",
    N_("Give the role to"),
    "picker",
    several=True,
    required=True,
    options=asking.users,
    hint=N_("Who holds it may do this everywhere, here and with every tool of Graph."),
)


async def roles(page: Page[Any]) -> Response:
    found = (await page.api.get(f"{GRAPH}/directoryRoles"))["value"]
    held: dict[str, int] = {}
    assigned = await asking.all_of(page, f"{GRAPH}/roleManagement/directory/roleAssignments")
    for item in assigned:
        held[item["roleDefinitionId"]] = held.get(item["roleDefinitionId"], 0) + 1
    return page.render(
        "directory/roles.html",
        rows=[{**item, "holders": held.get(item["id"], 0)} for item in found],
        rights=await asking.rights(page),
        words=words,
    )


async def role(page: Page[Any]) -> Response:
    path = f"{GRAPH}/directoryRoles/{key(page)}"
    found = await page.api.get(path)
    values: dict[str, Any] = {"holder": []}
    problems: dict[str, AppError] = {}
    general: AppError | None = None
    status = 200
    here = f"{ROLES}/{found['id']}"
    if page.request.method == "POST":
        values, problems, searching = await forms.answers(page, (_ADD,))
        status = 422 if problems else 200
        if not problems and not searching:
            try:
                for one in values["holder"]:
                    await page.api.post(f"{path}/members/$ref", asking.ref(one))
                return page.to(here, N_("The role was given."))
            except NotSignedIn:
                raise
            except AppError as error:
                general, status = error, forms.status_of(error)
    shown = await drawn(
        page,
        (_ADD,),
        values,
        problems,
        options_url=forms.PICK,
        lists=page.form_lists,
        form=page.form_values,
    )
    return page.render(
        "directory/role.html",
        status,
        role=found,
        holders=await asking.all_of(page, f"{path}/members"),
        fields=shown,
        general=general,
        rights=await asking.rights(page),
        words=words,
    )


async def act(page: Page[Any]) -> Response:
    form = await page.form()
    path = f"{GRAPH}/directoryRoles/{key(page)}"
    if page.request.path_params["what"] != "take":
        raise UnknownPage(N_("There is no such page."))
    found = await page.api.get(path)
    holder = asking.safe(form.get("holder", ""))
    await page.api.delete(f"{path}/members/{holder}/$ref")
    return page.to(f"{ROLES}/{found['id']}", N_("The role was taken away."))


def routes(console: Console[Any]) -> list[BaseRoute]:
    return [
        console.route(ROLES, roles),
        console.route(f"{ROLES}/{{id}}", role),
        console.route(f"{ROLES}/{{id}}", role, post=True),
        console.route(f"{ROLES}/{{id}}/do/{{what}}", act, post=True),
    ]
