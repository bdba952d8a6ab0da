"""tandem user: people in the tenant."""

from pathlib import Path
from typing import Annotated, Any

import typer

from tandem.cli.context import (
    Json,
    Refused,
    Yes,
    confirm,
    emit,
    graph_client,
    read_secret,
    table,
)

app = typer.Typer(help="Users of the tenant.", no_args_is_help=True)

_SELECT = "id,userPrincipalName,displayName,accountEnabled,usageLocation"


@app.command()
def create(
    upn: Annotated[str, typer.Argument(help="Sign-in name: somebody@your-domain.")],
    name: Annotated[str, typer.Option(help="Display name.")],
    password_file: Annotated[
        Path | None, typer.Option(help="File with the password; '-' reads standard input.")
    ] = None,
    usage_location: Annotated[
        str | None, typer.Option(help="Country in two letters; licences need it.")
    ] = None,
    json: Json = False,
) -> None:
    """Create a user."""
    password = read_secret(password_file, "Password of the new user")
    made = graph_client().post(
        "/v1.0/users",
        {
            "accountEnabled": True,
            "displayName": name,
            "mailNickname": upn.partition("@")[0],
            "userPrincipalName": upn,
            "usageLocation": usage_location,
            "passwordProfile": {"password": password, "forceChangePasswordNextSignIn": False},
        },
    )
    value = {"id": made["id"], "user_principal_name": made["userPrincipalName"]}
    emit(value, lambda _: f"Created {made['userPrincipalName']} ({made['id']}).", json)


@app.command("list")
def list_users(json: Json = False) -> None:
    """List all users."""
    users = graph_client().every("/v1.0/users", **{"$select": _SELECT})
    columns = {
        "userPrincipalName": "User",
        "displayName": "Name",
        "accountEnabled": "Enabled",
        "usageLocation": "Location",
    }
    emit(users, lambda rows: table(rows, columns), json)


@app.command()
def show(
    user: Annotated[str, typer.Argument(help="Sign-in name or id.")], json: Json = False
) -> None:
    """Show a user with groups, directory roles, licences and devices."""
    graph = graph_client()
    found = graph.get(f"/v1.0/users/{user}", **{"$select": f"{_SELECT},licenseAssignmentStates"})
    above = graph.every(f"/v1.0/users/{found['id']}/memberOf")
    value: dict[str, Any] = {
        **{name: found[name] for name in _SELECT.split(",")},
        "groups": _names(above, "group"),
        "roles": _names(above, "directoryRole"),
        "licences": [
            {"product": item["skuPartNumber"], "plans": _plans(item)}
            for item in graph.every(f"/v1.0/users/{found['id']}/licenseDetails")
        ],
        "licence_errors": [
            item for item in found["licenseAssignmentStates"] if item["state"] == "Error"
        ],
        "devices": [
            item["displayName"] for item in graph.every(f"/v1.0/users/{found['id']}/ownedDevices")
        ],
    }
    emit(value, _text, json)


@app.command()
def delete(
    user: Annotated[str, typer.Argument(help="Sign-in name or id.")],
    yes: Yes = False,
    json: Json = False,
) -> None:
    """Delete a user. For 30 days `tandem user restore` brings everything back."""
    confirm(f"Delete {user}?", yes, json)
    graph = graph_client()
    found = graph.get(f"/v1.0/users/{user}")
    graph.delete(f"/v1.0/users/{found['id']}")
    value = {"id": found["id"], "user_principal_name": found["userPrincipalName"]}
    said = f"Deleted {value['user_principal_name']}. To undo: tandem user restore {found['id']}"
    emit(value, lambda _: said, json)


@app.command("deleted")
def list_deleted(json: Json = False) -> None:
    """List users that can be restored."""
    found = graph_client().every("/v1.0/directory/deletedItems/microsoft.graph.user")
    columns = {
        "userPrincipalName": "User",
        "displayName": "Name",
        "deletedDateTime": "Deleted",
        "id": "Id",
    }
    emit(found, lambda rows: table(rows, columns), json)


@app.command()
def restore(
    user: Annotated[str, typer.Argument(help="Id or sign-in name, as `user deleted` shows it.")],
    json: Json = False,
) -> None:
    """Bring a deleted user back, with groups, roles, licences and devices."""
    graph = graph_client()
    found = [
        item
        for item in graph.every("/v1.0/directory/deletedItems/microsoft.graph.user")
        if user.lower() in (item["id"], item["userPrincipalName"].lower())
    ]
    if len(found) != 1:
        raise Refused(
            f"{len(found)} deleted users are called '{user}'.",
            cure="Run `tandem user deleted`, and give the id.",
        )
    back = graph.post(f"/v1.0/directory/deletedItems/{found[0]['id']}/restore", {})
    value = {"id": back["id"], "user_principal_name": back["userPrincipalName"]}
    emit(value, lambda _: f"Restored {back['userPrincipalName']}.", json)


def _names(items: list[dict[str, Any]], sort: str) -> list[str]:
    return [i["displayName"] for i in items if i["@odata.type"] == f"#microsoft.graph.{sort}"]


def _plans(item: dict[str, Any]) -> list[str]:
    return [
        plan["servicePlanName"]
        for plan in item["servicePlans"]
        if plan["provisioningStatus"] == "Success"
    ]


def _text(value: dict[str, Any]) -> str:
    licences = [f"{item['product']} ({', '.join(item['plans'])})" for item in value["licences"]]
    licences += [f"failed: {item['error']}" for item in value["licence_errors"]]
    lines = {
        "User": value["userPrincipalName"],
        "Name": value["displayName"],
        "Id": value["id"],
        "Enabled": "yes" if value["accountEnabled"] else "no",
        "Location": value["usageLocation"] or "-",
        "Groups": ", ".join(value["groups"]) or "-",
        "Roles": ", ".join(value["roles"]) or "-",
        "Licences": ", ".join(licences) or "-",
        "Devices": ", ".join(value["devices"]) or "-",
    }
    return "\n".join(f"{name:<10} {text}" for name, text in lines.items())
