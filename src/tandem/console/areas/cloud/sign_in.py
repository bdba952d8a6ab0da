"""A step of any wizard, and a part of any page, in which the tenant's administrator signs in.

The site asks the tenant for a code; the administrator enters it on the tenant's own page. So
neither password nor token ever comes by here: a draft keeps the id of the sign-in.

    tenant_sign_in_step("sign-in")        in a wizard; then draft.values[SIGN_IN] is the id that
                                          the API takes as `tenant_sign_in`
    await signed_in(page, draft)          who it was: upn, tenant_name, roles
"""

from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import quote

from starlette.responses import Response
from starlette.routing import BaseRoute

from tandem.console.kit import (
    N_,
    ROOT,
    Console,
    Draft,
    Fact,
    NotSignedIn,
    Page,
    Problem,
    Step,
)
from tandem.infra.errors import AppError, Kind

SIGN_IN = "tenant_sign_in"
API = "/api/v1/tenant-sign-in"
# The tenant says how often it may be asked; the site asks no more often, whatever is shown here.
REFRESH_SECONDS = 3


def tenant_sign_in_step(
    key: str = "sign-in",
    *,
    administrator: bool = True,
    licensed: bool = False,
    intro: str = "",
    when: Callable[[Draft], bool] | None = None,
) -> Step:
    """`administrator`: only a global administrator of the tenant gets on. `licensed`: the account
    needs a licence of the MDM service, too (spec 4.4: User not recognized)."""

    async def load(page: Page[Any], draft: Draft) -> Mapping[str, Any]:
        return {"sign_in": await current(page, draft), "refresh_seconds": REFRESH_SECONDS}

    async def check(page: Page[Any], draft: Draft) -> None:
        found = await current(page, draft)
        check_sign_in(found, administrator=administrator, licensed=licensed)

    return Step(
        key=key,
        title=N_("Sign in to the tenant"),
        intro=intro
        or N_(
            "A global administrator of the tenant signs in on the tenant's own page. The site"
            " keeps no password, and forgets the sign-in after half an hour."
        ),
        template="cloud/sign_in_step.html",
        load=load,
        check=check,
        when=when,
    )


async def current(page: Page[Any], draft: Draft, *, anew: bool = False) -> dict[str, Any]:
    """The draft's sign-in as it stands; one is begun when there is none, or none any more."""
    known = str(draft.values.get(SIGN_IN, ""))
    if known and not anew:
        found = await look(page, known)
        if found is not None:
            return found
    begun: dict[str, Any] = await page.api.post(API)
    draft.values[SIGN_IN] = begun["id"]
    await page.drafts.save(draft, page.session.token)
    return begun


async def look(page: Page[Any], id: str) -> dict[str, Any] | None:
    """None when it is not known any more."""
    try:
        found: dict[str, Any] = await page.api.get(f"{API}/{quote(id, safe='')}")
    except NotSignedIn:
        raise
    except AppError as error:
        if error.kind is Kind.NOT_FOUND:
            return None
        raise
    return found


def check_sign_in(
    found: Mapping[str, Any], *, administrator: bool = True, licensed: bool = False
) -> None:
    """Raises Problem in the words of who signs in."""
    if found["state"] == "pending":
        raise Problem(
            "",
            N_("You have not signed in to the tenant yet."),
            cure=N_("Open the tenant's page, enter the code there, then go on here."),
        )
    if found["state"] != "done":
        raise Problem("", found["reason"], cure=N_("Take a new code."))
    if administrator and not found["global_administrator"]:
        raise Problem(
            "",
            N_("%(upn)s is not a global administrator of the tenant %(tenant)s."),
            cure=N_("Take a new code, and sign in with an account that has this role."),
            upn=found["upn"],
            tenant=found["tenant_name"],
        )
    if licensed and found["mdm_licence"] is False:
        raise Problem(
            "",
            N_("User not recognized: %(upn)s has no licence of the MDM service."),
            cure=N_("Assign one in the tenant, or take a new code and sign in as somebody else."),
            upn=found["upn"],
        )


async def signed_in(page: Page[Any], draft: Draft) -> dict[str, Any] | None:
    """The draft's sign-in when it is done and still holds, for a summary."""
    known = str(draft.values.get(SIGN_IN, ""))
    found = await look(page, known) if known else None
    return found if found is not None and found["state"] == "done" else None


async def sign_in_facts(page: Page[Any], draft: Draft) -> list[Fact]:
    found = await signed_in(page, draft)
    if found is None:
        raise Problem(
            "", N_("The sign-in to the tenant is over."), cure=N_("Go back and sign in again.")
        )
    return [
        Fact(N_("Tenant"), f"{found['tenant_name']} ({found['tenant_id']})"),
        Fact(N_("Signed in to the tenant as"), found["upn"]),
    ]


async def _state(page: Page[Any]) -> Response:
    """What is fetched again while somebody signs in elsewhere."""
    found = await look(page, page.request.path_params["id"])
    return page.render("cloud/_sign_in.html", sign_in=found, refresh_seconds=REFRESH_SECONDS)


async def _anew(page: Page[Any]) -> Response:
    """Another code for the draft of any wizard, and back to its step."""
    form = await page.form()
    wizard, step = form.get("wizard", "")[:64], form.get("step", "")[:64]
    draft = await page.drafts.get(form.get("draft", ""), wizard, page.session.user)
    await current(page, draft, anew=True)
    return page.to(f"{ROOT}/wizards/{wizard}/{draft.id}/{quote(step, safe='')}")


def routes(console: Console[Any]) -> list[BaseRoute]:
    return [
        console.route(f"{ROOT}/cloud/sign-in/{{id}}", _state),
        console.route(f"{ROOT}/cloud/sign-in", _anew, post=True),
    ]
