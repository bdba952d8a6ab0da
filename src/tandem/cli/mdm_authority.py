"""tandem mdm-authority: who manages the tenant's devices, and whose enrol by themselves."""

from typing import Annotated, Any

import typer

from tandem.cli.context import Api, Json, emit, graph_client
from tandem.cli.group import find_group

app = typer.Typer(help="MDM authority and automatic enrolment.", no_args_is_help=True)

_POLICIES = "/v1.0/policies/mobileDeviceManagementPolicies"
_APP_POLICIES = "/v1.0/policies/mobileAppManagementPolicies"
_PROFILE = "/v1.0/tandem/deviceCertificateProfile"
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
    graph = graph_client()
    (policy,) = graph.every(_POLICIES)
    graph.patch(f"{_POLICIES}/{policy['id']}", _change(graph, whose, group))
    emit(_state(), _text, json)


@app.command("mam-scope")
def mam_scope(
    whose: Annotated[str, typer.Argument(help="none, some or all")],
    group: Annotated[list[str] | None, typer.Option(help="For some; repeatable.")] = None,
    json: Json = False,
) -> None:
    """Choose whose apps may be managed without an enrolment of the device."""
    graph = graph_client()
    (policy,) = graph.every(_APP_POLICIES)
    graph.patch(f"{_APP_POLICIES}/{policy['id']}", _change(graph, whose, group))
    emit(_state(), _text, json)


@app.command()
def addresses(
    discovery: Annotated[str | None, typer.Option(help="MDM discovery URL.")] = None,
    terms_of_use: Annotated[str | None, typer.Option(help="MDM terms of use URL.")] = None,
    compliance: Annotated[str | None, typer.Option(help="MDM compliance URL.")] = None,
    restore_default: Annotated[bool, typer.Option(help="All three as they were at first.")] = False,
    json: Json = False,
) -> None:
    """Show or change the addresses that joined devices are told."""
    graph = graph_client()
    (policy,) = graph.every(_POLICIES)
    named = {"discoveryUrl": discovery, "termsOfUseUrl": terms_of_use, "complianceUrl": compliance}
    change: dict[str, Any] = {name: url for name, url in named.items() if url is not None}
    if restore_default:
        if change:
            raise typer.BadParameter("Give addresses, or --restore-default.")
        change = dict.fromkeys(named)
    if change:
        graph.patch(f"{_POLICIES}/{policy['id']}", change)
        (policy,) = graph.every(_POLICIES)
    value = {name: policy[name] for name in named}
    emit(value, lambda _: "\n".join(f"{name:14} {url}" for name, url in value.items()), json)


@app.command("certificate-profile")
def certificate_profile(
    validity: Annotated[int | None, typer.Option(help="Days that a certificate is valid.")] = None,
    renewal: Annotated[
        int | None, typer.Option(help="Days before its end that devices renew it in.")
    ] = None,
    retry: Annotated[int | None, typer.Option(help="Days between attempts.")] = None,
    key_bits: Annotated[int | None, typer.Option(help="2048, 3072 or 4096.")] = None,
    provider: Annotated[
        list[str] | None, typer.Option(help="Where keys are kept, the preferred one first.")
    ] = None,
    json: Json = False,
) -> None:
    """Show or change how certificates of devices are issued and renewed."""
    graph = graph_client()
    named = {
        "validityDays": validity,
        "renewalDays": renewal,
        "retryDays": retry,
        "keyBits": key_bits,
        "keyProviders": provider,
    }
    change = {name: value for name, value in named.items() if value is not None}
    if change:
        graph.patch(_PROFILE, change)
    found = graph.get(_PROFILE)
    value = {name: found[name] for name in (*named, "revocationListUrl")}

    def text(_: Any) -> str:
        return "\n".join(
            f"{name:18} {', '.join(item) if isinstance(item, list) else item}"
            for name, item in value.items()
        )

    emit(value, text, json)


@app.command()
def check(
    user: Annotated[str, typer.Argument(help="User name or id.")], json: Json = False
) -> None:
    """Tell whether a user's devices get the MDM addresses when they join, and why."""
    emit(graph_client().post("/v1.0/tandem/enrollmentCheck", {"user": user}), _checked, json)


_QUESTIONS = {
    "authority": ("MDM authority is set", "Run `tandem mdm-authority set`."),
    "account": ("account is enabled", "Enable the user."),
    "scope": ("user is in the MDM user scope", "Run `tandem mdm-authority scope`."),
    "premium": ("directory premium is licensed", "Assign a product with AAD_PREMIUM."),
    "licence": ("MDM service is licensed", "Assign a product with INTUNE_A; else 0x80180018."),
}


def _checked(value: dict[str, Any]) -> str:
    name = value["userPrincipalName"]
    said = "get the MDM addresses" if value["getsUrls"] else "do not get the MDM addresses"
    lines = [f"Devices that {name} joins {said}."]
    for item in value["checks"]:
        question, cure = _QUESTIONS[item["name"]]
        lines.append(f"  {'yes' if item['holds'] else 'no ':4}{question}")
        if not item["holds"]:
            lines.append(f"      {cure}")
    return "\n".join(lines)


def _change(graph: Api, whose: str, group: list[str] | None) -> dict[str, Any]:
    if whose not in _SCOPES:
        raise typer.BadParameter("Say none, some or all.")
    if (whose == "some") != bool(group):
        raise typer.BadParameter("'some' needs --group, and only it takes groups.")
    change: dict[str, Any] = {"appliesTo": _SCOPES[whose]}
    if group:
        ids = [find_group(graph, item) for item in group]
        change["includedGroups@odata.bind"] = [
            f"https://graph.microsoft.com/v1.0/groups/{item}" for item in ids
        ]
    return change


def _state() -> dict[str, Any]:
    graph = graph_client()
    (here,) = graph.every("/v1.0/organization")
    (policy,) = graph.every(_POLICIES)
    groups = graph.every(f"{_POLICIES}/{policy['id']}/includedGroups")
    (apps,) = graph.every(_APP_POLICIES)
    app_groups = graph.every(f"{_APP_POLICIES}/{apps['id']}/includedGroups")
    shown = {value: name for name, value in _SCOPES.items()}
    return {
        "authority": here["mobileDeviceManagementAuthority"],
        "user_scope": shown[policy["appliesTo"]],
        "groups": [{"id": item["id"], "name": item["displayName"]} for item in groups],
        "mam_scope": shown[apps["appliesTo"]],
        "mam_groups": [{"id": item["id"], "name": item["displayName"]} for item in app_groups],
    }


def _text(value: dict[str, Any]) -> str:
    unset = "not set (run `tandem mdm-authority set`)"
    authority = unset if value["authority"] == "unknown" else "MDM service"
    lines = [f"MDM authority    {authority}"]
    for name, scope, groups in (
        ("MDM", "user_scope", "groups"),
        ("MAM", "mam_scope", "mam_groups"),
    ):
        named = ": " + ", ".join(item["name"] for item in value[groups]) if value[groups] else ""
        lines.append(f"{name} user scope   {value[scope]}{named}")
    return "\n".join(lines)
