"""Every sort, page and filter of the device list against a plain model, on 10,000 devices."""

import random
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from site_api import NOW, Api
from tandem.site import fleet
from tandem.site.fleet import (
    Device,
    EnrollmentState,
    FunnelStep,
    Management,
    OsGroup,
    Stage,
    store,
)
from tandem.workloads import Authority, Workload, capabilities

COUNT = 10_000
VERSIONS = ("", "6.1.7601", "10.0.9", "10.0.15063.1", "10.0.22631.1", "10.0.22631.11", "macOS 14")
NAMES = ("LAB", "lab", "Éclair", "ÉCLAIR", "%", "_", "ß", "日本", "<b>", "=1+1", "Straße", "İ")


def _device(number: int, dice: random.Random) -> Device:
    switches = (
        *("joined", "hybrid", "licensed", "mdm_enrolled", "app_offered", "msi_installed"),
        *("registered", "policy_present", "scheduled", "initiated", "pending_sign_in", "blocked"),
    )
    some = dice.sample(list(Workload), dice.randint(0, 3))
    return Device(
        id=f"d-{dice.getrandbits(40):010x}-{number}",
        name=f"{dice.choice(NAMES)}-{dice.randint(0, 2000)}",
        user=dice.choice(["", f"{dice.choice('aAbBé')}{dice.randint(0, 500)}@contoso.com"]),
        os_version=dice.choice(VERSIONS),
        client_version=dice.choice(["", "5.00.9", "5.00.10", "0.1.0"]),
        flags=capabilities(some) if dice.random() < 0.8 else 0,
        enrollment_error=dice.choice([None, None, None, 0x80180018, 0x8018002B]),
        last_seen_at=dice.choice([None, NOW - timedelta(minutes=dice.randint(0, 5000))]),
        **{name: dice.random() < 0.6 for name in switches},  # type: ignore[arg-type]
    )


@pytest.fixture
async def many(api: Api) -> list[Device]:
    dice = random.Random(20261126)
    devices = [_device(number, dice) for number in range(COUNT)]
    async with api.db.transaction() as tx:
        for start in range(0, COUNT, 1000):
            await store.save(tx, devices[start : start + 1000])
    return devices


def _version(text: str) -> str:
    parts = text.split(".")
    whole = all(part.isascii() and part.isdigit() for part in parts)
    return ".".join(f"{int(part):08}" for part in parts) if whole else text.casefold()


_NEVER = datetime.min.replace(tzinfo=UTC)
_ORDER = list(Stage)
KEYS: dict[str, Callable[[Device], Any]] = {
    "name": lambda d: d.name.casefold(),
    "user": lambda d: d.user.casefold(),
    "os": lambda d: _version(d.os_version),
    "management": lambda d: d.management.value,
    "stage": lambda d: _ORDER.index(last) if (last := fleet.last_stage(d)) else -1,
    "client": lambda d: _version(d.client_version),
    "seen": lambda d: d.last_seen_at or _NEVER,
}


def _begins(device: Device, text: str) -> bool:
    return any(value.casefold().startswith(text) for value in (device.name, device.user))


