"""tandem group: groups of users and devices."""

from typing import Annotated, Any

import typer

from tandem.cli.context import Api, Json, Refused, emit, graph_client, table

app = typer.Typer(help="Groups of the tenant.", no_args_is_help=True)


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="Display name.")],
    description: Annotated[str | None, typer.Option()] = None,
    rule: Annotated[str | None, typer.Option(help="Members by rule: try it first.")] = None,
    json: Json = False,
) -> None:
    """Create a group, with members by hand or by a rule."""
    body: dict[str, Any] = {
        "displayName": name,
        "description": description,
        "mailEnabled": False,
        "mailNickname": "".join(part for part in name if part.isalnum()) or "group",
        "securityEnabled": True,
    }
    if rule is not None:
        body |= {"groupTypes": ["DynamicMembership"], "membershipRule": rule}
    made = graph_client().post("/v1.0/groups", body)
    value = {"id": made["id"], "name": made["displayName"]}
    emit(value, lambda _: f"Created the group {name} ({made['id']}).", json)


@app.command("try-rule")
def try_rule(
    rule: Annotated[str, typer.Argument(help='For example: user.department -eq "Sales"')],
    json: Json = False,
) -> None:
    """Show whom a membership rule would bring into a group, and change nothing."""
    found = graph_client().post("/v1.0/tandem/membershipRule", {"membershipRule": rule})
    emit(found, _tried, json)


def _tried(value: dict[str, Any]) -> str:
    shown = [item["displayName"] for item in value["first"]]
    more = value["count"] - len(shown)
    lines = [f"{value['count']} members ({value['memberType']})", *(f"  {name}" for name in shown)]
    return "\n".join([*lines, f"  and {more} more"] if more else lines)


@app.command("add-member")
def add_member(
    group: Annotated[str, typer.Argument(help="Name or id of the group.")],
    member: Annotated[list[str], typer.Argument(help="Users (name or id), or ids of devices.")],
    json: Json = False,
) -> None:
    """Add users, devices or groups to a group."""
    graph = graph_client()
    group_id = find_group(graph, group)
    added, present = [], []
    for item in member:
        object_id = find_member(graph, item)
        reference = {"@odata.id": f"https://graph.microsoft.com/v1.0/directoryObjects/{object_id}"}
        try:
            graph.post(f"/v1.0/groups/{group_id}/members/$ref", reference)
            added.append(item)
        except Refused as error:
            if "already exist" not in error.message:
                raise
            present.append(item)
    value = {"group": group_id, "added": added, "already_members": present}
    said = f"Added {len(added)} to {group}; {len(present)} were members already."
    emit(value, lambda _: said, json)


@app.command("list")
def list_groups(json: Json = False) -> None:
    """List all groups with their number of members."""
    graph = graph_client()
    groups = graph.every("/v1.0/groups", **{"$select": "id,displayName,description"})
    for item in groups:
        item["members"] = len(graph.every(f"/v1.0/groups/{item['id']}/members"))
    columns = {"displayName": "Group", "members": "Members", "id": "Id", "description": ""}
    emit(groups, lambda rows: table(rows, columns), json)


def find_group(graph: Api, name_or_id: str) -> str:
    """The id of the group with this name or id. Refuses names that several groups have."""
    named = name_or_id.replace("'", "''")
    found: list[dict[str, Any]] = graph.every(
        "/v1.0/groups", **{"$filter": f"displayName eq '{named}' or id eq '{named}'"}
    )
    if len(found) != 1:
        reason = "There is no group" if not found else f"{len(found)} groups are"
        raise Refused(
            f"{reason} called '{name_or_id}'.", cure="Run `tandem group list`, and give the id."
        )
    return str(found[0]["id"])


def find_member(graph: Api, name_or_id: str) -> str:
    if "@" not in name_or_id:
        return name_or_id
    return str(graph.get(f"/v1.0/users/{name_or_id}", **{"$select": "id"})["id"])
