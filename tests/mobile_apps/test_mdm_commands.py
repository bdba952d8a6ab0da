"""The commands for apps, configurations and managed devices, against a real tenant over TLS."""

import asyncio
import zipfile
from functools import partial
from importlib import resources
from pathlib import Path

import pytest

from command_world import answered, signed_in
from mdm_world import live_mdm
from tandem.cli import (
    actions,
    app,
    comanagement_settings,
    configuration_policy,
    context,
    device_configuration,
    enrollment_restriction,
    managed_device,
    mdm_authority,
    settings_catalogue,
)
from tandem.infra.database import Database
from tandem.tenant import mobile_apps

NOUNS = {
    "actions": actions.app,
    "app": app.app,
    "comanagement-settings": comanagement_settings.app,
    "device-configuration": device_configuration.app,
    "enrollment-restriction": enrollment_restriction.app,
    "managed-device": managed_device.app,
    "mdm-authority": mdm_authority.app,
    "configuration-policy": configuration_policy.app,
    "settings-catalogue": settings_catalogue.app,
}
SETTING = "DeviceLock/MaxInactivityTimeDeviceLock"


run = partial(answered, NOUNS)


async def test_an_app_and_a_setting_reach_a_device_by_the_command_line(
    tenant_db: Database,
    tmp_path: Path,
    package: bytes,
    package_for_one_user: bytes,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "client.msi").write_bytes(package)
    (tmp_path / "wrong.msi").write_bytes(b"MZ")
    (tmp_path / "line").write_text('CCMSETUPCMD="SMSSITECODE=P01"\n')
    async with (
        live_mdm(tenant_db, tmp_path) as (mdm, root, _),
        signed_in(mdm.world, root, tmp_path, monkeypatch),
    ):
        device = await mdm.enrolled()
        await mdm.group("Everyone", device.user.id)
        await mdm.group("Nobody")
        await asyncio.to_thread(_prepare, tmp_path)
        work = await device.check_in()
        assert sorted(command.name for command in work) == ["Add", "Exec", "Replace"]
        await asyncio.to_thread(_afterwards, device.id)
        assert "/Unenroll" in (await device.check_in())[0].items[0].target
        await asyncio.to_thread(_certificates, device.id)
        assert await asyncio.to_thread(run, "managed-device", "list", "--overdue") == []
        other = await mdm.enrolled("bob", f"{2:032X}")
        async with tenant_db.transaction() as tx:
            await tx.execute(
                "UPDATE enrollment_device SET enrolled_at = enrolled_at - interval '41 hours'"
                " WHERE id = %s",
                (other.id,),
            )
        (late,) = await asyncio.to_thread(run, "managed-device", "list", "--overdue")
        assert late["deviceName"] == "PC-Bob"
        (tmp_path / "both.msi").write_bytes(package_for_one_user)
        words = ("app", "upload", str(tmp_path / "both.msi"), "--name", "Both", "--for-users")
        await asyncio.to_thread(run, *words)
        async with tenant_db.transaction() as tx:
            (app,) = [one for one in await mobile_apps.apps(tx) if one.name == "Both"]
        assert app.properties["useDeviceContext"] is False


