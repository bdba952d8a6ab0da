"""Where everything of a lab lives: addresses, ports, names, people, timers.

On-premises is 127.0.0.1, the internet is the other loopback addresses: the tenant on 127.0.0.2, the
gateway's instances from 127.0.0.11 on. What listens on-premises listens there only, which a test
looks at. Ports are chosen free once and kept in the lab's folder, so a second start finds the
devices' addresses unchanged.
"""

import secrets
from pathlib import Path
from socket import SOCK_DGRAM, SOCK_STREAM, socket

import msgspec

from tandem.infra.secrets import write_private

ON_PREMISES = "127.0.0.1"
INTERNET = "127.0.0.2"
FIRST_INSTANCE = 11
DOMAIN = "contoso.com"
PREFIX = "mycmg"
SERVICE_NAME = f"{PREFIX}.{DOMAIN}"
SITE_CODE = "CM1"
INSTANCES = 2
CONNECTION_POINTS = ("CP01", "CP02")
# Below what Linux gives to outgoing connections (ip_local_port_range): an instance that starts later
# must not find its port taken by one.
_LOWEST_PORT, _HIGHEST_PORT = 10_000, 32_000
DEPLOYMENT_DOMAIN = f"cloudapp.{DOMAIN}"


class Person(msgspec.Struct, frozen=True):
    """Someone of Contoso. `device` is empty for people without a laptop in the lab."""

    upn: str
    name: str
    password: str
    licensed: bool = True
    in_scope: bool = True
    groups: list[str] = []
    device: str = ""
    located: bool = True  # Has a usage location, without which no licence can be assigned.
    early: bool = True  # Enrolled and licensed before step 1, or after 6.3.


class Ports(msgspec.Struct, frozen=True):
    tenant: int
    management: int
    tenant_health: int
    site: int
    management_point: int
    site_health: int
    dns: int
    dns_control: int
    ca: int
    connector_health: int
    gateway: int
    tunnel: int
    gateway_health: int


class Topology(msgspec.Struct, frozen=True):
    ports: Ports
    instances: int
    admin: Person
    site_admin: Person
    people: list[Person]

    @property
    def tenant_url(self) -> str:
        return f"https://{INTERNET}:{self.ports.tenant}"

    @property
    def management_url(self) -> str:
        return f"https://{INTERNET}:{self.ports.management}/ManagementServer/MDM.svc"

    @property
    def site_url(self) -> str:
        return f"https://localhost:{self.ports.site}"

    @property
    def management_point_url(self) -> str:
        return f"https://localhost:{self.ports.management_point}"

    @property
    def resolver(self) -> str:
        return f"{ON_PREMISES}:{self.ports.dns}"


class Timers(msgspec.Struct, frozen=True):
    """How long the lab's minutes are, in seconds. `real` is one for one.

    Every interval of the products stays what it is in the settings, in the field's units; the lab
    makes the devices' minutes shorter and says so.
    """

    cadence: str
    mdm_minute_seconds: float
    client_minute_seconds: float
    gateway_check_seconds: float
    connection_report_seconds: float

    @classmethod
    def of(cls, cadence: str) -> "Timers":
        if cadence == "real":
            return cls(cadence, 60.0, 60.0, 60.0, 60.0)
        return cls("lab", 0.5, 0.05, 2.0, 5.0)


PILOT, SCOPE, EXCLUDED, LICENSED = "Pilot users", "MDM users", "Excluded users", "Licensed users"


def people(devices: int) -> list[Person]:
    """One person a device, and the three whose devices must be refused."""
    half = devices // 2
    found = []
    for number in range(1, devices + 1):
        early = number <= half or devices == 1
        groups = [PILOT, SCOPE] if early else [PILOT, SCOPE, LICENSED]
        found.append(_person(f"user{number:02}", f"LAB-{number:03}", groups, early=early))
    found.append(_person("noscope", "LAB-NOSCOPE", [PILOT, LICENSED], in_scope=False, early=False))
    found.append(_person("nolicence", "LAB-NOLICENCE", [PILOT, SCOPE], licensed=False, early=False))
    found.append(
        _person("excluded", "LAB-EXCLUDED", [PILOT, SCOPE, LICENSED, EXCLUDED], early=False)
    )
    found.append(_person("office1", "", [LICENSED], in_scope=False, early=False))
    office2 = _person("office2", "", [LICENSED], licensed=False, in_scope=False, early=False)
    found.append(msgspec.structs.replace(office2, located=False))
    return found


def _person(
    login: str,
    device: str,
    groups: list[str],
    *,
    licensed: bool = True,
    in_scope: bool = True,
    early: bool,
) -> Person:
    return Person(
        f"{login}@{DOMAIN}",
        f"{login.capitalize()} Contoso",
        _password(),
        licensed,
        in_scope,
        groups,
        device,
        early=early,
    )


def _password() -> str:
    return f"Lab-{secrets.token_urlsafe(12)}"


def load(folder: Path, devices: int, instances: int) -> Topology:
    """The lab's topology from its folder, made at the first start."""
    file = folder / "topology.json"
    if file.exists():
        return msgspec.json.decode(file.read_bytes(), type=Topology)
    made = Topology(
        _ports(instances),
        instances,
        Person(f"admin@{DOMAIN}", "Global Administrator", _password()),
        Person("siteadmin", "Site Administrator", _password()),
        people(devices),
    )
    write_private(file, msgspec.json.encode(made))
    return made


def gateway_hosts(count: int) -> list[str]:
    return [f"127.0.0.{FIRST_INSTANCE + number}" for number in range(count)]


def _ports(count: int) -> Ports:
    taken: set[int] = set()

    def free(*hosts: str, count: int = 1, kind: int = SOCK_STREAM) -> int:
        while True:
            first = _LOWEST_PORT + secrets.randbelow(_HIGHEST_PORT - _LOWEST_PORT - count)
            wanted = range(first, first + count)
            if taken.isdisjoint(wanted) and _free(hosts, wanted, kind):
                taken.update(wanted)
                return first

    instances = gateway_hosts(count)
    return Ports(
        tenant=free(INTERNET),
        management=free(INTERNET),
        tenant_health=free(ON_PREMISES),
        site=free(ON_PREMISES),
        management_point=free(ON_PREMISES),
        site_health=free(ON_PREMISES),
        dns=free(ON_PREMISES, kind=SOCK_DGRAM),
        dns_control=free(ON_PREMISES),
        ca=free(ON_PREMISES),
        connector_health=free(ON_PREMISES, count=len(CONNECTION_POINTS)),
        gateway=free(*instances),
        tunnel=free(*instances, count=16),
        gateway_health=free(ON_PREMISES, count=16),
    )


def _free(hosts: tuple[str, ...], ports: range, kind: int) -> bool:
    for host in hosts:
        for port in ports:
            with socket(type=kind) as probe:
                try:
                    probe.bind((host, port))
                except OSError:
                    return False
    return True
