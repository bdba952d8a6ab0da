"""tandem site: the site itself, and who did what in it."""

from base64 import b64encode
from pathlib import Path
from typing import Annotated, Any

import typer

from tandem.cli.context import Json, Refused, Yes, confirm, emit, site_client, table
from tandem.infra.errors import AppError, Kind

app = typer.Typer(help="The site: its code, its certificates, its audit log.", no_args_is_help=True)


@app.command()
def run(config: Annotated[Path, typer.Option(help="The role's settings, a TOML file.")]) -> None:
    """Run the site until SIGTERM or Ctrl-C."""
    from tandem.roles import site

    site.run(config)


@app.command()
def show(
    root_file: Annotated[
        Path | None, typer.Option("--root-file", help="Write the issuing root here (PEM).")
    ] = None,
    json: Json = False,
) -> None:
    """Show the site's code, its management point's number and its issuing root."""
    found = site_client().get("/api/v1/site")
    if root_file is not None:
        root_file.write_text(found["issuing_root"]["certificate"])
    emit(found, _text, json)


def _text(value: dict[str, Any]) -> str:
    root = value["issuing_root"]
    lines = [
        f"Site {value['code']}  {value['name']}",
        f"  Version           {value['version']}",
        f"  Management point  {value['management_point_id']}",
        f"  Enhanced HTTP     {'on' if value['enhanced_http'] else 'off'}",
        f"  Issuing root      {root['subject']}, until {root['expires_at'][:10]}",
        f"                    SHA-256 {root['sha256']}",
    ]
    for item in value["certificates"]:
        lines.append(f"  {item['role']:<28} until {item['expires_at'][:10]}")
    return "\n".join(lines)


properties = typer.Typer(help="Communication security: certificates, trust.", no_args_is_help=True)
roots = typer.Typer(help="Roots that clients' certificates may chain to.", no_args_is_help=True)
app.add_typer(properties, name="properties")
properties.add_typer(roots, name="root")
_PROPERTIES = "/api/v1/site/properties"


@properties.command("show")
def show_properties(json: Json = False) -> None:
    """Show the site's communication security, and how far its certificate is."""
    emit(site_client().get(_PROPERTIES), _properties, json)


@properties.command("set")
def set_properties(
    enhanced_http: Annotated[
        bool | None,
        typer.Option("--enhanced-http/--no-enhanced-http", help="Certificates of the site's own."),
    ] = None,
    pki_client_certificate: Annotated[
        bool | None,
        typer.Option(
            "--pki-client-certificate/--no-pki-client-certificate",
            help="Let clients with certificates in through gateways.",
        ),
    ] = None,
    check_crl: Annotated[
        bool | None,
        typer.Option("--check-crl/--no-check-crl", help="Kept; without effect in this version."),
    ] = None,
    site_systems: Annotated[
        str | None, typer.Option("--site-systems", help="https-or-http or https-only.")
    ] = None,
    json: Json = False,
) -> None:
    """Change the site's communication security; what is not named stays."""
    given = {
        "enhanced_http": enhanced_http,
        "pki_client_certificate": pki_client_certificate,
        "check_crl": check_crl,
        "site_systems": site_systems,
    }
    body = {name: value for name, value in given.items() if value is not None}
    emit(site_client().patch(_PROPERTIES, body), _properties, json)


def _properties(value: dict[str, Any]) -> str:
    point, said = value["management_point"], {True: "on", False: "off"}
    until = f", certificate until {point['expires_at'][:10]}" if point["expires_at"] else ""
    lines = [
        "Site systems            HTTPS or HTTP",
        f"Enhanced HTTP           {said[value['enhanced_http']]}",
        f"  Management point      {point['state']}{until}",
        f"PKI client certificate  {said[value['pki_client_certificate']]}",
        f"Clients check the CRL   {said[value['check_crl']]} (without effect in this version)",
    ]
    for item in value["trusted_roots"]:
        lines.append(f"Trusted root {item['id']:<10} {item['subject']}")
    return "\n".join(lines)


@roots.command("add")
def add_root(
    file: Annotated[Path, typer.Argument(help="Certificates of the authority: PEM, DER or P7B.")],
    json: Json = False,
) -> None:
    """Trust the certificates that an authority gives to clients."""
    try:
        data = file.read_bytes()
    except OSError as error:
        raise Refused(f"{file} cannot be read: {error.strerror}.", cure="Check its name.") from None
    made = site_client().post("/api/v1/trust/roots", {"data": b64encode(data).decode()})
    emit(made, lambda v: "Trusted: " + "; ".join(v["added"]), json)


