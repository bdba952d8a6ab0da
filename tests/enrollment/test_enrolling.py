"""Enrolling over the wire: the three messages, every refusal, and what the device gets."""

import asyncio
import base64
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import ExtendedKeyUsageOID
from lxml import etree

from mdm_world import (
    MANAGEMENT,
    WINDOWS_ID,
    WSSE,
    Mdm,
    bearer,
    certificate_request,
    discover,
    get_policies,
    mdm_service,
    new_id,
    request_token,
    said,
    subcode,
)
from tandem import audit, pki
from tandem.infra.database import Database
from tandem.infra.errors import Kind
from tandem.protocols import soap
from tandem.protocols.syncml import Message
from tandem.tenant import directory, enrollment, licensing
from tandem.tenant.enrollment.http import _FAULTS
from tenant_world import Joined

Answer = Any


async def someone(mdm: Mdm, name: str = "alex") -> tuple[directory.User, Joined, str]:
    user = await mdm.world.user(name)
    joined = await mdm.world.joined(user.user_principal_name)
    return user, joined, await mdm.mdm_token(joined)


async def asks(mdm: Mdm, token: str, key: pki.PrivateKey | None = None, **items: str) -> Answer:
    request = certificate_request(key or pki.generate_key("rsa2048"))
    return await mdm.soap("Enrollment", request_token(token, request, **items))


async def failures(mdm: Mdm) -> list[enrollment.Event]:
    async with mdm.database.transaction() as tx:
        return await enrollment.timeline(tx, kind="refused")


# ------------------------------------------------------------------ discovery and policy


async def test_a_device_looks_whether_somebody_is_there(mdm: Mdm) -> None:
    for path in ("/EnrollmentServer/Discovery.svc", "/enrollmentserver/discovery.svc"):
        answer = await mdm.world.client.get(path)
        assert (answer.status_code, answer.content) == (200, b"")
        assert answer.headers["content-length"] == "0"


@pytest.mark.parametrize(("asked", "given"), [("3.0", "3.0"), ("4.0", "4.0"), ("9.0", "4.0")])
async def test_discovery_says_where_to_go_and_which_version(
    mdm: Mdm, asked: str, given: str
) -> None:
    answer = await mdm.soap("Discovery", discover(asked))
    assert answer.headers["content-type"] == "application/soap+xml; charset=utf-8"
    assert int(answer.headers["content-length"]) == len(answer.content)
    found = said(answer)
    assert found["RelatesTo"] == "urn:uuid:1"
    assert found["AuthPolicy"] == "Federated"
    assert found["EnrollmentVersion"] == given
    base = "https://tenant.example/EnrollmentServer"
    assert found["EnrollmentPolicyServiceUrl"] == f"{base}/Policy.svc"
    assert found["EnrollmentServiceUrl"] == f"{base}/Enrollment.svc"
    assert found["AuthenticationServiceUrl"].startswith("https://")


@pytest.mark.parametrize(
    "message", [discover("2.0"), discover("nan"), discover(policies=["OnPremise"])]
)
async def test_a_device_that_cannot_enrol_here_is_told_at_once(mdm: Mdm, message: bytes) -> None:
    assert subcode(await mdm.soap("Discovery", message)) == "s:MessageFormat"


async def test_the_certificate_policy_is_for_users_of_the_tenant(mdm: Mdm) -> None:
    _, _, token = await someone(mdm)
    found = said(await mdm.soap("Policy", get_policies(token)))
    assert (found["policySchema"], found["minimalKeyLength"]) == ("3", "2048")
    for bad in ("a.b.c", token[:-4] + "AAAA", "nothing"):
        assert subcode(await mdm.soap("Policy", get_policies(bad))) == "s:Authentication"
    assert subcode(await mdm.soap("Policy", get_policies(""))) == "a:InvalidSecurity"


