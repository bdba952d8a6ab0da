"""What went through gateways: each word of theirs taken once, and the sums that are shown of it."""

import re
from collections import defaultdict
from collections.abc import Iterable
from datetime import date, datetime, timedelta
from typing import Any

from tandem.infra.database import Tx
from tandem.protocols import tunnel
from tandem.site import clients, software_updates
from tandem.site.cloud_services import store
from tandem.site.cloud_services.model import ConnectionPoint, Gateway

# The sums that are shown (spec 5.3).
SUMS = (14, 30)
# Hours that are shown one by one.
HOURS = 24
_HOURLY_DAYS = 35
# A gateway that has told nothing for so long has nobody online, as far as is known.
_SILENT = timedelta(minutes=5)

# What gateways count of their own answers, and what is none of the names that are published.
REFUSED, EDGE, CONTENT, OTHER = "refused", "edge", "content", "other"
ADMINSERVICE = "AdminService"
_UPDATES = frozenset(one.path.lower() for one in software_updates.ENDPOINTS)
_NAMES = {
    name.lower(): name
    for name in (
        *(one.path for one in clients.ENDPOINTS),
        *(one.path for one in software_updates.ENDPOINTS),
        *(ADMINSERVICE, REFUSED, EDGE, CONTENT),
    )
}
_NAMES["/ccm_content"] = CONTENT
_PREFIX = re.compile(r"/CCM_Proxy_\w+/\d+/([^/]+)")
_RUN = re.compile(r"[0-9A-Za-z]{1,64}")
_FIGURES = ("requests", "failures", "request_bytes", "response_bytes", "elapsed_ms")
# No honest gateway counts so much in one word.
_MOST = 2**48


def endpoint_of(prefix: str) -> str:
    """The name below the role's number. A gateway that lies fills no more rows than there are names."""
    found = _PREFIX.match(prefix)
    return _NAMES.get((found[1] if found else prefix).lower(), OTHER)


def role_of(endpoint: str) -> str:
    """The role of the site that stands behind a name, or behind a path that ends in it; the gateway
    itself behind some."""
    if endpoint in {REFUSED, EDGE, CONTENT, OTHER}:
        return "gateway"
    name = endpoint.rpartition("/")[2].lower()
    if name in _UPDATES:
        return "software-update-point"
    if name.startswith(tunnel.ORIGIN.strip("/").lower()):
        return "distribution-point"
    return "admin-service" if name == ADMINSERVICE.lower() else "management-point"


async def take(
    tx: Tx, point: ConnectionPoint, report: tunnel.ConnectorReport, now: datetime
) -> tuple[list[tunnel.Told], list[tunnel.GatewayTelling]]:
    """Write down what a connection point counted and what gateways told by it.

    What has come before counts no second time, and is acknowledged all the same. Returns what is
    acknowledged, and what of it is news.
    """
    told, news = [], []
    points = {one.name for one in await store.connection_points(tx)}
    # In the order in which whoever reports at the same time takes them, too.
    for item in sorted(report.tellings, key=lambda one: (one.service_name, one.instance)):
        if await store.gateway(tx, item.service_name) is None:
            continue
        telling = item.telling
        if not _RUN.fullmatch(telling.run) or not 0 < telling.sequence < _MOST:
            continue
        source = f"{item.service_name}/{item.instance}"
        if await store.take_sequence(tx, source, telling.run, telling.sequence, now):
            counts = _together(telling.counts, points)
            for key, figures in sorted(counts.items()):
                await store.add_gateway_traffic(
                    tx, item.service_name, item.instance, *key, now, figures
                )
            news.append(item)
            if 1 <= telling.worker <= 64:
                await store.save_gateway_worker(tx, item, now)
        told.append(tunnel.Told(telling.run, telling.sequence))
    # A connection point of the release before says no number.
    if not report.run or await store.take_sequence(
        tx, f"point/{point.name}", report.run, report.sequence, now
    ):
        await store.add_point_traffic(tx, point.name, report.traffic, now)
    return told, news


def _together(
    counts: Iterable[tunnel.Counted], points: set[str]
) -> dict[tuple[str, str], list[float]]:
    sums: dict[tuple[str, str], list[float]] = defaultdict(lambda: [0] * len(_FIGURES))
    for one in counts:
        point = one.connection_point if one.connection_point in points else ""
        kept = sums[point, endpoint_of(one.endpoint)]
        for index, name in enumerate(_FIGURES):
            kept[index] += min(max(getattr(one, name), 0), _MOST)
    return sums


async def outbound(tx: Tx, service_name: str, now: datetime, days: int) -> int:
    """Bytes that went out to clients. Of a gateway that does not tell, those that connection points
    handed to it."""
    rows = await store.gateway_days(tx, service_name, now.date() - timedelta(days=days - 1))
    return sum(int(row["response_bytes"]) for row in rows)


async def fold(tx: Tx, today: date) -> None:
    """Hours of days that no sum by hour reaches any more become their day."""
    await store.fold_gateway_traffic(tx, today - timedelta(days=_HOURLY_DAYS))


async def shape(tx: Tx, gateway: Gateway, now: datetime, days: int) -> dict[str, Any]:
    """Everything that is shown of a gateway's traffic."""
    name = gateway.service_name
    longest = max(days, *SUMS)
    today = now.date()
    rows = await store.gateway_days(tx, name, today - timedelta(days=longest - 1))
    endpoints: dict[str, dict[int, dict[str, float]]] = {}
    for row in rows:
        sums = endpoints.setdefault(row["endpoint"], {count: _nothing() for count in SUMS})
        for count in SUMS:
            if row["day"] > today - timedelta(days=count):
                _add(sums[count], row)
    first = today - timedelta(days=days - 1)
    return {
        "service_name": name,
        "days": days,
        "online": await online(tx, name, now),
        "sums": [
            {"days": count, **_sum(sums[count] for sums in endpoints.values())} for count in SUMS
        ],
        "endpoints": [
            {
                "endpoint": endpoint,
                "role": role_of(endpoint),
                "sums": [{"days": count, **sums[count]} for count in SUMS],
            }
            for endpoint, sums in sorted(endpoints.items())
        ],
        "by_day": [
            {"day": row["day"], "endpoint": row["endpoint"], **_figures(row)}
            for row in rows
            if row["day"] >= first
        ],
        "by_hour": await store.gateway_hours(tx, name, now - timedelta(hours=HOURS)),
        "by_point": [
            {**row, "role": role_of(row["endpoint"])}
            for row in await store.gateway_points(tx, name, first)
        ],
    }


async def online(tx: Tx, service_name: str, now: datetime) -> dict[str, Any]:
    """Devices that wait for news through this gateway, and connections that are open to it."""
    workers = await store.gateway_workers(tx, service_name)
    fresh = [one for one in workers if one["told_at"] > now - _SILENT]
    return {
        "clients": sum(one["online"] for one in fresh),
        "connections": sum(one["connections"] for one in fresh),
        "told_at": max((one["told_at"] for one in workers), default=None),
    }


def _nothing() -> dict[str, float]:
    return dict.fromkeys(_FIGURES, 0)


def _figures(row: dict[str, Any]) -> dict[str, Any]:
    return {name: row[name] for name in _FIGURES}


def _add(sums: dict[str, float], row: dict[str, Any]) -> None:
    for name in _FIGURES:
        sums[name] += row[name]


def _sum(items: Iterable[dict[str, float]]) -> dict[str, float]:
    total = _nothing()
    for item in items:
        _add(total, item)
    return total
