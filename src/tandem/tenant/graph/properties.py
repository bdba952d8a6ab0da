"""A short notation for properties, so that a type of Graph is written down in a line or two.

    properties("publisher! passwordRequired:bool omaSettings:[obj] version^ state=enabled")

A word is a property: `name:type=initial`, a string unless a type is named; `[…]` a collection;
`!` required when an object is made; `^` shown in beta only. `initial` stands for "not set".
"""

import re
from typing import Any

from tandem.infra.listing import Row
from tandem.protocols.odata import Primitive
from tandem.tenant.graph.model import Field

_WORD = re.compile(r"^(?P<name>\w+)(?::(?P<type>\[?\w+\]?))?(?P<marks>[!^]*)(?:=(?P<initial>.*))?$")
_TYPES = {
    "str": Primitive.STRING,
    "bool": Primitive.BOOLEAN,
    "int": Primitive.INTEGER,
    "time": Primitive.TIME,
    "guid": Primitive.GUID,
    "bytes": Primitive.BINARY,
    "obj": Primitive.COMPLEX,
}


def properties(text: str) -> tuple[Field, ...]:
    """Fields of a document: each reads the member of its name in the row's "document"."""
    return tuple(_field(word) for word in text.split())


def _field(word: str) -> Field:
    found = _WORD.match(word)
    assert found is not None, word
    name, named = found["name"], found["type"] or "str"
    primitive = _TYPES[named.strip("[]")]

    def value(row: Row) -> Any:
        return row["document"].get(name)

    return Field(
        name,
        primitive,
        collection=named.startswith("["),
        writable=True,
        required="!" in found["marks"],
        beta="^" in found["marks"],
        initial=_initial(found["initial"], primitive, named.startswith("[")),
        value=value,
        needs=("document",),
    )


def _initial(text: str | None, primitive: Primitive, collection: bool) -> Any:
    if text is None:
        return None
    if collection:
        return text.split(",")
    if primitive is Primitive.BOOLEAN:
        return text == "true"
    return int(text) if primitive is Primitive.INTEGER else text