async def test_who_may_not_enrol_is_told_before_a_key_is_made(mdm: Mdm) -> None:
    """Whether the user may comes before what is asked, at every endpoint (section 4)."""
    user = await mdm.world.user("alex")
    joined = await mdm.world.joined(user.user_principal_name, "PC-1")
    token = await mdm.mdm_token(joined)
    async with mdm.database.transaction() as tx:
        await directory.set_mdm_scope(tx, directory.MdmScope.NONE)
    answer = await mdm.soap("Policy", get_policies(token))
    assert subcode(answer) == "s:Authorization"
    assert "minimalKeyLength" not in said(answer)
    (failure,) = await failures(mdm)
    assert (failure.code, failure.directory_device_id) == ("0x80180003", joined.device_id)
    assert failure.text.startswith("PC-1 of alex@contoso.com: ")


# ------------------------------------------------------------------ a certificate and an account


async def test_a_device_gets_a_certificate_of_the_tenants_own_ca(mdm: Mdm) -> None:
    device = await mdm.enrolled()
    leaf = x509.load_der_x509_certificate(device.certificate)
    async with mdm.database.transaction() as tx:
        root = await mdm.enrollment.establish(tx)
    leaf.verify_directly_issued_by(root)
    purposes = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(purposes) == [ExtendedKeyUsageOID.CLIENT_AUTH]
    assert (leaf.not_valid_after_utc - mdm.world.at).days in {364, 365}


async def test_the_key_is_the_requests_and_the_name_is_ours(mdm: Mdm) -> None:
    _, _, token = await someone(mdm)
    key = pki.generate_key("rsa2048")
    answer = await asks(mdm, token, key)
    top = etree.fromstring(base64.b64decode(said(answer)["BinarySecurityToken"]))
    (encoded,) = top.xpath("//*[@type='My']//parm[@name='EncodedCertificate']/@value")
    leaf = x509.load_der_x509_certificate(base64.b64decode(encoded))
    assert leaf.public_key() == key.public_key()
    assert leaf.subject.rfc4514_string() != "CN=x"


async def test_the_account_leads_back_to_the_service(mdm: Mdm) -> None:
    top = (await mdm.enrolled()).document
    values = {parm.get("name"): parm.get("value") for parm in top.iter("parm")}
    assert values["ADDR"] == MANAGEMENT
    assert values["PROVIDER-ID"] == "TandemMDM"
    assert values["SSLCLIENTCERTSEARCHCRITERIA"].endswith("&Stores=My%5CSystem")
    assert values["NumberOfFirstRetries"] == "8"
    assert values["UPN"] == "alex@contoso.com"
    for certificate in top.xpath("//parm[@name='EncodedCertificate']"):
        der = base64.b64decode(certificate.get("value"), validate=True)
        thumbprint = pki.sha1_thumbprint(x509.load_der_x509_certificate(der))
        assert certificate.getparent().get("type") == thumbprint


async def test_a_users_enrolment_goes_into_the_users_store(mdm: Mdm) -> None:
    _, _, token = await someone(mdm)
    answer = await asks(mdm, token, EnrollmentType="Full")
    document = base64.b64decode(said(answer)["BinarySecurityToken"])
    assert b"Stores=My%5CUser" in document


async def test_the_directory_knows_that_the_device_is_managed(mdm: Mdm) -> None:
    device = await mdm.enrolled()
    async with mdm.database.transaction() as tx:
        found = await directory.find_device(tx, device.joined.device_id)
    assert found is not None
    assert found.is_managed
    answer = await mdm.graph("GET", "deviceManagement/managedDevices")
    (row,) = answer.json()["value"]
    assert row["azureADDeviceId"] == device.joined.device_id
    assert (row["managementAgent"], row["managementState"]) == ("mdm", "managed")


async def test_the_cas_key_is_sealed_and_stays_the_same(mdm: Mdm) -> None:
    async with mdm.database.transaction() as tx:
        row = await (await tx.execute("SELECT sealed_key FROM enrollment_authority")).fetchone()
        again = await mdm.enrollment.establish(tx)
        assert await mdm.enrollment.establish(tx) == again
    assert row is not None
    assert b"PRIVATE KEY" not in bytes(row["sealed_key"])


# ------------------------------------------------------------------ who may not


