"""tandem domain: the names by which users of the tenant are called."""

from typing import Annotated, Any
from urllib.parse import quote

import typer

from tandem.cli.context import Json, confirm, emit, graph_client, table

app = typer.Typer(help="Domains of the tenant.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(help="For example contoso.com.")]


def _path(name: str) -> str:
    return f"/v1.0/domains/{quote(name, safe='')}"


@app.command("list")
def list_domains(json: Json = False) -> None:
    """List the domains, and which is the default."""
    rows = graph_client().every("/v1.0/domains")
    columns = {"id": "Domain", "isVerified": "Verified", "isDefault": "Default"}
    emit(rows, lambda found: table(found, columns), json)


@app.command()
def add(name: Name, json: Json = False) -> None:
    """Add a domain, and say which TXT record proves that it is yours."""
    graph = graph_client()
    graph.post("/v1.0/domains", {"id": name})
    (record,) = graph.every(f"{_path(name)}/verificationDnsRecords")
    value = {"domain": name, "label": record["label"], "text": record["text"]}
    emit(value, _record, json)


def _record(value: dict[str, Any]) -> str:
    return (
        f"Add this record to DNS, then run `tandem domain verify {value['domain']}`:\n"
        f"  {value['label']}  TXT  {value['text']}"
    )


@app.command()
def verify(name: Name, json: Json = False) -> None:
    """Look for the TXT record; users may be called by the domain afterwards."""
    found = graph_client().post(f"{_path(name)}/verify", {})
    emit(found, lambda _: f"{name} is verified.", json)


@app.command()
def default(name: Name, json: Json = False) -> None:
    """Make a verified domain the one that new users are called by."""
    graph_client().patch(_path(name), {"isDefault": True})
    emit({"domain": name, "default": True}, lambda _: f"{name} is the default domain.", json)


@app.command()
def remove(
    name: Name,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    json: Json = False,
) -> None:
    """Remove a domain that no user is called by."""
    confirm(f"Remove {name}?", yes, json)
    graph_client().delete(_path(name))
    emit({"domain": name, "removed": True}, lambda _: f"{name} was removed.", json)
