"""tandem app: line-of-business apps that the MDM service installs."""

from base64 import b64encode
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

import typer

from tandem.cli.context import Api, Json, NotReachable, Refused, emit, graph_client, progress, table
from tandem.cli.group import find_group

app = typer.Typer(help="Apps that the MDM service installs.", no_args_is_help=True)

_APPS = "/v1.0/deviceAppManagement/mobileApps"


@app.command()
def upload(
    file: Annotated[Path, typer.Argument(help="The MSI.", exists=True, dir_okay=False)],
    name: Annotated[str, typer.Option(help="Default: the product name in the file.")] = "",
    description: Annotated[str, typer.Option()] = "",
    publisher: Annotated[str, typer.Option()] = "",
    command_line: Annotated[str, typer.Option(help="Arguments of the MSI, as copied.")] = "",
    command_line_file: Annotated[Path | None, typer.Option(exists=True)] = None,
    json: Json = False,
) -> None:
    """Make an app of an MSI: name and product code are read from the file."""
    line = command_line_file.read_text("utf-8").strip() if command_line_file else command_line
    graph = graph_client()
    made = graph.post(
        _APPS,
        {
            "@odata.type": "#microsoft.graph.windowsMobileMSI",
            "displayName": name,
            "description": description,
            "publisher": publisher,
            "fileName": file.name,
            "commandLine": line,
        },
    )
    try:
        with progress(f"Uploading {file.name}", json):
            content = b64encode(file.read_bytes()).decode()
            graph.post(f"{_APPS}/{made['id']}/uploadContent", {"content": content})
    except (Refused, NotReachable):
        # What cannot be used leaves nothing behind; why it cannot is what counts.
        with suppress(Refused, NotReachable):
            graph.delete(f"{_APPS}/{made['id']}")
        raise
    value = graph.get(f"{_APPS}/{made['id']}")
    said = f"{value['displayName']} ({value['productCode']}) is ready to be assigned."
    emit(value, lambda _: said, json)


def find_app(graph: Api, wanted: str) -> dict[str, Any]:
    """By id, name or product code. Raises Refused."""
    for item in graph.every(_APPS):
        if wanted.casefold() in {
            item["id"],
            item["displayName"].casefold(),
            (item["productCode"] or "").casefold(),
        }:
            return dict(item)
    raise Refused(f"There is no app {wanted!r}.", cure="List them: `tandem app list`.")


@app.command("list")
def list_apps(json: Json = False) -> None:
    """List the apps."""
    found = graph_client().every(_APPS)
    columns = {
        "displayName": "NAME",
        "productVersion": "VERSION",
        "publishingState": "STATE",
        "productCode": "PRODUCT CODE",
        "id": "ID",
    }
    emit(found, lambda rows: table(rows, columns), json)


@app.command()
def show(app: Annotated[str, typer.Argument(help="Name or id.")], json: Json = False) -> None:
    """Show an app and whom it is for."""
    graph = graph_client()
    found = find_app(graph, app)
    found["assignments"] = _assignments(graph, found["id"])
    emit(found, _text, json)


def _assignments(graph: Api, id: str) -> list[dict[str, Any]]:
    given = graph.get(f"{_APPS}/{id}/assignments")["value"]
    names = {item["id"]: item["displayName"] for item in graph.every("/v1.0/groups")}
    return [
        {
            "group": names.get(item["target"]["groupId"], item["target"]["groupId"]),
            "excluded": "exclusion" in item["target"]["@odata.type"],
            "intent": item["intent"],
        }
        for item in given
    ]


def _text(value: dict[str, Any]) -> str:
    lines = [
        f"{value['displayName']} {value['productVersion']} ({value['publishingState']})",
        f"Product code   {value['productCode']}",
        f"Command line   {value['commandLine']}",
    ]
    for item in value["assignments"]:
        word = "Excluded" if item["excluded"] else "Required"
        lines.append(f"{word:<14} {item['group']}")
    return "\n".join(lines)


@app.command()
def assign(
    app: Annotated[str, typer.Argument(help="Name or id.")],
    required: Annotated[bool, typer.Option("--required", help="The intent.")] = True,
    include: Annotated[list[str] | None, typer.Option(help="Group; repeatable.")] = None,
    exclude: Annotated[list[str] | None, typer.Option(help="Group; repeatable.")] = None,
    json: Json = False,
) -> None:
    """Require an app for groups, without the excluded ones. Replaces the assignment before."""
    graph = graph_client()
    found = find_app(graph, app)
    targets = [("groupAssignmentTarget", item) for item in include or []]
    targets += [("exclusionGroupAssignmentTarget", item) for item in exclude or []]
    graph.post(
        f"{_APPS}/{found['id']}/assign",
        {
            "mobileAppAssignments": [
                {
                    "intent": "required",
                    "target": {
                        "@odata.type": f"#microsoft.graph.{kind}",
                        "groupId": find_group(graph, group),
                    },
                }
                for kind, group in targets
            ]
        },
    )
    value = {"id": found["id"], "assignments": _assignments(graph, found["id"])}
    emit(
        value,
        lambda _: f"{found['displayName']} is required for {len(include or [])} groups.",
        json,
    )


@app.command()
def status(app: Annotated[str, typer.Argument(help="Name or id.")], json: Json = False) -> None:
    """What became of an app on each device: of the MSI, and of the client that it brings."""
    graph = graph_client()
    found = find_app(graph, app)
    rows = graph.get(f"{_APPS}/{found['id']}/deviceStatuses")["value"]

    def text(_: Any) -> str:
        flat = [
            {
                **row,
                "registered": "yes" if row["client"]["registered"] else "no",
                "policy": "yes" if row["client"]["policyPresent"] else "no",
                "step": row["client"]["step"],
                "stuck": row["client"]["stuckAt"],
            }
            for row in rows
        ]
        columns = {
            "deviceName": "DEVICE",
            "installState": "MSI",
            "step": "SETUP",
            "registered": "REGISTERED",
            "policy": "POLICY",
            "stuck": "STANDS STILL AT",
        }
        return table(flat, columns)

    emit(rows, text, json)


@app.command()
def delete(app: Annotated[str, typer.Argument(help="Name or id.")], json: Json = False) -> None:
    """Delete an app. Devices that have it keep it."""
    graph = graph_client()
    found = find_app(graph, app)
    graph.delete(f"{_APPS}/{found['id']}")
    emit({"id": found["id"]}, lambda _: f"Deleted {found['displayName']}.", json)
