"""What a setting tells the agent to do on Linux: one JSON object as the setting's value.

    TandemFiles/<name>  {"path": "/etc/motd", "content": "…", "mode": "0644", "owner": "root", "group": "root"}
                        {"path": "/etc/motd", "absent": true}
    TandemUnits/<name>  {"unit": "chrony.service", "enabled": true}
    TandemFirewall/<name>  {"action": "drop", "protocol": "tcp", "port": 23, "direction": "in", "address": "10.0.0.0/8"}
    TandemApps/<name>   {"package": {"name": "tree", "version": "2.1-1", "url": "https://…", "sha256": "…"}}
                        {"install": "…", "remove": "…", "detect": {"file": "/opt/x", "sha256": "…"}}
                        detect: {"file": …}, {"package": …, "version": …} or {"script": …}

Both authorities say it by the same names, so one list holds for site, MDM service and device.
"""

import re
from collections.abc import Callable
from ipaddress import ip_network
from typing import Literal

import msgspec

from tandem.infra.errors import Invalid
from tandem.workloads.catalogue import APPS, FILES, FIREWALL, UNITS

_UNIT = re.compile(
    r"[A-Za-z0-9:_.\\-]{1,200}(@[A-Za-z0-9:_.\\-]{0,50})?\.(service|socket|timer|path|mount|target)"
)
_PACKAGE = re.compile(r"[a-z0-9][a-z0-9+.-]{0,100}")
_VERSION = re.compile(r"[A-Za-z0-9.+:~-]{0,100}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_MODE = re.compile(r"0?[0-7]{3,4}")
_NAME = re.compile(r"[A-Za-z0-9_.-]{0,32}\$?")
# Kernel's own, where a file is no file.
_NOT_OURS = ("proc", "sys", "dev")
LEAST_SECONDS, MOST_SECONDS = 1, 900


class BadInstruction(Invalid):
    code = "setting.not-understood"


class File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    path: str
    content: str = ""
    mode: str = "0644"
    owner: str = ""
    group: str = ""
    absent: bool = False


class Unit(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    unit: str
    enabled: bool


class Rule(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A port accepted or dropped. `address` is the network at the other end; empty: any."""

    action: Literal["accept", "drop"]
    protocol: Literal["tcp", "udp"]
    port: int
    direction: Literal["in", "out"] = "in"
    address: str = ""


class Package(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: str
    url: str
    sha256: str
    version: str = ""


class Detection(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Exactly one of file, package and script; a script detects by ending with 0."""

    file: str = ""
    sha256: str = ""
    package: str = ""
    version: str = ""
    script: str = ""


class App(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A package, or a script that installs. `remove` takes it away again, and undoes a failure."""

    package: Package | None = None
    install: str = ""
    remove: str = ""
    detect: Detection = Detection()
    seconds: int = 300

    @property
    def rule(self) -> Detection:
        if self.package is not None:
            return Detection(package=self.package.name, version=self.package.version)
        return self.detect


Instruction = File | Unit | Rule | App


def area_of(setting: str) -> str:
    """The area of a setting as it is written here, or empty when it is no instruction."""
    folded = setting.partition("/")[0].lower()
    return next((area for area in _READ if area.lower() == folded), "")


def read(setting: str, value: str) -> Instruction:
    """Raises BadInstruction, which says what is wrong and how it ought to look."""
    area = area_of(setting)
    if not area:
        raise BadInstruction(f"{setting} is no instruction.", field="setting")
    wanted, check, example = _READ[area]
    try:
        found: Instruction = msgspec.json.decode(value, type=wanted)
    except (msgspec.DecodeError, RecursionError) as error:
        raise BadInstruction(
            f"The value of {setting} is not understood: {error}.",
            cure=f"Write it like {example}",
            field="value",
        ) from None
    wrong = check(found)
    if wrong:
        raise BadInstruction(
            f"The value of {setting} is not understood: {wrong}.",
            cure=f"Write it like {example}",
            field="value",
        )
    return found


def _path(path: str) -> str:
    """What is wrong with a path; empty when nothing is."""
    parts = path.split("/")
    if not path.startswith("/") or len(path) > 1024 or not parts[-1]:
        return "a path begins with / and names a file"
    if (
        any(part in ("", ".", "..") or len(part) > 255 for part in parts[1:])
        or not path.isprintable()
    ):
        return "a path has no empty parts, no dots alone, and only printable characters"
    if parts[1] in _NOT_OURS:
        return f"/{parts[1]} is the kernel's"
    return ""


def _file(wanted: File) -> str:
    if wrong := _path(wanted.path):
        return wrong
    if wanted.absent and wanted.content:
        return "a file that is to be absent has no content"
    if not _MODE.fullmatch(wanted.mode):
        return "mode is three or four octal digits"
    if not _NAME.fullmatch(wanted.owner) or not _NAME.fullmatch(wanted.group):
        return "owner and group are names or numbers"
    return ""


def _unit(wanted: Unit) -> str:
    return "" if _UNIT.fullmatch(wanted.unit) else "unit is the name of a systemd unit"


def _rule(wanted: Rule) -> str:
    if not 1 <= wanted.port <= 65535:
        return "port is 1 to 65535"
    try:
        network = ip_network(wanted.address) if wanted.address else None
    except ValueError:
        return "address is a network like 10.0.0.0/8, with no bits behind its length"
    if network is not None and not network.prefixlen:
        return "address is left out where any is meant"
    return ""


def _app(wanted: App) -> str:
    if (wanted.package is None) is (not wanted.install):
        return "an app is either a package or an install script"
    if not LEAST_SECONDS <= wanted.seconds <= MOST_SECONDS:
        return f"seconds is {LEAST_SECONDS} to {MOST_SECONDS}"
    package = wanted.package
    if package is not None:
        if wanted.detect != Detection() or wanted.remove:
            return "a package is detected and removed by its name"
        if not package.url.startswith("https://") or not package.url.isprintable():
            return "the url of a package begins with https://"
        if not _SHA256.fullmatch(package.sha256):
            return "sha256 is 64 hexadecimal digits"
    rule = wanted.rule
    if [bool(rule.file), bool(rule.package), bool(rule.script)].count(True) != 1:
        return "detect has exactly one of file, package and script"
    if rule.file and _path(rule.file):
        return _path(rule.file)
    if rule.package and not _PACKAGE.fullmatch(rule.package):
        return "a package has the name of a Debian package"
    if not _VERSION.fullmatch(rule.version) or (rule.version and not rule.package):
        return "version is that of a package"
    if rule.sha256 and not (rule.file and _SHA256.fullmatch(rule.sha256)):
        return "sha256 is 64 hexadecimal digits, of a file"
    if "\0" in wanted.install + wanted.remove + rule.script:
        return "a script has no null characters"
    return ""


_READ: dict[str, tuple[type[Instruction], Callable[..., str], str]] = {
    FILES: (File, _file, '{"path": "/etc/motd", "content": "Welcome", "mode": "0644"}'),
    UNITS: (Unit, _unit, '{"unit": "chrony.service", "enabled": true}'),
    FIREWALL: (Rule, _rule, '{"action": "drop", "protocol": "tcp", "port": 23}'),
    APPS: (
        App,
        _app,
        '{"install": "touch /opt/tool", "remove": "rm /opt/tool", "detect": {"file": "/opt/tool"}}',
    ),
}
