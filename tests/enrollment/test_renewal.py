"""Renewing a device's certificate without its user: the old key signs for the new one."""

import asyncio
import base64
from datetime import timedelta
from typing import Any

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding, pkcs7
from lxml import etree

from mdm_world import (
    REQUEST,
    WINDOWS_ID,
    WSSE,
    Mdm,
    TestDevice,
    certificate_request,
    envelope,
    new_id,
    said,
    subcode,
)
from tandem import audit, pki
from tandem.protocols.syncml import Message
from tandem.tenant import enrollment
from ways_world import choose

_TRUST = "http://docs.oasis-open.org/ws-sx/ws-trust/200512"
KEYS = [pki.generate_key("rsa2048") for _ in range(3)]


def signed(device: TestDevice, content: bytes, key: Any = None, certificate: bytes = b"") -> bytes:
    """As CertEnroll does it: SignedData with the content and the signer's certificate."""
    holder = x509.load_der_x509_certificate(certificate or device.certificate)
    builder = pkcs7.PKCS7SignatureBuilder().set_data(content)
    builder = builder.add_signer(holder, key or device.key, hashes.SHA256())
    return builder.sign(Encoding.DER, [pkcs7.PKCS7Options.Binary])


def renewal(cms: bytes, upn: str, kind: str = f"{WSSE}#PKCS7") -> bytes:
    """The body's elements are without prefix, and the context says next to nothing (spec 8)."""
    security = (
        f"<wsse:Security><wsse:UsernameToken><wsse:Username>{upn}</wsse:Username>"
        "<wsse:Password> </wsse:Password></wsse:UsernameToken></wsse:Security>"
    )
    body = (
        f'<RequestSecurityToken xmlns="{_TRUST}"><RequestType>{_TRUST}/Renew</RequestType>'
        f'<BinarySecurityToken ValueType="{kind}" EncodingType="{WSSE}#base64binary"'
        f' xmlns="{WSSE}">{base64.encodebytes(cms).decode()}</BinarySecurityToken>'
        '<AdditionalContext xmlns="http://schemas.xmlsoap.org/ws/2006/12/authorization">'
        '<ContextItem Name="DeviceType"><Value>CIMClient_Windows</Value></ContextItem>'
        "</AdditionalContext></RequestSecurityToken>"
    )
    return envelope(REQUEST, body, security)


async def renews(
    device: TestDevice,
    key: pki.PrivateKey,
    *,
    cms: bytes | None = None,
    twice: bool = False,
    upn: str = "",
    **more: Any,
) -> httpx.Response:
    content = certificate_request(key)
    content = base64.encodebytes(content) if twice else content
    message = renewal(
        cms or signed(device, content), upn or device.user.user_principal_name, **more
    )
    return await device.mdm.soap("Enrollment", message)


def renewed(device: TestDevice, answer: httpx.Response, key: pki.PrivateKey) -> TestDevice:
    """The device with what the answer brought."""
    assert subcode(answer) == "", answer.text
    top = etree.fromstring(base64.b64decode(said(answer)["BinarySecurityToken"]))
    (encoded,) = top.xpath("//parm[@name='EncodedCertificate']/@value")
    made = TestDevice(
        device.mdm,
        device.user,
        device.joined,
        device.windows_id,
        base64.b64decode(encoded),
        top,
        key,
    )
    made.session = device.session
    return made


async def status(device: TestDevice) -> int:
    """Of a session that the device tries to begin."""
    message = Message("77", 1, "https://x/", device.windows_id)
    return (await device.send(message)).status_code


async def certificates(device: TestDevice) -> list[str]:
    async with device.mdm.database.transaction() as tx:
        return [one.state for one in await enrollment.certificates_of(tx, device.id)]


async def in_window(mdm: Mdm) -> TestDevice:
    """An enrolled device that had a session, and is to renew since yesterday."""
    device = await mdm.enrolled()
    await device.check_in()
    mdm.world.wait(days=306)
    return device


