"""Sign-in and tokens: applications, consent, the authority's endpoints, and the device join.

    tokens = Tokens(OidcSettings(public_url=…), box)
    await establish(tx, tokens, now)                keys and built-in applications; harmless twice
    routes(database, tokens, now)                   /{tenant}/…, and the join of devices
    await tokens.verify(tx, token, now, audiences)  what resource servers of the tenant ask
    await tokens.verify_mdm(tx, token, now)         user tokens at enrolment

Owns the tables `oidc_…`. Access tokens are RS256 JWTs that others verify offline with the JWKS.
"""

from datetime import datetime

from tandem.infra.database import Tx
from tandem.tenant import directory
from tandem.tenant.oidc import applications, catalogue, store
from tandem.tenant.oidc.applications import admin_consent
from tandem.tenant.oidc.catalogue import (
    BROKER,
    BROKER_REDIRECT,
    CLI,
    DEVICE_REGISTRATION,
    GRAPH,
    GRAPH_URI,
    MDM_APP,
)
from tandem.tenant.oidc.flows import DEVICE_GRANT
from tandem.tenant.oidc.http import routes
from tandem.tenant.oidc.join import mdm_urls
from tandem.tenant.oidc.model import (
    Application,
    BadToken,
    Claims,
    Grant,
    OAuthError,
    OidcSettings,
    RoleAssignment,
    Secret,
    ServicePrincipal,
)
from tandem.tenant.oidc.tokens import Tokens


async def establish(tx: Tx, tokens: Tokens, now: datetime) -> None:
    """Keys and built-in applications of this version. To be called at every start."""
    here = await directory.tenant(tx)
    await tokens.establish_keys(tx, now)
    uri = tokens.mdm_app_id_uri(here.default_domain)
    await applications.establish_applications(tx, uri, now)


async def tend(tx: Tx, tokens: Tokens, now: datetime) -> None:
    """Upkeep, to be called now and then: expired codes and tokens go, keys rotate when due."""
    await store.delete_expired(tx, now)
    await tokens.rotate_when_due(tx, now)


__all__ = [
    "BROKER",
    "BROKER_REDIRECT",
    "CLI",
    "DEVICE_GRANT",
    "DEVICE_REGISTRATION",
    "GRAPH",
    "GRAPH_URI",
    "MDM_APP",
    "Application",
    "BadToken",
    "Claims",
    "Grant",
    "OAuthError",
    "OidcSettings",
    "RoleAssignment",
    "Secret",
    "ServicePrincipal",
    "Tokens",
    "admin_consent",
    "applications",
    "catalogue",
    "establish",
    "mdm_urls",
    "routes",
    "tend",
]
