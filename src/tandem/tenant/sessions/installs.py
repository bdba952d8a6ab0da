"""Apps in a session: what a device is to install and uninstall, and what it says of it.

    Get …/MSI                            →  with the inventory: what is there still
    Get …/MSI/{code}/Status, LastError   →  of what is being installed, when a session begins
    Get …/MSI/{code}/Version             →  before a first installation: what is there is not
                                            installed again
    Add, Exec …/DownloadInstall          →  in one message and in this order (section 12.3)
    Alert …win32csp_install              ←  how it ended, in a later session

Nothing is decided from what a device said before it enrolled: its statuses go with its enrollment.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Literal
from urllib.parse import unquote
from xml.sax.saxutils import escape, quoteattr

from tandem.infra.clock import Clock
from tandem.infra.database import Tx
from tandem.protocols import syncml
from tandem.protocols.syncml import Item
from tandem.tenant import mobile_apps
from tandem.tenant.assignments import Membership
from tandem.tenant.enrollment import Device, Enrollment
from tandem.tenant.mobile_apps import (
    App,
    Choice,
    Chosen,
    Content,
    Meant,
    Status,
    Uninstall,
    intents,
    outcomes,
)
from tandem.tenant.sessions.model import Order, Sent
from tandem.workloads import Authority, Workload, owner_of

MSI = "./Device/Vendor/MSFT/EnterpriseDesktopAppManagement/MSI"
USER_MSI = "./User/Vendor/MSFT/EnterpriseDesktopAppManagement/MSI"
MSI_ALERT = "win32csp_install"
KINDS = ("install-add", "install", "uninstall", "repair")
DAY = timedelta(days=1)
# A new device may not know the node in its first sessions (section 12.3): so often it is asked in
# each of them.
_OFFERS = 3
# How long an installation may be unknown to the device that began it.
_LOST = timedelta(hours=1)
# A restart that is still to come does not make an installation a failure.
_GOOD = {0, 3010, 1641}
# States of the client's set-up that are failures (comanagement, 3.2), and how long set-up is left
# to help itself. A client that was reinstalled is given more time each time.
_SETUP_FAILED = (range(300, 400), range(601, 700))
_HELPS_ITSELF = timedelta(hours=1)
_REPAIRS = (timedelta(0), timedelta(hours=4), DAY)
_REPAIRS_COUNT = timedelta(days=7)


# ---------------------------------------------------------------------- decisions


def encoded(product_code: str) -> str:
    return product_code.upper().replace("{", "%7B").replace("}", "%7D")


def node(app: App) -> str:
    """Of an app's product: under ./User for one that installs for a user."""
    return f"{USER_MSI if app.for_user else MSI}/{encoded(app.product_code)}"


def looks(app: App) -> list[str]:
    """The nodes that tell whether it is there already."""
    found = [f"{node(app)}/Version"]
    if app.any_version and app.upgrade_code:
        # A product that updates itself has another product code then.
        found.append(_related(app))
    return found


def _related(app: App) -> str:
    return f"{USER_MSI if app.for_user else MSI}/UpgradeCode/{encoded(app.upgrade_code)}"


@dataclass(frozen=True, slots=True)
class Step:
    """What comes next for an app on a device. `why`: the uninstall, or what is broken."""

    do: Literal["look", "install", "uninstall", "repair"]
    app: App
    why: str = ""


def withheld(app: App, flags: int | None) -> bool:
    """Whether the site has the say about apps on this device. Its own client is exempt: without
    it nobody there would have a say."""
    if flags is None or app.brings_client:
        return False
    return owner_of(Workload.CLIENT_APPS, flags) is Authority.SITE