def _prepare(folder: Path) -> None:
    line = str(folder / "line")
    more = ("--owner", "Ada", "--notes", "From the site", "--ignore-version")
    made = run("app", "upload", str(folder / "client.msi"), "--command-line-file", line, *more)
    assert (made["owner"], made["notes"], made["ignoreVersionDetection"]) == (
        "Ada",
        "From the site",
        True,
    )
    assert (made["displayName"], made["publishingState"]) == ("Client Setup", "published")
    assert made["commandLine"] == 'CCMSETUPCMD="SMSSITECODE=P01"'
    with pytest.raises(context.Refused, match="not a Windows Installer package"):
        run("app", "upload", str(folder / "wrong.msi"))
    assert len(run("app", "list")) == 1, "what cannot be used leaves nothing behind"
    given = run(
        "app",
        "assign",
        "client setup",
        "--required",
        "--include",
        "Everyone",
        "--exclude",
        "Nobody",
    )
    assert {(item["group"], item["excluded"]) for item in given["assignments"]} == {
        ("Everyone", False),
        ("Nobody", True),
    }
    assert (given["users"], given["devices"]) == (1, 1)
    assert "Required       Everyone" in run("app", "show", "Client Setup", json=False)
    (status,) = run("app", "status", "Client Setup")
    assert status["installState"] == "notInstalled"
    _comanagement_settings()
    _restrictions()
    run("device-configuration", "create", "Lock", "--setting", SETTING, "--value", "15")
    run("device-configuration", "assign", "Lock", "--include", "Everyone")
    several = ("--set", "Camera/AllowCamera=0", "--set", "Update/AllowUpdate = 1")
    made = run("device-configuration", "create", "Several", *several)
    assert [item["value"] for item in made["omaSettings"]] == ["0", "1"]
    run("device-configuration", "assign", "Several", "--all-users", "--exclude", "Everyone")
    run("device-configuration", "delete", "Several")
    assert run("device-configuration", "list")[0]["setting"] == SETTING
    with pytest.raises(context.Refused, match="not the name of a setting"):
        run("device-configuration", "create", "X", "--setting", "no", "--value", "1")
    _catalogue(folder)
    (device,) = run("managed-device", "list")
    assert device["userPrincipalName"] == "alex@contoso.com"
    assert "15 (at the next check-in)" in run("managed-device", "show", "PC-Alex", json=False)


def _catalogue(folder: Path) -> None:
    """Settings found, imported, and put into a policy by name, id and node."""
    found = run("settings-catalogue", "search", "idle minutes lock")
    assert SETTING in [item["offsetUri"] for item in found]
    id = next(item["id"] for item in found if item["offsetUri"] == SETTING)
    assert "0 to 999" in run("settings-catalogue", "show", id, json=False)
    own = resources.files("tandem.tenant.policies") / "ddf" / "Reboot.xml"
    (folder / "Reboot.xml").write_bytes(own.read_bytes())
    with zipfile.ZipFile(folder / "files.zip", "w") as archive:
        archive.write(folder / "Reboot.xml", "DDF/Reboot.xml")
    (made,) = run("settings-catalogue", "import", str(folder / "files.zip"))
    assert (made["name"], made["nodes"]) == ("Reboot.xml", 4)
    run("settings-catalogue", "remove", "Reboot.xml")
    assert run("settings-catalogue", "files") == []
    (folder / "evil.xml").write_text('<!DOCTYPE MgmtTree [<!ENTITY a "b">]><MgmtTree/>')
    with pytest.raises(context.Refused, match="not a DDF file"):
        run("settings-catalogue", "import", str(folder / "evil.xml"))
    pairs = ("--set", "Defender/PUAProtection=block", "--set", f"{id}=9")
    policy = run("configuration-policy", "create", "Guard", *pairs)
    run("configuration-policy", "assign", "Guard", "--include", "Nobody")
    assert run("configuration-policy", "list")[0]["id"] == policy["id"]
    assert "PUAProtection" in run("configuration-policy", "status", "Guard", json=False)
    with pytest.raises(context.Refused, match="It takes 0 to 999"):
        run("configuration-policy", "create", "Bad", "--set", f"{SETTING}=1000")
    with pytest.raises(context.Refused, match="no settings 'Nobody/Knows'"):
        run("configuration-policy", "create", "Bad", "--set", "Nobody/Knows=1")
    run("configuration-policy", "delete", "Guard")


