"""tandem notify: ask devices to do something now, and see what became of it on each."""

import time
from typing import Annotated, Any
from urllib.parse import quote

import typer

from tandem.cli.context import (
    Api,
    Json,
    Refused,
    Yes,
    confirm,
    emit,
    named,
    progress,
    site_client,
    table,
)

app = typer.Typer(
    help="Client notification: what devices are asked to do now.", no_args_is_help=True
)

_URL = "/api/v1/client-notifications"
_DEVICES = "/api/v1/devices"
_OPEN = ("waiting", "sent", "received")
_WAIT_SECONDS = 3600.0

Which = Annotated[str, typer.Argument(help="Id of the operation.")]


@app.command()
def actions(json: Json = False) -> None:
    """List what devices can be asked to do."""
    found = site_client().get(f"{_URL}/actions")
    columns = {"id": "Action", "title": "Name", "text": "What the device does"}
    emit(found, lambda v: table(v["actions"], columns), json)


@app.command()
def send(
    action: Annotated[str, typer.Argument(help="Like download-computer-policy.")],
    device: Annotated[str, typer.Option(help="Name or id of a device, or its client's id.")] = "",
    collection: Annotated[str, typer.Option(help="Id or name of a collection.")] = "",
    minutes: Annotated[
        float, typer.Option(help="For how long devices that are offline still get it.")
    ] = 1440,
    wait: Annotated[
        bool, typer.Option("--wait/--no-wait", help="Wait until no device has it to do.")
    ] = False,
    yes: Yes = False,
    json: Json = False,
) -> None:
    """Ask one device, or all devices of a collection."""
    api = site_client()
    if bool(device) == bool(collection):
        raise typer.BadParameter("Name --device or --collection, and not both.")
    to = {"collection": collection} if collection else {"client": _client(api, device)}
    found = api.get(f"{_URL}/reach", **to)
    if action == "restart" or collection:
        question = (
            f"{action}: {found['devices']} devices of {found['target']},"
            f" {found['online']} of them online. Go on?"
        )
        confirm(question, yes, json)
    made = api.post(
        _URL, {"action": action, "minutes": minutes, "expected": found["devices"], **to}
    )
    if wait:
        made = _wait(api, made, json)
    emit(made, _text, json)


def _client(api: Api, device: str) -> str:
    """The id of the client of a device that is named by any of its names."""
    if device.upper().startswith("GUID:"):
        return device
    try:
        found = api.get(f"{_DEVICES}/{quote(device, safe='')}")["device"]
    except Refused as error:
        if error.remote != "fleet.no-such-device":
            raise
        listed = api.get(_DEVICES, search=device, limit=1000)["devices"]
        cure = "`tandem device list` shows all of them."
        found = named(listed, device, kind="device", cure=cure, key="name")
    if not found["client_id"]:
        raise Refused(
            f"{device} has no client of the site.",
            cure="The MDM service can ask it: `tandem managed-device --help`.",
        )
    return str(found["client_id"])


def _wait(api: Api, made: dict[str, Any], json: bool) -> dict[str, Any]:
    until = time.monotonic() + _WAIT_SECONDS
    with progress("Devices do what they are asked", json) as say:
        while not made["over"] and time.monotonic() < until:
            say(_counts(made))
            time.sleep(0.5)
            made = api.get(f"{_URL}/{made['id']}")["operation"]
    return made


def _counts(found: dict[str, Any]) -> str:
    return ", ".join(f"{state} {count}" for state, count in found["counts"].items() if count)


def _text(found: dict[str, Any]) -> str:
    lines = [
        f"{found['title']} on {found['target']}: {_counts(found) or 'nobody'}.",
        f"Devices that come later have it until {found['expires_at']}."
        if not found["over"]
        else "",
        f"Id: {found['id']}",
    ]
    return "\n".join(line for line in lines if line)


@app.command("list")
def list_operations(
    limit: Annotated[int, typer.Option(min=1, max=1000)] = 50, json: Json = False
) -> None:
    """List operations, the newest first."""
    found = site_client().get(_URL, limit=limit)
    rows = [{**one, "counted": _counts(one)} for one in found["operations"]]
    columns = {
        "created_at": "Asked at",
        "title": "Action",
        "target": "Of",
        "devices": "Devices",
        "counted": "What became of it",
        "created_by": "By",
        "id": "Id",
    }
    emit(found, lambda _: table(rows, columns), json)


@app.command()
def show(
    which: Which,
    state: Annotated[
        str, typer.Option(help="waiting, sent, received, done, failed, canceled or expired.")
    ] = "",
    limit: Annotated[int, typer.Option(min=1, max=1000)] = 200,
    json: Json = False,
) -> None:
    """Show what became of an operation on each device, and why where it failed."""
    found = site_client().get(f"{_URL}/{quote(which, safe='')}", state=state, limit=limit)
    columns = {
        "device": "Device",
        "state": "State",
        "received_at": "Taken at",
        "ended_at": "Ended at",
        "code": "Code",
        "text": "What happened",
    }
    emit(found, lambda v: f"{_text(v['operation'])}\n\n{table(v['devices'], columns)}", json)


@app.command()
def cancel(which: Which, yes: Yes = False, json: Json = False) -> None:
    """Call an operation back where no device has taken it yet."""
    confirm("Call it back from every device that has not taken it?", yes, json)
    found = site_client().post(f"{_URL}/{quote(which, safe='')}/cancel", {})
    emit(found, _text, json)


@app.command()
def device(
    name: Annotated[str, typer.Argument(help="Name or id of a device, or its client's id.")],
    json: Json = False,
) -> None:
    """Show whether a device is online, where it says it is and why, and how active its client is."""
    api = site_client()
    found = api.get(f"{_URL}/clients/{quote(_client(api, name), safe='')}")
    emit(found, _shown, json)


def _shown(found: dict[str, Any]) -> str:
    channel, activity = found["channel"], found["activity"]
    where = channel["location"]
    lines = [
        f"{'Online' if channel['online'] else 'Offline'}; it last asked"
        f" {channel['asked_at'] or 'never'}.",
        f"Network: {where['network']}. {where['reason']}",
        f"The client is {'active' if activity['active'] else 'inactive'}: policy"
        f" {activity['policy_at'] or 'never'}, heartbeat {activity['heartbeat_at'] or 'never'},"
        f" inventory {activity['inventory_at'] or 'never'}.",
    ]
    columns = {
        "created_at": "Asked at",
        "action": "Action",
        "state": "State",
        "text": "What happened",
    }
    return "\n".join([*lines, "", table(found["orders"], columns)])
