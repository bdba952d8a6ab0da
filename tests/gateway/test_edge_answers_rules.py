"""No device misses a change of its policy, whatever becomes of questions and of what is told.

Site processes with a journal each, workers of gateways with a desk each, and hypothesis in place of
network, database and time: it loses, delays, repeats and mixes up whatever is under way, and ends any
of them.
"""

from dataclasses import dataclass, field
from typing import Any

import msgspec
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from tandem.gateway.answers import Asked, Desk
from tandem.protocols import tunnel
from tandem.site.clients.told import Journal

DEVICES = ["GUID:1", "GUID:2", "GUID:3"]
_PROCESSES, _WORKERS = 2, 3


def tag_of(device: str, etag: int) -> bytes:
    return tunnel.tag(device.encode(), str(etag).encode(), b"token")


@dataclass
class Process:
    """One process of the site: what it keeps of each device, and what it has not heard of yet."""

    journal: Journal = field(default_factory=Journal)
    kept: dict[str, int] = field(default_factory=dict)
    # Changes that are committed and whose notices are on the way; "" is one of all devices.
    unheard: list[str] = field(default_factory=list)

    def hears(self) -> None:
        for device in self.unheard:
            for one in [device] if device else list(self.kept):
                etag = self.kept.pop(one, None)
                if device and etag is not None:
                    self.journal.drop(tag_of(one, etag))
            if not device:
                self.journal.clear()
        self.unheard.clear()

    def keeps(self, device: str, etag: int, ends: float) -> None:
        before = self.kept.get(device)
        if before is not None and before != etag:
            self.journal.drop(tag_of(device, before))
        self.kept[device] = etag
        self.journal.add(tag_of(device, etag), ends)


@dataclass
class Request:
    """A device asks a worker, with the ETag it has."""

    device: str
    etag: int
    # Whether what it has was all there is at some moment since it came.
    right: bool = False
    tag: bytes = b""
    outcome: str = ""

    @property
    def of(self) -> bytes:
        return self.device.encode()

    def answered(self) -> bool:
        assert not self.outcome
        assert self.right, f"{self.device} was told that {self.etag} is all there is"
        self.outcome = "304"
        return True

    def goes_on(self) -> None:
        assert not self.outcome
        self.outcome = "site"


