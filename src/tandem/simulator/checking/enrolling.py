"""What answers of the enrollment service have to look like (sections 2 to 7 and 10)."""

import re
from datetime import datetime
from urllib.parse import urlsplit

from tandem.simulator.checking.model import (
    Exchange,
    Musts,
    Node,
    Problems,
    children,
    local,
    text,
)

S = "http://www.w3.org/2003/05/soap-envelope"
A = "http://www.w3.org/2005/08/addressing"
WSSE = "http://docs.oasis-open.org/wss/2004/01/oasis-200401-wss-wssecurity-secext-1.0.xsd"
WSU = "http://docs.oasis-open.org/wss/2004/01/oasis-200401-wss-wssecurity-utility-1.0.xsd"
WST = "http://docs.oasis-open.org/ws-sx/ws-trust/200512"
ENR = "http://schemas.microsoft.com/windows/management/2012/01/enrollment"
POL = "http://schemas.microsoft.com/windows/pki/2009/01/enrollmentpolicy"
PKI = "http://schemas.microsoft.com/windows/pki/2009/01/enrollment"
NIL = "{http://www.w3.org/2001/XMLSchema-instance}nil"
LANG = "{http://www.w3.org/XML/1998/namespace}lang"
_CONFIGURATION = "http://schemas.microsoft.com/5.0.0.0/ConfigurationManager/Enrollment"
ACTIONS = {
    "discover": f"{ENR}/IDiscoveryService/DiscoverResponse",
    "policies": f"{POL}/IPolicy/GetPoliciesResponse",
    "issue": f"{PKI}/RSTRC/wstep",
}
SUBCODES = {
    "s:MessageFormat",
    "s:Authentication",
    "s:Authorization",
    "s:CertificateRequest",
    "s:EnrollmentServer",
    "a:InternalServiceFault",
    "a:InvalidSecurity",
}
ERROR_TYPES = {
    "DeviceCapReached",
    "DeviceNotSupported",
    "NotSupported",
    "NotEligibleToRenew",
    "InMaintenance",
    "UserLicense",
    "InvalidEnrollmentData",
    "CustomServerError",
}
# Words of parsers, databases and frameworks; none of them is a device's business (section 10).
_INSIDE = re.compile(
    r"traceback|lxml|psycopg|sqlstate|exception|\bSELECT\b|line \d+, column|\.py\b|/usr/|/home/",
    re.IGNORECASE,
)


def endpoint(exchange: Exchange) -> str:
    """discover, policies or issue, for an answer and for the fault in its place."""
    return exchange.step.partition(".")[0]


def body(exchange: Exchange) -> Node | None:
    """The one element of the body."""
    found = exchange.root.find(f"{{{S}}}Body") if exchange.root is not None else None
    inside = children(found) if found is not None else []
    return inside[0] if inside else None


def fault(exchange: Exchange) -> Node | None:
    found = body(exchange)
    return found if found is not None and found.tag == f"{{{S}}}Fault" else None


def subcode(exchange: Exchange) -> str:
    """Of a fault; empty for an answer that is none."""
    return text(fault(exchange), f"{{{S}}}Code/{{{S}}}Subcode/{{{S}}}Value").strip()


def error_type(exchange: Exchange) -> str:
    found = fault(exchange)
    path = f"{{{S}}}Detail/{{{PKI}}}DeviceEnrollmentServiceError/{{{PKI}}}ErrorType"
    return text(found, path)


def answers(step: str, exchange: Exchange) -> bool:
    """Whether this is what was asked for at that step, and no fault."""
    return (
        exchange.kind == "soap"
        and endpoint(exchange) == step
        and exchange.status == 200
        and fault(exchange) is None
        and exchange.root is not None
    )


# ---------------------------------------------------------------------- HTTP

# The answer to a HEAD has a length and no body; content has demands of its own.
http = Musts(lambda exchange: exchange.kind != "content")


@http("http.length", "2", "Content-Length is there, and is the length of the body.")
def _length(exchange: Exchange) -> Problems:
    told = exchange.header("content-length")
    if told is None:
        yield "no Content-Length"
    elif told != str(len(exchange.body)):
        yield f"Content-Length {told} for {len(exchange.body)} bytes"


@http("http.whole", "2", "An answer is never sent in chunks.")
def _whole(exchange: Exchange) -> Problems:
    told = exchange.header("transfer-encoding")
    if told is not None:
        yield f"Transfer-Encoding: {told}"


