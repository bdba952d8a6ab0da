"""Content at gateways: which serves what, the key of its copies, and the tokens of devices.

A gateway is told of content by a device's token, and fetches it from here when the first one asks. What
it is told in its configuration is what it must not serve any more (`dropped`): a removed package,
and copies of an earlier distribution.
"""

import os
from dataclasses import dataclass
from datetime import timedelta

from tandem import audit
from tandem.infra.clock import Clock
from tandem.infra.database import Tx
from tandem.infra.errors import AppError, Kind
from tandem.infra.secrets import SecretBox
from tandem.protocols import ccm, tunnel
from tandem.site import clients, content
from tandem.site.cloud_services import content_store, store
from tandem.site.cloud_services.model import Alerts, Gateway, GatewayState

TOKEN_LIFE = timedelta(hours=24)
_CONTEXT = "cloud.content-key"


class NotServed(AppError):
    """This gateway does not serve this content, or not in this distribution."""

    kind, code = Kind.NOT_FOUND, "content.not-served"


class NoSuchContent(AppError):
    kind, code = Kind.NOT_FOUND, "content.not-found"


class NotTheGateway(AppError):
    """Whoever asks does not prove to be the gateway that it names."""

    kind, code = Kind.UNAUTHENTICATED, "content.not-the-gateway"


async def service(tx: Tx, gateway: Gateway) -> tunnel.ContentService | None:
    """What this gateway is told of content; None when it serves none."""
    if not gateway.serve_content:
        return None
    dropped = {
        one.sha256: one.distribution if one.removed else one.distribution - 1
        for one in await content_store.contents(tx, gateway.service_name)
        if one.removed or one.distribution > 1
    }
    limit = Alerts.of(gateway.alerts).storage_gb
    quota = limit * 10**9 // max(1, gateway.instances) if limit else 0
    return tunnel.ContentService(dropped, quota)


async def locate(
    tx: Tx,
    point: clients.ManagementPointService,
    holder: clients.TokenHolder,
    packages: content.ClientPackages,
    box: SecretBox,
    authority: str,
    gateway: Gateway,
    sha256: str,
) -> ccm.ContentSource | None:
    """Where this device finds this content at this gateway; None when it is not served there.

    `authority` is the gateway's name, with its port where that is another one.
    """
    if gateway.state is not GatewayState.READY or not gateway.serve_content:
        return None
    found = await content_store.find(tx, gateway.service_name, sha256)
    if found is None:
        package = await packages.find(tx, sha256)
        if package is None:
            return None
        made = content_store.Distributed(
            gateway.service_name,
            sha256,
            package.file_name,
            package.version,
            package.size_bytes,
            1,
            False,
            point.now(),
        )
        # Whoever asks at the same moment makes it, too; the first one's key counts.
        await content_store.insert(tx, made, _new_key(box))
        found = await content_store.find(tx, gateway.service_name, sha256)
        if found is None:
            return None
    one = found[0]
    if one.removed:
        return None
    ends = point.now() + TOKEN_LIFE
    token = await point.content_token(
        tx,
        holder,
        sha256=sha256,
        size_bytes=one.size_bytes,
        gateway=gateway.service_name,
        distribution=one.distribution,
        ends=ends,
    )
    return ccm.ContentSource(f"https://{authority}{tunnel.CONTENT}/{sha256}", token, ends)


async def key(
    tx: Tx, box: SecretBox, gateway: Gateway, wanted: tunnel.KeyRequest
) -> tunnel.ContentKey:
    """Raises NotServed."""
    found = await content_store.find(tx, gateway.service_name, wanted.sha256)
    one = served(gateway, found[0] if found else None)
    if found is None or one.distribution != wanted.distribution:
        raise NotServed(
            "The content was distributed to this gateway anew.",
            cure="The device asks the management point again where it is.",
        )
    secret = box.unseal(found[1], _CONTEXT)
    return tunnel.ContentKey(one.sha256, one.distribution, one.size_bytes, secret.hex())


def served(gateway: Gateway, found: content_store.Distributed | None) -> content_store.Distributed:
    """Raises NotServed."""
    if not gateway.serve_content or found is None or found.removed:
        raise NotServed(
            "This gateway does not serve this content.",
            cure="Distribute it to the gateway, or let the gateway serve content.",
        )
    return found


