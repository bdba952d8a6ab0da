"""The fields of forms: described once, then read, checked and drawn alike in wizards and pages."""

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from datetime import date
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import urlsplit

import msgspec

from tandem.console.labels import N_
from tandem.infra.errors import AppError, Kind

if TYPE_CHECKING:
    from tandem.console.drafts import Draft

Values = dict[str, Any]
# (value, what it is called); the name is a message id or data. More parts are shown beside it.
Option = tuple[str, ...]
Check = Callable[[Any, "Draft | None", Any], Awaitable[None]]
SEPARATOR = "\x1f"

NEEDED = N_("Fill this in.")
CHOOSE = N_("Choose one.")
NUL = N_("A character of this text cannot be stored.")
MOST_SHOWN = 20


class Problem(AppError):
    """What is wrong with one field, in its reader's words. `values` fill the message in."""

    kind: ClassVar[Kind] = Kind.INVALID
    code: ClassVar[str] = "console.field"

    def __init__(self, field: str, message: str, *, cure: str = "", **values: Any) -> None:
        super().__init__(message, cure=cure, field=field)
        self.field = field
        self.values = values


class Upload(msgspec.Struct, frozen=True):
    name: str
    data: bytes


class Field(msgspec.Struct, frozen=True, kw_only=True):
    """One question of a form. Without `check` any value of its kind is right."""

    name: str
    label: str
    kind: str = "text"
    hint: str = ""
    required: bool = False
    default: Any = ""
    options: Any = ()
    limit: int = 1024
    least: int | None = None
    most: int | None = None
    secret: bool = False
    several: bool = False
    accept: str = ""
    placeholder: str = ""
    autocomplete: str = "off"
    # Sent back as it is typed; several lines in a text.
    rows: int = 4
    check: Check | None = None
    when: Callable[[Values], bool] | None = None
    # A reason for which it cannot be changed here; empty while it can.
    locked: Callable[[Values], str] | None = None

    @property
    def listed(self) -> bool:
        return self.kind == "checks" or (self.kind == "picker" and self.several)

    def shown(self, values: Values) -> bool:
        return self.when is None or self.when(values)

    def initial(self) -> Any:
        if self.listed:
            return list(self.default or [])
        return bool(self.default) if self.kind == "checkbox" else self.default


def field(name: str, label: str, kind: str = "text", **more: Any) -> Field:
    """A Field, its three first words by position."""
    return Field(name=name, label=label, kind=kind, **more)


class Drawn(msgspec.Struct, frozen=True, kw_only=True):
    """A field as a template draws it. `check_url` is asked while somebody types."""

    field: Field
    value: Any
    options: tuple[Option, ...] = ()
    problem: AppError | None = None
    check_url: str = ""
    options_url: str = ""
    query: str = ""
    names: Mapping[str, str] = {}
    kept: str = ""
    locked: str = ""
    focus: bool = False


def read(
    fields: Iterable[Field],
    form: Mapping[str, str],
    lists: Mapping[str, Sequence[str]] | None = None,
    files: Mapping[str, Upload] | None = None,
) -> tuple[Values, dict[str, AppError]]:
    """The values of a form, each of its kind, and what is wrong by field. A value that is wrong is
    given back as it was typed."""
    values: Values = {}
    problems: dict[str, AppError] = {}
    fields = tuple(fields)
    for item in fields:
        try:
            values[item.name] = _value(item, form, lists or {}, files or {})
        except Problem as problem:
            problems[item.name] = problem
            values[item.name] = form.get(item.name, "")
        except RawProblem as raw:
            problems[item.name] = raw.problem
            values[item.name] = raw.value
    for item in fields:
        if not item.shown(values):
            problems.pop(item.name, None)
        elif (
            item.required
            and item.kind != "file"
            and item.name not in problems
            # Not by equality: a number may be 0, which equals False.
            and (values[item.name] in ("", None, []) or values[item.name] is False)
        ):
            choose = item.kind in ("select", "radio", "checks", "picker")
            problems[item.name] = Problem(item.name, CHOOSE if choose else NEEDED)
    return values, problems


class RawProblem(Exception):
    """A problem with what was typed, kept beside it."""

    def __init__(self, problem: Problem, value: Any) -> None:
        super().__init__()
        self.problem = problem
        self.value = value


