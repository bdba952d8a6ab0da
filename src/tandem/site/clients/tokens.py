"""The site's own tokens for clients: signed by a key that lies sealed in the database."""

from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any
from uuid import uuid4

import msgspec
from cryptography.hazmat.primitives.asymmetric import ec
from joserfc import jwt
from joserfc.jwk import ECKey

from tandem import pki
from tandem.infra.database import Tx
from tandem.infra.secrets import SecretBox
from tandem.protocols import ccm
from tandem.protocols.ccm import jws
from tandem.site.clients import store
from tandem.site.clients.model import (
    BadToken,
    Credential,
    ExpiredToken,
    TenantIdentity,
    TokenHolder,
)

AUDIENCE = "urn:sccm:service"
# The field's word for a bulk registration token.
_PRE_AUTH = "SCCMPreAuthToken"
SITE_TOKEN = "SITE"  # noqa: S105 - a kind of token.
_CONTEXT = "clients.token-key"
_LEEWAY = timedelta(seconds=60)
# Tokens whose signature is not verified again; of each some kilobyte is kept.
_VERIFIED = 10_000


def issuer(site_code: str) -> str:
    return f"urn:sccm:site:{site_code}"


class TokenKeys:
    """The keys in hand. Another management point's new key is found when a token names it."""

    def __init__(self, box: SecretBox) -> None:
        self._box = box
        self._public: dict[str, ECKey] = {}
        self._verified: dict[bytes, dict[str, Any]] = {}
        self._signing: tuple[str, ECKey] | None = None

    async def signing(self, tx: Tx, now: datetime) -> tuple[str, ECKey]:
        """(kid, key) of the newest key, which is made when there is none."""
        if self._signing is None:
            rows = await store.token_key_rows(tx)
            if not rows:
                await store.lock_token_keys(tx)
                rows = await store.token_key_rows(tx) or [await self._make(tx, now)]
            key = pki.load_key(self._box.unseal(rows[0].sealed, _CONTEXT))
            self._signing = rows[0].id, ECKey.import_key(pki.key_pem(key))
        return self._signing

    async def _make(self, tx: Tx, now: datetime) -> store.TokenKeyRow:
        key = pki.generate_key("p256")
        kid = pki.jwk_thumbprint(key)
        jwk = {**pki.public_jwk(key), "kid": kid, "use": "sig", "alg": "ES256"}
        row = store.TokenKeyRow(kid, self._box.seal(pki.key_pem(key), _CONTEXT), jwk)
        await store.add_token_key(tx, row, now)
        return row

    async def verification(self, tx: Tx, kid: str) -> ECKey:
        if kid not in self._public:
            for row in await store.token_key_rows(tx):
                self._public[row.id] = ECKey.import_key(dict(row.public_jwk))
        if kid not in self._public:
            raise BadToken(
                "The token was not issued by this site.", cure="Ask CCM_STS for a new token."
            )
        return self._public[kid]

    def claims(self, token: str, key: ECKey) -> dict[str, Any]:
        """What a token says, its signature verified: once, as clients show the same one often.
        Raises ValueError, DecodeError."""
        digest = sha256(token.encode()).digest()
        found = self._verified.get(digest)
        if found is None:
            header, payload, signing, signature = jws.parse(token)
            # What a header makes critical has to be understood (RFC 7515, 4.1.11); nothing is here.
            understood = header.get("alg") == "ES256" and "crit" not in header
            if not understood or not jws.is_signed(_key_of(key), signature, signing):
                raise ValueError("not signed by this key")
            found = msgspec.json.decode(payload, type=dict[str, Any])
            if len(self._verified) >= _VERIFIED:
                self._verified.clear()
            self._verified[digest] = found
        return found


