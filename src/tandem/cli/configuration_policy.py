"""tandem configuration-policy: policies of settings from the catalogue."""

from typing import Annotated, Any

import typer

from tandem.cli.app import targets
from tandem.cli.context import Api, Json, Refused, emit, graph_client, named, table

app = typer.Typer(help="Policies of settings from the settings catalogue.", no_args_is_help=True)

_PATH = "/beta/deviceManagement/configurationPolicies"
_SEARCH = "/v1.0/tandem/settingsCatalogue/search"
_NAMESPACE = "#microsoft.graph.deviceManagementConfiguration"


@app.command()
def create(
    name: Annotated[str, typer.Argument()],
    set: Annotated[
        list[str], typer.Option("--set", help="Setting=value, by id, OMA-URI or Area/Name.")
    ],
    description: Annotated[str, typer.Option()] = "",
    json: Json = False,
) -> None:
    """Create a policy of settings from the catalogue."""
    graph = graph_client()
    settings = []
    for pair in set:
        setting, _, value = pair.partition("=")
        settings.append({"settingInstance": instance(_definition(graph, setting.strip()), value)})
    body = {
        "name": name,
        "description": description,
        "platforms": "windows10",
        "technologies": "mdm",
        "settings": settings,
    }
    made = graph.post(_PATH, body)
    emit(made, lambda _: f"Created {name}: {len(settings)} settings. Assign it next.", json)


def _definition(graph: Api, wanted: str) -> dict[str, Any]:
    text = wanted.rpartition("/")[2] or wanted
    folded = wanted.casefold()
    found = graph.post(_SEARCH, {"text": text if "_" not in text else ""})["value"]
    if "_" in text:
        found = graph.every("/v1.0/deviceManagement/configurationSettings")
    exact = [
        item
        for item in found
        if folded in (item["id"].casefold(), item["omaUri"].casefold())
        or item["omaUri"].casefold().endswith(f"/{folded}")
    ]
    if len(exact) == 1:
        return dict(exact[0])
    raise Refused(
        f"The catalogue has {'no' if not exact else 'several'} settings {wanted!r}.",
        cure="Find it: `tandem settings-catalogue search WORDS --json`, and take its id.",
    )


def instance(definition: dict[str, Any], value: str) -> dict[str, Any]:
    """A setting of the catalogue with a value, in the vendor's words."""
    id, options = definition["id"], definition["options"]
    if options:
        known = {
            name.casefold(): one["itemId"]
            for one in options
            for name in (one["optionValue"]["value"], one["itemId"], one["displayName"])
        }
        held = known.get(value.strip().casefold(), f"{id}_{value}")
        return {
            "@odata.type": f"{_NAMESPACE}ChoiceSettingInstance",
            "settingDefinitionId": id,
            "choiceSettingValue": {"value": held, "children": []},
        }
    number = definition["format"] == "int" and value.strip().lstrip("-").isdigit()
    kind = "Integer" if number else "String"
    shown: Any = int(value) if number else value
    if definition["allowed"]["delimiter"]:
        parts = value.split(definition["allowed"]["delimiter"])
        return {
            "@odata.type": f"{_NAMESPACE}SimpleSettingCollectionInstance",
            "settingDefinitionId": id,
            "simpleSettingCollectionValue": [
                {"@odata.type": f"{_NAMESPACE}StringSettingValue", "value": part} for part in parts
            ],
        }
    return {
        "@odata.type": f"{_NAMESPACE}SimpleSettingInstance",
        "settingDefinitionId": id,
        "simpleSettingValue": {"@odata.type": f"{_NAMESPACE}{kind}SettingValue", "value": shown},
    }


@app.command()
def assign(
    name: Annotated[str, typer.Argument(help="Name or id.")],
    include: Annotated[list[str] | None, typer.Option(help="Group; repeatable.")] = None,
    exclude: Annotated[list[str] | None, typer.Option(help="Group; repeatable.")] = None,
    all_users: Annotated[bool, typer.Option("--all-users")] = False,
    all_devices: Annotated[bool, typer.Option("--all-devices")] = False,
    json: Json = False,
) -> None:
    """Give a policy to groups. Replaces the assignment before."""
    graph = graph_client()
    found = _find(graph, name)
    given = targets(
        graph, include or [], exclude or [], all_users=all_users, all_devices=all_devices
    )
    graph.post(f"{_PATH}/{found['id']}/assign", {"assignments": [{"target": t} for t in given]})
    emit({"id": found["id"]}, lambda _: f"{name} is assigned to {len(given)} targets.", json)


def _find(graph: Api, wanted: str) -> dict[str, Any]:
    return named(
        graph.every(_PATH),
        wanted,
        kind="policy",
        cure="List them: `tandem configuration-policy list`.",
        key="name",
    )


@app.command("list")
def list_policies(json: Json = False) -> None:
    """List the policies of the settings catalogue."""
    columns = {"name": "NAME", "settingCount": "SETTINGS", "id": "ID"}
    emit(graph_client().every(_PATH), lambda rows: table(rows, columns), json)


@app.command()
def status(
    name: Annotated[str, typer.Argument(help="Name or id.")],
    json: Json = False,
) -> None:
    """Show how many devices answered what for each setting of a policy."""
    graph = graph_client()
    report(graph, f"{_PATH}/{_find(graph, name)['id']}", json)


def report(graph: Api, path: str, json: bool) -> None:
    """The settings of a policy, counted over its devices."""
    found = graph.get(f"{path}/settingStatuses")

    def text(value: dict[str, Any]) -> str:
        rows = [{"setting": one["setting"], **one["counts"]} for one in value["settings"]]
        columns = {
            "setting": "SETTING",
            "success": "SUCCESS",
            "error": "ERROR",
            "conflict": "CONFLICT",
            "pending": "PENDING",
            "withheld": "WITHHELD",
            "notApplicable": "NOT APPLICABLE",
        }
        lines = [table(rows, columns)] if rows else ["It sets nothing on devices."]
        for one in value["settings"]:
            for other in one["conflictsWith"]:
                lines.append(f"{one['setting']} conflicts with {other['policyName']}.")
        lines += [f"{one['setting']}: {one['reason']}" for one in value["problems"]]
        return "\n".join(lines)

    emit(found, text, json)


@app.command()
def delete(name: Annotated[str, typer.Argument(help="Name or id.")], json: Json = False) -> None:
    """Delete a policy. Its settings are taken from devices at their next check-in."""
    graph = graph_client()
    found = _find(graph, name)
    graph.delete(f"{_PATH}/{found['id']}")
    emit({"id": found["id"]}, lambda _: f"Deleted {name}.", json)
