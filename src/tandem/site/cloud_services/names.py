"""Whether the public name of a gateway leads to it, as devices and the inside see it (F4, spec 2.1).

An organisation often has two answers to one name: the zone that the world sees, and one of the same
name inside. Each is asked apart, and where they differ it is said: a device finds the gateway at home
and not on the way, or the other way round, and nobody who looks from one place sees why.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from tandem.infra.net import DnsUnavailable, Resolver


@dataclass(frozen=True, slots=True)
class NameView:
    """What one DNS server says of a gateway's name. `code` is empty when devices find it."""

    view: str  # public, internal, or dns when there is one server for both
    server: str
    code: str = ""  # dns.no-record, dns.elsewhere, dns.no-address, dns.no-answer
    target: str = ""  # Of its CNAME.
    addresses: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        return not self.code


async def look_up(
    resolver: Resolver, view: str, name: str, deployment: str, hosts: Sequence[str]
) -> NameView:
    """A CNAME that names the deployment, or addresses that are those of the instances."""
    server = resolver.server or ""
    try:
        target = await resolver.cname(name)
        where = target or name
        addresses = (*await resolver.lookup(where), *await resolver.lookup6(where))
    except DnsUnavailable:
        return NameView(view, server, "dns.no-answer")
    found = NameView(view, server, "", target or "", tuple(sorted(addresses)))
    if target is None and not addresses:
        return NameView(view, server, "dns.no-record")
    if target is not None and target != deployment:
        code = "dns.elsewhere"
    elif not addresses:
        code = "dns.no-address"
    elif target is None and not set(addresses) <= set(hosts):
        code = "dns.elsewhere"
    else:
        return found
    return NameView(view, server, code, found.target, found.addresses)


@dataclass(frozen=True, slots=True)
class NameReport:
    """Every view of a name, the records that it needs, and what is wrong, in a sentence."""

    service_name: str
    deployment_name: str
    record: str
    address_record: str
    views: list[NameView] = field(default_factory=list)
    split_brain: bool = False
    problem: str = ""
    cure: str = ""

    @property
    def ok(self) -> bool:
        return not self.problem


_PLACES = {
    "public": ("Public DNS", "your public DNS"),
    "internal": ("The internal DNS", "your internal DNS"),
    "dns": ("DNS", "your public DNS"),
}


def report(
    name: str, deployment: str, hosts: Sequence[str], views: Sequence[NameView]
) -> NameReport:
    """`views` may hold one that did not answer: of that nothing is said but this."""
    record = f"{name}. CNAME {deployment}."
    addresses = ", ".join(hosts) or "with the addresses of its instances"
    kind = "AAAA" if hosts and all(":" in host for host in hosts) else "A"
    address_record = f"{deployment}. {kind} {addresses}"
    split = len({(view.target, view.addresses) for view in views}) > 1
    problem, cure = "", ""
    for view in views:
        who, where = _PLACES[view.view]
        if view.ok:
            continue
        if view.code == "dns.no-answer":
            problem = f"{who} does not answer ({view.server})."
            cure = "Check the network and the resolver in the settings, then try again."
        elif view.code == "dns.no-record":
            problem = f"{who} has no CNAME record for {name}."
            cure = f"Add to {where}: {record}"
        elif view.code == "dns.no-address":
            problem = f"The deployment name {deployment} has no address in DNS."
            cure = f"Add to {where}: {address_record}."
        elif view.target:
            problem = f"The CNAME of {name} leads to {view.target}."
            cure = f"Change it in {where} to: {record}"
        else:
            problem = (
                f"{name} has the address {', '.join(view.addresses)} in {where}, where no instance"
                " of the gateway is."
            )
            cure = f"Change it in {where} to: {record}"
        break
    if split and problem:
        problem += " Inside and outside give different answers (split-brain DNS)."
    return NameReport(name, deployment, record, address_record, list(views), split, problem, cure)
