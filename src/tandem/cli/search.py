"""tandem search: devices, users, collections, gateways and apps by how they begin."""

from typing import Annotated

import typer

from tandem.cli.context import Json, emit, site_client, table

app = typer.Typer(help="One search over what the site knows.")


@app.command()
def search(
    text: Annotated[str, typer.Argument(help="How it begins.")],
    limit: Annotated[int, typer.Option(min=1, max=50, help="At most so many of each kind.")] = 5,
    json: Json = False,
) -> None:
    """Search the site: devices, users, collections, gateways, and the tenant's apps."""
    found = site_client().get("/api/v1/search", q=text, limit=limit)
    columns = {"kind": "Kind", "title": "Name", "detail": "Detail", "id": "Id"}

    def said(value: dict[str, list[dict[str, str]]]) -> str:
        lines = [table(value["results"], columns) if value["results"] else "Nothing found."]
        return "\n".join([*lines, *(str(reason) for reason in value["missing"])])

    emit(found, said, json)
