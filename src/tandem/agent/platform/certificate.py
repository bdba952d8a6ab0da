"""The directory broker of a device that is enrolled and not joined: its MDM certificate speaks for it.

    device → GET  {management}/ManagementServer/DeviceIdentity     who this device is, to which tenant
    device → POST {management}/ManagementServer/DeviceToken        an access token for the site

Both over TLS with the MDM certificate. Who can use its key says what a channel is: here files, on
Windows the operating system, which does not give the key away (`platform.windows`).
"""

from datetime import datetime
from pathlib import Path
from typing import NamedTuple, Protocol, TypeVar
from urllib.parse import urlsplit

import httpx
import msgspec
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from tandem import pki
from tandem.agent.platform.meeting import DirectoryUnreachable, MdmIdentity, MeetingPlace
from tandem.agent.platform.model import DeviceJoin, DirectoryBroker, NotJoined, NoToken
from tandem.infra import net
from tandem.protocols import ccm

T = TypeVar("T")

GRANT = "urn:tandem:params:oauth:grant-type:mdm-certificate"


class Answer(NamedTuple):
    status: int
    body: bytes


class CertificateChannel(Protocol):
    """HTTPS with the MDM certificate. Raises DirectoryUnreachable."""

    async def get(self, url: str) -> Answer: ...

    async def post(self, url: str, form: dict[str, str]) -> Answer: ...


class _InFiles:
    """A certificate and its key in files, and how the other side is found and trusted."""

    def __init__(
        self,
        certificate: Path,
        key: Path,
        *,
        resolver: net.Resolver | None = None,
        ca_file: Path | None = None,
    ) -> None:
        self._files = certificate, key
        self._resolver = resolver
        self._ca_file = ca_file


class FileChannel(_InFiles):
    """With a certificate and a key in files."""

    async def get(self, url: str) -> Answer:
        return await self._ask("GET", url)

    async def post(self, url: str, form: dict[str, str]) -> Answer:
        return await self._ask("POST", url, form)

    async def _ask(self, method: str, url: str, form: dict[str, str] | None = None) -> Answer:
        try:
            async with net.client(
                resolver=self._resolver,
                ca_file=self._ca_file,
                certificate=self._files,
                max_connections=1,
            ) as http:
                response = await http.request(method, url, data=form)
        except OSError as error:
            raise NoToken(
                f"The MDM certificate of this device cannot be used: {error.strerror}.",
                cure="Have the device enrol again.",
            ) from None
        except httpx.HTTPError as error:
            raise DirectoryUnreachable(
                f"The tenant does not answer: {error or type(error).__name__}.",
                cure="Check the device's network.",
            ) from None
        return Answer(response.status_code, response.content)


class CertificateFile(_InFiles):
    """The `ClientCertificate` of files in PEM: the certificate with those above it, and its key."""

    @property
    def der(self) -> bytes:
        try:
            found = pki.read_certificates(self._files[0].read_bytes())
        except (OSError, pki.BadCertificate):
            raise _unusable(self._files[0]) from None
        return found[0].public_bytes(Encoding.DER)

    def prove(self, over: str, now: datetime, nonce: str) -> str:
        try:
            key = pki.load_key(self._files[1].read_bytes())
        except (OSError, *pki.UNREADABLE):
            raise _unusable(self._files[1]) from None
        if isinstance(key, ec.EllipticCurvePrivateKey) and not isinstance(key.curve, ec.SECP256R1):
            raise NoToken(
                "The key of the client certificate is neither RSA nor P-256.",
                cure="Issue a certificate for such a key.",
            )
        return ccm.key_proof(key, over, now, nonce)

    async def post(self, url: str, body: bytes) -> httpx.Response:
        headers = {"Content-Type": "application/json"}
        try:
            web = net.client(
                resolver=self._resolver,
                ca_file=self._ca_file,
                certificate=self._files,
                max_connections=1,
            )
        except OSError:
            raise _unusable(self._files[0]) from None
        async with web:
            return await web.post(url, content=body, headers=headers)


def _unusable(path: Path) -> NoToken:
    return NoToken(
        f"The client certificate of this device cannot be used: {path.name} cannot be read.",
        cure="Put certificate and key in PEM where the agent's settings say (client_certificate,"
        " client_key).",
    )


class _Identity(msgspec.Struct, frozen=True, rename="camel"):
    tenant_id: str
    device_id: str
    authority: str


class _Token(msgspec.Struct, frozen=True):
    access_token: str


