"""Whom something is for: groups by picker, everybody, what is left out; and how far that reaches."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from starlette.responses import Response

from tandem.console.kit import N_, ROOT, Draft, Fact, Field, Page, Problem, Values, drawn, field
from tandem.infra.errors import AppError

NAMESPACE = "#microsoft.graph."
GROUP, EXCLUDED = "groupAssignmentTarget", "exclusionGroupAssignmentTarget"
ALL_USERS, ALL_DEVICES = "allLicensedUsersAssignmentTarget", "allDevicesAssignmentTarget"
OPTIONS_URL = f"{ROOT}/pickers/groups"
INTENTS = ("required", "available", "uninstall")

TWICE = N_("%(group)s is included by two intents: an included group counts for one.")
BOTH = N_("%(group)s is included and excluded at once. Leave one of the two out.")
NOBODY_LEFT = N_("Nobody is included, so nobody can be excluded.")
ONLY_USERS = N_("%(group)s has no users: an app of this kind is available to users only.")
ONLY_DEVICES = N_("%(group)s has users and no devices: this policy is for groups of devices.")
NO_USERS_OUT = N_(
    "%(group)s holds devices, and only users are included: it excludes nobody. Users are taken out"
    " by groups of users, devices by groups of devices."
)
NO_DEVICES_OUT = N_(
    "%(group)s holds users, and only devices are included: it excludes nobody. Users are taken out"
    " by groups of users, devices by groups of devices."
)
EMPTY_GROUP = N_("%(group)s has no members, so it reaches nobody today.")


async def pickers(
    page: Page[Any], fields: Sequence[Field], values: Values, problems: Mapping[str, AppError]
) -> Any:
    """The fields of a form, drawn; groups are searched for as one types."""
    return await drawn(
        page,
        fields,
        values,
        problems,
        options_url=OPTIONS_URL,
        lists=page.form_lists,
        form=page.form_values,
    )


async def groups(page: Page[Any], draft: Draft | None, query: str) -> list[tuple[str, ...]]:
    """Groups whose name begins with what is typed."""
    quoted = query.replace("'", "''")
    found = await page.api.get(
        "/v1.0/groups",
        **{
            "$filter": f"startswith(displayName,'{quoted}')" if query else "",
            "$select": "id,displayName,description",
            "$top": 20,
        },
    )
    return [
        (item["id"], item["displayName"] or item["id"], item["description"] or "")
        for item in found["value"]
    ]


async def pick(page: Page[Any]) -> Response:
    """What a picker of groups finds while somebody types."""
    name = page.request.path_params["field"][:64]
    query = page.request.query_params.get(f"{name}--query", "")[:100].replace("\0", "")
    _ = page.session
    item = picker(name, "")
    found = await groups(page, None, query)
    return page.render("_picker_found.html", item=item, found=found, query=query)


def picker(name: str, label: str, hint: str = "") -> Field:
    return field(name, label, "picker", several=True, options=groups, hint=hint)


USERS, DEVICES = ("users", N_("All users")), ("devices", N_("All devices"))
APP_FIELDS: tuple[Field, ...] = (
    field("about_required", N_("Required: devices install it by themselves."), "note"),
    picker("required", N_("Required for groups")),
    field(
        "required_everybody",
        N_("Required for everybody"),
        "checks",
        options=(USERS, DEVICES),
        default=[],
    ),
    picker("required_excluded", N_("Required, but not for groups")),
    field(
        "about_available",
        N_(
            "Available: people may choose it among their apps, or an administrator chooses it for"
            " them on the page of a device."
        ),
        "note",
    ),
    picker("available", N_("Available for groups of users")),
    field(
        "available_everybody",
        N_("Available for everybody"),
        "checks",
        options=(USERS,),
        default=[],
    ),
    picker("available_excluded", N_("Available, but not for groups")),
    field(
        "about_uninstall",
        N_(
            "Uninstall: devices remove it at their next check-in, where the MDM service has"
            " installed it. Required beats uninstall."
        ),
        "note",
    ),
    picker("uninstall", N_("Uninstall for groups")),
    picker("uninstall_excluded", N_("Uninstall, but not for groups")),
)
# One that has no intent: a policy.
POLICY_FIELDS: tuple[Field, ...] = (
    picker("required", N_("Included groups")),
    field("required_everybody", N_("Everybody"), "checks", options=(USERS, DEVICES), default=[]),
    picker("required_excluded", N_("Excluded groups")),
)
DEVICE_FIELDS: tuple[Field, ...] = (
    picker("required", N_("Included groups of devices")),
    picker("required_excluded", N_("Excluded groups of devices")),
)


def target(kind: str, group: str = "") -> dict[str, Any]:
    shown = {"@odata.type": NAMESPACE + kind}
    return {**shown, "groupId": group} if group else shown


def targets(values: Mapping[str, Any], intent: str) -> list[dict[str, Any]]:
    everybody = values.get(f"{intent}_everybody") or []
    return [
        *([target(ALL_USERS)] if "users" in everybody else []),
        *([target(ALL_DEVICES)] if "devices" in everybody else []),
        *(target(GROUP, id) for id in values.get(intent) or []),
        *(target(EXCLUDED, id) for id in values.get(f"{intent}_excluded") or []),
    ]


def assignments(values: Mapping[str, Any], *, intents: bool = True) -> list[dict[str, Any]]:
    """The body of Graph's `assign`."""
    return [
        {**({"intent": intent} if intents else {}), "target": one}
        for intent in (INTENTS if intents else INTENTS[:1])
        for one in targets(values, intent)
    ]


