"""The audit log: it only grows, and what was done to it by force is found, also offline."""

import os
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import psycopg
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tandem import audit
from tandem.infra.database import Tx

NOW = datetime(2026, 11, 24, 12, 0, 0, 123456, tzinfo=UTC)


@pytest.fixture
def signer() -> audit.Signer:
    return audit.Signer.generate()


async def entry(tx: Tx, target: str) -> None:
    await audit.record(
        tx, actor="ann@contoso.com", action="create", target=target, now=NOW, details={"n": 1.5}
    )


async def force(tx: Tx, statement: str) -> None:
    """As somebody who owns the database: past its triggers."""
    await tx.execute("ALTER TABLE audit_entry DISABLE TRIGGER USER")
    await tx.execute("ALTER TABLE audit_head DISABLE TRIGGER USER")
    await tx.execute(statement.encode())


async def test_an_untouched_chain_verifies(tenant_tx: Tx) -> None:
    await entry(tenant_tx, "a")
    await entry(tenant_tx, "b")
    assert await audit.verify(tenant_tx) is None


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE audit_entry SET actor = 'eve'",
        "DELETE FROM audit_entry",
        "TRUNCATE audit_entry",
        "DELETE FROM audit_head",
    ],
)
async def test_the_database_refuses_to_change_or_remove(
    tenant_tx: Tx, site_tx: Tx, statement: str
) -> None:
    for tx in (tenant_tx, site_tx):
        await entry(tx, "a")
        with pytest.raises(psycopg.errors.InsufficientPrivilege, match="append-only"):
            await tx.execute(statement.encode())


async def test_an_altered_entry_is_found(tenant_tx: Tx) -> None:
    for target in "abc":
        await entry(tenant_tx, target)
    await force(tenant_tx, "UPDATE audit_entry SET actor = 'eve' WHERE id = 2")
    assert await audit.verify(tenant_tx) == audit.Broken(2)


async def test_a_removed_entry_is_found(tenant_tx: Tx) -> None:
    for target in "abc":
        await entry(tenant_tx, target)
    await force(tenant_tx, "DELETE FROM audit_entry WHERE id = 2")
    assert await audit.verify(tenant_tx) == audit.Broken(3)


async def test_the_newest_entry_comes_first(site_tx: Tx) -> None:
    await entry(site_tx, "a")
    await entry(site_tx, "b")
    assert [item.target for item in await audit.entries(site_tx)] == ["b", "a"]


async def test_a_head_is_signed_once_for_what_there_is(tenant_tx: Tx, signer: audit.Signer) -> None:
    assert await audit.sign(tenant_tx, signer, NOW) is None
    await entry(tenant_tx, "a")
    first = await audit.sign(tenant_tx, signer, NOW)
    assert first is not None
    assert first.entries == 1
    assert await audit.sign(tenant_tx, signer, NOW) == first
    await entry(tenant_tx, "b")
    second = await audit.sign(tenant_tx, signer, NOW)
    assert second is not None
    assert (second.number, second.previous) == (2, first.fingerprint())


def test_the_key_is_made_once_and_for_its_owner_alone(tmp_path: Path) -> None:
    made = audit.Signer.open(tmp_path / "secrets" / "audit.key")
    assert audit.Signer.open(tmp_path / "secrets" / "audit.key").key_id == made.key_id
    assert os.stat(tmp_path / "secrets" / "audit.key").st_mode & 0o777 == 0o600


# ---------------------------------------------------------------------------------- offline


async def exported(tx: Tx, signer: audit.Signer, folder: Path) -> audit.Export:
    """Three entries in two heads, as files."""
    for target in "ab":
        await entry(tx, target)
    await audit.sign(tx, signer, NOW)
    await entry(tx, "c")
    await audit.sign(tx, signer, NOW)
    return await write(tx, signer, folder)


async def write(tx: Tx, signer: audit.Signer, folder: Path) -> audit.Export:
    audit.write_export(
        folder, await audit.stored_entries(tx), await audit.heads(tx), signer.public_pem()
    )
    return audit.read_export(folder)


def kinds(
    export: audit.Export, signer: audit.Signer, anchors: list[audit.Head] | None = None
) -> set[str]:
    return {item.kind for item in audit.inspect(export, [signer.public], anchors or [])}


async def test_an_export_is_verified_with_files_and_the_public_key(
    tenant_tx: Tx, signer: audit.Signer, tmp_path: Path
) -> None:
    export = await exported(tenant_tx, signer, tmp_path)
    key = audit.read_public_key((tmp_path / "public-key.pem").read_bytes())
    assert audit.inspect(export, [key], audit.read_heads(tmp_path / "head.json")) == []


