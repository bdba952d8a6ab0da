"""`tandem client …`"""

from pathlib import Path
from typing import Annotated, Any

import typer

from tandem.cli.context import Json, emit, progress, site_client

app = typer.Typer(help="The client that devices install.", no_args_is_help=True)


@app.callback()
def _noun() -> None:
    pass


@app.command()
def package(
    output: Annotated[
        Path | None, typer.Option("--output", help="Save the MSI here (a file or a folder).")
    ] = None,
    json: Json = False,
) -> None:
    """Show the client package (ccmsetup.msi) of the site, built when missing, and save it."""
    with progress("Fetching the client package…", json):
        api = site_client()
        found: dict[str, Any] = api.get("/api/v1/client-package")
        if output is not None:
            target = output / found["file_name"] if output.is_dir() else output
            target.write_bytes(api.get(found["path"]))
            found["saved"] = str(target.absolute())
    emit(found, _text, json)


def _text(found: dict[str, Any]) -> str:
    lines = [
        f"{found['product_name']} {found['version']}, site {found['site_code']}",
        f"  Product code  {found['product_code']}",
        f"  SHA-256       {found['sha256']}",
        f"  Size          {found['size_bytes']:,} bytes",
    ]
    runtime = found["windows_runtime_sha256"]
    lines.append(f"  Runtime       {runtime or 'none: a placeholder, not for a Windows machine'}")
    if "saved" in found:
        lines.append(f"  Saved         {found['saved']}")
    return "\n".join(lines)
