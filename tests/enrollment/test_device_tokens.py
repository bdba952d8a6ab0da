"""Devices that are enrolled and not joined prove themselves to the directory by their MDM certificate."""

import asyncio
from typing import Any

import httpx
import pytest
from joserfc import jwt
from joserfc.jwk import KeySet

from mdm_world import Mdm, TestDevice, certificate_request, request_token
from tandem import audit, pki
from tandem.protocols import soap
from tandem.tenant import directory, oidc

SITE = "https://ConfigMgrService"


@pytest.fixture
async def client_app(mdm: Mdm) -> str:
    """The site's two apps in the tenant; the native one's id."""
    async with mdm.database.transaction() as tx:
        make, principal = oidc.applications.create_application, oidc.applications.create_principal
        server = await make(tx, "Server", mdm.world.at, identifier_uris=(SITE,))
        await principal(tx, server.app_id, mdm.world.at)
        client = await make(
            tx, "Client", mdm.world.at, public_redirect_uris=("https://ConfigMgrClient",)
        )
        await principal(tx, client.app_id, mdm.world.at)
        return str(client.app_id)


@pytest.fixture
async def unjoined(mdm: Mdm) -> TestDevice:
    return await mdm.enroll(await mdm.world.user("alex"), None)


async def ask(mdm: Mdm, device: TestDevice | None, client_app: str, **form: str) -> httpx.Response:
    mdm.peer.certificate = device.certificate if device else None
    given = {
        "grant_type": oidc.CERTIFICATE_GRANT,
        "client_id": client_app,
        "scope": f"{SITE}/.default",
        **form,
    }
    return await mdm.management.post("/ManagementServer/DeviceToken", data=given)


async def identity(mdm: Mdm, device: TestDevice) -> httpx.Response:
    mdm.peer.certificate = device.certificate
    return await mdm.management.get("/ManagementServer/DeviceIdentity")


async def claims(mdm: Mdm, token: str) -> dict[str, Any]:
    async with mdm.database.transaction() as tx:
        keys = await mdm.world.tokens.jwks(tx)
    return dict(jwt.decode(token, KeySet.import_key_set(keys)).claims)


def refused(answer: httpx.Response, number: int) -> str:
    assert answer.status_code == 400, answer.text
    assert answer.json()["error_codes"] == [number], answer.text
    assert "access_token" not in answer.json()
    return str(answer.json()["error_description"]).partition(" Trace ID")[0]


async def test_it_gets_the_token_of_a_joined_device_which_says_how_it_was_earned(
    mdm: Mdm, unjoined: TestDevice, client_app: str
) -> None:
    joined = await mdm.world.joined("alex@contoso.com", "PC-joined")
    usual = await mdm.world.token(
        grant_type=oidc.DEVICE_GRANT,
        client_id=client_app,
        scope=f"{SITE}/.default",
        assertion=mdm.world.assertion(joined),
    )
    theirs = await claims(mdm, usual.json()["access_token"])
    answer = await ask(mdm, unjoined, client_app)
    assert answer.status_code == 200, answer.text
    assert answer.headers["cache-control"] == "no-store"
    ours = await claims(mdm, answer.json()["access_token"])
    assert ours.pop("amr") == ["mdm_cert"]
    assert ours.keys() == theirs.keys()
    same = {"aud", "iss", "tid", "idtyp", "ver"}
    assert {name: ours[name] for name in same} == {name: theirs[name] for name in same}
    async with mdm.database.transaction() as tx:
        found = await directory.find_device(tx, ours["deviceid"])
    assert found is not None
    assert (found.id, found.trust_type) == (ours["oid"], directory.Trust.REGISTERED.value)


async def test_the_directory_and_the_mdm_service_name_one_device(
    mdm: Mdm, unjoined: TestDevice, client_app: str
) -> None:
    who = (await identity(mdm, unjoined)).json()
    token = await claims(mdm, (await ask(mdm, unjoined, client_app)).json()["access_token"])
    assert who["deviceId"] == token["deviceid"]
    assert who["tenantId"] == mdm.world.tenant.id
    assert who["authority"] == f"{mdm.world.tokens.settings.base}/{mdm.world.tenant.id}"
    shown = (await mdm.graph("GET", f"deviceManagement/managedDevices/{unjoined.id}")).json()
    assert shown["azureADDeviceId"] == who["deviceId"]
    kept = (await mdm.graph("GET", f"devices?$filter=deviceId eq '{who['deviceId']}'")).json()
    assert [device["isManaged"] for device in kept["value"]] == [True]


async def test_the_registration_is_in_the_audit_log_and_on_the_devices_timeline(
    mdm: Mdm, unjoined: TestDevice
) -> None:
    who = (await identity(mdm, unjoined)).json()
    await identity(mdm, unjoined)
    async with mdm.database.transaction() as tx:
        (entry,) = await audit.entries(tx, target=who["deviceId"])
    assert (entry.actor, entry.action) == ("user:alex@contoso.com", "register device")
    assert entry.details["by"] == "mdm_cert"
    listed = await mdm.graph("GET", "auditLogs/directoryAudits")
    assert listed.status_code == 200, listed.text
    (shown,) = [
        item for item in listed.json()["value"] if item["activityDisplayName"] == "register device"
    ]
    assert shown["initiatedBy"]["user"]["userPrincipalName"] == "alex@contoso.com"
    path = f"deviceManagement/managedDevices/{unjoined.id}/timeline"
    told = (await mdm.graph("GET", path)).json()["value"]
    assert [item["text"] for item in told if item["kind"] == "registered"] == [
        "Registered by its MDM certificate"
    ]


