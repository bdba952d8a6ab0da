"""What a provisioning document has to be (sections 6.3, 7, 8 and 13)."""

import binascii
import hashlib
import re
from base64 import b64decode
from datetime import timedelta
from functools import lru_cache
from urllib.parse import quote, unquote

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.hashes import SHA256, SHA384, SHA512
from cryptography.x509.oid import ExtendedKeyUsageOID

from tandem import pki
from tandem.simulator.checking import enrolling
from tandem.simulator.checking.model import Exchange, Musts, Node, Problems, strict

document = Musts(lambda exchange: exchange.step == "issue" and enrolling.answers("issue", exchange))
renewal = Musts(
    lambda exchange: exchange.step == "issue.renewal" and enrolling.answers("issue", exchange)
)

_CSPS = {
    "CertificateStore",
    "APPLICATION",
    "DMClient",
    "RootCATrustedCertificates",
    "ClientCertificateInstall",
    "Policy",
    "PassportForWork",
    "EnterpriseModernAppManagement",
}
_ORDER = ("CertificateStore", "APPLICATION", "DMClient")
_UPPER = {
    *("APPID", "PROVIDER-ID", "NAME", "ADDR", "CONNRETRYFREQ", "INITIALBACKOFFTIME"),
    *("MAXBACKOFFTIME", "BACKCOMPATRETRYDISABLED", "DEFAULTENCODING"),
    *("SSLCLIENTCERTSEARCHCRITERIA", "INIT", "ROLE", "TO-NAPID", "TO-PROXY"),
    *("AAUTHLEVEL", "AAUTHTYPE", "AAUTHNAME", "AAUTHSECRET", "AAUTHDATA"),
}
_SCHEDULES = (
    ("IntervalForFirstSetOfRetries", "NumberOfFirstRetries"),
    ("IntervalForSecondSetOfRetries", "NumberOfSecondRetries"),
    ("IntervalForRemainingScheduledRetries", "NumberOfRemainingScheduledRetries"),
)


def read(exchange: Exchange) -> Node | None:
    """The document's root; None where the answer holds none."""
    found = enrolling.token(exchange)
    try:
        data = b64decode("".join(str(found.text or "").split())) if found is not None else b""
    except (binascii.Error, ValueError):
        return None
    root = strict(data)
    return root if root is not None and root.tag == "wap-provisioningdoc" else None


def below(node: Node | None, *types: str) -> Node | None:
    """The characteristic at a path of types."""
    for name in types:
        if node is None:
            return None
        node = next((c for c in node.findall("characteristic") if c.get("type") == name), None)
    return node


def parms(node: Node | None) -> dict[str, str]:
    return (
        {}
        if node is None
        else {p.get("name", ""): p.get("value", "") for p in node.findall("parm")}
    )


def application(exchange: Exchange) -> dict[str, str]:
    return parms(below(read(exchange), "APPLICATION"))


@lru_cache(64)
def _load(encoded: str) -> x509.Certificate | None:
    try:
        return x509.load_der_x509_certificate(b64decode(encoded, validate=True))
    except pki.UNREADABLE:
        return None


def certificates(exchange: Exchange, *store: str) -> list[x509.Certificate]:
    """The readable ones of a store."""
    place = below(read(exchange), "CertificateStore", *store)
    found = (
        [] if place is None else place.findall("characteristic/parm[@name='EncodedCertificate']")
    )
    return [c for c in (_load(parm.get("value", "")) for parm in found) if c is not None]


def leaf(exchange: Exchange) -> x509.Certificate | None:
    found = certificates(exchange, "My", exchange.facts.store)
    return found[0] if found else None


def renews(exchange: Exchange) -> bool:
    """Whether the document promises renewal without the user."""
    place = below(read(exchange), "CertificateStore", "My", "WSTEP", "Renew")
    return parms(place).get("ROBOSupport") == "true"


def secret(exchange: Exchange) -> tuple[str, str]:
    """Name and secret by which the device may prove itself (APPAUTH, APPSRV)."""
    place = below(read(exchange), "APPLICATION")
    for block in place.findall("characteristic") if place is not None else ():
        told = parms(block)
        if told.get("AAUTHLEVEL") == "APPSRV":
            return told.get("AAUTHNAME", ""), told.get("AAUTHSECRET", "")
    return "", ""


def user(exchange: Exchange) -> str:
    """Whose the enrollment is, as the document says."""
    provider = application(exchange).get("PROVIDER-ID", "")
    return parms(below(read(exchange), "DMClient", "Provider", provider)).get("UPN", "")


