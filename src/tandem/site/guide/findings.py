"""Where each step stands, by what is known: plain functions of values."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tandem.site.guide.model import TUTORIAL_SETTINGS, Finding, Said, State

PLANS = ("INTUNE_A", "AAD_PREMIUM")


@dataclass(frozen=True, slots=True, kw_only=True)
class Tenant:
    """What the tenant says to the site's application. `without` says why it says nothing."""

    without: str = ""
    domains: tuple[str, ...] = ()
    users: bool = False
    groups: bool = False
    # Product → (free seats, its service plans).
    products: Mapping[str, tuple[int, frozenset[str]]] = field(default_factory=dict)
    mdm_authority: str = ""
    reads: bool = False  # Consent works: the site's application may read users.
    no_consent: str = ""
    # Of the apps that bring the site's client: name → (target groups included, excluded, line).
    apps: Mapping[str, tuple[int, int, str]] | None = None
    no_apps: str = ""
    # Devices by the tenant's account.
    devices_known: bool = False
    enrolled: int = 0
    unlicensed: int = 0
    co_managed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What the site knows of itself, and what it was told."""

    enhanced_http: bool
    requests: int = 0
    complete: int = 0
    exported: int = 0
    service: str = ""
    server_app: str = ""
    client_app: str = ""
    discovery_enabled: bool = False
    run_state: str = ""
    run_users: int = 0
    run_reason: str = ""
    gateway: str = ""
    gateway_state: str = ""
    gateway_reason: str = ""
    dns_ok: bool | None = None
    dns_problem: str = ""
    dns_record: str = ""
    points: int = 0
    connected: int = 0
    traffic: bool = False
    settings: Mapping[str, bool | int] = field(default_factory=dict)
    enabled: str = ""
    missing: str = ""
    moved: int = 0
    piloted: int = 0
    policies: int = 0
    applied: int = 0
    policy_members: int = 0
    line: str = ""
    clients: int = 0
    co_managed: int = 0
    switched: bool = False
    moving: int = 0
    followed: int = 0
    tenant: Tenant = field(default_factory=Tenant)


def _done(message: str, **values: Any) -> Finding:
    return Finding(State.DONE, Said(message, values))


def _partly(message: str, **values: Any) -> Finding:
    return Finding(State.PARTLY, Said(message, values))


def _not_yet(message: str, **values: Any) -> Finding:
    return Finding(State.NOT_YET, Said(message, values))


def _unknown(message: str, **values: Any) -> Finding:
    return Finding(State.UNKNOWN, Said(message, values))


def _unasked(tenant: Tenant) -> Finding | None:
    if tenant.without:
        return _unknown("The tenant cannot be asked from here: %(reason)s", reason=tenant.without)
    return None


def tenant_and_people(facts: Facts) -> Finding:
    tenant = facts.tenant
    if silent := _unasked(tenant):
        return silent
    if not tenant.domains:
        return _not_yet("The tenant has no verified domain.")
    whole = [name for name, (_, plans) in tenant.products.items() if plans >= set(PLANS)]
    if not tenant.users or not tenant.groups:
        return _partly(
            "The tenant has %(domain)s, but no users or no groups yet.", domain=tenant.domains[0]
        )
    if not whole:
        return _partly(
            "There are users and groups, but no product that contains both the MDM plan and directory"
            " premium."
        )
    # Graph says a million where a subscription has no limit; a product with seats says more.
    limited = [name for name in whole if tenant.products[name][0] < _NO_LIMIT]
    if not limited:
        return _done(
            "%(domain)s is verified; %(product)s has both plans and seats without limit.",
            domain=tenant.domains[0],
            product=", ".join(whole),
        )
    return _done(
        "%(domain)s is verified; %(product)s has both plans and %(free)s free seats.",
        domain=tenant.domains[0],
        product=", ".join(limited),
        free=sum(tenant.products[name][0] for name in limited),
    )


_NO_LIMIT = 900_000


def mdm_authority(facts: Facts) -> Finding:
    tenant = facts.tenant
    if silent := _unasked(tenant):
        return silent
    if tenant.mdm_authority != "intune":
        return _not_yet("The MDM authority is not set.")
    if tenant.enrolled:
        return _done(
            "The MDM authority is set, and %(devices)s devices have enrolled.",
            devices=tenant.enrolled,
        )
    return _partly(
        "The MDM authority is set. The scope of automatic enrolment cannot be read with the site's"
        " rights, and no device has enrolled yet: look at it in the tenant."
    )


def enhanced_http(facts: Facts) -> Finding:
    if facts.enhanced_http:
        return _done("The site systems have certificates of the site's issuing root.")
    return _not_yet("Enhanced HTTP is off.")


def service_name(facts: Facts) -> Finding:
    if facts.gateway:
        return _done("The gateway's name is %(name)s.", name=facts.gateway)
    if facts.requests:
        return _done("A certificate was requested for the name.")
    return _not_yet("No name was chosen yet.")


def certificate_request(facts: Facts) -> Finding:
    if facts.gateway:
        return _done("The gateway %(name)s has its certificate.", name=facts.gateway)
    if facts.requests:
        return _done("A key and a request were made on the site server.")
    return _not_yet("No request was made yet.")


def certificate_import(facts: Facts) -> Finding:
    if facts.gateway:
        return _done("The gateway %(name)s has its certificate.", name=facts.gateway)
    if facts.complete:
        return _done("A certificate with its whole path waits for the gateway.")
    if facts.requests:
        return _partly("The request waits for its certificate.")
    return _not_yet("There is no request that a certificate could be imported for.")


def certificate_export(facts: Facts) -> Finding:
    if facts.gateway:
        return _done("The gateway %(name)s has its certificate.", name=facts.gateway)
    if facts.exported:
        return _done("A PFX was exported.")
    if facts.complete:
        return _partly("The certificate is complete, and not exported yet.")
    return _not_yet("There is no certificate to export yet.")


def azure_service(facts: Facts) -> Finding:
    if facts.service:
        return _done("The Azure service %(name)s is there.", name=facts.service)
    return _not_yet("There is no Azure service.")


def server_app(facts: Facts) -> Finding:
    if facts.server_app:
        return _done("The app %(app)s is registered in the tenant.", app=facts.server_app)
    return _not_yet("There is no server app.")


def client_app(facts: Facts) -> Finding:
    if facts.client_app:
        return _done("The app %(app)s is registered in the tenant.", app=facts.client_app)
    return _not_yet("There is no native client app.")


def discovery_enabled(facts: Facts) -> Finding:
    if facts.discovery_enabled:
        return _done("User discovery is enabled.")
    return _not_yet("User discovery is off.")


def consent(facts: Facts) -> Finding:
    tenant = facts.tenant
    if not facts.server_app:
        return _not_yet("There is no server app.")
    if tenant.no_consent:
        return _not_yet(
            "The site may not read the tenant yet: %(reason)s", reason=tenant.no_consent
        )
    if tenant.reads:
        return _done("With its own application the site reads the tenant's users.")
    return _unasked(tenant) or _unknown("Nobody has asked the tenant yet.")


def discovery(facts: Facts) -> Finding:
    if facts.run_state == "succeeded":
        return _done("The last full run found %(users)s users.", users=facts.run_users)
    if facts.run_state == "failed":
        return _partly("The last run failed: %(reason)s", reason=facts.run_reason)
    if facts.run_state == "running":
        return _partly("A run is under way.")
    return _not_yet("No full run was made yet.")


def gateway(facts: Facts) -> Finding:
    if not facts.gateway:
        return _not_yet("There is no gateway.")
    if facts.gateway_state == "Ready":
        return _done("The gateway %(name)s is ready.", name=facts.gateway)
    return _partly(
        "The gateway %(name)s is not ready (%(state)s). %(reason)s",
        name=facts.gateway,
        state=facts.gateway_state,
        reason=facts.gateway_reason,
    )


def dns(facts: Facts) -> Finding:
    if not facts.gateway:
        return _not_yet("There is no gateway that a record could lead to.")
    if facts.dns_ok is None:
        return _unknown("DNS cannot be asked from here: %(reason)s", reason=facts.dns_problem)
    if facts.dns_ok:
        return _done("DNS leads to it: %(record)s", record=facts.dns_record)
    return _not_yet("Add to your public DNS: %(record)s", record=facts.dns_record)


def connection_point(facts: Facts) -> Finding:
    if not facts.points:
        return _not_yet("No server has the role.")
    if facts.connected == facts.points:
        return _done(
            "%(points)s connection points hold a tunnel to every instance.", points=facts.points
        )
    return _partly(
        "%(connected)s of %(points)s connection points are connected to every instance.",
        connected=facts.connected,
        points=facts.points,
    )


def gateway_traffic(facts: Facts) -> Finding:
    if facts.traffic:
        return _done("The management point's client endpoints are published.")
    return _not_yet("Nothing of the management point is published.")


def client_settings(facts: Facts) -> Finding:
    held = sum(facts.settings.get(name) is True for name in TUTORIAL_SETTINGS)
    if held == len(TUTORIAL_SETTINGS):
        return _done("All four are Yes.")
    if held:
        return _partly("%(held)s of the four are Yes.", held=held)
    return _not_yet("None of the four is Yes.")


def enable(facts: Facts) -> Finding:
    if facts.enabled == "all":
        return _done("Co-management is enabled; the site enrols all clients.")
    if facts.enabled == "pilot":
        return _done("Co-management is enabled; the site enrols the clients of the pilot.")
    if facts.enabled:
        return _done("Co-management is enabled; the site enrols no client by itself.")
    if facts.missing:
        return _not_yet("It cannot be enabled yet: %(missing)s", missing=facts.missing)
    return _not_yet("Everything that it needs is there.")


def workloads(facts: Facts) -> Finding:
    if not facts.enabled:
        return _not_yet("Co-management is not enabled.")
    return _done(
        "%(mdm)s workloads are with the MDM service, %(pilot)s in a pilot; the others are with the"
        " site.",
        mdm=facts.moved,
        pilot=facts.piloted,
    )


def policies(facts: Facts) -> Finding:
    if not facts.policies:
        return _not_yet("There are no co-management policies.")
    return _done(
        "%(policies)s policies are deployed; the production policy is applied by %(applied)s of"
        " %(members)s clients.",
        policies=facts.policies,
        applied=facts.applied,
        members=facts.policy_members,
    )


def _apps_unread(tenant: Tenant) -> Finding | None:
    if silent := _unasked(tenant):
        return silent
    if tenant.apps is None:
        return _unknown(
            "The tenant's apps cannot be read from here: %(reason)s", reason=tenant.no_apps
        )
    return None


def app(facts: Facts) -> Finding:
    if silent := _apps_unread(facts.tenant):
        return silent
    apps = facts.tenant.apps or {}
    if not apps:
        return _not_yet("No app of the tenant brings the site's client.")
    name, (_, _, line) = next(iter(apps.items()))
    if facts.line and facts.line not in line:
        return _partly(
            "The app %(app)s carries another command line than clients need now.", app=name
        )
    return _done("The app %(app)s carries the command line.", app=name)


def assignment(facts: Facts) -> Finding:
    if silent := _apps_unread(facts.tenant):
        return silent
    apps = facts.tenant.apps or {}
    included = sum(item[0] for item in apps.values())
    excluded = sum(item[1] for item in apps.values())
    if not apps:
        return _not_yet("There is no app to assign.")
    if not included:
        return _not_yet("The app is assigned to nobody.")
    return _done(
        "It is assigned to %(included)s groups, minus %(excluded)s.",
        included=included,
        excluded=excluded,
    )


def licences(facts: Facts) -> Finding:
    tenant = facts.tenant
    if silent := _unasked(tenant):
        return silent
    if not tenant.devices_known:
        return _unknown("The tenant's devices cannot be read from here.")
    if not tenant.enrolled:
        return _unknown("No device is enrolled, so nobody is known to need a licence.")
    if tenant.unlicensed:
        return _partly(
            "%(count)s users of co-managed devices have no licence.", count=tenant.unlicensed
        )
    return _done("The users of all co-managed devices have one.")


def devices(facts: Facts) -> Finding:
    if not facts.clients:
        return _not_yet("No client has registered with the site yet.")
    if facts.co_managed == facts.clients:
        return _done("All %(clients)s clients of the site are co-managed.", clients=facts.clients)
    return _partly(
        "%(co_managed)s of %(clients)s clients are co-managed.",
        co_managed=facts.co_managed,
        clients=facts.clients,
    )


def dashboard(facts: Facts) -> Finding:
    if not facts.co_managed:
        return _not_yet("There is no co-managed device to show.")
    tenant = facts.tenant
    if silent := _unasked(tenant):
        return silent
    if not tenant.devices_known:
        return _unknown("The tenant's devices cannot be read from here.")
    if tenant.co_managed == facts.co_managed:
        return _done(
            "Both authorities count %(devices)s co-managed devices.", devices=facts.co_managed
        )
    return _partly(
        "The site counts %(site)s co-managed devices, the tenant %(tenant)s.",
        site=facts.co_managed,
        tenant=tenant.co_managed,
    )


def switch(facts: Facts) -> Finding:
    if facts.moving > facts.followed:
        return _partly(
            "A move is under way: %(followed)s of %(moving)s devices have followed.",
            followed=facts.followed,
            moving=facts.moving,
        )
    if facts.switched:
        return _done("Workloads have been switched, and every device has followed.")
    return _not_yet("No workload was ever switched.")


def later(_: Facts) -> Finding:
    return Finding(
        State.NOT_IN_THIS_VERSION,
        Said("Not in this version: it is shown so that nobody looks for it."),
    )


FINDINGS = {
    "0.1": tenant_and_people,
    "0.2": mdm_authority,
    "0.3": enhanced_http,
    "1.1": service_name,
    "1.2": certificate_request,
    "1.3": certificate_import,
    "1.4": certificate_export,
    "2.1": azure_service,
    "2.2": server_app,
    "2.3": client_app,
    "2.4": discovery_enabled,
    "2.5": consent,
    "2.6": discovery,
    "3.1": gateway,
    "3.2": dns,
    "4.1": connection_point,
    "4.2": gateway_traffic,
    "4.3": client_settings,
    "5.1": enable,
    "5.2": workloads,
    "5.3": policies,
    "6.1": app,
    "6.2": assignment,
    "6.3": licences,
    "6.4": devices,
    "7.1": dashboard,
    "7.2": switch,
    "7.3": later,
}


def may_do(id: str, facts: Facts) -> bool:
    """Whether what a step needs before it is there."""
    if id == "2.4":
        return bool(facts.service)
    if id == "2.6":
        return facts.discovery_enabled and facts.tenant.reads and facts.run_state != "running"
    return True
