"""tandem enrollment-restriction: which devices users may enrol, and how many of their own."""

from typing import Annotated, Any

import typer

from tandem.cli.app import targets
from tandem.cli.context import Api, Json, Refused, emit, graph_client, table

app = typer.Typer(help="Enrolment restrictions of the tenant.", no_args_is_help=True)

_PATH = "/v1.0/deviceManagement/deviceEnrollmentConfigurations"
_GRAPH = "#microsoft.graph."
_LIMIT = "deviceEnrollmentLimitConfiguration"
_PLATFORM = "deviceEnrollmentPlatformRestrictionConfiguration"
_PLATFORMS = "deviceEnrollmentPlatformRestrictionsConfiguration"
_KINDS = {_LIMIT: "limit", _PLATFORM: "platform", _PLATFORMS: "platform"}

_Include = Annotated[list[str] | None, typer.Option(help="Group of users; repeatable.")]
_Block = Annotated[bool | None, typer.Option("--block/--allow", help="Windows devices at all.")]
_Personal = Annotated[
    bool | None, typer.Option("--block-personal/--allow-personal", help="Devices of users' own.")
]
_Minimum = Annotated[str | None, typer.Option(help="Lowest version of Windows, 10.0.22631.")]
_Maximum = Annotated[str | None, typer.Option(help="Highest version of Windows.")]


@app.command("list")
def list_restrictions(json: Json = False) -> None:
    """List the restrictions, of each kind the one that counts first at the top."""
    rows = [_shown(item) for item in _every(graph_client())]
    columns = {"kind": "KIND", "priority": "PRIORITY", "name": "NAME", "says": "SAYS"}
    emit(rows, lambda items: table(items, columns), json)


@app.command("create-platform")
def create_platform(
    name: Annotated[str, typer.Argument()],
    description: Annotated[str, typer.Option()] = "",
    block: _Block = None,
    block_personal: _Personal = None,
    minimum: _Minimum = None,
    maximum: _Maximum = None,
    include: _Include = None,
    json: Json = False,
) -> None:
    """Create a restriction of which Windows devices may enrol, and give it to groups of users."""
    rule = _rule({}, block, block_personal, minimum, maximum)
    body = {"platformType": "windows", "platformRestriction": rule}
    _create(_PLATFORM, name, description, body, include, json)


@app.command("create-limit")
def create_limit(
    name: Annotated[str, typer.Argument()],
    devices: Annotated[int, typer.Argument(help="1 to 15 of a user's own.")],
    description: Annotated[str, typer.Option()] = "",
    include: _Include = None,
    json: Json = False,
) -> None:
    """Create a limit of how many devices of their own users may enrol."""
    _create(_LIMIT, name, description, {"limit": devices}, include, json)


def _create(
    type: str,
    name: str,
    description: str,
    body: dict[str, Any],
    include: list[str] | None,
    json: bool,
) -> None:
    graph = graph_client()
    given = targets(graph, include or [], [])
    shown = {"@odata.type": _GRAPH + type, "displayName": name, "description": description}
    made = graph.post(_PATH, {**shown, **body})
    if given:
        _assign(graph, made["id"], given)
    emit(made, lambda _: f"Created {name}, priority {made['priority']}.", json)


@app.command()
def change(
    restriction: Annotated[str, typer.Argument(help="Name or id; platform-default, limit-default")],
    block: _Block = None,
    block_personal: _Personal = None,
    minimum: _Minimum = None,
    maximum: _Maximum = None,
    devices: Annotated[int | None, typer.Option(help="Of a limit: 1 to 15.")] = None,
    json: Json = False,
) -> None:
    """Change what a restriction says; also the two defaults, which are for everybody else."""
    graph = graph_client()
    found = _find(graph, restriction)
    body: dict[str, Any] = {"@odata.type": found["@odata.type"]}
    if _type(found) == _LIMIT:
        if devices is None:
            raise typer.BadParameter("A limit needs --devices.")
        body["limit"] = devices
    else:
        key = _key(found)
        body[key] = _rule(found.get(key) or {}, block, block_personal, minimum, maximum)
    graph.patch(f"{_PATH}/{found['id']}", body)
    emit(_shown(_find(graph, found["id"])), lambda it: f"{it['name']}: {it['says']}", json)


