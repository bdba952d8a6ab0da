"""Gateways on this machine: provisioned as real processes that outlive the site (tutorial 3).

What is wanted lies in the database; what runs is found again by process id and start time, so a
site that starts again takes its gateways over instead of starting others.
"""

import asyncio
import contextlib
import os
import secrets
import shutil
import signal
import subprocess
import sys
import threading
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import msgspec
import psutil
from cryptography import x509
from cryptography.x509.oid import NameOID

from tandem import audit, pki
from tandem.infra import config, net
from tandem.infra.clock import Clock
from tandem.infra.database import Database, Tx
from tandem.infra.errors import AppError
from tandem.infra.jobs import Jobs
from tandem.infra.logs import LogFile, get_logger
from tandem.infra.net import Resolver
from tandem.infra.secrets import SecretBox, private_folder, write_private
from tandem.protocols import cmtrace
from tandem.site import administrators, properties
from tandem.site.cloud_services import store, trust
from tandem.site.cloud_services.certificates import certificate_names, check_usable, fold
from tandem.site.cloud_services.model import (
    ALERT_DAYS,
    MAX_INSTANCES,
    Alerts,
    AnotherCommonName,
    BadGateway,
    BadServiceName,
    BeingDeleted,
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
)

log = get_logger("gateways")

