"""tandem gateway: gateways on the internet, from the name to their state."""

import time
from base64 import b64encode
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import typer

from tandem.cli.context import Api, Json, Refused, emit, progress, read_secret, site_client, table
from tandem.cli.sign_in import TenantAdmin, TenantPassword, administrator_token

app = typer.Typer(help="Cloud management gateways.", no_args_is_help=True)

_WAIT_SECONDS = 900.0
_PASSING = {"Provisioning", "Starting", "Deleting"}

_EDGE_ANSWERS = "Answer check-ins without news at the gateway."
Name = Annotated[str, typer.Argument(help="Service name; the only gateway when left out.")]
Pfx = Annotated[
    Path | None, typer.Option("--pfx", help="Certificate, key and path of the gateway.")
]
PasswordFile = Annotated[
    Path | None, typer.Option("--password-file", help="File with the PFX's password.")
]
Certificate = Annotated[
    str,
    typer.Option("--certificate", help="Name or id of a certificate in the site's own store."),
]
AlertGb = Annotated[
    int | None, typer.Option("--alert-gb", help="Warn at this outbound transfer in 14 days.")
]
Warning_ = Annotated[
    int | None, typer.Option("--warning-percent", help="Of that transfer; 75 when left out.")
]
Critical = Annotated[
    int | None, typer.Option("--critical-percent", help="Of that transfer; 90 when left out.")
]
StopWhenCritical = Annotated[
    bool | None,
    typer.Option("--stop-when-critical/--no-stop-when-critical", help="Stop the gateway then."),
]
StorageGb = Annotated[
    int | None, typer.Option("--storage-gb", help="Warn when it keeps so much on disk.")
]
Environment = Annotated[
    str, typer.Option("--environment", help="Whose hosts; this machine's when left out.")
]
Wait = Annotated[bool, typer.Option("--wait/--no-wait", help="Wait until it is Ready.")]


@app.command()
def run(
    config: Annotated[Path, typer.Option(help="The instance's settings, a TOML file.")],
) -> None:
    """Run one instance of a gateway until SIGTERM or Ctrl-C."""
    from tandem.roles import gateway

    gateway.run(config)


@app.command("check-name")
def check_name(
    name: Annotated[str, typer.Argument(help="Like mycmg.contoso.com.")], json: Json = False
) -> None:
    """Say whether a service name can be used. Nothing is created."""
    found = site_client().get(f"/api/v1/gateway-names/{name}")
    if not found["available"]:
        raise Refused(found["reason"], cure=found["cure"], remote=found["code"])
    emit(found, _free, json)


def _free(value: dict[str, Any]) -> str:
    free = f"{value['service_name']} is free; it would be deployed as {value['deployment_name']}."
    return "\n".join([*value["notes"], free])


