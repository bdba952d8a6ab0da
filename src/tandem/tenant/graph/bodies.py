"""Bodies of requests: JSON to checked values, nothing taken that the description does not name."""

import base64
import binascii
import uuid
from collections.abc import Iterable
from typing import Any

import msgspec

from tandem.protocols.odata import Primitive, parse_time
from tandem.tenant.graph.model import BadProperty, Body, Field

_KEPT_ANNOTATIONS = ("@odata.bind", "@odata.id", "@odata.type")


def parse(raw: bytes) -> Body:
    """A JSON object without the annotations that mean nothing here."""
    if not raw.strip():
        return {}
    if b"\\u0000" in raw:
        raise BadProperty("The body holds a NUL character.", cure="Leave it out.")
    try:
        body = msgspec.json.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadProperty(
            f"The body is not valid JSON: {error}.", cure="Send one JSON object."
        ) from None
    if not isinstance(body, dict):
        raise BadProperty("The body is not a JSON object.", cure="Send one JSON object.")
    return {name: value for name, value in body.items() if "@" not in name or _kept(name)}


def _kept(name: str) -> bool:
    return name.endswith(_KEPT_ANNOTATIONS)


def check(body: Body, fields: Iterable[Field], *, creating: bool, opened: bool, name: str) -> Body:
    """The body with each value in its type. Raises BadProperty, which names the property."""
    by_name = {item.name.lower(): item for item in fields}
    taken: Body = {}
    for given, value in body.items():
        known = by_name.get(given.lower())
        if known is None or not known.writable:
            if "@odata" in given or opened:
                taken[given] = value
                continue
            reason = "is read-only" if known is not None else f"does not exist on type '{name}'"
            raise BadProperty(
                f"Property '{given}' {reason}.", cure="Leave it out of the request.", target=given
            )
        taken[known.name] = _value(known, value)
    if creating:
        for item in by_name.values():
            if item.required and taken.get(item.name) in (None, ""):
                raise BadProperty(
                    f"A value is required for property '{item.name}' of resource '{name}'.",
                    cure="Send it.",
                    target=item.name,
                )
    return taken


def _value(item: Field, value: Any) -> Any:
    if item.collection:
        if value is None:
            return []
        if not isinstance(value, list):
            raise _wrong(item, "a list")
        return [_single(item, entry) for entry in value]
    return None if value is None else _single(item, value)


def _single(item: Field, value: Any) -> Any:
    match item.primitive:
        case Primitive.BOOLEAN if isinstance(value, bool):
            return value
        case Primitive.INTEGER if isinstance(value, int) and not isinstance(value, bool):
            return value
        case Primitive.STRING if isinstance(value, str):
            return _choice(item, value)
        case Primitive.GUID if isinstance(value, str):
            try:
                return str(uuid.UUID(value))
            except ValueError:
                raise _wrong(item, "a GUID") from None
        case Primitive.TIME if isinstance(value, str):
            moment = parse_time(value)
            if moment is None:
                raise _wrong(item, "a date and time such as 2026-11-23T04:20:08Z")
            return moment
        case Primitive.BINARY if isinstance(value, str):
            try:
                return base64.b64decode(value, validate=True)
            except (binascii.Error, ValueError):
                raise _wrong(item, "base64") from None
        case Primitive.COMPLEX if isinstance(value, dict):
            return value
    raise _wrong(item, item.primitive.value.removeprefix("Edm."))


def _choice(item: Field, value: str) -> str:
    if not item.choices:
        return value
    for choice in item.choices:
        if choice.lower() == value.lower():
            return choice
    raise _wrong(item, "one of " + ", ".join(item.choices))


def _wrong(item: Field, wanted: str) -> BadProperty:
    return BadProperty(
        f"Invalid value specified for property '{item.name}'.",
        cure=f"It has to be {wanted}.",
        target=item.name,
    )
