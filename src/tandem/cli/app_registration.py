"""tandem app-registration: applications that sign in to the tenant."""

import base64
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any

import typer

from tandem.cli.context import Api, Json, Refused, emit, graph_client, table
from tandem.infra.secrets import write_private

app = typer.Typer(help="App registrations of the tenant.", no_args_is_help=True)

_GRAPH = "00000003-0000-0000-c000-000000000000"


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="Display name.")],
    application_permission: Annotated[
        list[str] | None, typer.Option(help="Permission of Graph, such as User.Read.All.")
    ] = None,
    secret_file: Annotated[
        Path | None, typer.Option(help="Make a secret and write it to this private file.")
    ] = None,
    json: Json = False,
) -> None:
    """Register an application, with permissions to be consented to and a secret."""
    graph = graph_client()
    access = _roles(graph, application_permission or [])
    needed = [{"resourceAppId": _GRAPH, "resourceAccess": access}] if access else []
    made = graph.post("/v1.0/applications", {"displayName": name, "requiredResourceAccess": needed})
    graph.post("/v1.0/servicePrincipals", {"appId": made["appId"]})
    value = {"id": made["id"], "app_id": made["appId"], "name": name}
    said = f"Registered {name}: application (client) id {made['appId']}."
    if secret_file is not None:
        added = graph.post(
            f"/v1.0/applications/{made['id']}/addPassword",
            {"passwordCredential": {"displayName": "command line"}},
        )
        write_private(secret_file, added["secretText"].encode())
        value |= {"secret_file": str(secret_file), "secret_ends_at": added["endDateTime"]}
        said += f"\nIts secret is in {secret_file}, valid until {added['endDateTime']}."
    if access:
        said += f"\nGrant its permissions: tandem app-registration consent {made['appId']}"
    emit(value, lambda _: said, json)


def _roles(graph: Api, permissions: list[str]) -> list[dict[str, str]]:
    if not permissions:
        return []
    (resource,) = graph.every("/v1.0/servicePrincipals", **{"$filter": f"appId eq '{_GRAPH}'"})
    known = {item["value"].lower(): item["id"] for item in resource["appRoles"]}
    unknown = [item for item in permissions if item.lower() not in known]
    if unknown:
        raise Refused(
            f"Graph has no application permission {', '.join(unknown)}.",
            cure="Check the spelling, such as User.Read.All.",
        )
    return [{"id": known[item.lower()], "type": "Role"} for item in permissions]


@app.command("list")
def list_applications(json: Json = False) -> None:
    """List app registrations."""
    found = graph_client().every("/v1.0/applications")
    rows = [{**item, "uris": ", ".join(item["identifierUris"])} for item in found]
    columns = {"displayName": "Application", "appId": "Client id", "uris": "App ID URI"}
    emit(found, lambda _: table(rows, columns), json)


@app.command()
def show(
    application: Annotated[str, typer.Argument(help="Client id, object id or name.")],
    json: Json = False,
) -> None:
    """Show an app registration with secrets, permissions and consent."""
    graph = graph_client()
    found = _find(graph, application)
    principals = graph.every(
        "/v1.0/servicePrincipals", **{"$filter": f"appId eq '{found['appId']}'"}
    )
    granted: list[str] = []
    for principal in principals:
        at = f"/v1.0/servicePrincipals/{principal['id']}"
        for item in graph.every(f"{at}/appRoleAssignments"):
            resource = graph.get(f"/v1.0/servicePrincipals/{item['resourceId']}")
            names = {role["id"]: role["value"] for role in resource["appRoles"]}
            granted.append(names.get(item["appRoleId"], item["appRoleId"]))
        for item in graph.every(f"{at}/oauth2PermissionGrants"):
            granted += item["scope"].split()
    value = {**found, "granted": sorted(granted)}
    emit(value, _text, json)


def _text(value: dict[str, Any]) -> str:
    redirects = value["web"]["redirectUris"] + value["publicClient"]["redirectUris"]
    secrets = [
        f"{item['hint']}… until {item['endDateTime']}" for item in value["passwordCredentials"]
    ]
    lines = {
        "Application": value["displayName"],
        "Client id": value["appId"],
        "Object id": value["id"],
        "App ID URI": ", ".join(value["identifierUris"]) or "-",
        "Redirects": ", ".join(redirects) or "-",
        "Secrets": ", ".join(secrets) or "-",
        "Granted": ", ".join(value["granted"]) or "nothing",
    }
    return "\n".join(f"{name:<12} {text}" for name, text in lines.items())


