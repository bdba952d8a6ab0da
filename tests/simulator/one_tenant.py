"""A tenant written by hand: sign-in pages, join, tokens, MDM. None of it is the server's own code.

It answers what the protocol says, with strings, and keeps what devices said.
"""

import asyncio
import re
import socket
from base64 import b64decode, b64encode, urlsafe_b64decode
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any
from uuid import uuid4

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from lxml import etree
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Route

from tandem import pki
from tandem.infra import http
from tandem.protocols import ccm

TENANT = "3f6b1b62-7b1c-4c55-9d58-0e6f9b6f5a11"
PROVIDER = "TandemMDM"
SOAP = "application/soap+xml; charset=utf-8"
POLICIES = """<GetPoliciesResponse xmlns="http://schemas.microsoft.com/windows/pki/2009/01/enrollmentpolicy">
<response><policyID/><policies><policy><policyOIDReference>0</policyOIDReference><attributes>
<policySchema>3</policySchema><privateKeyAttributes><minimalKeyLength>2048</minimalKeyLength>
</privateKeyAttributes><hashAlgorithmOIDReference>0</hashAlgorithmOIDReference></attributes></policy>
</policies></response><oIDs><oID><value>2.16.840.1.101.3.4.2.1</value><group>4</group>
<oIDReferenceID>0</oIDReferenceID><defaultName>szOID_NIST_sha256</defaultName></oID></oIDs>
</GetPoliciesResponse>"""
FAULT = """<s:Fault><s:Code><s:Value>s:Receiver</s:Value><s:Subcode><s:Value>s:Authorization</s:Value>
</s:Subcode></s:Code><s:Reason><s:Text>no licence</s:Text></s:Reason><s:Detail>
<DeviceEnrollmentServiceError xmlns="http://schemas.microsoft.com/windows/pki/2009/01/enrollment">
<ErrorType>UserLicense</ErrorType><Message>no licence</Message></DeviceEnrollmentServiceError>
</s:Detail></s:Fault>"""


@dataclass
class Person:
    password: str = "secret"
    offered: bool = True  # MdmUrls in the answer to the join.
    licensed: bool = True


@dataclass
class Managed:
    """What one device said in its sessions, and what waits for it."""

    queue: list[str] = field(default_factory=list)
    statuses: list[tuple[str, str]] = field(default_factory=list)
    results: dict[str, str] = field(default_factory=dict)
    alerts: list[tuple[str, str]] = field(default_factory=list)
    sessions: int = 0