def _comanagement_settings() -> None:
    noun = "comanagement-settings"
    line = ("--command-line", "SMSSITECODE=P01", "--include", "Everyone")
    assert run(noun, "create", "First", *line)["priority"] == 1
    assert run(noun, "create", "Second", "--mdm-for-all", "--no-install")["priority"] == 2
    run(noun, "assign", "second", "--exclude", "Nobody")
    assert run(noun, "priority", "Second", "1")["priority"] == 1
    assert [item["displayName"] for item in run(noun, "list")] == ["Second", "First"]
    run(noun, "delete", "Second")
    with pytest.raises(context.Refused, match="no co-management settings policy"):
        run(noun, "delete", "Second")


def _orders() -> None:
    """Held, listed, cancelled; the safeguards read and made stronger."""
    changed = run("actions", "safeguards", "--hold-minutes", "30")
    assert (changed["holdMinutes"], changed["proposal"]) == (30, None)
    proposed = run("actions", "safeguards", "--budget-per-hour", "50", json=False)
    assert "proposes budgetPerHour 5 → 50: another administrator agrees" in proposed
    with pytest.raises(context.Refused, match="another administrator has to approve it"):
        run("actions", "safeguards", "--approve")
    assert run("actions", "safeguards", "--withdraw")["proposal"] is None
    with pytest.raises(context.Refused, match="do not go together"):
        run("actions", "safeguards", "--approve", "--withdraw")
    said = run("managed-device", "wipe", "PC-Alex", "--reason", "Lost", json=False)
    assert "cancel-action PC-Alex" in said
    (held, *_) = run("actions", "list", "--device", "PC-Alex", "--open")
    assert (held["action"], held["state"], held["reason"]) == ("wipe", "held", "Lost")
    assert run("managed-device", "cancel-action", "PC-Alex", "--action", "wipe")["cancelled"]
    with pytest.raises(context.Refused, match="Nothing that can be taken back"):
        run("managed-device", "cancel-action", "PC-Alex", "--action", "wipe")
    with pytest.raises(context.Refused, match="Nothing of PC-Alex waits for a second"):
        run("managed-device", "approve-action", "PC-Alex")
    made = run("actions", "order", "wipe", "PC-Alex", "--reason", "Lost again")
    assert (made["deviceCount"], made["state"]) == (1, "held")
    assert "Lost again" in run("actions", "requests", json=False)
    run("actions", "cancel-request", made["requestId"])
    with pytest.raises(context.Refused, match="cancelled already"):
        run("actions", "approve", made["requestId"])
    run("actions", "safeguards", "--approval-above", "0")
    asked = run("actions", "order", "wipe", "PC-Alex", "--reason", "Lost for good")
    assert "Lost for good" in run("actions", "requests", "--waiting", json=False)
    with pytest.raises(context.Refused, match="another administrator has to approve it"):
        run("managed-device", "approve-action", "PC-Alex")
    assert run("actions", "reject", asked["requestId"])["id"] == asked["requestId"]
    assert "rejected" in run("actions", "requests", json=False)


def _restrictions() -> None:
    noun = "enrollment-restriction"
    run(noun, "create-platform", "Pilots", "--minimum", "10.0.22631", "--include", "Everyone")
    run(noun, "create-platform", "Nobody", "--block", "--block-personal")
    run(noun, "create-limit", "Two", "2", "--include", "Everyone")
    run(noun, "change", "Pilots", "--block-personal")
    run(noun, "change", "limit-default", "--devices", "7")
    assert run(noun, "priority", "Nobody", "1")["priority"] == 1
    assert [(item["kind"], item["priority"], item["says"]) for item in run(noun, "list")] == [
        ("limit", 1, "2 devices of a user's own"),
        ("limit", "default", "7 devices of a user's own"),
        ("platform", 1, "Windows is blocked"),
        ("platform", 2, "from 10.0.22631, no personal devices"),
        ("platform", "default", "everything is allowed"),
    ]
    with pytest.raises(context.Refused, match="no version"):
        run(noun, "change", "Pilots", "--maximum", "eleven")
    run(noun, "assign", "Nobody", "--include", "Everyone")
    run(noun, "delete", "Nobody")
    with pytest.raises(context.Refused, match="no enrolment restriction"):
        run(noun, "delete", "Nobody")