def issue(
    kid: str,
    key: ECKey,
    site_code: str,
    identity: TenantIdentity,
    device_key: ec.EllipticCurvePublicKey,
    *,
    now: datetime,
    life: timedelta,
    token_id: str,
    by: Credential = "directory",
    registration_token: str = "",
    successor_of: str = "",
    lasting: bool = False,
) -> str:
    """A token that is of use only together with the device's key (RFC 7800, RFC 9449 `jkt`).

    `lasting` makes the site's own token of a registered client: the only kind that is renewed.
    """
    jwk = pki.public_jwk(device_key)
    issued = int(now.timestamp())
    claims: dict[str, Any] = {
        "iss": issuer(site_code),
        "aud": AUDIENCE,
        "sub": identity.device_id,
        "tid": identity.tenant_id,
        "deviceid": identity.device_id,
        "oid": identity.object_id,
        "idtyp": identity.kind,
        "token_type": _token_type(identity, by, lasting),
        "site": site_code,
        "iat": issued,
        "nbf": issued,
        "exp": issued + int(life.total_seconds()),
        "jti": token_id,
        "cnf": {"jkt": pki.jwk_thumbprint(device_key), "jwk": jwk},
    }
    if by != "directory":
        claims |= {"by": by, "reg": registration_token}
    if successor_of:
        claims["succ"] = successor_of
    return jwt.encode({"alg": "ES256", "typ": "JWT", "kid": kid}, claims, key)


def _token_type(identity: TenantIdentity, by: Credential, lasting: bool) -> str:
    if lasting:
        return SITE_TOKEN
    if by == "directory":
        return "UDA" if identity.kind == "user" else "DA"
    return "PKI" if by == "certificate" else "BULK"


def issue_content_token(
    kid: str,
    key: ECKey,
    site_code: str,
    holder: TokenHolder,
    *,
    sha256: str,
    size_bytes: int,
    gateway: str,
    distribution: int,
    now: datetime,
    ends: datetime,
) -> str:
    """For one content at one gateway, of use only together with the device's key. It is good for
    nothing else: its audience is another one."""
    claims: dict[str, Any] = {
        "iss": issuer(site_code),
        "aud": ccm.CONTENT_AUDIENCE,
        "sub": sha256,
        "size": size_bytes,
        "gateway": gateway,
        "dist": distribution,
        "deviceid": holder.device_id,
        "iat": int(now.timestamp()),
        "nbf": int(now.timestamp()),
        "exp": int(ends.timestamp()),
        "cnf": {"jwk": holder.key},
    }
    return jwt.encode({"alg": "ES256", "typ": "JWT", "kid": kid}, claims, key)


def issue_registration_token(
    kid: str, key: ECKey, site_code: str, token_id: str, *, starts: datetime, ends: datetime
) -> str:
    """A bulk registration token, with the field's claims as far as they mean something here: a
    command line carries 1,024 characters and not more."""
    claims: dict[str, Any] = {
        "SCCMTokenCategory": _PRE_AUTH,
        "Type": "BulkRegistration",
        "UniqueId": token_id,
        "iss": issuer(site_code),
        "aud": AUDIENCE,
        "nbf": int(starts.timestamp()),
        "exp": int(ends.timestamp()),
    }
    return jwt.encode({"alg": "ES256", "typ": "JWT", "kid": kid}, claims, key)


def names_a_site(token: str) -> bool:
    """Whether this says of itself that a site made it; a directory's token does not."""
    return str(_unverified(token).get("iss", "")).startswith("urn:sccm:")


async def registration_token_id(
    keys: TokenKeys, tx: Tx, token: str, site_code: str, now: datetime
) -> str | None:
    """The id of a bulk registration token of this site that is good now; None when it is a token of
    another kind. Raises BadToken or ExpiredToken."""
    if _unverified(token).get("SCCMTokenCategory") != _PRE_AUTH:
        return None
    claims = await _claims(keys, tx, token, site_code, _BRING_A_NEW_ONE)
    try:
        found, starts, ends = str(claims["UniqueId"]), float(claims["nbf"]), float(claims["exp"])
    except (KeyError, TypeError, ValueError):
        raise BadToken("The token cannot be read.", cure=_BRING_A_NEW_ONE) from None
    if ends <= now.timestamp():
        raise ExpiredToken(
            f"The bulk registration token expired at {_utc(ends)}.", cure=_BRING_A_NEW_ONE
        )
    if starts > (now + _LEEWAY).timestamp():
        raise BadToken("The bulk registration token is not good yet.", cure="Look at the clocks.")
    return found


