"""What an attacker tries on an OAuth authority, over HTTP, and what he gets."""

import asyncio
import base64
import hashlib
import json
import statistics
import time
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

import pytest
from asking import (
    CHALLENGE,
    GRAPH,
    REDIRECT,
    VERIFIER,
    asking,
    claims_of,
    client_assertion,
    number,
    register,
    self_signed,
)
from joserfc import jwt
from joserfc.jwk import OctKey, RSAKey

from tandem.infra.database import Database
from tandem.tenant import directory, oidc
from tandem.tenant.oidc.model import BadUri
from tandem.tenant.oidc.scopes import check_redirect_uri
from tenant_world import ADMIN, BASE, OUT_OF_BAND, PASSWORD, World, first_form, make_world

# ---------------------------------------------------------------------------- redirects


async def test_tricks_with_the_redirect_uri_end_on_a_page_of_ours(world: World) -> None:
    app = await register(
        world, web_redirect_uris=(REDIRECT,), public_redirect_uris=("http://localhost/cb",)
    )
    tricks = [
        REDIRECT + "/more",
        REDIRECT + "?to=https://evil.example",
        REDIRECT + "#fragment",
        REDIRECT + "/../other",
        REDIRECT.replace("/back", "/x/../back"),
        REDIRECT.replace("/back", "/%2e%2e/back"),
        REDIRECT.replace("app.example", "app.example@evil.example"),
        REDIRECT.replace("app.example", "app.example.evil.example"),
        REDIRECT.replace("app.example", "evil.example/app.example"),
        REDIRECT.replace("app.example", "app.example:8443"),
        REDIRECT.replace("app.example", "APP.example"),
        REDIRECT.replace("https", "http"),
        REDIRECT.replace("https://", "https:\\\\"),
        REDIRECT + "\r\nSet-Cookie: a=b",
        REDIRECT + " ",
        "https://*.example/back",
        "javascript:alert(1)",
        "//evil.example",
        "http://localhost/other",
        "http://localhost:80/cb?x=1",
        "http://localhost:80/cb#x",
        "http://localhost:80@evil.example/cb",
        "http://localhost:80\\@evil.example/cb",
        "http://localhost.evil.example/cb",
        "http://LOCALHOST/cb",
        "http://127.0.0.1/cb",
        "https://localhost/cb",
        "http://localhost:99999999/cb",
        "http://localhost:/cb/../x",
        "http://[::1/cb",
    ]
    for trick in tricks:
        page = await world.sign_in_page(**asking(client_id=app.app_id, redirect_uri=trick))
        assert (page.status_code, "location" in page.headers) == (400, False), trick
        assert "AADSTS50011" in page.text, trick
    for good in (REDIRECT, "http://localhost/cb", "http://localhost:8412/cb"):
        page = await world.sign_in_page(**asking(client_id=app.app_id, redirect_uri=good))
        assert page.status_code == 200, good


@pytest.mark.parametrize(
    "uri",
    [
        "https://*.contoso.com/back",
        "https://app.example/back#x",
        "https://user@app.example/back",
        "https://app.example/../back",
        "https:///back",
        "http://app.example/back",
        "http://localhost.evil.example",
        "javascript:alert(1)",
        "data:text/html,x",
        "https://app.example/a b",
        "https://app.example\\@evil.example",
        "https://[::1",
        "",
    ],
)
def test_an_address_that_could_mean_two_things_is_not_registered(uri: str) -> None:
    with pytest.raises(BadUri):
        check_redirect_uri(uri)


async def test_errors_are_no_open_redirect(world: World) -> None:
    """Neither a refusal nor a sign-out sends a browser to an address that is not registered."""
    for query in (
        asking(redirect_uri="https://evil.example/", response_type="nonsense"),
        asking(redirect_uri="https://evil.example/", scope=""),
        asking(client_id="unknown", redirect_uri="https://evil.example/"),
        asking(redirect_uri="https://evil.example/", prompt="none"),
    ):
        page = await world.sign_in_page(**query)
        assert (page.status_code, "location" in page.headers) == (400, False)
    for target in ("https://evil.example/", "//evil.example", REDIRECT + ".evil.example"):
        page = await world.client.get(
            f"{world.authority}/oauth2/v2.0/logout", params={"post_logout_redirect_uri": target}
        )
        assert (page.status_code, "location" in page.headers) == (200, False)


