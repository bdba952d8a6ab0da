"""App registrations and service principals: credentials, owners, what they offer and hold."""

import uuid
from base64 import b64decode, b64encode, urlsafe_b64encode
from datetime import timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding
from joserfc import jwt
from joserfc.jwk import RSAKey

from graph_caller import Graph
from tandem import pki
from tandem.tenant import oidc
from tenant_world import ADMIN, BASE, World


@pytest.fixture(scope="module")
def key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, 2048)


def certificate(key: rsa.RSAPrivateKey, world: World, days: int = 365) -> str:
    name = pki.name("Automation")
    built = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(world.at - timedelta(days=1))
        .not_valid_after(world.at + timedelta(days=days))
    )
    return b64encode(built.sign(key, hashes.SHA256()).public_bytes(Encoding.DER)).decode()


def signed(key: rsa.RSAPrivateKey, claims: dict[str, Any]) -> str:
    return jwt.encode({"alg": "RS256"}, claims, RSAKey.import_key(key))


def proof(key: rsa.RSAPrivateKey, world: World, issuer: str, **changes: Any) -> str:
    at = int(world.at.timestamp())
    claims = {"aud": "00000002-0000-0000-c000-000000000000", "iss": issuer, "nbf": at}
    return signed(key, {**claims, "exp": at + 300, **changes})


async def test_secrets_end_when_they_were_told_to_and_are_never_shown_again(
    admin: Graph, world: World
) -> None:
    app = await admin.post("applications", {"displayName": "Server"})
    principal = await admin.post("servicePrincipals", {"appId": app["appId"]})
    at = f"applications/{app['id']}"
    ends = "2026-11-25T09:00:00Z"
    asked = {"passwordCredential": {"displayName": "short", "endDateTime": ends}}
    made = await admin.post(f"{at}/addPassword", asked, status=200)
    assert (made["endDateTime"], made["displayName"]) == (ends, "short")
    (shown,) = (await admin.get(at))["passwordCredentials"]
    assert (shown["secretText"], shown["hint"]) == (None, made["secretText"][:3])
    (same,) = (await admin.get(f"servicePrincipals/{principal['id']}"))["passwordCredentials"]
    assert same["keyId"] == made["keyId"]
    past = {"passwordCredential": {"endDateTime": "2020-01-01T00:00:00Z"}}
    await admin.post(f"{at}/addPassword", past, status=400)
    form = {
        "grant_type": "client_credentials",
        "client_id": app["appId"],
        "client_secret": made["secretText"],
        "scope": "https://graph.microsoft.com/.default",
    }
    assert (await world.token(**form)).status_code == 200
    second = await admin.post(f"servicePrincipals/{principal['id']}/addPassword", {}, status=200)
    await admin.post(f"{at}/removePassword", {"keyId": second["keyId"]}, status=204)
    await admin.post(f"{at}/removePassword", {"keyId": second["keyId"]}, status=404)
    world.wait(days=2)
    assert (await world.token(**form)).json()["error_codes"] == [7000222]


async def test_certificates_are_replaced_by_patch_and_rolled_with_a_proof(
    admin: Graph, world: World, key: rsa.RSAPrivateKey
) -> None:
    app = await admin.post("applications", {"displayName": "Server"})
    await admin.post("servicePrincipals", {"appId": app["appId"]})
    at = f"applications/{app['id']}"
    first = certificate(key, world)
    credential = {"type": "AsymmetricX509Cert", "usage": "Verify", "key": first}
    await admin.call("PATCH", at, {"keyCredentials": [credential]})
    (shown,) = (await admin.get(at))["keyCredentials"]
    assert (shown["key"], shown["type"]) == (None, "AsymmetricX509Cert")
    selected = await admin.get(f"{at}?$select=keyCredentials")
    assert selected["keyCredentials"][0]["key"] == first
    token_url = f"{BASE}/{world.tenant.id}/oauth2/v2.0/token"
    now = int(world.at.timestamp())
    claims = {"iss": app["appId"], "sub": app["appId"], "aud": token_url, "nbf": now}
    thumbprint = x509.load_der_x509_certificate(b64decode(first)).fingerprint(hashes.SHA1())
    assertion = jwt.encode(
        {"alg": "RS256", "x5t": urlsafe_b64encode(thumbprint).decode().rstrip("=")},
        {**claims, "exp": now + 300, "jti": str(uuid.uuid4())},
        RSAKey.import_key(key),
    )
    form = {
        "grant_type": "client_credentials",
        "client_id": app["appId"],
        "client_assertion_type": "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
        "client_assertion": assertion,
        "scope": "https://graph.microsoft.com/.default",
    }
    assert (await world.token(**form)).status_code == 200

    other = rsa.generate_private_key(65537, 2048)
    new = {"keyCredential": {**credential, "key": certificate(other, world)}}
    for bad in (
        proof(other, world, app["id"]),
        proof(key, world, app["appId"]),
        proof(key, world, app["id"], aud="other"),
        proof(key, world, app["id"], exp=now + 3600),
        proof(key, world, app["id"], nbf=now - 900, exp=now - 600),
        "nonsense",
    ):
        await admin.post(f"{at}/addKey", {**new, "proof": bad}, status=403)
    good = proof(key, world, app["id"])
    added = await admin.post(f"{at}/addKey", {**new, "proof": good}, status=200)
    removed = {"keyId": shown["keyId"], "proof": proof(other, world, app["id"])}
    await admin.post(f"{at}/removeKey", removed, status=204)
    (left,) = (await admin.get(at))["keyCredentials"]
    assert left["keyId"] == added["keyId"]
    await admin.call("PATCH", at, {"keyCredentials": []})
    assert (await admin.get(at))["keyCredentials"] == []


