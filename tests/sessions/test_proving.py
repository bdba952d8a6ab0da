"""How a device without a certificate in the handshake proves itself, and what strangers hear."""

from base64 import b64decode, b64encode
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from hashlib import md5
from typing import Any

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding, pkcs7

from mdm_world import MANAGEMENT, Mdm, TestDevice, new_id
from tandem.protocols import syncml
from tandem.protocols.syncml import Challenge, Command, Credential, Message, Status
from tandem.tenant import enrollment, policies

PATH = "/ManagementServer/MDM.svc"
HELLO = (Command("Alert", "2", (), "1201"),)


def account(device: TestDevice, level: str) -> dict[str, str]:
    """One of the two blocks of the provisioning document, by the names of its parameters."""
    (block,) = device.document.xpath(
        f"//characteristic[@type='APPAUTH'][parm[@name='AAUTHLEVEL' and @value='{level}']]"
    )
    return {parm.get("name"): parm.get("value", "") for parm in block.iter("parm")}


def proof(name: str, secret: str, nonce: bytes) -> Credential:
    """As section 11.7 has it, written down here once more."""
    inner = b64encode(md5(f"{name}:{secret}".encode()).digest()) + b":" + nonce
    return Credential("syncml:auth-md5", b64encode(md5(inner).digest()).decode())


def mine(device: TestDevice, nonce: bytes) -> Credential:
    known = account(device, "APPSRV")
    return proof(known["AAUTHNAME"], known["AAUTHSECRET"], nonce)


async def plainly(
    mdm: Mdm, message: Message, headers: dict[str, str] | None = None, port: int = 1
) -> httpx.Response:
    """Send it without a certificate, over the connection of this port."""
    mdm.peer.certificate = None
    transport = httpx.ASGITransport(mdm.peer, client=("192.0.2.7", port))
    async with httpx.AsyncClient(transport=transport, base_url="https://manage.example") as client:
        return await client.post(PATH, content=syncml.write(message), headers=headers)


async def answered(mdm: Mdm, message: Message, **more: Any) -> Message:
    answer = await plainly(mdm, message, **more)
    assert answer.status_code == 200, answer.status_code
    return syncml.read(answer.content)


def first(device: TestDevice, session: str = "1", **more: Any) -> Message:
    return Message(session, 1, MANAGEMENT, device.windows_id, HELLO, **more)


def challenge(answer: Message) -> bytes:
    """The nonce of an answer that asks for a credential and does nothing else."""
    (header,) = answer.statuses
    assert (answer.commands, header.command) == ((), "SyncHdr")
    assert header.challenge is not None
    assert header.challenge.type == "syncml:auth-md5"
    assert len(header.challenge.nonce) >= 16
    return header.challenge.nonce


async def configured(mdm: Mdm, device: TestDevice) -> None:
    group = await mdm.group("All", device.user.id)
    async with mdm.database.transaction() as tx:
        made = await policies.create(tx, "Lock", "DeviceLock/X", "15", mdm.world.at)
        await policies.assign(tx, made.id, [group.id], [])


# ------------------------------------------------------------------ MD5, the floor


async def test_a_challenged_device_proves_itself_and_has_its_session(mdm: Mdm) -> None:
    device = await mdm.enrolled()
    await configured(mdm, device)
    asked = await answered(mdm, first(device))
    assert asked.statuses[0].code == 407
    nonce = challenge(asked)
    begun = await answered(mdm, first(device, credential=mine(device, nonce)))
    assert [status.code for status in begun.statuses] == [212, 200]
    given = begun.statuses[0].challenge
    assert given is not None, "the nonce of the next session"
    assert begun.commands
    work = await answered(
        mdm, Message("1", 2, MANAGEMENT, device.windows_id, **device.replies(begun))
    )
    assert work.statuses[0].code == 200
    assert [command.name for command in work.commands] == ["Replace"]
    again = await answered(mdm, first(device, "2", credential=mine(device, given.nonce)))
    assert again.statuses[0].code == 212, "it needs no challenge this time"


async def test_the_first_nonce_is_that_of_the_provisioning_document(mdm: Mdm) -> None:
    device = await mdm.enrolled()
    nonce = b64decode(account(device, "APPSRV")["AAUTHDATA"])
    begun = await answered(mdm, first(device, credential=mine(device, nonce)))
    assert begun.statuses[0].code == 212


async def test_a_device_may_count_its_second_attempt_as_the_second_message(mdm: Mdm) -> None:
    device = await mdm.enrolled()
    nonce = challenge(await answered(mdm, first(device)))
    second = replace(first(device, credential=mine(device, nonce)), number=2)
    begun = await answered(mdm, second)
    assert (begun.number, begun.statuses[0].code) == (2, 212)
    assert begun.commands