async def test_a_device_is_told_when_to_renew(mdm: Mdm) -> None:
    top = (await mdm.enrolled()).document
    (renew,) = top.xpath("//characteristic[@type='WSTEP']/characteristic[@type='Renew']/..")
    assert {parm.get("name"): parm.get("value") for parm in renew.iter("parm")} == {
        "ROBOSupport": "true",
        "RenewPeriod": "60",
        "RetryInterval": "4",
    }
    assert renew.getparent().get("type") == "My"


@pytest.mark.parametrize("twice", [False, True])
@pytest.mark.parametrize(
    "kind", [f"{WSSE}#PKCS7", "http://schemas.microsoft.com/windows/pki/2009/01/enrollment#PKCS7"]
)
async def test_the_old_key_signs_for_a_new_certificate(mdm: Mdm, twice: bool, kind: str) -> None:
    device = await in_window(mdm)
    answer = await renews(device, KEYS[0], twice=twice, kind=kind)
    new = renewed(device, answer, KEYS[0])
    leaf = x509.load_der_x509_certificate(new.certificate)
    old = x509.load_der_x509_certificate(device.certificate)
    assert leaf.public_key() == KEYS[0].public_key()
    assert leaf.subject == old.subject, "what the device looks its certificate up by"
    assert leaf.not_valid_after_utc - mdm.world.at > timedelta(days=364)
    top = new.document
    assert [item.get("type") for item in top] == ["CertificateStore", "APPLICATION"]
    account = {parm.get("name"): parm.get("value") for parm in top[1].iter("parm")}
    assert account == {"PROVIDER-ID": "TandemMDM"}
    assert [item.get("type") for item in top[0]] == ["My"], "no root, no schedule"


async def test_the_old_certificate_ends_with_the_first_session_of_the_new_one(mdm: Mdm) -> None:
    device = await in_window(mdm)
    new = renewed(device, await renews(device, KEYS[0]), KEYS[0])
    assert await status(device) == 200, "the answer may be lost: the old one still counts"
    assert await certificates(device) == ["issued", "active"]
    await new.check_in()
    assert await certificates(device) == ["active", "superseded"]
    assert await status(device) == 401
    assert await status(new) == 200


async def test_a_renewed_certificate_speaks_for_the_same_device_of_the_directory(mdm: Mdm) -> None:
    """The key is another one; who it is does not hang on it."""

    async def identity(device: TestDevice) -> httpx.Response:
        mdm.peer.certificate = device.certificate
        return await mdm.management.get("/ManagementServer/DeviceIdentity")

    device = await in_window(mdm)
    before = await identity(device)
    key = pki.generate_key("rsa2048")
    again = renewed(device, await renews(device, key), key)
    after = await identity(again)
    assert after.json()["deviceId"] == before.json()["deviceId"]
    assert await status(again) == 200
    assert (await identity(device)).json()["error_codes"] == [50155]


async def test_a_lost_answer_is_asked_for_again(mdm: Mdm) -> None:
    """With the same request or another one: what the lost answer brought does not count then."""
    device = await in_window(mdm)
    first = renewed(device, await renews(device, KEYS[0]), KEYS[0])
    mdm.world.wait(minutes=1)
    again = renewed(device, await renews(device, KEYS[0]), KEYS[0])
    mdm.world.wait(minutes=1)
    other = renewed(device, await renews(device, KEYS[1]), KEYS[1])
    assert await certificates(device) == ["issued", "superseded", "superseded", "active"]
    assert [await status(one) for one in (first, again)] == [401, 401]
    assert await status(other) == 200


async def test_a_renewed_certificate_is_renewed_again(mdm: Mdm) -> None:
    device = await in_window(mdm)
    new = renewed(device, await renews(device, KEYS[0]), KEYS[0])
    await new.check_in()
    mdm.world.wait(days=320)
    newest = renewed(new, await renews(new, KEYS[1]), KEYS[1])
    await newest.check_in()
    assert await certificates(newest) == ["active", "superseded", "superseded"]


async def refusal(answer: httpx.Response) -> tuple[str, str]:
    return subcode(answer), said(answer).get("ErrorType", "")


NOT_ELIGIBLE = ("s:Authorization", "NotEligibleToRenew")