@app.command()
def create(
    pfx: Pfx = None,
    password_file: PasswordFile = None,
    certificate: Certificate = "",
    service_name: Annotated[
        str, typer.Option("--service-name", help="Only for a wildcard certificate.")
    ] = "",
    environment: Environment = "",
    region: Annotated[str, typer.Option("--region")] = "",
    resource_group: Annotated[str, typer.Option("--resource-group")] = "",
    description: Annotated[str, typer.Option("--description")] = "",
    instances: Annotated[int, typer.Option("--instances", help="1 to 16.")] = 1,
    check_revocation: Annotated[
        bool, typer.Option("--check-revocation/--no-check-revocation")
    ] = True,
    serve_content: Annotated[bool, typer.Option("--serve-content/--no-serve-content")] = True,
    content_only: Annotated[
        bool, typer.Option("--content-only", help="Publish nothing of a management point.")
    ] = False,
    edge_answers: Annotated[
        bool, typer.Option("--edge-answers/--no-edge-answers", help=_EDGE_ANSWERS)
    ] = True,
    trusted_root: Annotated[
        list[Path] | None,
        typer.Option("--trusted-root", help="Root of clients' certificates; several are taken."),
    ] = None,
    alert_gb: AlertGb = None,
    warning_percent: Warning_ = None,
    critical_percent: Critical = None,
    stop_when_critical: StopWhenCritical = None,
    storage_gb: StorageGb = None,
    tenant_admin: TenantAdmin = None,
    tenant_password_file: TenantPassword = None,
    wait: Wait = True,
    json: Json = False,
) -> None:
    """Create a gateway, and watch it become Ready.

    The service name is read from the certificate. A global administrator signs in at the tenant
    for this step.
    """
    if pfx is None and not certificate:
        raise Refused(
            "A gateway needs a certificate.",
            cure="Name its PFX with --pfx, or one of the site's own store with --certificate.",
        )
    body: dict[str, Any] = {
        **_certificate(pfx, password_file, certificate),
        "trusted_roots": [
            b64encode(_read(file, "--trusted-root")).decode() for file in trusted_root or []
        ],
        "access_token": administrator_token(tenant_admin, tenant_password_file),
        "service_name": service_name,
        "environment": environment,
        "region": region,
        "resource_group": resource_group,
        "description": description,
        "instances": instances,
        "check_revocation": check_revocation,
        "serve_content": serve_content,
        "content_only": content_only,
        "edge_answers": edge_answers,
        "alerts": _alerts(
            alert_gb, warning_percent, critical_percent, stop_when_critical, storage_gb
        ),
    }
    api = site_client()
    made = api.post("/api/v1/gateways", body)
    found = _settled(api, made, json) if wait else made
    emit({**found, "notes": made["notes"]}, _text, json)


def _read(file: Path, option: str) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise Refused(
            f"{file} cannot be read: {error.strerror}.", cure=f"Check {option}."
        ) from None


def _certificate(pfx: Path | None, password_file: Path | None, stored: str) -> dict[str, str]:
    if pfx is None:
        return {"certificate": stored} if stored else {}
    return {
        "data": b64encode(_read(pfx, "--pfx")).decode(),
        "password": read_secret(password_file, f"Password of {pfx.name}"),
    }


def _alerts(
    gb: int | None,
    warning: int | None,
    critical: int | None,
    stop: bool | None,
    storage: int | None,
) -> dict[str, Any]:
    said = {
        "outbound_gb": gb,
        "warning_percent": warning,
        "critical_percent": critical,
        "stop_when_critical": stop,
        "storage_gb": storage,
    }
    return {name: value for name, value in said.items() if value is not None}


@app.command("set")
def set_(
    name: Name = "",
    description: Annotated[str | None, typer.Option("--description")] = None,
    instances: Annotated[int | None, typer.Option("--instances", help="1 to 16.")] = None,
    check_revocation: Annotated[
        bool | None, typer.Option("--check-revocation/--no-check-revocation")
    ] = None,
    serve_content: Annotated[
        bool | None, typer.Option("--serve-content/--no-serve-content")
    ] = None,
    alert_gb: AlertGb = None,
    no_alert: Annotated[bool, typer.Option("--no-alert", help="Compare no transfer.")] = False,
    warning_percent: Warning_ = None,
    critical_percent: Critical = None,
    stop_when_critical: StopWhenCritical = None,
    storage_gb: StorageGb = None,
    acme: Annotated[
        bool | None, typer.Option("--acme/--no-acme", help="Renew its certificate by ACME.")
    ] = None,
    edge_answers: Annotated[
        bool | None, typer.Option("--edge-answers/--no-edge-answers", help=_EDGE_ANSWERS)
    ] = None,
    pfx: Pfx = None,
    password_file: PasswordFile = None,
    certificate: Certificate = "",
    json: Json = False,
) -> None:
    """Change a gateway. A new certificate has the same name, and is shown without a restart."""
    api = site_client()
    path = f"/api/v1/gateways/{name or '-'}"
    body: dict[str, Any] = {
        "description": description,
        "instances": instances,
        "check_revocation": check_revocation,
        "serve_content": serve_content,
        "acme": acme,
        "edge_answers": edge_answers,
        **_certificate(pfx, password_file, certificate),
    }
    body = {key: value for key, value in body.items() if value is not None}
    alerts = _alerts(alert_gb, warning_percent, critical_percent, stop_when_critical, storage_gb)
    if alerts or no_alert:
        body["alerts"] = {**api.get(path)["alerts"], **alerts}
    if no_alert:
        body["alerts"] |= {"outbound_gb": None, "stop_when_critical": False}
    if not body:
        raise Refused("Nothing is to be changed.", cure="Name what, like --instances 2.")
    emit(api.patch(path, body), _text, json)


