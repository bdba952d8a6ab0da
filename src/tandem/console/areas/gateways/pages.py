"""The list of gateways with the way in, and a gateway's own page with what is done to it."""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any
from urllib.parse import quote

from starlette.responses import Response
from starlette.routing import BaseRoute

from tandem.console.areas.gateways import words
from tandem.console.kit import (
    N_,
    ROOT,
    Console,
    Fact,
    Hit,
    Notice,
    NotSignedIn,
    Page,
    UnknownPage,
)
from tandem.infra.errors import AppError

API = "/api/v1/gateways"
BASE = f"{ROOT}/gateways"
# An instance that died is back within seconds, and its hop was red in between.
REFRESH_SECONDS = 1
DAYS = 14
_PASSING = {"Provisioning", "Starting", "Deleting"}

TABS = (
    ("", N_("Overview")),
    ("traffic", N_("Traffic")),
    ("settings", N_("Settings")),
    ("certificate", N_("Certificate")),
    ("alerts", N_("Alerts")),
    ("content", N_("Content")),
    ("analyze", N_("Connection analyzer")),
)


def path_of(name: str) -> str:
    return f"{BASE}/{quote(name, safe='')}"


def api_of(name: str, more: str = "") -> str:
    return f"{API}/{quote(name, safe='')}{more}"


def named(page: Page[Any]) -> str:
    name: str = page.request.path_params["name"]
    if name == "-":  # To the API it is the only one there is.
        raise UnknownPage(N_("There is no such gateway."))
    return name


def tabs(name: str, current: str) -> list[tuple[str, str, bool]]:
    return [
        (f"{path_of(name)}/{key}" if key else path_of(name), title, key == current)
        for key, title in TABS
    ]


def state_of(gateway: Mapping[str, Any]) -> tuple[str, str]:
    return words.GATEWAY_STATES.get(gateway["state"], (gateway["state"], "plain"))


def running(gateway: Mapping[str, Any]) -> int:
    return sum(node["state"] == "running" for node in gateway["nodes"])