async def test_a_parameter_that_is_there_twice_is_refused(world: World) -> None:
    query = "&".join(f"{name}={quote(value)}" for name, value in asking().items())
    page = await world.client.get(
        f"{world.authority}/oauth2/v2.0/authorize?{query}&redirect_uri=https://evil.example/"
    )
    assert page.status_code == 400
    answer = await world.client.post(
        f"{world.authority}/oauth2/v2.0/token",
        content="grant_type=client_credentials&grant_type=password&client_id=x",
        headers={"Content-Type": "application/x-www-form-urlencoded"},
    )
    assert number(answer) == 90100


# ---------------------------------------------------------------------------- codes and PKCE


def redemption(code: str, verifier: str, **changes: str) -> dict[str, str]:
    form = {
        "grant_type": "authorization_code",
        "client_id": oidc.CLI,
        "code": code,
        "redirect_uri": OUT_OF_BAND,
        "code_verifier": verifier,
        **changes,
    }
    return {name: value for name, value in form.items() if value}


async def test_replaying_a_code_revokes_what_came_from_it(world: World) -> None:
    """The refresh token and, at the tenant's own services, the access token."""
    back, verifier = await world.code(f"{GRAPH}/.default openid offline_access")
    first = (await world.token(**redemption(back["code"], verifier))).json()
    assert await accepted(world, first["access_token"])
    replayed = await world.token(**redemption(back["code"], verifier))
    assert number(replayed) == 54005
    refreshed = await world.token(
        grant_type="refresh_token", client_id=oidc.CLI, refresh_token=first["refresh_token"]
    )
    assert refreshed.json()["error"] == "invalid_grant"
    assert not await accepted(world, first["access_token"])


async def accepted(world: World, token: str) -> bool:
    answer = await world.client.get("/oidc/userinfo", headers={"Authorization": f"Bearer {token}"})
    assert answer.status_code in (200, 401)
    return answer.status_code == 200


async def test_a_stolen_code_is_no_use_to_another_client_or_address(world: World) -> None:
    thief = await register(world, "Thief", public_redirect_uris=("http://localhost",))
    back, verifier = await world.code("openid offline_access")
    injected = await world.token(**redemption(back["code"], verifier, client_id=thief.app_id))
    assert number(injected) == 70000
    moved = await world.token(
        **redemption(back["code"], verifier, redirect_uri="http://localhost:1/x")
    )
    assert number(moved) == 50011
    assert (await world.token(**redemption(back["code"], verifier))).status_code == 200


async def test_a_code_injected_into_the_victims_browser_fails_its_verifier(world: World) -> None:
    """The attacker's code with the victim's verifier (RFC 9700, 4.5)."""
    back, _ = await world.code("openid")
    answer = await world.token(**redemption(back["code"], VERIFIER))
    assert number(answer) == 501481


async def test_pkce_cannot_be_taken_away_or_weakened(world: World) -> None:
    for query in (
        asking(code_challenge="", code_challenge_method=""),
        asking(code_challenge_method="plain"),
        asking(code_challenge_method=""),
        asking(code_challenge="short"),
        asking(code_challenge=CHALLENGE + "="),
    ):
        page = await world.sign_in_page(**query)
        assert "error=invalid_request" in page.headers["location"]
    back, _ = await world.code("openid")
    assert number(await world.token(**redemption(back["code"], ""))) == 501481


async def test_a_challenge_that_was_removed_on_the_way_is_noticed(world: World) -> None:
    """A confidential client may go without PKCE, but not with a verifier to no challenge
    (RFC 9700, 2.1.1)."""
    app = await register(world, web_redirect_uris=(REDIRECT,))
    query = asking(
        client_id=app.app_id, redirect_uri=REDIRECT, code_challenge="", code_challenge_method=""
    )
    page = await world.sign_in_page(**query)
    back = await world.submit(page, login=ADMIN, passwd=PASSWORD)
    code = parse_qs(urlsplit(back.headers["location"]).query)["code"][0]
    form = redemption(
        code, VERIFIER, client_id=app.app_id, redirect_uri=REDIRECT, client_secret=app.secret
    )
    assert number(await world.token(**form)) == 501481


