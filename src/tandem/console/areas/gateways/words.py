"""The words of the way in, as the site's own list of causes has them: a test holds them together.

Here they are messages, so that both languages have them; what fills them in is data.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from tandem.console.kit import N_, Page

CAUSES: dict[str, tuple[str, str]] = {
    "dns.no-record": (
        N_("DNS has no CNAME record for %(name)s: devices cannot find the gateway."),
        N_("Add to your public DNS: %(record)s"),
    ),
    "dns.elsewhere": (
        N_("The CNAME of %(name)s leads to %(target)s, and not to this gateway."),
        N_("Change it in your public DNS to: %(record)s"),
    ),
    "dns.no-address": (
        N_("The deployment name %(deployment)s has no address in DNS."),
        N_("Add A records for it with the addresses of the instances: %(addresses)s."),
    ),
    "dns.no-answer": (
        N_("DNS does not answer, so nobody knows whether devices find the gateway."),
        N_("Check the network and the resolver in the site's settings."),
    ),
    "gateway.being-made": (
        N_("The gateway is being provisioned."),
        N_("Wait: it takes a minute or two."),
    ),
    "gateway.being-deleted": (
        N_("The gateway is being deleted."),
        N_("Nothing need be done."),
    ),
    "gateway.stopped": (
        N_("The gateway is stopped: no device reaches the site through it. %(said)s"),
        N_("Start it when devices are to reach the site again."),
    ),
    "gateway.failed": (
        N_("The gateway could not be provisioned: %(said)s"),
        N_("Correct what is said, then start the gateway."),
    ),
    "gateway.certificate-expired": (
        N_("The gateway's certificate expired on %(day)s: no device accepts it."),
        N_("Get a new certificate with the same name, and replace it in the gateway's properties."),
    ),
    "gateway.certificate-ends": (
        N_("The gateway's certificate expires on %(day)s."),
        N_("Get a new certificate with the same name, and replace it in the gateway's properties."),
    ),
    "instance.down": (
        N_("The instance does not run. %(said)s"),
        N_("It is started again within a minute. If it ends again, read gateway-%(number)s.log."),
    ),
    "instance.silent": (
        N_("The instance runs, and does not answer yet."),
        N_("Wait: after three looks without an answer it is started again."),
    ),
    "tunnel.no-point": (
        N_("No connection point serves this gateway."),
        N_("Add the role of the connection point to a server, and choose this gateway."),
    ),
    "tunnel.none": (
        N_("The connection point has not dialled this instance yet."),
        N_("Wait for a minute; then look whether its server reaches %(address)s."),
    ),
    "tunnel.refused": (
        N_("Nothing listens where the connection point dials. %(said)s"),
        N_("Look whether the instance runs, and whether a firewall is between them."),
    ),
    "tunnel.untrusted": (
        N_("The connection point does not trust the gateway's certificate. %(said)s"),
        N_("Give it the roots of that certificate: gateway_ca_file in connector.toml."),
    ),
    "tunnel.no-answer": (
        N_("The instance does not answer the connection point. %(said)s"),
        N_("Open the way from its server to %(address)s, outbound TCP."),
    ),
    "tunnel.lost": (
        N_("The tunnel is lost. %(said)s"),
        N_(
            "The connection point dials again by itself. Read SMS_Cloud_ProxyConnector.log when it lasts."
        ),
    ),
    "tunnel.connecting": (
        N_("The connection point is dialling."),
        N_("Wait a moment."),
    ),
    "point.never": (
        N_("The connection point has never reported."),
        N_("Install it on its server and start it: tandem connector run --config connector.toml."),
    ),
    "point.silent": (
        N_("The connection point has not reported since %(at)s."),
        N_(
            "Look whether its server runs, and start it: tandem connector run --config connector.toml."
        ),
    ),
    "management-point.closed": (
        N_("The management point takes no gateway traffic: devices are refused at the gateway."),
        N_("Allow gateway traffic in the properties of the management point."),
    ),
    "management-point.insecure": (
        N_("The management point has no certificate for HTTPS, so it takes no gateway traffic."),
        N_(
            "Switch enhanced HTTP on in the site's properties, or give the site system a certificate."
        ),
    ),
    "management-point.certificate-expired": (
        N_("The certificate of the management point expired on %(day)s."),
        N_("Start the site again: it makes a new one by itself."),
    ),
    "tenant.not-connected": (
        N_("The site is not connected to a tenant: tokens of devices cannot be checked."),
        N_("Connect it with the Azure services wizard."),
    ),
    "tenant.no-server-app": (
        N_("The connection to the tenant has no server app yet."),
        N_("Create or import the server app in the Azure services wizard."),
    ),
    "tenant.secret-expired": (
        N_("The secret of the server app expired on %(day)s: the site cannot ask the tenant."),
        N_("Renew the secret key of the tenant."),
    ),
    "tenant.secret-ends": (
        N_("The secret of the server app expires on %(day)s."),
        N_("Renew the secret key of the tenant."),
    ),
    "tenant.fails": (
        N_("The tenant does not do what the site needs: %(said)s"),
        N_("%(cure)s"),
    ),
    "dns-inside.no-record": (
        N_("The internal DNS has no record for %(name)s: devices at home do not find the gateway."),
        N_("Add to your internal DNS: %(record)s"),
    ),
    "dns-inside.elsewhere": (
        N_("The internal DNS leads %(name)s to %(target)s, and not to this gateway."),
        N_("Change it in your internal DNS to: %(record)s"),
    ),
    "dns-inside.no-address": (
        N_("The internal DNS has no address for the deployment name %(deployment)s."),
        N_("Add A records for it there with the addresses of the instances: %(addresses)s."),
    ),
    "dns-inside.no-answer": (
        N_("The internal DNS does not answer."),
        N_("Check the network and the resolver in the site's settings."),
    ),
    "server-crl.unreachable": (
        N_(
            "The revocation list of the gateway's certificate cannot be fetched: devices that look for it refuse the gateway. %(said)s"
        ),
        N_("Publish the list where the certificate says, reachable from the internet."),
    ),
    "server-crl.no-web": (
        N_(
            "The gateway's certificate names a revocation list that is not on the web: devices outside cannot fetch it."
        ),
        N_("Let the authority publish its list by HTTP, too, and get a new certificate from it."),
    ),
    "server-crl.wrong": (
        N_("What lies at %(url)s is not the list of the gateway's authority."),
        N_("Publish this authority's list there."),
    ),
    "server-crl.expired": (
        N_(
            "The revocation list of the gateway's certificate expired on %(day)s (%(url)s): devices that look for it refuse the gateway."
        ),
        N_("Let the authority publish a new list."),
    ),
    "server-crl.revoked": (
        N_(
            "The gateway's certificate, or its authority's, is revoked (%(url)s): devices refuse it."
        ),
        N_("Get a new certificate with the same name, and replace it in the gateway's properties."),
    ),
    "crl.missing": (
        N_("The revocation list of %(authority)s is missing: its clients are refused."),
        N_(
            "Upload this authority's newest list (`tandem management-point add-crl`), or switch the check off in the gateway's properties."
        ),
    ),
    "crl.expired": (
        N_("The revocation list of %(authority)s expired on %(day)s: its clients are refused."),
        N_(
            "Upload this authority's newest list (`tandem management-point add-crl`), or switch the check off in the gateway's properties."
        ),
    ),
    "crl.expires": (
        N_(
            "The revocation list of %(authority)s expires on %(day)s: its clients are refused then."
        ),
        N_("Upload this authority's newest list (`tandem management-point add-crl`)."),
    ),
    "identity.token": (
        N_("This token does not count for the site. %(said)s"),
        N_("Sign in with an account of the connected tenant, and take a new token for the site."),
    ),
    "identity.unknown": (
        N_("Whether this token counts could not be found out. %(said)s"),
        N_("%(cure)s"),
    ),
    "identity.certificate": (
        N_("This certificate does not speak for a client. %(said)s"),
        N_("%(cure)s"),
    ),
    "identity.certificate-revoked": (
        N_("This client certificate is revoked. %(said)s"),
        N_("Give the device a new certificate."),
    ),
    "identity.certificate-expired": (
        N_("This client certificate is not valid now. %(said)s"),
        N_("Renew it; check that the clock of the device is right."),
    ),
    "identity.certificate-unknown": (
        N_("This client certificate is not of an authority that the site trusts. %(said)s"),
        N_("Upload that authority's certificate, and those above it (trusted root certificates)."),
    ),
    "probe.no-connection": (
        N_("The instance takes no connection at %(address)s. %(said)s"),
        N_("Look whether it runs, and whether a firewall is between the site and it."),
    ),
    "probe.no-tls": (
        N_("What answers at %(address)s does not speak TLS as a gateway does. %(said)s"),
        N_("Look whether something else listens there; read gateway-%(number)s.jsonl."),
    ),
    "probe.certificate-expired": (
        N_("%(address)s shows a certificate that has expired: no device accepts it."),
        N_("Replace the certificate in the gateway's properties; when that was done, synchronise."),
    ),
    "probe.certificate-early": (
        N_("%(address)s shows a certificate that is not valid yet."),
        N_("Check the clocks of the instance's host, of the site and of the authority."),
    ),
    "probe.certificate-unknown": (
        N_(
            "%(address)s shows a certificate of an authority that the gateway's own is not of, or leaves out what is between: devices do not trust it. %(said)s"
        ),
        N_(
            "Synchronise the configuration. If it stays so, something between decrypts the traffic."
        ),
    ),
    "probe.certificate-name": (
        N_("%(address)s shows a certificate that is not for %(name)s. %(said)s"),
        N_(
            "Look whether the address is another service's; else replace the gateway's certificate by one for this name."
        ),
    ),
    "probe.other-certificate": (
        N_("%(address)s shows another certificate than the gateway's own."),
        N_(
            "Synchronise the configuration. If it stays so, something between decrypts the traffic."
        ),
    ),
    "probe.older-rules": (
        N_("The instance has version %(has)s of the configuration, and the site is at %(wanted)s."),
        N_("Wait for some seconds, then synchronise. It comes by the tunnels: look at those."),
    ),
    "probe.tenant-unknown": (
        N_("The gateway does not know the tenant yet, so devices learn nothing from it."),
        N_("Synchronise the configuration, and look at the tunnels."),
    ),
    "probe.not-published": (
        N_("The gateway does not publish the management point (%(said)s)."),
        N_("Allow gateway traffic, then synchronise the configuration."),
    ),
    "probe.not-believed": (
        N_("The gateway or the management point does not believe this identity (%(said)s)."),
        N_(
            "Sign in with an account of the connected tenant, or take a client certificate of a trusted authority."
        ),
    ),
    "probe.token-refused": (
        N_("The gateway does not believe this token (%(said)s)."),
        N_("Take a new token for the site, of an account of the connected tenant."),
    ),
    "probe.certificate-refused": (
        N_(
            "The instance ends TLS with this client certificate: it is not of an uploaded authority, not valid now or not for clients. %(said)s"
        ),
        N_(
            "Give the device another certificate, or upload its authority's (trusted root certificates)."
        ),
    ),
    "probe.revoked": (
        N_("The gateway refuses this client certificate as revoked (%(said)s)."),
        N_("Give the device a new certificate."),
    ),
    "probe.no-list": (
        N_(
            "The gateway cannot check this client certificate: a revocation list is missing or has expired (%(said)s)."
        ),
        N_("Upload the authority's newest list (`tandem management-point add-crl`)."),
    ),
    "probe.no-point": (
        N_("The gateway has no connection point for this request (%(said)s)."),
        N_("Look whether the connection point runs and holds its tunnels."),
    ),
    "probe.management-point": (
        N_("The connection point does not reach the management point (%(said)s)."),
        N_("Look whether the site's listener of the management point answers inside."),
    ),
    "probe.management-point-untrusted": (
        N_("The connection point does not trust the management point's certificate (%(said)s)."),
        N_("Give the connection point the site's root: site_root in connector.toml."),
    ),
    "probe.unexpected": (
        N_("The answer is not what was expected (%(said)s)."),
        N_("Read CMGService.log of the gateway and SMS_Cloud_ProxyConnector.log."),
    ),
}

CHECKS: dict[str, tuple[str, str]] = {
    "service": (
        N_("State of the gateway"),
        N_("The site provisioned the gateway and its state is Ready."),
    ),
    "certificate": (
        N_("Certificate of the gateway"),
        N_("The certificate that the site has for it is valid now, and for some time."),
    ),
    "server-crl": (
        N_("Revocation list of that certificate"),
        N_(
            "Devices look there whether the gateway's certificate is revoked: the list can be fetched and is fresh."
        ),
    ),
    "identity": (
        N_("Who asks"),
        N_("The token or the client certificate counts by the site's own rules."),
    ),
    "crl": (
        N_("Revocation lists of clients"),
        N_("Each authority of clients' certificates has a list that is not over."),
    ),
    "dns": (
        N_("Public name"),
        N_("The service name is an alias of the deployment name, which has an address."),
    ),
    "dns-internal": (
        N_("Name inside"),
        N_("The internal DNS leads to the gateway, too."),
    ),
    "instance": (
        N_("Instance answers"),
        N_("The site opens a connection to the instance, as a device does."),
    ),
    "tls": (
        N_("Certificate that is shown"),
        N_("The instance shows the gateway's certificate with all that is above it, for its name."),
    ),
    "configuration": (
        N_("Rules of the instance"),
        N_("The instance has the configuration that the site has now."),
    ),
    "tenant": (
        N_("Tenant is known"),
        N_("The gateway answers which tenant and app a device signs in with."),
    ),
    "channel": (
        N_("Channel of the connection point"),
        N_("A connection point holds a tunnel to the instance and reports."),
    ),
    "management-point": (
        N_("Management point through the gateway"),
        N_(
            "A request for the list of management points goes through gateway and connection point."
        ),
    ),
    "authority": (
        N_("Site reaches the tenant"),
        N_("The site gets a token with its server app and reads the tenant."),
    ),
}

ENDS = {
    "device": N_("Device"),
    "dns": N_("Public name %(name)s"),
    "gateway": N_("Gateway %(name)s"),
    "instance": N_("Instance %(name)s"),
    "connection-point": N_("Connection point %(name)s"),
    "management-point": N_("Management point"),
    "admin-service": N_("AdminService"),
    "site": N_("Site"),
    "tenant": N_("Tenant %(name)s"),
}
# What a hop inside the site leads to.
INSIDE = frozenset({"site", "management-point", "admin-service", "tenant"})
STATES = {
    "good": N_("Working"),
    "waiting": N_("Waiting"),
    "bad": N_("Broken"),
    "skipped": N_("Not tried"),
}
# What the site says of a gateway, and the look of it.
GATEWAY_STATES = {
    "Provisioning": (N_("Provisioning"), "waiting"),
    "Starting": (N_("Starting"), "waiting"),
    "Ready": (N_("Ready"), "good"),
    "Failed": (N_("Failed"), "bad"),
    "Stopped": (N_("Stopped"), "bad"),
    "Deleting": (N_("Being deleted"), "waiting"),
}
INSTANCE_STATES = {
    "running": (N_("Running"), "good"),
    "starting": (N_("Starting"), "waiting"),
    "failed": (N_("Failed"), "bad"),
    "stopped": (N_("Stopped"), "plain"),
}
LEVELS = {
    "off": (N_("Not watched"), "plain"),
    "good": (N_("Below the warning"), "good"),
    "warning": (N_("Warning"), "waiting"),
    "critical": (N_("Critical"), "bad"),
}
# What may be wrong with the revocation list of an authority of clients, and how bad that is.
ALARMS = {
    "CMGService_Crl_Missing": (
        N_("The revocation list of %(authority)s is missing: its clients are refused."),
        "bad",
    ),
    "CMGService_Crl_Expired": (
        N_("The revocation list of %(authority)s has expired: its clients are refused."),
        "bad",
    ),
    "CMGService_Crl_Expires": (
        N_("The revocation list of %(authority)s expires soon: its clients are refused then."),
        "waiting",
    ),
}
ALARM_CURE = N_(
    "Upload this authority's newest list under Settings, or switch the check off there."
)
ROLES = {
    "site": N_("Site server"),
    "management-point": N_("Management point"),
    "distribution-point": N_("Distribution point"),
    "connection-point": N_("Connection point"),
    "gateway": N_("Gateway"),
    "admin-service": N_("AdminService"),
    "software-update-point": N_("Software update point"),
}
# What a gateway counts besides published endpoints.
COUNTED = {
    "refused": N_("Refused by the gateway"),
    "edge": N_("Answered by the gateway"),
    "content": N_("Content"),
    "other": N_("Other"),
}
PEERS = {
    "administrators": N_("Administrators and their scripts"),
    "connection-points": N_("Connection points"),
    "operators": N_("Operators of the server, and their monitoring"),
    "devices": N_("Devices on the internet"),
    "site": N_("The site server"),
    "tenant": N_("The tenant"),
    "gateway": N_("The gateway"),
}
PURPOSES = {
    "console": N_("Console, admin API and AdminService"),
    "management": N_("Management traffic of clients"),
    "health": N_("Health and metrics"),
    "tunnel": N_("Tunnels, held open from inside"),
    "tokens": N_("Sign-in and tokens"),
    "graph": N_("Graph: directory and MDM service"),
}


def at(value: object) -> datetime | None:
    """A time of the API's JSON."""
    return datetime.fromisoformat(str(value)) if value else None


