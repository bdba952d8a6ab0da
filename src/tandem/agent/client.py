"""The client: registration, policy, messages, and the handlers that act on policy."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import datetime, timedelta
from functools import partial
from hashlib import sha256
from typing import Any
from uuid import uuid4

import httpx
import msgspec
from cryptography.hazmat.primitives.asymmetric import ec

from tandem import pki
from tandem.agent import check, commandline, identity
from tandem.agent.calls import Calls
from tandem.agent.comanagement import CoManagementHandler
from tandem.agent.commandline import BadCommandLine
from tandem.agent.folder import Folder
from tandem.agent.gate import Gate, NotKept
from tandem.agent.handlers import Handlers, Root, hardware, hardware_id
from tandem.agent.installation import FILE, Installation, client_folder, installed, remove
from tandem.agent.journal import ERROR, WARNING, Journal
from tandem.agent.notifications import LOG as NOTIFIED
from tandem.agent.notifications import Notifications, TakenOrder
from tandem.agent.platform import CannotRestart, Machine
from tandem.agent.roaming import Roaming
from tandem.agent.session import Refused, Session, Unreachable, decode, describe
from tandem.agent.spool import Spool
from tandem.agent.updates import UpdateAgent
from tandem.infra.errors import AppError, Kind
from tandem.protocols import ccm
from tandem.workloads import APPS, Authority, same_setting

HEARTBEAT_MINUTES = 7 * 24 * 60
# How often the client looks at what only this device knows, such as its MDM enrollment.
LOOK_MINUTES = 1
RETRY_MINUTES = 10
# A device that is to restart has so long before it counts as one that did not.
RESTART_MINUTES = 15
# State ids of topic 800 (spec 3.2).
ASSIGNMENT_STARTED, WRONG_SITE, NO_MANAGEMENT_POINT, ASSIGNED = 500, 602, 603, 700
_BATCH = 100
# How far a clock may go back without a word: it is set by the network all the time.
_SKEW = timedelta(minutes=5)
_USER_POLICY = "user-policy.json"
# Entries of the ledger in one message: far below what one message may hold.
_ENTRIES = 100


class NothingThere(AppError):
    """Asked for what this client does not do here."""

    kind, code = Kind.UNSUPPORTED, "notification.not-here"


class SomeFailed(AppError):
    kind, code = Kind.CONFLICT, "notification.some-failed"


class NoUserPolicy(AppError):
    kind, code = Kind.CONFLICT, "policy.no-user"


class NoInventory(AppError):
    kind, code = Kind.CONFLICT, "inventory.off"


class NotInstalled(AppError):
    kind, code = Kind.CONFLICT, "agent.not-installed"


class DiskTrouble(AppError):
    """The device's disk does not take what has to be kept. Nothing was done that it does not know."""

    kind, code = Kind.UNAVAILABLE, "agent.disk"


class _PolicyInHand(msgspec.Struct, frozen=True):
    """The document as it was signed, so a restart verifies it again. `user`: who was signed in when
    it came, where it is a user's."""

    etag: str
    sealed: str
    user: str = ""


class _Inventoried(msgspec.Struct, frozen=True):
    """What was reported last: the number of the report in its series, and a digest of each class."""

    series: str
    number: int = 0
    digests: dict[str, str] = {}


