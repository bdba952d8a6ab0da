"""tandem comanagement: enable it, move workloads, look how far it is."""

from pathlib import Path
from typing import Annotated, Any

import typer

from tandem.cli.context import Json, emit, site_client, table
from tandem.cli.sign_in import administrator_token

app = typer.Typer(help="Co-management.", no_args_is_help=True)


@app.command()
def enable(
    automatic_enrollment: Annotated[str, typer.Option(help="none, pilot or all")] = "pilot",
    collection: Annotated[str, typer.Option(help="For whom, when it is pilot.")] = "",
    tenant_admin: Annotated[str, typer.Option(help="A global administrator of the tenant.")] = "",
    tenant_password_file: Annotated[Path | None, typer.Option()] = None,
    json: Json = False,
) -> None:
    """Enable co-management. The administrator's sign-in is used once and kept nowhere."""
    token = administrator_token(tenant_admin, tenant_password_file)
    made = site_client().put(
        "/api/v1/comanagement",
        {
            "automatic_enrollment": automatic_enrollment,
            "collection": collection,
            "access_token": token,
        },
    )
    emit(made, _text, json)


def _text(value: dict[str, Any]) -> str:
    if not value["enabled"]:
        return f"Co-management is not enabled. {value['missing']}".strip()
    lines = [
        f"Automatic enrolment   {value['enablement']['auto_enroll']}",
        f"Command line          {value['command_line'] or value['missing']}",
        "",
        _workloads(value["workloads"]),
        "",
        table(
            value["policies"],
            {
                "name": "POLICY",
                "kind": "KIND",
                "collection_id": "COLLECTION",
                "capabilities": "CAPABILITIES",
                "version": "VERSION",
            },
        ),
    ]
    return "\n".join(lines)


def _workloads(rows: list[dict[str, Any]]) -> str:
    names = {"site": "Configuration Manager", "pilot": "Pilot Intune", "mdm": "Intune"}
    flat = [{**row, "position": names[row["position"]]} for row in rows]
    columns = {
        "title": "WORKLOAD",
        "position": "AUTHORITY",
        "collection": "PILOT COLLECTION",
        "workload": "NAME",
    }
    return table(flat, columns)


@app.command()
def show(
    command_line: Annotated[bool, typer.Option("--command-line", help="That line alone.")] = False,
    json: Json = False,
) -> None:
    """Show what is set, the policies, and the client's command line."""
    if command_line:
        found = site_client().get("/api/v1/comanagement/command-line")
        emit(found, lambda value: str(value["command_line"]), json)
        return
    emit(site_client().get("/api/v1/comanagement"), _text, json)


@app.command()
def workloads(json: Json = False) -> None:
    """List the seven workloads and who has them."""
    found = site_client().get("/api/v1/comanagement")["workloads"]
    emit(found, _workloads, json)


@app.command()
def switch(
    workload: Annotated[str, typer.Argument(help="Like device-configuration.")],
    position: Annotated[str, typer.Argument(help="site, pilot or mdm")],
    collection: Annotated[str, typer.Option(help="For whom the pilot is.")] = "",
    json: Json = False,
) -> None:
    """Move a workload: to the MDM service for a pilot or for all, or back to the site."""
    made = site_client().put(
        f"/api/v1/comanagement/workloads/{workload}",
        {"position": position, "collection": collection},
    )
    said = f"{made['title']}: {made['position']}. Devices follow at their next policy poll."
    emit(made, lambda _: said, json)


@app.command()
def status(json: Json = False) -> None:
    """Show how far devices are, in their own account."""

    def text(value: dict[str, Any]) -> str:
        rows = [
            {
                **move,
                "mdm": f"{move['with_mdm']}/{move['to_mdm']}",
                "site": f"{move['with_site']}/{move['to_site']}",
            }
            for move in value["moves"]
        ]
        head = (
            f"{value['clients']} clients, {value['policy_present']} with policy,"
            f" {value['mdm_enrolled']} enrolled in MDM, {value['co_managed']} co-managed"
        )
        columns = {
            "workload": "WORKLOAD",
            "position": "SET TO",
            "mdm": "WITH MDM",
            "site": "WITH SITE",
        }
        return f"{head}\n\n{table(rows, columns)}"

    emit(site_client().get("/api/v1/comanagement/status"), text, json)
