"""One device: joins, enrols, keeps its sessions, installs what it is told, and hosts its agent."""

import asyncio
import hashlib
import secrets
import ssl
import threading
from contextlib import suppress
from datetime import datetime
from pathlib import Path

import httpx
import msgspec
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa

from tandem import pki
from tandem.agent.folder import Folder
from tandem.agent.gate import Gate, open_gate
from tandem.agent.handlers import FACTS
from tandem.agent.installation import FILE as INSTALLATION
from tandem.agent.mdm import branches, enrollment, renewal, session
from tandem.agent.mdm.applications import COMPLETED, Applications, Job
from tandem.agent.mdm.directory import MDM_SERVICE, SCOPE, Directory, Joined
from tandem.agent.mdm.envelope import Facts
from tandem.agent.mdm.installer import AgentHosts
from tandem.agent.mdm.messages import Command, Item
from tandem.agent.mdm.model import (
    Account,
    Applied,
    DeviceSettings,
    EnrollmentRefused,
    MdmError,
    Problem,
    SignInRefused,
    Status,
)
from tandem.agent.mdm.schedule import Poll, next_poll
from tandem.agent.mdm.session import Caller, Origin, Outcome
from tandem.agent.mdm.sign_in import sign_in
from tandem.agent.mdm.tree import ReadOnly, Store, Tree
from tandem.agent.platform import MdmEnrollment
from tandem.agent.platform.certificate import FileChannel, introduce
from tandem.agent.platform.meeting import MeetingPlace, Wanted
from tandem.agent.waiting import pause
from tandem.infra import logs, net
from tandem.infra.clock import Clock, utc_now
from tandem.infra.errors import AppError, Kind
from tandem.protocols import ccm
from tandem.workloads import Authority

_OS_EDITION = "4"
_ENROLL_ATTEMPTS = 3
_WIPES = ("doWipe", "doWipeProtected")

log = logs.get_logger(__name__)


class _Kept(msgspec.Struct):
    """What the MDM client remembers between its starts."""

    account: Account | None = None
    hardware_id: str = ""
    sessions: int = 0
    last_session_at: datetime | None = None
    last_error: Problem | None = None
    renewal_tried_at: datetime | None = None
    seen: Wanted = Wanted()
    nodes: dict[str, tuple[str, str]] = {}
    policies: dict[str, tuple[str, str]] = {}


class Network:
    """What many devices share: names, trust, and one client for what needs no certificate."""

    def __init__(self, resolver: str = "", ca_file: Path | None = None) -> None:
        self.resolver = net.Resolver(resolver or None)
        self.ca_file = ca_file
        self.context: ssl.SSLContext = net.tls_context(ca_file)
        self.http = net.client(resolver=self.resolver, context=self.context, max_connections=50)

    def browser(self) -> httpx.AsyncClient:
        """A client with cookies of its own."""
        return net.client(resolver=self.resolver, context=self.context)

    async def close(self) -> None:
        await self.http.aclose()


