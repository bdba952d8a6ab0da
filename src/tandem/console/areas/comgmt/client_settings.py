"""Client settings: which there are, the default ones by group, and what results for whom and why."""

from collections.abc import Mapping
from typing import Any, NamedTuple
from urllib.parse import quote

from starlette.responses import Response
from starlette.routing import BaseRoute

from tandem.console import approvals
from tandem.console.areas.comgmt.words import FULL
from tandem.console.kit import CHANGED, N_, ROOT, Console, Page, Place
from tandem.infra.errors import AppError, Kind

API = "/api/v1/client-settings"
PATH = f"{ROOT}/client-settings"
PLACE = Place(PATH, N_("Client settings"), "settings", N_("Administration"))


class Known(NamedTuple):
    """A setting as the API has it; one with a `most` is a number, the others are Yes or No."""

    name: str
    group: str
    title: str
    least: int = 0
    most: int = 0
    of_users: bool = False


_CLOUD, _POLICY = N_("Cloud services"), N_("Client policy")
_INVENTORY, _STATE = N_("Hardware inventory"), N_("State messaging")
SETTINGS = (
    Known("allow_cloud_distribution_point", _CLOUD, N_("Allow access to cloud distribution point")),
    Known(
        "auto_register_with_azure_ad",
        _CLOUD,
        N_("Automatically register new Windows 10 domain joined devices with Azure AD"),
    ),
    Known(
        "enable_cloud_management_gateway",
        _CLOUD,
        N_("Enable clients to use a cloud management gateway"),
    ),
    Known(
        "policy_polling_minutes", _POLICY, N_("Client policy polling interval (minutes)"), 3, 1440
    ),
    Known("enable_user_policy", _POLICY, N_("Enable user policy on clients"), of_users=True),
    Known(
        "enable_user_policy_from_internet",
        _POLICY,
        N_("Enable user policy requests from internet clients"),
        of_users=True,
    ),
    Known("enable_hardware_inventory", _INVENTORY, N_("Enable hardware inventory on clients")),
    Known(
        "hardware_inventory_minutes",
        _INVENTORY,
        N_("Hardware inventory schedule (minutes)"),
        15,
        43_200,
    ),
    Known(
        "state_reporting_minutes", _STATE, N_("State message reporting cycle (minutes)"), 1, 43_200
    ),
)
TITLES = {one.name: one.title for one in SETTINGS}
GROUPS = {one.group: one.group for one in SETTINGS}
TYPES = {"device": N_("Devices"), "user": N_("Users")}
SOURCES = {"Default Client Settings": N_("Default client settings")}
READ_ONLY = N_("A read-only analyst looks at settings and does not change them.")


def locked(page: Page[Any]) -> str:
    """Why nothing can be changed here; empty when it can."""
    return "" if page.session.role in (FULL, "Operations Administrator") else READ_ONLY


def grouped(found: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
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
        every=await page.api.get(f"{API}/custom"),
        waiting=await approvals.waiting(page, API),
        types=TYPES,
        sources=SOURCES,
        groups=grouped(answer.json),
        etag=answer.etag,
        typed=dict(typed or {}),
        error=None if changed else error,
        conflict=changed,
        at=str(error.details.get("field", "")) if error else "",
        titles=TITLES,
        group_titles=GROUPS,
        locked=locked(page),
        path_of=PATH,
    )


async def save(page: Page[Any]) -> Response:
    form = await page.form()
    wanted = typed_values(await page.api.get(API), form)
    if not wanted:
        return page.to(PATH, N_("Nothing was different, so nothing was changed."))
    try:
        await page.api.patch(API, wanted, version=form.get("version", ""))
    except AppError as error:
        if error.code != CHANGED and error.kind is not Kind.INVALID:
            raise
        return await show(page, form, error)
    return page.to(PATH, N_("Saved. Clients follow with their next policy."))


def typed_values(found: list[dict[str, Any]], form: Mapping[str, str]) -> dict[str, str]:
    """What was typed that differs from what is there."""
    wanted = {}
    for item in found:
        given = form.get(item["name"])
        if given is not None and given != _word(item["value"]):
            wanted[item["name"]] = given.strip()
    return wanted


def _word(value: bool | int) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value)


async def resultant(page: Page[Any]) -> Response:
    """What results for the device, or the user, that is asked for by name."""

    def asked(name: str) -> str:
        return page.request.query_params.get(name, "")[:256].replace("\0", "").strip()

    device, user = asked("device"), asked("user")
    found, error = None, None
    if device or user:
        of = f"resultant-user/{quote(user, safe='')}" if user else ""
        try:
            found = await page.api.get(f"{API}/{of or 'resultant/' + quote(device, safe='')}")
        except AppError as problem:
            if problem.kind is not Kind.NOT_FOUND:
                raise
            error = problem
    return page.render(
        "comgmt/resultant.html",
        404 if error else 200,
        device="" if user else device,
        user=user,
        found=found,
        groups=grouped(found["settings"]) if found else {},
        error=error,
        titles=TITLES,
        group_titles=GROUPS,
        sources=SOURCES,
        path_of=PATH,
    )


async def _refused(page: Page[Any], error: AppError) -> Response:
    return await show(page, None, error)


def routes(console: Console[Any]) -> list[BaseRoute]:
    return [
        *approvals.routes(console, PATH, API, _refused),
        console.route(PATH, show),
        console.route(PATH, save, post=True),
        console.route(f"{PATH}/resultant", resultant),
    ]
