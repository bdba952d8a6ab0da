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
    "dns-inside.no-record": (
        "The internal DNS has no record for %(name)s: devices at home do not find the gateway.",
        "Add to your internal DNS: %(record)s",
    ),
    "dns-inside.elsewhere": (
        "The internal DNS leads %(name)s to %(target)s, and not to this gateway.",
        "Change it in your internal DNS to: %(record)s",
    ),
    "dns-inside.no-address": (
        "The internal DNS has no address for the deployment name %(deployment)s.",
        "Add A records for it there with the addresses of the instances: %(addresses)s.",
    ),
    "dns-inside.no-answer": (
        "The internal DNS does not answer.",
        "Check the network and the resolver in the site's settings.",
    ),
    "server-crl.unreachable": (
        "The revocation list of the gateway's certificate cannot be fetched: devices that look for"
        " it refuse the gateway. %(said)s",
        "Publish the list where the certificate says, reachable from the internet.",
    ),
    "server-crl.no-web": (
        "The gateway's certificate names a revocation list that is not on the web: devices outside"
        " cannot fetch it.",
        "Let the authority publish its list by HTTP, too, and get a new certificate from it.",
    ),
    "server-crl.wrong": (
        "What lies at %(url)s is not the list of the gateway's authority.",
        "Publish this authority's list there.",
    ),
    "server-crl.expired": (
        "The revocation list of the gateway's certificate expired on %(day)s (%(url)s): devices"
        " that look for it refuse the gateway.",
        "Let the authority publish a new list.",
    ),
    "server-crl.revoked": (
        "The gateway's certificate, or its authority's, is revoked (%(url)s): devices refuse it.",
        "Get a new certificate with the same name, and replace it in the gateway's properties.",
    ),
    "crl.missing": (
        "The revocation list of %(authority)s is missing: its clients are refused.",
        "Upload this authority's newest list (`tandem management-point add-crl`), or switch the"
        " check off in the gateway's properties.",
    ),
    "crl.expired": (
        "The revocation list of %(authority)s expired on %(day)s: its clients are refused.",
        "Upload this authority's newest list (`tandem management-point add-crl`), or switch the"
        " check off in the gateway's properties.",
    ),
    "crl.expires": (
        "The revocation list of %(authority)s expires on %(day)s: its clients are refused then.",
        "Upload this authority's newest list (`tandem management-point add-crl`).",
    ),
    "identity.token": (
        "This token does not count for the site. %(said)s",
        "Sign in with an account of the connected tenant, and take a new token for the site.",
    ),
    "identity.unknown": (
        "Whether this token counts could not be found out. %(said)s",
        "%(cure)s",
    ),
    "identity.certificate": (
        "This certificate does not speak for a client. %(said)s",
        "%(cure)s",
    ),
    "identity.certificate-revoked": (
        "This client certificate is revoked. %(said)s",
        "Give the device a new certificate.",
    ),
    "identity.certificate-expired": (
        "This client certificate is not valid now. %(said)s",
        "Renew it; check that the clock of the device is right.",
    ),
    "identity.certificate-unknown": (
        "This client certificate is not of an authority that the site trusts. %(said)s",
        "Upload that authority's certificate, and those above it (trusted root certificates).",
    ),
    "probe.no-connection": (
        "The instance takes no connection at %(address)s. %(said)s",
        "Look whether it runs, and whether a firewall is between the site and it.",
    ),
    "probe.no-tls": (
        "What answers at %(address)s does not speak TLS as a gateway does. %(said)s",
        "Look whether something else listens there; read gateway-%(number)s.jsonl.",
    ),
    "probe.certificate-expired": (
        "%(address)s shows a certificate that has expired: no device accepts it.",
        "Replace the certificate in the gateway's properties; when that was done, synchronise.",
    ),
    "probe.certificate-early": (
        "%(address)s shows a certificate that is not valid yet.",
        "Check the clocks of the instance's host, of the site and of the authority.",
    ),
    "probe.certificate-unknown": (
        "%(address)s shows a certificate of an authority that the gateway's own is not of, or"
        " leaves out what is between: devices do not trust it. %(said)s",
        "Synchronise the configuration. If it stays so, something between decrypts the traffic.",
    ),
    "probe.certificate-name": (
        "%(address)s shows a certificate that is not for %(name)s. %(said)s",
        "Look whether the address is another service's; else replace the gateway's certificate by"
        " one for this name.",
    ),
    "probe.other-certificate": (
        "%(address)s shows another certificate than the gateway's own.",
        "Synchronise the configuration. If it stays so, something between decrypts the traffic.",
    ),
    "probe.older-rules": (
        "The instance has version %(has)s of the configuration, and the site is at %(wanted)s.",
        "Wait for some seconds, then synchronise. It comes by the tunnels: look at those.",
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
    "probe.token-refused": (
        "The gateway does not believe this token (%(said)s).",
        "Take a new token for the site, of an account of the connected tenant.",
    ),
    "probe.certificate-refused": (
        "The instance ends TLS with this client certificate: it is not of an uploaded authority,"
        " not valid now or not for clients. %(said)s",
        "Give the device another certificate, or upload its authority's (trusted root certificates).",
    ),
    "probe.revoked": (
        "The gateway refuses this client certificate as revoked (%(said)s).",
        "Give the device a new certificate.",
    ),
    "probe.no-list": (
        "The gateway cannot check this client certificate: a revocation list is missing or has"
        " expired (%(said)s).",
        "Upload the authority's newest list (`tandem management-point add-crl`).",
    ),
    "probe.no-point": (
        "The gateway has no connection point for this request (%(said)s).",
        "Look whether the connection point runs and holds its tunnels.",
    ),
    "probe.management-point": (
        "The connection point does not reach the management point (%(said)s).",
        "Look whether the site's listener of the management point answers inside.",
    ),
    "probe.management-point-untrusted": (
        "The connection point does not trust the management point's certificate (%(said)s).",
        "Give the connection point the site's root: site_root in connector.toml.",
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
        "The certificate that the site has for it is valid now, and for some time.",
    ),
    "server-crl": (
        "Revocation list of that certificate",
        "Devices look there whether the gateway's certificate is revoked: the list can be fetched"
        " and is fresh.",
    ),
    "identity": (
        "Who asks",
        "The token or the client certificate counts by the site's own rules.",
    ),
    "crl": (
        "Revocation lists of clients",
        "Each authority of clients' certificates has a list that is not over.",
    ),
    "dns": (
        "Public name",
        "The service name is an alias of the deployment name, which has an address.",
    ),
    "dns-internal": (
        "Name inside",
        "The internal DNS leads to the gateway, too.",
    ),
    "instance": (
        "Instance answers",
        "The site opens a connection to the instance, as a device does.",
    ),
    "tls": (
        "Certificate that is shown",
        "The instance shows the gateway's certificate with all that is above it, for its name.",
    ),
    "configuration": (
        "Rules of the instance",
        "The instance has the configuration that the site has now.",
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