_BRING_A_NEW_ONE = (
    "An administrator of the site makes a new one (`tandem bulk-registration-token new`), and ccmsetup"
    " runs again with it: /regtoken:<token>."
)


def _utc(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M UTC")


async def probe_token(tx: Tx, box: SecretBox, site_code: str, now: datetime) -> str:
    """A token with which the site tries the way through a gateway.

    It lasts a minute and speaks for no device; its key is thrown away, so no message can be
    signed with it.
    """
    kid, key = await TokenKeys(box).signing(tx, now)
    nobody = pki.generate_key("p256").public_key()
    assert isinstance(nobody, ec.EllipticCurvePublicKey)
    identity = TenantIdentity("-", "connection-analyzer", "device", "-")
    life = timedelta(minutes=1)
    return issue(kid, key, site_code, identity, nobody, now=now, life=life, token_id=str(uuid4()))


async def holder(
    keys: TokenKeys,
    tx: Tx,
    token: str,
    site_code: str,
    now: datetime,
    grace: timedelta | None = None,
) -> TokenHolder:
    """Whom a CCM token speaks for. Raises BadToken or ExpiredToken.

    `grace` is for who renews a site token, and takes no other: for so long after its end.
    """
    claims = await _claims(keys, tx, token, site_code, _ASK_AGAIN)
    try:
        found = TokenHolder(
            claims["tid"],
            claims["deviceid"],
            claims["idtyp"],
            claims["oid"],
            claims["cnf"]["jkt"],
            claims["cnf"]["jwk"],
            claims["exp"] + _LEEWAY.total_seconds(),
            claims.get("by", "directory"),
            claims.get("reg", ""),
            claims.get("succ", ""),
            claims["token_type"] == SITE_TOKEN,
        )
    except (KeyError, TypeError, ValueError):
        raise BadToken("This is not a token of a client.", cure=_ASK_AGAIN) from None
    if grace is not None and not found.lasting:
        raise BadToken("Only a site token can be renewed.", cure=_ASK_AGAIN)
    if found.expires + (grace.total_seconds() if grace else 0) <= now.timestamp():
        raise ExpiredToken(
            f"The token expired at {_utc(claims['exp'])}.",
            cure=_BRING_A_NEW_ONE if grace else _ASK_AGAIN,
        )
    return found


_ASK_AGAIN = "Ask CCM_STS for a new token."


async def _claims(keys: TokenKeys, tx: Tx, token: str, site_code: str, cure: str) -> dict[str, Any]:
    """What a token of this site says; its times are not looked at. Raises BadToken."""
    header, payload = _parts(token)
    said = str(payload.get("iss", ""))
    other = said.removeprefix("urn:sccm:site:")
    if said != other and other != site_code and other.isalnum():
        raise BadToken(f"The token is of site {other[:8]}, and this is {site_code}.", cure=cure)
    if header is None:
        raise BadToken("The token cannot be read.", cure="Ask CCM_STS for a new token.")
    key = await keys.verification(tx, str(header.get("kid", "")))
    try:
        claims = keys.claims(token, key)
    except (ValueError, msgspec.DecodeError, RecursionError):
        raise BadToken(
            "The token was not issued by this site, or it was altered.", cure=cure
        ) from None
    if claims.get("iss") != issuer(site_code) or claims.get("aud") != AUDIENCE:
        raise BadToken("The token is meant for another site.", cure=cure)
    return claims


def _key_of(key: ECKey) -> ec.EllipticCurvePublicKey:
    found = key.public_key
    assert isinstance(found, ec.EllipticCurvePublicKey)
    return found


def _unverified(token: str) -> dict[str, Any]:
    """What a token says before anybody believes it: to tell which kind it wants to be."""
    return _parts(token)[1]


def _parts(token: str) -> tuple[dict[str, Any] | None, dict[str, Any]]:
    """A token's header, None when there is none, and what it says; nothing is verified."""
    try:
        header, payload, *_ = jws.parse(token)
    except ValueError:
        return None, {}
    try:
        return header, msgspec.json.decode(payload, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return header, {}
