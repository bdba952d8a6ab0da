"""Hostile sessions over HTTP: XML, other devices, replays, answers nobody asked for (section 20).

What is refused is refused without a word, changes nothing, and the device's next session is as if
nothing had been.
"""

import base64
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from mdm_world import MANAGEMENT, Mdm, TestDevice, new_id
from tandem.protocols import syncml
from tandem.protocols.syncml import Command, Item, Message, Results, Status
from tandem.tenant import enrollment

Bend = Callable[[bytes], bytes]
SECRET = "s3cret-of-a-file"


async def post(mdm: Mdm, device: TestDevice, data: bytes, path: str = "/ManagementServer/MDM.svc"):  # type: ignore[no-untyped-def]
    mdm.peer.certificate = device.certificate
    return await mdm.management.post(path, content=data)


async def inventory(mdm: Mdm, device: TestDevice) -> dict[str, object]:
    async with mdm.database.transaction() as tx:
        return dict((await enrollment.device(tx, device.id)).inventory)


def opening(device: TestDevice, session: str = "77", *commands: Command) -> bytes:
    return syncml.write(Message(session, 1, MANAGEMENT, device.windows_id, tuple(commands)))


def swap(old: str, new: str) -> Bend:
    def bent(message: bytes) -> bytes:
        assert old.encode() in message, old
        return message.replace(old.encode(), new.encode(), 1)

    return bent


def before(text: str) -> Bend:
    return lambda message: text.encode() + message


def coded(name: str, declared: str = "") -> Bend:
    head = f'<?xml version="1.0" encoding="{declared}"?>' if declared else ""
    return lambda message: (head + message.decode()).encode(name)


LAUGHS = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 10))
REFUSED: dict[str, Bend] = {
    "an entity": lambda m: swap(">77<", ">&e;<")(before('<!DOCTYPE x [<!ENTITY e "77">]>')(m)),
    "entities of entities": lambda m: swap(">77<", ">&l9;<")(
        before(f'<!DOCTYPE x [<!ENTITY l0 "ha">{LAUGHS}]>')(m)
    ),
    "a file": lambda m: swap(">77<", ">&f;<")(
        before('<!DOCTYPE x [<!ENTITY f SYSTEM "file://FILE">]>')(m)
    ),
    "a document type elsewhere": before('<!DOCTYPE x SYSTEM "http://127.0.0.1:1/x.dtd">'),
    "a bare document type": before("<!DOCTYPE SyncML>"),
    "UTF-16": coded("utf-16"),
    "UTF-16 without a mark": coded("utf-16-le"),
    "UTF-16 that says so": coded("utf-16", "utf-16"),
    "UTF-8 that says UTF-16": before('<?xml version="1.0" encoding="utf-16"?>'),
    "UTF-7": coded("utf-7", "utf-7"),
    "no end": lambda m: m[:-3],
    "two roots": lambda m: m + m,
    "a NUL": swap(">77<", ">7\0<"),
    "no UTF-8": lambda m: m.replace(b">77<", b">\xff\xfe<"),
    "65 levels": swap("<SyncBody>", "<SyncBody>" + "<x>" * 64 + "</x>" * 64),
    "groups without an end": swap("<SyncBody>", "<SyncBody>" + "<Atomic>" * 20_000),
    "groups of groups": swap("<SyncBody>", "<SyncBody>" + "<Atomic>" * 70 + "</Atomic>" * 70),
    "a prefix that is not declared": swap("<SyncBody>", "<SyncBody><A:Get/>"),
    "no header": lambda m: m.replace(b"SyncHdr", b"SyncHead"),
    "no body": lambda m: m.replace(b"SyncBody", b"SyncText"),
    "SOAP": lambda m: m.replace(b"SyncML", b"Envelope"),
    "a number that is none": swap("<MsgID>1<", "<MsgID>one<"),
    "a number in other digits": swap("<MsgID>1<", "<MsgID>١<"),
    "a large number": swap("<MsgID>1<", "<MsgID>99999999999<"),
    "a negative number": swap("<MsgID>1<", "<MsgID>-1<"),
    "a Status without a code": swap("<SyncBody>", "<SyncBody><Status><CmdID>3</CmdID></Status>"),
    "2,001 commands": swap("<SyncBody>", "<SyncBody>" + "<Get><CmdID>1</CmdID></Get>" * 2001),
    "10,001 items": swap("<SyncBody>", "<SyncBody><Results>" + "<Item/>" * 10_001 + "</Results>"),
    "JSON": lambda _: b'{"SyncML": {}}',
    "nothing": lambda _: b"",
    "compressed": lambda m: b"\x1f\x8b\x08\x00" + m,
    "WBXML that does not say so": lambda _: b"\x02\x9f\x53\x6a\x00",
}
TAKEN: dict[str, Bend] = {
    "a BOM": lambda m: b"\xef\xbb\xbf" + m,
    "white space": lambda m: b"\r\n  " + m,
    "a declaration": before('<?xml version="1.0" encoding="UTF-8"?>'),
    "comments": swap("<SyncBody>", "<!-- a --><SyncBody><!-- b -->"),
    "blanks around values": swap(">77<", ">\n 77 <"),
    "a prefix": lambda m: (
        m.replace(b"<", b"<d:")
        .replace(b"<d:/", b"</d:")
        .replace(b'xmlns="SYNCML', b'xmlns:d="SYNCML')
    ),
    "elements of strangers": swap("<SyncBody>", '<SyncBody><x xmlns="urn:x">y</x>'),
}


