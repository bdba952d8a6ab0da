"""Debian packages: what is installed, and which of two versions is the newer."""

from dataclasses import dataclass
from itertools import zip_longest

from tandem.agent.handlers.root import Root

STATUS = "/var/lib/dpkg/status"

# The states of dpkg(1). One whose triggers wait is configured itself.
_WHOLE = frozenset({"installed", "triggers-awaited", "triggers-pending"})
_BEGUN = frozenset({"half-installed", "unpacked", "half-configured"})


@dataclass(frozen=True, slots=True)
class Installed:
    """A package with its version, and those of the source package that it was built from. One that
    is not `whole` was begun with and not ended: its script failed, or dpkg was killed."""

    name: str
    version: str
    source: str
    source_version: str
    whole: bool = True


def installed_packages(root: Root) -> list[Installed]:
    """What dpkg says is there, whole or not; nothing where there is no dpkg. Raises Trouble."""
    status = root.read_followed(STATUS) or b""
    found = []
    for paragraph in status.decode("utf-8", "replace").split("\n\n"):
        fields = dict(
            line.split(": ", 1) for line in paragraph.splitlines() if ": " in line and line[0] > " "
        )
        name, version = fields.get("Package", ""), fields.get("Version", "")
        state = fields.get("Status", "").rpartition(" ")[2]
        if not name or state not in _WHOLE | _BEGUN:
            continue
        source, _, told = fields.get("Source", name).partition(" ")
        built_from = told.strip("()") or version
        found.append(Installed(name, version, source, built_from, state in _WHOLE))
    return found


def is_older(one: str, other: str) -> bool:
    """Whether a version comes before another, as deb-version(7) orders them."""
    return _compare(one, other) < 0


def _compare(one: str, other: str) -> int:
    a_epoch, a_upstream, a_revision = _split(one)
    b_epoch, b_upstream, b_revision = _split(other)
    return (
        (a_epoch > b_epoch) - (a_epoch < b_epoch)
        or _compare_part(a_upstream, b_upstream)
        or _compare_part(a_revision, b_revision)
    )


def _split(version: str) -> tuple[int, str, str]:
    epoch, colon, rest = version.strip().partition(":")
    if not colon:
        epoch, rest = "0", epoch
    upstream, dash, revision = rest.rpartition("-")
    number = int(epoch) if epoch.isascii() and epoch.isdigit() else 0
    return (number, upstream, revision) if dash else (number, rest, "")


def _compare_part(one: str, other: str) -> int:
    for (a_text, a_number), (b_text, b_number) in zip_longest(
        _runs(one), _runs(other), fillvalue=("", 0)
    ):
        # The end of a text comes after "~" and before all else.
        for a, b in zip_longest(a_text, b_text, fillvalue=""):
            if (order := _rank(a) - _rank(b)) != 0:
                return order
        if a_number != b_number:
            return 1 if a_number > b_number else -1
    return 0


def _runs(part: str) -> list[tuple[str, int]]:
    """Text and number in turn, beginning with a text, which may be empty."""
    found, place = [], 0
    while place < len(part):
        begin = place
        while place < len(part) and not _is_digit(part[place]):
            place += 1
        text, begin = part[begin:place], place
        while place < len(part) and _is_digit(part[place]):
            place += 1
        found.append((text, int(part[begin:place] or "0")))
    return found


def _is_digit(character: str) -> bool:
    return "0" <= character <= "9"


def _rank(character: str) -> int:
    if not character:
        return 0
    if character == "~":
        return -1
    return ord(character) + (0 if character.isalpha() else 256)
