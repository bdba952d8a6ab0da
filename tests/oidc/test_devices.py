"""Joining a device, and tokens that a joined device gets for itself."""

import base64
from typing import Any

from joserfc import jwt
from joserfc.jwk import KeySet

from tandem import pki
from tandem.tenant import directory, licensing, oidc
from tenant_world import ADMIN, World


async def published(world: World) -> KeySet:
    keys = (await world.client.get("/common/discovery/keys")).json()
    return KeySet.import_key_set(keys)


async def set_up_mdm(world: World, scope: directory.MdmScope = directory.MdmScope.ALL) -> None:
    async with world.database.transaction() as tx:
        await directory.set_mdm_authority(tx, world.at)
        await directory.set_mdm_scope(tx, scope)


async def site_apps(world: World) -> str:
    """The server and client application that a site registers; the client's id."""
    async with world.database.transaction() as tx:
        server = await oidc.applications.create_application(
            tx, "Server", world.at, identifier_uris=("https://ConfigMgrService",)
        )
        await oidc.applications.create_principal(tx, server.app_id, world.at)
        client = await oidc.applications.create_application(
            tx, "Client", world.at, public_redirect_uris=("https://ConfigMgrClient",)
        )
        return client.app_id


async def test_a_joined_device_gets_its_identity_and_where_to_enrol(world: World) -> None:
    await set_up_mdm(world)
    await world.user("alex")
    joined = await world.joined("alex@contoso.com")
    answer = joined.answer
    assert answer["MdmUrls"]["DiscoveryUrl"].endswith("/EnrollmentServer/Discovery.svc")
    assert answer["User"]["Upn"] == "alex@contoso.com"
    assert (answer["TenantId"], answer["TenantName"]) == (world.tenant.id, "Contoso")
    async with world.database.transaction() as tx:
        device = await directory.find_device(tx, joined.device_id)
        assert device is not None
        assert device.key_thumbprint == pki.jwk_thumbprint(joined.key)


async def test_mdm_urls_need_authority_scope_and_where_asked_for_directory_premium(
    world: World,
) -> None:
    alex = await world.user("alex")

    async def urls() -> Any:
        async with world.database.transaction() as tx:
            return await oidc.mdm_urls(tx, world.tokens, alex.id)

    assert await urls() is None, "no authority"
    await set_up_mdm(world, directory.MdmScope.NONE)
    assert await urls() is None, "out of scope"
    async with world.database.transaction() as tx:
        group = await directory.create_group(tx, "Pilot", world.at)
        await directory.set_mdm_scope(tx, directory.MdmScope.SOME, [group.id])
    assert await urls() is None, "not in the group"
    async with world.database.transaction() as tx:
        await directory.add_member(tx, group.id, alex.id)
    assert await urls() is not None
    async with world.database.transaction() as tx:
        await licensing.require_licence(tx, True)
    assert await urls() is None, "no directory premium"
    async with world.database.transaction() as tx:
        await licensing.assign(tx, "EMSPREMIUM", alex.id, world.at)
    assert await urls() is not None


async def test_joining_again_with_the_same_key_is_the_same_device(world: World) -> None:
    scope = f"openid {oidc.DEVICE_REGISTRATION}/.default"
    token = (await world.user_tokens(scope))["access_token"]
    key = pki.generate_key("p256")
    request = pki.certificate_request(key, pki.name("x"), ())
    first = await world.join(token, request, "LAB-1")
    second = await world.join(token, request, "LAB-2")
    assert first.json()["DeviceId"] == second.json()["DeviceId"]


async def test_a_join_is_refused_in_words(world: World) -> None:
    scope = f"openid {oidc.DEVICE_REGISTRATION}/.default"
    token = (await world.user_tokens(scope))["access_token"]
    p256 = pki.certificate_request(pki.generate_key("p256"), pki.name("x"), ())
    rsa = pki.certificate_request(pki.generate_key("rsa2048"), pki.name("x"), ())
    assert (await world.join("nonsense", p256, "LAB-1")).status_code == 401
    weak = await world.join(token, rsa, "LAB-1")
    assert weak.json()["error"]["message"] == "The device's key is not P-256."
    foreign = await world.join(token, p256, "LAB-1", TargetDomain="fabrikam.com")
    assert "fabrikam.com" in foreign.json()["error"]["message"]
    graph = (await world.user_tokens("https://graph.microsoft.com/.default"))["access_token"]
    assert (await world.join(graph, p256, "LAB-1")).status_code == 401


async def test_a_device_gets_a_token_for_itself(world: World) -> None:
    await world.user("alex")
    client_id = await site_apps(world)
    joined = await world.joined("alex@contoso.com")
    answer = await _device_token(world, client_id, world.assertion(joined))
    assert answer.status_code == 200, answer.text
    keys = await published(world)
    claims = jwt.decode(answer.json()["access_token"], keys, algorithms=["RS256"]).claims
    assert claims["aud"] == "https://ConfigMgrService"
    assert (claims["idtyp"], claims["deviceid"]) == ("device", joined.device_id)
    assert (claims["tid"], claims["appid"]) == (world.tenant.id, client_id)
    assert "upn" not in claims


