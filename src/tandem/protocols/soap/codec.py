"""SOAP 1.2 in and out."""

import binascii
import uuid
from base64 import b64decode, b64encode
from datetime import timedelta
from typing import Any

from lxml import etree

from tandem.infra import xml
from tandem.protocols.soap.model import (
    DISCOVER,
    DISCOVER_RESPONSE,
    GET_POLICIES,
    GET_POLICIES_RESPONSE,
    PASSWORD_TEXT,
    REQUEST_TOKEN,
    REQUEST_TOKEN_RESPONSE,
    BadMessage,
    BadSecurity,
    Credential,
    Discover,
    DiscoverResponse,
    Envelope,
    Fault,
    GetPolicies,
    KeyPolicy,
    RequestToken,
    TokenResponse,
)

S = "http://www.w3.org/2003/05/soap-envelope"
S11 = "http://schemas.xmlsoap.org/soap/envelope/"
A = "http://www.w3.org/2005/08/addressing"
WSSE = "http://docs.oasis-open.org/wss/2004/01/oasis-200401-wss-wssecurity-secext-1.0.xsd"
WSU = "http://docs.oasis-open.org/wss/2004/01/oasis-200401-wss-wssecurity-utility-1.0.xsd"
WST = "http://docs.oasis-open.org/ws-sx/ws-trust/200512"
AC = "http://schemas.xmlsoap.org/ws/2006/12/authorization"
ENR = "http://schemas.microsoft.com/windows/management/2012/01/enrollment"
POL = "http://schemas.microsoft.com/windows/pki/2009/01/enrollmentpolicy"
PKI = "http://schemas.microsoft.com/windows/pki/2009/01/enrollment"
DIAG = "http://schemas.microsoft.com/2004/09/ServiceModel/Diagnostics"
XSI = "http://www.w3.org/2001/XMLSchema-instance"
_PROVISION_DOC = (
    "http://schemas.microsoft.com/5.0.0.0/ConfigurationManager/Enrollment"
    "/DeviceEnrollmentProvisionDoc"
)
_TOKEN = (
    "http://schemas.microsoft.com/5.0.0.0/ConfigurationManager/Enrollment/DeviceEnrollmentToken"  # noqa: S105
)
_BASE64 = f"{WSSE}#base64binary"
# Of a machine with several network cards or modems; any other item says one thing.
_REPEATED = {"MAC", "IMEI"}


def _parse(data: bytes) -> Any:
    try:
        return xml.parse(data)
    except xml.BadXml as error:
        raise BadMessage(str(error)) from None


def _only(parent: Any, path: str) -> Any:
    """The one child of this name, or None. What is said twice could be read in two ways."""
    found = parent.findall(path)
    if len(found) > 1:
        raise BadMessage(f"{etree.QName(found[0]).localname} is given twice")
    return found[0] if found else None


def _text(parent: Any, path: str) -> str:
    found = parent.find(path)
    return (found.text or "").strip() if found is not None else ""


def _tag(namespace: str, *names: str) -> str:
    return "/".join(f"{{{namespace}}}{name}" for name in names)


def is_soap11(data: bytes) -> bool:
    """Whether the request is one of SOAP 1.1, which the specification's text names and no real
    client was seen to send (section 2)."""
    try:
        return bool(_parse(data).tag == f"{{{S11}}}Envelope")
    except BadMessage:
        return False


def _as_soap12(root: Any) -> None:
    """The frame of a request of SOAP 1.1, renamed: Envelope, Header, Body and their attributes."""
    for element in (root, *root.findall(f"{{{S11}}}Header"), *root.findall(f"{{{S11}}}Body")):
        element.tag = element.tag.replace(S11, S)


def as_soap11(answer: bytes) -> bytes:
    """An answer of this module in SOAP 1.1, where a fault has other elements (SOAP 1.1, 4.4)."""
    root = _parse(answer)
    old = etree.Element(f"{{{S11}}}Envelope", nsmap={"s": S11, "a": A, "u": WSU})
    for part in root:
        there = etree.SubElement(old, part.tag.replace(S, S11), nsmap={"xsi": XSI})
        for child in list(part):
            there.append(child)
    for element in old.iter():
        value = element.get(f"{{{S}}}mustUnderstand")
        if value:
            del element.attrib[f"{{{S}}}mustUnderstand"]
            element.set(f"{{{S11}}}mustUnderstand", value)
    body = old.find(f"{{{S11}}}Body")
    fault = None if body is None else body.find(f"{{{S}}}Fault")
    if body is not None and fault is not None:
        subcode = fault.findtext(f"{_tag(S, 'Code', 'Subcode', 'Value')}")
        text = fault.findtext(_tag(S, "Reason", "Text"))
        detail = fault.find(_tag(S, "Detail"))
        told = etree.SubElement(body, f"{{{S11}}}Fault")
        # Subcodes do not exist in it: what they tell apart stands in the code itself.
        etree.SubElement(told, "faultcode").text = subcode
        etree.SubElement(told, "faultstring").text = text
        if detail is not None:
            inner = etree.SubElement(told, "detail")
            for child in list(detail):
                inner.append(child)
        body.remove(fault)
    etree.cleanup_namespaces(old, keep_ns_prefixes=["s", "a", "xsi"])
    return _bytes(old)


