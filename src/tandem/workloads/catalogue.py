"""What each workload covers and what moves here today: the one list that all others come from.

Names, bits and what a workload covers are the field's (comanagement, 3.1). Whether a type of policy
has an effect is this system's own account: of handlers that exist, not of what is planned.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from tandem.workloads.model import Workload

# Areas of settings that both authorities speak of, and that the agent turns into effects on Linux.
FILES, UNITS, APPS = "TandemFiles", "TandemUnits", "TandemApps"
FIREWALL = "TandemFirewall"

FLAG_ONLY = "Moves the flag only: no handler here changes a device for it."
EFFECTS = "Moves with effects on devices that run Linux."
ROLLS_BACK = "Its effects can be taken back: what was there before is kept."
STAYS = "Its effects do not roll back: switching back stops new ones, and leaves what is there."


@dataclass(frozen=True, slots=True)
class PolicyType:
    """A kind of policy. `site` and `mdm` say by what means each authority has its say, and are
    empty where it has none; `effect` is whether our agent changes or reads a device for it."""

    name: str
    title: str
    site: str = ""
    mdm: str = ""
    effect: bool = False
    rolls_back: bool = True
    remark: str = ""


@dataclass(frozen=True, slots=True)
class Entry:
    """A workload. `component` names the log of its agent, `feature` and `counter` what Graph calls
    it, `areas` the areas of the policy CSP that are not device configuration."""

    workload: Workload
    covers: str
    component: str
    feature: str
    counter: str
    areas: tuple[str, ...] = ()
    policies: tuple[PolicyType, ...] = ()
    rolls_back: bool = True

    @property
    def has_effect(self) -> bool:
        return any(policy.effect for policy in self.policies)

    @property
    def moves(self) -> str:
        """What a switch does here, in one sentence."""
        return EFFECTS if self.has_effect else FLAG_ONLY

    @property
    def back(self) -> str:
        """What a switch back does, in one sentence."""
        return ROLLS_BACK if self.rolls_back else STAYS


_SENT = "The MDM service sends its settings to Windows, or withholds them."


def _site(area: str) -> str:
    return f"Configurations that the site deploys, with the setting {area}/<name>."


def _mdm(area: str) -> str:
    return f"Custom settings under ./Device/Vendor/MSFT/Policy/Config/{area}/<name>."


_ENTRIES = (
    Entry(
        Workload.COMPLIANCE_POLICIES,
        "Evaluation of compliance, for conditional access.",
        "ComplRelayAgent",
        "compliancePolicy",
        "compliancePolicyCount",
        policies=(
            PolicyType(
                "compliance-facts",
                "Compliance facts: system version, disk encryption, firewall",
                "The client's state message brings them to the site.",
                "The MDM client answers them under ./Vendor/MSFT/DeviceStatus.",
                effect=True,
                remark="They go to the owner of the workload, and to nobody else.",
            ),
            PolicyType(
                "compliance-policies",
                "Compliance policies",
                mdm="The tenant keeps and assigns them; nothing evaluates them yet.",
                remark="The site has no compliance policies.",
            ),
        ),
    ),
    Entry(
        Workload.RESOURCE_ACCESS,
        "VPN, Wi-Fi, e-mail and certificate profiles.",
        "CIAgent",
        "resourceAccess",
        "resourceAccessCount",
        areas=("wifi",),
        policies=(
            PolicyType(
                "resource-access-profiles",
                "VPN, Wi-Fi and certificate profiles",
                mdm=_SENT,
                remark="The site has no such profiles, and Linux has no mapping for them.",
            ),
        ),
    ),
    Entry(
        Workload.DEVICE_CONFIGURATION,
        "Device profiles. Resource access and Endpoint Protection go along with it.",
        "DCMAgent",
        "deviceConfiguration",
        "configurationSettingsCount",
        policies=(
            PolicyType(
                "files",
                "Files: content, mode and owner",
                _site(FILES),
                _mdm(FILES),
                effect=True,
                remark="What was there before is kept, and put back when the file is withdrawn.",
            ),
            PolicyType(
                "units",
                "systemd units: enabled or disabled",
                _site(UNITS),
                _mdm(UNITS),
                effect=True,
                remark="By their links; a unit starts or stops with the next start of the system.",
            ),
            PolicyType(
                "firewall-rules",
                "Firewall rules: ports accepted and dropped",
                _site(FIREWALL),
                _mdm(FIREWALL),
                effect=True,
                remark="In a table of nftables of their own; what other tables drop stays dropped.",
            ),
            PolicyType(
                "device-profiles",
                "Device profiles and the settings catalogue",
                "Configurations that the site deploys, with the setting's name.",
                _SENT,
                remark="On Linux a value is kept with who set it, and nothing acts on it.",
            ),
        ),
    ),
    Entry(
        Workload.WINDOWS_UPDATE,
        "Update rings and deferrals.",
        "WUAHandler",
        "windowsUpdateForBusiness",
        "windowsUpdateForBusinessCount",
        areas=("update", "deliveryoptimization"),
        policies=(
            PolicyType(
                "software-updates",
                "Software updates of Debian packages",
                "Updates that are approved at the software update point, with a deadline.",
                effect=True,
                rolls_back=False,
                remark="What was installed stays installed. Windows has no mapping for them.",
            ),
            PolicyType(
                "update-rings",
                "Update rings and deferrals",
                mdm=_SENT,
                rolls_back=False,
                remark="What was installed stays installed. Linux has no mapping for them.",
            ),
        ),
        rolls_back=False,
    ),
    Entry(
        Workload.ENDPOINT_PROTECTION,
        "Antivirus, firewall and disk encryption.",
        "EndpointProtectionAgent",
        "endpointProtection",
        "endpointProtectionCount",
        areas=(
            "defender",
            "windowsdefendersecuritycenter",
            "deviceguard",
            "bitlocker",
            "smartscreen",
        ),
        policies=(
            PolicyType(
                "endpoint-protection",
                "Antivirus, firewall and disk encryption settings",
                mdm=_SENT,
                remark="Linux has no mapping for them; whether encryption and firewall are on is a"
                " compliance fact.",
            ),
        ),
    ),
    Entry(
        Workload.CLIENT_APPS,
        "Apps; only the owner of the workload installs them.",
        "AppIntentEval",
        "modernApps",
        "modernAppsCount",
        areas=("applicationmanagement", APPS.lower()),
        policies=(
            PolicyType(
                "linux-apps",
                "Packages and scripts with a detection rule",
                _site(APPS),
                _mdm(APPS),
                effect=True,
                remark="An app that is withdrawn is removed, where it says how.",
            ),
            PolicyType(
                "msi-apps",
                "MSI packages of the tenant",
                mdm="The MDM service orders or withholds them.",
                remark="Windows installs them. Linux has no mapping but for the client's own package.",
            ),
        ),
    ),
    Entry(
        Workload.OFFICE_CLICK_TO_RUN,
        "Microsoft 365 Apps and their updates.",
        "SettingsAgent",
        "officeApps",
        "officeAppsCount",
        areas=("officeclicktorun",),
        policies=(
            PolicyType(
                "office-updates",
                "Settings of Microsoft 365 Apps and their updates",
                mdm=_SENT,
                rolls_back=False,
                remark="What was installed stays installed. Linux has no mapping for them.",
            ),
        ),
        rolls_back=False,
    ),
)

CATALOGUE: Mapping[Workload, Entry] = {entry.workload: entry for entry in _ENTRIES}
_AREAS = {area: entry.workload for entry in _ENTRIES for area in entry.areas}


def workload_of_area(area: str) -> Workload:
    """Which workload an area of the policy CSP belongs to: unless another claims it, device
    configuration."""
    return _AREAS.get(area.lower(), Workload.DEVICE_CONFIGURATION)


_POLICY = "./device/vendor/msft/policy/config/"


def same_setting(setting: str) -> str:
    """What two names of one setting have in common: Area/Name and its node are the same."""
    folded = setting.strip().casefold().replace("./vendor/", "./device/vendor/", 1)
    return folded.removeprefix(_POLICY)
