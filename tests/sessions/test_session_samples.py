"""Every message of sessions among the wire examples, through the service's own endpoint.

Each comes from a device that enrolled with the id that the example names, inside a session where it
is not the first message. Examples that are new in the folder have to be put into the table.
"""

from pathlib import Path

from mdm_world import MANAGEMENT, Mdm, TestDevice, new_id
from tandem.protocols import syncml
from tandem.protocols.syncml import Command, Message
from tandem.tenant import enrollment

REFUSED = 400  # It is no message, and hears no words.
STRANGER = 401  # Who sends it is not who it names.

EXAMPLES = {
    "alert-1200": 200,
    "alert-1201-minimal": 200,
    "alert-aadusertoken": REFUSED,
    "alert-appuninstall-nocmdid": 200,
    "alert-deviceprepsync": 200,
    "alert-health-attestation": 200,
    "alert-hostedinstall": 200,
    "alert-loginstatus-aad": REFUSED,
    "alert-loginstatus-smartquotes": REFUSED,
    "alert-msi-install-result": 200,
    "alert-synctype-type-outside-meta": 200,
    "results-b64": 200,
    "results-multi-item-nometa": 200,
    "results-node-children": 200,
    "status-405-utf16decl": REFUSED,
    "status-add-200": 200,
    "status-admx": 200,
    "syncml-atomic-status-uuid": 200,
    "syncml-docs-unenroll-odd": STRANGER,
    "syncml-docs-utf16decl-empty-hdr": REFUSED,
    "syncml-fleet-testclient-init": 200,
    "syncml-imei-bootstrap-odj": 200,
    "syncml-no-namespace": 200,
    "syncml-real-session1-b": 200,
    "syncml-real-status202": 200,
    "syncml-real-user-unenroll": 200,
    "syncml-requestpending": 200,
    "syncml-spec-init": 200,
    "syncml-spec-results": 200,
    "syncml-unenroll-no-devinfo": 200,
}
LEAVING = {"syncml-real-user-unenroll", "syncml-unenroll-no-devinfo"}


def raw(samples: Path, name: str) -> bytes:
    return (samples / "mdm" / f"d2s-{name}.xml").read_bytes()


def test_every_example_is_in_the_table(samples: Path) -> None:
    others = ("d2s-discover-", "d2s-getpolicies-", "d2s-rst-")
    there = {f.stem for f in (samples / "mdm").glob("d2s-*.xml") if not f.name.startswith(others)}
    assert there == {f"d2s-{name}" for name in EXAMPLES}


async def test_each_example_is_answered_as_it_deserves(mdm: Mdm, samples: Path) -> None:
    user = await mdm.world.user("alex")
    devices: dict[str, TestDevice] = {}
    for name, wanted in EXAMPLES.items():
        data = raw(samples, name)
        try:
            message = syncml.read(data)
        except syncml.BadMessage:
            message = Message("1", 1, "", next(iter(devices)))
        if message.source not in devices or name in LEAVING:
            joined = await mdm.world.joined(user.user_principal_name, f"PC-{new_id()}")
            devices[message.source] = await mdm.enroll(user, joined, message.source)
        device = devices[message.source]
        if message.number > 1:
            opening = Message(message.session, 1, MANAGEMENT, message.source, ())
            assert (await device.send(opening)).status_code == 200
        mdm.peer.certificate = device.certificate
        answer = await mdm.management.post("/ManagementServer/MDM.svc", content=data)
        assert answer.status_code == wanted, name
        assert int(answer.headers["content-length"]) == len(answer.content)
        if wanted != 200:
            assert answer.content == b"", name
            continue
        assert answer.headers["content-type"].startswith("application/vnd.syncml.dm+xml")
        read = syncml.read(answer.content)
        assert (read.session, read.target, read.final) == (message.session, message.source, True)
        first = read.statuses[0]
        assert (first.message_ref, first.command_ref) == (str(message.number), "0"), name
        # A Status for each command that has an id; none for statuses and results (11.3).
        mine = [command.id for command in message.commands if command.id]
        assert [status.command_ref for status in read.statuses[1:]] == mine, name
        if message.number > 1:
            assert read.commands == (), f"{name}: nothing is configured"
        async with mdm.database.transaction() as tx:
            state = (await enrollment.device(tx, device.id)).state
        assert state == ("unenrolled" if name in LEAVING else "enrolled"), name
        if name in LEAVING:
            assert read.commands == ()
            del devices[message.source]


