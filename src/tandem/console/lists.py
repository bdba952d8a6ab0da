"""The device list's address: what it filters and sorts by, read strictly and shown as chips."""

import csv
import io
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from enum import Enum
from typing import Any, TypeVar

from starlette.responses import StreamingResponse

from tandem.console import labels, summary
from tandem.console.labels import N_
from tandem.console.language import Language
from tandem.console.model import (
    DeviceFacts,
    Devices,
    EnrollmentState,
    Filter,
    FunnelStep,
    Management,
    OsGroup,
    Slice,
    Sort,
    Stage,
)
from tandem.workloads import Authority, Workload

Value = TypeVar("Value", bound=Enum)
SIZE = 50
EXPORT_SIZE = 500


def _one(kind: type[Value], text: str | None) -> Value | None:
    """An unknown word filters nothing: an old bookmark still opens."""
    return next((item for item in kind if item.value == text), None)


def wanted(query: Mapping[str, str]) -> Filter:
    error = query.get("error", "")
    return Filter(
        search=query.get("search", "")[:100],
        management=_one(Management, query.get("management")),
        operating_system=_one(OsGroup, query.get("os")),
        funnel=_one(FunnelStep, query.get("funnel")),
        enrollment=_one(EnrollmentState, query.get("enrollment")),
        failed=query.get("failed") == "1",
        stage=_one(Stage, query.get("stage")),
        missing=_one(Stage, query.get("missing")),
        workload=_one(Workload, query.get("workload")),
        owner=_one(Authority, query.get("owner")),
        error=int(error) if error.isascii() and error.isdigit() and len(error) < 12 else None,
    )


def part(query: Mapping[str, str]) -> Slice:
    page = query.get("page", "1")
    number = int(page) if page.isascii() and page.isdigit() and len(page) < 8 else 1
    return Slice(
        page=max(number, 1),
        size=SIZE,
        sort=_one(Sort, query.get("sort")) or Sort.NAME,
        descending=query.get("descending") == "1",
    )


def chips(found: Filter, without: Callable[..., str]) -> list[tuple[str, str, str, bool]]:
    """Each filter that holds: its name, its value, the address without it, and whether it is data."""
    shown: list[tuple[str, str | None, str, bool]] = [
        (N_("Search"), found.search, "search", True),
        (N_("Managed by"), labels.MANAGEMENT.get(found.management), "management", False),  # type: ignore[arg-type]
        (
            N_("Operating system"),
            labels.OPERATING_SYSTEM.get(found.operating_system),  # type: ignore[arg-type]
            "os",
            False,
        ),
        (N_("Co-management status"), labels.FUNNEL.get(found.funnel), "funnel", False),  # type: ignore[arg-type]
        (N_("Enrolment status"), labels.ENROLLMENT.get(found.enrollment), "enrollment", False),  # type: ignore[arg-type]
        (N_("Enrolment failures"), N_("Yes") if found.failed else None, "failed", False),
        (N_("Has reached"), labels.STAGE.get(found.stage), "stage", False),  # type: ignore[arg-type]
        (N_("Has not reached"), labels.STAGE.get(found.missing), "missing", False),  # type: ignore[arg-type]
        (N_("Workload"), labels.WORKLOAD.get(found.workload), "workload", False),  # type: ignore[arg-type]
        (N_("Owner"), labels.AUTHORITY.get(found.owner), "owner", False),  # type: ignore[arg-type]
        (
            N_("Error code"),
            labels.code(found.error) if found.error is not None else None,
            "error",
            True,
        ),
    ]
    return [
        (name, value, without(**{key: None, "page": None}), data)
        for name, value, key, data in shown
        if value
    ]


def export(
    fetch: Callable[[Slice], Awaitable[Devices]], sort: Slice, language: Language
) -> StreamingResponse:
    """Everything that the list holds, as CSV, a block of rows at a time."""

    async def lines() -> AsyncIterator[str]:
        yield cells([language.text(title) for title in labels.COLUMNS.values()])
        page = 1
        while True:
            block = await fetch(Slice(page, EXPORT_SIZE, sort.sort, sort.descending))
            for device in block.rows:
                yield cells(_cells(device, language))
            if page * EXPORT_SIZE >= block.total:
                return
            page += 1

    return StreamingResponse(
        lines(),
        media_type="text/csv; charset=utf-8",
        headers={"Content-Disposition": 'attachment; filename="devices.csv"'},
    )


def _cells(device: DeviceFacts, language: Language) -> list[str]:
    reached = summary.last_stage(device)
    return [
        device.name,
        device.user,
        device.os_version,
        language.text(labels.MANAGEMENT[device.management]),
        language.text(labels.STAGE[reached]) if reached else "",
        device.client_version,
        device.last_seen_at.isoformat() if device.last_seen_at else "",
    ]


def cells(row: Iterable[Any]) -> str:
    """One line of a CSV file. A cell that starts like a formula is data: no spreadsheet runs it."""
    texts = ["" if cell is None else str(cell) for cell in row]
    safe = [f"'{cell}" if cell[:1] in "=+-@\t\r" and cell else cell for cell in texts]
    text = io.StringIO()
    csv.writer(text).writerow(safe)
    return text.getvalue()