Lines = list[bytes]


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (lambda e: [e[0], e[1].replace(b"ann@", b"eve@"), e[2]], "entry-changed"),
        (lambda e: [e[0], e[2]], "entry-missing"),
        (lambda e: [e[0], e[0], e[1], e[2]], "entry-missing"),
        (lambda e: [e[1], e[0], e[2]], "entry-missing"),
        (lambda e: e[:2], "entries-cut-off"),
        (lambda e: [], "entries-cut-off"),
    ],
)
async def test_every_change_of_the_rows_is_found(
    tenant_tx: Tx,
    signer: audit.Signer,
    tmp_path: Path,
    change: Callable[[Lines], Lines],
    found: str,
) -> None:
    await exported(tenant_tx, signer, tmp_path)
    file = tmp_path / "entries.jsonl"
    file.write_bytes(b"".join(change(file.read_bytes().splitlines(keepends=True))))
    assert found in kinds(audit.read_export(tmp_path), signer)


async def test_an_added_row_is_found_because_no_head_signed_it(
    tenant_tx: Tx, signer: audit.Signer, tmp_path: Path
) -> None:
    await exported(tenant_tx, signer, tmp_path)
    await entry(tenant_tx, "d")
    assert kinds(await write(tenant_tx, signer, tmp_path), signer) == {"entries-unsigned"}


async def rewritten(tx: Tx, by: audit.Signer) -> None:
    """The whole history again, without what `a` tells, with chain and heads that fit."""
    await force(tx, "DELETE FROM audit_entry")
    await force(tx, "DELETE FROM audit_head")
    await entry(tx, "x")
    await entry(tx, "b")
    await audit.sign(tx, by, NOW)
    await entry(tx, "c")
    await audit.sign(tx, by, NOW)


async def test_rows_and_heads_rewritten_together_are_found_by_the_key(
    tenant_tx: Tx, signer: audit.Signer, tmp_path: Path
) -> None:
    """Who owns the database has no key to sign with: it is in a file of the role's host."""
    await exported(tenant_tx, signer, tmp_path / "before")
    await rewritten(tenant_tx, audit.Signer.generate())
    assert await audit.verify(tenant_tx) is None, "by itself the new history is coherent"
    assert kinds(await write(tenant_tx, signer, tmp_path / "after"), signer) == {"unknown-key"}


async def test_rows_and_heads_rewritten_with_the_stolen_key_are_found_by_an_older_head(
    tenant_tx: Tx, signer: audit.Signer, tmp_path: Path
) -> None:
    await exported(tenant_tx, signer, tmp_path / "before")
    anchors = audit.read_heads(tmp_path / "before" / "head.json")
    await rewritten(tenant_tx, signer)
    after = await write(tenant_tx, signer, tmp_path / "after")
    assert kinds(after, signer) == set(), "without an anchor a stolen key is enough"
    assert kinds(after, signer, anchors) == {"rewritten"}


async def test_heads_that_were_cut_off_with_their_rows_are_found_by_a_later_head(
    tenant_tx: Tx, signer: audit.Signer, tmp_path: Path
) -> None:
    await exported(tenant_tx, signer, tmp_path)
    anchors = audit.read_heads(tmp_path / "head.json")
    for name, kept in (("entries.jsonl", 2), ("heads.jsonl", 1)):
        lines = (tmp_path / name).read_bytes().splitlines(keepends=True)
        (tmp_path / name).write_bytes(b"".join(lines[:kept]))
    export = audit.read_export(tmp_path)
    assert kinds(export, signer) == set()
    assert kinds(export, signer, anchors) == {"shortened"}


async def test_a_head_of_somebody_else_and_a_head_that_was_changed_are_refused(
    tenant_tx: Tx, signer: audit.Signer, tmp_path: Path
) -> None:
    export = await exported(tenant_tx, signer, tmp_path)
    first, second = export.heads
    forged = msgspec.structs.replace(second, entries=2)
    changed = msgspec.structs.replace(export, heads=[first, forged])
    assert "bad-signature" in kinds(changed, signer)
    assert kinds(export, audit.Signer.generate()) == {"unknown-key"}
    alone = msgspec.structs.replace(export, heads=[second])
    assert "head-missing" in kinds(alone, signer)


@pytest.mark.parametrize("content", [b"{", b"[]\n", b"\xff\n", b'{"entry":{"id":"x"}}\n'])
async def test_a_damaged_export_is_refused_in_words(
    tenant_tx: Tx, signer: audit.Signer, tmp_path: Path, content: bytes
) -> None:
    await exported(tenant_tx, signer, tmp_path)
    (tmp_path / "entries.jsonl").write_bytes(content)
    export = audit.read_export(tmp_path)
    with pytest.raises(audit.BadExport, match=r"Line 1 of entries\.jsonl"):
        audit.inspect(export, [signer.public])


def test_only_an_ed25519_key_is_a_key() -> None:
    with pytest.raises(audit.BadAuditKey):
        audit.read_public_key(b"nonsense")
    key = Ed25519PrivateKey.generate().public_key()
    assert len(audit.key_id(key)) == 32
