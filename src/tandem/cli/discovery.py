"""tandem discovery: the tenant's users and groups become resources of the site."""

import time
from typing import Annotated, Any
from urllib.parse import quote

import typer

from tandem.cli.context import Json, Refused, emit, progress, site_client, table

app = typer.Typer(help="Discovery of the tenant's users and groups.", no_args_is_help=True)

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
    groups: Annotated[
        bool, typer.Option("--groups", help="The chosen groups, with their members.")
    ] = False,
    json: Json = False,
) -> None:
    """Run discovery now: of users full or delta, or of groups."""
    if delta and groups:
        raise typer.BadParameter("There is no delta of groups: say --delta or --groups.")
    api = site_client()
    path = f"/api/v1/discovery/{'group-runs' if groups else 'delta-runs' if delta else 'runs'}"
    found: dict[str, Any] = api.post(path)
    with progress("Discovering…", json):
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
    if value["kind"] == "groups":
        return (
            f"{value['groups']} groups with {value['users']} users, {value['added']} of them new."
            f"{removed}"
        )
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


Service = Annotated[
    str, typer.Option("--service", help="Azure service; the only one when left out.")
]
_GROUPS = "/api/v1/discovery/groups"


@app.command()
def groups(
    service: Service = "",
    on: Annotated[bool | None, typer.Option("--on/--off", help="Switch it on, or off.")] = None,
    every_hours: Annotated[
        int | None, typer.Option("--every-hours", help="Every so many hours; 0: never.")
    ] = None,
    json: Json = False,
) -> None:
    """Show discovery of groups and which are chosen, or change when it runs."""
    path = f"{_GROUPS}/{quote(service or '-', safe='')}"
    news = {
        name: value
        for name, value in (("enabled", on), ("every_hours", every_hours))
        if value is not None
    }
    found = site_client().patch(path, news) if news else site_client().get(path)
    emit(found, _groups, json)


def _groups(value: dict[str, Any]) -> str:
    every = value["every_hours"]
    head = (
        f"{value['service']}: discovery of groups is {'on' if value['enabled'] else 'off'}\n"
        f"  Runs {f'every {every} hours' if every else 'when it is asked for'}"
        f", last {value['at'] or 'never'}"
    )
    columns = {"name": "Group", "object_id": "Id", "state": "Found as", "members": "Users"}
    return f"{head}\n{table(value['groups'], columns)}" if value["groups"] else head


@app.command("find-groups")
def find_groups(
    text: Annotated[str, typer.Argument(help="What the name begins with.")] = "",
    every: Annotated[
        bool, typer.Option("--all", help="Groups that are no security groups, too.")
    ] = False,
    service: Service = "",
    json: Json = False,
) -> None:
    """Search the tenant's groups, to choose some."""
    asked = {"search": text, "all": "1" if every else ""}
    found = site_client().get(f"{_GROUPS}/{quote(service or '-', safe='')}/found", **asked)
    columns = {"name": "Group", "object_id": "Id", "security": "Security", "chosen": "Chosen"}
    emit(found, lambda rows: table(rows, columns), json)


@app.command("add-group")
def add_group(
    group: Annotated[list[str], typer.Argument(help="Name or object id, several if wanted.")],
    service: Service = "",
    json: Json = False,
) -> None:
    """Choose groups of the tenant: discovery makes resources of them."""
    path = f"{_GROUPS}/{quote(service or '-', safe='')}/scope"
    emit(site_client().post(path, {"groups": group}), _groups, json)


@app.command("remove-group")
def remove_group(
    group: Annotated[str, typer.Argument(help="Name or object id.")],
    service: Service = "",
    json: Json = False,
) -> None:
    """Discover a group no more: it leaves its collections. Its members stay users."""
    path, api = f"{_GROUPS}/{quote(service or '-', safe='')}", site_client()
    wanted = group.strip().casefold()
    chosen = next(
        (
            item["object_id"]
            for item in api.get(path)["groups"]
            if wanted in {item["name"].casefold(), item["object_id"].casefold()}
        ),
        group,
    )
    emit(api.delete(f"{path}/scope/{quote(chosen, safe='')}"), _groups, json)


@app.command()
def status(json: Json = False) -> None:
    """List the last runs."""
    found = site_client().get("/api/v1/discovery/runs")
    columns = {
        "id": "Run",
        "kind": "Kind",
        "started_at": "Started",
        "state": "State",
        "groups": "Groups",
        "users": "Users",
        "added": "New",
        "removed": "Gone",
        "reason": "Reason",
    }
    emit(found, lambda rows: table(rows, columns), json)