async def test_an_assertion_is_used_once_in_time_for_us_by_its_device(world: World) -> None:
    client_id = await site_apps(world)
    joined, other = await world.joined(ADMIN, "A"), await world.joined(ADMIN, "B")
    used = world.assertion(joined)
    assert (await _device_token(world, client_id, used)).status_code == 200
    now = int(world.at.timestamp())
    refused = {
        "replayed": used,
        "expired": world.assertion(joined, iat=now - 900, exp=now - 600),
        "valid for too long": world.assertion(joined, exp=now + 3600),
        "for somebody else": world.assertion(joined, aud="https://other.example/token"),
        "in another's name": world.assertion(joined, iss=other.device_id, sub=other.device_id),
    }
    for why, assertion in refused.items():
        answer = await _device_token(world, client_id, assertion)
        assert answer.status_code == 400, why


async def test_a_certificate_of_another_authority_is_worth_nothing(world: World) -> None:
    from base64 import b64encode

    from cryptography.hazmat.primitives.serialization import Encoding

    client_id = await site_apps(world)
    joined = await world.joined(ADMIN)
    forged = pki.new_root(pki.name("Device join authority", organization="Tandem"), now=world.at)
    certificate = forged.issue(
        joined.key.public_key(), pki.name(joined.device_id), now=world.at, days=1
    )
    der = b64encode(certificate.public_bytes(Encoding.DER)).decode()
    joined.answer["Certificate"]["RawBody"] = der
    answer = await _device_token(world, client_id, world.assertion(joined))
    assert answer.json()["error_codes"] == [50013]


async def test_a_disabled_or_deleted_device_gets_no_token(world: World) -> None:
    client_id = await site_apps(world)
    joined = await world.joined(ADMIN)
    async with world.database.transaction() as tx:
        device = await directory.find_device(tx, joined.device_id)
        assert device is not None
        await directory.enable_device(tx, device.id, False)
    disabled = await _device_token(world, client_id, world.assertion(joined))
    assert disabled.json()["error_codes"] == [135011]
    async with world.database.transaction() as tx:
        await directory.delete_device(tx, device.id)
    deleted = await _device_token(world, client_id, world.assertion(joined))
    assert deleted.json()["error_codes"] == [70043]


async def test_a_user_token_says_which_device_when_the_device_proves_itself(world: World) -> None:
    joined = await world.joined(ADMIN)
    answer = await world.token(
        grant_type="refresh_token",
        client_id=oidc.BROKER,
        refresh_token=joined.refresh_token,
        scope=f"{oidc.MDM_APP}/.default",
        device_assertion=world.assertion(joined),
    )
    async with world.database.transaction() as tx:
        claims = await world.tokens.verify_mdm(tx, answer.json()["access_token"], world.at)
    assert (claims.upn, claims.device_id) == (ADMIN, joined.device_id)


async def test_the_broker_gets_a_user_token_for_the_sites_app(world: World) -> None:
    await site_apps(world)
    joined = await world.joined(ADMIN)
    answer = await world.token(
        grant_type="refresh_token",
        client_id=oidc.BROKER,
        refresh_token=joined.refresh_token,
        scope="https://ConfigMgrService/user_impersonation",
    )
    keys = await published(world)
    claims = jwt.decode(answer.json()["access_token"], keys, algorithms=["RS256"]).claims
    assert (claims["aud"], claims["scp"]) == ("https://ConfigMgrService", "user_impersonation")


async def _device_token(world: World, client_id: str, assertion: str) -> Any:
    return await world.token(
        grant_type=oidc.DEVICE_GRANT,
        client_id=client_id,
        scope="https://ConfigMgrService/.default",
        assertion=assertion,
    )


async def test_a_join_or_an_assertion_with_another_version_of_x509_is_refused(
    world: World,
) -> None:
    """Neither is anything that the server did not foresee: its caller is anybody."""
    await world.user("alex")
    joined = await world.joined("alex@contoso.com")
    der = base64.b64decode(joined.answer["Certificate"]["RawBody"])
    odd = der.replace(b"\x02\x01\x02", b"\x02\x01\x20", 1)
    assert odd != der
    joined.answer["Certificate"]["RawBody"] = base64.b64encode(odd).decode()
    answer = await world.token(
        grant_type="refresh_token",
        client_id=oidc.BROKER,
        refresh_token=joined.refresh_token,
        scope=f"{oidc.MDM_APP}/.default",
        device_assertion=world.assertion(joined),
    )
    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_grant")
