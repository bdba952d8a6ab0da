"""Policy objects at Graph: one description a kind, one store, one set of calls for all of them.

    Kind("deviceManagement/deviceCategories", "deviceCategory", "description", *CONFIGURATION)

gives the collection with create, read, change and delete, `$filter`, `$select`, `$expand`, defaults
and nulls of every property, history, and, with `assign=`, assignments. What a kind does besides is
a function: `prepare` checks and completes what is written, `seeds` are objects that exist from the
start. Properties of derived types are kept as they come; known types also get their defaults.
"""

import re
import uuid
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tandem.infra.listing import Row
from tandem.protocols import odata
from tandem.protocols.odata import Primitive
from tandem.tenant import assignments, policies
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
    Part,
    Resource,
    Value,
    missing,
)
from tandem.tenant.graph.properties import properties
from tandem.tenant.graph.targets import Assignable, assigning
from tandem.tenant.policies import PolicyObject

Properties = dict[str, Any]
# Checks and completes properties before they are kept. Raises AppErrors.
Prepare = Callable[[Call, str, Properties, PolicyObject | None], Awaitable[None]]

_TYPE = re.compile(r"^#?(?:microsoft\.graph\.)?([A-Za-z][A-Za-z0-9]{2,127})$")
# What clients send back as they got it, and the server alone decides.
_OURS = frozenset(
    [
        "id",
        "createddatetime",
        "lastmodifieddatetime",
        "modifieddatetime",
        "version",
        "isassigned",
        "settingcount",
        "supportsscopetags",
        "assignments",
        "devicestatuses",
        "userstatuses",
        "devicestatusoverview",
        "userstatusoverview",
        "devicesettingstatesummaries",
    ]
)


@dataclass(frozen=True, slots=True)
class Contained:
    """A list inside a document that is a collection of its own at Graph, below the document.

    Its items have ids. `numbered`: their places in the list; otherwise they are made.
    """

    name: str
    type: str
    fields: str = ""
    inner: "Contained | None" = None
    writable: bool = False
    numbered: bool = False
    create_status: int = 201
    update_status: int = 204


@dataclass(frozen=True, slots=True)
class Kind:
    """A collection of policy objects. `fields`, `derived`: see `properties`.

    `derived` is by type; a kind that has it, or is `polymorphic`, requires @odata.type. `opened`
    keeps properties that are not described. `lists_omit` are left null in lists. Status codes are
    those that a client compares.
    """

    path: str
    type: str
    fields: str
    read: Access
    write: Access
    key: str = ""
    name: str = "displayName"
    derived: Mapping[str, str] = field(default_factory=dict)
    polymorphic: bool = False
    opened: bool = False
    created: str = "createdDateTime"
    modified: str = "lastModifiedDateTime"
    shows_version: bool = False
    lists_omit: frozenset[str] = frozenset()
    contained: tuple[Contained, ...] = ()
    computed: tuple[Field, ...] = ()
    prepare: Prepare | None = None
    seeds: Callable[[Call], Awaitable[Sequence[PolicyObject]]] | None = None
    fixed_seeds: bool = False
    numbered: bool = False
    assign: str = ""
    assign_values: Mapping[str, Any] = field(default_factory=dict)
    assign_status: int = 200
    # Other kinds whose objects are assigned at this one's path as well.
    assigns: tuple[str, ...] = ()
    create_status: int = 201
    update_status: int = 204
    delete_status: int = 200
    put: bool = False
    family: Family = Family.INTUNE

    @property
    def store(self) -> str:
        """The kind's name in the store."""
        return self.key or self.path.rpartition("/")[2]

    @property
    def typed(self) -> bool:
        return self.polymorphic or bool(self.derived)


def by(call: Call) -> str:
    return f"{call.caller.sort}:{call.caller.name or call.caller.object_id}"


async def find(call: Call, kind: Kind, key: str) -> PolicyObject:
    """The object, also one that exists from the start. Raises NotFound."""
    found = await policies.find(call.tx, kind.store, key)
    if found is None:
        seeds = await kind.seeds(call) if kind.seeds is not None else ()
        found = next((seed for seed in seeds if seed.id.lower() == key.lower()), None)
    if found is None:
        raise missing(key)
    return found


