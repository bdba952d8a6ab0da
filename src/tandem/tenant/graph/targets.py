"""Assignments in Graph's words: targets, intents, and the calls that every assignable object has.

    POST …/{id}/assign        replaces all: {"assignments": [{"target": {"@odata.type", "groupId"}}]}
    GET  …/{id}/assignments   POST one there, DELETE …/assignments/{id}

A target without a group has no `groupId` at all: clients collect every key of that name.
"""

import uuid
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tandem.infra.listing import Row
from tandem.protocols.odata import Primitive
from tandem.tenant import assignments
from tandem.tenant.assignments import New, Target, TargetKind
from tandem.tenant.graph.model import (
    Access,
    Action,
    Answer,
    BadProperty,
    Body,
    Call,
    Created,
    Family,
    Field,
    Listed,
    Part,
    Resource,
)

_NAMESPACE = "#microsoft.graph."
_MODES = ("none", "include", "exclude")
_VALUE_BYTES = 16 * 1024


@dataclass(frozen=True, slots=True)
class Assignable:
    """What can be assigned: where, as what kind of owner, and what an assignment says besides.

    `body` is the name of the list in the body of `assign`. `values` are the members that are
    kept with an assignment, each with what stands for "not said"; `check` refuses wrong ones.
    `owner` tells as what kind the object of this key is assigned, and raises unless it exists and
    can be.
    """

    path: str
    type: str  # the key of an object in the path
    item_type: str
    body: str
    read: Access
    write: Access
    owner: Callable[[Call, str], Awaitable[str]]
    values: Mapping[str, Any]
    check: Callable[[Mapping[str, Any]], None] | None = None
    # Refuses assignments that do not go together.
    check_all: Callable[[Sequence[New]], None] | None = None
    status: int = 200


def read_target(given: Any) -> Target:
    """Raises BadProperty."""
    if not isinstance(given, Mapping):
        raise _bad("An assignment has no target.", "Send {'target': {'@odata.type': …}}.")
    name = str(given.get("@odata.type") or "").rpartition(".")[2]
    kinds = {kind.value.lower(): kind for kind in TargetKind}
    kind = kinds.get(name.lower())
    if kind is None:
        known = ", ".join(f"{_NAMESPACE}{item.value}" for item in TargetKind)
        raise _bad(f"The target's type {name[:64]!r} is not known.", f"Known: {known}.")
    subject = ""
    if kind in (TargetKind.GROUP, TargetKind.EXCLUDED_GROUP):
        subject = _guid(given.get("groupId"), "groupId")
    elif kind is TargetKind.COLLECTION:
        subject = str(given.get("collectionId") or "")[:64]
        if not subject:
            raise _bad("The target has no collectionId.", "Name the collection.")
    filter_id = given.get("deviceAndAppManagementAssignmentFilterId")
    mode = str(given.get("deviceAndAppManagementAssignmentFilterType") or "none")
    if mode not in _MODES:
        raise _bad("The filter's type is none, include or exclude.", "Send one of them.")
    if not filter_id or mode == "none":
        return Target(kind, subject)
    if kind is TargetKind.EXCLUDED_GROUP:
        raise _bad("An excluded group takes no filter.", "Leave the filter out.")
    return Target(kind, subject, _guid(filter_id, "deviceAndAppManagementAssignmentFilterId"), mode)


def _guid(value: Any, name: str) -> str:
    try:
        return str(uuid.UUID(str(value)))
    except ValueError:
        raise _bad(f"The target's {name} is not a GUID.", "Send the id of the object.") from None


def _bad(message: str, cure: str) -> BadProperty:
    return BadProperty(message, cure=cure, target="target")


def show_target(target: Target, *, beta: bool) -> dict[str, Any]:
    shown: dict[str, Any] = {"@odata.type": f"{_NAMESPACE}{target.kind.value}"}
    if beta:
        shown["deviceAndAppManagementAssignmentFilterId"] = target.filter_id or None
        shown["deviceAndAppManagementAssignmentFilterType"] = target.filter_mode
    if target.kind in (TargetKind.GROUP, TargetKind.EXCLUDED_GROUP):
        shown["groupId"] = target.subject
    elif target.kind is TargetKind.COLLECTION:
        shown["collectionId"] = target.subject
    return shown


def _new(what: Assignable, given: Any) -> New:
    if not isinstance(given, Mapping):
        raise _bad("An assignment is an object.", "Send {'target': {…}} for each.")
    values = {}
    for name, initial in what.values.items():
        value = given.get(name)
        values[name] = initial if value is None else value
    if len(repr(values)) > _VALUE_BYTES:
        raise _bad("An assignment's settings are too large.", "Send less with it.")
    if what.check is not None:
        what.check(values)
    return New(read_target(given.get("target")), values)


def assigning(what: Assignable) -> Part:
    """The calls of one kind of object."""

    def owner(call: Call) -> str:
        return call.keys[what.type]

    async def rows(call: Call) -> Sequence[Row]:
        kind = await what.owner(call, owner(call))
        found = await assignments.of(call.tx, kind, owner(call))
        return [
            {
                "id": item.id,
                "target": show_target(item.target, beta=call.beta),
                "source_id": item.owner_id,
                "properties": dict(item.values),
            }
            for item in found
        ]

    async def create(call: Call, body: Body) -> Created:
        kind = await what.owner(call, owner(call))
        made = await assignments.add(call.tx, kind, owner(call), _new(what, body))
        return Created(made.id)

    async def delete(call: Call, key: str) -> None:
        kind = await what.owner(call, owner(call))
        await assignments.remove(call.tx, kind, owner(call), key)

    async def assign(call: Call, body: Body) -> Answer:
        kind = await what.owner(call, owner(call))
        given = body.get(what.body)
        if given is None:
            given = body.get("assignments")
        if not isinstance(given, list):
            raise BadProperty(
                f"The body has no list '{what.body}'.",
                cure="Send the whole list of assignments; an empty one takes all away.",
                target=what.body,
            )
        wanted = [_new(what, item) for item in given]
        if what.check_all is not None:
            what.check_all(wanted)
        await assignments.replace(call.tx, kind, owner(call), wanted)
        if what.status == 204:
            return None
        return Listed(resource.path, what.status)

    one = f"{what.path}/{{{what.type}}}"
    resource = Resource(
        path=f"{one}/assignments",
        type=what.item_type,
        family=Family.INTUNE,
        fields=(
            Field("id"),
            Field("target", Primitive.COMPLEX, writable=True, required=True),
            Field("source", writable=True, beta=True, value=lambda _: "direct"),
            Field("sourceId", writable=True, beta=True),
        ),
        rows=rows,
        read=what.read,
        write=what.write,
        create=create,
        delete=delete,
        open=True,
        key_is_guid=False,
    )
    action = Action(f"{one}/assign", assign, what.write, open=True, family=Family.INTUNE)
    return Part((resource,), (action,))
