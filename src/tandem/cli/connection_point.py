"""tandem connection-point: the role that dials gateways from inside."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from tandem.cli.context import Json, Refused, emit, read_secret, site_client, table
from tandem.infra import config
from tandem.infra.secrets import private_folder, write_private

app = typer.Typer(
    help="Connection points: they dial the gateway from inside.", no_args_is_help=True
)

Name = Annotated[str, typer.Argument(help="Name of the server that has the role.")]
Folder = Annotated[
    Path | None,
    typer.Option("--folder", help="Write the role's settings and certificate here."),
]
GatewayCa = Annotated[
    Path | None,
    typer.Option("--gateway-ca-file", help="Roots for the gateway's certificate."),
]
Logs = Annotated[Path | None, typer.Option("--logs", help="Where the role logs.")]
Health = Annotated[str, typer.Option("--health", help="Its private host:port for health.")]
WebProxy = Annotated[
    str, typer.Option("--web-proxy", help="host:port of the proxy through which HTTPS goes out.")
]
WebProxyUser = Annotated[
    str, typer.Option("--web-proxy-user", help="Its account there, where the proxy asks for one.")
]
WebProxyPassword = Annotated[
    Path | None,
    typer.Option("--web-proxy-password-file", help="A file with the account's password."),
]
Report = Annotated[
    float | None, typer.Option("--report-seconds", help="Seconds between two reports to the site.")
]


@app.command()
def add(
    name: Name = "CP01",
    gateway: Annotated[
        str, typer.Option("--gateway", help="Service name; the only gateway when left out.")
    ] = "",
    folder: Folder = None,
    gateway_ca_file: GatewayCa = None,
    logs: Logs = None,
    health: Health = "",
    report_seconds: Report = None,
    web_proxy: WebProxy = "",
    web_proxy_user: WebProxyUser = "",
    web_proxy_password_file: WebProxyPassword = None,
    json: Json = False,
) -> None:
    """Give a server the role. With --folder, write what `tandem connector run` needs."""
    api = site_client()
    made = api.post("/api/v1/connection-points", {"name": name, "gateway": gateway})
    if folder is not None:
        given = api.post(f"/api/v1/connection-points/{made['name']}/credentials")
        more = {
            **_more(gateway_ca_file, logs, health, report_seconds),
            **_proxy(web_proxy, web_proxy_user, web_proxy_password_file),
        }
        made["settings"] = str(_write(folder, made["name"], given, more))
    emit(made, _added, json)


@app.command()
def install(
    name: Name,
    folder: Annotated[Path, typer.Option("--folder", help="Where settings and key go.")],
    gateway_ca_file: GatewayCa = None,
    logs: Logs = None,
    health: Health = "",
    report_seconds: Report = None,
    web_proxy: WebProxy = "",
    web_proxy_user: WebProxyUser = "",
    web_proxy_password_file: WebProxyPassword = None,
    json: Json = False,
) -> None:
    """Write the role's settings and certificate once more, on the server that has it."""
    given = site_client().post(f"/api/v1/connection-points/{name}/credentials")
    value = {"name": name, "service_name": given["service_name"]}
    more = {
        **_more(gateway_ca_file, logs, health, report_seconds),
        **_proxy(web_proxy, web_proxy_user, web_proxy_password_file),
    }
    value["settings"] = str(_write(folder, name, given, more))
    emit(value, _added, json)


def _more(
    gateway_ca: Path | None, logs: Path | None, health: str, report_seconds: float | None
) -> dict[str, Any]:
    """The settings that are left out when nobody said anything."""
    said = {
        "gateway_ca_file": str(gateway_ca.absolute()) if gateway_ca else None,
        "logs": str(logs.absolute()) if logs else None,
        "health": health or None,
        "report_seconds": report_seconds,
    }
    return {name: value for name, value in said.items() if value is not None}


def _proxy(address: str, user: str, password_file: Path | None) -> dict[str, Any]:
    """The password stays in its file: it is in no argument, and the site never has it."""
    said = {
        "web_proxy": address,
        "web_proxy_user": user,
        "web_proxy_password_file": str(password_file.absolute()) if password_file else "",
    }
    return {name: value for name, value in said.items() if value}


