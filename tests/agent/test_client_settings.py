"""Custom client settings, from an administrator's hand to what the client does."""

from datetime import timedelta

import pytest

from one_site import TENANT, Moment, Site, log
from tandem.agent import Client, Machine
from tandem.protocols import ccm
from tandem.site import clients, collections, comanagement, settings
from tandem.site.collections import MemberType


@pytest.fixture
def whole(site: Site) -> None:
    """The site computes policy as a site does."""
    site.policy_of = comanagement.policy_content


async def polled(client: Client) -> None:
    client.wake()
    await client.step()


async def create(site: Site, name: str, to: str, **wanted: object) -> None:
    async with site.db.transaction() as tx:
        type = (await collections.collection(tx, to)).type
        made = await settings.create(tx, name, type=type, wanted=wanted, actor="a", now=site.now())
        await settings.deploy(tx, made.id, to, actor="a", now=site.now())


async def collect(site: Site, query: str, type: MemberType = MemberType.DEVICE) -> str:
    async with site.db.transaction() as tx:
        made = await collections.create(
            tx, "CM1", query[:40], query=query, type=type, actor="a", now=site.now()
        )
        return made.id


@pytest.mark.usefixtures("whole")
async def test_the_client_polls_as_the_settings_of_its_collection_say(
    site: Site, client: Client, moment: Moment
) -> None:
    """From its next policy on, and by the default ones again once they are withdrawn."""
    to = await collect(site, "select * from SMS_R_System where Name like 'LAB-%'")
    await create(site, "Busy", to, policy_polling_minutes=5)
    await polled(client)
    assert client.settings.policy_polling_minutes == 5

    def asked() -> int:
        return sum(request.url.path.endswith("/.sms_pol") for request in site.seen)

    site.seen.clear()
    moment.at += timedelta(seconds=0.02 * 4)
    await client.step()
    assert asked() == 0
    moment.at += timedelta(seconds=0.02 * 2)
    await client.step()
    assert asked() == 1

    await create(site, "First", to, policy_polling_minutes=7)
    await polled(client)
    assert client.settings.policy_polling_minutes == 5
    async with site.db.transaction() as tx:
        first = await settings.find(tx, "First")
        await settings.prioritize(tx, first.id, 1, actor="a", now=site.now())
    await polled(client)
    assert client.settings.policy_polling_minutes == 7
    async with site.db.transaction() as tx:
        for name in ("First", "Busy"):
            found = await settings.find(tx, name)
            await settings.withdraw(tx, found.id, to, actor="a", now=site.now())
    await polled(client)
    assert client.settings == ccm.ClientSettings()


@pytest.mark.usefixtures("whole")
async def test_a_shorter_cycle_holds_at_once(site: Site, client: Client, moment: Moment) -> None:
    """What waits to be reported goes by the new cycle, not once the old one has passed."""
    async with site.db.transaction() as tx:
        wanted = {"state_reporting_minutes": 1440}
        await settings.change_default(tx, wanted, actor="a", now=site.now())
    await polled(client)
    await polled(client)
    to = await collect(site, "select * from SMS_R_System where Name like 'LAB-%'")
    await create(site, "Talkative", to, state_reporting_minutes=1, policy_polling_minutes=1440)
    client._policy_due = site.now()
    await client.step()
    client._report(ccm.FRAMEWORK_TOPIC, 1, {"code": "test", "message": "heard soon"})
    moment.at += timedelta(seconds=0.02 * 2)
    await client.step()
    async with site.db.transaction() as tx:
        told = await clients.timeline(tx, TENANT, "d1")
    assert any(entry.data.get("code") == "test" for entry in told)


@pytest.mark.usefixtures("whole")
async def test_a_user_is_refused_whom_settings_of_users_refuse(
    site: Site, client: Client, installed: Machine
) -> None:
    """The device asks, as its own settings let it; the site says no, and what was there goes."""
    async with site.db.transaction() as tx:
        wanted = {"enable_user_policy_from_internet": True}
        await settings.change_default(tx, wanted, actor="a", now=site.now())
        user = collections.UserResource(TENANT, "u1", "user@contoso.com", "User")
        await collections.upsert_user(tx, user, site.now())
    site.of_users["u1"] = [ccm.Configuration("c", "device-configuration", "Desk/B", "user")]
    await polled(client)
    assert client.gate.value("Desk/B") == "user"
    to = await collect(
        site,
        "select * from SMS_R_User where UserPrincipalName = 'user@contoso.com'",
        MemberType.USER,
    )
    await create(site, "No users", to, enable_user_policy=False)
    await polled(client)
    assert client.gate.value("Desk/B") is None
    assert any("do not let this user have policy" in line for line in log(installed, "PolicyAgent"))
