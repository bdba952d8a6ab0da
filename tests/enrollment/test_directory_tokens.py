"""The directory's own token at enrolment: every check of section 9, each by a token that fails it."""

import base64
import hmac
import json
from typing import Any

import pytest
from joserfc import jwt
from joserfc.jwk import RSAKey

from mdm_world import Mdm, bearer, certificate_request, request_token, said, subcode
from tandem import pki
from tandem.tenant import directory, oidc
from ways_world import enrol, policies

NOBODY = "s:Authentication"


def claims_of(token: str) -> dict[str, Any]:
    part = token.split(".")[1]
    return dict(json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))))


def header_of(token: str) -> dict[str, Any]:
    part = token.split(".")[0]
    return dict(json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))))


async def joined(mdm: Mdm) -> tuple[directory.User, str]:
    user = await mdm.world.user("alex")
    device = await mdm.world.joined(user.user_principal_name)
    return user, await mdm.mdm_token(device)


async def signed(mdm: Mdm, claims: dict[str, Any]) -> str:
    """By the tenant's own key: nothing but the claims is wrong."""
    async with mdm.database.transaction() as tx:
        return await mdm.world.tokens.sign(tx, claims, mdm.world.at, x5t=True)


async def test_every_claim_is_checked(mdm: Mdm) -> None:
    _, token = await joined(mdm)
    good = claims_of(token)
    now, base = int(mdm.world.at.timestamp()), mdm.world.tokens.settings.base
    other = "3f1c2d4e-0000-4000-8000-8f2a3c4d5e6f"
    right: dict[str, dict[str, Any]] = {
        "as it is": {},
        "v2": {"iss": f"{base}/{mdm.world.tenant.id}/v2.0", "aud": oidc.MDM_APP.upper()},
        "expired four minutes ago": {"exp": now - 240},
        "valid in four minutes": {"nbf": now + 240},
        "tenant in capitals": {"tid": f" {mdm.world.tenant.id.upper()} "},
        "more scopes": {"scp": "other mdm_delegation"},
    }
    wrong: dict[str, dict[str, Any]] = {
        "expired six minutes ago": {"exp": now - 360},
        "valid in six minutes": {"nbf": now + 360},
        "no expiry": {"exp": None},
        "another issuer": {"iss": "https://sts.windows.net/" + other + "/"},
        "the issuer of another tenant": {"iss": f"{base}/{other}/"},
        "another tenant": {"tid": other},
        "no tenant": {"tid": None},
        "another audience": {"aud": "https://graph.microsoft.com"},
        "an audience that begins alike": {"aud": f"{good['aud']}.evil.example"},
        "no audience": {"aud": None},
        "no permission": {"scp": "other"},
        "no scope": {"scp": None},
        "a permission that contains it": {"scp": "mdm_delegation.none"},
        "nobody's name": {"upn": "", "preferred_username": ""},
        "a device's": {"idtyp": "device", "upn": None},
        "an application's": {"idtyp": "app"},
        "an id token": {"idtyp": None},
        "a user who is not there": {"oid": other},
    }
    for name, change in right.items():
        made = await signed(mdm, {**good, **change})
        assert subcode(await policies(mdm, bearer(made))) == "", name
    for name, change in wrong.items():
        made = await signed(mdm, {k: v for k, v in {**good, **change}.items() if v is not None})
        assert subcode(await policies(mdm, bearer(made))) == NOBODY, name
        assert subcode(await enrol(mdm, bearer(made))) == NOBODY, name
    assert subcode(await enrol(mdm, bearer(token))) == ""


async def test_only_the_tenants_keys_sign(mdm: Mdm) -> None:
    _, token = await joined(mdm)
    claims, header = claims_of(token), header_of(token)
    jwks = (await mdm.world.client.get(f"/{mdm.world.tenant.id}/discovery/keys")).json()["keys"]
    public = RSAKey.import_key(jwks[0]).as_pem(private=False)
    foreign = RSAKey.generate_key(2048)
    none = base64.urlsafe_b64encode(b'{"alg":"none","typ":"JWT"}').rstrip(b"=").decode()
    forged = {
        "another key": jwt.encode({"alg": "RS256", **_kid(header)}, claims, foreign),
        "a key that nobody published": jwt.encode({"alg": "RS256", "kid": "x"}, claims, foreign),
        "a key in the header": jwt.encode(
            {"alg": "RS256", "kid": "x", "jku": "https://evil.example/keys"}, claims, foreign
        ),
        "the public key as a secret": _hmac({"alg": "HS256", **_kid(header)}, claims, public),
        "no signature": f"{none}.{token.split('.')[1]}.",
        "no algorithm": f"{none}.{token.split('.')[1]}.{token.split('.')[2]}",
        "other claims": _other_claims(token),
        "a part too few": token.rpartition(".")[0],
        "a part too many": token + ".AAAA",
        "nothing": "..",
    }
    for name, made in forged.items():
        answer = await policies(mdm, bearer(made))
        assert subcode(answer) == NOBODY, name
        assert "joserfc" not in answer.text
    for kind in ("urn:ietf:params:oauth:token-type:jwt2", "urn:ietf:params:oauth:token-type:saml2"):
        assert subcode(await policies(mdm, bearer(token, kind))) == NOBODY


