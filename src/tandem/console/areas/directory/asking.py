"""How the directory's pages ask Graph: lists by parts, pickers, and what the reader may do."""

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any
from urllib.parse import quote

import msgspec

from tandem.console.kit import N_, Draft, Option, Page, Problem

GRAPH = "/v1.0"
PAGE = 50
_MOST = 999
# Advanced queries of the directory: contains, an order beside a filter, a count.
EVENTUAL = {"ConsistencyLevel": "eventual"}


class Part(msgspec.Struct, frozen=True):
    """One page of a list."""

    rows: list[dict[str, Any]]
    total: int
    page: int
    pages: int
    sort: str
    descending: bool


class Rights(msgspec.Struct, frozen=True):
    """What who is signed in may do, by Graph's own account."""

    parts: dict[str, dict[str, Any]]
    roles: list[str]

    def write(self, part: str) -> bool:
        return bool(self.parts.get(part, {}).get("write"))

    def read(self, part: str) -> bool:
        return bool(self.parts.get(part, {}).get("read"))

    def writers(self, part: str) -> list[str]:
        """Who may, for a reader who may not."""
        named = [str(name) for name in self.parts.get(part, {}).get("writers", [])]
        return ["Global Administrator", *(n for n in named if n != "Global Administrator")]


async def rights(page: Page[Any]) -> Rights:
    found = await page.api.get(f"{GRAPH}/tandem/access")
    return Rights(found["parts"], found["roles"])


def safe(text: str) -> str:
    """A text as one part of a path of Graph, whatever is in it."""
    return quote(text, safe="")


def key(page: Page[Any], name: str = "id") -> str:
    """An id of the path, as it goes into a path of Graph."""
    return safe(page.request.path_params[name])


def literal(text: str) -> str:
    """A text in a $filter."""
    return "'" + text.replace("'", "''") + "'"


def query(page: Page[Any], name: str, most: int = 100) -> str:
    return page.request.query_params.get(name, "").strip()[:most].replace("\0", "")


async def listed(
    page: Page[Any],
    path: str,
    *,
    select: str = "",
    where: Sequence[str] = (),
    sorts: Mapping[str, str] | None = None,
    size: int = PAGE,
    more: Mapping[str, Any] | None = None,
) -> Part:
    """The page of a list that the address names; `sorts` are the columns and what Graph calls
    them. A page behind the last one is the last one."""
    wanted = query(page, "page", 6)
    number = max(1, int(wanted)) if wanted.isascii() and wanted.isdigit() else 1
    sorts = sorts or {}
    sort = query(page, "sort")
    sort = sort if sort in sorts else next(iter(sorts), "")
    descending = query(page, "descending") == "1"
    asked = {
        "$top": size,
        "$count": "true",
        "$select": select,
        "$filter": " and ".join(f"({item})" for item in where),
        "$orderby": f"{sorts[sort]} {'desc' if descending else 'asc'}" if sort else "",
        **(more or {}),
    }
    for _ in range(2):
        answer = await page.api.ask(
            "GET",
            path,
            query={**asked, "$skip": (number - 1) * size or None},
            headers=EVENTUAL,
        )
        found = answer.json
        total = int(found.get("@odata.count", len(found["value"])))
        pages = max(1, -(-total // size))
        if number <= pages:
            break
        number = pages
    return Part(found["value"], total, number, pages, sort, descending)


async def every(page: Page[Any], path: str, **asked: Any) -> AsyncIterator[dict[str, Any]]:
    """All items, a page of Graph at a time."""
    found = (await page.api.ask("GET", path, query=asked, headers=EVENTUAL)).json
    while True:
        for item in found["value"]:
            yield item
        link = found.get("@odata.nextLink")
        if not link:
            return
        found = (await page.api.ask("GET", link, headers=EVENTUAL)).json


async def all_of(page: Page[Any], path: str, **asked: Any) -> list[dict[str, Any]]:
    return [item async for item in every(page, path, **asked)]


def like(names: Sequence[str], text: str) -> str:
    return " or ".join(f"contains({name},{literal(text)})" for name in names)


# ---------------------------------------------------------------------------------- pickers


async def _found(
    page: Page[Any], path: str, names: Sequence[str], text: str, more: Sequence[str] = ()
) -> list[dict[str, Any]]:
    where = ([f"({like(names, text)})"] if text else []) + list(more)
    asked = {
        "$top": 20,
        "$count": "true",
        "$filter": " and ".join(where),
        "$orderby": "displayName",
        "$select": ",".join(("id", *names)),
    }
    answer = await page.api.ask("GET", f"{GRAPH}/{path}", query=asked, headers=EVENTUAL)
    return list(answer.json["value"])


async def users(page: Page[Any], draft: Draft | None, text: str = "") -> list[Option]:
    found = await _found(page, "users", ("displayName", "userPrincipalName"), text)
    return [(item["id"], item["displayName"], item["userPrincipalName"]) for item in found]


async def groups(page: Page[Any], draft: Draft | None, text: str = "") -> list[Option]:
    found = await _found(page, "groups", ("displayName", "description"), text)
    return [(item["id"], item["displayName"], item.get("description") or "") for item in found]


async def devices(page: Page[Any], draft: Draft | None, text: str = "") -> list[Option]:
    found = await _found(page, "devices", ("displayName", "operatingSystemVersion"), text)
    return [
        (item["id"], item["displayName"], item.get("operatingSystemVersion") or "")
        for item in found
    ]


async def members(page: Page[Any], draft: Draft | None, text: str = "") -> list[Option]:
    """Users, devices and groups: what a group can have in it."""
    found = [*await users(page, draft, text), *await devices(page, draft, text)]
    return [*found, *await groups(page, draft, text)]


async def location_is_known(page: Page[Any], draft: Draft | None, value: Any) -> None:
    if value and not (len(value) == 2 and value.isascii() and value.isalpha()):
        raise Problem(
            "usageLocation",
            N_("A usage location is a country's code of two letters."),
            cure=N_("For example FR, DE or US."),
        )


def ref(object_id: str) -> dict[str, str]:
    return {"@odata.id": f"https://graph.microsoft.com/v1.0/directoryObjects/{object_id}"}
