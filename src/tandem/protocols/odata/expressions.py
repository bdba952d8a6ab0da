"""The condition of `$filter`: text to tree, with bounds on length, depth and size."""

import re
import uuid
from dataclasses import dataclass
from datetime import datetime
from typing import NoReturn

from tandem.infra.errors import AppError, Kind
from tandem.protocols.odata.values import parse_time

MAX_CHARACTERS = 8_000
MAX_DEPTH = 32
MAX_NODES = 500
MAX_IN = 200


class BadFilter(AppError):
    kind, code = Kind.INVALID, "odata.bad-filter"


@dataclass(frozen=True, slots=True)
class Literal:
    value: str | bool | int | float | datetime | uuid.UUID | None


@dataclass(frozen=True, slots=True)
class Path:
    """A property by its segments; type casts in it are kept in `cast`."""

    names: tuple[str, ...]
    cast: str = ""


@dataclass(frozen=True, slots=True)
class Function:
    name: str
    arguments: tuple["Expression", ...]


@dataclass(frozen=True, slots=True)
class Compare:
    operator: str
    left: "Expression"
    right: "Expression"


@dataclass(frozen=True, slots=True)
class In:
    left: "Expression"
    values: tuple[Literal, ...]


@dataclass(frozen=True, slots=True)
class Lambda:
    """`collection/any(x: condition)`; without a condition it asks whether there is an item."""

    quantifier: str
    collection: Path
    variable: str
    condition: "Expression | None"


@dataclass(frozen=True, slots=True)
class Not:
    item: "Expression"


@dataclass(frozen=True, slots=True)
class And:
    items: tuple["Expression", ...]


@dataclass(frozen=True, slots=True)
class Or:
    items: tuple["Expression", ...]


Expression = Literal | Path | Function | Compare | In | Lambda | Not | And | Or

_TOKEN = re.compile(
    r"""\s*(?:
      (?P<string>'(?:[^']|'')*')
    | (?P<guid>[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}(?![\w-]))
    | (?P<time>\d{4}-\d\d-\d\d(?:T\d\d:\d\d(?::\d\d)?(?:\.\d+)?(?:Z|[+\ -]\d\d:\d\d)?)?(?![\w-]))
    | (?P<number>-?\d{1,40}(?:\.\d{1,40})?(?![\w-]))
    | (?P<name>[A-Za-z_@$][\w.@]{0,255})
    | (?P<mark>[()/,:])
    )""",
    re.VERBOSE,
)
_COMPARISONS = frozenset({"eq", "ne", "gt", "ge", "lt", "le", "has"})
FUNCTIONS = {
    "startswith": 2,
    "endswith": 2,
    "contains": 2,
    "tolower": 1,
    "toupper": 1,
    "isof": 1,
}


def is_advanced(expression: Expression) -> bool:
    """Whether it has a part that Graph's directory answers only from its search index."""
    match expression:
        case And(items) | Or(items):
            return any(is_advanced(item) for item in items)
        case Compare(operator, left, right):
            return operator == "ne" or is_advanced(left) or is_advanced(right)
        case Function(name, _):
            return name in ("endswith", "contains")
        case Lambda(_, _, _, condition):
            return condition is not None and is_advanced(condition)
    return isinstance(expression, Not)


def parse_filter(text: str) -> Expression:
    """The condition as a tree. Raises BadFilter, which names the place that is not understood."""
    if len(text) > MAX_CHARACTERS:
        raise BadFilter(
            f"The filter is longer than {MAX_CHARACTERS} characters.",
            cure="Ask in several requests, or filter on another property.",
        )
    return _Parser(text).whole()


@dataclass(frozen=True, slots=True)
class _Token:
    sort: str
    text: str
    at: int


