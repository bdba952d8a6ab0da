"""Chosen groups of the tenant become resources, with their members (spec F3, step 1).

    chosen groups ── GET /groups/{id} ──────────────────── name, security or not, gone
                  ── GET /groups/{id}/transitiveMembers ─── users, of nested groups too

A security group becomes a resource; of any other only the members are read. Members whom the site
does not know become users. There is no delta: every run reads every chosen group whole.
"""

import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from tandem import audit
from tandem.infra.clock import Clock
from tandem.infra.database import Database, Tx
from tandem.infra.errors import AppError, Kind
from tandem.infra.jobs import Jobs
from tandem.site import collections
from tandem.site.discovery import store
from tandem.site.discovery.graph import SELECT as USER_SELECT
from tandem.site.discovery.graph import Graph, Source, Sources, user_of
from tandem.site.discovery.model import (
    BY_SCHEDULE,
    MOST_GROUPS,
    MOST_HOURS,
    AmbiguousGroup,
    BadSchedule,
    ChosenGroup,
    FoundGroup,
    GroupSchedule,
    NoGroups,
    NoSuchGroup,
    NotEnabled,
    Run,
    TooManyGroups,
)

WORK = "discovery.groups"
_SELECT = "id,displayName,description,mailNickname,securityEnabled,onPremisesSecurityIdentifier"
_MOST_FOUND = 50


@dataclass(frozen=True, slots=True)
class Read:
    """A chosen group as the tenant has it, and the ids of the users in it; no `value` when it has it
    no more."""

    chosen: ChosenGroup
    value: dict[str, Any] | None
    members: tuple[str, ...] = ()

    @property
    def is_security(self) -> bool:
        return self.value is not None and bool(self.value.get("securityEnabled"))


