"""Settings of devices at Graph: each with its outcome, why it is so, and counted over a policy.

GET  …/managedDevices/{id}/settings                     every setting of a device
POST tandem/managedDevices/{id}/why {"setting": …}      what decides about one of them
GET  …/deviceConfigurations/{id}/settingStatuses        how many devices answered what
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tandem.infra.database import Tx
from tandem.infra.listing import Row
from tandem.protocols import ddf
from tandem.tenant import directory, enrollment, policies, sessions
from tandem.tenant.assignments import Assignment, TargetKind
from tandem.tenant.enrollment import Device
from tandem.tenant.graph import policy_kinds as kinds
from tandem.tenant.graph import store
from tandem.tenant.graph.model import (
    Action,
    Answer,
    Body,
    Call,
    Family,
    Field,
    Part,
    Value,
    missing,
)
from tandem.tenant.graph.store import Meant
from tandem.tenant.policies import Desired, Key, Outcome, Policies, Profile, Taken, Why
from tandem.workloads import shown

# The vendor's words for the state of a setting on a device.
_STATES = {
    Outcome.SUCCESS: "compliant",
    Outcome.ERROR: "error",
    Outcome.NOT_APPLICABLE: "notApplicable",
    Outcome.CONFLICT: "conflict",
    Outcome.PENDING: "unknown",
    Outcome.WITHHELD: "notApplicable",
}
# Of a policy's settings, the worst is the policy's.
_WORST = ("error", "conflict", "unknown", "compliant", "notApplicable")
_VALUE_CHARACTERS = 4096


def _taken(delivery: sessions.Delivery | None) -> Taken | None:
    if delivery is None:
        return None
    return Taken(delivery.value, delivery.code, delivery.error)


async def _state(
    tx: Tx, known: Policies, device: Device
) -> tuple[Desired, policies.Effective, dict[str, sessions.Delivery]]:
    groups = await enrollment.groups_of(tx, device)
    desired = await known.desired(tx)
    effective = desired.effective(groups, device.flags, sessions.os_version(device))
    return desired, effective, await sessions.deliveries(tx, device.id)


async def of_device(tx: Tx, known: Policies, device: Device) -> list[dict[str, Any]]:
    """Every setting that a device has or is to have, each with what became of it."""
    return told(*await _state(tx, known, device), sessions.os_version(device))


def told(
    desired: Desired,
    effective: policies.Effective,
    delivered: Mapping[str, sessions.Delivery],
    os_version: str,
) -> list[dict[str, Any]]:
    """As `of_device`, of what is known of a device."""
    found = []
    items: dict[str, policies.Configuration] = {
        **effective.inapplicable,
        **effective.withheld,
        **{name: several[0] for name, several in effective.conflicts.items()},
        **effective.wanted,
    }
    for name in sorted({*items, *delivered}):
        had = delivered.get(name)
        if name not in items and had is not None and had.code == sessions.LAPSED:
            continue
        outcome, reason = policies.outcome_of(effective, name, _taken(had), os_version)
        item = items.get(name)
        shown = had is not None and had.code != sessions.LAPSED
        wanted = effective.wanted.get(name)
        described = desired.catalogue.find(policies.node(name))
        found.append(
            {
                "setting": name,
                "displayName": described.title() if described is not None else name,
                "translations": dict(described.leaf.titles) if described is not None else {},
                "wanted": _shown(name, wanted.value) if wanted is not None else None,
                "delivered": _shown(name, had.value) if had is not None and shown else None,
                "status": had.code if had is not None and shown else None,
                "error": (had.error or None) if had is not None and shown else None,
                "outcome": outcome.value,
                "reason": reason,
                "policyId": item.id if item is not None else None,
                "policyName": item.name if item is not None else None,
                # What that policy sets, also where the site has the workload and nothing is sent.
                "policyValue": _shown(name, item.value) if item is not None else None,
                "workload": item.workload.value if item is not None else None,
            }
        )
    return found


async def states(tx: Tx, known: Policies, device: Device) -> list[Row]:
    """The policies of a device, each with its settings, in the vendor's words."""
    groups = await enrollment.groups_of(tx, device)
    desired, effective, delivered = await _state(tx, known, device)
    rows: list[Row] = []
    told: set[str] = set()
    for profile in desired.meant(groups):
        settings = []
        for item in profile.settings:
            name = _called(effective, delivered, item.setting)
            told.add(name)
            had = delivered.get(name)
            outcome, reason = policies.outcome_of(
                effective, name, _taken(had), sessions.os_version(device)
            )
            settings.append(_setting_state(item.setting, outcome, reason, had))
        if settings:
            rows.append(_policy_state(f"{device.id}_{profile.id}", profile.name, settings))
    for name, had in delivered.items():
        if name in told or had.code == sessions.LAPSED:
            continue
        good = 200 <= had.code < 300
        outcome = Outcome.SUCCESS if good else Outcome.ERROR
        left = _setting_state(name, outcome, "No policy wants it any more.", had)
        rows.append(_policy_state(f"{device.id}_{name}", name, [left]))
    return rows


