"""The device in the directory: its join, and the tokens that come from it."""

from base64 import b64decode, b64encode
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx
import msgspec
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from tandem import pki
from tandem.agent.folder import Folder
from tandem.agent.mdm.model import (
    BadAnswer,
    DeviceSettings,
    JoinRefused,
    SignInRefused,
    Unreachable,
)
from tandem.agent.mdm.sign_in import BROKER_APP, Tokens, sign_in, token
from tandem.agent.platform.meeting import JoinRecord, MeetingPlace, assertion
from tandem.infra.clock import Clock

REGISTRATION_SERVICE = "01cb2876-7ebd-4aa4-9cc9-d28bd4d359a9"
MDM_SERVICE = "0000000a-0000-0000-c000-000000000000"
SCOPE = f"openid profile offline_access {REGISTRATION_SERVICE}/.default"


class MdmUrls(msgspec.Struct, frozen=True, rename="pascal"):
    discovery_url: str
    terms_of_use_url: str = ""
    compliance_url: str = ""


class _Certificate(msgspec.Struct, frozen=True, rename="pascal"):
    raw_body: str


class _User(msgspec.Struct, frozen=True, rename="pascal"):
    upn: str


class _Joined(msgspec.Struct, frozen=True, rename="pascal"):
    certificate: _Certificate
    user: _User
    device_id: str
    tenant_id: str
    mdm_urls: MdmUrls | None = None


class Joined(msgspec.Struct, frozen=True):
    device_id: str
    upn: str
    mdm: MdmUrls | None


class Directory:
    """One device's side. Key, certificate and the user's refresh token lie in private files."""

    def __init__(
        self,
        settings: DeviceSettings,
        folder: Folder,
        place: MeetingPlace,
        http: httpx.AsyncClient,
        now: Clock,
    ) -> None:
        self._settings = settings
        self._folder = folder
        self._place = place
        self._http = http
        self._now = now

    @property
    def authority(self) -> str:
        return f"{self._settings.tenant_url.rstrip('/')}/{self._settings.tenant_id}"

    @property
    def record(self) -> JoinRecord | None:
        return self._place.join()

    @property
    def signed_in(self) -> bool:
        return self._folder.read("refresh-token") is not None

    def signs_in(self, upn: str, tokens: Tokens) -> None:
        """From now on this user is the one who is signed in."""
        # Before the token is there nobody is.
        self._folder.remove("refresh-token")
        self._place.signs_in(upn)
        self.keep(tokens)

    def signs_out(self) -> None:
        self._folder.remove("refresh-token")
        self._place.signs_out()

    def keep(self, tokens: Tokens) -> None:
        if tokens.refresh_token:
            self._folder.write("refresh-token", tokens.refresh_token.encode())

    async def join(self, access_token: str) -> Joined:
        """Join, or ask again what the directory offers this device. Raises JoinRefused."""
        settings = self._settings
        pem = self._folder.read("join.key")
        if pem is None:
            pem = pki.key_pem(pki.generate_key("p256"))
            self._folder.write("join.key", pem)
        request = x509.load_pem_x509_csr(
            pki.certificate_request(
                pki.load_key(pem), pki.name("7E980AD9-B86D-4306-9425-9AC066FB014A")
            )
        )
        der = request.public_bytes(serialization.Encoding.DER)
        asked = {
            "CertificateRequest": {"Type": "pkcs10", "Data": b64encode(der).decode()},
            "TargetDomain": settings.upn.partition("@")[2],
            "DeviceType": "Windows",
            "OSVersion": settings.os_version,
            "DeviceDisplayName": settings.name,
            "JoinType": 0,
        }
        answer = await self._join(access_token, asked)
        certificate = x509.load_der_x509_certificate(b64decode(answer.certificate.raw_body))
        self._folder.write("join.pem", pki.pem(certificate))
        path = self._folder.path
        self._place.joined(
            JoinRecord(
                answer.tenant_id,
                answer.device_id,
                self.authority,
                str(path / "join.key"),
                str(path / "join.pem"),
                str(path / "refresh-token"),
            )
        )
        return Joined(answer.device_id, answer.user.upn, answer.mdm_urls)

    async def _join(self, access_token: str, asked: dict[str, Any]) -> _Joined:
        url = f"{self._settings.tenant_url.rstrip('/')}/EnrollmentServer/device/?api-version=1.0"
        try:
            response = await self._http.post(
                url, json=asked, headers={"Authorization": f"Bearer {access_token}"}
            )
        except httpx.HTTPError as error:
            raise Unreachable(
                "0x80180010",
                f"The directory does not answer: {error or type(error).__name__}.",
                cure="Check the device's network and that the tenant runs.",
            ) from None
        if response.status_code >= 500:
            raise Unreachable("0x80180010", f"The directory answers {response.status_code}.")
        if not response.is_success:
            said, cure = _error(response)
            raise JoinRefused(
                "0x801C0003", f"The directory does not join this device: {said}", cure=cure
            )
        try:
            return msgspec.json.decode(response.content, type=_Joined)
        except msgspec.DecodeError as error:
            raise BadAnswer(
                "0x801C0003", f"The directory's answer cannot be read: {error}."
            ) from None

    async def token_for(self, scope: str) -> str:
        """A token of the signed-in user, naming this device once it is joined."""
        held = self._folder.read("refresh-token")
        if held is None:
            raise SignInRefused(
                "0x800703F0",
                "No user is signed in to this device.",
                cure="Sign in with an account of the directory.",
            )
        form = {
            "grant_type": "refresh_token",
            "client_id": BROKER_APP,
            "refresh_token": held.decode(),
            "scope": scope,
        }
        record = self.record
        if record is not None:
            form["device_assertion"] = assertion(record, self._now())
        tokens = await token(self._http, self.authority, form)
        self.keep(tokens)
        return tokens.access_token

    async def registration_token(self) -> str:
        return await self.token_for(f"openid {REGISTRATION_SERVICE}/.default")

    async def mdm_token(self) -> str:
        return await self.token_for(f"{MDM_SERVICE}/.default")


async def enrollment_token(
    http: httpx.AsyncClient,
    tenant_url: str,
    tenant_id: str,
    upn: str,
    password: str,
    name: str,
    now: Clock,
) -> str:
    """The token with which a new device of this user would enrol: it signs in, and joins.

    The directory has one device more afterwards. Raises SignInRefused, JoinRefused, Unreachable.
    """
    with TemporaryDirectory() as top:
        folder = Folder(Path(top), durable=False)
        settings = DeviceSettings(
            name=name, state=folder.path, tenant_url=tenant_url, tenant_id=tenant_id, upn=upn
        )
        place = MeetingPlace(folder.below("meeting").path, False)
        directory = Directory(settings, folder.below("AAD"), place, http, now)
        tokens = await sign_in(http, directory.authority, SCOPE, upn, password)
        directory.keep(tokens)
        await directory.join(tokens.access_token)
        return await directory.mdm_token()


def _error(response: httpx.Response) -> tuple[str, str]:
    """Ours is {error: {code, message, cure}}; the field's is {code, message}."""
    try:
        found = msgspec.json.decode(response.content, type=dict[str, Any])
    except msgspec.DecodeError:
        found = {}
    error = found.get("error", found)
    if isinstance(error, dict):
        said = error.get("message") or error.get("Message") or f"status {response.status_code}."
        return str(said), str(error.get("cure", ""))
    return str(found.get("error_description", error)), ""
