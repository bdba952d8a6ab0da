"""The messages between agent and site."""

from datetime import datetime
from typing import Annotated, Any, Literal
from urllib.parse import quote, unquote

import msgspec

# Topics of state messages (spec 3.2). The last four are ours.
SETUP_TOPIC = 800
COMANAGEMENT_TOPIC = 810
FRAMEWORK_TOPIC = 1000
HEARTBEAT_TOPIC = 9001
INVENTORY_TOPIC = 9002
LEDGER_TOPIC = 9003
# Of COMANAGEMENT_TOPIC: the last word of a client that leaves. Ours.
LEFT = 120


# As the field writes it: a version, and a hash in hex.
HardwareId = Annotated[str, msgspec.Meta(pattern=r"^([0-9]:[0-9A-F]{40})?$")]


class AuthInfo(msgspec.Struct, frozen=True, rename="camel"):
    """What the gateway tells a device of a tenant that the site knows."""

    client_app_id: str
    resource_uri: str
    tenant_id: str
    authority: str = ""


class TokenRequest(msgspec.Struct, frozen=True):
    """`key` is the device's public JWK; `proof` shows that the sender of the token holds it.

    `certificate` is for a device without a token: its client certificate, base64 of DER. The proof is
    then over the SHA-256 of it in hex. `possession` is a proof, over the thumbprint of `key`, by
    another key that vouches for it: the certificate's, or the one that the client had before.
    """

    key: dict[str, str]
    proof: str
    certificate: str = ""
    possession: str = ""


class TokenReply(msgspec.Struct, frozen=True):
    """`kind`: "ccm", or "site" for the long-lived token of a client that no directory knows."""

    access_token: str
    expires_in: int
    kind: Literal["ccm", "site"] = "ccm"


class SiteSigningCertificate(msgspec.Struct, frozen=True):
    """Certificates in PEM: who signs for the site, and the root above."""

    site_code: str
    certificate: str
    root: str


class ManagementPoint(msgspec.Struct, frozen=True):
    """`host` is "service/CCM_Proxy_MutualAuth/id" for the internet, a URL for the intranet."""

    host: str
    kind: Literal["Internet", "Intranet"]
    version: str = ""


class ManagementPointList(msgspec.Struct, frozen=True):
    site_code: str
    management_points: list[ManagementPoint]


class ClientManifest(msgspec.Struct, frozen=True):
    """Which client the site wants installed. Signed."""

    site_code: str
    version: str
    file_name: str
    sha256: str
    size_bytes: int


class RegistrationRequest(msgspec.Struct, frozen=True):
    site_code: str
    name: str
    key: dict[str, str]
    client_version: str
    os_version: str = ""
    os_name: str = "Windows"
    # The client id this device had before, when it registers again.
    client_id: str = ""
    # What the machine says it is, whatever is on its disk; empty where it does not say.
    hardware_id: HardwareId = ""


class RegistrationReply(msgspec.Struct, frozen=True, omit_defaults=True):
    """`token` is the site's own token for a client that no directory knows; good for `expires_in`
    seconds, and to be renewed after a third of them."""

    client_id: str
    approval: int
    site_code: str
    token: str = ""
    expires_in: int = 0


class ConfigurationPolicy(msgspec.Struct, frozen=True):
    """One co-management policy as it reaches a client; a client merges all that it has."""

    id: str
    name: str
    version: int
    kind: Literal["production", "pilot"]
    allow: bool
    auto_enroll: bool
    capabilities: int
    # Clients that are to enrol draw a moment within these minutes.
    spread_minutes: int = 0


class Configuration(msgspec.Struct, frozen=True):
    """A setting that the site deploys. It is applied while the site owns its workload."""

    id: str
    workload: str
    setting: str
    value: str


class ClientSettings(msgspec.Struct, frozen=True):
    """The client settings that our client acts on, by the names they have in policy."""

    allow_cloud_distribution_point: bool = False
    auto_register_with_azure_ad: bool = True
    enable_cloud_management_gateway: bool = True
    policy_polling_minutes: int = 60
    enable_user_policy: bool = True
    enable_user_policy_from_internet: bool = False
    enable_hardware_inventory: bool = True
    hardware_inventory_minutes: int = 1440
    state_reporting_minutes: int = 15


class PolicyContent(msgspec.Struct, frozen=True):
    """What the site wants of one client, before it becomes a signed document. `settings_by` are the
    collections by which its settings are not the default ones: the document does not say them."""

    settings: dict[str, Any] = {}
    settings_by: list[str] = []
    configuration_policies: list[ConfigurationPolicy] = []
    configurations: list[Configuration] = []
    # An order to enrol with the MDM service now; a client takes each once.
    enroll_now: str = ""
    leave: bool = False


class Policy(msgspec.Struct, frozen=True):
    """The policy document. Signed, for one client, and of no use after `expires_at`."""

    client_id: str
    site_code: str
    version: int
    issued_at: datetime
    expires_at: datetime
    settings: dict[str, Any]
    configuration_policies: list[ConfigurationPolicy]
    configurations: list[Configuration]
    # Empty for the policy of the device; the user's object id for the policy of a user on it.
    user: str = ""
    enroll_now: str = ""
    # More configurations, as a JWE for the device's key (`hide`).
    hidden: str = ""
    # What this version follows; the device repeats it in its reports.
    trace: str = ""
    # The client is to leave: what the site set goes, then the client itself.
    leave: bool = False


class Message(msgspec.Struct, frozen=True):
    """One thing a client reports. `id` is chosen once and kept over every attempt to send it."""

    id: Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
    topic: Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1)]
    state: Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1)]
    at: Annotated[datetime, msgspec.Meta(tz=True)]
    data: dict[str, Any] = {}


