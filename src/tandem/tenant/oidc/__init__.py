"""Sign-in and tokens: applications, consent, the authority's endpoints, and the device join.

    tokens = Tokens(OidcSettings(public_url=…), box)
    await establish(tx, tokens, now)                keys and built-in applications; harmless twice
    routes(database, tokens, now)                   /{tenant}/…, and the join of devices
    certificate_routes(database, tokens, now, holder)   device tokens by MDM certificate, mutual TLS
    await tokens.verify(tx, token, now, audiences)  what resource servers of the tenant ask
    await tokens.verify_mdm(tx, token, now)         user tokens at enrolment

Owns the tables `oidc_…`. Access tokens are RS256 JWTs that others verify offline with the JWKS.
"""

from datetime import datetime, timedelta

from tandem.infra.database import Database, Tx
from tandem.tenant import directory
from tandem.tenant.oidc import applications, catalogue, grant_store, pages, session_store
from tandem.tenant.oidc.applications import admin_consent
from tandem.tenant.oidc.catalogue import (
    BROKER,
    BROKER_REDIRECT,
    CLI,
    DEVICE_REGISTRATION,
    GRAPH,
    GRAPH_URI,
    MDM_APP,
    MDM_ENROLLMENT,
    enrollment_redirect,
)
from tandem.tenant.oidc.conditions import Attempt, Conditions, Decision, Result
from tandem.tenant.oidc.device_certificate import CertificateHolder, certificate_routes
from tandem.tenant.oidc.grants import CERTIFICATE_GRANT, DEVICE_GRANT, MDM_CERTIFICATE
from tandem.tenant.oidc.http import peer_of, routes
from tandem.tenant.oidc.join import MdmUrls, mdm_urls, usual_mdm_urls
from tandem.tenant.oidc.model import (
    Application,
    BadToken,
    Certificate,
    Claims,
    Expiring,
    Grant,
    OidcSettings,
    Peer,
    RoleAssignment,
    Secret,
    ServicePrincipal,
)
from tandem.tenant.oidc.own_doors import PasswordDoor, sign_in_url, signed_in
from tandem.tenant.oidc.refusals import OAuthError
from tandem.tenant.oidc.session_store import SignIn
from tandem.tenant.oidc.sign_ins import sign_ins
from tandem.tenant.oidc.signers import KeyKeeper, MadeKey, Signer, SoftwareKeys
from tandem.tenant.oidc.tokens import Tokens


async def establish(tx: Tx, tokens: Tokens, now: datetime) -> None:
    """Keys and built-in applications of this version. To be called at every start."""
    here = await directory.tenant(tx)
    await tokens.establish_keys(tx, now)
    uri = tokens.mdm_app_id_uri(here.default_domain)
    await applications.establish_applications(tx, uri, tokens.settings.base, now)


async def tend(tx: Tx, tokens: Tokens, now: datetime) -> None:
    """Upkeep, to be called now and then: expired codes and tokens go, keys rotate when due."""
    await grant_store.delete_expired(tx, now)
    before = now - timedelta(days=tokens.settings.sign_in_log_days)
    await session_store.delete_old(tx, now, before)
    await tokens.rotate_when_due(tx, now)


async def flush(database: Database, tokens: Tokens) -> None:
    """Write what waits for the sign-in log. To be called before the process ends."""
    await tokens.waiting.write(database)


__all__ = [
    "BROKER",
    "BROKER_REDIRECT",
    "CERTIFICATE_GRANT",
    "CLI",
    "DEVICE_GRANT",
    "DEVICE_REGISTRATION",
    "GRAPH",
    "GRAPH_URI",
    "MDM_APP",
    "MDM_CERTIFICATE",
    "MDM_ENROLLMENT",
    "Application",
    "Attempt",
    "BadToken",
    "Certificate",
    "CertificateHolder",
    "Claims",
    "Conditions",
    "Decision",
    "Expiring",
    "Grant",
    "KeyKeeper",
    "MadeKey",
    "MdmUrls",
    "OAuthError",
    "OidcSettings",
    "PasswordDoor",
    "Peer",
    "Result",
    "RoleAssignment",
    "Secret",
    "ServicePrincipal",
    "SignIn",
    "Signer",
    "SoftwareKeys",
    "Tokens",
    "admin_consent",
    "applications",
    "catalogue",
    "certificate_routes",
    "enrollment_redirect",
    "establish",
    "flush",
    "mdm_urls",
    "pages",
    "peer_of",
    "routes",
    "sign_in_url",
    "sign_ins",
    "signed_in",
    "tend",
    "usual_mdm_urls",
]
