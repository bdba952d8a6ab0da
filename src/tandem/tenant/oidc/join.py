"""The device join: a signed-in user's device gets an identity in the tenant.

POST /EnrollmentServer/device/?api-version=1.0     Bearer: user token for device registration
{"CertificateRequest": {"Type": "pkcs10", "Data": …}, "TargetDomain", "DeviceType",
 "OSVersion", "DeviceDisplayName", "JoinType": 0}
200 {"Certificate": {"Thumbprint", "RawBody"}, "User": {"Upn"}, "DeviceId", "TenantId",
     "TenantName", "MdmUrls": {…} or null}
"""

from base64 import b64decode, b64encode
from datetime import datetime

import msgspec
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from tandem import audit, pki
from tandem.infra.database import Tx
from tandem.infra.errors import AppError, Kind
from tandem.tenant import directory, licensing
from tandem.tenant.oidc.model import BadToken, Claims, OidcSettings
from tandem.tenant.oidc.tokens import Tokens


class BadJoin(AppError):
    kind, code = Kind.INVALID, "oidc.bad-join"


class CertificateRequest(msgspec.Struct, rename="pascal"):
    type: str
    data: str


class JoinRequest(msgspec.Struct, rename="pascal"):
    certificate_request: CertificateRequest
    device_display_name: str
    device_type: str = "Windows"
    target_domain: str = ""
    join_type: int = 0
    os_version: str = msgspec.field(default="", name="OSVersion")


class IssuedCertificate(msgspec.Struct, rename="pascal"):
    thumbprint: str
    raw_body: str


class JoinedUser(msgspec.Struct, rename="pascal"):
    upn: str


class MdmUrls(msgspec.Struct, rename="pascal"):
    discovery_url: str
    terms_of_use_url: str
    compliance_url: str


class JoinAnswer(msgspec.Struct, rename="pascal"):
    certificate: IssuedCertificate
    user: JoinedUser
    device_id: str
    tenant_id: str
    tenant_name: str
    mdm_urls: MdmUrls | None


# JoinType of the device registration service. A hybrid device (6) proves its domain account, which
# a user's token does not: those come by POST /devices.
_TRUST = {0: directory.Trust.JOINED, 4: directory.Trust.REGISTERED}


async def join(
    tx: Tx,
    tokens: Tokens,
    claims: Claims,
    asked: JoinRequest,
    now: datetime,
    settings: directory.DirectorySettings,
) -> JoinAnswer:
    """Join the device. Asked again with the same key, it stays the same device."""
    here = await directory.tenant(tx)
    if claims.sort != "user":
        raise BadToken("Only a user can join a device.", cure="Sign in as a user.")
    user = await directory.user(tx, claims.object_id)
    if not user.account_enabled:
        raise directory.AccountDisabled(
            "This account is disabled.", cure="Ask an administrator to enable it."
        )
    if asked.join_type not in _TRUST:
        raise BadJoin(
            f"Join type {asked.join_type} is not served here.",
            cure="Use 0: joined by a user, or 4: registered by a user.",
        )
    if asked.target_domain and asked.target_domain.lower() not in here.domains:
        raise BadJoin(
            f"{asked.target_domain} is not a domain of this tenant.",
            cure="Use one of: " + ", ".join(here.domains) + ".",
        )
    name = asked.device_display_name.strip()
    if not 0 < len(name) <= 64:
        raise BadJoin("The device has no usable name.", cure="Send 1 to 64 characters.")
    public = _public_key(asked.certificate_request)
    device = await directory.join_device(
        tx,
        owner_id=user.id,
        display_name=name,
        operating_system=asked.device_type[:40],
        operating_system_version=asked.os_version[:40],
        key_thumbprint=pki.jwk_thumbprint(public),
        now=now,
        settings=settings,
        trust=_TRUST[asked.join_type],
    )
    authority = await tokens.join_authority(tx)
    certificate = authority.issue(
        public,
        pki.name(device.device_id),
        now=now,
        days=tokens.settings.join_certificate_days,
        usages=["client"],
    )
    await audit.record(
        tx,
        actor=f"user:{user.user_principal_name}",
        action="join device",
        target=device.device_id,
        details={"name": name},
        now=now,
    )
    return JoinAnswer(
        certificate=IssuedCertificate(
            pki.sha1_thumbprint(certificate),
            b64encode(certificate.public_bytes(Encoding.DER)).decode(),
        ),
        user=JoinedUser(user.user_principal_name),
        device_id=device.device_id,
        tenant_id=here.id,
        tenant_name=here.display_name,
        mdm_urls=await mdm_urls(tx, tokens, user.id),
    )


async def mdm_urls(tx: Tx, tokens: Tokens, user_id: str) -> MdmUrls | None:
    """Where this user's devices enrol by themselves; None when they are not to: no MDM authority,
    out of the user scope, or (where licences are asked for) no directory premium."""
    here = await directory.tenant(tx)
    if here.mdm_authority is directory.MdmAuthority.UNKNOWN:
        return None
    if not await directory.in_mdm_scope(tx, user_id):
        return None
    if not await licensing.may_enroll_automatically(tx, user_id):
        return None
    usual, chosen = usual_mdm_urls(tokens.settings), here.mdm_addresses
    return MdmUrls(
        chosen.discovery or usual.discovery_url,
        chosen.terms_of_use or usual.terms_of_use_url,
        chosen.compliance or usual.compliance_url,
    )


def usual_mdm_urls(settings: OidcSettings) -> MdmUrls:
    """The addresses of this tenant's own MDM: what "restore default" goes back to."""
    return MdmUrls(
        settings.mdm_discovery_url or f"{settings.base}/EnrollmentServer/Discovery.svc",
        settings.mdm_terms_of_use_url or f"{settings.base}/TermsOfUse.aspx",
        settings.mdm_compliance_url or f"{settings.base}/portal/compliance",
    )


def _public_key(asked: CertificateRequest) -> ec.EllipticCurvePublicKey:
    if asked.type.lower() != "pkcs10":
        raise BadJoin("The certificate request is not PKCS#10.", cure='Send Type "pkcs10".')
    try:
        der = b64decode("".join(asked.data.split()), validate=True)
    except ValueError:
        raise BadJoin("The certificate request is not base64.", cure="Encode its DER.") from None
    public = pki.read_request(der).public_key()
    if not isinstance(public, ec.EllipticCurvePublicKey) or public.curve.name != "secp256r1":
        raise BadJoin("The device's key is not P-256.", cure="Make a P-256 key for the join.")
    return public