def _kid(header: dict[str, Any]) -> dict[str, Any]:
    return {"kid": header["kid"]}


def _hmac(header: dict[str, Any], claims: dict[str, Any], key: bytes) -> str:
    """What libraries refuse to make."""
    data = ".".join(
        base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode()
        for part in (header, claims)
    )
    mac = hmac.digest(key, data.encode(), "sha256")
    return f"{data}.{base64.urlsafe_b64encode(mac).rstrip(b'=').decode()}"


def _other_claims(token: str) -> str:
    head, _, signature = token.split(".")
    body = json.dumps({**claims_of(token), "upn": "admin@contoso.com"}).encode()
    return f"{head}.{base64.urlsafe_b64encode(body).rstrip(b'=').decode()}.{signature}"


async def test_both_alphabets_of_base64_are_read(mdm: Mdm) -> None:
    _, token = await joined(mdm)
    for number in range(50):
        text = await signed(mdm, {**claims_of(token), "pad": "?~ÿ" * number})
        safe = base64.urlsafe_b64encode(text.encode()).decode()
        plain = base64.b64encode(text.encode()).decode()
        if safe != plain:
            break
    header = bearer("x").replace(base64.b64encode(b"x").decode(), safe)
    assert subcode(await policies(mdm, header)) == ""
    assert subcode(await policies(mdm, header.replace(safe, safe.rstrip("=")))) == ""


async def test_a_token_dies_with_its_user(mdm: Mdm) -> None:
    user, token = await joined(mdm)
    async with mdm.database.transaction() as tx:
        await directory.update_user(tx, user.id, {"account_enabled": False}, mdm.world.at)
    assert subcode(await policies(mdm, bearer(token))) == NOBODY


@pytest.mark.parametrize("change", ["disabled", "deleted"])
async def test_a_token_dies_with_its_device(mdm: Mdm, change: str) -> None:
    _, token = await joined(mdm)
    assert subcode(await policies(mdm, bearer(token))) == ""
    (device,) = (await mdm.graph("GET", "devices")).json()["value"]
    if change == "disabled":
        path = f"devices/{device['id']}"
        assert (await mdm.graph("PATCH", path, {"accountEnabled": False})).status_code == 204
    else:
        assert (await mdm.graph("DELETE", f"devices/{device['id']}")).status_code == 204
    assert subcode(await policies(mdm, bearer(token))) == NOBODY
    assert subcode(await enrol(mdm, bearer(token))) == NOBODY


async def test_who_it_is_comes_before_what_is_asked(mdm: Mdm) -> None:
    """The fault is that of the first step that fails (section 4)."""
    _, token = await joined(mdm)
    good = certificate_request(pki.generate_key("rsa2048"))

    async def answer(**changes: Any) -> tuple[str, str]:
        request, security = changes.pop("request", good), changes.pop("security", None)
        message = request_token(token, request, security=security, **changes)
        found = await mdm.soap("Enrollment", message)
        return subcode(found), said(found).get("ErrorType", "")

    assert (await answer(request=b"x", DeviceID="", security=""))[0] == "a:InvalidSecurity"
    assert (await answer(request=b"x", DeviceID="", security=bearer("a.b.c")))[0] == NOBODY
    async with mdm.database.transaction() as tx:
        await directory.set_mdm_scope(tx, directory.MdmScope.NONE)
    assert (await answer(request=b"x", DeviceID="")) == ("s:Authorization", "")
    async with mdm.database.transaction() as tx:
        await directory.set_mdm_scope(tx, directory.MdmScope.ALL)
    assert (await answer(request=b"x", DeviceID="")) == ("s:MessageFormat", "InvalidEnrollmentData")
    assert (await answer(request=b"x")) == ("s:CertificateRequest", "")
    assert (await answer()) == ("", "")
