"""Bodies of requests: JSON to checked values, nothing taken that the description does not name."""

import base64
import binascii
import uuid
from collections.abc import Iterable
from typing import Any

import msgspec

from tandem.infra.listing import Row
from tandem.protocols.odata import Primitive, parse_time
from tandem.tenant.graph import rows
from tandem.tenant.graph.model import BadProperty, Body, Field, Resource

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


def check(body: Body, resource: Resource, *, creating: bool, row: Row | None = None) -> Body:
    """The body with each value in its type, for a new object or for that of the row.

    Raises BadProperty, which names the property.
    """
    name = resource.type
    fields = resource.fields
    if resource.derived or resource.bases:
        name = _type(body, resource, row)
        fields = rows.fields_of(resource, name)
        if "@odata.type" in body:
            body = {**body, "@odata.type": f"#microsoft.graph.{name}"}
    return taken(body, fields, name, creating=creating, opened=resource.open)


def _type(body: Body, resource: Resource, row: Row | None) -> str:
    """The type that the body names, else that of the row."""
    given = body.get("@odata.type")
    if given is None:
        return rows.type_of(resource, row) if row is not None else resource.type
    wanted = str(given).lower().removeprefix("#").removeprefix("microsoft.graph.")
    for known in (resource.type, *resource.derived, *resource.bases):
        if known.lower() == wanted:
            return known
    if resource.open:
        return str(given).removeprefix("#").removeprefix("microsoft.graph.")
    raise BadProperty(
        f"The type '{str(given)[:100]}' does not exist here.",
        cure="Use one of " + ", ".join(sorted(resource.derived)) + ".",
        target="@odata.type",
    )


def taken(
    body: Body,
    fields: Iterable[Field],
    name: str,
    *,
    creating: bool = True,
    opened: bool = False,
) -> Body:
    """What these fields name of the body. Raises BadProperty."""
    by_name = {item.name.lower(): item for item in fields}
    found: Body = {}
    for given, value in body.items():
        known = by_name.get(given.lower())
        if known is None or not known.writable:
            if "@odata" in given or (opened and known is None):
                found[given] = value
                continue
            if opened:
                continue  # Clients send an object back with all that they once read.
            reason = "is read-only" if known is not None else f"does not exist on type '{name}'"
            raise BadProperty(
                f"Property '{given}' {reason}.", cure="Leave it out of the request.", target=given
            )
        found[known.name] = _value(known, value)
    if creating:
        for item in by_name.values():
            if item.required and found.get(item.name) in (None, ""):
                raise BadProperty(
                    f"A value is required for property '{item.name}' of resource '{name}'.",
                    cure="Send it.",
                    target=item.name,
                )
    return found


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
