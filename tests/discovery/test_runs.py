"""Runs of user discovery, with a tenant that answers as a test says."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tandem.infra.database import Database, Tx
from tandem.infra.errors import AppError, Kind
from tandem.infra.jobs import Jobs
from tandem.protocols import cmtrace
from tandem.site import collections
from tandem.site.discovery import Discovery, NotEnabled, Run, is_known_user

NOW = datetime(2026, 11, 24, 9, 0, tzinfo=UTC)
ADA = {
    "id": "u-ada",
    "userPrincipalName": "ada@contoso.com",
    "displayName": "Ada",
    "mail": "ada@contoso.com",
    "onPremisesSecurityIdentifier": "S-1-5-21-1",
    "onPremisesSamAccountName": "ada",
}
BOB = {"id": "u-bob", "userPrincipalName": "bob@contoso.com", "displayName": "Bob"}


class Refused(AppError):
    kind, code = Kind.FORBIDDEN, "consent-missing"


@dataclass
class Tenant:
    """Azure service and Graph in one. `meanwhile` is what happens while it is asked."""

    id: str = "s1"
    service: str = "Contoso cloud"
    tenant_id: str = "t1"
    enabled: bool = True
    users: list[dict[str, Any]] = field(default_factory=lambda: [ADA, BOB])
    asked: list[str] = field(default_factory=list)
    meanwhile: Callable[[], Awaitable[None]] | None = None

    async def graph(self, tx: Tx) -> "Tenant":
        return self

    async def pages(
        self, path: str, seen: Callable[[int], Awaitable[None]] | None = None
    ) -> list[dict[str, Any]]:
        self.asked.append(path)
        if seen is not None:
            await seen(len(self.users))
        if self.meanwhile is not None:
            await self.meanwhile()
        return self.users

    async def changes(self, path: str) -> tuple[list[dict[str, Any]], str]:
        """A delta has a beginning; what it tells is tested with a real tenant."""
        return [], f"{path}-begun"

    async def get(self, path: str) -> dict[str, Any]:
        raise AssertionError(path)


@dataclass
class Place:
    db: Database
    folder: Path
    tenant: Tenant
    now: datetime = NOW
    discovery: Discovery = field(init=False)

    async def run(self) -> Run:
        async with self.db.transaction() as tx:
            asked = await self.discovery.request_full(tx, actor="siteadmin")
        await self.discovery.run_full(asked.id)
        async with self.db.transaction() as tx:
            return await self.discovery.run(tx, asked.id)

    def said(self) -> list[str]:
        lines = (self.folder / "SMS_AZUREAD_DISCOVERY_AGENT.log").read_text().splitlines()
        return [cmtrace.message_of(line) or "" for line in lines]


@pytest.fixture
def place(site_db: Database, tmp_path: Path) -> Place:
    tenant = Tenant()

    async def sources(tx: Tx) -> list[Tenant]:
        return [tenant]

    made = Place(site_db, tmp_path, tenant)
    jobs = Jobs(site_db.dsn)
    made.discovery = Discovery(site_db, jobs, sources, now=lambda: made.now, logs=tmp_path)
    return made


async def test_users_become_user_resources_once(place: Place) -> None:
    first, again = await place.run(), await place.run()
    assert (first.state, first.users, first.added) == ("succeeded", 2, 2)
    assert (again.users, again.added) == (2, 0)
    async with place.db.transaction() as tx:
        ada = await collections.find_user(tx, "t1", "u-ada")
        assert ada is not None
        assert (ada.upn, ada.name, ada.mail) == ("ada@contoso.com", "Ada", "ada@contoso.com")
        assert await is_known_user(tx, "t1", "u-bob")
        assert not await is_known_user(tx, "another tenant", "u-bob")
    assert place.said()[1].startswith("Successfully published UDX for Azure Active Directory users")


async def test_a_user_who_changed_is_brought_up_to_date(place: Place) -> None:
    await place.run()
    place.tenant.users = [{**ADA, "displayName": "Ada Lovelace"}]
    assert (await place.run()).added == 0
    async with place.db.transaction() as tx:
        ada = await collections.find_user(tx, "t1", "u-ada")
    assert ada is not None
    assert ada.name == "Ada Lovelace"


async def test_who_is_not_in_the_tenant_any_more_is_no_user_of_the_site(place: Place) -> None:
    await place.run()
    async with place.db.transaction() as tx:
        bob = await collections.find_user(tx, "t1", "u-bob")
        other = collections.UserResource("t2", "u-carl", "carl@fabrikam.com")
        await collections.upsert_user(tx, other, NOW)
    place.tenant.users = [ADA]
    again = await place.run()
    assert (again.users, again.added, again.removed) == (1, 0, 1)
    async with place.db.transaction() as tx:
        # Another tenant's users are none of this run's business.
        assert [user.upn for user in await collections.users(tx)] == [
            "ada@contoso.com", "carl@fabrikam.com",
        ]  # fmt: skip
        assert not await is_known_user(tx, "t1", "u-bob")
    assert place.said()[-1].endswith("no longer in the tenant: 1")
    assert (await place.run()).removed == 0
    # The tenant gives him back: he is who he was.
    place.tenant.users = [ADA, BOB]
    assert (await place.run()).added == 0
    async with place.db.transaction() as tx:
        back = await collections.find_user(tx, "t1", "u-bob")
    assert bob is not None
    assert back is not None
    assert back.id == bob.id


async def test_who_has_been_gone_for_a_month_is_forgotten(place: Place) -> None:
    await place.run()
    place.tenant.users = [ADA]
    await place.run()
    for days, left in ((29, 2), (31, 1)):
        place.now = NOW + timedelta(days=days)
        async with place.db.transaction() as tx:
            await tx.execute("UPDATE discovery_schedule SET full_at = %s", (place.now,))
            await place.discovery.request_due(tx)
            row = await (await tx.execute("SELECT count(*) AS n FROM collections_user")).fetchone()
        assert row is not None
        assert row["n"] == left


async def test_a_refusal_is_kept_with_its_cure_and_said_in_the_log(place: Place) -> None:
    async def refuse() -> None:
        raise Refused("The app lacks Directory.Read.All.", cure="Grant it.")

    place.tenant.meanwhile = refuse
    run = await place.run()
    assert (run.state, run.code, run.reason, run.cure) == (
        "failed",
        "consent-missing",
        "The app lacks Directory.Read.All.",
        "Grant it.",
    )
    assert place.said()[-1] == (
        "Full sync failed: 0x87d00231 The app lacks Directory.Read.All. Grant it."
    )
    async with place.db.transaction() as tx:
        assert await collections.count_users(tx) == 0


async def test_a_run_that_the_end_of_the_site_cuts_off_is_not_left_running(place: Place) -> None:
    arrived = asyncio.Event()

    async def hang() -> None:
        arrived.set()
        await asyncio.Event().wait()

    place.tenant.meanwhile = hang
    running = asyncio.create_task(place.run())
    await arrived.wait()
    async with place.db.transaction() as tx:
        under_way = (await place.discovery.runs(tx))[0]
    assert (under_way.state, under_way.users) == ("running", 2)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    async with place.db.transaction() as tx:
        (run,) = await place.discovery.runs(tx)
    assert (run.state, run.code) == ("failed", "discovery.interrupted")


async def test_an_error_of_the_site_does_not_leave_a_run_running(place: Place) -> None:
    place.tenant.users = [{"userPrincipalName": "who@contoso.com"}]
    async with place.db.transaction() as tx:
        asked = await place.discovery.request_full(tx, actor="siteadmin")
    with pytest.raises(KeyError):
        await place.discovery.run_full(asked.id)
    async with place.db.transaction() as tx:
        run = await place.discovery.run(tx, asked.id)
    assert (run.state, run.code) == ("failed", "discovery.interrupted")
    assert place.said()[-1].startswith("Full sync failed: ")


async def test_a_run_whose_job_is_over_does_not_hold_up_the_next(place: Place) -> None:
    """What ended the job kept it from writing that down: the database was away."""
    async with place.db.transaction() as tx:
        asked = await place.discovery.request_full(tx, actor="siteadmin")
    place.now = NOW + timedelta(days=8)
    async with place.db.transaction() as tx:
        assert await place.discovery.request_due(tx) == []
        await tx.execute("UPDATE procrastinate_jobs SET status = 'failed'")
        (following,) = await place.discovery.request_due(tx)
        run = await place.discovery.run(tx, asked.id)
    assert (run.state, run.code) == ("failed", "discovery.interrupted")
    assert (following.kind, following.state) == ("full", "running")
    assert (await place.run()).state == "succeeded"


async def test_a_run_that_is_over_is_not_begun_again(place: Place) -> None:
    """A job may be handed out twice."""
    run = await place.run()
    await place.discovery.run_full(run.id)
    assert len(place.tenant.asked) == 1


async def test_without_an_enabled_service_there_is_no_run(place: Place) -> None:
    place.tenant.enabled = False
    with pytest.raises(NotEnabled) as refused:
        await place.run()
    assert "tandem discovery enable" in refused.value.cure
    async with place.db.transaction() as tx:
        assert await place.discovery.runs(tx) == []
