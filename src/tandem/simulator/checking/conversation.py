"""The checking client: enrols, holds sessions, tries what must be refused, and leaves.

    exists, Discover, GetPolicies      with the odd forms that real devices send, and hostile ones
    RequestSecurityToken               first what must be refused, then the one that enrols
    sessions                           an ordinary one, repeated and late messages, a busy device
    messages of others                 without a certificate, with another device's id, broken
    Alert …unenrollment.userrequest    and one more message, which gets nothing

It keeps what it heard and decides nothing: that is for the demands.
"""

import re
import secrets
import tempfile
import uuid
from base64 import urlsafe_b64encode
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Literal, Self
from urllib.parse import urlencode
from xml.sax.saxutils import escape

import httpx
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from tandem import pki
from tandem.infra import net
from tandem.infra.clock import Clock, utc_now
from tandem.infra.errors import AppError, Kind
from tandem.simulator.checking import enrolling, managing, model, provisioning, requests
from tandem.simulator.checking.model import Exchange, Facts, local, text
from tandem.simulator.checking.requests import Credential, Key, Said

_SOAP = "application/soap+xml; charset=utf-8"
_SYNCML = "application/vnd.syncml.dm+xml"
_MAX_BYTES = 524288
_MESSAGES = 60
_MAX_PACKAGE_BYTES = 64 * 1024 * 1024
_VERSION = "5.0"
# What the device answers when it is asked; anything else is not there.
_NODES = {
    "./devdetail/swv": "10.0.26100.1",
    "./devdetail/oem": "Tandem",
    "./devdetail/devtyp": "Checking client",
    "./devdetail/ext/microsoft/dnscomputername": "CHECK",
}


class NoAnswer(AppError):
    kind, code = Kind.UNAVAILABLE, "check.no-answer"


class NotChecked(AppError):
    """The check cannot go on: the server did not do what the rest needs."""

    kind, code = Kind.CONFLICT, "check.not-checked"


