"""tandem configuration: single settings that the site deploys to a collection."""

from typing import Annotated, Any
from urllib.parse import quote

import typer

from tandem.cli.context import Json, Yes, confirm, emit, site_client, table

app = typer.Typer(help="Configurations that the site deploys.", no_args_is_help=True)


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="Name of the configuration.")],
    setting: Annotated[str, typer.Option(help="Area/Name, like DeviceLock/MaxInactivityTime.")],
    value: Annotated[str, typer.Option(help="Value of the setting.")],
    collection: Annotated[str, typer.Option(help="Id or name of the collection.")],
    workload: Annotated[
        str, typer.Option(help="The workload that the setting belongs to; empty: by its area.")
    ] = "",
    reason: Annotated[str, typer.Option(help="Why, for whoever may have to approve it.")] = "",
    json: Json = False,
) -> None:
    """Deploy one setting to a collection of devices or of users, where the site has the workload.

    What is deployed to users comes to the devices on which they are signed in, after what is deployed
    to the device itself, and goes with them.

    On Linux, TandemFiles/NAME, TandemUnits/NAME, TandemFirewall/NAME and TandemApps/NAME have
    effects: files, systemd units, firewall rules and apps. Their value is a JSON object; `tandem comanagement workload` says more.
    """
    wanted = {
        "name": name,
        "setting": setting,
        "value": value,
        "collection": collection,
        "workload": workload,
        "reason": reason,
    }
    made = site_client().post("/api/v1/configurations", wanted)
    emit(made, lambda value: _made(value, collection), json)


def _made(value: dict[str, Any], collection: str) -> str:
    if value["state"] == "approval":
        return (
            f"{value['name']} reaches {value['devices']} {_members(value)}: a second administrator has to"
            f" approve it: `tandem configuration approve {value['id']}`."
        )
    return f"{value['name']}: {value['setting']} = {value['value']} on {collection}."


@app.command()
def preview(
    collection: Annotated[str, typer.Argument(help="Id or name of the collection.")],
    json: Json = False,
) -> None:
    """Say how many devices, or users, a configuration of this collection would reach."""
    found = site_client().post("/api/v1/configurations/preview", {"collection": collection})
    emit(found, _reach, json)


def _reach(value: dict[str, Any]) -> str:
    text = f"{value['collection']}: {value['devices']} of {value['all_devices']} {_members(value)}."
    if value["needs_approval"]:
        text += " A second administrator has to approve it."
    return text


@app.command()
def waiting(json: Json = False) -> None:
    """List what waits for a second administrator."""
    found = site_client().get("/api/v1/configurations/waiting")
    columns = {
        "id": "Id",
        "name": "Configuration",
        "setting": "Setting",
        "value": "Value",
        "collection": "Collection",
        "reaches": "Reaches",
        "asked_by": "Asked by",
        "reason": "Because",
    }
    emit(found, lambda rows: _waiting(rows, columns) if rows else "Nothing waits.", json)


def _waiting(rows: list[dict[str, Any]], columns: dict[str, str]) -> str:
    said = [{**one, "reaches": f"{one['reaches']} {_members(one)}"} for one in rows]
    return table(said, columns)


def _members(value: dict[str, Any]) -> str:
    return "users" if value["type"] == "user" else "devices"


Waiting = Annotated[str, typer.Argument(help="Id of what waits.")]


@app.command()
def approve(request: Waiting, yes: Yes = False, json: Json = False) -> None:
    """Deploy what another administrator asked for."""
    api = site_client()
    every = api.get("/api/v1/configurations/waiting")
    found = next((item for item in every if item["id"] == request), None)
    seen, known = (found["reaches"], found["seen"]) if found else (0, "")
    if found:
        confirm(
            f"{found['asked_by']} deploys {found['setting']} = {found['value']} to"
            f" {found['collection']}, {seen} {_members(found)}, because: {found['reason']}. Approve?",
            yes,
            json,
        )
    path = f"/api/v1/configurations/waiting/{quote(request, safe='')}"
    made = api.post(f"{path}/approve", {"devices": seen, "seen": known})
    emit(made, lambda v: f"{v['name']}: {v['setting']} = {v['value']}.", json)


@app.command()
def cancel(request: Waiting, json: Json = False) -> None:
    """Let nobody have what waits for a second administrator."""
    site_client().delete(f"/api/v1/configurations/waiting/{quote(request, safe='')}")
    emit({"cancelled": request}, lambda _: "Cancelled: nobody gets it.", json)


@app.command("list")
def list_configurations(json: Json = False) -> None:
    """List configurations."""
    found = site_client().get("/api/v1/configurations")
    columns = {
        "name": "Configuration",
        "workload": "Workload",
        "setting": "Setting",
        "value": "Value",
        "collection": "Collection",
        "members": "Members",
        "applied": "In force",
        "with_mdm": "Set by MDM",
    }
    emit(found, lambda rows: table(rows, columns), json)


@app.command()
def delete(
    name: Annotated[str, typer.Argument(help="Name or id of the configuration.")],
    yes: Yes = False,
    json: Json = False,
) -> None:
    """Take a configuration back; devices drop it with their next policy."""
    confirm(f"Delete the configuration {name}? Devices drop what it set.", yes, json)
    site_client().delete(f"/api/v1/configurations/{name}")
    emit({"deleted": name}, lambda _: f"Deleted {name}.", json)
