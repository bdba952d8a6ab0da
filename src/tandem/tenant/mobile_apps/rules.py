"""Win32 apps say how they are detected in two ways; what is said in one is read in the other.

`rules` (v1.0) hold detection and requirement in one list, by `ruleType`. `detectionRules` and
`requirementRules` (beta) have types of their own, and call some members differently. `rules` are
what is kept.
"""

from collections.abc import Mapping
from typing import Any

_NAMESPACE = "#microsoft.graph."
_SORTS = ("FileSystem", "Registry", "ProductCode", "PowerShellScript")
# Name in `rules` → name in the older lists.
_RENAMED = {"operationType": "detectionType", "comparisonValue": "detectionValue"}
_PLAIN_SCRIPT = {
    "displayName": None,
    "runAsAccount": None,
    "operationType": "notConfigured",
    "operator": "notConfigured",
    "comparisonValue": None,
}


def canonical(given: Mapping[str, Any], before: list[Any] | None = None) -> list[Any] | None:
    """The `rules` that a body means, or None when it speaks of none.

    A body that names one of the older lists replaces that half of `before`.
    """
    if given.get("rules") is not None:
        return [_whole(item) for item in _list(given["rules"])]
    if given.get("detectionRules") is None and given.get("requirementRules") is None:
        return None
    halves: dict[str, list[Any]] = {"detection": [], "requirement": []}
    for item in before or []:
        if isinstance(item, Mapping):
            halves[str(item.get("ruleType"))].append(item)
    for sort in halves:
        older = given.get(f"{sort}Rules")
        if older is not None:
            halves[sort] = [_to_rule(item, sort) for item in _list(older)]
    return [*halves["detection"], *halves["requirement"]]


def older(rules: list[Any], sort: str) -> list[dict[str, Any]]:
    """The rules of one sort ("detection", "requirement") in the older form."""
    return [_from_rule(item, sort) for item in rules if item.get("ruleType") == sort]


def _list(given: Any) -> list[Mapping[str, Any]]:
    if not isinstance(given, list) or not all(isinstance(item, Mapping) for item in given):
        raise ValueError("Rules are a list of objects.")
    return given


def _sort(item: Mapping[str, Any], ending: str) -> str:
    name = str(item.get("@odata.type") or "").rpartition(".")[2].lower()
    for sort in _SORTS:
        if name == f"win32lobapp{sort}{ending}".lower():
            return sort
    raise ValueError(f"A rule has the type {name[:64]!r}, which is not known.")


def _whole(item: Mapping[str, Any]) -> dict[str, Any]:
    sort = _sort(item, "Rule")
    which = item.get("ruleType") or "detection"
    if which not in ("detection", "requirement"):
        raise ValueError("A rule's ruleType is detection or requirement.")
    named = f"{_NAMESPACE}win32LobApp{sort}Rule"
    return {"@odata.type": named, **item, "ruleType": which} | {"@odata.type": named}


def _to_rule(item: Mapping[str, Any], which: str) -> dict[str, Any]:
    sort = _sort(item, which)
    renamed = {older: name for name, older in _RENAMED.items()}
    body = {renamed.get(name, name): value for name, value in item.items() if "@" not in name}
    if sort == "PowerShellScript" and which == "detection":
        body = {**_PLAIN_SCRIPT, **body}
    return {
        "@odata.type": f"{_NAMESPACE}win32LobApp{sort}Rule",
        "ruleType": which,
        **body,
    }


def _from_rule(item: Mapping[str, Any], which: str) -> dict[str, Any]:
    sort = _sort(item, "Rule")
    body = {
        _RENAMED.get(name, name): value
        for name, value in item.items()
        if name not in ("@odata.type", "ruleType")
    }
    if sort == "PowerShellScript" and which == "detection":
        for name in _PLAIN_SCRIPT:
            body.pop(_RENAMED.get(name, name), None)
    return {"@odata.type": f"{_NAMESPACE}win32LobApp{sort}{which.title()}", **body}