async def test_a_credential_is_good_once(mdm: Mdm) -> None:
    device = await mdm.enrolled()
    nonce = challenge(await answered(mdm, first(device)))
    once = first(device, credential=mine(device, nonce))
    assert (await answered(mdm, once)).statuses[0].code == 212
    refused = await answered(mdm, replace(once, session="9"))
    assert refused.statuses[0].code == 401
    assert challenge(refused) != nonce


async def test_a_challenge_is_answered_within_five_minutes(mdm: Mdm) -> None:
    device = await mdm.enrolled()
    nonce = challenge(await answered(mdm, first(device)))
    mdm.world.wait(minutes=6)
    late = await answered(mdm, first(device, credential=mine(device, nonce)))
    assert late.statuses[0].code == 401


async def test_another_connection_has_to_prove_itself_again(mdm: Mdm) -> None:
    """Session ids are small numbers: knowing one must not be enough to take a session over."""
    device = await mdm.enrolled()
    nonce = challenge(await answered(mdm, first(device)))
    begun = await answered(mdm, first(device, credential=mine(device, nonce)))
    message = Message("1", 2, MANAGEMENT, device.windows_id, **device.replies(begun))
    stolen = await answered(mdm, message, port=2)
    assert stolen.statuses[0].code == 407
    fresh = mine(device, challenge(stolen))
    went_on = await answered(mdm, replace(message, credential=fresh), port=2)
    assert went_on.statuses[0].code == 212


async def test_a_secret_waits_for_a_session_with_a_certificate(mdm: Mdm) -> None:
    device = await mdm.enrolled()
    group = await mdm.group("All", device.user.id)
    async with mdm.database.transaction() as tx:
        for name, value in (("X/Password", "hunter2-but-longer"), ("X/AllowPassword", "1")):
            made = await policies.create(tx, name, name, value, mdm.world.at)
            await policies.assign(tx, made.id, [group.id], [])
    nonce = b64decode(account(device, "APPSRV")["AAUTHDATA"])
    answer = await answered(mdm, first(device, credential=mine(device, nonce)))
    number, given = 1, []
    while answer.commands:
        number += 1
        message = Message("1", number, MANAGEMENT, device.windows_id, **device.replies(answer))
        answer = await answered(mdm, message)
        given += [command.items[0].target for command in answer.commands]
    assert [target.rpartition("/")[2] for target in given] == ["AllowPassword"]
    device.session = 1
    assert [command.items[0].data for command in await device.check_in()] == ["hunter2-but-longer"]


@pytest.mark.parametrize("header", ["Via", "X-Forwarded-For", "Forwarded"])
async def test_behind_a_proxy_each_message_needs_a_credential(mdm: Mdm, header: str) -> None:
    """A proxy sends the messages of many devices over one connection."""
    device = await mdm.enrolled()
    await configured(mdm, device)
    proxied = {header: "1.1 proxy.example"}
    nonce = challenge(await answered(mdm, first(device), headers=proxied))
    begun = await answered(mdm, first(device, credential=mine(device, nonce)), headers=proxied)
    assert begun.statuses[0].code == 200, "212 would say that no credential is needed any more"
    assert begun.statuses[0].challenge is not None
    message = Message("1", 2, MANAGEMENT, device.windows_id, **device.replies(begun))
    stolen = await answered(mdm, message, headers=proxied)
    assert stolen.statuses[0].code == 407
    nonce = begun.statuses[0].challenge.nonce
    went_on = await answered(mdm, replace(message, credential=mine(device, nonce)), headers=proxied)
    assert [command.name for command in went_on.commands] == ["Replace"]


async def test_an_answer_for_a_certificate_is_not_repeated_to_a_digest(mdm: Mdm) -> None:
    """It may hold what a device that proves itself so little does not get."""
    device = await mdm.enrolled()
    await configured(mdm, device)
    begun = await device.begins()
    message = Message("1", 2, MANAGEMENT, device.windows_id, **device.replies(begun))
    given = await device.send(message)
    assert [command.name for command in syncml.read(given.content).commands] == ["Replace"]
    nonce = b64decode(account(device, "APPSRV")["AAUTHDATA"])
    again = await answered(mdm, replace(message, credential=mine(device, nonce)))
    assert again.commands == ()
    assert (await device.send(message)).content == given.content


