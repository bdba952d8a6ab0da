"""The site's own tokens for clients: signed by a key that lies sealed in the database."""

from datetime import datetime, timedelta
from typing import Any
from uuid import uuid4

from cryptography.hazmat.primitives.asymmetric import ec
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import ECKey

from tandem import pki
from tandem.infra.database import Tx
from tandem.infra.secrets import SecretBox
from tandem.site.clients import store
from tandem.site.clients.model import BadToken, ExpiredToken, TenantIdentity, TokenHolder

AUDIENCE = "urn:sccm:service"
_CONTEXT = "clients.token-key"
_LEEWAY = timedelta(seconds=60)


def issuer(site_code: str) -> str:
    return f"urn:sccm:site:{site_code}"


class TokenKeys:
    """The keys in hand. Another management point's new key is found when a token names it."""

    def __init__(self, box: SecretBox) -> None:
        self._box = box
        self._public: dict[str, ECKey] = {}
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
) -> str:
    """A token that is of use only together with the device's key (RFC 7800, RFC 9449 `jkt`)."""
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
        "token_type": "UDA" if identity.kind == "user" else "DA",
        "site": site_code,
        "iat": issued,
        "nbf": issued,
        "exp": issued + int(life.total_seconds()),
        "jti": token_id,
        "cnf": {"jkt": pki.jwk_thumbprint(device_key), "jwk": jwk},
    }
    return jwt.encode({"alg": "ES256", "typ": "JWT", "kid": kid}, claims, key)


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


async def holder(keys: TokenKeys, tx: Tx, token: str, site_code: str, now: datetime) -> TokenHolder:
    """Whom a CCM token speaks for. Raises BadToken or ExpiredToken."""
    kid = _kid(token)
    key = await keys.verification(tx, kid)
    try:
        claims = jwt.decode(token, key, algorithms=["ES256"]).claims
        found = TokenHolder(
            claims["tid"],
            claims["deviceid"],
            claims["idtyp"],
            claims["oid"],
            claims["cnf"]["jkt"],
            claims["cnf"]["jwk"],
            claims["exp"] + _LEEWAY.total_seconds(),
        )
        issuer_, audience = claims["iss"], claims["aud"]
    except (JoseError, KeyError, TypeError, ValueError):
        raise BadToken(
            "The token was not issued by this site, or it was altered.",
            cure="Ask CCM_STS for a new token.",
        ) from None
    if issuer_ != issuer(site_code) or audience != AUDIENCE:
        raise BadToken("The token is meant for another site.", cure="Ask CCM_STS for a new token.")
    if found.expires <= now.timestamp():
        raise ExpiredToken("The token has expired.", cure="Ask CCM_STS for a new token.")
    return found


def _kid(token: str) -> str:
    from joserfc.jws import extract_compact

    try:
        kid = extract_compact(token.encode()).headers().get("kid", "")
    except (JoseError, ValueError, TypeError):
        raise BadToken("The token cannot be read.", cure="Ask CCM_STS for a new token.") from None
    return str(kid)
