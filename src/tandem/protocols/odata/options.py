"""Query options, with or without `$`, as clients really send them."""

from collections.abc import Iterable
from dataclasses import dataclass

from tandem.infra.errors import AppError, Kind
from tandem.protocols.odata.expressions import Expression, is_advanced, parse_filter

_KNOWN = frozenset(
    {"select", "filter", "expand", "top", "skip", "skiptoken", "orderby", "count", "search"}
)


class BadOption(AppError):
    kind, code = Kind.INVALID, "odata.bad-option"


@dataclass(frozen=True, slots=True)
class Order:
    name: str
    descending: bool = False


@dataclass(frozen=True, slots=True)
class Expand:
    name: str
    query: "Query"


@dataclass(frozen=True, slots=True)
class Query:
    select: tuple[str, ...] = ()
    filter: Expression | None = None
    expand: tuple[Expand, ...] = ()
    orderby: tuple[Order, ...] = ()
    top: int | None = None
    skip: int = 0
    skiptoken: str = ""
    count: bool = False
    search: str = ""

    @property
    def hard(self) -> bool:
        """Whether it is an advanced query of directory objects, which needs ConsistencyLevel."""
        if self.filter is None:
            return bool(self.search)
        return bool(self.search or self.orderby) or is_advanced(self.filter)


def parse_query(pairs: Iterable[tuple[str, str]]) -> Query:
    """The options that are known; others are left alone. Raises BadOption or BadFilter."""
    given: dict[str, str] = {}
    for name, value in pairs:
        # A leading "?" is left over from "??$expand=", which a known client sends.
        plain = name.lstrip("?").removeprefix("$").lower()
        if plain in _KNOWN:
            if plain in given:
                raise BadOption(f"The option ${plain} is given twice.", cure="Give it once.")
            given[plain] = value
    condition = given.get("filter", "").strip()
    return Query(
        select=_names(given.get("select", "")),
        filter=parse_filter(condition) if condition else None,
        expand=_expand(given.get("expand", "")),
        orderby=_orderby(given.get("orderby", "")),
        top=_number(given, "top"),
        skip=_number(given, "skip") or 0,
        skiptoken=given.get("skiptoken", ""),
        count=given.get("count", "").lower() == "true",
        search=given.get("search", ""),
    )


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


def _number(given: dict[str, str], name: str) -> int | None:
    text = given.get(name)
    if text is None:
        return None
    if not text.isascii() or not text.isdigit() or len(text) > 9:
        raise BadOption(f"${name} is not a whole number.", cure=f"Write ${name}=100, for example.")
    return int(text)


def _orderby(text: str) -> tuple[Order, ...]:
    orders = []
    for item in _names(text):
        name, _, direction = item.partition(" ")
        direction = direction.strip().lower()
        if direction not in ("", "asc", "desc"):
            raise BadOption(
                f"$orderby has the direction {direction!r}.", cure="Use asc or desc after the name."
            )
        orders.append(Order(name, direction == "desc"))
    return tuple(orders)


def _expand(text: str, depth: int = 0) -> tuple[Expand, ...]:
    if depth > 3:
        raise BadOption("$expand is nested too deeply.", cure="Ask for less at once.")
    found = []
    for item in _split(text, ","):
        name, bracket, rest = item.partition("(")
        if bracket and not rest.endswith(")"):
            raise BadOption("$expand has a bracket that is not closed.", cure="Close it.")
        options = [part.partition("=") for part in _split(rest[:-1], ";")] if bracket else []
        nested = [(key.strip(), value) for key, _, value in options]
        inner = parse_query(pair for pair in nested if "expand" not in pair[0].lower())
        deeper = [value for key, value in nested if "expand" in key.lower()]
        if deeper:
            inner = Query(select=inner.select, expand=_expand(deeper[0], depth + 1))
        found.append(Expand(name.strip(), inner))
    return tuple(found)


def _split(text: str, mark: str) -> list[str]:
    """Split at the mark where no bracket is open."""
    parts, depth, current = [], 0, ""
    for character in text:
        depth += {"(": 1, ")": -1}.get(character, 0)
        if character == mark and depth == 0:
            parts.append(current)
            current = ""
        else:
            current += character
    parts.append(current)
    return [part.strip() for part in parts if part.strip()]
