"""tandem settings-catalogue: the settings that policies can have."""

import zipfile
from base64 import b64encode
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import typer

from tandem.cli.context import Json, Refused, emit, graph_client, table

app = typer.Typer(help="The settings that policies can have.", no_args_is_help=True)

_FILES = "/v1.0/tandem/settingsCatalogueFiles"
_SEARCH = "/v1.0/tandem/settingsCatalogue/search"
_SETTINGS = "/v1.0/deviceManagement/configurationSettings"
_FILE_BYTES = 3 * 1024 * 1024


@app.command()
def search(
    text: Annotated[str, typer.Argument(help="Words of its name, description or OMA-URI.")],
    workload: Annotated[str, typer.Option(help="Only settings of this workload.")] = "",
    json: Json = False,
) -> None:
    """Find settings; every word has to occur."""
    found = graph_client().post(_SEARCH, {"text": text, "workload": workload})["value"]
    columns = {
        "displayName": "NAME",
        "omaUri": "OMA-URI",
        "format": "FORMAT",
        "workload": "WORKLOAD",
    }
    emit(found, lambda rows: table(rows, columns), json)


@app.command()
def show(
    setting: Annotated[str, typer.Argument(help="Its id, as `search --json` says it.")],
    json: Json = False,
) -> None:
    """Show what a setting takes."""
    found = graph_client().get(f"{_SETTINGS}/{quote(setting, safe='')}")
    emit(found, _told, json)


def _told(item: dict[str, Any]) -> str:
    lines = [
        item["displayName"],
        f"  {item['description'] or ''}".rstrip(),
        f"  OMA-URI   {item['omaUri']}",
        f"  Id        {item['id']}",
        f"  Format    {item['format']}, {item['scope']} scope",
        f"  Workload  {item['workload']}",
        f"  Windows   from {', '.join(item['builds']) or 'any'}",
    ]
    if item["default"] is not None:
        lines.append(f"  Default   {item['default']}")
    ranges = ", ".join(f"{one['minimum']} to {one['maximum']}" for one in item["allowed"]["ranges"])
    if ranges:
        lines.append(f"  Takes     {ranges}")
    lines += [
        f"  Takes     {one['optionValue']['value']}  {one['displayName']}"
        for one in item["options"]
    ]
    return "\n".join(line for line in lines if line.strip())


@app.command("import")
def import_files(
    files: Annotated[
        list[Path],
        typer.Argument(help="Published DDF files, or archives (.zip) of them.", exists=True),
    ],
    json: Json = False,
) -> None:
    """Take the settings that published DDF files describe into the catalogue."""
    graph = graph_client()
    made = []
    for name, content in _contents(files):
        if len(content) > _FILE_BYTES:
            raise Refused(
                f"{name} has more than {_FILE_BYTES // 1024 // 1024} MiB.",
                cure="Import the files of single service providers.",
            )
        body = {"name": name, "content": b64encode(content).decode()}
        made.append(graph.post(_FILES, body))
    columns = {"name": "FILE", "nodes": "NODES"}
    emit(made, lambda rows: table(rows, columns), json)


def _contents(files: list[Path]) -> list[tuple[str, bytes]]:
    """Names and bytes; archives give their XML files, none larger than what is taken anyway."""
    found = []
    for path in files:
        if path.suffix.lower() != ".zip":
            found.append((path.name, path.read_bytes()))
            continue
        try:
            with zipfile.ZipFile(path) as archive:
                for entry in archive.infolist():
                    if entry.filename.lower().endswith(".xml") and not entry.is_dir():
                        with archive.open(entry) as file:
                            found.append((Path(entry.filename).name, file.read(_FILE_BYTES + 1)))
        except (zipfile.BadZipFile, RuntimeError, NotImplementedError):
            raise Refused(
                f"{path.name} is not an archive that can be read.",
                cure="Unpack it, and import the XML files.",
            ) from None
    return found


@app.command("files")
def list_files(json: Json = False) -> None:
    """List the files that were imported."""
    columns = {
        "name": "FILE",
        "nodes": "NODES",
        "importedAt": "IMPORTED",
        "importedBy": "BY",
    }
    emit(graph_client().every(_FILES), lambda rows: table(rows, columns), json)


@app.command()
def remove(name: Annotated[str, typer.Argument()], json: Json = False) -> None:
    """Take an imported file out of the catalogue again."""
    graph_client().delete(f"{_FILES}/{quote(name, safe='')}")
    emit({"name": name}, lambda _: f"{name} is out of the catalogue.", json)
