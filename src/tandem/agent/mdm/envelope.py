"""The messages of an enrollment, as the device writes and reads them (MS-MDE2).

    → Discover             where are policy and enrollment service?
    → GetPolicies          how large must the key be, and which hash?
    → RequestSecurityToken a certificate request, signed by the new key
    ← provisioning document

Requests are templates with escaped values; answers are read by the names of their elements.
"""

from base64 import b64decode, b64encode
from binascii import Error as BadBase64
from dataclasses import dataclass
from uuid import uuid4
from xml.sax.saxutils import escape, quoteattr

from lxml import etree

from tandem.agent.mdm import xml
from tandem.agent.mdm.model import BadAnswer, EnrollmentRefused, Unreachable

_SECEXT = "http://docs.oasis-open.org/wss/2004/01/oasis-200401-wss-wssecurity-secext-1.0.xsd"
_PKI = "http://schemas.microsoft.com/windows/pki/2009/01"
_MANAGEMENT = "http://schemas.microsoft.com/windows/management/2012/01/enrollment"
DISCOVER = f"{_MANAGEMENT}/IDiscoveryService/Discover"
POLICIES = f"{_PKI}/enrollmentpolicy/IPolicy/GetPolicies"
REQUEST = f"{_PKI}/enrollment/RST/wstep"
_JWT = "urn:ietf:params:oauth:token-type:jwt"
_DEVICE = (
    "http://schemas.microsoft.com/5.0.0.0/ConfigurationManager/Enrollment/DeviceEnrollmentToken"
)

_ENVELOPE = (
    '<s:Envelope xmlns:s="http://www.w3.org/2003/05/soap-envelope"'
    ' xmlns:a="http://www.w3.org/2005/08/addressing"'
    ' xmlns:u="http://docs.oasis-open.org/wss/2004/01/oasis-200401-wss-wssecurity-utility-1.0.xsd"'
    ' xmlns:wsse="{secext}" xmlns:wst="http://docs.oasis-open.org/ws-sx/ws-trust/200512"'
    ' xmlns:ac="http://schemas.xmlsoap.org/ws/2006/12/authorization"><s:Header>'
    '<a:Action s:mustUnderstand="1">{action}</a:Action>'
    "<a:MessageID>urn:uuid:{message}</a:MessageID><a:ReplyTo>"
    "<a:Address>http://www.w3.org/2005/08/addressing/anonymous</a:Address></a:ReplyTo>"
    '<a:To s:mustUnderstand="1">{to}</a:To>{security}</s:Header>'
    '<s:Body xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"'
    ' xmlns:xsd="http://www.w3.org/2001/XMLSchema">{body}</s:Body></s:Envelope>'
)

# What Windows shows for the subcode and for the detail of a fault (spec 10), and what helps.
_SUBCODES = {
    "MessageFormat": ("0x80180001", "This version of the device and the service do not fit."),
    "Authentication": ("0x80180002", "Sign in again with the account of this device."),
    "Authorization": (
        "0x80180003",
        "Ask an administrator to allow this user to enroll devices (MDM user scope).",
    ),
    "CertificateRequest": ("0x80180004", "Try again; the service could not issue a certificate."),
    "EnrollmentServer": ("0x80180005", "Try again later."),
    "InternalServiceFault": ("0x80180006", "Look for the trace id in the service's log."),
    "InvalidSecurity": ("0x80180007", "Sign in again with the account of this device."),
}
_DETAILS = {
    "DeviceCapReached": ("0x80180013", "Remove a device that this user no longer has."),
    "DeviceNotSupported": ("0x80180014", "Ask an administrator which platforms may enroll."),
    "NotSupported": ("0x80180015", "Ask an administrator which devices may enroll."),
    "NotEligibleToRenew": ("0x80180016", "Enroll the device again."),
    "InMaintenance": ("0x80180017", "Try again later."),
    "UserLicense": (
        "0x80180018",
        "Assign this user a licence that includes the management service, then enroll again.",
    ),
    "InvalidEnrollmentData": ("0x80180019", "This device and the service do not fit."),
    "CustomServerError": ("0x80180032", "Ask your administrator."),
}
_PASSING = {"EnrollmentServer", "InternalServiceFault"}


@dataclass(frozen=True)
class Discovery:
    policy_url: str
    enrollment_url: str
    version: str


@dataclass(frozen=True)
class KeyPolicy:
    minimal_bits: int = 2048
    hash_name: str = "sha256"


