"""ccmsetup: from a command line to an installed client. Goes on where a killed one stopped."""

import asyncio
import shutil
from typing import Any

import msgspec
from cryptography import x509

from tandem import pki
from tandem.agent import commandline, download, locks
from tandem.agent.commandline import BadCommandLine, CommandLine
from tandem.agent.folder import Folder
from tandem.agent.installation import FILE, Installation, client_folder, installed, remove
from tandem.agent.journal import WARNING, Journal
from tandem.agent.platform import Machine, NotJoined
from tandem.agent.session import (
    Connection,
    NoCertificate,
    NotOnboarded,
    Refused,
    Session,
    Unreachable,
    auth_info,
    decode,
    describe,
    has_site_token,
)
from tandem.agent.spool import Spool
from tandem.agent.waiting import pause
from tandem.infra.errors import AppError, Kind
from tandem.protocols import ccm

LOG = "ccmsetup"

SUCCESS, ERROR, ALREADY_RUNNING, BAD_MANIFEST = 0, 6, 8, 10
STARTED, SUCCEEDED = 100, 400

# Code and state message (spec 4.3) of each refusal that ends a setup.
_ENDS: dict[type[AppError], tuple[int, int]] = {
    BadCommandLine: (ERROR, 307),
    download.WrongHash: (BAD_MANIFEST, 325),
    download.WrongManifest: (BAD_MANIFEST, 314),
    ccm.BadDocument: (BAD_MANIFEST, 314),
    NotOnboarded: (ERROR, 322),
    Unreachable: (ERROR, 308),
    Refused: (ERROR, 322),
}


class WrongSite(AppError):
    kind, code = Kind.INVALID, "setup.wrong-site"


class WrongRoot(AppError):
    kind, code = Kind.FORBIDDEN, "setup.wrong-root"


_ENDS[NoCertificate] = (ERROR, 315)
_ENDS[WrongSite] = (ERROR, 602)
_ENDS[WrongRoot] = (ERROR, 605)


class SetupResult(msgspec.Struct, frozen=True):
    """`code` is ccmsetup's return code, `state` the state of topic 800 that was reported."""

    code: int
    state: int
    message: str
    cure: str = ""
    version: str = ""