@app.command()
def synchronize(name: Name = "", json: Json = False) -> None:
    """Bring instances and connection points to what is configured, now."""
    emit(site_client().post(f"/api/v1/gateways/{name or '-'}/synchronize"), _text, json)


@app.command()
def alerts(name: Name = "", json: Json = False) -> None:
    """Show the outbound transfer of 14 days against its threshold, and alarms of revocation lists."""
    emit(site_client().get(f"/api/v1/gateways/{name or '-'}/alerts"), _alerts_text, json)


def _alerts_text(value: dict[str, Any]) -> str:
    raised = [
        line
        for one in value["raised"]
        for line in (f"  Alert {one['name']}: {one['text']}", f"    → {one['cure']}")
    ]
    return "\n".join([_transfer_text(value), *raised, *_alarms_text(value)])


def _transfer_text(value: dict[str, Any]) -> str:
    sent = f"{value['outbound_bytes'] / 1e9:,.1f} GB sent in {value['days']} days"
    if value["level"] == "off":
        return f"{value['service_name']}: {sent}; no threshold is set"
    return (
        f"{value['service_name']}: {sent}, {value['percent']} % of"
        f" {value['outbound_gb']:,} GB: {value['level']}"
    )


Package = Annotated[
    str, typer.Argument(help="SHA-256, the first eight digits of it or more, or the file's name.")
]


@app.command()
def content(name: Name = "", json: Json = False) -> None:
    """List the packages that a gateway serves, and how much room its stores have."""
    emit(site_client().get(f"/api/v1/gateways/{name or '-'}/content"), _content_text, json)


@app.command("redistribute-content")
def redistribute_content(package: Package, name: Name = "", json: Json = False) -> None:
    """Have a gateway drop its copies of a package and fetch it anew; also one that was removed."""
    where = f"/api/v1/gateways/{name or '-'}/content/{quote(package, safe='')}/redistribute"
    emit(site_client().post(where), _content_text, json)


@app.command("remove-content")
def remove_content(package: Package, name: Name = "", json: Json = False) -> None:
    """Remove a package from a gateway: devices get it at the management point from now on."""
    api, where = site_client(), f"/api/v1/gateways/{name or '-'}/content"
    api.delete(f"{where}/{quote(package, safe='')}")
    emit(api.get(where), _content_text, json)


_CONTENT_COLUMNS = {
    "name": "Package",
    "version": "Version",
    "size": "Size (MB)",
    "state": "State",
    "on": "Instances",
    "sha256": "SHA-256",
}


def _content_text(value: dict[str, Any]) -> str:
    rows = [
        {
            **one,
            "size": f"{one['size_bytes'] / 1e6:,.1f}",
            "on": ", ".join(map(str, one["instances"])) or "-",
            "sha256": one["sha256"][:16],
        }
        for one in value["contents"]
    ]
    lines = [table(rows, _CONTENT_COLUMNS)] if rows else ["It serves no package yet."]
    for one in value["stores"]:
        free = "" if one["free_bytes"] is None else f", {one['free_bytes'] / 1e9:,.1f} GB are free"
        lines.append(f"Instance {one['instance']}: {one['used_bytes'] / 1e6:,.1f} MB kept{free}")
        if one["problem"]:
            lines.append(f"  {one['problem']}")
    if not value["serve_content"]:
        lines.append("The gateway is not allowed to serve content.")
    return "\n".join(lines)


