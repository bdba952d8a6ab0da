"""Collections of devices and of users, and their rules."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from typing import Any

from tandem.infra.listing import Row
from tandem.protocols.odata import Primitive
from tandem.site import collections, comanagement, deployments, settings, software_updates
from tandem.site.adminservice.model import (
    BadProperty,
    Body,
    Call,
    Class,
    Complex,
    Key,
    Method,
    Property,
)
from tandem.site.collections import MemberType, Rule

_INTEGER, _BOOLEAN = Primitive.INTEGER, Primitive.BOOLEAN
# CollectionType.
_USERS, _DEVICES = 1, 2
_TYPES = {MemberType.DEVICE: _DEVICES, MemberType.USER: _USERS}
_RESOURCES = {MemberType.DEVICE: "SMS_R_System", MemberType.USER: "SMS_R_User"}
# How the members that are kept are found: manual, periodic, continuous (incremental), both.
_REFRESH_TYPES, _PERIODIC, _CONTINUOUS = (1, 2, 4, 6), 2, 4
_WEEK = 7 * 24 * 60
_SPANS = {"DaySpan": 24 * 60, "HourSpan": 60, "MinuteSpan": 1}
_DIRECT, _QUERY = "SMS_CollectionRuleDirect", "SMS_CollectionRuleQuery"
# Each with the property that names the other collection.
_OTHERS = {
    "SMS_CollectionRuleIncludeCollection": ("include", "IncludeCollectionID"),
    "SMS_CollectionRuleExcludeCollection": ("exclude", "ExcludeCollectionID"),
}

COMPLEXES = (
    Complex("SMS_CollectionRule", (Property("RuleName"),), abstract=True),
    Complex(
        _DIRECT,
        (Property("ResourceClassName"), Property("ResourceID", _INTEGER)),
        base="SMS_CollectionRule",
    ),
    Complex(
        _QUERY,
        (Property("QueryExpression"), Property("QueryID", _INTEGER)),
        base="SMS_CollectionRule",
    ),
    *(
        Complex(sort, (Property(named),), base="SMS_CollectionRule")
        for sort, (_, named) in _OTHERS.items()
    ),
    Complex(
        "SMS_ST_RecurInterval",
        (
            *(Property(f"{unit}Span", _INTEGER) for unit in ("Day", "Hour", "Minute")),
            *(Property(f"{unit}Duration", _INTEGER) for unit in ("Day", "Hour", "Minute")),
            Property("StartTime", Primitive.TIME),
            Property("IsGMT", _BOOLEAN),
        ),
    ),
)


async def _read(call: Call) -> list[Row]:
    every = await collections.collections(call.tx)
    names = {item.id: item.name for item in every}
    only = await collections.visible(call.tx)
    return [
        {
            "CollectionID": item.id,
            "Name": item.name,
            "Comment": item.comment,
            "CollectionType": _TYPES[item.type],
            "LimitToCollectionID": item.limiting_id or "",
            "LimitToCollectionName": names[item.limiting_id] if item.limiting_id else "",
            "RefreshType": (_CONTINUOUS if item.incremental else 0)
            | (_PERIODIC if item.full_every_minutes else 0)
            or 1,
            "CurrentStatus": 1,  # Ready: devices do not wait for an evaluation.
            "MemberClassName": f"SMS_CM_RES_COLL_{item.id}",
            "ObjectPath": "/",
            "IsBuiltIn": item.built_in,
            "IsReferenceCollection": item.limiting_id is None,
            "CollectionVariablesCount": 0,
        }
        for item in every
        if only is None or item.id in only
    ]


async def _count(call: Call, rows: Sequence[Row]) -> list[int]:
    return [await collections.count(call.tx, row["CollectionID"]) for row in rows]


async def _rules(call: Call, rows: Sequence[Row]) -> list[list[dict[str, Any]]]:
    types = {number: type for type, number in _TYPES.items()}
    return [
        [
            _shown(rule, types[row["CollectionType"]])
            for rule in await collections.rules(call.tx, row["CollectionID"])
        ]
        for row in rows
    ]


def _shown(rule: Rule, type: MemberType) -> dict[str, Any]:
    if rule.kind == "direct":
        return {
            "@odata.type": f"#AdminService.{_DIRECT}",
            "RuleName": rule.name,
            "ResourceClassName": _RESOURCES[type],
            "ResourceID": rule.resource_id,
        }
    for sort, (kind, named) in _OTHERS.items():
        if rule.kind == kind:
            return {
                "@odata.type": f"#AdminService.{sort}",
                "RuleName": rule.name,
                named: rule.other_id,
            }
    return {
        "@odata.type": f"#AdminService.{_QUERY}",
        "RuleName": rule.name,
        "QueryExpression": rule.query,
        "QueryID": rule.id,
    }


async def _schedules(call: Call, rows: Sequence[Row]) -> list[list[Any]]:
    every = {item.id: item for item in await collections.collections(call.tx)}
    return [_shown_schedule(every[row["CollectionID"]]) for row in rows]


def _shown_schedule(item: collections.Collection) -> list[dict[str, Any]]:
    minutes = item.full_every_minutes
    if not minutes:
        return []
    days, minutes = divmod(minutes, 24 * 60)
    hours, minutes = divmod(minutes, 60)
    spans = {"DaySpan": days, "HourSpan": hours, "MinuteSpan": minutes}
    durations = {"DayDuration": 0, "HourDuration": 0, "MinuteDuration": 0}
    of = {"@odata.type": "#AdminService.SMS_ST_RecurInterval", "IsGMT": True}
    return [{**of, **spans, **durations, "StartTime": item.created_at}]


# ------------------------------------------------------------------------------- writing


async def _create(call: Call, body: Body) -> Key:
    _check_type(body)
    made = await collections.create(
        call.tx,
        call.site,
        body["Name"],
        limiting=body.get("LimitToCollectionID") or "",
        type=MemberType.USER if body.get("CollectionType") == _USERS else MemberType.DEVICE,
        comment=body.get("Comment") or "",
        **_asked_schedule(body),
        actor=call.who.name,
        now=call.now,
    )
    for rule in body.get("CollectionRules") or []:
        await _add(call, made.id, rule)
    return {"CollectionID": made.id}


async def _update(call: Call, key: Key, body: Body) -> None:
    _check_type(body)
    known = await collections.collection(call.tx, key["CollectionID"])
    if body.get("CollectionType", _TYPES[known.type]) != _TYPES[known.type]:
        raise BadProperty(
            "CollectionType of a collection does not change.",
            cure="Make another collection.",
        )
    if "CollectionRules" in body:
        raise BadProperty(
            "Rules of a collection are changed one by one.",
            cure="POST to …/AdminService.AddMembershipRule or DeleteMembershipRule.",
        )
    id, actor, now = key["CollectionID"], call.who.name, call.now
    if "LimitToCollectionID" in body:
        async with _guarded(call, key):
            await collections.limit(
                call.tx, id, body["LimitToCollectionID"] or "", actor=actor, now=now
            )
    name, comment = body.get("Name"), body.get("Comment")
    await collections.change(
        call.tx,
        id,
        name=name,
        comment=comment,
        **_asked_schedule(body),
        actor=actor,
        now=now,
    )


def _asked_schedule(body: Body) -> dict[str, Any]:
    """Incremental updates and the time between full ones, as far as they are named."""
    asked: dict[str, Any] = {}
    if "RefreshType" in body:
        kind = body["RefreshType"]
        asked["incremental"] = bool(kind & _CONTINUOUS)
        asked["full_every_minutes"] = _WEEK if kind & _PERIODIC else 0
    spans = [item for item in body.get("RefreshSchedule") or [] if isinstance(item, Mapping)]
    if spans and body.get("RefreshType", _PERIODIC) & _PERIODIC:
        minutes = sum(int(spans[0].get(name) or 0) * each for name, each in _SPANS.items())
        asked["full_every_minutes"] = minutes or _WEEK
    return asked


def _check_type(body: Body) -> None:
    if body.get("CollectionType", _DEVICES) not in _TYPES.values():
        raise BadProperty(
            "CollectionType is 1 or 2.",
            cure="1 is a collection of users, 2 of devices, which is also meant without it.",
        )
    if body.get("RefreshType", _CONTINUOUS) not in _REFRESH_TYPES:
        raise BadProperty(
            "RefreshType is 1, 2, 4 or 6.",
            cure="1 is by hand, 2 on a schedule, 4 with incremental updates, 6 both.",
        )


_USED_FOR = (
    settings.used_for,
    deployments.used_for,
    comanagement.used_for,
    software_updates.used_for,
)


def _guarded(call: Call, key: Key) -> AbstractAsyncContextManager[None]:
    """For what decides who is in a collection."""
    guard = collections.Guard(_USED_FOR, call.others.approval_above)
    return collections.guarded(call.tx, key["CollectionID"], guard)


async def _delete(call: Call, key: Key) -> None:
    await collections.delete(
        call.tx,
        key["CollectionID"],
        used_for=_USED_FOR,
        actor=call.who.name,
        now=call.now,
    )


# ------------------------------------------------------------------------------- rules


def _sort(rule: Mapping[str, Any]) -> str:
    """Raises BadProperty for a kind of rule that is not served."""
    said = str(rule.get("@odata.type", "")).removeprefix("#").rpartition(".")[2].lower()
    if not said:
        named = [sort for sort, (_, name) in _OTHERS.items() if name in rule]
        said = (named or [_QUERY if "QueryExpression" in rule else _DIRECT])[0].lower()
    for known in (_DIRECT, _QUERY, *_OTHERS):
        if said == known.lower():
            return known
    raise BadProperty(
        "Collections have direct, query, include and exclude rules here.",
        cure=f'Send "@odata.type": "#AdminService.{_DIRECT}" or "#AdminService.{_QUERY}".',
    )


def _text(rule: Mapping[str, Any], name: str) -> str:
    value = rule.get(name)
    if not isinstance(value, str) or not value.strip() or len(value) > 8_192:
        raise BadProperty(f"A rule needs {name}, a text.", cure="Add it to the rule.")
    return value


def _resource_id(rule: Mapping[str, Any], type: MemberType) -> int:
    wanted = _RESOURCES[type]
    value, of = rule.get("ResourceID"), rule.get("ResourceClassName", wanted)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 2**63:
        raise BadProperty(
            "A direct rule needs ResourceID, a number.", cure=f"Take it from {wanted}."
        )
    if str(of).lower() != wanted.lower():
        raise BadProperty(
            f"A direct rule of this collection is for an {wanted}.", cure="Correct the rule."
        )
    return value


async def _add(call: Call, id: collections.CollectionId, rule: Mapping[str, Any]) -> int:
    """The QueryID; 0 of a direct rule. The same rule twice is there once."""
    actor, now = call.who.name, call.now
    if _sort(rule) == _DIRECT:
        type = (await collections.collection(call.tx, id)).type
        wanted = _resource_id(rule, type)
        if type is MemberType.USER:
            user = collections.WantedRule("direct", user=str(wanted))
            await collections.add_rules(call.tx, id, [user], actor=actor, now=now)
            return 0
        if (await collections.resource(call.tx, str(wanted))).id != wanted:
            raise collections.NoSuchResource(f"There is no SMS_R_System {wanted}.")
        await collections.add_members(call.tx, id, [str(wanted)], actor=actor, now=now)
        return 0
    if _sort(rule) in _OTHERS:
        kind, named = _OTHERS[_sort(rule)]
        other = collections.WantedRule(kind, collection=_text(rule, named))
        await collections.add_rules(call.tx, id, [other], actor=actor, now=now)
        return 0
    name, query = _text(rule, "RuleName"), _text(rule, "QueryExpression")
    if len(name) > 256:
        raise BadProperty("RuleName has at most 256 characters.", cure="Shorten it.")
    for known in await collections.rules(call.tx, id):
        if (known.kind, known.name, known.query) == ("query", name, query):
            return known.id
    await collections.add_query(call.tx, id, name, query, actor=actor, now=now)
    return next(
        known.id
        for known in await collections.rules(call.tx, id)
        if known.kind == "query" and known.name == name
    )


async def _remove(call: Call, id: collections.CollectionId, rule: Mapping[str, Any]) -> None:
    """By the resource, or by the query's number or name. Raises NoSuchRule."""
    known = await collections.rules(call.tx, id)
    if _sort(rule) == _DIRECT:
        wanted = _resource_id(rule, (await collections.collection(call.tx, id)).type)
        found = [item for item in known if item.resource_id == wanted]
    elif _sort(rule) in _OTHERS:
        kind, named = _OTHERS[_sort(rule)]
        other = _text(rule, named).upper()
        found = [item for item in known if (item.kind, item.other_id) == (kind, other)]
    else:
        number = rule.get("QueryID")
        name = "" if number else _text(rule, "RuleName").lower()
        found = [
            item
            for item in known
            if item.kind == "query" and (item.id == number if number else item.name.lower() == name)
        ]
    if not found:
        raise collections.NoSuchRule(
            f"{id} has no such rule.", cure=f"See them: SMS_Collection('{id}')."
        )
    await collections.remove_rule(call.tx, id, found[0].id, actor=call.who.name, now=call.now)


