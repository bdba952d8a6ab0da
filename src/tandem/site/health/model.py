"""What can be wrong on the way in, as codes with words: programs decide on the code, people read
the words, and a console in another language translates the same words."""

from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum
from typing import Any


class State(Enum):
    GOOD = "good"
    WAITING = "waiting"
    BAD = "bad"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class End:
    """One end of a hop. `kind` says what `name` names."""

    kind: str  # device, dns, instance, connection-point, management-point, admin-service, site, tenant
    name: str = ""


# Cause → what happened, what to do. `%(…)s` stands for a value of the finding; `%(said)s` is what
# the part itself said of it, in English, as its log has it.
CAUSES: dict[str, tuple[str, str]] = {
    "dns.no-record": (
        "DNS has no CNAME record for %(name)s: devices cannot find the gateway.",
        "Add to your public DNS: %(record)s",
    ),
    "dns.elsewhere": (
        "The CNAME of %(name)s leads to %(target)s, and not to this gateway.",
        "Change it in your public DNS to: %(record)s",
    ),
    "dns.no-address": (
        "The deployment name %(deployment)s has no address in DNS.",
        "Add A records for it with the addresses of the instances: %(addresses)s.",
    ),
    "dns.no-answer": (
        "DNS does not answer, so nobody knows whether devices find the gateway.",
        "Check the network and the resolver in the site's settings.",
    ),
    "gateway.being-made": (
        "The gateway is being provisioned.",
        "Wait: it takes a minute or two.",
    ),
    "gateway.being-deleted": ("The gateway is being deleted.", "Nothing need be done."),
    "gateway.stopped": (
        "The gateway is stopped: no device reaches the site through it. %(said)s",
        "Start it when devices are to reach the site again.",
    ),
    "gateway.failed": (
        "The gateway could not be provisioned: %(said)s",
        "Correct what is said, then start the gateway.",
    ),
    "gateway.certificate-expired": (
        "The gateway's certificate expired on %(day)s: no device accepts it.",
        "Get a new certificate with the same name, and replace it in the gateway's properties.",
    ),
    "gateway.certificate-ends": (
        "The gateway's certificate expires on %(day)s.",
        "Get a new certificate with the same name, and replace it in the gateway's properties.",
    ),
    "instance.down": (
        "The instance does not run. %(said)s",
        "It is started again within a minute. If it ends again, read gateway-%(number)s.log.",
    ),
    "instance.silent": (
        "The instance runs, and does not answer yet.",
        "Wait: after three looks without an answer it is started again.",
    ),
    "tunnel.no-point": (
        "No connection point serves this gateway.",
        "Add the role of the connection point to a server, and choose this gateway.",
    ),
    "tunnel.none": (
        "The connection point has not dialled this instance yet.",
        "Wait for a minute; then look whether its server reaches %(address)s.",
    ),
    "tunnel.refused": (
        "Nothing listens where the connection point dials. %(said)s",
        "Look whether the instance runs, and whether a firewall is between them.",
    ),
    "tunnel.untrusted": (
        "The connection point does not trust the gateway's certificate. %(said)s",
        "Give it the roots of that certificate: gateway_ca_file in connector.toml.",
    ),
    "tunnel.no-answer": (
        "The instance does not answer the connection point. %(said)s",
        "Open the way from its server to %(address)s, outbound TCP.",
    ),
    "tunnel.lost": (
        "The tunnel is lost. %(said)s",
        "The connection point dials again by itself. Read SMS_Cloud_ProxyConnector.log when it lasts.",
    ),
    "tunnel.connecting": ("The connection point is dialling.", "Wait a moment."),
    "point.never": (
        "The connection point has never reported.",
        "Install it on its server and start it: tandem connector run --config connector.toml.",
    ),
    "point.silent": (
        "The connection point has not reported since %(at)s.",
        "Look whether its server runs, and start it: tandem connector run --config connector.toml.",
    ),
    "management-point.closed": (
        "The management point takes no gateway traffic: devices are refused at the gateway.",
        "Allow gateway traffic in the properties of the management point.",
    ),
    "management-point.insecure": (
        "The management point has no certificate for HTTPS, so it takes no gateway traffic.",
        "Switch enhanced HTTP on in the site's properties, or give the site system a certificate.",
    ),
    "management-point.certificate-expired": (
        "The certificate of the management point expired on %(day)s.",
        "Start the site again: it makes a new one by itself.",
    ),
    "tenant.not-connected": (
        "The site is not connected to a tenant: tokens of devices cannot be checked.",
        "Connect it with the Azure services wizard.",
    ),
    "tenant.no-server-app": (
        "The connection to the tenant has no server app yet.",
        "Create or import the server app in the Azure services wizard.",
    ),
    "tenant.secret-expired": (
        "The secret of the server app expired on %(day)s: the site cannot ask the tenant.",
        "Renew the secret key of the tenant.",
    ),
    "tenant.secret-ends": (
        "The secret of the server app expires on %(day)s.",
        "Renew the secret key of the tenant.",
    ),
    "tenant.fails": ("The tenant does not do what the site needs: %(said)s", "%(cure)s"),
    "probe.no-connection": (
        "The instance takes no connection at %(address)s. %(said)s",
        "Look whether it runs, and whether a firewall is between the site and it.",
    ),
    "probe.other-certificate": (
        "%(address)s shows another certificate than the gateway's own.",
        "Synchronise the configuration. If it stays so, something between decrypts the traffic.",
    ),
    "probe.tenant-unknown": (
        "The gateway does not know the tenant yet, so devices learn nothing from it.",
        "Synchronise the configuration, and look at the tunnels.",
    ),
    "probe.not-published": (
        "The gateway does not publish the management point (%(said)s).",
        "Allow gateway traffic, then synchronise the configuration.",
    ),
    "probe.not-believed": (
        "The gateway or the management point does not believe this identity (%(said)s).",
        "Sign in with an account of the connected tenant, or take a client certificate of a trusted"
        " authority.",
    ),
    "probe.no-point": (
        "The gateway has no connection point for this request (%(said)s).",
        "Look whether the connection point runs and holds its tunnels.",
    ),
    "probe.management-point": (
        "The connection point does not reach the management point (%(said)s).",
        "Look whether the site's listener of the management point answers inside.",
    ),
    "probe.unexpected": (
        "The answer is not what was expected (%(said)s).",
        "Read CMGService.log of the gateway and SMS_Cloud_ProxyConnector.log.",
    ),
}

