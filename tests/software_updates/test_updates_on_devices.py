"""From the administrator's word to dpkg, and back to the administrator: over TLS, with real packages."""

import hashlib
import json
import os
from datetime import timedelta
from pathlib import Path

import pytest
from starlette.requests import Request
from starlette.responses import Response

from one_site import UPDATES_ID, UPDATES_PREFIX, log
from software_updates.conftest import Device, deb
from tandem.agent import locks
from tandem.agent.installation import client_folder
from tandem.protocols import ccm
from tandem.workloads import Workload


async def test_what_is_due_is_installed_and_reported_once(device: Device) -> None:
    device.installs("lab", "1.0")
    id = await device.update(**device.offers("lab", "2.0"))
    await device.approve(id, due=False)
    await device.step()
    # Without a deadline it is offered, compared and told, and nothing is installed.
    assert await device.stands() == {"CVE-2026-1": ("required", "1.0")}
    assert device.has("lab") == "1.0"
    await device.approve(id)
    await device.step()
    assert device.has("lab") == "2.0"
    assert (device.root / "opt/lab").read_text() == "2.0"
    assert await device.stands() == {"CVE-2026-1": ("installed", "2.0")}
    told = await device.told()
    assert told == [(501, 3), (500, 2), (500, 3)]
    for _ in range(3):
        await device.step()
    await device.again()
    await device.step()
    assert await device.told() == told


async def test_an_unchanged_list_is_told_in_one_word(device: Device) -> None:
    id = await device.update()
    await device.approve(id)
    await device.step()
    asked = len(device.site.seen)
    await device.step()
    lists = [r for r in device.site.seen[asked:] if r.url.path.startswith(UPDATES_PREFIX)]
    (again,) = lists
    assert again.headers["if-none-match"]
    # A restarted agent has the list still: it is verified again, and not fetched again.
    await device.again()
    await device.step()
    assert device.site.seen[-1] is not again
    assert [line for line in log(device.machine, "WUAHandler") if "approves" in line] == [
        "The software update point approves 0 updates.",
        "The software update point approves 1 updates.",
    ]


async def test_while_the_mdm_service_owns_the_workload_nothing_is_installed_and_why_is_said(
    device: Device,
) -> None:
    device.installs("lab", "1.0")
    id = await device.update(**device.offers("lab", "2.0"))
    device.moved = (Workload.WINDOWS_UPDATE,)
    await device.step()
    await device.approve(id)
    await device.step()
    assert device.has("lab") == "1.0"
    shown = await device.shown()
    (one,) = shown["updates"]
    assert (one["state"], one["code"]) == ("required", "owner.mdm")
    assert "The MDM service owns Windows Update policies" in one["text"]
    assert (shown["scan"]["installs"], shown["scan"]["code"]) == (False, "owner.mdm")
    device.moved = ()
    await device.step()
    assert device.has("lab") == "2.0"
    shown = await device.shown()
    assert (shown["scan"]["installs"], shown["scan"]["text"]) == (True, "")
    assert shown["counts"]["installed"] == 1


async def test_what_is_due_is_installed_while_the_site_gives_no_policy(device: Device) -> None:
    device.installs("lab", "1.0")
    id = await device.update(**device.offers("lab", "2.0"))
    decided = {"updates": [id], "collection": "SMS00001", "decision": "approved"}
    deadline = (device.site.now() + timedelta(seconds=30)).isoformat()
    await device.api("POST", "/decisions", {**decided, "deadline": deadline})
    await device.step()
    assert await device.stands() == {"CVE-2026-1": ("required", "1.0")}
    served, asked = device.site.relay, []

    def troubled(request: Request) -> Response | None:
        if request.url.path.endswith("/.sms_pol"):
            asked.append(request)
            return Response(status_code=503)
        return served(request)

    device.site.relay = troubled
    device.site.now.passes(seconds=60)
    device.client.wake()
    await device.client.step()
    assert asked
    assert device.has("lab") == "2.0"