class _Served:
    """The functions behind the resource of one kind."""

    def __init__(self, kind: Kind) -> None:
        self.kind = kind
        self.fields = (*properties(kind.fields), *kind.computed)
        self.derived = {name: properties(text) for name, text in kind.derived.items()}
        self.hidden = frozenset(part.name for part in kind.contained)
        self.known = frozenset(
            item.name for item in (*self.fields, *_frame_fields(kind))
        ) | frozenset(self.hidden)

    # ------------------------------------------------------------------ reading

    async def rows(self, call: Call) -> Sequence[Row]:
        key = call.keys.get(self.kind.type)
        stored = await policies.objects(call.tx, self.kind.store, [key] if key else None)
        seeds = await self.kind.seeds(call) if self.kind.seeds is not None else ()
        have = {item.id for item in stored}
        found = [seed for seed in seeds if seed.id not in have and key in (None, seed.id)]
        owners = await assignments.owners(call.tx, self.kind.store) if self.kind.assign else ()
        return [
            self.row(call, item, whole=key is not None) | {"is_assigned": item.id in owners}
            for item in (*found, *stored)
        ]

    def row(self, call: Call, item: PolicyObject, *, whole: bool) -> Row:
        document = dict(item.properties)
        if not whole:
            document = {k: v for k, v in document.items() if k not in self.kind.lists_omit}
        described = {one.name for one in self.derived.get(item.type, ())}
        rest = {
            name: value
            for name, value in document.items()
            if name not in self.known and name not in described
        }
        return {
            "id": item.id,
            "name": item.name,
            "type": item.type,
            "version": item.version,
            "created_at": item.created_at,
            "changed_at": item.changed_at,
            "document": document,
            "properties": rest,
        }

    # ------------------------------------------------------------------ writing

    def _type(self, body: Body, before: PolicyObject | None) -> str:
        given = body.get("@odata.type")
        if not self.kind.typed:
            return self.kind.type
        if given is None and before is not None:
            return before.type
        found = _TYPE.match(given) if isinstance(given, str) else None
        if found is None:
            raise BadProperty(
                f"A {self.kind.type} says by '@odata.type' which one it is.",
                cure=f'Send "@odata.type": "#microsoft.graph.{next(iter(self.kind.derived), "…")}".',
                target="@odata.type",
            )
        name = found[1]
        if before is not None and name.lower() != before.type.lower():
            raise BadProperty(
                f"This object is a {before.type}; its type cannot change.",
                cure="Make another object of the other type.",
                target="@odata.type",
            )
        return name

    def _taken(self, type: str, body: Body) -> Properties:
        """The properties of a body, in JSON's types. Raises BadProperty."""
        named = {item.name for item in (*self.fields, *self.derived.get(type, ()))} | self.hidden
        kept: Properties = {}
        for name, value in body.items():
            if "@odata" in name:
                if name.endswith("@odata.bind") and self.kind.opened:
                    kept[name] = value
            elif name in named:
                kept[name] = clean(odata.render(value))
            elif name.lower() in _OURS or name == self.kind.name:
                continue
            elif self.kind.opened or self.kind.typed:
                kept[name] = clean(value)
            else:
                raise BadProperty(
                    f"Property '{name[:64]}' does not exist on type '{type}'.",
                    cure="Leave it out of the request.",
                    target=name[:64],
                )
        return kept

    def _name(self, body: Body, before: PolicyObject | None) -> str:
        name = body.get(self.kind.name, before.name if before is not None else "")
        if not isinstance(name, str) or not name.strip():
            raise BadProperty(
                f"A value is required for property '{self.kind.name}' of resource "
                f"'{self.kind.type}'.",
                cure="Send it.",
                target=self.kind.name,
            )
        return name.strip()

    async def create(self, call: Call, body: Body) -> Created:
        kind = self.kind
        type = self._type(body, None)
        name = self._name(body, None)
        kept = {k: v for k, v in self._taken(type, body).items() if v is not None}
        await self._prepare(call, type, kept, None)
        id = str(uuid.uuid4())
        if kind.numbered:
            id = str(await policies.next_number(call.tx, kind.store))
        made = PolicyObject(kind.store, id, type, name, 1, call.now, call.now, kept)
        await policies.add(call.tx, made, by(call))
        call.keys[kind.type] = made.id
        return Created(made.id)

    async def update(self, call: Call, key: str, body: Body) -> None:
        await self._change(call, key, body, whole=False)

    async def replace(self, call: Call, key: str, body: Body) -> None:
        await self._change(call, key, body, whole=True)

    async def _change(self, call: Call, key: str, body: Body, *, whole: bool) -> None:
        before = await self.stored(call, key)
        type = self._type(body, before)
        changes = self._taken(type, body)
        kept = {} if whole else dict(before.properties)
        kept = {k: v for k, v in {**kept, **changes}.items() if v is not None}
        await self._prepare(call, type, kept, before)
        await policies.save(call.tx, before, self._name(body, before), kept, call.now, by(call))

    async def stored(self, call: Call, key: str) -> PolicyObject:
        """The object as one that can be changed: one from the start is kept from now on."""
        kept = await policies.lock(call.tx, self.kind.store, key)
        found = kept or await find(call, self.kind, key)
        if kept is None:
            if self.kind.fixed_seeds:
                raise BadProperty(
                    f"'{found.name}' is built in and cannot be changed.",
                    cure="Make one of your own.",
                )
            await policies.add(call.tx, found, "")
        return found

    async def delete(self, call: Call, key: str) -> None:
        seeds = await self.kind.seeds(call) if self.kind.seeds is not None else ()
        for seed in seeds:
            if seed.id.lower() == key.lower():
                raise BadProperty(
                    f"'{seed.name}' is built in and cannot be deleted.", cure="Leave it."
                )
        await policies.remove(call.tx, self.kind.store, key, call.now, by(call))

    async def _prepare(
        self, call: Call, type: str, kept: Properties, before: PolicyObject | None
    ) -> None:
        for part in self.kind.contained:
            if part.name in kept:
                kept[part.name] = identified(part, kept[part.name])
        if self.kind.prepare is not None:
            await self.kind.prepare(call, type, kept, before)

    # ------------------------------------------------------------------ contained

    async def owner(self, call: Call, key: str) -> str:
        for other in self.kind.assigns:
            if await policies.find(call.tx, other, key) is not None:
                return other
        await find(call, self.kind, key)
        return self.kind.store

    async def versions(self, call: Call, body: Body) -> Answer:
        key = call.keys[self.kind.type]
        found = await policies.versions(call.tx, self.kind.store, key)
        if not found:
            raise missing(key)
        return Value(
            [
                {
                    "version": item.version,
                    "dateTime": item.at,
                    "by": item.by or None,
                    "deleted": item.deleted,
                    self.kind.name: item.name,
                    "properties": dict(item.properties),
                }
                for item in found
            ]
        )


