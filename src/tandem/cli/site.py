"""tandem site: the site itself, and who did what in it."""

from pathlib import Path
from typing import Annotated, Any

import typer

from tandem.cli.context import Json, emit, site_client, table

app = typer.Typer(help="The site: its code, its certificates, its audit log.", no_args_is_help=True)


@app.command()
def run(config: Annotated[Path, typer.Option(help="The role's settings, a TOML file.")]) -> None:
    """Run the site until SIGTERM or Ctrl-C."""
    from tandem.roles import site

    site.run(config)


@app.command()
def show(
    root_file: Annotated[
        Path | None, typer.Option("--root-file", help="Write the issuing root here (PEM).")
    ] = None,
    json: Json = False,
) -> None:
    """Show the site's code, its management point's number and its issuing root."""
    found = site_client().get("/api/v1/site")
    if root_file is not None:
        root_file.write_text(found["issuing_root"]["certificate"])
    emit(found, _text, json)


def _text(value: dict[str, Any]) -> str:
    root = value["issuing_root"]
    lines = [
        f"Site {value['code']}  {value['name']}",
        f"  Version           {value['version']}",
        f"  Management point  {value['management_point_id']}",
        f"  Enhanced HTTP     {'on' if value['enhanced_http'] else 'off'}",
        f"  Issuing root      {root['subject']}, until {root['expires_at'][:10]}",
        f"                    SHA-256 {root['sha256']}",
    ]
    for item in value["certificates"]:
        lines.append(f"  {item['role']:<28} until {item['expires_at'][:10]}")
    return "\n".join(lines)


@app.command()
def audit(
    target: Annotated[str | None, typer.Option(help="Only entries about this.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000)] = 50,
    json: Json = False,
) -> None:
    """List who did what, the newest first."""
    found = site_client().get("/api/v1/site/audit", target=target, limit=limit)
    columns = {
        "at": "When",
        "actor": "Who",
        "action": "Did",
        "target": "To",
        "outcome": "Outcome",
    }
    emit(found, lambda rows: table([{**r, "at": r["at"][:19]} for r in rows], columns), json)