class IncomingRequest(msgspec.Struct, frozen=True):
    """`sequence` is higher each time; it and `hardware_id` show that two machines use one identity,
    or that a disk was put back. A client without them says 0 and nothing."""

    messages: list[Message]
    sequence: Annotated[int, msgspec.Meta(ge=0, le=2**53)] = 0
    hardware_id: HardwareId = ""


class IncomingReply(msgspec.Struct, frozen=True, omit_defaults=True):
    """`ledger_next`: where a message brought a part of the device's ledger, the number of the entry
    that the site wants next; lower than what was sent when the site lacks what comes before.
    `sequence`: the highest that the site has seen; the client goes on above it. `resync`: the site
    wants the whole inventory. `new_identity`: this machine has the identity of another one, and is
    to register with a key of its own once it has said all it has to say."""

    accepted: list[str]
    ledger_next: int = 0
    sequence: int = 0
    resync: bool = False
    new_identity: bool = False


class Enacted(msgspec.Struct, frozen=True):
    """What became of a setting that has an effect on the device: `source` is the authority whose
    value it is, `code` for programs, `text` for people."""

    source: str
    code: str
    text: str
    at: datetime
    failed: bool = False


class ComanagementState(msgspec.Struct, frozen=True):
    """`data` of a message with topic 810: where the device stands, in its own account."""

    flags: int
    mdm_enrolled: bool
    policy_present: bool
    capabilities: int
    provider: str = ""
    upn: str = ""
    client_version: str = ""
    policy_version: int = 0
    # Workload → "site" or "mdm".
    workloads: dict[str, str] = {}
    # Setting → {"value", "source", "workload"}: what is in force on the device. The value of a secret
    # is stars; "configuration" is the id of the site's configuration that it comes from, "user" the
    # object id of the user whose policy brought it.
    applied: dict[str, dict[str, str]] = {}
    # What the device did about the client settings: setting → effect.
    effects: dict[str, str] = {}
    # Files, units and apps: setting → what became of it, whoever's value it is.
    enacted: dict[str, Enacted] = {}
    # Compliance facts, while the site owns that workload.
    facts: dict[str, str] = {}
    # Workload → "under way" or "overdue", while values of the owner before are still in force.
    handovers: dict[str, str] = {}
    # The trace of the policy that it follows, and when the device took it, changed its flags by it,
    # and called the MDM service for it: "policy", "flags", "sync".
    trace: str = ""
    followed: dict[str, datetime] = {}
    # The object id of the user whose policy is merged with the device's; empty: nobody's is.
    user: str = ""


class Inventory(msgspec.Struct, frozen=True):
    """`data` of a message with topic 9002: classes that have changed since the last report, each
    with all its rows. A class without rows is not there any more.

    Reports of one `series` count up. What comes before its turn is not used, and the site asks for
    a `whole` report; a series begins with one. A client without series is believed by its clock.
    """

    classes: Annotated[
        dict[str, Annotated[list[dict[str, str | int]], msgspec.Meta(max_length=64)]],
        msgspec.Meta(max_length=64),
    ]
    series: Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{0,32}$")] = ""
    number: Annotated[int, msgspec.Meta(ge=0, le=2**53)] = 0
    whole: bool = False


class ConfigInfo(msgspec.Struct, frozen=True):
    """What the agent lets the MDM service read about itself (DeviceManageability CSP)."""

    flags: int = 0
    agent: str = ""
    client: str = ""
    policy: bool = False
    # Client deployment state (topic 800) and the bootstrap's return code, while it matters.
    setup: int = 0
    code: int = 0
    log: str = ""
    # The trace of the policy that the flags come of: 32 hexadecimal digits.
    trace: str = ""

    def text(self) -> str:
        line = f"flags={self.flags};agent={self.agent};client={self.client}"
        line += f";policy={int(self.policy)}"
        if self.trace:
            line += f";trace={self.trace}"
        if self.setup:
            line += f";setup={self.setup};code={self.code};log={quote(self.log[:300])}"
        return line

    @classmethod
    def read(cls, text: str) -> "ConfigInfo":
        """What the text says; keys that are unknown or unreadable are passed over."""
        parts = dict(part.split("=", 1) for part in text.split(";") if "=" in part)

        def number(key: str) -> int:
            value = parts.get(key, "")
            return int(value) if value.isascii() and value.isdigit() and len(value) < 10 else 0

        return cls(
            number("flags"),
            parts.get("agent", ""),
            parts.get("client", ""),
            parts.get("policy") == "1",
            number("setup"),
            number("code"),
            unquote(parts.get("log", "")),
            _trace_id(parts.get("trace", "")),
        )


def _trace_id(text: str) -> str:
    known = len(text) == 32 and all(digit in "0123456789abcdef" for digit in text)
    return text if known else ""


def authentication_bases(host: str) -> tuple[str, str]:
    """(token, certificate) base URLs of a CCMHOSTNAME: `https://<service>/CCM_Proxy_…/<id>`.

    Raises ValueError when the host has not that form.
    """
    service, entry, role_id = (*host.split("/"), "", "", "")[:3]
    entries = ("ccm_proxy_mutualauth", "ccm_proxy_serverauth")
    if not service or entry.lower() not in entries or not role_id.isdigit() or host.count("/") != 2:
        raise ValueError(host)
    return (
        f"https://{service}/CCM_Proxy_ServerAuth/{role_id}",
        f"https://{service}/CCM_Proxy_MutualAuth/{role_id}",
    )
