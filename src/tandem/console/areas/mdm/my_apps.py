"""What the signed-in user may have on their own devices."""

from typing import Any

from starlette.responses import Response

from tandem.console.areas.mdm import words
from tandem.console.kit import N_, ROOT, Page

BASE = f"{ROOT}/my-apps"
_API = "/v1.0/tandem/myApps"
COLUMNS = (
    ("", N_("Name")),
    ("", N_("Publisher")),
    ("", N_("Version")),
    ("", N_("State of the app")),
    ("", N_("What to do")),
    ("", ""),
)


async def index(page: Page[Any]) -> Response:
    found = await page.api.get(_API)
    return page.render(
        "mdm/my_apps.html", devices=found["value"], columns=COLUMNS, words=words, base=BASE
    )


async def choose(page: Page[Any]) -> Response:
    """Have an app installed, or take that back."""
    form = await page.form()
    asks = page.request.url.path.endswith("/request")
    body = {"deviceId": form.get("device", ""), "mobileAppId": form.get("app", "")}
    await page.api.post(f"{_API}/{'request' if asks else 'withdraw'}", body)
    said = (
        N_("The app is installed at the device's next check-in.")
        if asks
        else N_("The app is not installed any more where it is not there yet.")
    )
    return page.to(BASE, said)