def message_id(data: bytes) -> str:
    """The MessageID of what may be no valid message, for the fault that answers it."""
    try:
        root = _parse(data)
    except BadMessage:
        return "invalid_message_id"
    for namespace in (S, S11):
        found = _text(root, f"{_tag(namespace, 'Header')}/{_tag(A, 'MessageID')}")
        if found:
            return found
    return "invalid_message_id"


def read(data: bytes) -> Envelope:
    """A request of enrollment. Raises BadMessage, BadSecurity."""
    root = _parse(data)
    if root.tag == f"{{{S11}}}Envelope":
        _as_soap12(root)
    if root.tag != f"{{{S}}}Envelope":
        raise BadMessage("not a SOAP envelope")
    header, body = _only(root, _tag(S, "Header")), _only(root, _tag(S, "Body"))
    if header is None or body is None:
        raise BadMessage("header or body is missing")
    for name in ("Action", "MessageID", "To"):
        _only(header, _tag(A, name))
    action = _text(header, _tag(A, "Action"))
    readers: dict[str, Any] = {
        DISCOVER: _discover,
        GET_POLICIES: _policies,
        REQUEST_TOKEN: _request_token,
    }
    if action not in readers:
        raise BadMessage("unknown action")
    identity = _text(header, _tag(A, "MessageID"))
    if not identity:
        raise BadMessage("MessageID is missing")
    return Envelope(
        action,
        identity,
        _text(header, _tag(A, "To")),
        _credentials(header),
        readers[action](body),
    )


def _credentials(header: Any) -> tuple[Credential, ...]:
    found: list[Credential] = []
    for security in header.findall(_tag(WSSE, "Security")):
        for token in security.findall(_tag(WSSE, "BinarySecurityToken")):
            text = "".join((token.text or "").split())
            kind = "certificate" if token.get("ValueType", "").endswith("X509v3") else "token"
            found.append(Credential(kind, token.get("ValueType", ""), _b64(text, BadSecurity)))
        for token in security.findall(_tag(WSSE, "UsernameToken")):
            found.append(_password(token))
    return tuple(found)


def _password(token: Any) -> Credential:
    """White space is part of a password. The attribute Type has a namespace in real requests, and
    none in the profile's own examples; without it, it is text (UsernameToken Profile, 3.1)."""
    element = token.find(_tag(WSSE, "Password"))
    secret, sort = "", PASSWORD_TEXT
    if element is not None:
        secret = element.text or ""
        sort = element.get(f"{{{WSSE}}}Type") or element.get("Type") or sort
    name = _text(token, _tag(WSSE, "Username"))
    return Credential("password", sort.rpartition("#")[2].strip(), secret.encode(), name)


def one_credential(envelope: Envelope) -> Credential:
    """Raises BadSecurity unless there is exactly one that is not empty."""
    if len(envelope.credentials) != 1 or not envelope.credentials[0].value:
        raise BadSecurity("exactly one credential is needed")
    return envelope.credentials[0]


def _b64(text: str, error: type[BadMessage] = BadMessage) -> bytes:
    """Standard or URL-safe alphabet, with or without padding."""
    text = text.replace("-", "+").replace("_", "/")
    try:
        return b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise error("base64 is broken") from None


def _discover(body: Any) -> Discover:
    for namespace in (ENR, f"{ENR}/"):
        request = _only(body, _tag(namespace, "Discover", "request"))
        if request is not None:
            break
    else:
        raise BadMessage("Discover/request is missing")

    def text(name: str) -> str:
        return _text(request, f"{{{namespace}}}{name}")

    try:
        version = float(text("RequestVersion") or "1")
    except ValueError:
        raise BadMessage("RequestVersion is not a number") from None
    policies = request.findall(_tag(namespace, "AuthPolicies", "AuthPolicy"))
    return Discover(
        text("EmailAddress"),
        version,
        text("DeviceType"),
        text("ApplicationVersion"),
        text("OSEdition"),
        tuple((item.text or "").strip() for item in policies),
    )


