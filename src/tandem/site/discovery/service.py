"""Users of the tenant become user resources of the site, over Graph (tutorial 2.6)."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

from tandem import audit
from tandem.infra.clock import Clock
from tandem.infra.database import Database, Tx
from tandem.infra.errors import AppError, Kind
from tandem.infra.jobs import Jobs
from tandem.infra.logs import LogFile
from tandem.protocols import cmtrace
from tandem.site import collections
from tandem.site.discovery import store
from tandem.site.discovery.model import Interrupted, NoRun, NotEnabled, Run

_FULL = "discovery.full"
_SELECT = (
    "id,displayName,mail,mailNickname,onPremisesSecurityIdentifier,userPrincipalName,"
    "onPremisesDomainName,onPremisesSamAccountName,onPremisesDistinguishedName"
)
_COMPONENT = "SMS_AZUREAD_DISCOVERY_AGENT"


class Graph(Protocol):
    async def pages(
        self, path: str, seen: Callable[[int], Awaitable[None]] | None = None
    ) -> list[dict[str, Any]]: ...


class Source(Protocol):
    """A tenant to discover: its Azure service, and Graph with the site's own credentials."""

    @property
    def service(self) -> str: ...
    @property
    def tenant_id(self) -> str: ...
    @property
    def enabled(self) -> bool: ...
    async def graph(self, tx: Tx) -> Graph: ...


Sources = Callable[[Tx], Awaitable[Sequence[Source]]]


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

    def _say(self, text: str, severity: int = cmtrace.INFORMATION) -> None:
        if self._log is not None:
            self._log.write(cmtrace.line(text, _COMPONENT, self._now(), severity))

    async def request_full(self, tx: Tx, *, actor: str) -> Run:
        """Ask for a full run now. Raises NotEnabled."""
        source = await self._source(tx, None)
        run_id = await store.begin(tx, source.service, "full", self._now())
        await self._jobs.defer(tx, _FULL, lock="discovery", run_id=run_id)
        await audit.record(
            tx, actor=actor, action="discovery.run", target=source.service, now=self._now()
        )
        return await self.run(tx, run_id)

    async def _source(self, tx: Tx, service: str | None) -> Source:
        for source in await self._sources(tx):
            if source.enabled and service in (None, source.service):
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
        added = 0
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

            found = await graph.pages(f"/users?$select={_SELECT}&$top=500", seen)
            async with self._db.transaction() as tx:
                for value in found:
                    user = _user(source.tenant_id, value)
                    added += await collections.upsert_user(tx, user, self._now())
                await store.succeeded(tx, run_id, self._now(), users=len(found), added=added)
        except AppError as error:
            await self._failed(run_id, error)
            return
        except asyncio.CancelledError:
            stopped = Interrupted("The site was stopped meanwhile.", cure="Run discovery again.")
            await self._failed(run_id, stopped)
            raise
        self._say(
            f"Successfully published UDX for Azure Active Directory users. Users: {len(found)}"
        )

    async def _failed(self, run_id: int, error: AppError) -> None:
        code = "0x87d00231 " if error.kind is Kind.FORBIDDEN else ""
        self._say(f"Full sync failed: {code}{error.message} {error.cure}".strip(), cmtrace.ERROR)
        async with self._db.transaction() as tx:
            await store.failed(
                tx, run_id, self._now(), reason=error.message, cure=error.cure, code=error.code
            )


async def is_known_user(tx: Tx, tenant_id: str, object_id: str) -> bool:
    """Whether discovery found this user of the tenant."""
    return await collections.find_user(tx, tenant_id, object_id) is not None


def _user(tenant_id: str, value: dict[str, Any]) -> collections.UserResource:
    kept = (
        "mailNickname",
        "onPremisesDomainName",
        "onPremisesSamAccountName",
        "onPremisesDistinguishedName",
    )
    return collections.UserResource(
        tenant_id=tenant_id,
        object_id=str(value["id"]),
        upn=str(value.get("userPrincipalName") or ""),
        name=str(value.get("displayName") or ""),
        mail=str(value.get("mail") or ""),
        sid=str(value.get("onPremisesSecurityIdentifier") or ""),
        properties={name: value[name] for name in kept if value.get(name)},
    )
