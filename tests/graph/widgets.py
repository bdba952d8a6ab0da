"""A resource with everything that a description can say, on a table of its own."""

from typing import Any

from psycopg.types.json import Jsonb

from tandem.infra.listing import Source
from tandem.protocols.odata import Primitive
from tandem.tenant.graph import (
    Action,
    Answer,
    Body,
    Call,
    Created,
    Family,
    Field,
    Listed,
    Part,
    Resource,
    Stream,
    access,
)

TABLE = """CREATE TABLE widget (
    id uuid PRIMARY KEY, type text NOT NULL, name text NOT NULL, number int,
    version int NOT NULL DEFAULT 1, properties jsonb NOT NULL DEFAULT '{}');
CREATE TABLE widget_assignment (id text PRIMARY KEY, widget_id uuid NOT NULL, group_id text)"""

READ = access("DeviceManagementConfiguration.Read.All")
WRITE = access("DeviceManagementConfiguration.ReadWrite.All")
PATH = "deviceManagement/widgets"
_KNOWN = ("displayName", "number", "@odata.type", "id")


def _id(number: int) -> str:
    return f"00000000-0000-0000-0000-{number:012d}"


async def _create(call: Call, body: Body) -> Created:
    cursor = await call.tx.execute("SELECT count(*) AS n FROM widget")
    row = await cursor.fetchone()
    assert row is not None
    key = _id(row["n"] + 1)
    kind = str(body.get("@odata.type", "#microsoft.graph.widget")).rpartition(".")[2]
    await call.tx.execute(
        "INSERT INTO widget (id, type, name, number, properties) VALUES (%s, %s, %s, %s, %s)",
        (key, kind, body["displayName"], body.get("number"), Jsonb(_rest(body))),
    )
    return Created(key)


async def _update(call: Call, key: str, body: Body) -> None:
    await call.tx.execute(
        "UPDATE widget SET name = coalesce(%s, name), version = version + 1,"
        " properties = properties || %s WHERE id = %s",
        (body.get("displayName"), Jsonb(_rest(body)), key),
    )


async def _replace(call: Call, key: str, body: Body) -> None:
    await call.tx.execute(
        "UPDATE widget SET name = %s, version = version + 1, properties = %s WHERE id = %s",
        (body["displayName"], Jsonb(_rest(body)), key),
    )


async def _delete(call: Call, key: str) -> None:
    await call.tx.execute("DELETE FROM widget WHERE id = %s", (key,))


def _rest(body: Body) -> dict[str, Any]:
    return {name: value for name, value in body.items() if name not in _KNOWN}


async def _assign(call: Call, body: Body) -> Answer:
    key = call.keys["widget"]
    await call.tx.execute("DELETE FROM widget_assignment WHERE widget_id = %s", (key,))
    for number, item in enumerate(body["assignments"]):
        await call.tx.execute(
            "INSERT INTO widget_assignment VALUES (%s, %s, %s)",
            (f"{key}_{number}", key, item["target"]["groupId"]),
        )
    return Listed(f"{PATH}/{{widget}}/assignments")


async def _picture(call: Call, body: Body) -> Answer:
    return Stream(b"\x89PNG", "image/png")


async def _echo(call: Call, body: Body) -> Answer:
    from tandem.tenant.graph import Value

    return Value(dict(call.parameters))


def _free(name: str, primitive: Primitive = Primitive.STRING, **more: Any) -> Field:
    return Field(
        name,
        primitive,
        writable=True,
        value=lambda row: (row["properties"] or {}).get(name),
        needs=("properties",),
        **more,
    )


WIDGETS = Resource(
    path=PATH,
    type="widget",
    family=Family.INTUNE,
    rows=Source(
        "widget w",
        {
            "id": "w.id",
            "type": "w.type",
            "display_name": "w.name",
            "number": "w.number",
            "version": "w.version",
            "properties": "w.properties",
        },
    ),
    read=READ,
    write=WRITE,
    create=_create,
    update=_update,
    replace=_replace,
    delete=_delete,
    open=True,
    etag="version",
    type_column="type",
    update_status=200,
    fields=(
        Field("id", Primitive.GUID),
        Field("displayName", writable=True, required=True),
        Field("number", Primitive.INTEGER, writable=True),
        Field("version", Primitive.INTEGER),
    ),
    derived={
        "lobWidget": (_free("publisher", required=True),),
        "msiWidget": (_free("productCode"),),
        "webWidget": (_free("address"),),
    },
    bases={"msiWidget": "lobWidget"},
)

ASSIGNMENTS = Resource(
    path=f"{PATH}/{{widget}}/assignments",
    type="widgetAssignment",
    family=Family.INTUNE,
    key_is_guid=False,
    rows=Source(
        "widget_assignment a",
        {"id": "a.id", "widget_id": "a.widget_id", "group_id": "a.group_id"},
    ),
    scope=lambda call: ("a.widget_id::text = %(widget)s", {"widget": call.keys["widget"]}),
    read=READ,
    fields=(Field("id"), Field("groupId")),
)

LIST = (Field("assignments", Primitive.COMPLEX, collection=True, writable=True, required=True),)


def widgets() -> Part:
    family = Family.INTUNE
    one = f"{PATH}/{{widget}}"
    return Part(
        (WIDGETS, ASSIGNMENTS),
        (
            Action(f"{one}/assign", _assign, WRITE, body=LIST, family=family),
            Action(f"{one}/picture/$value", _picture, READ, method="GET", family=family),
            Action(f"{one}/echo", _echo, READ, method="GET", family=family),
        ),
    )