class Conversation:
    """One device that is made up for a check. `exchanges` is everything that was heard."""

    def __init__(
        self,
        discovery_url: str,
        credential: Credential,
        *,
        user: str = "",
        ca_file: Path | None = None,
        resolver: str = "",
        kind: Literal["Device", "Full"] = "Device",
        now: Clock = utc_now,
    ) -> None:
        self.exchanges: list[Exchange] = []
        self._url = discovery_url
        self._credential = credential
        self._user = user
        self._ca_file = ca_file
        self._resolver = net.Resolver(resolver or None)
        self._kind = kind
        self._now = now
        self.device_id = secrets.token_hex(16).upper()
        self._name = f"CHECK-{self.device_id[:6]}"
        self._bits = 2048
        self._key: rsa.RSAPrivateKey | None = None
        self._http = net.client(resolver=self._resolver, context=net.tls_context(ca_file))
        self._managing: httpx.AsyncClient | None = None
        self._opened = [self._http]
        self._leaf: x509.Certificate | None = None
        self._robo = False
        self._secret = ("", "")
        self._policy_url = self._enrollment_url = self._address = ""
        self._sessions = 0

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None
    ) -> None:
        for http in self._opened:
            await http.aclose()

    async def whole(self) -> None:
        """All of it. Raises NoAnswer, NotChecked; what was heard until then counts."""
        await self.discover()
        await self.policies()
        await self.enroll()
        await self.sessions()
        await self.renew()
        await self.proofs()
        await self.strangers()
        await self.leave()

    # ------------------------------------------------------------------ discovery

    async def discover(self) -> None:
        await self._get("exists", self._url)
        found = await self._discover("discover", _VERSION)
        told = enrolling.discovered(found)
        self._policy_url = told.get("EnrollmentPolicyServiceUrl", "").strip()
        self._enrollment_url = told.get("EnrollmentServiceUrl", "").strip()
        if not self._enrollment_url:
            raise NotChecked(
                f"Discovery names no enrollment service ({enrolling.subcode(found) or found.status}).",
                cure="Look at the address, and at what the server says above.",
            )
        head, slash, path = self._url.partition("//")
        host, _, rest = path.partition("/")
        if rest.lower() != rest:
            await self._discover(
                "discover.lower-case", _VERSION, f"{head}{slash}{host}/{rest.lower()}"
            )
        await self._discover("discover.newest", "9.0")
        id, asked = requests.message_id(), _asked(_VERSION)
        plain = requests.discover(self._url, id, self._user, _VERSION)
        spaced = re.sub(r"(<a:Action[^>]*>|<RequestVersion>)", r"\1\n  ", plain)
        spaced = spaced.replace("<s:Body", "<!-- hello --><s:Body")
        spaced = re.sub(r"(</?|xmlns:| )s(:|=)", r"\1soap\2", spaced)
        await self._soap(
            "discover.white-space", self._url, f"\ufeff  \n{spaced}".encode(), id, asked
        )
        evil = f'<!DOCTYPE x [<!ENTITY e SYSTEM "file:///etc/hostname">]>{plain}'
        await self._soap("discover.doctype", self._url, evil.encode(), "")
        await self._soap("discover.cut", self._url, plain.encode()[:-20], "")
        nameless = re.sub(r"<a:MessageID>.*?</a:MessageID>", "", plain)
        await self._soap("discover.no-message-id", self._url, nameless.encode(), "")
        await self._soap("discover.utf-16", self._url, plain.encode("utf-16"), "", asked)
        deep = plain.replace("<s:Body", "<x>" * 400 + "</x>" * 400 + "<s:Body")
        await self._soap("discover.deep", self._url, deep.encode(), "")
        page = told.get("AuthenticationServiceUrl", "").strip()
        if page.startswith("https://"):
            await self._page(page)

    async def _discover(self, step: str, version: str, url: str = "") -> Exchange:
        id = requests.message_id()
        message = requests.discover(url or self._url, id, self._user, version)
        return await self._soap(step, url or self._url, message.encode(), id, _asked(version))

    async def _page(self, url: str) -> None:
        """The sign-in page, as the client's window opens it, and as nobody ought to."""
        mark = "&" if "?" in url else "?"
        good = {"page": "ms-app://s-1-15-2-1910091885"}
        for step, address in {**good, **enrolling.EVIL}.items():
            query = urlencode({"appru": address, "login_hint": self._user or "a@b.example"})
            await self._get(step, f"{url}{mark}{query}")

    # ------------------------------------------------------------------ certificate policy

    async def policies(self) -> None:
        if not self._policy_url:
            return
        forged = _part('{"alg":"none","typ":"JWT"}') + "." + _part('{"upn":"a@b.example"}') + "."
        mine = self._credential.header
        for step, security in (
            ("policies", mine),
            ("policies.no-credential", ""),
            ("policies.two-credentials", mine + Credential("secret", user="nobody").header),
            (
                "policies.unknown-token",
                Credential(secrets.token_urlsafe(32), requests.USER_TOKEN).header,
            ),
            ("policies.forged-token", Credential(forged, requests.JWT).header),
        ):
            id = requests.message_id()
            message = requests.policies(self._policy_url, id, security)
            heard = await self._soap(step, self._policy_url, message.encode(), id)
            if step == "policies":
                self._bits = max(2048, enrolling.key_bits(heard))

    # ------------------------------------------------------------------ the certificate

    async def enroll(self) -> None:
        """Refusals first, as the credential is used up by what enrols. Raises NotChecked."""
        self._key = rsa.generate_private_key(65537, self._bits)
        good = requests.certificate_request(self._key, self.device_id)
        weak = rsa.generate_private_key(65537, 1024)  # noqa: S505 - to be refused
        odd = ec.generate_private_key(ec.SECP256K1())
        mine = self._credential.header
        items = requests.context(self.device_id, self._name, self._kind)
        without = [item for item in items if item[0] != "DeviceID"]
        two = [*items, ("DeviceID", uuid.uuid4().hex.upper())]
        forged = good[:-1] + bytes([good[-1] ^ 1])
        nobody = Credential(secrets.token_urlsafe(32), requests.USER_TOKEN).header
        for step, security, request, told in (
            ("issue.unknown-token", nobody, good, items),
            ("issue.no-device-id", mine, good, without),
            ("issue.two-device-ids", mine, good, two),
            ("issue.no-request", mine, b"no request", items),
            ("issue.weak-key", mine, self._request(weak), items),
            ("issue.odd-curve", mine, self._request(odd), items),
            ("issue.bad-signature", mine, forged, items),
        ):
            await self._issue(step, security, request, told)
        id = requests.message_id()
        plain = requests.issue(self._enrollment_url, id, mine, good, items)
        await self._soap("issue.doctype", self._enrollment_url, f"<!DOCTYPE a>{plain}".encode(), "")
        await self._issue("issue.recovery", mine, good, items, kind="Recovery")
        renewal = Credential("", user=self._user or "nobody").header
        await self._issue(
            "issue.forged-renewal",
            renewal,
            good,
            items,
            kind="Renew",
            value_type=f"{enrolling.WSSE}#PKCS7",
        )
        found = await self._issue("issue", mine, good, items)
        leaf = provisioning.leaf(found)
        self._address = provisioning.application(found).get("ADDR", "")
        if leaf is None or not self._address.startswith("https://"):
            raise NotChecked(
                f"The server does not enrol this device ({enrolling.subcode(found) or found.status}).",
                cure="Check that the credential is good, and that its user may enrol devices.",
            )
        self._hold(leaf, self._key)
        self._robo = provisioning.renews(found)
        self._secret = provisioning.secret(found)
        self._user = self._user or provisioning.user(found)
        other, other_key = uuid.uuid4().hex.upper(), rsa.generate_private_key(65537, self._bits)
        again = requests.context(other, self._name, self._kind)
        await self._issue("issue.taken-key", mine, good, again)
        if not self._credential.user:
            await self._issue("issue.taken-token", mine, self._request(other_key), again)

    def _hold(self, leaf: x509.Certificate, key: rsa.RSAPrivateKey) -> None:
        """Sessions are held with this certificate from now on."""
        with tempfile.TemporaryDirectory() as folder:
            files = Path(folder, "device.pem"), Path(folder, "device.key")
            files[1].touch(mode=0o600)
            files[0].write_bytes(pki.pem(leaf))
            files[1].write_bytes(pki.key_pem(key))
            context = net.tls_context(self._ca_file, files)
        self._managing = net.client(resolver=self._resolver, context=context)
        self._opened.append(self._managing)
        self._leaf, self._key = leaf, key

    async def renew(self) -> None:
        """A new certificate by the old key, where the document promised it (section 8)."""
        if not self._robo or self._leaf is None or self._key is None:
            return
        key = rsa.generate_private_key(65537, self._bits)
        request = requests.renewal_request(key, self.device_id, self._leaf, self._key)
        before, old = self._managing, self._key
        self._key = key
        found = await self._issue(
            "issue.renewal",
            Credential("", user=self._user or "nobody").header,
            request,
            [("DeviceType", "CIMClient_Windows"), ("ApplicationVersion", "10.0.26100.1")],
            kind="Renew",
            value_type=f"{enrolling.WSSE}#PKCS7",
        )
        leaf = provisioning.leaf(found)
        if leaf is None:
            self._key = old
            return
        self._hold(leaf, key)
        await self._session("session.renewed")
        self._managing, after = before, self._managing
        late = requests.first(self._next(), self._address, self.device_id, _MAX_BYTES)
        # A certificate on the revocation list may end in the handshake already.
        with suppress(NoAnswer):
            await self._manage("refused.superseded", late.data)
        self._managing = after

    def _request(self, key: Key) -> bytes:
        return requests.certificate_request(key, self.device_id)

    async def _issue(
        self,
        step: str,
        security: str,
        request: bytes,
        items: list[tuple[str, str]],
        *,
        kind: str = "Issue",
        value_type: str = f"{enrolling.PKI}#PKCS10",
    ) -> Exchange:
        id, url = requests.message_id(), self._enrollment_url
        message = requests.issue(
            url, id, security, request, items, kind=kind, value_type=value_type
        )
        facts = Facts(
            public_key=self._key.public_key() if self._key else None,
            store="System" if self._kind == "Device" else "User",
            subject=requests.subject(self.device_id).rfc4514_string(),
        )
        return await self._soap(step, url, message.encode(), id, facts)

    # ------------------------------------------------------------------ sessions

    async def sessions(self) -> None:
        """An ordinary session; one whose first message comes twice; a late one; a busy device."""
        await self._session("session")
        number = self._next()
        said = requests.first(number, self._address, self.device_id, _MAX_BYTES)
        first = await self._say("session.first", number, said)
        again = await self._say("session.again", number, said, earlier=first)
        busy = requests.alert("1224", "Reversed-Domain-Name:com.microsoft.mdm.requestpending", "1")
        pending = requests.later(number, 2, self._address, self.device_id, "", [busy], final=False)
        await self._say("session.busy", number, pending, quiet=True)
        done = requests.later(number, 3, self._address, self.device_id, _answers(again))
        await self._say("session.after-busy", number, done)
        late = requests.later(number, 2, self._address, self.device_id, "")
        await self._say("session.late", number, late, quiet=True)
        await self._session("session.nobody", login="none")

    async def _session(self, step: str, login: str = "user") -> None:
        """Until the server has no more commands."""
        number = self._next()
        said = requests.first(number, self._address, self.device_id, _MAX_BYTES, login=login)
        for _ in range(_MESSAGES):
            heard = await self._say(step, number, said, user=login == "user")
            if not managing.is_message(heard) or not managing.commands(heard):
                return
            for url, sha256 in managing.packages(heard):
                await self._download(url, sha256)
            said = requests.later(
                number,
                said.number + 1,
                self._address,
                self.device_id,
                _answers(heard),
                max_bytes=_MAX_BYTES,
            )
        raise NotChecked("The server does not end the session.")

    async def _download(self, url: str, sha256: str) -> None:
        """As BITS does: the head, the file, and a range of it."""
        head = await self._ask(self._http, "HEAD", url, b"", {})
        length = head.headers.get("content-length", "")
        if length.isdigit() and int(length) > _MAX_PACKAGE_BYTES:
            return
        response = await self._ask(self._http, "GET", url, b"", {})
        # A link is a secret for as long as it lasts.
        place = url.partition("?")[0].rpartition("/")[0]
        whole = self._keep("content", "content", place, response, Facts(sha256=sha256))
        self._keep("content", "content.head", place, head, Facts(earlier=whole))
        response = await self._ask(self._http, "GET", url, b"", {"Range": "bytes=1-7"})
        self._keep("content", "content.range", place, response, Facts(earlier=whole))

    def _next(self) -> str:
        self._sessions += 1
        return f"{self._sessions:X}"

    async def _say(
        self,
        step: str,
        session: str,
        said: Said,
        *,
        user: bool = True,
        quiet: bool = False,
        earlier: Exchange | None = None,
    ) -> Exchange:
        facts = replace(self._facts(session, said), user=user, quiet=quiet, earlier=earlier)
        return await self._manage(step, said.data, facts=facts)

    def _facts(self, session: str, said: Said) -> Facts:
        return Facts(
            device_id=self.device_id,
            address=self._address,
            session=session,
            number=said.number,
            commands=said.commands,
            max_bytes=_MAX_BYTES,
        )

    async def proofs(self) -> None:
        """Without the certificate in the handshake: by digest and by signature, good ones and others.

        Both are for a server to offer; whether it does shows in what it answers to nothing.
        """
        name, secret = self._secret
        asked = await self._prove("refused.no-certificate", "")
        if managing.nonce(asked):
            good = requests.digest(name, secret, managing.nonce(asked))
            await self._prove("session.digest", good, earlier=asked)
            asked = await self._prove("refused.replayed-digest", good)
            bad = requests.digest(name, "another secret", managing.nonce(asked))
            await self._prove("refused.wrong-digest", bad)
            await self._prove("refused.basic", requests.basic(name, secret))
        if self._leaf is None or self._key is None:
            return
        number = self._next()
        said = requests.first(number, self._address, self.device_id, _MAX_BYTES)
        forged = requests.signature(said.data, *_forger(self._leaf, self._now()))
        await self._manage("refused.signature", said.data, known=False, signature=forged)
        mine = requests.signature(said.data, self._leaf, self._key)
        facts = self._facts(number, said)
        heard = await self._manage(
            "session.signed", said.data, facts=facts, known=False, signature=mine
        )
        if heard.status in (400, 401, 403) or managing.header_code(heard) in ("401", "407"):
            # A server that takes no signatures says no more than that.
            self.exchanges.pop()

    async def _prove(self, step: str, proof: str, *, earlier: Exchange | None = None) -> Exchange:
        number = self._next()
        said = requests.first(number, self._address, self.device_id, _MAX_BYTES, proof=proof)
        facts = replace(self._facts(number, said), earlier=earlier)
        return await self._manage(step, said.data, facts=facts, known=False)

    # ------------------------------------------------------------------ what must be refused

    async def strangers(self) -> None:
        """Messages of who is not this device, and what is no message."""
        other = uuid.uuid4().hex.upper()

        def message(device: str, dev_id: str = "") -> bytes:
            return requests.first(
                self._next(), self._address, device, _MAX_BYTES, dev_id=dev_id
            ).data

        known = await self._manage("refused.no-certificate", message(self.device_id), known=False)
        facts = Facts(earlier=known)
        await self._manage("refused.unknown-device", message(other), facts=facts, known=False)
        await self._manage("refused.source", message(other))
        await self._manage("refused.dev-id", message(self.device_id, other))
        good = message(self.device_id)
        await self._manage("refused.doctype", b'<!DOCTYPE x [<!ENTITY a "b">]>' + good)
        await self._manage("refused.cut", good[:-20])
        await self._manage(
            "refused.wbxml", b"\x02\x9f\x53\x6a\x00", content_type=f"{_SYNCML[:-3]}wbxml"
        )

    async def leave(self) -> None:
        """The user disconnects; afterwards the certificate is worth nothing."""
        number = self._next()
        gone = requests.alert("1226", "com.microsoft:mdm.unenrollment.userrequest", "1")
        said = requests.first(number, self._address, self.device_id, _MAX_BYTES, alerts=[gone])
        await self._say("session.leaving", number, said, quiet=True)
        after = requests.first(self._next(), self._address, self.device_id, _MAX_BYTES)
        with suppress(NoAnswer):
            await self._manage("refused.left", after.data)

    # ------------------------------------------------------------------ the wire

    async def _get(self, step: str, url: str) -> None:
        headers = {"User-Agent": "ENROLLClient", "Cache-Control": "no-cache", "Pragma": "no-cache"}
        response = await self._ask(self._http, "GET", url, b"", headers)
        self._keep("http", step, url, response, Facts())

    async def _soap(
        self, step: str, url: str, data: bytes, id: str, facts: Facts | None = None
    ) -> Exchange:
        headers = {"User-Agent": "ENROLLClient", "Content-Type": _SOAP, "Cache-Control": "no-cache"}
        response = await self._ask(self._http, "POST", url, data, headers)
        known = replace(facts or Facts(), message_id=id, at=self._now())
        return self._keep("soap", step, url, response, known)

    async def _manage(
        self,
        step: str,
        data: bytes,
        *,
        facts: Facts | None = None,
        known: bool = True,
        content_type: str = _SYNCML,
        signature: str = "",
    ) -> Exchange:
        """`known` presents the device's certificate."""
        mark = "&" if "?" in self._address else "?"
        url = f"{self._address}{mark}mode=Maintenance&Platform=WoA"
        headers = {
            "Content-Type": content_type,
            "Accept": "application/vnd.syncml.dm+xml, application/octet-stream",
            "Accept-Charset": "UTF-8",
            "User-Agent": "MSFT OMA DM Client/1.2.0.1",
            "Client-Request-Id": "0",
        }
        if signature:
            headers["MDM-Signature"] = signature
        http = self._managing if known and self._managing is not None else self._http
        response = await self._ask(http, "POST", url, data, headers)
        return self._keep("syncml", step, url, response, facts or Facts())

    async def _ask(
        self, http: httpx.AsyncClient, method: str, url: str, data: bytes, headers: dict[str, str]
    ) -> httpx.Response:
        try:
            return await http.request(method, url, content=data or None, headers=headers)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise NoAnswer(
                f"{url} does not answer: {error or type(error).__name__}.",
                cure="Check the address, the name in DNS, and which roots are trusted (--ca-file).",
            ) from None

    def _keep(
        self,
        kind: model.Kind,
        step: str,
        url: str,
        response: httpx.Response,
        facts: Facts,
    ) -> Exchange:
        # What a length counts are the bytes of the wire; a coding is a fault of its own.
        found = Exchange(
            kind,
            step,
            url,
            response.status_code,
            tuple(response.headers.multi_items()),
            response.content,
            facts,
        )
        self.exchanges.append(found)
        return found