async def test_without_mdm_authority_nobody_enrols(tenant_db: Database, tmp_path: Path) -> None:
    async with mdm_service(tenant_db, tmp_path, authority=False) as mdm:
        _, _, token = await someone(mdm)
        answer = await asks(mdm, token)
        found = said(answer)
        assert subcode(answer) == "s:Authorization"
        assert "MDM authority" in found["Message"]
        assert found["ErrorType"] == "NotSupported"
        assert [failure.code for failure in await failures(mdm)] == ["0x80180015"]


async def test_a_user_out_of_scope_is_refused_and_listed(mdm: Mdm) -> None:
    _, joined, token = await someone(mdm)
    async with mdm.database.transaction() as tx:
        await directory.set_mdm_scope(tx, directory.MdmScope.NONE)
    answer = await asks(mdm, token)
    assert subcode(answer) == "s:Authorization"
    (failure,) = await failures(mdm)
    assert failure.code == "0x80180003"
    assert "LAB-001 of alex@contoso.com" in failure.text
    assert failure.directory_device_id == joined.device_id
    listed = await mdm.graph("GET", "deviceManagement/troubleshootingEvents")
    assert [row["failureCode"] for row in listed.json()["value"]] == ["0x80180003"]


async def test_enrolments_and_refusals_are_on_the_record_with_where_they_came_from(
    mdm: Mdm,
) -> None:
    """And without what could be used again (section 20)."""
    _, _, token = await someone(mdm)
    key = pki.generate_key("rsa2048")
    async with mdm.world.from_address("203.0.113.9"):
        refused = await asks(mdm, token, key, DeviceID="")
        answer = await asks(mdm, token, key)
    assert [subcode(one) for one in (refused, answer)] == ["s:MessageFormat", ""]
    async with mdm.database.transaction() as tx:
        (device,) = await enrollment.devices(tx)
        done, refusal = [one for one in await audit.entries(tx) if one.action == "enrol device"]
    assert (done.outcome, done.target, done.actor) == ("done", device.id, "user:alex@contoso.com")
    assert done.details == {
        "name": "LAB-001",
        "windows_id": WINDOWS_ID,
        "way": "directory",
        "certificate": device.fingerprint,
        "address": "203.0.113.9",
    }
    assert (refusal.outcome, refusal.actor) == ("refused", "user:alex@contoso.com")
    assert (refusal.details["address"], refusal.details["code"]) == ("203.0.113.9", "0x80180019")
    assert "DeviceID" in refusal.details["reason"]
    listed = (await mdm.graph("GET", "auditLogs/directoryAudits")).json()["value"]
    mine = [one for one in listed if one["activityDisplayName"] == "enrol device"]
    shown = [one["initiatedBy"]["user"] for one in mine]
    assert {(one["userPrincipalName"], one["ipAddress"]) for one in shown} == {
        ("alex@contoso.com", "203.0.113.9")
    }
    secrets = (token, base64.b64encode(token.encode()).decode())
    assert not any(secret in str((done, refusal)) for secret in secrets)


async def test_a_user_without_a_licence_is_refused_with_the_number_windows_shows(mdm: Mdm) -> None:
    user, _, token = await someone(mdm)
    async with mdm.database.transaction() as tx:
        await licensing.require_licence(tx, True)
    answer = await asks(mdm, token)
    found = said(answer)
    assert (subcode(answer), found["ErrorType"]) == ("s:Authorization", "UserLicense")
    assert "0x80180018" in found["Message"]
    assert [failure.code for failure in await failures(mdm)] == ["0x80180018"]
    async with mdm.database.transaction() as tx:
        await licensing.assign(tx, "EMSPREMIUM", user.id, mdm.world.at)
    assert subcode(await asks(mdm, token)) == ""


async def test_a_token_that_is_not_for_mdm_or_is_over_is_no_credential(mdm: Mdm) -> None:
    _, _, token = await someone(mdm)
    other = (await mdm.world.bearer("alex@contoso.com"))["Authorization"].removeprefix("Bearer ")
    assert subcode(await asks(mdm, other)) == "s:Authentication"
    mdm.world.wait(days=2)
    assert subcode(await asks(mdm, token)) == "s:Authentication"
    assert await failures(mdm) == [], "who proved nothing is not listed"


