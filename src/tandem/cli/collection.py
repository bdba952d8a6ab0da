"""tandem collection: device collections, their rules and their members."""

from typing import Annotated, Any

import typer

from tandem.cli.context import Json, Yes, confirm, emit, site_client, table

app = typer.Typer(help="Device collections.", no_args_is_help=True)

Which = Annotated[str, typer.Argument(help="Id or name of the collection.")]
Query = Annotated[str, typer.Option(help="select * from SMS_R_System where Name like 'LAB-%'")]

_DEVICES = {
    "id": "Resource",
    "name": "Device",
    "os_version": "Windows",
    "client_version": "Client",
    "client_id": "Client id",
}


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="Name of the collection.")],
    limiting: Annotated[
        str, typer.Option(help="Id or name of the collection that members come from.")
    ] = "SMS00001",
    query: Query = "",
    comment: Annotated[str, typer.Option()] = "",
    json: Json = False,
) -> None:
    """Make a device collection, empty or with a query rule."""
    wanted = {"name": name, "limiting": limiting, "query": query, "comment": comment}
    emit(site_client().post("/api/v1/collections", wanted), _one, json)


def _one(value: dict[str, Any]) -> str:
    return f"{value['id']}  {value['name']}: {_many(value['members'])}."


def _many(count: int) -> str:
    return f"{count} member{'' if count == 1 else 's'}"


@app.command("add-member")
def add_member(
    collection: Which,
    device: Annotated[list[str] | None, typer.Argument(help="Name, number or client id.")] = None,
    query: Query = "",
    json: Json = False,
) -> None:
    """Add direct rules for devices, or a query rule."""
    if bool(device) == bool(query):
        raise typer.BadParameter("Name devices, or give --query.")
    wanted = {"devices": device or [], "query": query}
    emit(site_client().post(f"/api/v1/collections/{collection}/members", wanted), _one, json)


@app.command("remove-rule")
def remove_rule(
    collection: Which,
    rule: Annotated[str, typer.Argument(help="Name of the rule: the device, or the query.")],
    json: Json = False,
) -> None:
    """Remove a rule: a direct rule by its device's name, a query rule by its own."""
    api = site_client()
    found = api.get(f"/api/v1/collections/{collection}")["rules"]
    known = [item for item in found if item["name"].casefold() == rule.casefold()]
    for item in known:
        api.delete(f"/api/v1/collections/{collection}/rules/{item['id']}")
    said = f"Removed {len(known)} rule{'' if len(known) == 1 else 's'}."
    emit({"removed": [item["name"] for item in known]}, lambda _: said, json)


@app.command("list")
def list_collections(json: Json = False) -> None:
    """List collections with the number of their members."""
    found = site_client().get("/api/v1/collections")
    columns = {
        "id": "Collection",
        "name": "Name",
        "limiting_id": "Limited by",
        "members": "Members",
        "comment": "Comment",
    }
    emit(found, lambda rows: table(rows, columns), json)


@app.command()
def show(collection: Which, json: Json = False) -> None:
    """Show a collection with its rules."""
    emit(site_client().get(f"/api/v1/collections/{collection}"), _with_rules, json)


def _with_rules(value: dict[str, Any]) -> str:
    lines = [_one(value), f"  Limited by  {value['limiting_id'] or '-'}"]
    lines += [f"  {rule['kind']:<6}  {rule['query'] or rule['name']}" for rule in value["rules"]]
    return "\n".join(lines)


@app.command()
def members(collection: Which, json: Json = False) -> None:
    """List the devices that are members now."""
    emit(_every(f"/api/v1/collections/{collection}/members"), _devices, json)


@app.command()
def devices(json: Json = False) -> None:
    """List every device that the site knows."""
    emit(_every("/api/v1/resources"), _devices, json)


def _every(path: str) -> list[dict[str, Any]]:
    api = site_client()
    found: list[dict[str, Any]] = []
    while True:
        page = api.get(path, offset=len(found))
        found += page
        if not page:
            return found


def _devices(rows: list[dict[str, Any]]) -> str:
    return table(rows, _DEVICES)


@app.command()
def limit(
    collection: Which,
    limiting: Annotated[str, typer.Argument(help="Id or name of the new limiting collection.")],
    json: Json = False,
) -> None:
    """Limit a collection by another one."""
    changed = site_client().patch(f"/api/v1/collections/{collection}", {"limiting": limiting})
    emit(changed, _one, json)


@app.command()
def delete(collection: Which, yes: Yes = False, json: Json = False) -> None:
    """Delete a collection that nothing uses."""
    confirm(f"Delete the collection {collection}?", yes, json)
    site_client().delete(f"/api/v1/collections/{collection}")
    emit({"deleted": collection}, lambda _: f"Deleted {collection}.", json)
