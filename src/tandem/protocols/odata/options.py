"""Query options, with or without `$`, as clients really send them, within bounds."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from tandem.infra.errors import AppError, Kind
from tandem.protocols.odata.expressions import (
    And,
    Expression,
    Function,
    Literal,
    Or,
    Path,
    is_advanced,
    parse_filter,
)

_KNOWN = frozenset(
    {
        "select",
        "filter",
        "expand",
        "top",
        "skip",
        "skiptoken",
        "orderby",
        "count",
        "search",
        "deltatoken",
    }
)
# Options of OData that change an answer so much that they must not be passed over in silence.
_REFUSED = frozenset({"apply", "compute", "index"})

MAX_SELECT = 200
MAX_ORDERS = 10
MAX_EXPANDS = 20
MAX_EXPAND_DEPTH = 3
MAX_SEARCH_TERMS = 10
MAX_SEARCH_CHARACTERS = 1_000


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
    """`search` is the condition that $search stands for."""

    select: tuple[str, ...] = ()
    filter: Expression | None = None
    expand: tuple[Expand, ...] = ()
    orderby: tuple[Order, ...] = ()
    top: int | None = None
    skip: int = 0
    skiptoken: str = ""
    deltatoken: str = ""
    count: bool = False
    search: Expression | None = None

    @property
    def condition(self) -> Expression | None:
        """$filter and $search together."""
        both = tuple(item for item in (self.filter, self.search) if item is not None)
        return And(both) if len(both) == 2 else both[0] if both else None

    @property
    def hard(self) -> bool:
        """Whether it is an advanced query of directory objects, which needs ConsistencyLevel."""
        if self.filter is None:
            return self.search is not None
        return self.search is not None or bool(self.orderby) or is_advanced(self.filter)


def parse_query(pairs: Iterable[tuple[str, str]]) -> Query:
    """The options that are known; others are left alone. Raises BadOption or BadFilter."""
    return _query(_given(pairs), 0, [0])


def _given(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    given: dict[str, str] = {}
    for name, value in pairs:
        # A leading "?" is left over from "??$expand=", which a known client sends.
        plain = name.strip().lstrip("?").removeprefix("$").lower()
        if plain in _REFUSED:
            raise BadOption(
                f"The option ${plain} is not served here.", cure="Leave it out of the request."
            )
        if plain in _KNOWN or plain == "levels":
            if plain in given:
                raise BadOption(f"The option ${plain} is given twice.", cure="Give it once.")
            given[plain] = value
    return given


def _query(given: dict[str, str], depth: int, expands: list[int]) -> Query:
    if not given:
        return _NOTHING
    condition = given.get("filter", "").strip()
    return Query(
        select=_names(given.get("select", ""), "select", MAX_SELECT),
        filter=parse_filter(condition) if condition else None,
        expand=_expand(given.get("expand", ""), depth, expands),
        orderby=_orderby(given.get("orderby", "")),
        top=_number(given, "top"),
        skip=_number(given, "skip") or 0,
        skiptoken=given.get("skiptoken", ""),
        deltatoken=given.get("deltatoken", ""),
        count=given.get("count", "").strip().lower() == "true",
        search=parse_search(given.get("search", "")),
    )


_NOTHING = Query()


def _names(text: str, option: str, most: int) -> tuple[str, ...]:
    names = tuple(name.strip() for name in text.split(",") if name.strip())
    if len(names) > most:
        raise BadOption(f"${option} has more than {most} names.", cure="Ask for fewer.")
    return names


def _number(given: dict[str, str], name: str) -> int | None:
    text = given.get(name)
    if text is None:
        return None
    text = text.strip()
    if not text.isascii() or not text.isdigit() or len(text) > 9:
        raise BadOption(f"${name} is not a whole number.", cure=f"Write ${name}=100, for example.")
    return int(text)


def _orderby(text: str) -> tuple[Order, ...]:
    orders = []
    for item in _names(text, "orderby", MAX_ORDERS):
        name, _, direction = item.partition(" ")
        direction = direction.strip().lower()
        if direction not in ("", "asc", "desc"):
            raise BadOption(
                f"$orderby has the direction {direction!r}.", cure="Use asc or desc after the name."
            )
        orders.append(Order(name, direction == "desc"))
    return tuple(orders)


def _expand(text: str, depth: int, expands: list[int]) -> tuple[Expand, ...]:
    if not text.strip():
        return ()
    if depth >= MAX_EXPAND_DEPTH:
        raise BadOption(
            f"$expand is nested more than {MAX_EXPAND_DEPTH} deep.", cure="Ask for less at once."
        )
    found = []
    for item in _split(text, ","):
        expands[0] += 1
        if expands[0] > MAX_EXPANDS:
            raise BadOption(
                f"$expand names more than {MAX_EXPANDS} properties.", cure="Ask for less at once."
            )
        name, bracket, rest = item.partition("(")
        if bracket and not rest.endswith(")"):
            raise BadOption("$expand has a bracket that is not closed.", cure="Close it.")
        options = [part.partition("=") for part in _split(rest[:-1], ";")] if bracket else []
        given = _given((key, value) for key, _, value in options)
        inner = _query({k: v for k, v in given.items() if k != "levels"}, depth + 1, expands)
        found.append(_leveled(name.strip(), inner, given.get("levels", "1"), depth))
    return tuple(found)


def _leveled(name: str, query: Query, levels: str, depth: int) -> Expand:
    """$levels=2 is the same expansion once more inside itself."""
    most = MAX_EXPAND_DEPTH - depth
    if levels.strip().lower() == "max":
        count = most
    elif levels.strip().isascii() and levels.strip().isdigit() and len(levels) < 4:
        count = int(levels)
    else:
        raise BadOption("$levels is not a whole number or max.", cure="Write $levels=2.")
    if count > most:
        raise BadOption(
            f"$levels goes more than {MAX_EXPAND_DEPTH} deep.", cure="Ask for less at once."
        )
    expand = Expand(name, query)
    for _ in range(count - 1):
        expand = Expand(name, replace(query, expand=(*query.expand, expand)))
    return expand


def _split(text: str, mark: str) -> list[str]:
    """Split at the mark where no bracket and no quote is open."""
    parts, depth, quoted, start = [], 0, False, 0
    for at, character in enumerate(text):
        if character == "'":
            quoted = not quoted
        elif not quoted:
            depth += {"(": 1, ")": -1}.get(character, 0)
            if character == mark and depth == 0:
                parts.append(text[start:at])
                start = at + 1
    parts.append(text[start:])
    return [part.strip() for part in parts if part.strip()]


def parse_search(text: str) -> Expression | None:
    """`"displayName:word"` or `"word"`, several joined by AND or OR; AND binds more tightly.

    A word that names no property is looked for in displayName.
    """
    text = text.strip()
    if not text:
        return None
    if len(text) > MAX_SEARCH_CHARACTERS:
        raise BadOption("$search is too long.", cure="Search for fewer or shorter words.")
    groups: list[list[Expression]] = [[]]
    for number, piece in enumerate(_pieces(text)):
        if number % 2 == 0:
            groups[-1].append(_term(piece))
        elif piece.upper() == "OR":
            groups.append([])
        elif piece.upper() != "AND":
            raise _bad_search()
    if not all(groups) or sum(len(group) for group in groups) > MAX_SEARCH_TERMS:
        raise _bad_search()
    every = [group[0] if len(group) == 1 else And(tuple(group)) for group in groups]
    return every[0] if len(every) == 1 else Or(tuple(every))


def _pieces(text: str) -> list[str]:
    if '"' not in text:
        return [text]
    pieces, rest = list[str](), text
    while rest:
        if rest[0] == '"':
            word, closed, rest = rest[1:].partition('"')
            if not closed:
                raise _bad_search()
            pieces.append(word)
        else:
            operator, _, rest = rest.partition('"')
            pieces.append(operator.strip())
            rest = '"' + rest
            if len(pieces) % 2:
                raise _bad_search()
        rest = rest.strip()
        if len(pieces) > 2 * MAX_SEARCH_TERMS:
            raise _bad_search()
    return pieces


def _term(piece: str) -> Expression:
    name, colon, word = piece.partition(":")
    if not colon or not name.isidentifier():
        name, word = "displayName", piece
    if not word.strip():
        raise _bad_search()
    return Function("contains", (Path((name,)), Literal(word.strip())))


def _bad_search() -> BadOption:
    return BadOption("$search is not understood.", cure='Write $search="displayName:word".')
