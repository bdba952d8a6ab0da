"""tandem enrollment-token: let one device enrol without a sign-in."""

from typing import Annotated, Any

import typer

from tandem.cli.context import Json, emit, graph_client, table

app = typer.Typer(help="Tokens that enrol one device each.", no_args_is_help=True)

_TOKENS = "/v1.0/tandem/enrollmentTokens"


@app.command()
def create(
    user: Annotated[str, typer.Argument(help="Whose device it is: user name or id.")],
    minutes: Annotated[int, typer.Option(help="How long it is good, 1 to 1440.")] = 15,
    device: Annotated[str, typer.Option(help="Only for a device of this name.")] = "",
    json: Json = False,
) -> None:
    """Issue a token for RegisterDeviceWithManagement. It is shown once, and good for one device."""
    body: dict[str, Any] = {"user": user, "lifetimeInMinutes": minutes}
    if device:
        body["deviceName"] = device
    emit(graph_client().post(_TOKENS, body), _made, json)


def _made(value: dict[str, Any]) -> str:
    return (
        f"Token for a device of {value['userPrincipalName']}, good until "
        f"{value['expirationDateTime']} and not shown again:\n{value['token']}\n"
        f"Discovery URL: {value['discoveryUrl']}"
    )


@app.command("list")
def list_tokens(json: Json = False) -> None:
    """List tokens of the last 30 days: whose, until when, and which device used them."""
    rows = graph_client().every(_TOKENS)
    columns = {
        "id": "Id",
        "userPrincipalName": "User",
        "deviceName": "Device name",
        "expirationDateTime": "Good until",
        "usedDateTime": "Used",
        "issuedBy": "Issued by",
    }
    emit(rows, lambda found: table(found, columns), json)


@app.command()
def revoke(
    token: Annotated[str, typer.Argument(help="The token's id, as `list` shows it.")],
    json: Json = False,
) -> None:
    """Make a token void. A device that used it stays enrolled."""
    graph_client().delete(f"{_TOKENS}/{token}")
    emit({"id": token, "revoked": True}, lambda _: "The token is void.", json)