def shown(gateway: Mapping[str, Any], hops: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """A gateway as the pages draw it: with the tunnels of each instance."""
    nodes = []
    for node in gateway["nodes"]:
        own = f"{gateway['service_name']} {node['instance']}"
        title, look = words.INSTANCE_STATES.get(node["state"], (node["state"], "plain"))
        nodes.append(
            {
                "number": node["instance"],
                "address": f"{node['host']}:{node['port']}",
                "state": title,
                "look": look,
                "reason": node["reason"],
                "hops": [
                    hop
                    for hop in hops
                    if hop["source_name"] == own and hop["kind"] == "connection-point"
                ],
                # What is wrong with the instance itself, beside its process.
                "wrong": next(
                    (hop for hop in hops if hop["target_name"] == own and hop["text"]), None
                ),
            }
        )
    title, look = state_of(gateway)
    return {
        "name": gateway["service_name"],
        "deployment": gateway["deployment_name"],
        "url": path_of(gateway["service_name"]),
        "state": title,
        "look": look,
        "reason": gateway["reason"],
        "passing": gateway["state"] in _PASSING,
        "nodes": nodes,
        "running": running(gateway),
        "instances": gateway["instances"],
        "region": gateway["region"],
        "expires_at": gateway["expires_at"],
        "points": gateway["connection_points"],
        "dns": next((hop for hop in hops if hop["kind"] == "dns"), None),
    }


async def chain(page: Page[Any]) -> list[dict[str, Any]]:
    found = await page.api.get("/api/v1/health")
    return [words.hop(page, hop) for hop in found["hops"]]


async def gateways(page: Page[Any]) -> Response:
    found = await page.api.get(API)
    hops = await chain(page)
    return page.render(
        "gateways/list.html",
        gateways=[
            shown(item, [hop for hop in hops if hop["gateway"] == item["service_name"]])
            for item in found
        ],
        inside=[hop for hop in hops if hop["kind"] in words.INSIDE],
        refresh_seconds=REFRESH_SECONDS,
    )


async def gateway(page: Page[Any]) -> Response:
    name = named(page)
    found = await page.api.get(api_of(name))
    hops = [hop for hop in await chain(page) if hop["gateway"] == found["service_name"]]
    alerts = await page.api.get(api_of(name, "/alerts"))
    points = await page.api.get("/api/v1/traffic", by="connection-point", gateway=name, days=DAYS)
    level, look = words.LEVELS[alerts["level"]]
    return page.render(
        "gateways/show.html",
        gateway=shown(found, hops),
        tabs=tabs(name, ""),
        facts=_facts(page, found),
        dns=await _dns(page, name),
        alerts=alerts,
        alarms=[words.alarm(page, one) for one in alerts["alarms"]],
        alarm_cure=words.ALARM_CURE,
        level=level,
        level_look=look,
        days=await _days(page, name),
        points=[{**row, "role": words.ROLES.get(row["role"], row["role"])} for row in points],
        sent=sum(row["requests"] for row in points),
        refresh_seconds=3,
    )


def _facts(page: Page[Any], found: Mapping[str, Any]) -> list[Fact]:
    return [
        Fact(N_("Service name"), found["service_name"]),
        Fact(N_("Deployment name"), found["deployment_name"]),
        Fact(N_("Description"), found["description"]),
        Fact(N_("Environment"), found["environment"]),
        Fact(N_("Region"), found["region"]),
        Fact(N_("Resource group"), found["resource_group"]),
        Fact(N_("Tenant"), found["tenant_id"]),
        Fact(N_("Certificate valid until"), words.at(found["expires_at"])),
        Fact(N_("Renewed by ACME"), found["acme"]),
        *([Fact(N_("Its renewal failed"), reason)] if (reason := found["renewal_reason"]) else []),
        Fact(N_("For content alone"), found["content_only"]),
        Fact(N_("Verify client certificate revocation"), found["check_revocation"]),
        Fact(N_("Answers check-ins without news itself"), found["edge_answers"]),
        Fact(N_("Connection points"), ", ".join(found["connection_points"])),
        Fact(N_("Created"), words.at(found["created_at"])),
    ]


async def _dns(page: Page[Any], name: str) -> dict[str, Any]:
    """The record, and whether it is there; when DNS does not answer, that."""
    try:
        found: dict[str, Any] = await page.api.get(api_of(name, "/dns"))
    except NotSignedIn:
        raise
    except AppError as error:
        return {
            "record": "",
            "ok": False,
            "problem": error.message,
            "cure": error.cure,
            "views": [],
            "split_brain": False,
        }
    return found


async def _days(page: Page[Any], name: str) -> list[tuple[str, int, str]]:
    """The traffic of each of the last days, those without any included."""
    found = await page.api.get("/api/v1/traffic", by="day", gateway=name, days=DAYS)
    known = {row["day"]: row for row in found}
    today = page.now.date()
    days = [today - timedelta(days=ago) for ago in reversed(range(DAYS))]
    return [
        (
            page.language.day(day),
            known.get(day.isoformat(), {"requests": 0})["requests"],
            page.language.number(known.get(day.isoformat(), {"requests": 0})["requests"]),
        )
        for day in days
    ]


# What is done to a gateway: what it is called, and how far it reaches.
ACTIONS: dict[str, tuple[str, str, str, bool]] = {
    "stop": (
        N_("Stop %(name)s?"),
        N_(
            "No device on the internet reaches the site through it until it is started again."
            " Through it came %(requests)s requests in the last 14 days; the connection points that"
            " serve it: %(points)s. What is configured stays."
        ),
        N_("Stop the gateway"),
        True,
    ),
    "delete": (
        N_("Delete %(name)s?"),
        N_(
            "Its %(instances)s instances and its certificate are removed from the site, and this"
            " cannot be taken back. Devices that know only this gateway (%(requests)s requests in"
            " the last 14 days) no longer reach the site."
        ),
        N_("Delete the gateway"),
        True,
    ),
    "start": (
        N_("Start %(name)s?"),
        N_("Its %(instances)s instances are started, and devices reach the site through it again."),
        N_("Start the gateway"),
        False,
    ),
    "redeploy": (
        N_("Redeploy %(name)s?"),
        N_(
            "Its %(instances)s instances are given up and made anew, with another connection id. No"
            " device reaches the site through it for a minute or two; its name, its settings and"
            " its connection points (%(points)s) stay. To move it elsewhere: tandem gateway"
            " redeploy."
        ),
        N_("Redeploy the gateway"),
        True,
    ),
    "synchronize": (
        N_("Synchronise the configuration of %(name)s?"),
        N_(
            "Its %(instances)s instances and connection points are brought to what is configured"
            " now. Nothing is interrupted."
        ),
        N_("Synchronise"),
        False,
    ),
}
_SAID = {
    "stop": N_("%(name)s is stopped."),
    "delete": N_("%(name)s is being deleted."),
    "start": N_("%(name)s is being started."),
    "redeploy": N_("%(name)s is being made anew."),
    "synchronize": N_("%(name)s is being synchronised."),
}


async def ask(page: Page[Any]) -> Response:
    """The question before an action; it says how far that reaches."""
    return await _question(page, named(page), _verb(page))


async def act(page: Page[Any]) -> Response:
    name, verb = named(page), _verb(page)
    form = await page.form()
    if not form.get("confirmed"):
        return await _question(page, name, verb)
    if verb == "delete":
        await page.api.delete(api_of(name))
    else:
        await page.api.post(api_of(name, f"/{verb}"))
    return page.to(BASE if verb == "delete" else path_of(name), _SAID[verb], name=name)


def _verb(page: Page[Any]) -> str:
    verb: str = page.request.path_params["verb"]
    if verb not in ACTIONS:
        raise UnknownPage(N_("There is no such page."))
    return verb


async def _question(page: Page[Any], name: str, verb: str) -> Response:
    found = await page.api.get(api_of(name))
    traffic = await page.api.get("/api/v1/traffic", by="day", gateway=name, days=DAYS)
    say, number = page.language.text, page.language.number
    title, text, label, danger = ACTIONS[verb]
    points = ", ".join(found["connection_points"]) or say(N_("none"))
    return page.confirm(
        say(title, name=name),
        say(
            text,
            name=name,
            points=points,
            instances=number(found["instances"]),
            requests=number(sum(row["requests"] for row in traffic)),
        ),
        say(label),
        back=path_of(name),
        danger=danger,
    )


async def search(page: Page[Any], query: str) -> list[Hit]:
    found = await page.api.get(API)
    return [
        Hit(N_("Gateways"), item["service_name"], item["region"], path_of(item["service_name"]))
        for item in found
        if query.casefold() in f"{item['service_name']} {item['description']}".casefold()
    ]


async def notices(page: Page[Any]) -> list[Notice]:
    """Gateways that are being made, that failed, and that send too much."""
    made = []
    for item in await page.api.get(API):
        name = item["service_name"]
        where: dict[str, Any] = {"url": path_of(name), "values": {"name": name}}
        if item["state"] in {"Provisioning", "Starting"}:
            share = running(item) / max(item["instances"], 1)
            made.append(Notice(title=N_("%(name)s is being provisioned."), progress=share, **where))
        elif item["state"] == "Failed":
            made.append(
                Notice(
                    title=N_("%(name)s could not be provisioned."),
                    text=item["reason"],
                    state="bad",
                    **where,
                )
            )
        elif item["state"] == "Stopped" and item["reason"]:
            made.append(
                Notice(title=N_("%(name)s was stopped."), text=item["reason"], state="bad", **where)
            )
        elif item["alerts"].get("outbound_gb"):
            alerts = await page.api.get(api_of(name, "/alerts"))
            if alerts["level"] in {"warning", "critical"}:
                state = "bad" if alerts["level"] == "critical" else "waiting"
                title = N_("%(name)s has sent %(percent)s %% of its threshold in 14 days.")
                values = {"name": name, "percent": page.language.number(alerts["percent"])}
                made.append(Notice(title=title, values=values, state=state, url=path_of(name)))
    return made


def routes(console: Console[Any]) -> list[BaseRoute]:
    one = f"{BASE}/{{name}}"
    return [
        console.route(BASE, gateways),
        console.route(one, gateway),
        console.route(f"{one}/do/{{verb}}", ask),
        console.route(f"{one}/do/{{verb}}", act, post=True),
    ]
