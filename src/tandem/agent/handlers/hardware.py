"""What a device is made of, under the field's class names: from what the kernel says under a root.

What cannot be read is left out: nothing is guessed. What changes all the time (free space, load) is
not here, so a report is news.
"""

import re
from hashlib import sha256

from tandem.agent.handlers.compliance import os_release, text
from tandem.agent.handlers.root import Root

Rows = list[dict[str, str | int]]
_DMI = "/sys/class/dmi/id"
# File systems that lie on a device of their own, as far as one device has them.
_MOST_ROWS = 32
_LONGEST = 256


def hardware(root: Root) -> dict[str, Rows]:
    """Each class with its rows; a class of which nothing can be read has none."""
    processors = _processors(root)
    memory = _memory_kib(root)
    system = os_release(root)
    found: dict[str, Rows] = {
        "SMS_G_System_OPERATING_SYSTEM": [
            {
                "Caption": system.get("PRETTY_NAME", ""),
                "Version": system.get("VERSION_ID", ""),
                "BuildNumber": _line(root, "/proc/sys/kernel/osrelease"),
                "TotalVisibleMemorySize": memory,
            }
        ],
        "SMS_G_System_COMPUTER_SYSTEM": [
            {
                "Name": _line(root, "/proc/sys/kernel/hostname"),
                "Manufacturer": _line(root, f"{_DMI}/sys_vendor"),
                "Model": _line(root, f"{_DMI}/product_name"),
                "NumberOfProcessors": len({row["DeviceID"] for row in processors}),
            }
        ],
        "SMS_G_System_PROCESSOR": processors,
        "SMS_G_System_X86_PC_MEMORY": [{"TotalPhysicalMemory": memory}],
        "SMS_G_System_PC_BIOS": [
            {
                "Manufacturer": _line(root, f"{_DMI}/bios_vendor"),
                "SMBIOSBIOSVersion": _line(root, f"{_DMI}/bios_version"),
                "ReleaseDate": _line(root, f"{_DMI}/bios_date"),
                # Only root may read it.
                "SerialNumber": _line(root, f"{_DMI}/product_serial"),
            }
        ],
        "SMS_G_System_LOGICAL_DISK": _disks(root),
        "SMS_G_System_NETWORK_ADAPTER": _adapters(root),
    }
    return {name: [row for row in map(_said, rows) if row] for name, rows in found.items()}


# What makers write where they write nothing; such an id would make one machine of many.
_NO_ID = re.compile(
    r"^(0+|f+|03000200040005000006000700080009|.*(filled|default|specified|settable|none).*|)$"
)


def hardware_id(root: Root) -> str:
    """Which machine this is, whatever is on its disk, as the field writes it; empty where the
    firmware does not say, or not to us: its serial numbers are for root alone."""
    for name in ("product_uuid", "product_serial"):
        found = _bare(_line(root, f"{_DMI}/{name}"))
        if not _NO_ID.match(found):
            return "2:" + sha256(f"{name}:{found}".encode()).hexdigest()[:40].upper()
    return ""


def _bare(found: str) -> str:
    return re.sub(r"[^a-z0-9]", "", found.lower())


def _said(row: dict[str, str | int]) -> dict[str, str | int]:
    return {name: value for name, value in row.items() if value not in ("", 0)}


def _line(root: Root, path: str) -> str:
    found = text(root, path)
    return "".join(c for c in (found or "").strip() if c.isprintable())[:_LONGEST]


def _number(found: str) -> int:
    return int(found) if found.isascii() and found.isdigit() and len(found) < 16 else 0


def _memory_kib(root: Root) -> int:
    found = re.search(r"(?m)^MemTotal:\s+([0-9]{1,15}) kB$", text(root, "/proc/meminfo") or "")
    return int(found[1]) if found else 0


def _processors(root: Root) -> Rows:
    """A row for each socket."""
    sockets: dict[str, dict[str, str | int]] = {}
    for block in (text(root, "/proc/cpuinfo") or "").split("\n\n"):
        pairs = (line.partition(":") for line in block.splitlines())
        said = {key.strip(): value.strip()[:_LONGEST] for key, _, value in pairs}
        if "processor" not in said:
            continue
        socket = f"CPU{said.get('physical id', '0')}"
        row = sockets.setdefault(
            socket,
            {
                "DeviceID": socket,
                "Name": said.get("model name", ""),
                "Manufacturer": said.get("vendor_id", ""),
                "NumberOfCores": _number(said.get("cpu cores", "")),
                "NumberOfLogicalProcessors": 0,
            },
        )
        row["NumberOfLogicalProcessors"] = int(row["NumberOfLogicalProcessors"]) + 1
    return [sockets[name] for name in sorted(sockets)][:_MOST_ROWS]


def _disks(root: Root) -> Rows:
    """A row for each file system on a device, where it is mounted first."""
    found: dict[str, dict[str, str | int]] = {}
    for line in (text(root, "/proc/self/mountinfo") or "").splitlines():
        left, dash, right = line.partition(" - ")
        fields, kind = left.split(" "), right.split(" ")[0]
        if not dash or len(fields) < 5 or not re.fullmatch(r"[1-9][0-9]*:[0-9]+", fields[2]):
            continue
        sectors = _number(_line(root, f"/sys/dev/block/{fields[2]}/size"))
        row: dict[str, str | int] = {
            "DeviceID": fields[4][:_LONGEST],
            "FileSystem": kind[:_LONGEST],
            "Size": sectors // 2048,  # MiB, of sectors of 512 bytes.
        }
        found.setdefault(fields[2], row)
    return list(found.values())[:_MOST_ROWS]


def _adapters(root: Root) -> Rows:
    found: Rows = []
    for name in root.names("/sys/class/net"):
        address = _line(root, f"/sys/class/net/{name}/address")
        if name != "lo" and address:
            found.append({"Name": name[:_LONGEST], "MACAddress": address})
    return found[:_MOST_ROWS]
