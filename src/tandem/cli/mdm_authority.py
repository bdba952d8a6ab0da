"""tandem mdm-authority: who manages the tenant's devices, and whose enrol by themselves."""

from typing import Annotated, Any

import typer

from tandem.cli.context import Json, emit, graph_client
from tandem.cli.group import find_group

app = typer.Typer(help="MDM authority and automatic enrolment.", no_args_is_help=True)

_POLICIES = "/v1.0/policies/mobileDeviceManagementPolicies"
_SCOPES = {"none": "none", "some": "selected", "all": "all"}


@app.command()
def show(json: Json = False) -> None:
    """Show the MDM authority and the MDM user scope."""
    emit(_state(), _text, json)


@app.command("set")
def set_authority(json: Json = False) -> None:
    """Make the MDM service the authority. It is set once and stays."""
    graph = graph_client()
    (here,) = graph.every("/v1.0/organization")
    graph.post(f"/v1.0/organization/{here['id']}/setMobileDeviceManagementAuthority", {})
    emit(_state(), _text, json)


@app.command()
def scope(
    whose: Annotated[str, typer.Argument(help="none, some or all")],
    group: Annotated[list[str] | None, typer.Option(help="For some; repeatable.")] = None,
    json: Json = False,
) -> None:
    """Choose whose devices enrol by themselves when they join."""
    if whose not in _SCOPES:
        raise typer.BadParameter("Say none, some or all.")
    if (whose == "some") != bool(group):
        raise typer.BadParameter("'some' needs --group, and only it takes groups.")
    graph = graph_client()
    (policy,) = graph.every(_POLICIES)
    change: dict[str, Any] = {"appliesTo": _SCOPES[whose]}
    if group:
        ids = [find_group(graph, item) for item in group]
        change["includedGroups@odata.bind"] = [
            f"https://graph.microsoft.com/v1.0/groups/{item}" for item in ids
        ]
    graph.patch(f"{_POLICIES}/{policy['id']}", change)
    emit(_state(), _text, json)


def _state() -> dict[str, Any]:
    graph = graph_client()
    (here,) = graph.every("/v1.0/organization")
    (policy,) = graph.every(_POLICIES)
    groups = graph.every(f"{_POLICIES}/{policy['id']}/includedGroups")
    shown = {value: name for name, value in _SCOPES.items()}
    return {
        "authority": here["mobileDeviceManagementAuthority"],
        "user_scope": shown[policy["appliesTo"]],
        "groups": [{"id": item["id"], "name": item["displayName"]} for item in groups],
    }


def _text(value: dict[str, Any]) -> str:
    unset = "not set (run `tandem mdm-authority set`)"
    authority = unset if value["authority"] == "unknown" else "MDM service"
    scope = value["user_scope"]
    if value["groups"]:
        scope += ": " + ", ".join(item["name"] for item in value["groups"])
    return f"MDM authority    {authority}\nMDM user scope   {scope}"
