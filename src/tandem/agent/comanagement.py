"""CoManagementHandler: merges the policies of this device, and acts on what comes out."""

import random
from collections.abc import Awaitable, Callable, Collection, Mapping
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Any, Protocol

import msgspec

from tandem import workloads
from tandem.agent.folder import Folder
from tandem.agent.gate import Applied, Gate
from tandem.agent.handlers import Handlers
from tandem.agent.journal import ERROR, WARNING, Journal
from tandem.agent.platform import Machine, MdmEnrollment, NoToken
from tandem.agent.platform.meeting import EnrollmentAsked
from tandem.infra.errors import AppError
from tandem.protocols import ccm
from tandem.workloads import Authority, Merged, Workload, shown
from tandem.workloads.instructions import area_of

LOG = "CoManagementHandler"
STATUS, SCHEDULED, CANCELED = 100, 101, 102
STARTED, NOT_PROVISIONED, PROVISIONED = 105, 106, 107
NO_USER, FAILED = 108, 110

TRIES = 3
TRY_EVERY_MINUTES = 15
# How long values of the owner before may stay in force before somebody is told.
HANDOVER_MINUTES = 24 * 60


class Report(Protocol):
    """`once` names the occasion of what may be said again when the client is killed meanwhile."""

    def __call__(self, topic: int, state: int, data: dict[str, Any], once: str = "", /) -> None: ...


class _Memory(msgspec.Struct):
    """What must survive a restart."""

    policies: str = ""
    flags: int = 0
    detail: str = ""
    enroll_at: datetime | None = None
    tries: int = 0
    enrolled: bool = False
    # The last order to enrol now that was taken.
    order: str = ""
    # Workloads whose hand-over was reported as overdue.
    alarmed: list[str] = []
    # How many states were reported.
    reports: int = 0
    # The trace of the policy in force, and when each step of following it was done.
    trace: str = ""
    followed: dict[str, datetime] = {}


