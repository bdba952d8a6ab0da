"""What comes next for an app on a device, decided from values."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tandem.tenant.assignments import Assignment, Membership, Target, TargetKind
from tandem.tenant.enrollment import Device
from tandem.tenant.mobile_apps import App, Chosen, Meant, Status, intents
from tandem.tenant.sessions import installs
from tandem.tenant.sessions.installs import Step

AT = datetime(2026, 11, 24, 9, 0, tzinfo=UTC)
CLIENT = 'CCMSETUPCMD="SMSSITECODE=P01"'
APP = App(
    "a1", "n", "", "", "LANG=en", "c.msi", "{A}", "1.2", "{B}", "ab" * 32, 1, "published", "", AT
)  # fmt: skip
GROUPS = Membership(frozenset({"g"}), frozenset({"d"}))
SITE_OWNS, MDM_OWNS = 1, 1 | 64


def meant(app: App = APP, *given: tuple[str, str]) -> Meant:
    """`given`: intents and the groups that they are for; required for the user's by default."""
    assignments = [
        Assignment(f"{n}", app.id, Target(TargetKind.GROUP, group), {"intent": intent})
        for n, (intent, group) in enumerate(given or [("required", "g")])
    ]
    return Meant(app, intents.explain(assignments, GROUPS))


def status(state: Any = "installed", app: App = APP, **more: Any) -> Status:
    known = Status(app.id, "d", state, 0, installs.fingerprint(app), AT)
    return replace(known, **more)


def device(said: str = "", said_at: datetime | None = None) -> Device:
    found = Device(
        "d", "w", "h", "", "u", "u@x", "PC", "10", "Device", "enrolled", "f", AT, None, None
    )  # fmt: skip
    return replace(found, config_info=said, config_info_at=said_at)


def next_steps(
    one: Meant,
    known: Status | None = None,
    *,
    after: timedelta = timedelta(),
    looked: bool = False,
    on: Device | None = None,
    chosen: Chosen | None = None,
    **more: Any,
) -> list[str]:
    steps = installs.steps(
        [one],
        {} if known is None else {one.app.id: known},
        {} if chosen is None else {one.app.id: chosen},
        on or device(),
        installs.looks(one.app) if looked else (),
        AT + after,
        **more,
    )
    return [step.do for step in steps]


def test_what_is_there_is_looked_for_before_it_is_installed() -> None:
    assert next_steps(meant()) == ["look"]
    assert next_steps(meant(), looked=True) == ["install"]
    assert next_steps(meant(), status("installed")) == []
    assert next_steps(meant(), status("installing")) == []
    assert next_steps(meant(), status(sha256="other content")) == ["install"]


@pytest.mark.parametrize(
    ("code", "hours"),
    [
        (0x80070643, 24),
        (0x80070643 - (1 << 32), 24),
        (0x80070652, 0.25),
        (0x80072EFD, 1),
        (500, 24),
    ],
)
def test_a_failure_is_tried_again_when_it_helps(code: int, hours: float) -> None:
    """After a day; sooner where the code says that it passes."""
    failed = status("failed", code=code)
    early, late = timedelta(hours=hours, seconds=-1), timedelta(hours=hours)
    assert next_steps(meant(), failed, after=early) == []
    assert next_steps(meant(), failed, after=late, looked=True) == ["install"]
    assert next_steps(meant(), replace(failed, sha256="other")) == ["install"]


def test_a_device_that_does_not_know_the_command_is_asked_in_three_sessions_and_then_daily() -> (
    None
):
    assert next_steps(meant(), status("offered", attempts=2)) == ["install"]
    assert next_steps(meant(), status("offered", attempts=3)) == []
    again = timedelta(days=1)
    assert next_steps(meant(), status("offered", attempts=3), after=again) == ["install"]


def test_only_what_came_from_here_is_uninstalled() -> None:
    out = meant(APP, ("uninstall", "g"))
    assert next_steps(out) == []
    assert next_steps(out, status("installed")) == ["uninstall"]
    assert next_steps(out, status("installed", found=True)) == []
    assert next_steps(out, status("uninstallFailed")) == []
    assert next_steps(out, status("uninstallFailed"), after=timedelta(days=1)) == ["uninstall"]


def test_an_available_app_is_installed_where_somebody_chose_it() -> None:
    offered = meant(APP, ("available", "g"))
    assert next_steps(offered) == []
    assert next_steps(offered, chosen=Chosen(APP.id, "u", AT)) == ["look"]
    nobodys = meant(APP, ("required", "elsewhere"))
    assert next_steps(nobodys, chosen=Chosen(APP.id, "u", AT)) == []