class Machine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.now = 1_000_000.0
        # The ETags that each device's policy had, the present one last.
        self.history = {device: [0] for device in DEVICES}
        self.next_etag = 1
        # When an ETag ends by itself, as half of a policy's life is over.
        self.ends = {0: self.now + 300}
        self.processes = [Process() for _ in range(_PROCESSES)]
        self.workers = [Desk() for _ in range(_WORKERS)]
        self.requests: list[Request] = []
        # By worker: the question that it waits for. All that was ever asked and told is kept, so
        # that each can come once more.
        self.asked: dict[int, Asked] = {}
        self.bodies: list[bytes] = []
        self.replies: list[tunnel.Confirmation] = []

    @initialize()
    def begin(self) -> None:
        for number in range(_PROCESSES):
            for worker in range(_WORKERS):
                self.all_is_well_for_a_while(worker, number)

    @rule(worker=st.integers(0, _WORKERS - 1), number=st.integers(0, _PROCESSES - 1))
    def all_is_well_for_a_while(self, worker: int, number: int) -> None:
        """Devices are answered by the site, and the worker learns of it."""
        for device in DEVICES:
            self.a_device_is_answered_by_the_site(number, device)
        self.a_question_is_lost(worker)
        self.a_worker_asks(worker)
        self.a_question_arrives(number, 0)
        self.an_answer_arrives(worker, 0)

    # What changes.

    def _changes(self, devices: list[str]) -> None:
        for device in devices:
            self.history[device].append(self.next_etag)
        self.ends[self.next_etag] = self.now + 300
        self.next_etag += 1
        self._look()

    def _look(self) -> None:
        """Of requests under way, which are right as of now; once right is enough."""
        for one in self.requests:
            if not one.outcome:
                one.right = one.right or self._is_right(one)

    def _is_right(self, one: Request) -> bool:
        return self.history[one.device][-1] == one.etag and self.ends[one.etag] > self.now

    @rule(device=st.sampled_from(DEVICES))
    def a_device_changes(self, device: str) -> None:
        for process in self.processes:
            process.unheard.append(device)
        self._changes([device])

    @rule()
    def all_change(self) -> None:
        for process in self.processes:
            process.unheard.append("")
        self._changes(DEVICES)

    @rule(device=st.sampled_from(DEVICES), back=st.integers(1, 3))
    def a_change_is_undone(self, device: str, back: int) -> None:
        """The device's policy is again what it was before, with the ETag it had."""
        for process in self.processes:
            process.unheard.append(device)
        had = self.history[device]
        had.append(had[max(0, len(had) - 1 - back)])
        self._look()

    @rule(seconds=st.sampled_from([1, 61, 301]))
    def time_passes(self, seconds: int) -> None:
        self.now += seconds

    @rule(number=st.integers(0, _PROCESSES - 1))
    def a_process_hears(self, number: int) -> None:
        self.processes[number].hears()

    @rule(number=st.integers(0, _PROCESSES - 1), device=st.sampled_from(DEVICES))
    def a_device_is_answered_by_the_site(self, number: int, device: str) -> None:
        process, etag = self.processes[number], self.history[device][-1]
        process.hears()  # What is computed while something changes is not kept (ADR 37).
        if self.ends[etag] <= self.now:
            self.ends[etag] = self.now + 300  # Signed anew; same number, for brevity.
            self._look()
        process.keeps(device, etag, self.ends[etag])

    # What devices ask.

    @rule(
        worker=st.integers(0, _WORKERS - 1),
        device=st.sampled_from(DEVICES),
        back=st.integers(0, 1),
    )
    def a_device_asks(self, worker: int, device: str, back: int) -> None:
        """With what it was told last, or something before that."""
        had = self.history[device]
        etag = had[max(0, len(had) - 1 - back)]
        made = Request(device, etag, tag=tag_of(device, etag))
        made.right = self._is_right(made)
        self.requests.append(made)
        desk = self.workers[worker]
        if desk.known.has(made.tag):
            desk.waiting.append(made)
        else:
            made.goes_on()

    # What travels.

    @rule(worker=st.integers(0, _WORKERS - 1))
    def a_worker_asks(self, worker: int) -> None:
        if worker not in self.asked:
            self.asked[worker] = asked = self.workers[worker].ask(self.now)
            self.bodies.append(asked.body)

    @rule(number=st.integers(0, _PROCESSES - 1), back=st.integers(0, 3))
    def a_question_arrives(self, number: int, back: int) -> None:
        """Any that was ever asked, at any process, any number of times."""
        if self.bodies:
            process = self.processes[number]
            process.hears()  # The database was asked, so all that is committed is heard of.
            body = self.bodies[max(0, len(self.bodies) - 1 - back)]
            question = msgspec.msgpack.decode(body, type=tunnel.Question)
            self.replies.append(process.journal.told(question, self.now))

    @rule(worker=st.integers(0, _WORKERS - 1), back=st.integers(0, 3))
    def an_answer_arrives(self, worker: int, back: int) -> None:
        """Any that was ever given, at any worker."""
        if self.replies and worker in self.asked:
            told = self.replies[max(0, len(self.replies) - 1 - back)]
            asked = self.asked.pop(worker)
            self.workers[worker].told(asked, told, self.now)
            assert all(one.outcome for one in asked.waiting)

    @rule(worker=st.integers(0, _WORKERS - 1))
    def a_question_is_lost(self, worker: int) -> None:
        asked = self.asked.pop(worker, None)
        if asked is not None:
            self.workers[worker].failed(asked)
            assert all(one.outcome for one in asked.waiting)

    @rule(
        worker=st.integers(0, _WORKERS - 1),
        number=st.integers(0, _PROCESSES - 1),
        back=st.sampled_from([0, 0, 1, 2]),
    )
    def a_question_is_asked_and_answered(self, worker: int, number: int, back: int) -> None:
        """Or an answer that was on the way arrives in its place."""
        self.a_worker_asks(worker)
        self.a_question_arrives(number, 0)
        self.an_answer_arrives(worker, back)

    # What ends.

    @rule(number=st.integers(0, _PROCESSES - 1))
    def a_process_begins_anew(self, number: int) -> None:
        self.processes[number] = Process()

    @rule(number=st.integers(0, _PROCESSES - 1))
    def a_process_hears_nothing_for_a_while(self, number: int) -> None:
        process = self.processes[number]
        process.unheard = [""]
        process.hears()

    @rule(worker=st.integers(0, _WORKERS - 1))
    def a_worker_begins_anew(self, worker: int) -> None:
        """Its clients ask again."""
        asked = self.asked.pop(worker, None)
        for one in [*self.workers[worker].waiting, *(asked.waiting if asked else [])]:
            one.outcome = "cut"
        self.workers[worker] = Desk()

    @rule(worker=st.integers(0, _WORKERS - 1))
    def a_worker_is_switched_off(self, worker: int) -> None:
        self.workers[worker].let_go()

    @invariant()
    def nobody_is_forgotten(self) -> None:
        waiting: list[Any] = [one for desk in self.workers for one in desk.waiting]
        waiting += [one for asked in self.asked.values() for one in asked.waiting]
        open_ = [one for one in self.requests if not one.outcome]
        assert {id(one) for one in open_} == {id(one) for one in waiting}


