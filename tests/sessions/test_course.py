"""What goes into a message, what broke a session off, and what is set aside: decided from values."""

from hypothesis import given, settings
from hypothesis import strategies as st

from tandem.protocols import syncml
from tandem.protocols.syncml import Item, Message
from tandem.tenant.sessions import course, model
from tandem.tenant.sessions.course import Course
from tandem.tenant.sessions.model import Order, Sent

TEXT = st.text(st.characters(min_codepoint=0x20, max_codepoint=0xFFFD, exclude_categories=["Cs"]))


def setting(name: str, value: str = "1") -> Order:
    item = Item(target=f"./Device/Vendor/MSFT/Policy/Config/{name}", data=value, format="chr")
    return Order(Sent("setting", name, value), "Replace", item)


def app(name: str) -> list[Order]:
    return [
        Order(Sent("install-add", name), "Add", Item(target=f"./MSI/{name}")),
        Order(Sent("install", name, "f"), "Exec", Item(target=f"./MSI/{name}", data="<job/>")),
    ]


@given(
    st.lists(TEXT, max_size=80),
    st.sets(st.integers(0, 79), max_size=20),
    st.integers(0, 600_000),
)
def test_a_message_never_exceeds_what_the_device_announced(
    values: list[str], already: set[int], announced: int
) -> None:
    orders = [setting(str(n), value * 20) for n, value in enumerate(values)]
    done = {order.sent for n, order in enumerate(orders) if n in already}
    going = Course(max_bytes=announced)
    chosen, too_large = course.batch(orders, done, going, 1)
    left = [order for order in orders if order.sent not in done and order not in too_large]
    assert chosen == left[: len(chosen)]
    assert bool(chosen) == bool(left)
    assert len(chosen) <= course.BATCH
    commands, _ = model.commands(chosen, 2)
    sent = Message("1", 2, "D" * 32, "https://m/MDM.svc", tuple(commands), ())
    assert len(syncml.write(sent)) <= max(announced or 524288, 4096)


def test_an_add_and_its_exec_stay_together_and_in_order() -> None:
    orders = [setting(str(n)) for n in range(course.BATCH - 1)] + app("a")
    chosen, _ = course.batch(orders, set(), Course(), 1)
    assert [order.name for order in chosen] == ["Replace"] * (course.BATCH - 1)
    chosen, _ = course.batch(orders, {o.sent for o in chosen}, Course(), 1)
    assert [order.name for order in chosen] == ["Add", "Exec"]
    chosen, _ = course.batch(app("a") + app("b"), set(), Course(lost=2), 1)
    assert [order.sent.subject for order in chosen] == ["a", "a"]


def test_settings_of_the_user_wait_until_somebody_is_signed_in() -> None:
    item = Item(target="./User/Vendor/MSFT/Policy/Config/A/B", data="1")
    orders = [Order(Sent("setting", "A/B"), "Replace", item), setting("C/D")]
    assert [o.sent.subject for o in course.batch(orders, set(), Course(), 1)[0]] == ["C/D"]
    chosen, _ = course.batch(orders, set(), Course(user=True), 1)
    assert [order.sent.subject for order in chosen] == ["A/B", "C/D"]


def test_the_parts_of_an_atomic_have_ids_of_their_own() -> None:
    group = Order(Sent("account", "Poll"), "Atomic", parts=(setting("A"), setting("B")))
    commands, sent = model.commands([setting("C"), group, setting("D")], 5)
    ids = [each.id for command in commands for each in command.each]
    assert ids == ["5", "6", "7", "8", "9"]
    assert [sent[id].subject for id in ids] == ["C", "Poll", "A", "B", "D"]


def test_a_device_that_proved_itself_by_md5_alone_gets_settings_and_no_secrets() -> None:
    orders = [setting("A"), *app("a")]
    assert course.allowed(orders, course.SIGNATURE) == orders
    assert course.allowed(orders, course.DIGEST) == [setting("A")]


# ------------------------------------------------------------------ poison


def sessions_until_aside(poison: str, names: list[str], *, most: int = 40) -> tuple[int, set[str]]:
    """Sessions of a device that dies at one command, and what it took meanwhile."""
    going, taken = Course(), set[str]()
    for number in range(1, most):
        going = course.begins(going)
        done: set[Sent] = set()
        while True:
            chosen, _ = course.batch([setting(n) for n in names if n not in taken], done, going, 1)
            if not chosen or any(order.sent.subject == poison for order in chosen):
                break
            done |= {order.sent for order in chosen}
            taken |= {order.sent.subject for order in chosen}
        going, lost = course.lose(going, [order.sent for order in chosen])
        if lost is not None:
            assert lost.sent.subject == poison
            return number, taken
    raise AssertionError("never found")


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 150), st.integers(1, 151))
def test_the_command_at_which_sessions_break_off_is_found_among_any_others(
    at: int, count: int
) -> None:
    names = [str(n) for n in range(count)]
    poison = names[min(at, count - 1)]
    number, taken = sessions_until_aside(poison, names)
    assert number <= 5
    before = names[: names.index(poison)]
    assert set(before) <= taken, "what comes before it is not kept up by it"


def test_a_single_lost_answer_sets_nothing_aside() -> None:
    going, lost = course.lose(Course(), [setting("A").sent])
    assert lost is None
    going, lost = course.lose(course.begins(going), [])
    assert (going.lost, going.suspect, lost) == (0, "", None)


def test_no_status_is_awaited_of_a_device_that_leaves_or_is_wiped() -> None:
    silent = [Sent("unenroll", "P", order=1), Sent("action", "wipe", order=2)]
    assert course.unanswered(silent) == []


@given(st.sampled_from(["1", "2"]))
def test_what_is_set_aside_stays_out_until_its_value_is_another(value: str) -> None:
    held = {("setting", "A"): course.value_mark(setting("A").sent)}
    kept = course.without([setting("A", value), setting("B")], held)
    assert [o.sent.subject for o in kept] == (["B"] if value == "1" else ["A", "B"])
    held = {("install", "a"): course.value_mark(app("a")[1].sent)}
    assert course.without(app("a"), held) == [], "an Add without its Exec is worth nothing"
