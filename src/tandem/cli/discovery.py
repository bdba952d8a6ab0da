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
    delta: Annotated[
        bool, typer.Option("--delta", help="Only what changed since the last run.")
    ] = False,
    json: Json = False,
) -> None:
    """Run discovery now: full, or delta."""
    api = site_client()
    path = "/api/v1/discovery/delta-runs" if delta else "/api/v1/discovery/runs"
    found: dict[str, Any] = api.post(path)
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
    removed = f" {value['removed']} are not in the tenant any more." if value["removed"] else ""
    if value["kind"] == "delta":
        return f"{value['users']} users changed, {value['added']} of them new.{removed}"
    return f"{value['users']} users of the tenant, {value['added']} of them new.{removed}"


@app.command()
def schedule(
    service: Annotated[
        str, typer.Option("--service", help="Azure service; the only one when left out.")
    ] = "",
    full_days: Annotated[
        int | None, typer.Option("--full-days", help="Full discovery every so many days; 0: never.")
    ] = None,
    delta_minutes: Annotated[
        int | None, typer.Option("--delta-minutes", help="Delta every so many minutes; 0: never.")
    ] = None,
    json: Json = False,
) -> None:
    """Show when discovery runs by itself, or change it."""
    path = f"/api/v1/discovery/schedules/{service or '-'}"
    found = site_client().get(path)
    given = {"full_days": full_days, "delta_minutes": delta_minutes}
    news = {name: value for name, value in given.items() if value is not None}
    if news:
        kept = {name: found[name] for name in given}
        found = site_client().put(path, {**kept, **news})
    emit(found, _schedule, json)


def _schedule(value: dict[str, Any]) -> str:
    full, delta = value["full_days"], value["delta_minutes"]
    return (
        f"{value['service']}\n"
        f"  Full discovery   {f'every {full} days' if full else 'when it is asked for'}"
        f", last {value['full_at'] or 'never'}\n"
        f"  Delta discovery  {f'every {delta} minutes' if delta else 'when it is asked for'}"
        f", last {value['delta_at'] or 'never'}"
    )


@app.command()
def status(json: Json = False) -> None:
    """List the last runs."""
    found = site_client().get("/api/v1/discovery/runs")
    columns = {
        "id": "Run",
        "kind": "Kind",
        "started_at": "Started",
        "state": "State",
        "users": "Users",
        "added": "New",
        "removed": "Gone",
        "reason": "Reason",
    }
    emit(found, lambda rows: table(rows, columns), json)
