"""The first-run guide: the tutorial as a checklist with live state, and the story of what was done."""

from typing import Any

from starlette.responses import Response
from starlette.routing import BaseRoute

from tandem.console.areas.comgmt.words import WIZARD, title
from tandem.console.kit import N_, ROOT, Console, Page, Place

PATH = f"{ROOT}/guide"
PLACE = Place(PATH, N_("First-run guide"), "task_list_ltr", N_("Monitoring"))
REFRESH_SECONDS = 3
_LINES = 30

STATES = {
    "done": ("good", N_("Done")),
    "partly": ("waiting", N_("Partly")),
    "not-yet": ("plain", N_("Not yet")),
    "unknown": ("plain", N_("Cannot be known from here")),
    "not-in-this-version": ("plain", N_("Not in this version")),
}
# Where a step is done by hand, and where it is looked at when it is done. `+` is the tenant's.
LINKS = {
    "0.1": ("+/users", "+/users"),
    "0.2": ("+/enrolment", "+/enrolment"),
    "0.3": ("site-properties", "site-properties"),
    "1.1": ("wizards/gateway-certificate", "gateways"),
    "1.2": ("wizards/gateway-certificate", "certificates"),
    "1.3": ("wizards/gateway-certificate", "certificates"),
    "1.4": ("certificates", "certificates"),
    "2.1": ("wizards/azure-service", "azure-services"),
    "2.2": ("azure-services", "azure-services"),
    "2.3": ("azure-services", "azure-services"),
    "2.4": ("azure-services", "azure-services"),
    "2.5": ("wizards/azure-service-consent", "azure-services"),
    "2.6": ("discovery", "discovery"),
    "3.1": ("wizards/create-gateway", "gateways"),
    "3.2": ("gateways", "gateways"),
    "4.1": ("wizards/add-role", "site-systems"),
    "4.2": ("site-systems", "site-systems"),
    "4.3": ("client-settings", "client-settings"),
    "5.1": (f"wizards/{WIZARD}", "comanagement"),
    "5.2": ("comanagement", "comanagement"),
    "5.3": ("comanagement/policies", "comanagement/policies"),
    "6.1": ("+/apps", "+/apps"),
    "6.2": ("+/apps", "+/apps"),
    "6.3": ("+/licences", "+/licences"),
    "6.4": ("devices", "devices"),
    "7.1": ("", ""),
    "7.2": ("comanagement", "comanagement"),
}


async def show(page: Page[Any]) -> Response:
    found = await page.api.get("/api/v1/guide")
    steps = [step for part in found["parts"] for step in part["steps"]]
    elsewhere = await page.other()
    tenant = elsewhere.url if elsewhere else ""
    for step in steps:
        step["said"] = _said(page, step)
    return page.render(
        "comgmt/guide.html",
        parts=found["parts"],
        next=found["next"],
        done=found["counts"]["done"],
        all=len(steps) - found["counts"]["not-in-this-version"],
        states=STATES,
        links={step["id"]: _link(page, tenant, step["id"], step["state"]) for step in steps},
        story=await _story(page),
        path_of=PATH,
        refresh_seconds=REFRESH_SECONDS,
    )


def _said(page: Page[Any], step: dict[str, Any]) -> str:
    """The finding, and in it the reason that another API gave."""
    text = page.language.said(step["text"])
    for value in step["values"].values():
        if isinstance(value, str) and (said := page.language.said(value)) != value:
            text = text.replace(value, said)
    return text


def _link(page: Page[Any], tenant: str, step: str, state: str) -> str:
    """Empty where neither this console nor the tenant's has a page for it."""
    if step not in LINKS:
        return ""
    place = LINKS[step][state == "done"]
    if not place.startswith("+"):
        return f"{ROOT}/{place}" if _is_here(page, f"{ROOT}/{place}") else ""
    return f"{tenant}{ROOT}{place[1:]}" if tenant else ""


def _is_here(page: Page[Any], path: str) -> bool:
    routes = page.request.app.router.routes
    return any(getattr(route, "path", "") == path for route in routes)


async def story(page: Page[Any]) -> Response:
    """The story alone, as the dashboard shows it."""
    return page.render("comgmt/story.html", story=await _story(page, 8), path_of=PATH)


async def _story(page: Page[Any], limit: int = _LINES) -> list[dict[str, Any]]:
    """What was done, in sentences of this language."""
    lines = []
    for line in await page.api.get("/api/v1/guide/story", limit=limit):
        text = page.language.said(line["text"])
        if line["action"] == "comanagement.switch":
            values = {**line["values"], "workload": title(page, line["target"])}
            moved = _MOVED.get(values["to"], _MOVED["site"])
            text = page.language.text(moved, **values)
        lines.append({"at": line["at"], "until": line["until"], "text": text})
    return lines


_MOVED = {
    "site": N_("%(who)s moved %(workload)s back to the site"),
    "pilot": N_("%(who)s moved %(workload)s to the MDM service for the pilot %(collection)s"),
    "mdm": N_("%(who)s moved %(workload)s to the MDM service for all"),
}


async def do(page: Page[Any]) -> Response:
    """Do a step, after it was said what that does. Only what the API itself offers now."""
    form = await page.form()
    id = page.request.path_params["step"]
    found = await page.api.get("/api/v1/guide")
    step = next((one for part in found["parts"] for one in part["steps"] if one["id"] == id), None)
    if step is None or step["do"] is None:
        return page.to(PATH, N_("There is nothing to do for this step now."))
    way = step["do"]
    if "confirmed" not in form:
        said = page.language.said
        return page.confirm(
            said(step["title"]), said(way["warns"]), said(way["says"]), back=PATH, danger=False
        )
    await page.api.ask(way["method"], way["path"], way["body"])
    return page.to(PATH, N_("Done: look at the step below."))


def routes(console: Console[Any]) -> list[BaseRoute]:
    return [
        console.route(PATH, show),
        console.route(f"{PATH}/story", story),
        console.route(f"{PATH}/{{step}}/do", do, post=True),
    ]
