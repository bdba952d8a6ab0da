"""Configurations that the site deploys to collections: list, deploy, take back."""

from typing import Any
from urllib.parse import quote

from starlette.responses import Response
from starlette.routing import BaseRoute

from tandem.console.areas.comgmt.settings import collections
from tandem.console.areas.comgmt.words import WORKLOADS
from tandem.console.kit import N_, ROOT, Console, Draft, Page, Place, drawn, field, read
from tandem.infra.errors import AppError, Kind

API = "/api/v1/configurations"
PATH = f"{ROOT}/configurations"
PLACE = Place(PATH, N_("Configurations of the site"), "clipboard_task", N_("Assets and compliance"))


async def _collections(page: Page[Any], draft: Draft | None) -> list[tuple[str, str]]:
    """Those of devices, then those of users."""
    text = page.language.text
    of_users = await collections(page, "user")
    return [
        *await collections(page),
        *((id, text(N_("%(name)s: users"), name=name)) for id, name in of_users),
    ]


FIELDS = (
    field("name", N_("Name"), required=True, limit=256),
    field(
        "setting",
        N_("Setting"),
        hint=N_("Area and name, like DeviceLock/MaxInactivityTimeDeviceLock."),
        required=True,
        limit=200,
    ),
    field("value", N_("Value"), limit=4096),
    field(
        "workload",
        N_("Workload"),
        "select",
        required=True,
        default="device-configuration",
        options=tuple(WORKLOADS.items()),
        hint=N_(
            "While this workload is with the MDM service, the device does not apply the value."
        ),
    ),
    field(
        "collection",
        N_("Collection"),
        "select",
        required=True,
        options=_collections,
        hint=N_(
            "What is deployed to users comes to the devices on which they are signed in, after what"
            " is deployed to the device itself."
        ),
    ),
    field(
        "reason",
        N_("Reason"),
        limit=1024,
        hint=N_(
            "Only when it reaches more devices or users than one administrator may reach alone: a"
            " second one then reads it, and approves or not."
        ),
    ),
)


async def show(
    page: Page[Any],
    values: dict[str, Any] | None = None,
    problems: dict[str, AppError] | None = None,
) -> Response:
    return page.render(
        "comgmt/configurations.html",
        422 if problems else 200,
        configurations=await page.api.get(API),
        waiting=await page.api.get(f"{API}/waiting"),
        fields=await drawn(page, FIELDS, values or {}, problems),
        general=(problems or {}).get(""),
        titles=WORKLOADS,
        remove=True,
        path_of=PATH,
    )


async def create(page: Page[Any]) -> Response:
    values, problems = read(FIELDS, await page.form())
    if not problems:
        try:
            made = await page.api.post(API, values)
        except AppError as error:
            if error.kind not in (Kind.INVALID, Kind.CONFLICT, Kind.NOT_FOUND):
                raise
            problems[str(error.details.get("field", ""))] = error
        else:
            if made["state"] == "approval":
                return page.to(
                    PATH,
                    N_(
                        "%(name)s reaches %(count)s users: a second administrator has to approve it."
                    )
                    if made["type"] == "user"
                    else N_(
                        "%(name)s reaches %(count)s devices: a second administrator has to approve it."
                    ),
                    name=made["name"],
                    count=page.language.number(made["devices"]),
                )
            return page.to(
                PATH,
                N_("%(name)s was deployed. Devices apply it with their next policy."),
                name=made["name"],
            )
    return await show(page, values, problems)


async def approve(page: Page[Any]) -> Response:
    form = await page.form()
    number, id = form.get("devices", ""), page.request.path_params["id"]
    of_users = form.get("type") == "user"
    if "confirmed" not in form:
        text = page.language.text
        return page.confirm(
            text(N_("Approve a deployment")),
            text(
                N_(
                    "%(name)s reaches %(count)s users. Their devices apply it with their next policy."
                )
                if of_users
                else N_(
                    "%(name)s reaches %(count)s devices. They apply it with their next policy."
                ),
                name=form.get("name", "")[:256],
                count=number[:12],
            ),
            text(N_("Approve")),
            back=PATH,
            fields={
                "devices": number[:12],
                "name": form.get("name", "")[:256],
                "seen": form.get("seen", "")[:64],
                "type": "user" if of_users else "device",
            },
        )
    devices = int(number) if number.isascii() and number.isdigit() and len(number) < 12 else -1
    path = f"{API}/waiting/{quote(id, safe='')}/approve"
    try:
        made = await page.api.post(path, {"devices": devices, "seen": form.get("seen", "")[:64]})
    except AppError as error:
        if error.kind not in (Kind.CONFLICT, Kind.NOT_FOUND, Kind.FORBIDDEN):
            raise
        return await show(page, None, {"": error})
    return page.to(
        PATH,
        N_("%(name)s was deployed. Devices apply it with their next policy."),
        name=made["name"],
    )


async def cancel(page: Page[Any]) -> Response:
    await page.form()
    await page.api.delete(f"{API}/waiting/{quote(page.request.path_params['id'], safe='')}")
    return page.to(PATH, N_("It was cancelled: nobody gets it."))


async def delete(page: Page[Any]) -> Response:
    form = await page.form()
    id = page.request.path_params["id"]
    found = next((item for item in await page.api.get(API) if item["id"] == id), None)
    if found is None:
        return page.to(PATH, N_("It was taken back already."))
    if "confirmed" not in form:
        text = page.language.text
        return page.confirm(
            text(N_("Take back a configuration")),
            page.language.plural(
                "%(name)s is in force on %(number)s device, which drops what it set.",
                "%(name)s is in force on %(number)s devices: they drop what it set.",
                found["applied"],
                name=found["name"],
            ),
            text(N_("Take back")),
            back=PATH,
        )
    await page.api.delete(f"{API}/{quote(id, safe='')}")
    return page.to(PATH, N_("%(name)s was taken back."), name=found["name"])


def routes(console: Console[Any]) -> list[BaseRoute]:
    return [
        console.route(PATH, show),
        console.route(PATH, create, post=True),
        console.route(f"{PATH}/waiting/{{id}}/approve", approve, post=True),
        console.route(f"{PATH}/waiting/{{id}}/cancel", cancel, post=True),
        console.route(f"{PATH}/{{id}}/delete", delete, post=True),
    ]
