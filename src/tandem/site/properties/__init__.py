"""The site's code, its certificates (enhanced HTTP) and what signs for it.

Owns the tables properties_…. Private keys are sealed.
"""

from tandem.protocols.ccm import SigningIdentity
from tandem.site.properties.http import routes
from tandem.site.properties.model import (
    ROLE_ID_BASE,
    AnotherSite,
    Answering,
    BadSiteCode,
    Communication,
    GatewayNeedsIt,
    NeedsOwnCertificates,
    NotEstablished,
    NotRenewable,
    RoleCertificate,
    Site,
    check_site_code,
)
from tandem.site.properties.service import (
    ADMIN_SERVICE,
    SITE_SYSTEMS,
    answering,
    answers,
    communication,
    enhanced_http,
    establish,
    issuing_root,
    renew_role,
    role_certificate,
    role_ends,
    root_certificate,
    set_communication,
    signing_identity,
    site,
)

__all__ = [
    "ADMIN_SERVICE",
    "ROLE_ID_BASE",
    "SITE_SYSTEMS",
    "AnotherSite",
    "Answering",
    "BadSiteCode",
    "Communication",
    "GatewayNeedsIt",
    "NeedsOwnCertificates",
    "NotEstablished",
    "NotRenewable",
    "RoleCertificate",
    "SigningIdentity",
    "Site",
    "answering",
    "answers",
    "check_site_code",
    "communication",
    "enhanced_http",
    "establish",
    "issuing_root",
    "renew_role",
    "role_certificate",
    "role_ends",
    "root_certificate",
    "routes",
    "set_communication",
    "signing_identity",
    "site",
]