def _name(values: Mapping[str, Any], id: str) -> str:
    for intent in INTENTS:
        for name in (intent, f"{intent}_excluded"):
            known = values.get(f"{name}--names") or {}
            if id in known:
                return str(known[id])
    return id


def check(values: Mapping[str, Any]) -> None:
    """The rules of targets (comanagement, 2.12). Raises Problem."""
    included: dict[str, str] = {}
    for intent in INTENTS:
        for id in values.get(intent) or []:
            if id in included:
                raise Problem(intent, TWICE, group=_name(values, id))
            included[id] = intent
    for intent in INTENTS:
        out = values.get(f"{intent}_excluded") or []
        for id in out:
            if id in (values.get(intent) or []):
                raise Problem(f"{intent}_excluded", BOTH, group=_name(values, id))
        if out and not values.get(intent) and not values.get(f"{intent}_everybody"):
            raise Problem(f"{intent}_excluded", NOBODY_LEFT)


class Reach(msgspec.Struct):
    """How far targets reach. `warnings` are (message, group) pairs."""

    users: int
    devices: int
    joined: int
    groups: list[dict[str, Any]]
    warnings: list[tuple[str, str]]


async def reach(page: Page[Any], values: Mapping[str, Any], intent: str = "required") -> Reach:
    given = targets(values, intent)
    body = {"assignments": [{"target": one} for one in given]}
    found = await page.api.post("/v1.0/tandem/assignmentReach", body)
    return Reach(
        found["userCount"],
        found["deviceCount"],
        found["joinedDeviceCount"],
        found["groups"],
        _warnings(found["groups"], values.get(f"{intent}_everybody") or []),
    )


def _warnings(
    groups: Sequence[Mapping[str, Any]], everybody: Sequence[str]
) -> list[tuple[str, str]]:
    inside = [group for group in groups if not group["excluded"]]
    users = "users" in everybody or any(group["userCount"] for group in inside)
    devices = "devices" in everybody or any(group["deviceCount"] for group in inside)
    found = []
    for group in groups:
        name = str(group["displayName"])
        if not group["userCount"] and not group["deviceCount"]:
            found.append((EMPTY_GROUP, name))
        elif group["excluded"] and not group["userCount"] and users and not devices:
            found.append((NO_USERS_OUT, name))
        elif group["excluded"] and not group["deviceCount"] and devices and not users:
            found.append((NO_DEVICES_OUT, name))
    return found


