"""Users of the tenant become user resources of the site, over Graph (tutorial 2.6)."""

import asyncio
from datetime import timedelta
from pathlib import Path
from typing import Any

from tandem import audit
from tandem.infra.clock import Clock
from tandem.infra.database import Database, Tx
from tandem.infra.errors import AppError, Kind
from tandem.infra.jobs import Jobs
from tandem.infra.logs import LogFile
from tandem.protocols import cmtrace
from tandem.site import collections
from tandem.site.discovery import store
from tandem.site.discovery.graph import SELECT, Source, Sources, user_of
from tandem.site.discovery.groups import WORK as _GROUPS
from tandem.site.discovery.groups import Groups
from tandem.site.discovery.model import (
    BY_SCHEDULE,
    MOST_DAYS,
    MOST_MINUTES,
    BadSchedule,
    Interrupted,
    NoRun,
    NotEnabled,
    Run,
    Schedule,
)

_FULL = "discovery.full"
_DELTA = "discovery.delta"
_WORK = {"full": _FULL, "delta": _DELTA, "groups": _GROUPS}
_ACTION = {"full": "discovery.run", "delta": "discovery.run-delta"}
# Graph no longer knows from where to go on: a full run finds a new beginning.
_GONE = "tenant.delta-gone"
# As long as the tenant keeps a deleted user, who can be given back until then.
_FORGOTTEN_AFTER = timedelta(days=30)
_COMPONENT = "SMS_AZUREAD_DISCOVERY_AGENT"


