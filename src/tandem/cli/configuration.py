"""tandem configuration: single settings that the site deploys to a collection."""

from typing import Annotated

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
    json: Json = False,
) -> None:
    """Deploy one setting to a collection, where the site has the workload.

    On Linux, TandemFiles/NAME, TandemUnits/NAME and TandemApps/NAME have effects: files, systemd
    units and apps. Their value is a JSON object; `tandem comanagement workload` says more.
    """
    wanted = {
        "name": name,
        "setting": setting,
        "value": value,
        "collection": collection,
        "workload": workload,
    }
    made = site_client().post("/api/v1/configurations", wanted)
    emit(made, lambda v: f"{v['name']}: {v['setting']} = {v['value']} on {collection}.", json)


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
        "members": "Clients",
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