@roots.command("remove")
def remove_root(
    id: Annotated[int, typer.Argument(help="Its number in `tandem site properties show`.")],
    json: Json = False,
) -> None:
    """Trust an authority no longer."""
    site_client().delete(f"/api/v1/trust/roots/{id}")
    emit({"removed": id}, lambda _: f"Root {id} is not trusted any more.", json)


@app.command()
def expirations(json: Json = False) -> None:
    """List every certificate and secret of the site by the day on which it ends."""
    found = site_client().get("/api/v1/expirations")
    columns = {
        "expires_at": "Ends",
        "days": "Days",
        "level": "Level",
        "kind": "Kind",
        "subject": "Of",
        "holder": "Holder",
        "id": "Id",
    }
    rows = [{**row, "expires_at": row["expires_at"][:10]} for row in found]
    emit(found, lambda _: table(rows, columns), json)


@app.command()
def renew(
    id: Annotated[str, typer.Argument(help="Its id in `tandem site expirations`.")],
    json: Json = False,
) -> None:
    """Renew a certificate that the site itself issued; it answers with the new one at once."""
    made = site_client().post("/api/v1/expirations/renew", {"id": id})
    emit(made, lambda v: f"{v['subject']}: until {v['expires_at'][:10]}.", json)


@app.command()
def audit(
    target: Annotated[str | None, typer.Option(help="Only entries about this.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000)] = 50,
    json: Json = False,
) -> None:
    """List who did what, the newest first."""
    found = site_client().get("/api/v1/site/audit", target=target, limit=limit)
    columns = {
        "at": "When",
        "actor": "Who",
        "action": "Did",
        "target": "To",
        "outcome": "Outcome",
    }
    emit(found, lambda rows: table([{**r, "at": r["at"][:19]} for r in rows], columns), json)


_MARKS = {
    "done": "✓ done",
    "partly": "~ partly",
    "not-yet": "· not yet",
    "unknown": "? unknown",
    "not-in-this-version": "- not in this version",
}


@app.command()
def guide(
    do: Annotated[
        str, typer.Option("--do", help="Do this step, like 4.3, where it needs no secret.")
    ] = "",
    yes: Yes = False,
    json: Json = False,
) -> None:
    """Show the tutorial's steps, each with where it stands, and do one of them."""
    api = site_client()
    if do:
        steps = {
            step["id"]: step for part in api.get("/api/v1/guide")["parts"] for step in part["steps"]
        }
        step = steps.get(do)
        if step is None:
            raise typer.BadParameter(f"There is no step {do!r}.")
        way = step["do"]
        if way is None:
            raise NothingToDo(
                f"Step {do} cannot be done from here: {step['text']}",
                cure=f"By hand: `{step['command']}`." if step["command"] else "",
            )
        confirm(f"{way['says']}? {way['warns']}", yes, json)
        api.call(way["method"], way["path"], json=way["body"])
    emit(api.get("/api/v1/guide"), _guide, json)


class NothingToDo(AppError):
    kind, code = Kind.CONFLICT, "cli.nothing-to-do"


def _guide(value: dict[str, Any]) -> str:
    lines = []
    for part in value["parts"]:
        lines += ["", f"{part['part']} {part['title']}"]
        for step in part["steps"]:
            lines.append(f"  {step['id']}  {_MARKS[step['state']]:<12} {step['title']}")
            lines.append(f"       {step['text']}")
            if step["id"] == value["next"]:
                lines.append(f"       → {step['command']}")
            if step["do"] and step["state"] != "done":
                lines.append(f"       → tandem site guide --do {step['id']}")
    return "\n".join(lines[1:])


@app.command()
def story(limit: Annotated[int, typer.Option(min=1, max=200)] = 50, json: Json = False) -> None:
    """Tell what administrators and devices did lately, the newest first."""

    def text(rows: list[dict[str, Any]]) -> str:
        return "\n".join(f"{row['at'][:19]}  {row['text']}" for row in rows)

    emit(site_client().get("/api/v1/guide/story", limit=limit), text, json)
