"""A gateway's properties: settings, alerts, content. What is typed stays when it is refused."""

from base64 import b64encode
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from starlette.responses import Response
from starlette.routing import BaseRoute

from tandem.console.areas.gateways.pages import BASE, api_of, named, path_of, tabs
from tandem.console.kit import (
    CHANGED,
    N_,
    Console,
    Draft,
    Field,
    NotSignedIn,
    Page,
    Problem,
    Upload,
    Values,
    drawn,
    field,
    read,
)
from tandem.infra.errors import HTTP_STATUS, AppError

_FORM_BYTES = 1_500_000
STORE, UPLOAD = "store", "upload"


async def stored(page: Page[Any], draft: Draft | None) -> list[tuple[str, str]]:
    """The certificates of the site's own store that a gateway can have."""
    say = page.language.text
    return [
        (
            item["id"],
            say(
                N_("%(name)s, until %(day)s"),
                name=item["service_name"],
                day=page.language.day(datetime.fromisoformat(item["expires_at"])),
            ),
        )
        for item in await page.api.get("/api/v1/certificates")
        if item["state"] == "complete"
    ]


CERTIFICATE = field(
    "certificate",
    N_("Certificate of the site's store"),
    "select",
    options=stored,
    required=True,
    hint=N_("Those whose path is complete. The wizard for gateway certificates puts them there."),
)
PFX = field(
    "pfx",
    N_("Certificate file (PFX)"),
    "file",
    accept=".pfx,.p12",
    required=True,
    hint=N_("With its key and every certificate of the path."),
)
PASSWORD = field("password", N_("Password of the file"), "password", secret=True, required=True)
INSTANCES = field(
    "instances",
    N_("Number of instances"),
    "number",
    least=1,
    most=16,
    required=True,
    default=1,
    hint=N_("1 to 16, as far as the provider has hosts."),
)
DESCRIPTION = field("description", N_("Description"))
REVOCATION = field(
    "check_revocation",
    N_("Verify client certificate revocation"),
    "checkbox",
    default=True,
    hint=N_("Clients with certificates are refused while their authority's list is missing."),
)
TLS = field(
    "tls",
    N_("TLS 1.2 is enforced: no older version is ever spoken, so there is nothing to choose."),
    "note",
)
CONTENT = field("serve_content", N_("Allow the gateway to serve content"), "checkbox", default=True)
ACME = field(
    "acme",
    N_("Renew the certificate by ACME"),
    "checkbox",
    hint=N_("Of the authority in the site's settings, before the certificate ends."),
)
EDGE_ANSWERS = field(
    "edge_answers",
    N_("Answer check-ins without news at the gateway"),
    "checkbox",
    default=True,
    hint=N_(
        "Devices that have their policy already are told so without the site's work, after it has"
        " confirmed that nothing changed."
    ),
)
SETTINGS = (DESCRIPTION, INSTANCES, REVOCATION, TLS, CONTENT, ACME, EDGE_ANSWERS)
ALERTS = (
    field(
        "watch",
        N_("Watch the outbound transfer of 14 days"),
        "checkbox",
        default=True,
        hint=N_("It is what a cloud charges for."),
    ),
    field(
        "outbound_gb",
        N_("Threshold (GB)"),
        "number",
        least=1,
        most=10_000_000,
        required=True,
        default=10_000,
    ),
    field(
        "warning_percent",
        N_("Warning at this percentage of it"),
        "number",
        least=1,
        most=100,
        required=True,
        default=75,
    ),
    field(
        "critical_percent",
        N_("Critical at this percentage of it"),
        "number",
        least=1,
        most=100,
        required=True,
        default=90,
    ),
    field(
        "stop_when_critical",
        N_("Stop the gateway when the critical threshold is exceeded"),
        "checkbox",
        hint=N_("No device on the internet reaches the site then, until you start it again."),
    ),
    field("watch_storage", N_("Watch what the gateway keeps on its disk"), "checkbox"),
    field(
        "storage_gb",
        N_("Storage threshold (GB)"),
        "number",
        least=1,
        most=10_000_000,
        required=True,
        default=10,
    ),
)


