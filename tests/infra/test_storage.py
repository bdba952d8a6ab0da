"""Secrets, blobs, logs and jobs."""

import asyncio
import re
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tandem.infra import events
from tandem.infra.blobs import Blobs, NoSuchBlob
from tandem.infra.database import Database
from tandem.infra.jobs import Jobs
from tandem.infra.logs import LogFile
from tandem.infra.secrets import SecretBox, Unsealable, write_private


def test_a_sealed_secret_opens_for_its_purpose_only(tmp_path: Path) -> None:
    box = SecretBox.open(tmp_path / "keys" / "box.key")
    sealed = box.seal(b"hunter2", "app.secret")
    assert b"hunter2" not in sealed
    assert SecretBox.open(tmp_path / "keys" / "box.key").unseal(sealed, "app.secret") == b"hunter2"
    with pytest.raises(Unsealable):
        box.unseal(sealed, "other.purpose")
    with pytest.raises(Unsealable):
        box.unseal(sealed[:-1], "app.secret")


def test_private_files_are_private(tmp_path: Path) -> None:
    SecretBox.open(tmp_path / "keys" / "box.key")
    write_private(tmp_path / "keys" / "b", b"1")
    assert stat.S_IMODE((tmp_path / "keys").stat().st_mode) == 0o700
    for file in (tmp_path / "keys").iterdir():
        assert stat.S_IMODE(file.stat().st_mode) == 0o600


async def test_content_is_kept_by_its_hash(tmp_path: Path) -> None:
    blobs = Blobs.open(tmp_path / "blobs")
    data = b"0123456789" * 100_000
    blob = await blobs.put(data)

    async def pieces():  # type: ignore[no-untyped-def]
        for start in range(0, len(data), 7777):
            yield data[start : start + 7777]

    assert await blobs.put(pieces()) == blob
    assert b"".join([piece async for piece in blobs.read(blob.sha256)]) == data
    assert b"".join([p async for p in blobs.read(blob.sha256, 5, 15)]) == b"5678901234"
    with pytest.raises(NoSuchBlob):
        await blobs.size("0" * 64)


def test_a_full_log_keeps_one_old_copy(tmp_path: Path) -> None:
    log = LogFile(tmp_path / "CcmExec.log", max_bytes=100)
    for number in range(20):
        log.write(f"line {number:02} {'x' * 20}")
    assert {file.name for file in tmp_path.iterdir()} == {"CcmExec.log", "CcmExec.lo_"}
    assert "line 19" in log.path.read_text()


async def test_a_job_exists_only_if_its_change_does(site_db: Database) -> None:
    done: list[str] = []
    jobs, stop, ran = Jobs(site_db.dsn), asyncio.Event(), asyncio.Event()

    async def work(name: str) -> None:
        done.append(name)
        ran.set()

    jobs.register("test.work", work)
    worker = asyncio.create_task(jobs.run(stop))
    with pytest.raises(ZeroDivisionError):
        async with site_db.transaction() as tx:
            await jobs.defer(tx, "test.work", name="rolled back")
            raise ZeroDivisionError
    await asyncio.sleep(0.3)
    async with site_db.transaction() as tx:
        await jobs.defer(tx, "test.work", name="committed")
    await asyncio.wait_for(ran.wait(), 10)
    stop.set()
    await worker
    assert done == ["committed"]


async def test_what_a_killed_worker_had_begun_is_begun_again(site_db: Database) -> None:
    """Otherwise the job, and every later one with its lock, would never run."""
    jobs, stop, ran = Jobs(site_db.dsn), asyncio.Event(), asyncio.Event()

    async def work() -> None:
        ran.set()

    jobs.register("test.work", work)
    async with site_db.transaction() as tx:
        await jobs.defer(tx, "test.work", lock="one")
        await tx.execute("UPDATE procrastinate_jobs SET status = 'doing'")
    worker = asyncio.create_task(jobs.run(stop))
    await asyncio.wait_for(ran.wait(), 10)
    stop.set()
    await worker


async def test_who_waits_for_a_connection_is_counted(site_db: Database) -> None:
    database = await Database.open(site_db.dsn, max_size=1)
    ended = asyncio.Event()

    async def one() -> None:
        async with database.transaction():
            await ended.wait()

    try:
        working = [asyncio.create_task(one()) for _ in range(3)]
        while database.waiting < 2:
            await asyncio.sleep(0)
        ended.set()
        await asyncio.gather(*working)
        assert database.waiting == 0
    finally:
        await database.close()


async def test_old_news_goes_from_the_oldest_on(
    site_db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "FORGET_AT_ONCE", 2)
    async with site_db.transaction() as tx:
        await tx.execute("DELETE FROM event")
        await events.record_all(tx, "test", [(str(n), {}) for n in range(5)])
        await tx.execute(
            "UPDATE event SET at = now() - interval '40 days' WHERE subject IN ('0', '1', '2')"
        )
        before = datetime.now(UTC) - timedelta(days=30)
        assert [await events.forget(tx, before) for _ in range(3)] == [2, 1, 0]
        assert [item.subject for item in await events.since(tx, 0)] == ["3", "4"]


def test_no_two_modules_wait_for_each_other_by_the_number_of_a_lock() -> None:
    """Numbers of PostgreSQL's advisory locks; those that are made of a text have two arguments or a hash."""
    source = Path(events.__file__).parents[1]
    numbers = [
        int(number)
        for file in source.rglob("*.py")
        for number in re.findall(
            r"^_\w*LOCK = ([\d_]+)$|advisory_(?:xact_)?lock\(([\d_]+)\)", file.read_text(), re.M
        )
        for number in number
        if number
    ]
    assert len(numbers) > 8
    assert len(numbers) == len(set(numbers))
