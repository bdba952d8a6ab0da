"""tandem management-point: what of it the gateway publishes, and whose certificates count."""

from base64 import b64encode
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import typer

from tandem.cli.context import Json, Refused, emit, site_client

app = typer.Typer(help="The management point and its gateway traffic.", no_args_is_help=True)


@app.command()
def show(json: Json = False) -> None:
    """Show the management point and what is published of it."""
    emit(site_client().get("/api/v1/management-point"), _text, json)


@app.command("set")
def set_(
    allow_gateway_traffic: Annotated[
        bool, typer.Option("--allow-gateway-traffic/--no-allow-gateway-traffic")
    ],
    json: Json = False,
) -> None:
    """Allow gateway traffic to the management point, or not."""
    wanted = {"allow_gateway_traffic": allow_gateway_traffic}
    emit(site_client().patch("/api/v1/management-point", wanted), _text, json)


def _text(value: dict[str, Any]) -> str:
    allowed = "allowed" if value["allow_gateway_traffic"] else "not allowed"
    lines = [
        f"Management point {value['role_id']} at {value['url']}",
        f"  Gateway traffic  {allowed}",
        f"  CCMHOSTNAME      {value['gateway_host'] or '-'}",
    ]
    for item in value["adminservice"]:
        right = "reads and writes" if item["writes"] else "reads only"
        lines.append(f"  AdminService     {right}, for users of the app {item['app_id']}")
    for item in value["endpoints"]:
        lines.append(
            f"  {' '.join(item['methods']):<5} {item['prefix']} ({', '.join(item['auth'])})"
        )
    return "\n".join(lines)


@app.command("publish-adminservice")
def publish_adminservice(
    application: Annotated[str, typer.Argument(help="Client id of the app that scripts use.")],
    allow_writes: Annotated[
        bool, typer.Option("--allow-writes", help="Let it change things, too.")
    ] = False,
    json: Json = False,
) -> None:
    """Let users of an app reach the AdminService through the gateway; reading only, unless said."""
    wanted = {"writes": allow_writes}
    path = f"/api/v1/management-point/adminservice/{quote(application, safe='')}"
    emit(site_client().put(path, wanted), _text, json)


@app.command("unpublish-adminservice")
def unpublish_adminservice(
    application: Annotated[str, typer.Argument(help="Client id of the app.")],
    json: Json = False,
) -> None:
    """Take it back. Tokens of the app never open a session of an administrator, not later either."""
    path = f"/api/v1/management-point/adminservice/{quote(application, safe='')}"
    site_client().delete(path)
    emit(site_client().get("/api/v1/management-point"), _text, json)


@app.command("trust-root")
def trust_root(
    file: Annotated[Path, typer.Argument(help="Certificates of your clients' CA.")],
    json: Json = False,
) -> None:
    """Let the gateway accept client certificates of this authority."""
    made = site_client().post("/api/v1/trust/roots", {"data": _data(file)})
    emit(made, lambda value: "Trusted: " + "; ".join(value["added"]), json)


@app.command("add-crl")
def add_crl(
    file: Annotated[Path, typer.Argument(help="The CA's certificate revocation list.")],
    json: Json = False,
) -> None:
    """Give the gateway a revocation list; it takes the place of the issuer's older one."""
    made = site_client().post("/api/v1/trust/crls", {"data": _data(file)})
    emit(made, lambda value: f"Revocation list of {value['issuer']} published.", json)


@app.command()
def trusted(json: Json = False) -> None:
    """List the authorities of clients and their revocation lists, with their ends."""
    emit(site_client().get("/api/v1/trust"), _trusted_text, json)


def _trusted_text(value: dict[str, Any]) -> str:
    lines = [
        f"Authority        {one['subject']}, until {one['expires_at']}" for one in value["roots"]
    ]
    lines += [
        f"Revocation list  {one['issuer']}, until {one['next_update_at']}" for one in value["crls"]
    ]
    lines += [
        f"Fetched from     {one['url']}, {one['reason'] or one['fetched_at'] or 'not yet'}"
        for one in value["sources"]
    ]
    return "\n".join(lines) or "None: clients with certificates are refused."


def _data(file: Path) -> str:
    try:
        return b64encode(file.read_bytes()).decode()
    except OSError as error:
        raise Refused(
            f"{file} cannot be read: {error.strerror}.", cure="Check the file's name."
        ) from None
