"""tandem administrator: who may work with the site."""

from pathlib import Path
from typing import Annotated
from urllib.parse import quote

import typer

from tandem.cli.context import Json, Yes, confirm, emit, read_secret, site_client, table

app = typer.Typer(help="The site's own administrators and their roles.", no_args_is_help=True)


@app.command()
def add(
    name: Annotated[str, typer.Argument(help="Name to sign in with.")],
    role: Annotated[
        str,
        typer.Option(help="full-administrator, operations-administrator or read-only-analyst."),
    ] = "full-administrator",
    password_file: Annotated[
        Path | None, typer.Option("--password-file", help="File with the password; - reads stdin.")
    ] = None,
    upn: Annotated[
        str, typer.Option("--upn", help="An account of the tenant, instead of a password.")
    ] = "",
    tenant_id: Annotated[str, typer.Option("--tenant-id", help="Tenant of that account.")] = "",
    json: Json = False,
) -> None:
    """Add an administrator, with a password of the site's own or as an account of the tenant."""
    if bool(upn) != bool(tenant_id):
        raise typer.BadParameter("--upn and --tenant-id go together.")
    wanted = {"name": name, "role": role, "upn": upn, "tenant_id": tenant_id}
    if not upn:
        wanted["password"] = read_secret(password_file, f"Password for {name}")
    made = site_client().post("/api/v1/administrators", wanted)
    emit(made, lambda who: f"{who['name']} is {who['role']} of the site.", json)


@app.command("list")
def list_administrators(json: Json = False) -> None:
    """List administrators."""
    found = site_client().get("/api/v1/administrators")
    columns = {"name": "Administrator", "role": "Role", "upn": "Account of the tenant"}
    emit(found, lambda rows: table(rows, columns), json)


@app.command("set-role")
def set_role(
    name: Annotated[str, typer.Argument(help="Name of the administrator.")],
    role: Annotated[
        str,
        typer.Argument(help="full-administrator, operations-administrator or read-only-analyst."),
    ],
    json: Json = False,
) -> None:
    """Give an administrator another role. It holds for their open sessions too."""
    found = site_client().patch(f"/api/v1/administrators/{quote(name, safe='')}", {"role": role})
    emit(found, lambda who: f"{who['name']} is {who['role']} of the site.", json)


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