async def test_a_request_that_cannot_be_certified_is_refused(mdm: Mdm) -> None:
    _, _, token = await someone(mdm)
    good = certificate_request(pki.generate_key("rsa2048"))
    weak = x509.CertificateSigningRequestBuilder(x509.Name([]))
    key = rsa.generate_private_key(public_exponent=65537, key_size=1024)
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.serialization import Encoding

    short = weak.sign(key, SHA256()).public_bytes(Encoding.DER)
    forged = good[:-1] + bytes([good[-1] ^ 1])
    for request in (b"no request", forged, short):
        answer = await mdm.soap("Enrollment", request_token(token, request))
        assert subcode(answer) == "s:CertificateRequest"
    assert {failure.code for failure in await failures(mdm)} == {"0x80180004"}


@pytest.mark.parametrize(
    "changes", [{"DeviceID": ""}, {"EnrollmentType": "Kiosk"}, {"issue": "Cancel"}]
)
async def test_an_incomplete_or_other_request_is_refused(mdm: Mdm, changes: dict[str, str]) -> None:
    _, _, token = await someone(mdm)
    answer = await asks(mdm, token, **changes)
    assert (subcode(answer), said(answer)["ErrorType"]) == (
        "s:MessageFormat",
        "InvalidEnrollmentData",
    )


async def test_renewal_and_recovery_are_refused_in_their_own_words(mdm: Mdm) -> None:
    """Also without a credential: what stands in the header of a renewal proves nothing."""
    _, _, token = await someone(mdm)
    answer = await asks(mdm, token, issue="Renew")
    assert (subcode(answer), said(answer)["ErrorType"]) == ("s:Authorization", "NotEligibleToRenew")
    assert subcode(await asks(mdm, "", issue="Renew")) == "s:Authorization"
    assert subcode(await asks(mdm, token, issue="Recovery")) == "s:Authentication"


FEDERATED = soap.USER_TOKEN_TYPE


async def test_a_token_is_taken_by_every_way_that_windows_brings_it(mdm: Mdm) -> None:
    """Federated and programmatic callers use one type; some of them encode twice (section 4)."""
    _, joined, _ = await someone(mdm)
    for number in range(3):
        token = await mdm.mdm_token(joined)
        twice = base64.b64encode(token.encode()).decode()
        security = (bearer(token), bearer(token, FEDERATED), bearer(twice, FEDERATED))[number]
        request = certificate_request(pki.generate_key("rsa2048"))
        message = request_token("", request, security=security, DeviceID=f"{number:032X}")
        assert subcode(await mdm.soap("Enrollment", message)) == "", number
        # What a lost answer makes the device send again.
        assert subcode(await mdm.soap("Enrollment", message)) == "", number
    (found,) = (await mdm.graph("GET", "deviceManagement/managedDevices")).json()["value"]
    assert found["deviceName"] == "LAB-001"


async def test_the_directorys_token_is_for_one_device(mdm: Mdm) -> None:
    """A request that was captured is of no use, for another device or later (section 20)."""
    _, _, token = await someone(mdm)
    assert subcode(await asks(mdm, token)) == ""
    assert subcode(await asks(mdm, token, DeviceID=new_id())) == "s:Authentication"
    mdm.world.wait(seconds=61)
    assert subcode(await asks(mdm, token)) == "s:Authentication"


async def test_a_key_is_certified_for_one_device(mdm: Mdm) -> None:
    """A request that was captured is of no use for another enrollment (section 20)."""
    _, joined, token = await someone(mdm)
    key = pki.generate_key("rsa2048")
    assert subcode(await asks(mdm, token, key)) == ""
    other = await mdm.mdm_token(joined)
    assert subcode(await asks(mdm, other, key, DeviceID=new_id())) == "s:CertificateRequest"


async def test_two_requests_of_one_device_at_once_end_with_one_enrollment(mdm: Mdm) -> None:
    _, _, token = await someone(mdm)
    answers = await asyncio.gather(*(asks(mdm, token) for _ in range(4)))
    assert [subcode(answer) for answer in answers] == [""] * 4
    rows = (await mdm.graph("GET", "deviceManagement/managedDevices")).json()["value"]
    assert len(rows) == 1


