"""`tandem connector …`"""

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="The connection point: dials the gateway from inside.", no_args_is_help=True)


@app.callback()
def _noun() -> None:
    pass


@app.command()
def run(config: Annotated[Path, typer.Option(help="The role's settings, a TOML file.")]) -> None:
    """Run the connection point until SIGTERM or Ctrl-C."""
    from tandem.roles import connector

    connector.run(config)