def steps(
    meant: Iterable[Meant],
    statuses: Mapping[str, Status],
    choices: Mapping[str, Chosen],
    device: Device,
    looked: Collection[str],
    now: datetime,
    *,
    user_signed_in: bool = False,
) -> list[Step]:
    """What comes next, removals first. `looked`: the nodes that this session has asked for."""
    removals: list[Step] = []
    rest: list[Step] = []
    for one in meant:
        app, resolved = one.app, one.explained.resolved
        if withheld(app, device.flags) or (app.for_user and not user_signed_in):
            continue
        chosen = choices.get(app.id)
        choice = chosen.choice if chosen is not None else Choice()
        known = statuses.get(app.id)
        match intents.wanted(resolved, choice):
            case "remove" if known is not None and _goes(known, now):
                removals.append(Step("uninstall", app, resolved.uninstall.value))
            case "install":
                step = _toward(app, known, device, looked, now)
                if step is not None:
                    rest.append(step)
    return [*removals, *rest]


def _goes(known: Status, now: datetime) -> bool:
    """Whether it came from here and is to be uninstalled now; who refused is asked a day later."""
    if known.found:
        return False
    if known.state == "uninstallFailed":
        return now - known.at >= DAY
    return known.state == "installed"


def _toward(
    app: App, known: Status | None, device: Device, looked: Collection[str], now: datetime
) -> Step | None:
    same = known is not None and known.sha256 == fingerprint(app)
    if known is not None and same and not _again(known, now):
        why = broken(app, known, device, now)
        return Step("repair", app, why) if why and _may_repair(known, now) else None
    if (known is None or (same and known.state == "failed")) and any(
        uri not in looked for uri in looks(app)
    ):
        return Step("look", app)
    return Step("install", app)


def _again(known: Status, now: datetime) -> bool:
    """A failed one is tried again a day later, or sooner when its code says that this helps."""
    if known.state == "failed":
        found = outcomes.outcome(known.code)
        return now - known.at >= (found.after if found is not None else DAY)
    if known.state == "offered":
        return known.attempts < _OFFERS or now - known.at >= DAY
    return known.state == "uninstallFailed"


def broken(app: App, known: Status, device: Device, now: datetime) -> str:
    """What is wrong with the client that an app has brought; empty for one that is well, and for
    any other app. That its MSI is installed says nothing of it."""
    if not app.brings_client or known.state != "installed":
        return ""
    said_at = device.config_info_at
    news = said_at is not None and said_at > known.at
    since = said_at if said_at is not None and news else known.at
    agent = device.agent
    if agent is None:
        if news:
            return "The site's client is gone"
        return "The site's client has not said anything for a day" if now - since >= DAY else ""
    if agent.client or not any(agent.setup in failed for failed in _SETUP_FAILED):
        return ""
    if now - since >= (_HELPS_ITSELF if news else DAY):
        return f"The client's setup failed in state {agent.setup}"
    return ""


def _may_repair(known: Status, now: datetime) -> bool:
    """Not in every session: later each time, until the client has been well for a week."""
    if known.repaired_at is None:
        return True
    ago = now - known.repaired_at
    return ago >= _REPAIRS[min(known.repairs, len(_REPAIRS) - 1)]


def restless(meant: Iterable[Meant], statuses: Mapping[str, Status], device: Device) -> bool:
    """Whether more may be to do though nothing is changed: something is awaited or tried again."""
    for one in meant:
        known = statuses.get(one.app.id)
        if known is None:
            continue
        if known.state != "installed":
            return True
        if one.app.brings_client and (device.agent is None or not device.agent.client):
            return True
    return False


def fingerprint(app: App) -> str:
    return sha256(f"{app.sha256}\n{app.command_line}".encode()).hexdigest()


def install_job(app: App, url: str) -> str:
    """MsiInstallJob (section 12.3): its elements in the order of its schema."""
    line = f"/quiet {app.command_line}".strip()
    return (
        f"<MsiInstallJob id={quoteattr(app.product_code)}><Product"
        f" Version={quoteattr(app.product_version)}><Download><ContentURLList><ContentURL>"
        f"{escape(url)}</ContentURL></ContentURLList></Download><Validation><FileHash>"
        f"{app.sha256.upper()}</FileHash></Validation><Enforcement><CommandLine>"
        f"{escape(line)}</CommandLine>"
        f"<TimeOut>{app.timing('installTimeoutInMinutes')}</TimeOut>"
        f"<RetryCount>{app.timing('installRetryCount')}</RetryCount>"
        f"<RetryInterval>{app.timing('installRetryIntervalInMinutes')}</RetryInterval>"
        "</Enforcement></Product></MsiInstallJob>"
    )