class Discovery:
    """Runs of discovery as jobs, with the log that administrators look into."""

    def __init__(
        self,
        db: Database,
        jobs: Jobs,
        sources: Sources,
        *,
        now: Clock,
        logs: Path | None = None,
    ) -> None:
        self._db = db
        self._jobs = jobs
        self._sources = sources
        self._now = now
        self._log = LogFile(logs / f"{_COMPONENT}.log") if logs else None
        jobs.register(_FULL, self.run_full)
        jobs.register(_DELTA, self.run_delta)
        jobs.register(_GROUPS, self.run_groups)
        self.groups = Groups(db, jobs, sources, now=now, say=self._say)

    def _say(self, text: str, severity: int = cmtrace.INFORMATION) -> None:
        if self._log is not None:
            self._log.write(cmtrace.line(text, _COMPONENT, self._now(), severity))

    async def request_full(self, tx: Tx, *, actor: str) -> Run:
        """Ask for a full run now. Raises NotEnabled."""
        return await self._request(tx, await self._source(tx, None), "full", actor)

    async def request_delta(self, tx: Tx, *, actor: str) -> Run:
        """Ask for a run over what changed since the last one, now. Raises NotEnabled."""
        return await self._request(tx, await self._source(tx, None), "delta", actor)

    async def request_groups(self, tx: Tx, *, actor: str) -> Run:
        """Ask for a run over the chosen groups now. Raises NotEnabled, NoGroups."""
        return await self.run(tx, await self.groups.request(tx, actor=actor))

    async def _request(self, tx: Tx, source: Source, kind: str, actor: str) -> Run:
        now = self._now()
        run_id = await store.begin(tx, source.service, kind, now)
        await store.asked(tx, source.id, kind, now)
        await self._jobs.defer(tx, _WORK[kind], lock="discovery", run_id=run_id)
        # What the schedule asks for every few minutes is in the list of runs, not in the audit log.
        if actor != BY_SCHEDULE:
            await audit.record(
                tx, actor=actor, action=_ACTION[kind], target=source.service, now=now
            )
        return await self.run(tx, run_id)

    async def request_due(self, tx: Tx) -> list[Run]:
        """Ask for what the schedules want now, one run of a service at a time; forget who has been
        gone for long, and give up runs that nobody works on any more."""
        await collections.forget_gone(tx, self._now() - _FORGOTTEN_AFTER)
        await self._give_up(tx)
        made = []
        for source in await self._sources(tx):
            if await store.is_running(tx, source.service):
                continue
            schedule = await store.schedule(tx, source.id)
            kind = schedule.due(self._now()) if source.enabled else ""
            if kind:
                made.append(await self._request(tx, source, kind, BY_SCHEDULE))
            elif await self.groups.is_due(tx, source):
                id = await self.groups.request(tx, actor=BY_SCHEDULE, service=source.id)
                made.append(await self.run(tx, id))
        return made

    async def _give_up(self, tx: Tx) -> None:
        """What keeps a run from going on may keep it from writing that down, too: the database that
        is away, a full disk. Left as it is it would hold up every run after it."""
        for run in await store.under_way(tx):
            if not await self._jobs.is_open(tx, _WORK[run.kind], run_id=run.id):
                await self._keep_failure(tx, run, _broken())

    async def schedule(self, tx: Tx, service: str = "") -> tuple[str, Schedule]:
        """The service's name and its schedule. Raises NotEnabled."""
        source = await self._source(tx, service or None)
        return source.service, await store.schedule(tx, source.id)

    async def set_schedule(
        self, tx: Tx, service: str, *, full_days: int, delta_minutes: int, actor: str
    ) -> tuple[str, Schedule]:
        """Raises BadSchedule, NotEnabled."""
        for name, value, most in (
            ("full_days", full_days, MOST_DAYS),
            ("delta_minutes", delta_minutes, MOST_MINUTES),
        ):
            if not 0 <= value <= most:
                raise BadSchedule(
                    f"{value} is no interval of discovery.",
                    cure=f"Take a number from 1 to {most}, or 0 for never.",
                    field=name,
                )
        source = await self._source(tx, service or None)
        await store.save_schedule(tx, source.id, full_days, delta_minutes)
        await audit.record(
            tx,
            actor=actor,
            action="discovery.schedule",
            target=source.service,
            now=self._now(),
            details={"full_days": full_days, "delta_minutes": delta_minutes},
        )
        return source.service, await store.schedule(tx, source.id)

    async def _source(self, tx: Tx, service: str | None) -> Source:
        for source in await self._sources(tx):
            if source.enabled and service in (None, source.service, source.id):
                return source
        raise NotEnabled(
            "User discovery is not enabled for any Azure service.",
            cure="Enable it: `tandem discovery enable`.",
        )

    async def run(self, tx: Tx, id: int) -> Run:
        """Raises NoRun."""
        found = await store.run(tx, id)
        if found is None:
            raise NoRun(f"There was no discovery {id}.")
        return found

    async def runs(self, tx: Tx, limit: int = 20) -> list[Run]:
        """The newest first."""
        return await store.runs(tx, limit)

    async def run_full(self, run_id: int) -> None:
        """All users of the tenant, page by page. The job behind `request_full`."""
        async with self._db.transaction() as tx:
            run = await self.run(tx, run_id)
        if run.state != "running":
            return
        try:
            async with self._db.transaction() as tx:
                source = await self._source(tx, run.service)
                graph = await source.graph(tx)
            self._say(
                f"Starting full sync of Azure Active Directory users, tenant {source.tenant_id}"
            )

            async def seen(users: int) -> None:
                async with self._db.transaction() as tx:
                    await store.progressed(tx, run_id, users)

            # From before the list on: who changes while it is read is in the next delta.
            _, link = await graph.changes(f"/users/delta?$select={SELECT}&$deltatoken=latest")
            found = await graph.pages(f"/users?$select={SELECT}&$top=500", seen)
            async with self._db.transaction() as tx:
                await store.save_link(tx, source.id, link)
                removed = await collections.mark_others_gone(
                    tx, source.tenant_id, [str(value["id"]) for value in found], self._now()
                )
                added = await self._publish(tx, source, found)
                await store.succeeded(
                    tx, run_id, self._now(), users=len(found), added=added, removed=removed
                )
        except AppError as error:
            await self._failed(run, error)
            return
        except asyncio.CancelledError:
            stopped = Interrupted("The site was stopped meanwhile.", cure="Run discovery again.")
            await self._failed(run, stopped)
            raise
        except Exception:
            await self._failed(run, _broken())
            raise
        self._say(
            "Successfully published UDX for Azure Active Directory users."
            f" Users: {len(found)}, no longer in the tenant: {removed}"
        )

    async def _publish(self, tx: Tx, source: Source, found: list[dict[str, Any]]) -> int:
        """How many of these users are new."""
        added = 0
        for value in found:
            added += await collections.upsert_user(
                tx, user_of(source.tenant_id, value), self._now()
            )
        return added

    async def run_delta(self, run_id: int) -> None:
        """The users that changed since the last run. The job behind `request_delta`.

        Without a beginning, or with one that the tenant no longer knows, it is a full run.
        """
        async with self._db.transaction() as tx:
            run = await self.run(tx, run_id)
            source = next((s for s in await self._sources(tx) if s.service == run.service), None)
            link = (await store.schedule(tx, source.id)).delta_link if source else ""
        if run.state != "running" or not link or source is None:
            await self.run_full(run_id)
            return
        try:
            async with self._db.transaction() as tx:
                source = await self._source(tx, run.service)
                graph = await source.graph(tx)
            changed, following = await graph.changes(link)
            found, gone = [], []
            # A delta names what changed, more than once where it did; it may leave out the rest.
            for id in dict.fromkeys(str(value["id"]) for value in changed):
                try:
                    found.append(await graph.get(f"/users/{id}?$select={SELECT}"))
                except AppError as error:
                    if error.kind is not Kind.NOT_FOUND:
                        raise
                    gone.append(id)
            async with self._db.transaction() as tx:
                removed = await collections.mark_gone(tx, source.tenant_id, gone, self._now())
                added = await self._publish(tx, source, found)
                await store.save_link(tx, source.id, following)
                await store.succeeded(
                    tx, run_id, self._now(), users=len(found), added=added, removed=removed
                )
                await store.forget_quiet(tx, run.service, run_id)
        except AppError as error:
            if error.code == _GONE:
                self._say("The tenant no longer knows the delta; a full sync follows.")
                await self.run_full(run_id)
                return
            await self._failed(run, error)
            return
        except asyncio.CancelledError:
            stopped = Interrupted("The site was stopped meanwhile.", cure="Run discovery again.")
            await self._failed(run, stopped)
            raise
        except Exception:
            await self._failed(run, _broken())
            raise
        self._say(
            "Successfully published UDX for Azure Active Directory users."
            f" Delta sync. Users: {len(found)}, no longer in the tenant: {removed}"
        )

    async def run_groups(self, run_id: int) -> None:
        """Every chosen group, with its members. The job behind `request_groups`."""
        async with self._db.transaction() as tx:
            run = await self.run(tx, run_id)
        if run.state != "running":
            return
        try:
            await self.groups.run(run)
        except AppError as error:
            await self._failed(run, error)
        except asyncio.CancelledError:
            stopped = Interrupted("The site was stopped meanwhile.", cure="Run discovery again.")
            await self._failed(run, stopped)
            raise
        except Exception:
            await self._failed(run, _broken())
            raise

    async def _failed(self, run: Run, error: AppError) -> None:
        code = "0x87d00231 " if error.kind is Kind.FORBIDDEN else ""
        what = run.kind.capitalize()
        async with self._db.transaction() as tx:
            await self._keep_failure(tx, run, error)
        self._say(f"{what} sync failed: {code}{error.message} {error.cure}".strip(), cmtrace.ERROR)

    async def _keep_failure(self, tx: Tx, run: Run, error: AppError) -> None:
        await store.failed(
            tx, run.id, self._now(), reason=error.message, cure=error.cure, code=error.code
        )


def _broken() -> Interrupted:
    return Interrupted(
        "An error of the site cut it off.",
        cure="Look into the log of the site, and run discovery again.",
    )


async def is_known_user(tx: Tx, tenant_id: str, object_id: str) -> bool:
    """Whether discovery found this user of the tenant."""
    return await collections.find_user(tx, tenant_id, object_id) is not None
