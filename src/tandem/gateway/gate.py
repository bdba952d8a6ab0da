"""Who may pass: the gateway's decision about one request, from its head alone (spec F7).

No I/O, and no key that signs anything: what is known lies in the configuration that the site sent.
"""

import math
import re
import time
from base64 import b64decode
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from hashlib import sha256
from urllib.parse import parse_qs

import msgspec
from cryptography import x509

from tandem import pki
from tandem.gateway.model import UNSAFE_PATH, Decision, EdgeAnswer, Forward, Refusal, Shelved
from tandem.gateway.ocsp import Responders
from tandem.gateway.statuses import refusal
from tandem.gateway.tokens import Tokens
from tandem.protocols import ccm
from tandem.protocols.tunnel import CONTENT, Configuration, Endpoint

ENTRIES = ("/ccm_proxy_serverauth/", "/ccm_proxy_mutualauth/")
_TARGET = re.compile(rb"^/[\x21-\x7e]*$")
_CACHE_SIZE = 20_000
_KEPT_SECONDS = 60
_CONTENT = re.compile(rf"{CONTENT}/([0-9a-f]{{64}})", re.IGNORECASE)
_TOKEN_SERVICE = "/ccm_sts"  # noqa: S105 - the name of an endpoint.

Now = Callable[[], float]


