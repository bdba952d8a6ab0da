"""Who may pass: the gateway's decision about one request, from its head alone (spec F7).

No I/O, and no key that signs anything: what is known lies in the configuration that the site sent.
"""

import re
import time
from base64 import b64decode
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any
from urllib.parse import parse_qs

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.x509.oid import ExtendedKeyUsageOID
from joserfc import jws
from joserfc.errors import JoseError
from joserfc.jwk import KeySet

from tandem import pki
from tandem.gateway.model import UNSAFE_PATH, Decision, EdgeAnswer, Forward, Refusal
from tandem.protocols import ccm
from tandem.protocols.tunnel import Configuration, Endpoint, Tenant

ENTRIES = ("/ccm_proxy_serverauth/", "/ccm_proxy_mutualauth/")
_TARGET = re.compile(rb"^/[\x21-\x7e]*$")
_SKEW_SECONDS = 300
_CACHE_SIZE = 20_000
_TOKEN_LIMIT = 16_384
_TOKEN_SERVICE = "/ccm_sts"  # noqa: S105 - the name of an endpoint.
# The kind of token that the site issues to clients that no directory knows.
_SITE_TOKEN = "SITE"  # noqa: S105

Now = Callable[[], float]


class Gate:
    """The rules of one configuration. Made anew when the configuration changes."""

    def __init__(self, configuration: Configuration, now: Now = time.time) -> None:
        self.configuration = configuration
        self._now = now
        self._endpoints = [(item.prefix.lower(), item) for item in configuration.endpoints]
        self._endpoints.sort(key=lambda pair: len(pair[0]), reverse=True)
        self._tenants = {item.tenant_id.lower(): item for item in configuration.tenants}
        self._issuers = {issuer: t for t in configuration.tenants for issuer in t.issuers}
        self._tenant_keys = {
            tenant.tenant_id: _keys(tenant.jwks) for tenant in configuration.tenants
        }
        self._site_keys = _keys(configuration.site_token_keys)
        self._roots = [
            root
            for text in configuration.trusted_roots
            for root in pki.read_certificates(text.encode())
        ]
        self._crls = [_crl(text) for text in configuration.crls]
        self._tokens: dict[bytes, tuple[float, str]] = {}
        self._certificates: dict[bytes, tuple[float, str | Refusal]] = {}

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
            return Refusal(405, "CMGService_Method", f"{method} is not allowed here.")
        identity = self._identify(endpoint, headers, peer)
        if isinstance(identity, Refusal):
            return identity
        return Forward(endpoint.prefix, endpoint.max_body_bytes, identity, endpoint.hold_seconds)

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
    ) -> str | Refusal:
        scheme, _, token = headers.get("authorization", "").partition(" ")
        if "token" in endpoint.auth and scheme.lower() == "bearer":
            renews = endpoint.prefix.lower().endswith(_TOKEN_SERVICE)
            return self._token(token.strip(), renews)
        if "certificate" in endpoint.auth:
            if peer is not None:
                return self._certificate(peer)
            if "token" not in endpoint.auth:
                return self._no_certificate()
        if "anonymous" in endpoint.auth:
            return "anonymous"
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

    def _token(self, token: str, renews: bool = False) -> str | Refusal:
        """`renews`: for the site's token service, which decides itself how long after its end a
        client's token may still be renewed with the client's key."""
        digest = sha256(token.encode()).digest()
        known = self._tokens.get(digest)
        now = self._now()
        if known is not None and known[0] > now:
            return known[1]
        if len(token) > _TOKEN_LIMIT:
            return _INVALID_TOKEN
        try:
            claims = self._claims(token)
        except (JoseError, ValueError, KeyError, TypeError, msgspec.DecodeError):
            return _INVALID_TOKEN
        try:
            expires, starts = float(claims["exp"]), float(claims.get("nbf", 0))
        except (KeyError, TypeError, ValueError):
            return _INVALID_TOKEN
        identity = str(claims.get("deviceid") or claims.get("sub") or claims.get("oid") or "")
        if expires <= now and renews and claims.get("token_type") == _SITE_TOKEN:
            return identity
        if expires <= now:
            return Refusal(
                401,
                "CMGService_Invalid_Token",
                "The token has expired.",
                "Get a new token; check that the device's clock is right.",
            )
        if starts > now + _SKEW_SECONDS:
            return _INVALID_TOKEN
        if len(self._tokens) >= _CACHE_SIZE:
            self._tokens.clear()
        self._tokens[digest] = (expires, identity)
        return identity

    def _claims(self, token: str) -> dict[str, Any]:
        """The claims of a token whose signature, issuer and audience hold. Raises otherwise."""
        unverified = jws.extract_compact(token.encode())
        peek = msgspec.json.decode(unverified.payload, type=dict[str, Any])
        issuer = str(peek.get("iss", ""))
        if issuer == f"urn:sccm:site:{self.configuration.site_code}":
            keys, algorithms, audiences = self._site_keys, ["ES256"], {"urn:sccm:service"}
        else:
            tenant: Tenant = self._issuers[issuer]
            keys, algorithms = self._tenant_keys[tenant.tenant_id], ["RS256"]
            audiences = {tenant.app_id_uri, tenant.server_app_id} - {""}
            if str(peek.get("tid", "")) != tenant.tenant_id:
                raise ValueError("another tenant")
        verified = jws.deserialize_compact(token, keys, algorithms=algorithms)
        claims = msgspec.json.decode(verified.payload, type=dict[str, Any])
        if claims.get("aud") not in audiences:
            raise ValueError("another audience")
        return claims

    def _certificate(self, der: bytes) -> str | Refusal:
        digest = sha256(der).digest()
        now = self._now()
        known = self._certificates.get(digest)
        if known is not None and known[0] > now:
            return known[1]
        outcome = self._check_certificate(der, datetime.fromtimestamp(now, UTC))
        if len(self._certificates) >= _CACHE_SIZE:
            self._certificates.clear()
        self._certificates[digest] = (now + 60, outcome)
        return outcome

    def _check_certificate(self, der: bytes, now: datetime) -> str | Refusal:
        try:
            leaf = x509.load_der_x509_certificate(der)
            path = pki.build_path(leaf, self._roots)
            anchored = any(
                item.fingerprint(_SHA256) == root.fingerprint(_SHA256)
                for item in path.certificates[1:]
                for root in self._roots
            )
            usable = _for_clients(leaf) and all(
                item.not_valid_before_utc <= now <= item.not_valid_after_utc
                for item in path.certificates
            )
        except Exception:
            # A certificate from outside makes the parser raise whatever it likes.
            return _BAD_CERTIFICATE
        if not anchored or not usable:
            return _BAD_CERTIFICATE
        if self.configuration.check_revocation:
            refused = self._revocation(leaf, path.certificates[1], now)
            if refused is not None:
                return refused
        return sha256(der).hexdigest()

    def _revocation(
        self, leaf: x509.Certificate, issuer: x509.Certificate, now: datetime
    ) -> Refusal | None:
        name = leaf.issuer.rfc4514_string()
        for crl in self._crls:
            if crl.issuer != leaf.issuer:
                continue
            if not crl.is_signature_valid(issuer.public_key()):  # type: ignore[arg-type]
                continue
            if crl.next_update_utc is not None and crl.next_update_utc < now:
                return Refusal(
                    403,
                    "CMGService_Crl_Expired",
                    f"The certificate revocation list of {name} expired at"
                    f" {crl.next_update_utc:%Y-%m-%d %H:%M} UTC.",
                    "Upload a newer CRL of this authority to the gateway.",
                )
            if crl.get_revoked_certificate_by_serial_number(leaf.serial_number) is not None:
                return Refusal(
                    403,
                    "CMGService_Certificate_Revoked",
                    "The client's certificate is revoked.",
                    "Give the device a new certificate.",
                )
            return None
        return Refusal(
            403,
            "CMGService_Crl_Missing",
            f"The certificate revocation list (CRL) of {name} is missing on the gateway.",
            "Upload this authority's CRL, or switch the check off in the gateway's properties.",
        )


_SHA256 = SHA256()
_INVALID_TOKEN = Refusal(
    401,
    "CMGService_Invalid_Token",
    "The token is not one that this gateway believes.",
    "Get a new token; the device's tenant has to be connected to the site.",
)
_BAD_CERTIFICATE = Refusal(
    403,
    "CMGService_Invalid_Certificate",
    "The client's certificate is not of a trusted authority, not valid now, or not for clients.",
    "Upload the root of its authority, or give the device another certificate.",
)


def _for_clients(leaf: x509.Certificate) -> bool:
    try:
        usages = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        return False
    return ExtendedKeyUsageOID.CLIENT_AUTH in usages


def _only_get(method: str) -> Refusal | None:
    if method in {"GET", "HEAD"}:
        return None
    return Refusal(405, "CMGService_Method", f"{method} is not allowed here.")


def _keys(jwks: Mapping[str, Any]) -> KeySet:
    keys = list(jwks.get("keys", []))
    return KeySet.import_key_set({"keys": keys}) if keys else KeySet([])


def _crl(text: str) -> x509.CertificateRevocationList:
    return x509.load_der_x509_crl(b64decode(text))