async def asking(
    tx: Tx, service_name: str, proof: str, method: str, path: str, body: bytes, now: Clock
) -> Gateway:
    """The gateway that asks, by what it proves to know. Raises NotTheGateway."""
    found = await store.gateway(tx, service_name)
    if found is None or not tunnel.is_proven(
        proof, found.connection_id, method, path, body, now().timestamp()
    ):
        raise NotTheGateway(
            "This is answered to a gateway of this site alone.",
            cure="Check the clock of the gateway's host.",
        )
    return found


@dataclass(frozen=True, slots=True)
class Shown:
    """A content as administrators see it. `state`: removed, waiting (for the first device), pulling,
    stored (by every instance that was asked for it); `instances` those that have all of it."""

    content: content_store.Distributed
    state: str
    stored_bytes: int
    instances: list[int]


async def shown(tx: Tx, gateway: Gateway) -> tuple[list[Shown], list[content_store.Said]]:
    """What the gateway serves, and what its instances say of their stores."""
    said = await content_store.states(tx, gateway.service_name)
    found = []
    for one in await content_store.contents(tx, gateway.service_name):
        copies = [
            (item.state.instance, copy)
            for item in said
            for copy in item.state.copies
            if (copy.sha256, copy.distribution) == (one.sha256, one.distribution)
        ]
        whole = [instance for instance, copy in copies if copy.whole]
        state = "stored" if whole else "pulling" if copies else "waiting"
        stored = sum(copy.stored_bytes for _, copy in copies)
        found.append(Shown(one, "removed" if one.removed else state, stored, whole))
    return found, said


async def kept_bytes(tx: Tx, service_name: str) -> int:
    """What its instances say that their copies take."""
    return sum(one.state.used_bytes for one in await content_store.states(tx, service_name))


async def full(tx: Tx, service_name: str) -> list[str]:
    """Why instances can store nothing more."""
    said = await content_store.states(tx, service_name)
    return [one.state.problem for one in said if one.state.full]


async def redistribute(
    tx: Tx, box: SecretBox, gateway: Gateway, wanted: str, *, actor: str, now: Clock
) -> content_store.Distributed:
    """Have the gateway drop its copies and pull it anew, under another key; also what was removed.
    Raises NoSuchContent."""
    one = await _named(tx, gateway, wanted)
    await content_store.distribute_again(tx, one.service_name, one.sha256, _new_key(box), now())
    await _audit(tx, "gateway.redistribute-content", one, actor, now)
    return await _named(tx, gateway, one.sha256)


async def remove(tx: Tx, gateway: Gateway, wanted: str, *, actor: str, now: Clock) -> None:
    """Devices get it at the management point from now on. Raises NoSuchContent."""
    one = await _named(tx, gateway, wanted)
    if await content_store.remove(tx, one.service_name, one.sha256, now()):
        await _audit(tx, "gateway.remove-content", one, actor, now)


async def _named(tx: Tx, gateway: Gateway, wanted: str) -> content_store.Distributed:
    """By its SHA-256, the beginning of it, or the name of its file where there is one such."""
    asked = wanted.strip().lower()
    known = await content_store.contents(tx, gateway.service_name)
    found = [one for one in known if len(asked) >= 8 and one.sha256.startswith(asked)]
    found = found or [one for one in known if one.name.lower() == asked]
    if len(found) == 1:
        return found[0]
    raise NoSuchContent(
        f"{len(found)} packages of {gateway.service_name} are called {wanted!r}."
        if found
        else f"{gateway.service_name} has never served {wanted!r}.",
        cure="Name it by its SHA-256; `tandem gateway content` lists what there is. A gateway begins to"
        " serve a package with the first device that asks for it.",
    )


async def _audit(
    tx: Tx, action: str, one: content_store.Distributed, actor: str, now: Clock
) -> None:
    await audit.record(
        tx,
        actor=actor,
        action=action,
        target=one.service_name,
        details={"name": one.name, "version": one.version, "sha256": one.sha256},
        now=now(),
    )


def _new_key(box: SecretBox) -> bytes:
    return box.seal(os.urandom(32), _CONTEXT)
