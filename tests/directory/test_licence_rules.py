"""What an assignment comes to, for a user by pure rules and for groups in the database."""

import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tandem.infra.database import Database, Tx
from tandem.tenant import directory, licensing
from tandem.tenant.licensing.model import (
    CATALOGUE,
    PLANS,
    Claim,
    enabled_plans,
    product,
    settle,
)

NOW = datetime(2026, 11, 24, 9, tzinfo=UTC)
CHEAP = directory.DirectorySettings(password_memory_kib=64, password_passes=1)
INTUNE_A, ADD_ON, EDU = "INTUNE_A", "INTUNE_SUITE", "INTUNE_EDU"


def claim(
    sku: str, *, at: int = 0, held: bool = False, holder: str = "g", off: Sequence[str] = ()
) -> Claim:
    disabled = tuple(plan.id for plan in product(sku).plans if plan.name in off)
    moment = NOW + timedelta(minutes=at)
    return Claim(product(sku).sku_id, holder, "u", disabled, moment, held)


def outcome(*claims: Claim, located: bool = True, **free: float) -> dict[str, str]:
    seats = {item.sku_id: free.get(item.part_number, inf) for item in CATALOGUE}
    settled = settle(claims, located=located, free=seats)
    return {f"{product(c.sku_id).part_number}/{c.holder_id}": error for c, error in settled}


def test_a_user_who_is_licensed_twice_takes_one_seat() -> None:
    twice = [claim(INTUNE_A, holder="a"), claim(INTUNE_A, at=1, holder="b")]
    assert set(outcome(*twice, INTUNE_A=1).values()) == {"None"}
    assert set(outcome(*twice, INTUNE_A=0).values()) == {"CountViolation"}


def test_who_has_a_seat_keeps_it_without_a_free_one() -> None:
    assert outcome(claim(INTUNE_A, held=True), INTUNE_A=0) == {"INTUNE_A/g": "None"}


def test_without_a_usage_location_there_is_nothing() -> None:
    found = outcome(claim(INTUNE_A, held=True), located=False)
    assert found == {"INTUNE_A/g": "ProhibitedInUsageLocationViolation"}


def test_of_two_plans_that_exclude_each_other_the_older_assignment_stands() -> None:
    found = outcome(claim(EDU, at=1), claim("EMS"))
    assert found == {"EMS/g": "None", "INTUNE_EDU/g": "MutuallyExclusiveViolation"}
    held = outcome(claim(EDU, at=1, held=True), claim("EMS"))
    assert held == {"INTUNE_EDU/g": "None", "EMS/g": "MutuallyExclusiveViolation"}
    off = outcome(claim(EDU, at=1), claim("EMS", off=["INTUNE_A"]))
    assert set(off.values()) == {"None"}


def test_an_add_on_needs_the_plan_that_it_adds_to() -> None:
    assert outcome(claim(ADD_ON)) == {"INTUNE_SUITE/g": "DependencyViolation"}
    assert set(outcome(claim(ADD_ON), claim("EMS", at=1)).values()) == {"None"}
    switched_off = outcome(claim(ADD_ON, held=True), claim("EMS", off=["INTUNE_A"]))
    assert switched_off == {"INTUNE_SUITE/g": "DependencyViolation", "EMS/g": "None"}
    partly = outcome(claim(ADD_ON, off=["REMOTE_HELP", "INTUNE_P2"]))
    assert partly == {"INTUNE_SUITE/g": "None"}


def test_what_waits_for_a_seat_is_nothing_to_depend_on() -> None:
    found = outcome(claim(ADD_ON), claim("EMS", at=1), EMS=0, INTUNE_SUITE=1)
    assert found == {"INTUNE_SUITE/g": "DependencyViolation", "EMS/g": "CountViolation"}


claims = st.lists(
    st.builds(
        claim,
        st.sampled_from([item.part_number for item in CATALOGUE]),
        at=st.integers(0, 5),
        held=st.booleans(),
        holder=st.sampled_from("abc"),
        off=st.lists(st.sampled_from(sorted(plan.name for plan in PLANS.values()))),
    ),
    max_size=6,
    unique_by=lambda c: (c.sku_id, c.holder_id),
)


