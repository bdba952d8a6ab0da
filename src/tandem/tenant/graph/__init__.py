"""Microsoft Graph's surface of the tenant: resources described once, served under /v1.0 and /beta.

Owns `graph_change`, the log of changes that delta queries read. `model` tells how a part is
written. `roles/tenant.py` serves all of them:

    graph.routes(database, tokens, now, parts=[*graph.directory_parts(passwords), managed_devices(…)])

Paths that are not Graph's and only ours begin with /tandem; the site asks none of them.
"""

from collections.abc import Sequence

from tandem import audit
from tandem.tenant import directory, licensing, oidc
from tandem.tenant.graph.applications import application_parts
from tandem.tenant.graph.audit_events import audit_events
from tandem.tenant.graph.audits import audits
from tandem.tenant.graph.comanagement import comanagement
from tandem.tenant.graph.configurations import configurations
from tandem.tenant.graph.deleted_items import deleted_items
from tandem.tenant.graph.delta import prune
from tandem.tenant.graph.device_certificates import device_certificates
from tandem.tenant.graph.devices import devices
from tandem.tenant.graph.directory_objects import directory_objects
from tandem.tenant.graph.domains import Texts, domains
from tandem.tenant.graph.enrollment_ways import enrollment_ways
from tandem.tenant.graph.groups import groups
from tandem.tenant.graph.http import routes
from tandem.tenant.graph.managed_devices import managed_devices
from tandem.tenant.graph.mobile_apps import mobile_app_parts
from tandem.tenant.graph.model import (
    Access,
    Action,
    Answer,
    BadProperty,
    Body,
    Call,
    Created,
    Entity,
    Family,
    Field,
    Listed,
    Navigation,
    Part,
    Ref,
    Resource,
    Stream,
    Value,
    access,
)
from tandem.tenant.graph.organization import organization
from tandem.tenant.graph.own_access import own_access
from tandem.tenant.graph.permissions import READERS, WRITERS
from tandem.tenant.graph.roles import roles
from tandem.tenant.graph.sign_ins import sign_ins
from tandem.tenant.graph.throttle import GraphSettings
from tandem.tenant.graph.users import users


async def _no_texts(name: str) -> Sequence[str]:
    return ()


def directory_parts(
    passwords: directory.DirectorySettings | None = None,
    signer: audit.Signer | None = None,
    *,
    later: licensing.Later | None = None,
    texts: Texts = _no_texts,
    authority: oidc.OidcSettings | None = None,
) -> list[Part]:
    """Users, groups, devices, organization, roles, licences, applications, consent, what was
    deleted, the audit log and the sign-in log.

    `signer` signs the log's heads; without one a key of this process's own does. `later` defers
    licences of large groups; without it they are settled in the request. `texts` asks DNS for the
    TXT records that prove a domain; `authority` says which MDM addresses are the usual ones.
    """
    usual = oidc.usual_mdm_urls(authority) if authority else None
    return [
        audits(signer or audit.Signer.generate()),
        users(passwords or directory.DirectorySettings(), later),
        groups(later),
        own_access(),
        devices(),
        organization(usual),
        roles(),
        domains(texts),
        directory_objects(),
        deleted_items(),
        application_parts(),
        sign_ins(),
    ]


__all__ = [
    "READERS",
    "WRITERS",
    "Access",
    "Action",
    "Answer",
    "BadProperty",
    "Body",
    "Call",
    "Created",
    "Entity",
    "Family",
    "Field",
    "GraphSettings",
    "Listed",
    "Navigation",
    "Part",
    "Ref",
    "Resource",
    "Stream",
    "Value",
    "access",
    "audit_events",
    "comanagement",
    "configurations",
    "device_certificates",
    "directory_parts",
    "enrollment_ways",
    "managed_devices",
    "mobile_app_parts",
    "prune",
    "routes",
]
