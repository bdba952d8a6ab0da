"""Bodies: what a description takes, checked before anything is done with it."""

from collections.abc import Iterable, Mapping
from typing import Any

from tandem.protocols.odata import Primitive, parse_time
from tandem.site.adminservice.model import BadProperty, Body, Class, Method, Property

_LONGEST = 8_192
_MOST = 1_000


def for_create(kind: Class, body: Mapping[str, Any]) -> Body:
    """Writable properties by their own names. Raises BadProperty."""
    found = _known(kind.name, kind.properties, body)
    for item, _ in found.values():
        if not item.writable:
            raise BadProperty(f"{item.name} is given by the site.", cure="Leave it out.")
    missing = [item.name for item in kind.properties if item.required and item.name not in found]
    if missing:
        raise BadProperty(f"{kind.name} needs {', '.join(missing)}.", cure="Add it to the body.")
    return {name: value for name, (_, value) in found.items()}


def for_update(kind: Class, body: Mapping[str, Any], before: Mapping[str, Any]) -> Body:
    """What differs from what is there. Scripts send back all that they have read, so what is not
    writable may come along as it was. Raises BadProperty."""
    changes: Body = {}
    for name, (item, value) in _known(kind.name, kind.properties, body).items():
        if value == before.get(name) or (item.lazy and value in (None, [])):
            continue
        if not item.writable:
            raise BadProperty(
                f"{name} of {kind.name} is not changed this way.", cure="Leave it as it was."
            )
        changes[name] = value
    return changes


def for_method(method: Method, body: Mapping[str, Any]) -> Body:
    found = _known(method.name, method.parameters, body)
    missing = [item.name for item in method.parameters if item.required and item.name not in found]
    if missing:
        raise BadProperty(f"{method.name} needs {', '.join(missing)}.", cure="Add it to the body.")
    return {name: value for name, (_, value) in found.items()}


def _known(
    of: str, properties: Iterable[Property], body: Mapping[str, Any]
) -> dict[str, tuple[Property, Any]]:
    """Without what OData and WMI themselves add to an object."""
    by_name = {item.name.lower(): item for item in properties}
    found: dict[str, tuple[Property, Any]] = {}
    for name, value in body.items():
        if "@odata." in name or name.startswith("__"):
            continue
        item = by_name.get(name.lower())
        if item is None:
            names = ", ".join(known.name for known in by_name.values()) or "nothing"
            raise BadProperty(f"{of} has no {name[:64]!r}.", cure=f"It takes: {names}.")
        if item.name in found:
            raise BadProperty(f"{item.name} is given twice.", cure="Give it once.")
        if value is not None or item.required:
            _check(item, value)
        found[item.name] = (item, value)
    return found


def _check(item: Property, value: Any) -> None:
    if item.many:
        if not isinstance(value, list) or len(value) > _MOST:
            raise BadProperty(
                f"{item.name} is a list of at most {_MOST} items.", cure="Send it as a list."
            )
        for one in value:
            _check_one(item, one)
    else:
        _check_one(item, value)


def _check_one(item: Property, value: Any) -> None:
    if item.complex or item.primitive is Primitive.COMPLEX:
        right, wanted = isinstance(value, dict), "an object"
    elif item.primitive is Primitive.INTEGER:
        right = isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63
        wanted = "a whole number, 0 or more"
    elif item.primitive is Primitive.BOOLEAN:
        right, wanted = isinstance(value, bool), "true or false"
    elif item.primitive is Primitive.TIME:
        right = isinstance(value, str) and parse_time(value) is not None
        wanted = "a time like 2026-11-23T04:20:08Z"
    else:
        right = isinstance(value, str) and len(value) <= _LONGEST
        wanted = f"a text of at most {_LONGEST} characters"
    if not right:
        raise BadProperty(f"{item.name} is {wanted}.", cure="Correct the value.")