class _Refusal(msgspec.Struct, frozen=True):
    error: str = ""
    error_description: str = ""


async def introduce(channel: CertificateChannel, address: str) -> MdmIdentity:
    """Ask the tenant who this device is. `address` is that of the MDM service, as enrolled.

    Raises NoToken, DirectoryUnreachable.
    """
    management = origin(address)
    answer = await channel.get(f"{management}/ManagementServer/DeviceIdentity")
    found = _read(answer, _Identity)
    return MdmIdentity(found.tenant_id, found.device_id, found.authority, management)


def origin(address: str) -> str:
    parts = urlsplit(address)
    return f"{parts.scheme}://{parts.netloc}"


class CertificateBroker:
    """The `DirectoryBroker` of such a device."""

    def __init__(self, place: MeetingPlace, channel: CertificateChannel) -> None:
        self._place = place
        self._channel = channel

    def join(self) -> DeviceJoin | None:
        found = self._place.identity()
        return DeviceJoin(found.tenant_id, found.device_id, found.authority) if found else None

    def signed_in(self) -> str:
        return ""

    async def device_token(self, authority: str, client_app_id: str, resource: str) -> str:
        found = self._place.identity()
        if found is None:
            raise NotJoined(
                "This device is neither joined to a directory nor enrolled in its MDM service.",
                cure="Enrol the device.",
            )
        form = {
            "grant_type": GRANT,
            "client_id": client_app_id,
            "scope": f"{resource}/.default",
        }
        url = f"{found.management}/ManagementServer/DeviceToken"
        return _read(await self._channel.post(url, form), _Token).access_token

    async def user_token(self, authority: str, client_app_id: str, resource: str) -> str:
        raise NoToken(
            "No user of the directory is signed in to this device (0x800703F0).",
            cure="A device that is enrolled and not joined has tokens of its own only.",
        )

    async def register(self) -> None:
        raise NotJoined(
            "This device cannot join the directory by itself.",
            cure="Join it in the settings of the operating system.",
        )


class EitherBroker:
    """By the join when the device has one, by its MDM certificate otherwise."""

    def __init__(
        self, place: MeetingPlace, joined: DirectoryBroker, enrolled: DirectoryBroker
    ) -> None:
        self._place = place
        self._joined = joined
        self._enrolled = enrolled

    @property
    def _broker(self) -> DirectoryBroker:
        alone = self._place.join() is None and self._place.identity() is not None
        return self._enrolled if alone else self._joined

    def join(self) -> DeviceJoin | None:
        return self._broker.join()

    def signed_in(self) -> str:
        return self._broker.signed_in()

    async def device_token(self, authority: str, client_app_id: str, resource: str) -> str:
        return await self._broker.device_token(authority, client_app_id, resource)

    async def user_token(self, authority: str, client_app_id: str, resource: str) -> str:
        return await self._broker.user_token(authority, client_app_id, resource)

    async def register(self) -> None:
        await self._broker.register()


class MeetingChannel:
    """With the files that the MDM client names in the meeting folder."""

    def __init__(
        self, place: MeetingPlace, resolver: net.Resolver | None, ca_file: Path | None
    ) -> None:
        self._place = place
        self._resolver = resolver
        self._ca_file = ca_file

    async def get(self, url: str) -> Answer:
        return await self._files().get(url)

    async def post(self, url: str, form: dict[str, str]) -> Answer:
        return await self._files().post(url, form)

    def _files(self) -> FileChannel:
        found = self._place.identity()
        if found is None:
            raise NotJoined("This device is not enrolled.", cure="Enrol the device.")
        certificate, key = Path(found.certificate), Path(found.key)
        return FileChannel(certificate, key, resolver=self._resolver, ca_file=self._ca_file)


def _read(answer: Answer, wanted: type[T]) -> T:
    if answer.status >= 500 or answer.status == 429:
        raise DirectoryUnreachable(
            f"The tenant answers {answer.status}.", cure="It is tried again."
        )
    if answer.status == 200:
        try:
            return msgspec.json.decode(answer.body, type=wanted)
        except msgspec.DecodeError as error:
            raise DirectoryUnreachable(f"The tenant's answer cannot be read: {error}.") from None
    try:
        refusal = msgspec.json.decode(answer.body, type=_Refusal)
    except msgspec.DecodeError:
        refusal = _Refusal()
    said = refusal.error_description or refusal.error or f"status {answer.status}"
    raise NoToken(f"The directory gives no token: {said}", cure="Have the device enrol again.")
