"""Every grant of the token endpoint over HTTP: secrets, certificates, device codes, v1 shapes."""

import base64
from typing import Any

import pytest
from asking import (
    GRAPH,
    REDIRECT,
    Registered,
    asking,
    claims_of,
    client_assertion,
    grant_roles,
    header_of,
    number,
    register,
    self_signed,
)
from cryptography.hazmat.primitives.serialization import Encoding

from tandem.tenant import directory, oidc
from tenant_world import ADMIN, BASE, PASSWORD, World, first_form

JWT_BEARER = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"


async def for_app(world: World, app: Registered, **changes: str) -> Any:
    form = {
        "grant_type": "client_credentials",
        "client_id": app.app_id,
        "client_secret": app.secret,
        "scope": f"{GRAPH}/.default",
        **changes,
    }
    return await world.token(**{name: value for name, value in form.items() if value})


async def test_a_secret_is_taken_from_the_body_and_as_basic(world: World) -> None:
    app = await register(world)
    await grant_roles(world, app, "User.Read.All")
    body = await for_app(world, app)
    assert body.status_code == 200, body.text
    basic = base64.b64encode(f"{app.app_id}:{app.secret}".encode()).decode()
    header = await world.client.post(
        f"{world.authority}/oauth2/v2.0/token",
        data={"grant_type": "client_credentials", "scope": f"{GRAPH}/.default"},
        headers={"Authorization": f"Basic {basic}"},
    )
    for answer in (body, header):
        claims = await claims_of(world, answer.json()["access_token"])
        assert (claims["appid"], claims["appidacr"]) == (app.app_id, "1")
        assert (claims["idtyp"], claims["roles"]) == ("app", ["User.Read.All"])
        assert claims["oid"] == claims["sub"]
        assert "scope" not in answer.json()
        assert "scp" not in claims


@pytest.mark.parametrize(
    "resource",
    [
        f"{GRAPH}/.default",
        f"{GRAPH}//.default",
        f"{oidc.GRAPH}/.default",
        ".default",
    ],
)
async def test_a_resource_is_named_by_its_uri_or_its_id(world: World, resource: str) -> None:
    app = await register(world)
    answer = await for_app(world, app, scope=resource)
    assert (await claims_of(world, answer.json()["access_token"]))["aud"] == GRAPH


async def test_the_short_way_and_the_careful_way_give_the_same_token(world: World) -> None:
    """An application with a secret is answered from one statement; with conditions, step by step."""
    app = await register(world)
    await grant_roles(world, app, "User.Read.All", "Group.Read.All")
    async with world.database.transaction() as tx:
        client = await oidc.applications.principal(tx, app.app_id)
        await directory.grant_role(tx, directory.GLOBAL_READER, client.id)
    short = await claims_of(world, (await for_app(world, app)).json()["access_token"])
    world.tokens.conditions.register(granting)
    careful = await claims_of(world, (await for_app(world, app)).json()["access_token"])
    assert short.pop("uti") != careful.pop("uti")
    assert short == careful
    assert short["wids"] == [directory.GLOBAL_READER]


async def granting(tx: Any, attempt: oidc.Attempt) -> oidc.Decision:
    return oidc.Decision()


async def test_tokens_have_the_shape_of_the_version_that_the_resource_wants(world: World) -> None:
    await register(world, "Old", identifier_uris=("api://old",))
    new = await register(world, "New", identifier_uris=("api://new",), token_version=2)
    app = await register(world)
    old = (await for_app(world, app, scope="api://old/.default")).json()["access_token"]
    one = await claims_of(world, old)
    assert (one["ver"], one["aud"], one["iss"]) == (
        "1.0",
        "api://old",
        f"{BASE}/{world.tenant.id}/",
    )
    assert {"appid", "appidacr", "app_displayname"} <= set(one)
    assert header_of(old)["x5t"] == header_of(old)["kid"]
    later = (await for_app(world, app, scope="api://new/.default")).json()["access_token"]
    two = await claims_of(world, later)
    assert (two["ver"], two["aud"], two["iss"]) == (
        "2.0",
        new.app_id,
        f"{BASE}/{world.tenant.id}/v2.0",
    )
    assert (two["azp"], two["azpacr"]) == (app.app_id, "1")
    assert set(header_of(later)) == {"typ", "alg", "kid"}


