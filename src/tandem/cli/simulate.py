"""`tandem simulate …`"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tandem.cli.context import Json, emit, read_secret

if TYPE_CHECKING:
    from tandem.simulator.checking import Report

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


@app.command()
def check(
    address: Annotated[str, typer.Argument(help="The discovery address, or the server's name.")],
    token_file: Annotated[
        Path | None, typer.Option(help="An enrolment token (JWT or other); - is standard input.")
    ] = None,
    user: Annotated[str, typer.Option(help="Who enrols, as user@domain.")] = "",
    password_file: Annotated[
        Path | None, typer.Option(help="The user's password; - is standard input.")
    ] = None,
    tenant_id: Annotated[
        str,
        typer.Option(
            help="Sign in to this tenant at the server, and join a device there, for the token."
        ),
    ] = "",
    ca_file: Annotated[Path | None, typer.Option(help="Trusted roots; else the system's.")] = None,
    resolver: Annotated[str, typer.Option(help="address:port of a DNS server.")] = "",
    of_user: Annotated[bool, typer.Option(help="Enrol as a user's own device.")] = False,
    json: Json = False,
) -> None:
    """Hold every answer of an MDM server against the specification.

    A made-up device enrols, holds sessions, tries what must be refused, and leaves. Each demand is
    listed with pass or FAIL; the command fails when one does. Use it on a server of your own.
    """
    import asyncio

    from tandem.simulator.checking import MUSTS, Proof
    from tandem.simulator.checking import check as whole

    if token_file is not None:
        proof = Proof(token=read_secret(token_file, ""), user=user)
    elif user:
        password = read_secret(password_file, f"Password of {user}")
        proof = Proof(user=user, password=password, tenant_id=tenant_id)
    else:
        raise typer.BadParameter("Give --token-file, or --user with --password-file.")
    found = asyncio.run(
        whole(address, proof, MUSTS, ca_file=ca_file, resolver=resolver, of_user=of_user)
    )
    emit(found, _text, json)
    if not found.good:
        raise typer.Exit(1)


def _text(found: "Report") -> str:
    words = {"pass": "pass", "fail": "FAIL", "not seen": "-"}
    wide = max(len(verdict.name) for verdict in found.musts)
    lines = [f"{found.server}: {found.answers} answers", ""]
    for verdict in found.musts:
        said = (
            f"{words[verdict.state]:4}  {verdict.name:{wide}}  {verdict.text} ({verdict.section})"
        )
        lines += [said, *(f"        {problem}" for problem in verdict.problems)]
    lines += ["", f"{found.passed} pass, {found.failed} fail, {found.not_seen} not seen"]
    if found.stopped:
        lines += [f"The check ended early: {found.stopped}", f"  → {found.cure}"]
    return "\n".join(lines)
