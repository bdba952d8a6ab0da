"""tandem health: the way in hop by hop, ports and endpoints, and the site about itself."""

from typing import Any

import typer

from tandem.cli.context import Json, emit, site_client, table

app = typer.Typer(help="The health of the site and of the way in.", no_args_is_help=True)


@app.command()
def show(json: Json = False) -> None:
    """Show every hop from the device to the site: state, cause and cure."""
    emit(site_client().get("/api/v1/health"), _chain, json)


def _chain(value: dict[str, Any]) -> str:
    lines = []
    for hop in value["hops"]:
        ends = " → ".join(f"{end['kind']} {end['name']}".strip() for end in _ends(hop))
        lines.append(f"{hop['state']:<8} {ends}")
        lines += [f"         {hop['text']}", f"         → {hop['cure']}"] if hop["text"] else []
    return "\n".join(lines)


def _ends(hop: dict[str, Any]) -> list[dict[str, str]]:
    return [hop["source"], hop["target"]]


@app.command()
def ports(json: Json = False) -> None:
    """List every address that is listened on or dialled, and every path that is published."""
    emit(site_client().get("/api/v1/endpoints"), _ports, json)


def _ports(value: dict[str, Any]) -> str:
    columns = {
        "direction": "",
        "role": "Role",
        "address": "Address",
        "port": "Port",
        "protocol": "Protocol",
        "peer": "Peer",
        "purpose": "For",
        "instance": "Of",
    }
    listed = table(value["listeners"], columns)
    published = [
        f"  {' '.join(item['methods']):<5} {item['prefix']} ({', '.join(item['auth'])})"
        for item in value["published"]
    ]
    return "\n".join([listed, "", "Published through gateways:", *(published or ["  nothing"])])


@app.command()
def about(json: Json = False) -> None:
    """Show versions, database, jobs, time, and where the logs are."""
    emit(site_client().get("/api/v1/about"), _about, json)


def _about(value: dict[str, Any]) -> str:
    versions, database, jobs = value["versions"], value["database"], value["jobs"]
    return "\n".join(
        [
            f"Site {value['site_code']} {value['site_name']}",
            f"  Versions  Tandem {versions['tandem']}, Python {versions['python']},"
            f" PostgreSQL {versions['postgresql']}",
            f"  Database  {database['kind']}, {database['size_bytes'] / 1e6:,.1f} MB,"
            f" schema {database['migration']}",
            f"  Jobs      {jobs['waiting']} waiting, {jobs['running']} running,"
            f" {jobs['failed']} failed",
            f"  Time      {value['time']}, up {value['uptime_seconds'] or 0} s",
            f"  Logs      {value['logs'] or 'standard output'}",
        ]
    )
