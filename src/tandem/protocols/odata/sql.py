"""Conditions as SQL for PostgreSQL: column expressions of ours, values always as parameters.

A property is a column with a type, a JSON value whose type is that of what it is compared with, or
a JSON list that `any` and `all` look into. Text is compared without regard to case.
"""

import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
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
from tandem.protocols.odata.memory import Types
from tandem.protocols.odata.values import Primitive, read_literal

_OPERATORS = {"eq": "=", "ne": "<>", "gt": ">", "ge": ">=", "lt": "<", "le": "<="}
_PATTERNS = {"startswith": ("", "%"), "endswith": ("%", ""), "contains": ("%", "%")}
# What PostgreSQL reads as a time without complaint: anything else in a document is no time.
_TIME = r"'^\d{4}-(0[1-9]|1[0-2])-(0[1-9]|1\d|2[0-8])T([01]\d|2[0-3]):[0-5]\d(:[0-5]\d)?'"


class Unsupported(AppError):
    kind, code = Kind.INVALID, "odata.unsupported-filter"


@dataclass(frozen=True, slots=True)
class Column:
    """A property in SQL.

    `json` says that it is a jsonb value, `collection` that it is a jsonb list. `choices` are the
    exact spellings of an enumeration. `has` answers `property/any(x: x/member eq value)` for
    collections that are elsewhere: it gets the member's name and the value's placeholder, and
    returns a condition.
    """

    sql: str
    primitive: Primitive = Primitive.STRING
    has: Callable[[str, str], str] | None = None
    json: bool = False
    collection: bool = False
    choices: tuple[str, ...] = ()


# By this name `to_sql` finds the jsonb document of properties that have no column of their own.
REST = "*"


def to_sql(
    expression: Expression,
    columns: Mapping[str, Column],
    types: Types | None = None,
    type_sql: str = "",
    prefix: str = "f",
) -> tuple[str, dict[str, Any]]:
    """A condition and its named parameters. `columns` is by lower-case property name; `type_sql`
    holds the name of the row's type and `types` tells which types are of a type.

    Raises Unsupported for a property or an operation that this collection cannot filter by.
    """
    writer = _Writer(columns, types, type_sql, prefix)
    return writer.condition(expression), writer.parameters