def _shown(setting: str, value: str) -> str:
    return shown(setting, value)[:_VALUE_CHARACTERS]


def _called(
    effective: policies.Effective, delivered: Mapping[str, sessions.Delivery], setting: str
) -> str:
    """The name under which a setting was given: policies may spell a node differently."""
    for items in (effective.wanted, effective.conflicts, effective.withheld, delivered):
        if setting in items:
            return setting
    name = policies.same(setting)
    return next((one for one in delivered if policies.same(one) == name), setting)


def _setting_state(
    setting: str, outcome: Outcome, reason: str, had: sessions.Delivery | None
) -> dict[str, Any]:
    failed = outcome is Outcome.ERROR and had is not None
    return {
        "setting": setting,
        "settingName": setting,
        "state": _STATES.get(outcome, "unknown"),
        "errorCode": had.code if failed and had is not None else 0,
        "errorDescription": reason if failed else None,
        "currentValue": _shown(setting, had.value)
        if had is not None and had.code != sessions.LAPSED
        else None,
    }


def _policy_state(id: str, name: str, settings: Sequence[dict[str, Any]]) -> Row:
    states = {one["state"] for one in settings}
    return {
        "id": id,
        "display_name": name,
        "state": next((one for one in _WORST if one in states), "unknown"),
        "setting_count": len(settings),
        "setting_states": list(settings),
    }


# ---------------------------------------------------------------------------------- why


async def why(tx: Tx, known: Policies, device: Device, setting: str) -> dict[str, Any]:
    """Everything that decides about a setting on a device."""
    groups = await enrollment.groups_of(tx, device)
    desired = await known.desired(tx)
    delivered = await sessions.deliveries(tx, device.id)
    name = _spelled(desired, delivered, setting)
    had = next(
        (one for one in delivered.values() if policies.same(one.subject) == policies.same(name)),
        None,
    )
    version = sessions.os_version(device)
    found = policies.explain(desired, name, groups, device.flags, version, _taken(had))
    ways = await _ways(tx, device)
    described = desired.catalogue.find(policies.node(found.setting))
    lapsed = had is not None and had.code == sessions.LAPSED
    return {
        "setting": found.setting,
        "omaUri": policies.loc_uri(found.setting),
        "displayName": described.title() if described is not None else None,
        "translations": dict(described.leaf.titles) if described is not None else {},
        "deviceId": device.id,
        "deviceName": device.name,
        "outcome": found.outcome.value,
        "reason": found.reason,
        "wanted": _shown(found.setting, found.wanted.value) if found.wanted is not None else None,
        "workload": found.workload.value,
        "workloadOwner": found.owner.value,
        "lastOutcome": None
        if had is None
        else {
            "value": None if lapsed else _shown(found.setting, had.value),
            "status": None if lapsed else had.code,
            "error": had.error or None,
            "dateTime": had.at,
            "lapsed": lapsed,
        },
        "policies": [await _candidate(tx, one, ways) for one in found.candidates],
        "summary": _summary(found),
    }