@dataclass(frozen=True)
class Facts:
    """What the device tells about itself when it enrols."""

    device_id: str
    hardware_id: str
    name: str
    os_version: str
    os_edition: str
    mac: str
    upn: str


def discover(url: str, upn: str, os_version: str, os_edition: str) -> bytes:
    body = (
        f'<Discover xmlns="{_MANAGEMENT}"><request>'
        f"<EmailAddress>{escape(upn)}</EmailAddress><RequestVersion>5.0</RequestVersion>"
        "<DeviceType>CIMClient_Windows</DeviceType>"
        f"<ApplicationVersion>{escape(os_version)}</ApplicationVersion>"
        f"<OSEdition>{escape(os_edition)}</OSEdition>"
        "<AuthPolicies><AuthPolicy>OnPremise</AuthPolicy><AuthPolicy>Federated</AuthPolicy>"
        "</AuthPolicies></request></Discover>"
    )
    return _envelope(DISCOVER, url, "", body)


def policies(url: str, token: str) -> bytes:
    body = (
        f'<GetPolicies xmlns="{_PKI}/enrollmentpolicy"><client><lastUpdate xsi:nil="true"/>'
        '<preferredLanguage xsi:nil="true"/></client><requestFilter xsi:nil="true"/></GetPolicies>'
    )
    return _envelope(POLICIES, url, _security(token), body)


def request(url: str, token: str, certificate_request: bytes, facts: Facts) -> bytes:
    items = [
        ("OSEdition", facts.os_edition),
        ("OSVersion", facts.os_version),
        ("DeviceName", facts.name),
        ("MAC", facts.mac),
        ("DeviceID", facts.device_id),
        ("HWDevID", facts.hardware_id),
        ("EnrollmentType", "Device"),
        ("DeviceType", "CIMClient_Windows"),
        ("ApplicationVersion", facts.os_version),
        ("RequestVersion", "5.0"),
        ("NotInOobe", "false"),
        ("Locale", "en-US"),
        ("TargetedUserLoggedIn", "true"),
        ("EnrollmentData", ""),
    ]
    context = "".join(
        f"<ac:ContextItem Name={quoteattr(name)}><ac:Value>{escape(value)}</ac:Value>"
        "</ac:ContextItem>"
        for name, value in items
    )
    body = (
        f"<wst:RequestSecurityToken><wst:TokenType>{_DEVICE}</wst:TokenType>"
        "<wst:RequestType>http://docs.oasis-open.org/ws-sx/ws-trust/200512/Issue</wst:RequestType>"
        f'<wsse:BinarySecurityToken ValueType="{_PKI}/enrollment#PKCS10"'
        f' EncodingType="{_SECEXT}#base64binary">{b64encode(certificate_request).decode()}'
        "</wsse:BinarySecurityToken>"
        f'<ac:AdditionalContext xmlns="http://schemas.xmlsoap.org/ws/2006/12/authorization">'
        f"{context}</ac:AdditionalContext></wst:RequestSecurityToken>"
    )
    return _envelope(REQUEST, url, _security(token), body)


def renewal(url: str, upn: str, signature: bytes, os_version: str) -> bytes:
    """A renewal: the header names the user and proves nothing, the signature does."""
    security = (
        '<wsse:Security s:mustUnderstand="1"><wsse:UsernameToken>'
        f"<wsse:Username>{escape(upn)}</wsse:Username><wsse:Password></wsse:Password>"
        "</wsse:UsernameToken></wsse:Security>"
    )
    body = (
        f"<wst:RequestSecurityToken><wst:TokenType>{_DEVICE}</wst:TokenType>"
        "<wst:RequestType>http://docs.oasis-open.org/ws-sx/ws-trust/200512/Renew</wst:RequestType>"
        f'<wsse:BinarySecurityToken ValueType="{_SECEXT}#PKCS7"'
        f' EncodingType="{_SECEXT}#base64binary">{b64encode(signature).decode()}'
        "</wsse:BinarySecurityToken><ac:AdditionalContext>"
        '<ac:ContextItem Name="DeviceType"><ac:Value>CIMClient_Windows</ac:Value></ac:ContextItem>'
        '<ac:ContextItem Name="ApplicationVersion">'
        f"<ac:Value>{escape(os_version)}</ac:Value></ac:ContextItem>"
        "</ac:AdditionalContext></wst:RequestSecurityToken>"
    )
    return _envelope(REQUEST, url, security, body)