# Check of the connection analyzer → its name, and what it looks at.
CHECKS: dict[str, tuple[str, str]] = {
    "service": (
        "State of the gateway",
        "The site provisioned the gateway and its state is Ready.",
    ),
    "certificate": (
        "Certificate of the gateway",
        "The certificate has not expired, and each instance shows it.",
    ),
    "dns": (
        "Public name",
        "The service name is an alias of the deployment name, which has an address.",
    ),
    "instance": (
        "Instance answers",
        "The site opens a TLS connection to the instance, as a device does.",
    ),
    "tenant": (
        "Tenant is known",
        "The gateway answers which tenant and app a device signs in with.",
    ),
    "channel": (
        "Channel of the connection point",
        "A connection point holds a tunnel to the instance and reports.",
    ),
    "management-point": (
        "Management point through the gateway",
        "A request for the list of management points goes through gateway and connection point.",
    ),
    "authority": (
        "Site reaches the tenant",
        "The site gets a token with its server app and reads the tenant.",
    ),
}


@dataclass(frozen=True, slots=True)
class Finding:
    """A hop of the way in, or a check of it."""

    id: str
    gateway: str
    source: End
    target: End
    state: State
    cause: str = ""
    values: dict[str, Any] = field(default_factory=dict)
    since: datetime | None = None
    check: str = ""

    @property
    def text(self) -> str:
        return words(self.cause, self.values)[0]

    @property
    def cure(self) -> str:
        return words(self.cause, self.values)[1]


def words(cause: str, values: dict[str, Any]) -> tuple[str, str]:
    """What happened and what to do, in English; nothing for no cause."""
    text, cure = CAUSES.get(cause, ("", ""))
    return (text % values).strip(), (cure % values).strip()


@dataclass(frozen=True, slots=True)
class Listener:
    """An address that something of the site listens on, or dials."""

    role: str
    address: str
    port: int
    protocol: str
    direction: str  # in, out
    peer: str  # Who connects, or what is connected to.
    purpose: str = ""
    instance: str = ""


@dataclass(frozen=True, slots=True)
class SitePlaces:
    """Where the site itself listens, dials and writes, from its settings."""

    listeners: tuple[Listener, ...] = ()
    logs: str = ""
    state: str = ""
    database: str = ""
    resolver: str = ""
    started_at: datetime | None = None
