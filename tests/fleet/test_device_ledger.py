"""A device's ledger as API and command line show it."""

from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from site_api import NOW, Api, add_device, commands
from tandem import pki
from tandem.cli.device import _proof as shown
from tandem.protocols import ccm
from tandem.site import ledgers
from tandem.site.clients import ClientId

EP = "endpoint-protection"


class Device:
    """Something that signs with its key, honest or not."""

    def __init__(self, api: Api, name: str) -> None:
        self.api, self.name = api, name
        key = pki.generate_key("p256")
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        self.key, self.number, self.digest = key, 0, ccm.GENESIS

    def writes(self, kind: ccm.EntryKind, **more: Any) -> str:
        entry = ccm.LedgerEntry(self.number + 1, NOW, self.digest, kind, **more)
        text = ccm.sign_entry(entry, self.key)
        self.number, self.digest = entry.number, ccm.entry_digest(text)
        return text

    async def sends(self, *entries: str, oldest: int = 1) -> int:
        jwk = pki.public_jwk(self.key)
        async with self.api.db.transaction() as tx:
            return await ledgers.take(
                tx,
                ClientId(f"GUID:{self.name}"),
                pki.jwk_thumbprint(self.key.public_key()),
                jwk,
                ccm.LedgerPart(list(entries), oldest),
                NOW,
            )


@pytest.fixture
async def device(api: Api) -> Device:
    async with api.db.transaction() as tx:
        await add_device(tx, "LAB-001", flags=8193)
        await add_device(tx, "LAB-002", flags=8193)
    return Device(api, "LAB-001")


def honest(device: Device) -> list[str]:
    value = sha256(b"daily").hexdigest()
    return [
        device.writes("begin"),
        device.writes("own", workload=EP, authority="site", flags=8193),
        device.writes("write", workload=EP, authority="site", setting="Defender/Scan", value=value),
    ]


def at(device: Device) -> str:
    return f"/api/v1/devices/d-{device.name}/ledger"


async def test_an_honest_ledger_holds(api: Api, device: Device) -> None:
    assert await device.sends(*honest(device)) == 4
    found = await api.get(at(device), check="true")
    assert (found["holds"], found["findings"], found["checked"]) == (True, [], True)
    assert found["settings"][0]["authority"] == "site"
    assert [one["kind"] for one in found["entries"]] == ["write", "own", "begin"]
    # What is shown is what anybody can verify with the device's key.
    key = ccm.public_key(found["key"]["jwk"])
    assert ccm.open_entry(found["entries"][0]["text"], key).setting == "Defender/Scan"


async def test_parts_that_come_again_or_early_change_nothing(api: Api, device: Device) -> None:
    first, second, third = honest(device)
    assert await device.sends(second, third) == 1
    assert await device.sends(first) == 2
    assert await device.sends(first, second) == 3
    assert await device.sends(second, third, third) == 4
    assert (await api.get(at(device)))["holds"]


async def test_a_write_by_who_does_not_own_breaks_the_proof(api: Api, device: Device) -> None:
    bad = device.writes
    await device.sends(
        *honest(device),
        bad("write", workload=EP, authority="mdm", setting="Defender/Scan", value="0" * 64),
    )
    found = await api.get(at(device))
    assert not found["holds"]
    assert [(one["flaw"], one["number"]) for one in found["findings"]] == [("not-owner", 4)]


async def test_removal_first_breaks_the_proof(api: Api, device: Device) -> None:
    await device.sends(
        *honest(device),
        device.writes("own", workload=EP, authority="mdm", reason="hand-over", bound=86400),
        device.writes(
            "remove", workload=EP, authority="site", setting="Defender/Scan", reason="leftover"
        ),
    )
    found = await api.get(at(device))
    assert [one["flaw"] for one in found["findings"]] == ["removed-first"]


async def test_two_machines_with_one_key_are_a_fork_however_they_take_turns(
    api: Api, device: Device
) -> None:
    await device.sends(*honest(device))
    clone = Device(api, device.name)
    clone.key, clone.number, clone.digest = device.key, device.number, device.digest
    for one in (device, clone, device, clone):
        await one.sends(one.writes("confirm", workload=EP, authority=one.name and "site",
                                   reason=f"{id(one)}"))  # fmt: skip
    found = await api.get(at(device), check="true")
    assert {one["flaw"] for one in found["findings"]} == {"fork"}
    assert not found["holds"]


