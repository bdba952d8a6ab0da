"""The co-management dashboard: tiles whose numbers lead to the devices that they count."""

from typing import Any

from starlette.responses import Response

from tandem.console.areas.fleet import words
from tandem.console.kit import N_, ROOT, Notice, Page

REFRESH_SECONDS = 5
# Where the tenant's console assigns licences.
LICENCES = f"{ROOT}/wizards/assign-licence"


async def show(page: Page[Any]) -> Response:
    if page.session.role.endswith("(limited)"):
        # These numbers are the whole fleet's; who is limited begins with the devices they see.
        return page.to(f"{ROOT}/devices")
    figures = await page.api.get("/api/v1/comanagement/dashboard")
    together = figures["stages"]["co-managed"]
    tenant = await page.other()
    positions = figures["positions"]
    workloads = [
        (name, positions.get(name, "site"), together - with_mdm, with_mdm)
        for name, with_mdm in figures["workloads"].items()
    ]
    return page.render(
        "fleet/dashboard.html",
        shown=figures,
        workloads=workloads,
        errors=[(int(code), count) for code, count in figures["errors"].items()],
        failures=sum(
            figures["enrollment"][state] for state in ("failure-hybrid", "failure-joined")
        ),
        words=words,
        licences=f"{tenant.url}{LICENCES}" if tenant else "",
        refresh_seconds=REFRESH_SECONDS,
    )


async def notices(page: Page[Any]) -> list[Notice]:
    figures = await page.api.get("/api/v1/comanagement/dashboard")
    found = []
    if figures["unlicensed_users"]:
        found.append(
            Notice(
                title=N_("Users of co-managed devices without licence: %(number)s"),
                values={"number": figures["unlicensed_users"]},
                state="bad",
                url=f"{ROOT}/devices?unlicensed=1",
            )
        )
    if figures["without_tenant"] and figures["tenant_read_at"]:
        found.append(
            Notice(
                title=N_("What the tenant knows is not up to date"),
                text=figures["without_tenant"],
                state="bad",
                url=f"{ROOT}/devices",
            )
        )
    return found
