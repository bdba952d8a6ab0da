"""What a session asks and does, decided from values alone."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime

import msgspec

from tandem.protocols.syncml import Challenge, Command, Item, Message, Status
from tandem.tenant.enrollment import CONFIG_INFO_URI
from tandem.workloads import Workload

DEVICE_ID = "./DevInfo/DevId"
ABORT = "1223"
UNENROLL_ALERT = "mdm.unenrollment.userrequest"
LOGIN_ALERT = "com.microsoft/mdm/loginstatus"

INVENTORY = {
    "./DevDetail/SwV": "os_version",
    "./DevDetail/Ext/Microsoft/DNSComputerName": "name",
    "./DevDetail/OEM": "manufacturer",
    "./DevDetail/HwV": "hardware_version",
    "./DevDetail/FwV": "firmware_version",
    "./DevDetail/DevTyp": "device_type",
    "./DevDetail/Ext/Microsoft/SMBIOSSerialNumber": "serial_number",
    "./DevDetail/Ext/Microsoft/OSPlatform": "os_platform",
    "./DevDetail/Ext/Microsoft/ProcessorArchitecture": "processor_architecture",
    "./DevDetail/Ext/Microsoft/TotalRAM": "ram_mb",
    "./DevDetail/Ext/Microsoft/TotalStorage": "storage_mb",
    "./Vendor/MSFT/DeviceStatus/Compliance/EncryptionCompliance": "encryption",
    "./Vendor/MSFT/DeviceStatus/Firewall/Status": "firewall",
}
DEVICE_INFO = {
    "./DevInfo/Man": "manufacturer",
    "./DevInfo/Mod": "model",
    "./DevInfo/DmV": "dm_version",
    "./DevInfo/Lang": "language",
}
# What makers leave where a serial number belongs (section 12.1): many machines would be one.
_NO_SERIALS = {"0", "to be filled by o.e.m.", "system serial number", "default string", "none"}
# Statuses of what the device did not get to: it is asked again (section 11.4).
NOT_DONE = {214, 215}
# The kind of a command that the next one belongs to: both are in one message (section 12.3).
FIRST = "install-add"


class Sent(msgspec.Struct, frozen=True):
    """What a command of ours was for: its Status is understood by this."""

    # ask, install-add, install, uninstall, setting, removal, unenroll, action, account, account-part
    kind: str
    subject: str = ""
    value: str = ""
    order: int = 0
    workload: str = ""


# An administrator's orders by Graph's names: command, LocURI (windows-mdm, sections 12 and 15).
ACTIONS = {
    "rebootNow": ("Exec", "./Device/Vendor/MSFT/Reboot/RebootNow"),
    "setDeviceName": ("Replace", "./DevDetail/Ext/Microsoft/DNSComputerName"),
    "windowsDefenderScan": ("Exec", "./Device/Vendor/MSFT/Defender/Scan"),
    "windowsDefenderUpdateSignatures": ("Exec", "./Device/Vendor/MSFT/Defender/UpdateSignature"),
    "wipe": ("Exec", "./Device/Vendor/MSFT/RemoteWipe/"),
    "cleanWindowsDevice": ("Exec", "./Device/Vendor/MSFT/RemoteWipe/"),
}


def action(kind: str, data: str, order: int) -> "Order":
    """The command for an administrator's order."""
    name, uri = ACTIONS[kind]
    if uri.endswith("/"):
        uri, data = uri + data, ""
    item = Item(target=uri, data=data or None, format="chr", type="text/plain")
    return Order(Sent("action", kind, order=order), name, item if data else Item(target=uri))


def unenroll(provider: str, order: int) -> "Order":
    """Leave (section 14)."""
    uri = f"./Vendor/MSFT/DMClient/Provider/{provider}/Unenroll"
    item = Item(target=uri, data=provider, format="chr", type="text/plain")
    return Order(Sent("unenroll", provider, order=order), "Exec", item)


_NO_ITEM = Item()


