"""tandem certificate: the public certificate of a gateway, from the request to the PFX."""

import time
from base64 import b64decode, b64encode
from pathlib import Path
from typing import Annotated, Any

import typer

from tandem.cli.context import Json, Refused, emit, progress, read_secret, site_client, table
from tandem.infra.secrets import write_private

app = typer.Typer(help="Certificates for gateways, and their keys.", no_args_is_help=True)

_WAIT_SECONDS = 400.0

Wanted = Annotated[str, typer.Argument(help="Service name, or the certificate's id.")]
PasswordFile = Annotated[
    Path | None, typer.Option("--password-file", help="File with the PFX's password; - is stdin.")
]


@app.command()
def request(
    service_name: Annotated[str, typer.Argument(help="Like mycmg.contoso.com: CN and SAN.")],
    organization: Annotated[str, typer.Option("--organization", "-O")] = "",
    organizational_unit: Annotated[str, typer.Option("--organizational-unit", "--unit")] = "",
    locality: Annotated[str, typer.Option("--locality", "--city")] = "",
    state: Annotated[str, typer.Option("--state")] = "",
    country: Annotated[str, typer.Option("--country", help="Two letters, like US.")] = "",
    acme: Annotated[
        bool, typer.Option("--acme", help="Order it of the ACME authority of the settings.")
    ] = False,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Until it is issued.")] = True,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write the request to this file.")
    ] = None,
    json: Json = False,
) -> None:
    """Make a key on the site server, and the PKCS #10 request for your CA, or order it by ACME."""
    asked = {
        "service_name": service_name,
        "organization": organization,
        "organizational_unit": organizational_unit,
        "locality": locality,
        "state": state,
        "country": country,
        "acme": acme,
    }
    made = site_client().post("/api/v1/certificates", asked)
    if acme:
        emit(_issued(made, json) if wait else made, _ordered, json)
        return
    if output is not None:
        output.write_text(made["request"], "utf-8")
        made["saved"] = str(output.absolute())

    def text(value: dict[str, Any]) -> str:
        lines = [value["note"]] if value["note"] else []
        lines.append(f"The key of {value['service_name']} waits on the site server.")
        if output is None:
            return "\n".join([*lines, value["request"]])
        lines.append(f"Send {output} to your CA, then: tandem certificate import ANSWER")
        return "\n".join(lines)

    emit(made, text, json)


@app.command()
def order(
    wanted: Wanted,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Until it is issued.")] = True,
    json: Json = False,
) -> None:
    """Ask the ACME authority (once more) for the certificate of a key that waits."""
    made = site_client().post(f"/api/v1/certificates/{wanted}/order")
    emit(_issued(made, json) if wait else made, _ordered, json)


def _issued(made: dict[str, Any], json: bool) -> dict[str, Any]:
    """Once it is. Raises Refused with what the authority said."""
    api, name = site_client(), made["service_name"]
    with progress(f"{name}: ordered", json):
        until = time.monotonic() + _WAIT_SECONDS
        while made["state"] == "waiting" and not made["problem"] and time.monotonic() < until:
            time.sleep(0.3)
            made = api.get(f"/api/v1/certificates/{made['id']}")
    if made["problem"]:
        raise Refused(
            f"The certificate of {name} was not issued: {made['problem']}",
            cure=f"Then: tandem certificate order {name}",
            remote="certificate.acme",
        )
    return made


def _ordered(value: dict[str, Any]) -> str:
    if value["state"] == "waiting":
        return f"The certificate of {value['service_name']} is ordered."
    return _imported(value)


@app.command("import")
def import_(
    file: Annotated[
        Path, typer.Argument(help="The CA's answer (PEM, DER, P7B, bundle), or a PFX.")
    ],
    password_file: PasswordFile = None,
    json: Json = False,
) -> None:
    """Give the certificate to the key that waits for it, or take a PFX made elsewhere."""
    data = _read(file)
    body = {"data": b64encode(data).decode()}
    if file.suffix.lower() in {".pfx", ".p12"}:
        body["password"] = read_secret(password_file, f"Password of {file.name}")
        made = site_client().post("/api/v1/certificates/import-pfx", body)
    else:
        made = site_client().post("/api/v1/certificates/import", body)
    emit(made, _imported, json)


def _imported(value: dict[str, Any]) -> str:
    said = f"{value['service_name']}: certificate of {value['issuer']}, until {value['expires_at']}"
    if value["missing_issuer"]:
        said += (
            f"\nIts path is incomplete: the certificate of {value['missing_issuer']} is missing."
            "\n  → Import that one too."
        )
    return said


@app.command()
def export(
    wanted: Wanted,
    output: Annotated[Path, typer.Option("--output", "-o", help="The PFX file to write.")],
    password_file: PasswordFile = None,
    remove: Annotated[
        bool, typer.Option("--remove", help="Remove the working copy from the site's store.")
    ] = False,
    json: Json = False,
) -> None:
    """Export key, certificate and path as a PFX with a password."""
    password = read_secret(password_file, "Password for the PFX")
    api = site_client()
    found = api.post(f"/api/v1/certificates/{wanted}/export", {"password": password})
    write_private(output, b64decode(found.pop("pfx")))
    found["saved"] = str(output.absolute())
    if remove:
        api.delete(f"/api/v1/certificates/{found['id']}")
        found["removed"] = True
    links = len(found["path"]) + 1
    emit(found, lambda _: f"{output}: key and {links} certificates, under your password.", json)


@app.command("list")
def list_certificates(json: Json = False) -> None:
    """List requests and certificates in the site's store."""
    found = site_client().get("/api/v1/certificates")
    columns = {"service_name": "Service name", "state": "State", "expires_at": "Until", "id": "Id"}
    emit(found, lambda rows: table(rows, columns), json)


@app.command()
def remove(wanted: Wanted, json: Json = False) -> None:
    """Remove a certificate or request from the site's store, its key included."""
    gone = site_client().delete(f"/api/v1/certificates/{wanted}")
    emit(gone, lambda value: f"Removed {value['service_name']} and its key.", json)


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise Refused(
            f"{file} cannot be read: {error.strerror}.", cure="Check the file's name."
        ) from None
