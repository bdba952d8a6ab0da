"""Conditions asked about a row in memory, with the answers that `to_sql` gives in a database."""

import uuid
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from tandem.protocols.odata.expressions import (
    And,
    BadFilter,
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
from tandem.protocols.odata.values import parse_time, render

# Which types are of a type: takes and gives small letters, without namespace.
Types = Callable[[str], frozenset[str]]
_TYPES = "@types"


def matches(expression: Expression, row: Mapping[str, Any], types: Types | None = None) -> bool:
    """Whether the row (property name to value) fulfils the condition. `@odata.type` is its type;
    `types` tells which types are of a type, in small letters."""
    held = {name.lower(): value for name, value in row.items()}
    held[_TYPES] = types
    return _truth(expression, held) is True


def _is_of(row: Mapping[str, Any], wanted: str) -> bool:
    wanted = wanted.lower().removeprefix("#").removeprefix("microsoft.graph.")
    types = row.get(_TYPES)
    known = types(wanted) if types is not None else {wanted}
    return _fold(row.get("@odata.type")).removeprefix("#").removeprefix("microsoft.graph.") in known


def _truth(expression: Expression, row: Mapping[str, Any]) -> bool:
    match expression:
        case And(items):
            return all(_truth(item, row) for item in items)
        case Or(items):
            return any(_truth(item, row) for item in items)
        case Not(item):
            return not _truth(item, row)
        case Compare(operator, left, right):
            return _compare(operator, _value(left, row), _value(right, row))
        case In(left, values):
            held = _value(left, row)
            return any(_compare("eq", held, value.value) for value in values)
        case Function(name, arguments):
            return _function(name, arguments, row)
        case Lambda(quantifier, collection, variable, condition):
            held = _value(collection, row)
            held = held if isinstance(held, list | tuple | set | frozenset) else []
            if condition is None:
                return bool(held)
            found = (_truth(condition, {**row, variable.lower(): item}) for item in held)
            return any(found) if quantifier == "any" else all(found)
        case Path() | Literal():
            return _value(expression, row) is True
    raise BadFilter("The filter has no truth value.", cure="Compare the property with a value.")


def _value(expression: Expression, row: Mapping[str, Any]) -> Any:
    match expression:
        case Literal(value):
            return value
        case Path(_, cast) if cast and row.get("@odata.type") and not _is_of(row, cast):
            return None  # a property of a type that the row is not of
        case Path(names, _):
            value = row.get(names[0].lower())
            for name in names[1:]:
                if not isinstance(value, Mapping):
                    return None
                folded = {key.lower(): item for key, item in value.items()}
                value = folded.get(name.lower())
            return value
        case Function("tolower" | "toupper", (argument,)):
            held = _value(argument, row)
            return held.lower() if isinstance(held, str) else held
    return _truth(expression, row)


def _function(name: str, arguments: tuple[Expression, ...], row: Mapping[str, Any]) -> bool:
    if name == "isof":
        return _is_of(row, str(_value(arguments[0], row)))
    held, wanted_part = _value(arguments[0], row), _value(arguments[1], row)
    if not isinstance(held, str) or not isinstance(wanted_part, str):
        return False
    held, wanted_part = held.lower(), wanted_part.lower()
    match name:
        case "startswith":
            return held.startswith(wanted_part)
        case "endswith":
            return held.endswith(wanted_part)
        case "contains":
            return wanted_part in held
    raise BadFilter(f"{name} has no truth value.", cure="Compare its result with a value.")


def _fold(value: Any) -> str:
    return str(value or "").lower()


def _compare(operator: str, left: Any, right: Any) -> bool:
    left, right = _alike(left, right)
    if left is None or right is None:
        equal = left is None and right is None
        return equal if operator == "eq" else not equal if operator == "ne" else False
    if operator == "has":
        return isinstance(left, str) and str(right) in [part.strip() for part in left.split(",")]
    numbers = all(
        isinstance(item, int | float) and not isinstance(item, bool) for item in (left, right)
    )
    if not numbers and type(left) is not type(right):
        return operator == "ne"
    if isinstance(left, bool | dict | list) and operator not in ("eq", "ne"):
        return False
    match operator:
        case "eq":
            return bool(left == right)
        case "ne":
            return bool(left != right)
        case "gt":
            return bool(left > right)
        case "ge":
            return bool(left >= right)
        case "lt":
            return bool(left < right)
    return bool(left <= right)


def _alike(left: Any, right: Any) -> tuple[Any, Any]:
    """Both sides in one type: clients quote GUIDs and times or do not, as they like."""
    for one, other in ((left, right), (right, left)):
        if isinstance(one, uuid.UUID) and isinstance(other, str):
            return _fold(left), _fold(right)
        if isinstance(one, datetime) and isinstance(other, str):
            return (
                parse_time(left) if isinstance(left, str) else left,
                parse_time(right) if isinstance(right, str) else right,
            )
    if isinstance(left, bool) or isinstance(right, bool):
        return left, right
    if isinstance(left, str) and isinstance(right, str):
        return left.lower(), right.lower()
    return (
        render(left) if isinstance(left, uuid.UUID) else left,
        render(right) if isinstance(right, uuid.UUID) else right,
    )
