"""tandem comanagement-settings: what a new device gets of the site's client by itself."""

from typing import Annotated, Any

import typer

from tandem.cli.app import targets
from tandem.cli.context import Api, Json, emit, graph_client, named, table

app = typer.Typer(help="Co-management settings policies of the tenant.", no_args_is_help=True)

_PATH = "/v1.0/deviceManagement/deviceEnrollmentConfigurations"
_TYPE = "#microsoft.graph.deviceComanagementAuthorityConfiguration"


@app.command()
def create(
    name: Annotated[str, typer.Argument()],
    description: Annotated[str, typer.Option()] = "",
    install: Annotated[bool, typer.Option(help="Install the client by itself.")] = True,
    command_line: Annotated[str, typer.Option(help="The client's parameters.")] = "",
    mdm_for_all: Annotated[
        bool, typer.Option("--mdm-for-all", help="The MDM service owns every workload.")
    ] = False,
    include: Annotated[list[str] | None, typer.Option(help="Group of devices.")] = None,
    exclude: Annotated[list[str] | None, typer.Option(help="Group of devices.")] = None,
    json: Json = False,
) -> None:
    """Create a policy, and give it to groups of devices."""
    graph = graph_client()
    given = targets(graph, include or [], exclude or [])
    made = graph.post(
        _PATH,
        {
            "@odata.type": _TYPE,
            "displayName": name,
            "description": description,
            "installConfigurationManagerAgent": install,
            "configurationManagerAgentCommandLineArgument": command_line,
            "managedDeviceAuthority": int(mdm_for_all),
        },
    )
    if given:
        _assign(graph, made["id"], given)
    emit(made, lambda _: f"Created {name}, priority {made['priority']}.", json)


def _assign(graph: Api, id: str, given: list[dict[str, Any]]) -> None:
    body = [{"target": target} for target in given]
    graph.post(f"{_PATH}/{id}/assign", {"enrollmentConfigurationAssignments": body})


def _every(graph: Api) -> list[dict[str, Any]]:
    found = [item for item in graph.every(_PATH) if item["@odata.type"] == _TYPE]
    return sorted(found, key=lambda item: int(item["priority"]))


def _find(graph: Api, wanted: str) -> dict[str, Any]:
    return named(
        _every(graph),
        wanted,
        kind="co-management settings policy",
        cure="List them: `tandem comanagement-settings list`.",
    )


@app.command("list")
def list_settings(json: Json = False) -> None:
    """List the policies, the first that counts first."""
    columns = {
        "priority": "PRIORITY",
        "displayName": "NAME",
        "installConfigurationManagerAgent": "INSTALLS",
        "configurationManagerAgentCommandLineArgument": "COMMAND LINE",
        "managedDeviceAuthority": "MDM FOR ALL",
    }
    emit(_every(graph_client()), lambda rows: table(rows, columns), json)


@app.command()
def assign(
    policy: Annotated[str, typer.Argument(help="Name or id.")],
    include: Annotated[list[str] | None, typer.Option(help="Group of devices.")] = None,
    exclude: Annotated[list[str] | None, typer.Option(help="Group of devices.")] = None,
    json: Json = False,
) -> None:
    """Give a policy to groups of devices. Replaces the assignments before."""
    graph = graph_client()
    found = _find(graph, policy)
    _assign(graph, found["id"], targets(graph, include or [], exclude or []))
    said = f"{found['displayName']} is for {len(include or [])} groups."
    emit({"id": found["id"]}, lambda _: said, json)


@app.command()
def priority(
    policy: Annotated[str, typer.Argument(help="Name or id.")],
    number: Annotated[int, typer.Argument(min=1, help="1 counts first.")],
    json: Json = False,
) -> None:
    """Move a policy in the order; the others make room."""
    graph = graph_client()
    found = _find(graph, policy)
    graph.post(f"{_PATH}/{found['id']}/setPriority", {"priority": number})
    emit(_find(graph, found["id"]), lambda it: f"{it['displayName']}: {it['priority']}", json)


@app.command()
def delete(policy: Annotated[str, typer.Argument(help="Name or id.")], json: Json = False) -> None:
    """Delete a policy."""
    graph = graph_client()
    found = _find(graph, policy)
    graph.delete(f"{_PATH}/{found['id']}")
    emit({"id": found["id"]}, lambda _: f"Deleted {found['displayName']}.", json)
