"""Lists of the admin API by pages: what a page asks for, and what its template gets."""

from collections.abc import AsyncIterator, Iterable, Sequence
from typing import Any

import msgspec

from tandem.console.kit import Page

SIZE = 50
_EXPORTED = 1000


class Listed(msgspec.Struct, frozen=True):
    items: list[dict[str, Any]]
    total: int
    page: int
    pages: int
    sort: str
    descending: bool
    search: str


async def listed(
    page: Page[Any], path: str, sorts: Sequence[str], *, descending: bool = False, **query: Any
) -> Listed:
    """A page of a list, as the address of this page asks for it. What no list has is its usual."""
    asked = page.request.query_params
    chosen = asked.get("sort", "")
    if chosen in sorts:
        descending = asked.get("descending") == "1"
    else:
        chosen = sorts[0]
    number = number_of(asked.get("page", ""))
    search = asked.get("search", "").replace("\0", "").strip()[:200]
    found = await _part(page, path, chosen, descending, number, search, query)
    pages = max(1, -(-found["total"] // SIZE))
    if number > pages:
        number = pages
        found = await _part(page, path, chosen, descending, number, search, query)
    return Listed(found["items"], found["total"], number, pages, chosen, descending, search)


async def _part(
    page: Page[Any],
    path: str,
    sort: str,
    descending: bool,
    number: int,
    search: str,
    query: dict[str, Any],
) -> Any:
    return await page.api.get(
        path,
        sort=f"-{sort}" if descending else sort,
        limit=SIZE,
        offset=(number - 1) * SIZE,
        search=search,
        **query,
    )


def number_of(text: str) -> int:
    """The number of a page; the first for what is no number."""
    return max(1, int(text)) if text.isascii() and text.isdigit() and len(text) < 7 else 1


async def every(
    page: Page[Any], path: str, names: Iterable[str], **query: Any
) -> AsyncIterator[list[Any]]:
    """All rows of a list for a file, part by part."""
    columns, offset = list(names), 0
    while True:
        found = await page.api.get(path, limit=_EXPORTED, offset=offset, **query)
        for item in found["items"]:
            yield [item.get(name) for name in columns]
        offset += len(found["items"])
        if not found["items"] or offset >= found["total"]:
            return
