"""Answers of a server that does all it must, as the checking client hears them.

Written by hand from the specification: no code of the server's made them. Tests spoil them, one
demand at a time.
"""

import datetime as dt
from base64 import b64encode
from dataclasses import replace
from typing import Any
from urllib.parse import quote

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding

from tandem import pki
from tandem.simulator.checking import Exchange, Facts

NOW = dt.datetime(2026, 11, 26, 12, 0, tzinfo=dt.UTC)
URL = "https://mdm.example/EnrollmentServer"
ADDRESS = "https://mdm.example/ManagementServer/MDM.svc"
DEVICE = "0A1B2C3D4E5F60718293A4B5C6D7E8F9"
ID = "urn:uuid:748132ec-a575-4329-b01b-6171a9cf8478"
SOAP = (("content-type", "application/soap+xml; charset=utf-8"),)
SYNCML = (("content-type", "application/vnd.syncml.dm+xml; charset=utf-8"),)
SUBJECT = f"CN=B1C43CD0-1624-5FBB-8E54-34CF17!{DEVICE}"
_PKI = "http://schemas.microsoft.com/windows/pki/2009/01"
_ENR = "http://schemas.microsoft.com/windows/management/2012/01/enrollment"
_WSS = "http://docs.oasis-open.org/wss/2004/01/oasis-200401-wss-wssecurity"
_CONFIGURATION = "http://schemas.microsoft.com/5.0.0.0/ConfigurationManager/Enrollment"
ACTIONS = {
    "discover": f"{_ENR}/IDiscoveryService/DiscoverResponse",
    "policies": f"{_PKI}/enrollmentpolicy/IPolicy/GetPoliciesResponse",
    "issue": f"{_PKI}/enrollment/RSTRC/wstep",
}

ROOT = pki.new_root(pki.name("Device CA"), now=NOW - dt.timedelta(days=2))
KEY = rsa.generate_private_key(65537, 2048)


def leaf(key: Any = KEY, **more: Any) -> x509.Certificate:
    options: dict[str, Any] = {"now": NOW - dt.timedelta(days=1), "days": 365, "usages": ["client"]}
    return ROOT.issue(key.public_key(), pki.name("d1"), **{**options, **more})


LEAF = leaf()


def heard(
    kind: Any, step: str, headers: Any, body: str | bytes, facts: Facts = Facts()
) -> Exchange:
    data = body.encode() if isinstance(body, str) else body
    counted = (*headers, ("content-length", str(len(data))))
    return Exchange(kind, step, URL, 200, counted, data, facts)


def with_body(exchange: Exchange, body: str | bytes) -> Exchange:
    data = body.encode() if isinstance(body, str) else body
    headers = [(k, str(len(data)) if k == "content-length" else v) for k, v in exchange.headers]
    return replace(exchange, body=data, headers=tuple(headers))


# ---------------------------------------------------------------------- enrollment


def soap(step: str, body: str, facts: Facts = Facts(), security: str = "") -> Exchange:
    facts = replace(facts, message_id=ID, at=NOW)
    text = (
        '<s:Envelope xmlns:s="http://www.w3.org/2003/05/soap-envelope"'
        ' xmlns:a="http://www.w3.org/2005/08/addressing"'
        f' xmlns:u="{_WSS}-utility-1.0.xsd"><s:Header>'
        f'<a:Action s:mustUnderstand="1">{ACTIONS[step.partition(".")[0]]}</a:Action>'
        f"<a:RelatesTo>{ID}</a:RelatesTo>{security}</s:Header>"
        f'<s:Body xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance">{body}</s:Body></s:Envelope>'
    )
    return heard("soap", step, SOAP, text, facts)


def fault(step: str, subcode: str, error_type: str = "", said: str = "No.") -> Exchange:
    detail = (
        f'<s:Detail><DeviceEnrollmentServiceError xmlns="{_PKI}/enrollment">'
        f"<ErrorType>{error_type}</ErrorType><Message>{said}</Message><TraceId>t1</TraceId>"
        "</DeviceEnrollmentServiceError></s:Detail>"
        if error_type
        else ""
    )
    return soap(
        step,
        f"<s:Fault><s:Code><s:Value>s:Receiver</s:Value><s:Subcode><s:Value>{subcode}</s:Value>"
        f'</s:Subcode></s:Code><s:Reason><s:Text xml:lang="en-us">{said}</s:Text></s:Reason>'
        f"{detail}</s:Fault>",
    )


