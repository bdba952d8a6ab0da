"""How certificates of devices are issued and renewed: the profile, as a form."""

from collections.abc import Mapping
from typing import Any

from starlette.responses import Response

from tandem.console.kit import N_, ROOT, Fact, Field, Page, Values, drawn, field, read
from tandem.infra.errors import AppError, Kind

BASE = f"{ROOT}/certificate-profile"
_API = "/v1.0/tandem/deviceCertificateProfile"
_PLATFORM = "Microsoft Platform Crypto Provider"
_SOFTWARE = "Microsoft Software Key Storage Provider"
# What is chosen, and the providers in the order in which a device tries them.
PROVIDERS = {
    "platform-first": (_PLATFORM, _SOFTWARE),
    "platform": (_PLATFORM,),
    "software-first": (_SOFTWARE, _PLATFORM),
    "software": (_SOFTWARE,),
}
FIELDS: tuple[Field, ...] = (
    field(
        "validityDays",
        N_("Days that a certificate is valid"),
        "number",
        required=True,
        least=1,
        most=3650,
    ),
    field(
        "renewalDays",
        N_("Days before its end in which devices renew it"),
        "number",
        required=True,
        least=1,
        most=1000,
        hint=N_(
            "Fewer than it is valid. A device that is away for all of them has to enrol again."
        ),
    ),
    field(
        "retryDays",
        N_("Days between attempts to renew"),
        "number",
        required=True,
        least=1,
        most=1000,
    ),
    field(
        "keyBits",
        N_("Size of the key in bits"),
        "select",
        required=True,
        options=(("2048", "2048"), ("3072", "3072"), ("4096", "4096")),
        hint=N_("A TPM makes keys of 2048 bits; larger ones may be refused by it."),
    ),
    field(
        "keyProviders",
        N_("Where the key is kept"),
        "radio",
        required=True,
        options=(
            ("platform-first", N_("In the TPM, else in software")),
            ("platform", N_("In the TPM only"), N_("Devices without one cannot enrol.")),
            ("software-first", N_("In software, else in the TPM")),
            ("software", N_("In software only")),
        ),
    ),
)


async def show(page: Page[Any]) -> Response:
    """The profile; saving changes what is different for certificates from then on."""
    found = await page.api.get(_API)
    values = _values(found)
    problems: dict[str, AppError] = {}
    general: AppError | None = None
    status = 200
    if page.request.method == "POST":
        values, problems = read(FIELDS, await page.form(), page.form_lists)
        status = 422
        if not problems:
            try:
                await page.api.patch(_API, _body(values))
                said = N_("The profile was saved. It counts for certificates from now on.")
                return page.to(BASE, said)
            except AppError as error:
                if error.kind is not Kind.INVALID:
                    raise
                at = str(error.details.get("field", ""))
                if any(item.name == at for item in FIELDS):
                    problems = {at: error}
                else:
                    general = error
    return page.render(
        "mdm/certificate_profile.html",
        status,
        fields=await drawn(page, FIELDS, values, problems),
        general=general,
        facts=[
            Fact(N_("Subject"), page.language.text(N_("CN = the device's id in the MDM service"))),
            Fact(N_("Purpose"), page.language.text(N_("Authentication of a client"))),
            Fact(N_("Revocation list"), found["revocationListUrl"]),
        ],
        base=BASE,
    )


def _values(found: Mapping[str, Any]) -> Values:
    kept = tuple(found["keyProviders"])
    chosen = next((name for name, providers in PROVIDERS.items() if providers == kept), "")
    return {**found, "keyBits": str(found["keyBits"]), "keyProviders": chosen}


def _body(values: Mapping[str, Any]) -> dict[str, Any]:
    return {
        **{item.name: values[item.name] for item in FIELDS},
        "keyBits": int(values["keyBits"]),
        "keyProviders": list(PROVIDERS[values["keyProviders"]]),
    }
