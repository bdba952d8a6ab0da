"""A device's side of the protocol, written out: callers that are not our agent."""

import secrets
from typing import Any

import httpx
import msgspec
from cryptography.hazmat.primitives.asymmetric import ec

from one_site import PREFIX, Site
from tandem import pki
from tandem.protocols import ccm


class Caller:
    """A device's side of the protocol, written out."""

    def __init__(self, site: Site, web: httpx.AsyncClient, device: str = "d1") -> None:
        self.site, self.web, self.device = site, web, device
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.client_id = ""
        self.token = ""
        self.base = f"https://localhost:{site.port}{PREFIX}"

    async def exchange(self, bearer: str = "", **changes: Any) -> httpx.Response:
        """Ask CCM_STS; by default with the directory's token."""
        bearer = bearer or f"device:{self.device}"
        proof = ccm.key_proof(self.key, bearer, self.site.now(), secrets.token_urlsafe(18))
        body = {"key": pki.public_jwk(self.key), "proof": proof, **changes}
        response = await self.web.post(
            f"{self.base}/CCM_STS", json=body, headers={"Authorization": f"Bearer {bearer}"}
        )
        if response.status_code == 200:
            self.token = response.json()["access_token"]
        return response

    def sign(self, method: str, target: str, body: bytes, **changes: Any) -> dict[str, str]:
        given = {
            "method": method,
            "target": target,
            "body": body,
            "client_id": self.client_id,
            "now": self.site.now(),
            "nonce": secrets.token_urlsafe(18),
            **changes,
        }
        signature = ccm.sign_request(self.key, **given)
        return {**signature, "Authorization": f"Bearer {self.token}"}

    async def send(
        self, method: str, target: str, value: Any = None, headers: dict[str, str] | None = None
    ) -> httpx.Response:
        body = b"" if value is None else msgspec.json.encode(value)
        headers = headers or self.sign(method, target, body)
        return await self.web.request(method, self.base + target, content=body, headers=headers)

    async def register(self, **changes: Any) -> httpx.Response:
        wanted = ccm.RegistrationRequest("CM1", "LAB-009", pki.public_jwk(self.key), "0.1.0")
        wanted = msgspec.structs.replace(wanted, **changes)
        response = await self.send("POST", "/ccm_system_tokenauth/request", wanted)
        if response.status_code == 200:
            self.client_id = response.json()["client_id"]
        return response

    async def report(self, *messages: ccm.Message) -> httpx.Response:
        return await self.send("POST", "/ccm_incoming", ccm.IncomingRequest(list(messages)))


def code(response: httpx.Response) -> str:
    return f"{response.status_code} {response.json()['error']['code']}"


def message(site: Site, message_id: str = "m1", **changes: Any) -> ccm.Message:
    return ccm.Message(message_id, ccm.HEARTBEAT_TOPIC, 1, site.now(), changes)