class CoManagementHandler:
    def __init__(
        self,
        machine: Machine,
        folder: Folder,
        gate: Gate,
        journal: Journal,
        handlers: Handlers | None = None,
    ) -> None:
        self._machine = machine
        self._folder = folder
        self._handlers = handlers
        self._gate = gate
        self._journal = journal
        self._memory = folder.load("handler.json", _Memory) or _Memory()

    def _write(self, message: str, severity: int = 1) -> None:
        self._journal.write(LOG, message, severity)

    async def evaluate(
        self,
        policy: ccm.Policy,
        report: Report,
        *,
        version: str,
        effects: dict[str, str],
        current: bool,
        sync: bool,
        user: str = "",
        of_device: Collection[str] = (),
    ) -> None:
        """Bring the device in line with its policy, and report when that changed anything.

        `user` is whose policy is merged with the device's own, which has the configurations
        `of_device`.
        `sync` asks for an MDM session whether or not anything changed. May run at any time and any number of times: what is as it should be stays untouched.
        """
        enrollment = self._machine.mdm.enrollment()
        self._begin_trace(policy)
        merged = self._merge(policy)
        effective = workloads.effective(merged.flags, enrollment.enrolled)
        changed = self._take(merged, enrollment, effective)
        if changed:
            self._follow("flags")
        self._apply(policy)
        if merged.allow and merged.auto_enroll and not enrollment.enrolled:
            await self._auto_enroll(policy, report)
            enrollment = self._machine.mdm.enrollment()
        else:
            self._cancel(enrollment, report)
        self._remember_enrollment(enrollment)
        self._machine.mdm.publish(
            ccm.ConfigInfo(
                self._gate.flags,
                version,
                policy.client_id,
                merged.allow and current,
                trace=policy.trace,
            ).text()
        )
        if changed or sync:
            # The MDM service learns of the switch at once, and gives or withholds accordingly.
            await self._machine.mdm.sync()
            if changed:
                self._follow("sync")
        if self._handlers is not None:
            # After that, as an installation takes its time.
            await self._handlers.act()
        self._alarm(report)
        users = {
            item.id: user for item in policy.configurations if user and item.id not in of_device
        }
        state = self._state(policy, merged, enrollment, version, effects, user, users)
        self._report(state, report, policy)

    def look_again(self) -> None:
        """Compare every value with the device at the next evaluation, however lately it was."""
        if self._handlers is not None:
            self._handlers.look_again()

    def standing(self, areas: Collection[str] = ()) -> tuple[int, int] | None:
        """How many values have their effect, and how many failed to; of these areas, or of all. None
        where values have no effects."""
        if self._handlers is None:
            return None
        effects = [
            one for one in self._handlers.effects if not areas or area_of(one.setting) in areas
        ]
        failed = sum(one.failed for one in effects)
        return len(effects) - failed, failed

    async def undo(self) -> None:
        """Bring the effects on the device in line with what is in force."""
        if self._handlers is not None:
            await self._handlers.act()

    def _begin_trace(self, policy: ccm.Policy) -> None:
        if policy.trace == self._memory.trace:
            return
        self._memory.trace, self._memory.followed = policy.trace, {}
        self._write(f"Policy version {policy.version} follows trace {policy.trace}.")
        self._follow("policy")

    def _follow(self, step: str) -> None:
        """Remember when a step of the trace was done first; the site is told with the state."""
        if self._memory.trace and step not in self._memory.followed:
            self._memory.followed[step] = self._machine.now()
            self._write(f"Trace {self._memory.trace}: {step}")
            self._save()

    def _merge(self, policy: ccm.Policy) -> Merged:
        found = sorted(policy.configuration_policies, key=lambda p: p.id)
        merged = workloads.merge(found)
        shape = sha256(msgspec.json.encode(found)).hexdigest()
        if shape == self._memory.policies:
            return merged
        for item in found:
            self._write(f"Processing GET for assignment ({item.id} : {item.version})")
        for name, value in (
            ("Allow", str(merged.allow).lower()),
            ("AutoEnroll", str(merged.auto_enroll).lower()),
            ("Capabilities", str(merged.raw)),
        ):
            setting = f"CoManagementSettings_{name}"
            self._write(f"Getting/Merging value for setting '{setting}'")
            self._write(f"Merged value for setting '{setting}' is '{value}'")
        self._write(
            f"New merged workloadflags value with co-management max capabilities "
            f"'{workloads.MAX_CAPABILITIES}' is '{merged.flags}'"
        )
        self._memory.policies = shape
        self._save()
        return merged

    def _take(self, merged: Merged, enrollment: MdmEnrollment, effective: int) -> bool:
        if merged.flags != self._memory.flags:
            self._write(f"Merging workload flags {self._memory.flags} with {merged.flags}")
            self._memory.flags = merged.flags
            self._save()
        changed = self._gate.set(
            effective,
            registered=True,
            bound_seconds=HANDOVER_MINUTES * self._machine.minute_seconds,
        )
        if not changed:
            return False
        self._write(f"Workloads flag retrieved {effective}")
        if merged.allow and not enrollment.enrolled:
            self._write("Device is not MDM enrolled yet. All workloads are managed by SCCM.")
        elif enrollment.enrolled and enrollment.provisioned:
            self._write("Device is already enrolled with MDM and Device Provisioned")
        elif enrollment.enrolled:
            self._write("Machine is already enrolled with MDM")
        if not merged.allow and enrollment.enrolled:
            self._write("Co-management is disabled but expected to be enabled.", WARNING)
        return True

    def _apply(self, policy: ccm.Policy) -> None:
        for item in policy.configurations:
            try:
                workload = Workload(item.workload)
            except ValueError:
                self._write(f"'{item.setting}' is of an unknown workload: {item.workload}", WARNING)
                continue
            self._gate.offer(Authority.SITE, workload, item.setting, item.value)
        # The policy names everything that the site wants, so what it names no longer goes, and
        # what the MDM service had set before goes where the site has set something in its place.
        self._gate.keep_only(Authority.SITE, {item.setting for item in policy.configurations})
        self._gate.confirm(Authority.SITE, self._gate.epoch)

    def _alarm(self, report: Report) -> None:
        """Say once of each hand-over that it takes too long."""
        late = {w: one for w, one in self._gate.handovers.items() if one.overdue}
        for workload, holding in late.items():
            if workload.value in self._memory.alarmed:
                continue
            owner = "site" if holding.owner is Authority.SITE else "MDM service"
            why = self._why(self._gate.awaited(workload))
            text = (
                f"The hand-over of {workload.title} to the {owner} is overdue: {why}."
                " What was in force before stays in force."
            )
            self._write(text, ERROR)
            data = {"code": "handover.overdue", "message": text, "workload": workload.value}
            report(ccm.FRAMEWORK_TOPIC, 2, data, f"overdue/{workload.value}/{holding.epoch}")
        names = [workload.value for workload in late]
        if names != self._memory.alarmed:
            self._memory.alarmed = names
            self._save()

    def _cancel(self, enrollment: MdmEnrollment, report: Report) -> None:
        """A planned enrolment that the policy does not ask for any more does not come."""
        if self._memory.enroll_at is None or enrollment.enrolled:
            return
        self._memory.enroll_at, self._memory.tries = None, 0
        self._write("The planned MDM enrollment is canceled: no policy asks for it.")
        report(ccm.COMANAGEMENT_TOPIC, CANCELED, {})
        self._save()

    def _why(self, awaited: list[str]) -> str:
        """What a hand-over waits for: what was set and is not there yet, with the reason."""
        if not awaited:
            return "it has set nothing that was confirmed"
        effects = {one.setting: one for one in (self._handlers.effects if self._handlers else ())}
        told = effects.get(awaited[0])
        more = f" (and {len(awaited) - 1} more)" if len(awaited) > 1 else ""
        reason = f": {told.text.rstrip('.')}" if told is not None and told.failed else ""
        return f"{awaited[0]}{more} was set and could not be read back on the device{reason}"

    async def _auto_enroll(self, policy: ccm.Policy, report: Report) -> None:
        """One try when it is due: three, a quarter of an hour apart, then at the next round.

        The first roll-out is spread, so that a fleet does not enrol in the same second; how far the
        site says. Of several policies the shortest spread counts.
        """
        machine, memory, now = self._machine, self._memory, self._machine.now()
        if machine.directory.join() is None:
            return
        minute = timedelta(seconds=machine.minute_seconds)
        if policy.enroll_now and policy.enroll_now != memory.order:
            self._write("The site has this device enrolled now.")
            memory.order, memory.tries, memory.enroll_at = policy.enroll_now, 0, now
            self._save()
        spread = min(p.spread_minutes for p in policy.configuration_policies if p.auto_enroll)
        latest = now + minute * max(spread, _evaluation_minutes(policy))
        if memory.enroll_at is not None and memory.enroll_at > latest:
            # Planned by a clock that was ahead, it would be waited for.
            memory.enroll_at = latest
            self._save()
        if memory.enroll_at is None:
            memory.enroll_at = now + minute * random.uniform(0, max(0, spread))  # noqa: S311
            self._write(f"Queuing enrollment timer to fire at {memory.enroll_at:%m/%d/%Y %H:%M:%S}")
            self._write("Successfully queued MDM auto enrollment")
            report(ccm.COMANAGEMENT_TOPIC, SCHEDULED, {"at": memory.enroll_at.isoformat()})
            self._save()
            return
        if now < memory.enroll_at:
            return
        memory.tries = memory.tries % TRIES + 1
        # After the last one it waits for the next evaluation of its policy.
        pause = TRY_EVERY_MINUTES if memory.tries < TRIES else _evaluation_minutes(policy)
        memory.enroll_at = now + minute * pause
        self._save()
        self._write(f"Enrolling device to MDM... Try #{memory.tries} out of {TRIES}")
        report(ccm.COMANAGEMENT_TOPIC, STARTED, {"try": memory.tries})
        state, data = await self._enroll()
        if state in (NO_USER, FAILED):
            data |= {"try": memory.tries, "at": memory.enroll_at.isoformat()}
        report(ccm.COMANAGEMENT_TOPIC, state, data)

    async def _enroll(self) -> tuple[int, dict[str, Any]]:
        mdm = self._machine.mdm
        ways: list[tuple[str, Callable[[], Awaitable[None]]]] = [
            ("RegisterDeviceWithManagementUsingAADDeviceCredentials", lambda: mdm.enroll()),
            ("RegisterDeviceWithManagementUsingAADCredentials", lambda: mdm.enroll(user=True)),
        ]
        failure: AppError | None = None
        for name, enroll in ways:
            self._write(f"Enrolling device with {name}")
            try:
                await enroll()
            except AppError as error:
                failure = error
                self._write(f"MDM enrollment failed: {error.message}", ERROR)
                if isinstance(error, EnrollmentAsked):
                    break  # It may still be under way.
                continue
            self._write("MDM enrollment succeeded")
            done = PROVISIONED if mdm.enrollment().provisioned else NOT_PROVISIONED
            return done, {}
        assert failure is not None
        data = {"code": failure.code, "message": failure.message, "cure": failure.cure}
        if "hresult" in failure.details:
            data["hresult"] = failure.details["hresult"]
        return (NO_USER if isinstance(failure, NoToken) else FAILED), data

    def _remember_enrollment(self, enrollment: MdmEnrollment) -> None:
        """A user who leaves the MDM service is enrolled again, after the same quiet while."""
        if enrollment.enrolled and not self._memory.enrolled:
            self._memory.enrolled, self._memory.tries = True, 0
            self._memory.enroll_at = None
            self._save()
        elif not enrollment.enrolled and self._memory.enrolled:
            self._memory.enrolled = False
            self._write("The device is no longer enrolled with MDM.", WARNING)
            self._save()

    def _state(
        self,
        policy: ccm.Policy,
        merged: Merged,
        enrollment: MdmEnrollment,
        version: str,
        effects: dict[str, str],
        user: str,
        users: Mapping[str, str],
    ) -> ccm.ComanagementState:
        deployed = {item.setting: item for item in policy.configurations}
        return ccm.ComanagementState(
            flags=self._gate.flags,
            mdm_enrolled=enrollment.enrolled,
            policy_present=merged.allow,
            capabilities=merged.flags,
            provider=enrollment.provider,
            upn=enrollment.upn,
            client_version=version,
            policy_version=policy.version,
            workloads={w.value: self._gate.owner(w).value for w in Workload},
            applied={
                setting: _told(setting, one, deployed.get(setting), users)
                for setting, one in self._gate.applied.items()
            },
            effects=effects,
            enacted={
                one.setting: ccm.Enacted(one.source, one.code, one.text, one.at, one.failed)
                for one in (self._handlers.effects if self._handlers else ())
            },
            facts=self._handlers.facts(Authority.SITE) if self._handlers else {},
            handovers={
                workload.value: "overdue" if one.overdue else "under way"
                for workload, one in self._gate.handovers.items()
            },
            trace=self._memory.trace,
            followed=dict(self._memory.followed),
            user=user,
        )

    def _report(self, state: ccm.ComanagementState, report: Report, policy: ccm.Policy) -> None:
        detail = sha256(msgspec.json.encode(state, order="sorted")).hexdigest()
        if detail == self._memory.detail:
            return
        told = msgspec.to_builtins(state)
        report(ccm.COMANAGEMENT_TOPIC, STATUS, told, f"state/{self._memory.reports}")
        self._memory.detail, self._memory.reports = detail, self._memory.reports + 1
        self._save()

    def policy_checked(self) -> None:
        """A poll brought nothing new."""
        self._write("State ID and report detail hash are not changed. No need to resend.")

    def _save(self) -> None:
        self._folder.save("handler.json", self._memory)


def _evaluation_minutes(policy: ccm.Policy) -> float:
    """How often this client's policy is evaluated when nothing is new."""
    told = policy.settings.get("policy_polling_minutes")
    usable = isinstance(told, int | float) and not isinstance(told, bool) and told > 0
    return max(TRY_EVERY_MINUTES, float(told) if usable else 60.0)  # type: ignore[arg-type]


def _told(
    setting: str, applied: Applied, item: ccm.Configuration | None, users: Mapping[str, str]
) -> dict[str, str]:
    """A value for the site, without its secret: what says it goes through the gateway."""
    told = {
        "value": shown(setting, applied.value),
        "source": applied.source,
        "workload": applied.workload,
    }
    ours = applied.source == Authority.SITE.value
    if ours and item is not None and item.value == applied.value:
        told["configuration"] = item.id
        if item.id in users:
            told["user"] = users[item.id]
    return told
