"""Bulk registration tokens and conflicting records, read from their HTML, on the site's real API."""

from typing import Any

from console_areas import Browser, text, token
from lxml import html

from site_api import Api, add_device
from tandem.site.clients import store

TOKENS, CONFLICTS = "/console/registration-tokens", "/console/client-conflicts"


def rows(page: html.HtmlElement) -> list[list[str]]:
    return [
        [text(cell) for cell in row.xpath("./th|./td")][:5]
        for row in page.xpath("//table[contains(@class, 'grid')]/tbody/tr[th]")
    ]


async def act(seen: Browser, path: str, where: str, **more: str) -> Any:
    page = await seen.page(where)
    return await seen.web.post(path, data={"form_token": token(page), **more})


async def test_a_token_is_shown_once_and_then_blocked_unblocked_and_deleted(
    api: Api, seen: Browser
) -> None:
    assert "There is no bulk registration token." in await seen.said(TOKENS)
    fields = {"description": "Kiosks <b>", "minutes": "60"}
    made = await seen.post(f"{TOKENS}/new", fields, on=f"{TOKENS}/new")
    assert made.status_code == 200
    shown = html.fromstring(made.content).xpath("//pre[@id='new-token']/text()")[0]
    assert shown.startswith("/regtoken:eyJ")
    page = await seen.page(TOKENS)
    assert rows(page) == [["Kiosks <b>", "Good", rows(page)[0][2], "0", "siteadmin"]]
    assert shown[-40:] not in text(page)
    (id,) = page.xpath("//table//code/text()")
    for what, state in (("block", "Blocked"), ("unblock", "Good")):
        assert (await act(seen, f"{TOKENS}/{id}/{what}", TOKENS)).status_code == 303
        assert rows(await seen.page(TOKENS))[0][1] == state
    assert (await act(seen, f"{TOKENS}/{id}/delete", TOKENS)).status_code == 303
    assert rows(await seen.page(TOKENS)) == []
    gone = await act(seen, f"{TOKENS}/{id}/block", TOKENS)
    assert gone.status_code == 404
    assert "There is no bulk registration token" in gone.text


async def test_a_life_that_is_too_long_is_refused_at_its_field(api: Api, seen: Browser) -> None:
    answer = await seen.post(f"{TOKENS}/new", {"minutes": "10081"}, on=f"{TOKENS}/new")
    assert answer.status_code == 422
    page = html.fromstring(answer.content)
    assert page.xpath("//input[@name='minutes' and @aria-invalid='true']")
    assert rows(await seen.page(TOKENS)) == []


async def test_a_conflict_is_told_and_decided(api: Api, seen: Browser) -> None:
    async with api.db.transaction() as tx:
        await add_device(tx, "LAB-007")
        (client,) = await store.clients(tx, store.Wanted(), None, 0)
        await tx.execute("UPDATE clients_client SET registered_by = 'bulk-token'")
        for _ in range(2):
            await store.add_conflict(tx, client.id, "clone", "2:" + "A" * 40, api.clock[0])
    said = await seen.said(CONFLICTS)
    assert "Two machines are this client, by turns: its disk was copied." in said
    assert "2 times" in said
    assert "Deux machines sont ce client" in await seen.said(CONFLICTS, **{"accept-language": "fr"})
    assert "Two machines may be one client: LAB-007." in await seen.said("/console/notifications")
    (action,) = {
        form.get("action") for form in (await seen.page(CONFLICTS)).xpath("//section//form")
    }
    done = await act(seen, action, CONFLICTS, decision="new-identity")
    assert done.status_code == 303
    assert "takes an identity of its own when it next reports" in await seen.said(CONFLICTS)
    await act(seen, action, CONFLICTS, decision="dismiss")
    said = await seen.said(CONFLICTS)
    assert "Every client is one machine" in said
    assert "Dismissed" in said
