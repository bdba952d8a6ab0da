from datetime import UTC, datetime

from tandem import audit
from tandem.infra.database import Tx

NOW = datetime(2026, 11, 24, 12, 0, 0, 123456, tzinfo=UTC)


async def entry(tx: Tx, target: str) -> None:
    await audit.record(
        tx, actor="ann@contoso.com", action="create", target=target, now=NOW, details={"n": 1}
    )


async def test_an_untouched_chain_verifies(tenant_tx: Tx) -> None:
    await entry(tenant_tx, "a")
    await entry(tenant_tx, "b")
    assert await audit.verify(tenant_tx) is None


async def test_an_altered_entry_is_found(tenant_tx: Tx) -> None:
    for target in "abc":
        await entry(tenant_tx, target)
    await tenant_tx.execute("UPDATE audit_entry SET actor = 'eve' WHERE id = 2")
    assert await audit.verify(tenant_tx) == audit.Broken(2)


async def test_a_removed_entry_is_found(tenant_tx: Tx) -> None:
    for target in "abc":
        await entry(tenant_tx, target)
    await tenant_tx.execute("DELETE FROM audit_entry WHERE id = 2")
    assert await audit.verify(tenant_tx) == audit.Broken(3)


async def test_the_newest_entry_comes_first(site_tx: Tx) -> None:
    await entry(site_tx, "a")
    await entry(site_tx, "b")
    assert [item.target for item in await audit.entries(site_tx)] == ["b", "a"]
