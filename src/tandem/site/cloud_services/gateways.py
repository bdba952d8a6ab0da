"""Gateways: provisioned with a provider, watched over, and removed (tutorial 3).

What is wanted lies in the database; what runs is found again, so a site that starts again takes its
gateways over instead of starting others.
"""

import asyncio
import contextlib
import secrets
import sys
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict, replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import msgspec
from cryptography import x509
from cryptography.x509.oid import NameOID

from tandem import audit, pki
from tandem.infra import net
from tandem.infra.clock import Clock
from tandem.infra.database import Database, Tx
from tandem.infra.errors import AppError
from tandem.infra.jobs import Jobs
from tandem.infra.logs import LogFile, get_logger
from tandem.infra.net import Resolver
from tandem.infra.secrets import SecretBox
from tandem.protocols import cmtrace, tunnel
from tandem.site import administrators, properties
from tandem.site.cloud_services import contents, names, store, traffic, trust
from tandem.site.cloud_services.certificates import certificate_names, check_usable, fold
from tandem.site.cloud_services.model import (
    ALERT_DAYS,
    LEAVING,
    MAX_INSTANCES,
    Alerts,
    AnotherCommonName,
    BadGateway,
    BadServiceName,
    BeingDeleted,
    BeingProvisioned,
    Check,
    CloudSettings,
    CreatedGateway,
    Gateway,
    GatewayExists,
    GatewayInstance,
    GatewayInUse,
    GatewayState,
    NoHosts,
    NoSuchGateway,
    ProviderCheck,
    TransferExceeded,
    check_resource_group,
    deployment_name,
    wildcard_of,
)
from tandem.site.cloud_services.providers import Local, Provider, ProviderFault, Seen, Work
from tandem.site.cloud_services.ssh_provider import Ssh

log = get_logger("gateways")

# What runs one instance; `--config FILE` follows.
INSTANCE = (sys.executable, "-m", "tandem.cli", "gateway", "run")
# Lines of a log that one telling brings, at most.
_MOST_LINES = 200
_SEVERITIES = {cmtrace.INFORMATION, cmtrace.WARNING, cmtrace.ERROR}
# A process that is there but did not answer so many looks in a row is ended and started again.
_SILENT_LOOKS = 3
_BEING_MADE = {GatewayState.PROVISIONING, GatewayState.STARTING}

_CONTEXT = "cloud.gateway"
_PROVISION = "cloud.provision-gateway"
_DELETE = "cloud.delete-gateway"
_APPLY = "cloud.apply-gateway"


