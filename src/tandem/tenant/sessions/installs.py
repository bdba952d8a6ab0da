"""Apps in a session: what a device is to install and uninstall, and what it says of it.

Get …/MSI/{code}/Status, LastError   →  of what is being installed, when a session begins
Add, Exec …/DownloadInstall          →  in one message and in this order (section 12.3)
Alert …win32csp_install              ←  how it ended, in a later session
"""

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from hashlib import sha256
from xml.sax.saxutils import escape, quoteattr

from tandem.infra.clock import Clock
from tandem.infra.database import Tx
from tandem.protocols import syncml
from tandem.protocols.syncml import Item
from tandem.tenant import mobile_apps
from tandem.tenant.assignments import Membership
from tandem.tenant.enrollment import Device, Enrollment
from tandem.tenant.mobile_apps import App, Content, Status
from tandem.tenant.sessions.model import Order, Sent

MSI = "./Device/Vendor/MSFT/EnterpriseDesktopAppManagement/MSI"
MSI_ALERT = "win32csp_install"
KINDS = ("install-add", "install", "uninstall")
RETRY_INSTALL = timedelta(hours=24)
# A restart that is still to come does not make an installation a failure.
_GOOD = {0, 3010, 1641}


# ---------------------------------------------------------------------- decisions


def encoded(product_code: str) -> str:
    return product_code.upper().replace("{", "%7B").replace("}", "%7D")


def questions(product_codes: Iterable[str]) -> list[Order]:
    """How installations go on the device."""
    uris = [
        f"{MSI}/{encoded(code)}/{leaf}"
        for code in product_codes
        for leaf in ("Status", "LastError")
    ]
    return [Order(Sent("ask", uri), "Get", Item(target=uri)) for uri in uris]


def installs(
    apps: Iterable[App],
    statuses: Mapping[str, Status],
    link: Mapping[str, str],
    now: datetime,
) -> list[Order]:
    """Add and Exec for each app that the device is to have and was not told of yet.

    A failed one is tried again when its content or command line changed, or a day later: not
    in every session.
    """
    orders: list[Order] = []
    for app in apps:
        known = statuses.get(app.id)
        if known is not None and known.sha256 == fingerprint(app) and not _again(known, now):
            continue
        uri = f"{MSI}/{encoded(app.product_code)}/DownloadInstall"
        orders.append(Order(Sent("install-add", app.id), "Add", Item(target=uri)))
        job = install_job(app, link[app.id])
        exec_item = Item(target=uri, data=job, format="xml", type="text/plain")
        orders.append(Order(Sent("install", app.id, fingerprint(app)), "Exec", exec_item))
    return orders


def uninstalls(apps: Iterable[App], statuses: Mapping[str, Status], now: datetime) -> list[Order]:
    """Delete for each app that the device had from here and is to lose (section 12.3).

    A device that refused is asked again a day later.
    """
    orders = []
    for app in apps:
        known = statuses.get(app.id)
        if known is None or known.state not in ("installed", "uninstallFailed"):
            continue
        if known.state == "uninstallFailed" and now - known.at < RETRY_INSTALL:
            continue
        item = Item(target=f"{MSI}/{encoded(app.product_code)}")
        orders.append(Order(Sent("uninstall", app.id), "Delete", item))
    return orders


def _again(known: Status, now: datetime) -> bool:
    if known.state == "failed":
        return now - known.at >= RETRY_INSTALL
    return known.state == "offered"


def fingerprint(app: App) -> str:
    return sha256(f"{app.sha256}\n{app.command_line}".encode()).hexdigest()


def install_job(app: App, url: str) -> str:
    """MsiInstallJob (section 12.3)."""
    line = f"/quiet {app.command_line}".strip()
    return (
        f"<MsiInstallJob id={quoteattr(app.product_code)}><Product"
        f" Version={quoteattr(app.product_version)}><Download><ContentURLList><ContentURL>"
        f"{escape(url)}</ContentURL></ContentURLList></Download><Validation><FileHash>"
        f"{app.sha256.upper()}</FileHash></Validation><Enforcement><CommandLine>"
        f"{escape(line)}</CommandLine><TimeOut>10</TimeOut><RetryCount>3</RetryCount>"
        "<RetryInterval>5</RetryInterval></Enforcement></Product></MsiInstallJob>"
    )


def install_state(status: int) -> str:
    """Of a download and install on the device, by the CSP's Status (section 12.3)."""
    if status == 70:
        return "installed"
    return "failed" if status in {30, 60} else "installing"