class _Writer:
    def __init__(
        self, columns: Mapping[str, Column], types: Types | None, type_sql: str, prefix: str
    ) -> None:
        self.parameters: dict[str, Any] = {}
        self._columns = columns
        self._types = types
        self._type_sql = type_sql
        self._prefix = prefix
        self._variables: dict[str, Column] = {}
        self._lambdas = 0

    def _bind(self, value: Any) -> str:
        name = f"{self._prefix}{len(self.parameters)}"
        self.parameters[name] = value
        return f"%({name})s"

    # ------------------------------------------------------------------ properties

    def _column(self, expression: Expression) -> Column:
        if isinstance(expression, Function) and expression.name in ("tolower", "toupper"):
            return self._column(expression.arguments[0])
        if isinstance(expression, Path):
            return self._property(expression)
        raise Unsupported(
            "The filter compares something that is not a property.",
            cure="Write property, operator, value: displayName eq 'Alex'.",
        )

    def _property(self, path: Path) -> Column:
        names = path.names
        first = names[0].lower()
        if first in self._variables:
            return self._within(self._variables[first], names[1:])
        whole = self._columns.get("/".join(names).lower())
        if whole is not None:
            return whole
        column = self._columns.get(first)
        if column is not None and column.json and not column.collection:
            return self._within(column, names[1:])
        if REST in self._columns:
            return self._within(self._columns[REST], names)
        if path.cast:
            return Column("NULL::text")  # a property of a type that no row is of
        raise Unsupported(
            f"The property '{'/'.join(names)}' does not exist here or cannot be filtered by.",
            cure="Filter by another property, or read the collection and filter it yourself.",
        )

    def _within(self, column: Column, names: tuple[str, ...]) -> Column:
        if not names:
            return column
        return Column(f"({column.sql} #> {self._bind(list(names))}::text[])", json=True)

    # ------------------------------------------------------------------ conditions

    def condition(self, expression: Expression) -> str:
        match expression:
            case And(items):
                return "(" + " AND ".join(self.condition(item) for item in items) + ")"
            case Or(items):
                return "(" + " OR ".join(self.condition(item) for item in items) + ")"
            case Not(item):
                return f"(({self.condition(item)}) IS NOT TRUE)"
            case Compare(("eq" | "ne") as operator, test, Literal(bool(value))) if not isinstance(
                test, Path
            ):
                inner = self.condition(test)
                return inner if value is (operator == "eq") else f"(({inner}) IS NOT TRUE)"
            case Compare(operator, Literal(value), right):
                return self._compare(self._column(right), _mirrored(operator), value)
            case Compare(operator, Function() as left, right) if _text(left) is not None:
                return self._compare(self._column(right), _mirrored(operator), _text(left))
            case Compare(operator, left, Literal(value)):
                return self._compare(self._column(left), operator, value)
            case Compare(operator, left, Function() as right) if _text(right) is not None:
                return self._compare(self._column(left), operator, _text(right))
            case In(left, values):
                return self._in(self._column(left), [item.value for item in values])
            case Function("isof", (Literal(str(wanted)),)):
                return self._is_of(wanted)
            case Function(name, (left, right)) if name in _PATTERNS and _text(right) is not None:
                return self._like(self._column(left), name, str(_text(right)))
            case Lambda():
                return self._lambda(expression)
            case Path():
                column = self._column(expression)
                if column.json:
                    return f"({column.sql} = 'true'::jsonb)"
                if column.primitive is Primitive.BOOLEAN:
                    return f"({column.sql}) IS TRUE"
            case Literal(bool(value)):
                return "TRUE" if value else "FALSE"
        raise Unsupported(
            "This collection cannot be filtered in that way.",
            cure="Use eq, in, startswith or a comparison of one property with one value.",
        )

    def _like(self, column: Column, name: str, value: str) -> str:
        before, after = _PATTERNS[name]
        escaped = value.replace("\\", "\\\\").replace("%", r"\%").replace("_", r"\_")
        pattern = self._bind(f"{before}{escaped}{after}")
        if column.json:
            held = f"lower({column.sql} #>> '{{}}') LIKE lower({pattern})"
            return f"(jsonb_typeof({column.sql}) = 'string' AND {held})"
        return f"lower(({column.sql})::text) LIKE lower({pattern})"

    def _in(self, column: Column, values: list[Any]) -> str:
        plain = not column.json and not column.choices and column.primitive is Primitive.STRING
        if plain and all(isinstance(value, str) for value in values):
            listed = ", ".join(f"lower({self._bind(value)})" for value in values)
            return f"lower({column.sql}) IN ({listed})"
        return "(" + " OR ".join(self._compare(column, "eq", value) for value in values) + ")"

    def _is_of(self, wanted: str) -> str:
        name = wanted.lower().removeprefix("#").removeprefix("microsoft.graph.")
        known = self._types(name) if self._types is not None else frozenset({name})
        if not self._type_sql:
            return "FALSE"
        return f"lower({self._type_sql}) = ANY({self._bind(sorted(known))})"

    def _lambda(self, expression: Lambda) -> str:
        column = self._column(expression.collection)
        condition, variable = expression.condition, expression.variable
        if column.has is not None:
            match condition:
                case Compare("eq", Path(names), Literal(value)) if (
                    names[0] == variable and expression.quantifier == "any"
                ):
                    return column.has("/".join(names[1:]), self._bind(str(value)))
        elif column.json or column.collection:
            self._lambdas += 1
            item = f"l{self._lambdas}"
            listed = (
                f"jsonb_array_elements(CASE WHEN jsonb_typeof({column.sql}) = 'array'"
                f" THEN {column.sql} ELSE '[]'::jsonb END) AS {item}(v)"
            )
            if condition is None:
                return f"EXISTS (SELECT 1 FROM {listed})"  # noqa: S608  our own text
            outer = self._variables.get(variable.lower())
            self._variables[variable.lower()] = Column(f"{item}.v", json=True)
            inner = self.condition(condition)
            del self._variables[variable.lower()]
            if outer is not None:
                self._variables[variable.lower()] = outer
            if expression.quantifier == "any":
                return f"EXISTS (SELECT 1 FROM {listed} WHERE {inner})"  # noqa: S608
            return f"NOT EXISTS (SELECT 1 FROM {listed} WHERE ({inner}) IS NOT TRUE)"  # noqa: S608
        name = "/".join(expression.collection.names)
        raise Unsupported(
            f"The property '{name}' cannot be asked with {expression.quantifier} in that way.",
            cure=f"Write {name}/any(x:x/member eq 'value'), or filter it yourself.",
        )

    def _compare(self, column: Column, operator: str, value: Any) -> str:
        if column.json or column.collection:
            return self._compare_json(column.sql, operator, value)
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
        if operator == "has":
            return _has(f"({column.sql})::text", self._bind(str(held)))
        if column.choices and operator in ("eq", "ne"):
            exact = {choice.lower(): choice for choice in column.choices}.get(str(held).lower())
            left, right = f"({column.sql})", self._bind(exact if exact is not None else held)
        elif column.primitive is Primitive.STRING:
            left, right = f"lower({column.sql})", f"lower({self._bind(held)})"
        elif column.primitive is Primitive.BOOLEAN and operator not in ("eq", "ne"):
            return "FALSE"
        else:
            left, right = f"({column.sql})", self._bind(held)
        if operator == "ne":
            return f"{left} IS DISTINCT FROM {right}"
        return f"{left} {_OPERATORS[operator]} {right}"

    def _compare_json(self, sql: str, operator: str, value: Any) -> str:
        if operator == "ne":
            return f"(({self._compare_json(sql, 'eq', value)}) IS NOT TRUE)"
        text = f"({sql} #>> '{{}}')"
        if value is None:
            nothing = f"({sql} IS NULL OR jsonb_typeof({sql}) = 'null')"
            return nothing if operator == "eq" else "FALSE"
        if isinstance(value, bool):
            if operator != "eq":
                return "FALSE"
            return f"({sql} = to_jsonb({self._bind(value)}::boolean))"
        if isinstance(value, int | float):
            sort, left, right = "number", f"{text}::numeric", f"{self._bind(value)}::numeric"
        elif isinstance(value, datetime):
            left, right = f"{text}::timestamptz", f"{self._bind(value)}::timestamptz"
            test = f"jsonb_typeof({sql}) = 'string' AND {text} ~ {_TIME}"
            return f"(CASE WHEN {test} THEN {left} {_OPERATORS.get(operator, '=')} {right} END)"
        else:
            held = str(value) if isinstance(value, uuid.UUID) else value
            if operator == "has":
                return f"(jsonb_typeof({sql}) = 'string' AND {_has(text, self._bind(held))})"
            sort, left, right = "string", f"lower({text})", f"lower({self._bind(held)})"
        if operator == "has":
            return "FALSE"
        test = f"jsonb_typeof({sql}) = '{sort}'"
        return f"(CASE WHEN {test} THEN {left} {_OPERATORS[operator]} {right} END)"


def _has(text: str, bound: str) -> str:
    """Whether a flag is among those of a comma-joined text."""
    return f"lower({bound}) = ANY(regexp_split_to_array(lower({text}), '\\s*,\\s*'))"


def _text(expression: Expression) -> Any:
    """The value of a literal, or of tolower('…') and toupper('…'): case does not matter here."""
    match expression:
        case Literal(value):
            return value
        case Function("tolower" | "toupper", (Literal(str(value)),)):
            return value
    return None


def _mirrored(operator: str) -> str:
    return {"gt": "lt", "lt": "gt", "ge": "le", "le": "ge"}.get(operator, operator)
