"""tandem device-configuration: settings that the MDM service gives to devices."""

from base64 import b64encode
from pathlib import Path
from typing import Annotated, Any

import typer

from tandem.cli.app import targets
from tandem.cli.configuration_policy import report
from tandem.cli.context import Api, Json, Refused, emit, graph_client, named, table

app = typer.Typer(help="Settings that the MDM service gives to devices.", no_args_is_help=True)

_PATH = "/v1.0/deviceManagement/deviceConfigurations"
_POLICY = "./Device/Vendor/MSFT/Policy/Config/"


@app.command()
def create(
    name: Annotated[str, typer.Argument()],
    setting: Annotated[str, typer.Option(help="Area/Name of the policy CSP.")] = "",
    value: Annotated[str, typer.Option()] = "",
    set: Annotated[
        list[str] | None,
        typer.Option("--set", help="Area/Name=value or OMA-URI=value; repeatable."),
    ] = None,
    type: Annotated[
        str,
        typer.Option(
            help="String, StringXml, Integer, Boolean, FloatingPoint, DateTime or Base64, of all."
        ),
    ] = "String",
    value_file: Annotated[
        Path | None, typer.Option(help="A file that is the value of --setting.", exists=True)
    ] = None,
    workload: Annotated[
        str, typer.Option(help="Of all its settings; without it, the catalogue's.")
    ] = "",
    json: Json = False,
) -> None:
    """Create a configuration of one setting, or of several."""
    if value_file is not None:
        value = _content(value_file, type)
    pairs = [(item.partition("=")[0].strip(), item.partition("=")[2].strip()) for item in set or []]
    if setting or not pairs:
        pairs.insert(0, (setting, value))
    oma = [
        {
            "@odata.type": f"#microsoft.graph.omaSetting{type}",
            "displayName": name_of_setting,
            "omaUri": name_of_setting
            if name_of_setting.startswith("./")
            else f"{_POLICY}{name_of_setting}",
            "value": given,
        }
        for name_of_setting, given in pairs
    ]
    made = graph_client().post(
        _PATH,
        {
            "@odata.type": "#microsoft.graph.windows10CustomConfiguration",
            "displayName": name,
            "workload": workload or None,
            "omaSettings": oma,
        },
    )
    told = ", ".join(f"{setting_name} = {given[:64]}" for setting_name, given in pairs)
    emit(made, lambda _: f"Created {name}: {told}. Assign it to groups next.", json)


def _content(path: Path, type: str) -> str:
    """A file as the value of a setting: XML and bytes go as base64."""
    data = path.read_bytes()
    if type in ("StringXml", "Base64"):
        return b64encode(data).decode()
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise Refused(f"{path.name} is not text.", cure="Use --type Base64.") from None


@app.command()
def status(
    name: Annotated[str, typer.Argument(help="Name or id.")],
    json: Json = False,
) -> None:
    """Show how many devices answered what for each setting of a configuration."""
    graph = graph_client()
    report(graph, f"{_PATH}/{_find(graph, name)['id']}", json)


@app.command()
def assign(
    name: Annotated[str, typer.Argument(help="Name or id.")],
    include: Annotated[list[str] | None, typer.Option(help="Group; repeatable.")] = None,
    exclude: Annotated[list[str] | None, typer.Option(help="Group; repeatable.")] = None,
    all_users: Annotated[bool, typer.Option("--all-users")] = False,
    all_devices: Annotated[bool, typer.Option("--all-devices")] = False,
    json: Json = False,
) -> None:
    """Give a configuration to groups. Replaces the assignment before."""
    graph = graph_client()
    found = _find(graph, name)
    given = targets(
        graph, include or [], exclude or [], all_users=all_users, all_devices=all_devices
    )
    body = [{"target": target} for target in given]
    graph.post(f"{_PATH}/{found['id']}/assign", {"assignments": body})
    emit({"id": found["id"]}, lambda _: f"{name} is for {len(include or [])} groups.", json)


def _find(graph: Api, wanted: str) -> dict[str, Any]:
    return named(
        graph.every(_PATH),
        wanted,
        kind="configuration",
        cure="List them: `tandem device-configuration list`.",
    )


@app.command("list")
def list_configurations(json: Json = False) -> None:
    """List the configurations."""
    found = [
        {
            **item,
            "setting": ", ".join(
                str(oma["omaUri"]).removeprefix(_POLICY) for oma in _settings(item)
            ),
            "value": ", ".join(str(oma["value"]) for oma in _settings(item)),
        }
        for item in graph_client().every(_PATH)
    ]
    columns = {"displayName": "NAME", "setting": "SETTING", "value": "VALUE", "id": "ID"}
    emit(found, lambda rows: table(rows, columns), json)


def _settings(item: dict[str, Any]) -> list[dict[str, Any]]:
    return item.get("omaSettings") or []


@app.command()
def delete(name: Annotated[str, typer.Argument(help="Name or id.")], json: Json = False) -> None:
    """Delete a configuration."""
    graph = graph_client()
    found = _find(graph, name)
    graph.delete(f"{_PATH}/{found['id']}")
    emit({"id": found["id"]}, lambda _: f"Deleted {name}.", json)