def test_available_and_uninstall_by_device_takes_the_copy_off_once() -> None:
    both = meant(APP, ("available", "g"), ("uninstall", "d"))
    mine = Chosen(APP.id, "u", AT)
    assert next_steps(both, status("installed"), chosen=mine) == ["uninstall"]
    assert next_steps(both, chosen=Chosen(APP.id, removed_at=AT)) == []
    again = Chosen(APP.id, "u", AT, AT)
    assert next_steps(both, chosen=again, looked=True) == ["install"]
    assert next_steps(both, status("installed"), chosen=again) == []


def test_an_app_for_a_user_waits_until_one_is_signed_in() -> None:
    for_user = meant(replace(APP, package_type="perUser"))
    assert next_steps(for_user) == []
    assert next_steps(for_user, user_signed_in=True) == ["look"]
    (look, *_) = installs.commands(Step("look", for_user.app))
    assert look.item.target.startswith("./User/Vendor/MSFT/")
    dual = replace(APP, package_type="dualPurpose")
    assert not dual.for_user
    assert replace(dual, properties={"useDeviceContext": False}).for_user


# ------------------------------------------------------------------ co-management

CLIENT_APP = replace(APP, command_line=CLIENT)
WELL = "flags=1;agent=1;client=GUID:1;policy=1"


def test_apps_are_withheld_while_the_site_owns_client_apps_but_not_its_client() -> None:
    site = device(f"flags={SITE_OWNS};agent=1;client=GUID:1;policy=1", AT)
    ours = device(f"flags={MDM_OWNS};agent=1;client=GUID:1;policy=1", AT)
    assert next_steps(meant(), on=site) == []
    assert next_steps(meant(APP, ("uninstall", "g")), status(), on=site) == []
    assert next_steps(meant(), on=ours) == ["look"]
    assert next_steps(meant(CLIENT_APP), on=site) == ["look"]
    assert next_steps(meant(), on=device("flags=0;agent=1;client=;policy=0", AT)) == ["look"]


LATER = AT + timedelta(minutes=5)


@pytest.mark.parametrize(
    ("said", "said_at", "after", "why"),
    [
        (WELL, LATER, timedelta(days=9), ""),
        ("", None, timedelta(hours=23), ""),
        ("", None, timedelta(days=1), "has not said anything"),
        ("", LATER, timedelta(minutes=6), "is gone"),
        ("agent=1;client=;policy=0;setup=308;code=5", LATER, timedelta(hours=1), ""),
        ("agent=1;client=;policy=0;setup=308;code=5", LATER, timedelta(hours=2), "state 308"),
        ("agent=1;client=;policy=0;setup=602;code=5", LATER, timedelta(hours=2), "state 602"),
        ("agent=1;client=;policy=0;setup=100", LATER, timedelta(days=2), ""),
        ("agent=1;client=GUID:1;policy=0;setup=308", LATER, timedelta(days=2), ""),
        # What it said before it was installed anew says nothing of the new one.
        ("", AT - timedelta(days=3), timedelta(hours=1), ""),
    ],
)
def test_a_client_is_broken_when_it_is_gone_silent_or_its_setup_has_failed(
    said: str, said_at: datetime | None, after: timedelta, why: str
) -> None:
    known = status(app=CLIENT_APP)
    found = installs.broken(CLIENT_APP, known, device(said, said_at), AT + after)
    assert (why in found) if why else found == ""
    assert installs.broken(APP, known, device(said, said_at), AT + after) == ""


def test_a_broken_client_is_reinstalled_at_once_and_then_not_in_every_session() -> None:
    gone = device("", LATER)
    one, known = meant(CLIENT_APP), status(app=CLIENT_APP)
    soon = timedelta(minutes=6)
    assert next_steps(one, known, on=gone, after=soon) == ["repair"]
    once = replace(known, repairs=1, repaired_at=AT)
    assert next_steps(one, once, on=gone, after=timedelta(hours=3)) == []
    assert next_steps(one, once, on=gone, after=timedelta(hours=4)) == ["repair"]
    often = replace(known, repairs=7, repaired_at=AT)
    assert next_steps(one, often, on=gone, after=timedelta(hours=23)) == []
    assert next_steps(one, often, on=gone, after=timedelta(days=1)) == ["repair"]


def test_the_list_of_products_is_read_as_devices_write_it() -> None:
    assert installs.listed("%7Ba-1%7D/{B-2}/") == {"{A-1}", "{B-2}"}
    assert installs.listed("") == frozenset()
