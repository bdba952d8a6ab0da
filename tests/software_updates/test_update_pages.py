"""The software update point and updates as an administrator has them: pages and commands."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

import site_world
from browsing import Browser, browsing
from site_world import PASSWORD, Site
from tandem.infra.database import Database
from tandem.protocols import ccm
from tandem.site import clients, collections, software_updates

CSV = (
    "package,fixed_version,article,severity,release\n"
    "openssl,3.0.17-1~deb12u2,CVE-2025-9230,important,bookworm\n"
    "tree,2.1-2,CVE-2026-7,low,\n"
)
TRACKER = """{"openssl": {"CVE-2025-9230": {"description": "Out of bounds.", "releases": {
  "bookworm": {"status": "resolved", "fixed_version": "3.0.17-1~deb12u2", "urgency": "high"},
  "sid": {"status": "resolved", "fixed_version": "3.5.3-1", "urgency": "not yet assigned"},
  "trixie": {"status": "open"}}},
 "CVE-2020-1": {"releases": {"bookworm": {"status": "resolved", "fixed_version": "0"}}}}}"""


@pytest.fixture
async def world(site_db: Database, tmp_path: Path) -> AsyncIterator[Site]:
    async with site_world.site(site_db, tmp_path) as made:
        yield made


@pytest.fixture
async def browser(world: Site) -> AsyncIterator[Browser]:
    async with browsing(world.app, "siteadmin", PASSWORD) as made:
        yield made


async def device(world: Site, name: str) -> clients.Client:
    """A client that the site knows."""
    id = clients.ClientId(f"GUID:{name}")
    now = world.cloud.now()
    async with world.db.transaction() as tx:
        await tx.execute(
            "INSERT INTO clients_client (id, tenant_id, device_id, thumbprint, name, os_name,"
            " os_version, client_version, approval, registered_at, last_seen_at)"
            " VALUES (%s, 't', %s, %s, %s, 'Linux', '12', '0.1.0', 3, %s, %s)",
            (id, f"d-{name}", f"t-{name}", name, now, now),
        )
        known = collections.Resource(id, name, "t", f"d-{name}", "Linux", "12", "0.1.0")
        await collections.upsert_resource(tx, known, now)
        return await clients.find(tx, id)


async def says(world: Site, client: clients.Client, topic: int, state: int, data: Any) -> None:
    message = ccm.Message("m", topic, state, world.cloud.now(), data)
    async with world.db.transaction() as tx:
        await software_updates.take(tx, client, message, world.cloud.now())


async def test_from_a_file_to_what_became_of_it_on_devices(world: Site, browser: Browser) -> None:
    one, two = [await device(world, name) for name in ("LAB-001", "LAB-002")]
    await browser.open("/console/software-updates")
    assert "No update is like that." in browser.main
    assert "The wire between WSUS and Windows is not in this version" in browser.main
    await browser.follow("Import a file")
    broken = CSV.replace("2.1-2", "two")
    await browser.press("Import", files={"file": ("updates.csv", broken.encode())}, format="csv")
    said = browser.said("file")
    assert "Line 3, column fixed_version: this is no version of a Debian package" in said
    assert (await world.run("software-update", "list"))["total"] == 0
    await browser.press("Import", files={"file": ("updates.csv", CSV.encode())}, format="csv")
    assert "2 new, 0 changed, 0 as they were." in browser.main
    await browser.follow("CVE-2025-9230")
    assert "Nothing is decided: no device is offered it." in browser.main
    await browser.follow("Approve or decline")
    await browser.press("Decide", collection="SMS00001", decision="approved", deadline="2026-12-01")
    assert "2 devices of All Systems install this from 2026-12-01 on." in browser.main
    await browser.press("Approve")
    assert "Approved." in browser.main
    assert "0 of 2 devices have it" in browser.main
    (update,) = (await world.run("software-update", "list", "--search", "openssl"))["updates"]
    fact = {"version": "3.0.1", "code": "owner.mdm", "text": "The MDM service owns it."}
    data = {"updates": {update["id"]: fact}, "series": "aa", "number": 2}
    await says(world, one, ccm.DETECTION_TOPIC, ccm.REQUIRED, data)
    installed = {"updates": {update["id"]: {"version": "3.0.17-1~deb12u2"}}}
    await says(world, two, ccm.DETECTION_TOPIC, ccm.INSTALLED, installed)
    scan = {"installs": False, "code": "owner.mdm", "text": "The MDM service owns it."}
    await says(world, one, ccm.SCAN_TOPIC, ccm.SCAN_COMPLETED, scan)
    await browser.open(f"/console/software-updates/{update['id']}")
    assert "1 of 2 devices have it" in browser.main
    assert "The MDM service owns it." in browser.main
    await browser.follow("LAB-001")
    assert "Installs nothing" in browser.main
    await browser.open("/console/software-updates/devices?state=required")
    assert "LAB-001" in browser.main
    assert "LAB-002" not in browser.main
    shown = await world.run("software-update", "show", "CVE-2025-9230")
    assert shown["counts"] == {
        **dict.fromkeys(("failed", "unknown", "not_applicable"), 0),
        "required": 1,
        "installed": 1,
    }
    listed = (await world.run("software-update", "devices"))["devices"]
    assert [one["device"] for one in listed] == ["LAB-001", "LAB-002"]
    found = await world.run("software-update", "device", "LAB-001")
    assert found["updates"][0]["code"] == "owner.mdm"
    # An older report that comes late changes nothing, whatever the device's clock said.
    late = {"updates": {update["id"]: {"version": "2"}}, "series": "aa", "number": 1}
    for year in (2020, 2030):
        at = world.cloud.now().replace(year=year)
        async with world.db.transaction() as tx:
            message = ccm.Message(f"late {year}", 500, 2, at, late)
            await software_updates.take(tx, one, message, max(at, world.cloud.now()))
    found = await world.run("software-update", "device", "LAB-001")
    assert found["updates"][0]["version"] == "3.0.1"
    await browser.open(f"/console/software-updates/{update['id']}")
    await browser.press("Take back")
    assert "The decision was taken back." in browser.main
    await browser.press("Delete")
    assert "It is offered to no device any more." in browser.main
    await browser.press("Delete")
    assert (await world.run("software-update", "list"))["total"] == 1


async def test_several_are_decided_together_and_a_new_one_is_described(
    world: Site, browser: Browser
) -> None:
    await browser.open("/console/software-updates/new")
    await browser.press("Create", package="Open SSL", fixed_version="1", article="CVE-1")
    assert "this is no name of a Debian package" in browser.said("package")
    await browser.press("Create", package="openssl")
    assert "It reaches nobody before it is approved." in browser.main
    await world.run("software-update", "create", "tree", "2.1", "CVE-2")
    ids = [one["id"] for one in (await world.run("software-update", "list"))["updates"]]
    await browser.open("/console/software-updates")
    await browser.press("Approve or decline")
    assert "Choose at least one update." in browser.main
    await browser.press("Approve or decline", update=ids)
    await browser.press("Decide", collection="SMS00001", decision="declined")
    listed = (await world.run("software-update", "list", "--decision", "declined"))["updates"]
    assert {one["id"] for one in listed} == set(ids)
    refused = await world.refusal("software-update", "create", "tree", "2.2", "CVE-2")
    assert refused.code == "software-update.exists"


async def test_a_debian_tracker_is_taken_for_one_release(world: Site) -> None:
    file = world.folder / "tracker.json"
    file.write_text(TRACKER)
    words = ("software-update", "import", file, "--format", "debian-tracker")
    made = await world.run(*words, "--release", "bookworm")
    assert (made["created"], made["changed"], made["same"]) == (1, 0, 0)
    made = await world.run(*words)
    assert (made["created"], made["changed"], made["same"]) == (1, 0, 1)
    found = (await world.run("software-update", "list", "--release", "bookworm"))["updates"]
    (one,) = found
    assert (one["package"], one["source"], one["severity"]) == ("openssl", True, "important")
    for broken, where in (
        (TRACKER.replace('"3.5.3-1"', "7"), "$[...][...].releases[...].fixed_version"),
        (TRACKER[:60], "truncated"),
        (TRACKER.replace('"openssl"', '"Open SSL"'), "$.Open SSL.CVE-2025-9230"),
        ("[" * 100_000, ""),
    ):
        file.write_text(broken)
        refused = await world.refusal(*words)
        assert refused.code == "software-update.bad-file", broken
        assert where in refused.message


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("package,article\ntree,CVE-1\n", "Line 1: the column fixed_version is missing"),
        ("package,fixed_version,article,colour\n", "Line 1: there is no column 'colour'"),
        ("package,fixed_version,article\ntree,1\n", "Line 2: it has 2 fields"),
        ('package,fixed_version,article\n"tree,1,CVE-1\n', "Line 2: unexpected end of data"),
        (
            "package,fixed_version,article\ntree,1,CVE-1\ntree,2,cve-1\n",
            "Line 3: this is the update of line 2 again",
        ),
        ("package,fixed_version,article,sha256\ntree,1,CVE-1,aa\n", "Line 2, column sha256"),
        ("", "Line 1: the column package is missing"),
        ("package,fixed_version,article\n", "no update that could be approved"),
    ],
)
async def test_a_bad_file_is_refused_with_its_position(world: Site, text: str, where: str) -> None:
    file = world.folder / "updates.csv"
    file.write_text(text)
    refused = await world.refusal("software-update", "import", file, "--format", "csv")
    assert refused.code == "software-update.bad-file"
    assert where in refused.message
    assert (await world.run("software-update", "list"))["total"] == 0


async def test_the_point_takes_gateway_traffic_by_itself_or_says_why_it_cannot(
    world: Site, browser: Browser
) -> None:
    await browser.open("/console/site-systems")
    await browser.follow("Software update point")
    await browser.press("Save", allow_gateway_traffic="1")
    assert "The software update point takes gateway traffic." in browser.main
    shown = await world.run("software-update-point", "show")
    assert shown["endpoints"][0]["prefix"].endswith(f"{shown['role_id']}/SMS_SUP")
    # The management point's own traffic is another decision.
    assert not (await world.run("management-point", "show"))["allow_gateway_traffic"]
    refused = await world.refusal("site", "properties", "set", "--no-enhanced-http")
    assert "The software update point takes gateway traffic" in refused.message
    await browser.press("Save", allow_gateway_traffic=None)
    assert "The software update point takes no gateway traffic." in browser.main
    assert (await world.run("software-update-point", "show"))["endpoints"] == []
    async with world.db.transaction() as tx:
        await tx.execute("DELETE FROM properties_credential WHERE role = 'site-systems'")
    await browser.open("/console/site-systems/software-update-point")
    assert browser.page.xpath("//input[@name='allow_gateway_traffic']/@disabled")
    refused = await world.refusal("software-update-point", "set", "--allow-gateway-traffic")
    assert refused.code == "management-point.insecure"
