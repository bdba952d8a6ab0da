"""Conditions as SQL for PostgreSQL: column expressions of ours, values always as parameters."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from tandem.infra.errors import AppError, Kind
from tandem.protocols.odata.expressions import (
    And,
    Compare,
    Expression,
    Function,
    In,
    Lambda,
    Literal,
    Not,
    Or,
    Path,
)
from tandem.protocols.odata.values import Primitive, read_literal

_OPERATORS = {"eq": "=", "ne": "<>", "gt": ">", "ge": ">=", "lt": "<", "le": "<="}
_PATTERNS = {"startswith": "{}%", "endswith": "%{}", "contains": "%{}%"}


class Unsupported(AppError):
    kind, code = Kind.INVALID, "odata.unsupported-filter"


@dataclass(frozen=True, slots=True)
class Column:
    """A property in SQL. `has` answers `property/any(x: x/member eq value)` for collections:
    it gets the member's name and the value's placeholder, and returns a condition."""

    sql: str
    primitive: Primitive = Primitive.STRING
    has: Callable[[str, str], str] | None = None


def to_sql(expression: Expression, columns: Mapping[str, Column]) -> tuple[str, dict[str, Any]]:
    """A condition and its named parameters. `columns` is by lower-case property name.

    Raises Unsupported for a property or an operation that this collection cannot filter by.
    """
    parameters: dict[str, Any] = {}
    return _Writer(columns, parameters).condition(expression), parameters


class _Writer:
    def __init__(self, columns: Mapping[str, Column], parameters: dict[str, Any]) -> None:
        self._columns = columns
        self._parameters = parameters

    def _bind(self, value: Any) -> str:
        name = f"f{len(self._parameters)}"
        self._parameters[name] = value
        return f"%({name})s"

    def _column(self, expression: Expression) -> Column:
        if isinstance(expression, Function) and expression.name in ("tolower", "toupper"):
            return self._column(expression.arguments[0])
        if isinstance(expression, Path):
            column = self._columns.get("/".join(expression.names).lower())
            if column is not None:
                return column
            name = "/".join(expression.names)
            raise Unsupported(
                f"The property '{name}' does not exist here or cannot be filtered by.",
                cure="Filter by another property, or read the collection and filter it yourself.",
            )
        raise Unsupported(
            "The filter compares something that is not a property.",
            cure="Write property, operator, value: displayName eq 'Alex'.",
        )

    def condition(self, expression: Expression) -> str:
        match expression:
            case And(items):
                return "(" + " AND ".join(self.condition(item) for item in items) + ")"
            case Or(items):
                return "(" + " OR ".join(self.condition(item) for item in items) + ")"
            case Not(item):
                return f"(({self.condition(item)}) IS NOT TRUE)"
            case Compare(("eq" | "ne") as operator, Function() as test, Literal(bool(value))):
                inner = self.condition(test)
                return inner if value is (operator == "eq") else f"(({inner}) IS NOT TRUE)"
            case Compare(operator, left, Literal(value)):
                return self._compare(self._column(left), operator, value)
            case Compare(operator, Literal(value), right):
                return self._compare(self._column(right), _mirrored(operator), value)
            case In(left, values):
                column = self._column(left)
                tests = [self._compare(column, "eq", value.value) for value in values]
                return "(" + " OR ".join(tests) + ")"
            case Function(name, (left, Literal(str(value)))) if name in _PATTERNS:
                column = self._column(left)
                escaped = value.lower().replace("\\", "\\\\").replace("%", r"\%")
                pattern = _PATTERNS[name].format(escaped.replace("_", r"\_"))
                return f"lower({column.sql}::text) LIKE {self._bind(pattern)}"
            case Lambda("any", collection, variable, Compare("eq", Path(names), Literal(value))):
                column = self._column(collection)
                if column.has is not None and names[0] == variable:
                    return column.has("/".join(names[1:]), self._bind(_text(value)))
            case Path():
                column = self._column(expression)
                if column.primitive is Primitive.BOOLEAN:
                    return f"({column.sql}) IS TRUE"
        raise Unsupported(
            "This collection cannot be filtered in that way.",
            cure="Use eq, in, startswith or a comparison of one property with one value.",
        )

    def _compare(self, column: Column, operator: str, value: Any) -> str:
        if value is None:
            if operator not in ("eq", "ne"):
                return "FALSE"
            return f"({column.sql}) IS {'NOT ' if operator == 'ne' else ''}NULL"
        try:
            held = read_literal(value, column.primitive)
        except ValueError:
            if column.primitive is Primitive.GUID:
                return "TRUE" if operator == "ne" else "FALSE"
            raise Unsupported(
                f"{value!r} cannot be compared with that property.",
                cure=f"Give a value of the type {column.primitive.value}.",
            ) from None
        if column.primitive is Primitive.STRING:
            left, right = f"lower({column.sql})", f"lower({self._bind(held)})"
        else:
            left, right = f"({column.sql})", self._bind(held)
        if operator == "ne":
            return f"{left} IS DISTINCT FROM {right}"
        return f"{left} {_OPERATORS[operator]} {right}"


def _text(value: Any) -> str:
    return str(value)


def _mirrored(operator: str) -> str:
    return {"gt": "lt", "lt": "gt", "ge": "le", "le": "ge"}.get(operator, operator)