def discover() -> Exchange:
    return soap(
        "discover",
        f'<DiscoverResponse xmlns="{_ENR}"><DiscoverResult><AuthPolicy>Federated</AuthPolicy>'
        "<EnrollmentVersion>4.0</EnrollmentVersion>"
        f"<EnrollmentPolicyServiceUrl>{URL}/Policy.svc</EnrollmentPolicyServiceUrl>"
        f"<EnrollmentServiceUrl>{URL}/Enrollment.svc</EnrollmentServiceUrl>"
        f"<AuthenticationServiceUrl>{URL}/Auth</AuthenticationServiceUrl>"
        "</DiscoverResult></DiscoverResponse>",
        Facts(offered=("OnPremise", "Federated"), version=5.0),
    )


def policies() -> Exchange:
    def nil(*names: str) -> str:
        return "".join(f'<{name} xsi:nil="true"/>' for name in names)

    return soap(
        "policies",
        f'<GetPoliciesResponse xmlns="{_PKI}/enrollmentpolicy"><response><policyID/>'
        f"{nil('policyFriendlyName', 'nextUpdateHours', 'policiesNotChanged')}<policies><policy>"
        f"<policyOIDReference>0</policyOIDReference>{nil('cAs')}<attributes>"
        "<commonName>MDM</commonName><policySchema>3</policySchema><certificateValidity>"
        "<validityPeriodSeconds>31536000</validityPeriodSeconds>"
        "<renewalPeriodSeconds>15552000</renewalPeriodSeconds></certificateValidity>"
        "<permission><enroll>true</enroll><autoEnroll>false</autoEnroll></permission>"
        "<privateKeyAttributes><minimalKeyLength>2048</minimalKeyLength>"
        f"{nil('keySpec', 'keyUsageProperty', 'permissions', 'algorithmOIDReference')}"
        "<cryptoProviders><provider>Microsoft Platform Crypto Provider</provider>"
        "<provider>Microsoft Software Key Storage Provider</provider></cryptoProviders>"
        "</privateKeyAttributes><revision><majorRevision>101</majorRevision>"
        "<minorRevision>0</minorRevision></revision>"
        f"{nil('supersededPolicies', 'privateKeyFlags', 'subjectNameFlags', 'enrollmentFlags')}"
        f"{nil('generalFlags')}<hashAlgorithmOIDReference>0</hashAlgorithmOIDReference>"
        f"{nil('rARequirements', 'keyArchivalAttributes', 'extensions')}</attributes></policy>"
        f"</policies></response>{nil('cAs')}<oIDs><oID><value>2.16.840.1.101.3.4.2.1</value>"
        "<group>4</group><oIDReferenceID>0</oIDReferenceID>"
        "<defaultName>szOID_NIST_sha256</defaultName></oID></oIDs></GetPoliciesResponse>",
    )


def certificate(value: x509.Certificate) -> str:
    der = b64encode(value.public_bytes(Encoding.DER)).decode()
    return (
        f'<characteristic type="{pki.sha1_thumbprint(value)}">'
        f'<parm name="EncodedCertificate" value="{der}"/></characteristic>'
    )


