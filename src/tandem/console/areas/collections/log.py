"""The site's audit log: who did what, what it was before and after, and whether the log is whole."""

from collections.abc import AsyncIterator
from typing import Any

from starlette.responses import Response
from starlette.routing import BaseRoute

from tandem.console.areas.collections.lists import listed
from tandem.console.kit import N_, ROOT, Console, Page, csv
from tandem.infra.errors import AppError, Kind

PATH = f"{ROOT}/audit"
API = "/api/v1/audit"
_FILTERS = ("actor", "action", "target", "outcome", "from", "to")
OUTCOMES = {"done": N_("Done"), "refused": N_("Refused")}
# What is a part of every line, or said elsewhere in it.
_TOLD = {"name", "changed"}


def _asked(page: Page[Any]) -> dict[str, str]:
    query = page.request.query_params
    found = {name: query.get(name, "").replace("\0", "").strip()[:256] for name in _FILTERS}
    if found["to"] and "T" not in found["to"]:
        # A day is meant until its end.
        found["to"] += "T23:59:59.999999Z"
    return {name: value for name, value in found.items() if value}


async def show(page: Page[Any]) -> Response:
    asked, wrong = _asked(page), None
    try:
        shown = await listed(page, API, ("id",), descending=True, **asked)
    except AppError as error:
        if error.kind is not Kind.INVALID:
            raise
        wrong = error
        shown = await listed(page, API, ("id",), descending=True)
    return page.render(
        "collections/audit.html",
        200 if wrong is None else 422,
        list=shown,
        proof=await page.api.get(f"{API}/verification"),
        wrong=wrong,
        asked={name: page.request.query_params.get(name, "") for name in _FILTERS},
        outcomes=OUTCOMES,
        changes=changes,
        facts=facts,
    )


def changes(entry: dict[str, Any]) -> list[tuple[str, str, str]]:
    """What it was and what it is, of each property that was changed."""
    found = []
    for item in entry["details"].get("changed") or []:
        if isinstance(item, dict):
            name, old, new = item.get("name"), item.get("old"), item.get("new")
            found.append((str(name), _text(old), _text(new)))
    details = entry["details"]
    if "from" in details and "to" in details:
        found.append(("", _text(details["from"]), _text(details["to"])))
    return found


def facts(entry: dict[str, Any]) -> list[tuple[str, str]]:
    """What else the entry says."""
    moved = {"from", "to"} if {"from", "to"} <= entry["details"].keys() else set()
    return [
        (name, _text(value))
        for name, value in entry["details"].items()
        if name not in _TOLD | moved and value not in ("", None, [], {})
    ]


def _text(value: Any) -> str:
    if isinstance(value, list):
        return "\n".join(_text(item) for item in value)
    if isinstance(value, dict):
        return ", ".join(f"{name}: {_text(item)}" for name, item in value.items())
    return "" if value is None else str(value)


async def export(page: Page[Any]) -> Response:
    asked = _asked(page)
    # Asked once before the file begins, so that a wrong filter is a page and not half a file.
    await page.api.get(API, limit=1, **asked)

    async def rows() -> AsyncIterator[list[Any]]:
        offset = 0
        while True:
            found = await page.api.get(API, sort="id", limit=1000, offset=offset, **asked)
            for entry in found["items"]:
                changed = [f"{name}: {old} → {new}" for name, old, new in changes(entry)]
                said = [f"{name}: {value}" for name, value in facts(entry)]
                yield [
                    entry["id"],
                    entry["at"],
                    entry["actor"],
                    entry["action"],
                    entry["details"].get("name") or "",
                    entry["target"],
                    entry["outcome"],
                    "; ".join([*changed, *said]),
                ]
            offset += len(found["items"])
            if not found["items"] or offset >= found["total"]:
                return

    header = ("number", "at", "actor", "action", "name", "target", "outcome", "details")
    return csv("audit", header, rows())


async def verify(page: Page[Any]) -> Response:
    await page.form()
    found = (await page.api.post(f"{API}/verification"))["verification"]
    if not found["whole"]:
        return page.to(PATH, N_("The log is not whole: see below."))
    return page.to(PATH, N_("The log is whole up to entry %(entries)s."), entries=found["entries"])


def routes(console: Console[Any]) -> list[BaseRoute]:
    return [
        console.route(PATH, show),
        console.route(f"{PATH}.csv", export),
        console.route(f"{PATH}/verify", verify, post=True),
    ]
