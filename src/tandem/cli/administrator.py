"""tandem administrator: who may work with the site."""

from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import typer

from tandem.cli.context import Json, Yes, confirm, emit, read_secret, site_client, table

app = typer.Typer(
    help="The site's own administrators, their roles and scopes.", no_args_is_help=True
)
_ROLES = (
    "full-administrator, infrastructure-administrator, operations-administrator or"
    " read-only-analyst."
)
Scopes = Annotated[
    list[str] | None,
    typer.Option("--scope", help="Only objects with this scope; several times for more. All: all."),
]
Collections = Annotated[
    list[str] | None,
    typer.Option(
        "--collection", help="Only devices of this collection; several times for more. All: all."
    ),
]


@app.command()
def add(
    name: Annotated[str, typer.Argument(help="Name to sign in with.")],
    role: Annotated[
        str,
        typer.Option(help=_ROLES),
    ] = "full-administrator",
    password_file: Annotated[
        Path | None, typer.Option("--password-file", help="File with the password; - reads stdin.")
    ] = None,
    upn: Annotated[
        str, typer.Option("--upn", help="An account of the tenant, instead of a password.")
    ] = "",
    tenant_id: Annotated[str, typer.Option("--tenant-id", help="Tenant of that account.")] = "",
    scope: Scopes = None,
    collection: Collections = None,
    json: Json = False,
) -> None:
    """Add an administrator, with a password of the site's own or as an account of the tenant."""
    if bool(upn) != bool(tenant_id):
        raise typer.BadParameter("--upn and --tenant-id go together.")
    wanted: dict[str, Any] = {"name": name, "role": role, "upn": upn, "tenant_id": tenant_id}
    wanted |= _limits(scope, collection)
    if not upn:
        wanted["password"] = read_secret(password_file, f"Password for {name}")
    made = site_client().post("/api/v1/administrators", wanted)
    emit(made, _said, json)


def _limits(scope: list[str] | None, collection: list[str] | None) -> dict[str, Any]:
    """What is named; All among collections is no limit."""
    found: dict[str, Any] = {}
    if scope:
        found["scopes"] = scope
    if collection:
        every = any(name.lower() == "all" for name in collection)
        found["collections"] = [] if every else collection
    return found


def _said(who: dict[str, Any]) -> str:
    return f"{who['name']} is {who['role']} of the site, over {_over(who)}."


def _over(who: dict[str, Any]) -> str:
    if who["over_all"]:
        return "All"
    scopes = ", ".join(who["scopes"])
    collections = ", ".join(who["collections"]) or "all collections"
    return f"scopes {scopes}; {collections}"


@app.command("list")
def list_administrators(json: Json = False) -> None:
    """List administrators."""
    found = site_client().get("/api/v1/administrators")
    columns = {
        "name": "Administrator",
        "role": "Role",
        "over": "Over",
        "upn": "Account of the tenant",
    }
    emit(
        found,
        lambda rows: table([{**row, "over": _over(row)} for row in rows], columns),
        json,
    )


@app.command("set-role")
def set_role(
    name: Annotated[str, typer.Argument(help="Name of the administrator.")],
    role: Annotated[
        str,
        typer.Argument(help=_ROLES),
    ],
    json: Json = False,
) -> None:
    """Give an administrator another role. It holds for their open sessions too."""
    found = site_client().patch(f"/api/v1/administrators/{quote(name, safe='')}", {"role": role})
    emit(found, _said, json)


@app.command("set-scope")
def set_scope(
    name: Annotated[str, typer.Argument(help="Name of the administrator.")],
    scope: Scopes = None,
    collection: Collections = None,
    json: Json = False,
) -> None:
    """Limit an administrator to scopes and collections, or lift that. It holds at once."""
    wanted = _limits(scope, collection)
    if not wanted:
        raise typer.BadParameter("Name --scope, --collection or both.")
    found = site_client().patch(f"/api/v1/administrators/{quote(name, safe='')}", wanted)
    emit(found, _said, json)


@app.command()
def permissions(
    name: Annotated[str, typer.Argument(help="Name of the administrator; without: you.")] = "",
    json: Json = False,
) -> None:
    """What an administrator may do: every operation of the site, and how far it reaches."""
    whose = f"administrators/{quote(name, safe='')}" if name else "me"
    found = site_client().get(f"/api/v1/{whose}/permissions")

    def said(answer: dict[str, Any]) -> str:
        rows = [
            {
                "operation": item["operation"],
                "may": ("yes, in part" if item["limited"] else "yes") if item["allowed"] else "no",
                "needs": " or ".join(item["needs"]) + (" over All" if item["over_all"] else ""),
            }
            for item in answer["operations"]
        ]
        columns = {"operation": "Operation", "may": "May", "needs": "Needs"}
        return f"{_said(answer['administrator'])}\n{table(rows, columns)}"

    emit(found, said, json)