def commands(step: Step, link: str = "") -> list[Order]:
    """A step as commands. Those of an installation belong into one message, in this order."""
    app = step.app
    match step.do:
        case "look":
            return [Order(Sent("ask", uri), "Get", Item(target=uri)) for uri in looks(app)]
        case "uninstall" | "repair":
            return [Order(Sent(step.do, app.id, step.why), "Delete", Item(target=node(app)))]
    uri = f"{node(app)}/DownloadInstall"
    job = Item(target=uri, data=install_job(app, link), format="xml", type="text/plain")
    return [
        Order(Sent("install-add", app.id), "Add", Item(target=uri)),
        Order(Sent("install", app.id, fingerprint(app)), "Exec", job),
    ]


def install_state(status: int) -> Literal["installed", "failed", "installing"]:
    """Of a download and install on the device, by the CSP's Status (section 12.3)."""
    if status == 70:
        return "installed"
    return "failed" if status in {30, 60} else "installing"


def listed(text: str) -> frozenset[str]:
    """The product codes in the value of the node MSI (section 11.5)."""
    return frozenset(unquote(part).strip().upper() for part in text.split("/") if part.strip())


# ---------------------------------------------------------------------- in a session


class Installs:
    """The apps of a device: questions, orders, and what it answers."""

    def __init__(self, enrollment: Enrollment, content: Content, now: Clock) -> None:
        self._enrollment = enrollment
        self._content = content
        self._now = now

    async def questions(self, tx: Tx, device: Device, *, inventory: bool) -> list[Order]:
        """What to ask when a session begins; with the inventory, what is there still."""
        statuses = await mobile_apps.statuses(tx, device_id=device.id)
        uris = []
        for known in statuses:
            if known.state == "installing":
                base = node(await mobile_apps.app(tx, known.app_id))
                uris += [f"{base}/Status", f"{base}/LastError"]
        if inventory and any(known.state == "installed" for known in statuses):
            uris.append(MSI)
        return [Order(Sent("ask", uri), "Get", Item(target=uri)) for uri in uris]

    async def orders(
        self,
        tx: Tx,
        device: Device,
        groups: Membership,
        done: Collection[Sent] = (),
        *,
        user_signed_in: bool = False,
    ) -> tuple[list[Order], bool]:
        """What is to do, and whether something is awaited, tried again by the clock, or waits for
        somebody to sign in.

        `done`: what this session has asked for already.
        """
        now = self._now()
        meant = await mobile_apps.meant(tx, groups)
        if not meant:
            return [], False
        statuses = {one.app_id: one for one in await mobile_apps.statuses(tx, device_id=device.id)}
        choices = await self._choices(tx, device, meant)
        looked = {what.subject for what in done if what.kind == "ask"}
        every = steps(meant, statuses, choices, device, looked, now, user_signed_in=True)
        mine = [step for step in every if user_signed_in or not step.app.for_user]
        found: list[Order] = []
        for step in mine:
            link = await self._content.link(step.app, now) if step.do == "install" else ""
            found += commands(step, link)
        return found, len(mine) < len(every) or restless(meant, statuses, device)

    async def _choices(self, tx: Tx, device: Device, meant: Sequence[Meant]) -> dict[str, Chosen]:
        """What the user chose, where somebody could choose."""
        if all(one.explained.resolved.available is None for one in meant):
            return {}
        found = await mobile_apps.choices(tx, device.id)
        for one in meant:
            known = found.get(one.app.id)
            once = one.explained.resolved.uninstall is Uninstall.ONCE
            if known is not None and known.removed_at is not None and not once:
                # What comes later is another time.
                found[one.app.id] = replace(known, removed_at=None)
                await mobile_apps.save_choice(tx, device.id, found[one.app.id])
        return found

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
        known = await self._known(tx, device, app)
        gone = 200 <= status.code < 300 or status.code == 404
        if what.kind == "uninstall":
            await self._uninstalled(tx, device, app, known, what, status, told)
        elif what.kind == "repair":
            await self._repairs(tx, device, app, known, what.value, gone, told)
        else:
            await self._began(tx, device, app, known, what.value, status, told)

    async def offer_again(self, tx: Tx, device_id: str, app_id: str) -> None:
        """An installation that failed is offered at the next session, and not when its pause is over."""
        for known in await mobile_apps.statuses(tx, app_id=app_id, device_id=device_id):
            if known.state == "failed":
                changed = replace(known, state="offered", code=0, attempts=0, detail=0)
                await mobile_apps.save_status(tx, replace(changed, at=self._now()))

    async def _known(self, tx: Tx, device: Device, app: App) -> Status:
        found = await mobile_apps.statuses(tx, app_id=app.id, device_id=device.id)
        return found[0] if found else Status(app.id, device.id, "offered", 0, "", self._now())

    async def _began(
        self,
        tx: Tx,
        device: Device,
        app: App,
        known: Status,
        offered: str,
        status: syncml.Status,
        told: str,
    ) -> None:
        good = 200 <= status.code < 300
        attempts = known.attempts if known.sha256 == offered else 0
        state: mobile_apps.InstallState = "installing" if good else "failed"
        state = "offered" if status.code == 404 else state
        await mobile_apps.save_status(
            tx,
            replace(
                known,
                state=state,
                code=0 if good else status.code,
                sha256=offered,
                at=self._now(),
                attempts=attempts if good else attempts + 1,
                detail=0,
                found=False,
            ),
        )
        text = f"{app.name}: installation {'began' if good else f'was refused ({told})'}"
        await self._enrollment.note(tx, device, "app", text)

    async def _uninstalled(
        self,
        tx: Tx,
        device: Device,
        app: App,
        known: Status,
        what: Sent,
        status: syncml.Status,
        told: str,
    ) -> None:
        now = self._now()
        if 200 <= status.code < 300 or status.code == 404:
            await mobile_apps.forget_status(tx, app.id, device.id)
            if what.value == Uninstall.ONCE:
                await mobile_apps.save_choice(tx, device.id, Chosen(app.id, removed_at=now))
            await self._enrollment.note(tx, device, "app", f"{app.name}: uninstalled")
            return
        failed = replace(known, state="uninstallFailed", code=status.code, at=now)
        await mobile_apps.save_status(tx, replace(failed, sha256=fingerprint(app)))
        text = f"{app.name}: uninstalling was refused ({told})"
        await self._enrollment.note(tx, device, "app", text)

    async def _repairs(
        self, tx: Tx, device: Device, app: App, known: Status, why: str, gone: bool, told: str
    ) -> None:
        """The MSI that brought the client is off, or refuses to go: it comes again either way
        when its time is there."""
        now = self._now()
        lately = known.repaired_at is not None and now - known.repaired_at < _REPAIRS_COUNT
        repairs = known.repairs + 1 if lately else 1
        changed = replace(known, repairs=repairs, repaired_at=now)
        if gone:
            changed = replace(changed, state="offered", attempts=0, at=now)
        await mobile_apps.save_status(tx, changed)
        what = "it is reinstalled" if gone else f"its package could not be taken off ({told})"
        await self._enrollment.note(tx, device, "client", f"{why}: {what}")

    async def absent(self, tx: Tx, device: Device, uri: str) -> None:
        """The device does not know a node that was asked for."""
        uri = syncml.normal(uri)
        if not uri.startswith((syncml.normal(MSI), syncml.normal(USER_MSI))):
            return
        for known in await mobile_apps.statuses(tx, device_id=device.id):
            if known.state != "installing" or self._now() - known.at < _LOST:
                continue
            app = await mobile_apps.app(tx, known.app_id)
            if uri == syncml.normal(f"{node(app)}/Status"):
                await mobile_apps.save_status(
                    tx, replace(known, state="offered", at=self._now(), detail=0)
                )
                text = f"{app.name}: the device has lost the order, and gets it again"
                await self._enrollment.note(tx, device, "app", text)

    async def answers(self, tx: Tx, device: Device, answers: Mapping[str, str]) -> None:
        """What it answers to questions, by the nodes as `syncml.normal` writes them."""
        roots = (syncml.normal(MSI), syncml.normal(USER_MSI))
        if not any(uri.startswith(roots) for uri in answers):
            return
        statuses = {one.app_id: one for one in await mobile_apps.statuses(tx, device_id=device.id)}
        there = answers.get(syncml.normal(MSI))
        for app in await mobile_apps.apps(tx):
            if not app.product_code:
                continue
            known = statuses.get(app.id)
            base = syncml.normal(node(app))
            status = syncml.whole(answers.get(f"{base}/status"))
            if status is not None:
                state = install_state(status)
                error = syncml.whole(answers.get(f"{base}/lasterror")) or 0
                code = error if state == "failed" else 0
                await self._became(tx, device, app, known, state, code, status)
            version = answers.get(f"{base}/version")
            related = answers.get(syncml.normal(_related(app))) if app.upgrade_code else None
            if version or (related and app.any_version):
                await self._found(tx, device, app, known, version or "")
            if there is not None and known is not None and not app.for_user:
                await self._missing(tx, device, app, known, listed(there))

    async def _found(
        self, tx: Tx, device: Device, app: App, known: Status | None, version: str
    ) -> None:
        """It is there already: it is not installed again."""
        if known is not None and known.state not in ("failed", "offered"):
            return
        # One that failed was on its way from here.
        found = known is None
        before = known or Status(app.id, device.id, "installed", 0, "", self._now())
        await mobile_apps.save_status(
            tx,
            replace(
                before,
                state="installed",
                code=0,
                sha256=fingerprint(app),
                at=self._now(),
                attempts=0,
                detail=70,
                version=version[:64],
                found=found,
            ),
        )
        of = f" in version {version[:64]}" if version else ""
        await self._enrollment.note(tx, device, "app", f"{app.name}: is there already{of}")

    async def _missing(
        self, tx: Tx, device: Device, app: App, known: Status, there: frozenset[str]
    ) -> None:
        """It was installed, and is not in the device's list any more: somebody took it off."""
        if known.state != "installed" or known.sha256 != fingerprint(app):
            return
        if app.product_code.upper() in there or (known.found and app.any_version):
            return
        if known.found:
            await mobile_apps.forget_status(tx, app.id, device.id)
        else:
            await mobile_apps.save_status(
                tx, replace(known, state="offered", at=self._now(), attempts=0, detail=0)
            )
        await self._enrollment.note(tx, device, "app", f"{app.name}: is not there any more")

    async def alert(self, tx: Tx, device: Device, item: Item) -> None:
        """MSI_ALERT: how an installation ended."""
        code = syncml.whole(item.data)
        if code is None:
            return  # How it ended is asked for at the next session.
        uri = syncml.normal(item.source or item.target)
        for app in await mobile_apps.apps(tx):
            if app.product_code and app.product_code.lower() in uri:
                found = await mobile_apps.statuses(tx, app_id=app.id, device_id=device.id)
                known = found[0] if found else None
                good = code in _GOOD
                await self._became(
                    tx,
                    device,
                    app,
                    known,
                    "installed" if good else "failed",
                    code,
                    70 if good else known.detail if known else 0,
                )

    async def _became(
        self,
        tx: Tx,
        device: Device,
        app: App,
        known: Status | None,
        state: mobile_apps.InstallState,
        code: int,
        detail: int,
    ) -> None:
        before = known or Status(app.id, device.id, "offered", 0, "", self._now())
        changed = replace(before, state=state, code=code, sha256=fingerprint(app), detail=detail)
        if changed == before:
            return
        if (before.state, before.code) != (state, code) or known is None:
            failed = before.attempts + 1 if state == "failed" else before.attempts
            changed = replace(
                changed,
                at=self._now(),
                attempts=0 if state == "installed" else failed,
                version=app.product_version if state == "installed" else before.version,
            )
            text = f"{app.name}: {state}"
            await self._enrollment.note(
                tx, device, "app", text, f"0x{code & 0xFFFFFFFF:08x}" if code else ""
            )
        await mobile_apps.save_status(tx, changed)