def _write(folder: Path, name: str, given: dict[str, str], more: dict[str, Any]) -> Path:
    folder = private_folder(folder.absolute())
    for part in ("certificate", "key", "root"):
        write_private(folder / f"{part}.pem", given[part].encode())
    settings = {
        "connection_point": name,
        "management_point_url": given["management_point_url"],
        "certificate": str(folder / "certificate.pem"),
        "key": str(folder / "key.pem"),
        "site_root": str(folder / "root.pem"),
        "state": str(private_folder(folder / "state")),
        **more,
    }
    path = folder / "connector.toml"
    write_private(path, config.toml(settings).encode())
    return path


def _added(value: dict[str, Any]) -> str:
    said = f"{value['name']} is a connection point of {value['service_name']}."
    if "settings" in value:
        return f"{said}\nStart it: tandem connector run --config {value['settings']}"
    return f"{said}\nOn that server: tandem connection-point install {value['name']} --folder …"


@app.command("list")
def list_points(json: Json = False) -> None:
    """List connection points."""
    found = site_client().get("/api/v1/connection-points")
    columns = {
        "name": "Connection point",
        "service_name": "Gateway",
        "connected": "Connected",
        "reported_at": "Last report",
    }
    emit(found, lambda rows: table(rows, columns), json)


@app.command()
def show(
    name: Annotated[str, typer.Argument(help="Its name; the only one when left out.")] = "",
    json: Json = False,
) -> None:
    """Show a connection point with its connections to each instance."""
    emit(site_client().get(f"/api/v1/connection-points/{name or '-'}"), _text, json)


def _text(value: dict[str, Any]) -> str:
    state = "connected" if value["connected"] else "not connected"
    lines = [f"{value['name']} → {value['service_name']}: {state}"]
    lines += [f"  {_through(value)}"] if value["web_proxy"] else []
    for item in value["connections"]:
        worker = f" worker {item['worker']}" if item["worker"] else ""
        through = f" through {item['through']}" if item["through"] else ""
        way = f" by {item['carrier'].upper()}{through}" if item["carrier"] else ""
        said = f"  Instance {item['instance']}{worker}: {item['state']}{way} since {item['since']}"
        lines.append(f"{said} {item['reason']}".rstrip())
        for failed in item["failures"]:
            at = datetime.fromtimestamp(failed["at"], UTC).isoformat(timespec="seconds")
            lines.append(
                f"    failed before, {at}, {failed['carrier'].upper()}: {failed['reason']}"
            )
    return "\n".join(lines)


def _through(value: dict[str, Any]) -> str:
    account = f" as {value['web_proxy_user']}" if value["web_proxy_user"] else ""
    kept = ", with a password" if value["web_proxy_password_kept"] else ""
    return f"Its HTTPS goes out by {value['web_proxy']}{account}{kept}."


@app.command("set")
def set_(
    name: Name,
    gateway: Annotated[
        str | None, typer.Option("--gateway", help="Service name of the other gateway.")
    ] = None,
    web_proxy: Annotated[
        str | None,
        typer.Option(
            "--web-proxy", help='host:port of the proxy through which HTTPS goes out; "" for none.'
        ),
    ] = None,
    web_proxy_user: Annotated[
        str | None,
        typer.Option("--web-proxy-user", help="Its account there, where the proxy asks for one."),
    ] = None,
    web_proxy_password_file: WebProxyPassword = None,
    json: Json = False,
) -> None:
    """Change a connection point: the gateway that it dials, and the web proxy by which it goes out.

    What it has of the old gateway it finishes. The proxy counts from the next dialling on, unless the
    role's own settings name one.
    """
    body = {"gateway": gateway, "web_proxy": web_proxy, "web_proxy_user": web_proxy_user}
    if web_proxy_password_file is not None:
        body["web_proxy_password"] = read_secret(web_proxy_password_file, "Password at the proxy")
    body = {key: value for key, value in body.items() if value is not None}
    if not body:
        raise Refused("Nothing is to be changed.", cure="Name what, like --gateway or --web-proxy.")
    found = site_client().patch(f"/api/v1/connection-points/{name}", body)
    emit(found, _moved, json)


def _moved(value: dict[str, Any]) -> str:
    said = f"{value['name']} serves {value['service_name']} now."
    if value["web_proxy"]:
        said += f"\n{_through(value)}"
    if value["left_alone"]:
        said += (
            f"\n{value['left_alone']} has no connection point any more: its clients find nobody."
        )
    return said


@app.command()
def remove(name: Name, json: Json = False) -> None:
    """Take the role from a server."""
    site_client().delete(f"/api/v1/connection-points/{name}")
    emit({"removed": name}, lambda _: f"{name} is no connection point any more.", json)