def provisioning(mine: x509.Certificate = LEAF, root: x509.Certificate = ROOT.certificate) -> str:
    nonce = b64encode(b"n" * 16).decode()
    subject = quote(mine.subject.rfc4514_string(), safe="")
    return (
        '<wap-provisioningdoc version="1.1"><characteristic type="CertificateStore">'
        '<characteristic type="Root"><characteristic type="System">'
        f"{certificate(root)}</characteristic></characteristic>"
        f'<characteristic type="My"><characteristic type="System">{certificate(mine)}'
        '<characteristic type="PrivateKeyContainer"/></characteristic>'
        '<characteristic type="WSTEP"><characteristic type="Renew">'
        '<parm name="ROBOSupport" value="true" datatype="boolean"/>'
        '<parm name="RenewPeriod" value="60" datatype="integer"/>'
        '<parm name="RetryInterval" value="4" datatype="integer"/>'
        "</characteristic></characteristic></characteristic></characteristic>"
        '<characteristic type="APPLICATION"><parm name="APPID" value="w7"/>'
        '<parm name="PROVIDER-ID" value="Example"/><parm name="NAME" value="Example MDM"/>'
        f'<parm name="ADDR" value="{ADDRESS}"/><parm name="CONNRETRYFREQ" value="6"/>'
        '<parm name="DEFAULTENCODING" value="application/vnd.syncml.dm+xml"/>'
        f'<parm name="SSLCLIENTCERTSEARCHCRITERIA" value="Subject={subject}&amp;Stores=My%5CSystem"/>'
        '<characteristic type="APPAUTH"><parm name="AAUTHLEVEL" value="CLIENT"/>'
        '<parm name="AAUTHTYPE" value="DIGEST"/><parm name="AAUTHSECRET" value="secret-of-the-server"/>'
        f'<parm name="AAUTHDATA" value="{nonce}"/></characteristic>'
        '<characteristic type="APPAUTH"><parm name="AAUTHLEVEL" value="APPSRV"/>'
        '<parm name="AAUTHTYPE" value="DIGEST"/><parm name="AAUTHNAME" value="u"/>'
        '<parm name="AAUTHSECRET" value="secret-of-the-device"/>'
        f'<parm name="AAUTHDATA" value="{nonce}"/></characteristic></characteristic>'
        '<characteristic type="DMClient"><characteristic type="Provider">'
        '<characteristic type="Example"><parm name="EntDMID" value="d1" datatype="string"/>'
        '<characteristic type="Poll">'
        '<parm name="NumberOfFirstRetries" value="8" datatype="integer"/>'
        '<parm name="IntervalForFirstSetOfRetries" value="3" datatype="integer"/>'
        '<parm name="NumberOfSecondRetries" value="8" datatype="integer"/>'
        '<parm name="IntervalForSecondSetOfRetries" value="15" datatype="integer"/>'
        '<parm name="NumberOfRemainingScheduledRetries" value="0" datatype="integer"/>'
        '<parm name="IntervalForRemainingScheduledRetries" value="480" datatype="integer"/>'
        "</characteristic></characteristic></characteristic></characteristic>"
        "</wap-provisioningdoc>"
    )


def renewed() -> str:
    return (
        '<wap-provisioningdoc version="1.1"><characteristic type="CertificateStore">'
        f'<characteristic type="My"><characteristic type="System">{certificate(LEAF)}'
        "</characteristic></characteristic></characteristic>"
        '<characteristic type="APPLICATION"><parm name="PROVIDER-ID" value="Example"/>'
        "</characteristic></wap-provisioningdoc>"
    )


def issue(document: str = "", step: str = "issue") -> Exchange:
    encoded = b64encode((document or provisioning()).encode()).decode()
    security = (
        f'<o:Security s:mustUnderstand="1" xmlns:o="{_WSS}-secext-1.0.xsd"><u:Timestamp u:Id="_0">'
        "<u:Created>2026-11-26T11:55:00.000Z</u:Created>"
        "<u:Expires>2026-11-26T12:05:00.000Z</u:Expires></u:Timestamp></o:Security>"
    )
    return soap(
        step,
        "<RequestSecurityTokenResponseCollection"
        ' xmlns="http://docs.oasis-open.org/ws-sx/ws-trust/200512"><RequestSecurityTokenResponse>'
        f"<TokenType>{_CONFIGURATION}/DeviceEnrollmentToken</TokenType>"
        f'<DispositionMessage xmlns="{_PKI}/enrollment"/><RequestedSecurityToken>'
        f'<BinarySecurityToken xmlns="{_WSS}-secext-1.0.xsd"'
        f' ValueType="{_CONFIGURATION}/DeviceEnrollmentProvisionDoc"'
        f' EncodingType="{_WSS}-secext-1.0.xsd#base64binary">{encoded}</BinarySecurityToken>'
        f'</RequestedSecurityToken><RequestID xmlns="{_PKI}/enrollment">0</RequestID>'
        "</RequestSecurityTokenResponse></RequestSecurityTokenResponseCollection>",
        Facts(public_key=KEY.public_key(), store="System", subject=SUBJECT),
        security,
    )


# ---------------------------------------------------------------------- sessions