class Bootstrap:
    """One run of ccmsetup on one machine."""

    def __init__(self, machine: Machine, command_line: str) -> None:
        self._machine = machine
        self._given = command_line
        # What is kept and shown. A registration token lets others in: it is neither.
        self._text = commandline.kept(command_line)
        self._folder = Folder(machine.state / "ccmsetup", machine.durable)
        self._client = client_folder(machine.state, machine.durable)
        self._journal = Journal(machine.logs, machine.now)
        self._spool = Spool(self._client.below("spool"))
        self._session: Session | None = None

    async def run(self, stop: asyncio.Event) -> SetupResult:
        """Install the client. Returns when it is done, refused, timed out, or `stop` is set.

        What passes (network, gateway, site) is tried again every /retry minutes until
        /downloadtimeout; a refusal ends the setup at once, with its cause.
        """
        with locks.held(self._folder.path / "lock", wait=False) as alone:
            if not alone:
                text = "Another ccmsetup is already running on this machine."
                self._journal.write(LOG, text, WARNING)
                return SetupResult(ALREADY_RUNNING, 0, text, "Wait until it has ended.")
            try:
                line = commandline.parse(self._given)
            except BadCommandLine as error:
                return await self._refuse(error)
            if line.uninstall:
                return self._uninstall()
            return await self._persist(line, stop)

    async def _persist(self, line: CommandLine, stop: asyncio.Event) -> SetupResult:
        machine = self._machine
        minute = machine.minute_seconds
        deadline = asyncio.get_running_loop().time() + line.timeout_minutes * minute
        self._start(line)
        while True:
            try:
                return await self._install(line)
            except AppError as error:
                if error.kind not in (Kind.UNAVAILABLE, Kind.RATE_LIMITED):
                    return await self._refuse(error)
                describe(self._journal, LOG, error)
                self._publish(322, ERROR)
                late = asyncio.get_running_loop().time() + line.retry_minutes * minute > deadline
                if late or stop.is_set():
                    return await self._refuse(error, said=True)
            self._journal.write(LOG, f"Next retry in {line.retry_minutes} minute(s)...")
            if await pause(stop, line.retry_minutes * minute):
                return SetupResult(ERROR, 0, "The setup was stopped.", "Start it again.")

    def _start(self, line: CommandLine) -> None:
        self._journal.limit(*line.log_limits)
        write = self._journal.write
        write(LOG, f"==========[ ccmsetup started on {self._machine.name} ]==========")
        write(LOG, f"Command line: {commandline.masked(self._given)}")
        for remark in line.remarks:
            write(LOG, remark, WARNING)
        write(LOG, "CCMSETUP bootstrap from Internet: 1")
        if self._folder.read("started") is None:
            self._report(STARTED, {"command_line": self._text})
            self._folder.write("started", b"")
        before = installed(self._client)
        if before is None or not self._stays(before, line):
            # A client that merely starts again stands as it stood: the MDM service would take its
            # policy for gone, and the site's workloads for its own.
            self._publish(STARTED, SUCCESS)

    def _report(self, state: int, data: dict[str, Any]) -> None:
        self._spool.add(ccm.SETUP_TOPIC, state, self._machine.now(), data)

    async def _install(self, line: CommandLine) -> SetupResult:
        machine, write = self._machine, self._journal.write
        before = installed(self._client)
        if before is not None and self._stays(before, line):
            write(LOG, f"The client {before.version} is already installed.")
            return SetupResult(SUCCESS, SUCCEEDED, "Already installed.", version=before.version)
        connection = Connection(line.host, await self._auth_info(line), line.use_certificate)
        session = Session(machine, self._client, connection, self._journal, LOG)
        session.show(line.registration_token)
        self._session = session
        await session.token("device")
        await self._check_site(session, line)
        wanted = await download.manifest(session, machine, line.site_code)
        write(LOG, f"Client version {wanted.version} is wanted: {wanted.file_name}.")
        package = await download.package(session, self._folder, wanted, self._journal)
        write(LOG, f"Successfully verified the hash of {wanted.file_name}.")
        target = self._client.below("client")
        shutil.copyfile(package, target.path / f".{wanted.file_name}")
        (target.path / f".{wanted.file_name}").replace(target.path / wanted.file_name)
        target.sync()
        done = Installation(
            self._text,
            line.site_code,
            connection,
            wanted.version,
            wanted.file_name,
            line.always_internet,
            line.properties.get("SMSMP", ""),
            # A client that is installed again stays the client it was, unless it changes its site.
            before.client_id if before and before.site_code == line.site_code else "",
            wanted,
        )
        self._report(SUCCEEDED, {"version": wanted.version})
        self._client.save(FILE, done)
        await self._deliver()
        self._publish(SUCCEEDED, SUCCESS)
        write(LOG, "CcmSetup is exiting with return code 0")
        self._folder.remove("started")
        return SetupResult(SUCCESS, SUCCEEDED, "The client is installed.", version=wanted.version)

    def _stays(self, before: Installation, line: CommandLine) -> bool:
        if "logon" in line.parameters:
            return True
        if line.registration_token and not before.client_id:
            return False
        return before.command_line == self._text and "forceinstall" not in line.parameters

    async def _auth_info(self, line: CommandLine) -> ccm.AuthInfo:
        if line.use_certificate:
            return ccm.AuthInfo("", "", "")
        join = self._machine.directory.join()
        if join is None:
            if line.registration_token or has_site_token(self._client):
                return ccm.AuthInfo("", "", "")
            raise NotJoined(
                "This device is not joined to a directory, so it gets no token for the gateway.",
                cure="Join the device (a registration is not enough), then the setup can run; or"
                " run it with a bulk registration token: /regtoken:<token>.",
            )
        given = line.properties
        if "AADCLIENTAPPID" in given and "AADRESOURCEURI" in given:
            tenant = given.get("AADTENANTID", join.tenant_id)
            return ccm.AuthInfo(given["AADCLIENTAPPID"], given["AADRESOURCEURI"], tenant)
        return await auth_info(self._machine, line.host, join.tenant_id, self._journal)

    async def _check_site(self, session: Session, line: CommandLine) -> None:
        """Site and command line must mean each other, and the device must trust the signer."""
        points = decode(await session.get("/SMS_MP/.sms_aut?MPLIST"), ccm.ManagementPointList)
        if points.site_code != line.site_code:
            raise WrongSite(
                f"Failed to assign to site {line.site_code}: the management point at {line.host} "
                f"belongs to site {points.site_code}.",
                cure=f"Put SMSSITECODE={points.site_code} into the command line.",
                site_code=points.site_code,
            )
        found = decode(
            await session.get("/SMS_MP/.sms_aut?SITESIGNCERT"), ccm.SiteSigningCertificate
        )
        if not _same_root(found.root, self._machine.trusted_root):
            raise WrongRoot(
                "The site's signing certificate does not come from the trusted root key that "
                "this package carries.",
                cure="If the site was rebuilt, upload and assign its new client package.",
            )
        self._journal.write(LOG, f"Found a valid online MP '{session.base}'.")

    async def _refuse(self, error: AppError, said: bool = False) -> SetupResult:
        code, state = next(
            (ends for kind, ends in _ENDS.items() if type(error) is kind), (ERROR, 301)
        )
        if not said:
            describe(self._journal, LOG, error)
        self._report(state, {"message": error.message, "cure": error.cure, "code": error.code})
        self._publish(state, code)
        await self._deliver()
        self._journal.write(LOG, f"CcmSetup failed with error code {code}")
        self._folder.remove("started")
        return SetupResult(code, state, error.message, error.cure)

    def _publish(self, state: int, code: int) -> None:
        """The MDM service learns how the setup stands even when the site cannot be reached."""
        before = installed(self._client)
        info = ccm.ConfigInfo(
            agent=before.version if before else "",
            client=before.client_id if before else "",
            setup=state,
            code=code,
            log=self._journal.last if code else "",
        )
        self._machine.mdm.publish(info.text())

    async def _deliver(self) -> None:
        """Send how the setup goes, if there is a way; the client sends what remains.

        What the client has to say waits for it: the site takes that from a client that says who it
        is, and would do nothing with it here.
        """
        if self._session is None:
            return
        waiting = [one for one in self._spool.oldest(1000) if one.topic == ccm.SETUP_TOPIC][:100]
        if not waiting:
            return
        try:
            response = await self._session.post("/ccm_incoming", ccm.IncomingRequest(waiting))
            self._spool.accepted(decode(response, ccm.IncomingReply).accepted)
        except AppError as error:
            self._journal.write(LOG, f"State messages are kept: {error.message}", WARNING)

    def _uninstall(self) -> SetupResult:
        remove(self._client)
        self._machine.mdm.publish(ccm.ConfigInfo().text())
        self._journal.write(LOG, "The client was removed. Its key and its logs stay.")
        return SetupResult(SUCCESS, SUCCEEDED, "The client was removed.")


def _same_root(pem: str, root: x509.Certificate) -> bool:
    try:
        found = pki.read_certificates(pem.encode())
    except pki.BadCertificate:
        return False
    return pki.sha256_fingerprint(found[0]) == pki.sha256_fingerprint(root)
