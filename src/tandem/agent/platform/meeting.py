"""Where the operating system's MDM client and the agent meet when they are two processes: a folder.

    join.json      written by who joined the device: tenant, device id, authority, key, certificate
    identity.json  written by the MDM client of a device that enrolled without a join: who it is there
    mdm.json       written by the MDM client: enrolled, upn, provider, provisioned
    setup.json     written by who installed the MSI: its command line and trusted root
    config-info    written by the agent, read by the MDM client when the server asks for it
    wanted.json    written by the agent: how often it asked for a session or an enrolment
    answered.json  written by the MDM client: up to which of these enrolments it has tried, and how
                   the last one ended

Each file has one writer and is replaced whole, so neither process waits for the other.
"""

import asyncio
import time
from base64 import b64encode
from datetime import datetime, timedelta
from pathlib import Path
from uuid import uuid4

import httpx
import msgspec
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from joserfc import jwt
from joserfc.jwk import ECKey

from tandem import pki
from tandem.agent.folder import Folder
from tandem.agent.platform.model import (
    ConfigurationGate,
    DeviceJoin,
    MdmEnrollment,
    NotJoined,
    NoToken,
)
from tandem.infra.clock import Clock
from tandem.infra.errors import AppError, Kind
from tandem.infra.secrets import write_private

# The broker's own app in every directory (Microsoft Authentication Broker).
BROKER_APP = "29d9ed98-a469-4536-ade2-f981bc1d605e"
# For how long the agent waits for the MDM client's word on an enrolment, and how often it looks.
PATIENCE_SECONDS, LOOK_SECONDS = 150.0, 0.1
_JWT_BEARER = "urn:ietf:params:oauth:grant-type:jwt-bearer"


class JoinRecord(msgspec.Struct, frozen=True):
    """`authority` is `{tenant URL}/{tenant id}`; key, certificate and refresh token are paths."""

    tenant_id: str
    device_id: str
    authority: str
    key: str
    certificate: str
    refresh_token: str = ""


class MdmIdentity(msgspec.Struct, frozen=True):
    """Of a device that is enrolled and not joined. `management` is the MDM service's origin; key and
    certificate are paths, and empty where the operating system keeps them."""

    tenant_id: str
    device_id: str
    authority: str
    management: str
    key: str = ""
    certificate: str = ""


class SetupRequest(msgspec.Struct, frozen=True):
    command_line: str
    trusted_root: str


class Wanted(msgspec.Struct, frozen=True):
    """Counters: the MDM client acts when one is higher than the one it last saw."""

    sessions: int = 0
    device_enrolments: int = 0
    user_enrolments: int = 0


class Answered(msgspec.Struct, frozen=True):
    """Enrolments that were asked for up to these counts were tried. `code` is the HRESULT or name of
    what the last one failed for; empty when it did not fail."""

    device_enrolments: int = 0
    user_enrolments: int = 0
    code: str = ""
    text: str = ""
    cure: str = ""

    def answers(self, wanted: Wanted) -> bool:
        return (
            self.device_enrolments >= wanted.device_enrolments
            and self.user_enrolments >= wanted.user_enrolments
        )


class EnrollmentAsked(AppError):
    """The MDM client was asked and has not said yet how it went; that shows in its state."""

    kind, code = Kind.UNAVAILABLE, "mdm.enrollment-asked"


class EnrollmentFailed(AppError):
    """The MDM client tried, and was refused; `hresult` is the number that it knows for it."""

    kind, code = Kind.FORBIDDEN, "mdm.enrollment-failed"


class DirectoryUnreachable(AppError):
    kind, code = Kind.UNAVAILABLE, "directory.unreachable"


class _Mdm(msgspec.Struct, frozen=True):
    enrolled: bool = False
    upn: str = ""
    provider: str = ""
    provisioned: bool = False