MSI = (
    "./Device/Vendor/MSFT/EnterpriseDesktopAppManagement/MSI/"
    "%7B11111111-2222-3333-4444-555555555555%7D/DownloadInstall"
)
JOB = (
    '<MsiInstallJob id="{11111111-2222-3333-4444-555555555555}"><Product Version="1.2.3"><Download>'
    "<ContentURLList><ContentURL>https://mdm.example/a.msi</ContentURL></ContentURLList></Download>"
    f"<Validation><FileHash>{'AB' * 32}</FileHash></Validation><Enforcement>"
    "<CommandLine>/quiet</CommandLine><TimeOut>10</TimeOut><RetryCount>3</RetryCount>"
    "<RetryInterval>5</RetryInterval></Enforcement></Product></MsiInstallJob>"
)


def meta(kind: str) -> str:
    return (
        f'<Meta><Format xmlns="syncml:metinf">{kind}</Format>'
        '<Type xmlns="syncml:metinf">text/plain</Type></Meta>'
    )


def item(uri: str, data: str = "", kind: str = "") -> str:
    said = f"{meta(kind)}<Data>{data}</Data>" if kind else ""
    return f"<Item><Target><LocURI>{uri}</LocURI></Target>{said}</Item>"


def command(name: str, id: int, inside: str) -> str:
    return f"<{name}><CmdID>{id}</CmdID>{inside}</{name}>"


WORK = (
    command("Get", 4, item("./DevDetail/SwV"))
    + command("Add", 5, item(MSI))
    + command("Exec", 6, item(MSI, JOB.replace("<", "&lt;").replace(">", "&gt;"), "xml"))
    + command(
        "Atomic",
        7,
        command("Add", 8, item("./Vendor/MSFT/WiFi/Profile/a%20b", "x", "chr"))
        + command("Replace", 9, item("./Vendor/MSFT/WiFi/Profile/c", "1", "int")),
    )
    + command("Delete", 10, item("./Vendor/MSFT/Policy/Config/Browser/X"))
)


def session(step: str = "session", work: str = WORK, **more: Any) -> Exchange:
    facts = Facts(
        device_id=DEVICE,
        address=ADDRESS,
        session="2F",
        number=1,
        commands=(("2", "Alert"), ("3", "Replace")),
        max_bytes=8000,
        **more,
    )
    statuses = "".join(
        f"<Status><CmdID>{n}</CmdID><MsgRef>1</MsgRef><CmdRef>{ref}</CmdRef><Cmd>{name}</Cmd>"
        "<Data>200</Data></Status>"
        for n, (ref, name) in enumerate((("0", "SyncHdr"), *facts.commands), 1)
    )
    text = (
        '<SyncML xmlns="SYNCML:SYNCML1.2"><SyncHdr><VerDTD>1.2</VerDTD><VerProto>DM/1.2</VerProto>'
        f"<SessionID>2F</SessionID><MsgID>1</MsgID><Target><LocURI>{DEVICE}</LocURI></Target>"
        f"<Source><LocURI>{ADDRESS}</LocURI></Source></SyncHdr><SyncBody>{statuses}{work}"
        "<Final/></SyncBody></SyncML>"
    )
    return heard("syncml", step, SYNCML, text, facts)


def refused(step: str, status: int = 401, **more: Any) -> Exchange:
    return replace(heard("syncml", step, (), b"", Facts(**more)), status=status)


def asking(
    step: str = "refused.no-certificate",
    code: str = "407",
    nonce: str = "Tm9uY2Utb2YtMTYtYnl0ZXM=",
    *,
    commands: bool = False,
    **more: Any,
) -> Exchange:
    """The answer to who proved nothing, or to who just did: a nonce comes along."""
    challenge = (
        '<Chal><Meta><Format xmlns="syncml:metinf">b64</Format>'
        '<Type xmlns="syncml:metinf">syncml:auth-md5</Type>'
        f'<NextNonce xmlns="syncml:metinf">{nonce}</NextNonce></Meta></Chal>'
    )
    plain = session(step, work="", **more)
    text = plain.body.decode().replace("<Data>200", f"{challenge}<Data>{code}", 1)
    if code == "407" and not commands:
        start = text.index("<Status><CmdID>2<")
        text = text[:start] + "<Final/></SyncBody></SyncML>"
    return with_body(plain, text)