async def test_messages_that_mean_harm_are_refused_without_a_word(mdm: Mdm, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text(SECRET)
    device = await mdm.enrolled()
    good = opening(device)
    began = time.monotonic()
    for name, bend in REFUSED.items():
        data = bend(good).replace(b"FILE", str(tmp_path / "secret").encode())
        answer = await post(mdm, device, data)
        assert (name, answer.status_code, answer.content) == (name, 400, b"")
    assert time.monotonic() - began < 20, "nothing of it takes long"
    assert await device.check_in() == []


async def test_messages_as_real_devices_write_them_are_taken(mdm: Mdm) -> None:
    device = await mdm.enrolled()
    for name, bend in TAKEN.items():
        answer = await post(mdm, device, bend(opening(device)))
        assert (name, answer.status_code) == (name, 200)
        assert syncml.read(answer.content).session == "77", name


async def test_a_body_that_never_ends_is_read_no_further_than_the_limit(mdm: Mdm) -> None:
    device = await mdm.enrolled()
    pulled = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal pulled
        for _ in range(1600):
            pulled += 64
            yield b" " * 65536

    mdm.peer.certificate = device.certificate
    answer = await mdm.management.post("/ManagementServer/MDM.svc", content=endless())
    assert (answer.status_code, answer.content) == (413, b"")
    assert pulled <= 4096 + 128, "kilobytes"
    pulled = 0
    answer = await mdm.management.post(
        "/ManagementServer/MDM.svc",
        content=endless(),
        headers={"content-length": str(100 * 1024 * 1024)},
    )
    assert (answer.status_code, answer.content) == (413, b"")
    assert pulled <= 64
    assert await device.check_in() == []


# ---------------------------------------------------------------------- who speaks


async def test_another_devices_id_is_refused_wherever_it_stands(mdm: Mdm) -> None:
    victim = await mdm.enrolled("alex", new_id())
    other = await mdm.enrolled("sam", new_id())
    theirs = victim.windows_id
    plain = opening(other)

    def replacing(uri: str, id: str) -> str:
        return (
            f"<Replace><CmdID>4</CmdID><Item><Source><LocURI>{uri}</LocURI></Source>"
            f"<Data>{id}</Data></Item></Replace>"
        )

    bent = {
        "Source": swap(f"<LocURI>{other.windows_id}<", f"<LocURI>{theirs}<")(plain),
        "DevId": swap("<SyncBody>", f"<SyncBody>{replacing('./DevInfo/DevId', theirs)}")(plain),
        "DevId in other letters": swap(
            "<SyncBody>", f"<SyncBody>{replacing('./devinfo/DEVID', theirs)}"
        )(plain),
        "DevId in a group": swap(
            "<SyncBody>",
            f"<SyncBody><Atomic><CmdID>3</CmdID>{replacing('./DevInfo/DevId', theirs)}</Atomic>",
        )(plain),
        "DevId behind its own": swap(
            "<SyncBody>",
            "<SyncBody>"
            + replacing("./DevInfo/DevId", other.windows_id)
            + replacing("./DevInfo/DevId", theirs),
        )(plain),
    }
    known = await inventory(mdm, victim)
    for name, data in bent.items():
        answer = await post(mdm, other, data)
        assert (name, answer.status_code, answer.content) == (name, 401, b"")
    assert await inventory(mdm, victim) == known
    assert await victim.check_in() == await other.check_in() == []


async def test_a_certificate_of_nobody_or_of_another_ca_gets_the_same_nothing(
    mdm: Mdm,
) -> None:
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import Encoding

    from tandem import pki

    device = await mdm.enrolled()
    mine = x509.load_der_x509_certificate(device.certificate)
    forger = pki.new_root(
        pki.name("Tandem MDM Device CA", organization="Contoso"), now=mdm.world.at
    )
    forged = forger.issue(
        device.key.public_key(), mine.subject, now=mdm.world.at, days=9, usages=["client"]
    ).public_bytes(Encoding.DER)
    seen = set()
    for certificate in (b"", b"junk", forged):
        for source in (device.windows_id, new_id(), ""):
            mdm.peer.certificate = certificate
            message = syncml.write(Message("1", 1, MANAGEMENT, source))
            answer = await mdm.management.post("/ManagementServer/MDM.svc", content=message)
            seen.add((answer.status_code, answer.content, tuple(sorted(answer.headers))))
    assert len(seen) == 1
    ((code, content, _),) = seen
    assert (code, content) == (401, b"")
    assert await device.check_in() == []


async def test_headers_that_name_a_certificate_are_not_believed(mdm: Mdm) -> None:
    """Only the listener says who the peer is."""
    device = await mdm.enrolled()
    der = base64.b64encode(device.certificate).decode()
    mdm.peer.certificate = None
    for name in ("X-Client-Cert", "X-SSL-Client-Cert", "X-ARR-ClientCert", "SSL-Client-Cert"):
        answer = await mdm.management.post(
            "/ManagementServer/MDM.svc", content=opening(device), headers={name: der}
        )
        asked = syncml.read(answer.content)
        assert (asked.statuses[0].code, asked.commands) == (407, ()), "it has to prove itself"


# ---------------------------------------------------------------------- order and answers


async def test_replayed_and_reordered_messages_do_nothing_twice(mdm: Mdm) -> None:
    device = await mdm.enrolled()
    device.nodes = {"./DevDetail/FwV": "1.0"}
    first = await device.begins()
    session = str(device.session)
    two = syncml.write(Message(session, 2, MANAGEMENT, device.windows_id, **device.replies(first)))
    again = two.replace(b">1.0<", b">2.0<")
    assert two != again
    one = (await post(mdm, device, two)).content
    assert (await inventory(mdm, device))["firmware_version"] == "1.0"
    # The same number once more, with other words: the answer that was given, and nothing kept.
    assert (await post(mdm, device, again)).content == one
    assert (await inventory(mdm, device))["firmware_version"] == "1.0"
    for number in (1, 0):
        late = syncml.write(Message(session, number, MANAGEMENT, device.windows_id))
        if number:
            late = late.replace(b"<MsgID>1<", b"<MsgID>01<")
        read = syncml.read((await post(mdm, device, late)).content)
        assert read.final
    # Of a session that is over: nothing is asked, and nothing is believed.
    ended = again.replace(b"<MsgID>2<", b"<MsgID>9<").replace(
        f"<SessionID>{session}<".encode(), b"<SessionID>4711<"
    )
    read = syncml.read((await post(mdm, device, ended)).content)
    assert read.commands == ()
    assert (await inventory(mdm, device))["firmware_version"] == "1.0"
    assert await device.check_in() == []


async def test_answers_to_what_nobody_asked_change_nothing(mdm: Mdm) -> None:
    device = await mdm.enrolled()
    first = await device.begins()
    known = await inventory(mdm, device)
    asked = {item.target: command.id for command in first.commands for item in command.items}
    (uri, right), *_ = [(u, i) for u, i in asked.items() if u.endswith("SwV")]
    wrong = "10.0.99999.1"
    results = []
    for message, command in (("1", "999"), ("7", right), ("1", ""), ("1", "0"), ("", "x" * 500)):
        results.append(Results("9", message, command, (Item(source=uri, data=wrong),)))
    # The right reference, and a node that nobody reads.
    results.append(Results("9", "1", right, (Item(source="./Vendor/MSFT/X", data=wrong),)))
    statuses = tuple(
        Status(str(n), "1", ref, "Exec", code)
        for n, (ref, code) in enumerate((("999", 200), ("-1", 500), ("0", 999), (right, 9999)), 20)
    )
    await device.says(2, statuses=statuses, results=tuple(results))
    after = await inventory(mdm, device)
    assert wrong not in map(str, after.values())
    assert {**known, **after} == after
    assert await device.check_in() == []


async def test_megabytes_of_base64_are_cut_not_kept(mdm: Mdm) -> None:
    device = await mdm.enrolled()
    first = await device.begins()
    (asked,) = [c for c in first.commands if c.items[0].target.endswith("FwV")]
    large = base64.b64encode(b"\0\x01\xff" * 1_000_000).decode()
    item = Item(source="./DevDetail/FwV", data=large, format="b64")
    began = time.monotonic()
    answer = await device.says(2, results=(Results("3", "1", asked.id, (item,)),))
    assert answer.statuses[0].code == 200
    assert time.monotonic() - began < 5
    assert len(str((await inventory(mdm, device)).get("firmware_version", ""))) <= 512
    assert await device.check_in() == []


async def test_poisoned_values_are_kept_as_text(mdm: Mdm) -> None:
    device = await mdm.enrolled()
    poison = '=HYPERLINK("http://x")\'; DROP TABLE enrollment_device;-- <script>\u202e\u0085'
    device.nodes = {"./DevDetail/SwV": poison, "./DevDetail/OEM": poison}
    assert await device.check_in() == []
    (row,) = (await mdm.graph("GET", "deviceManagement/managedDevices")).json()["value"]
    assert row["manufacturer"].startswith("=HYPERLINK")
    assert await device.check_in() == []


@pytest.mark.parametrize("code", ["1226", "1224"])
async def test_alerts_about_nothing_of_ours_are_passed_over(mdm: Mdm, code: str) -> None:
    device = await mdm.enrolled()
    install = "Reversed-Domain-Name:com.microsoft.mdm.win32csp_install"
    odd = [
        Item(source=source, data=data, type=kind)
        for kind in (install, "urn:unknown", "", "x" * 5000)
        for source in (
            "",
            "./x",
            "./Device/Vendor/MSFT/EnterpriseDesktopAppManagement/MSI/%7B/../x",
        )
        for data in ("0", "-2147023293", "9" * 400, "NaN", "", "<x>", "\u0661")
    ]
    alerts = [Command("Alert", str(n), (item,), code) for n, item in enumerate(odd, 10)]
    answer = await device.begins(*alerts)
    assert [status.code for status in answer.statuses] == [200] * (len(alerts) + 3)
    assert await device.check_in() == []


async def test_command_ids_that_come_twice_or_not_at_all_do_not_confuse(mdm: Mdm) -> None:
    device = await mdm.enrolled()
    twice = (Command("Alert", "5", (), "1224"), Command("Alert", "5", (), "1224"))
    answer = await device.begins(*twice, Command("Alert", "", (), "1224"))
    mine = [status.id for status in answer.statuses] + [command.id for command in answer.commands]
    assert len(mine) == len(set(mine)), "our own ids are our own"
    assert "0" not in mine
    assert await device.check_in() == []