# ---------------------------------------------------------------------- the document


@document("document.root", "7", "wap-provisioningdoc 1.1 of characteristics and parms alone.")
def _root(exchange: Exchange) -> Problems:
    root = read(exchange)
    if root is None:
        yield "no wap-provisioningdoc"
        return
    if root.get("version") != "1.1":
        yield f"version {root.get('version')!r}"
    for element in root.iter():
        if element is not root and element.tag not in ("characteristic", "parm"):
            yield f"a {element.tag}"
        elif element.tag == "parm" and not element.get("name"):
            yield "a parm without a name"


@document("document.csps", "7", "Only what enrollment may provision is in it, in the usual order.")
def _csps(exchange: Exchange) -> Problems:
    root = read(exchange)
    types = [c.get("type", "") for c in root.findall("characteristic")] if root is not None else []
    for name in types:
        if name not in _CSPS:
            yield f"{name} is not for this document"
    usual = [name for name in types if name in _ORDER]
    if usual != list(_ORDER):
        yield f"the order is {types}"


@document("document.thumbprints", "6.3, 7", "A certificate lies under the SHA-1 of its DER.")
def _thumbprints(exchange: Exchange) -> Problems:
    root = read(exchange)
    for parm in root.iter("parm") if root is not None else ():
        if parm.get("name") != "EncodedCertificate":
            continue
        said, encoded = parm.getparent().get("type", ""), parm.get("value", "")
        try:
            der = b64decode(encoded, validate=True)
        except (binascii.Error, ValueError):
            yield f"{said}: no base64 in one line"
            continue
        if said != hashlib.sha1(der).hexdigest().upper():  # noqa: S324 - the field's name for it
            yield f"{said} is not its thumbprint"
        elif _load(encoded) is None:
            yield f"{said}: no certificate"


@document("document.authorities", "7", "One root, at most one intermediate, each in its store.")
def _authorities(exchange: Exchange) -> Problems:
    roots = certificates(exchange, "Root", "System")
    if len(roots) != 1:
        yield f"{len(roots)} roots"
    elif roots[0].subject != roots[0].issuer:
        yield "the root is not self-signed"
    between = certificates(exchange, "CA", "System")
    if len(between) > 1:
        yield f"{len(between)} intermediates"


@document("document.certificate", "7", "One certificate in My, in the store of the enrollment.")
def _certificate(exchange: Exchange) -> Problems:
    store = exchange.facts.store
    mine = below(read(exchange), "CertificateStore", "My")
    stores = [
        c.get("type")
        for c in (mine.findall("characteristic") if mine is not None else ())
        if c.get("type") in ("User", "System")
    ]
    if stores != [store] or len(certificates(exchange, "My", store)) != 1:
        yield f"My has {stores}; this enrollment's store is {store}"


@document("document.key", "6.2", "The certificate is for the key of the request.")
def _key(exchange: Exchange) -> Problems:
    found = leaf(exchange)
    if found is not None and found.public_key() != exchange.facts.public_key:
        yield "another key"


@document("document.chain", "6.3", "The certificate is signed by the root that came along.")
def _chain(exchange: Exchange) -> Problems:
    found = leaf(exchange)
    pool = [*certificates(exchange, "CA", "System"), *certificates(exchange, "Root", "System")]
    while found is not None:
        issuer = next((c for c in pool if c.subject == found.issuer), None) if found else None
        if issuer is None:
            yield f"nobody signed {found.subject.rfc4514_string()}"
            return
        try:
            found.verify_directly_issued_by(issuer)
        except (InvalidSignature, ValueError, TypeError):
            yield f"{found.subject.rfc4514_string()} is not signed by its issuer"
            return
        found = None if issuer.subject == issuer.issuer else issuer


@document(
    "document.profile", "6.3", "X.509 v3, SHA-2, for TLS clients alone, no CA, random serial."
)
def _profile(exchange: Exchange) -> Problems:
    found = leaf(exchange)
    if found is None:
        return
    if not isinstance(found.signature_hash_algorithm, SHA256 | SHA384 | SHA512):
        yield "not signed with SHA-2"
    # 64 random bits are hardly ever fewer than 48; a counter always is.
    if found.serial_number.bit_length() < 48:
        yield f"a serial number of {found.serial_number.bit_length()} bits"
    try:
        purposes = list(found.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value)
    except x509.ExtensionNotFound:
        purposes = []
    if purposes != [ExtendedKeyUsageOID.CLIENT_AUTH]:
        yield f"purposes {[item.dotted_string for item in purposes]}"
    try:
        if found.extensions.get_extension_for_class(x509.BasicConstraints).value.ca:
            yield "it is a CA"
    except x509.ExtensionNotFound:
        yield "no BasicConstraints"
    try:
        usage = found.extensions.get_extension_for_class(x509.KeyUsage)
        if not usage.critical or not usage.value.digital_signature or usage.value.key_cert_sign:
            yield "KeyUsage is not critical digitalSignature"
    except x509.ExtensionNotFound:
        yield "no KeyUsage"


