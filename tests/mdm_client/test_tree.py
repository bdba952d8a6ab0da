"""Nodes under all their names, the poll schedule, and who may write what."""

from collections.abc import Collection, Mapping

import pytest

from tandem.agent.mdm.branches import Account, Manageability, Policy
from tandem.agent.mdm.messages import Command, Item
from tandem.agent.mdm.schedule import Poll, next_poll
from tandem.agent.mdm.session import Unenrolling
from tandem.agent.mdm.tree import ReadOnly, Store, Tree, Value
from tandem.workloads import Authority, Workload

POLICY = "./Device/Vendor/MSFT/Policy/Config/Desktop/Banner"


class FakeGate:
    """Lets only what it was told to."""

    def __init__(self, *allowed: Workload) -> None:
        self.allowed = set(allowed)
        self.values: dict[str, str] = {}

    def owner(self, workload: Workload) -> Authority:
        return Authority.MDM if workload in self.allowed else Authority.SITE

    def offer(self, source: Authority, workload: Workload, setting: str, value: str) -> bool:
        if self.owner(workload) is not source:
            return False
        self.values[setting] = value
        return True

    def change(
        self,
        source: Authority,
        wanted: Mapping[str, tuple[Workload, str]],
        gone: Collection[str],
    ) -> None:
        for name, (workload, value) in wanted.items():
            self.offer(source, workload, name, value)
        for name in gone:
            self.withdraw(source, name)

    def withdraw(self, source: Authority, setting: str) -> bool:
        return self.values.pop(setting, None) is not None

    def of(self, source: Authority) -> Collection[str]:
        return self.values

    def value(self, setting: str) -> str | None:
        return self.values.get(setting)


def tree(gate: FakeGate | None = None) -> Tree:
    wanted, account = Store({}), Store({})
    return Tree(
        {
            "DevInfo": ReadOnly({"DevId": "D1", "Man": "M"}),
            "DevDetail": ReadOnly({"SwV": "10", "Ext/Microsoft/DeviceName": "LAB"}),
            "Vendor/MSFT/DMClient": Account(account, "TandemMDM", {"HWDevID": "h"}),
            "Vendor/MSFT/DeviceManageability": Manageability(lambda: "flags=1"),
            "Vendor/MSFT/Policy": Policy(wanted, lambda: gate),
        }
    )


def text(found: Value | int) -> str | int:
    return found if isinstance(found, int) else found.text


def do(tree: Tree, name: str, uri: str, data: str = "", form: str = "chr") -> int:
    return tree.change(Command(name, "2", (Item(uri, data=data, format=form),)))


@pytest.mark.parametrize(
    ("uri", "found"),
    [
        ("./DevInfo/DevId", "D1"),
        ("./devinfo/devid", "D1"),
        ("./DevInfo", "DevId/Man"),
        ("./DevDetail/Ext/Microsoft", "DeviceName"),
        ("./Vendor/MSFT/DMClient/HWDevID", "h"),
        (
            "./Device/Vendor/MSFT/DeviceManageability/Provider/WMI_Bridge_Server/ConfigInfo",
            "flags=1",
        ),
        ("./Vendor/MSFT/DeviceManageability/Provider/Other/ConfigInfo", 404),
        ("./Vendor/MSFT/Nowhere", 404),
        ("", 404),
    ],
)
def test_a_node_is_found_under_each_of_its_names(uri: str, found: str | int) -> None:
    assert text(tree().get(uri)) == found


def test_what_cannot_be_written_says_so() -> None:
    it = tree()
    assert do(it, "Replace", "./DevInfo/DevId", "x") == 405
    assert do(it, "Replace", "./Vendor/MSFT/NoSuchProvider/X", "x") == 406
    assert do(it, "Exec", "./Vendor/MSFT/NoSuchProvider/X") == 404
    assert do(it, "Replace", "/DevInfo/DevId", "x") == 400
    assert do(it, "Replace", "./Vendor/MSFT/DMClient/Provider/Other/UPN", "x") == 404
    assert do(it, "Delete", POLICY) == 404


def test_add_happens_once_and_replace_any_time() -> None:
    it = tree()
    assert do(it, "Add", POLICY, "a") == 200
    assert do(it, "Add", POLICY.replace("Banner", "BANNER"), "b") == 418
    assert do(it, "Replace", POLICY, "c") == 200
    assert text(it.get(POLICY.replace("/Config/", "/Result/"))) == "c"
    assert do(it, "Delete", POLICY) == 200


def test_a_value_is_taken_only_while_its_workload_is_the_services() -> None:
    gate = FakeGate()
    it = tree(gate)
    assert do(it, "Replace", POLICY, "from mdm") == 403
    assert it.get(POLICY) == 404
    assert it.get(POLICY.replace("/Config/", "/Result/")) == 404
    gate.allowed.add(Workload.DEVICE_CONFIGURATION)
    assert do(it, "Replace", POLICY, "from mdm") == 200
    assert text(it.get(POLICY.replace("/Config/", "/Result/"))) == "from mdm"


def test_what_was_set_before_there_was_a_client_is_offered_to_its_gate() -> None:
    wanted, gates = Store({}), list[FakeGate]()
    policy = Policy(wanted, lambda: gates[0] if gates else None)
    policy.write(("Config", "Desktop", "Banner"), Item(data="early"), add=False)
    assert policy.in_force("Desktop/Banner") == "early"
    gates.append(FakeGate(Workload.DEVICE_CONFIGURATION))
    assert policy.in_force("Desktop/Banner") is None
    policy.offer()
    assert policy.in_force("Desktop/Banner") == "early"


def test_only_our_provider_can_be_unenrolled() -> None:
    it = tree()
    provider = "./Vendor/MSFT/DMClient/Provider/TandemMDM/Unenroll"
    assert do(it, "Exec", provider, "OtherMDM") == 404
    with pytest.raises(Unenrolling):
        do(it, "Exec", provider, "TandemMDM")
    with pytest.raises(Unenrolling):
        do(it, "Exec", "./Vendor/MSFT/DMClient/Unenroll", "TandemMDM")


def test_the_three_schedules_follow_each_other() -> None:
    poll = Poll((3, 8), (15, 8), (480, 0))
    assert next_poll(poll, 0) == 3
    assert next_poll(poll, 3) == 6
    assert next_poll(poll, 23.9) == 24
    assert next_poll(poll, 24) == 39
    assert next_poll(poll, 144) == 144 + 480
    assert next_poll(poll, 144 + 480.5) == 144 + 960


def test_a_schedule_without_end_hides_the_others_and_none_is_once_a_day() -> None:
    assert next_poll(Poll((1, 0), (15, 8), (480, 0)), 1000) == 1001
    assert next_poll(Poll((0, 0), (0, 0), (0, 0)), 0) == 1440
    assert next_poll(Poll((5, 2), (0, 0), (0, 0)), 10) == 10 + 1440
    assert next_poll(Poll.read({"intervalforfirstsetofretries": "x"}), 0) == 1440