@pytest.mark.parametrize(
    "change",
    [
        {"keyCredentials": [{"key": "!"}]},
        {"keyCredentials": [{"key": b64encode(b"x").decode()}]},
        {"keyCredentials": [{"type": "Symmetric", "key": "AA=="}]},
        {"appRoles": [{"id": "x", "value": "A"}]},
        {"appRoles": [{"id": str(uuid.UUID(int=1)), "value": "A", "allowedMemberTypes": ["X"]}]},
        {"appRoles": [{"id": str(uuid.UUID(int=n)), "value": "A"} for n in (1, 2)]},
        {"api": {"oauth2PermissionScopes": "x"}},
        {"requiredResourceAccess": [{"resourceAppId": "x"}]},
        {"web": {"logoutUrl": 3}},
        {"optionalClaims": {"x": "y" * 9000}},
    ],
)
async def test_what_an_application_cannot_be_is_refused(
    admin: Graph, change: dict[str, Any]
) -> None:
    app = await admin.post("applications", {"displayName": "Server"})
    await admin.call("PATCH", f"applications/{app['id']}", change, status=400)


async def test_an_application_keeps_its_words_and_has_owners(admin: Graph, world: World) -> None:
    alex = await world.user("alex")
    written = {
        "displayName": "Portal",
        "spa": {"redirectUris": ["https://portal.contoso.com/"]},
        "publicClient": {"redirectUris": ["http://localhost"]},
        "isFallbackPublicClient": True,
        "notes": "ours",
        "tags": ["one"],
        "optionalClaims": {"idToken": []},
        "api": {"knownClientApplications": [str(uuid.UUID(int=5))], "acceptMappedClaims": True},
    }
    app = await admin.post("applications", written)
    at = f"applications/{app['id']}"
    found = await admin.get(at)
    for name in ("spa", "publicClient", "isFallbackPublicClient", "notes", "tags"):
        assert found[name] == written[name], name
    assert found["api"]["acceptMappedClaims"] is True
    assert found["publisherDomain"] == "contoso.com"
    nothing = ("samlMetadataUrl", "verifiedPublisher", "certification", "deletedDateTime")
    assert [found[name] for name in nothing] == [None] * len(nothing)
    (owner,) = (await admin.get(f"{at}/owners"))["value"]
    assert owner["userPrincipalName"] == ADMIN
    reference = {"@odata.id": f"{BASE}/v1.0/users/{alex.id}"}
    await admin.post(f"{at}/owners/$ref", reference, status=204)
    await admin.call("DELETE", f"{at}/owners/{owner['id']}/$ref")
    assert [item["id"] for item in (await admin.get(f"{at}/owners"))["value"]] == [alex.id]
    owned = (await admin.get(f"users/{alex.id}/ownedObjects"))["value"]
    assert [item["@odata.type"] for item in owned] == ["#microsoft.graph.application"]


async def test_an_app_role_is_given_to_a_user_and_shown_from_both_ends(
    admin: Graph, world: World
) -> None:
    alex = await world.user("alex")
    role = {
        "id": str(uuid.uuid4()),
        "value": "Reader",
        "displayName": "Reader",
        "description": "reads",
        "allowedMemberTypes": ["User"],
    }
    app = await admin.post("applications", {"displayName": "Portal", "appRoles": [role]})
    principal = await admin.post("servicePrincipals", {"appId": app["appId"], "notes": "n"})
    assert (principal["notes"], principal["appRoleAssignmentRequired"]) == ("n", False)
    assert principal["appOwnerOrganizationId"] == world.tenant.id
    body = {"principalId": alex.id, "resourceId": principal["id"], "appRoleId": role["id"]}
    made = await admin.post(f"users/{alex.id}/appRoleAssignments", body)
    assert (made["principalType"], made["principalDisplayName"]) == ("User", "Alex")
    at = f"servicePrincipals/{principal['id']}/appRoleAssignedTo"
    assert [item["id"] for item in (await admin.get(at))["value"]] == [made["id"]]
    await admin.call("PATCH", f"servicePrincipals/{principal['id']}", {"accountEnabled": False})
    assert (await admin.get(f"servicePrincipals/{principal['id']}"))["accountEnabled"] is False
    await admin.call("DELETE", f"users/{alex.id}")
    assert (await admin.get(at))["value"] == [], "a deleted user holds nothing"
    await admin.call("DELETE", f"servicePrincipals/{principal['id']}")
    (graph,) = (await admin.get(f"servicePrincipals?$filter=appId eq '{oidc.GRAPH}'"))["value"]
    await admin.call("DELETE", f"servicePrincipals/{graph['id']}", status=403)