@app.command()
def scopes(json: Json = False) -> None:
    """List the security scopes of the site."""
    found = site_client().get("/api/v1/scopes")
    columns = {
        "name": "Scope",
        "administrators": "Administrators",
        "objects": "Objects",
        "comment": "Comment",
    }
    emit(found, lambda rows: table(rows, columns), json)


@app.command("add-scope")
def add_scope(
    name: Annotated[str, typer.Argument(help="Name of the scope.")],
    comment: Annotated[str, typer.Option(help="What it is for.")] = "",
    json: Json = False,
) -> None:
    """Make a security scope."""
    made = site_client().post("/api/v1/scopes", {"name": name, "comment": comment})
    emit(made, lambda scope: f"There is a scope {scope['name']}.", json)


@app.command("remove-scope")
def remove_scope(
    name: Annotated[str, typer.Argument(help="Name of the scope.")], json: Json = False
) -> None:
    """Remove a scope that no administrator and no object has."""
    site_client().delete(f"/api/v1/scopes/{quote(name, safe='')}")
    emit({"removed": name}, lambda _: f"The scope {name} is gone.", json)


@app.command()
def scope(
    name: Annotated[str, typer.Argument(help="Name of the scope.")], json: Json = False
) -> None:
    """Who and what has a scope."""
    found = site_client().get(f"/api/v1/scopes/{quote(name, safe='')}")

    def said(answer: dict[str, Any]) -> str:
        people = [f"  {who['name']}, {who['role']}" for who in answer["has"]]
        items = [f"  {item['kind']} {item['name']}" for item in answer["carried_by"]]
        return "\n".join([f"Administrators over {answer['name']}:", *people, "Objects:", *items])

    emit(found, said, json)


@app.command()
def objects(
    kind: Annotated[str, typer.Argument(help="Only of this kind; without: of every kind.")] = "",
    json: Json = False,
) -> None:
    """List what carries scopes, with the scopes it has."""
    path = f"/api/v1/scopes/objects{f'/{quote(kind, safe=str())}' if kind else ''}"
    columns = {"kind": "Kind", "name": "Name", "over": "Scopes", "id": "Id"}
    emit(
        site_client().get(path),
        lambda rows: table([{**row, "over": ", ".join(row["scopes"])} for row in rows], columns),
        json,
    )


Carrier = Annotated[str, typer.Argument(help="configuration or gateway.")]
Which = Annotated[str, typer.Argument(help="Name or id of the object.")]


@app.command("give-scope")
def give_scope(
    kind: Carrier,
    id: Which,
    scope: Annotated[list[str], typer.Argument(help="The scopes it is to have, and no others.")],
    also: Annotated[
        bool, typer.Option("--also", help="Beside the scopes that it has, not in their place.")
    ] = False,
    json: Json = False,
) -> None:
    """Give an object other scopes than it has."""
    where, api = _carrier(kind, id), site_client()
    found = api.patch(where, {"add": scope}) if also else api.put(where, {"scopes": scope})
    emit(found, _carries, json)


@app.command("take-scope")
def take_scope(
    kind: Carrier,
    id: Which,
    scope: Annotated[list[str], typer.Argument(help="The scopes it is to lose.")],
    json: Json = False,
) -> None:
    """Take scopes from an object. One that has no other is left with Default."""
    emit(site_client().patch(_carrier(kind, id), {"remove": scope}), _carries, json)


def _carrier(kind: str, id: str) -> str:
    return f"/api/v1/scopes/objects/{quote(kind, safe='')}/{quote(id, safe='')}"


def _carries(found: dict[str, Any]) -> str:
    return f"{found['kind']} {found['name']} has the scopes {', '.join(found['scopes'])}."


@app.command("change-password")
def change_password(
    current_file: Annotated[
        Path | None, typer.Option("--current-file", help="File with the current password.")
    ] = None,
    password_file: Annotated[
        Path | None, typer.Option("--password-file", help="File with the new password.")
    ] = None,
    json: Json = False,
) -> None:
    """Change your own password of the site. Your other sessions end."""
    given = {
        "current": read_secret(current_file, "Current password"),
        "password": read_secret(password_file, "New password"),
    }
    site_client().post("/api/v1/me/password", given)
    emit({"changed": True}, lambda _: "Your password is changed.", json)


@app.command()
def remove(
    name: Annotated[str, typer.Argument(help="Name of the administrator.")],
    yes: Yes = False,
    json: Json = False,
) -> None:
    """Remove an administrator and end their sessions."""
    confirm(f"Remove the administrator {name}?", yes, json)
    site_client().delete(f"/api/v1/administrators/{quote(name, safe='')}")
    emit({"removed": name}, lambda _: f"{name} is no longer an administrator.", json)