@app.command()
def assign(
    restriction: Annotated[str, typer.Argument(help="Name or id.")],
    include: _Include = None,
    json: Json = False,
) -> None:
    """Give a restriction to groups of users. Replaces the assignments before."""
    graph = graph_client()
    found = _find(graph, restriction)
    _assign(graph, found["id"], targets(graph, include or [], []))
    said = f"{found['displayName']} is for {len(include or [])} groups."
    emit({"id": found["id"]}, lambda _: said, json)


@app.command()
def priority(
    restriction: Annotated[str, typer.Argument(help="Name or id.")],
    number: Annotated[int, typer.Argument(min=1, help="1 counts first.")],
    json: Json = False,
) -> None:
    """Move a restriction in the order of its kind; the others make room."""
    graph = graph_client()
    found = _find(graph, restriction)
    graph.post(f"{_PATH}/{found['id']}/setPriority", {"priority": number})
    emit(_shown(_find(graph, found["id"])), lambda it: f"{it['name']}: {it['priority']}", json)


@app.command()
def delete(
    restriction: Annotated[str, typer.Argument(help="Name or id.")], json: Json = False
) -> None:
    """Delete a restriction; its users follow the next one."""
    graph = graph_client()
    found = _find(graph, restriction)
    graph.delete(f"{_PATH}/{found['id']}")
    emit({"id": found["id"]}, lambda _: f"Deleted {found['displayName']}.", json)


def _assign(graph: Api, id: str, given: list[dict[str, Any]]) -> None:
    body = [{"target": target} for target in given]
    graph.post(f"{_PATH}/{id}/assign", {"enrollmentConfigurationAssignments": body})


def _type(item: dict[str, Any]) -> str:
    return str(item["@odata.type"]).removeprefix(_GRAPH)


def _key(item: dict[str, Any]) -> str:
    return "platformRestriction" if _type(item) == _PLATFORM else "windowsRestriction"


def _order(item: dict[str, Any]) -> tuple[str, bool, int]:
    number = int(item["priority"] or 0)
    return _KINDS[_type(item)], number == 0, number


def _every(graph: Api) -> list[dict[str, Any]]:
    found = [item for item in graph.every(_PATH) if _type(item) in _KINDS]
    return sorted(found, key=_order)


def _find(graph: Api, wanted: str) -> dict[str, Any]:
    """Raises Refused."""
    for item in _every(graph):
        names = {item["id"].casefold(), item["displayName"].casefold()}
        if not item["priority"]:
            names = {item["id"].casefold(), f"{_KINDS[_type(item)]}-default"}
        if wanted.casefold() in names:
            return item
    raise Refused(
        f"There is no enrolment restriction {wanted!r}.",
        cure="List them: `tandem enrollment-restriction list`.",
    )


def _rule(
    before: dict[str, Any],
    block: bool | None,
    personal: bool | None,
    minimum: str | None,
    maximum: str | None,
) -> dict[str, Any]:
    given = {
        "platformBlocked": block,
        "personalDeviceEnrollmentBlocked": personal,
        "osMinimumVersion": minimum,
        "osMaximumVersion": maximum,
    }
    usual = {
        "platformBlocked": False,
        "personalDeviceEnrollmentBlocked": False,
        "osMinimumVersion": "",
        "osMaximumVersion": "",
    }
    return {**usual, **before, **{k: v for k, v in given.items() if v is not None}}


def _shown(item: dict[str, Any]) -> dict[str, Any]:
    return {
        "id": item["id"],
        "kind": _KINDS[_type(item)],
        "priority": int(item["priority"] or 0) or "default",
        "name": item["displayName"],
        "says": _says(item),
    }


def _says(item: dict[str, Any]) -> str:
    if _type(item) == _LIMIT:
        return f"{item['limit']} devices of a user's own"
    platform = str(item.get("platformType") or "")
    if _type(item) == _PLATFORM and platform.lower() not in {"", "windows", "allplatforms"}:
        return f"for {platform}: nothing of Windows"
    rule = item.get(_key(item)) or {}
    if rule.get("platformBlocked"):
        return "Windows is blocked"
    words = []
    if rule.get("osMinimumVersion"):
        words.append(f"from {rule['osMinimumVersion']}")
    if rule.get("osMaximumVersion"):
        words.append(f"to {rule['osMaximumVersion']}")
    if rule.get("personalDeviceEnrollmentBlocked"):
        words.append("no personal devices")
    return ", ".join(words) or "everything is allowed"
