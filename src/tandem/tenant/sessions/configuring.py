"""The settings of a device: what is written and deleted there, and what the device answers."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

from tandem.infra.clock import Clock
from tandem.infra.database import Tx
from tandem.protocols.syncml import Item, Status
from tandem.tenant.assignments import Membership
from tandem.tenant.enrollment import Device, Enrollment
from tandem.tenant.policies import (
    Configuration,
    Effective,
    Policies,
    is_ours,
    loc_uri,
    stored,
)
from tandem.tenant.sessions import store
from tandem.tenant.sessions.model import LAPSED, Delivery, Order, Sent
from tandem.workloads import Workload, shown

KINDS = ("setting", "removal")
# A refusal may have been the moment's, and Windows is updated: it is asked again, once a day.
RETRY = timedelta(hours=24)
_RELEASES = timedelta(hours=8)
# More lines than this say less than their sum.
_LINES = 5
_SHOWN_CHARACTERS = 64


class Configuring:
    """The settings of a device: orders, and what it answers."""

    def __init__(self, enrollment: Enrollment, policies: Policies, now: Clock) -> None:
        self._enrollment = enrollment
        self._policies = policies
        self._now = now

    async def orders(
        self, tx: Tx, device: Device, groups: Membership, user_here: bool
    ) -> tuple[list[Order], bool]:
        """What is to do, removals first, and whether something waits for a user or the clock.

        Settings of users wait for a session with a user (section 11.6).
        """
        desired = await self._policies.desired(tx)
        effective = desired.effective(groups, device.flags, os_version(device))
        delivered = await store.deliveries(tx, device.id)
        removals, lapsing = unwanted(effective, delivered, device.flags)
        if lapsing:
            await store.lapse_deliveries(tx, device.id, lapsing)
        orders = [*removals, *replacements(effective.wanted, delivered, self._now())]
        now = [one for one in orders if user_here or not _of_user(one.sent.subject)]
        refused = any(
            not 200 <= delivered[name].code < 300 for name in effective.wanted if name in delivered
        )
        return now, refused or len(now) < len(orders)

    async def answered(
        self, tx: Tx, device: Device, answers: Sequence[tuple[Sent, Status]]
    ) -> None:
        """Keep what a message says of settings and removals, in as few rows as it takes."""
        kept: dict[str, Delivery] = {}
        gone: list[str] = []
        done: list[str] = []
        lines: list[str] = []
        for what, status in answers:
            good = 200 <= status.code < 300
            told = f"status {status.code}"
            told += f", {status.original_error[:32]}" if status.original_error else ""
            if what.kind == "removal":
                if status.code == 403:
                    continue  # The site's client keeps this workload: asked at the next session.
                gone.append(what.subject)
                kept.pop(what.subject, None)
                fine = good or status.code == 404
                lines.append(
                    f"{what.subject} removed"
                    if fine
                    else f"{what.subject} stays (status {status.code})"
                )
                continue
            if status.code == 403:
                # The site's client keeps this workload: ask again once its flags say otherwise.
                gone.append(what.subject)
            else:
                kept[what.subject] = Delivery(
                    what.subject,
                    what.value,
                    status.code,
                    what.workload,
                    error=status.original_error[:64],
                    added=bool(what.order),
                )
            if good:
                value = shown(what.subject, what.value)
                short = len(value) <= _SHOWN_CHARACTERS and value.isprintable()
                done.append(f"{what.subject} set to {value}" if short else f"{what.subject} set")
            else:
                lines.append(f"{what.subject} refused by the device ({told})")
        if len(done) > _LINES:
            done = [f"{len(done)} settings set: " + "; ".join(done)]
        if kept:
            await store.save_deliveries(tx, device.id, list(kept.values()), self._now())
        if gone:
            await store.forget_deliveries(tx, device.id, gone)
        trace = followed(device, self._now())
        await self._enrollment.notes(tx, device, "setting", [*done, *lines], trace)


def followed(device: Device, now: datetime) -> str:
    """The trace of the site that what is set now follows: the device's newest, for as long as the
    service may take to bring what it releases (comanagement, F18)."""
    agent, at = device.agent, device.config_info_at
    return agent.trace if agent and at is not None and now - at <= _RELEASES else ""


def os_version(device: Device) -> str:
    """The newest that is known of it: with its revision from the inventory, or of enrolment."""
    return str(device.inventory.get("os_version") or device.os_version or "")


def replacements(
    wanted: Mapping[str, Configuration], delivered: Mapping[str, Delivery], now: datetime
) -> list[Order]:
    """A command for each value that the device has not taken yet.

    A refused one is repeated a day later, not in every session. Some nodes have to be added before
    they can be replaced, and what is there already is replaced (windows-mdm, 11.4 and 11.9).
    """
    orders = []
    for setting, item in wanted.items():
        known, verb, value = delivered.get(setting), item.verb, stored(setting, item.value)
        if known is not None and known.value == value and known.code != LAPSED:
            other = _other_verb(item, known)
            if other is None and not _again(known, now):
                continue
            verb = other or verb
        target = Item(
            target=loc_uri(setting),
            data=item.value if item.format not in ("null", "node") else None,
            format=item.format,
            type="text/plain",
        )
        sent = Sent(
            "setting", setting, value, order=int(verb == "Add"), workload=item.workload.value
        )
        orders.append(Order(sent, verb, target))
    return orders


def _other_verb(item: Configuration, known: Delivery) -> str | None:
    if item.verb == "Replace" and known.code == 404 and not known.added:
        return "Add"
    return "Replace" if item.verb == "Add" and known.code == 418 and known.added else None


def _again(known: Delivery, now: datetime) -> bool:
    good = 200 <= known.code < 300
    return not good and known.at is not None and now - known.at >= RETRY


def unwanted(
    effective: Effective, delivered: Mapping[str, Delivery], flags: int | None
) -> tuple[list[Order], list[str]]:
    """Of what a device was given and is not to have: what to delete there, and what lapses.

    A setting of a workload that the site owns is left alone: the device keeps the value, and
    whoever owns the workload says what it is to be (spec F17). One that policies disagree on
    stays as it is. Anything else goes.
    """
    removals: list[Order] = []
    lapsing: list[str] = []
    kept = (effective.wanted, effective.conflicts, effective.inapplicable)
    for subject, known in delivered.items():
        if any(subject in items for items in kept):
            continue
        if is_ours(_workload(known.workload), flags):
            target = Item(target=loc_uri(subject))
            removals.append(Order(Sent("removal", subject), "Delete", target))
        elif known.code != LAPSED:
            lapsing.append(subject)
    return removals, lapsing


def _workload(name: str) -> Workload:
    try:
        return Workload(name)
    except ValueError:
        return Workload.DEVICE_CONFIGURATION


def _of_user(subject: str) -> bool:
    return subject.lower().startswith("./user/")
