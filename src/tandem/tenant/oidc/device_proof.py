"""A device's proof: an assertion signed by the key that it joined with."""

from base64 import b64decode
from datetime import UTC, datetime

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import ECKey
from joserfc.jws import JWSRegistry

from tandem import pki
from tandem.infra.database import Tx
from tandem.tenant import directory
from tandem.tenant.oidc import grant_store
from tandem.tenant.oidc.client_auth import is_audience
from tandem.tenant.oidc.model import Peer
from tandem.tenant.oidc.refusals import OAuthError
from tandem.tenant.oidc.tokens import Tokens, jwt_header

_ASSERTION_SECONDS = 300
_SKEW_SECONDS = 60


class _Assertions(JWSRegistry):
    # The certificate in x5c alone is longer than the library's limit for headers.
    max_header_length = 8192


async def device_of(
    tx: Tx, tokens: Tokens, assertion: str, peer: Peer, now: datetime
) -> directory.Device:
    """The joined, enabled device whose key signed the assertion. Raises OAuthError."""
    try:
        header = jwt_header(assertion)
        der = b64decode(header["x5c"][0], validate=True)
        certificate = x509.load_der_x509_certificate(der)
        certificate.verify_directly_issued_by((await tokens.join_authority(tx)).certificate)
        public = certificate.public_key()
        if not isinstance(public, ec.EllipticCurvePublicKey):
            raise ValueError("the key is no P-256 key")
        key = ECKey.import_key(public)
        claims = jwt.decode(assertion, key, registry=_Assertions(algorithms=["ES256"])).claims
        issued, expires = float(claims["iat"]), float(claims["exp"])
        device_id, identity = str(claims["sub"]), str(claims["jti"])
        audience = str(claims["aud"])
    except (*pki.UNREADABLE, JoseError, InvalidSignature, KeyError, IndexError):
        raise OAuthError(
            50013,
            "The assertion failed signature validation: it is not signed by a key that joined "
            "this tenant.",
            cure="Join the device again.",
        ) from None
    moment = now.timestamp()
    if not issued - _SKEW_SECONDS <= moment < expires + _SKEW_SECONDS:
        raise OAuthError(
            50013, "The assertion is not valid at this time.", cure="Check the device's clock."
        )
    if expires - issued > _ASSERTION_SECONDS:
        raise OAuthError(
            50013,
            f"The assertion is valid for more than {_ASSERTION_SECONDS} seconds.",
            cure="Make a new one for each request.",
        )
    if not await is_audience(tx, tokens, audience):
        raise OAuthError(50013, "The assertion is for another audience.", cure="Use the token URL.")
    if claims.get("iss") != device_id or not identity:
        raise OAuthError(50013, "The assertion lacks iss, sub or jti.", cure="Send them.")
    device = await directory.find_device(tx, device_id)
    if device is None or device.key_thumbprint != pki.jwk_thumbprint(public):
        raise OAuthError(
            70043,
            f"The device {device_id[:40]} does not exist in this tenant.",
            cure="Join it again.",
        )
    if not device.account_enabled:
        raise OAuthError(
            135011,
            "The device used during the authentication is disabled.",
            cure="Enable it in the tenant's device list.",
        )
    kept = datetime.fromtimestamp(expires + 2 * _SKEW_SECONDS, UTC)
    identity = f"{device_id}|{identity}"
    if await grant_store.use_assertion(tx, identity, peer.address, kept) is not None:
        raise OAuthError(
            50013, "The assertion was used before.", cure="Make a new one for each request."
        )
    return device