@given(claims, st.dictionaries(st.sampled_from([c.sku_id for c in CATALOGUE]), st.integers(0, 2)))
def test_plans_that_stand_never_conflict_or_lack_and_no_seat_is_made_up(
    given_claims: list[Claim], free: dict[str, int]
) -> None:
    seats: dict[str, float] = {item.sku_id: free.get(item.sku_id, 0) for item in CATALOGUE}
    before = dict(seats)
    settled = settle(given_claims, located=True, free=seats)
    assert len(settled) == len(given_claims)
    standing = [c for c, error in settled if error == "None"]
    had = {plan for c in standing for plan in enabled_plans(c.sku_id, c.disabled_plans)}
    assert all(not had & set(PLANS[plan].excludes) for plan in had)
    assert all(had >= set(PLANS[plan].needs) for plan in had)
    for item in CATALOGUE:
        held = any(c.held for c in given_claims if c.sku_id == item.sku_id)
        has = any(c.sku_id == item.sku_id for c in standing)
        assert seats[item.sku_id] == before[item.sku_id] + held - has
        assert seats[item.sku_id] >= 0


# ---------------------------------------------------------------------------------- groups


async def many(tx: Tx, number: int) -> directory.Group:
    """A group with so many users, put there in bulk: passwords alone would take a minute."""
    await directory.create_tenant(
        tx,
        name="Contoso",
        domain="contoso.com",
        administrator_upn="admin@contoso.com",
        password="Correct-Horse-1",
        now=NOW,
        settings=CHEAP,
    )
    await licensing.establish(tx, NOW)
    group = await directory.create_group(tx, "Everybody", NOW)
    await tx.execute(
        """WITH made AS (
            INSERT INTO directory_object (id, sort)
            SELECT gen_random_uuid(), 'user' FROM generate_series(1, %s) RETURNING id),
        people AS (
            INSERT INTO directory_user (id, user_principal_name, display_name, mail_nickname,
                usage_location, created_at, password_hash, password_changed_at, sessions_valid_from)
            SELECT id, id || '@contoso.com', 'U', 'u', 'DE', now(), '', now(), now() FROM made)
        INSERT INTO directory_member (group_id, member_id) SELECT %s::uuid, id FROM made""",
        (number, group.id),
    )
    return group


async def test_a_large_group_is_settled_in_steps_that_show_progress(tenant_tx: Tx) -> None:
    group = await many(tenant_tx, 2500)
    await licensing.subscribe(tenant_tx, INTUNE_A, 2400, NOW)
    deferred: list[str] = []

    async def later(tx: Tx, run_id: str) -> None:
        deferred.append(run_id)

    run = await licensing.change(
        tenant_tx, group.id, NOW, add=[licensing.Added(INTUNE_A)], later=later
    )
    assert run is not None
    assert (run.state.value, run.total, run.done) == ("queued", 2500, 0)
    assert deferred == [run.id]
    seen = []
    more = True
    while more:
        more = await licensing.advance(tenant_tx, run.id, NOW)
        (run,) = await licensing.newest_runs(tenant_tx)
        seen.append((run.state.value, run.done, run.failed))
    assert seen[:3] == [("running", 1000, 0), ("running", 2000, 0), ("running", 2500, 100)]
    assert seen[-1] == ("done", 2500, 100)
    assert not await licensing.advance(tenant_tx, run.id, NOW), "done once"
    await licensing.subscribe(tenant_tx, INTUNE_A, 2450, NOW)
    failed = [seat for seat in await licensing.seats(tenant_tx) if not seat.active]
    assert len(failed) == 50
    assert all("Subscribe to more seats" in seat.cure for seat in failed)


async def test_ten_thousand_users_are_licensed_by_group_in_less_than_ten_seconds(
    tenant_db: Database,
) -> None:
    async with tenant_db.transaction() as tx:
        group = await many(tx, 10_000)
        started = time.perf_counter()

        async def later(tx: Tx, run_id: str) -> None:
            return None

        run = await licensing.change(
            tx, group.id, NOW, add=[licensing.Added("EMSPREMIUM")], later=later
        )
    assert run is not None
    more = True
    while more:
        async with tenant_db.transaction() as tx:
            more = await licensing.advance(tx, run.id, NOW)
    seconds = time.perf_counter() - started
    async with tenant_db.transaction() as tx:
        (suite,) = await licensing.subscriptions(tx)
    assert suite.consumed == 10_000
    assert seconds < 10, f"{seconds:.1f} s"


@pytest.mark.parametrize("sku", [item.part_number for item in CATALOGUE])
def test_every_plan_that_is_needed_or_excluded_is_in_the_catalogue(sku: str) -> None:
    for plan in product(sku).plans:
        assert set(plan.needs) | set(plan.excludes) <= PLANS.keys()
