"""tandem dns: the names under which devices find a gateway."""

from typing import Annotated

import typer

from tandem.cli.context import Json, emit, site_client
from tandem.cli.gateway import check_dns

app = typer.Typer(help="Names of gateways in public DNS.", no_args_is_help=True)

app.command("check")(check_dns)


@app.command()
def record(
    name: Annotated[str, typer.Argument(help="Service name; may be left out.")] = "",
    json: Json = False,
) -> None:
    """Print the record that belongs into your public DNS."""
    found = site_client().get(f"/api/v1/gateways/{name or '-'}/dns")
    emit(found, lambda value: str(value["record"]), json)
