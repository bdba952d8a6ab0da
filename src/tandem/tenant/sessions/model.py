"""What a session asks and does, decided from values alone."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import datetime

import msgspec

from tandem.protocols.syncml import Command, Item, Message, Status
from tandem.tenant.enrollment import CONFIG_INFO_URI
from tandem.workloads import Workload

DEVICE_ID = "./DevInfo/DevId"
ABORT = "1223"
UNENROLL_ALERT = "mdm.unenrollment.userrequest"
# Enough of them to make round trips rare, few enough for any device's buffer (section 11.9).
BATCH = 60
# Devices announce 512 KiB; the envelope, statuses and escaping want their share (section 11.8).
ROOM_BYTES = 256 * 1024

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

    kind: str  # ask, install-add, install, setting, removal, unenroll, action
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


@dataclass(frozen=True, slots=True)
class Order:
    """A command to send, and what it is for."""

    sent: Sent
    name: str
    item: Item


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


def questions(inventory_too: bool) -> list[Order]:
    """The first answer of a session: what the agent says, and the inventory."""
    uris = [CONFIG_INFO_URI, *(INVENTORY if inventory_too else ())]
    return [Order(Sent("ask", uri), "Get", Item(target=uri)) for uri in uris]


def batch(orders: Iterable[Order], done: Collection[Sent]) -> list[Order]:
    """What of it fits into one message, without what this session has asked for already."""
    chosen: list[Order] = []
    room = ROOM_BYTES
    for order in orders:
        if order.sent in done:
            continue
        room -= 512 + 2 * len((order.item.data or "").encode())
        full = room < 0 or len(chosen) >= BATCH
        if chosen and full and chosen[-1].sent.kind != FIRST:
            break
        chosen.append(order)
    return chosen


def commands(orders: Iterable[Order], first: int) -> tuple[list[Command], dict[str, Sent]]:
    """Commands with ids from `first` on, and what each is for."""
    made, sent = [], {}
    for number, order in enumerate(orders, first):
        made.append(Command(order.name, str(number), (order.item,)))
        sent[str(number)] = order.sent
    return made, sent


def statuses(message: Message) -> list[Status]:
    """200 for the header and for each command of the device that has an id, in order.

    Statuses and results are not answered (section 11.3).
    """
    number = str(message.number)
    made = [Status("1", number, "0", "SyncHdr", 200)]
    for command in message.commands:
        if command.id:
            made.append(Status(str(len(made) + 1), number, command.id, command.name, 200))
    return made


def inventory_value(name: str, text: str) -> str:
    text = text.strip()[:512]
    return "" if name == "serial_number" and text.lower() in _NO_SERIALS else text
