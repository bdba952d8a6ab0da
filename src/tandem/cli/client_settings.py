"""tandem client-settings: what clients are told to do, before any policy of a workload."""

from typing import Annotated, Any
from urllib.parse import quote

import typer

from tandem.cli.context import Json, emit, site_client, table
from tandem.cli.waiting import Reason, add_commands, asked

app = typer.Typer(
    help="Client settings: the default ones, custom ones with priorities, and what results.",
    no_args_is_help=True,
)
_API = "/api/v1/client-settings"
Name = Annotated[str, typer.Argument(help="Name or id of custom client settings.")]
Values = Annotated[
    list[str] | None,
    typer.Option("--set", help="name=value; chooses the setting's group. Any number of them."),
]
Groups = Annotated[
    list[str] | None,
    typer.Option("--group", help="A group of settings: 'Client policy'. Any number of them."),
]
ToCollection = Annotated[str, typer.Option(help="Name or id of a collection.")]


def _of(name: str, *parts: str) -> str:
    return "/".join((f"{_API}/custom", *(quote(part, safe="") for part in (name, *parts))))


@app.command()
def show(json: Json = False) -> None:
    """Show the default client settings."""
    emit(site_client().get(_API), _text, json)


@app.command("set")
def set_(
    settings: Annotated[
        list[str],
        typer.Argument(help="name=value, any number: enable_cloud_management_gateway=yes"),
    ],
    json: Json = False,
) -> None:
    """Change default client settings, all that are named or none."""
    emit(site_client().patch(_API, _pairs(settings)), _text, json)


@app.command("list")
def list_(json: Json = False) -> None:
    """List custom client settings in the order in which they win, and the default ones at the end."""
    emit(site_client().get(f"{_API}/custom"), _listed, json)


@app.command()
def custom(name: Name, json: Json = False) -> None:
    """Show custom client settings: their values, and the collections that they are deployed to."""
    emit(site_client().get(_of(name)), _one, json)


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="What they are to be called.")],
    set_: Values = None,
    group: Groups = None,
    type_: Annotated[str, typer.Option("--type", help="device or user.")] = "device",
    description: Annotated[str, typer.Option(help="What they are for.")] = "",
    deploy_to: Annotated[
        str, typer.Option(help="Name or id of a collection to deploy them to.")
    ] = "",
    reason: Reason = "",
    json: Json = False,
) -> None:
    """Make custom client settings with the groups that are chosen, behind all that there are.

    Each setting of a chosen group that is not named is as it is by default now.
    """
    wanted = {
        "name": name,
        "description": description,
        "type": type_,
        "groups": group or [],
        "settings": _pairs(set_ or []),
    }
    client = site_client()
    made = client.post(f"{_API}/custom", wanted)
    if deploy_to:
        body = {"collection": deploy_to, "reason": reason}
        made = client.post(f"{_of(made['id'])}/deployments", body)
    emit(made, _one, json)


@app.command()
def change(
    name: Name,
    set_: Values = None,
    group: Annotated[
        list[str] | None,
        typer.Option("--group", help="The groups that they have from now on: all of them."),
    ] = None,
    rename: Annotated[str | None, typer.Option(help="Another name.")] = None,
    description: Annotated[str | None, typer.Option(help="What they are for.")] = None,
    json: Json = False,
) -> None:
    """Change custom client settings, all that is named or nothing."""
    wanted = {
        "name": rename,
        "description": description,
        "groups": group,
        "settings": _pairs(set_ or []),
    }
    emit(site_client().patch(_of(name), wanted), _one, json)


@app.command()
def move(
    name: Name,
    to: Annotated[str, typer.Argument(help="up, down, or the number of a priority; 1 wins.")],
    json: Json = False,
) -> None:
    """Give custom client settings another priority; those that they pass move by one."""
    client = site_client()
    if to in ("up", "down"):
        here = client.get(_of(name))["priority"]
        place = here - 1 if to == "up" else here + 1
    elif to.isascii() and to.isdigit() and len(to) < 6:
        place = int(to)
    else:
        raise typer.BadParameter(f"{to!r} is not up, down or a number.")
    client.patch(_of(name), {"priority": place})
    emit(client.get(f"{_API}/custom"), _listed, json)


@app.command()
def deploy(name: Name, collection: ToCollection, reason: Reason = "", json: Json = False) -> None:
    """Have custom client settings hold for the members of a collection."""
    body = {"collection": collection, "reason": reason}
    emit(site_client().post(f"{_of(name)}/deployments", body), _one, json)


