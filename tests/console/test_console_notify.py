"""Client notification in the console and on the command line, on the site's real API and database."""

from pathlib import Path
from typing import Any

from console_areas import Browser, text
from lxml import html

from site_api import NOW, Api, CommandFailed, add_device, commands
from tandem.protocols import ccm
from tandem.site import clients, notifications

PATH = "/console/client-notifications"


async def registered(api: Api, *names: str) -> None:
    async with api.db.transaction() as tx:
        for name in names:
            await add_device(tx, name)


async def says(api: Api, name: str, operation: str, state: int, words: str, code: str = "") -> None:
    """What the device's agent reports of an order."""
    async with api.db.transaction() as tx:
        client = await clients.find(tx, f"GUID:{name}")
        data = {"order": operation, "text": words, "code": code}
        message = ccm.Message("m1", ccm.NOTIFICATION_TOPIC, state, NOW, data)
        await notifications.take_result(tx, client, message, NOW)


async def sent(seen: Browser, path: str, **values: Any) -> Any:
    page = await seen.page(path)
    (form,) = page.xpath("//main//form[.//input[@name='form_token']]")
    filled = {i.get("name"): i.get("value", "") for i in form.xpath(".//input[@type='hidden']")}
    return await seen.web.post(path, data={**filled, **values})


async def test_a_collection_is_asked_after_its_number_was_confirmed(
    api: Api, seen: Browser
) -> None:
    await registered(api, "LAB-001", "LAB-002")
    path = f"{PATH}/new?collection=SMS00001&back=/console/collections/SMS00001"
    assert "2 devices that can be asked" in await seen.said(path)
    answer = await sent(seen, path, action="restart", hours="24")
    asked = html.fromstring(answer.text)
    assert "2 devices of All Systems are asked: Restart" in text(asked)
    (form,) = asked.xpath("//main//form")
    kept = {i.get("name"): i.get("value", "") for i in form.xpath(".//input")}
    answer = await seen.web.post(f"{PATH}/new", data=kept)
    assert answer.status_code == 303
    at = answer.headers["location"].partition("?")[0]
    id = at.rsplit("/", 1)[1]
    await says(api, "LAB-001", id, ccm.ORDER_DONE, "The device has started again.")
    await says(api, "LAB-002", id, ccm.ORDER_FAILED, "The device did not restart.", "restart.no")
    shown = await seen.said(at)
    assert "2 of 2 devices are through" in shown
    assert "The device did not restart." in shown
    assert "restart.no" in shown
    french = await seen.said(at, **{"accept-language": "fr"})
    assert "L'appareil a redémarré." in french
    failed = await seen.said(f"{at}?state=failed")
    assert "LAB-001" not in failed
    assert "LAB-002" in failed
    assert "All Systems" in await seen.said(PATH)


async def test_a_device_that_is_offline_is_asked_and_the_order_called_back(
    api: Api, seen: Browser
) -> None:
    await registered(api, "LAB-001")
    page = await seen.said("/console/devices/d-LAB-001")
    assert "Whether it can be told now" in page
    path = f"{PATH}/new?client=GUID:LAB-001&back=/console/devices/d-LAB-001"
    assert "is offline" in await seen.said(path)
    answer = await sent(seen, path, action="download-computer-policy", hours="2")
    at = answer.headers["location"].partition("?")[0]
    assert "Waits for the device" in await seen.said(at)
    token = (await seen.page(at)).xpath("//input[@name='form_token']")[0].get("value")
    done = await seen.web.post(f"{at}/cancel", data={"form_token": token, "confirmed": "1"})
    assert done.status_code == 303
    assert "Called back" in await seen.said(at)
    assert "Download computer policy" in await seen.said("/console/devices/d-LAB-001")


async def test_odd_addresses_are_refused_in_words(api: Api, seen: Browser) -> None:
    await registered(api, "LAB-001")
    for path in (
        f"{PATH}/new",
        f"{PATH}/new?client=nobody",
        f"{PATH}/new?collection=%00",
        f"{PATH}/no-such",
    ):
        answer = await seen.web.get(path)
        assert answer.status_code == 404, path
        assert "Traceback" not in answer.text
    odd = f"{PATH}/new?client=GUID:LAB-001&back=//evil.example/console/devices"
    page = await seen.page(odd)
    assert not page.xpath(
        "//main//@href[contains(., 'evil')] | //main//@value[contains(., 'evil')]"
    )


async def test_the_commands_ask_and_show_and_call_back(api: Api, tmp_path: Path) -> None:
    await registered(api, "LAB-001", "LAB-002")
    api.cloud.graph.knows("d-LAB-001")
    await api.keeper.tend()
    async with commands(api, tmp_path) as tandem:
        made = await tandem.run("notify", "send", "restart", "--collection", "SMS00001", "--yes")
        assert (made["devices"], made["counts"]["waiting"]) == (2, 2)
        one = await tandem.run("notify", "send", "collect-discovery-data", "--device", "LAB-001")
        assert one["target"] == "LAB-001"
        await says(api, "LAB-001", made["id"], ccm.ORDER_DONE, "The device has started again.")
        shown = await tandem.run("notify", "show", made["id"], "--state", "done")
        assert [d["device"] for d in shown["devices"]] == ["LAB-001"]
        left = await tandem.run("notify", "cancel", made["id"], "--yes")
        assert (left["counts"]["canceled"], left["counts"]["done"]) == (1, 1)
        assert (await tandem.run("notify", "list"))["total"] == 2
        told = await tandem.run("notify", "device", "LAB-001")
        assert told["channel"]["online"] is False
        assert {order["action"] for order in told["orders"]} == {
            "restart",
            "collect-discovery-data",
        }
        refused: CommandFailed = await tandem.refusal(
            "notify", "send", "explode", "--device", "LAB-001"
        )
        assert "know no action" in str(refused)