class Gate:
    """The rules of one configuration. Made anew when the configuration changes."""

    def __init__(
        self,
        configuration: Configuration,
        now: Now = time.time,
        responders: Responders | None = None,
    ) -> None:
        self.configuration = configuration
        self._now = now
        self._responders = responders
        self._endpoints = [(item.prefix.lower(), item) for item in configuration.endpoints]
        self._endpoints.sort(key=lambda pair: len(pair[0]), reverse=True)
        self._tenants = {item.tenant_id.lower(): item for item in configuration.tenants}
        self._tokens = Tokens(configuration)
        self._roots = [
            root
            for text in configuration.trusted_roots
            for root in pki.read_certificates(text.encode())
        ]
        self.revocations = pki.Revocations(self._roots, [_crl(text) for text in configuration.crls])
        # By DER, which a connection keeps: its hash is made once.
        self._certificates: dict[bytes, tuple[float, str | Refusal]] = {}
        self._paths: dict[bytes, pki.ClientPath] = {}

    def decide(
        self, method: str, target: bytes, headers: Mapping[str, str], peer: bytes | None
    ) -> Decision:
        """`target` as it came, `headers` by lower-case name, `peer` the client's certificate."""
        if not _TARGET.match(target) or len(target) > 8192:
            return Refusal(400, "CMGService_Invalid_Url", "The address cannot be used.")
        path, _, query = target.decode("ascii").partition("?")
        if UNSAFE_PATH.search(path):
            return Refusal(400, "CMGService_Invalid_Url", "The address cannot be used.")
        edge = self._edge(method, path.lower(), query)
        if edge is not None:
            return edge
        if self.configuration.content is not None and (found := _CONTENT.fullmatch(path)):
            return _only_get(method) or Shelved(found[1].lower())
        endpoint = self._endpoint(path.lower())
        if endpoint is None:
            return Refusal(
                403,
                "CMGService_Not_Published",
                "This address is not published through the gateway.",
                "Allow gateway traffic on the site system that it belongs to (management point, software"
                " update point), or correct the address.",
            )
        if method not in endpoint.methods:
            return _not_allowed(method, endpoint.methods)
        identity = self._identify(endpoint, headers, peer)
        if isinstance(identity, Refusal):
            return identity
        name, until = identity
        return Forward(endpoint.prefix, endpoint.max_body_bytes, name, endpoint.hold_seconds, until)

    def now(self) -> float:
        return self._now()

    # -------------------------------------------------------------- the edge's own answers

    def _edge(self, method: str, path: str, query: str) -> Decision | None:
        for entry in ENTRIES:
            if path == f"{entry}aadauthinfo":
                return self._auth_info(method, query)
            if path == f"{entry}servicemetadata":
                return _only_get(method) or EdgeAnswer(200, self._metadata())
        return None

    def _auth_info(self, method: str, query: str) -> Decision:
        wanted = {k.lower(): v for k, v in parse_qs(query, max_num_fields=8).items()}
        tenant = self._tenants.get(wanted.get("tenantid", [""])[0].lower())
        refused = _only_get(method)
        if refused is not None:
            return refused
        if tenant is None:
            # An unknown tenant learns nothing (spec 1.4).
            return EdgeAnswer(204)
        info = ccm.AuthInfo(
            tenant.client_app_id, tenant.app_id_uri, tenant.tenant_id, tenant.authority
        )
        return EdgeAnswer(200, msgspec.json.encode(info))

    def _metadata(self) -> bytes:
        return msgspec.json.encode(
            {
                "serviceName": self.configuration.service_name,
                "siteCode": self.configuration.site_code,
                "configurationVersion": self.configuration.version,
            }
        )

    def _endpoint(self, path: str) -> Endpoint | None:
        for prefix, endpoint in self._endpoints:
            if path == prefix or (path.startswith(prefix) and path[len(prefix)] == "/"):
                return endpoint
        return None

    # -------------------------------------------------------------- who is it

    def _identify(
        self, endpoint: Endpoint, headers: Mapping[str, str], peer: bytes | None
    ) -> tuple[str, float] | Refusal:
        """Whom it is from, and until when that can be said."""
        scheme, _, token = headers.get("authorization", "").partition(" ")
        if "token" in endpoint.auth and scheme.lower() == "bearer":
            service = endpoint.prefix.lower().endswith(_TOKEN_SERVICE)
            return self._tokens.identity(token.strip(), self._now(), service)
        if "certificate" in endpoint.auth:
            if peer is not None:
                return self._certificate(peer)
            if "token" not in endpoint.auth:
                return self._no_certificate()
        if "anonymous" in endpoint.auth:
            return "anonymous", math.inf
        return Refusal(
            401,
            "CMGService_Token_Required",
            "This address needs a token.",
            "Send a token of the directory or of the site in the Authorization header.",
        )

    def _no_certificate(self) -> Refusal:
        if not self._roots:
            return Refusal(
                403,
                "CMGService_Clientcertificaterequired",
                "Clients with certificates cannot be checked: no trusted root certificate and no"
                " certificate revocation list (CRL) was uploaded to the gateway.",
                "Upload both, or let clients use tokens (CCM_Proxy_ServerAuth).",
            )
        return Refusal(
            403,
            "CMGService_Clientcertificaterequired",
            "This address needs a client certificate.",
            "Present a client certificate of a trusted authority.",
        )

    def _certificate(self, der: bytes) -> tuple[str, float] | Refusal:
        now = self._now()
        known = self._certificates.get(der)
        if known is None or known[0] <= now:
            known = self._judge(der, now)
            if len(self._certificates) >= _CACHE_SIZE:
                self._certificates.clear()
            self._certificates[der] = known
        until, said = known
        return said if isinstance(said, Refusal) else (said, until)

    def _judge(self, der: bytes, now: float) -> tuple[float, str | Refusal]:
        """What is said of this certificate, and until when."""
        at = datetime.fromtimestamp(now, UTC)
        try:
            path = self._path(der, at)
            until = path.until
            if self.configuration.check_revocation:
                until = self.revocations.check(path, at)
                asked = self._asked(der, path, now)
                if isinstance(asked, Refusal):
                    # Judged anew at once when its responder has answered (`forget`).
                    return now + 1, asked
                until = min(until, asked or until)
        except pki.NotAClient as error:
            code = _CODES.get(error.reason, "CMGService_Invalid_Certificate")
            why = f"certificate {error.reason}"
            return now + _KEPT_SECONDS, Refusal(403, code, error.message, error.cure, why)
        return min(now + _KEPT_SECONDS, until.timestamp()), sha256(der).hexdigest()

    def _asked(self, der: bytes, path: pki.ClientPath, now: float) -> datetime | Refusal | None:
        """What its responder (OCSP) says of the certificate, besides the lists, and until when."""
        how = self.configuration.ocsp
        if how == "off" or self._responders is None:
            return None
        verdict = self._responders.verdict(der, *path.certificates[:2])
        if verdict is None:
            return None
        # Who was revoked stays so until the responder says something else.
        if verdict.answer is not None and verdict.answer.standing is pki.Standing.REVOKED:
            return replace(
                refusal("CMGService_Certificate_Revoked"), why="certificate revoked (OCSP)"
            )
        known = verdict.counts(now)
        if how == "soft":
            return None
        if known is not None and known.standing is pki.Standing.GOOD:
            return known.ends
        why = verdict.fault or ("responder does not know it" if known else "responder is asked")
        return replace(refusal("CMGService_Ocsp_Unavailable"), why=f"certificate: {why}")

    def forget(self, der: bytes) -> None:
        """Something else is known of this certificate."""
        self._certificates.pop(der, None)

    def _path(self, der: bytes, now: datetime) -> pki.ClientPath:
        known = self._paths.get(der)
        if known is None or known.until < now:
            known = pki.client_path(_leaf(der), self._roots, now)
            if len(self._paths) >= _CACHE_SIZE:
                self._paths.clear()
            self._paths[der] = known
        return known

    def inherit(self, before: "Gate") -> None:
        """Take over what was found out under the same roots. What is revoked is asked anew."""
        if before.configuration.trusted_roots == self.configuration.trusted_roots:
            self._paths = before._paths

    def still_believes(self, der: bytes) -> bool:
        """Whether a client that shows this certificate may go on. One about whom nothing is known
        just now (503) is refused what it asks, and not cut."""
        said = self._certificate(der)
        return not isinstance(said, Refusal) or said.status == 503

    def alarms(self) -> list[pki.RevocationAlarm]:
        """What is wrong with the revocation lists, while somebody is to be checked by them."""
        asked = any("certificate" in item.auth for item in self.configuration.endpoints)
        if not asked or not self.configuration.check_revocation:
            return []
        return self.revocations.alarms(datetime.fromtimestamp(self._now(), UTC))


_CODES = {
    pki.Reason.REVOKED: "CMGService_Certificate_Revoked",
    pki.Reason.CRL_MISSING: pki.Alarm.MISSING.value,
    pki.Reason.CRL_EXPIRED: pki.Alarm.EXPIRED.value,
}


def _leaf(der: bytes) -> x509.Certificate:
    """Raises NotAClient."""
    try:
        return x509.load_der_x509_certificate(der)
    except Exception:
        raise pki.NotAClient(
            "The client's certificate cannot be read.",
            cure="Give the device another certificate.",
            reason=pki.Reason.UNREADABLE,
        ) from None


def _only_get(method: str) -> Refusal | None:
    if method in {"GET", "HEAD"}:
        return None
    return _not_allowed(method, ["GET", "HEAD"])


def _not_allowed(method: str, allowed: list[str]) -> Refusal:
    return Refusal(
        405, "CMGService_Method", f"{method} is not allowed here.", allow=", ".join(allowed)
    )


def _crl(text: str) -> x509.CertificateRevocationList:
    return x509.load_der_x509_crl(b64decode(text))
