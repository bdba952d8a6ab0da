"""Lists that Graph pages, sorts and filters: what an address asks of them."""

from collections.abc import AsyncIterator, Mapping
from typing import Any
from urllib.parse import urlsplit

import msgspec

from tandem.console.kit import Page

SIZE = 50
MOST_PAGES = 100_000


class Asked(msgspec.Struct, frozen=True):
    search: str = ""
    page: int = 1
    sort: str = ""
    descending: bool = False

    @classmethod
    def of(cls, page: Page[Any], *, sorts: tuple[str, ...] = ()) -> "Asked":
        """An unknown word asks for nothing: an old bookmark still opens."""
        query = page.request.query_params
        number = query.get("page", "1")
        good = number.isascii() and number.isdigit() and len(number) < 7
        sort = query.get("sort", "")
        return cls(
            query.get("search", "")[:100].replace("\0", "").strip(),
            min(max(int(number), 1), MOST_PAGES) if good else 1,
            sort if sort in sorts else "",
            query.get("descending") == "1",
        )

    @property
    def order(self) -> str:
        return f"{self.sort} {'desc' if self.descending else 'asc'}" if self.sort else ""

    @property
    def slice(self) -> dict[str, Any]:
        """$count is said with the first page, and here with each."""
        skip = (self.page - 1) * SIZE
        return {"$top": SIZE, "$skip": skip or None, "$count": "true"}

    def pages(self, total: int) -> int:
        return max(1, -(-total // SIZE))


def quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def begins(text: str, *properties: str) -> str:
    """A condition of Graph: one of these properties begins with the text."""
    if not text:
        return ""
    return " or ".join(f"startswith({name},{quoted(text)})" for name in properties)


def both(*conditions: str) -> str:
    held = [item for item in conditions if item]
    return " and ".join(f"({item})" for item in held) if len(held) > 1 else "".join(held)


async def every(
    page: Page[Any], path: str, query: Mapping[str, Any]
) -> AsyncIterator[dict[str, Any]]:
    """Each item of a collection, one page of it at a time."""
    found = await page.api.get(path, **query)
    while True:
        for item in found["value"]:
            yield item
        onward = found.get("@odata.nextLink")
        if not onward:
            return
        parts = urlsplit(str(onward))
        found = await page.api.get(f"{parts.path}?{parts.query}")


def names(page: Page[Any], field: str) -> dict[str, str]:
    """What the things that a picker has chosen are called, as the form says it."""
    found = {}
    for pair in page.form_lists.get(f"{field}--name", ()):
        key, _, name = pair.partition("\x1f")
        found[key[:200]] = name[:200]
    return found
