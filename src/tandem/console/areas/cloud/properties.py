"""Site properties, the tab Communication Security (spec 2.4)."""

from base64 import b64encode
from collections.abc import Mapping
from typing import Any

from starlette.responses import Response
from starlette.routing import BaseRoute

from tandem.console.kit import (
    N_,
    ROOT,
    Console,
    Notice,
    Page,
    Place,
    Problem,
    Upload,
    drawn,
    field,
    read,
)
from tandem.infra.errors import AppError

PATH = f"{ROOT}/site-properties"
API = "/api/v1/site/properties"
PLACE = Place(PATH, N_("Site properties"), "settings", N_("Administration"))
REFRESH_SECONDS = 2

_FIELDS = (
    field(
        "site_systems",
        N_("Site system settings"),
        "radio",
        options=(
            (
                "https-only",
                N_("HTTPS only"),
                N_(
                    "Needs a certificate of your own PKI on the management point: not in this version."
                ),
            ),
            (
                "https-or-http",
                N_("HTTPS or HTTP"),
                N_("With enhanced HTTP every site system answers HTTPS, too."),
            ),
        ),
        default="https-or-http",
    ),
    field(
        "enhanced_http",
        N_("Use site-generated certificates for HTTP site systems (enhanced HTTP)"),
        "checkbox",
        hint=N_("Without it the management point answers nobody, and no gateway can be used."),
    ),
    field(
        "pki_client_certificate",
        N_("Use PKI client certificate when available"),
        "checkbox",
        hint=N_("Gateways let clients in by a certificate of a trusted root, besides tokens."),
    ),
    field(
        "check_crl",
        N_("Clients check the certificate revocation list (CRL) for site systems"),
        "checkbox",
        hint=N_(
            "Kept, but without effect in this version: the site's own certificates name no"
            " revocation list."
        ),
    ),
)
_ROOT = (
    field(
        "root",
        N_("Certificates of the authority (PEM, DER or P7B)"),
        "file",
        accept=".cer,.crt,.pem,.p7b,.der",
    ),
)
POINT = {
    "answers": ("good", N_("The management point answers with its certificate.")),
    "waits": ("waiting", N_("Waiting until the management point has its certificate…")),
    "closed": ("bad", N_("The management point has no certificate and answers nobody.")),
}


async def _show(
    page: Page[Any],
    status: int = 200,
    *,
    values: Mapping[str, Any] | None = None,
    problems: Mapping[str, AppError] | None = None,
    wrong_root: AppError | None = None,
) -> Response:
    answer = await page.api.ask("GET", API)
    found = answer.json
    problems = problems or {}
    return page.render(
        "cloud/properties.html",
        status,
        found=found,
        version_of=answer.etag,
        fields=await drawn(page, _FIELDS, values or found, problems),
        root_fields=await drawn(page, _ROOT, {}, {"root": wrong_root} if wrong_root else {}),
        general=problems.get(""),
        point=POINT,
        path_of=PATH,
        refresh_seconds=REFRESH_SECONDS,
    )


async def _point(page: Page[Any]) -> Response:
    """What is fetched again until the management point has its certificate."""
    found = await page.api.get(API)
    return page.render(
        "cloud/_point.html", found=found, point=POINT, path_of=PATH, refresh_seconds=REFRESH_SECONDS
    )


async def _save(page: Page[Any]) -> Response:
    form = await page.form()
    values, problems = read(_FIELDS, form)
    if problems:
        return await _show(page, 422, values=values, problems=problems)
    before = await page.api.get(API)
    if before["enhanced_http"] and not values["enhanced_http"] and "confirmed" not in form:
        _ = page.language.text
        kept = {name: str(form[name]) for name in form if name != "confirmed"}
        return page.confirm(
            _(N_("Switch enhanced HTTP off")),
            _(
                N_(
                    "The certificate of the management point is taken away, and it closes: no client"
                    " of this site gets policy, and none registers, until it is on again."
                )
            ),
            _(N_("Switch off")),
            back=PATH,
            fields=kept,
        )
    try:
        await page.api.patch(API, values, version=form.get("version", ""))
    except AppError as error:
        at = str(error.details.get("field", ""))
        wrong = {at if any(item.name == at for item in _FIELDS) else "": error}
        return await _show(page, 409, values=values, problems=wrong)
    return page.to(PATH, N_("The changes were saved."))


async def _add_root(page: Page[Any]) -> Response:
    await page.form(1_000_000)
    upload = page.files.get("root")
    if not isinstance(upload, Upload) or not upload.data:
        return await _show(page, 422, wrong_root=Problem("root", N_("Choose a file.")))
    try:
        body = {"data": b64encode(upload.data).decode()}
        made = await page.api.post("/api/v1/trust/roots", body)
    except AppError as error:
        return await _show(page, 422, wrong_root=error)
    return page.to(PATH, N_("Trusted: %(subjects)s"), subjects="; ".join(made["added"]))


async def _remove_root(page: Page[Any]) -> Response:
    form = await page.form()
    id = page.request.path_params["root_id"]
    found = await page.api.get(API)
    subject = next((r["subject"] for r in found["trusted_roots"] if str(r["id"]) == str(id)), "")
    if subject and "confirmed" not in form:
        _ = page.language.text
        return page.confirm(
            _(N_("Remove a trusted root")),
            _(
                N_(
                    "Clients whose certificates chain to %(subject)s are not let in through gateways"
                    " any more."
                ),
                subject=subject,
            ),
            _(N_("Remove")),
            back=PATH,
        )
    await page.api.delete(f"/api/v1/trust/roots/{id}")
    return page.to(PATH, N_("%(subject)s is not trusted any more."), subject=subject)


def routes(console: Console[Any]) -> list[BaseRoute]:
    return [
        console.route(PATH, _show),
        console.route(PATH, _save, post=True),
        console.route(f"{PATH}/management-point", _point),
        console.route(f"{PATH}/roots", _add_root, post=True),
        console.route(f"{PATH}/roots/{{root_id:int}}/remove", _remove_root, post=True),
    ]


async def notices(page: Page[Any]) -> list[Notice]:
    """Enhanced HTTP that was switched on, until the management point has its certificate."""
    found = await page.api.get(API)
    if found["management_point"]["state"] == "answers":
        return []
    kind, said = POINT[found["management_point"]["state"]]
    return [Notice(title=said, state=kind, url=PATH)]