@http("http.plain", "2", "An answer is never compressed.")
def _plain(exchange: Exchange) -> Problems:
    told = exchange.header("content-encoding")
    if told is not None:
        yield f"Content-Encoding: {told}"


exists = Musts(lambda exchange: exchange.step.startswith("exists"))


@exists("exists.empty", "2", "A GET of the discovery address is answered 200 without a body.")
def _empty(exchange: Exchange) -> Problems:
    if exchange.status != 200 or exchange.body:
        yield f"{exchange.status} with {len(exchange.body)} bytes"


# ---------------------------------------------------------------------- SOAP

soap = Musts(lambda exchange: exchange.kind == "soap")


@soap("soap.status", "2", "The HTTP status is 200, for a fault too.")
def _status(exchange: Exchange) -> Problems:
    if exchange.status != 200:
        yield f"status {exchange.status}"


@soap("soap.type", "2", "Content-Type is application/soap+xml; charset=utf-8.")
def _type(exchange: Exchange) -> Problems:
    told = (exchange.header("content-type") or "").replace(" ", "").lower()
    if told != "application/soap+xml;charset=utf-8":
        yield f"Content-Type {exchange.header('content-type')!r}"


@soap("soap.envelope", "2", "A SOAP 1.2 envelope: a Header, and a Body with one element.")
def _envelope(exchange: Exchange) -> Problems:
    root = exchange.root
    if root is None:
        yield "not well-formed, or with a document type"
    elif root.tag != f"{{{S}}}Envelope":
        yield f"the root is {root.tag}"
    elif [child.tag for child in children(root)] != [f"{{{S}}}Header", f"{{{S}}}Body"]:
        yield "not one Header and one Body"
    elif len(children(root.find(f"{{{S}}}Body"))) != 1:
        yield "the Body has not one element"


@soap("soap.action", "2", "Action names the answer of this endpoint, and must be understood.")
def _action(exchange: Exchange) -> Problems:
    wanted = ACTIONS.get(endpoint(exchange))
    found = (
        exchange.root.find(f"{{{S}}}Header/{{{A}}}Action") if exchange.root is not None else None
    )
    if found is None:
        yield "no Action"
    elif found.text != wanted:
        yield f"Action {found.text!r}"
    elif found.get(f"{{{S}}}mustUnderstand") != "1":
        yield "Action without mustUnderstand"


@soap("soap.relates-to", "2", "RelatesTo is the MessageID of the request.")
def _relates_to(exchange: Exchange) -> Problems:
    found = text(exchange.root, f"{{{S}}}Header/{{{A}}}RelatesTo")
    if not found:
        yield "no RelatesTo"
    elif exchange.facts.message_id and found != exchange.facts.message_id:
        yield f"RelatesTo {found!r}"


# ---------------------------------------------------------------------- faults

faults = Musts(lambda exchange: exchange.kind == "soap" and fault(exchange) is not None)


@faults("fault.shape", "10", "A fault has SOAP 1.2's names: s:Receiver, a known subcode, a reason.")
def _shape(exchange: Exchange) -> Problems:
    found = fault(exchange)
    if found is None:
        return
    if text(found, f"{{{S}}}Code/{{{S}}}Value") != "s:Receiver":
        yield "Code is not s:Receiver"
    if subcode(exchange) not in SUBCODES:
        yield f"subcode {subcode(exchange)!r}"
    reason = found.find(f"{{{S}}}Reason/{{{S}}}Text")
    if reason is None or not reason.text or not reason.get(LANG):
        yield "no reason in a language"
    for prefix, namespace in (("s", S), ("a", A)):
        if subcode(exchange).startswith(f"{prefix}:") and found.nsmap.get(prefix) != namespace:
            yield f"the prefix {prefix} is not declared"


@faults("fault.detail", "10", "A detail has ErrorType of the table, Message and TraceId.")
def _detail(exchange: Exchange) -> Problems:
    found = fault(exchange)
    detail = found.find(f"{{{S}}}Detail") if found is not None else None
    if detail is None:
        return
    error = detail.find(f"{{{PKI}}}DeviceEnrollmentServiceError")
    names = [local(child) for child in children(error)] if error is not None else []
    if names != ["ErrorType", "Message", "TraceId"]:
        yield f"the detail has {names}"
    elif text(error, f"{{{PKI}}}ErrorType") not in ERROR_TYPES:
        yield f"ErrorType {text(error, f'{{{PKI}}}ErrorType')!r}"
    elif not text(error, f"{{{PKI}}}TraceId"):
        yield "an empty TraceId"


