"""Certificates and secrets: what ends when, who holds it, and its renewal where that is possible."""

from datetime import UTC
from typing import Any
from urllib.parse import quote

from starlette.responses import Response
from starlette.routing import BaseRoute

from tandem.console.areas.cloud import certificates, services
from tandem.console.kit import N_, ROOT, Console, Notice, Page, Place, start_url
from tandem.console.pages import moment
from tandem.infra.errors import AppError

PATH = f"{ROOT}/expirations"
API = "/api/v1/expirations"
PLACE = Place(PATH, N_("Certificates and secrets"), "calendar", N_("Administration"))
LEVEL = {
    "expired": ("bad", N_("Expired")),
    "7": ("bad", N_("Within 7 days")),
    "30": ("waiting", N_("Within 30 days")),
    "60": ("waiting", N_("Within 60 days")),
    "ok": ("good", N_("Later")),
}
KIND = {"certificate": N_("Certificate"), "secret": N_("Secret")}
# What the API calls a holder; other holders are names of Azure services.
HOLDER = {
    "connection point": N_("Connection point"),
    "gateway": N_("Gateway"),
    "site": N_("Site"),
    "site system": N_("Site system"),
    "trusted root": N_("Trusted root"),
    "working copy": N_("Working copy on the site server"),
}
ROLE = {
    "issuing-root": N_("Issuing root of the site"),
    "site-server-signing": N_("Site server signing"),
    "site-systems": N_("Site systems (management point)"),
    "admin-service": N_("Console and admin API"),
}


def _where(item: dict[str, Any]) -> str:
    """The page that the row leads to."""
    pages = {
        "copy": f"{certificates.PATH}/{item['of']}",
        "secret": f"{services.PATH}/{item['of']}/applications",
        "gateway": f"{ROOT}/gateways",
        "root": f"{ROOT}/site-properties",
    }
    return pages.get(item["id"].partition(":")[0], "")


def _renewal(item: dict[str, Any]) -> str:
    """The wizard that renews it; empty when none does."""
    if item["renewal"] == "sign-in":
        return start_url(services.RENEW, service=item["of"])
    if item["renewal"] == "request":
        prefix, _, domain = item["subject"].partition(".")
        return start_url(certificates.KEY, prefix=prefix, domain=domain)
    return ""


async def _show(page: Page[Any], status: int = 200, error: AppError | None = None) -> Response:
    found = await page.api.get(API)
    return page.render(
        "cloud/expirations.html",
        status,
        rows=[(item, _where(item), _renewal(item)) for item in found],
        soon=[item for item in found if item["level"] != "ok"],
        level=LEVEL,
        kind=KIND,
        holder=HOLDER,
        role=ROLE,
        path_of=PATH,
        error=error,
    )


async def _renew(page: Page[Any]) -> Response:
    form = await page.form()
    try:
        made = await page.api.post(f"{API}/renew", {"id": form.get("id", "")})
    except AppError as error:
        return await _show(page, 409, error)
    return page.to(PATH, N_("%(subject)s has a new certificate."), subject=made["subject"])


def routes(console: Console[Any]) -> list[BaseRoute]:
    return [console.route(PATH, _show), console.route(f"{PATH}/renew", _renew, post=True)]


async def notices(page: Page[Any]) -> list[Notice]:
    """What ends within 60 days, or has ended."""
    found = await page.api.get(API)
    return [
        Notice(
            title=N_("Has expired: %(subject)s (%(holder)s)")
            if item["level"] == "expired"
            else N_("Expires on %(day)s: %(subject)s (%(holder)s)"),
            values={
                "subject": page.language.text(ROLE.get(item["subject"], item["subject"])),
                "holder": page.language.text(HOLDER.get(item["holder"], item["holder"])),
                "day": page.language.day(at.astimezone(UTC).date()) if at else "",
            },
            state="bad" if item["level"] in ("expired", "7") else "waiting",
            url=f"{PATH}#{quote(item['id'])}",
        )
        for item in found
        if item["level"] != "ok"
        for at in [moment(item["expires_at"])]
    ]