def _spelled(desired: Desired, delivered: Mapping[str, sessions.Delivery], setting: str) -> str:
    """A setting by the name, the node or the catalogue's id that somebody typed."""
    setting = setting.strip()
    by_id = desired.catalogue.by_id(setting)
    if by_id is not None:
        setting = by_id.leaf.uri
    return policies.subject_of(setting) if setting.startswith("./") else setting


def _summary(found: Why) -> dict[str, Any]:
    winner = next((one for one in found.candidates if one.role == "winner"), None)
    return {
        "winner": winner.profile.name if winner is not None else None,
        "losers": [
            one.profile.name for one in found.candidates if one.role in ("conflicts", "withheld")
        ],
    }


async def _ways(tx: Tx, device: Device) -> dict[str, dict[str, list[tuple[str, str]]]]:
    ways = {"user": await directory.ways_up(tx, device.user_id), "device": {}}
    if device.directory_device_id:
        own = await directory.find_device(tx, device.directory_device_id)
        if own is not None:
            ways["device"] = await directory.ways_up(tx, own.id)
    return ways


async def _candidate(
    tx: Tx, one: policies.Candidate, ways: Mapping[str, Mapping[str, list[tuple[str, str]]]]
) -> dict[str, Any]:
    paths = []
    for effect, given in (
        ("included", one.included),
        ("excluded", one.excluded),
        ("filtered", one.filtered),
    ):
        for item in given:
            paths += await _paths(tx, effect, item, ways)
    return {
        "policyId": one.profile.id,
        "policyKind": one.profile.kind,
        "policyName": one.profile.name,
        "value": _shown(one.item.setting, one.item.value),
        "format": one.item.format,
        "workload": one.item.workload.value,
        "role": one.role,
        "assigned": bool(one.profile.given),
        "path": paths,
    }


async def _paths(
    tx: Tx,
    effect: str,
    item: Assignment,
    ways: Mapping[str, Mapping[str, list[tuple[str, str]]]],
) -> list[dict[str, Any]]:
    """How a device comes to an assignment: everybody, or a group and the groups in between."""
    common = {
        "effect": effect,
        "filterId": item.target.filter_id or None,
        "filterMode": item.target.filter_mode,
    }
    if item.target.kind is TargetKind.ALL_DEVICES:
        return [{**common, "target": "allDevices", "member": "device", "groups": []}]
    if item.target.kind is TargetKind.ALL_USERS:
        return [{**common, "target": "allUsers", "member": "user", "groups": []}]
    found = [
        {
            **common,
            "target": "group",
            "member": member,
            "groups": [{"id": id, "displayName": name} for id, name in above[item.target.subject]],
        }
        for member, above in ways.items()
        if item.target.subject in above
    ]
    if not found:
        group = await directory.find_group(tx, item.target.subject)
        name = group.display_name if group is not None else item.target.subject
        groups = [{"id": item.target.subject, "displayName": name}]
        found = [{**common, "target": "group", "member": None, "groups": groups}]
    return found


# ---------------------------------------------------------------------------------- of a policy


def meant(given: Iterable[Assignment]) -> Meant:
    """Whom assignments mean, as a query asks for it. Filters mean nobody (see assignments)."""
    plain = [one.target for one in given if one.target.filter_mode == "none"]
    return Meant(
        tuple(one.subject for one in plain if one.kind is TargetKind.GROUP),
        tuple(one.subject for one in plain if one.kind is TargetKind.EXCLUDED_GROUP),
        any(one.kind is TargetKind.ALL_USERS for one in plain),
        any(one.kind is TargetKind.ALL_DEVICES for one in plain),
    )


