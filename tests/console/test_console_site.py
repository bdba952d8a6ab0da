"""What the site's pages say of devices whose two authorities disagree, or of which one is silent."""

from datetime import timedelta

import pytest
from console_areas import Browser, text
from psycopg.types.json import Jsonb

from site_api import NOW, TENANT, Api, add_device
from tandem.console import labels
from tandem.protocols import ccm
from tandem.site.clients import model as clients_model
from tandem.site.clients.model import SITE_TOPIC
from tandem.workloads import capabilities

DEVICE = "/console/devices/d-LAB-001"


async def known(api: Api, *, enrolled: bool = True, policy: bool = True) -> None:
    """LAB-001, registered with the site and in the tenant's Graph."""
    async with api.db.transaction() as tx:
        await add_device(tx, "LAB-001", flags=capabilities([]), policy=policy)
    api.cloud.graph.knows("d-LAB-001", enrolled=enrolled)


async def reported(
    api: Api, state: int, data: dict[str, object], *, topic: int, minutes: int = 1
) -> None:
    async with api.db.transaction() as tx:
        await tx.execute(
            """INSERT INTO clients_timeline (tenant_id, device_id, message_id, topic, state, at,
                   received_at, data) VALUES (%s, 'd-LAB-001', %s, %s, %s, %s, %s, %s)""",
            (
                TENANT,
                f"m{topic}-{state}-{minutes}",
                topic,
                state,
                NOW - timedelta(minutes=minutes),
                NOW,
                Jsonb(data),
            ),
        )


async def test_both_authorities_tell_the_timeline_and_what_repeats_is_one_line(
    api: Api, seen: Browser
) -> None:
    await known(api)
    api.cloud.graph.lists["deviceManagement/managedDevices/m-d-LAB-001/timeline"] = [
        {"dateTime": "2026-11-24T08:00:00Z", "text": "Enrolled in MDM by ada", "code": None}
    ]
    await api.keeper.tend()
    for minutes in range(1, 6):
        await reported(api, 4, {}, topic=SITE_TOPIC, minutes=minutes)
    await reported(api, 1, {}, topic=SITE_TOPIC, minutes=30)
    page = await seen.page(f"{DEVICE}/timeline")
    lines = [[text(part) for part in line] for line in page.xpath("//ol[@class='timeline']/li")]
    assert [line[1:] for line in lines] == [
        ["Site", "Policy of a user delivered", "5 times"],
        ["Site", "Registered with the site"],
        ["MDM service", "Enrolled in MDM by ada"],
    ]
    (newest, *_) = page.xpath("//ol[@class='timeline']/li/time/@datetime")
    assert newest == (NOW - timedelta(minutes=1)).isoformat()


async def test_the_log_of_a_device_says_whose_value_is_in_force(api: Api, seen: Browser) -> None:
    await known(api)
    applied = {"DeviceLock/Max": {"value": "10", "source": "site"}}
    said = {"flags": 8193, "applied": applied}
    await reported(api, 100, said, topic=ccm.COMANAGEMENT_TOPIC)
    logs = await seen.said(f"{DEVICE}/logs")
    assert "workload flags 8193, DeviceLock/Max = 10 (site)" in logs


def test_the_console_knows_what_the_site_says_of_a_device() -> None:
    """Otherwise a French page says it in English."""
    assert set(clients_model._STATES.values()) <= set(labels.HAPPENINGS)


@pytest.mark.parametrize(
    ("enrolled", "policy", "count"), [(True, True, "1"), (False, True, "0"), (True, False, "0")]
)
async def test_one_authority_alone_does_not_make_a_device_co_managed(
    api: Api, seen: Browser, enrolled: bool, policy: bool, count: str
) -> None:
    await known(api, enrolled=enrolled, policy=policy)
    await api.keeper.tend()
    assert text((await seen.page("/console/")).xpath("//*[@id='co-managed']")[0]) == count


async def test_a_device_that_stands_still_shows_its_log_line(api: Api, seen: Browser) -> None:
    line = "Failed to get manifest 0x87d0027e"
    await reported(api, 302, {"log": line}, topic=ccm.SETUP_TOPIC)
    api.cloud.graph.knows("d-LAB-001", name="LAB-001")
    await api.keeper.tend()
    assert line in await seen.said(DEVICE)