def _asked(version: str) -> Facts:
    return Facts(offered=requests.OFFERED, version=float(version))


def _forger(leaf: x509.Certificate, at: datetime) -> tuple[x509.Certificate, rsa.RSAPrivateKey]:
    """A certificate of the device's name, by an authority of the issuer's name."""
    key = rsa.generate_private_key(65537, 2048)
    authority = pki.new_root(leaf.issuer, now=at)
    return authority.issue(key.public_key(), leaf.subject, now=at, days=9, usages=["client"]), key


def _part(claims: str) -> str:
    return urlsafe_b64encode(claims.encode()).rstrip(b"=").decode()


def _answers(heard: Exchange) -> str:
    """Statuses for all that was asked, nested ones too, and results of what is there."""
    number = heard.facts.number
    said = [_status(100, number, "0", "SyncHdr", "200")]
    results: list[str] = []
    for command in managing.every_command(heard):
        id, name = text(command, managing.tag("CmdID")), local(command)
        found = [managing.target(item) for item in managing.items(command)]
        values = [(uri, _NODES[uri.lower()]) for uri in found if uri.lower() in _NODES]
        code = "200" if name != "Get" or values else "404"
        said.append(_status(100 + len(said), number, id, name, code))
        if name == "Get" and values:
            inside = "".join(
                f"<Item><Source><LocURI>{escape(uri)}</LocURI></Source><Data>{value}</Data></Item>"
                for uri, value in values
            )
            results.append(
                f"<Results><CmdID>{1000 + len(results)}</CmdID><MsgRef>{number}</MsgRef>"
                f"<CmdRef>{escape(id)}</CmdRef>{inside}</Results>"
            )
    return "".join([*said, *results])


def _status(id: int, message: int, command: str, name: str, code: str) -> str:
    return (
        f"<Status><CmdID>{id}</CmdID><MsgRef>{message}</MsgRef><CmdRef>{escape(command)}</CmdRef>"
        f"<Cmd>{name}</Cmd><Data>{code}</Data></Status>"
    )
