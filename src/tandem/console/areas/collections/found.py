"""What the global search of the site's console finds, as the API finds it. Gateways are found by
their own area."""

from typing import Any
from urllib.parse import quote, urlencode

from tandem.console.kit import N_, ROOT, Hit, Page

KINDS = {
    "device": N_("Devices"),
    "user": N_("Users"),
    "collection": N_("Collections"),
    "app": N_("Apps of the tenant"),
}


async def search(page: Page[Any], query: str) -> list[Hit]:
    found = await page.api.get("/api/v1/search", q=query, limit=10)
    hits = [
        Hit(KINDS[item["kind"]], item["title"], item["detail"], _url(page, item))
        for item in found["results"]
        if item["kind"] in KINDS
    ]
    hits += [Hit(N_("Not searched"), said, "", f"{ROOT}/") for said in found["missing"]]
    return hits


def _url(page: Page[Any], item: dict[str, str]) -> str:
    id = quote(item["id"], safe="")
    if item["kind"] == "user":
        return f"{ROOT}/users?{urlencode({'search': item['id']})}"
    if item["kind"] == "app":
        other = page.elsewhere.url if page.elsewhere else ""
        return f"{other}{ROOT}/apps/{id}" if other else f"{ROOT}/"
    places = {"device": "devices", "collection": "collections", "gateway": "gateways"}
    return (
        f"{ROOT}/{places[item['kind']]}/{id}" if item["kind"] != "gateway" else f"{ROOT}/gateways"
    )