@document("document.validity", "6.3", "It is valid now, also by a clock that is an hour slow.")
def _validity(exchange: Exchange) -> Problems:
    found, at = leaf(exchange), exchange.facts.at
    if found is None or at is None:
        return
    if not found.not_valid_before_utc <= at - timedelta(hours=1) < found.not_valid_after_utc:
        yield f"from {found.not_valid_before_utc} to {found.not_valid_after_utc}"


@document("document.subject", "6.3", "The server chose the subject; it is not the request's.")
def _subject(exchange: Exchange) -> Problems:
    found = leaf(exchange)
    if found is not None and found.subject.rfc4514_string() == exchange.facts.subject:
        yield "the subject is the request's"


@document("document.key-container", "7", "An empty PrivateKeyContainer stands beside it.")
def _container(exchange: Exchange) -> Problems:
    found = below(
        read(exchange), "CertificateStore", "My", exchange.facts.store, "PrivateKeyContainer"
    )
    if found is None or len(found):
        yield "no empty PrivateKeyContainer"


@document("document.renew", "7", "WSTEP/Renew: ROBOSupport, RenewPeriod, RetryInterval within it.")
def _renew(exchange: Exchange) -> Problems:
    place = below(read(exchange), "CertificateStore", "My", "WSTEP", "Renew")
    if place is None:
        return
    kinds = {"ROBOSupport": "boolean", "RenewPeriod": "integer", "RetryInterval": "integer"}
    for parm in place.findall("parm"):
        name = parm.get("name", "")
        if name == "RenewalPeriod":
            yield "RenewalPeriod is the tree's name, not the document's"
        elif name in kinds and parm.get("datatype") != kinds[name]:
            yield f"{name} has datatype {parm.get('datatype')!r}"
    told = parms(place)
    if told.get("ROBOSupport") != "true":
        yield f"ROBOSupport {told.get('ROBOSupport')!r}"
    period, again = told.get("RenewPeriod", ""), told.get("RetryInterval", "")
    if not (period.isdigit() and again.isdigit() and 0 < int(again) <= int(period)):
        yield f"RetryInterval {again!r} in RenewPeriod {period!r}"


@document("document.account", "7", "APPID w7, PROVIDER-ID, NAME, and an https ADDR.")
def _account(exchange: Exchange) -> Problems:
    told = application(exchange)
    if told.get("APPID") != "w7":
        yield f"APPID {told.get('APPID')!r}"
    if not told.get("NAME"):
        yield "no NAME"
    if not told.get("ADDR", "").startswith("https://"):
        yield f"ADDR {told.get('ADDR')!r}"
    if (
        told.get("DEFAULTENCODING", "application/vnd.syncml.dm+xml")
        != "application/vnd.syncml.dm+xml"
    ):
        yield f"DEFAULTENCODING {told['DEFAULTENCODING']!r}"


@document("document.case", "7", "Names of the account are in capitals.")
def _case(exchange: Exchange) -> Problems:
    place = below(read(exchange), "APPLICATION")
    for parm in place.iter("parm") if place is not None else ():
        name = parm.get("name", "")
        if name not in _UPPER and name.upper() in _UPPER:
            yield name
    for item in place.findall("characteristic") if place is not None else ():
        if item.get("type", "") != "APPAUTH" and item.get("type", "").upper() == "APPAUTH":
            yield item.get("type")


@document("document.provider", "7", "PROVIDER-ID is letters and digits, and DMClient's provider.")
def _provider(exchange: Exchange) -> Problems:
    told = application(exchange).get("PROVIDER-ID", "")
    if not re.fullmatch(r"[A-Za-z0-9]+", told):
        yield f"PROVIDER-ID {told!r}"
    place = below(read(exchange), "DMClient", "Provider")
    named = [c.get("type") for c in place.findall("characteristic")] if place is not None else []
    if named != [told]:
        yield f"DMClient has {named}, the account {told!r}"


@document("document.no-init-role", "7", "Neither INIT nor ROLE is sent.")
def _no_init(exchange: Exchange) -> Problems:
    yield from {"INIT", "ROLE"} & set(application(exchange))