@dataclass(frozen=True, slots=True)
class Order:
    """A command to send, and what it is for. `parts` are those of an Atomic or Sequence."""

    sent: Sent
    name: str
    item: Item = _NO_ITEM
    parts: "tuple[Order, ...]" = ()

    @property
    def each(self) -> "Iterator[Order]":
        yield self
        for part in self.parts:
            yield from part.each


@dataclass(frozen=True, slots=True)
class ActionResult:
    """An order by Graph's name; `state` is pending, active, done, failed or notSupported."""

    name: str
    state: str
    started_at: datetime
    changed_at: datetime


@dataclass(frozen=True, slots=True)
class Delivery:
    """What a device was given: a setting's value, or its digest (see policies.stored), and the
    status that it answered, with the error behind it. `added`: it went by Add.

    LAPSED: the workload went to the site, which may have written another value since.
    """

    subject: str
    value: str
    code: int
    workload: str = Workload.DEVICE_CONFIGURATION.value
    error: str = ""
    added: bool = False
    at: datetime | None = None


LAPSED = 0


@dataclass(frozen=True, slots=True)
class Hold:
    """A command that this device does not get any more, and why. `code` is the status behind it,
    0 when the device never answers."""

    device_id: str
    kind: str
    subject: str
    code: int
    reason: str
    at: datetime


@dataclass(frozen=True, slots=True)
class Stray:
    """A device that has left and calls all the same. `ordered_at`: it is to be told to leave."""

    device_id: str
    first_at: datetime
    last_at: datetime
    calls: int
    ordered_at: datetime | None
    told_at: datetime | None


def questions(inventory_too: bool) -> list[Order]:
    """The first answer of a session: what the agent says, and the inventory."""
    uris = [CONFIG_INFO_URI, *(INVENTORY if inventory_too else ())]
    return [Order(Sent("ask", uri), "Get", Item(target=uri)) for uri in uris]


def commands(orders: Iterable[Order], first: int) -> tuple[list[Command], dict[str, Sent]]:
    """Commands with ids from `first` on, and what each is for.

    Those in a group have ids of their own (section 11.2).
    """
    made: list[Command] = []
    sent: dict[str, Sent] = {}
    for order in orders:
        id = str(first + len(sent))
        sent[id] = order.sent
        children, inner = commands(order.parts, first + len(sent))
        sent |= inner
        items = () if order.parts else (order.item,)
        made.append(Command(order.name, id, items, children=tuple(children)))
    return made, sent


# What a device may tell by a command; it has nothing to ask or to change here.
_TAKEN = ("Alert", "Replace", "Atomic", "Sequence")


def statuses(
    message: Message,
    header: int = 200,
    challenge: Challenge | None = None,
    codes: Mapping[str, int] | None = None,
) -> list[Status]:
    """One for the header and for each command of the device that has an id, in order.

    Statuses and results are not answered (section 11.3). `codes` are those that are not 200, by the
    command's id.
    """
    number, known = str(message.number), codes or {}
    made = [Status("1", number, "0", "SyncHdr", header, challenge=challenge)]

    def say(id: str, name: str, code: int) -> None:
        made.append(Status(str(len(made) + 1), number, id, name, code))

    for result in message.results:
        if result.id in known:
            say(result.id, "Results", known[result.id])
    for whole in message.commands:
        for command in whole.each:
            if command.id:
                usual = 200 if command.name in _TAKEN else 406
                say(command.id, command.name, known.get(command.id, usual))
    return made


def signed_in(command: Command, before: bool | None) -> bool | None:
    """Whether somebody is, by the alert LoginStatus (section 11.6); `before` when it says nothing."""
    for item in command.items:
        if item.type.lower() == LOGIN_ALERT:
            return (item.data or "").strip().strip("\u201c\u201d\"'").lower() == "user"
    return before


def inventory_value(name: str, text: str) -> str:
    text = text.strip()[:512]
    return "" if name == "serial_number" and text.lower() in _NO_SERIALS else text
