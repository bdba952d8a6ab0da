"""What the checking client says: enrollment and session messages, the odd ones too."""

import uuid
from base64 import b64encode
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import md5
from xml.sax.saxutils import escape, quoteattr

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import pkcs7
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from tandem.simulator.checking.enrolling import ENR, PKI, POL, WSSE, WST

JWT = "urn:ietf:params:oauth:token-type:jwt"
USER_TOKEN = (
    "http://schemas.microsoft.com/5.0.0.0/ConfigurationManager/Enrollment/DeviceEnrollmentUserToken"  # noqa: S105
)
_PASSWORD_TEXT = "http://docs.oasis-open.org/wss/2004/01/oasis-200401-wss-username-token-profile-1.0#PasswordText"  # noqa: S105
_TOKEN_TYPE = (
    "http://schemas.microsoft.com/5.0.0.0/ConfigurationManager/Enrollment/DeviceEnrollmentToken"  # noqa: S105
)
ACTIONS = {
    "discover": f"{ENR}/IDiscoveryService/Discover",
    "policies": f"{POL}/IPolicy/GetPolicies",
    "issue": f"{PKI}/RST/wstep",
}
OFFERED = ("OnPremise", "Federated")
_DEVICE_ID = x509.ObjectIdentifier("1.3.6.1.4.1.311.66.1.0")
_META = "syncml:metinf"


@dataclass(frozen=True)
class Credential:
    """A token (with the type of its value), or a user's name and password."""

    value: str
    value_type: str = ""
    user: str = ""

    @property
    def header(self) -> str:
        if self.user:
            return (
                '<wsse:UsernameToken u:Id="uuid-cc1ccc1f-2fba-4bcf-b063-ffc0cac77917-4">'
                f"<wsse:Username>{escape(self.user)}</wsse:Username><wsse:Password"
                f' wsse:Type="{_PASSWORD_TEXT}">{escape(self.value)}</wsse:Password>'
                "</wsse:UsernameToken>"
            )
        return (
            f'<wsse:BinarySecurityToken ValueType="{self.value_type}"'
            f' EncodingType="{WSSE}#base64binary">{b64encode(self.value.encode()).decode()}'
            "</wsse:BinarySecurityToken>"
        )


def token(value: str) -> Credential:
    """A JWT goes as such, anything else as a token that somebody gave the device."""
    return Credential(value, JWT if value.count(".") == 2 else USER_TOKEN)


def envelope(step: str, url: str, message_id: str, security: str, body: str) -> str:
    proof = f'<wsse:Security s:mustUnderstand="1">{security}</wsse:Security>' if security else ""
    return (
        '<s:Envelope xmlns:s="http://www.w3.org/2003/05/soap-envelope"'
        ' xmlns:a="http://www.w3.org/2005/08/addressing"'
        ' xmlns:u="http://docs.oasis-open.org/wss/2004/01/oasis-200401-wss-wssecurity-utility-1.0.xsd"'
        f' xmlns:wsse="{WSSE}" xmlns:wst="{WST}"'
        ' xmlns:ac="http://schemas.xmlsoap.org/ws/2006/12/authorization"><s:Header>'
        f'<a:Action s:mustUnderstand="1">{ACTIONS[step]}</a:Action>'
        f"<a:MessageID>{message_id}</a:MessageID><a:ReplyTo>"
        "<a:Address>http://www.w3.org/2005/08/addressing/anonymous</a:Address></a:ReplyTo>"
        f'<a:To s:mustUnderstand="1">{escape(url)}</a:To>{proof}</s:Header>'
        '<s:Body xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance">'
        f"{body}</s:Body></s:Envelope>"
    )


def message_id() -> str:
    return f"urn:uuid:{uuid.uuid4()}"


def discover(url: str, id: str, user: str, version: str, offered: Iterable[str] = OFFERED) -> str:
    names = "".join(f"<AuthPolicy>{name}</AuthPolicy>" for name in offered)
    return envelope(
        "discover",
        url,
        id,
        "",
        f'<Discover xmlns="{ENR}"><request><EmailAddress>{escape(user)}</EmailAddress>'
        f"<RequestVersion>{version}</RequestVersion><DeviceType>CIMClient_Windows</DeviceType>"
        "<ApplicationVersion>10.0.26100.1</ApplicationVersion><OSEdition>4</OSEdition>"
        f"<AuthPolicies>{names}</AuthPolicies></request></Discover>",
    )