@app.command()
def traffic(
    name: Name = "",
    by: Annotated[
        str, typer.Option("--by", help="endpoint, day, hour or connection-point.")
    ] = "endpoint",
    days: Annotated[
        int, typer.Option("--days", help="Of so many days by day and by connection point.")
    ] = 30,
    json: Json = False,
) -> None:
    """Show what went through a gateway: the sums of 14 and 30 days by endpoint, or more closely."""
    if by not in _TRAFFIC:
        raise Refused(
            f"Traffic is not told by {by!r}.",
            cure=f"Take one of {', '.join(_TRAFFIC)}.",
            remote="gateway.traffic",
        )
    found = site_client().get(f"/api/v1/gateways/{name or '-'}/traffic", days=days)
    emit(found, lambda value: _traffic_text(value, by), json)


_FIGURES = {
    "requests": "Requests",
    "failures": "Failures",
    "request_bytes": "In (MB)",
    "response_bytes": "Out (MB)",
    "elapsed_ms": "Mean (ms)",
}
_TRAFFIC = {
    "endpoint": {"endpoint": "Endpoint", "role": "Role", "days": "Days"},
    "day": {"day": "Day", "endpoint": "Endpoint"},
    "hour": {"hour": "Hour", "endpoint": "Endpoint"},
    "connection-point": {
        "connection_point": "Connection point",
        "endpoint": "Endpoint",
        "role": "Role",
    },
}


def _traffic_text(value: dict[str, Any], by: str) -> str:
    online = value["online"]
    told = online["told_at"] or "never"
    lines = [
        f"{value['service_name']}: {online['clients']} clients online,"
        f" {online['connections']} connections (told {told})"
    ]
    if by == "endpoint":
        rows = [
            {"endpoint": one["endpoint"], "role": one["role"], **sums}
            for one in value["endpoints"]
            for sums in one["sums"]
        ]
        rows += [{"endpoint": "all", "role": "", **sums} for sums in value["sums"]]
    else:
        rows = value[{"connection-point": "by_point"}.get(by, f"by_{by}")]
    shown = [{**row, **_readable(row)} for row in rows]
    return "\n".join([*lines, table(shown, {**_TRAFFIC[by], **_FIGURES})])


def _readable(row: dict[str, Any]) -> dict[str, str]:
    mean = row["elapsed_ms"] / row["requests"] if row["requests"] else 0
    return {
        "request_bytes": f"{row['request_bytes'] / 1e6:,.1f}",
        "response_bytes": f"{row['response_bytes'] / 1e6:,.1f}",
        "elapsed_ms": f"{mean:,.0f}",
    }


@app.command()
def analyze(
    name: Name = "",
    token_file: Annotated[
        Path | None,
        typer.Option("--token-file", help="A token of the tenant for the site; - is stdin."),
    ] = None,
    pfx: Annotated[
        Path | None, typer.Option("--client-pfx", help="A client's certificate with its key.")
    ] = None,
    password_file: PasswordFile = None,
    json: Json = False,
) -> None:
    """Walk a device's way through the gateway, and say where it breaks.

    Who asks is an account of the tenant, a client certificate, or the site itself.
    """
    body: dict[str, str] = _certificate(pfx, password_file, "")
    if token_file is not None:
        body["access_token"] = read_secret(token_file, "Token")
    found: dict[str, Any] = {}
    with progress("State of the gateway", json) as say:
        for line in site_client().lines(f"/api/v1/gateways/{name or '-'}/analyze", body):
            found = line.get("whole", found)
            if "check" in line:
                say(f"{line['check']['name']}: {line['check']['state']}")
    if not found:
        raise Refused(
            "The site broke off before the end of the way.", cure="Try again; read the site's log."
        )
    emit(found, _checks, json)


