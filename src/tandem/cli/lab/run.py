"""From the command to a lab that serves: begin, perform, report, serve, end."""

import asyncio
import contextlib
import shlex
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
from rich.markup import escape

from tandem.cli.lab import control, plan, topology
from tandem.cli.lab.commands import CommandFailed
from tandem.cli.lab.lab import Lab
from tandem.cli.lab.report import Devices, Report, Screen
from tandem.cli.lab.steps import STEPS
from tandem.infra import logs
from tandem.infra.errors import AppError
from tandem.infra.secrets import write_private

_WATCH_SECONDS = 3.0


@dataclass(frozen=True)
class Options:
    state: Path
    devices: int
    instances: int
    cadence: str
    until: str | None
    report: Path | None
    stay: bool


async def run(options: Options) -> int:
    """0 when every assertion held."""
    steps = plan.up_to(STEPS, options.until)
    screen = Screen(quiet=False)
    lab = Lab(options.state, options.devices, options.cadence, options.instances, screen)
    logs.configure("lab", lab.logs)
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    (lab.folder / "lab.json").unlink(missing_ok=True)
    ok = False
    try:
        _say_hello(lab)
        work = asyncio.create_task(_perform(lab, steps))
        stopped = asyncio.create_task(stop.wait())
        await asyncio.wait([work, stopped], return_when=asyncio.FIRST_COMPLETED)
        if not work.done():
            work.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await work
            return 130
        stopped.cancel()
        ok = work.result()
        report = await _report(lab, steps)
        if options.report is not None:
            write_report(options.report, report)
        _say_result(report, screen)
        if options.stay and not stop.is_set():
            await _serve(lab, stop, options)
    finally:
        screen.line("  Stopping every process …")
        await lab.end()
        (lab.folder / "lab.json").unlink(missing_ok=True)
    return 0 if ok else 1


def write_report(path: Path, report: Report) -> None:
    path.write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=2) + b"\n")


async def _perform(lab: Lab, steps: list[plan.Step[Lab]]) -> bool:
    begun = time.monotonic()
    await lab.begin()
    lab.screen.line(f"  All of them serve after {time.monotonic() - begun:.1f} s.")
    lab.screen.line()
    if {report.id for report in lab.progress.steps if report.ok} >= {step.id for step in steps}:
        lab.screen.line("  Every step was performed before; nothing is done again.")
        for item in lab.progress.refusals:
            lab.screen.line(f"    {item.device} is refused with {item.code}: {escape(item.text)}")
        return True
    return await plan.perform(lab, steps, lab.progress.steps, lab.screen, lab.keep)


async def _serve(lab: Lab, stop: asyncio.Event, options: Options) -> None:
    await lab.adopt_gateways()

    async def go_on(until: str | None, screen: Screen) -> bool:
        wanted = plan.up_to(STEPS, until)
        ok = await plan.perform(lab, wanted, lab.progress.steps, screen, lab.keep)
        report = await _report(lab, wanted)
        if options.report is not None:
            write_report(options.report, report)
        await lab.adopt_gateways()
        _say_result(report, screen)
        _say_what_to_try(lab, screen)
        write_private(lab.folder / "lab.json", await _contract(lab))
        return ok

    server = await control.listen(lab.folder, go_on)
    _say_where(lab)
    await _say_timeline(lab)
    _say_what_to_try(lab, lab.screen)
    write_private(lab.folder / "lab.json", await _contract(lab))
    watch = asyncio.create_task(_keep_contract(lab))
    await stop.wait()
    watch.cancel()
    server.close()
    (lab.folder / "lab.sock").unlink(missing_ok=True)


async def _keep_contract(lab: Lab) -> None:
    """An instance of the gateway that dies comes back as another process: lab.json says so."""
    file = lab.folder / "lab.json"
    while True:
        await asyncio.sleep(_WATCH_SECONDS)
        await lab.adopt_gateways()
        told = await _contract(lab)
        if file.exists() and file.read_bytes() != told:
            write_private(file, told)


# ---------------------------------------------------------------------- the report


async def _report(lab: Lab, steps: list[plan.Step[Lab]]) -> Report:
    wanted = [step.id for step in steps]
    done = {report.id: report for report in lab.progress.steps}
    found = [done[id] for id in wanted if id in done]
    return Report(
        ok=len(found) == len(wanted) and all(report.ok for report in found),
        seconds=round(time.monotonic() - lab.begun, 2),
        co_managed_after_seconds=lab.progress.co_managed_after_seconds,
        timers=msgspec.to_builtins(lab.timers),
        devices=await _devices(lab),
        steps=found,
    )


async def _devices(lab: Lab) -> Devices:
    counted = Devices(
        total=lab.progress.devices,
        real=1,
        simulated=lab.progress.devices - 1,
        expected_refusals=lab.progress.refusals,
    )
    if not lab.kept.get("devices_started"):
        return counted
    with contextlib.suppress(AppError):
        states = await lab.devices()
        managed = [states[p.device] for p in lab.managed if p.device in states]
        counted.mdm_enrolled = sum(state.mdm_enrolled for state in managed)
        counted.client_registered = sum(bool(state.client_id) for state in managed)
        counted.co_managed = sum(state.mdm_enrolled and state.policy for state in managed)
    return counted