async def test_the_answer_says_which_authority_gave_it(world: World) -> None:
    """Against mix-up (RFC 9207), in success and refusal alike."""
    metadata = (
        await world.client.get(f"{world.authority}/v2.0/.well-known/openid-configuration")
    ).json()
    assert metadata["authorization_response_iss_parameter_supported"] is True
    back, _ = await world.code("openid")
    assert back["iss"] == metadata["issuer"]
    refused = await world.sign_in_page(**asking(prompt="nonsense"))
    fields = parse_qs(urlsplit(refused.headers["location"]).query)
    assert (fields["iss"], fields["state"]) == ([metadata["issuer"]], ["s1"])


# ---------------------------------------------------------------------------- tokens


async def test_only_an_access_token_for_this_resource_from_this_tenant_is_taken(
    world: World,
) -> None:
    tokens = await world.user_tokens(f"{GRAPH}/.default openid")
    own = await claims_of(world, tokens["access_token"])
    other = (await world.user_tokens(f"{oidc.MDM_APP}/.default"))["access_token"]
    assert await accepted(world, tokens["access_token"])

    async def signed(**changes: Any) -> str:
        """With our own key, as if another of our services had issued it."""
        async with world.database.transaction() as tx:
            return await world.tokens.sign(tx, {**own, **changes}, world.at, x5t=True)

    elsewhere = f"{BASE}/11111111-1111-1111-1111-111111111111/"
    refused = {
        "an id_token": tokens["id_token"],
        "an id_token for Graph": await signed(idtyp=None),
        "for another resource": other,
        "of another tenant": await signed(iss=elsewhere),
        "for nobody": await signed(aud=""),
        "for several": await signed(aud=[GRAPH, "https://evil.example"]),
        "not valid yet": await signed(nbf=own["nbf"] + 3600),
        "expired": await signed(exp=own["iat"] - 1),
    }
    for why, token in refused.items():
        assert not await accepted(world, token), why


async def test_the_algorithm_and_the_key_are_ours_to_choose(world: World) -> None:
    token = (await world.user_tokens(f"{GRAPH}/.default"))["access_token"]
    published = (await world.client.get("/common/discovery/keys")).json()["keys"][0]
    claims, kid = await claims_of(world, token), published["kid"]
    head, body, signature = token.split(".")
    public = RSAKey.import_key({k: published[k] for k in ("kty", "n", "e")}).as_pem(private=False)
    attackers = RSAKey.generate_key(2048)

    def with_header(**header: Any) -> str:
        raw = base64.urlsafe_b64encode(json.dumps(header).encode()).rstrip(b"=").decode()
        return f"{raw}.{body}."

    mac = OctKey.import_key(hashlib.sha256(public).digest())
    forged = {
        "none": with_header(alg="none", kid=kid),
        "None": with_header(alg="None", kid=kid) + signature,
        "HS256 over the public key": jwt.encode({"alg": "HS256", "kid": kid}, claims, mac),
        "own key, our id": jwt.encode({"alg": "RS256", "kid": kid}, claims, attackers),
        "own key in jwk": jwt.encode(
            {"alg": "RS256", "jwk": attackers.as_dict(private=False)}, claims, attackers
        ),
        "own key by jku": jwt.encode(
            {"alg": "RS256", "kid": "x", "jku": "https://evil.example/keys"}, claims, attackers
        ),
        "own certificate by x5u": jwt.encode(
            {"alg": "RS256", "kid": kid, "x5u": "https://evil.example/c"}, claims, attackers
        ),
        "other body": f"{head}.{body[:-4]}AAAA.{signature}",
        "no signature": f"{head}.{body}.",
        "two parts": f"{head}.{body}",
        "five parts": f"{token}.a.b",
        "garbage": "x.y.z",
        "huge": "a" * 30_000,
    }
    for why, made in forged.items():
        assert not await accepted(world, made), why
    assert await accepted(world, token)