async def check_kinds(page: Page[Any], values: Mapping[str, Any], *, win32: bool) -> None:
    """That groups hold what an intent can mean. Raises Problem."""
    if win32 or not values.get("available"):
        return
    for group in (await reach(page, values, "available")).groups:
        if not group["excluded"] and group["deviceCount"] and not group["userCount"]:
            raise Problem("available", ONLY_USERS, group=group["displayName"])


async def check_devices(page: Page[Any], values: Mapping[str, Any]) -> None:
    """That these are groups of devices. Raises Problem."""
    for group in (await reach(page, values)).groups:
        if group["userCount"] and not group["deviceCount"]:
            place = "required_excluded" if group["excluded"] else "required"
            raise Problem(place, ONLY_DEVICES, group=group["displayName"])


def said(page: Page[Any], values: Mapping[str, Any], intent: str = "required") -> str:
    """Whom an intent is for, in a line."""
    text = page.language.text
    everybody = values.get(f"{intent}_everybody") or []
    words = [text(title) for key, title in (USERS, DEVICES) if key in everybody]
    words += [_name(values, id) for id in values.get(intent) or []]
    out = [_name(values, id) for id in values.get(f"{intent}_excluded") or []]
    line = ", ".join(words)
    if out:
        line = text(N_("%(groups)s without %(excluded)s"), groups=line, excluded=", ".join(out))
    return line


async def facts(page: Page[Any], values: Mapping[str, Any], *, intents: bool = True) -> list[Fact]:
    """For a summary: whom it is for, how many that is, and what will not work as it looks."""
    from tandem.console.areas.mdm.words import INTENT

    found = []
    for intent in INTENTS if intents else INTENTS[:1]:
        line = said(page, values, intent)
        if intent == "required" or line:
            found.append(Fact(INTENT[intent] if intents else N_("Assigned to"), line))
    if targets(values, "required"):
        far = await reach(page, values)
        found.append(Fact(N_("Users that it reaches"), far.users))
        found.append(Fact(N_("Enrolled devices that it reaches"), far.devices))
        found.append(Fact(N_("Joined devices that follow once they enrol"), far.joined))
        found += [
            Fact(N_("Warning"), page.language.text(message, group=group))
            for message, group in far.warnings
        ]
    return found


# ---------------------------------------------------------------------------------- what is there


async def held(page: Page[Any], given: Sequence[Mapping[str, Any]]) -> Values:
    """Assignments of Graph as the values of these fields."""
    return values_of(given, await group_names(page, given))


def values_of(given: Sequence[Mapping[str, Any]], names: Mapping[str, str]) -> Values:
    values: Values = {}
    for item in given:
        intent = str(item.get("intent") or "required")
        if intent == "availableWithoutEnrollment":
            intent = "available"
        kind = str(item["target"]["@odata.type"]).rpartition(".")[2]
        group = str(item["target"].get("groupId") or "")
        if kind in (ALL_USERS, ALL_DEVICES):
            everybody = values.setdefault(f"{intent}_everybody", [])
            everybody.append("users" if kind == ALL_USERS else "devices")
        elif kind in (GROUP, EXCLUDED):
            name = intent if kind == GROUP else f"{intent}_excluded"
            values.setdefault(name, []).append(group)
            values.setdefault(f"{name}--names", {})[group] = names.get(group, group)
    return values


async def group_names(page: Page[Any], given: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """The names of the groups that assignments are for; one that is gone has none."""
    wanted = list(
        dict.fromkeys(
            str(item["target"]["groupId"]) for item in given if item["target"].get("groupId")
        )
    )
    if not wanted:
        return {}
    try:
        found = await page.api.post(
            "/v1.0/directoryObjects/getByIds", {"ids": wanted[:1000], "types": ["group"]}
        )
    except AppError:
        return {}
    return {item["id"]: item["displayName"] or item["id"] for item in found["value"]}


def digest(given: Sequence[Mapping[str, Any]]) -> str:
    """What stands for the assignments that a form was made from: they have no ETag of their own."""
    kept = sorted(
        (str(item.get("intent")), str(item["target"].get("@odata.type")),
         str(item["target"].get("groupId") or ""))
        for item in given
    )  # fmt: skip
    return hashlib.sha256(msgspec.json.encode(kept)).hexdigest()[:16]
