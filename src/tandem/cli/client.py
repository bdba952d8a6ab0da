"""`tandem client …`"""

from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import typer

from tandem.cli.context import (
    Api,
    Json,
    Refused,
    confirm,
    emit,
    named,
    progress,
    site_client,
    table,
)

app = typer.Typer(
    help="The client that devices install, and clients that are not one machine each.",
    no_args_is_help=True,
)


@app.callback()
def _noun() -> None:
    pass


@app.command()
def package(
    output: Annotated[
        Path | None, typer.Option("--output", help="Save the MSI here (a file or a folder).")
    ] = None,
    json: Json = False,
) -> None:
    """Show the client package (ccmsetup.msi) of the site, built when missing, and save it."""
    with progress("Fetching the client package…", json):
        api = site_client()
        found: dict[str, Any] = api.get("/api/v1/client-package")
        if output is not None:
            target = output / found["file_name"] if output.is_dir() else output
            target.write_bytes(api.get(found["path"]))
            found["saved"] = str(target.absolute())
    emit(found, _text, json)


@app.command("list")
def list_clients(
    search: Annotated[str, typer.Argument(help="Part of a name, or an id.")] = "",
    active: Annotated[
        bool | None,
        typer.Option("--active/--inactive", help="Only those heard of within a week, or not."),
    ] = None,
    obsolete: Annotated[bool, typer.Option(help="With superseded records.")] = False,
    limit: Annotated[int, typer.Option(help="At most so many.")] = 100,
    json: Json = False,
) -> None:
    """List clients, and how many are active: heard of within the last 7 days."""
    found = site_client().get(
        "/api/v1/clients",
        search=search or None,
        active=None if active is None else str(active).lower(),
        obsolete="true" if obsolete else None,
        limit=limit,
    )
    emit(found, _clients, json)


def _clients(found: dict[str, Any]) -> str:
    columns = {
        "name": "Device",
        "id": "Client",
        "registered_by": "Registered by",
        "client_version": "Version",
        "last_seen_at": "Last heard of",
    }
    activity = found["activity"]
    said = f"{found['total']} clients; {activity['active']} active, {activity['inactive']} inactive"
    return f"{table(found['clients'], columns)}\n{said}"


@app.command()
def delete(
    client: Annotated[str, typer.Argument(help="The client's id, or its device's name.")],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    json: Json = False,
) -> None:
    """Delete the site's record of a device, with its inventory, ledger and direct rules.

    A client that still runs registers again, as another device. One that is blocked is not deleted.
    """
    site = site_client()
    found = _one(site, client)
    confirm(f"Delete the record of {found['name']} ({found['id']})?", yes, json)
    site.delete(f"/api/v1/clients/{quote(found['id'], safe='')}")
    done = {"id": found["id"], "name": found["name"], "deleted": True}
    emit(done, lambda _: f"The site's record of {found['name']} is deleted.", json)


def _one(site: Api, wanted: str) -> dict[str, Any]:
    try:
        found: dict[str, Any] = site.get(f"/api/v1/clients/{quote(wanted, safe='')}")["client"]
    except Refused as error:
        if error.remote != "client.not-found":
            raise
        listed = site.get("/api/v1/clients", search=wanted, obsolete="true", limit=1000)
        cure = "`tandem client list --obsolete` shows all of them."
        return named(listed["clients"], wanted, kind="client", cure=cure, key="name")
    return found


@app.command()
def conflicts(
    every: Annotated[bool, typer.Option("--all", help="Also those that are over.")] = False,
    json: Json = False,
) -> None:
    """List clients that are two machines, and machines that are two clients."""
    found = site_client().get("/api/v1/client-conflicts", resolved="true" if every else None)
    emit(found["conflicts"], _conflicts, json)


def _conflicts(rows: list[dict[str, Any]]) -> str:
    if not rows:
        return "Every client is one machine, as far as the site can see."
    columns = {
        "id": "Id",
        "name": "Device",
        "client_id": "Client",
        "times": "Seen",
        "last_at": "Last",
        "decision": "Decision",
        "text": "What was seen",
    }
    cures = "\n".join(f"{row['id']}: {row['cure']}" for row in rows if not row["decision"])
    return f"{table(rows, columns)}\n{cures}"


_Conflict = Annotated[int, typer.Argument(help="The conflict's number, as `conflicts` shows it.")]


@app.command("new-identity")
def new_identity(
    conflict: _Conflict,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    json: Json = False,
) -> None:
    """Have the copy of a client make a key of its own and register as another device."""
    confirm(f"Give the copy of conflict {conflict} an identity of its own?", yes, json)
    _decide(conflict, "new-identity", "The copy does it when it next reports.", json)


@app.command()
def dismiss(conflict: _Conflict, json: Json = False) -> None:
    """Say that a conflict is none: the disk was moved or put back, or both machines are real."""
    _decide(conflict, "dismiss", "The conflict is dismissed.", json)


def _decide(conflict: int, decision: str, text: str, json: bool) -> None:
    path = f"/api/v1/client-conflicts/{conflict}/decide"
    emit(site_client().post(path, {"decision": decision}), lambda _: text, json)


def _text(found: dict[str, Any]) -> str:
    lines = [
        f"{found['product_name']} {found['version']}, site {found['site_code']}",
        f"  Product code  {found['product_code']}",
        f"  SHA-256       {found['sha256']}",
        f"  Size          {found['size_bytes']:,} bytes",
    ]
    runtime = found["windows_runtime_sha256"]
    lines.append(f"  Runtime       {runtime or 'none: a placeholder, not for a Windows machine'}")
    if "saved" in found:
        lines.append(f"  Saved         {found['saved']}")
    return "\n".join(lines)