async def test_a_good_token_in_the_wrong_place_is_no_credential(mdm: Mdm) -> None:
    _, _, token = await someone(mdm)
    request = certificate_request(pki.generate_key("rsa2048"))
    x509v3 = f"{WSSE.rpartition('/')[0]}/oasis-200401-wss-x509-token-profile-1.0#X509v3"
    password = (
        "<wsse:Security><wsse:UsernameToken><wsse:Username>alex@contoso.com</wsse:Username>"
        f"<wsse:Password>{token}</wsse:Password></wsse:UsernameToken></wsse:Security>"
    )
    for security in (bearer(token, "urn:else"), bearer(token, x509v3), password):
        message = request_token("", request, security=security)
        assert subcode(await mdm.soap("Enrollment", message)) == "s:Authentication"


async def test_another_user_does_not_take_an_enrolled_device_over(mdm: Mdm) -> None:
    first = await mdm.enrolled()
    _, _, token = await someone(mdm, "sam")
    answer = await asks(mdm, token, DeviceID=first.windows_id)
    assert subcode(answer) == "s:Authorization"
    assert await first.check_in() == []


async def test_a_cloned_hardware_id_takes_nothing_over(mdm: Mdm) -> None:
    """Images that were cloned share it, and it is nobody's proof (section 6.4)."""
    first = await mdm.enrolled()
    second = await mdm.enrolled("sam", new_id())
    assert await first.check_in() == await second.check_in() == []


@pytest.mark.parametrize("windows_id", [WINDOWS_ID, "F" * 32])
async def test_a_device_that_enrols_anew_is_one_device(mdm: Mdm, windows_id: str) -> None:
    first = await mdm.enrolled()
    again = await mdm.enroll(first.user, first.joined, windows_id)
    assert await again.check_in() == []
    old = await first.send(Message("1", 1, MANAGEMENT, first.windows_id))
    assert (old.status_code, old.content) == (401, b"")
    async with mdm.database.transaction() as tx:
        assert [item.id for item in await enrollment.devices(tx)] == [again.id]
        assert (await enrollment.device(tx, first.id)).state == "unenrolled"


# ------------------------------------------------------------------ the edge


async def test_messages_go_where_they_belong(mdm: Mdm) -> None:
    for path, message in (("Policy", discover()), ("Discovery", get_policies("a.b.c"))):
        answer = await mdm.soap(path, message)
        assert (answer.status_code, subcode(answer)) == (200, "s:MessageFormat")


async def test_broken_and_large_messages_get_a_fault_that_tells_nothing(mdm: Mdm) -> None:
    for message in (b"", b"<a", b"x" * 300_000, b"<!DOCTYPE a><a/>"):
        answer = await mdm.soap("Enrollment", message)
        assert (answer.status_code, subcode(answer)) == (200, "s:MessageFormat")
        assert "lxml" not in answer.text
        assert said(answer)["RelatesTo"] == "invalid_message_id"


async def test_what_we_did_not_foresee_is_an_internal_fault(
    mdm: Mdm, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_: object) -> None:
        raise RuntimeError("secret detail")

    monkeypatch.setattr(mdm.enrollment, "discover", broken)
    answer = await mdm.soap("Discovery", discover())
    assert subcode(answer) == "a:InternalServiceFault"
    assert "secret detail" not in answer.text


def test_every_kind_of_refusal_has_a_fault() -> None:
    assert set(_FAULTS) == set(Kind)


async def test_the_real_request_of_windows_is_certified(mdm: Mdm, samples: Path) -> None:
    """Its subject is not valid ASN.1 and its signature SHA-1: only its key is taken."""
    _, _, token = await someone(mdm)
    raw = (samples / "mdm" / "d2s-rst-real-usernametoken-b.xml").read_bytes()
    top = etree.fromstring(raw)
    (encoded,) = [
        element.text or ""
        for element in top.iter("{*}BinarySecurityToken")
        if element.get("ValueType", "").endswith("#PKCS10")
    ]
    request = base64.b64decode(encoded)
    answer = await mdm.soap("Enrollment", request_token(token, request))
    assert subcode(answer) == "", answer.text