@app.command()
def withdraw(name: Name, collection: ToCollection, json: Json = False) -> None:
    """Have them hold for the members of a collection no more."""
    emit(site_client().delete(_of(name, "deployments", collection)), _one, json)


@app.command()
def delete(
    name: Name,
    yes: Annotated[bool, typer.Option("--yes", help="Without asking.")] = False,
    json: Json = False,
) -> None:
    """Delete custom client settings: devices go back to what the others say."""
    client = site_client()
    found = client.get(_of(name))
    if not yes:
        to = ", ".join(f"{one['collection']} ({one['members']})" for one in found["deployments"])
        typer.confirm(f"{found['name']}, deployed to {to or 'nothing'}: delete?", abort=True)
    client.delete(_of(found["id"]))
    emit({"deleted": found["name"]}, lambda value: f"{value['deleted']} is deleted.", json)


@app.command()
def resultant(
    device: Annotated[str, typer.Argument(help="Name, number or client id of a device.")] = "",
    user: Annotated[str, typer.Option(help="Sign-in name, number or object id of a user.")] = "",
    json: Json = False,
) -> None:
    """Show what results for one device, or for one user, and why."""
    if bool(device) == bool(user):
        raise typer.BadParameter("Name one device, or one user with --user.")
    if user:
        found = site_client().get(f"{_API}/resultant-user/{quote(user, safe='')}")
        emit(found, lambda value: f"{value['user']}\n{_why(value['settings'])}", json)
        return
    found = site_client().get(f"{_API}/resultant/{quote(device, safe='')}")
    emit(found, lambda value: f"{value['device']}\n{_why(value['settings'])}", json)


def _pairs(settings: list[str]) -> dict[str, str]:
    wanted = {}
    for item in settings:
        name, equals, value = item.partition("=")
        if not equals:
            raise typer.BadParameter(f"{item!r} is not name=value.")
        wanted[name] = value
    return wanted


def _listed(rows: list[dict[str, Any]]) -> str:
    shown = [
        {
            **row,
            "type": row.get("type", ""),
            "groups": ", ".join(row.get("groups", ())),
            "to": ", ".join(one["collection"] for one in row.get("deployments", ())),
        }
        for row in rows
    ]
    columns = {
        "priority": "Priority",
        "name": "Name",
        "type": "Type",
        "groups": "Groups",
        "to": "Deployed to",
    }
    return table(shown, columns)


def _waits(one: dict[str, Any]) -> str:
    values = ", ".join(f"{name}={_word(value)}" for name, value in one["settings"].items())
    return f"{one['name']} ({values})"


add_commands(app, _API, _waits)


def _one(found: dict[str, Any]) -> str:
    if waits := asked(found, "client-settings approve"):
        return waits
    lines = [f"{found['name']} ({found['type']} settings, priority {found['priority']})"]
    if found["description"]:
        lines.append(found["description"])
    for one in found["deployments"]:
        lines.append(f"Deployed to {one['collection']}: {one['members']} members")
    if not found["deployments"]:
        lines.append("Deployed to nothing yet: `tandem client-settings deploy`.")
    values = [
        {**row, "value": _word(row["value"]), "in_default": _word(row["in_default"])}
        for row in found["settings"]
    ]
    columns = {"group": "Group", "title": "Setting", "value": "Value", "in_default": "By default"}
    return "\n".join([*lines, table(values, {**columns, "name": "Name"})])


def _why(rows: list[dict[str, Any]]) -> str:
    if not rows:
        return "No custom settings of users are for this user: all is as the device has it."
    shown = [
        {
            **row,
            "value": _word(row["value"]),
            "from": row["winner"]["name"],
            "priority": row["winner"]["priority"],
            "by": ", ".join(one["name"] for one in row["winner"]["collections"]),
            "over": ", ".join(f"{one['name']}: {_word(one['value'])}" for one in row["losers"]),
        }
        for row in rows
    ]
    columns = {
        "group": "Group",
        "title": "Setting",
        "value": "Value",
        "from": "From",
        "priority": "Priority",
        "by": "By collection",
        "over": "Over",
    }
    return table(shown, columns)


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
    return table(shown, columns)


def _word(value: bool | int) -> str:
    if isinstance(value, bool):
        return "Yes" if value else "No"
    return str(value)
