"""tandem azure-service: the site's connection to a tenant."""

from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from tandem.cli.context import Json, Refused, emit, progress, read_secret, site_client, table
from tandem.cli.sign_in import (
    TenantAdmin,
    TenantPassword,
    TenantSignIn,
    administrator_access,
)

app = typer.Typer(help="The connection to a tenant (Azure Services).", no_args_is_help=True)
apps = typer.Typer(help="The server app and the native client app.", no_args_is_help=True)
app.add_typer(apps, name="app")

Service = Annotated[
    str, typer.Option("--service", help="Which Azure service; the only one when left out.")
]
Name = Annotated[str, typer.Option("--name", help="Name of the app in the tenant.")]


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="Name of the service.")],
    description: Annotated[str, typer.Option("--description")] = "",
    json: Json = False,
) -> None:
    """Begin an Azure service for Cloud Management."""
    made = site_client().post("/api/v1/azure-services", {"name": name, "description": description})
    emit(made, lambda v: f"{v['name']} ({v['environment']}). Next: its server app.", json)


@app.command("list")
def list_services(json: Json = False) -> None:
    """List Azure services."""
    found = site_client().get("/api/v1/azure-services")
    columns = {
        "name": "Service",
        "tenant_name": "Tenant",
        "tenant_id": "Tenant id",
        "discovery_enabled": "User discovery",
    }
    emit(found, lambda rows: table(rows, columns), json)


@app.command()
def show(service: Service = "", json: Json = False) -> None:
    """Show an Azure service with its apps."""
    emit(site_client().get(f"/api/v1/azure-services/{service or '-'}"), _text, json)


def _text(value: dict[str, Any]) -> str:
    lines = [
        f"{value['name']}  {value['description']}".rstrip(),
        f"  Tenant          {value['tenant_name'] or '-'} {value['tenant_id']}".rstrip(),
        f"  User discovery  {'on' if value['discovery_enabled'] else 'off'}",
        f"  Authentication  {'on' if value['authentication_enabled'] else 'off'}",
    ]
    for item in value["apps"]:
        lines.append(f"  {item['kind'].capitalize() + ' app':<15} {item['name']} {item['app_id']}")
        if item["app_id_uri"]:
            lines.append(f"    App ID URI    {item['app_id_uri']}")
        if item["secret_expires_at"]:
            lines.append(f"    Secret until  {item['secret_expires_at']}")
    return "\n".join(lines)


@app.command()
def verify(service: Service = "", json: Json = False) -> None:
    """Try the service's apps: secret, consent, and what they may do."""
    with progress("Asking the tenant…", json):
        found = site_client().post(f"/api/v1/azure-services/{service or '-'}/verify")
    emit(found, lambda v: "\n".join(_check(item) for item in v["checks"]), json)
    if not found["ok"]:
        raise typer.Exit(1)


def _check(item: dict[str, Any]) -> str:
    said = f"{'ok  ' if item['ok'] else 'FAIL'} {item['text']}"
    if item["reason"]:
        said += f"\n     {item['reason']}"
    return f"{said}\n     → {item['cure']}" if item["cure"] else said


