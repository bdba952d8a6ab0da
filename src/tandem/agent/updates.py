"""Software updates: ask the software update point, compare with what is installed, install what is due.

    location   SMS_MP/.sms_aut?SUPLIST   at the start, every day, and after a refusal
    list       SMS_SUP/.sms_upd          with the policy; 304 while it is unchanged
    detection  dpkg's own status         when the list or what is installed has changed
    install    at its deadline           while the site owns Windows Update policies, and not otherwise

What is found is told once: a report lies in the spool before it is noted as told, under an id that
the same report would have again. Without a root nothing is asked and nothing is done.
"""

from collections.abc import Callable
from contextlib import suppress
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Any, Protocol
from urllib.parse import urlsplit
from uuid import uuid4

import msgspec

from tandem.agent.folder import Folder
from tandem.agent.gate import COMPONENTS, Gate
from tandem.agent.handlers import Root
from tandem.agent.handlers.model import Trouble
from tandem.agent.handlers.packages import Installed
from tandem.agent.handlers.updates import Updates as Packages
from tandem.agent.handlers.updates import concerned, is_behind
from tandem.agent.journal import ERROR, WARNING, Journal
from tandem.agent.platform import Machine
from tandem.agent.session import Refused, Session, decode, describe
from tandem.protocols import ccm
from tandem.workloads import Authority, Workload

LOG = COMPONENTS[Workload.WINDOWS_UPDATE]
LOCATION_MINUTES = 24 * 60
# A failed installation is tried again as often; all is looked at again once a week (spec F12).
TRY_AGAIN_MINUTES = 60
EVALUATE_MINUTES = 7 * 24 * 60
_LIST, _TOLD = "updates-list.json", "updates-told.json"
_OURS = Workload.WINDOWS_UPDATE


class Report(Protocol):
    def __call__(self, topic: int, state: int, data: dict[str, Any], once: str = "", /) -> None: ...


class _InHand(msgspec.Struct, frozen=True):
    """The list as it was signed, so a restart verifies it again."""

    etag: str
    sealed: str


class _Fact(msgspec.Struct, frozen=True):
    """How an update stands: topic and state as they are told, and what is told with them."""

    topic: int
    state: int
    fact: ccm.UpdateFact


class _Told(msgspec.Struct):
    """What the site was told. Reports of a series count up."""

    series: str
    number: int = 0
    facts: dict[str, _Fact] = {}
    scan: str = ""


