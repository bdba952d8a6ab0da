"""The commands for what sessions left out, and for devices that left, against a real tenant over TLS."""

import asyncio
from functools import partial
from pathlib import Path

import pytest
from test_going_on import calls, gone

from command_world import answered, signed_in
from mdm_world import live_mdm
from tandem.cli import context, device_configuration, managed_device
from tandem.infra.database import Database
from tandem.protocols import syncml

run = partial(
    answered,
    {"device-configuration": device_configuration.app, "managed-device": managed_device.app},
)


async def test_what_is_set_aside_and_who_strays_is_dealt_with_from_the_command_line(
    tenant_db: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with (
        live_mdm(tenant_db, tmp_path) as (mdm, root, _),
        signed_in(mdm.world, root, tmp_path, monkeypatch),
    ):
        device = await mdm.enrolled()
        await mdm.group("Everyone", device.user.id)
        await asyncio.to_thread(_configure)
        device.codes["Replace"] = 400
        await device.check_in()
        device.codes.clear()
        assert await device.check_in() == []
        await asyncio.to_thread(_release)
        (again,) = await device.check_in()
        assert again.items[0].target.endswith("/Config/A/Odd")
        await asyncio.to_thread(_nothing_aside_but, "B/Good")
        await gone(mdm, device)
        assert (await calls(device)).status_code == 401
        await asyncio.to_thread(_tell_to_leave, device.id)
        (only,) = syncml.read((await calls(device)).content).commands
        assert (only.name, only.items[0].target.rpartition("/")[2]) == ("Exec", "Unenroll")


def _configure() -> None:
    for setting in ("A/Odd", "B/Good"):
        run("device-configuration", "create", setting, "--setting", setting, "--value", "1")
        run("device-configuration", "assign", setting, "--include", "Everyone")
    assert run("managed-device", "set-aside") == []


def _release() -> None:
    everywhere = run("managed-device", "set-aside")
    assert {(item["deviceName"], item["subject"]) for item in everywhere} == {
        ("PC-Alex", "A/Odd"),
        ("PC-Alex", "B/Good"),
    }
    assert run("managed-device", "set-aside", "PC-Alex") == everywhere
    assert "does not understand" in run("managed-device", "set-aside", json=False)
    with pytest.raises(context.Refused, match="no managed device"):
        run("managed-device", "release", "nothing")
    assert run("managed-device", "release", "PC-Alex", "C/None")["released"] == 0
    said = run("managed-device", "release", "PC-Alex", "A/Odd", json=False)
    assert "PC-Alex gets 1 of its commands again." in said


def _nothing_aside_but(subject: str) -> None:
    assert [item["subject"] for item in run("managed-device", "set-aside")] == [subject]
    assert run("managed-device", "strays") == []


def _tell_to_leave(id: str) -> None:
    (one,) = run("managed-device", "strays")
    assert (one["id"], one["deviceName"], one["calls"]) == (id, "PC-Alex", 1)
    assert one["unenrollOrderedDateTime"] is None
    with pytest.raises(context.Refused):
        run("managed-device", "tell-to-leave", "nobody")
    assert run("managed-device", "tell-to-leave", id) == {"id": id}
    assert run("managed-device", "strays")[0]["unenrollOrderedDateTime"]
