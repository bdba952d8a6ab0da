"""The device list: filtered, ordered and by pages in the database, and as CSV."""

from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import urlencode

from starlette.responses import Response

from tandem.console.areas.fleet import words
from tandem.console.areas.fleet.words import DEVICES, filter_of
from tandem.console.kit import ROOT, Page, csv

REFRESH_SECONDS = 5
SIZE = 50
EXPORT_SIZE = 1000


async def show(page: Page[Any]) -> Response:
    query = page.request.query_params
    wanted = filter_of(query)
    sort, descending = _order(query)
    number = _page(query.get("page", "1"))
    asked = {**wanted, "sort": sort, "descending": descending, "limit": SIZE}
    found = await page.api.get(DEVICES, **asked, offset=(number - 1) * SIZE)
    pages = max(1, -(-found["total"] // SIZE))
    if number > pages:
        number = pages
        found = await page.api.get(DEVICES, **asked, offset=(number - 1) * SIZE)
    return page.render(
        "fleet/devices.html",
        shown=found,
        wanted=wanted,
        query=urlencode(wanted),
        filters=words.shown(wanted),
        sort=sort,
        descending=descending == "true",
        number_of_page=number,
        pages=pages,
        words=words,
        export=f"{ROOT}/devices.csv" + (f"?{urlencode(list(query.items()))}" if query else ""),
        refresh_seconds=REFRESH_SECONDS,
    )


def _order(query: Any) -> tuple[str, str]:
    sort = query.get("sort", "")
    return (
        sort if sort in words.COLUMNS else "name",
        "true" if query.get("descending") == "1" else "",
    )


def _page(text: str) -> int:
    return max(1, int(text)) if text.isascii() and text.isdigit() and len(text) < 8 else 1


async def export(page: Page[Any]) -> Response:
    """All that the list holds: each part goes on where the one before ended."""
    query, api, language = page.request.query_params, page.api, page.language
    wanted = filter_of(query)
    sort, descending = _order(query)
    asked = {**wanted, "sort": sort, "descending": descending, "limit": EXPORT_SIZE}
    # What is refused is refused before the first byte.
    first = await api.get(DEVICES, **asked, counted="false")

    async def rows() -> AsyncIterator[list[Any]]:
        part = first
        while True:
            for device in part["devices"]:
                stage, managed = device["stage"], words.MANAGEMENT[device["management"]]
                yield [
                    device["name"],
                    device["user"],
                    device["os_version"],
                    language.text(managed),
                    language.text(words.STAGE[stage]) if stage else "",
                    device["client_version"],
                    device["last_seen_at"] or "",
                ]
            if not part["after"]:
                return
            part = await api.get(DEVICES, **asked, counted="false", after=part["after"])

    return csv("devices", [language.text(title) for title in words.COLUMNS.values()], rows())
