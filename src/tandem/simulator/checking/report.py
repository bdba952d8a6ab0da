"""A whole check of a server, and what came of it."""

from pathlib import Path
from urllib.parse import urlsplit

import msgspec

from tandem.agent.mdm import enrollment_token
from tandem.infra import net
from tandem.infra.clock import Clock, utc_now
from tandem.infra.errors import AppError, Invalid
from tandem.simulator.checking.conversation import Conversation
from tandem.simulator.checking.model import Must, Verdict, verdicts
from tandem.simulator.checking.requests import Credential, token

DISCOVERY = "/EnrollmentServer/Discovery.svc"


class Proof(msgspec.Struct, frozen=True):
    """How the made-up device proves whose it is: a token, or a user's password.

    With `tenant_id` the user signs in to the directory at the server's address, and the device is
    joined there first; without it the password goes to the enrollment service itself.
    """

    token: str = ""
    user: str = ""
    password: str = ""
    tenant_id: str = ""


class Report(msgspec.Struct, frozen=True):
    """`stopped` says why the conversation ended early; what was heard until then is judged."""

    server: str
    passed: int
    failed: int
    not_seen: int
    answers: int
    stopped: str
    cure: str
    musts: list[Verdict]

    @property
    def good(self) -> bool:
        return not self.failed and not self.stopped


async def check(
    address: str,
    proof: Proof,
    musts: list[Must],
    *,
    ca_file: Path | None = None,
    resolver: str = "",
    of_user: bool = False,
    now: Clock = utc_now,
) -> Report:
    """Check the server with this discovery address, or at this host.

    `of_user` enrols as a user's own device (type Full). Raises AppError when no check begins.
    """
    url = discovery_url(address)
    credential = await _credential(url, proof, ca_file, resolver, now)
    stopped = cure = ""
    async with Conversation(
        url,
        credential,
        user=proof.user,
        ca_file=ca_file,
        resolver=resolver,
        kind="Full" if of_user else "Device",
        now=now,
    ) as client:
        try:
            await client.whole()
        except AppError as error:
            if not client.exchanges:
                raise
            stopped, cure = error.message, error.cure
    found = verdicts(musts, client.exchanges)
    count = {
        state: sum(1 for v in found if v.state == state) for state in ("pass", "fail", "not seen")
    }
    return Report(
        url,
        count["pass"],
        count["fail"],
        count["not seen"],
        len(client.exchanges),
        stopped,
        cure,
        found,
    )


def discovery_url(address: str) -> str:
    """An address as people write it: a host is enough. Raises Invalid."""
    parts = urlsplit(address if "//" in address else f"https://{address}")
    if parts.scheme != "https" or not parts.hostname:
        raise Invalid(
            f"{address!r} is no https address.",
            cure="Give the discovery address, or the server's name.",
        )
    path = parts.path if parts.path.strip("/") else DISCOVERY
    return parts._replace(path=path).geturl()


async def _credential(
    url: str, proof: Proof, ca_file: Path | None, resolver: str, now: Clock
) -> Credential:
    if proof.token:
        return token(proof.token)
    if not proof.tenant_id:
        return Credential(proof.password, user=proof.user)
    parts = urlsplit(url)
    async with net.client(
        resolver=net.Resolver(resolver or None), context=net.tls_context(ca_file)
    ) as http:
        base = f"{parts.scheme}://{parts.netloc}"
        return token(
            await enrollment_token(
                http, base, proof.tenant_id, proof.user, proof.password, "CHECK", now
            )
        )