# ---------------------------------------------------------------------- in a session


class Installs:
    """The apps of a device: questions, orders, and what it answers."""

    def __init__(self, enrollment: Enrollment, content: Content, now: Clock) -> None:
        self._enrollment = enrollment
        self._content = content
        self._now = now

    async def questions(self, tx: Tx, device: Device) -> list[Order]:
        statuses = await mobile_apps.statuses(tx, device_id=device.id)
        running = [
            (await mobile_apps.app(tx, item.app_id)).product_code
            for item in statuses
            if item.state == "installing"
        ]
        return questions(running)

    async def orders(self, tx: Tx, device: Device, groups: Membership) -> tuple[list[Order], bool]:
        """What is to do, and whether something is awaited or tried again by the clock."""
        statuses = {
            item.app_id: item for item in await mobile_apps.statuses(tx, device_id=device.id)
        }
        apps = await mobile_apps.required(tx, groups)
        losing = await mobile_apps.unwanted(tx, groups)
        links = {app.id: self._content.link(app, self._now()) for app in apps}
        found = [
            *uninstalls(losing, statuses, self._now()),
            *installs(apps, statuses, links, self._now()),
        ]
        return found, any(item.state != "installed" for item in statuses.values())

    async def status(
        self, tx: Tx, device: Device, what: Sent, status: syncml.Status, told: str
    ) -> None:
        """The device's Status for one of KINDS. `told` is it in words."""
        if what.kind == "install-add":
            return
        try:
            app = await mobile_apps.app(tx, what.subject)
        except mobile_apps.NoSuchApp:
            return  # It was deleted since: nobody asks what became of it.
        if what.kind == "uninstall":
            await self._uninstalled(tx, device, app, status, told)
            return
        good = 200 <= status.code < 300
        state = "installing" if good else "failed"
        # A new device may not know the node yet (section 12.3): offered again next time.
        state = "offered" if status.code == 404 else state
        code = 0 if good else status.code
        await mobile_apps.save_status(tx, app.id, device.id, state, code, what.value, self._now())
        text = f"{app.name}: installation {'began' if good else f'was refused ({told})'}"
        await self._enrollment.note(tx, device, "app", text)

    async def _uninstalled(
        self, tx: Tx, device: Device, app: App, status: syncml.Status, told: str
    ) -> None:
        if 200 <= status.code < 300 or status.code == 404:
            await mobile_apps.forget_status(tx, app.id, device.id)
            await self._enrollment.note(tx, device, "app", f"{app.name}: uninstalled")
            return
        await mobile_apps.save_status(
            tx, app.id, device.id, "uninstallFailed", status.code, fingerprint(app), self._now()
        )
        text = f"{app.name}: uninstalling was refused ({told})"
        await self._enrollment.note(tx, device, "app", text)

    async def answers(self, tx: Tx, device: Device, answers: Mapping[str, str]) -> None:
        """What it answers to questions, by the nodes as `syncml.normal` writes them."""
        if not any(uri.startswith(syncml.normal(MSI)) for uri in answers):
            return
        for app in await mobile_apps.apps(tx):
            node = syncml.normal(f"{MSI}/{app.product_code}")
            status = syncml.whole(answers.get(f"{node}/status"))
            if status is not None:
                state = install_state(status)
                error = syncml.whole(answers.get(f"{node}/lasterror")) or 0
                await self._became(tx, device, app, state, error if state == "failed" else 0)

    async def alert(self, tx: Tx, device: Device, item: Item) -> None:
        """MSI_ALERT: how an installation ended."""
        code = syncml.whole(item.data)
        if code is None:
            return  # How it ended is asked for at the next session.
        uri = syncml.normal(item.source or item.target)
        for app in await mobile_apps.apps(tx):
            if app.product_code and app.product_code.lower() in uri:
                good = code in _GOOD
                await self._became(
                    tx, device, app, "installed" if good else "failed", 0 if good else code
                )

    async def _became(self, tx: Tx, device: Device, app: App, state: str, code: int) -> None:
        known = await mobile_apps.statuses(tx, app_id=app.id, device_id=device.id)
        if known and known[0].state == state and known[0].code == code:
            return
        await mobile_apps.save_status(
            tx, app.id, device.id, state, code, fingerprint(app), self._now()
        )
        text = f"{app.name}: {state}"
        await self._enrollment.note(
            tx, device, "app", text, f"0x{code & 0xFFFFFFFF:08x}" if code else ""
        )
