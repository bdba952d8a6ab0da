"""What clients of the authority send, for the tests of its flows and of attacks on them."""

import base64
import hashlib
import json
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import httpx
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from joserfc import jwt
from joserfc.jwk import KeySet

from tandem import pki
from tandem.tenant import oidc
from tenant_world import OUT_OF_BAND, World

GRAPH = "https://graph.microsoft.com"
VERIFIER = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"  # RFC 7636, appendix B.
CHALLENGE = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"
REDIRECT = "https://app.example/back"


def asking(**changes: str) -> dict[str, str]:
    """An authorization request of the command line. A change to "" leaves the parameter out."""
    query = {
        "client_id": oidc.CLI,
        "response_type": "code",
        "redirect_uri": OUT_OF_BAND,
        "scope": "openid",
        "state": "s1",
        "code_challenge": CHALLENGE,
        "code_challenge_method": "S256",
        **changes,
    }
    return {name: value for name, value in query.items() if value}


@dataclass
class Registered:
    """An application of its own with a secret."""

    id: str
    app_id: str
    secret: str


async def register(world: World, name: str = "Reports", **values: Any) -> Registered:
    async with world.database.transaction() as tx:
        app = await oidc.applications.create_application(tx, name, world.at, **values)
        await oidc.applications.create_principal(tx, app.app_id, world.at)
        _, secret = await oidc.applications.add_secret(tx, app.id, world.at)
    return Registered(app.id, app.app_id, secret)


async def grant_roles(world: World, app: Registered, *names: str) -> None:
    """Application permissions of Graph."""
    async with world.database.transaction() as tx:
        graph = await oidc.applications.application(tx, oidc.GRAPH)
        client = await oidc.applications.principal(tx, app.app_id)
        resource = await oidc.applications.principal(tx, oidc.GRAPH)
        for role in graph.app_roles:
            if role["value"] in names:
                await oidc.applications.assign_role(
                    tx, role["id"], client.id, resource.id, world.at
                )


async def claims_of(world: World, token: str) -> dict[str, Any]:
    """What anybody reads from a token with the published keys alone."""
    keys = (await world.client.get(f"{world.authority}/discovery/v2.0/keys")).json()
    return jwt.decode(token, KeySet.import_key_set(keys), algorithms=["RS256"]).claims


def header_of(token: str) -> dict[str, Any]:
    first = token.split(".")[0]
    found: dict[str, Any] = json.loads(base64.urlsafe_b64decode(first + "=" * (-len(first) % 4)))
    return found


def number(answer: httpx.Response) -> int:
    (found,) = answer.json()["error_codes"]
    return int(found)


def self_signed(at: datetime) -> tuple[rsa.RSAPrivateKey, x509.Certificate]:
    made = pki.new_root(pki.name("script"), now=at, days=365, key="rsa2048")
    assert isinstance(made.key, rsa.RSAPrivateKey)
    return made.key, made.certificate


def client_assertion(
    key: rsa.RSAPrivateKey,
    certificate: x509.Certificate,
    client_id: str,
    audience: str,
    at: datetime,
    *,
    algorithm: str = "PS256",
    header: dict[str, Any] | None = None,
    padded: bool = False,
    **changes: Any,
) -> str:
    """As MSAL (RS256 + x5t, PS256 + x5t#S256, float times) and azure-identity aio (padded) send
    it. A claim changed to None is left out."""
    der = certificate.public_bytes(Encoding.DER)
    moment = at.astimezone(UTC).timestamp() + 0.25

    def encode(data: bytes) -> str:
        text = base64.urlsafe_b64encode(data).decode()
        return text if padded else text.rstrip("=")

    if header is None:
        name, digest = (
            ("x5t", hashlib.sha1)
            if algorithm == "RS256"
            else (
                "x5t#S256",
                hashlib.sha256,
            )
        )
        header = {name: encode(digest(der).digest())}
    claims = {
        "aud": audience,
        "iss": client_id,
        "sub": client_id,
        "jti": str(uuid.uuid4()),
        "iat": moment,
        "nbf": moment,
        "exp": moment + 600,
        **changes,
    }
    claims = {name: value for name, value in claims.items() if value is not None}
    head = {"typ": "JWT", "alg": algorithm, **header}
    data = f"{encode(json.dumps(head).encode())}.{encode(json.dumps(claims).encode())}"
    scheme: Any = padding.PKCS1v15()
    if algorithm == "PS256":
        scheme = padding.PSS(padding.MGF1(hashes.SHA256()), 32)
    signature = key.sign(data.encode(), scheme, hashes.SHA256())
    return f"{data}.{encode(signature)}"
