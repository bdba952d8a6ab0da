"""tandem my-apps: what somebody may have on their own devices."""

from typing import Annotated, Any

import typer

from tandem.cli.context import Api, Json, Refused, emit, graph_client, table

app = typer.Typer(help="Apps for your own devices.", no_args_is_help=True)

_PATH = "/v1.0/tandem/myApps"


@app.command("list")
def list_apps(json: Json = False) -> None:
    """The apps that your organisation offers or requires, by device."""
    found = graph_client().get(_PATH)["value"]

    def text(devices: list[dict[str, Any]]) -> str:
        rows = [
            {**row, "device": device["deviceName"], "chosen": _chosen(row)}
            for device in devices
            for row in device["apps"]
        ]
        columns = {
            "device": "DEVICE",
            "displayName": "NAME",
            "version": "VERSION",
            "installState": "STATE",
            "chosen": "CHOSEN",
        }
        return table(rows, columns)

    emit(found, text, json)


def _chosen(row: dict[str, Any]) -> str:
    if row["required"]:
        return "required"
    return "yes" if row["requestedDateTime"] else "no"


@app.command()
def install(
    name: Annotated[str, typer.Argument(help="The app's name or id.")],
    device: Annotated[str, typer.Option(help="Name or id, if you have several.")] = "",
    json: Json = False,
) -> None:
    """Choose an app; it installs when the device checks in next."""
    _say("request", name, device, "is installed when the device checks in next", json)


@app.command()
def withdraw(
    name: Annotated[str, typer.Argument(help="The app's name or id.")],
    device: Annotated[str, typer.Option(help="Name or id, if you have several.")] = "",
    json: Json = False,
) -> None:
    """Take a choice back; what is installed already stays."""
    _say("withdraw", name, device, "is not chosen any more", json)


def _say(call: str, name: str, device: str, said: str, json: bool) -> None:
    graph = graph_client()
    body = _find(graph, name, device)
    graph.post(f"{_PATH}/{call}", body)
    emit(body, lambda _: f"{name} {said}.", json)


def _find(graph: Api, name: str, device: str) -> dict[str, str]:
    """Raises Refused unless it is one app on one device."""
    found = [
        {"deviceId": one["deviceId"], "mobileAppId": row["id"]}
        for one in graph.get(_PATH)["value"]
        for row in one["apps"]
        if name.casefold() in (row["id"], row["displayName"].casefold())
        and device.casefold() in ("", one["deviceId"].casefold(), one["deviceName"].casefold())
    ]
    if len(found) == 1:
        return found[0]
    if found:
        raise Refused(
            f"{name!r} is offered for several of your devices.", cure="Name one with --device."
        )
    raise Refused(
        f"No app {name!r} is offered for your devices.", cure="List them: `tandem my-apps list`."
    )
