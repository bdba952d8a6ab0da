"""tandem comanagement: enable it, move workloads, see how far devices are."""

import time
from typing import Annotated, Any

import typer

from tandem.cli.context import Json, Yes, confirm, emit, progress, site_client, table
from tandem.cli.sign_in import TenantAdmin, TenantPassword, administrator_token

app = typer.Typer(help="Co-management of devices by site and MDM service.", no_args_is_help=True)

_WAIT_SECONDS = 3600.0
_POSITIONS = {"site": "Configuration Manager", "pilot": "Pilot Intune", "mdm": "Intune"}


@app.command()
def enable(
    automatic_enrollment: Annotated[
        str, typer.Option(help="Enrol existing clients: pilot, all or none.")
    ] = "pilot",
    collection: Annotated[
        str, typer.Option(help="Collection whose clients are enrolled, when it is pilot.")
    ] = "",
    tenant_admin: TenantAdmin = None,
    tenant_password_file: TenantPassword = None,
    json: Json = False,
) -> None:
    """Enable co-management, or change whom automatic enrolment is for.

    The tenant administrator's sign-in is used for this step and kept nowhere.
    """
    wanted = {
        "automatic_enrollment": automatic_enrollment,
        "collection": collection,
        "access_token": administrator_token(tenant_admin, tenant_password_file),
    }
    emit(site_client().put("/api/v1/comanagement", wanted), _text, json)


def _text(value: dict[str, Any]) -> str:
    if not value["enabled"]:
        return f"Co-management is not enabled. {value['missing']}".rstrip()
    enabled = value["enablement"]
    policies = {
        "name": "Policy",
        "kind": "Kind",
        "collection_id": "Collection",
        "auto_enroll": "Enrols",
        "capabilities": "Capabilities",
        "version": "Version",
    }
    return "\n".join(
        [
            f"Automatic enrolment: {enabled['auto_enroll']} {enabled['collection_id']}".rstrip(),
            f"Command line:        {value['command_line'] or value['missing']}",
            "",
            _workloads(value["workloads"]),
            "",
            table(value["policies"], policies),
        ]
    )


@app.command()
def show(
    command_line: Annotated[
        bool, typer.Option("--command-line", help="The client's command line alone.")
    ] = False,
    json: Json = False,
) -> None:
    """Show what is set, the policies that come of it, and the client's command line."""
    if command_line:
        found = site_client().get("/api/v1/comanagement/command-line")
        emit(found, lambda value: str(value["command_line"]), json)
    else:
        emit(site_client().get("/api/v1/comanagement"), _text, json)


@app.command()
def workloads(json: Json = False) -> None:
    """List the seven workloads, who has them, and the capability bits of each."""
    emit(site_client().get("/api/v1/comanagement")["workloads"], _workloads, json)


def _workloads(rows: list[dict[str, Any]]) -> str:
    columns = {
        "title": "Workload",
        "authority": "Authority",
        "collection": "Pilot collection",
        "bits": "Bits",
        "workload": "Name",
    }
    return table([{**row, "authority": _POSITIONS[row["position"]]} for row in rows], columns)


@app.command()
def switch(
    workload: Annotated[str, typer.Argument(help="Like device-configuration.")],
    position: Annotated[str, typer.Argument(help="site, pilot or mdm.")],
    collection: Annotated[
        str, typer.Option(help="Whom the pilot is for; the last one when left out.")
    ] = "",
    wait: Annotated[
        bool, typer.Option("--wait/--no-wait", help="Wait until every device has followed.")
    ] = False,
    yes: Yes = False,
    json: Json = False,
) -> None:
    """Move a workload: to the MDM service for a pilot or for all, or back to the site."""
    if position == "mdm":
        confirm(f"Hand {workload} of every co-managed device to the MDM service?", yes, json)
    api = site_client()
    made = api.put(
        f"/api/v1/comanagement/workloads/{workload}",
        {"position": position, "collection": collection},
    )
    title = made["title"]
    move = _move(api.get("/api/v1/comanagement/status"), made["workload"])
    with progress(f"{title}: waiting for the devices…", json) as say:
        until = time.monotonic() + _WAIT_SECONDS
        while wait and not move["done"] and time.monotonic() < until:
            say(f"{title}: {move['changed']} of {move['devices']} devices")
            time.sleep(0.5)
            move = _move(api.get("/api/v1/comanagement/status"), made["workload"])
    said = (
        f"{title}: {_POSITIONS[made['position']]}. {move['changed']} of {move['devices']} co-managed"
        " devices have it where it is to be; the others follow at their next policy poll."
    )
    emit({**made, "move": move}, lambda _: said, json)


def _move(status: dict[str, Any], workload: str) -> dict[str, Any]:
    return next(move for move in status["moves"] if move["workload"] == workload)


@app.command()
def status(json: Json = False) -> None:
    """Show how far the devices have followed, by their own account."""
    emit(site_client().get("/api/v1/comanagement/status"), _status, json)


def _status(value: dict[str, Any]) -> str:
    rows = [
        {
            **move,
            "authority": _POSITIONS[move["position"]],
            "mdm": f"{move['with_mdm']} of {move['to_mdm']}",
            "site": f"{move['with_site']} of {move['to_site']}",
        }
        for move in value["moves"]
    ]
    columns = {
        "workload": "Workload",
        "authority": "Set to",
        "mdm": "With the MDM service",
        "site": "With the site",
    }
    return (
        f"{value['clients']} clients, {value['policy_present']} with policy,"
        f" {value['mdm_enrolled']} enrolled in MDM, {value['co_managed']} co-managed\n\n"
        + table(rows, columns)
    )


@app.command()
def dashboard(json: Json = False) -> None:
    """Show the figures of the co-management dashboard."""
    emit(site_client().get("/api/v1/comanagement/dashboard"), _dashboard, json)


_TILES = {
    "operating_systems": "Client OS distribution",
    "funnel": "Co-management status",
    "enrollment": "Co-management enrollment status",
    "workloads": "Workload transition",
    "errors": "Enrollment errors",
    "stages": "From enrolment to co-management",
}


def _dashboard(value: dict[str, Any]) -> str:
    lines = [f"{value['devices']} devices"]
    if value["without_tenant"]:
        lines.append(f"Without the tenant's half: {value['without_tenant']}")
    for key, title in _TILES.items():
        lines += ["", title]
        for name, count in value[key].items():
            shown = f"0x{int(name):08X}" if key == "errors" else name
            lines.append(f"  {shown:<24} {count:>6}")
    return "\n".join(lines)