def _checks(value: dict[str, Any]) -> str:
    lines = []
    for item in value["checks"]:
        where = item["target"]["name"] or item["gateway"]
        lines.append(f"{item['state']:<8} {item['name']}: {where}")
        lines += [f"         {item['text']}", f"         → {item['cure']}"] if item["text"] else []
    cut = value["broken"]
    if cut:
        where = cut["target"]["name"] or cut["gateway"]
        lines += ["", f"A device's way is cut here: {cut['name']}, {where}.", f"→ {cut['cure']}"]
    elif value["ok"]:
        lines += ["", "A device reaches the management point through this gateway."]
    return "\n".join(lines)


def _settled(api: Api, found: dict[str, Any], json: bool) -> dict[str, Any]:
    """The gateway when it is Ready. Raises Refused with the reason when it cannot be."""
    name = found["service_name"]
    with progress(f"{name}: {found['state']}", json) as say:
        until = time.monotonic() + _WAIT_SECONDS
        while found["state"] in _PASSING and time.monotonic() < until:
            time.sleep(0.3)
            found = api.get(f"/api/v1/gateways/{name}")
            ready = sum(node["state"] == "running" for node in found["nodes"])
            say(f"{name}: {found['state']}, {ready} of {found['instances']} instances")
    if found["state"] == "Failed":
        raise Refused(
            f"{name} could not be provisioned: {found['reason']}",
            cure=f"Correct it, then `tandem gateway start {name}`.",
            remote="gateway.failed",
        )
    return found


def _text(value: dict[str, Any]) -> str:
    lines = [
        *value.get("notes", []),
        f"{value['service_name']}: {value['state']}"
        + (f" ({value['reason']})" if value["reason"] else ""),
        f"  Deployment      {value['deployment_name']}",
        f"  Environment     {value['environment']}",
        f"  Region          {value['region']}, {value['resource_group']}",
        f"  Certificate     until {value['expires_at']}",
        f"  Renewal         {_renewal(value)}",
        f"  Revocation      {'checked' if value['check_revocation'] else 'not checked'}",
        f"  Edge answers    {'on' if value['edge_answers'] else 'off'}",
    ]
    for node in value["nodes"]:
        said = f"  Instance {node['instance']:<6} {node['host']}:{node['port']} {node['state']}"
        process = f" (process {node['pid']})" if node["pid"] else ""
        lines.append(f"{said}{process} {node['reason']}".rstrip())
    return "\n".join([*lines, *_alarms_text(value)])


def _alarms_text(value: dict[str, Any]) -> list[str]:
    lines = []
    for alarm in value.get("alarms", []):
        lines += [f"  Alarm {alarm['name']}: {alarm['text']}", f"    → {alarm['cure']}"]
    return lines


def _renewal(value: dict[str, Any]) -> str:
    if not value["acme"]:
        return "by hand"
    return (
        f"by ACME; it failed: {value['renewal_reason']}" if value["renewal_reason"] else "by ACME"
    )


@app.command("list")
def list_gateways(
    environment: Annotated[str, typer.Option("--environment", help="Only those in it.")] = "",
    region: Annotated[str, typer.Option("--region", help="Only those in it.")] = "",
    resource_group: Annotated[str, typer.Option("--resource-group", help="Only those in it.")] = "",
    json: Json = False,
) -> None:
    """List gateways."""
    labels = {"environment": environment, "region": region, "resource_group": resource_group}
    found = site_client().get("/api/v1/gateways", **labels)
    columns = {
        "service_name": "Gateway",
        "state": "State",
        "instances": "Instances",
        "environment": "Environment",
        "region": "Region",
        "resource_group": "Group",
        "deployment_name": "Deployment",
        "reason": "Reason",
    }
    emit(found, lambda rows: table(rows, columns), json)


@app.command()
def show(name: Name = "", json: Json = False) -> None:
    """Show a gateway with its instances."""
    emit(site_client().get(f"/api/v1/gateways/{name or '-'}"), _text, json)


