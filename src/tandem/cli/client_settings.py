"""tandem client-settings: what clients are told to do, before any policy of a workload."""

from typing import Annotated, Any

import typer

from tandem.cli.context import Json, emit, site_client, table

app = typer.Typer(help="Client settings: the default ones, and what results.", no_args_is_help=True)


@app.command()
def show(json: Json = False) -> None:
    """Show the default client settings."""
    emit(site_client().get("/api/v1/client-settings"), _text, json)


@app.command("set")
def set_(
    settings: Annotated[
        list[str],
        typer.Argument(help="name=value, any number: enable_cloud_management_gateway=yes"),
    ],
    json: Json = False,
) -> None:
    """Change default client settings, all that are named or none."""
    wanted = {}
    for item in settings:
        name, equals, value = item.partition("=")
        if not equals:
            raise typer.BadParameter(f"{item!r} is not name=value.")
        wanted[name] = value
    emit(site_client().patch("/api/v1/client-settings", wanted), _text, json)


@app.command()
def resultant(
    device: Annotated[str, typer.Argument(help="Name, number or client id of a device.")],
    json: Json = False,
) -> None:
    """Show what results for one device."""
    found = site_client().get(f"/api/v1/client-settings/resultant/{device}")
    emit(found, lambda value: f"{value['device']}\n{_text(value['settings'])}", json)


def _text(rows: list[dict[str, Any]]) -> str:
    shown = [
        {**row, "value": _word(row["value"]), "default": _word(row["default"])} for row in rows
    ]
    columns = {
        "group": "Group",
        "title": "Setting",
        "value": "Value",
        "default": "Default",
        "name": "Name",
    }
    if all("source" in row for row in rows):
        columns = {**columns, "source": "From"}
    return table(shown, columns)


def _word(value: bool | int) -> str:
    if isinstance(value, bool):
        return "Yes" if value else "No"
    return str(value)
