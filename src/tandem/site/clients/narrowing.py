"""What a timeline tells who is limited: that something was decided, not the names of what they may not
see. Causes keep names of collections, configurations and devices in their details.
"""

from collections.abc import Mapping, Set
from typing import Any

# Details of a cause that name nothing.
_PLAIN = frozenset(
    {"action", "workload", "position", "back", "ring", "moved", "auto_enroll", "names", "text"}
)


def details(found: Mapping[str, Any], only: Set[str] | None) -> dict[str, Any]:
    """As who sees `only` these collections may read them; None: all of them."""
    return {
        name: value
        for name, value in found.items()
        if name in _PLAIN or (name == "collection" and (only is None or value in only))
    }


def data(found: Mapping[str, Any], only: Set[str] | None) -> dict[str, Any]:
    """Of a timeline's entry, with its causes."""
    told = dict(found)
    if isinstance(cause := told.get("cause"), Mapping):
        told["cause"] = _cause(cause, only)
    if isinstance(also := told.get("also"), list):
        told["also"] = [_cause(one, only) for one in also if isinstance(one, Mapping)]
    return told


def _cause(found: Mapping[str, Any], only: Set[str] | None) -> dict[str, Any]:
    told = {**found, "details": details(found.get("details") or {}, only)}
    for moved in ("came", "left"):
        if only is not None and moved in told:
            told[moved] = [id for id in told[moved] if id in only]
    return told
