"""tandem discovery: the tenant's users become user resources of the site."""

import time
from typing import Annotated, Any

import typer

from tandem.cli.context import Json, Refused, emit, progress, site_client, table

app = typer.Typer(help="Discovery of the tenant's users.", no_args_is_help=True)

_WAIT_SECONDS = 600.0


@app.command()
def enable(
    service: Annotated[
        str, typer.Option("--service", help="Azure service; the only one when left out.")
    ] = "",
    on: Annotated[bool, typer.Option("--on/--off")] = True,
    json: Json = False,
) -> None:
    """Switch user discovery of an Azure service on, or off."""
    path = f"/api/v1/azure-services/{service or '-'}/discovery"
    found = site_client().put(path, {"enabled": on})
    said = f"User discovery of {found['name']} is {'on' if on else 'off'}."
    emit(found, lambda _: said, json)


@app.command()
def run(
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Wait for its end.")] = True,
    json: Json = False,
) -> None:
    """Run full discovery now."""
    api = site_client()
    found: dict[str, Any] = api.post("/api/v1/discovery/runs")
    with progress("Discovering users…", json):
        until = time.monotonic() + _WAIT_SECONDS
        while wait and found["state"] == "running" and time.monotonic() < until:
            time.sleep(0.2)
            found = api.get(f"/api/v1/discovery/runs/{found['id']}")
    if found["state"] == "failed":
        raise Refused(
            f"Discovery failed: {found['reason']}", cure=found["cure"], remote=found["code"]
        )
    emit(found, _text, json)


def _text(value: dict[str, Any]) -> str:
    if value["state"] == "running":
        return f"Discovery {value['id']} runs. See: tandem discovery status"
    return f"{value['users']} users of the tenant, {value['added']} of them new."


@app.command()
def status(json: Json = False) -> None:
    """List the last runs."""
    found = site_client().get("/api/v1/discovery/runs")
    columns = {
        "id": "Run",
        "started_at": "Started",
        "state": "State",
        "users": "Users",
        "added": "New",
        "reason": "Reason",
    }
    emit(found, lambda rows: table(rows, columns), json)