class Device:
    """`run` keeps the device alive; the other calls are what its user or administrator does."""

    def __init__(
        self, settings: DeviceSettings, network: Network, hosts: AgentHosts, now: Clock = utc_now
    ) -> None:
        self.settings = settings
        self._network = network
        self._hosts = hosts
        self._now = now
        top = Folder(settings.state, settings.durable)
        self._folder = top.below("MDM")
        self.place = MeetingPlace(settings.state / "meeting", settings.durable)
        self._kept = self._folder.load("client.json", _Kept) or _Kept()
        if not self._kept.hardware_id:
            self._kept.hardware_id = secrets.token_hex(32).upper()
        self.directory = Directory(settings, top.below("AAD"), self.place, network.http, now)
        self._nodes, self._policies = Store(self._kept.nodes), Store(self._kept.policies)
        self._policy = branches.Policy(self._policies, self._gate)
        self._applications = Applications(self._folder, self, now, self._woken)
        self._gate_kept: Gate | None = None
        self._busy = asyncio.Lock()
        self._preparing = threading.Lock()
        self._wake = asyncio.Event()
        self._asked: Origin | None = None
        self._work: asyncio.Task[None] | None = None
        self._certificate: ssl.SSLContext | None = None
        self._take_renewed()
        self._called_at: datetime | None = None
        self._ordered: list[str] = []  # What this session told a simulated device to do.

    # What others may ask.

    @property
    def account(self) -> Account | None:
        return self._kept.account

    def prepare(self) -> None:
        """Make the key of the next enrollment, which takes a moment, ahead of time.

        Called from several threads; who comes while a key is being made waits for that one.
        """
        with self._preparing:
            if self._folder.read("next.key") is None and self._kept.account is None:
                self._folder.write("next.key", pki.key_pem(pki.generate_key("rsa2048")))

    async def enroll(self, *, manual: bool = False) -> None:
        """Sign in, join the directory and enrol. Does nothing on a device that is enrolled.

        `manual` enrols also where the directory offers no management service, like a user who
        types the service's name. Raises AppError (with `hresult`), and remembers it.
        """
        async with self._busy:
            if self._kept.account is not None:
                return
            try:
                await self._persist(manual)
            except AppError as error:
                self._trouble(error)
                raise
            self._kept.last_error = None
            self._save()
        self.wake("enrollment")

    async def unenroll(self) -> None:
        """The user disconnects the account: the service is told once, and the account is gone."""
        async with self._busy:
            if self._kept.account is not None:
                await self._leave()

    async def sync(self, origin: Origin = "user") -> None:
        """Have a session now. Raises AppError, and remembers it."""
        async with self._busy:
            if self._kept.account is None:
                raise EnrollmentRefused(
                    "0x80180008", "This device is not enrolled.", cure="Enroll it first."
                )
            await self._session(origin)
        self._wake.set()

    def wake(self, origin: Origin = "push") -> None:
        """Have a session soon."""
        self._asked = origin
        self._wake.set()

    def agent_said(self, what: str) -> None:
        """The agent left something in the meeting folder."""
        self._wake.set()

    # Enrolling.

    async def _persist(self, manual: bool) -> None:
        for attempt in range(1, _ENROLL_ATTEMPTS + 1):
            try:
                return await self._enroll(manual)
            except AppError as error:
                if error.kind is not Kind.UNAVAILABLE or attempt == _ENROLL_ATTEMPTS:
                    raise
            await asyncio.sleep(self.settings.minute_seconds / 4 * attempt)

    async def _enroll(self, manual: bool) -> None:
        settings, network = self.settings, self._network
        if settings.join:
            joined = await self.directory.join(await self._registration_token())
            upn, discovery = joined.upn, self._discovery(joined, manual)
            token = await self.directory.mdm_token()
        else:
            upn, discovery = settings.upn, self._typed()
            token = await self._signed_in(f"openid profile {MDM_SERVICE}/.default")
        await asyncio.to_thread(self.prepare)
        pem = self._folder.read("next.key") or b""
        key = pki.load_key(pem)
        assert isinstance(key, rsa.RSAPrivateKey)
        digest = hashlib.sha256(settings.name.encode()).digest()
        facts = Facts(
            secrets.token_hex(16).upper(),
            self._kept.hardware_id,
            settings.name,
            settings.os_version,
            _OS_EDITION,
            "-".join(f"{byte:02X}" for byte in (2, *digest[:5])),
            upn,
        )
        account, given = await enrollment.enroll(
            network.http, discovery, token, facts, key, self._now()
        )
        self._folder.write("client.key", pem)
        self._folder.write("client.pem", pki.pem(given.certificate))
        self._folder.write("roots.pem", pki.pem(*given.roots) if given.roots else b"")
        self._folder.remove("next.key")
        self._certificate = None
        self._nodes.kept.clear()
        self._policies.kept.clear()
        for path, value in given.nodes.items():
            self._nodes.kept[path.removeprefix("/DMClient/")] = (value, "chr")
        self._kept.account = account
        self._save()
        self._meet(provisioned=False)
        log.info(
            "mdm.enrolled", device=settings.name, upn=account.upn, simulated=settings.simulated
        )

    async def _registration_token(self) -> str:
        if self.directory.signed_in:
            try:
                return await self.directory.registration_token()
            except SignInRefused:
                if self.settings.password_file is None:
                    raise
        return await self._signed_in(SCOPE)

    async def sign_in(self, upn: str, password_file: Path) -> None:
        """Another user signs in to this device, which has joined. Raises AppError."""
        async with self._busy:
            if self.directory.record is None:
                raise SignInRefused(
                    "0x800703F0",
                    "Users of the directory sign in to devices that have joined it.",
                    cure="Enrol the device first.",
                )
            await self._sign_in(SCOPE, upn, password_file)
        # The agent looks who is there at its next step.
        self.wake("user")

    async def sign_out(self) -> None:
        """Nobody is signed in to this device any more."""
        async with self._busy:
            self.directory.signs_out()

    async def _signed_in(self, scope: str) -> str:
        if self.settings.password_file is None or not self.settings.upn:
            raise SignInRefused(
                "0x800703F0",
                "Nobody has signed in to this device, and its settings name no password file.",
                cure="Name the user and a file with the password in the device's settings.",
            )
        return await self._sign_in(scope, self.settings.upn, self.settings.password_file)

    async def _sign_in(self, scope: str, upn: str, password_file: Path) -> str:
        try:
            password = (await asyncio.to_thread(password_file.read_text, "utf-8")).rstrip("\n")
        except (OSError, ValueError):
            raise SignInRefused(
                "0x800703F0",
                f"The password of {upn} cannot be read.",
                cure="Name a file that this process may read.",
            ) from None
        async with self._network.browser() as browser:
            tokens = await sign_in(browser, self.directory.authority, scope, upn, password)
        if self.settings.join:
            self.directory.signs_in(upn, tokens)
        return tokens.access_token

    def _discovery(self, joined: Joined, manual: bool) -> str:
        if joined.mdm is not None:
            return joined.mdm.discovery_url
        if manual:
            return self._typed()
        raise EnrollmentRefused(
            "0x8018002B",
            f"The directory joined this device, but offers {joined.upn} no management service.",
            cure="Check that the MDM authority is set, that the MDM user scope includes this user, "
            "and that the user has a licence with directory premium.",
        )

    def _typed(self) -> str:
        return f"{self.settings.tenant_url.rstrip('/')}/EnrollmentServer/Discovery.svc"

    async def _introduce(self, account: Account) -> None:
        """Learn who an enrolled device that is not joined is in the directory; tried at each session."""
        if self.settings.join or self.place.identity() is not None:
            return
        path = self._folder.path
        certificate, key = path / "client.pem", path / "client.key"
        channel = FileChannel(
            certificate, key, resolver=self._network.resolver, ca_file=self._network.ca_file
        )
        try:
            found = await introduce(channel, account.address)
        except AppError as error:
            log.info("mdm.not-introduced", device=self.settings.name, what=error.message)
            return
        self.place.identify(
            msgspec.structs.replace(found, key=str(key), certificate=str(certificate))
        )

    def _meet(self, *, provisioned: bool) -> None:
        account = self._kept.account
        if account is None:
            self.place.enrolled(MdmEnrollment(False))
            return
        self.place.enrolled(MdmEnrollment(True, account.upn, account.provider, provisioned))

    # Renewing the certificate.

    async def _renew_when_due(self) -> None:
        """Renew when it is time. A failure is remembered, and the session goes on as before."""
        account, pem = self._kept.account, self._folder.read("client.pem")
        if account is None or pem is None:
            return
        certificate = x509.load_pem_x509_certificate(pem)
        if not renewal.is_due(account, certificate, self._kept.renewal_tried_at, self._now()):
            return
        self._kept.renewal_tried_at = self._now()
        self._save()
        # The same key until it has a certificate: an answer that was lost costs nothing.
        new = self._folder.read("renewed.key")
        if new is None:
            new = await asyncio.to_thread(lambda: pki.key_pem(pki.generate_key("rsa2048")))
            self._folder.write("renewed.key", new)
        old_key, key = pki.load_key(self._folder.read("client.key") or b""), pki.load_key(new)
        assert isinstance(old_key, rsa.RSAPrivateKey)
        assert isinstance(key, rsa.RSAPrivateKey)
        settings = self.settings
        try:
            async with self._client() as http:
                made = await renewal.renew(
                    http, account, (old_key, certificate), key, settings.os_version, _OS_EDITION
                )
        except AppError as error:
            self._trouble(error)
            log.warning("mdm.not-renewed", device=settings.name, what=error.message)
            return
        self._folder.write("renewed.pem", pki.pem(made))
        self._take_renewed()
        self._kept.renewal_tried_at = None
        self._save()
        log.info("mdm.renewed", device=settings.name, until=made.not_valid_after_utc.isoformat())

    def _take_renewed(self) -> None:
        """Put key and certificate of a renewal in the place of the old ones, also after a crash."""
        pem, key = self._folder.read("renewed.pem"), self._folder.read("renewed.key")
        if pem is None or key is None:
            return
        self._folder.write("client.key", key)
        self._folder.write("client.pem", pem)
        self._folder.remove("renewed.pem")
        self._folder.remove("renewed.key")
        self._certificate = None

    # Sessions.

    async def _session(self, origin: Origin, extra: list[Command] | None = None) -> Outcome | None:
        """One session, whose trouble is remembered and raised."""
        account = self._kept.account
        assert account is not None
        if not extra:
            await self._renew_when_due()
        self._kept.sessions += 1
        self._called_at = self._now()
        number = f"{self._kept.sessions % 0x10000:X}"
        news = self._applications.news()
        alerts = [*(alert for _, alert in news), *(extra or [])]
        second = self.settings.minute_seconds / 60
        epoch = self._told_epoch()
        async with self._client() as http:
            caller = Caller(http, account, self._device_info(account), second)
            try:
                outcome = await session.hold(caller, self._tree(account), number, alerts, origin)
            except AppError as error:
                self._trouble(error)
                raise
        gate = self._gate()
        if gate is not None and epoch is not None and not outcome.unenroll:
            # The service knew these flags, and has said all that it wants.
            gate.confirm(Authority.MDM, epoch)
        self._applications.told([job for job, _ in news])
        self._kept.last_session_at = self._now()
        self._kept.last_error = None
        self._save()
        for failure in outcome.failed:
            log.info("mdm.command-refused", device=self.settings.name, what=failure)
        ordered, self._ordered = self._ordered, []
        if outcome.unenroll:
            await self._leave()
        elif any(name in _WIPES for name in ordered):
            await self._wipe()
        elif not extra:
            await self._introduce(account)
            self._meet(provisioned=True)
        return outcome

    def _told_epoch(self) -> int | None:
        """The decision about owners that the service can read in this session."""
        gate, said = self._gate(), ccm.ConfigInfo.read(self.place.config_info)
        return gate.epoch if gate is not None and gate.flags == said.flags else None

    def _client(self) -> httpx.AsyncClient:
        if self._certificate is None:
            path = self._folder.path
            files = path / "client.pem", path / "client.key"
            self._certificate = net.tls_context(self._network.ca_file, files)
        return net.client(
            resolver=self._network.resolver, context=self._certificate, max_connections=1
        )

    async def _leave(self) -> None:
        """End the enrollment: the last alert is a best effort and is not repeated."""
        alert = Command(
            "Alert",
            "",
            (Item(data="1", type="com.microsoft:mdm.unenrollment.userrequest", format="int"),),
            data="1226",
        )
        account = self._kept.account
        assert account is not None
        self._kept.account = msgspec.structs.replace(account, retry_count=0)
        with suppress(AppError):
            await self._session("user", [alert])
        self._forget()
        log.info("mdm.unenrolled", device=self.settings.name)

    async def _wipe(self) -> None:
        """A simulated device loses its enrolment and its client, without a word, as a real one."""
        self._forget()
        await self.remove()
        log.info("mdm.wiped", device=self.settings.name, simulated=True)

    def _forget(self) -> None:
        self._kept.account = None
        self.place.identify(None)
        for name in (
            "client.pem",
            "client.key",
            "roots.pem",
            "renewed.key",
            "renewed.pem",
        ):
            self._folder.remove(name)
        self._certificate = None
        self._nodes.kept.clear()
        self._policies.kept.clear()
        self._save()
        self._meet(provisioned=False)

    def _device_info(self, account: Account) -> dict[str, str]:
        settings = self.settings
        return {
            "DevId": account.device_id,
            "Man": settings.manufacturer,
            "Mod": settings.model,
            "DmV": "1.3",
            "Lang": "en-US",
        }

    def _tree(self, account: Account) -> Tree:
        settings = self.settings
        serial = self._kept.hardware_id[:12]
        system = "Windows 11 Enterprise"
        detail = {
            "SwV": settings.os_version,
            "HwV": settings.model,
            "FwV": "1.0",
            "OEM": settings.manufacturer,
            "DevTyp": settings.model,
            "Ext/Microsoft/DeviceName": settings.name,
            "Ext/Microsoft/DNSComputerName": settings.name,
            "Ext/Microsoft/SMBIOSSerialNumber": f"SIM-{serial}" if settings.simulated else serial,
            "Ext/Microsoft/OSPlatform": f"{system} (simulated)" if settings.simulated else system,
            "Ext/Microsoft/ProcessorArchitecture": "9",
            "Ext/Microsoft/TotalRAM": "8192",
            "Ext/Microsoft/TotalStorage": "262144",
            "Ext/Microsoft/LocalTime": self._now().isoformat(),
        }
        record = self.directory.record
        fixed = {
            "HWDevID": self._kept.hardware_id,
            "AADDeviceID": record.device_id if record else "",
            "EnrollmentType": "Device",
            "MaxSyncApplicationVersion": "5.0",
        }
        msft, facts = "Vendor/MSFT", self._facts()
        return Tree(
            {
                "DevInfo": ReadOnly(self._device_info(account)),
                "DevDetail": ReadOnly(detail),
                f"{msft}/DMClient": branches.Account(self._nodes, account.provider, fixed),
                f"{msft}/DeviceManageability": branches.Manageability(
                    lambda: self.place.config_info
                ),
                f"{msft}/EnterpriseDesktopAppManagement": self._applications,
                f"{msft}/Policy": self._policy,
                f"{msft}/WindowsLicensing": ReadOnly({"Edition": _OS_EDITION}),
                f"{msft}/DeviceStatus": ReadOnly(self._status_leaves(facts)),
                "Vendor/Tandem/Facts": ReadOnly(facts),
                **(self._orders() if settings.simulated else {}),
            }
        )

    def _facts(self) -> dict[str, str]:
        """The compliance facts, which the agent lays out while they are this service's."""
        folder = self.settings.state / "agent" / "CCM"
        try:
            return msgspec.json.decode((folder / FACTS).read_bytes(), type=dict[str, str])
        except (OSError, msgspec.DecodeError):
            return {}

    def _status_leaves(self, facts: dict[str, str]) -> dict[str, str]:
        """DeviceStatus, by the numbers of its CSP; what is not known has no node."""
        leaves = {"OS/Edition": _OS_EDITION, "OS/Mode": "0"}
        for fact, node, values in (
            ("encryption", "Compliance/EncryptionCompliance", {"yes": "1", "no": "0"}),
            ("firewall", "Firewall/Status", {"yes": "0", "no": "1"}),
        ):
            if facts.get(fact) in values:
                leaves[node] = values[facts[fact]]
        return leaves

    def _orders(self) -> dict[str, branches.Orders]:
        """A computer that is no simulation is not restarted or wiped by a program like this one."""
        ordered = self._ordered.append
        return {
            "Vendor/MSFT/Reboot": branches.Orders(["RebootNow"], ordered),
            "Vendor/MSFT/RemoteWipe": branches.Orders(_WIPES, ordered),
        }

    # The agent and what it decides.

    def _gate(self) -> Gate | None:
        state = self.settings.state / "agent"
        if not (state / "CCM" / INSTALLATION).exists():
            self._gate_kept = None
        elif self._gate_kept is None:
            self._gate_kept = open_gate(state, self._now, durable=self.settings.durable)
        return self._gate_kept

    async def install(self, files: dict[str, bytes], command_line: str) -> None:
        await self._hosts.install(self.settings, self.place, files, command_line)

    async def remove(self) -> None:
        """The client is uninstalled: its agent ends, and the service alone decides again."""
        await self._hosts.leave(self.settings)
        (self.settings.state / "agent" / "CCM" / INSTALLATION).unlink(missing_ok=True)
        self.place.publish("")

    # Living.

    async def run(self, stop: asyncio.Event) -> None:
        """Call when it is time, install what waits, do what the agent asks. Never raises."""
        await self._hosts.resume(self.settings)
        stopping = asyncio.create_task(self._wake_on(stop))
        try:
            while not stop.is_set():
                with suppress(TimeoutError):
                    async with asyncio.timeout(self._seconds_to_poll()):
                        await self._wake.wait()
                    self._wake.clear()
                if not stop.is_set():
                    await self._turn(stop)
        finally:
            stopping.cancel()
            if self._work is not None:
                self._work.cancel()
                await asyncio.gather(self._work, return_exceptions=True)

    async def _wake_on(self, stop: asyncio.Event) -> None:
        await stop.wait()
        self._wake.set()

    def _woken(self) -> None:
        self._wake.set()

    async def _turn(self, stop: asyncio.Event) -> None:
        try:
            await self._hear()
            self._policy.offer()
            if self._applications.has_work and (self._work is None or self._work.done()):
                self._work = asyncio.create_task(self._install(stop))
            due = self._kept.account is not None and self._seconds_to_poll() <= 0
            asked, self._asked = self._asked, None
            if self._kept.account is not None and (due or asked or self._applications.news()):
                async with self._busy:
                    if self._kept.account is not None:
                        await self._session(asked or ("schedule" if due else "alert"))
        except AppError as error:
            log.warning("mdm.trouble", device=self.settings.name, what=error.message)
        except Exception as error:
            # A device that stumbles must not end the others, nor stop calling.
            log.exception("mdm.failed", device=self.settings.name)
            self._trouble(MdmError("0x80180006", f"The MDM client failed: {type(error).__name__}."))

    async def _install(self, stop: asyncio.Event) -> None:
        minute = self.settings.minute_seconds
        try:
            await self._applications.work(self._network.http, lambda m: pause(stop, m * minute))
        except Exception:
            log.exception("mdm.install-failed", device=self.settings.name)
            await pause(stop, minute)
        self._wake.set()

    async def _hear(self) -> None:
        """Do what the agent has asked for since the last time."""
        wanted, seen = self.place.wanted, self._kept.seen
        if wanted == seen:
            return
        self._kept.seen = wanted
        self._save()
        if wanted.sessions != seen.sessions:
            self._asked = self._asked or "push"
        asked = (wanted.device_enrolments, wanted.user_enrolments)
        if asked != (seen.device_enrolments, seen.user_enrolments):
            failure: AppError | None = None
            try:
                await self.enroll()
            except AppError as error:
                failure = error
            self.place.answer(wanted, failure)
            if failure is not None:
                raise failure

    def _seconds_to_poll(self) -> float:
        """Until the next call by schedule; not more than an hour, as somebody may change it."""
        account, minute = self._kept.account, self.settings.minute_seconds
        if account is None:
            return 3600.0
        poll = self._nodes.below("Provider", account.provider, "Poll")
        schedule = Poll.read(poll) if poll else Poll()

        def minutes(at: datetime) -> float:
            return (at - account.enrolled_at).total_seconds() / minute

        # A call that failed counts too: the next one has its own time.
        calls = (self._kept.last_session_at, self._called_at, account.enrolled_at)
        due = next_poll(schedule, max(minutes(call) for call in calls if call is not None))
        return min(3600.0, (due - minutes(self._now())) * minute)

    # What it says about itself.

    def _trouble(self, error: AppError) -> None:
        code = str(error.details.get("hresult", error.code))
        self._kept.last_error = Problem(code, error.message, error.cure, self._now())
        self._save()

    def _save(self) -> None:
        self._folder.save("client.json", self._kept)

    def _client_job(self) -> Job | None:
        """The newest package that the service ordered."""
        jobs = list(self._applications.jobs.values())
        return jobs[-1] if jobs else None

    def status(self) -> Status:
        kept, settings = self._kept, self.settings
        record, job = self.directory.record, self._client_job()
        identity = self.place.identity()
        info = ccm.ConfigInfo.read(self.place.config_info)
        return Status(
            settings.name,
            settings.upn,
            settings.simulated,
            record is not None,
            record.device_id if record else identity.device_id if identity else "",
            kept.account is not None,
            kept.account.device_id if kept.account else "",
            job.status if job else 0,
            bool(job and job.status == COMPLETED),
            job.product_code if job else "",
            job.last_error_text if job else "",
            info.setup,
            info.code,
            info.log,
            info.client,
            info.agent,
            info.flags,
            info.policy,
            self._configuration(),
            kept.sessions,
            kept.last_session_at,
            kept.last_error,
        )

    def _configuration(self) -> dict[str, Applied]:
        gate = self._gate()
        if gate is not None:
            return {name: Applied(a.value, a.source) for name, a in gate.applied.items()}
        return {name: Applied(text, "mdm") for name, (text, _) in self._policies.kept.items()}