def alerts_of(values: Values) -> dict[str, Any]:
    """What the API takes of the alerts' fields."""
    made: dict[str, Any] = {}
    if values.get("watch"):
        made = {
            "outbound_gb": int(values["outbound_gb"]),
            "warning_percent": int(values["warning_percent"]),
            "critical_percent": int(values["critical_percent"]),
            "stop_when_critical": bool(values.get("stop_when_critical")),
        }
    if values.get("watch_storage"):
        made["storage_gb"] = int(values["storage_gb"])
    return made


CRL = field(
    "crl",
    N_("Certificate revocation list"),
    "file",
    accept=".crl,.pem,.der",
    required=True,
    hint=N_("A newer list of the same authority takes the place of the older one."),
)


async def add_crl(page: Page[Any]) -> Response:
    """A list of an authority of clients; every gateway gets it."""
    await page.form(_FORM_BYTES)
    name = named(page)
    upload = page.files.get("crl")
    problem: AppError | None = None
    if upload is None or not upload.name:
        problem = Problem("crl", N_("Choose a file."))
    else:
        try:
            body = {"data": b64encode(upload.data).decode()}
            made = await page.api.post("/api/v1/trust/crls", body)
        except NotSignedIn:
            raise
        except AppError as error:
            problem = error
        else:
            said = N_("The list of %(issuer)s is on its way to every gateway.")
            return page.to(f"{path_of(name)}/settings", said, issuer=made["issuer"])
    answer = await page.api.ask("GET", api_of(name))
    values = {item.name: answer.json.get(item.name, item.initial()) for item in SETTINGS}
    status = 422 if isinstance(problem, Problem) else HTTP_STATUS[problem.kind]
    return await _draw(
        page, "settings", SETTINGS, values, answer.etag, {"crl": problem}, status=status
    )


async def show_settings(page: Page[Any]) -> Response:
    answer = await page.api.ask("GET", api_of(named(page)))
    values = {item.name: answer.json.get(item.name, item.initial()) for item in SETTINGS}
    return await _draw(page, "settings", SETTINGS, values, answer.etag)


async def save_settings(page: Page[Any]) -> Response:
    form = await page.form()
    values, problems = read(SETTINGS, form)
    body = {item.name: values[item.name] for item in SETTINGS if item.kind != "note"}
    return await _save(page, "settings", SETTINGS, values, problems, body, form.get("version", ""))


def _certificate_fields(source: str) -> tuple[Field, ...]:
    return (PFX, PASSWORD) if source == UPLOAD else (CERTIFICATE,)


async def show_certificate(page: Page[Any]) -> Response:
    answer = await page.api.ask("GET", api_of(named(page)))
    return await _draw_certificate(page, answer.json, answer.etag)


async def save_certificate(page: Page[Any]) -> Response:
    form = await page.form(_FORM_BYTES)
    name, version = named(page), form.get("version", "")
    source = UPLOAD if form.get("source") == UPLOAD else STORE
    fields = _certificate_fields(source)
    values, problems = read(fields, form, files=page.files)
    body: dict[str, Any] = {"certificate": values.get("certificate")}
    if source == UPLOAD:
        upload = values["pfx"]
        if isinstance(upload, Upload):
            body = {"data": b64encode(upload.data).decode(), "password": values["password"]}
        else:
            problems["pfx"] = Problem("pfx", N_("Choose a file."))
    general: AppError | None = None
    if not problems:
        try:
            await page.api.patch(api_of(name), body, version=version)
        except NotSignedIn:
            raise
        except AppError as error:
            general, problems = placed(error, fields)
        else:
            said = N_(
                "The certificate of %(name)s was replaced; its instances show it to whoever connects"
                " from now on."
            )
            return page.to(path_of(name), said, name=name)
    answer = await page.api.ask("GET", api_of(name))
    return await _draw_certificate(
        page, answer.json, answer.etag, source, values, problems, general
    )


async def _draw_certificate(
    page: Page[Any],
    gateway: Mapping[str, Any],
    version: str,
    source: str = "",
    values: Values | None = None,
    problems: Mapping[str, AppError] | None = None,
    general: AppError | None = None,
) -> Response:
    name = named(page)
    status = 200 if not problems else 422
    if general is not None:
        status = 412 if general.code == CHANGED else HTTP_STATUS[general.kind]
    drawings = {
        one: await drawn(
            page,
            _certificate_fields(one),
            values or {} if one == source else {},
            problems or {} if one == source else {},
        )
        for one in (STORE, UPLOAD)
    }
    return page.render(
        "gateways/certificate.html",
        status,
        name=name,
        tabs=tabs(name, "certificate"),
        expires_at=gateway["expires_at"],
        fields=drawings,
        etag=version,
        general=general,
    )