class Groups:
    """Discovery of groups: its scope, its schedule and its runs. `say` writes the log."""

    def __init__(
        self,
        db: Database,
        jobs: Jobs,
        sources: Sources,
        *,
        now: Clock,
        say: Callable[[str], None],
    ) -> None:
        self._db = db
        self._jobs = jobs
        self._sources = sources
        self._now = now
        self._say = say

    async def _source(self, tx: Tx, service: str) -> Source:
        """By name or id; the first one when none is named. Raises NotEnabled."""
        for source in await self._sources(tx):
            if service in ("", source.service, source.id):
                return source
        raise NotEnabled(
            "There is no Azure service to discover groups with.",
            cure="Connect the tenant first: `tandem azure-service create`.",
        )

    # ---------------------------------------------------------------- settings and scope

    async def settings(
        self, tx: Tx, service: str = ""
    ) -> tuple[str, GroupSchedule, list[ChosenGroup]]:
        """The service's name, when its groups are discovered, and which. Raises NotEnabled."""
        source = await self._source(tx, service)
        return (
            source.service,
            await store.group_schedule(tx, source.id),
            await store.chosen(tx, source.id),
        )

    async def change(
        self, tx: Tx, service: str, *, enabled: bool, every_hours: int, actor: str
    ) -> None:
        """Raises BadSchedule, NotEnabled."""
        if not 0 <= every_hours <= MOST_HOURS:
            raise BadSchedule(
                f"{every_hours} is no interval of discovery.",
                cure=f"Take a number from 1 to {MOST_HOURS}, or 0 for never.",
                field="every_hours",
            )
        source = await self._source(tx, service)
        await store.save_group_schedule(tx, source.id, enabled, every_hours)
        await audit.record(
            tx,
            actor=actor,
            action="discovery.groups",
            target=source.service,
            now=self._now(),
            details={"enabled": enabled, "every_hours": every_hours},
        )

    async def find(
        self, service: str, search: str, *, security_only: bool = True
    ) -> list[FoundGroup]:
        """Groups of the tenant whose name begins with `search`, the first of them. Raises NotEnabled,
        and what the tenant refuses."""
        async with self._db.transaction() as tx:
            source = await self._source(tx, service)
            graph = await source.graph(tx)
            chosen = {item.object_id for item in await store.chosen(tx, source.id)}
        conditions = [f"startswith(displayName,'{_quoted(search)}')"] if search else []
        conditions += ["securityEnabled eq true"] if security_only else []
        where = f"&$filter={quote(' and '.join(conditions))}" if conditions else ""
        page = await graph.get(f"/groups?$select={_SELECT}&$top={_MOST_FOUND}{where}")
        found = [
            FoundGroup(
                str(item["id"]),
                str(item.get("displayName") or ""),
                str(item.get("description") or ""),
                bool(item.get("securityEnabled")),
                str(item["id"]) in chosen,
            )
            for item in page.get("value", [])
        ]
        return sorted(found, key=lambda item: item.name.casefold())

    async def choose(self, service: str, wanted: Sequence[str], *, actor: str) -> None:
        """Put groups, by name or object id, into the scope. All of them, or none.

        Raises NoSuchGroup, AmbiguousGroup, TooManyGroups, NotEnabled, and what the tenant refuses.
        """
        async with self._db.transaction() as tx:
            source = await self._source(tx, service)
            graph = await source.graph(tx)
        found = [await _named(graph, item.strip()) for item in wanted]
        async with self._db.transaction() as tx:
            source = await self._source(tx, source.id)
            for id, name in found:
                await store.choose(tx, source.id, id, name, self._now())
            if len(await store.chosen(tx, source.id)) > MOST_GROUPS:
                raise TooManyGroups(
                    f"At most {MOST_GROUPS} groups are discovered.",
                    cure="Choose groups that contain others: members of nested groups count.",
                )
            await self._audit(tx, actor, "discovery.choose-groups", source, [n for _, n in found])

    async def unchoose(self, tx: Tx, service: str, wanted: str, *, actor: str) -> None:
        """Take a group, by name or object id, out of the scope: it is no resource any more, and its
        members stay users. Raises NoSuchGroup, NotEnabled."""
        source = await self._source(tx, service)
        for item in await store.chosen(tx, source.id):
            if wanted.strip().casefold() in {item.object_id.casefold(), item.name.casefold()}:
                await store.unchoose(tx, source.id, item.object_id)
                gone = [item.object_id]
                await collections.mark_gone(tx, source.tenant_id, gone, self._now())
                await self._audit(tx, actor, "discovery.remove-group", source, [item.name])
                return
        raise NoSuchGroup(
            f"The group {wanted[:256]!r} is not among those that are discovered.",
            cure="See: `tandem discovery groups`.",
        )

    async def _audit(
        self, tx: Tx, actor: str, action: str, source: Source, names: Sequence[str]
    ) -> None:
        details = {"service": source.service}
        for name in names:
            await audit.record(
                tx, actor=actor, action=action, target=name, now=self._now(), details=details
            )

    # ---------------------------------------------------------------- runs

    async def request(self, tx: Tx, *, actor: str, service: str = "") -> int:
        """Ask for a run now; its number. Raises NotEnabled, NoGroups."""
        source = await self._source(tx, service)
        if not (await store.group_schedule(tx, source.id)).enabled:
            raise NotEnabled(
                f"Group discovery is not enabled for {source.service}.",
                cure="Enable it: `tandem discovery groups --on`.",
            )
        if not await store.chosen(tx, source.id):
            raise NoGroups(
                f"No group is chosen for discovery of {source.service}.",
                cure="Choose some: `tandem discovery add-group NAME`.",
            )
        now = self._now()
        run_id = await store.begin(tx, source.service, "groups", now)
        await store.asked(tx, source.id, "groups", now)
        await self._jobs.defer(tx, WORK, lock="discovery", run_id=run_id)
        if actor != BY_SCHEDULE:
            await audit.record(
                tx, actor=actor, action="discovery.run-groups", target=source.service, now=now
            )
        return run_id

    async def is_due(self, tx: Tx, source: Source) -> bool:
        schedule = await store.group_schedule(tx, source.id)
        return schedule.due(self._now()) and bool(await store.chosen(tx, source.id))

    async def run(self, run: Run) -> None:
        """Read every chosen group. Raises what the tenant refuses; nothing is changed then."""
        async with self._db.transaction() as tx:
            source = await self._source(tx, run.service)
            chosen = await store.chosen(tx, source.id)
            graph = await source.graph(tx)
        self._say(
            f"Starting sync of Azure Active Directory groups, tenant {source.tenant_id}."
            f" Groups: {len(chosen)}"
        )
        read: list[Read] = []
        users: dict[str, dict[str, Any]] = {}
        for item in chosen:
            read.append(await _read(graph, item, users))
            async with self._db.transaction() as tx:
                await store.progressed(tx, run.id, len(users))
        async with self._db.transaction() as tx:
            added = removed = 0
            for value in users.values():
                user = user_of(source.tenant_id, value)
                added += await collections.upsert_user(tx, user, self._now())
            for one in read:
                removed += await self._keep(tx, source, one)
            await store.succeeded(
                tx,
                run.id,
                self._now(),
                users=len(users),
                added=added,
                removed=removed,
                groups=sum(one.is_security for one in read),
            )
        self._say(
            "Successfully published UDX for Azure Active Directory groups."
            f" Groups: {len(read)}, users: {len(users)}, no longer in the tenant: {removed}"
        )

    async def _keep(self, tx: Tx, source: Source, one: Read) -> int:
        """One group as it was read. Returns 1 when it was a resource and is none any more."""
        id = one.chosen.object_id
        state = "gone" if one.value is None else "security" if one.is_security else "other"
        name = str((one.value or {}).get("displayName") or one.chosen.name)
        if not await store.found_group(tx, source.id, id, name, state, len(one.members)):
            return 0
        if one.value is None or not one.is_security:
            return await collections.mark_gone(tx, source.tenant_id, [id], self._now())
        nickname = one.value.get("mailNickname")
        group = collections.UserResource(
            tenant_id=source.tenant_id,
            object_id=id,
            upn="",
            name=name,
            sid=str(one.value.get("onPremisesSecurityIdentifier") or ""),
            properties={"mailNickname": nickname} if nickname else {},
            kind="group",
        )
        await collections.upsert_user(tx, group, self._now())
        await collections.set_group_members(tx, source.tenant_id, id, one.members)
        return 0