async def test_a_stranger_hears_what_a_device_with_a_wrong_secret_hears(mdm: Mdm) -> None:
    device = await mdm.enrolled()
    heard = []
    for source in (device.windows_id, new_id()):
        for credential in (
            None,
            proof("alex@contoso.com", "guessed", b"x" * 16),
            Credential("syncml:auth-basic", "YWxleDpwYXNz"),
            Credential("syncml:auth-md5", "%%%"),
        ):
            message = Message("1", 1, MANAGEMENT, source, HELLO, credential=credential)
            answer = await plainly(mdm, message)
            read = syncml.read(answer.content)
            challenge(read)
            unlike = read.statuses[0].challenge
            assert unlike is not None
            text = answer.text.replace(source, "ID")
            text = text.replace(b64encode(unlike.nonce).decode(), "NONCE")
            heard.append((answer.status_code, text))
    assert heard[:4] == heard[4:]
    assert len(set(heard)) == 2, "407 without a credential, 401 with a wrong one"


async def test_secrets_are_each_devices_own_and_kept_sealed(mdm: Mdm) -> None:
    one, other = await mdm.enrolled(), await mdm.enrolled("sam", new_id())
    secrets = {
        account(device, level)["AAUTHSECRET"]
        for device in (one, other)
        for level in ("CLIENT", "APPSRV")
    }
    assert len(secrets) == 4
    async with mdm.database.transaction() as tx:
        found = await tx.execute("SELECT sealed FROM enrollment_session_secret")
        kept = [bytes(row["sealed"]) async for row in found]
    for device in (one, other):
        known = account(device, "APPSRV")
        plain = f"{known['AAUTHNAME']}:{known['AAUTHSECRET']}".encode()
        for secret in (known["AAUTHSECRET"].encode(), md5(plain).digest()):
            assert not any(secret in sealed for sealed in kept)


async def test_a_device_that_has_left_is_a_stranger(mdm: Mdm) -> None:
    device = await mdm.enrolled()
    async with mdm.database.transaction() as tx:
        await mdm.enrollment.end(tx, await enrollment.device(tx, device.id), "test")
    nonce = challenge(await answered(mdm, first(device)))
    answer = await answered(mdm, first(device, credential=mine(device, nonce)))
    assert answer.statuses[0].code == 401


async def test_a_device_that_wants_the_service_to_prove_itself_gets_its_credential(
    mdm: Mdm,
) -> None:
    device = await mdm.enrolled()
    begun = await device.begins()
    nonce = b"the device's own"
    asking = Status("1", "1", "0", "SyncHdr", 407, challenge=Challenge("syncml:auth-md5", nonce))
    answer = await device.says(2, statuses=(asking,))
    known = account(device, "CLIENT")
    assert answer.credential == proof(enrollment.PROVIDER_ID, known["AAUTHSECRET"], nonce)
    for number in (3, 4):
        asking = replace(asking, message_ref=str(number - 1))
        answer = await device.says(number, statuses=(asking,))
    assert answer.commands == (), "who never believes us is not asked for ever"
    assert begun.credential is None


# ------------------------------------------------------------------ a signature over the message


def signed(device: TestDevice, body: bytes, key: Any = None) -> dict[str, str]:
    certificate = x509.load_der_x509_certificate(device.certificate)
    builder = pkcs7.PKCS7SignatureBuilder().set_data(body)
    builder = builder.add_signer(certificate, key or device.key, hashes.SHA256())
    options = [pkcs7.PKCS7Options.Binary, pkcs7.PKCS7Options.DetachedSignature]
    return {"MDM-Signature": b64encode(builder.sign(Encoding.DER, options)).decode()}


async def test_a_signed_message_needs_no_certificate_in_the_handshake(mdm: Mdm) -> None:
    device = await mdm.enrolled()
    mdm.world.at = datetime.now(UTC)
    message = first(device)
    answer = await plainly(mdm, message, signed(device, syncml.write(message)))
    assert answer.status_code == 200
    assert syncml.read(answer.content).statuses[0].code == 200
    assert syncml.read(answer.content).commands


@pytest.mark.parametrize("what", ["other body", "other key", "other device", "late", "no base64"])
async def test_a_signature_that_does_not_hold_is_refused_without_words(mdm: Mdm, what: str) -> None:
    device = await mdm.enrolled()
    other = await mdm.enrolled("sam", new_id())
    mdm.world.at = datetime.now(UTC)
    message = first(device)
    body = syncml.write(message)
    match what:
        case "other body":
            headers = signed(device, body + b" ")
        case "other key":
            headers = signed(device, body, other.key)
        case "other device":
            headers = signed(other, body)
        case "late":
            headers = signed(device, body)
            mdm.world.at += timedelta(minutes=11)
        case _:
            headers = {"MDM-Signature": "%%%"}
    answer = await plainly(mdm, message, headers)
    assert (answer.status_code, answer.content) == (401, b"")
