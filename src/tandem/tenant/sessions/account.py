"""The account on the device: what every device is to say to us and how often it calls (12.1, 13).

Asked for with the inventory, and put right in the same session where it is otherwise.
"""

from collections.abc import Mapping

from tandem.infra import xml
from tandem.protocols import syncml
from tandem.protocols.syncml import Item
from tandem.tenant.enrollment import POLL_NODES, EnrollmentSettings
from tandem.tenant.sessions.model import Order, Sent

KIND, PART = "account", "account-part"
CSP_VERSIONS = "./Device/Vendor/MSFT/DeviceManageability/Capabilities/CSPVersions"
# Session ids in hexadecimal, original errors, who began a session: what 2.0 to 4.0 bring. It never
# goes back, so no version is asked for whose meaning is not known here.
_NEWEST = 4.0
_VERSION, _MOST = "SyncApplicationVersion", "MaxSyncApplicationVersion"
_ALIVE, _SIGNED = "EnableOmaDmKeepAliveMessage", "RequireMessageSigning"
_CSPS, _CSP_CHARACTERS = 500, 200


def questions(settings: EnrollmentSettings) -> list[Order]:
    names = [_MOST, _VERSION, _ALIVE, *(f"Poll/{name}" for name in wanted_poll(settings))]
    if settings.require_signing:
        names.append(_SIGNED)
    return [_ask(_uri(settings, name)) for name in names]


def csp_question() -> Order:
    return _ask(CSP_VERSIONS)


def _ask(uri: str) -> Order:
    return Order(Sent("ask", uri), "Get", Item(target=uri))


def _uri(settings: EnrollmentSettings, name: str) -> str:
    return f"./Vendor/MSFT/DMClient/Provider/{settings.provider_id}/{name}"


def wanted_poll(settings: EnrollmentSettings) -> dict[str, str]:
    """Poll's nodes and what they are to be."""
    found: dict[str, str] = {}
    for (times_name, minutes_name), (minutes, times) in zip(
        POLL_NODES, settings.poll, strict=False
    ):
        found[times_name], found[minutes_name] = str(times), str(minutes)
    return found


def corrections(answers: Mapping[str, str], settings: EnrollmentSettings) -> list[Order]:
    """What to write, by what the device answered; nothing for one that knows no account.

    `answers` are by the nodes as `syncml.normal` writes them.
    """

    def told(name: str) -> str | None:
        return answers.get(syncml.normal(_uri(settings, name)))

    poll = wanted_poll(settings)
    if told(_MOST) is None and told(_VERSION) is None:
        return []
    orders: list[Order] = []
    version = min(_NEWEST, _version(told(_MOST)))
    if version > max(1.0, _version(told(_VERSION))):
        orders.append(_write(settings, KIND, _VERSION, f"{version:.1f}", "chr"))
    for name, is_wanted in ((_ALIVE, True), (_SIGNED, settings.require_signing)):
        if is_wanted and (told(name) or "").strip().lower() not in ("true", "1"):
            orders.append(_write(settings, KIND, name, "true", "bool"))
    if any(told(f"Poll/{name}") != value for name, value in poll.items()):
        # Some halves of two schedules are invalid, and Windows then calls once a day (section 13).
        parts = tuple(
            _write(settings, PART, f"Poll/{name}", value, "int") for name, value in poll.items()
        )
        told_all = " ".join(poll.values())
        orders.append(Order(Sent(KIND, "Poll", told_all), "Atomic", parts=parts))
    return orders


def _write(settings: EnrollmentSettings, kind: str, name: str, value: str, format: str) -> Order:
    item = Item(target=_uri(settings, name), data=value, format=format, type="text/plain")
    return Order(Sent(kind, name, value), "Replace", item)


def _version(text: str | None) -> float:
    whole, _, rest = (text or "").strip().partition(".")
    if not (whole + rest).isascii() or not whole.isdigit() or len(whole + rest) > 6:
        return 0.0
    return float(f"{whole}.{rest if rest.isdigit() else 0}")


def csps(text: str) -> dict[str, str]:
    """Which CSPs the device has, with their versions. Empty for what is no such document."""
    try:
        root = xml.parse(text.encode())
    except xml.BadXml:
        return {}
    found = {
        str(one.get("Node", ""))[:_CSP_CHARACTERS]: str(one.get("Version", ""))[:32]
        for one in root.iter("{*}CSP")
    }
    return dict(list(found.items())[:_CSPS])