async def show_alerts(page: Page[Any]) -> Response:
    answer = await page.api.ask("GET", api_of(named(page)))
    known = {key: value for key, value in answer.json["alerts"].items() if value is not None}
    values: Values = {item.name: known.get(item.name, item.initial()) for item in ALERTS}
    values["watch"] = "outbound_gb" in known
    values["watch_storage"] = "storage_gb" in known
    return await _draw(page, "alerts", ALERTS, values, answer.etag)


async def save_alerts(page: Page[Any]) -> Response:
    form = await page.form()
    values, problems = read(ALERTS, form)
    body = {} if problems else {"alerts": alerts_of(values)}
    return await _save(page, "alerts", ALERTS, values, problems, body, form.get("version", ""))


async def _save(
    page: Page[Any],
    tab: str,
    fields: tuple[Field, ...],
    values: Values,
    problems: dict[str, AppError],
    body: dict[str, Any],
    version: str,
) -> Response:
    name = named(page)
    general: AppError | None = None
    if not problems:
        try:
            await page.api.patch(api_of(name), body, version=version)
        except NotSignedIn:
            raise
        except AppError as error:
            general, problems = placed(error, fields)
            if error.code == CHANGED:
                # What was typed stays; sent again, it is of what the others made of it.
                version = (await page.api.ask("GET", api_of(name))).etag
        else:
            return page.to(f"{path_of(name)}/{tab}", N_("%(name)s was changed."), name=name)
    status = 422
    if general is not None:
        status = 412 if general.code == CHANGED else HTTP_STATUS[general.kind]
    return await _draw(page, tab, fields, values, version, problems, general, status)


# Refusals that name no field of the form, by their code: the first of these fields that is there.
_OF_CERTIFICATE = ("pfx", "certificate")
_FIELDS: dict[str, tuple[str, ...]] = {
    "pki.wrong-password": ("password",),
    "pki.bad-pfx": _OF_CERTIFICATE,
    "certificate.unusable": _OF_CERTIFICATE,
    "certificate.incomplete-path": _OF_CERTIFICATE,
    "certificate.not-found": _OF_CERTIFICATE,
    "gateway.invalid": ("pfx", "certificate", "service_name"),
    "gateway.exists": ("pfx", "certificate", "service_name"),
    "gateway.bad-name": ("service_name", "pfx", "certificate"),
}


def placed(
    error: AppError, fields: tuple[Field, ...]
) -> tuple[AppError | None, dict[str, AppError]]:
    """A refusal of the API at its field, or above the form."""
    known = {item.name for item in fields}
    asked = (str(error.details.get("field", "")), *_FIELDS.get(error.code, ()))
    at = next((name for name in asked if name in known), "")
    return (None, {at: error}) if at else (error, {})


async def _draw(
    page: Page[Any],
    tab: str,
    fields: tuple[Field, ...],
    values: Values,
    version: str,
    problems: Mapping[str, AppError] | None = None,
    general: AppError | None = None,
    status: int = 200,
) -> Response:
    name = named(page)
    return page.render(
        "gateways/form.html",
        status,
        name=name,
        url=path_of(name),
        tab=tab,
        tabs=tabs(name, tab),
        fields=await drawn(page, fields, values, problems or {}),
        etag=version,
        general=general,
        trust=await page.api.get("/api/v1/trust") if tab == "settings" else None,
        crl=await drawn(page, (CRL,), {}, problems or {}) if tab == "settings" else (),
    )


def routes(console: Console[Any]) -> list[BaseRoute]:
    one = f"{BASE}/{{name}}"
    return [
        console.route(f"{one}/settings", show_settings),
        console.route(f"{one}/settings", save_settings, post=True),
        console.route(f"{one}/revocation-list", add_crl, post=True),
        console.route(f"{one}/certificate", show_certificate),
        console.route(f"{one}/certificate", save_certificate, post=True),
        console.route(f"{one}/alerts", show_alerts),
        console.route(f"{one}/alerts", save_alerts, post=True),
    ]
