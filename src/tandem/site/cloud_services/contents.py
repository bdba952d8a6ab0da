"""Content at gateways: which serves what, the key of its copies, and the tokens of devices.

A gateway is told of content by a device's token, and fetches it from here when the first one asks. What
it is told in its configuration is what it must not serve any more (`dropped`): a removed package,
and copies of an earlier distribution.
"""

import os
from datetime import timedelta

from tandem.infra.clock import Clock
from tandem.infra.database import Tx
from tandem.infra.errors import AppError, Kind
from tandem.infra.secrets import SecretBox
from tandem.protocols import ccm, tunnel
from tandem.site import clients, content
from tandem.site.cloud_services import content_store, store
from tandem.site.cloud_services.model import Gateway, GatewayState

TOKEN_LIFE = timedelta(hours=24)
_CONTEXT = "cloud.content-key"


class NotServed(AppError):
    """This gateway does not serve this content, or not in this distribution."""

    kind, code = Kind.NOT_FOUND, "content.not-served"


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
    return tunnel.ContentService(dropped=dropped)


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


def _new_key(box: SecretBox) -> bytes:
    return box.seal(os.urandom(32), _CONTEXT)