async def _add_one(call: Call, key: Key, arguments: Body) -> Body:
    async with _guarded(call, key):
        return {"QueryID": await _add(call, key["CollectionID"], arguments["collectionRule"])}


async def _add_all(call: Call, key: Key, arguments: Body) -> Body:
    rules = arguments["collectionRules"]
    async with _guarded(call, key):
        return {"QueryIDs": [await _add(call, key["CollectionID"], rule) for rule in rules]}


async def _remove_one(call: Call, key: Key, arguments: Body) -> Body:
    async with _guarded(call, key):
        await _remove(call, key["CollectionID"], arguments["collectionRule"])
    return {}


async def _remove_all(call: Call, key: Key, arguments: Body) -> Body:
    async with _guarded(call, key):
        for rule in arguments["collectionRules"]:
            await _remove(call, key["CollectionID"], rule)
    return {}


async def _refresh(call: Call, key: Key, arguments: Body) -> Body:
    await collections.evaluate(call.tx, key["CollectionID"], actor=call.who.name, now=call.now)
    return {}


_ONE = (Property("collectionRule", Primitive.COMPLEX, complex="SMS_CollectionRule", required=True),)
_ALL = (
    Property(
        "collectionRules",
        Primitive.COMPLEX,
        complex="SMS_CollectionRule",
        many=True,
        required=True,
    ),
)
_PLAIN = (
    Property("CollectionID"),
    Property("Name", writable=True, required=True),
    Property("Comment", writable=True),
    Property("CollectionType", _INTEGER, writable=True),
    Property("LimitToCollectionID", writable=True),
    Property("LimitToCollectionName"),
    Property("MemberCount", _INTEGER, load=_count),
    Property("LocalMemberCount", _INTEGER, load=_count),
    Property("RefreshType", _INTEGER, writable=True),
    Property("CurrentStatus", _INTEGER),
    Property("MemberClassName"),
    Property("ObjectPath"),
    Property("IsBuiltIn", _BOOLEAN),
    Property("IsReferenceCollection", _BOOLEAN),
    Property("CollectionVariablesCount", _INTEGER),
)
COLLECTION = Class(
    surface="wmi",
    name="SMS_Collection",
    key=("CollectionID",),
    properties=(
        *_PLAIN,
        Property(
            "RefreshSchedule",
            Primitive.COMPLEX,
            load=_schedules,
            many=True,
            lazy=True,
            complex="SMS_ST_RecurInterval",
            writable=True,
        ),
        Property(
            "CollectionRules",
            Primitive.COMPLEX,
            load=_rules,
            many=True,
            lazy=True,
            complex="SMS_CollectionRule",
            writable=True,
        ),
    ),
    read=_read,
    narrowed=True,
    create=_create,
    update=_update,
    delete=_delete,
    methods=(
        Method("AddMembershipRule", _add_one, _ONE),
        Method("AddMembershipRules", _add_all, _ALL),
        Method("DeleteMembershipRule", _remove_one, _ONE),
        Method("DeleteMembershipRules", _remove_all, _ALL),
        Method("RequestRefresh", _refresh, (Property("IncludeSubCollections", _BOOLEAN),)),
    ),
)
PLAIN = Class(
    surface="v1.0",
    name="Collections",
    key=("CollectionID",),
    properties=tuple(replace(item, writable=False, required=False) for item in _PLAIN),
    read=_read,
    narrowed=True,
)

CLASSES = (COLLECTION, PLAIN)