def clean(value: Any) -> Any:
    """Without annotations that say nothing here: contexts, and types of plain values."""
    if isinstance(value, Mapping):
        return {
            name: clean(item)
            for name, item in value.items()
            if "@" not in name or name == "@odata.type"
        }
    if isinstance(value, list):
        return [clean(item) for item in value]
    return value


def identified(part: Contained, given: Any) -> list[Properties]:
    """The items of a contained list, each with an id. Raises BadProperty."""
    if not isinstance(given, list) or not all(isinstance(item, Mapping) for item in given):
        raise BadProperty(
            f"'{part.name}' is a list of objects.", cure="Send a list.", target=part.name
        )
    found = []
    for number, item in enumerate(given):
        made = {"id": str(number) if part.numbered else _own_id(item), **dict(item)}
        made["id"] = str(number) if part.numbered else _own_id(item)
        if part.inner is not None:
            made[part.inner.name] = identified(part.inner, item.get(part.inner.name) or [])
        found.append(made)
    if len({item["id"] for item in found}) != len(found):
        raise BadProperty(f"Two items of '{part.name}' have one id.", cure="Leave the ids out.")
    return found


def _own_id(item: Mapping[str, Any]) -> str:
    given = item.get("id")
    return given if isinstance(given, str) and 0 < len(given) <= 64 else str(uuid.uuid4())


def _frame_fields(kind: Kind) -> tuple[Field, ...]:
    """The properties that every object of a kind has."""
    fields = [Field("id"), Field(kind.name, writable=True, column="name")]
    if kind.created:
        fields.append(Field(kind.created, Primitive.TIME, column="created_at"))
    if kind.modified:
        fields.append(Field(kind.modified, Primitive.TIME, column="changed_at"))
    if kind.shows_version:
        fields.append(Field("version", Primitive.INTEGER))
    return tuple(fields)