async def test_a_message_that_another_device_sends_changes_nothing(mdm: Mdm, samples: Path) -> None:
    """The certificate decides: a captured departure of somebody else is worth nothing."""
    data = raw(samples, "syncml-real-user-unenroll")
    victim = await mdm.enrolled("alex", syncml.read(data).source)
    other = await mdm.enrolled("sam", new_id())
    mdm.peer.certificate = other.certificate
    answer = await mdm.management.post("/ManagementServer/MDM.svc", content=data)
    assert (answer.status_code, answer.content) == (STRANGER, b"")
    assert await victim.check_in() == []


# ------------------------------------------------------------------ what we send, beside theirs


def skeleton(data: bytes) -> list[str]:
    """Tags in order without the values; ids and texts differ between services."""
    from lxml import etree

    top = etree.fromstring(data, etree.XMLParser(remove_comments=True))
    return [item.tag for item in top.iter()]


async def test_an_answer_is_built_like_the_real_ones(mdm: Mdm, samples: Path) -> None:
    theirs = (samples / "mdm" / "s2d-syncml-spec-gets.xml").read_bytes()
    device = await mdm.enrolled()
    opening = Message("1", 1, MANAGEMENT, device.windows_id, ())
    # The announcement of how much is taken is ours; the real answers have none (section 11.8).
    announced = ("{SYNCML:SYNCML1.2}Meta", "{syncml:metinf}MaxMsgSize")
    ours = [tag for tag in skeleton((await device.send(opening)).content) if tag not in announced]
    questions = len(syncml.read((await device.send(opening)).content).commands)
    (get,) = [i for i, tag in enumerate(skeleton(theirs)) if tag.endswith("}Get")][:1]
    one = skeleton(theirs)[get : get + 5]
    assert ours == [*skeleton(theirs)[:get], *one * questions, skeleton(theirs)[-1]]


async def test_the_answer_to_a_departure_is_built_like_the_real_one(
    mdm: Mdm, samples: Path
) -> None:
    theirs = (samples / "mdm" / "s2d-syncml-response-real-unenroll.xml").read_bytes().lstrip()
    data = raw(samples, "syncml-real-user-unenroll")
    device = await mdm.enrolled(windows_id=syncml.read(data).source)
    mdm.peer.certificate = device.certificate
    answer = await mdm.management.post("/ManagementServer/MDM.svc", content=data)
    ours = skeleton(answer.content)
    wanted = skeleton(theirs)
    # Theirs answers the header alone; ours the alerts too, which both work (section 11.3).
    assert list(dict.fromkeys(ours)) == list(dict.fromkeys(wanted))
    assert ours[-1] == wanted[-1]


async def test_the_order_to_leave_is_the_specifications(mdm: Mdm, samples: Path) -> None:
    """Their LocURI is a placeholder; command, format and data are taken at their word."""
    assert b"<Exec>" in (samples / "mdm" / "s2d-unenroll-exec.xml").read_bytes()
    device = await mdm.enrolled()
    await mdm.graph("POST", f"deviceManagement/managedDevices/{device.id}/retire")
    (order,) = await device.check_in()
    (item,) = order.items
    assert order == Command("Exec", order.id, (item,))
    provider = device.document.xpath("//parm[@name='PROVIDER-ID']/@value")[0]
    assert item.target == f"./Vendor/MSFT/DMClient/Provider/{provider}/Unenroll"
    assert (item.format, item.data) == ("chr", provider)
