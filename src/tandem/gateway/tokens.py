"""Which tokens pass: of the tenants that the site is connected to, and of the site itself.

A token is believed by the keys in the configuration, offline. What it says is looked at before its
signature, because that tells whose key to ask, and again after it: nothing unsigned decides.
"""

import math
from collections.abc import Mapping
from hashlib import sha256
from typing import Any

import msgspec
from joserfc import jws
from joserfc.errors import InvalidKeyIdError, JoseError
from joserfc.jwk import KeySet

from tandem.gateway.model import Refusal
from tandem.protocols.tunnel import Configuration, Tenant

_SKEW_SECONDS = 300
_CACHE_SIZE = 20_000
_LONGEST = 16_384
# The kind of token that the site issues to clients that no directory knows, the kinds that stand for
# what a directory said, and the field's word for a bulk registration token.
_SITE_TOKEN = "SITE"  # noqa: S105
_OF_A_DIRECTORY = {"DA", "UDA"}
_PRE_AUTH = "SCCMPreAuthToken"
# Whom the site's own probe of the way through a gateway speaks for (connection analyzer).
_NO_TENANT = "-"
# Tokens of a known tenant with a key that is not known yet: so many may ask the site a minute. One is
# enough for it to fetch the tenant's keys anew; the rest of it is for those who make up keys.
_UNKNOWN_KEYS_A_MINUTE = 30
UNKNOWN_KEY = "unknown-key"


class Tokens:
    """The keys of one configuration, and the tokens that they were found to hold for."""

    def __init__(self, configuration: Configuration) -> None:
        self._site = f"urn:sccm:site:{configuration.site_code}"
        self._site_keys = keys_of(configuration.site_token_keys)
        self._issuers = {issuer: t for t in configuration.tenants for issuer in t.issuers}
        self._tenants = {tenant.tenant_id for tenant in configuration.tenants} | {_NO_TENANT}
        self._keys = {tenant.tenant_id: keys_of(tenant.jwks) for tenant in configuration.tenants}
        # By digest: when it ends, whom it speaks for, whether it is good at the token service alone.
        self._known: dict[bytes, tuple[float, str, bool]] = {}
        self._minute, self._asked = 0, 0

    def identity(self, token: str, now: float, service: bool) -> tuple[str, float] | Refusal:
        """Whom it speaks for, and until when. `service`: at the site's token service, which decides itself about
        site tokens after their end and about keys of tenants that are new."""
        digest = sha256(token.encode()).digest()
        known = self._known.get(digest)
        if known is None or known[0] <= now:
            read = self._read(token, now, service)
            if isinstance(read, Refusal):
                return read
            known = read
            if len(self._known) >= _CACHE_SIZE:
                self._known.clear()
            if known[0] > now:
                self._known[digest] = known
        if known[2] and not service:
            return _refused(
                "bulk registration token away from CCM_STS",
                "A bulk registration token is for the site's token service (CCM_STS) alone.",
                "Exchange it there, then send the token that comes back.",
            )
        return known[1], known[0]

    def _read(self, token: str, now: float, service: bool) -> tuple[float, str, bool] | Refusal:
        if len(token) > _LONGEST:
            return _refused("longer than a token may be")
        try:
            claims = self._claims(token)
        except InvalidKeyIdError:
            return self._unknown_key(now) if service else _refused("no such key")
        except _Disbelief as error:
            return _refused(str(error))
        except (JoseError, ValueError, KeyError, TypeError, RecursionError) as error:
            return _refused(type(error).__name__)
        identity = str(claims.get("deviceid") or claims.get("sub") or claims.get("oid") or "")
        bulk = claims.get("SCCMTokenCategory") == _PRE_AUTH
        starts, expires = _time(claims.get("nbf", 0)), _time(claims.get("exp"))
        if starts is None or expires is None:
            return _refused("no end, or times that are none")
        renews = service and claims.get("token_type") == _SITE_TOKEN
        if expires <= now and not renews:
            return _refused(
                "expired",
                "The token has expired.",
                "Get a new token; check that the device's clock is right.",
            )
        if starts > now + _SKEW_SECONDS:
            return _refused(
                "not valid yet",
                "The token is not valid yet.",
                "Check the clocks of the device, of who issued it and of the gateway.",
            )
        return expires, identity or (str(claims.get("UniqueId", "")) if bulk else ""), bulk

    def _claims(self, token: str) -> dict[str, Any]:
        """The claims of a token whose signature, issuer and audience hold. Raises otherwise."""
        peek = msgspec.json.decode(jws.extract_compact(token.encode()).payload, type=dict[str, Any])
        issuer = peek.get("iss")
        if not isinstance(issuer, str):
            raise _Disbelief("no issuer")
        if issuer == self._site:
            keys, algorithms, audiences = self._site_keys, ["ES256"], {"urn:sccm:service"}
            tenant_id = ""
        else:
            tenant: Tenant | None = self._issuers.get(issuer)
            if tenant is None:
                raise _Disbelief("issuer is not known")
            keys, algorithms = self._keys[tenant.tenant_id], ["RS256"]
            audiences = {tenant.app_id_uri, tenant.server_app_id} - {""}
            tenant_id = tenant.tenant_id
        # What is unsigned may refuse: a token of nobody costs no signature check.
        _check(peek, audiences, tenant_id)
        verified = jws.deserialize_compact(token, keys, algorithms=algorithms)
        claims = msgspec.json.decode(verified.payload, type=dict[str, Any])
        _check(claims, audiences, tenant_id)
        # The site's token of eight hours for what a directory said of a device. A directory that is
        # not the site's any more says nothing.
        of_a_directory = not tenant_id and claims.get("token_type") in _OF_A_DIRECTORY
        if of_a_directory and claims.get("tid") not in self._tenants:
            raise _Disbelief("its tenant is not connected any more")
        return claims

    def _unknown_key(self, now: float) -> tuple[float, str, bool] | Refusal:
        minute = int(now // 60)
        if minute != self._minute:
            self._minute, self._asked = minute, 0
        self._asked += 1
        if self._asked > _UNKNOWN_KEYS_A_MINUTE:
            return _refused("no such key, and the site was asked often enough")
        # Not kept: as soon as the site knows the key, the token is read like any other.
        return now, UNKNOWN_KEY, True


class _Disbelief(Exception):
    """Why a token is not believed, for the log."""


def _check(claims: Mapping[str, Any], audiences: set[str], tenant_id: str) -> None:
    audience = claims.get("aud")
    if not isinstance(audience, str) or audience not in audiences:
        raise _Disbelief("meant for another audience")
    if tenant_id and claims.get("tid") != tenant_id:
        raise _Disbelief("of another tenant")


def _refused(
    why: str,
    message: str = "The token is not one that this gateway believes.",
    cure: str = "Get a new token; the device's tenant has to be connected to the site.",
) -> Refusal:
    return Refusal(401, "CMGService_Invalid_Token", message, cure, why)


def _time(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    found = float(value)
    return found if math.isfinite(found) else None


def keys_of(jwks: Mapping[str, Any]) -> KeySet:
    keys = list(jwks.get("keys", []))
    return KeySet.import_key_set({"keys": keys}) if keys else KeySet([])