@faults("fault.silent", "10, 20", "A fault tells nothing of the server's inside.")
def _silent(exchange: Exchange) -> Problems:
    found = fault(exchange)
    said = " ".join(str(part) for part in found.itertext()) if found is not None else ""
    told = _INSIDE.search(said)
    if told is not None:
        yield f"it says {told[0]!r}"


# ---------------------------------------------------------------------- discovery

discovery = Musts(lambda exchange: answers("discover", exchange))
_URLS = ("EnrollmentPolicyServiceUrl", "EnrollmentServiceUrl", "AuthenticationServiceUrl")


def discovered(exchange: Exchange) -> dict[str, str]:
    """The elements of a DiscoverResult with their texts as they stand."""
    found = body(exchange)
    result = found.find(f"{{{ENR}}}DiscoverResult") if found is not None else None
    return (
        {local(item): str(item.text or "") for item in children(result)}
        if result is not None
        else {}
    )


@discovery("discover.order", "3", "DiscoverResult has its elements by their names and in order.")
def _discover_order(exchange: Exchange) -> Problems:
    wanted = ["AuthPolicy", "EnrollmentVersion", *_URLS]
    names = list(discovered(exchange))
    if names != [name for name in wanted if name in names]:
        yield f"the elements are {names}"
    for name in ("AuthPolicy", "EnrollmentVersion", "EnrollmentServiceUrl"):
        if name not in names:
            yield f"{name} is missing"


@discovery("discover.policy", "3", "AuthPolicy is one that the client offered.")
def _discover_policy(exchange: Exchange) -> Problems:
    told = discovered(exchange).get("AuthPolicy", "")
    if told not in (exchange.facts.offered or ("OnPremise", "Federated", "Certificate")):
        yield f"AuthPolicy {told!r}"


@discovery("discover.version", "3", "EnrollmentVersion is a number not above the client's.")
def _discover_version(exchange: Exchange) -> Problems:
    told = discovered(exchange).get("EnrollmentVersion", "")
    if not re.fullmatch(r"\d+\.\d+", told) or float(told) > exchange.facts.version:
        yield f"EnrollmentVersion {told!r} for a client of {exchange.facts.version}"


@discovery(
    "discover.sign-in", "3", "AuthenticationServiceUrl is there with Federated, and only then."
)
def _discover_sign_in(exchange: Exchange) -> Problems:
    found = discovered(exchange)
    if (found.get("AuthPolicy") == "Federated") != bool(found.get("AuthenticationServiceUrl")):
        yield f"{found.get('AuthPolicy')} with {found.get('AuthenticationServiceUrl')!r}"


@discovery("discover.urls", "3", "Addresses are https, without blanks around them.")
def _discover_urls(exchange: Exchange) -> Problems:
    for name, told in discovered(exchange).items():
        if name in _URLS and (not told.startswith("https://") or told != told.strip()):
            yield f"{name} {told!r}"


@discovery("discover.one-host", "2", "Policy and enrollment service are on one host.")
def _discover_host(exchange: Exchange) -> Problems:
    found = discovered(exchange)
    hosts = {urlsplit(found[name].strip()).hostname for name in _URLS[:2] if name in found}
    if len(hosts) > 1:
        yield f"hosts {sorted(str(host) for host in hosts)}"


# ---------------------------------------------------------------------- the sign-in page

page = Musts(lambda exchange: exchange.step.startswith("page"))
# What a page must not lead to, by the step that asks for it (sections 4 and 20).
EVIL = {
    "page.script": "javascript:alert(document.domain)",
    "page.elsewhere": "https://elsewhere.example/take",
    "page.plain": "http://elsewhere.example/take",
    "page.data": "data:text/html,<script>alert(4711)</script>",
    "page.markup": 'ms-app://x"><script>alert(4711)</script>',
}