async def test_before_its_window_and_after_its_end_a_certificate_is_not_renewed(mdm: Mdm) -> None:
    device = await mdm.enrolled()
    assert await refusal(await renews(device, KEYS[0])) == NOT_ELIGIBLE
    mdm.world.wait(days=366)
    assert await refusal(await renews(device, KEYS[0])) == NOT_ELIGIBLE
    async with mdm.database.transaction() as tx:
        told = await enrollment.timeline(tx, device_id=device.id, kind="renewal-refused")
    assert [item.code for item in told] == ["0x80180016"] * 2
    assert "too early" in told[1].text
    assert "has ended" in told[0].text


async def test_a_renewal_needs_the_key_that_it_renews(mdm: Mdm) -> None:
    """A certificate is public: neither sending it nor naming its user is a proof."""
    device = await in_window(mdm)
    request = certificate_request(KEYS[0])
    other = pki.new_root(pki.name("Another CA"), now=mdm.world.at)
    theirs = other.issue(KEYS[1].public_key(), pki.name(device.id), now=mdm.world.at, days=9)
    foreign = signed(device, request, KEYS[1], theirs.public_bytes(Encoding.DER))
    damaged = bytearray(signed(device, request))
    damaged[-10] ^= 1
    for cms in (foreign, bytes(damaged)):
        assert await refusal(await renews(device, KEYS[0], cms=cms)) == ("s:Authentication", "")
    for cms in (b"nothing", request, b"\x30\x80"):
        assert await refusal(await renews(device, KEYS[0], cms=cms)) == NOT_ELIGIBLE
    assert await certificates(device) == ["active"]


async def test_the_connections_certificate_has_to_be_the_signers(mdm: Mdm) -> None:
    device = await in_window(mdm)
    message = renewal(signed(device, certificate_request(KEYS[0])), device.user.user_principal_name)
    async with mdm.database.transaction() as tx:
        root = (await mdm.enrollment.establish(tx)).public_bytes(Encoding.DER)
    for peer, expected in ((root, "s:Authorization"), (device.certificate, "")):
        answer = await mdm.soap_as(peer, "Enrollment", message)
        assert subcode(answer) == expected, answer.text


async def test_a_renewal_is_for_the_enrolled_user_alone(mdm: Mdm) -> None:
    device = await in_window(mdm)
    answer = await renews(device, KEYS[0], upn="sam@contoso.com")
    assert await refusal(answer) == NOT_ELIGIBLE
    for security in ("", "<wsse:Security></wsse:Security>"):
        message = renewal(signed(device, certificate_request(KEYS[0])), "x")
        head, tail = message.split(b"<wsse:Security>", 1)
        message = head + security.encode() + tail.split(b"</wsse:Security>", 1)[1]
        assert subcode(await mdm.soap("Enrollment", message)) == "a:InvalidSecurity"


async def test_a_new_certificate_is_for_a_new_key(mdm: Mdm) -> None:
    device = await in_window(mdm)
    other = await mdm.enrolled("sam", new_id())
    for key in (device.key, other.key):
        assert await refusal(await renews(device, key)) == ("s:CertificateRequest", "")
    weak = signed(device, b"\x30\x03\x02\x01\x01")
    assert await refusal(await renews(device, KEYS[0], cms=weak)) == ("s:CertificateRequest", "")


async def test_who_is_enrolled_renews_while_enrolment_is_closed(mdm: Mdm) -> None:
    """Who cannot for long would be lost: an ended certificate is not renewed."""
    device = await in_window(mdm)
    await choose(mdm, maintenance=True)
    assert subcode(await renews(device, KEYS[0])) == ""


async def test_a_certificate_that_ends_while_its_first_session_begins_is_refused(mdm: Mdm) -> None:
    device = await in_window(mdm)
    new = renewed(device, await renews(device, KEYS[0]), KEYS[0])
    mark = pki.sha256_fingerprint(new.certificate)
    async with mdm.database.transaction() as tx:
        found = await enrollment.device(tx, new.id)
        await enrollment.revoke_certificate(tx, found, mark, "keyCompromise", mdm.world.at)
        session = asyncio.create_task(status(new))
        await mdm.until_somebody_waits()
    assert await session == 401
    assert await certificates(device) == ["revoked", "active"], "nor does it end the others"


