"""tandem software-update-point: the site system role, and what of it the gateway publishes."""

from typing import Annotated, Any

import typer

from tandem.cli.context import Json, emit, site_client

app = typer.Typer(
    help="The software update point of the site. Clients on Linux ask it which updates are approved"
    " for them; the wire between WSUS and Windows is not in this version.",
    no_args_is_help=True,
)
_URL = "/api/v1/software-update-point"


@app.command()
def show(json: Json = False) -> None:
    """Show the software update point and what is published of it."""
    emit(site_client().get(_URL), _text, json)


@app.command("set")
def set_(
    allow_gateway_traffic: Annotated[
        bool, typer.Option("--allow-gateway-traffic/--no-allow-gateway-traffic")
    ],
    json: Json = False,
) -> None:
    """Allow gateway traffic to the software update point, or not."""
    wanted = {"allow_gateway_traffic": allow_gateway_traffic}
    emit(site_client().patch(_URL, wanted), _text, json)


def _text(value: dict[str, Any]) -> str:
    allowed = "allowed" if value["allow_gateway_traffic"] else "not allowed"
    lines = [
        f"Software update point {value['role_id']} at {value['url']}",
        f"  Gateway traffic  {allowed}",
        f"  On the internet  {value['gateway_host'] or '-'}",
        "  Clients          on Linux; the wire between WSUS and Windows is not in this version",
    ]
    for item in value["endpoints"]:
        lines.append(
            f"  {' '.join(item['methods']):<5} {item['prefix']} ({', '.join(item['auth'])})"
        )
    return "\n".join(lines)