async def setting_statuses(tx: Tx, known: Policies, kind: str, id: str) -> dict[str, Any]:
    """How many devices of a policy answered what for each of its settings, and what of it reaches
    none. Counted when it is asked for: nothing is kept for it. Raises NotFound."""
    desired = await known.desired(tx)
    profile = desired.profiles.get((kind, id))
    if profile is None:
        raise missing(id)
    counts: dict[str, dict[str, int]] = {
        one.setting: dict.fromkeys(_COUNTED, 0) for one in profile.settings
    }
    by_name = {one.setting: one for one in profile.settings}
    rivals = _rivals(desired, profile)
    groups: dict[tuple[Key, ...], list[str]] = {}
    for one in profile.settings:
        against = tuple(other.key for other in rivals.get(one.setting, []))
        groups.setdefault(against, []).append(one.setting)
    for others, names in groups.items():
        wanted = [(name, policies.stored(name, by_name[name].value)) for name in names]
        mine = meant(profile.given)
        _count(counts, by_name, await store.settings_answered(tx, mine, (), wanted), 1)
        if others:
            overlap = [meant(desired.profiles[key].given) for key in others]
            both = await store.settings_answered(tx, mine, overlap, wanted)
            _count(counts, by_name, both, -1)
            for row in both:
                item = by_name[row.subject]
                clash = policies.is_ours(item.workload, row.flags)
                counts[row.subject]["conflict" if clash else "withheld"] += row.devices
    settings = []
    for item in profile.settings:
        described = desired.catalogue.find(policies.node(item.setting))
        settings.append(
            {
                "setting": item.setting,
                "displayName": described.title() if described is not None else item.setting,
                "translations": dict(described.leaf.titles) if described is not None else {},
                "value": _shown(item.setting, item.value),
                "format": item.format,
                "workload": item.workload.value,
                "counts": counts[item.setting],
                "conflictsWith": [
                    {"policyId": one.id, "policyKind": one.kind, "policyName": one.name}
                    for one in rivals.get(item.setting, [])
                ],
            }
        )
    return {
        "settings": settings,
        "problems": [{"setting": one.what, "reason": one.why} for one in profile.problems],
    }


_COUNTED = ("success", "error", "notApplicable", "conflict", "pending", "withheld")


def _rivals(desired: Desired, profile: Profile) -> dict[str, list[Profile]]:
    """By setting, the other policies that want another value for it and are given to anybody."""
    mine = {policies.same(one.setting): one for one in profile.settings}
    found: dict[str, list[Profile]] = {}
    for other in desired.profiles.values():
        if other.key == profile.key or not other.given:
            continue
        for item in other.settings:
            own = mine.get(policies.same(item.setting))
            if own is not None and (own.value, own.format) != (item.value, item.format):
                found.setdefault(own.setting, []).append(other)
    return found


def _count(
    counts: Mapping[str, dict[str, int]],
    by_name: Mapping[str, policies.Configuration],
    rows: Iterable[store.Answered],
    sign: int,
) -> None:
    for row in rows:
        item = by_name[row.subject]
        answer = row.answer
        if not policies.is_ours(item.workload, row.flags):
            answer = "withheld"
        elif answer == "pending" and not ddf.runs_on(item.builds, row.os_version):
            answer = "notApplicable"
        counts[row.subject][answer] += sign * row.devices


def device_settings(known: Policies) -> Part:
    """`why` on devices, and the report of a policy."""

    async def explain(call: Call, body: Body) -> Answer:
        device = await enrollment.device(call.tx, call.keys["managedDevice"])
        return Value(await why(call.tx, known, device, body["setting"]))

    def report(kind: str, type: str) -> Action:
        async def answer(call: Call, body: Body) -> Answer:
            return Value(await setting_statuses(call.tx, known, kind, call.keys[type]))

        path = f"deviceManagement/{kind}/{{{type}}}/settingStatuses"
        read = kinds.CONFIGURATION[0]
        return Action(path, answer, read, method="GET", family=Family.INTUNE)

    return Part(
        (),
        (
            Action(
                "tandem/managedDevices/{managedDevice}/why",
                explain,
                kinds.CONFIGURATION[0],
                body=(Field("setting", writable=True, required=True),),
                family=Family.INTUNE,
                asks=True,
            ),
            report("deviceConfigurations", "deviceConfiguration"),
            report("configurationPolicies", "deviceManagementConfigurationPolicy"),
        ),
    )