@app.command()
def change(
    service: Service = "",
    name: Annotated[str | None, typer.Option("--name", help="Its new name.")] = None,
    description: Annotated[str | None, typer.Option("--description")] = None,
    authentication: Annotated[
        bool | None,
        typer.Option(
            "--authentication/--no-authentication",
            help="Whether tokens of this tenant count at the site and its gateways.",
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Change an Azure service's name or description, or whether its tenant's tokens count."""
    given = {"name": name, "description": description, "authentication_enabled": authentication}
    body = {key: value for key, value in given.items() if value is not None}
    if not body:
        raise Refused("Nothing is to be changed.", cure="Say what, like --description TEXT.")
    emit(site_client().patch(f"/api/v1/azure-services/{service or '-'}", body), _text, json)


@app.command()
def consent(
    service: Service = "",
    grant: Annotated[
        bool, typer.Option("--grant", help="Grant what is missing, as a global administrator.")
    ] = False,
    tenant_admin: TenantAdmin = None,
    tenant_password_file: TenantPassword = None,
    tenant_sign_in: TenantSignIn = "",
    json: Json = False,
) -> None:
    """Show which permissions both apps were granted in the tenant, or grant what is missing."""
    path = f"/api/v1/azure-services/{service or '-'}/consent"
    if grant:
        access = administrator_access(tenant_admin, tenant_password_file, tenant_sign_in)
        found = site_client().post(path, access)
    else:
        found = site_client().get(path)
    emit(found, _consent, json)


def _consent(value: dict[str, Any]) -> str:
    words = {True: "granted", False: "MISSING", None: "unknown"}
    lines = []
    for item in value["apps"]:
        lines.append(f"{item['kind'].capitalize()} app {item['name']} {item['app_id']}")
        for one in item["permissions"]:
            said = words[one["granted"]]
            lines.append(f"  {said:<8} {one['name']} ({one['kind']}, {one['resource']})")
        if item["reason"]:
            lines.append(f"  {item['reason']} {item['cure']}".rstrip())
    return "\n".join(lines) or "The service has no app yet."


@app.command("renew-secret")
def renew_secret(
    service: Service = "",
    secret_years: Annotated[int, typer.Option("--secret-years", help="1 or 2.")] = 1,
    tenant_admin: TenantAdmin = None,
    tenant_password_file: TenantPassword = None,
    tenant_sign_in: TenantSignIn = "",
    json: Json = False,
) -> None:
    """Give the server app a new secret before the old one ends."""
    body: dict[str, Any] = {
        **administrator_access(tenant_admin, tenant_password_file, tenant_sign_in),
        "secret_years": secret_years,
    }
    found = site_client().post(f"/api/v1/azure-services/{service or '-'}/secret", body)
    emit(found, lambda v: f"The secret lasts until {v['secret_expires_at']}.", json)


@app.command("update-apps")
def update_apps(
    service: Service = "",
    tenant_admin: TenantAdmin = None,
    tenant_password_file: TenantPassword = None,
    tenant_sign_in: TenantSignIn = "",
    json: Json = False,
) -> None:
    """Update application settings: give both apps what this version needs of them."""
    access = administrator_access(tenant_admin, tenant_password_file, tenant_sign_in)
    found = site_client().post(f"/api/v1/azure-services/{service or '-'}/app-settings", access)
    emit(found, _updated, json)


def _updated(value: dict[str, Any]) -> str:
    lines = [
        f"{item['kind'].capitalize()} app {item['name'] or item['app_id']}: "
        + (f"added {', '.join(item['added'])}." if item["added"] else "nothing was missing.")
        for item in value["apps"]
    ]
    if any(item["added"] for item in value["apps"]):
        lines.append("Next, consent to what is new: tandem azure-service consent --grant")
    return "\n".join(lines)


@app.command()
def delete(
    service: Annotated[str, typer.Argument(help="Name of the service.")], json: Json = False
) -> None:
    """Remove the site's side; the apps stay in the tenant."""
    site_client().delete(f"/api/v1/azure-services/{service}")
    emit({"deleted": service}, lambda _: f"Removed {service}. Its apps stay in the tenant.", json)


@apps.command("create")
def create_app(
    kind: Annotated[str, typer.Argument(help="server or client")],
    name: Name = "",
    app_id_uri: Annotated[str | None, typer.Option("--app-id-uri", help="Server app.")] = None,
    home_page: Annotated[str | None, typer.Option("--home-page", help="Server app.")] = None,
    secret_years: Annotated[int, typer.Option("--secret-years", help="1 or 2.")] = 1,
    reply_url: Annotated[str | None, typer.Option("--reply-url", help="Client app.")] = None,
    service: Service = "",
    tenant_admin: TenantAdmin = None,
    tenant_password_file: TenantPassword = None,
    tenant_sign_in: TenantSignIn = "",
    json: Json = False,
) -> None:
    """Create the server (web) or the native client app in the tenant.

    A global administrator signs in at the tenant for this step; the site gets an access token,
    uses it and forgets it.
    """
    if kind not in {"server", "client"}:
        raise Refused(f"There is no {kind!r} app.", cure="Create the server or the client app.")
    body: dict[str, Any] = {
        "name": name or ("ConfigMgr Server" if kind == "server" else "ConfigMgr Client"),
        **administrator_access(tenant_admin, tenant_password_file, tenant_sign_in),
        "secret_years": secret_years,
    }
    more = {"app_id_uri": app_id_uri, "home_page": home_page, "reply_url": reply_url}
    body |= {field: value for field, value in more.items() if value is not None}
    with progress("Creating the app…", json):
        made = site_client().post(f"/api/v1/azure-services/{service or '-'}/apps/{kind}", body)
    said = (
        f"Created {made['name']}: application (client) id {made['app_id']}.\n"
        f"Grant its permissions: tandem app-registration consent {made['app_id']}"
    )
    emit(made, lambda _: said, json)


@apps.command("import")
def import_app(
    kind: Annotated[str, typer.Argument(help="server or client")],
    client_id: Annotated[str, typer.Option("--client-id", help="Application (client) id.")],
    name: Name = "",
    tenant_id: Annotated[str, typer.Option("--tenant-id", help="Server app.")] = "",
    app_id_uri: Annotated[str, typer.Option("--app-id-uri", help="Server app.")] = "",
    secret_file: Annotated[
        Path | None, typer.Option("--secret-file", help="File with the server app's secret.")
    ] = None,
    secret_expires: Annotated[
        datetime | None, typer.Option("--secret-expires", formats=["%Y-%m-%d"])
    ] = None,
    service: Service = "",
    json: Json = False,
) -> None:
    """Take an app that exists in the tenant already. The server app is tried at once."""
    body: dict[str, Any] = {"name": name, "client_id": client_id}
    if kind == "server":
        if secret_expires is None:
            raise Refused("When does the secret expire?", cure="Say it with --secret-expires.")
        body |= {
            "tenant_id": tenant_id,
            "app_id_uri": app_id_uri,
            "secret": read_secret(secret_file, "Secret of the server app"),
            "secret_expires_at": secret_expires.strftime("%Y-%m-%dT00:00:00Z"),
        }
    made = site_client().post(f"/api/v1/azure-services/{service or '-'}/apps/{kind}/import", body)
    emit(made, lambda v: f"Imported {v['name'] or v['kind']}: {v['app_id']}.", json)