@page("page.address", "4, 20", "The sign-in page leads to ms-app: and ms-appx-web: alone.")
def _page_address(exchange: Exchange) -> Problems:
    evil = EVIL.get(exchange.step)
    if evil is None or exchange.status >= 400:
        return
    said = exchange.body.decode("utf-8", "replace")
    if evil.startswith("ms-app:") or evil not in said + (exchange.header("location") or ""):
        return
    yield f"status {exchange.status}, and {evil!r} is where it goes"


@page("page.escaped", "4, 20", "Nothing of the address is markup of the page.")
def _page_escaped(exchange: Exchange) -> Problems:
    if b"<script>alert(4711)" in exchange.body:
        yield "the script of the address is one of the page"


@page("page.there", "4", "Who comes with an application's address is let begin.")
def _page_there(exchange: Exchange) -> Problems:
    if exchange.step == "page" and exchange.status not in (200, 302, 303):
        yield f"status {exchange.status}"


# ---------------------------------------------------------------------- certificate policy

policies = Musts(lambda exchange: answers("policies", exchange))
_POLICY = """
GetPoliciesResponse/response
GetPoliciesResponse/response/policyID
GetPoliciesResponse/response/policyFriendlyName nil
GetPoliciesResponse/response/nextUpdateHours nil
GetPoliciesResponse/response/policiesNotChanged nil
GetPoliciesResponse/response/policies
GetPoliciesResponse/response/policies/policy
policy/policyOIDReference
policy/cAs nil
policy/attributes
attributes/commonName
attributes/policySchema
attributes/certificateValidity
certificateValidity/validityPeriodSeconds
certificateValidity/renewalPeriodSeconds
attributes/permission
permission/enroll
permission/autoEnroll
attributes/privateKeyAttributes
privateKeyAttributes/minimalKeyLength
privateKeyAttributes/keySpec nil
privateKeyAttributes/keyUsageProperty nil
privateKeyAttributes/permissions nil
privateKeyAttributes/algorithmOIDReference nil
privateKeyAttributes/cryptoProviders
cryptoProviders/provider
attributes/revision
revision/majorRevision
revision/minorRevision
attributes/supersededPolicies nil
attributes/privateKeyFlags nil
attributes/subjectNameFlags nil
attributes/enrollmentFlags nil
attributes/generalFlags nil
attributes/hashAlgorithmOIDReference
attributes/rARequirements nil
attributes/keyArchivalAttributes nil
attributes/extensions nil
GetPoliciesResponse/cAs nil
GetPoliciesResponse/oIDs
oIDs/oID
oID/value
oID/group
oID/oIDReferenceID
oID/defaultName
"""
_WANTED = [line.rsplit("/", 1)[-1] for line in _POLICY.split("\n") if line]
# Answered only to clients that attest their TPM (section 5).
_ATTESTATION = {
    *("attestationfailurebehavior", "operationtimeout", "attestation", "azureattestation"),
    *("nonce", "relyingpartyid", "endpointuri"),
}
_SHA2 = {"2.16.840.1.101.3.4.2.1", "2.16.840.1.101.3.4.2.2", "2.16.840.1.101.3.4.2.3"}


@policies("policies.order", "5", "Every element is there, in order, nil where there is nothing.")
def _policies_order(exchange: Exchange) -> Problems:
    top = body(exchange)
    if top is None:
        return
    found: list[str] = []
    for element in top.iter():
        name = local(element)
        if element is top or not name or name.lower() in _ATTESTATION:
            continue
        if not element.tag.startswith(f"{{{POL}}}"):
            yield f"{name} is of another namespace"
        if name != "provider" or found[-1:] != ["provider"]:
            found.append(f"{name} nil" if element.get(NIL) == "true" else name)
    for wanted, there in zip(_WANTED, found, strict=False):
        if wanted != there:
            yield f"{there} where {wanted} belongs"
            return
    if len(found) < len(_WANTED):
        yield f"{_WANTED[len(found)]} is missing"


@policies("policies.schema", "5", "policySchema is 3.")
def _policies_schema(exchange: Exchange) -> Problems:
    told = _anywhere(exchange, "policySchema")
    if told != "3":
        yield f"policySchema {told!r}"


@policies("policies.key", "5", "Keys have at least 2048 bits.")
def _policies_key(exchange: Exchange) -> Problems:
    told = _anywhere(exchange, "minimalKeyLength")
    if not told.isdigit() or int(told) < 2048:
        yield f"minimalKeyLength {told!r}"