FILTERS: list[tuple[dict[str, str], Callable[[Device], bool]]] = [
    ({"search": "lab-1"}, lambda d: _begins(d, "lab-1")),
    ({"search": "A1"}, lambda d: _begins(d, "a1")),
    ({"search": "%"}, lambda d: _begins(d, "%")),
    ({"search": "STRASSE"}, lambda d: _begins(d, "strasse")),
    ({"search": "*air-7"}, lambda d: "air-7" in d.name.casefold()),
    ({"failed": "true"}, lambda d: fleet.enrollment_state(d) in fleet.FAILED),
    ({"blocked": "true"}, lambda d: d.blocked),
    ({"unlicensed": "true"}, lambda d: d.co_managed and bool(d.user) and not d.licensed),
    ({"error": str(0x80180018)}, lambda d: d.enrollment_error == 0x80180018),
    (
        {"workload": "client-apps", "owner": "mdm"},
        lambda d: d.co_managed and fleet.owner(d, Workload.CLIENT_APPS) is Authority.MDM,
    ),
    (
        {"workload": "client-apps", "owner": "site", "search": "lab"},
        lambda d: (
            d.co_managed
            and fleet.owner(d, Workload.CLIENT_APPS) is Authority.SITE
            and _begins(d, "lab")
        ),
    ),
    ({"workload": "windows-update"}, lambda d: d.co_managed),
    *(
        ({"management": kind.value}, lambda d, kind=kind: d.management is kind)  # type: ignore[misc]
        for kind in Management
    ),
    *(
        ({"os": kind.value}, lambda d, kind=kind: fleet.operating_system(d) is kind)  # type: ignore[misc]
        for kind in OsGroup
    ),
    *(
        ({"funnel": step.value}, lambda d, step=step: step in fleet.steps(d))  # type: ignore[misc]
        for step in FunnelStep
    ),
    *(
        ({"enrollment": state.value}, lambda d, state=state: fleet.enrollment_state(d) is state)  # type: ignore[misc]
        for state in EnrollmentState
    ),
    *(
        ({"stage": stage.value}, lambda d, stage=stage: stage in fleet.stages(d))  # type: ignore[misc]
        for stage in Stage
    ),
    *(
        ({"missing": stage.value}, lambda d, stage=stage: stage not in fleet.stages(d))  # type: ignore[misc]
        for stage in Stage
    ),
]


async def _ids(api: Api, **query: Any) -> tuple[list[str], dict[str, Any]]:
    answer = await api.get("/api/v1/devices", **query)
    return [device["id"] for device in answer["devices"]], answer


async def test_lists_and_tiles_say_what_the_plain_model_says(api: Api, many: list[Device]) -> None:
    for sort, key in KEYS.items():
        for descending in (False, True):
            expected = [
                d.id for d in sorted(many, key=lambda d: (key(d), d.id), reverse=descending)
            ]
            asked: dict[str, Any] = {"sort": sort, "descending": str(descending).lower()}
            found: list[str] = []
            after = ""
            while True:
                ids, answer = await _ids(api, **asked, limit=1000, after=after, counted="false")
                found += ids
                after = answer["after"]
                if not after:
                    break
            assert found == expected, asked
            for offset in (0, 49, 5_000, 9_990, 10_000):
                ids, answer = await _ids(api, **asked, limit=50, offset=offset)
                assert ids == expected[offset : offset + 50]
                assert answer["total"] == COUNT
    in_order = sorted(many, key=lambda d: (KEYS["name"](d), d.id))
    for query, holds in FILTERS:
        expected = [d.id for d in in_order if holds(d)]
        ids, answer = await _ids(api, **query, limit=50)
        assert (ids, answer["total"]) == (expected[:50], len(expected)), query
    await _tiles(api, many)


async def _tiles(api: Api, many: list[Device]) -> None:
    shown = await api.get("/api/v1/comanagement/dashboard")
    assert shown["devices"] == COUNT

    def counted(kind: Any, of: Callable[[Device], Any]) -> dict[str, int]:
        found = Counter(item for device in many for item in of(device))
        return {item.value: found[item] for item in kind}

    assert shown["operating_systems"] == counted(OsGroup, lambda d: [fleet.operating_system(d)])
    assert shown["funnel"] == counted(FunnelStep, fleet.steps)
    assert shown["enrollment"] == counted(EnrollmentState, lambda d: [fleet.enrollment_state(d)])
    assert shown["stages"] == counted(Stage, fleet.stages)
    assert shown["workloads"] == counted(Workload, fleet.with_mdm)
    assert shown["errors"] == {
        str(code): n for code, n in Counter(d.enrollment_error for d in many).items() if code
    }
    assert shown["unlicensed_users"] == len({d.user.casefold() for d in many if d.unlicensed})
    assert shown["blocked"] == sum(d.blocked for d in many)
