"""tandem lab: the whole tutorial on this machine, performed, asserted and kept to look at."""

import asyncio
import sys
from pathlib import Path
from typing import Annotated

import typer

from tandem.cli.context import fail
from tandem.infra.errors import AppError

app = typer.Typer(
    help="The whole tutorial on this machine, asserted step by step.", add_completion=False
)

State = Annotated[Path, typer.Option(help="The lab's folder; it is kept.")]
_DEFAULT = Path(".lab")


@app.callback(invoke_without_command=True)
def lab(
    context: typer.Context,
    devices: Annotated[
        int, typer.Option(min=1, max=2000, help="How many are to become co-managed.")
    ] = 25,
    instances: Annotated[int, typer.Option(min=1, max=16, help="Of the gateway.")] = 2,
    state: State = _DEFAULT,
    json: Annotated[Path | None, typer.Option(help="Write the report here.")] = None,
    until: Annotated[str | None, typer.Option(help="Stop behind this step, like 5.1.")] = None,
    cadence: Annotated[str, typer.Option(help="lab, or real for the field's intervals.")] = "lab",
    serve: Annotated[bool, typer.Option("--serve", help="Keep serving until Ctrl-C.")] = False,
    leave: Annotated[bool, typer.Option("--exit", help="Stop everything and end.")] = False,
) -> None:
    """Perform the tutorial from nothing to co-managed devices, and keep serving."""
    if context.invoked_subcommand is not None:
        return
    if cadence not in {"lab", "real"}:
        raise typer.BadParameter("--cadence is lab or real.")
    if serve and leave:
        raise typer.BadParameter("--serve and --exit cannot both be.")
    from tandem.cli.lab.run import Options, run

    stay = serve or (not leave and sys.stdout.isatty())
    options = Options(state, devices, instances, cadence, until, json, stay)
    try:
        raise SystemExit(asyncio.run(run(options)))
    except AppError as error:
        fail(error)


@app.command("continue")
def go_on(
    state: State = _DEFAULT,
    until: Annotated[str | None, typer.Option(help="Stop behind this step.")] = None,
) -> None:
    """Have a lab that serves perform the steps that are left."""
    from rich.console import Console

    from tandem.cli.lab.control import ask

    console = Console(highlight=False, soft_wrap=True)
    try:
        ok = asyncio.run(ask(state.absolute(), until, console.print))
    except AppError as error:
        fail(error)
    raise SystemExit(0 if ok else 1)


@app.command("public-ca", hidden=True)
def public_ca(config: Path = typer.Option(...)) -> None:
    """The lab's public CA."""
    from tandem.roles import lab_ca

    lab_ca.run(config)


@app.command(hidden=True)
def dns(config: Path = typer.Option(...)) -> None:
    """The lab's DNS server."""
    from tandem.roles import lab_dns

    lab_dns.run(config)


@app.command(hidden=True)
def network(config: Path = typer.Option(...)) -> None:
    """The doors of the real device's own network."""
    from tandem.roles import lab_network

    lab_network.run(config)


@app.command(hidden=True)
def inside(command: list[str], config: Path = typer.Option(...)) -> None:
    """Open those doors in a new network, and become the command behind `--`."""
    from tandem.roles import lab_network

    lab_network.enter(config, command)