def alarm(page: Page[Any], found: Mapping[str, Any]) -> dict[str, Any]:
    """An alarm of the API in the reader's language, under the name that logs have, too."""
    text, look = ALARMS.get(found["name"], (found["text"], "bad"))
    return {
        "name": found["name"],
        "text": page.language.text(text, authority=found["authority"]),
        "look": look,
        "at": at(found["at"]),
    }


def end(page: Page[Any], of: Mapping[str, str]) -> str:
    text = page.language.text(ENDS.get(of["kind"], "%(name)s"), name=of["name"] or "–")
    return text if of["name"] or "%(" not in ENDS.get(of["kind"], "") else text.rstrip(" –")


def hop(page: Page[Any], found: Mapping[str, Any]) -> dict[str, Any]:
    """A hop or a check of the API in the reader's language."""
    text, cure = CAUSES.get(found["cause"], (found["text"], found["cure"]))
    values = {key: str(value) for key, value in found["values"].items()}
    say = page.language.text
    name, about = CHECKS.get(found["check"], ("", ""))
    return {
        "id": found["id"],
        "gateway": found["gateway"],
        "kind": found["target"]["kind"],
        "source": end(page, found["source"]),
        "target": end(page, found["target"]),
        "target_name": found["target"]["name"],
        "source_name": found["source"]["name"],
        "state": found["state"],
        "since": found["since"],
        "text": say(text, **values) if found["cause"] else "",
        "cure": say(cure, **values) if found["cause"] else "",
        "name": say(name) if name else "",
        "about": say(about) if about else "",
    }
