"""Primitive values: how each is written in JSON, and what a literal in a condition may mean."""

import base64
import re
import uuid
from datetime import UTC, datetime
from enum import Enum
from typing import Any


class Primitive(Enum):
    STRING = "Edm.String"
    BOOLEAN = "Edm.Boolean"
    INTEGER = "Edm.Int64"
    TIME = "Edm.DateTimeOffset"
    GUID = "Edm.Guid"
    BINARY = "Edm.Binary"
    COMPLEX = "Edm.ComplexType"


_TIME = re.compile(
    r"^(\d{4}-\d\d-\d\d)(?:T(\d\d:\d\d(?::\d\d)?)(?:\.(\d{1,12}))?(Z|[+-]\d\d:\d\d)?)?$",
    re.IGNORECASE,
)


def parse_time(text: str) -> datetime | None:
    """The moment, or None if it is none. Clients write any number of fraction digits."""
    found = _TIME.match(text)
    if found is None:
        return None
    day, clock, fraction, zone = found.groups()
    zone = "+00:00" if zone is None or zone.upper() == "Z" else zone
    try:
        moment = datetime.fromisoformat(f"{day}T{clock or '00:00'}{zone}")
    except ValueError:
        return None
    return moment.replace(microsecond=int((fraction or "0")[:6].ljust(6, "0"))).astimezone(UTC)


def render(value: Any) -> Any:
    """The value as it stands in JSON: times in UTC with Z, GUIDs as text, bytes as base64."""
    if isinstance(value, datetime):
        text = value.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S")
        return f"{text}.{value.microsecond:06d}Z" if value.microsecond else f"{text}Z"
    if isinstance(value, uuid.UUID):
        return str(value)
    if isinstance(value, bytes | memoryview):
        return base64.b64encode(bytes(value)).decode()
    if isinstance(value, dict):
        return {key: render(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [render(item) for item in value]
    if isinstance(value, Enum):
        return value.value
    return value


def read_literal(value: Any, primitive: Primitive) -> Any:
    """The literal as a value of this type. Raises ValueError when it cannot be one."""
    if value is None:
        return None
    if primitive is Primitive.BOOLEAN and isinstance(value, bool):
        return value
    if primitive is Primitive.INTEGER and isinstance(value, int) and not isinstance(value, bool):
        return value
    if primitive is Primitive.TIME:
        moment = value if isinstance(value, datetime) else parse_time(str(value))
        if moment is not None:
            return moment
    if primitive is Primitive.GUID:
        return uuid.UUID(str(value))
    if primitive is Primitive.BINARY and isinstance(value, str):
        return base64.b64decode(value, validate=True)
    if primitive is Primitive.STRING and not isinstance(value, bool | int):
        return render(value)
    raise ValueError(f"{value!r} is not {primitive.value}")