@document("document.secrets", "7", "Two APPAUTH blocks, CLIENT and APPSRV, with real secrets.")
def _secrets(exchange: Exchange) -> Problems:
    place = below(read(exchange), "APPLICATION")
    found = [
        parms(c)
        for c in (place.findall("characteristic") if place is not None else ())
        if c.get("type") == "APPAUTH"
    ]
    levels = [block.get("AAUTHLEVEL") for block in found]
    if sorted(str(level) for level in levels) != ["APPSRV", "CLIENT"]:
        yield f"AAUTHLEVEL {levels}"
    secrets = [block.get("AAUTHSECRET", "") for block in found]
    if any(len(secret) < 16 for secret in secrets) or len(set(secrets)) != len(secrets):
        yield "secrets that are short, or the same"
    for block in found:
        if block.get("AAUTHTYPE") != "DIGEST":
            yield f"AAUTHTYPE {block.get('AAUTHTYPE')!r}"
        if block.get("AAUTHLEVEL") == "APPSRV" and not block.get("AAUTHNAME"):
            yield "APPSRV without a name"
        try:
            nonce = b64decode(block.get("AAUTHDATA", ""), validate=True)
        except (binascii.Error, ValueError):
            nonce = b""
        if len(nonce) < 16:
            yield "AAUTHDATA is no nonce of 16 bytes in base64"


@document("document.criteria", "7, 11.7", "SSLCLIENTCERTSEARCHCRITERIA finds the certificate.")
def _criteria(exchange: Exchange) -> Problems:
    told, found = application(exchange).get("SSLCLIENTCERTSEARCHCRITERIA"), leaf(exchange)
    if told is None or found is None:
        return
    subject, _, stores = told.removeprefix("Subject=").partition("&Stores=")
    if unquote(subject) != found.subject.rfc4514_string() or subject != quote(
        unquote(subject), safe=""
    ):
        yield f"Subject {subject!r}"
    if stores != f"My%5C{exchange.facts.store}":
        yield f"Stores {stores!r}"


@document("document.identity", "7, 8", "DMClient has the server's own id of the device (EntDMID).")
def _identity(exchange: Exchange) -> Problems:
    told = application(exchange).get("PROVIDER-ID", "")
    if not parms(below(read(exchange), "DMClient", "Provider", told)).get("EntDMID"):
        yield "no EntDMID"


@document("document.poll", "13", "The poll schedules are such as Windows takes.")
def _poll(exchange: Exchange) -> Problems:
    provider = application(exchange).get("PROVIDER-ID", "")
    told = parms(below(read(exchange), "DMClient", "Provider", provider, "Poll"))
    pairs = [(told.get(interval, "0"), told.get(times, "0")) for interval, times in _SCHEDULES]
    if not all(number.isdigit() for pair in pairs for number in pair):
        yield f"{pairs} are no numbers"
        return
    schedules = [(int(interval), int(times)) for interval, times in pairs]
    if not any(interval for interval, _ in schedules):
        yield "no schedule at all"
    endless = [n for n, (interval, times) in enumerate(schedules) if interval and not times]
    if len(endless) > 1:
        yield "two schedules without an end"
    elif endless and any(interval for interval, _ in schedules[endless[0] + 1 :]):
        yield "a schedule after one without an end"


# ---------------------------------------------------------------------- renewal


early = Musts(
    lambda exchange: exchange.step == "issue.renewal" and enrolling.fault(exchange) is not None
)


@early(
    "renewal.refused", "8, 10", "A renewal that may not be yet is refused as NotEligibleToRenew."
)
def _early(exchange: Exchange) -> Problems:
    told = enrolling.error_type(exchange)
    if (enrolling.subcode(exchange), told) != ("s:Authorization", "NotEligibleToRenew"):
        yield f"{enrolling.subcode(exchange)} {told}"


@renewal("renewal.document", "8", "The new certificate and PROVIDER-ID, and nothing else.")
def _renewed(exchange: Exchange) -> Problems:
    root = read(exchange)
    if root is None:
        yield "no wap-provisioningdoc"
        return
    types = [c.get("type") for c in root.findall("characteristic")]
    if types != ["CertificateStore", "APPLICATION"]:
        yield f"it has {types}"
    if list(application(exchange)) != ["PROVIDER-ID"]:
        yield f"the account has {list(application(exchange))}"
    found = leaf(exchange)
    if found is None or found.public_key() != exchange.facts.public_key:
        yield "no certificate for the new key in the store of the enrollment"
