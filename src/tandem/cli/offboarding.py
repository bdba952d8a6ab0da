"""tandem offboarding: take a device out of co-management, so that the MDM service alone manages it."""

from typing import Annotated, Any
from urllib.parse import quote

import typer

from tandem.cli.context import Json, emit, site_client, table

app = typer.Typer(
    help="Take devices out of co-management, one by one, to the MDM service alone.",
    no_args_is_help=True,
)

_URL = "/api/v1/comanagement/offboardings"
Device = Annotated[str, typer.Argument(help="The device's name, or its number.")]
Which = Annotated[str, typer.Argument(help="The device's name, its directory id, or the id.")]


@app.command()
def preview(device: Device, json: Json = False) -> None:
    """Say what leaving would come to: who has what for each workload, and what would be lost."""
    emit(site_client().get(f"{_URL}/preview", device=device), _preview, json)


def _preview(found: dict[str, Any]) -> str:
    rows = [
        {**one, "mdm": "nobody knows" if one["mdm"] is None else one["mdm"]}
        for one in found["going"]
    ]
    columns = {"title": "Workload", "site": "Site's settings", "mdm": "MDM service's"}
    lines = [f"{found['name']} would go to the MDM service alone.", "", table(rows, columns)]
    if found["lacking"]:
        lines.append(f"The tenant has nothing in: {', '.join(found['lacking'])}.")
    if found["lost"]:
        lines.append(f"Lost would be: {', '.join(found['lost'])}.")
    if found["collections"]:
        lines.append(f"It leaves: {', '.join(found['collections'])}.")
    if found["client_is_assigned"]:
        lines.append(
            "The tenant still gives it the site's client as an app: take that away first, or it is"
            " installed again, and refused by the site."
        )
    if found["trouble"]:
        lines.append(f"The tenant could not be asked: {found['trouble']}")
    return "\n".join(lines)


@app.command()
def start(
    device: Device,
    confirm: Annotated[str, typer.Option(help="The device's name once more: it is for good.")] = "",
    accept_lacking: Annotated[
        bool,
        typer.Option("--accept-lacking", help="Also where the tenant has nothing for a workload."),
    ] = False,
    json: Json = False,
) -> None:
    """Send a device on its way. All workloads go to the tenant first, then the client."""
    wanted = {"device": device, "confirm": confirm, "accept_lacking": accept_lacking}
    emit(site_client().post(_URL, wanted), _shown, json)


@app.command("list")
def list_offboardings(json: Json = False) -> None:
    """List the devices that are leaving, have left, or were to."""
    columns = {
        "name": "Device",
        "state": "State",
        "begun_at": "Begun",
        "begun_by": "By",
        "waits_for": "Waits for",
    }
    emit(site_client().get(_URL), lambda found: table(found["items"], columns), json)


@app.command()
def show(which: Which, json: Json = False) -> None:
    """Show how far a device has come, and what is waited for."""
    emit(site_client().get(f"{_URL}/{quote(which, safe='')}"), _shown, json)


def _shown(found: dict[str, Any]) -> str:
    lines = [f"{found['name']}  {found['state']}  since {found['changed_at']}"]
    if found["waits_for"]:
        of = f" ({', '.join(found['workloads'])})" if found["workloads"] else ""
        lines.append(f"  .. since {found['since']}  {found['waits_for']}{of}")
    if found["proof"]:
        holds = "holds" if found["proof"]["holds"] else "DOES NOT HOLD"
        lines.append(f"  its ledger {holds}, {found['proof']['entries']} entries")
    return "\n".join(lines)


@app.command()
def cancel(which: Which, json: Json = False) -> None:
    """Let a device stay; possible until it was told to leave."""
    emit(site_client().post(f"{_URL}/{quote(which, safe='')}/cancel", {}), _shown, json)


@app.command()
def readmit(which: Which, json: Json = False) -> None:
    """Let a device that has left register again."""
    emit(site_client().post(f"{_URL}/{quote(which, safe='')}/readmit", {}), _shown, json)