class _Parser:
    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens = self._scan(text)
        self._next = 0
        self._depth = 0
        self._nodes = 0

    def _scan(self, text: str) -> list[_Token]:
        tokens, at, end = [], 0, len(text.rstrip())
        while at < end:
            found = _TOKEN.match(text, at)
            if found is None or found.lastgroup is None:
                self._refuse(at)
            tokens.append(_Token(found.lastgroup, found[found.lastgroup], at))
            at = found.end()
        return tokens

    def _refuse(self, at: int) -> NoReturn:
        around = self._text[at : at + 20].strip()
        where = f"at {around!r}" if around else "at its end"
        raise BadFilter(
            f"The filter is not understood {where} (character {at + 1}).",
            cure="Write it like: startswith(displayName,'A') and accountEnabled eq true.",
        )

    def _peek(self) -> _Token:
        if self._next < len(self._tokens):
            return self._tokens[self._next]
        return _Token("end", "", len(self._text))

    def _take(self) -> _Token:
        token = self._peek()
        self._next += 1
        return token

    def _mark(self, text: str) -> bool:
        token = self._peek()
        if token.sort == "mark" and token.text == text:
            self._next += 1
            return True
        return False

    def _word(self, *words: str) -> str:
        token = self._peek()
        if token.sort == "name" and token.text.lower() in words:
            self._next += 1
            return token.text.lower()
        return ""

    def _expect(self, text: str) -> None:
        if not self._mark(text):
            self._refuse(self._peek().at)

    def whole(self) -> Expression:
        found = self._or()
        if self._peek().sort != "end":
            self._refuse(self._peek().at)
        return found

    def _enter(self) -> None:
        self._depth += 1
        self._count()

    def _count(self, nodes: int = 1) -> None:
        self._nodes += nodes
        if self._depth > MAX_DEPTH or self._nodes > MAX_NODES:
            raise BadFilter(
                "The filter is nested too deeply or has too many parts.",
                cure="Ask in several requests.",
            )

    def _or(self) -> Expression:
        self._enter()
        items = [self._and()]
        while self._word("or"):
            items.append(self._and())
        self._depth -= 1
        return items[0] if len(items) == 1 else Or(tuple(items))

    def _and(self) -> Expression:
        items = [self._not()]
        while self._word("and"):
            items.append(self._not())
        return items[0] if len(items) == 1 else And(tuple(items))

    def _not(self) -> Expression:
        if self._word("not"):
            self._enter()
            item = self._not()
            self._depth -= 1
            return Not(item)
        return self._comparison()

    def _comparison(self) -> Expression:
        self._count()
        left = self._operand()
        operator = self._word(*_COMPARISONS)
        if operator:
            return Compare(operator, left, self._operand())
        if self._word("in"):
            self._expect("(")
            values = [self._literal()]
            while self._mark(","):
                values.append(self._literal())
                if len(values) > MAX_IN:
                    raise BadFilter(
                        f"The list after 'in' has more than {MAX_IN} values.",
                        cure="Ask in several requests.",
                    )
            self._expect(")")
            return In(left, tuple(values))
        return left

    def _literal(self) -> Literal:
        at = self._peek().at
        found = self._operand()
        if not isinstance(found, Literal):
            self._refuse(at)
        return found

    def _operand(self) -> Expression:
        token = self._take()
        match token.sort:
            case "string":
                return Literal(token.text[1:-1].replace("''", "'"))
            case "guid":
                return Literal(uuid.UUID(token.text))
            case "time":
                # A "+" that was not escaped in the URL has become a space.
                moment = parse_time(token.text.replace(" ", "+"))
                if moment is None:
                    self._refuse(token.at)
                return Literal(moment)
            case "number":
                return Literal(float(token.text) if "." in token.text else int(token.text))
            case "mark" if token.text == "(":
                return self._bracketed()
            case "name":
                return self._named(token)
        self._refuse(token.at)

    def _bracketed(self) -> Expression:
        inner = self._or()
        self._expect(")")
        # (microsoft.graph.managedApp/appAvailability): a cast before a property of a derived type.
        return inner

    def _named(self, token: _Token) -> Expression:
        lower = token.text.lower()
        if lower in ("true", "false"):
            return Literal(lower == "true")
        if lower == "null":
            return Literal(None)
        following = self._peek()
        if following.sort == "string" and "." in token.text:
            # microsoft.graph.managementAgentType'mdm': an enum value with its type spelled out.
            self._next += 1
            return Literal(following.text[1:-1].replace("''", "'"))
        if self._mark("("):
            return self._function(token, lower)
        return self._path(token)

    def _function(self, token: _Token, name: str) -> Expression:
        if name not in FUNCTIONS:
            raise BadFilter(
                f"The function {token.text} is not known here.",
                cure="Known: " + ", ".join(sorted(FUNCTIONS)) + ".",
            )
        self._enter()
        arguments = [self._argument(name)]
        while self._mark(","):
            arguments.append(self._argument(name))
        self._expect(")")
        self._depth -= 1
        if name == "isof" and len(arguments) == 2:
            del arguments[0]  # isof($it, type) is isof(type)
        if len(arguments) != FUNCTIONS[name]:
            self._refuse(token.at)
        return Function(name, tuple(arguments))

    def _argument(self, function: str) -> Expression:
        token = self._peek()
        if function == "isof" and token.sort == "name":
            self._next += 1
            return Literal(token.text)
        return self._operand()

    def _path(self, token: _Token) -> Expression:
        names, cast = [], ""
        if "." in token.text and not token.text.startswith("@"):
            cast = token.text
        else:
            names.append(token.text)
        while self._mark("/"):
            part = self._take()
            if part.sort != "name":
                self._refuse(part.at)
            if part.text.lower() in ("any", "all") and self._mark("("):
                return self._lambda(part.text.lower(), Path(tuple(names), cast))
            names.append(part.text)
        if not names or any(name.startswith("$") for name in names):
            self._refuse(token.at)
        return Path(tuple(names), cast)

    def _lambda(self, quantifier: str, collection: Path) -> Expression:
        if self._mark(")"):
            return Lambda(quantifier, collection, "", None)
        variable = self._take()
        if variable.sort != "name" or not collection.names:
            self._refuse(variable.at)
        self._expect(":")
        condition = self._or()
        self._expect(")")
        return Lambda(quantifier, collection, variable.text, condition)
