"""Domains by which users are called: added, proved by a TXT record, made the default, removed."""

from typing import Any

from starlette.responses import Response
from starlette.routing import BaseRoute

from tandem.console.areas.directory import asking, forms
from tandem.console.areas.directory.asking import GRAPH, key
from tandem.console.kit import N_, ROOT, Console, NotSignedIn, Page, UnknownPage, Values, field
from tandem.infra.errors import AppError

DOMAINS = f"{ROOT}/domains"
PLACE = (DOMAINS, N_("Domains"))
_ADD = (
    field(
        "id",
        N_("Domain"),
        required=True,
        limit=253,
        placeholder="contoso.com",
        hint=N_("It is used once a TXT record of it proves that it is yours."),
    ),
)


async def domains(page: Page[Any]) -> Response:
    return page.render(
        "directory/domains.html",
        rows=(await page.api.get(f"{GRAPH}/domains"))["value"],
        rights=await asking.rights(page),
    )


async def domain(page: Page[Any], failed: AppError | None = None, status: int = 200) -> Response:
    found = await page.api.get(f"{GRAPH}/domains/{key(page)}")
    records = await page.api.get(f"{GRAPH}/domains/{key(page)}/verificationDnsRecords")
    return page.render(
        "directory/domain.html",
        status,
        domain=found,
        records=records["value"],
        failed=failed,
        rights=await asking.rights(page),
    )


async def create(page: Page[Any]) -> Response:
    async def work(values: Values) -> Response:
        made = await page.api.post(f"{GRAPH}/domains", {"id": values["id"]})
        return page.to(
            f"{DOMAINS}/{made['id']}",
            N_("%(name)s was added. Prove that it is yours, then verify."),
            name=made["id"],
        )

    return await forms.filled(
        page,
        _ADD,
        {"id": ""},
        work,
        at="id",
        title=page.language.text("Add a domain"),
        label=page.language.text("Add"),
        back=DOMAINS,
        place=PLACE,
    )


async def act(page: Page[Any]) -> Response:
    form = await page.form()
    path = f"{GRAPH}/domains/{key(page)}"
    found = await page.api.get(path)
    here, name, text = f"{DOMAINS}/{found['id']}", found["id"], page.language.text
    match page.request.path_params["what"]:
        case "verify":
            try:
                await page.api.post(f"{path}/verify", {})
            except NotSignedIn:
                raise
            except AppError as error:
                # What DNS says now stands beside the record that is wanted.
                return await domain(page, error, forms.status_of(error))
            return page.to(here, N_("%(name)s is verified."), name=name)
        case "default":
            await page.api.patch(path, {"isDefault": True})
            return page.to(here, N_("%(name)s is the default domain now."), name=name)
        case "delete" if form.get("confirmed") != "1":
            return page.confirm(
                text("Remove %(name)s?", name=name),
                text("No user can be called by it afterwards."),
                text("Remove"),
                back=here,
            )
        case "delete":
            await page.api.delete(path)
            return page.to(DOMAINS, N_("%(name)s was removed."), name=name)
    raise UnknownPage(N_("There is no such page."))


def routes(console: Console[Any]) -> list[BaseRoute]:
    return [
        console.route(DOMAINS, domains),
        console.route(f"{DOMAINS}/new", create),
        console.route(f"{DOMAINS}/new", create, post=True),
        console.route(f"{DOMAINS}/{{id}}", domain),
        console.route(f"{DOMAINS}/{{id}}/{{what}}", act, post=True),
    ]