def _policies(body: Any) -> GetPolicies:
    if body.find(_tag(POL, "GetPolicies")) is None:
        raise BadMessage("GetPolicies is missing")
    return GetPolicies()


def _request_token(body: Any) -> RequestToken:
    request = _only(body, _tag(WST, "RequestSecurityToken"))
    if request is None:
        raise BadMessage("RequestSecurityToken is missing")
    token = _only(request, _tag(WSSE, "BinarySecurityToken"))
    if token is None:
        raise BadMessage("the certificate request is missing")
    kind = token.get("ValueType", "").rpartition("#")[2]
    if kind not in {"PKCS10", "PKCS7"}:
        raise BadMessage("the certificate request is not PKCS#10")
    context: dict[str, list[str]] = {}
    for item in request.findall(_tag(AC, "AdditionalContext", "ContextItem")):
        context.setdefault(item.get("Name", ""), []).append(_text(item, _tag(AC, "Value")))
    for name, values in context.items():
        if name not in _REPEATED and len(set(values)) > 1:
            raise BadMessage(f"{name[:40]} is given twice")
    return RequestToken(
        _text(request, _tag(WST, "TokenType")),
        _text(request, _tag(WST, "RequestType")),
        kind,
        _request(token),
        {name: tuple(values) for name, values in context.items()},
    )


def _request(token: Any) -> bytes:
    """Empty when it is not base64: who asks is judged before what is asked (section 4)."""
    try:
        return _b64("".join((token.text or "").split()))
    except BadMessage:
        return b""


# ---------------------------------------------------------------------- answers


def _envelope(action: str, relates_to: str, activity_id: str = "") -> tuple[Any, Any, Any]:
    root = etree.Element(f"{{{S}}}Envelope", nsmap={"s": S, "a": A, "u": WSU})
    header = etree.SubElement(root, f"{{{S}}}Header")
    told = etree.SubElement(header, f"{{{A}}}Action")
    told.set(f"{{{S}}}mustUnderstand", "1")
    told.text = action
    activity = etree.SubElement(header, f"{{{DIAG}}}ActivityId", nsmap=_default(DIAG))
    activity.text = activity_id or str(uuid.uuid4())
    activity.set("CorrelationId", activity.text)
    etree.SubElement(header, f"{{{A}}}RelatesTo").text = relates_to
    body = etree.SubElement(root, f"{{{S}}}Body", nsmap={"xsi": XSI})
    return root, header, body


def _default(namespace: str) -> Any:
    return {None: namespace}


def _bytes(root: Any) -> bytes:
    data: bytes = etree.tostring(root, xml_declaration=False, encoding="UTF-8")
    return data


def discover_response(relates_to: str, answer: DiscoverResponse) -> bytes:
    root, _, body = _envelope(DISCOVER_RESPONSE, relates_to)
    response = etree.SubElement(body, f"{{{ENR}}}DiscoverResponse", nsmap=_default(ENR))
    result = etree.SubElement(response, f"{{{ENR}}}DiscoverResult")
    for name, value in (
        ("AuthPolicy", answer.auth_policy),
        ("EnrollmentVersion", answer.version),
        ("EnrollmentPolicyServiceUrl", answer.policy_url),
        ("EnrollmentServiceUrl", answer.enrollment_url),
        ("AuthenticationServiceUrl", answer.authentication_url),
    ):
        if not value:
            continue
        etree.SubElement(result, f"{{{ENR}}}{name}").text = value
    return _bytes(root)


_POLICY = """
response
  policyID =
  policyFriendlyName
  nextUpdateHours
  policiesNotChanged
  policies
    policy
      policyOIDReference =0
      cAs
      attributes
        commonName =TandemMDM
        policySchema =3
        certificateValidity
          validityPeriodSeconds =%(validity)s
          renewalPeriodSeconds =%(renewal)s
        permission
          enroll =true
          autoEnroll =false
        privateKeyAttributes
          minimalKeyLength =%(bits)s
          keySpec
          keyUsageProperty
          permissions
          algorithmOIDReference
          cryptoProviders
%(providers)s
        revision
          majorRevision =101
          minorRevision =0
        supersededPolicies
        privateKeyFlags
        subjectNameFlags
        enrollmentFlags
        generalFlags
        hashAlgorithmOIDReference =0
        rARequirements
        keyArchivalAttributes
        extensions
cAs
oIDs
  oID
    value =2.16.840.1.101.3.4.2.1
    group =4
    oIDReferenceID =0
    defaultName =szOID_NIST_sha256
"""


