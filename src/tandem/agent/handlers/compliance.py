"""What a device says for its compliance: system version, disk encryption, firewall.

Read from the files of the root folder and changed by nobody here. A fact that cannot be read is
"unknown", with the reason: nothing is guessed.
"""

import re

from tandem.agent.handlers.model import Trouble
from tandem.agent.handlers.root import Root
from tandem.agent.handlers.units import ETC

YES, NO, UNKNOWN = "yes", "no", "unknown"
_OS_RELEASE = ("/etc/os-release", "/usr/lib/os-release")
_FIREWALLS = ("nftables", "firewalld", "ufw", "netfilter-persistent")
_DEVICES = 64


def facts(root: Root, rules: int = 0) -> dict[str, str]:
    """Each fact as one word, and beside it the evidence (`…_by`). `rules` is how many firewall rules
    of policy were read back."""
    system = os_release(root)
    encrypted, encrypted_by = _encryption(root)
    firewall, firewall_by = _firewall(root)
    if rules:
        firewall_by += f"; firewall rules of policy in force: {rules}"
    return {
        "os": system.get("ID", UNKNOWN),
        "os_version": system.get("VERSION_ID", UNKNOWN),
        "os_name": system.get("PRETTY_NAME", UNKNOWN),
        "encryption": encrypted,
        "encryption_by": encrypted_by,
        "firewall": firewall,
        "firewall_by": firewall_by,
    }


def text(root: Root, path: str) -> str | None:
    """A file of the system; None when it cannot be read."""
    try:
        data = root.read_followed(path)
    except (OSError, Trouble):
        return None
    return None if data is None else data.decode("utf-8", "replace")


def os_release(root: Root) -> dict[str, str]:
    """os-release(5): shell assignments, of which the first file that exists counts."""
    content = next((t for p in _OS_RELEASE if (t := text(root, p)) is not None), "")
    found = {}
    for line in content.splitlines():
        key, equals, value = line.strip().partition("=")
        if equals and not key.startswith("#"):
            found[key] = value.strip().strip("\"'")[:200]
    return found


def _encryption(root: Root) -> tuple[str, str]:
    """Whether the file system of / lies on dm-crypt, by what the kernel says of its devices."""
    mounts = text(root, "/proc/self/mountinfo")
    if mounts is None:
        return UNKNOWN, "/proc is not mounted in the root folder"
    device = ""
    for line in mounts.splitlines():
        fields = line.split()
        if len(fields) > 4 and fields[4] == "/":
            device = fields[2]
    if not re.fullmatch(r"[0-9]+:[0-9]+", device):
        return UNKNOWN, "no file system is mounted at /"
    if device.startswith("0:"):
        return UNKNOWN, f"/ lies on no block device ({device})"
    waiting, seen = [f"/sys/dev/block/{device}"], 0
    while waiting and seen < _DEVICES:
        at = waiting.pop()
        seen += 1
        uuid = text(root, f"{at}/dm/uuid") or ""
        if uuid.startswith("CRYPT-"):
            return YES, f"{device} is {uuid.split('-')[1]}"
        waiting += [f"{at}/slaves/{name}" for name in root.names(f"{at}/slaves")]
    return NO, f"{device} and what it lies on are not encrypted"


def _firewall(root: Root) -> tuple[str, str]:
    """Whether a firewall is set to start with the system. What the kernel filters now is another
    question, which only root may ask it."""
    if not root.names("/etc"):
        return UNKNOWN, "the root folder has no /etc"
    for name in _FIREWALLS:
        for folder in root.names(ETC):
            if folder.endswith(".wants") and root.link(f"{ETC}/{folder}/{name}.service"):
                configuration = text(root, "/etc/ufw/ufw.conf") or ""
                if name == "ufw" and not re.search(r"(?m)^ENABLED=yes\s*$", configuration):
                    continue
                return YES, f"{name}.service starts with the system"
    return NO, f"none of {', '.join(_FIREWALLS)} starts with the system"