async def test_the_v1_endpoint_takes_a_resource_and_answers_in_strings(world: World) -> None:
    app = await register(world)
    answer = await world.client.post(
        f"{world.authority}/oauth2/token",
        data={
            "grant_type": "client_credentials",
            "client_id": app.app_id,
            "client_secret": app.secret,
            "resource": f"{GRAPH}/",
        },
    )
    said = answer.json()
    assert (said["expires_in"], said["ext_expires_in"]) == ("3600", "3600")
    assert said["resource"] == f"{GRAPH}/"
    assert int(said["expires_on"]) - int(said["not_before"]) == 3600


# ---------------------------------------------------------------------------- certificates


async def with_certificate(world: World) -> tuple[Registered, Any, Any]:
    app = await register(world)
    key, certificate = self_signed(world.at)
    async with world.database.transaction() as tx:
        der = certificate.public_bytes(Encoding.DER)
        await oidc.applications.add_certificate(tx, app.id, der)
    return app, key, certificate


async def by_assertion(world: World, app: Registered, assertion: str) -> Any:
    return await for_app(
        world,
        app,
        client_secret="",
        client_assertion_type=JWT_BEARER,
        client_assertion=assertion,
    )


def audience(world: World) -> str:
    return f"{BASE}/{world.tenant.id}/oauth2/v2.0/token"


@pytest.mark.parametrize(
    "options",
    [{"algorithm": "RS256"}, {"algorithm": "PS256"}, {"algorithm": "PS256", "padded": True}],
    ids=["MSAL with thumbprint", "MSAL with certificate", "azure-identity aio"],
)
async def test_assertions_are_taken_as_real_clients_make_them(
    world: World, options: dict[str, Any]
) -> None:
    app, key, certificate = await with_certificate(world)
    made = client_assertion(key, certificate, app.app_id, audience(world), world.at, **options)
    answer = await by_assertion(world, app, made)
    assert answer.status_code == 200, answer.text
    claims = await claims_of(world, answer.json()["access_token"])
    assert claims["appidacr"] == "2"


@pytest.mark.parametrize(
    "audience",
    [
        "{base}/{tid}/oauth2/v2.0/token",
        "{base}/{tid}/oauth2/token",
        "{base}/contoso.com/oauth2/v2.0/token",
        "{base}/{tid}/v2.0",
        "{base}/{tid}/",
        "https://login.microsoftonline.com/{tid}/oauth2/v2.0/token",
        "{base}/CONTOSO.com/oauth2/v2.0/token",
    ],
)
async def test_every_name_of_the_authority_is_an_audience(world: World, audience: str) -> None:
    app, key, certificate = await with_certificate(world)
    named = audience.format(base=BASE, tid=world.tenant.id)
    made = client_assertion(key, certificate, app.app_id, named, world.at)
    assert (await by_assertion(world, app, made)).status_code == 200


async def test_an_assertion_is_refused_unless_everything_about_it_is_right(world: World) -> None:
    app, key, certificate = await with_certificate(world)
    other = await register(world, "Other")
    stranger, strange = self_signed(world.at)
    at, here = world.at, audience(world)
    good: Any = (key, certificate, app.app_id, here, at)
    moment = at.timestamp()
    refused = {
        "of another key": client_assertion(stranger, certificate, *good[2:]),
        "of an unregistered certificate": client_assertion(stranger, strange, *good[2:]),
        "for somebody else": client_assertion(*good, aud="https://evil.example/token"),
        "for another tenant": client_assertion(*good, aud=f"{BASE}/fabrikam.com/oauth2/token"),
        "in another's name": client_assertion(*good, iss=other.app_id, sub=other.app_id),
        "of two names": client_assertion(*good, sub=other.app_id),
        "expired": client_assertion(*good, exp=moment - 400, nbf=None, iat=moment - 900),
        "not valid yet": client_assertion(*good, nbf=moment + 900),
        "valid for ever": client_assertion(*good, exp=moment + 90_000),
        "without an end": client_assertion(*good, exp=None),
        "without a name of its own": client_assertion(*good, jti=None),
        "naming no certificate": client_assertion(*good, header={}),
        "unsigned": client_assertion(*good).rsplit(".", 1)[0] + ".",
        "cut": client_assertion(*good)[:-20],
        "with its key in the header": client_assertion(
            stranger, strange, *good[2:], header={"jwk": {"kty": "RSA"}, "jku": "https://e.example"}
        ),
        "critical": client_assertion(*good, header={"crit": ["exp"], "x5t": "AAAA"}),
        "no JWT": "nonsense",
        "huge": "a" * 20_000 + ".b.c",
    }
    for why, made in refused.items():
        answer = await by_assertion(world, app, made)
        assert (answer.status_code, number(answer)) == (401, 700027), why
        assert answer.json()["error"] == "invalid_client"
    assert (await by_assertion(world, app, client_assertion(*good))).status_code == 200