def policies(url: str, id: str, security: str) -> str:
    body = (
        f'<GetPolicies xmlns="{POL}"><client><lastUpdate xsi:nil="true"/>'
        '<preferredLanguage xsi:nil="true"/></client><requestFilter xsi:nil="true"/></GetPolicies>'
    )
    return envelope("policies", url, id, security, body)


def issue(
    url: str,
    id: str,
    security: str,
    request: bytes,
    items: Sequence[tuple[str, str]],
    *,
    kind: str = "Issue",
    value_type: str = f"{PKI}#PKCS10",
) -> str:
    context = "".join(
        f"<ac:ContextItem Name={quoteattr(name)}><ac:Value>{escape(value)}</ac:Value>"
        "</ac:ContextItem>"
        for name, value in items
    )
    body = (
        f"<wst:RequestSecurityToken><wst:TokenType>{_TOKEN_TYPE}</wst:TokenType>"
        f"<wst:RequestType>{WST}/{kind}</wst:RequestType>"
        f'<wsse:BinarySecurityToken ValueType="{value_type}"'
        f' EncodingType="{WSSE}#base64binary">{b64encode(request).decode()}'
        f"</wsse:BinarySecurityToken><ac:AdditionalContext>{context}</ac:AdditionalContext>"
        "</wst:RequestSecurityToken>"
    )
    return envelope("issue", url, id, security, body)


def context(device_id: str, name: str, kind: str) -> list[tuple[str, str]]:
    """AdditionalContext as current Windows sends it."""
    return [
        ("UXInitiated", "true"),
        ("HWDevID", uuid.uuid5(uuid.NAMESPACE_OID, name).hex.upper() * 2),
        ("Locale", "en-US"),
        ("TargetedUserLoggedIn", "true"),
        ("OSEdition", "4"),
        ("DeviceName", name),
        ("MAC", "02-00-5E-00-53-01"),
        ("MAC", "02-00-5E-00-53-01"),
        ("DeviceID", device_id),
        ("EnrollmentType", kind),
        ("DeviceType", "CIMClient_Windows"),
        ("OSVersion", "10.0.26100.1"),
        ("ApplicationVersion", "10.0.26100.1"),
        ("NotInOobe", "false"),
        ("RequestVersion", "5.0"),
        ("EnrollmentData", "null"),
    ]


Key = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey


def subject(device_id: str) -> x509.Name:
    common = f"B1C43CD0-1624-5FBB-8E54-34CF17!{device_id}"
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def certificate_request(key: Key, device_id: str) -> bytes:
    builder = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(subject(device_id))
        .add_extension(x509.UnrecognizedExtension(_DEVICE_ID, device_id.encode() + b"\0"), False)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), False)
    )
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.DER)


def renewal_request(key: Key, device_id: str, old: x509.Certificate, old_key: Key) -> bytes:
    """A request for the new key, signed with the old one (CMS, the request inside)."""
    request = certificate_request(key, device_id)
    made = pkcs7.PKCS7SignatureBuilder().set_data(request).add_signer(old, old_key, hashes.SHA256())
    return made.sign(serialization.Encoding.DER, [pkcs7.PKCS7Options.Binary])


# ---------------------------------------------------------------------- sessions


@dataclass(frozen=True)
class Said:
    """A message of the device, and the commands of it that want a Status."""

    number: int
    data: bytes
    commands: tuple[tuple[str, str], ...]