async def test_what_is_no_ledger_is_named_and_holds_nothing_up(api: Api, device: Device) -> None:
    first, second, third = honest(device)
    other = Device(api, "LAB-001")
    await device.sends(first, "", "a.b.c", "é" * 9000, other.writes("begin"), second, third)
    found = await api.get(at(device))
    assert {one["flaw"] for one in found["findings"]} == {"bad-entry"}
    assert found["entries_total"] == 3


async def test_a_number_that_does_not_follow_is_not_believed(api: Api, device: Device) -> None:
    lines = honest(device)
    device.number = 900
    await device.sends(*lines, device.writes("confirm", workload=EP, authority="site"))
    found = await api.get(at(device))
    assert found["entries_total"] == 3
    assert [one["flaw"] for one in found["findings"]] == ["bad-entry"]


async def test_a_device_without_a_ledger_says_so(api: Api, device: Device) -> None:
    status, error = await api.refusal("GET", "/api/v1/devices/d-LAB-002/ledger")
    assert (status, error["code"]) == (404, "ledger.none")
    status, error = await api.refusal("GET", "/api/v1/devices/nobody/ledger")
    assert (status, error["code"]) == (404, "fleet.no-such-device")
    assert (await api.web.get(at(device), headers={"Authorization": ""})).status_code == 401


async def test_another_key_begins_another_ledger_and_that_is_said(api: Api, device: Device) -> None:
    await device.sends(*honest(device))
    again = Device(api, "LAB-001")
    await again.sends(*honest(again))
    found = await api.get(at(device))
    assert [one["flaw"] for one in found["findings"]] == ["new-key"]
    assert (found["holds"], found["other_ledgers"]) == (True, 1)


async def test_the_command_names_what_is_wrong(api: Api, device: Device, tmp_path: Path) -> None:
    await device.sends(*honest(device))
    async with commands(api, tmp_path) as tandem:
        found = await tandem.run("device", "ledger", "lab-001", "--check")
        assert (found["holds"], found["checked"]) == (True, True)
        said = shown(found)
        assert "LAB-001: the proof holds. 3 entries" in said
        assert "Every signature was checked again" in said
        assert (await tandem.run("device", "ledger", "d-LAB-001"))["holds"]
        await device.sends(
            device.writes("write", workload=EP, authority="mdm", setting="Defender/Scan")
        )
        said = shown(await tandem.run("device", "ledger", "LAB-001"))
        assert "DOES NOT HOLD" in said
        assert "broken: Entry 4: mdm set Defender/Scan" in said
        refused = await tandem.refusal("device", "ledger", "nobody")
        assert "no device 'nobody'" in refused.message


async def test_an_administrator_acknowledges_what_was_found_and_the_audit_says_so(
    api: Api, device: Device, tmp_path: Path
) -> None:
    await device.sends(*honest(device))
    clone = Device(api, device.name)
    clone.key, clone.number, clone.digest = device.key, device.number, device.digest
    for one in (device, clone):
        await one.sends(
            one.writes("confirm", workload=EP, authority="site", reason=f"{one is clone}")
        )
    path = f"{at(device)}/acknowledge"
    status, error = await api.refusal("POST", path, {"reason": "x", "seen": 7})
    assert (status, error["code"]) == (409, "ledger.found-more")
    status, error = await api.refusal("POST", path, {"reason": "two\nlines", "seen": 1})
    assert (status, "with a reason" in error["message"]) == (400, True)
    assert (await api.web.post(path, json={}, headers={"Authorization": ""})).status_code == 401
    async with commands(api, tmp_path) as tandem:
        found = await tandem.run("device", "ledger", "LAB-001", "--acknowledge", "cloned by us")
        assert found["holds"]
        assert "(acknowledged by siteadmin: cloned by us)" in shown(found)
        refused = await tandem.refusal("device", "ledger", "LAB-001", "--acknowledge", "again")
        assert "Nothing that breaks this ledger's proof is open." in refused.message
    async with api.db.transaction() as tx:
        cursor = await tx.execute(
            "SELECT actor, details FROM audit_entry WHERE action = 'ledger.acknowledge'"
        )
        (row,) = await cursor.fetchall()
    assert row["actor"] == "siteadmin"
    assert row["details"] == {"findings": ["fork at entry 4"], "reason": "cloned by us"}
    # What comes after is judged as before.
    await clone.sends(
        clone.writes("write", workload=EP, authority="mdm", setting="A/B", value="0" * 64)
    )
    assert not (await api.get(at(device)))["holds"]


async def test_a_checkpoint_that_lies_breaks_the_proof(api: Api, device: Device) -> None:
    await device.sends(*honest(device), device.writes("checkpoint", value="0" * 64))
    assert [one["flaw"] for one in (await api.get(at(device)))["findings"]] == ["bad-entry"]