class UpdateAgent:
    """`came`: there is something to send."""

    def __init__(
        self,
        machine: Machine,
        folder: Folder,
        session: Session,
        gate: Gate,
        journal: Journal,
        report: Report,
        came: Callable[[], None],
    ) -> None:
        self._machine = machine
        self._folder = folder
        self._session = session
        self._gate = gate
        self._journal = journal
        self._report = report
        self._came = came
        self._packages: Packages | None = None
        if machine.root is not None:
            self._packages = Packages(
                Root(machine.root, machine.state),
                folder.below("updates"),
                machine.http,
                lambda text: journal.write(LOG, text),
            )
        self._told = folder.load(_TOLD, _Told) or _Told(uuid4().hex)
        self._list: ccm.UpdateList | None = None
        self._opened = False
        self._points: list[ccm.UpdatePoint] | None = None
        self._points_due = machine.now()
        self._due = machine.now()
        self._evaluated: tuple[object, ...] = ()
        self._evaluate_due = machine.now()
        # Why the last question was not answered: code and sentence.
        self._trouble: tuple[str, str] | None = None
        self._failed: dict[str, tuple[datetime, Trouble]] = {}

    def _write(self, text: str, severity: int = 1) -> None:
        self._journal.write(LOG, text, severity)

    def ask_again(self) -> None:
        """Everything is due now ("Evaluate software update deployments")."""
        self._due = self._points_due = self._evaluate_due = self._machine.now()
        self._evaluated, self._failed = (), {}

    def is_due(self) -> None:
        """Ask for the list with the policy, which is asked for now."""
        self._due = self._machine.now()

    def moved(self) -> None:
        """Another network has another way to the software update point."""
        self._points_due = self._machine.now()

    def clock_put_back(self) -> None:
        now = self._machine.now()
        self._due, self._points_due, self._evaluate_due = now, now, now
        self._failed.clear()

    # What is approved.

    async def ask(self, interval: timedelta) -> None:
        """Ask for the list when it is due. Raises what keeps it from being had, but for what the
        software update point itself refuses: that is told."""
        now = self._machine.now()
        if self._packages is None or now < self._due or not self._session.client_id:
            return
        before = self._trouble
        try:
            self._trouble = await self._ask(now)
        except (Refused, ccm.BadDocument) as error:
            if isinstance(error, Refused) and error.status == 401:
                raise  # Who this client is, is for others to settle.
            self._trouble = (error.code, error.message)
            if before != self._trouble:
                describe(self._journal, LOG, error)
        self._due = now + interval

    async def _ask(self, now: datetime) -> tuple[str, str] | None:
        """What keeps the list from being had on this network, if anything does."""
        base = await self._base(now)
        try:
            if base:
                await self._fetch(base)
        except Refused:
            # It may have moved, or be published no more.
            self._points_due = now
            moved = await self._base(now)
            if moved == base:
                raise
            base = moved
            if base:
                await self._fetch(base)
        return None if base else self._nowhere()

    async def _base(self, now: datetime) -> str:
        """Where the software update point is; empty when there is none on this network."""
        inside = bool(self._session.intranet)
        if self._points is None or now >= self._points_due:
            response = await self._session.get("/SMS_MP/.sms_aut?SUPLIST")
            self._points = decode(response, ccm.UpdatePointList).update_points
            minute = timedelta(seconds=self._machine.minute_seconds)
            self._points_due = now + minute * LOCATION_MINUTES
        for one in self._points:
            if (one.kind == "Intranet") is not inside:
                continue
            base = one.host.rstrip("/") if inside else _outside(one.host)
            # What only says where something is, is not signed: nobody sends us elsewhere with it.
            if _origin(base) == _origin(self._session.base):
                return base
            self._write(f"{one.host} is another server than the site's, and is not asked.", WARNING)
        if self._list is not None or self._told.scan:
            # There was one: it may be back at any time.
            self._points_due = now
        return ""

    def _nowhere(self) -> tuple[str, str] | None:
        """None for a site that has no software update point at all, of which nothing is said."""
        if not self._points and self._list is None and not self._told.scan:
            return None
        where = "intranet" if self._session.intranet else "internet"
        return "scan.no-update-point", f"The site has no software update point for the {where}."

    async def _fetch(self, base: str) -> None:
        self._open()
        stored = self._folder.load(_LIST, _InHand)
        headers = {"If-None-Match": stored.etag} if stored and self._list else {}
        response = await self._session.get("/SMS_SUP/.sms_upd", headers=headers, base=base)
        if response.status_code == 304:
            return
        self._list = ccm.open_updates(
            response.text,
            self._machine.trusted_root,
            self._machine.now(),
            client_id=self._session.client_id,
            not_before=self._list.issued_at if self._list else None,
        )
        etag = response.headers.get("etag", "")
        self._folder.save(_LIST, _InHand(etag, response.text))
        self._write(f"The software update point approves {len(self._list.updates)} updates.")

    def _open(self) -> None:
        """The list of before a restart, verified again."""
        if self._opened:
            return
        self._opened = True
        stored = self._folder.load(_LIST, _InHand)
        if stored is None:
            return
        with suppress(ccm.BadDocument):
            self._list = ccm.open_updates(
                stored.sealed,
                self._machine.trusted_root,
                self._machine.now(),
                client_id=self._session.client_id,
                expired=True,
            )

    # What is installed, and what is to be.

    async def act(self) -> None:
        """Compare, install what is due, and tell what is news."""
        packages = self._packages
        if packages is None or not self._session.client_id:
            return
        self._open()
        found = self._list
        if found is None:
            self._tell_scan(())
            return
        now = self._machine.now()
        due = [one for one in found.updates if one.deadline is not None and one.deadline <= now]
        why = self._why_not(found, now)
        waiting = {id for id, (at, _) in self._failed.items() if at > now}
        seen = (
            found.issued_at,
            packages.stamp(),
            tuple(one.id for one in due if one.id not in waiting),
            why,
            self._trouble,
        )
        if seen == self._evaluated and now < self._evaluate_due:
            return
        if packages.is_busy:
            self._write("An earlier installation goes on; it is waited for.", WARNING)
            return
        release, installed = packages.release(), packages.installed()
        for update in due:
            behind = [
                one for one in concerned(update, installed, release) if is_behind(update, one)
            ]
            if why or update.id in waiting or not behind:
                continue
            if not await self._install(packages, update, sorted({one.name for one in behind})):
                continue
            installed = packages.installed()
        self._tell(found.updates, installed, release, why)
        self._tell_scan(why)
        minute = timedelta(seconds=self._machine.minute_seconds)
        self._evaluated = (*seen[:1], packages.stamp(), *self._after(due, now), why, self._trouble)
        self._evaluate_due = now + minute * EVALUATE_MINUTES

    def _after(self, due: list[ccm.ApprovedUpdate], now: datetime) -> tuple[tuple[str, ...]]:
        waiting = {id for id, (at, _) in self._failed.items() if at > now}
        return (tuple(one.id for one in due if one.id not in waiting),)

    def _why_not(self, found: ccm.UpdateList, now: datetime) -> tuple[str, str] | tuple[()]:
        """Code and sentence of what keeps this client from installing; empty when nothing does."""
        if self._gate.owner(_OURS) is not Authority.SITE:
            return (
                "owner.mdm",
                f"The MDM service owns {_OURS.title}: this client installs no updates of the site.",
            )
        if self._gate.holding(_OURS).writer is not Authority.SITE:
            return (
                "owner.handing-over",
                f"The workload {_OURS.title} is being handed over to the site.",
            )
        if found.expires_at <= now:
            return (
                "list.expired",
                "The list of approved updates has expired, and no newer one came: nothing is"
                " installed by it.",
            )
        return ()

    async def _install(
        self, packages: Packages, update: ccm.ApprovedUpdate, names: list[str]
    ) -> bool:
        # Whoever owns the workload next waits until the installation is over.
        with self._gate.writing(Authority.SITE, _OURS) as ours:
            if not ours:
                return False  # The workload moved while we looked.
            self._write(f"Installing {update.name}: {', '.join(names)} to {update.fixed_version}.")
            try:
                await packages.install(update, names)
            except Trouble as trouble:
                minute = timedelta(seconds=self._machine.minute_seconds)
                again = self._machine.now() + minute * TRY_AGAIN_MINUTES
                self._failed[update.id] = (again, trouble)
                self._write(f"{update.name} failed: {trouble.message}", ERROR)
                return True
        self._failed.pop(update.id, None)
        self._write(f"{update.name} is installed.")
        return True

    # What is told.

    @property
    def is_there(self) -> bool:
        """Whether updates are looked for on this machine."""
        return self._packages is not None

    @property
    def trouble(self) -> tuple[str, str] | None:
        """Why the last question for the list was not answered."""
        return self._trouble

    def counts(self) -> tuple[int, int, int]:
        """How many of the approved updates are installed, required and failed."""
        told = [(one.topic, one.state) for one in self._told.facts.values()]
        kinds = (
            (ccm.DETECTION_TOPIC, ccm.INSTALLED),
            (ccm.DETECTION_TOPIC, ccm.REQUIRED),
            (ccm.ENFORCEMENT_TOPIC, ccm.INSTALL_FAILED),
        )
        installed, required, failed = (told.count(kind) for kind in kinds)
        return installed, required, failed

    def _tell(
        self,
        updates: list[ccm.ApprovedUpdate],
        installed: list[Installed],
        release: str,
        why: tuple[str, str] | tuple[()],
    ) -> None:
        facts = {one.id: self._fact(one, installed, release, why) for one in updates}
        news: dict[tuple[int, int], dict[str, ccm.UpdateFact]] = {}
        for id, fact in facts.items():
            if self._told.facts.get(id) != fact:
                news.setdefault((fact.topic, fact.state), {})[id] = fact.fact
        gone = set(self._told.facts) - set(facts)
        for (topic, state), told in sorted(news.items()):
            ids = sorted(told)
            for begin in range(0, len(ids), ccm.FACTS_LIMIT):
                part = {id: told[id] for id in ids[begin : begin + ccm.FACTS_LIMIT]}
                self._told.number += 1
                data = ccm.UpdateFacts(part, self._told.series, self._told.number)
                self._say(topic, state, data)
                self._told.facts |= {id: facts[id] for id in part}
                self._folder.save(_TOLD, self._told)
        if gone:
            # What is approved again one day is told again.
            for id in gone:
                del self._told.facts[id]
            self._folder.save(_TOLD, self._told)

    def _fact(
        self,
        update: ccm.ApprovedUpdate,
        installed: list[Installed],
        release: str,
        why: tuple[str, str] | tuple[()],
    ) -> _Fact:
        mine = concerned(update, installed, release)
        if not mine:
            return _Fact(ccm.DETECTION_TOPIC, ccm.NOT_REQUIRED, ccm.UpdateFact())
        behind = [one for one in mine if is_behind(update, one)]
        first = (behind or mine)[0]
        version = (first.source_version if update.source else first.version)[:128]
        if not behind:
            self._failed.pop(update.id, None)
            return _Fact(ccm.DETECTION_TOPIC, ccm.INSTALLED, ccm.UpdateFact(version))
        failed = self._failed.get(update.id)
        if failed is not None and not why and update.deadline is not None:
            text = f"{failed[1].message} {failed[1].cure}".strip()
            fact = ccm.UpdateFact(version, failed[1].code[:128], text[:512])
            return _Fact(ccm.ENFORCEMENT_TOPIC, ccm.INSTALL_FAILED, fact)
        return _Fact(ccm.DETECTION_TOPIC, ccm.REQUIRED, ccm.UpdateFact(version, *why))

    def _tell_scan(self, why: tuple[str, str] | tuple[()]) -> None:
        """How it went, when that is something else than was told before."""
        trouble = self._trouble
        if self._list is None and trouble is None:
            return
        code, text = trouble or why or ("", "")
        result = ccm.ScanResult(not why and trouble is None, code[:128], text[:512])
        state = ccm.SCAN_FAILED if trouble else ccm.SCAN_COMPLETED
        digest = sha256(msgspec.json.encode([state, result])).hexdigest()
        if digest == self._told.scan:
            return
        self._told.number += 1
        self._say(
            ccm.SCAN_TOPIC,
            state,
            msgspec.structs.replace(result, series=self._told.series, number=self._told.number),
        )
        self._told.scan = digest
        self._folder.save(_TOLD, self._told)
        self._write(text or "What is approved for this device is known.", WARNING if text else 1)

    def _say(self, topic: int, state: int, data: ccm.UpdateFacts | ccm.ScanResult) -> None:
        told = msgspec.to_builtins(data)
        digest = sha256(msgspec.json.encode([topic, state, told], order="sorted")).hexdigest()
        self._report(topic, state, told, f"updates/{digest}")
        self._came()


def _outside(host: str) -> str:
    try:
        return ccm.authentication_bases(host)[0]
    except ValueError:
        return ""


def _origin(url: str) -> tuple[str, str, int]:
    try:
        parts = urlsplit(url)
        return parts.scheme, parts.hostname or "", parts.port or 443
    except ValueError:
        return "", "", 0