def first(
    session: str,
    address: str,
    device_id: str,
    max_bytes: int,
    *,
    alerts: Sequence[str] = (),
    dev_id: str = "",
    login: str = "user",
    proof: str = "",
) -> Said:
    """The first message: who is there, news, and what the device is."""
    info = "".join(
        f"<Item><Source><LocURI>./DevInfo/{name}</LocURI></Source><Data>{escape(value)}</Data></Item>"
        for name, value in (
            ("DevId", dev_id or device_id),
            ("Man", "Tandem"),
            ("Mod", "Checking client"),
            ("DmV", "1.3"),
            ("Lang", "en-US"),
        )
    )
    parts = [
        ("Alert", "<Data>1201</Data>"),
        (
            "Alert",
            "<Data>1224</Data><Item><Meta>"
            f'<Type xmlns="{_META}">com.microsoft/MDM/LoginStatus</Type></Meta>'
            f"<Data>{login}</Data></Item>",
        ),
        *(("Alert", alert) for alert in alerts),
        ("Replace", info),
    ]
    return _message(session, 1, address, device_id, "", parts, max_bytes, proof=proof)


def digest(name: str, secret: str, nonce: bytes) -> str:
    """Cred of a device that answers a challenge (section 11.7)."""
    inner = b64encode(md5(f"{name}:{secret}".encode(), usedforsecurity=False).digest())
    found = b64encode(md5(inner + b":" + nonce, usedforsecurity=False).digest()).decode()
    return credential("syncml:auth-md5", found)


def basic(name: str, secret: str) -> str:
    return credential("syncml:auth-basic", b64encode(f"{name}:{secret}".encode()).decode())


def credential(kind: str, data: str) -> str:
    return (
        f'<Cred><Meta><Format xmlns="{_META}">b64</Format><Type xmlns="{_META}">{kind}</Type></Meta>'
        f"<Data>{data}</Data></Cred>"
    )


def signature(data: bytes, certificate: x509.Certificate, key: Key) -> str:
    """MDM-Signature of a body: CMS beside it, in base64."""
    made = (
        pkcs7.PKCS7SignatureBuilder().set_data(data).add_signer(certificate, key, hashes.SHA256())
    )
    options = [pkcs7.PKCS7Options.Binary, pkcs7.PKCS7Options.DetachedSignature]
    return b64encode(made.sign(serialization.Encoding.DER, options)).decode()


def alert(code: str, kind: str, data: str) -> str:
    return (
        f'<Data>{code}</Data><Item><Meta><Format xmlns="{_META}">int</Format>'
        f'<Type xmlns="{_META}">{kind}</Type></Meta><Data>{data}</Data></Item>'
    )


def later(
    session: str,
    number: int,
    address: str,
    device_id: str,
    answered: str,
    alerts: Sequence[str] = (),
    *,
    final: bool = True,
    max_bytes: int = 0,
) -> Said:
    """Any other message: statuses and results (XML that is ready), then alerts."""
    parts = [("Alert", text) for text in alerts]
    return _message(session, number, address, device_id, answered, parts, max_bytes, final)


def _message(
    session: str,
    number: int,
    address: str,
    device_id: str,
    answered: str,
    parts: Sequence[tuple[str, str]],
    max_bytes: int,
    final: bool = True,
    proof: str = "",
) -> Said:
    # Windows begins with 2; ids of statuses are made by whoever makes them, from 100 on.
    commands = tuple((str(n), name) for n, (name, _) in enumerate(parts, 2))
    body = "".join(
        f"<{name}><CmdID>{id}</CmdID>{inside}</{name}>"
        for (id, name), (_, inside) in zip(commands, parts, strict=True)
    )
    size = f'<Meta><MaxMsgSize xmlns="{_META}">{max_bytes}</MaxMsgSize></Meta>' if max_bytes else ""
    data = (
        '<SyncML xmlns="SYNCML:SYNCML1.2"><SyncHdr><VerDTD>1.2</VerDTD><VerProto>DM/1.2</VerProto>'
        f"<SessionID>{session}</SessionID><MsgID>{number}</MsgID>"
        f"<Target><LocURI>{escape(address)}</LocURI></Target>"
        f"<Source><LocURI>{escape(device_id)}</LocURI></Source>{proof}{size}</SyncHdr>"
        f"<SyncBody>{answered}{body}{'<Final/>' if final else ''}</SyncBody></SyncML>"
    )
    return Said(number, data.encode(), commands)
