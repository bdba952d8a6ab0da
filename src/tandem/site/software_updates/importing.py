"""Updates from a file: CSV of our own, or JSON in the shape of the Debian security tracker.

    CSV   a line of column names, then one update a line. Columns: package, fixed_version, article,
          and any of name, source, release, classification, severity, superseded_by, url, sha256.
    JSON  {"openssl": {"CVE-2025-9230": {"description": "…", "releases": {"bookworm":
          {"status": "resolved", "fixed_version": "3.0.17-1~deb12u2", "urgency": "high"}}}}}

A file is taken whole or not at all: what is wrong is refused with its position.
"""

import csv
import io
from typing import Annotated, Literal

import msgspec

from tandem.site.software_updates.model import IMPORT_LIMIT, BadFile, BadUpdate, Wanted, check

Format = Literal["csv", "debian-tracker"]
_COLUMNS = tuple(Wanted.__struct_fields__)
_NEEDED = ("package", "fixed_version", "article")
_TRUE, _FALSE = ("true", "yes", "1"), ("false", "no", "0", "")
# A field of CSV may be no longer: the library's own limit, said in our words.
_FIELD_LIMIT = 4096
# The tracker's urgencies, and the severities of the field.
_SEVERITY = {
    "low": "low",
    "medium": "moderate",
    "high": "important",
    "critical": "critical",
}


class _Release(msgspec.Struct):
    status: str = ""
    fixed_version: str = ""
    urgency: str = ""


class _Entry(msgspec.Struct):
    releases: dict[str, _Release]
    description: str = ""


_Tracker = dict[Annotated[str, msgspec.Meta(max_length=256)], dict[str, _Entry]]


def read(format: Format, content: str, release: str = "") -> list[Wanted]:
    """What a file says; `release` narrows it to one. Raises BadFile, which says where it is wrong."""
    found = _read_csv(content) if format == "csv" else _read_tracker(content, release)
    if release:
        found = [one for one in found if one.release in ("", release)]
    if len(found) > IMPORT_LIMIT:
        raise BadFile(
            f"The file has {len(found)} updates; at most {IMPORT_LIMIT} are taken at once.",
            cure="Name the release that you want, or take the packages that you have.",
        )
    if not found:
        raise BadFile(
            "The file has no update that could be approved.",
            cure="An update names the version that fixes it; of a tracker those that are resolved count.",
        )
    return found


def _read_csv(content: str) -> list[Wanted]:
    # A spreadsheet puts a byte order mark before the first column.
    rows = csv.reader(io.StringIO(content.removeprefix("\ufeff"), newline=""), strict=True)
    found: list[Wanted] = []
    try:
        names = [name.strip().lower() for name in next(rows, [])]
        _check_columns(names)
        seen: dict[tuple[str, str, str], int] = {}
        for row in rows:
            line = rows.line_num
            if not any(cell.strip() for cell in row):
                continue
            if len(row) != len(names):
                raise _bad(line, f"it has {len(row)} fields, and the first line names {len(names)}")
            made = _of_row(dict(zip(names, row, strict=True)), line)
            key = (made.package, made.article.lower(), made.release)
            if key in seen:
                raise _bad(line, f"this is the update of line {seen[key]} again")
            seen[key] = line
            found.append(made)
    except csv.Error as error:
        raise _bad(rows.line_num, str(error)) from None
    return found


def _check_columns(names: list[str]) -> None:
    unknown = [name for name in names if name not in _COLUMNS]
    missing = [name for name in _NEEDED if name not in names]
    if unknown or missing or len(set(names)) != len(names):
        wrong = (
            f"there is no column {unknown[0][:64]!r}"
            if unknown
            else f"the column {missing[0]} is missing"
            if missing
            else "a column is there twice"
        )
        raise _bad(1, wrong)


def _of_row(cells: dict[str, str], line: int) -> Wanted:
    values: dict[str, str | bool] = {}
    for name, cell in cells.items():
        cell = cell.strip()
        if len(cell) > _FIELD_LIMIT or "\0" in cell:
            raise _bad(line, f"{name} is too long, or no text", name)
        if name == "source":
            if cell.lower() not in (*_TRUE, *_FALSE):
                raise _bad(line, "source is true or false", name)
            values[name] = cell.lower() in _TRUE
        elif cell:
            values[name] = cell
    try:
        return check(msgspec.convert({**dict.fromkeys(_NEEDED, ""), **values}, Wanted))
    except BadUpdate as error:
        field = str(error.details.get("field", ""))
        raise _bad(line, error.message.removeprefix(f"{field}: ").rstrip("."), field) from None


def _bad(line: int, wrong: str, column: str = "") -> BadFile:
    where = f"Line {line}" + (f", column {column}" if column else "")
    return BadFile(
        f"{where}: {wrong}.",
        cure="Nothing was taken. Correct the line and import the file again.",
        position=f"line {line}",
        field="content",
    )


def _read_tracker(content: str, release: str) -> list[Wanted]:
    try:
        tracker = msgspec.json.decode(content, type=_Tracker)
    except (msgspec.DecodeError, RecursionError) as error:
        raise _bad_json(str(error) or "it is nested too deep") from None
    found: list[Wanted] = []
    for package, entries in tracker.items():
        for article, entry in entries.items():
            for name, state in entry.releases.items():
                # "0" says that the release never had the flaw.
                if state.status != "resolved" or state.fixed_version in ("", "0"):
                    continue
                if release and name != release:
                    continue
                text = entry.description.replace("\0", "").strip().splitlines() or [""]
                wanted = Wanted(
                    package,
                    state.fixed_version,
                    article,
                    name=f"{article} {package}: {text[0]}"[:200].strip(" :")
                    if text[0].isprintable()
                    else "",
                    source=True,
                    release=name,
                    severity=_SEVERITY.get(state.urgency.strip("* "), "none"),
                )
                try:
                    found.append(check(wanted))
                except BadUpdate as error:
                    where = f"$.{package[:64]}.{article[:64]}.releases.{name[:64]}"
                    raise _bad_json(f"{where}: {error.message.rstrip('.')}", where) from None
    return found


def _bad_json(wrong: str, position: str = "") -> BadFile:
    return BadFile(
        f"The file is not in the shape of the Debian security tracker: {wrong}.",
        cure="Nothing was taken. Correct the file and import it again.",
        position=position or wrong[-200:],
        field="content",
    )