def document(kind: Kind) -> Part:
    """The resource of a kind, with what is contained in it and its assignments."""
    served = _Served(kind)
    fields = [*_frame_fields(kind), *served.fields]
    fields += [
        Field(part.name, Primitive.COMPLEX, collection=True, writable=True, readable=False)
        for part in kind.contained
    ]
    if kind.assign:
        fields.append(Field("isAssigned", Primitive.BOOLEAN, beta=True))
    resource = Resource(
        path=kind.path,
        type=kind.type,
        family=kind.family,
        fields=tuple(fields),
        derived=served.derived,
        rows=served.rows,
        read=kind.read,
        write=kind.write,
        create=served.create,
        update=served.update,
        replace=served.replace if kind.put else None,
        delete=served.delete,
        typed=(lambda row: str(row["type"])) if kind.typed else None,
        open=True,
        etag="version",
        tells_etag=False,
        key_is_guid=False,
        create_status=kind.create_status,
        update_status=kind.update_status,
        delete_status=kind.delete_status,
    )
    resources = [resource]
    actions = [
        Action(
            f"{kind.path}/{{{kind.type}}}/versions",
            served.versions,
            kind.read,
            method="GET",
            family=kind.family,
        )
    ]
    for part in kind.contained:
        resources += _contained(served, part)
    if kind.assign:
        assigned = assigning(
            Assignable(
                kind.path,
                kind.type,
                f"{kind.type}Assignment",
                kind.assign,
                kind.read,
                kind.write,
                served.owner,
                kind.assign_values,
                status=kind.assign_status,
            )
        )
        resources += assigned.resources
        actions += assigned.actions
    return Part(tuple(resources), tuple(actions))


def documents(kinds: Iterable[Kind]) -> list[Part]:
    return [document(kind) for kind in kinds]


def _contained(served: _Served, part: Contained) -> list[Resource]:
    kind = served.kind

    async def held(call: Call) -> tuple[PolicyObject, list[Properties]]:
        owner = await find(call, kind, call.keys[kind.type])
        return owner, list(owner.properties.get(part.name) or [])

    async def save(call: Call, items: list[Properties]) -> None:
        owner = await served.stored(call, call.keys[kind.type])
        kept = {**owner.properties, part.name: items}
        await served._prepare(call, owner.type, kept, owner)
        await policies.save(call.tx, owner, owner.name, kept, call.now, by(call))

    async def rows(call: Call) -> Sequence[Row]:
        _, items = await held(call)
        return [_item_row(item, part) for item in items]

    async def create(call: Call, body: Body) -> Created:
        _, items = await held(call)
        made = {"id": str(uuid.uuid4()), **_plain(body)}
        await save(call, [*items, made])
        return Created(str(made["id"]))

    async def update(call: Call, key: str, body: Body) -> None:
        _, items = await held(call)
        await save(
            call, [{**item, **_plain(body)} if item["id"] == key else item for item in items]
        )

    async def delete(call: Call, key: str) -> None:
        _, items = await held(call)
        await save(call, [item for item in items if item["id"] != key])

    path = f"{kind.path}/{{{kind.type}}}/{part.name}"
    writable = part.writable
    found = [
        Resource(
            path=path,
            type=part.type,
            family=kind.family,
            fields=(Field("id"), *properties(part.fields)),
            rows=rows,
            read=kind.read,
            write=kind.write if writable else None,
            create=create if writable else None,
            update=update if writable else None,
            delete=delete if writable else None,
            create_status=part.create_status,
            update_status=part.update_status,
            open=True,
            key_is_guid=False,
        )
    ]
    inner = part.inner
    if inner is not None:

        async def inner_rows(call: Call) -> Sequence[Row]:
            _, items = await held(call)
            for item in items:
                if item["id"] == call.keys[part.type]:
                    return [_item_row(one, inner) for one in item.get(inner.name) or []]
            raise missing(call.keys[part.type])

        found.append(
            Resource(
                path=f"{path}/{{{part.type}}}/{inner.name}",
                type=inner.type,
                family=kind.family,
                fields=(Field("id"), *properties(inner.fields)),
                rows=inner_rows,
                read=kind.read,
                open=True,
                key_is_guid=False,
            )
        )
    return found


def _plain(body: Body) -> Properties:
    kept = {name: value for name, value in body.items() if name.lower() not in _OURS}
    cleaned: Properties = clean(odata.render(kept))
    return cleaned


def _item_row(item: Properties, part: Contained) -> Row:
    known = {word.name for word in properties(part.fields)} | {"id"}
    hidden = {part.inner.name} if part.inner is not None else set()
    rest = {name: value for name, value in item.items() if name not in known | hidden}
    return {"id": item["id"], "document": item, "properties": rest}