async def test_declined_wins_and_what_is_withdrawn_is_offered_no_more(device: Device) -> None:
    device.installs("lab", "1.0")
    content = device.offers("lab", "2.0")
    id = await device.update(**content)
    await device.approve(id)
    await device.decline(id)
    await device.step()
    assert (device.has("lab"), await device.stands()) == ("1.0", {})
    await device.api("DELETE", f"/{id}/decisions/SMS00001")
    await device.api("DELETE", f"/{id}/decisions/SMS00001", status=404)
    await device.step()
    assert await device.stands() == {}
    await device.approve(id)
    await device.step()
    assert device.has("lab") == "2.0"


async def test_what_is_superseded_is_not_offered_beside_its_successor(device: Device) -> None:
    device.installs("lab", "1.0")
    old = await device.update(article="CVE-1", superseded_by="CVE-2", **device.offers("lab", "2.0"))
    new = await device.update(article="CVE-2", fixed_version="3.0", **device.offers("lab", "3.0"))
    await device.approve(old, due=False)
    await device.step()
    assert await device.stands() == {"CVE-1": ("required", "1.0")}
    await device.approve(new)
    await device.step()
    assert await device.stands() == {"CVE-2": ("installed", "3.0")}
    refused = await device.api(
        "POST",
        "",
        {"package": "lab", "fixed_version": "1", "article": "CVE-3", "superseded_by": "CVE-3"},
        status=400,
    )
    assert refused["error"]["code"] == "software-update.bad"
    circle = "package,fixed_version,article,superseded_by\nlab,4,CVE-2,CVE-1\n"
    refused = await device.api("POST", "/import", {"format": "csv", "content": circle}, status=409)
    assert refused["error"]["code"] == "software-update.circular"
    assert (await device.api("GET", f"/{new}"))["fixed_version"] == "3.0"


async def test_an_update_concerns_what_is_installed_of_its_package_in_its_release(
    device: Device,
) -> None:
    device.installs("libssl3", "3.0.1-1", source="openssl")
    device.installs("openssl", "3.0.1-1")
    ids = [
        await device.update(package="absent", article="CVE-1"),
        await device.update(package="openssl", article="CVE-2", release="trixie"),
        await device.update(
            package="openssl", article="CVE-3", release="bookworm", fixed_version="3.0.1-1"
        ),
        await device.update(
            package="openssl", article="CVE-4", source=True, fixed_version="3.0.1-1+deb12u1"
        ),
    ]
    await device.approve(*ids, due=False)
    await device.step()
    assert await device.stands() == {
        "CVE-1": ("not-applicable", ""),
        "CVE-2": ("not-applicable", ""),
        "CVE-3": ("installed", "3.0.1-1"),
        "CVE-4": ("required", "3.0.1-1"),
    }
    # Somebody updates one of the two by hand: the source is as old as its oldest package.
    device.installs("openssl", "3.0.1-1+deb12u1")
    await device.step()
    assert (await device.stands())["CVE-4"] == ("required", "3.0.1-1")
    device.installs("libssl3", "3.0.1-1+deb12u1", source="openssl")
    await device.step()
    assert (await device.stands())["CVE-4"] == ("installed", "3.0.1-1+deb12u1")


@pytest.mark.parametrize(("script", "version"), [("preinst", "1.0"), ("postinst", "2.0")])
async def test_what_fails_says_why_and_is_tried_again(
    device: Device, script: str, version: str
) -> None:
    """Before anything is unpacked, and when it is there and cannot be configured."""
    device.installs("lab", "1.0")
    id = await device.update(**device.offers("lab", "2.0", broken=script))
    await device.approve(id)
    await device.step()
    (one,) = (await device.shown())["updates"]
    assert (one["state"], one["code"], one["version"]) == (
        "failed",
        "update.install-failed",
        version,
    )
    assert one["text"].startswith("dpkg ended with 1.")
    await device.step()
    assert (await device.told(402)) == [(402, 11)]
    # The content is corrected, and an hour of the device is over.
    content = device.offers("lab", "2.0-1")
    await device.api(
        "POST",
        "/import",
        {
            "format": "csv",
            "content": "package,fixed_version,article,url,sha256\n"
            f"lab,2.0,CVE-2026-1,{content['url']},{content['sha256']}\n",
        },
    )
    await device.step()
    assert await device.stands() == {"CVE-2026-1": ("installed", "2.0-1")}