async def test_a_captured_assertion_is_worth_nothing_elsewhere(world: World) -> None:
    """MSAL sends one assertion with several requests, so its own address may; no other may."""
    app, key, certificate = await with_certificate(world)
    made = client_assertion(key, certificate, app.app_id, audience(world), world.at)
    assert (await by_assertion(world, app, made)).status_code == 200
    assert (await by_assertion(world, app, made)).status_code == 200
    async with world.from_address("198.51.100.7"):
        stolen = await by_assertion(world, app, made)
    assert number(stolen) == 700027
    assert "another address" in stolen.json()["error_description"]


async def test_a_certificate_ends_with_its_validity_and_when_it_is_removed(world: World) -> None:
    app, key, certificate = await with_certificate(world)
    world.wait(days=366)
    late = client_assertion(key, certificate, app.app_id, audience(world), world.at)
    assert number(await by_assertion(world, app, late)) == 700027
    world.wait(days=-366)
    async with world.database.transaction() as tx:
        (held,) = await oidc.applications.certificates(tx, [app.id])
        await oidc.applications.remove_certificate(tx, app.id, held.key_id)
    made = client_assertion(key, certificate, app.app_id, audience(world), world.at)
    assert number(await by_assertion(world, app, made)) == 700027


async def test_only_rsa_certificates_are_registered(world: World) -> None:
    from tandem import pki
    from tandem.tenant.oidc.model import BadCredential

    app = await register(world)
    weak = pki.new_root(pki.name("x"), now=world.at).certificate.public_bytes(Encoding.DER)
    for der in (weak, b"nonsense", b""):
        async with world.database.transaction() as tx:
            with pytest.raises(BadCredential):
                await oidc.applications.add_certificate(tx, app.id, der)


# ---------------------------------------------------------------------------- device code


async def begin(world: World, *, v1: bool = False, **changes: str) -> Any:
    form = {"client_id": oidc.CLI, "scope": f"{GRAPH}/.default openid offline_access", **changes}
    path = "oauth2/devicecode" if v1 else "oauth2/v2.0/devicecode"
    answer = await world.client.post(f"{world.authority}/{path}", data=form)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def poll(world: World, begun: Any, **changes: str) -> Any:
    # MSAL sends the code twice.
    code = begun["device_code"]
    form = {
        "grant_type": "urn:ietf:params:oauth:grant-type:device_code",
        "client_id": oidc.CLI,
        "device_code": code,
        "code": code,
        "client_info": "1",
        **changes,
    }
    return await world.token(**form)


async def enter(world: World, begun: Any, page: str = "/devicelogin") -> Any:
    """Type the code into the page and sign in, up to where the device has to be confirmed."""
    shown = await world.client.get(page)
    answer = await world.submit(shown, otc=begun["user_code"])
    return await world.submit(answer, login=ADMIN, passwd=PASSWORD)


async def test_a_device_without_a_browser_is_signed_in_by_another(world: World) -> None:
    begun = await begin(world)
    assert len(begun["user_code"]) == 9
    assert (begun["expires_in"], begun["interval"]) == (900, 5)
    assert begun["verification_uri"] == f"{BASE}/devicelogin"
    assert begun["user_code"] in begun["message"]
    waiting = await poll(world, begun)
    assert (waiting.status_code, waiting.json()["error"]) == (400, "authorization_pending")
    assert number(waiting) == 70016
    assert (await poll(world, begun)).json()["error"] == "slow_down"
    confirm = await enter(world, begun)
    assert "Tandem command line" in confirm.text
    assert ADMIN in confirm.text
    done = await world.submit(confirm, decision="accept")
    assert "You have signed in on your device" in done.text
    world.wait(seconds=5)
    answer = await poll(world, begun)
    assert answer.status_code == 200, answer.text
    claims = await claims_of(world, answer.json()["access_token"])
    assert (claims["upn"], claims["appid"]) == (ADMIN, oidc.CLI)
    assert answer.json()["refresh_token"]
    assert answer.json()["client_info"]
    again = await poll(world, begun)
    assert again.json()["error"] == "bad_verification_code"


