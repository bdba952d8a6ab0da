"""What the site asks the tenant about a device, over Graph with its own application.

Tandem's Graph tells settings and apps per device; the vendor's has no such thing, and says so with an
error whose kind is one of ABSENT.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any
from urllib.parse import quote

from tandem.infra.errors import Kind
from tandem.site.comanagement.rollout_model import Offer, Offered, OfferedApp, OfferedPolicy
from tandem.site.comanagement.service import Graph

ABSENT = (Kind.NOT_FOUND, Kind.INVALID, Kind.UNSUPPORTED)
_LONGEST = 4096  # As much of a value as the tenant tells.


async def managed_device(graph: Graph, device_id: str) -> tuple[str, Mapping[str, Any]]:
    """The MDM service's id of a device of the directory, and what it says of it; empty without."""
    wanted = quote(f"azureADDeviceId eq '{device_id.replace(chr(39), chr(39) * 2)}'", safe="")
    path = f"deviceManagement/managedDevices?$filter={wanted}"
    async for page in pages(graph, path):
        for item in page:
            if text(item.get("azureADDeviceId")).casefold() == device_id.casefold():
                return text(item.get("id")), item
    return "", {}


async def settings(graph: Graph, mdm_id: str) -> list[Offered]:
    """Every setting of a device."""
    path = f"deviceManagement/managedDevices/{mdm_id}/settings"
    return [_setting(item) async for page in pages(graph, path) for item in page]


def _setting(item: Mapping[str, Any]) -> Offered:
    return Offered(
        text(item.get("setting")),
        text(item.get("workload")),
        text(item.get("outcome")),
        text(item.get("policyName")),
        text(item.get("policyValue")) if item.get("policyValue") is not None else None,
        text(item.get("reason")),
    )


# So many devices are asked about at once.
AT_ONCE = 500


async def offers(graph: Graph, mdm_ids: Sequence[str]) -> dict[str, Offer]:
    """Everything that the tenant has for each of these devices; those that it does not know are
    left out. One question for AT_ONCE of them: devices that are alike share their answer."""
    found: dict[str, Offer] = {}
    for start in range(0, len(mdm_ids), AT_ONCE):
        asked = list(mdm_ids[start : start + AT_ONCE])
        answer = await graph.post("tandem/deviceOffers", {"ids": asked})
        every = [_offer(item) for item in _objects(answer.get("offers"))]
        for item in _objects(answer.get("devices")):
            number = item.get("offer")
            if isinstance(number, int) and 0 <= number < len(every):
                found[text(item.get("id"))] = every[number]
    return found


def _offer(told: Mapping[str, Any]) -> Offer:
    return Offer(
        tuple(_setting(item) for item in _objects(told.get("settings"))),
        tuple(
            OfferedApp(
                text(item.get("displayName")),
                text(item.get("version")),
                text(item.get("workload")),
                text(item.get("intent")),
                uninstall=item.get("uninstall") is True,
                meant=item.get("required") is True or item.get("available") is True,
                withheld=item.get("withheld") is True,
                brings_client=item.get("bringsClient") is True,
            )
            for item in _objects(told.get("apps"))
        ),
        tuple(
            OfferedPolicy(
                text(item.get("displayName")),
                tuple(
                    (text(rule.get("name")), text(rule.get("value")))
                    for rule in _objects(item.get("rules"))
                ),
            )
            for item in _objects(told.get("compliancePolicies"))
        ),
    )


def _objects(value: object) -> list[Mapping[str, Any]]:
    return [item for item in value if isinstance(item, Mapping)] if isinstance(value, list) else []


async def apps(graph: Graph, mdm_id: str) -> tuple[bool, int]:
    """Whether the site's client is an app that the device is to have, and how many others are."""
    client, others = False, 0
    async for page in pages(graph, f"tandem/managedDevices/{mdm_id}/apps"):
        for item in page:
            if item.get("bringsClient"):
                client = client or item.get("required") is True
            elif item.get("required") or item.get("available"):
                others += 1
    return client, others


async def pages(graph: Graph, path: str) -> AsyncIterator[list[Mapping[str, Any]]]:
    following: str | None = path
    while following:
        page = await graph.get(following)
        yield [item for item in page.get("value", ()) if isinstance(item, Mapping)]
        onward = page.get("@odata.nextLink")
        following = str(onward).partition("/v1.0/")[2] if onward else None


def text(value: object) -> str:
    """As a column can hold it."""
    if not isinstance(value, str):
        return ""
    plain = value.replace("\0", "").encode("utf-8", "replace").decode("utf-8")
    return plain[:_LONGEST]
