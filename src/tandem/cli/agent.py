"""`tandem agent …`"""

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="The client on a device.", no_args_is_help=True)


@app.callback()
def _noun() -> None:
    pass


@app.command()
def run(config: Annotated[Path, typer.Option(help="The role's settings, a TOML file.")]) -> None:
    """Run the agent until SIGTERM or Ctrl-C."""
    from tandem.roles import agent

    agent.run(config)
