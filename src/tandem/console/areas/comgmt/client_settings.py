"""Client settings: the default ones by group, and what results for a device."""

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from starlette.responses import Response
from starlette.routing import BaseRoute

from tandem.console.areas.comgmt.words import FULL
from tandem.console.kit import CHANGED, N_, ROOT, Console, Page, Place
from tandem.infra.errors import AppError, Kind

API = "/api/v1/client-settings"
PATH = f"{ROOT}/client-settings"
PLACE = Place(PATH, N_("Client settings"), "settings", N_("Administration"))

# By the API's names: what the field calls them.
TITLES = {
    "allow_cloud_distribution_point": N_("Allow access to cloud distribution point"),
    "auto_register_with_azure_ad": N_(
        "Automatically register new Windows 10 domain joined devices with Azure AD"
    ),
    "enable_cloud_management_gateway": N_("Enable clients to use a cloud management gateway"),
    "policy_polling_minutes": N_("Client policy polling interval (minutes)"),
    "enable_user_policy": N_("Enable user policy on clients"),
    "enable_user_policy_from_internet": N_("Enable user policy requests from internet clients"),
    "state_reporting_minutes": N_("State message reporting cycle (minutes)"),
}
GROUPS = {
    "Cloud services": N_("Cloud services"),
    "Client policy": N_("Client policy"),
    "State messaging": N_("State messaging"),
}
SOURCES = {"Default Client Settings": N_("Default client settings")}
READ_ONLY = N_("A read-only analyst looks at settings and does not change them.")


def _grouped(found: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    groups: dict[str, list[dict[str, Any]]] = {}
    for item in found:
        groups.setdefault(item["group"], []).append(item)
    return groups


async def show(
    page: Page[Any], typed: Mapping[str, str] | None = None, error: AppError | None = None
) -> Response:
    answer = await page.api.ask("GET", API)
    changed = error is not None and error.code == CHANGED
    return page.render(
        "comgmt/client_settings.html",
        200 if error is None else 409 if changed else 422,
        groups=_grouped(answer.json),
        etag=answer.etag,
        typed=dict(typed or {}),
        error=None if changed else error,
        conflict=changed,
        at=str(error.details.get("field", "")) if error else "",
        titles=TITLES,
        group_titles=GROUPS,
        locked="" if page.session.role in (FULL, "Operations Administrator") else READ_ONLY,
        path_of=PATH,
    )


async def save(page: Page[Any]) -> Response:
    form = await page.form()
    found = await page.api.get(API)
    wanted: dict[str, Any] = {}
    for item in found:
        given = form.get(item["name"])
        if given is not None and given != _word(item["value"]):
            wanted[item["name"]] = given.strip()
    if not wanted:
        return page.to(PATH, N_("Nothing was different, so nothing was changed."))
    try:
        await page.api.patch(API, wanted, version=form.get("version", ""))
    except AppError as error:
        if error.code != CHANGED and error.kind is not Kind.INVALID:
            raise
        return await show(page, form, error)
    return page.to(PATH, N_("Saved. Clients follow with their next policy."))


def _word(value: bool | int) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value)


async def resultant(page: Page[Any]) -> Response:
    """What results for the device that is asked for by its name."""
    wanted = page.request.query_params.get("device", "")[:256].replace("\0", "").strip()
    found, error = None, None
    if wanted:
        try:
            found = await page.api.get(f"{API}/resultant/{quote(wanted, safe='')}")
        except AppError as problem:
            if problem.kind is not Kind.NOT_FOUND:
                raise
            error = problem
    return page.render(
        "comgmt/resultant.html",
        404 if error else 200,
        device=wanted,
        found=found,
        groups=_grouped(found["settings"]) if found else {},
        error=error,
        titles=TITLES,
        group_titles=GROUPS,
        sources=SOURCES,
        path_of=PATH,
    )


def routes(console: Console[Any]) -> list[BaseRoute]:
    return [
        console.route(PATH, show),
        console.route(PATH, save, post=True),
        console.route(f"{PATH}/resultant", resultant),
    ]
