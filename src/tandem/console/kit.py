"""The kit that pages are made of: what an area imports, and nothing else of this package.

docs/guide/console-kit.md says how a page, a form and a wizard are written.
"""

import csv as comma_separated
import io
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from datetime import datetime
from typing import Any

import msgspec
from starlette.responses import Response, StreamingResponse
from starlette.routing import BaseRoute

from tandem.console.backend import CHANGED, Answer, Api, Refused
from tandem.console.drafts import Draft
from tandem.console.fields import (
    Field,
    Option,
    Problem,
    Upload,
    Values,
    drawn,
    field,
    offered,
    read,
)
from tandem.console.labels import N_, Place
from tandem.console.model import Fact, NotSignedIn, UnknownPage
from tandem.console.pages import ROOT, Console, Page
from tandem.console.wizards import Outcome, Step, Wizard, start_url

__all__ = [
    "CHANGED",
    "N_",
    "ROOT",
    "Answer",
    "Api",
    "Area",
    "Console",
    "Draft",
    "Fact",
    "Field",
    "Hit",
    "NotSignedIn",
    "Notice",
    "Option",
    "Outcome",
    "Page",
    "Place",
    "Problem",
    "Refused",
    "Step",
    "UnknownPage",
    "Upload",
    "Values",
    "Wizard",
    "csv",
    "drawn",
    "field",
    "offered",
    "read",
    "start_url",
]


class Hit(msgspec.Struct, frozen=True):
    """One thing that the global search found. `kind` is a message id, the rest is data."""

    kind: str
    title: str
    detail: str
    url: str


class Notice(msgspec.Struct, frozen=True, kw_only=True):
    """Long work, or something that wants an administrator. `title` is a message id, filled in with
    `values`; `progress` is a share from 0 to 1."""

    title: str
    values: dict[str, Any] = {}
    text: str = ""
    state: str = "waiting"
    progress: float | None = None
    url: str = ""
    at: datetime | None = None


Search = Callable[[Page[Any], str], Awaitable[list[Hit]]]
Notices = Callable[[Page[Any]], Awaitable[list[Notice]]]


class Area(msgspec.Struct, frozen=True, kw_only=True):
    """A group of pages: what views mounts, and what the shell shows of it."""

    name: str
    places: tuple[Place, ...] = ()
    routes: Callable[[Console[Any]], list[BaseRoute]] = lambda console: []
    wizards: tuple[Wizard, ...] = ()
    search: tuple[Search, ...] = ()
    notices: tuple[Notices, ...] = ()


def csv(name: str, header: Iterable[str], rows: AsyncIterator[Iterable[Any]]) -> Response:
    """A file that a spreadsheet opens, row by row; no cell of it is a formula."""

    async def lines() -> AsyncIterator[str]:
        yield _line(header)
        async for row in rows:
            yield _line(row)

    return StreamingResponse(
        lines(),
        media_type="text/csv; charset=utf-8",
        headers={"Content-Disposition": f'attachment; filename="{name}.csv"'},
    )


def _line(row: Iterable[Any]) -> str:
    """A cell that starts like a formula is data: no spreadsheet runs it."""
    texts = ["" if cell is None else str(cell) for cell in row]
    safe = [f"'{cell}" if cell[:1] in "=+-@\t\r" and cell else cell for cell in texts]
    text = io.StringIO()
    comma_separated.writer(text).writerow(safe)
    return text.getvalue()
