"""tandem bulk-registration-token: let devices register that no directory knows."""

from typing import Annotated, Any

import typer

from tandem.cli.context import Json, confirm, emit, site_client, table

app = typer.Typer(
    help="Tokens with which ccmsetup registers devices (the field's BulkRegistrationTokenTool).",
    no_args_is_help=True,
)

_TOKENS = "/api/v1/registration-tokens"
_Id = Annotated[str, typer.Argument(help="The token's id, as `list` shows it.")]


@app.command()
def new(
    lifetime: Annotated[int, typer.Option(help="Minutes that it is good for, 1 to 10080.")] = 4320,
    description: Annotated[str, typer.Option(help="What it is for, for the list.")] = "",
    json: Json = False,
) -> None:
    """Issue a token for /regtoken:. It is shown once; whoever has it can register devices."""
    body = {"minutes": lifetime, "description": description}
    emit(site_client().post(_TOKENS, body), _made, json)


def _made(value: dict[str, Any]) -> str:
    return (
        f"Bulk registration token {value['id']}, good until {value['expires_at']} and not shown "
        f"again:\n{value['token']}\n"
        "On the device: ccmsetup /regtoken:<token> CCMHOSTNAME=… SMSSITECODE=…"
    )


@app.command("list")
def list_tokens(json: Json = False) -> None:
    """List the tokens: until when they are good, and how many clients registered by each."""
    rows = site_client().get(_TOKENS)["tokens"]
    columns = {
        "id": "Id",
        "description": "Description",
        "expires_at": "Good until",
        "blocked": "Blocked",
        "registered": "Clients",
        "created_by": "Issued by",
    }
    emit(rows, lambda found: table(found, columns), json)


@app.command()
def block(token: _Id, json: Json = False) -> None:
    """Let nothing more register by a token. Clients that did stay registered."""
    emit(site_client().post(f"{_TOKENS}/{token}/block"), lambda _: "The token is blocked.", json)


@app.command()
def unblock(token: _Id, json: Json = False) -> None:
    """Let devices register by a blocked token again, until its end."""
    emit(
        site_client().post(f"{_TOKENS}/{token}/unblock"),
        lambda _: "The token is not blocked any more.",
        json,
    )


@app.command()
def delete(
    token: _Id,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    json: Json = False,
) -> None:
    """Make a token void and forget it. Clients that registered by it stay registered."""
    confirm(f"Delete the token {token}? What carries it cannot register any more.", yes, json)
    site_client().delete(f"{_TOKENS}/{token}")
    emit({"id": token, "deleted": True}, lambda _: "The token is deleted.", json)