async def _contract(lab: Lab) -> bytes:
    """lab.json: what other programs need to use this lab."""
    here = lab.topology
    graph = lab.kept.get("graph_client", {"client_id": "", "client_secret": ""})
    value = {
        "tenant_id": lab.tenant_id,
        "tenant_url": here.tenant_url,
        "graph_url": f"{here.tenant_url}/v1.0",
        "site_url": here.site_url,
        "site_code": topology.SITE_CODE,
        "console_url": f"{here.site_url}/console",
        "tenant_console_url": f"{here.tenant_url}/console",
        "ca_file": str(lab.ca_file),
        "admin": {"upn": here.admin.upn, "password": here.admin.password},
        "site_admin": {"name": here.site_admin.upn, "password": here.site_admin.password},
        "graph_client": graph,
        "mdm": {
            "discovery_url": f"{here.tenant_url}/EnrollmentServer/Discovery.svc",
            "management_url": here.management_url,
        },
        "users": [
            {
                "upn": person.upn,
                "password": person.password,
                "licensed": person.licensed,
                "in_scope": person.in_scope,
                "groups": person.groups,
                "device": person.device,
            }
            for person in here.people
        ],
        "gateways": await _gateways(lab),
        "resolver": here.resolver,
        "logs": str(lab.logs),
        "processes": lab.processes(),
    }
    return msgspec.json.format(msgspec.json.encode(value), indent=2) + b"\n"


async def _gateways(lab: Lab) -> list[dict[str, Any]]:
    try:
        found = await asyncio.to_thread(lab.site().get, "/api/v1/gateways")
    except AppError:
        return []
    return [
        {
            "service_name": gateway["service_name"],
            "url": f"https://{gateway['service_name']}:{lab.topology.ports.gateway}",
            "instances": [
                {
                    "instance": node["instance"],
                    "url": f"https://{node['host']}:{node['port']}",
                    "pid": node["pid"],
                }
                for node in gateway["nodes"]
            ],
        }
        for gateway in found
    ]


# ---------------------------------------------------------------------- the screen


def _say_hello(lab: Lab) -> None:
    show = lab.screen.line
    show()
    show("  [bold]Tandem lab[/]: Contoso's laptops become co-managed, on this machine.")
    show(
        f"  {lab.progress.devices} devices: one real agent, {lab.progress.devices - 1} simulated"
        " (they speak the real protocols, and say that they are simulated),"
    )
    show("  and three that must fail: without a licence, out of scope, in an excluded group.")
    show("  127.0.0.1 is on-premises; every other loopback address is the internet.")
    timers = lab.timers
    if timers.cadence == "lab":
        show(
            f"  Shortened timers: a minute of the MDM client lasts {timers.mdm_minute_seconds:g} s,"
            f" one of the site's client {timers.client_minute_seconds:g} s (--cadence real: 60 s)."
        )
    show(f"  Everything lies in [cyan]{escape(str(lab.folder))}[/].")
    show()


def _say_result(report: Report, screen: Screen) -> None:
    show = screen.line
    show()
    checks = [check for step in report.steps for check in step.checks]
    held = sum(check.ok for check in checks)
    mark = "[green]Every assertion held[/]" if report.ok else "[red]Not every assertion held[/]"
    show(
        f"  {mark}: {held} of {len(checks)} checks in {len(report.steps)} steps,"
        f" {report.devices.co_managed} of {report.devices.total} devices co-managed."
    )


async def _say_timeline(lab: Lab) -> None:
    """One device's way, as the MDM service saw it."""
    name = lab.managed[-1].device
    try:
        shown = await lab.commands.run("managed-device", "show", name)
    except (CommandFailed, AppError):
        return
    lab.screen.line()
    lab.screen.line(f"  [bold]The way of {name}[/] (tandem managed-device show {name})")
    for item in reversed(shown["timeline"][-8:]):
        at = str(item["dateTime"])[11:19]
        lab.screen.line(f"    {at}  {escape(item['text'])}")


def _say_where(lab: Lab) -> None:
    here, show = lab.topology, lab.screen.line
    show()
    show(f"  [bold]Console[/]      {here.site_url}/console")
    show(f"               name {here.site_admin.upn}, password {here.site_admin.password}")
    show(f"  [bold]Tenant[/]       {here.tenant_url}/console")
    show(f"               {here.admin.upn}, password {here.admin.password}")
    show("               (the browser asks: the lab's public CA is its own)")


def _say_what_to_try(lab: Lab, screen: Screen) -> None:
    show = screen.line
    profile = shlex.quote(str(lab.settings / "profile.toml"))
    tandem = f"TANDEM_PROFILE={profile} {shlex.quote(_program())}"
    show()
    show(f"  [bold]Logs[/]         {escape(str(lab.logs))}")
    performed = {report.id for report in lab.progress.steps if report.ok}
    left = [step.id for step in STEPS if step.id not in performed]
    if left:
        state = shlex.quote(str(lab.folder))
        show(f"  [bold]Go on[/]        with step {left[0]}: by hand, or")
        show(f"               {escape(_program())} lab continue --state {escape(state)}")
    show("  [bold]Try[/]")
    gateways = [item for item in lab.supervisor.processes if item.role.startswith("gateway")]
    if gateways:
        show(f"    kill -9 {gateways[0].pid}")
        show(
            "      an instance of the gateway dies. Console, Cloud management gateway: its hops go"
            " red with their cause, and come back"
        )
    if "5.1" in performed:
        pilot = f"{tandem} comanagement switch windows-update pilot --collection 'Pilot devices'"
        show(f"    {escape(pilot)}")
        show(
            "      another workload moves to the MDM service for the pilot. Console, Co-management"
            " settings: watch its devices follow, or move it there"
        )
    else:
        show(f"    {escape(tandem)} user list")
    show("  Ctrl-C where the lab serves stops every process.")


def _program() -> str:
    """How this very command is called from here."""
    beside = Path(sys.executable).with_name("tandem")
    try:
        return str(beside.relative_to(Path.cwd()))
    except ValueError:
        return str(beside)
