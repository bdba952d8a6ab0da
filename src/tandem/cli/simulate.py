"""`tandem simulate …`"""

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    help="Many simulated devices that speak the real protocols.", no_args_is_help=True
)


@app.callback()
def _noun() -> None:
    pass


@app.command()
def run(config: Annotated[Path, typer.Option(help="The role's settings, a TOML file.")]) -> None:
    """Run the simulated devices until SIGTERM or Ctrl-C."""
    from tandem.roles import simulator

    simulator.run(config)
