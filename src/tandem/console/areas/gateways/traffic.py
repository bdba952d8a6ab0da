"""A gateway's traffic: who is online, sums of 14 and 30 days, and each endpoint by day."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

from starlette.responses import Response
from starlette.routing import BaseRoute

from tandem.console.areas.gateways import words
from tandem.console.areas.gateways.pages import BASE, api_of, named, path_of, tabs
from tandem.console.kit import N_, Console, Page

_DAYS = (14, 30)
# A bar has so many parts; the endpoints with the least are one of them.
_PARTS = 5


async def traffic(page: Page[Any]) -> Response:
    name = named(page)
    days = 30 if page.request.query_params.get("days") == "30" else 14
    found = await page.api.get(api_of(name, "/traffic"), days=days)
    alerts = await page.api.get(api_of(name, "/alerts"))
    level, look = words.LEVELS[alerts["level"]]
    endpoints = found["endpoints"]
    names = [
        one["endpoint"] for one in sorted(endpoints, key=lambda one: -one["sums"][-1]["requests"])
    ]
    return page.render(
        "gateways/traffic.html",
        name=name,
        url=path_of(name),
        tabs=tabs(name, "traffic"),
        days=days,
        choices=_DAYS,
        online=found["online"],
        told_at=words.at(found["online"]["told_at"]),
        sums=found["sums"],
        alerts=alerts,
        level=level,
        level_look=look,
        endpoints=[
            {**one, "label": _label(one["endpoint"]), "role": _role(one)} for one in endpoints
        ],
        names=[(one, _label(one)) for one in names],
        rows=_by_day(page, found["by_day"], days),
        parts=_parts(page, found["by_day"], names, days),
        hours=_by_hour(page, found["by_hour"]),
        points=[
            {**one, "label": _label(one["endpoint"]), "role": _role(one)}
            for one in found["by_point"]
        ],
        refresh_seconds=60,
    )


def _label(endpoint: str) -> str:
    """What is no name of a protocol is said in words."""
    return words.COUNTED.get(endpoint, endpoint)


def _role(one: Mapping[str, Any]) -> str:
    role: str = one["role"]
    return words.ROLES.get(role, role)


def _by_day(page: Page[Any], found: Sequence[Mapping[str, Any]], days: int) -> list[dict[str, Any]]:
    """Each of the last days, those without traffic included, the latest first."""
    known: dict[str, dict[str, Any]] = defaultdict(dict)
    for row in found:
        known[row["day"]][row["endpoint"]] = row
    today = page.now.date()
    rows = []
    for ago in range(days):
        day = today - timedelta(days=ago)
        ends = known.get(day.isoformat(), {})
        rows.append(
            {
                "day": page.language.day(day),
                "requests": {name: row["requests"] for name, row in ends.items()},
                "all": sum(row["requests"] for row in ends.values()),
                "sent_bytes": sum(row["response_bytes"] for row in ends.values()),
            }
        )
    return rows


def _parts(
    page: Page[Any], found: Sequence[Mapping[str, Any]], names: Sequence[str], days: int
) -> dict[str, Any]:
    """The chart: a bar for each day, made of the busiest endpoints and the rest."""
    say, number = page.language.text, page.language.number
    shown = list(names[:_PARTS])
    rest = len(names) > _PARTS
    rows = []
    for row in reversed(_by_day(page, found, days)):
        values = [row["requests"].get(name, 0) for name in shown]
        values += [row["all"] - sum(values)] if rest else []
        rows.append(
            {
                "name": row["day"],
                "parts": [{"value": v, "shown": number(v), "part": True} for v in values],
            }
        )
    legend = [say(_label(name)) for name in shown] + ([say(N_("All others"))] if rest else [])
    return {"rows": rows, "names": legend}


def _by_hour(page: Page[Any], found: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Hours in which something came, the latest first."""
    hours: dict[str, dict[str, Any]] = {}
    for row in found:
        known = hours.setdefault(
            row["hour"], {"at": row["hour"], "requests": 0, "failures": 0, "sent_bytes": 0}
        )
        known["requests"] += row["requests"]
        known["failures"] += row["failures"]
        known["sent_bytes"] += row["response_bytes"]
    return list(reversed(hours.values()))


def routes(console: Console[Any]) -> list[BaseRoute]:
    return [console.route(f"{BASE}/{{name}}/traffic", traffic)]