class Client:
    """The installed client of one machine. Raises NotInstalled when ccmsetup has not run."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._folder: Folder = client_folder(machine.state, machine.durable)
        found = installed(self._folder)
        if found is None:
            raise NotInstalled(
                "The client is not installed on this machine.", cure="Run tandem-ccmsetup first."
            )
        self._installation: Installation = found
        self._journal = Journal(machine.logs, machine.now)
        with suppress(BadCommandLine):
            self._journal.limit(*commandline.parse(found.command_line).log_limits)
        self._spool = Spool(self._folder.below("spool"))
        self.gate = Gate(self._folder, self._journal, machine.now)
        if identity.complete(self._folder, self.gate):
            found = self._installation = installed(self._folder) or found
            self._write("ClientIDManagerStartup", "This machine has a new key of its own.", WARNING)
        machine.mdm.install_gate(self.gate)
        self._handler = CoManagementHandler(
            machine, self._folder, self.gate, self._journal, self._handlers()
        )
        self._session = Session(
            machine, self._folder, found.connection, self._journal, "ClientIDManagerStartup"
        )
        self._session.client_id = found.client_id
        root = machine.root
        self._hardware_id = machine.hardware_id or (
            hardware_id(Root(root, machine.state)) if root is not None else ""
        )
        self._policy = self._stored_policy("policy.json")
        self._user_policy = self._stored_policy(_USER_POLICY)
        of_user = self._folder.load(_USER_POLICY, _PolicyInHand)
        self._user = of_user.user if of_user is not None else ""
        self._signed_in = machine.directory.signed_in()
        self._expired = self._farewell = self._asked = self._begun = False
        self._assigned = False
        self._trouble: ccm.Message | None = None
        self._trouble_told = False
        self._effects: dict[str, str] = {}
        start = self._looked_at = machine.now()
        self._policy_due = self._messages_due = start
        self._user_etag = ""  # Of the user's policy in hand; it is asked for anew at each start.
        self._check_due = start
        self._whole, self._fetches = True, False
        self._heartbeat_due = self._heartbeat_after(start)
        self._inventory_due = start
        self._woken = asyncio.Event()
        # Another identity is prepared: a new object on this folder becomes it.
        self.over = self._leaves = False
        # The site let it go: the client is removed, and this object is of no more use.
        self.left = False
        self._notifications = Notifications(
            machine,
            self._folder,
            self._session,
            self._journal,
            came=self._woken.set,
            location=lambda: self._roaming.location,
            way=self._find_way,
        )
        self._updates = UpdateAgent(
            machine,
            self._folder,
            self._session,
            self.gate,
            self._journal,
            self._report,
            came=self._messages_are_due,
        )
        self._roaming = Roaming(
            machine,
            self._folder,
            self._journal,
            always_internet=found.always_internet,
            intranet=found.smsmp,
            site_code=found.site_code,
        )

    def _write(self, component: str, message: str, severity: int = 1) -> None:
        self._journal.write(component, message, severity)

    @property
    def client_id(self) -> str:
        """`GUID:…`, or empty before registration."""
        return self._installation.client_id

    @property
    def policy(self) -> ccm.Policy | None:
        """The policy in force."""
        return self._policy

    @property
    def settings(self) -> ccm.ClientSettings:
        """The resultant client settings, with the defaults of what policy does not name."""
        return _settings(self._policy)

    def _handlers(self) -> Handlers | None:
        """What gives values their effect on this machine, where it has a root for that."""
        machine = self._machine
        if machine.root is None:
            return None
        return Handlers(
            machine.root,
            self._folder,
            self.gate,
            self._journal,
            machine.http,
            machine.now,
            forbidden=machine.state,
            minute_seconds=machine.minute_seconds,
            own_network=machine.own_network,
        )

    def wake(self) -> None:
        """Make policy and messages due now (client notification "Download Computer Policy").

        The MDM client is asked for a session too, as the field does since 1806.
        """
        self._asked = True
        now = self._machine.now()
        self._policy_due = self._messages_due = now
        self._updates.is_due()
        self._woken.set()

    async def run(self, stop: asyncio.Event) -> None:
        """Be a client until `stop` is set, or until this machine is to be another one (`over`).
        Nothing that the network does ends it."""
        called = asyncio.gather(self._called(stop), self._notified(stop))
        try:
            while not stop.is_set() and not self.over and not self.left:
                self._woken.clear()
                seconds = await self.step()
                if not self.left:
                    await self._rest(stop, seconds)
        finally:
            called.cancel()
            await asyncio.gather(called, return_exceptions=True)

    async def _called(self, stop: asyncio.Event) -> None:
        if self._machine.waits_for_calls:
            app_id = self._installation.connection.info.client_app_id
            await Calls(self._machine, app_id, self._journal).run(stop)

    async def _notified(self, stop: asyncio.Event) -> None:
        if self._machine.waits_for_calls:
            await self._notifications.run(stop)

    async def _rest(self, stop: asyncio.Event, seconds: float) -> None:
        waits = [asyncio.create_task(stop.wait()), asyncio.create_task(self._woken.wait())]
        try:
            await asyncio.wait(
                waits, timeout=max(0.0, seconds), return_when=asyncio.FIRST_COMPLETED
            )
        finally:
            for task in waits:
                task.cancel()

    async def step(self) -> float:
        """Do what is due. Returns the seconds until something is due again.

        What the device decides by itself is decided whether or not the site answers.
        """
        self._notice_clock()
        with suppress(OSError):  # What a disk does not let go is dropped in memory.
            self._notice_user()
        begun = await self._attempt(self._begin)
        roamed = await self._attempt(self._roam)
        heard = await self._attempt(self._hear)
        obeyed = await self._attempt(self._obey) if heard is None else None
        done = await self._attempt(self._evaluate)
        updated = await self._attempt(partial(self._update, asking=heard is None))
        if self._policy is not None and self._policy.leave:
            gone = await self._attempt(self._leave)
            return 0.0 if gone is None else self._after_failure()
        # A site that did not answer a moment ago is not asked twice in one step.
        said = await self._attempt(self._send) if heard is not Unreachable else Unreachable
        every = {begun, roamed, heard, obeyed, done, updated, said}
        if not {DiskTrouble, NotKept} & every:
            self._well_again()
        elif Unreachable not in every:
            await self._tell_trouble()
        if Unreachable in every:
            self._roaming.doubt()
        if every == {None}:
            return self._rest_seconds()
        return self._after_failure()

    def _notice_clock(self) -> None:
        """A clock that was ahead has put off what is due: nothing is further away than its interval."""
        now, settings = self._machine.now(), self.settings
        if now + _SKEW >= self._looked_at:
            self._looked_at = max(now, self._looked_at)
            return
        self._looked_at = now
        text = "The clock of this device was put back: what is due waits no longer than it would."
        self._write("CcmMessaging", text, WARNING)
        with suppress(OSError):
            self._report(ccm.FRAMEWORK_TOPIC, 2, {"code": "clock.put-back", "message": text})
        polling = self._minutes(settings.policy_polling_minutes)
        self._policy_due = min(self._policy_due, now + polling)
        self._messages_due = min(
            self._messages_due, now + self._minutes(settings.state_reporting_minutes)
        )
        self._heartbeat_due = min(self._heartbeat_due, now + self._minutes(HEARTBEAT_MINUTES))
        self._inventory_due = min(
            self._inventory_due, now + self._minutes(settings.hardware_inventory_minutes)
        )
        self._check_due = min(self._check_due, now + self._minutes(check.EVERY_MINUTES))
        self._roaming.doubt()
        self._notifications.doubt()
        self._updates.clock_put_back()

    async def _roam(self) -> None:
        if await self._roaming.look():
            self._notifications.moved()
            self._updates.moved()

    def _messages_are_due(self) -> None:
        self._messages_due = self._machine.now()

    async def _update(self, *, asking: bool) -> None:
        """Ask for the approved updates when that is due, and act on those that are known. Not
        `asking` of a site that did not answer a moment ago."""
        if self._policy is None:
            return
        try:
            if asking and self._find_way():
                await self._updates.ask(self._minutes(self.settings.policy_polling_minutes))
        finally:
            await self._updates.act()

    async def _begin(self) -> None:
        """Once: what a process that ended had begun to write is over."""
        if self._begun:
            return
        for authority in Authority:
            self.gate.abandon(authority)
        self.gate.brings_about(self._machine.root is not None)
        self._begun = True

    def _suffers(self, error: AppError) -> None:
        if self._trouble is None:
            data = {"code": error.code, "message": error.message, "cure": error.cure}
            self._trouble = ccm.Message(
                uuid4().hex, ccm.FRAMEWORK_TOPIC, 2, self._machine.now(), data
            )
            self._trouble_told = False

    async def _tell_trouble(self) -> None:
        """Past the spool, which lies on the disk that is the trouble."""
        if self._trouble is None or self._trouble_told or not self._find_way():
            return
        with suppress(AppError, OSError):
            # Without a number: that would have to be written down first.
            request = ccm.IncomingRequest([self._trouble])
            response = await self._session.post("/ccm_incoming", request)
            self._trouble_told = self._trouble.id in decode(response, ccm.IncomingReply).accepted

    def _well_again(self) -> None:
        """Once the disk takes what it is given, the site hears what was, if it has not, and that it is
        over."""
        if self._trouble is None:
            return
        text = "The disk of this device takes what has to be kept again."
        with suppress(OSError):
            if not self._trouble_told:
                self._spool.keep(self._trouble)
                self._trouble_told = True
            self._report(ccm.FRAMEWORK_TOPIC, 1, {"code": "agent.disk", "message": text})
            self._write("CcmExec", text)
            self._messages_due, self._trouble = self._machine.now(), None

    async def _attempt(self, work: Callable[[], Awaitable[None]]) -> type[AppError] | None:
        """What kept the work from being done, which is in the log, or None."""
        try:
            await work()
        except AppError as error:
            describe(self._journal, "CcmMessaging", error)
            if isinstance(error, NotKept):
                self._suffers(error)
            leaves = self._policy is not None and self._policy.leave
            if isinstance(error, Refused) and error.reason == "client.unknown" and not leaves:
                failed = await self._attempt(self._forget_registration)
                if failed is not None:
                    return failed
            if isinstance(error, Refused) and error.reason == "client.new-key-needed":
                failed = await self._attempt(self._take_new_key)
                if failed is not None:
                    return failed
            return type(error)
        except OSError as error:
            trouble = DiskTrouble(
                f"The disk of this device does not take what has to be kept:"
                f" {error.strerror or error}.",
                cure="Make room on it, or make it writable; the client goes on by itself.",
            )
            describe(self._journal, "CcmExec", trouble)
            self._suffers(trouble)
            return DiskTrouble
        return None

    async def _take_new_key(self) -> None:
        key = pki.generate_key("p256")
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        identity.prepare(self._folder, key)
        self.over = True

    async def _hear(self) -> None:
        if not self.client_id:
            await self._register()
        if not self._assigned:
            # Here, as a client that was killed after its registration has not said it yet.
            self._report_once(ASSIGNED, {"site_code": self._installation.site_code})
            self._assigned = True
        if self._machine.now() >= self._policy_due:
            await self._poll()
            await self._notifications.look()

    async def _obey(self) -> None:
        """Do what the site asked for, and say what became of it."""
        unreachable: Unreachable | None = None
        for action, orders in self._notifications.waiting():
            try:
                text = await self._do(action, orders)
            except Unreachable as error:
                unreachable = error  # It waits, like all that needs the site; the others do not.
            except AppError as error:
                self._write(NOTIFIED, f"{action} failed: {error.message}", ERROR)
                self._tell(orders, ccm.ORDER_FAILED, error.message, error.code)
            else:
                if text:
                    self._write(NOTIFIED, f"{action} is done: {text}")
                    self._tell(orders, ccm.ORDER_DONE, text)
        if unreachable is not None:
            raise unreachable

    def _tell(self, orders: list[TakenOrder], state: int, text: str, code: str = "") -> None:
        for order in orders:
            result = ccm.OrderResult(order.id, text[:512], code[:64])
            self._report(ccm.NOTIFICATION_TOPIC, state, msgspec.to_builtins(result))
        self._notifications.told(orders)
        self._messages_due = self._machine.now()

    async def _do(self, action: str, orders: list[TakenOrder]) -> str:
        """What was done, in a sentence; empty while it is under way. Raises AppError."""
        if action == "restart":
            return await self._restart(orders)
        self._notifications.begin(orders)
        now = self._machine.now()
        match action:
            case "download-computer-policy":
                self._asked = True
                self._updates.is_due()
                refused = await self._poll()
                if refused is not None:
                    raise refused
                await self._evaluate()
                return f"Policy version {self._policy.version if self._policy else 0} is in force."
            case "download-user-policy":
                return await self._poll_user()
            case "collect-discovery-data":
                self._heartbeat_due = now
                return "The heartbeat is sent."
            case "collect-hardware-inventory":
                if self._machine.root is None:
                    raise NothingThere("This client collects no hardware of this device.")
                if not self.settings.enable_hardware_inventory:
                    raise NoInventory(
                        "The client settings of this device have hardware inventory off.",
                        cure="Switch it on: `tandem client-settings resultant` says which.",
                    )
                self._report_hardware(now, whole=True)
                return "The hardware was collected whole."
            case "evaluate-application-deployments":
                return await self._look_again((APPS,))
            case "evaluate-software-update-deployments":
                return await self._evaluate_updates()
            case "evaluate-configurations":
                return await self._look_again(())
            case "evaluate-co-management":
                self._asked = True
                await self._evaluate()
                flags = self.gate.flags
                return f"Co-management was evaluated; the workload flags are {flags}."
            case "evaluate-location":
                if await self._roaming.decide("an administrator asks"):
                    self._notifications.moved()
                where = self._roaming.location
                return f"This device is on the {where.network}: {where.reason}"
        raise NothingThere(
            f"This client does not know {action}.", cure="A newer client may: update it."
        )

    async def _look_again(self, areas: tuple[str, ...]) -> str:
        self._handler.look_again()
        await self._evaluate()
        standing = self._handler.standing(areas)
        if standing is None:
            raise NothingThere("This client brings nothing about on this device.")
        good, failed = standing
        if failed:
            raise SomeFailed(
                f"{failed} of {good + failed} failed; the device's page says which and why."
            )
        return (
            f"All {good} are as they should be." if good else "Nothing is deployed to this device."
        )

    async def _evaluate_updates(self) -> str:
        if not self._updates.is_there:
            raise NothingThere("This client looks for no updates on this device.")
        self._updates.ask_again()
        await self._update(asking=True)
        if self._updates.trouble is not None:
            code, text = self._updates.trouble
            raise SomeFailed(text, cure=f"It is {code} in the guide to software updates.")
        installed, required, failed = self._updates.counts()
        if failed:
            raise SomeFailed(f"{failed} updates failed; the device's page of updates says why.")
        return f"Of the approved updates {installed} are installed, and {required} are required."

    async def _restart(self, orders: list[TakenOrder]) -> str:
        restart, now = self._machine.restart, self._machine.now()
        if restart is None:
            raise CannotRestart(
                "This client does not restart this device.",
                cure="Restart it from its tenant, with a remote action.",
            )
        boot, first = restart.boot(), orders[0]
        if not first.boot or first.begun_at is None:
            self._notifications.begin(orders, boot)
            await restart.restart()
            self._write(NOTIFIED, "The device restarts in a minute.", WARNING)
            return ""
        if first.boot != boot:
            return "The device has started again."
        if now > first.begun_at + self._minutes(RESTART_MINUTES):
            raise CannotRestart("The device did not restart.", cure="Somebody may have stopped it.")
        return ""

    def _after_failure(self) -> float:
        # Spread, so a fleet does not come back in one second after its gateway did.
        return self._machine.minute_seconds * RETRY_MINUTES * random.uniform(0.5, 1.0)  # noqa: S311

    def _rest_seconds(self) -> float:
        next_due = min(self._policy_due, self._messages_due)
        until = (next_due - self._machine.now()).total_seconds()
        return max(0.0, min(until, self._machine.minute_seconds * LOOK_MINUTES))

    def _minutes(self, minutes: float) -> timedelta:
        return timedelta(seconds=minutes * self._machine.minute_seconds)

    async def _register(self) -> None:
        """Registration and assignment: the site's word for who this client is."""
        machine, log = self._machine, "ClientIDManagerStartup"
        wanted = self._installation.site_code
        self._write("ClientLocation", f"Assigning client to site '{wanted}'")
        self._report_once(ASSIGNMENT_STARTED, {"site_code": wanted})
        self._write(log, "[RegTask] - Client is not registered. Sending registration request...")
        request = ccm.RegistrationRequest(
            wanted,
            machine.name,
            pki.public_jwk(self._session.key),
            self._installation.version,
            machine.os_version,
            machine.os_name,
            hardware_id=self._hardware_id,
        )
        self._session.client_id, self._assigned = "", False
        try:
            response = await self._session.post("/ccm_system_tokenauth/request", request)
        except Refused as error:
            state = WRONG_SITE if error.reason == "client.unknown-site" else NO_MANAGEMENT_POINT
            self._write(log, f"[RegTask] - Failed to register: {error.message}", ERROR)
            self._report_once(state, {"message": error.message, "cure": error.cure})
            info = ccm.ConfigInfo(
                agent=self._installation.version, setup=state, code=6, log=error.message
            )
            machine.mdm.publish(info.text())
            raise
        reply = decode(response, ccm.RegistrationReply)
        self._installation = msgspec.structs.replace(
            self._installation, client_id=reply.client_id, site_code=reply.site_code
        )
        self._folder.save(FILE, self._installation)
        self._session.client_id = reply.client_id
        if reply.token:
            self._session.keep_site_token(reply.token, reply.expires_in)
        else:
            self._session.forget_site_token()
        self._write(
            log,
            f"[RegTask] - Client is registered. Server assigned ClientID is {reply.client_id}. "
            f"Approval status {reply.approval}",
        )
        self._write(
            "ClientLocation",
            f"Rotating internet management point, new management point [1] is: "
            f"https://{self._installation.connection.host} with capabilities: "
            f'<Capabilities SchemaVersion="1.0"><Property Name="SSLState" Value="63"/></Capabilities>',
        )
        machine.mdm.publish(
            ccm.ConfigInfo(agent=self._installation.version, client=reply.client_id).text()
        )
        self._heartbeat_due = self._messages_due = machine.now()

    async def _forget_registration(self) -> None:
        self._write("ClientIDManagerStartup", "The site no longer knows this client.", WARNING)
        self._installation = msgspec.structs.replace(self._installation, client_id="")
        self._folder.save(FILE, self._installation)
        self._folder.remove("policy.json")
        self._policy = None
        self._drop_user_policy("the site no longer knows this client")

    def _report(self, topic: int, state: int, data: dict[str, Any], once: str = "") -> None:
        # Who left and comes back counts from one again, as another client with the same key.
        whose = f"{pki.jwk_thumbprint(self._session.key)}/{self.client_id}"
        occasion = f"{whose}/{once}" if once else ""
        self._spool.add(topic, state, self._machine.now(), data, occasion)

    def _report_once(self, state: int, data: dict[str, Any]) -> None:
        """For what is tried over and over: said again only when it is something else."""
        said, _, turn = (
            (self._folder.read("assignment") or b"").decode("ascii", "replace").partition(" ")
        )
        if said == str(state):
            return
        number = int(turn) if turn.isascii() and turn.isdigit() else 0
        self._report(ccm.SETUP_TOPIC, state, data, f"assignment/{number}/{state}")
        self._folder.write("assignment", f"{state} {number + 1}".encode())

    async def _poll(self) -> AppError | None:
        """Ask for policy. Only what the site signed for this client, newer than ours, counts. Returns
        what was wrong with what came, or that nobody could be asked."""
        refused: AppError | None = None
        if not self._find_way():
            self._policy_due = self._machine.now() + self._minutes(
                self.settings.policy_polling_minutes
            )
            return NothingThere("The client settings leave no way from here to the site.")
        stored = self._folder.load("policy.json", _PolicyInHand)
        headers = {"If-None-Match": stored.etag} if stored and self._policy else {}
        self._write(
            "PolicyAgent",
            "Requesting Machine policy from authority 'SMS:" + self._installation.site_code + "'",
        )
        response = await self._session.get("/SMS_MP/.sms_pol", headers=headers)
        self._policy_due = self._machine.now() + self._minutes(self.settings.policy_polling_minutes)
        if response.status_code == 304:
            self._write("PolicyAgent", "Policy is not modified.")
            self._handler.policy_checked()
        else:
            refused = self._accept(response)
        settings = self.settings
        if not (settings.enable_user_policy and settings.enable_user_policy_from_internet):
            self._drop_user_policy("the client settings do not allow it")
        else:
            try:
                await self._poll_user()
            except AppError as error:
                # What was forged or did not come changes nothing.
                passing = isinstance(error, Unreachable | ccm.BadDocument)
                if not passing and error.kind is not Kind.UNAVAILABLE:
                    self._drop_user_policy(error.message)
                self._write("PolicyAgent", f"No user policy: {error.message}", WARNING)
                self._effect("enable_user_policy_from_internet", f"no user policy: {error.code}")
        return refused

    def _accept(self, response: httpx.Response) -> AppError | None:
        before = self._policy
        try:
            policy = ccm.open_policy(
                response.text,
                self._machine.trusted_root,
                self._machine.now(),
                client_id=self.client_id,
                key=self._session.key,
                not_before=before.issued_at if before else None,
            )
            if policy.user:
                raise ccm.BadDocument("What came as the policy of this device is a user's.")
        except ccm.BadDocument as error:
            # What is in force stays in force: a forged policy must not be worth more than none.
            describe(self._journal, "PolicyAgent", error)
            self._report(ccm.FRAMEWORK_TOPIC, 2, {"code": error.code, "message": error.message})
            return error
        etag = response.headers.get("etag", "")
        self._folder.save("policy.json", _PolicyInHand(etag, response.text))
        self._policy = policy
        self._expired = False
        self._keep_pace(before)
        self._write(
            "PolicyAgent",
            f"Policy version {policy.version} of site {policy.site_code} is verified and in force "
            f"until {policy.expires_at:%m/%d/%Y %H:%M:%S}.",
        )
        if not self.settings.enable_cloud_management_gateway:
            self._effect("enable_cloud_management_gateway", "the gateway is no longer used")
            # The site hears what became of its setting; that is the last thing said this way.
            self._farewell = True
            self._notifications.moved()
            self._write(
                "LocationServices",
                "Client settings disallow the cloud management gateway (DisAllowCMG = 1).",
                WARNING,
            )
        return None

    def _keep_pace(self, before: ccm.Policy | None) -> None:
        """Settings that ask for shorter intervals hold at once, not after the longer ones."""
        now, settings, old = self._machine.now(), self.settings, _settings(before)
        self._policy_due = now + self._minutes(settings.policy_polling_minutes)
        reporting = self._minutes(settings.state_reporting_minutes)
        self._messages_due = min(self._messages_due, now + reporting)
        inventory = self._minutes(settings.hardware_inventory_minutes)
        self._inventory_due = min(self._inventory_due, now + inventory)
        if settings.enable_hardware_inventory and not old.enable_hardware_inventory:
            self._inventory_due = now

    async def _poll_user(self) -> str:
        """Ask for the policy of whoever is signed in; what came of it, in a sentence. Raises AppError."""
        settings = self.settings
        if not (settings.enable_user_policy and settings.enable_user_policy_from_internet):
            raise NoUserPolicy(
                "The client settings do not let this device ask for policy of its user.",
                cure="Allow user policy, and its requests from the internet, in the client settings.",
            )
        user = self._machine.directory.signed_in()
        headers = {"If-None-Match": self._user_etag} if self._user_etag else {}
        response = await self._session.get("/SMS_MP/.sms_pol?user", headers=headers, account="user")
        if response.status_code == 304:
            self._write("PolicyAgent", "User policy is not modified.")
            return "User policy is not modified."
        policy = ccm.open_policy(
            response.text,
            self._machine.trusted_root,
            self._machine.now(),
            client_id=self.client_id,
            key=self._session.key,
            not_before=before.issued_at if (before := self._user_policy) else None,
        )
        if not policy.user:
            raise ccm.BadDocument("What came as the policy of a user is none.")
        if policy.user != (self._session.user_id() or policy.user):
            raise ccm.BadDocument("The policy that came is another user's.")
        self._user_etag = response.headers.get("etag", "")
        self._folder.save(_USER_POLICY, _PolicyInHand(self._user_etag, response.text, user))
        self._user_policy, self._user = policy, user
        self._write("PolicyAgent", f"Received user policy for {policy.user}.")
        self._effect("enable_user_policy_from_internet", "user policy received")
        return f"Received user policy for {policy.user}."

    def _notice_user(self) -> None:
        """A user's policy is in force while that user is signed in, whether or not anybody can be
        asked for the next one's; and who signs in need not wait for the next poll."""
        user = self._machine.directory.signed_in()
        if user != self._signed_in:
            self._signed_in, self._policy_due = user, self._machine.now()
        if self._user_policy is not None and user != self._user:
            why = "another user is signed in." if user else "nobody is signed in any more."
            self._drop_user_policy(why)

    def _drop_user_policy(self, why: str) -> None:
        """Whoever is signed in no longer has one here: what it had set goes with it."""
        if self._user_policy is not None:
            self._write(
                "PolicyAgent", f"The policy of {self._user_policy.user} goes: {why}", WARNING
            )
        self._user_policy, self._user_etag, self._user = None, "", ""
        self._folder.remove(_USER_POLICY)

    def _with_users(self, policy: ccm.Policy) -> ccm.Policy:
        """The device's policy, and of its user's what the device's says nothing about: what is meant
        for the device holds whoever sits before it."""
        if self._user_policy is None or policy.leave:
            return policy
        said = {same_setting(item.setting) for item in policy.configurations}
        own = self._user_policy.configurations
        more = [item for item in own if same_setting(item.setting) not in said]
        return msgspec.structs.replace(policy, configurations=[*policy.configurations, *more])

    def _effect(self, setting: str, effect: str) -> None:
        self._effects[setting] = effect

    def _find_way(self) -> bool:
        """Choose between gateway and the management point of the intranet; False: there is none."""
        at_home = self._roaming.location.network == "intranet"
        allowed = self._policy is None or self.settings.enable_cloud_management_gateway
        if allowed and not at_home:
            self._session.intranet = ""
            return True
        self._session.intranet = self._installation.smsmp
        return bool(self._session.intranet)

    async def _evaluate(self) -> None:
        policy = self._policy
        if policy is None:
            return
        current = self._notice_expiry(policy)
        asked, self._asked = self._asked, False
        await self._follow_settings()
        await self._handler.evaluate(
            self._with_users(policy),
            self._report,
            version=self._installation.version,
            effects=dict(self._effects),
            current=current,
            sync=asked,
            user=self._user_policy.user if self._user_policy is not None else "",
            of_device={item.id for item in policy.configurations},
        )

    def _notice_expiry(self, policy: ccm.Policy) -> bool:
        """Policy that ran out stays in force, or whoever withholds it could move workloads."""
        current = policy.expires_at > self._machine.now()
        if not current and not self._expired:
            self._expired = True
            text = f"The policy expired at {policy.expires_at.isoformat()}, and no newer one came."
            self._write("PolicyAgent", text, ERROR)
            self._report(ccm.FRAMEWORK_TOPIC, 2, {"code": "policy.expired", "message": text})
        return current

    async def _follow_settings(self) -> None:
        settings, directory = self.settings, self._machine.directory
        allowed = settings.allow_cloud_distribution_point
        effect = "content may come from the gateway" if allowed else "content does not come from it"
        if not await self._check(allowed):
            effect += "; the client's package is damaged"
        self._effect("allow_cloud_distribution_point", effect)
        if settings.enable_cloud_management_gateway:
            self._effect("enable_cloud_management_gateway", "the gateway is used")
        if self._machine.root is not None:
            every = f"looked at every {settings.hardware_inventory_minutes} minutes"
            on = settings.enable_hardware_inventory
            self._effect("enable_hardware_inventory", every if on else "no hardware is reported")
        if not settings.enable_user_policy_from_internet:
            self._effect("enable_user_policy_from_internet", "no user policy is asked for")
        if directory.join() is not None:
            effect = "joined"
        elif not settings.auto_register_with_azure_ad:
            effect = "not joined, and not to be registered"
        else:
            effect = "registered"
            try:
                await directory.register()
            except AppError as error:
                effect = f"registration failed: {error.code}"
        self._effect("auto_register_with_azure_ad", effect)

    async def _check(self, from_gateway: bool) -> bool:
        """Daily, and at once when what may be fetched has changed."""
        now = self._machine.now()
        if now >= self._check_due or from_gateway is not self._fetches:
            self._fetches = from_gateway
            self._check_due = now + self._minutes(check.EVERY_MINUTES)
            self._whole = await check.repair(
                self._machine,
                self._folder,
                self._installation,
                self._session,
                self._journal,
                from_gateway=from_gateway,
            )
        return self._whole

    async def _send(self) -> None:
        """Heartbeat when due, and what the spool holds; it leaves the spool when accepted."""
        now = self._machine.now()
        if now >= min(self._inventory_due, self._heartbeat_due):
            self._report_hardware(now, whole=now >= self._heartbeat_due)
        if now >= self._heartbeat_due:
            data = {"name": self._machine.name, "version": self._installation.version}
            before = (self._folder.read("heartbeat") or b"").decode("ascii", "replace")
            self._report(ccm.HEARTBEAT_TOPIC, 1, data, f"heartbeat/{before}")
            self._heartbeat_due = now + self._minutes(HEARTBEAT_MINUTES)
            stamp = self._heartbeat_due.isoformat().encode()
            self._folder.write("heartbeat", stamp)
            self._messages_due = now
        if self._farewell:
            self._session.intranet = ""
        elif now < self._messages_due or not self._find_way():
            return
        while waiting := self._spool.oldest(_BATCH):
            done = await self._forward(waiting)
            self._spool.accepted(done)
            if not done:
                break
        await self._send_ledger()
        self.gate.shorten()
        self._farewell = False
        if self._leaves and not len(self._spool):
            await self._become_another()
        self._messages_due = now + self._minutes(self.settings.state_reporting_minutes)

    async def _leave(self) -> None:
        """The site lets this client go: what it set goes, the last word goes out, then the client.

        Killed in between, it does the rest when it is started again. The site that has retired its
        record meanwhile knows it no more, which is as good as an answer.
        """
        self.gate.give_up(Authority.SITE)
        await self._handler.undo()
        me = self.client_id.encode()
        # An older note is of the client that left before this one.
        if self._folder.read("leaving") != me:
            self._report(ccm.COMANAGEMENT_TOPIC, ccm.LEFT, {"client_id": self.client_id})
            self._folder.write("leaving", me)
        self._messages_due = self._machine.now()
        try:
            # The proof goes first: with the last word the site retires its record.
            await self._send_ledger()
            await self._send()
            if len(self._spool):
                raise Unreachable(
                    "The last word of this client is not at the site yet.",
                    cure="It goes when the site can be reached, and the client with it.",
                )
        except Refused as error:
            if error.reason != "client.unknown":
                raise
        remove(self._folder)
        self._folder.remove("leaving")
        self._machine.mdm.publish(ccm.ConfigInfo().text())
        self._write(
            "CoManagementHandler",
            "The site let this client go. The MDM service alone decides from now on.",
        )
        self.left = True

    def _report_hardware(self, now: datetime, *, whole: bool) -> None:
        """The classes that differ from what was reported last, or all, where the client settings want
        any. It is remembered once it lies in the spool, from which it goes only when the site has it."""
        settings = self.settings
        self._inventory_due = now + self._minutes(settings.hardware_inventory_minutes)
        if self._machine.root is None or not settings.enable_hardware_inventory:
            return
        found = hardware(Root(self._machine.root, self._machine.state))
        digests = {
            name: sha256(msgspec.json.encode([self.client_id, rows], order="sorted")).hexdigest()
            for name, rows in found.items()
        }
        # A series begins with the whole: what is lost, or cannot be read, is not gone on with.
        before = self._folder.load("inventory", _Inventoried) or _Inventoried(uuid4().hex)
        whole = whole or not before.number
        known = before.digests
        news = {name: rows for name, rows in found.items() if digests[name] != known.get(name)}
        if whole or news:
            after = _Inventoried(before.series, before.number + 1, digests)
            report = ccm.Inventory(found if whole else news, after.series, after.number, whole)
            self._spool.add(ccm.INVENTORY_TOPIC, 1, now, msgspec.to_builtins(report))
            self._folder.save("inventory", after)
            self._messages_due = now

    async def _send_ledger(self) -> None:
        """What the site does not have of the ledger. It goes from the ledger itself, not through
        the spool: a full spool drops its oldest, and a proof has no gaps."""
        ledger, back = self.gate.ledger, False
        while part := ledger.unsent(_ENTRIES):
            first, last = part[0].number, part[-1].number
            data = {"entries": [one.text for one in part], "oldest": ledger.oldest}
            message = ccm.Message(uuid4().hex, ccm.LEDGER_TOPIC, 1, self._machine.now(), data)
            response = await self._session.post("/ccm_incoming", ccm.IncomingRequest([message]))
            wanted = decode(response, ccm.IncomingReply).ledger_next
            if 0 < wanted < first and not back:
                # Its database was put back, or it had forgotten this client.
                self._write("StateMessage", f"The site wants the ledger from entry {wanted}.")
                ledger.wanted(wanted)
                back = True
                continue
            ledger.accepted(part[-1])
            self._write("StateMessage", f"Sent {len(part)} entries of the ledger to the MP")
            if wanted > last + 1 and len(part) < _ENTRIES:
                text = (
                    f"The site has {wanted - 1} entries of this device's ledger, and its disk"
                    f" {last}: the disk was put back to an earlier state."
                )
                self._write("StateMessage", text, WARNING)

    async def _forward(self, messages: list[ccm.Message]) -> list[str]:
        """The ids that need not be sent again."""
        number = self._next_number()
        try:
            response = await self._session.post(
                "/ccm_incoming", ccm.IncomingRequest(messages, number, self._hardware_id)
            )
        except Refused as error:
            if error.status not in (400, 413):
                raise
            if len(messages) == 1:
                # It will never be taken, and must not hold up what comes after it.
                self._write("StateMessage", f"A message is dropped: {error.message}", ERROR)
                self._tell_dropped(messages[0], error)
                return [messages[0].id]
            half = len(messages) // 2
            return await self._forward(messages[:half]) + await self._forward(messages[half:])
        reply = decode(response, ccm.IncomingReply)
        if reply.sequence > number:
            self._folder.write("sequence", str(reply.sequence).encode())
        if reply.resync:
            self._write("InventoryAgent", "The site wants the whole inventory.")
            self._folder.remove("inventory")
            self._inventory_due = self._machine.now()
        self._leaves = reply.new_identity
        text = f"Successfully forwarded {len(reply.accepted)} state messages to the MP"
        self._write("StateMessage", text)
        return reply.accepted

    def _next_number(self) -> int:
        """Of a batch of messages. It is on the disk before it is used, so none is used twice, but by
        a disk that was copied or put back."""
        stored = self._folder.read("sequence") or b"0"
        number = int(stored) + 1 if stored.isdigit() and len(stored) < 16 else 1
        self._folder.write("sequence", str(number).encode())
        return number

    def _tell_dropped(self, message: ccm.Message, error: Refused) -> None:
        if message.topic == ccm.FRAMEWORK_TOPIC:
            return  # One that tells of itself for ever helps nobody.
        data = {
            "code": "message.dropped",
            "message": f"A message of topic {message.topic} was dropped: {error.message}",
        }
        self._report(ccm.FRAMEWORK_TOPIC, 2, data)

    async def _become_another(self) -> None:
        """The site says that another machine is this client: take a key of one's own. All there was
        to say has been said as who we were."""
        self._write(
            "ClientIDManagerStartup", "The site wants this machine to be a client of its own."
        )
        key, token = await self._session.take_new_key()
        identity.prepare(self._folder, key, token)
        self.over = True

    def _heartbeat_after(self, now: datetime) -> datetime:
        stored = self._folder.read("heartbeat")
        with suppress(ValueError):
            if stored:
                # Written down by a clock that was ahead, it would be waited for.
                latest = now + self._minutes(HEARTBEAT_MINUTES)
                return min(datetime.fromisoformat(stored.decode()), latest)
        return now

    def _stored_policy(self, name: str) -> ccm.Policy | None:
        stored = self._folder.load(name, _PolicyInHand)
        if stored is None:
            return None
        try:
            # What ran out while the device was off stays in force, and is reported as expired.
            return ccm.open_policy(
                stored.sealed,
                self._machine.trusted_root,
                self._machine.now(),
                client_id=self._installation.client_id,
                key=self._session.key,
                expired=True,
            )
        except ccm.BadDocument as error:
            describe(self._journal, "PolicyAgent", error)
            return None


def _settings(policy: ccm.Policy | None) -> ccm.ClientSettings:
    if policy is None:
        return ccm.ClientSettings()
    try:
        return msgspec.convert(policy.settings, ccm.ClientSettings)
    except msgspec.ValidationError:
        return ccm.ClientSettings()
