"""A device's way through a gateway as a picture: a box for each place, a line for each hop.

Where everything stands is reckoned here, so that the template only draws. The same is said in
sentences for who does not see it; the table of checks below has causes and cures.
"""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tandem.console.areas.gateways import words
from tandem.console.kit import N_, Page

_WIDTH, _HEIGHT, _ACROSS, _DOWN, _EDGE = 134, 64, 26, 20, 6
# More would not fit into a box.
_LETTERS = 19
_WORST = ("bad", "waiting", "skipped", "good")
# What a probe of the management point says about somebody before it on the way.
_BLAMED = {
    "probe.no-point": "connection-point",
    "probe.token-refused": "device",
    "probe.revoked": "device",
    "probe.certificate-refused": "device",
    "probe.not-believed": "device",
    "probe.no-list": "instance",
    "probe.no-connection": "instance",
}
_OF_INSTANCE = {"instance", "tls", "configuration", "tenant"}
_OF_GATEWAY = {"service", "certificate", "server-crl", "crl"}
_TITLES = {
    "device": N_("Device"),
    "dns": N_("Public name"),
    "instance": N_("Instance"),
    "connection-point": N_("Connection point"),
    "management-point": N_("Management point"),
    "tenant": N_("Tenant"),
}


@dataclass
class Place:
    kind: str
    name: str
    title: str = ""
    states: list[str] = field(default_factory=list)
    x: int = 0
    y: int = 0

    @property
    def state(self) -> str:
        return worst(self.states)

    @property
    def short(self) -> str:
        return self.name if len(self.name) <= _LETTERS else f"{self.name[: _LETTERS - 1]}…"


@dataclass(frozen=True)
class Line:
    x1: int
    y1: int
    x2: int
    y2: int
    state: str


@dataclass(frozen=True)
class Picture:
    width: int
    height: int
    places: list[Place]
    lines: list[Line]
    # The same in sentences.
    said: list[str]
    box: tuple[int, int] = (_WIDTH, _HEIGHT)


def worst(states: Iterable[str]) -> str:
    known = set(states)
    return next((state for state in _WORST if state in known), "skipped")


def draw(page: Page[Any], name: str, rows: Sequence[Mapping[str, Any]]) -> Picture:
    """`rows` are the checks as the API gives them, in the order of the way."""
    columns = _columns(name, rows)
    say = page.language.text
    tallest = max(len(column) for column in columns)
    height = tallest * _HEIGHT + (tallest - 1) * _DOWN + 2 * _EDGE
    said = []
    for number, column in enumerate(columns):
        top = (height - len(column) * _HEIGHT - (len(column) - 1) * _DOWN) // 2
        for row, place in enumerate(column):
            place.title = say(_TITLES[place.kind])
            place.x = _EDGE + number * (_WIDTH + _ACROSS)
            place.y = top + row * (_HEIGHT + _DOWN)
            where = f"{place.title} {place.name}".strip()
            state = say(words.STATES[place.state])
            said.append(say(N_("%(place)s: %(state)s."), place=where, state=state))
    lines = [
        Line(
            one.x + _WIDTH,
            one.y + _HEIGHT // 2,
            other.x,
            other.y + _HEIGHT // 2,
            _between(one, other, rows),
        )
        for left, right in itertools.pairwise(columns)
        for one in left
        for other in right
    ]
    width = 2 * _EDGE + len(columns) * _WIDTH + (len(columns) - 1) * _ACROSS
    return Picture(width, height, [p for column in columns for p in column], lines, said)


def _columns(name: str, rows: Sequence[Mapping[str, Any]]) -> list[list[Place]]:
    device, dns = Place("device", ""), Place("dns", name)
    instances: dict[str, Place] = {}
    points: dict[str, Place] = {}
    inside, tenant = Place("management-point", ""), Place("tenant", "")
    for row in rows:
        check, state, target = row["check"], row["state"], row["target"]["name"]
        if check == "identity":
            device.states.append(state)
        elif check in {"dns", "dns-internal"}:
            dns.states.append(state)
        elif check in _OF_INSTANCE:
            instances.setdefault(target, Place("instance", target)).states.append(state)
        elif check == "channel":
            points.setdefault(target, Place("connection-point", target)).states.append(state)
        elif check == "authority":
            tenant.name = target
            tenant.states.append(state)
    for row in rows:
        if row["check"] in _OF_GATEWAY:
            for place in instances.values():
                place.states.append(row["state"])
        elif row["check"] == "management-point":
            at = _BLAMED.get(row["cause"], "management-point")
            blamed = {
                "device": [device],
                "instance": [
                    one for one in instances.values() if one.name == row["source"]["name"]
                ],
                "connection-point": list(points.values()),
                "management-point": [inside],
            }[at]
            for place in blamed:
                place.states.append(row["state"])
    return [
        [device],
        [dns],
        list(instances.values()) or [Place("instance", "")],
        list(points.values()) or [Place("connection-point", "")],
        [inside],
        [tenant],
    ]


def _between(one: Place, other: Place, rows: Sequence[Mapping[str, Any]]) -> str:
    """A tunnel has a state of its own; any other hop is as good as where it leads."""
    if (one.kind, other.kind) == ("instance", "connection-point"):
        return worst(
            row["state"]
            for row in rows
            if row["check"] == "channel"
            and (row["source"]["name"], row["target"]["name"]) == (one.name, other.name)
        )
    return other.state