@app.command()
def expiring(
    days: Annotated[int, typer.Option(help="How far ahead to look.", min=0)] = 60,
    json: Json = False,
) -> None:
    """List secrets and certificates that end soon, or have ended."""
    now = datetime.now(UTC)
    found = []
    for item in graph_client().every("/v1.0/applications"):
        for sort, name in (("secret", "passwordCredentials"), ("certificate", "keyCredentials")):
            for held in item[name]:
                left = (datetime.fromisoformat(held["endDateTime"]) - now).total_seconds() / 86400
                if left <= days:
                    found.append(
                        {
                            "application": item["displayName"],
                            "app_id": item["appId"],
                            "sort": sort,
                            "key_id": held["keyId"],
                            "name": held["displayName"] or held.get("hint") or held["keyId"],
                            "ends_at": held["endDateTime"],
                            "days_left": int(left // 1),
                            "warning": _warning(left),
                        }
                    )
    found.sort(key=lambda item: item["ends_at"])
    columns = {
        "application": "Application",
        "sort": "Credential",
        "name": "Name",
        "ends_at": "Ends",
        "warning": "Warning",
    }
    emit(
        found,
        lambda _: (
            f"{table(found, columns)}\nRenew a secret: tandem app-registration renew-secret CLIENT_ID"
            if found
            else f"Nothing ends within {days} days."
        ),
        json,
    )


def _warning(days_left: float) -> str:
    if days_left <= 0:
        return "ended"
    for days in (7, 30, 60):
        if days_left <= days:
            return f"within {days} days"
    return ""


@app.command("renew-secret")
def renew_secret(
    application: Annotated[str, typer.Argument(help="Client id, object id or name.")],
    secret_file: Annotated[Path, typer.Option(help="Private file for the new secret.")],
    days: Annotated[int, typer.Option(help="How long it is valid.", min=1, max=3650)] = 730,
    remove: Annotated[
        str | None, typer.Option("--remove", help="Key id of the old secret, to end it now.")
    ] = None,
    json: Json = False,
) -> None:
    """Make a new secret. The old ones stay valid until they end or are removed."""
    graph = graph_client()
    found = _find(graph, application)
    ends_at = (datetime.now(UTC) + timedelta(days=days)).isoformat()
    added = graph.post(
        f"/v1.0/applications/{found['id']}/addPassword",
        {"passwordCredential": {"displayName": "command line", "endDateTime": ends_at}},
    )
    write_private(secret_file, added["secretText"].encode())
    if remove:
        graph.post(f"/v1.0/applications/{found['id']}/removePassword", {"keyId": remove})
    value = {
        "app_id": found["appId"],
        "key_id": added["keyId"],
        "secret_file": str(secret_file),
        "secret_ends_at": added["endDateTime"],
        "removed": remove,
    }
    said = f"The new secret is in {secret_file}, valid until {added['endDateTime']}."
    if not remove:
        said += "\nWhen every client uses it, remove the old one: --remove KEY_ID."
    emit(value, lambda _: said, json)


@app.command("add-certificate")
def add_certificate(
    application: Annotated[str, typer.Argument(help="Client id, object id or name.")],
    certificate: Annotated[Path, typer.Argument(help="The certificate, in PEM or DER.")],
    json: Json = False,
) -> None:
    """Let the application sign in with a certificate's key instead of a secret."""
    graph = graph_client()
    found = _find(graph, application)
    try:
        raw = certificate.read_bytes()
    except OSError as error:
        raise Refused(
            f"{certificate} cannot be read: {error.strerror}.", cure="Name a readable file."
        ) from None
    if b"PRIVATE KEY" in raw:
        raise Refused(
            f"{certificate} holds a private key, which must not leave this computer.",
            cure="Export the certificate alone, and name that file.",
        )
    if raw.lstrip().startswith(b"-----BEGIN CERTIFICATE-----"):
        raw = ssl.PEM_cert_to_DER_cert(raw.decode("ascii", "replace").strip())
    key = {
        "type": "AsymmetricX509Cert",
        "usage": "Verify",
        "key": base64.b64encode(raw).decode(),
        "displayName": certificate.name,
    }
    added = graph.post(f"/v1.0/applications/{found['id']}/addKey", {"keyCredential": key})
    value = {"app_id": found["appId"], "key_id": added["keyId"], "ends_at": added["endDateTime"]}
    emit(value, lambda _: f"Added; it is taken until {added['endDateTime']}.", json)


@app.command()
def consent(
    application: Annotated[str, typer.Argument(help="Client id, object id or name.")],
    json: Json = False,
) -> None:
    """Grant admin consent to everything that the registration asks for."""
    graph = graph_client()
    found = _find(graph, application)
    principal = _principal(graph, found["appId"])
    if principal is None:
        principal = graph.post("/v1.0/servicePrincipals", {"appId": found["appId"]})
    granted: list[str] = []
    for needed in found["requiredResourceAccess"]:
        resource = _principal(graph, needed["resourceAppId"])
        if resource is None:
            raise Refused(
                f"The tenant does not know the application {needed['resourceAppId']}, of which"
                f" {found['displayName']} wants permissions.",
                cure="Register it first, or take it out of the registration.",
            )
        granted += _grant(graph, principal["id"], resource, needed["resourceAccess"])
    value = {"app_id": found["appId"], "granted": sorted(granted)}
    text = ", ".join(value["granted"]) or "nothing: the registration asks for no permission"
    emit(value, lambda _: f"Granted to {found['displayName']}: {text}.", json)


def _principal(graph: Api, app_id: str) -> dict[str, Any] | None:
    found = graph.every("/v1.0/servicePrincipals", **{"$filter": f"appId eq '{app_id}'"})
    return found[0] if found else None


def _grant(
    graph: Api, client_id: str, resource: dict[str, Any], access: list[dict[str, str]]
) -> list[str]:
    """Give a client these roles and scopes of a resource, for everybody; their names."""
    at = f"/v1.0/servicePrincipals/{client_id}"
    wanted = {(item["type"], item["id"]) for item in access}
    roles = {r["id"]: r["value"] for r in resource["appRoles"] if ("Role", r["id"]) in wanted}
    scopes = {
        scope["value"]
        for scope in resource["oauth2PermissionScopes"]
        if ("Scope", scope["id"]) in wanted
    }
    held = {
        item["appRoleId"]
        for item in graph.every(f"{at}/appRoleAssignments")
        if item["resourceId"] == resource["id"]
    }
    for role in roles.keys() - held:
        body = {"principalId": client_id, "resourceId": resource["id"], "appRoleId": role}
        graph.post(f"{at}/appRoleAssignments", body)
    if scopes:
        _grant_scopes(graph, client_id, resource["id"], scopes)
    return [*roles.values(), *scopes]


def _grant_scopes(graph: Api, client_id: str, resource_id: str, scopes: set[str]) -> None:
    """One grant for everybody holds all scopes of a resource: it is made, or it grows."""
    for grant in graph.every(f"/v1.0/servicePrincipals/{client_id}/oauth2PermissionGrants"):
        if (grant["resourceId"], grant["consentType"]) == (resource_id, "AllPrincipals"):
            every = scopes | set(grant["scope"].split())
            body = {"scope": " ".join(sorted(every))}
            graph.patch(f"/v1.0/oauth2PermissionGrants/{grant['id']}", body)
            return
    body = {
        "clientId": client_id,
        "consentType": "AllPrincipals",
        "resourceId": resource_id,
        "scope": " ".join(sorted(scopes)),
    }
    graph.post("/v1.0/oauth2PermissionGrants", body)


def _find(graph: Api, text: str) -> dict[str, Any]:
    wanted = text.lower()
    found = [
        item
        for item in graph.every("/v1.0/applications")
        if wanted in (item["id"], item["appId"], item["displayName"].lower())
        or wanted in [uri.lower() for uri in item["identifierUris"]]
    ]
    if len(found) != 1:
        reason = "There is no application" if not found else f"{len(found)} applications are"
        raise Refused(
            f"{reason} called '{text}'.",
            cure="Run `tandem app-registration list`, and give the client id.",
        )
    return found[0]