async def test_renewals_are_on_the_record_with_where_they_came_from(mdm: Mdm) -> None:
    device = await in_window(mdm)
    async with mdm.world.from_address("203.0.113.9"):
        await renews(device, KEYS[0], upn="sam@contoso.com")
        new = renewed(device, await renews(device, KEYS[0]), KEYS[0])
    async with mdm.database.transaction() as tx:
        done, refused, *_ = await audit.entries(tx, target=device.id)
    old = pki.sha256_fingerprint(device.certificate)
    for entry, outcome in ((done, "done"), (refused, "refused")):
        assert (entry.actor, entry.action) == (f"device:{device.id}", "renew certificate")
        assert entry.outcome == outcome
        assert (entry.details["address"], entry.details["certificate"]) == ("203.0.113.9", old)
    assert done.details["renewed"] == pki.sha256_fingerprint(new.certificate)
    assert refused.details["code"] == "0x80180016"
    assert "another user" in refused.details["reason"]


async def test_what_left_or_was_replaced_is_not_renewed(mdm: Mdm) -> None:
    device = await in_window(mdm)
    async with mdm.database.transaction() as tx:
        await mdm.enrollment.begin_unenroll(tx, await enrollment.device(tx, device.id))
    assert await refusal(await renews(device, KEYS[0])) == NOT_ELIGIBLE
    joined = await mdm.world.joined(device.user.user_principal_name)
    again = await mdm.enroll(device.user, joined, WINDOWS_ID)
    assert await refusal(await renews(device, KEYS[0])) == NOT_ELIGIBLE
    assert await certificates(device) == ["revoked"]
    assert await status(again) == 200


# ------------------------------------------------------------------ ends, and the list of them


async def revocation_list(mdm: Mdm) -> x509.CertificateRevocationList:
    answer = await mdm.world.client.get("/EnrollmentServer/DeviceCA.crl")
    assert answer.headers["content-type"] == "application/pkix-crl"
    return x509.load_der_x509_crl(answer.content)


async def test_an_ended_certificate_is_refused_at_once_and_listed(mdm: Mdm) -> None:
    device = await mdm.enrolled()
    await device.check_in()
    leaf = x509.load_der_x509_certificate(device.certificate)
    points = leaf.extensions.get_extension_for_class(x509.CRLDistributionPoints).value
    (name,) = points[0].full_name or []
    assert name.value == "https://tenant.example/EnrollmentServer/DeviceCA.crl"
    before = await revocation_list(mdm)
    async with mdm.database.transaction() as tx:
        root = await mdm.enrollment.establish(tx)
        found = await enrollment.device(tx, device.id)
        serial = f"{leaf.serial_number:x}"
        await enrollment.revoke_certificate(tx, found, serial, "keyCompromise", mdm.world.at)
    assert await status(device) == 401
    mdm.world.wait(minutes=2)
    after = await revocation_list(mdm)
    key: Any = root.public_key()
    assert after.is_signature_valid(key)
    assert (len(list(before)), len(list(after))) == (0, 1)
    entry = after.get_revoked_certificate_by_serial_number(leaf.serial_number)
    assert entry is not None
    why = entry.extensions.get_extension_for_class(x509.CRLReason).value
    assert why.reason is x509.ReasonFlags.key_compromise
    numbers = [
        one.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number
        for one in (before, after)
    ]
    assert numbers == [1, 2]


async def lists(mdm: Mdm, device: TestDevice) -> bool:
    leaf = x509.load_der_x509_certificate(device.certificate)
    found = await revocation_list(mdm)
    return found.get_revoked_certificate_by_serial_number(leaf.serial_number) is not None


