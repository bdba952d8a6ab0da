"""The tutorial as a list of steps, each with where it stands, and the story of what was done.

Texts are templates with their values beside them, so that a console can say them in another
language; `text` is the English sentence.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum
from typing import Any


class State(Enum):
    DONE = "done"
    PARTLY = "partly"
    NOT_YET = "not-yet"
    UNKNOWN = "unknown"  # It cannot be known from here; the finding says why.
    NOT_IN_THIS_VERSION = "not-in-this-version"


@dataclass(frozen=True, slots=True)
class Said:
    """A sentence: `message` filled in with `values`."""

    message: str
    values: Mapping[str, Any] = field(default_factory=dict)

    @property
    def text(self) -> str:
        return self.message % self.values if self.values else self.message


@dataclass(frozen=True, slots=True)
class Finding:
    state: State
    said: Said


@dataclass(frozen=True, slots=True)
class Do:
    """What can be done for an administrator without a secret: the request of the admin API."""

    method: str
    path: str
    body: Mapping[str, Any]
    says: str  # What the button says.
    warns: str  # What will happen.


@dataclass(frozen=True, slots=True)
class Step:
    """One step of the tutorial. `command` does the same; `where` is the authority that it is at."""

    id: str
    title: str
    why: str
    where: str  # "site", "tenant" or "dns"
    command: str
    do: Do | None = None

    @property
    def part(self) -> str:
        return self.id.partition(".")[0]


@dataclass(frozen=True, slots=True)
class Standing:
    """A step with where it stands now. `do` is set when it can be done from here, now."""

    step: Step
    finding: Finding
    do: Do | None = None


@dataclass(frozen=True, slots=True)
class Happened:
    """A line of the story. `count` is of devices; `until` is when the last of them did it."""

    at: datetime
    who: str
    said: Said
    action: str = ""
    target: str = ""
    count: int = 0
    until: datetime | None = None


PARTS = {
    "0": "Prerequisites",
    "1": "A public certificate for the gateway",
    "2": "Connect the site to the tenant",
    "3": "Create the gateway",
    "4": "Let clients use it",
    "5": "Enable co-management",
    "6": "The MDM service installs the site's client",
    "7": "Afterwards",
}

# The four of the tutorial's step 4.3.
TUTORIAL_SETTINGS = (
    "auto_register_with_azure_ad",
    "allow_cloud_distribution_point",
    "enable_cloud_management_gateway",
    "enable_user_policy_from_internet",
)

STEPS = {
    step.id: step
    for step in (
        Step(
            "0.1",
            "Tenant, users, groups and products",
            "Everything else is assigned to these users and groups, and a device enrols only for a"
            " user who has a licence.",
            "tenant",
            "tandem license list",
        ),
        Step(
            "0.2",
            "MDM authority and automatic enrolment",
            "A device of a user in scope is offered the MDM service when it joins; nobody else's is.",
            "tenant",
            "tandem mdm-authority set",
        ),
        Step(
            "0.3",
            "Enhanced HTTP",
            "With certificates of the site's own making, its site systems answer HTTPS and accept"
            " tokens.",
            "site",
            "tandem site show",
        ),
        Step(
            "1.1",
            "A unique service name",
            "Clients know the gateway by this name for good, so it is checked before anything is made.",
            "site",
            "tandem gateway check-name mycmg.contoso.com",
        ),
        Step(
            "1.2",
            "Certificate request on the site server",
            "The key is made where it stays; only the request travels to the public authority.",
            "site",
            "tandem certificate request mycmg.contoso.com --output mycmg.csr",
        ),
        Step(
            "1.3",
            "The public authority's certificate, imported",
            "Clients on the internet trust the gateway by the authority that certified its name.",
            "site",
            "tandem certificate import mycmg.pem",
        ),
        Step(
            "1.4",
            "Export as PFX",
            "The gateway gets certificate, key and path in one file, under a password.",
            "site",
            "tandem certificate export mycmg.contoso.com --output mycmg.pfx --password-file FILE",
        ),
        Step(
            "2.1",
            "Azure Services: Cloud Management",
            "The site keeps under this name what connects it to the tenant.",
            "site",
            'tandem azure-service create "Contoso Cloud Management"',
        ),
        Step(
            "2.2",
            "Server app",
            "The site speaks to the tenant as this application, with a secret that ends.",
            "site",
            "tandem azure-service app create server --tenant-admin UPN",
        ),
        Step(
            "2.3",
            "Native client app",
            "Devices ask for tokens for the site with this application, which has no secret.",
            "site",
            "tandem azure-service app create client --tenant-admin UPN",
        ),
        Step(
            "2.4",
            "Enable user discovery",
            "Users of the tenant become users of the site, so that policy can be theirs.",
            "site",
            "tandem discovery enable",
            Do(
                "PUT",
                "/api/v1/azure-services/-/discovery",
                {"enabled": True},
                "Enable discovery",
                "The site will read the tenant's users with its own application.",
            ),
        ),
        Step(
            "2.5",
            "Admin consent",
            "An application may read a directory only after an administrator of it has said so.",
            "tenant",
            "tandem app-registration consent APP",
        ),
        Step(
            "2.6",
            "Full discovery now",
            "It shows that connection, secret and consent work together.",
            "site",
            "tandem discovery run",
            Do(
                "POST",
                "/api/v1/discovery/runs",
                {},
                "Run discovery now",
                "All users of the tenant are read once; nothing in the tenant changes.",
            ),
        ),
        Step(
            "3.1",
            "Create the gateway",
            "It stands on the internet in the site's place, and knows no secret of a device.",
            "site",
            "tandem gateway create --pfx mycmg.pfx --password-file FILE --tenant-admin UPN",
        ),
        Step(
            "3.2",
            "CNAME from the service name to the deployment",
            "Clients ask the public DNS for the service name; it must lead to the gateway.",
            "dns",
            "tandem gateway check-dns",
        ),
        Step(
            "4.1",
            "Connection point",
            "It dials out to every instance of the gateway, so that nothing has to dial in.",
            "site",
            "tandem connection-point add CP01",
        ),
        Step(
            "4.2",
            "Allow gateway traffic",
            "Only what the management point publishes can be reached through the gateway.",
            "site",
            "tandem management-point set --allow-gateway-traffic",
            Do(
                "PATCH",
                "/api/v1/management-point",
                {"allow_gateway_traffic": True},
                "Allow gateway traffic",
                "The management point's client endpoints are published on the gateway, and nothing"
                " else is.",
            ),
        ),
        Step(
            "4.3",
            "Default client settings",
            "These four let a client register, use the gateway, load from it, and get user policy"
            " from the internet.",
            "site",
            "tandem client-settings set " + " ".join(f"{name}=yes" for name in TUTORIAL_SETTINGS),
            Do(
                "PATCH",
                "/api/v1/client-settings",
                dict.fromkeys(TUTORIAL_SETTINGS, True),
                "Set the four settings",
                "They hold for every device of the site, from its next policy on.",
            ),
        ),
        Step(
            "5.1",
            "Enable co-management",
            "From here on the site's clients get a co-management policy, and the MDM service's"
            " devices the command line that makes them clients.",
            "site",
            "tandem comanagement enable --automatic-enrollment pilot --collection NAME",
        ),
        Step(
            "5.2",
            "Workloads",
            "Each workload has one owner; nothing need be switched on the first day.",
            "site",
            "tandem comanagement workloads",
        ),
        Step(
            "5.3",
            "Production and pilot policies",
            "What was set reaches clients as policies that are deployed to collections.",
            "site",
            "tandem comanagement policies",
        ),
        Step(
            "6.1",
            "The client as a line-of-business app",
            "A device on the internet gets the site's client from the MDM service, with the command"
            " line that leads it to the gateway.",
            "tenant",
            "tandem app upload ccmsetup.msi",
        ),
        Step(
            "6.2",
            "Assign it",
            "Only members of the included groups get the client, minus the excluded ones.",
            "tenant",
            "tandem app assign APP --required --include GROUP",
        ),
        Step(
            "6.3",
            "Licences",
            "Without a licence a user's device cannot enrol.",
            "tenant",
            "tandem license assign SUITE --group GROUP",
        ),
        Step(
            "6.4",
            "Devices become co-managed",
            "Each device enrols, installs the client, registers through the gateway and gets policy.",
            "site",
            "tandem comanagement status",
        ),
        Step(
            "7.1",
            "The co-management dashboard",
            "Both authorities' accounts of the fleet have to agree.",
            "site",
            "tandem comanagement dashboard",
        ),
        Step(
            "7.2",
            "Switch a workload",
            "A pilot shows what happens on a few devices; then all follow, and there is a way back.",
            "site",
            "tandem comanagement switch windows-update pilot --collection NAME",
        ),
        Step(
            "7.3",
            "Autopilot and conditional access",
            "A new device would go straight into co-management, and only a compliant one would be"
            " let in.",
            "tenant",
            "",
        ),
    )
}
