"""What the MDM service has for many devices at once: settings, apps and compliance policies.

POST tandem/deviceOffers {"ids": ["…", …]}
  → {"offers": [{"settings": […], "apps": […], "compliancePolicies": […]}],
     "devices": [{"id": "…", "offer": 0}]}

A fleet has few different answers, so devices for which it comes to the same name the same offer. An
id that no device has is not among the devices. What the site has the say about is told too, as
withheld: whoever means to move a workload has to know what comes with it.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from tandem.infra.database import Tx
from tandem.tenant import assignments, enrollment, mobile_apps, policies, sessions
from tandem.tenant.assignments import Assignment, Membership
from tandem.tenant.enrollment import Device
from tandem.tenant.graph import device_settings
from tandem.tenant.graph.app_statuses import state_of
from tandem.tenant.graph.model import (
    Action,
    Answer,
    BadProperty,
    Body,
    Call,
    Family,
    Field,
    Value,
    access,
)
from tandem.tenant.graph.permissions import READERS
from tandem.tenant.policies import Policies, PolicyObject
from tandem.workloads import Workload, shown

# So many answers stay below the size of an answer that a reader takes at once.
MOST_DEVICES = 1000
_READ = access(
    "DeviceManagementManagedDevices.Read.All",
    "DeviceManagementManagedDevices.ReadWrite.All",
    roles=READERS,
)
_COMPLIANCE = ("deviceCompliancePolicies", "compliancePolicies")
_OFFICE = "officeSuiteApp"
# Of a policy's members these are no rules.
_NO_RULES = frozenset(
    ("description", "roleScopeTagIds", "scheduledActionsForRule", "technologies", "platforms")
)
# What says of a rule that it asks for nothing.
_ASKS_NOTHING: tuple[Any, ...] = (None, False, "", "deviceDefault", "unavailable", [])
_VALUE_CHARACTERS = 1024


async def offers(tx: Tx, known: Policies, ids: Sequence[str]) -> dict[str, Any]:
    """As the module says. A handful of questions to the database, however many devices."""
    devices = await enrollment.existing(tx, ids)
    groups = await enrollment.groups_of_all(tx, devices)
    settings = await _settings(tx, known, devices, groups)
    apps = await _apps(tx, devices, groups)
    compliance = await _compliance(tx, devices, groups)
    numbers: dict[bytes, int] = {}
    every: list[dict[str, Any]] = []
    told = []
    for one in devices:
        offer = {
            "settings": settings[one.id],
            "apps": apps[one.id],
            "compliancePolicies": compliance[one.id],
        }
        same = msgspec.json.encode(offer)
        if same not in numbers:
            numbers[same] = len(every)
            every.append(offer)
        told.append({"id": one.id, "offer": numbers[same]})
    return {"offers": every, "devices": told}


_SETTING = ("setting", "workload", "outcome", "policyName", "policyValue", "reason")


async def _settings(
    tx: Tx, known: Policies, devices: Sequence[Device], groups: Mapping[str, Membership]
) -> dict[str, list[dict[str, Any]]]:
    desired = await known.desired(tx)
    delivered = await sessions.deliveries_of(tx, [one.id for one in devices])
    found: dict[str, list[dict[str, Any]]] = {}
    alike: dict[Any, list[dict[str, Any]]] = {}
    for one in devices:
        version = sessions.os_version(one)
        effective = desired.effective(groups[one.id], one.flags, version)
        taken = delivered.get(one.id, {})
        key = (
            id(effective),
            version,
            tuple((item.subject, item.value, item.code, item.error) for item in taken.values()),
        )
        if key not in alike:
            every = device_settings.told(desired, effective, taken, version)
            alike[key] = [{name: item[name] for name in _SETTING} for item in every]
        found[one.id] = alike[key]
    return found


async def _apps(
    tx: Tx, devices: Sequence[Device], groups: Mapping[str, Membership]
) -> dict[str, list[dict[str, Any]]]:
    statuses = await mobile_apps.statuses_of(tx, [one.id for one in devices])
    meant = await mobile_apps.meant_for_each(tx, groups.values())
    found = {}
    for one in devices:
        found[one.id] = [
            {
                "id": item.app.id,
                "displayName": item.app.name,
                "version": item.app.product_version,
                "type": item.app.type,
                "workload": _workload(item.app.type).value,
                "intent": item.explained.resolved.word,
                "required": item.explained.resolved.required,
                "uninstall": bool(item.explained.resolved.uninstall),
                "available": item.explained.resolved.available is not None,
                "withheld": sessions.withheld(item.app, one.flags),
                "installState": state_of(
                    item.explained,
                    statuses.get((one.id, item.app.id)),
                    sessions.withheld(item.app, one.flags),
                ),
                "bringsClient": item.app.brings_client,
            }
            for item in meant[groups[one.id]]
        ]
    return found


def _workload(type: str) -> Workload:
    return Workload.OFFICE_CLICK_TO_RUN if type == _OFFICE else Workload.CLIENT_APPS


async def _compliance(
    tx: Tx, devices: Sequence[Device], groups: Mapping[str, Membership]
) -> dict[str, list[dict[str, Any]]]:
    """The compliance policies that are assigned to each device, with their rules."""
    every: list[tuple[list[Assignment], dict[str, Any]]] = []
    for kind in _COMPLIANCE:
        given: dict[str, list[Assignment]] = {}
        for item in await assignments.every(tx, kind):
            given.setdefault(item.owner_id, []).append(item)
        for policy in await policies.objects(tx, kind, sorted(given)):
            told = {"id": policy.id, "displayName": policy.name, "rules": list(_rules(policy))}
            every.append((given[policy.id], told))
    found: dict[Membership, list[dict[str, Any]]] = {}
    for mine in groups.values():
        if mine not in found:
            found[mine] = [told for to, told in every if assignments.given_to(to, mine)]
    return {one.id: found[groups[one.id]] for one in devices}


def _rules(item: PolicyObject) -> Iterable[dict[str, str]]:
    """What a policy asks of a device: the members that are set, or its settings."""
    for instance in item.properties.get("settings") or ():
        given = instance.get("settingInstance") or {}
        name = str(given.get("settingDefinitionId") or "")
        value = next(
            (
                part.get("value")
                for part in given.values()
                if isinstance(part, Mapping) and "value" in part
            ),
            None,
        )
        yield _rule(name, value)
    if item.kind == _COMPLIANCE[0]:
        for name, value in sorted(item.properties.items()):
            if name not in _NO_RULES and value not in _ASKS_NOTHING and "@" not in name:
                yield _rule(name, value)


def _rule(name: str, value: Any) -> dict[str, str]:
    text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
    return {"name": name, "value": shown(name, text)[:_VALUE_CHARACTERS]}


def device_offers(known: Policies) -> Action:
    async def answer(call: Call, body: Body) -> Answer:
        ids = list(dict.fromkeys(body["ids"]))
        if len(ids) > MOST_DEVICES:
            raise BadProperty(
                f"Offers of {len(ids)} devices are asked for at once; at most {MOST_DEVICES} are.",
                cure="Ask in several requests.",
                target="ids",
            )
        return Value(await offers(call.tx, known, ids))

    return Action(
        "tandem/deviceOffers",
        answer,
        _READ,
        body=(Field("ids", collection=True, writable=True, required=True),),
        family=Family.INTUNE,
        asks=True,
    )
