"""Which requests the vendor's cloud knows: Graph's by the unmodified msgraph-sdk, which is made from
the vendor's own description, and the authority's by its documentation."""

import importlib.util
import re
from pathlib import Path

_AUTHORITY = [
    ("POST", r"/oauth2/v2\.0/token"),
    ("GET", r"/v2\.0/\.well-known/openid-configuration"),
    ("GET", r"/discovery/v2\.0/keys"),
]
# Of our own Graph: the MDM service's record of one device, its settings, and what it has for many. The
# site's page of a device asks for the first two, a roll-out for the third, and each does without where
# it is not.
DOES_WITHOUT = re.compile(
    r"/v1\.0/(deviceManagement/managedDevices/[^/]+/(timeline|settings)|tandem/deviceOffers)"
)
_TENANT = r"/(common|organizations|[0-9a-f-]{36}|[a-z0-9.-]+\.[a-z]+)"


def knows(method: str, path: str) -> bool:
    """Whether the vendor serves this path, given without a query."""
    if any(re.fullmatch(_TENANT + rest, path) and method == how for how, rest in _AUTHORITY):
        return True
    found = re.fullmatch(r"/(v1\.0|beta)((?:/[^/]+)+)", path)
    return found is not None and _in_graph(method, found[2].strip("/").split("/"))


def _in_graph(method: str, segments: list[str]) -> bool:
    """Each segment is a package of the SDK, and each key the package `item`; the request builder
    in the last has a method for each verb."""
    spec = importlib.util.find_spec("msgraph")
    assert spec is not None
    assert spec.submodule_search_locations
    folder = Path(spec.submodule_search_locations[0]) / "generated"
    for number, segment in enumerate(segments):
        named = folder / _snake(segment)
        # A key stands for anything, but never for the name of a collection.
        folder = named if number == 0 or named.is_dir() else folder / "item"
        if not folder.is_dir():
            return False
    return any(
        re.search(rf"async def {method.lower()}\(", builder.read_text("utf-8"))
        for builder in folder.glob("*_request_builder.py")
    )


def _snake(name: str) -> str:
    return re.sub(r"([A-Z])", r"_\1", name).lower().replace(".", "_")