async def test_the_other_address_of_the_page_and_typing_in_lower_case_work(world: World) -> None:
    begun = await begin(world)
    typed = {"user_code": f" {begun['user_code'].lower()[:4]}-{begun['user_code'].lower()[4:]}"}
    confirm = await enter(world, typed, "/common/oauth2/deviceauth")
    await world.submit(confirm, decision="accept")
    assert (await poll(world, begun)).status_code == 200


async def test_the_v1_device_flow_answers_in_strings(world: World) -> None:
    """As IntuneCD's entra backup does it."""
    begun = await begin(world, v1=True, resource=GRAPH, scope="")
    assert (begun["expires_in"], begun["interval"]) == ("900", "5")
    assert begun["verification_url"] == f"{BASE}/devicelogin"
    await world.submit(await enter(world, begun), decision="accept")
    answer = await world.client.post(
        f"{world.authority}/oauth2/token",
        data={
            "grant_type": "device_code",
            "client_id": oidc.CLI,
            "code": begun["device_code"],
            "resource": GRAPH,
        },
    )
    assert answer.json()["expires_in"] == "3600"
    assert (await claims_of(world, answer.json()["id_token"]))["ver"] == "1.0"


async def test_a_declined_or_late_device_gets_nothing(world: World) -> None:
    declined = await begin(world)
    page = await world.submit(await enter(world, declined), decision="cancel")
    assert "was not signed in" in page.text
    assert (await poll(world, declined)).json()["error"] == "authorization_declined"
    late = await begin(world)
    world.wait(seconds=901)
    assert (await poll(world, late)).json()["error"] == "expired_token"
    page = await world.client.get("/devicelogin")
    refused = await world.submit(page, otc=late["user_code"])
    assert (refused.status_code, "AADSTS70018" in refused.text) == (400, True)


async def test_a_browser_that_is_signed_in_picks_its_account_and_confirms(world: World) -> None:
    await world.code("openid")
    begun = await begin(world)
    shown = await world.client.get("/devicelogin", params={"user_code": begun["user_code"]})
    picked = await world.submit(shown, otc=begun["user_code"])
    assert "Pick an account" in picked.text
    confirm = await world.submit(picked, account=first_button(picked.text)[1])
    assert "Are you trying to sign in to" in confirm.text
    await world.submit(confirm, decision="accept")
    assert (await poll(world, begun)).status_code == 200


def first_button(html: str) -> tuple[str, str]:
    import re

    found = re.search(r'<button[^>]*name="([^"]+)"\s+value="([^"]+)"', html)
    assert found, html
    return found[1], found[2]


async def test_a_code_is_for_the_client_that_asked_and_only_for_public_ones(world: World) -> None:
    begun = await begin(world)
    await world.submit(await enter(world, begun), decision="accept")
    other = await register(world, public_redirect_uris=("http://localhost",))
    stolen = await poll(world, begun, client_id=other.app_id)
    assert stolen.json()["error"] == "bad_verification_code"
    confidential = await register(world, "Web", web_redirect_uris=(REDIRECT,))
    refused = await world.client.post(
        f"{world.authority}/oauth2/v2.0/devicecode",
        data={"client_id": confidential.app_id, "scope": "openid"},
    )
    assert (refused.status_code, number(refused)) == (401, 7000218)


async def test_guessing_user_codes_stops_soon(world: World) -> None:
    page = await world.client.get("/devicelogin")
    for _ in range(10):
        page = await world.submit(page, otc="BCDFGHJKL")
        assert "AADSTS70018" in page.text
    begun = await begin(world)
    page = await world.submit(page, otc=begun["user_code"])
    assert "AADSTS50053" in page.text


async def test_consent_is_asked_on_the_way(world: World) -> None:
    app = await register(world, public_redirect_uris=("http://localhost",))
    begun = await begin(world, client_id=app.app_id, scope=f"{GRAPH}/User.Read openid")
    consent = await world.submit(await enter(world, begun), decision="accept")
    assert "Permissions requested" in consent.text
    await world.submit(consent, decision="accept")
    answer = await poll(world, begun, client_id=app.app_id)
    claims = await claims_of(world, answer.json()["access_token"])
    assert claims["scp"] == "User.Read"
    assert "refresh_token" not in answer.json()


# ---------------------------------------------------------------------------- password


async def by_password(world: World, **changes: str) -> Any:
    form = {
        "grant_type": "password",
        "client_id": oidc.CLI,
        "username": ADMIN,
        "password": PASSWORD,
        "scope": f"{GRAPH}/.default openid offline_access",
        **changes,
    }
    return await world.token(**form)


async def test_the_password_grant_is_off_unless_switched_on(world: World) -> None:
    assert (await by_password(world)).json()["error"] == "unsupported_grant_type"