@app.command()
def start(name: Name = "", wait: Wait = True, json: Json = False) -> None:
    """Provision a stopped or failed gateway again."""
    api = site_client()
    found = api.post(f"/api/v1/gateways/{name or '-'}/start")
    emit(_settled(api, found, json) if wait else found, _text, json)


@app.command()
def redeploy(
    name: Name = "",
    environment: Annotated[
        str | None, typer.Option("--environment", help="Whose hosts it is to be on.")
    ] = None,
    region: Annotated[str | None, typer.Option("--region")] = None,
    resource_group: Annotated[str | None, typer.Option("--resource-group")] = None,
    wait: Wait = True,
    json: Json = False,
) -> None:
    """Make a gateway anew, in the same place or in another one.

    Its name, settings and connection points stay. Clients wait while it is made; it gets another
    connection id, so an instance that somebody took away is of no use to them.
    """
    body = {"environment": environment, "region": region, "resource_group": resource_group}
    api = site_client()
    wanted = {key: value for key, value in body.items() if value is not None}
    found = api.post(f"/api/v1/gateways/{name or '-'}/redeploy", wanted)
    emit(_settled(api, found, json) if wait else found, _text, json)


@app.command("check-provider")
def check_provider(
    environment: Environment = "",
    region: Annotated[str, typer.Option("--region", help="Only its hosts there.")] = "",
    json: Json = False,
) -> None:
    """Try every free host of an environment: is there what an instance needs?"""
    body = {"environment": environment, "region": region}
    found = site_client().post("/api/v1/gateways/provider/test", body)
    bad = next((item for item in found["checks"] if not item["ok"]), None)
    if bad is not None and not json:
        typer.echo(_tried(found))
    if bad is not None:
        raise Refused(bad["reason"], cure=bad["cure"], remote="gateway.provider")
    emit(found, _tried, json)


def _tried(value: dict[str, Any]) -> str:
    lines = []
    for item in value["checks"]:
        lines.append(f"{'ok' if item['ok'] else 'missing':<8} {item['text']}")
        lines += [] if item["ok"] else [f"         {item['reason']}", f"         → {item['cure']}"]
    return "\n".join(lines) or "No host is free."


@app.command()
def stop(name: Name = "", json: Json = False) -> None:
    """Stop a gateway's instances; what is configured stays."""
    emit(site_client().post(f"/api/v1/gateways/{name or '-'}/stop"), _text, json)


@app.command()
def delete(
    name: Annotated[str, typer.Argument(help="Service name.")],
    wait: Wait = True,
    json: Json = False,
) -> None:
    """Stop a gateway and forget it, its certificate included."""
    api = site_client()
    api.delete(f"/api/v1/gateways/{name}")
    with progress(f"Deleting {name}…", json):
        until = time.monotonic() + _WAIT_SECONDS
        while wait and _exists(api, name) and time.monotonic() < until:
            time.sleep(0.3)
    emit({"deleted": name}, lambda _: f"Deleted {name}.", json)


def _exists(api: Api, name: str) -> bool:
    wanted = name.strip().lower()
    return any(item["service_name"] == wanted for item in api.get("/api/v1/gateways"))


@app.command("check-dns")
def check_dns(name: Name = "", json: Json = False) -> None:
    """Check that the service name leads to the deployment, and say what is missing."""
    found = site_client().get(f"/api/v1/gateways/{name or '-'}/dns")
    if not found["ok"]:
        raise Refused(found["problem"], cure=found["cure"], remote="gateway.dns")
    emit(found, _names_text, json)


def _names_text(value: dict[str, Any]) -> str:
    lines = [f"DNS is right: {value['record']}"]
    if len(value["views"]) > 1:
        for view in value["views"]:
            addresses = ", ".join(view["addresses"])
            lines.append(f"  {view['view']:<9} {view['target'] or '-'} → {addresses}")
    if value["split_brain"]:
        lines.append("  Inside and outside give different answers, and both lead to the gateway.")
    return "\n".join(lines)