_DAY = 24 * 3600


def policies_response(relates_to: str, policy: KeyPolicy = KeyPolicy()) -> bytes:
    """The one certificate policy: RSA, SHA-256 (section 5). Names without a value are nil."""
    written = _POLICY.strip("\n") % {
        "validity": policy.validity_days * _DAY,
        "renewal": policy.renewal_days * _DAY,
        "bits": policy.minimal_bits,
        "providers": "\n".join(f"{' ' * 12}provider ={name}" for name in policy.providers),
    }
    root, _, body = _envelope(GET_POLICIES_RESPONSE, relates_to)
    top = etree.SubElement(body, f"{{{POL}}}GetPoliciesResponse", nsmap=_default(POL))
    stack = [(-1, top)]
    for line in written.splitlines():
        depth = len(line) - len(line.lstrip())
        name, given, value = line.strip().partition(" =")
        while stack[-1][0] >= depth:
            stack.pop()
        element = etree.SubElement(stack[-1][1], f"{{{POL}}}{name.removesuffix(' =')}")
        if given:
            element.text = value or None
        stack.append((depth, element))
    for element in top.iter():
        name = etree.QName(element).localname
        if len(element) == 0 and element.text is None and name != "policyID":
            element.set(f"{{{XSI}}}nil", "true")
    return _bytes(root)


def token_response(relates_to: str, answer: TokenResponse) -> bytes:
    root, header, body = _envelope(REQUEST_TOKEN_RESPONSE, relates_to)
    security = etree.SubElement(header, f"{{{WSSE}}}Security", nsmap={"o": WSSE})
    security.set(f"{{{S}}}mustUnderstand", "1")
    stamp = etree.SubElement(security, f"{{{WSU}}}Timestamp")
    stamp.set(f"{{{WSU}}}Id", "_0")
    for name, minutes in (("Created", -5), ("Expires", 5)):
        at = answer.created_at + timedelta(minutes=minutes)
        etree.SubElement(stamp, f"{{{WSU}}}{name}").text = at.strftime("%Y-%m-%dT%H:%M:%S.000Z")
    collection = etree.SubElement(
        body, f"{{{WST}}}RequestSecurityTokenResponseCollection", nsmap=_default(WST)
    )
    response = etree.SubElement(collection, f"{{{WST}}}RequestSecurityTokenResponse")
    etree.SubElement(response, f"{{{WST}}}TokenType").text = _TOKEN
    etree.SubElement(response, f"{{{PKI}}}DispositionMessage", nsmap=_default(PKI))
    wanted = etree.SubElement(response, f"{{{WST}}}RequestedSecurityToken")
    token = etree.SubElement(wanted, f"{{{WSSE}}}BinarySecurityToken", nsmap=_default(WSSE))
    token.set("ValueType", _PROVISION_DOC)
    token.set("EncodingType", _BASE64)
    token.text = b64encode(answer.provisioning).decode()
    etree.SubElement(response, f"{{{PKI}}}RequestID", nsmap=_default(PKI)).text = "0"
    return _bytes(root)


def fault(action: str, relates_to: str, told: Fault) -> bytes:
    """A fault in the vocabulary that Windows understands (section 10). Its activity is what finds
    it in our log, also where it has no detail."""
    root, _, body = _envelope(action, relates_to, told.trace_id)
    element = etree.SubElement(body, f"{{{S}}}Fault")
    code = etree.SubElement(element, f"{{{S}}}Code")
    etree.SubElement(code, f"{{{S}}}Value").text = "s:Receiver"
    subcode = etree.SubElement(code, f"{{{S}}}Subcode")
    etree.SubElement(subcode, f"{{{S}}}Value").text = told.subcode
    reason = etree.SubElement(element, f"{{{S}}}Reason")
    text = etree.SubElement(reason, f"{{{S}}}Text")
    text.set("{http://www.w3.org/XML/1998/namespace}lang", "en-us")
    text.text = _clean(told.reason)
    if told.error_type:
        detail = etree.SubElement(element, f"{{{S}}}Detail")
        error = etree.SubElement(
            detail, f"{{{PKI}}}DeviceEnrollmentServiceError", nsmap=_default(PKI)
        )
        etree.SubElement(error, f"{{{PKI}}}ErrorType").text = told.error_type
        etree.SubElement(error, f"{{{PKI}}}Message").text = _clean(told.reason)
        etree.SubElement(error, f"{{{PKI}}}TraceId").text = told.trace_id
    return _bytes(root)


def _clean(text: str) -> str:
    return "".join(c for c in text if c.isprintable())