class Gateways:
    """Provisioning, supervision and removal of this site's gateways."""

    def __init__(
        self,
        db: Database,
        settings: CloudSettings,
        box: SecretBox,
        jobs: Jobs,
        *,
        resolver: Resolver,
        public: Resolver | None = None,
        now: Clock,
        logs: Path | None = None,
        changed: Callable[[], None] = lambda: None,
        command: Sequence[str] = INSTANCE,
    ) -> None:
        self._db = db
        self.settings = settings
        self._box = box
        self._jobs = jobs
        self._resolver = resolver
        self._public = public
        self._now = now
        self._logs = logs
        self._log_file = LogFile(logs / "CloudMgr.log") if logs else None
        self._changed = changed
        self._command = command
        self._alarms: dict[str, dict[tuple[str, str], str]] = {}  # Told of, by gateway.
        self._folded: date | None = None  # The day on which traffic was folded last.
        local = Local(lambda: self.settings, logs, command)
        self._here = local.environment
        self.providers: dict[str, Provider] = {local.environment: local}
        for item in settings.gateway.ssh:
            self.providers[item.environment] = Ssh(item, settings.gateway)
        # One hand at a time at a gateway's processes: provisioning, supervision or removal.
        self._hands: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self.answer_seconds = 2.0  # …until an instance that was looked at counts as silent.
        self._silent: defaultdict[tuple[str, int], int] = defaultdict(int)  # Looks at each.
        jobs.register(_PROVISION, self.provision)
        jobs.register(_DELETE, self.finish_deletion)
        jobs.register(_APPLY, self.apply)

    def _say(self, text: str, severity: int = cmtrace.INFORMATION) -> None:
        if self._log_file is not None:
            line = cmtrace.line(text, "SMS_CLOUD_SERVICES_MANAGER", self._now(), severity)
            self._log_file.write(line)

    async def keep_lines(self, tx: Tx, item: tunnel.GatewayTelling) -> None:
        """What an instance on another host logged, beside the logs of those here, which write theirs
        themselves."""
        gateway = await store.gateway(tx, item.service_name)
        lines = item.telling.lines[:_MOST_LINES]
        here = gateway is None or gateway.environment in {"", self._here}
        if self._logs is None or here or not lines:
            return
        name = f"CMG-{item.service_name}-{item.instance}-CMGService.log"
        now = self._now()
        LogFile(self._logs / name).write_all(
            cmtrace.line(
                _plain(line.text),
                "CMGService",
                min(max(datetime.fromtimestamp(0, UTC), _moment(line.at, now)), now),
                line.severity if line.severity in _SEVERITIES else cmtrace.INFORMATION,
                item.telling.worker if 0 < item.telling.worker < 100 else 0,
            )
            for line in lines
        )

    # -------------------------------------------------------------- what an administrator does

    async def check(
        self,
        tx: Tx,
        *,
        tenant_id: str,
        pfx: bytes | None,
        password: str,
        service_name: str = "",
        environment: str = "",
    ) -> ProviderCheck:
        """What there is to make a gateway of, and what its certificate says. Nothing is made.

        Raises NoHosts, BadGateway, and what `create` raises for a certificate.
        """
        provider = self._environment(environment)
        offered = [await self._offer(tx, item) for item in self.providers.values()]
        here = next(item for item in offered if item["name"] == provider.environment)
        if not here["free_hosts"]:
            raise NoHosts(
                f"The provider has no free host for a gateway: it has {here['hosts']} in all.",
                cure="Add addresses to gateway.hosts in the site's settings, or delete a gateway.",
            )
        groups = {item.resource_group: item.region for item in await store.gateways(tx)}
        found = ProviderCheck(
            provider.environment,
            tenant_id,
            here["hosts"],
            here["free_hosts"],
            min(MAX_INSTANCES, here["most_in_a_region"]),
            provider.regions,
            [{"name": name, "region": groups[name]} for name in sorted(groups)],
            environments=offered,
        )
        if pfx is None:
            return found
        opened = pki.pfx_open(pfx, password)
        self._check_certificate(opened, self._now())
        named = certificate_names(opened.certificate)
        found = replace(found, names=named, expires_at=opened.certificate.not_valid_after_utc)
        wildcard = next((name for name in named if name.startswith("*.")), "")
        if wildcard and not service_name and all(name.startswith("*.") for name in named):
            return replace(found, wildcard=wildcard)
        name, note = _service_name(opened.certificate, service_name)
        if await store.gateway(tx, name) is not None:
            raise _exists(name)
        return replace(
            found,
            wildcard=wildcard,
            service_name=name,
            deployment_name=deployment_name(name, self.settings.gateway.deployment_domain),
            notes=[note] if note else [],
        )

    async def _offer(self, tx: Tx, provider: Provider) -> dict[str, Any]:
        """What one provider has, and how much of it is free."""
        every = {host for region in provider.regions for host in provider.hosts(region)}
        free = [await self._free_hosts(tx, provider, region) for region in provider.regions]
        return {
            "name": provider.environment,
            "regions": list(provider.regions),
            "hosts": len(every),
            "free_hosts": len({host for hosts in free for host in hosts}),
            "most_in_a_region": max((len(hosts) for hosts in free), default=0),
        }

    def _environment(self, name: str) -> Provider:
        """The provider of this name; the first, which is this machine, when none is named. Raises
        BadGateway."""
        if not name:
            return next(iter(self.providers.values()))
        for known, provider in self.providers.items():
            if known.casefold() == name.strip().casefold():
                return provider
        raise BadGateway(
            f"There is no environment {name!r}.",
            cure=f"Take one of: {', '.join(self.providers)}.",
            field="environment",
        )

    def _provider(self, environment: str) -> Provider:
        """Of a gateway or an instance that there is. Raises ProviderFault."""
        found = self.providers.get(environment) if environment else self._environment("")
        if found is None:
            raise ProviderFault(
                f"The settings name no environment {environment}.",
                cure="Name it in the site's settings again, or redeploy the gateway elsewhere.",
            )
        return found

    async def test(self, environment: str = "", region: str = "") -> list[Check]:
        """Every free host of an environment, tried: what an instance needs there, and what is
        missing. Raises BadGateway."""
        provider = self._environment(environment)
        async with self._db.transaction() as tx:
            hosts: dict[str, None] = {}
            for item in [region] if region else provider.regions:
                hosts |= dict.fromkeys(await self._free_hosts(tx, provider, item))
        return await provider.test(list(hosts))

    async def create(
        self,
        tx: Tx,
        *,
        pfx: bytes,
        password: str,
        tenant_id: str,
        service_name: str = "",
        environment: str = "",
        region: str = "",
        resource_group: str = "",
        description: str = "",
        instances: int = 1,
        check_revocation: bool = True,
        serve_content: bool = True,
        content_only: bool = False,
        acme: bool = False,
        edge_answers: bool = True,
        alerts: Mapping[str, Any] | None = None,
        actor: str,
    ) -> CreatedGateway:
        """Record the gateway and begin to provision it.

        The service name comes from the certificate. Raises WrongPassword, BadPfx, BadGateway,
        UnusableCertificate, GatewayExists, BadServiceName.
        """
        now = self._now()
        opened = pki.pfx_open(pfx, password)
        name, note = _service_name(opened.certificate, service_name)
        await self._check_free(tx, name)
        self._check_certificate(opened, now, acme=acme)
        if content_only and not serve_content:
            raise BadGateway(
                "A gateway for content alone serves content.",
                cure="Leave serve_content on, or content_only off.",
                field="serve_content",
            )
        provider = self._environment(environment)
        region = region or provider.regions[0]
        self._check_region(provider, region)
        self._check_count(instances, await self._free_hosts(tx, provider, region))
        group = resource_group or f"{name.partition('.')[0]}-group"
        await self.check_group(tx, group, region)
        wanted = Alerts.of(dict(alerts or {}))
        made = Gateway(
            name,
            deployment_name(name, self.settings.gateway.deployment_domain),
            tenant_id,
            region,
            group,
            description,
            instances,
            check_revocation,
            serve_content,
            msgspec.to_builtins(wanted) if alerts else {},
            GatewayState.PROVISIONING,
            "",
            secrets.token_hex(16),
            now,
            now,
            opened.certificate.not_valid_after_utc,
            provider.environment,
            content_only,
            acme,
            edge_answers=edge_answers,
        )
        sealed = self._box.seal(pfx, _CONTEXT), self._box.seal(password.encode(), _CONTEXT)
        if not await store.insert_gateway(tx, made, *sealed):
            raise _exists(made.deployment_name)
        await audit.record(
            tx,
            actor=actor,
            action="gateway.create",
            target=name,
            now=now,
            details={"instances": instances, "region": made.region},
        )
        await self._jobs.defer(tx, _PROVISION, lock=f"gateway:{name}", service_name=name)
        return CreatedGateway(made, [note] if note else [])

    def _check_certificate(self, opened: pki.Pfx, now: datetime, *, acme: bool = False) -> None:
        path = pki.build_path(opened.certificate, opened.chain)
        # An ACME authority sends everything but the root, which is the clients' to have.
        if path.missing_issuer and not (acme and len(path.certificates) > 1):
            raise BadGateway(
                f"The PFX lacks the certificate of {path.missing_issuer}.",
                cure="Export it again with every certificate of the path.",
            )
        check_usable(path.certificates, now)

    async def _check_free(self, tx: Tx, name: str) -> None:
        """Clients and content locations know a gateway by this name, and its deployment by the
        prefix: neither is given twice. Raises GatewayExists."""
        deployed = deployment_name(name, self.settings.gateway.deployment_domain)
        for item in await store.gateways(tx):
            if item.service_name == name:
                raise _exists(name)
            if item.deployment_name == deployed:
                raise GatewayExists(
                    f"The deployment name {deployed} is in use by the gateway {item.service_name}.",
                    cure=f"Take another prefix than {name.partition('.')[0]}.",
                    field="service_name",
                )

    def _check_count(self, instances: int, free: Sequence[str]) -> None:
        if not 1 <= instances <= MAX_INSTANCES:
            raise BadGateway(
                f"A gateway has 1 to {MAX_INSTANCES} instances, not {instances}.",
                field="instances",
            )
        if instances > len(free):
            raise BadGateway(
                f"This provider has free addresses for {len(free)} instances, not {instances}.",
                cure="Take fewer instances, or add addresses to gateway.hosts in the settings.",
                field="instances",
            )

    def _check_region(self, provider: Provider, region: str) -> None:
        if region not in provider.regions:
            raise BadGateway(
                f"There is no region {region!r}.",
                cure=f"Take one of: {', '.join(provider.regions)}.",
                field="region",
            )

    async def check_group(self, tx: Tx, group: str, region: str, besides: str = "") -> None:
        """Whether a resource group can have this name, in this region. Raises BadGateway."""
        check_resource_group(group)
        for item in await store.gateways(tx):
            if item.service_name == besides:
                continue
            if item.resource_group == group and item.region != region:
                raise BadGateway(
                    f"The resource group {group} is in the region {item.region}, not in {region}.",
                    cure=f"Take the region {item.region}, or another resource group.",
                    field="resource_group",
                )

    async def _free_hosts(
        self, tx: Tx, provider: Provider, region: str, besides: str = ""
    ) -> list[str]:
        """Those without an instance, less what other gateways are still to get; `besides` is a
        gateway whose own wants do not count."""
        hosts = provider.hosts(region)
        taken, promised = set(), 0
        for gateway in await store.gateways(tx):
            items = await store.instances(tx, gateway.service_name)
            taken |= {item.host for item in items}
            if gateway.service_name == besides or gateway.state is GatewayState.DELETING:
                continue
            theirs = self.providers.get(gateway.environment) if gateway.environment else provider
            if theirs is provider and provider.hosts(gateway.region) == hosts:
                promised += max(gateway.instances - len(items), 0)
        free = [host for host in hosts if host not in taken]
        return free[: max(len(free) - promised, 0)]

    async def gateways(self, tx: Tx) -> list[Gateway]:
        return await store.gateways(tx)

    async def named(self, tx: Tx) -> list[tuple[str, str]]:
        """Id and name of each, which are the same, for whoever gives them scopes."""
        return [(item.service_name,) * 2 for item in await store.gateways(tx)]

    async def gateway(self, tx: Tx, wanted: str = "") -> Gateway:
        """By service name; the only one when none is named. Raises NoSuchGateway."""
        found = await store.gateways(tx)
        if not wanted and len(found) == 1:
            return found[0]
        for item in found:
            if item.service_name == wanted.strip().lower():
                return item
        raise NoSuchGateway(
            f"There is no gateway {wanted!r}." if wanted else "There is no gateway.",
            cure="Create one: `tandem gateway create`.",
        )

    async def instances(self, tx: Tx, service_name: str) -> list[GatewayInstance]:
        return await store.instances(tx, service_name)

    async def change(
        self,
        tx: Tx,
        wanted: str,
        *,
        description: str | None = None,
        instances: int | None = None,
        check_revocation: bool | None = None,
        serve_content: bool | None = None,
        alerts: Mapping[str, Any] | None = None,
        acme: bool | None = None,
        edge_answers: bool | None = None,
        pfx: bytes | None = None,
        password: str = "",
        actor: str,
    ) -> Gateway:
        """Change what of a gateway can be changed; its instances follow in the background.

        Raises NoSuchGateway, BeingDeleted, BadGateway, BadAlerts, AnotherCommonName, and what
        `create` raises for a certificate.
        """
        found = await self.gateway(tx, wanted)
        name, now = found.service_name, self._now()
        if found.state is GatewayState.DELETING:
            raise _being_deleted(name)
        made = found
        said: list[str] = []
        if description is not None and description != found.description:
            made, said = replace(made, description=description), [*said, "description"]
        if check_revocation is not None and check_revocation != found.check_revocation:
            made = replace(made, check_revocation=check_revocation)
            said.append("check_revocation")
        if serve_content is not None and serve_content != found.serve_content:
            made, said = replace(made, serve_content=serve_content), [*said, "serve_content"]
        if acme is not None and acme != found.acme:
            made, said = replace(made, acme=acme), [*said, "acme"]
        if edge_answers is not None and edge_answers != found.edge_answers:
            made, said = replace(made, edge_answers=edge_answers), [*said, "edge_answers"]
        if alerts is not None:
            given = msgspec.to_builtins(Alerts.of(dict(alerts)))
            if given != found.alerts:
                made, said = replace(made, alerts=given), [*said, "alerts"]
        if instances is not None and instances != found.instances:
            mine = {item.host for item in await store.instances(tx, name)}
            free = await self._free_hosts(tx, self._provider(found.environment), found.region, name)
            self._check_count(instances, [*mine, *free])
            made, said = replace(made, instances=instances), [*said, "instances"]
        if pfx is not None:
            made = await self._other_certificate(tx, made, pfx, password)
            said.append("certificate")
        if not said:
            return found
        await store.change_gateway(tx, made, now)
        if {"instances", "certificate"} & set(said):
            restart = "certificate" in said
            lock = f"gateway:{name}"
            await self._jobs.defer(tx, _APPLY, lock=lock, service_name=name, restart=restart)
        await audit.record(
            tx,
            actor=actor,
            action="gateway.change",
            target=name,
            now=now,
            details={"changed": said, "instances": made.instances},
        )
        return await self.gateway(tx, name)

    async def _other_certificate(
        self, tx: Tx, gateway: Gateway, pfx: bytes, password: str
    ) -> Gateway:
        """Clients and connection points know the gateway by its name (F24). Letter case is no
        difference to any of them (RFC 4343), so it is none here; a wildcard may take the place of
        the name, and the other way."""
        opened = pki.pfx_open(pfx, password)
        kept, secret = await self._pfx(tx, gateway.service_name)
        before = _common_name(pki.pfx_open(kept, secret.decode()).certificate)
        after = _common_name(opened.certificate)
        known = {before.lower(), gateway.service_name, wildcard_of(gateway.service_name)}
        if after.lower() not in known:
            raise AnotherCommonName(
                f"The existing common name is {before}, the new one is {after}:"
                " they must be the same.",
                cure="Ask the CA for a certificate with the existing name; for another name,"
                " create another gateway.",
                field="pfx",
            )
        named = certificate_names(opened.certificate)
        if not {gateway.service_name, wildcard_of(gateway.service_name)} & {
            n.lower() for n in named
        }:
            raise AnotherCommonName(
                f"The certificate is for {', '.join(named) or 'no name'}: clients would not believe"
                f" that it is {gateway.service_name}.",
                cure=f"Ask the CA for {gateway.service_name} among its subject alternative names.",
                field="pfx",
            )
        self._check_certificate(opened, self._now(), acme=gateway.acme)
        sealed = self._box.seal(pfx, _CONTEXT), self._box.seal(password.encode(), _CONTEXT)
        await store.save_pfx(tx, gateway.service_name, *sealed)
        return replace(gateway, expires_at=opened.certificate.not_valid_after_utc)

    async def _pfx(self, tx: Tx, service_name: str) -> tuple[bytes, bytes]:
        pfx, password = await store.sealed_pfx(tx, service_name)
        return self._box.unseal(pfx, _CONTEXT), self._box.unseal(password, _CONTEXT)

    async def certificate(self, tx: Tx, service_name: str) -> pki.Pfx:
        """The certificate that its instances show, with its path."""
        pfx, password = await self._pfx(tx, service_name)
        return pki.pfx_open(pfx, password.decode())

    async def synchronize(self, tx: Tx, wanted: str, *, actor: str) -> Gateway:
        """Bring instances and connection points to what is configured, now and not at the next
        look. Raises NoSuchGateway, BeingDeleted."""
        found = await self.gateway(tx, wanted)
        name = found.service_name
        if found.state is GatewayState.DELETING:
            raise _being_deleted(name)
        lock = f"gateway:{name}"
        await self._jobs.defer(tx, _APPLY, lock=lock, service_name=name, restart=False)
        await audit.record(
            tx, actor=actor, action="gateway.synchronize", target=name, now=self._now()
        )
        return found

    async def alert_state(self, tx: Tx, gateway: Gateway) -> dict[str, Any]:
        """The outbound transfer of the last days against the threshold, and what lies on disk."""
        alerts = Alerts.of(gateway.alerts)
        sent = await traffic.outbound(tx, gateway.service_name, self._now(), ALERT_DAYS)
        folder = self.settings.folder / gateway.service_name
        # On this machine; of those elsewhere, what they say of their content.
        here = await asyncio.to_thread(_size, folder)
        kept = max(here, await contents.kept_bytes(tx, gateway.service_name))
        problems = await contents.full(tx, gateway.service_name)
        return {
            "days": ALERT_DAYS,
            "outbound_bytes": sent,
            "percent": alerts.percent(sent),
            "level": alerts.level(sent),
            "storage_bytes": kept,
            "raised": [asdict(one) for one in alerts.raised(sent, kept)],
            "storage_level": "critical" if problems else alerts.storage_level(kept),
            "storage_problem": problems[0] if problems else "",
        }

    async def stop(self, wanted: str, *, actor: str) -> Gateway:
        """Stop the instances; what is configured stays. Raises NoSuchGateway, BeingDeleted.

        In two steps: what provisions the gateway at the moment sees the first, and gives up.
        """
        async with self._db.transaction() as tx:
            found = await self.gateway(tx, wanted)
            name = found.service_name
            await self._order(tx, name, GatewayState.STOPPED)
            await audit.record(tx, actor=actor, action="gateway.stop", target=name, now=self._now())
        await self.finish_stop(name)
        async with self._db.transaction() as tx:
            return await self.gateway(tx, name)

    async def finish_stop(self, service_name: str) -> None:
        """End the instances of a gateway that is to be stopped."""
        async with self._hands[service_name]:
            async with self._db.transaction() as tx:
                gateway = await store.gateway(tx, service_name)
                if gateway is None or gateway.state is not GatewayState.STOPPED:
                    return
                items = await store.instances(tx, service_name)
            reason = await self._end_all(items)
            if reason:
                await self._set_state(service_name, GatewayState.STOPPED, reason)

    async def start(self, tx: Tx, wanted: str, *, actor: str) -> Gateway:
        """Provision a stopped or failed gateway again. Harmless when it is Ready, or on its way.

        Raises NoSuchGateway, BeingDeleted, TransferExceeded.
        """
        found = await self.gateway(tx, wanted)
        name = found.service_name
        if found.state is GatewayState.READY or found.state in _BEING_MADE:
            return found
        await self._check_transfer(tx, found)
        await self._order(tx, name, GatewayState.PROVISIONING)
        await self._jobs.defer(tx, _PROVISION, lock=f"gateway:{name}", service_name=name)
        await audit.record(tx, actor=actor, action="gateway.start", target=name, now=self._now())
        return await self.gateway(tx, name)

    async def redeploy(
        self,
        tx: Tx,
        wanted: str,
        *,
        environment: str | None = None,
        region: str | None = None,
        resource_group: str | None = None,
        actor: str,
    ) -> Gateway:
        """Give every instance up and make the gateway anew, elsewhere when that is said: what is
        configured, its name and its connection points stay (F24).

        It gets another connection id, so an instance that somebody took away finds nobody to talk
        to. Raises NoSuchGateway, BeingDeleted, BeingProvisioned, BadGateway, TransferExceeded.
        """
        found = await self.gateway(tx, wanted)
        name = found.service_name
        if found.state in _BEING_MADE:
            raise BeingProvisioned(
                f"{name} is being provisioned.",
                cure="Wait until it is Ready or Failed, or stop it first.",
            )
        await self._check_transfer(tx, found)
        provider = self._environment(found.environment if environment is None else environment)
        region = region or (
            found.region if found.region in provider.regions else provider.regions[0]
        )
        self._check_region(provider, region)
        group = resource_group or found.resource_group
        await self.check_group(tx, group, region, besides=name)
        own = {item.host for item in await store.instances(tx, name)}
        free = await self._free_hosts(tx, provider, region, name)
        self._check_count(
            found.instances, [*free, *(host for host in provider.hosts(region) if host in own)]
        )
        made = replace(
            found,
            environment=provider.environment,
            region=region,
            resource_group=group,
            connection_id=secrets.token_hex(16),
        )
        await self._order(tx, name, GatewayState.PROVISIONING)
        await store.redeploy(tx, made)
        await self._jobs.defer(tx, _PROVISION, lock=f"gateway:{name}", service_name=name)
        await audit.record(
            tx,
            actor=actor,
            action="gateway.redeploy",
            target=name,
            now=self._now(),
            details={"environment": provider.environment, "region": region, "group": group},
        )
        return await self.gateway(tx, name)

    async def _check_transfer(self, tx: Tx, gateway: Gateway) -> None:
        """What the threshold stopped would be stopped again within a minute."""
        if await self._exceeded(tx, gateway):
            raise TransferExceeded(
                f"{gateway.service_name} has reached the critical threshold of its outbound"
                " transfer, and is to be stopped then.",
                cure="Raise the threshold, or let it run when critical: `tandem gateway set"
                " --alert-gb … --no-stop-when-critical`.",
            )

    async def _exceeded(self, tx: Tx, gateway: Gateway) -> bool:
        alerts = Alerts.of(gateway.alerts)
        if not alerts.stop_when_critical:
            return False
        sent = await traffic.outbound(tx, gateway.service_name, self._now(), ALERT_DAYS)
        return alerts.level(sent) == "critical"

    async def _order(self, tx: Tx, service_name: str, state: GatewayState) -> None:
        if not await store.set_gateway_state(tx, service_name, state, "", self._now()):
            raise _being_deleted(service_name)

    async def delete(self, tx: Tx, wanted: str, *, actor: str) -> None:
        """Begin to stop and forget a gateway. Raises NoSuchGateway, GatewayInUse."""
        found = await self.gateway(tx, wanted)
        users = [
            point.name
            for point in await store.connection_points(tx)
            if point.service_name == found.service_name
        ]
        if users:
            raise GatewayInUse(
                f"Connection points use {found.service_name}: {', '.join(users)}.",
                cure="Remove those roles first.",
            )
        name = found.service_name
        await store.set_gateway_state(tx, name, GatewayState.DELETING, "", self._now())
        await self._jobs.defer(tx, _DELETE, lock=f"gateway:{name}", service_name=name)
        await audit.record(tx, actor=actor, action="gateway.delete", target=name, now=self._now())

    async def finish_deletion(self, service_name: str) -> None:
        """End the instances of a gateway that is being deleted, and forget it. A job."""
        async with self._hands[service_name]:
            async with self._db.transaction() as tx:
                gateway = await store.gateway(tx, service_name)
                if gateway is None or gateway.state is not GatewayState.DELETING:
                    return
                items = await store.instances(tx, service_name)
            try:
                for item in items:
                    await self._give_back(item)
                await self._provider(gateway.environment).forget(gateway)
            except ProviderFault as fault:
                # It is tried again at every look.
                await self._set_state(service_name, GatewayState.DELETING, fault.message)
                return
            async with self._db.transaction() as tx:
                await store.delete_gateway(tx, service_name)
                await administrators.gone(tx, "gateway", service_name)
            self._say(f"Service {service_name} is deleted")
        self._changed()

    async def check_dns(self, tx: Tx, wanted: str) -> dict[str, Any]:
        """Whether the public name leads to the deployment, asked where devices on the internet ask
        and inside, and what is missing.

        Raises NoSuchGateway, and DnsUnavailable when no server answers.
        """
        found = await self.gateway(tx, wanted)
        hosts = [item.host for item in await store.instances(tx, found.service_name)]
        views = await self.name_views(found, hosts)
        if all(view.code == "dns.no-answer" for view in views):
            raise net.no_answer(", ".join(view.server for view in views))
        made = names.report(found.service_name, found.deployment_name, hosts, views)
        return {
            "service_name": made.service_name,
            "deployment_name": made.deployment_name,
            "record": made.record,
            "address_record": made.address_record,
            "views": [
                {
                    "view": view.view,
                    "server": view.server,
                    "ok": view.ok,
                    "code": view.code,
                    "target": view.target,
                    "addresses": list(view.addresses),
                }
                for view in made.views
            ],
            "split_brain": made.split_brain,
            "ok": made.ok,
            "problem": made.problem,
            "cure": made.cure,
        }

    async def name_views(self, gateway: Gateway, hosts: Sequence[str]) -> list[names.NameView]:
        """What DNS says of its name: outside first, and inside when that is another server."""
        asked = [("dns", self._resolver)]
        if self._public is not None:
            asked = [("public", self._public), ("internal", self._resolver)]
        return list(
            await asyncio.gather(
                *(
                    names.look_up(
                        resolver, view, gateway.service_name, gateway.deployment_name, hosts
                    )
                    for view, resolver in asked
                )
            )
        )

    # -------------------------------------------------------------- provisioning

    async def provision(self, service_name: str) -> None:
        """Write what the instances need, start them, wait until they are ready. A job.

        Doing it again does no harm: instances that run are kept.
        """
        async with self._hands[service_name]:
            try:
                await self._provision(service_name)
            except AppError as error:
                await self._fail(service_name, f"{error.message} {error.cure}".strip())
            except OSError as error:
                await self._fail(service_name, f"The gateway could not be started: {error}.")

    async def _provision(self, service_name: str) -> None:
        async with self._db.transaction() as tx:
            gateway = await store.gateway(tx, service_name)
            if gateway is None or gateway.state not in _BEING_MADE:
                return
            items = await store.instances(tx, service_name)
        self._say(f"Provisioning service {service_name}: {gateway.instances} instances")
        await self._leave([item for item in items if item.state == LEAVING])
        async with self._db.transaction() as tx:
            work = await self._work(tx, gateway)
            if not await self._advance(tx, service_name, GatewayState.STARTING):
                return
            kept, surplus = await self._fit(tx, gateway)
        await self._drop(surplus)
        for item in kept:
            await self._run(work, item)
        self._changed()
        await self._settle(gateway)
        self._changed()

    async def apply(self, service_name: str, restart: bool = False) -> None:
        """Give a running gateway the instances that it is to have and, with `restart`, another
        certificate. A job.

        One instance after the other takes the certificate while it runs; one that does not show it
        in time is started anew, so clients always find one.
        """
        async with self._hands[service_name]:
            async with self._db.transaction() as tx:
                gateway = await store.gateway(tx, service_name)
                if gateway is None or gateway.state is not GatewayState.READY:
                    return  # What begins later, begins with it.
                work = await self._work(tx, gateway)
                kept, surplus = await self._fit(tx, gateway)
            try:
                await self._drop(surplus)
                for item in kept:
                    if restart:
                        await self._renew(work, item)
                    await self._run(work, item)
                    self._changed()
                    await self._await_instance(item)
            except (OSError, ProviderFault) as error:
                reason = error.message if isinstance(error, ProviderFault) else str(error)
                await self._set_state(service_name, GatewayState.READY, reason[:300])
                return
            await self._tend(service_name)
        self._say(f"Service {service_name}: configuration is applied")
        self._changed()

    async def _renew(self, work: Work, item: GatewayInstance) -> None:
        provider = self._provider(item.environment)
        if (await provider.look(item, self.answer_seconds)).state != "running":
            return  # It starts with the new one.
        wanted = pki.sha256_fingerprint(_leaf(work))
        await provider.renew(work, item)
        if not await self._until(item, lambda seen: seen.certificate == wanted):
            self._say(
                f"Instance {item.instance} of {item.service_name} did not show its new certificate;"
                " starting it anew",
                cmtrace.WARNING,
            )
            await provider.end(item)
        self._say(f"Instance {item.instance} of {item.service_name} has another certificate")

    async def _await_instance(self, item: GatewayInstance) -> None:
        """Until it answers, or the time to start is over: looking after it goes on anyway."""
        await self._until(item, lambda seen: seen.state != "starting")
        await self._look(item)

    async def _until(self, item: GatewayInstance, met: Callable[[Seen], bool]) -> bool:
        """Look at it until it is so, or the time to start is over."""
        provider = self._provider(item.environment)
        deadline = asyncio.get_running_loop().time() + self.settings.gateway.start_seconds
        while asyncio.get_running_loop().time() < deadline:
            async with self._db.transaction() as tx:
                items = await store.instances(tx, item.service_name)
            now = next((each for each in items if each.instance == item.instance), None)
            if now is None:
                return False
            if met(await provider.look(now, self.answer_seconds)):
                return True
            await asyncio.sleep(0.1)
        return False

    async def _fit(
        self, tx: Tx, gateway: Gateway
    ) -> tuple[list[GatewayInstance], list[GatewayInstance]]:
        """The instances that a gateway is to have, and those that it has too many of."""
        every = await store.instances(tx, gateway.service_name)
        surplus = [item for item in every if item.instance > gateway.instances]
        planned = await self._planned(tx, gateway)
        return [item for item in planned if item not in surplus], surplus

    async def _drop(self, surplus: Sequence[GatewayInstance]) -> None:
        for item in surplus:
            await self._give_back(item)
            self._say(f"Removed instance {item.instance} of {item.service_name}")

    async def _give_back(self, item: GatewayInstance) -> None:
        """End an instance, and leave its host as it was. Raises ProviderFault."""
        provider = self._provider(item.environment)
        await provider.end(item)
        await provider.remove(item)
        async with self._db.transaction() as tx:
            await store.delete_instance(tx, item.service_name, item.instance)

    async def _leave(self, items: Sequence[GatewayInstance]) -> None:
        """What a redeployment gives up. A host that is lost must not keep a gateway: its instance
        knows an old connection id, and no connection point comes to it any more."""
        for item in items:
            try:
                await self._give_back(item)
            except ProviderFault as fault:
                self._say(
                    f"Instance {item.instance} of {item.service_name} was left behind on"
                    f" {item.host}: {fault.message}",
                    cmtrace.WARNING,
                )
                async with self._db.transaction() as tx:
                    await store.delete_instance(tx, item.service_name, item.instance)

    async def _fail(self, service_name: str, reason: str) -> None:
        if await self._set_state(service_name, GatewayState.FAILED, reason):
            self._say(f"Service {service_name} failed: {reason}", cmtrace.ERROR)

    async def _set_state(self, service_name: str, state: GatewayState, reason: str = "") -> bool:
        async with self._db.transaction() as tx:
            return await self._advance(tx, service_name, state, reason)

    async def _advance(
        self, tx: Tx, service_name: str, state: GatewayState, reason: str = ""
    ) -> bool:
        """False when somebody ordered otherwise meanwhile: their order counts."""
        return await store.set_gateway_state(tx, service_name, state, reason, self._now())

    async def _work(self, tx: Tx, gateway: Gateway) -> Work:
        pfx, password = await self._pfx(tx, gateway.service_name)
        root = await properties.root_certificate(tx)
        files = {
            "server.pfx": pfx,
            "server.password": password,
            "connector-ca.pem": pki.pem(root),
        }
        return Work(gateway, files)

    async def _planned(self, tx: Tx, gateway: Gateway) -> list[GatewayInstance]:
        provider = self._provider(gateway.environment)
        planned = await store.instances(tx, gateway.service_name)
        free = await self._free_hosts(tx, provider, gateway.region, gateway.service_name)
        first = len(planned) + 1
        missing = gateway.instances - len(planned)
        if missing > 0:
            self._check_count(missing, free)
        for number, host in zip(range(first, gateway.instances + 1), free, strict=False):
            planned.append(provider.place(gateway, number, host))
        return planned

    async def _run(self, work: Work, item: GatewayInstance) -> GatewayInstance:
        """Start an instance unless it runs, and remember what is known of it."""
        made = await self._provider(item.environment).start(work, item)
        if made != item:
            self._say(f"Started instance {item.instance} of {item.service_name}")
        async with self._db.transaction() as tx:
            await store.save_instance(tx, made)
        return made

    async def _settle(self, gateway: Gateway) -> None:
        """Wait until every instance is ready, then say so; or say which one is not, and why."""
        deadline = asyncio.get_running_loop().time() + self.settings.gateway.start_seconds
        while True:
            async with self._db.transaction() as tx:
                now = await store.gateway(tx, gateway.service_name)
                if now is None or now.state is not GatewayState.STARTING:
                    self._say(f"Service {gateway.service_name}: provisioning is given up")
                    return
                items = await store.instances(tx, gateway.service_name)
            items = [await self._look(item) for item in items]
            if all(item.state == "running" for item in items):
                if await self._set_state(gateway.service_name, GatewayState.READY):
                    self._say(f"Service {gateway.service_name} is Ready")
                return
            failed = next((item for item in items if item.state == "failed"), None)
            if failed is not None:
                reason = f"Instance {failed.instance}: {failed.reason}"
                await self._fail(gateway.service_name, reason)
                return
            if asyncio.get_running_loop().time() > deadline:
                late = next(item for item in items if item.state != "running")
                await self._fail(
                    gateway.service_name,
                    f"Instance {late.instance} on {late.host}:{late.port} was not ready in time."
                    f" {late.reason}",
                )
                return
            await asyncio.sleep(0.1)

    async def _look(self, item: GatewayInstance) -> GatewayInstance:
        """An instance as it is now, kept when it changed."""
        try:
            found = await self._provider(item.environment).look(item, self.answer_seconds)
        except ProviderFault as fault:
            found = Seen("failed", fault.message)
        seen = replace(item, state=found.state, reason=found.reason)
        if seen != item:
            async with self._db.transaction() as tx:
                await store.save_instance(tx, seen)
        return seen

    # -------------------------------------------------------------- supervision

    async def watch(self, stop: asyncio.Event) -> None:
        """Look after the instances until `stop`; they go on running when the site ends."""
        await self._attempt(self.resume)
        while not stop.is_set():
            await self._attempt(self.tend)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self.settings.gateway.check_seconds):
                    await stop.wait()

    async def _attempt(self, work: Callable[[], Awaitable[None]]) -> None:
        try:
            await work()
        except AppError as error:
            log.warning("gateways not tended", reason=error.message)

    async def resume(self) -> None:
        """Go on with what a site that ended in the middle of it had begun."""
        async with self._db.transaction() as tx:
            gateways = await store.gateways(tx)
        for gateway in gateways:
            if gateway.state in _BEING_MADE:
                await self.provision(gateway.service_name)
            elif gateway.state is GatewayState.DELETING:
                await self.finish_deletion(gateway.service_name)
            elif gateway.state is GatewayState.STOPPED:
                await self.finish_stop(gateway.service_name)

    async def tend(self) -> None:
        """Start again what died, and bring states up to date."""
        today = self._now().date()
        async with self._db.transaction() as tx:
            gateways = await store.gateways(tx)
            if self._folded != today:
                await traffic.fold(tx, today)
        self._folded = today
        for gateway in gateways:
            if gateway.state is GatewayState.READY:
                async with self._hands[gateway.service_name]:
                    await self._tend(gateway.service_name)
            elif gateway.state is GatewayState.DELETING and gateway.reason:
                await self.finish_deletion(gateway.service_name)

    async def _tend(self, service_name: str) -> None:
        async with self._db.transaction() as tx:
            gateway = await store.gateway(tx, service_name)
            if gateway is None or gateway.state is not GatewayState.READY:
                return
            exceeded = await self._exceeded(tx, gateway)
            items = await store.instances(tx, service_name)
            alerts = await self.alert_state(tx, gateway)
            self._tell(
                service_name,
                await trust.alarms(tx, gateway, self._now()),
                {(one["name"], ""): f"{one['text']} {one['cure']}" for one in alerts["raised"]},
            )
        if exceeded:
            await self._stop_for_transfer(items, service_name)
            return
        seen = [await self._revive(gateway, item) for item in items]
        reason = "; ".join(f"Instance {i.instance}: {i.reason}" for i in seen if i.reason)
        if reason != gateway.reason:
            await self._set_state(service_name, GatewayState.READY, reason)

    def _tell(
        self,
        service_name: str,
        found: Sequence[pki.RevocationAlarm],
        raised: Mapping[tuple[str, str], str],
    ) -> None:
        """Into the log once, and once more when it is over."""
        now = {(str(one.alarm), one.authority): f"{one.text} {one.cure}" for one in found}
        now |= raised
        before = self._alarms.get(service_name, {})
        for key in now.keys() - before.keys():
            self._say(f"Service {service_name}: {key[0]}: {now[key]}", cmtrace.WARNING)
        for name, authority in before.keys() - now.keys():
            of = f" of {authority}" if authority else ""
            self._say(f"Service {service_name}: {name}{of} is over")
        self._alarms[service_name] = now

    async def _stop_for_transfer(self, items: Sequence[GatewayInstance], service_name: str) -> None:
        reason = (
            f"Stopped: the outbound transfer of {ALERT_DAYS} days reached the critical threshold."
        )
        if not await self._set_state(service_name, GatewayState.STOPPED, reason):
            return
        async with self._db.transaction() as tx:
            await audit.record(
                tx,
                actor="site",
                action="gateway.stop",
                target=service_name,
                now=self._now(),
                details={"reason": reason},
            )
        self._say(f"Service {service_name}: {reason}", cmtrace.WARNING)
        await self._end_all(items)
        self._changed()

    async def _end_all(self, items: Sequence[GatewayInstance]) -> str:
        """Which could not be ended, and why; nothing when all were."""
        faults = []
        for item in items:
            try:
                await self._provider(item.environment).end(item)
            except ProviderFault as fault:
                faults.append(f"Instance {item.instance}: {fault.message}")
                continue
            ended = replace(item, pid=None, started=None, state="stopped", reason="")
            async with self._db.transaction() as tx:
                await store.save_instance(tx, ended)
        return "; ".join(faults)

    async def _revive(self, gateway: Gateway, item: GatewayInstance) -> GatewayInstance:
        """Start it again when it is gone, or has been silent for too long."""
        key = (item.service_name, item.instance)
        try:
            provider = self._provider(item.environment)
            if self._silent[key] >= _SILENT_LOOKS:
                await provider.end(item)
            found = await provider.look(item, self.answer_seconds)
            if found.state == "failed":
                self._say(
                    f"Instance {item.instance} of {gateway.service_name} is gone; starting it",
                    cmtrace.WARNING,
                )
                self._silent.pop(key, None)
                async with self._db.transaction() as tx:
                    work = await self._work(tx, gateway)
                item = await self._run(work, replace(item, pid=None, started=None))
        except (OSError, ProviderFault) as error:
            reason = error.message if isinstance(error, ProviderFault) else str(error)
            failed = replace(item, state="failed", reason=reason[:300])
            async with self._db.transaction() as tx:
                await store.save_instance(tx, failed)
            return failed
        seen = await self._look(item)
        self._silent[key] = 0 if seen.state == "running" else self._silent[key] + 1
        return seen