async def test_a_client_assertion_cannot_choose_its_algorithm(world: World) -> None:
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    app = await register(world)
    key, certificate = self_signed(world.at)
    async with world.database.transaction() as tx:
        der = certificate.public_bytes(Encoding.DER)
        await oidc.applications.add_certificate(tx, app.id, der)
    where = f"{BASE}/{world.tenant.id}/oauth2/v2.0/token"
    good = client_assertion(key, certificate, app.app_id, where, world.at)
    _, body, signature = good.split(".")
    thumb = base64.urlsafe_b64encode(hashlib.sha256(der).digest()).rstrip(b"=").decode()
    pem = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)

    def encoded(value: bytes) -> str:
        return base64.urlsafe_b64encode(value).rstrip(b"=").decode()

    for algorithm in ("none", "HS256", "RS384", "ES256", "", None, 1):
        head = encoded(json.dumps({"alg": algorithm, "x5t#S256": thumb}).encode())
        mac = encoded(hashlib.sha256(pem).digest())
        for last in (signature, mac):
            answer = await world.token(
                grant_type="client_credentials",
                client_id=app.app_id,
                scope=f"{GRAPH}/.default",
                client_assertion_type="urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
                client_assertion=f"{head}.{body}.{last}",
            )
            assert (answer.status_code, number(answer)) == (401, 700027), algorithm


# ---------------------------------------------------------------------------- browsers


async def test_consent_cannot_be_given_for_somebody(world: World) -> None:
    """Not from another site (no cookie), not with another browser's form, not signed out, and not
    by pressing a button of a page that was shown to another account."""
    app = await register(world, public_redirect_uris=("http://localhost",))
    page = await world.sign_in_page(**asking(client_id=app.app_id, scope=f"{GRAPH}/User.Read"))
    consent = await world.submit(page, login=ADMIN, passwd=PASSWORD)
    assert "Permissions requested" in consent.text
    action, hidden = first_form(consent.text)
    cookies = list(world.client.cookies.jar)
    assert all(cookie.get_nonstandard_attr("SameSite") == "lax" for cookie in cookies)
    assert all(cookie.secure and cookie.name.startswith("__Host-") for cookie in cookies)

    async def press(kept: list[str], **changes: str) -> Any:
        world.client.cookies.clear()
        for cookie in cookies:
            if any(cookie.name.endswith(name) for name in kept):
                world.client.cookies.set(cookie.name, cookie.value or "", domain=cookie.domain)
        return await world.client.post(action, data={**hidden, "decision": "accept", **changes})

    for kept in ([], ["session"], ["form"]):
        refused = await press(kept)
        assert (refused.status_code, "AADSTS16000" in refused.text) == (400, True), kept
    forged = await press(["session", "form"], ctx="AAAA")
    assert "AADSTS16000" in forged.text
    assert (await press(["session", "form"])).status_code == 302


async def test_a_session_that_somebody_planted_is_never_signed_in(world: World) -> None:
    """The value of the cookie is new after each sign-in; the one before is worth nothing."""
    name = "__Host-tandem_session"
    world.client.cookies.set(name, "planted-by-the-attacker", domain="tenant.example")
    await world.code("openid")
    first = _cookie(world, name)
    assert first != "planted-by-the-attacker"
    await world.code("openid", prompt="login")
    second = _cookie(world, name)
    assert second != first
    for stale in ("planted-by-the-attacker", first):
        world.client.cookies.clear()
        world.client.cookies.set(name, stale, domain="tenant.example")
        silent = await world.sign_in_page(**asking(prompt="none"))
        assert "error=login_required" in silent.headers["location"]
    world.client.cookies.clear()
    world.client.cookies.set(name, second, domain="tenant.example")
    silent = await world.sign_in_page(**asking(prompt="none"))
    assert "code=" in silent.headers["location"]


def _cookie(world: World, name: str) -> str:
    (found,) = [c.value for c in world.client.cookies.jar if c.name == name and c.path == "/"][-1:]
    return str(found)


