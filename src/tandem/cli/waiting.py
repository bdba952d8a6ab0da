"""What waits for a second administrator, of one kind: list it, approve it, cancel it."""

from collections.abc import Callable
from typing import Annotated, Any
from urllib.parse import quote

import typer

from tandem.cli.context import Json, Yes, confirm, emit, site_client, table

Reason = Annotated[
    str, typer.Option(help="Why, for a second administrator who may have to approve it.")
]
Waiting = Annotated[str, typer.Argument(help="Id of what waits.")]


def add_commands(
    app: typer.Typer, url: str, what: Callable[[dict[str, Any]], str], suffix: str = ""
) -> None:
    """`what` says in a word what somebody asks for. `suffix`: of commands whose names are taken."""

    @app.command()
    def waiting(json: Json = False) -> None:
        """List what waits for a second administrator."""
        found = site_client().get(f"{url}/waiting")
        columns = {
            "id": "Id",
            "what": "What",
            "collection": "Collection",
            "reaches": "Members",
            "asked_by": "Asked by",
            "reason": "Because",
        }
        rows = [{**one, "what": what(one)} for one in found]
        emit(found, lambda _: table(rows, columns) if rows else "Nothing waits.", json)

    @app.command(f"approve{suffix}")
    def approve(request: Waiting, yes: Yes = False, json: Json = False) -> None:
        """Have what another administrator asked for."""
        api = site_client()
        found = next((one for one in api.get(f"{url}/waiting") if one["id"] == request), None)
        if found:
            confirm(
                f"{found['asked_by']} asks for {what(found)} for {found['collection']},"
                f" {found['reaches']} members, because: {found['reason']}. Approve?",
                yes,
                json,
            )
        body = {
            "devices": found["reaches"] if found else 0,
            "seen": found["seen"] if found else "",
        }
        made = api.post(f"{url}/waiting/{quote(request, safe='')}/approve", body)
        emit(made, lambda _: "Approved.", json)

    @app.command(f"cancel{suffix}")
    def cancel(request: Waiting, json: Json = False) -> None:
        """Let nobody have what waits for a second administrator."""
        site_client().delete(f"{url}/waiting/{quote(request, safe='')}")
        emit({"cancelled": request}, lambda _: "Cancelled: no device gets it.", json)


def asked(value: Any, command: str) -> str:
    """What is said where a second administrator has to approve; empty where it is done."""
    if not isinstance(value, dict) or value.get("state") != "approval":
        return ""
    return (
        f"{value['name']} reaches {value['devices']} members: a second administrator has to approve"
        f" it: `tandem {command} {value['id']}`."
    )