class Tenant:
    def __init__(self, folder: Path, port: int, management_port: int) -> None:
        self.folder, self.port, self.management_port = folder, port, management_port
        now = datetime.now(UTC)
        self.tls_root = pki.new_root(pki.name("Lab public CA"), now=now)
        self.device_ca = pki.new_root(pki.name("Tenant device CA"), now=now)
        self.people: dict[str, Person] = {}
        self.managed: dict[str, Managed] = {}
        self.names: dict[str, str] = {}
        self.files: dict[str, bytes] = {}
        self.codes: dict[str, tuple[str, str]] = {}
        self.refresh: dict[str, str] = {}
        self.down = 0

    @property
    def url(self) -> str:
        return f"https://localhost:{self.port}"

    def by_name(self, name: str) -> Managed:
        return self.managed[self.names[name]]

    # Directory.

    async def authorize(self, request: Request) -> Response:
        query = dict(request.query_params)
        if request.method == "GET":
            hidden = "".join(
                f'<input type="hidden" name="{k}" value="{v}">'
                for k, v in query.items()
                if k in ("state", "redirect_uri", "code_challenge")
            )
            return self._login(hidden)
        form = dict(await request.form())
        person = self.people.get(str(form["login"]))
        if person is None or person.password != form["passwd"]:
            return self._login("", "Your account or password is incorrect.")
        code = uuid4().hex
        self.codes[code] = str(form["login"]), str(form["code_challenge"])
        return RedirectResponse(
            f"{form['redirect_uri']}?code={code}&state={form['state']}", status_code=302
        )

    def _login(self, hidden: str, error: str = "") -> Response:
        said = f'<p class="error">{error}</p>' if error else ""
        return HTMLResponse(
            f'{said}<form method="post" action="/{TENANT}/oauth2/v2.0/authorize">{hidden}'
            '<input name="login"><input name="passwd" type="password"><button>Sign in</button></form>'
        )

    async def token(self, request: Request) -> Response:
        form = {key: str(value) for key, value in (await request.form()).items()}
        match form["grant_type"]:
            case "authorization_code":
                upn, challenge = self.codes.pop(form["code"])
                digest = sha256(form["code_verifier"].encode()).digest()
                assert b64encode(digest, b"-_").rstrip(b"=").decode() == challenge
            case "refresh_token":
                upn = self.refresh.pop(form["refresh_token"], "")
                if not upn:
                    return http.reply({"error": "invalid_grant", "error_description": "used"}, 400)
            case _:
                head = form["assertion"].split(".")[1]
                claims = msgspec.json.decode(urlsafe_b64decode(head + "=" * (-len(head) % 4)))
                return http.reply({"access_token": f"device:{claims['sub']}"})
        following = uuid4().hex
        self.refresh[following] = upn
        return http.reply({"access_token": f"user:{upn}", "refresh_token": following})

    async def join(self, request: Request) -> Response:
        upn = request.headers["authorization"].removeprefix("Bearer user:")
        asked = await request.json()
        key = pki.read_request(b64decode(asked["CertificateRequest"]["Data"])).public_key()
        device = f"{sha256(asked['DeviceDisplayName'].encode()).hexdigest()[:8]}-0000"
        leaf = self.device_ca.issue(
            key, pki.name(device), now=datetime.now(UTC), days=9, usages=["client"]
        )
        urls = {"DiscoveryUrl": f"{self.url}/EnrollmentServer/Discovery.svc"}
        der = leaf.public_bytes(Encoding.DER)
        return http.reply(
            {
                "Certificate": {"Thumbprint": "", "RawBody": b64encode(der).decode()},
                "User": {"Upn": upn},
                "DeviceId": device,
                "TenantId": TENANT,
                "TenantName": "Contoso",
                "MdmUrls": urls if self.people[upn].offered else None,
            }
        )

    # Enrollment.

    async def soap(self, request: Request) -> Response:
        if self.down:
            self.down -= 1
            return Response(status_code=503)
        raw = await request.body()
        root = etree.fromstring(raw)
        action = root.find(".//{http://www.w3.org/2005/08/addressing}Action").text
        tokens = [e.text for e in root.iter() if str(e.tag).endswith("}BinarySecurityToken")]
        if action.endswith("/Discover"):
            base = f"{self.url}/EnrollmentServer"
            body = (
                '<DiscoverResponse xmlns="http://schemas.microsoft.com/windows/management/2012/01/enrollment">'
                "<DiscoverResult><AuthPolicy>Federated</AuthPolicy><EnrollmentVersion>4.0</EnrollmentVersion>"
                f"<EnrollmentPolicyServiceUrl>{base}/Policy.svc</EnrollmentPolicyServiceUrl>"
                f"<EnrollmentServiceUrl>{base}/Enrollment.svc</EnrollmentServiceUrl>"
                "</DiscoverResult></DiscoverResponse>"
            )
        elif action.endswith("/GetPolicies"):
            body = POLICIES
        else:
            upn = b64decode(tokens[0]).decode().removeprefix("user:")
            body = self._issue(root, tokens[1]) if self.people[upn].licensed else FAULT
        answer = (
            '<s:Envelope xmlns:s="http://www.w3.org/2003/05/soap-envelope"><s:Header/>'
            f"<s:Body>{body}</s:Body></s:Envelope>"
        )
        return Response(answer, media_type=SOAP)

    def _issue(self, root: Any, request: str) -> str:
        items = {
            e.get("Name"): "".join(e.itertext())
            for e in root.iter()
            if str(e.tag).endswith("}ContextItem")
        }
        assert items["EnrollmentType"] == "Device"
        device = items["DeviceID"]
        key = pki.windows_request(b64decode(request))
        leaf = self.device_ca.issue(
            key, pki.name(device), now=datetime.now(UTC), days=9, usages=["client"]
        )
        self.managed[device] = Managed()
        self.names[items["DeviceName"]] = device

        def certificate(value: x509.Certificate) -> str:
            der = b64encode(value.public_bytes(Encoding.DER)).decode()
            return (
                f'<characteristic type="{pki.sha1_thumbprint(value)}">'
                f'<parm name="EncodedCertificate" value="{der}"/></characteristic>'
            )

        document = (
            '<wap-provisioningdoc version="1.1"><characteristic type="CertificateStore">'
            f'<characteristic type="Root"><characteristic type="System">'
            f"{certificate(self.device_ca.certificate)}</characteristic></characteristic>"
            f'<characteristic type="My"><characteristic type="System">{certificate(leaf)}'
            '<characteristic type="PrivateKeyContainer"/></characteristic></characteristic>'
            '</characteristic><characteristic type="APPLICATION"><parm name="APPID" value="w7"/>'
            f'<parm name="PROVIDER-ID" value="{PROVIDER}"/><parm name="ADDR" '
            f'value="https://localhost:{self.management_port}/ManagementServer/MDM.svc"/>'
            '<parm name="CONNRETRYFREQ" value="2"/><parm name="INITIALBACKOFFTIME" value="30000"/>'
            f'<parm name="SSLCLIENTCERTSEARCHCRITERIA" value="Subject=CN%3D{device}&amp;Stores=My%5CSystem"/>'
            '</characteristic><characteristic type="DMClient"><characteristic type="Provider">'
            f'<characteristic type="{PROVIDER}"><parm name="EntDMID" value="e1"/>'
            '<characteristic type="Poll"><parm name="IntervalForFirstSetOfRetries" value="3"/>'
            '<parm name="NumberOfFirstRetries" value="0"/></characteristic>'
            "</characteristic></characteristic></characteristic></wap-provisioningdoc>"
        )
        return (
            '<RequestSecurityTokenResponseCollection xmlns="http://docs.oasis-open.org/ws-sx/ws-trust/200512">'
            "<RequestSecurityTokenResponse><RequestedSecurityToken><BinarySecurityToken>"
            f"{b64encode(document.encode()).decode()}</BinarySecurityToken></RequestedSecurityToken>"
            "</RequestSecurityTokenResponse></RequestSecurityTokenResponseCollection>"
        )

    # Management.

    async def manage(self, request: Request) -> Response:
        der = http.peer_certificate(request)
        if der is None:
            return Response(status_code=401)
        device = x509.load_der_x509_certificate(der).subject.rfc4514_string().removeprefix("CN=")
        it = self.managed.get(device)
        text = re.sub(r' xmlns="[^"]*"', "", (await request.body()).decode())
        root = etree.fromstring(text)
        if it is None or root.findtext("SyncHdr/Source/LocURI") != device:
            return Response(status_code=403)
        number, session = root.findtext("SyncHdr/MsgID"), root.findtext("SyncHdr/SessionID")
        it.sessions += number == "1"
        answers = []
        for command in root.find("SyncBody"):
            if command.tag == "Status" and command.findtext("CmdRef") != "0":
                it.statuses.append((command.findtext("TargetRef"), command.findtext("Data")))
            elif command.tag == "Results":
                for item in command.iter("Item"):
                    it.results[item.findtext("Source/LocURI")] = item.findtext("Data") or ""
            elif command.tag in ("Alert", "Replace"):
                answers.append((command.findtext("CmdID"), command.tag))
                for item in command.iter("Item"):
                    if command.tag == "Alert":
                        kind = item.findtext("Meta/Type") or ""
                        it.alerts.append((kind, item.findtext("Data") or ""))
        waiting, it.queue = it.queue, []
        own = "".join(
            f"<Status><CmdID>{9000 + n}</CmdID><MsgRef>{number}</MsgRef><CmdRef>{ref}</CmdRef>"
            f"<Cmd>{tag}</Cmd><Data>200</Data></Status>"
            for n, (ref, tag) in enumerate([("0", "SyncHdr"), *answers])
        )
        body = (
            '<SyncML xmlns="SYNCML:SYNCML1.2"><SyncHdr><VerDTD>1.2</VerDTD><VerProto>DM/1.2</VerProto>'
            f"<SessionID>{session}</SessionID><MsgID>{number}</MsgID></SyncHdr><SyncBody>{own}"
            f"{''.join(waiting)}<Final/></SyncBody></SyncML>"
        )
        return Response(body, media_type="application/vnd.syncml.dm+xml")

    async def content(self, request: Request) -> Response:
        return Response(self.files[request.path_params["name"]])

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        key = pki.generate_key()
        leaf = self.tls_root.issue(
            key.public_key(),
            pki.name("localhost"),
            now=datetime.now(UTC),
            days=9,
            dns=["localhost"],
            usages=["server"],
        )
        files = {
            "tenant.pem": pki.pem(leaf),
            "tenant.key": pki.key_pem(key),
            "tenant-ca.pem": pki.pem(self.tls_root.certificate),
            "device-ca.pem": pki.pem(self.device_ca.certificate),
        }
        for name, data in files.items():
            (self.folder / name).write_bytes(data)
        base = f"/{TENANT}/oauth2/v2.0"
        app = http.application(
            [
                Route(f"{base}/authorize", self.authorize, methods=["GET", "POST"]),
                Route(f"{base}/token", self.token, methods=["POST"]),
                Route("/EnrollmentServer/device/", self.join, methods=["POST"]),
                Route("/EnrollmentServer/{name}", self.soap, methods=["POST"]),
                Route("/content/{name}", self.content, methods=["GET", "HEAD"]),
            ],
            role="tenant",
        )
        manage = http.application(
            [Route("/ManagementServer/MDM.svc", self.manage, methods=["POST"])], role="mdm"
        )
        certificate, key_file = self.folder / "tenant.pem", self.folder / "tenant.key"
        plain = http.TLS(certificate, key_file)
        mutual = http.TLS(certificate, key_file, self.folder / "device-ca.pem")
        stop = asyncio.Event()
        listeners = [
            http.Listener(app, "127.0.0.1", self.port, plain),
            http.Listener(manage, "127.0.0.1", self.management_port, mutual),
        ]
        task = asyncio.create_task(http.serve(listeners, stop, drain_seconds=1))
        for port in (self.port, self.management_port):
            await listens(port)
        try:
            yield
        finally:
            stop.set()
            await task


async def listens(port: int) -> None:
    async with asyncio.timeout(10):
        while True:
            with socket.socket() as probe:
                probe.setblocking(False)
                try:
                    await asyncio.get_running_loop().sock_connect(probe, ("127.0.0.1", port))
                    return
                except OSError:
                    await asyncio.sleep(0.02)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def co_managed(flags: int) -> ccm.PolicyContent:
    policy = ccm.ConfigurationPolicy("p", "Prod", 1, "production", True, False, flags)
    return ccm.PolicyContent(configuration_policies=[policy])