def _value(
    item: Field,
    form: Mapping[str, str],
    lists: Mapping[str, Sequence[str]],
    files: Mapping[str, Upload],
) -> Any:
    if item.kind == "file":
        found = files.get(item.name)
        return found if found is not None and found.name else None
    if item.listed:
        chosen = list(dict.fromkeys(lists.get(item.name, ())))
        if any("\0" in one or len(one) > item.limit for one in chosen):
            raise RawProblem(Problem(item.name, NUL), [])
        return chosen
    if item.kind == "checkbox":
        return item.name in form
    text = form.get(item.name, "")
    if not item.secret and item.kind not in ("textarea", "password"):
        text = text.strip()
    if item.kind == "textarea":
        text = text.replace("\r\n", "\n")
    if "\0" in text:
        raise RawProblem(Problem(item.name, NUL), text.replace("\0", ""))
    if len(text) > item.limit:
        raise Problem(
            item.name,
            N_("At most %(most)s characters; these are %(many)s."),
            most=item.limit,
            many=len(text),
        )
    if not text:
        return text
    return _typed(item, text)


def _typed(item: Field, text: str) -> Any:
    if item.kind == "number":
        if not text.lstrip("-").isascii() or not text.lstrip("-").isdigit() or len(text) > 12:
            raise Problem(item.name, N_("This is a whole number."))
        number = int(text)
        low = item.least if item.least is not None else number
        high = item.most if item.most is not None else number
        if not low <= number <= high:
            if item.most is None:
                raise Problem(item.name, N_("At least %(least)s."), least=item.least)
            raise Problem(
                item.name,
                N_("From %(least)s to %(most)s."),
                least=item.least if item.least is not None else "…",
                most=item.most,
            )
        return number
    if item.kind == "url":
        try:
            parts = urlsplit(text)
        except ValueError:
            parts = urlsplit("")
        if parts.scheme not in ("http", "https") or not parts.netloc:
            raise Problem(item.name, N_("An address begins with https:// and a name."))
    if item.kind == "date":
        try:
            date.fromisoformat(text)
        except ValueError:
            raise Problem(item.name, N_("A date is written as year-month-day.")) from None
    if item.kind in ("select", "radio", "slider") and not callable(item.options):
        known = {option[0] for option in item.options}
        if known and text not in known:
            raise Problem(item.name, CHOOSE)
    return text


def names(item: Field, lists: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """What a picker's chosen things are called, as their own list said it."""
    found = {}
    for pair in lists.get(f"{item.name}--name", ()):
        key, _, name = pair.partition(SEPARATOR)
        found[key[:200]] = name[:200]
    return found


async def drawn(
    page: Any,
    fields: Iterable[Field],
    values: Mapping[str, Any],
    problems: Mapping[str, AppError] | None = None,
    *,
    draft: "Draft | None" = None,
    check_url: str = "",
    options_url: str = "",
    lists: Mapping[str, Sequence[str]] | None = None,
    form: Mapping[str, str] | None = None,
) -> tuple[Drawn, ...]:
    """Fields ready for `ui.fields`; the first that is wrong has the focus."""
    problems = problems or {}
    shown = [item for item in fields if item.shown(dict(values))]
    first = next((item.name for item in shown if item.name in problems), None)
    made = []
    for item in shown:
        query = (form or {}).get(f"{item.name}--query", "")[:100]
        value = values.get(item.name, item.initial())
        known = {**_kept_names(values, item), **names(item, lists or {})}
        options = await offered(page, item, draft, query)
        known.update({option[0]: option[1] for option in options})
        made.append(
            Drawn(
                field=item,
                value="" if item.secret or item.kind in ("file", "password") else value,
                options=options,
                problem=problems.get(item.name),
                check_url=check_url,
                options_url=f"{options_url}/{item.name}" if options_url else "",
                query=query,
                names=known,
                kept=_kept(item, draft),
                locked=item.locked(dict(values)) if item.locked else "",
                focus=item.name == first,
            )
        )
    return tuple(made)


def _kept(item: Field, draft: "Draft | None") -> str:
    """Of a secret or a file, that the draft has it: never more."""
    if draft is None:
        return ""
    if item.kind == "file":
        upload = draft.file(item.name)
        return upload.name if upload else ""
    return "…" if item.secret and draft.has_secret(item.name) else ""


def _kept_names(values: Mapping[str, Any], item: Field) -> dict[str, str]:
    kept = values.get(f"{item.name}--names")
    return dict(kept) if isinstance(kept, Mapping) else {}


async def offered(
    page: Any, item: Field, draft: "Draft | None", query: str = ""
) -> tuple[Option, ...]:
    """What may be chosen. A picker's options are searched for."""
    if not callable(item.options):
        return tuple(tuple(option) for option in item.options)
    if item.kind == "picker":
        return tuple((await item.options(page, draft, query))[:MOST_SHOWN])
    return tuple(await item.options(page, draft))