def _certificates(id: str) -> None:
    profile = run("mdm-authority", "certificate-profile", "--validity", "30", "--renewal", "10")
    assert (profile["validityDays"], profile["renewalDays"], profile["keyBits"]) == (30, 10, 2048)
    with pytest.raises(context.Refused, match="Devices renew"):
        run("mdm-authority", "certificate-profile", "--renewal", "30")
    (one,) = run("managed-device", "certificates", id)
    assert (one["state"], one["reason"]) == ("active", None)
    with pytest.raises(context.Refused, match="no certificate"):
        run("managed-device", "revoke-certificate", id, "12ab")
    done = run(
        "managed-device", "revoke-certificate", id, one["serialNumber"], "--reason", "keyCompromise"
    )
    assert (done["state"], done["reason"]) == ("revoked", "keyCompromise")
    (one,) = run("managed-device", "certificates", id)
    assert one["state"] == "revoked"


def _afterwards(id: str) -> None:
    assert "installing" in run("app", "status", "Client Setup", json=False)
    (app,) = run("managed-device", "apps", "PC-Alex")
    assert (app["intent"], app["reasons"][0]["groupDisplayName"]) == ("requiredInstall", "Everyone")
    told = run("managed-device", "apps", "PC-Alex", json=False)
    assert "required by the user, Everyone: decides" in told
    with pytest.raises(context.Refused, match="not available"):
        run("managed-device", "choose-app", "PC-Alex", "Client Setup")
    (error,) = run("app", "errors", "-2147023293")
    assert error["name"] == "ERROR_INSTALL_FAILURE"
    assert "15 minutes" in run("app", "errors", "0x80070652", json=False)
    with pytest.raises(context.Refused, match="no code"):
        run("app", "errors", "what")
    shown = run("managed-device", "show", id)
    (setting,) = shown["settings"]
    assert {name: setting[name] for name in ("setting", "wanted", "delivered", "status")} == {
        "setting": SETTING,
        "wanted": "15",
        "delivered": "15",
        "status": 200,
    }
    told = run("managed-device", "why", "PC-Alex", SETTING, json=False)
    assert f"{SETTING} on PC-Alex: success" in told
    assert "wins         Lock = 15\n      included: the user in Everyone" in told
    counted = run("device-configuration", "status", "Lock")["settings"][0]["counts"]
    assert (counted["success"], counted["pending"]) == (1, 0)
    assert "Enrolled in MDM by alex@contoso.com" in [item["text"] for item in shown["timeline"]]
    run("managed-device", "sync", "PC-Alex")
    run("managed-device", "restart", "PC-Alex")
    run("managed-device", "rename", id, "LAB-%RAND:3%")
    with pytest.raises(context.Refused, match="no name of a Windows computer"):
        run("managed-device", "rename", id, "a b")
    run("managed-device", "scan", id, "--full")
    (listed,) = run("managed-device", "list")
    assert {item["actionName"] for item in listed["deviceActionResults"]} >= {
        "rebootNow",
        "setDeviceName",
        "windowsDefenderScan",
    }
    run("device-configuration", "delete", "Lock")
    assert "(removed at the next check-in)" in run("managed-device", "show", id, json=False)
    assert run("managed-device", "retire", "PC-Alex", "--yes")["state"] == "pending"
    assert "ordered of PC-Alex before" in run(
        "managed-device", "unenrol", "PC-Alex", "--yes", json=False
    )
    assert run("managed-device", "list")[0]["managementState"] == "retirePending"
    _orders()
    with pytest.raises(context.Refused, match="no managed device"):
        run("managed-device", "show", "nothing")
    run("app", "delete", "Client Setup")
    assert run("app", "list") == []