async def test_content_that_is_not_what_was_announced_is_not_installed(device: Device) -> None:
    device.installs("lab", "1.0")
    content = device.offers("lab", "2.0")
    device.served["/content/lab_2.0.deb"] += b"\0"
    await device.approve(await device.update(**content))
    await device.step()
    (one,) = (await device.shown())["updates"]
    assert (one["state"], one["code"]) == ("failed", "app.wrong-hash")
    assert device.has("lab") == "1.0"


async def test_without_content_of_its_own_apt_takes_it_from_the_devices_archives(
    device: Device, tmp_path: Path
) -> None:
    device.installs("lab", "1.0", source="labs")
    archive = tmp_path / "archive"
    archive.mkdir()
    data = deb(tmp_path, "lab", "1.5", source="labs")
    (archive / "lab.deb").write_bytes(data)
    control = (tmp_path / "lab-1.5/DEBIAN/control").read_text()
    (archive / "Packages").write_text(
        f"{control}Filename: ./lab.deb\nSize: {len(data)}\n"
        f"SHA256: {hashlib.sha256(data).hexdigest()}\n"
    )
    (device.root / "etc/apt/sources.list").write_text(f"deb [trusted=yes] file:{archive} ./\n")
    for folder in ("var/lib/apt/lists/partial", "var/cache/apt/archives/partial", "var/log/apt"):
        (device.root / folder).mkdir(parents=True)
    ids = [
        await device.update(package="labs", source=True, article="CVE-1", fixed_version="1.5"),
        await device.update(package="labs", source=True, article="CVE-2", fixed_version="1.6"),
    ]
    await device.approve(*ids)
    await device.step()
    assert device.has("lab") == "1.5"
    assert await device.stands() == {"CVE-1": ("installed", "1.5"), "CVE-2": ("failed", "1.5")}
    failed = next(one for one in (await device.shown())["updates"] if one["state"] == "failed")
    assert failed["code"] == "update.not-there"


@pytest.mark.parametrize("twist", ["unsigned", "other", "policy"])
async def test_a_list_that_the_site_did_not_sign_for_this_client_changes_nothing(
    device: Device, twist: str
) -> None:
    device.installs("lab", "1.0")
    await device.approve(await device.update(**device.offers("lab", "2.0")))
    now = device.site.now()
    forged = ccm.UpdateList("GUID:OTHER", now, now.replace(year=now.year + 1), [])
    sealed = {
        "unsigned": json.dumps({"client_id": device.client.client_id, "updates": []}),
        "other": ccm.seal("updates", forged, device.site.identity),
        "policy": ccm.seal(
            "policy", ccm.UpdateList(device.client.client_id, now, now, []), device.site.identity
        ),
    }[twist]
    serve = device.site.relay

    def relay(request):  # type: ignore[no-untyped-def]
        if request.url.path.endswith("/.sms_upd"):
            return Response(sealed, media_type="application/jose")
        return serve(request)

    device.site.relay = relay
    await device.step()
    assert device.has("lab") == "1.0"
    shown = await device.shown()
    assert (shown["scan"]["state"], shown["scan"]["code"]) == ("failed", "client.bad-document")
    device.site.relay = serve
    await device.step()
    assert device.has("lab") == "2.0"


async def test_nobody_is_sent_to_another_server(device: Device) -> None:
    device.site.update_points = [
        ccm.UpdatePoint(f"elsewhere.invalid/CCM_Proxy_MutualAuth/{UPDATES_ID}", "Internet")
    ]
    await device.again()
    await device.step()
    assert not [r for r in device.site.seen if "elsewhere" in str(r.url)]
    assert any("another server" in line for line in log(device.machine, "WUAHandler"))
    shown = await device.shown()
    assert (shown["scan"]["state"], shown["scan"]["code"]) == ("failed", "scan.no-update-point")


async def test_an_installation_that_outlived_its_agent_is_waited_for(device: Device) -> None:
    device.installs("lab", "1.0")
    await device.approve(await device.update(**device.offers("lab", "2.0")))
    lock = locks.lasting(
        client_folder(device.machine.state, True).path / "updates/software-updates.run"
    )
    await device.again()
    await device.step()
    assert device.has("lab") == "1.0"
    assert "An earlier installation goes on; it is waited for." in log(device.machine, "WUAHandler")
    os.close(lock)
    await device.step()
    assert device.has("lab") == "2.0"
    assert await device.stands() == {"CVE-2026-1": ("installed", "2.0")}