# What runs one instance; `--config FILE` follows.
INSTANCE = (sys.executable, "-m", "tandem.cli", "gateway", "run")
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
        self._now = now
        self._logs = logs
        self._log_file = LogFile(logs / "CloudMgr.log") if logs else None
        self._changed = changed
        self._command = command
        self._alarms: dict[str, dict[tuple[str, str], str]] = {}  # Told of, by gateway.
        # One hand at a time at a gateway's processes: provisioning, supervision or removal.
        self._hands: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self.answer_seconds = 2.0  # …until an instance that was looked at counts as silent.
        self._silent: defaultdict[int, int] = defaultdict(int)  # Looks, by process id.
        jobs.register(_PROVISION, self.provision)
        jobs.register(_DELETE, self.finish_deletion)
        jobs.register(_APPLY, self.apply)

    def _say(self, text: str, severity: int = cmtrace.INFORMATION) -> None:
        if self._log_file is not None:
            line = cmtrace.line(text, "SMS_CLOUD_SERVICES_MANAGER", self._now(), severity)
            self._log_file.write(line)

    # -------------------------------------------------------------- what an administrator does

    async def check(
        self, tx: Tx, *, tenant_id: str, pfx: bytes | None, password: str, service_name: str = ""
    ) -> ProviderCheck:
        """What there is to make a gateway of, and what its certificate says. Nothing is made.

        Raises NoHosts, and what `create` raises for a certificate.
        """
        free = await self._free_hosts(tx)
        here = self.settings.gateway
        if not free:
            raise NoHosts(
                f"The provider has no free host for a gateway: it has {len(here.hosts)} in all.",
                cure="Add addresses to gateway.hosts in the site's settings, or delete a gateway.",
            )
        groups = {item.resource_group: item.region for item in await store.gateways(tx)}
        found = ProviderCheck(
            self.settings.environment.name,
            tenant_id,
            len(here.hosts),
            len(free),
            min(MAX_INSTANCES, len(free)),
            here.regions,
            [{"name": name, "region": groups[name]} for name in sorted(groups)],
        )
        if pfx is None:
            return found
        opened = pki.pfx_open(pfx, password)
        self._check_certificate(opened, self._now())
        names = certificate_names(opened.certificate)
        found = replace(found, names=names, expires_at=opened.certificate.not_valid_after_utc)
        wildcard = next((name for name in names if name.startswith("*.")), "")
        if wildcard and not service_name and all(name.startswith("*.") for name in names):
            return replace(found, wildcard=wildcard)
        name, note = _service_name(opened.certificate, service_name)
        if await store.gateway(tx, name) is not None:
            raise _exists(name)
        return replace(
            found,
            wildcard=wildcard,
            service_name=name,
            deployment_name=deployment_name(name, here.deployment_domain),
            notes=[note] if note else [],
        )

    async def create(
        self,
        tx: Tx,
        *,
        pfx: bytes,
        password: str,
        tenant_id: str,
        service_name: str = "",
        region: str = "",
        resource_group: str = "",
        description: str = "",
        instances: int = 1,
        check_revocation: bool = True,
        serve_content: bool = True,
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
        if await store.gateway(tx, name) is not None:
            raise _exists(name)
        self._check_certificate(opened, now)
        region = region or self.settings.gateway.regions[0]
        self._check_place(region, instances, await self._free_hosts(tx))
        group = resource_group or f"{name.partition('.')[0]}-group"
        await self._check_group(tx, group, region)
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

    def _check_certificate(self, opened: pki.Pfx, now: datetime) -> None:
        path = pki.build_path(opened.certificate, opened.chain)
        if path.missing_issuer:
            raise BadGateway(
                f"The PFX lacks the certificate of {path.missing_issuer}.",
                cure="Export it again with every certificate of the path.",
            )
        check_usable(path.certificates, now)

    def _check_place(self, region: str, instances: int, free: Sequence[str]) -> None:
        here = self.settings.gateway
        if not 1 <= instances <= MAX_INSTANCES:
            raise BadGateway(
                f"A gateway has 1 to {MAX_INSTANCES} instances, not {instances}.",
                field="instances",
            )
        if instances > len(free):
            raise BadGateway(
                f"This machine has free addresses for {len(free)} instances, not {instances}.",
                cure="Take fewer instances, or add addresses to gateway.hosts in the settings.",
                field="instances",
            )
        if region and region not in here.regions:
            raise BadGateway(
                f"There is no region {region!r}.",
                cure=f"Take one of: {', '.join(here.regions)}.",
                field="region",
            )

    async def _check_group(self, tx: Tx, group: str, region: str) -> None:
        check_resource_group(group)
        for item in await store.gateways(tx):
            if item.resource_group == group and item.region != region:
                raise BadGateway(
                    f"The resource group {group} is in the region {item.region}, not in {region}.",
                    cure=f"Take the region {item.region}, or another resource group.",
                    field="resource_group",
                )

    async def _free_hosts(self, tx: Tx, besides: str = "") -> list[str]:
        """Those without an instance, less what other gateways are still to get; `besides` is a
        gateway whose own wants do not count."""
        taken, promised = set(), 0
        for gateway in await store.gateways(tx):
            items = await store.instances(tx, gateway.service_name)
            taken |= {item.host for item in items}
            if gateway.service_name != besides and gateway.state is not GatewayState.DELETING:
                promised += max(gateway.instances - len(items), 0)
        free = [host for host in self.settings.gateway.hosts if host not in taken]
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
        if alerts is not None:
            given = msgspec.to_builtins(Alerts.of(dict(alerts)))
            if given != found.alerts:
                made, said = replace(made, alerts=given), [*said, "alerts"]
        if instances is not None and instances != found.instances:
            mine = {item.host for item in await store.instances(tx, name)}
            self._check_place("", instances, [*mine, *await self._free_hosts(tx, name)])
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
        """Clients and connection points know the gateway by this name, to the letter (F24)."""
        opened = pki.pfx_open(pfx, password)
        kept, secret = await self._pfx(tx, gateway.service_name)
        before = _common_name(pki.pfx_open(kept, secret.decode()).certificate)
        after = _common_name(opened.certificate)
        if before != after:
            raise AnotherCommonName(
                f"The existing common name is {before}, the new one is {after}:"
                " they must be the same, letter case included.",
                cure="Ask the CA for a certificate with the existing name; for another name,"
                " create another gateway.",
                field="pfx",
            )
        self._check_certificate(opened, self._now())
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
        since = self._now().date() - timedelta(days=ALERT_DAYS - 1)
        sent = await store.outbound_bytes(tx, gateway.service_name, since)
        kept = await asyncio.to_thread(_size, self._folder(gateway.service_name))
        full = alerts.storage_gb is not None and kept >= alerts.storage_gb * 10**9
        return {
            "days": ALERT_DAYS,
            "outbound_bytes": sent,
            "percent": alerts.percent(sent),
            "level": alerts.level(sent),
            "storage_bytes": kept,
            "storage_level": "off" if alerts.storage_gb is None else "critical" if full else "good",
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
            await self._end_all(items)

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
        since = self._now().date() - timedelta(days=ALERT_DAYS - 1)
        sent = await store.outbound_bytes(tx, gateway.service_name, since)
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
            for item in items:
                await _end(item)
            async with self._db.transaction() as tx:
                await store.delete_gateway(tx, service_name)
                await administrators.gone(tx, "gateway", service_name)
            shutil.rmtree(self._folder(service_name), ignore_errors=True)
            self._say(f"Service {service_name} is deleted")
        self._changed()

    async def check_dns(self, tx: Tx, wanted: str) -> dict[str, Any]:
        """Whether the public name leads to the deployment, and what is missing.

        Raises NoSuchGateway, DnsUnavailable.
        """
        found = await self.gateway(tx, wanted)
        target = await self._resolver.cname(found.service_name)
        record = f"{found.service_name}. CNAME {found.deployment_name}."
        hosts = [item.host for item in await store.instances(tx, found.service_name)]
        addresses = ", ".join(hosts) or "with the addresses of its instances"
        problem, cure = "", ""
        if target is None:
            problem = f"DNS has no CNAME record for {found.service_name}."
            cure = f"Add to your public DNS: {record}"
        elif target != found.deployment_name:
            problem = f"The CNAME of {found.service_name} leads to {target}."
            cure = f"Change it in your public DNS to: {record}"
        elif not await self._resolver.lookup(found.deployment_name):
            problem = f"The deployment name {found.deployment_name} has no address in DNS."
            cure = f"Add to your DNS: {found.deployment_name}. A {addresses}."
        return {
            "service_name": found.service_name,
            "deployment_name": found.deployment_name,
            "record": record,
            "ok": not problem,
            "problem": problem,
            "cure": cure,
        }

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
            self._say(f"Provisioning service {service_name}: {gateway.instances} instances")
            await self._prepare(tx, gateway)
            if not await self._advance(tx, service_name, GatewayState.STARTING):
                return
            kept, surplus = await self._fit(tx, gateway)
        await self._drop(surplus)
        for item in kept:
            await self._run(gateway, item)
        self._changed()
        await self._settle(gateway)
        self._changed()

    async def apply(self, service_name: str, restart: bool = False) -> None:
        """Give a running gateway the instances and the certificate that it is to have. A job.

        One instance after the other is started anew, so clients always find one.
        """
        async with self._hands[service_name]:
            async with self._db.transaction() as tx:
                gateway = await store.gateway(tx, service_name)
                if gateway is None or gateway.state is not GatewayState.READY:
                    return  # What begins later, begins with it.
                await self._prepare(tx, gateway)
                kept, surplus = await self._fit(tx, gateway)
            await self._drop(surplus)
            try:
                for item in kept:
                    if restart and _process(item) is not None:
                        await _end(item)
                    await self._run(gateway, item)
                    self._changed()
                    await self._await_instance(gateway, item.instance)
            except OSError as error:
                await self._set_state(service_name, GatewayState.READY, str(error)[:300])
                return
            await self._tend(service_name)
        self._say(f"Service {service_name}: configuration is applied")
        self._changed()

    async def _await_instance(self, gateway: Gateway, number: int) -> None:
        """Until it answers, or the time to start is over: looking after it goes on anyway."""
        deadline = asyncio.get_running_loop().time() + self.settings.gateway.start_seconds
        while asyncio.get_running_loop().time() < deadline:
            async with self._db.transaction() as tx:
                items = await store.instances(tx, gateway.service_name)
                item = next((each for each in items if each.instance == number), None)
                if item is None or (await self._look(tx, gateway, item)).state != "starting":
                    return
            await asyncio.sleep(0.1)

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
            await _end(item)
            async with self._db.transaction() as tx:
                await store.delete_instance(tx, item.service_name, item.instance)
            self._say(f"Removed instance {item.instance} of {item.service_name}")

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

    def _folder(self, service_name: str) -> Path:
        return self.settings.folder / service_name

    async def _prepare(self, tx: Tx, gateway: Gateway) -> None:
        folder = private_folder(self._folder(gateway.service_name))
        pfx, password = await self._pfx(tx, gateway.service_name)
        write_private(folder / "server.pfx", pfx)
        write_private(folder / "server.password", password)
        root = await properties.root_certificate(tx)
        write_private(folder / "connector-ca.pem", pki.pem(root))

    async def _planned(self, tx: Tx, gateway: Gateway) -> list[GatewayInstance]:
        here = self.settings.gateway
        planned = await store.instances(tx, gateway.service_name)
        free = await self._free_hosts(tx, gateway.service_name)
        first = len(planned) + 1
        missing = gateway.instances - len(planned)
        if missing > 0:
            self._check_place("", missing, free)
        for number, host in zip(range(first, gateway.instances + 1), free, strict=False):
            place = here.hosts.index(host)
            planned.append(
                GatewayInstance(
                    gateway.service_name,
                    number,
                    host,
                    here.port,
                    here.tunnel_port + number - 1,
                    here.health_port + place,
                )
            )
        return planned

    async def _run(self, gateway: Gateway, item: GatewayInstance) -> GatewayInstance:
        """Start an instance unless it runs, and remember its process."""
        running = _process(item)
        if running is None:
            settings = self._write_settings(gateway, item)
            command = [*self._command, "--config", str(settings)]
            pid = await asyncio.to_thread(_find, command)
            if pid is None:
                pid = await asyncio.to_thread(_start, command, self._output(gateway, item))
            started = psutil.Process(pid).create_time()
            item = replace(item, pid=pid, started=started, state="starting", reason="")
            self._say(f"Started instance {item.instance} of {gateway.service_name}")
        async with self._db.transaction() as tx:
            await store.save_instance(tx, item)
        return item

    def _output(self, gateway: Gateway, item: GatewayInstance) -> Path:
        return self._folder(gateway.service_name) / f"instance-{item.instance}.out"

    def _write_settings(self, gateway: Gateway, item: GatewayInstance) -> Path:
        folder = self._folder(gateway.service_name)
        table = {
            "service_name": gateway.service_name,
            "instance": item.instance,
            "host": item.host,
            "port": item.port,
            "tunnel_port": item.tunnel_port,
            "health": f"{self.settings.gateway.health_host}:{item.health_port}",
            "pfx": str(folder / "server.pfx"),
            "pfx_password_file": str(folder / "server.password"),
            "connector_ca": str(folder / "connector-ca.pem"),
            "connection_id": gateway.connection_id,
            "state": str(private_folder(folder / f"instance-{item.instance}")),
            "workers": self.settings.gateway.workers,
        }
        if self._logs is not None:
            table["logs"] = str(self._logs)
        path = folder / f"instance-{item.instance}.toml"
        write_private(path, config.toml(table).encode())
        return path

    async def _settle(self, gateway: Gateway) -> None:
        """Wait until every instance is ready, then say so; or say which one is not, and why."""
        deadline = asyncio.get_running_loop().time() + self.settings.gateway.start_seconds
        while True:
            async with self._db.transaction() as tx:
                now = await store.gateway(tx, gateway.service_name)
                if now is None or now.state is not GatewayState.STARTING:
                    self._say(f"Service {gateway.service_name}: provisioning is given up")
                    return
                items = [
                    await self._look(tx, gateway, item)
                    for item in await store.instances(tx, gateway.service_name)
                ]
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

    async def _look(self, tx: Tx, gateway: Gateway, item: GatewayInstance) -> GatewayInstance:
        """An instance as it is now, kept when it changed."""
        if _process(item) is None:
            seen = replace(item, state="failed", reason=self._last_words(gateway, item))
        elif await self._answers(item):
            seen = replace(item, state="running", reason="")
        else:
            seen = replace(item, state="starting", reason="It does not answer yet.")
        if seen != item:
            await store.save_instance(tx, seen)
        return seen

    def _last_words(self, gateway: Gateway, item: GatewayInstance) -> str:
        with contextlib.suppress(OSError):
            lines = self._output(gateway, item).read_text("utf-8", "replace").strip().splitlines()
            if lines:
                return f"The process ended: {' '.join(lines[-2:])}"[:400]
        return "The process ended and said nothing."

    async def _answers(self, item: GatewayInstance) -> bool:
        url = f"http://{self.settings.gateway.health_host}:{item.health_port}/healthz"
        try:
            async with net.plain_client(timeout=self.answer_seconds) as client:
                return (await client.get(url)).status_code == 200
        except httpx.HTTPError:
            return False

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
        async with self._db.transaction() as tx:
            gateways = await store.gateways(tx)
        for gateway in gateways:
            if gateway.state is GatewayState.READY:
                async with self._hands[gateway.service_name]:
                    await self._tend(gateway.service_name)

    async def _tend(self, service_name: str) -> None:
        async with self._db.transaction() as tx:
            gateway = await store.gateway(tx, service_name)
            if gateway is None or gateway.state is not GatewayState.READY:
                return
            exceeded = await self._exceeded(tx, gateway)
            items = await store.instances(tx, service_name)
            self._tell(service_name, await trust.alarms(tx, gateway, self._now()))
        if exceeded:
            await self._stop_for_transfer(items, service_name)
            return
        seen = [await self._revive(gateway, item) for item in items]
        reason = "; ".join(f"Instance {i.instance}: {i.reason}" for i in seen if i.reason)
        if reason != gateway.reason:
            await self._set_state(service_name, GatewayState.READY, reason)

    def _tell(self, service_name: str, found: Sequence[pki.RevocationAlarm]) -> None:
        """Into the log once, and once more when it is over."""
        now = {(str(one.alarm), one.authority): f"{one.text} {one.cure}" for one in found}
        before = self._alarms.get(service_name, {})
        for key in now.keys() - before.keys():
            self._say(f"Service {service_name}: {key[0]}: {now[key]}", cmtrace.WARNING)
        for name, authority in before.keys() - now.keys():
            self._say(f"Service {service_name}: {name} of {authority} is over")
        self._alarms[service_name] = now

    async def _stop_for_transfer(self, items: Sequence[GatewayInstance], service_name: str) -> None:
        reason = (
            f"Stopped: the outbound transfer of {ALERT_DAYS} days reached the critical threshold."
        )
        if not await self._set_state(service_name, GatewayState.STOPPED, reason):
            return
        self._say(f"Service {service_name}: {reason}", cmtrace.WARNING)
        await self._end_all(items)
        self._changed()

    async def _end_all(self, items: Sequence[GatewayInstance]) -> None:
        for item in items:
            await _end(item)
            ended = replace(item, pid=None, started=None, state="stopped", reason="")
            async with self._db.transaction() as tx:
                await store.save_instance(tx, ended)

    async def _revive(self, gateway: Gateway, item: GatewayInstance) -> GatewayInstance:
        if item.pid is not None and self._silent[item.pid] >= _SILENT_LOOKS:
            await _end(item)
        if _process(item) is None:
            self._say(
                f"Instance {item.instance} of {gateway.service_name} is gone; starting it",
                cmtrace.WARNING,
            )
            self._silent.pop(item.pid or 0, None)
            try:
                async with self._db.transaction() as tx:
                    await self._prepare(tx, gateway)
                item = await self._run(gateway, replace(item, pid=None, started=None))
            except OSError as error:
                return replace(item, state="failed", reason=str(error)[:300])
        async with self._db.transaction() as tx:
            seen = await self._look(tx, gateway, item)
        if seen.pid is not None:
            self._silent[seen.pid] = 0 if seen.state == "running" else self._silent[seen.pid] + 1
        return seen


def _exists(name: str) -> GatewayExists:
    return GatewayExists(
        f"There is a gateway {name} already.",
        cure="Delete it first, or choose another service name.",
    )


def _being_deleted(name: str) -> BeingDeleted:
    return BeingDeleted(
        f"{name} is being deleted.",
        cure="Wait until it is gone, then create it again: `tandem gateway create`.",
    )


def _common_name(certificate: x509.Certificate) -> str:
    """As it is written: letter case counts when a certificate takes another's place."""
    for attribute in certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME):
        return str(attribute.value)
    return next(iter(certificate_names(certificate)), "")


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


def _process(item: GatewayInstance) -> psutil.Process | None:
    """The instance's process, if it is still the same one."""
    if item.pid is None or item.started is None:
        return None
    try:
        process = psutil.Process(item.pid)
        same = abs(process.create_time() - item.started) < 1.0
        alive = process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return None
    return process if same and alive else None


def _find(command: Sequence[str]) -> int | None:
    """A process that runs this command: a site that was killed before it could write down the
    number of what it had just started finds it so."""
    wanted = list(command[1:])
    for process in psutil.process_iter(["cmdline", "uids"]):
        arguments = process.info["cmdline"] or []
        if arguments[1:] == wanted and process.info["uids"].real == os.getuid():
            return int(process.pid)
    return None


def _start(command: Sequence[str], output: Path) -> int:
    """Start an instance in a session of its own: it outlives this process."""
    with output.open("wb") as file:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            start_new_session=True,
            close_fds=True,
        )
    _reap(process)
    return process.pid


def _reap(process: "subprocess.Popen[bytes]") -> None:
    """Collect the exit status of a child, so a dead instance does not stay as a zombie."""
    threading.Thread(target=process.wait, daemon=True).start()


async def _end(item: GatewayInstance, seconds: float = 8.0) -> None:
    process = _process(item)
    if process is None:
        return
    with contextlib.suppress(psutil.Error):
        process.send_signal(signal.SIGTERM)
    deadline = asyncio.get_running_loop().time() + seconds
    while _process(item) is not None and asyncio.get_running_loop().time() < deadline:
        await asyncio.sleep(0.05)
    with contextlib.suppress(psutil.Error):
        if _process(item) is not None:
            process.kill()