class MeetingPlace:
    """Both sides of the folder."""

    def __init__(self, path: Path, durable: bool = True) -> None:
        self._folder = Folder(path, durable)

    def join(self) -> JoinRecord | None:
        return self._folder.load("join.json", JoinRecord)

    def joined(self, record: JoinRecord) -> None:
        self._folder.save("join.json", record)

    @property
    def user(self) -> str:
        """The sign-in name of who signed in last; empty where that was not written down."""
        return (self._folder.read("user") or b"").decode("utf-8", "replace")

    def signs_in(self, upn: str) -> None:
        self._folder.write("user", upn.encode())

    def signs_out(self) -> None:
        self._folder.remove("user")

    def identity(self) -> MdmIdentity | None:
        return self._folder.load("identity.json", MdmIdentity)

    def identify(self, identity: MdmIdentity | None) -> None:
        if identity is None:
            self._folder.remove("identity.json")
        else:
            self._folder.save("identity.json", identity)

    def enrollment(self) -> MdmEnrollment:
        found = self._folder.load("mdm.json", _Mdm) or _Mdm()
        return MdmEnrollment(found.enrolled, found.upn, found.provider, found.provisioned)

    def enrolled(self, state: MdmEnrollment) -> None:
        self._folder.save(
            "mdm.json", _Mdm(state.enrolled, state.upn, state.provider, state.provisioned)
        )

    def setup(self) -> SetupRequest | None:
        return self._folder.load("setup.json", SetupRequest)

    def install(self, request: SetupRequest) -> None:
        self._folder.save("setup.json", request)

    def withdraw_setup(self) -> None:
        """The client is gone, and is not to be set up again by itself."""
        self._folder.remove("setup.json")

    @property
    def config_info(self) -> str:
        return (self._folder.read("config-info") or b"").decode("utf-8", "replace")

    def publish(self, text: str) -> None:
        if text != self.config_info:
            self._folder.write("config-info", text.encode())

    @property
    def wanted(self) -> Wanted:
        return self._folder.load("wanted.json", Wanted) or Wanted()

    def want(self, *, session: int = 0, device: int = 0, user: int = 0) -> Wanted:
        now = self.wanted
        asked = Wanted(
            now.sessions + session, now.device_enrolments + device, now.user_enrolments + user
        )
        self._folder.save("wanted.json", asked)
        return asked

    @property
    def answered(self) -> Answered:
        return self._folder.load("answered.json", Answered) or Answered()

    def answer(self, wanted: Wanted, failure: AppError | None) -> None:
        """How the enrolment that was asked for went."""
        code = str(failure.details.get("hresult", failure.code)) if failure else ""
        self._folder.save(
            "answered.json",
            Answered(
                wanted.device_enrolments,
                wanted.user_enrolments,
                code,
                failure.message if failure else "",
                failure.cure if failure else "",
            ),
        )


class FolderBridge:
    """The `MdmBridge` of an agent whose MDM client is another process.

    The other process builds its own `Gate` on the agent's state folder; both keep it under a lock.
    """

    def __init__(self, place: MeetingPlace, patience_seconds: float = PATIENCE_SECONDS) -> None:
        self._place = place
        self._patience = patience_seconds

    def enrollment(self) -> MdmEnrollment:
        return self._place.enrollment()

    def publish(self, config_info: str) -> None:
        self._place.publish(config_info)

    def install_gate(self, gate: ConfigurationGate) -> None:
        pass

    async def enroll(self, user: bool = False) -> None:
        """Raises EnrollmentFailed, and EnrollmentAsked when nothing was heard for some minutes."""
        asked = self._want(device=int(not user), user=int(user))
        until = time.monotonic() + self._patience
        while not (answered := self._place.answered).answers(asked):
            if self._place.enrollment().enrolled:
                return
            if time.monotonic() > until:
                raise EnrollmentAsked(
                    "The MDM client was asked to enroll, and has not said how it went."
                )
            await asyncio.sleep(LOOK_SECONDS)
        if answered.code and not self._place.enrollment().enrolled:
            known = {"hresult": answered.code} if answered.code.startswith("0x") else {}
            raise EnrollmentFailed(answered.text, cure=answered.cure, **known)

    async def sync(self) -> None:
        self._want(session=1)

    def _want(self, *, session: int = 0, device: int = 0, user: int = 0) -> Wanted:
        """Leave word for the other process."""
        return self._place.want(session=session, device=device, user=user)