async def _read(graph: Graph, item: ChosenGroup, users: dict[str, dict[str, Any]]) -> Read:
    """Its members come into `users`, each of them once, however many groups have them."""
    try:
        value = await graph.get(f"/groups/{item.object_id}?$select={_SELECT}")
        members = await graph.pages(
            f"/groups/{item.object_id}/transitiveMembers/microsoft.graph.user"
            f"?$select={USER_SELECT}&$top=500"
        )
    except AppError as error:
        if error.kind is not Kind.NOT_FOUND:
            raise
        return Read(item, None)
    ids = []
    for member in members:
        id = str(member["id"])
        users.setdefault(id, member)
        ids.append(id)
    return Read(item, value, tuple(ids))


async def _named(graph: Graph, wanted: str) -> tuple[str, str]:
    """Object id and name. Raises NoSuchGroup, AmbiguousGroup."""
    missing = NoSuchGroup(
        f"The tenant has no group {wanted[:256]!r}.",
        cure="Search for it: `tandem discovery find-groups TEXT`.",
        field="groups",
    )
    if not wanted or len(wanted) > 256 or "\x00" in wanted:
        raise missing
    try:
        id = str(uuid.UUID(wanted))
    except ValueError:
        where = quote(f"displayName eq '{_quoted(wanted)}'")
        page = await graph.get(f"/groups?$select={_SELECT}&$filter={where}")
        found = page.get("value", [])
    else:
        try:
            found = [await graph.get(f"/groups/{id}?$select={_SELECT}")]
        except AppError as error:
            if error.kind is not Kind.NOT_FOUND:
                raise
            found = []
    if not found:
        raise missing
    if len(found) > 1:
        raise AmbiguousGroup(
            f"The tenant has {len(found)} groups named {wanted!r}.",
            cure="Choose by id: " + ", ".join(str(item["id"]) for item in found[:5]) + ".",
            field="groups",
        )
    return str(found[0]["id"]), str(found[0].get("displayName") or "")


def _quoted(text: str) -> str:
    """Within a string of OData."""
    return text.replace("'", "''")
