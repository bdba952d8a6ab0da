"""tandem site: the site itself, and who did what in it."""

from pathlib import Path
from typing import Annotated, Any

import typer

from tandem.cli.context import Json, Yes, confirm, emit, site_client, table
from tandem.infra.errors import AppError, Kind

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


_MARKS = {
    "done": "✓ done",
    "partly": "~ partly",
    "not-yet": "· not yet",
    "unknown": "? unknown",
    "not-in-this-version": "- not in this version",
}


@app.command()
def guide(
    do: Annotated[
        str, typer.Option("--do", help="Do this step, like 4.3, where it needs no secret.")
    ] = "",
    yes: Yes = False,
    json: Json = False,
) -> None:
    """Show the tutorial's steps, each with where it stands, and do one of them."""
    api = site_client()
    if do:
        steps = {
            step["id"]: step for part in api.get("/api/v1/guide")["parts"] for step in part["steps"]
        }
        step = steps.get(do)
        if step is None:
            raise typer.BadParameter(f"There is no step {do!r}.")
        way = step["do"]
        if way is None:
            raise NothingToDo(
                f"Step {do} cannot be done from here: {step['text']}",
                cure=f"By hand: `{step['command']}`." if step["command"] else "",
            )
        confirm(f"{way['says']}? {way['warns']}", yes, json)
        api.call(way["method"], way["path"], json=way["body"])
    emit(api.get("/api/v1/guide"), _guide, json)


class NothingToDo(AppError):
    kind, code = Kind.CONFLICT, "cli.nothing-to-do"


def _guide(value: dict[str, Any]) -> str:
    lines = []
    for part in value["parts"]:
        lines += ["", f"{part['part']} {part['title']}"]
        for step in part["steps"]:
            lines.append(f"  {step['id']}  {_MARKS[step['state']]:<12} {step['title']}")
            lines.append(f"       {step['text']}")
            if step["id"] == value["next"]:
                lines.append(f"       → {step['command']}")
            if step["do"] and step["state"] != "done":
                lines.append(f"       → tandem site guide --do {step['id']}")
    return "\n".join(lines[1:])


@app.command()
def story(limit: Annotated[int, typer.Option(min=1, max=200)] = 50, json: Json = False) -> None:
    """Tell what administrators and devices did lately, the newest first."""

    def text(rows: list[dict[str, Any]]) -> str:
        return "\n".join(f"{row['at'][:19]}  {row['text']}" for row in rows)

    emit(site_client().get("/api/v1/guide/story", limit=limit), text, json)