def _moment(seconds: float, now: datetime) -> datetime:
    """What a gateway's clock says; nobody has to believe it."""
    try:
        return datetime.fromtimestamp(seconds, UTC)
    except (ValueError, OverflowError, OSError):
        return now


def _plain(text: str) -> str:
    return "".join(c if c.isprintable() else " " for c in text[:400])


def _exists(name: str) -> GatewayExists:
    return GatewayExists(
        f"There is a gateway {name} already: its common name is in use.",
        cure="Take a certificate with a name of its own: each gateway has one. Or delete that"
        " gateway first.",
        field="service_name",
    )


def _being_deleted(name: str) -> BeingDeleted:
    return BeingDeleted(
        f"{name} is being deleted.",
        cure="Wait until it is gone, then create it again: `tandem gateway create`.",
    )


def _common_name(certificate: x509.Certificate) -> str:
    """As it is written."""
    for attribute in certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME):
        return str(attribute.value)
    return next(iter(certificate_names(certificate)), "")


def _leaf(work: Work) -> x509.Certificate:
    password = work.files["server.password"].decode()
    return pki.pfx_open(work.files["server.pfx"], password).certificate


def _size(folder: Path) -> int:
    total = 0
    for file in folder.rglob("*"):
        with contextlib.suppress(OSError):
            total += file.stat().st_size if file.is_file() else 0
    return total


def _service_name(certificate: x509.Certificate, asked: str) -> tuple[str, str]:
    """The name in the certificate, and a note when it was folded; `asked` replaces a wildcard.

    Raises BadGateway, BadServiceName.
    """
    names = certificate_names(certificate)
    folded = [name.lower() for name in names]
    plain = [name for name in names if not name.startswith("*.")]
    if asked:
        wanted, note = fold(asked)
        if wanted in folded or "*." + wanted.partition(".")[2] in folded:
            return wanted, note
        raise BadGateway(
            f"The certificate is for {', '.join(names)}, not for {wanted}.",
            cure="Take the PFX of this service name.",
            field="service_name",
        )
    if not plain:
        raise BadGateway(
            "The certificate is a wildcard: it does not say the service name.",
            cure="Name the service with --service-name.",
            field="service_name",
        )
    # Other names may stand beside it; the service name is the one with a company's domain.
    for name in plain:
        with contextlib.suppress(BadServiceName):
            return fold(name)
    raise BadGateway(
        f"No name of the certificate can be a service name: {', '.join(plain)}.",
        cure="A service name is a prefix of 3 to 24 letters and digits, and your domain.",
    )