async def test_no_page_can_be_framed_and_none_is_kept(world: World) -> None:
    pages = [
        await world.sign_in_page(**asking()),
        await world.sign_in_page(**asking(redirect_uri="https://evil.example")),
        await world.sign_in_page(**asking(prompt="none")),
        await world.client.get("/devicelogin"),
        await world.client.get(f"{world.authority}/oauth2/v2.0/logout"),
        await world.client.get("/common/oauth2/nativeclient"),
    ]
    for page in pages:
        assert page.headers["x-frame-options"] == "DENY"
        assert "frame-ancestors 'none'" in page.headers["content-security-policy"]
        assert "<script" not in page.text
        assert page.headers["cache-control"] == "no-store"
        assert page.headers["referrer-policy"] == "no-referrer"


async def test_what_a_request_says_is_shown_as_text(world: World) -> None:
    evil = '"><script>alert(1)</script>'
    for page in (
        await world.sign_in_page(**asking(login_hint=evil)),
        await world.sign_in_page(**asking(redirect_uri=f"https://x/{evil}")),
        await world.sign_in_page(**asking(client_id=evil)),
        await world.client.get("/devicelogin", params={"user_code": evil}),
    ):
        assert "<script" not in page.text


# ---------------------------------------------------------------------------- passwords


async def attempt(world: World, upn: str, password: str = "Winter2026!") -> Any:
    page = await world.sign_in_page(**asking(prompt="login"))
    return await world.submit(page, login=upn, passwd=password)


async def test_spraying_one_password_over_many_accounts_stops_the_address(world: World) -> None:
    names = [f"u{n}@contoso.com" for n in range(10)]
    for name in names:
        assert (await attempt(world, name)).status_code == 400
    stopped = await attempt(world, ADMIN, PASSWORD)
    assert (stopped.status_code, "AADSTS50053" in stopped.text) == (429, True)
    assert stopped.headers["retry-after"] == "600"
    async with world.from_address("203.0.113.9"):
        assert (await attempt(world, ADMIN, PASSWORD)).status_code == 302, "others are not"
    world.wait(seconds=601)
    assert (await attempt(world, ADMIN, PASSWORD)).status_code == 302


@pytest.mark.parametrize("world", [{"address_failures": 1000}], indirect=True)
async def test_names_cannot_be_told_apart_by_message_or_by_lock(world: World) -> None:
    """A name that nobody has is refused and locked in the same words at the same moment."""
    await world.user("alex")
    said = {}
    for name in ("alex@contoso.com", "nobody@contoso.com", "nobody@elsewhere.example"):
        answers = [await attempt(world, name) for _ in range(12)]
        alerts = [_alert(answer.text) for answer in answers]
        said[name] = [(a.status_code, text) for a, text in zip(answers, alerts, strict=True)]
    one, *others = said.values()
    assert all(other == one for other in others)
    assert "AADSTS50053" in one[-1][1]
    assert "AADSTS50126" in one[0][1]


def _alert(html: str) -> str:
    return html.partition('id="error">')[2].partition("</p>")[0]


async def test_names_cannot_be_told_apart_by_time(tenant_db: Database) -> None:
    """Each refusal costs one argon2, whoever is asked for."""
    slow = directory.DirectorySettings(password_memory_kib=8192, password_passes=3, lock_after=99)
    world = await make_world(tenant_db, authority={"address_accounts": 99}, passwords=slow)
    async with tenant_db.transaction() as tx:
        new = directory.NewUser("alex@contoso.com", "Alex", PASSWORD)
        await directory.create_user(tx, new, world.at, slow)
    page = await world.sign_in_page(**asking())
    spent: dict[str, list[float]] = {"alex": [], "nobody": []}
    for _ in range(9):
        for name, times in spent.items():
            began = time.process_time()
            await world.submit(page, login=f"{name}@contoso.com", passwd="nonsense")
            times.append(time.process_time() - began)
    known, unknown = (statistics.median(times) for times in spent.values())
    assert 0.6 < known / unknown < 1.6, spent
    await world.client.aclose()


async def test_a_flood_of_refusals_does_not_fill_the_log(world: World) -> None:
    app = await register(world)
    form = {"grant_type": "client_credentials", "client_id": app.app_id, "client_secret": "x"}
    for _ in range(5):
        await asyncio.gather(*(world.token(**form, scope=".default") for _ in range(14)))
    async with world.database.transaction() as tx:
        kept = await oidc.sign_ins(tx, failed=True)
    assert 55 <= len(kept) <= 66