async def test_an_end_that_was_on_its_way_when_a_list_was_signed_is_in_the_next(mdm: Mdm) -> None:
    """It says when its transaction began, which is before the list."""
    device = await mdm.enrolled()
    async with mdm.database.transaction() as tx:
        found = await enrollment.device(tx, device.id)
        await mdm.enrollment.end(tx, found, "The user ended it")
        mdm.world.wait(seconds=1)
        assert not await lists(mdm, device)
    mdm.world.wait(minutes=2)
    assert await lists(mdm, device)


async def test_a_clock_that_was_put_back_hides_no_end(mdm: Mdm) -> None:
    device = await mdm.enrolled()
    mdm.world.wait(hours=3)
    assert not await lists(mdm, device)
    mdm.world.wait(hours=-2)
    async with mdm.database.transaction() as tx:
        found = await enrollment.device(tx, device.id)
        await mdm.enrollment.end(tx, found, "The user ended it")
    mdm.world.wait(minutes=2)
    assert await lists(mdm, device)


async def test_a_list_is_signed_once_until_something_ends(mdm: Mdm) -> None:
    first = await mdm.world.client.get("/EnrollmentServer/DeviceCA.crl")
    mdm.world.wait(hours=3)
    assert (await mdm.world.client.get("/EnrollmentServer/DeviceCA.crl")).content == first.content
    mdm.world.wait(hours=24)
    assert (await mdm.world.client.get("/EnrollmentServer/DeviceCA.crl")).content != first.content


async def test_a_device_that_left_has_no_certificate_that_counts(mdm: Mdm) -> None:
    device = await mdm.enrolled()
    async with mdm.database.transaction() as tx:
        found = await enrollment.device(tx, device.id)
        await mdm.enrollment.end(tx, found, "The user ended it")
    assert await certificates(device) == ["revoked"]
    assert await status(device) == 401
    async with mdm.database.transaction() as tx:
        entry, *_ = await audit.entries(tx, target=device.id)
    assert (entry.action, entry.outcome) == ("end enrollment", "done")
    assert entry.details["reason"] == "The user ended it"
    assert entry.details["certificate"] == pki.sha256_fingerprint(device.certificate)


async def test_an_ended_certificate_is_no_certificate_however_quick_the_session(mdm: Mdm) -> None:
    """Also of a device whose sessions are answered without computing anything."""
    device = await mdm.enrolled()
    for _ in range(3):
        await device.check_in()
    mdm.world.wait(days=366)
    assert await status(device) == 401


# ------------------------------------------------------------------ enrollments beside each other


async def test_an_enrollment_that_never_comes_back_is_over_after_a_day(mdm: Mdm) -> None:
    silent, present = await mdm.enrolled(), await mdm.enrolled("sam", new_id())
    await present.check_in()
    for hours, states in ((23, ["enrolled"] * 2), (2, ["unenrolled", "enrolled"])):
        mdm.world.wait(hours=hours)
        async with mdm.database.transaction() as tx:
            await mdm.enrollment.tend(tx)
            found = [await enrollment.device(tx, one.id) for one in (silent, present)]
        assert [item.state for item in found] == states
    assert await status(silent) == 401
    assert await status(present) == 200


async def test_a_device_that_comes_just_when_it_is_given_up_stays(mdm: Mdm) -> None:
    device = await mdm.enrolled()
    mdm.world.wait(hours=25)
    async with mdm.database.transaction() as session, mdm.database.transaction() as upkeep:
        await enrollment.mark_seen(session, device.id, mdm.world.at)
        await asyncio.wait_for(mdm.enrollment.tend(upkeep), 5)
    async with mdm.database.transaction() as tx:
        assert (await enrollment.device(tx, device.id)).state == "enrolled"


async def test_the_same_hardware_under_another_id_is_said_and_nothing_is_ended(mdm: Mdm) -> None:
    """The device claims it, and cloned images share it (spec 6.4)."""
    first = await mdm.enrolled()
    second = await mdm.enrolled("sam", new_id())
    assert [await status(one) for one in (first, second)] == [200, 200]
    async with mdm.database.transaction() as tx:
        for one, other in ((first, "sam"), (second, "alex")):
            (told,) = await enrollment.timeline(tx, device_id=one.id, kind="possible-clone")
            assert other in told.text
