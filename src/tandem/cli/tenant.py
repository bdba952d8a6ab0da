"""tandem tenant: the tenant and how it is set up."""

from pathlib import Path
from typing import Annotated, Any

import typer

from tandem.cli.context import Json, emit, graph_client

app = typer.Typer(help="The tenant: directory, licences, MDM service.", no_args_is_help=True)


@app.command()
def run(config: Annotated[Path, typer.Option(help="The role's settings, a TOML file.")]) -> None:
    """Run the tenant until SIGTERM or Ctrl-C."""
    from tandem.roles import tenant

    tenant.run(config)


@app.command()
def show(json: Json = False) -> None:
    """Show the tenant: name, domains, MDM authority and user scope."""
    graph = graph_client()
    (here,) = graph.every("/v1.0/organization")
    (policy,) = graph.every("/v1.0/policies/mobileDeviceManagementPolicies")
    value = {
        "id": here["id"],
        "name": here["displayName"],
        "domains": [item["name"] for item in here["verifiedDomains"]],
        "mdm_authority": here["mobileDeviceManagementAuthority"],
        "mdm_user_scope": policy["appliesTo"],
        "licence_required": graph.get("/v1.0/tandem/licensing")["licenceRequired"],
    }
    emit(value, _text, json)


@app.command()
def openapi(
    version: Annotated[str, typer.Option(help="v1.0 or beta.")] = "v1.0",
) -> None:
    """Print what the tenant's Graph serves, as OpenAPI 3.1 in JSON."""
    emit(graph_client().get(f"/{version}/openapi.json"), lambda _: None, True)


def _text(value: dict[str, Any]) -> str:
    authority = "not set" if value["mdm_authority"] == "unknown" else "MDM service"
    return "\n".join(
        [
            f"Tenant           {value['name']} ({value['id']})",
            f"Domains          {', '.join(value['domains'])}",
            f"MDM authority    {authority}",
            f"MDM user scope   {value['mdm_user_scope']}",
            f"Licences         {'required' if value['licence_required'] else 'not required'}",
        ]
    )