async def test_first_calls_at_the_same_time_register_one_device(
    mdm: Mdm, unjoined: TestDevice, client_app: str
) -> None:
    answers = await asyncio.gather(*(identity(mdm, unjoined) for _ in range(4)))
    assert len({answer.json()["deviceId"] for answer in answers}) == 1


async def test_an_enrolment_that_is_replaced_meanwhile_registers_nothing(
    mdm: Mdm, unjoined: TestDevice
) -> None:
    request = certificate_request(pki.generate_key("rsa2048"))
    token = await mdm.user_token(unjoined.user)
    asked = soap.read(request_token(token, request, DeviceID=unjoined.windows_id))
    assert isinstance(asked.body, soap.RequestToken)
    async with mdm.database.transaction() as tx:
        proof = await mdm.enrollment.credentials.of_token(tx, soap.one_credential(asked))
        await mdm.enrollment.enroll(tx, proof, asked.body)
        first_call = asyncio.create_task(identity(mdm, unjoined))
        await mdm.until_somebody_waits()
    refused(await first_call, 50155)
    assert (await mdm.graph("GET", "devices")).json()["value"] == []


async def test_a_device_that_joined_proves_itself_both_ways_as_the_same(
    mdm: Mdm, client_app: str
) -> None:
    device = await mdm.enrolled()
    assert device.joined
    token = await claims(mdm, (await ask(mdm, device, client_app)).json()["access_token"])
    assert token["deviceid"] == device.joined.device_id


async def test_without_a_certificate_or_with_a_strangers_there_is_no_token(
    mdm: Mdm, unjoined: TestDevice, client_app: str
) -> None:
    nobody = refused(await ask(mdm, None, client_app), 50155)
    stranger = TestDevice(mdm, unjoined.user, None, "X", b"0\x03\x02\x01\x01", None, unjoined.key)
    assert refused(await ask(mdm, stranger, client_app), 50155) == nobody


async def test_who_left_gets_no_more_tokens(
    mdm: Mdm, unjoined: TestDevice, client_app: str
) -> None:
    assert (await ask(mdm, unjoined, client_app)).status_code == 200
    async with mdm.database.transaction() as tx:
        known = await mdm.enrollment.device(tx, unjoined.id)
        await mdm.enrollment.begin_unenroll(tx, known)
    refused(await ask(mdm, unjoined, client_app), 50155)
    async with mdm.database.transaction() as tx:
        await mdm.enrollment.end(tx, known, "test")
    refused(await ask(mdm, unjoined, client_app), 50155)


async def test_a_superseded_certificate_speaks_for_nobody(
    mdm: Mdm, unjoined: TestDevice, client_app: str
) -> None:
    again = await mdm.enroll(unjoined.user, None)
    refused(await ask(mdm, unjoined, client_app), 50155)
    assert (await ask(mdm, again, client_app)).status_code == 200


async def test_a_device_that_is_disabled_or_deleted_in_the_directory_is_refused(
    mdm: Mdm, unjoined: TestDevice, client_app: str
) -> None:
    """Deleted means deleted: it does not come back by asking again."""
    device_id = (await identity(mdm, unjoined)).json()["deviceId"]
    async with mdm.database.transaction() as tx:
        found = await directory.find_device(tx, device_id)
        assert found is not None
        await directory.enable_device(tx, found.id, False)
    refused(await ask(mdm, unjoined, client_app), 135011)
    assert (await mdm.graph("DELETE", f"devices/{found.id}")).status_code == 204
    refused(await ask(mdm, unjoined, client_app), 70043)
    refused(await ask(mdm, unjoined, client_app), 70043)


@pytest.mark.parametrize(
    ("form", "number"),
    [
        ({"grant_type": "client_credentials"}, 70003),
        ({"grant_type": oidc.DEVICE_GRANT}, 70003),
        ({"client_id": oidc.CLI}, 7000112),
        ({"client_id": "00000000-0000-0000-0000-000000000001"}, 700016),
        ({"scope": "https://unknown.example/.default"}, 500011),
    ],
)
async def test_what_else_is_asked_is_refused_in_oauths_words(
    mdm: Mdm, unjoined: TestDevice, client_app: str, form: dict[str, str], number: int
) -> None:
    refused(await ask(mdm, unjoined, client_app, **form), number)


async def test_the_grant_is_of_no_use_where_connections_prove_nothing(
    mdm: Mdm, unjoined: TestDevice, client_app: str
) -> None:
    answer = await mdm.world.token(
        grant_type=oidc.CERTIFICATE_GRANT, client_id=client_app, scope=f"{SITE}/.default"
    )
    refused(answer, 70003)


async def test_tokens_and_refusals_are_in_the_sign_in_log(
    mdm: Mdm, unjoined: TestDevice, client_app: str
) -> None:
    await ask(mdm, unjoined, client_app)
    await ask(mdm, None, client_app)
    async with mdm.database.transaction() as tx:
        newest = await oidc.sign_ins(tx, app_id=client_app)
    assert {(entry.sort, entry.number) for entry in newest} == {("device", 0), ("device", 50155)}
