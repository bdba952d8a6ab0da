"""The site's code, its certificates (enhanced HTTP) and what signs for it.

Owns the tables properties_site and properties_credential. Private keys are sealed.
"""

from tandem.protocols.ccm import SigningIdentity
from tandem.site.properties.http import routes
from tandem.site.properties.model import (
    ROLE_ID_BASE,
    AnotherSite,
    BadSiteCode,
    NotEstablished,
    RoleCertificate,
    Site,
    check_site_code,
)
from tandem.site.properties.service import (
    SITE_SYSTEMS,
    enhanced_http,
    establish,
    issuing_root,
    role_certificate,
    root_certificate,
    secure,
    signing_identity,
    site,
)

__all__ = [
    "ROLE_ID_BASE",
    "SITE_SYSTEMS",
    "AnotherSite",
    "BadSiteCode",
    "NotEstablished",
    "RoleCertificate",
    "SigningIdentity",
    "Site",
    "check_site_code",
    "enhanced_http",
    "establish",
    "issuing_root",
    "role_certificate",
    "root_certificate",
    "routes",
    "secure",
    "signing_identity",
    "site",
]
