"""A real machine's enrolment, replayed byte by byte but for its credential.

Windows 10 19043 once sent these messages, in this order, to another service. Its password is nobody
here, so each message brings a token of ours in its place; everything else is as it was captured: the
certificate request that strict parsers refuse, constant MessageIDs, repeated MAC items, DevInfo.
"""

import base64
import re
from pathlib import Path
from typing import Any

from cryptography import x509
from lxml import etree

from mdm_world import WSSE, Mdm, said, subcode
from tandem import pki
from tandem.protocols import syncml
from tandem.tenant import enrollment

DEVICE = "1E08C6E95D8BB843B1278FF45BC60CC6"


def raw(samples: Path, name: str) -> bytes:
    return (samples / "mdm" / f"d2s-{name}.xml").read_bytes()


def with_token(message: bytes, token: str) -> bytes:
    """The captured message; only its UsernameToken is another credential."""
    ours = (
        '<wsse:BinarySecurityToken ValueType="urn:ietf:params:oauth:token-type:jwt"'
        f' EncodingType="{WSSE}#base64binary">{base64.b64encode(token.encode()).decode()}'
        "</wsse:BinarySecurityToken>"
    )
    swapped, count = re.subn(
        rb"<wsse:UsernameToken.*?</wsse:UsernameToken>", ours.encode(), message, flags=re.DOTALL
    )
    assert count == 1
    return swapped


def requested(message: bytes) -> bytes:
    """The captured PKCS#10."""
    (text,) = re.findall(
        rb'#PKCS10"[^>]*>([^<]+)</wsse:BinarySecurityToken>', message, flags=re.DOTALL
    )
    return base64.b64decode(text)


async def test_the_captured_enrolment_of_a_real_machine_ends_in_a_managed_device(
    mdm: Mdm, samples: Path
) -> None:
    user = await mdm.world.user("alex")
    token = await mdm.mdm_token(await mdm.world.joined(user.user_principal_name))

    # Is somebody there, and where? Byte for byte.
    alive = await mdm.world.client.get("/EnrollmentServer/Discovery.svc")
    assert (alive.status_code, alive.content) == (200, b"")
    found = said(await mdm.soap("Discovery", raw(samples, "discover-real-win10-19043-b")))
    assert found["AuthPolicy"] in ("OnPremise", "Federated")
    assert float(found["EnrollmentVersion"]) <= 4.0
    assert found["RelatesTo"] == "urn:uuid:748132ec-a575-4329-b01b-6171a9cf8478"

    # Its own password is refused; what it asks for is given to a user of ours.
    asked = raw(samples, "getpolicies-real-usernametoken-b")
    assert subcode(await mdm.soap("Policy", asked)) == "s:Authentication"
    policy = said(await mdm.soap("Policy", with_token(asked, token)))
    assert policy["minimalKeyLength"] == "2048"

    asked = raw(samples, "rst-real-usernametoken-b")
    assert subcode(await mdm.soap("Enrollment", asked)) == "s:Authentication"
    answer = await mdm.soap("Enrollment", with_token(asked, token))
    assert subcode(answer) == "", answer.text
    document: Any = etree.fromstring(base64.b64decode(said(answer)["BinarySecurityToken"]))
    (encoded,) = document.xpath("//*[@type='My']/*[@type='User']//@value")
    der = base64.b64decode(encoded)
    leaf = x509.load_der_x509_certificate(der)
    assert leaf.public_key() == pki.windows_request(requested(asked))
    assert DEVICE not in leaf.subject.rfc4514_string(), "the server chooses the name"

    # Its first session, and its answer to two commands, which nobody sent it here.
    mdm.peer.certificate = der
    opening = await mdm.management.post(
        "/ManagementServer/MDM.svc?mode=Maintenance&Platform=WoA",
        content=raw(samples, "syncml-real-session1-b"),
        headers={"content-type": "application/vnd.syncml.dm+xml"},
    )
    assert opening.status_code == 200
    read = syncml.read(opening.content)
    assert (read.session, read.target) == ("1", DEVICE)
    assert [status.command for status in read.statuses] == ["SyncHdr", "Alert", "Alert", "Replace"]
    assert {status.code for status in read.statuses} <= {200, 212}
    assert read.commands, "a new device is asked what it is"
    second = await mdm.management.post(
        "/ManagementServer/MDM.svc?mode=Maintenance&Platform=WoA",
        content=raw(samples, "syncml-real-status202"),
        headers={"content-type": "application/vnd.syncml.dm+xml"},
    )
    assert second.status_code == 200
    assert [s.command for s in syncml.read(second.content).statuses] == ["SyncHdr"]
    async with mdm.database.transaction() as tx:
        (device,) = await enrollment.devices(tx)
    assert (device.windows_id, device.state, device.upn) == (
        DEVICE,
        "enrolled",
        user.user_principal_name,
    )
    assert device.inventory["manufacturer"], "DevInfo of the capture"