@policies("policies.hash", "5", "The hash points at an oID of the answer, and is SHA-2.")
def _policies_hash(exchange: Exchange) -> Problems:
    top = body(exchange)
    oids = {
        text(item, f"{{{POL}}}oIDReferenceID"): text(item, f"{{{POL}}}value")
        for item in (top.iter(f"{{{POL}}}oID") if top is not None else ())
    }
    told = oids.get(_anywhere(exchange, "hashAlgorithmOIDReference"), "")
    if told not in _SHA2:
        yield f"the hash is {told!r}"


def key_bits(exchange: Exchange) -> int:
    """How large a key the policy wants."""
    told = _anywhere(exchange, "minimalKeyLength")
    return int(told) if told.isdigit() and int(told) <= 4096 else 2048


def _anywhere(exchange: Exchange, name: str) -> str:
    top = body(exchange)
    found = next(top.iter(f"{{{POL}}}{name}"), None) if top is not None else None
    return str(found.text or "") if found is not None else ""


# ---------------------------------------------------------------------- the certificate's answer

issue = Musts(lambda exchange: answers("issue", exchange))
_RESPONSE = (
    f"{{{WST}}}RequestSecurityTokenResponseCollection",
    f"{{{WST}}}RequestSecurityTokenResponse",
)
_INSIDE_RESPONSE = [
    f"{{{WST}}}TokenType",
    f"{{{PKI}}}DispositionMessage",
    f"{{{WST}}}RequestedSecurityToken",
    f"{{{PKI}}}RequestID",
]


def token(exchange: Exchange) -> Node | None:
    top = body(exchange)
    path = f"{_RESPONSE[1]}/{_INSIDE_RESPONSE[2]}/{{{WSSE}}}BinarySecurityToken"
    return top.find(path) if top is not None else None


@issue("issue.timestamp", "7", "The Security header has a Timestamp that is now.")
def _issue_timestamp(exchange: Exchange) -> Problems:
    header = exchange.root.find(f"{{{S}}}Header/{{{WSSE}}}Security")  # type: ignore[union-attr]
    if header is None or header.get(f"{{{S}}}mustUnderstand") != "1":
        yield "no Security header that must be understood"
        return
    created, expires = (
        _moment(text(header, f"{{{WSU}}}Timestamp/{{{WSU}}}{name}"))
        for name in ("Created", "Expires")
    )
    at = exchange.facts.at
    if created is None or expires is None:
        yield "no Created and Expires"
    elif at is not None and not created <= at <= expires:
        yield f"{at:%H:%M:%S} is not between {created:%H:%M:%S} and {expires:%H:%M:%S}"


def _moment(told: str) -> datetime | None:
    try:
        return datetime.fromisoformat(told.replace("Z", "+00:00"))
    except ValueError:
        return None


@issue("issue.order", "7", "The response has its four elements, in order.")
def _issue_order(exchange: Exchange) -> Problems:
    top = body(exchange)
    inside = children(top) if top is not None else []
    if top is None or top.tag != _RESPONSE[0] or [item.tag for item in inside] != [_RESPONSE[1]]:
        yield "not one response in one collection"
    elif [item.tag for item in children(inside[0])] != _INSIDE_RESPONSE:
        yield f"the response has {[local(item) for item in children(inside[0])]}"
    elif text(inside[0], _INSIDE_RESPONSE[0]) != f"{_CONFIGURATION}/DeviceEnrollmentToken":
        yield f"TokenType {text(inside[0], _INSIDE_RESPONSE[0])!r}"


@issue("issue.token", "7", "The token is a provisioning document in base64, and says so.")
def _issue_token(exchange: Exchange) -> Problems:
    found = token(exchange)
    if found is None:
        yield "no BinarySecurityToken"
        return
    if found.get("ValueType") != f"{_CONFIGURATION}/DeviceEnrollmentProvisionDoc":
        yield f"ValueType {found.get('ValueType')!r}"
    if found.get("EncodingType") != f"{WSSE}#base64binary":
        yield f"EncodingType {found.get('EncodingType')!r}"


@issue("issue.one-line", "7", "The base64 of the token is standard, and one line.")
def _issue_one_line(exchange: Exchange) -> Problems:
    found = token(exchange)
    said = str(found.text or "") if found is not None else ""
    if not re.fullmatch(r"[A-Za-z0-9+/]+={0,2}", said) or len(said) % 4:
        yield "no base64, or with line breaks"