TestNoChangeIsMissed = Machine.TestCase
TestNoChangeIsMissed.settings = settings(max_examples=200, stateful_step_count=60, deadline=None)


def test_a_worker_learns_what_is_told_in_parts_and_forgets_what_is_gone() -> None:
    journal, desk = Journal(), Desk()
    tags = [tag_of(f"GUID:{n}", n) for n in range(50_000)]
    for tag in tags:
        journal.add(tag, 2_000_000)
    rounds = 0
    while True:
        rounds += 1
        asked = desk.ask(0.0)
        told = journal.told(msgspec.msgpack.decode(asked.body, type=tunnel.Question), 1_000_000)
        desk.told(asked, told, 0.0)
        if not told.more:
            break
        journal.drop(tags[rounds])
    assert rounds == 3
    assert len(desk.known) == len(journal) == 50_000 - 2
    assert not desk.known.has(tags[1])
    assert desk.known.has(tags[49_999])


def test_an_entry_ends_by_the_sites_own_time() -> None:
    machine = Machine()
    machine.begin()
    for seconds, outcome in ((1, "304"), (301, "site")):
        machine.time_passes(seconds)
        machine.a_device_asks(0, "GUID:1", 0)
        machine.a_question_is_asked_and_answered(0, 0, 0)
        assert machine.requests[-1].outcome == outcome


def test_an_answer_to_another_question_proves_nothing() -> None:
    machine = Machine()
    machine.begin()
    machine.a_question_is_asked_and_answered(0, 0, 0)
    machine.a_device_changes("GUID:1")
    machine.a_device_asks(0, "GUID:1", 1)
    machine.a_question_is_asked_and_answered(0, 0, 1)
    assert machine.requests[-1].outcome == "site"


def test_who_has_not_asked_for_long_is_told_everything_anew() -> None:
    journal, desk = Journal(), Desk()

    def ask() -> tunnel.Confirmation:
        asked = desk.ask(0.0)
        told = journal.told(msgspec.msgpack.decode(asked.body, type=tunnel.Question), 1_000_000)
        desk.told(asked, told, 0.0)
        return told

    journal.add(b"a" * 16, 2_000_000)
    assert ask().since == 0
    journal.add(b"b" * 16, 2_000_000)
    assert ask().since == 1
    for n in range(50_002):
        journal.add(n.to_bytes(16), 2_000_000)
        journal.drop(n.to_bytes(16))
    journal.drop(b"a" * 16)
    assert ask().since == 0
    assert not desk.known.has(b"a" * 16)
    assert desk.known.has(b"b" * 16)


def test_clients_are_told_of_until_the_site_has_heard_it() -> None:
    journal, desk = Journal(), Desk()
    desk.seen = {"GUID:1": 10.0}
    asked = desk.ask(12.0)
    question = msgspec.msgpack.decode(asked.body, type=tunnel.Question)
    assert question.seen == {"GUID:1": 2.0}
    desk.failed(asked)
    asked = desk.ask(13.0)
    desk.seen["GUID:1"] = 13.5  # Answered again, while the question is under way.
    desk.told(asked, journal.told(msgspec.msgpack.decode(asked.body, type=tunnel.Question), 1.0), 0)
    assert desk.seen == {"GUID:1": 13.5}
