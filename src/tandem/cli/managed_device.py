"""tandem managed-device: devices that are enrolled in MDM."""

from typing import Annotated, Any

import typer

from tandem.cli.context import Api, Json, Refused, emit, graph_client, table

app = typer.Typer(help="Devices that are enrolled in MDM.", no_args_is_help=True)

_PATH = "/v1.0/deviceManagement/managedDevices"


@app.command("list")
def list_devices(json: Json = False) -> None:
    """List the enrolled devices."""
    columns = {
        "deviceName": "NAME",
        "userPrincipalName": "USER",
        "osVersion": "OS",
        "managementAgent": "MANAGED BY",
        "lastSyncDateTime": "LAST CHECK-IN",
    }
    emit(graph_client().every(_PATH), lambda rows: table(rows, columns), json)


def _find(graph: Api, wanted: str) -> dict[str, Any]:
    for item in graph.every(_PATH):
        if wanted.casefold() in {
            item["id"],
            item["deviceName"].casefold(),
            item["azureADDeviceId"],
        }:
            return dict(item)
    raise Refused(
        f"There is no managed device {wanted!r}.", cure="List them: `tandem managed-device list`."
    )


@app.command()
def show(device: Annotated[str, typer.Argument(help="Name or id.")], json: Json = False) -> None:
    """Show a device with its settings and its timeline."""
    graph = graph_client()
    found = _find(graph, device)
    found["settings"] = graph.get(f"{_PATH}/{found['id']}/settings")["value"]
    found["timeline"] = graph.get(f"{_PATH}/{found['id']}/timeline")["value"]

    def text(value: dict[str, Any]) -> str:
        lines = [f"{value['deviceName']}  {value['userPrincipalName']}  {value['managementAgent']}"]
        for item in value["settings"]:
            lines.append(f"  {item['setting']} = {_setting(item)}")
        for item in value["timeline"]:
            lines.append(f"  {item['dateTime']}  {item['text']}")
        return "\n".join(lines)

    emit(found, text, json)


def _setting(item: dict[str, Any]) -> str:
    wanted, delivered, status = item["wanted"], item["delivered"], item["status"]
    if delivered is None:
        return f"{wanted} (at the next check-in)"
    if status >= 300:
        return f"{delivered} (refused by the device, status {status})"
    if wanted != delivered:
        after = "removed" if wanted is None else wanted
        return f"{delivered} ({after} at the next check-in)"
    return str(delivered)


@app.command()
def sync(device: Annotated[str, typer.Argument(help="Name or id.")], json: Json = False) -> None:
    """Ask a device to check in; it does at its next poll."""
    graph = graph_client()
    found = _find(graph, device)
    graph.post(f"{_PATH}/{found['id']}/syncDevice", {})
    emit({"id": found["id"]}, lambda _: f"{found['deviceName']} is asked to check in.", json)


@app.command()
def unenrol(
    device: Annotated[str, typer.Argument(help="Name or id.")],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    json: Json = False,
) -> None:
    """End a device's enrolment. Its MDM settings go; the site's client stays."""
    graph = graph_client()
    found = _find(graph, device)
    if not yes and not json:
        typer.confirm(f"End the enrolment of {found['deviceName']}?", abort=True)
    graph.post(f"{_PATH}/{found['id']}/retire", {})
    emit({"id": found["id"]}, lambda _: f"{found['deviceName']} leaves at its next check-in.", json)