class JoinBroker:
    """The `DirectoryBroker` of a device that holds its join key in files."""

    def __init__(self, place: MeetingPlace, http: httpx.AsyncClient, now: Clock) -> None:
        self._place = place
        self._http = http
        self._now = now

    def join(self) -> DeviceJoin | None:
        record = self._place.join()
        return DeviceJoin(record.tenant_id, record.device_id, record.authority) if record else None

    def signed_in(self) -> str:
        record = self._place.join()
        if record is None or not record.refresh_token or not Path(record.refresh_token).exists():
            return ""
        return self._place.user or "a user"

    async def device_token(self, authority: str, client_app_id: str, resource: str) -> str:
        record = self._joined()
        return await self._token(
            record,
            {
                "grant_type": _JWT_BEARER,
                "client_id": client_app_id,
                "scope": f"{resource}/.default",
                "assertion": assertion(record, self._now()),
            },
        )

    async def user_token(self, authority: str, client_app_id: str, resource: str) -> str:
        record = self._joined()
        return await self._token(
            record,
            {
                "grant_type": "refresh_token",
                "client_id": BROKER_APP,
                "scope": f"{resource}/user_impersonation",
                "refresh_token": _refresh_token(record),
                "device_assertion": assertion(record, self._now()),
            },
        )

    async def register(self) -> None:
        raise NotJoined(
            "This device cannot join the directory by itself.",
            cure="Join it in the settings of the operating system.",
        )

    def _joined(self) -> JoinRecord:
        record = self._place.join()
        if record is None:
            raise NotJoined(
                "This device is not joined to a directory (0xd0090016).", cure="Join the device."
            )
        return record

    async def _token(self, record: JoinRecord, form: dict[str, str]) -> str:
        try:
            response = await self._http.post(_endpoint(record), data=form)
        except httpx.HTTPError as error:
            raise DirectoryUnreachable(
                f"The directory does not answer: {error or type(error).__name__}.",
                cure="Check the device's network.",
            ) from None
        if response.status_code >= 500:
            raise DirectoryUnreachable(f"The directory answers {response.status_code}.")
        try:
            answer = msgspec.json.decode(response.content, type=dict[str, object])
        except msgspec.DecodeError:
            answer = {}
        token = answer.get("access_token")
        if response.is_success and isinstance(token, str):
            # A refresh token is good for one use; the answer brings the next one.
            following = answer.get("refresh_token")
            used = form.get("refresh_token")
            # Unless another user signed in meanwhile.
            if used and isinstance(following, str) and used == _refresh_token(record):
                write_private(Path(record.refresh_token), following.encode())
            return token
        said = answer.get("error_description") or answer.get("error") or response.status_code
        raise NoToken(f"The directory gives no token: {said}.")


def _refresh_token(record: JoinRecord) -> str:
    try:
        return Path(record.refresh_token).read_text().strip()
    except OSError:
        raise NoToken(
            "No user is signed in to this device (0x800703F0).",
            cure="Sign in once with an account of the directory.",
        ) from None


def _endpoint(record: JoinRecord) -> str:
    return f"{record.authority.rstrip('/')}/oauth2/v2.0/token"


def assertion(record: JoinRecord, now: datetime) -> str:
    """The device's word for itself, signed by its join key (valid for five minutes)."""
    key = pki.load_key(Path(record.key).read_bytes())
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    certificate = x509.load_pem_x509_certificate(Path(record.certificate).read_bytes())
    der = b64encode(certificate.public_bytes(Encoding.DER)).decode()
    claims = {
        "iss": record.device_id,
        "sub": record.device_id,
        "aud": _endpoint(record),
        "iat": int(now.timestamp()),
        "exp": int((now + timedelta(minutes=5)).timestamp()),
        "jti": uuid4().hex,
    }
    header = {"alg": "ES256", "typ": "JWT", "x5c": [der]}
    return jwt.encode(header, claims, ECKey.import_key(pki.key_pem(key)))
