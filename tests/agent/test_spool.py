"""The spool against a model: whatever happens, nothing acknowledged is lost or reordered."""

import tempfile
from datetime import UTC, datetime
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from tandem.agent import spool as spools
from tandem.agent.folder import Folder
from tandem.agent.spool import Spool

NOW = datetime(2026, 11, 24, tzinfo=UTC)


class SpoolMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self._temporary = tempfile.TemporaryDirectory()
        self.folder = Folder(Path(self._temporary.name), durable=False)
        self.spool = Spool(self.folder)
        self.waiting: list[str] = []

    @rule(state=st.integers(0, 999))
    def report(self, state: int) -> None:
        self.waiting.append(self.spool.add(800, state, NOW, {"state": state}).id)

    @rule(limit=st.integers(1, 5), accepted=st.integers(0, 5))
    def send(self, limit: int, accepted: int) -> None:
        ids = [message.id for message in self.spool.oldest(limit)]
        assert ids == self.waiting[:limit]
        self.spool.accepted(ids[:accepted])
        self.waiting = [one for one in self.waiting if one not in ids[:accepted]]

    @rule()
    def accept_what_is_not_there(self) -> None:
        self.spool.accepted(["unknown"])

    @rule()
    def restart(self) -> None:
        self.spool = Spool(self.folder)

    @rule()
    def die_while_writing(self) -> None:
        (self.folder.path / ".000000000099.json.1").write_bytes(b'{"id":')
        self.spool = Spool(self.folder)

    @invariant()
    def holds_what_is_waiting(self) -> None:
        assert [m.id for m in self.spool.oldest(1000)] == self.waiting
        assert len(self.spool) == len(self.waiting)

    def teardown(self) -> None:
        self._temporary.cleanup()


SpoolMachine.TestCase.settings = settings(max_examples=30, stateful_step_count=20, deadline=None)
test_spool = SpoolMachine.TestCase


def test_a_full_spool_keeps_the_newest(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(spools, "MAX_MESSAGES", 3)
    spool = Spool(Folder(tmp_path, durable=False))
    for state in range(5):
        spool.add(800, state, NOW, {})
    assert [m.state for m in spool.oldest(9)] == [2, 3, 4]


def test_two_processes_that_report_at_once_lose_nothing(tmp_path: Path) -> None:
    """A setup that runs again beside the client uses the same spool."""
    client, setup = (Spool(Folder(tmp_path, durable=False)) for _ in range(2))
    said = [client.add(800, 1, NOW, {}), setup.add(800, 2, NOW, {}), client.add(800, 3, NOW, {})]
    assert {m.id for m in client.oldest(9)} == {m.id for m in said}
    setup.accepted([said[0].id, said[2].id])
    assert [m.id for m in client.oldest(9)] == [said[1].id]


def test_an_unreadable_message_does_not_hold_up_the_others(tmp_path: Path) -> None:
    spool = Spool(Folder(tmp_path, durable=False))
    spool.add(800, 1, NOW, {})
    spool.add(800, 2, NOW, {})
    next(iter(sorted(tmp_path.glob("*.json")))).write_bytes(b"\x00")
    assert [m.state for m in Spool(Folder(tmp_path, durable=False)).oldest(9)] == [2]