def _security(token: str) -> str:
    return (
        f'<wsse:Security s:mustUnderstand="1"><wsse:BinarySecurityToken ValueType="{_JWT}"'
        f' EncodingType="{_SECEXT}#base64binary">{b64encode(token.encode()).decode()}'
        "</wsse:BinarySecurityToken></wsse:Security>"
    )


def _envelope(action: str, to: str, security: str, body: str) -> bytes:
    return _ENVELOPE.format(
        secext=_SECEXT, action=action, message=uuid4(), to=escape(to), security=security, body=body
    ).encode()


def read_discovery(data: bytes) -> Discovery:
    """Raises EnrollmentRefused for a fault, BadAnswer."""
    result = xml.find(_body(data), "DiscoverResponse", "DiscoverResult")
    if result is None:
        raise BadAnswer("0x80180001", "The service's answer to Discover is not one.")
    enrollment = xml.text(xml.find(result, "EnrollmentServiceUrl"))
    policy = xml.text(xml.find(result, "EnrollmentPolicyServiceUrl"))
    if not enrollment.lower().startswith("https://"):
        raise BadAnswer("0x80180001", "The discovery names no enrollment service.")
    return Discovery(policy, enrollment, xml.text(xml.find(result, "EnrollmentVersion")))


def read_policies(data: bytes) -> KeyPolicy:
    body = _body(data)
    attributes = xml.find(
        body, "GetPoliciesResponse", "response", "policies", "policy", "attributes"
    )
    if attributes is None or xml.text(xml.find(attributes, "policySchema")) != "3":
        raise BadAnswer("0x80180001", "The certificate policy cannot be used.")
    bits = xml.text(xml.find(attributes, "privateKeyAttributes", "minimalKeyLength"))
    number = xml.text(xml.find(attributes, "hashAlgorithmOIDReference"))
    oids = {
        xml.text(xml.find(oid, "oIDReferenceID")): xml.text(xml.find(oid, "value"))
        for oid in body.iter()
        if xml.local(oid) == "oID"
    }
    # An absent or unknown hash makes Windows sign with SHA-1; we would rather not enroll.
    names = {
        "2.16.840.1.101.3.4.2.1": "sha256",
        "2.16.840.1.101.3.4.2.2": "sha384",
        "2.16.840.1.101.3.4.2.3": "sha512",
    }
    name = names.get(oids.get(number, ""))
    if name is None:
        raise BadAnswer("0x80180004", "The certificate policy names no hash that is safe.")
    return KeyPolicy(int(bits) if bits.isdigit() else 2048, name)


def read_document(data: bytes) -> bytes:
    """The provisioning document in the answer to the request."""
    token = xml.find(
        _body(data),
        "RequestSecurityTokenResponseCollection",
        "RequestSecurityTokenResponse",
        "RequestedSecurityToken",
        "BinarySecurityToken",
    )
    try:
        if token is None:
            raise ValueError("no token")
        return b64decode("".join(xml.text(token).split()), validate=True)
    except (BadBase64, ValueError):
        raise BadAnswer("0x80180001", "The enrollment brought no provisioning document.") from None


def _body(data: bytes) -> etree._Element:
    body = xml.find(xml.parse(data), "Body")
    if body is None:
        raise BadAnswer("0x80180001", "The service's answer is no SOAP message.")
    fault = xml.find(body, "Fault")
    if fault is not None:
        raise refusal(fault)
    return body


def refusal(fault: etree._Element) -> EnrollmentRefused | Unreachable:
    """A fault in the words and numbers that Windows shows."""
    subcode = xml.text(xml.find(fault, "Code", "Subcode", "Value")).rpartition(":")[2]
    detail = xml.text(xml.anywhere(fault, "ErrorType"))
    said = xml.text(xml.anywhere(fault, "Message")) or xml.text(xml.find(fault, "Reason", "Text"))
    number, cure = _DETAILS.get(detail) or _SUBCODES.get(
        subcode, ("0x80180006", "Look into the log of the management service.")
    )
    trace = xml.text(xml.anywhere(fault, "TraceId"))
    text = f"The management service refuses the enrollment ({detail or subcode}): {said}"
    if trace:
        text += f" Trace id {trace}."
    kind = Unreachable if subcode in _PASSING else EnrollmentRefused
    return kind(number, text, cure=cure)