@pytest.mark.parametrize("world", [{"password_grant": True}], indirect=True)
async def test_the_password_grant_gives_tokens_and_counts_wrong_passwords(world: World) -> None:
    answer = await by_password(world)
    claims = await claims_of(world, answer.json()["access_token"])
    assert (claims["upn"], claims["amr"]) == (ADMIN, ["pwd"])
    await world.user("alex", must_change_password=True)
    assert number(await by_password(world, username="alex@contoso.com")) == 50055
    wrong = await by_password(world, password="nonsense")
    assert (wrong.json()["error"], number(wrong)) == ("invalid_grant", 50126)
    for _ in range(9):
        await by_password(world, password="nonsense")
    assert number(await by_password(world)) == 50053


# ---------------------------------------------------------------------------- users


async def test_scopes_come_back_in_the_spelling_they_were_asked_in(world: World) -> None:
    """MSAL looks the scopes that it asked for up in the answer."""
    for asked in ("User.Read", f"{GRAPH}/User.Read", f"{GRAPH}/.default"):
        tokens = await world.user_tokens(f"{asked} openid offline_access")
        assert asked in tokens["scope"].split()
    bare = await world.user_tokens("User.Read")
    assert bare["scope"] == "User.Read"


async def test_app_roles_of_users_and_of_their_groups_are_in_the_token(world: World) -> None:
    roles = tuple(
        {
            "id": f"00000000-0000-0000-0000-00000000000{n}",
            "value": value,
            "allowedMemberTypes": [member],
            "isEnabled": True,
        }
        for n, value, member in (
            (1, "Reader", "User"),
            (2, "Writer", "User"),
            (3, "Job", "Application"),
        )
    )
    api = await register(world, "Api", identifier_uris=("api://api",), app_roles=roles)
    alex = await world.user("alex")
    async with world.database.transaction() as tx:
        there = await oidc.applications.principal(tx, api.app_id)
        group = await directory.create_group(tx, "Writers", world.at)
        await directory.add_member(tx, group.id, alex.id)
        for role, holder in ((roles[0], alex.id), (roles[1], group.id)):
            await oidc.applications.assign_role(tx, role["id"], holder, there.id, world.at)
        from tandem.tenant.oidc.model import UnknownPermission

        with pytest.raises(UnknownPermission):
            await oidc.applications.assign_role(tx, roles[2]["id"], alex.id, there.id, world.at)
    tokens = await world.user_tokens("api://api/.default", upn="alex@contoso.com")
    assert (await claims_of(world, tokens["access_token"]))["roles"] == ["Reader", "Writer"]


async def test_a_confidential_client_signs_users_in_with_secret_and_pkce(world: World) -> None:
    app = await register(world, web_redirect_uris=(REDIRECT,))
    back, verifier = await world.code("openid", client_id=app.app_id, redirect=REDIRECT)
    form = {
        "grant_type": "authorization_code",
        "client_id": app.app_id,
        "code": back["code"],
        "redirect_uri": REDIRECT,
        "code_verifier": verifier,
    }
    assert number(await world.token(**form)) == 7000218
    answer = await world.token(**form, client_secret=app.secret)
    assert answer.status_code == 200, answer.text
    claims = await claims_of(world, answer.json()["access_token"])
    assert claims["appidacr"] == "1"


async def test_id_tokens_come_at_the_redirect_only_where_the_application_allows_it(
    world: World,
) -> None:
    query = {"response_type": "code id_token", "nonce": "n1", "redirect_uri": REDIRECT}
    plain = await register(world, "Plain", web_redirect_uris=(REDIRECT,))
    page = await world.sign_in_page(**asking(**query, client_id=plain.app_id))
    assert "AADSTS700054" in page.headers["location"]
    app = await register(
        world, web_redirect_uris=(REDIRECT,), properties={"enableIdTokenIssuance": True}
    )
    page = await world.sign_in_page(
        **asking(**query, client_id=app.app_id, response_mode="form_post")
    )
    last = await world.submit(page, login=ADMIN, passwd=PASSWORD)
    action, fields = first_form(last.text)
    claims = await claims_of(world, fields["id_token"])
    assert (action, claims["nonce"], claims["aud"]) == (REDIRECT, "n1", app.app_id)
    assert claims["c_hash"]
    in_query = await world.sign_in_page(
        **asking(**query, client_id=app.app_id, response_mode="query")
    )
    assert "#code=" in in_query.headers["location"], "never in a query"
