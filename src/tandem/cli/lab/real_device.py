"""The one real agent beside the simulated devices: where it is, and what a switch does to it.

What it did is read from the files below its root and from the kernel's rules in its network, never
from what it or anybody else reports.
"""

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tandem.cli.lab.report import Observer
from tandem.cli.lab.topology import INTERNET, ON_PREMISES, gateway_hosts
from tandem.workloads import Authority

if TYPE_CHECKING:
    from tandem.cli.lab.lab import Lab

COLLECTION, GROUP = "The real device", "The real device's user"
UNIT = "lab-greeting.service"
_WANTS = f"etc/systemd/system/multi-user.target.wants/{UNIT}"
_MOTD = "etc/motd"
_SAYS = {Authority.SITE: "Managed by the site.\n", Authority.MDM: "Managed by the MDM service.\n"}
_DROPS = {Authority.SITE: 23, Authority.MDM: 2323}
_ENABLED = {Authority.SITE: True, Authority.MDM: False}
# Connects to each address of its argument and prints how that went.
_PROBE = """
import json, socket, sys
said = []
for host, port in json.loads(sys.argv[1]):
    try:
        socket.create_connection((host, port), 3).close()
        said.append("")
    except OSError as error:
        said.append(error.strerror or str(error))
print(json.dumps(said))
"""


def small_system(root: Path) -> Path:
    """The root folder of the real device: enough of a system to be configured."""
    units = root / "usr/lib/systemd/system"
    units.mkdir(parents=True, exist_ok=True)
    (units / UNIT).write_text(
        "[Unit]\nDescription=Says hello\n[Install]\nWantedBy=multi-user.target\n"
    )
    (root / "etc").mkdir(exist_ok=True)
    (root / "etc/os-release").write_text('ID=debian\nVERSION_ID="12"\nPRETTY_NAME="Debian 12"\n')
    return root


def _root(lab: "Lab") -> Path:
    return lab.folder / "devices" / f"{lab.real.device}-root"


def _pid(lab: "Lab") -> int:
    return next(item.pid for item in lab.supervisor.processes if item.role == "agent")


async def _inside(lab: "Lab", *command: str) -> str:
    """What a command says that runs in the network of the real agent."""
    enter = ["nsenter", f"--net=/proc/{_pid(lab)}/ns/net"]
    done = await asyncio.to_thread(
        subprocess.run, [*enter, *command], capture_output=True, text=True, timeout=60, check=False
    )
    return str(done.stdout) if done.returncode == 0 else f"it failed: {done.stderr.strip()}"


async def is_apart(lab: "Lab", see: Observer) -> None:
    """Its own network, with the gateway and the tenant in it, and nothing of the site."""
    if not lab.own_network:
        see.say("The real device shares this machine's network: not looked at.")
        return
    own, ours = (os.readlink(f"/proc/{pid}/ns/net") for pid in (_pid(lab), os.getpid()))
    see.check("the real agent has a network of its own", own != ours, f"{own}, the lab {ours}")
    ports = lab.topology.ports
    there = [(INTERNET, ports.tenant), (INTERNET, ports.management)]
    there += [(host, ports.gateway) for host in gateway_hosts(lab.topology.instances)]
    not_there = [
        (ON_PREMISES, port)
        for port in (ports.site, ports.management_point, ports.site_health, ports.ca)
    ]
    not_there += [(host, ports.tunnel) for host in gateway_hosts(lab.topology.instances)]
    probe = json.dumps([*there, *not_there])
    said = json.loads(await _inside(lab, sys.executable, "-c", _PROBE, probe))
    reached, refused = said[: len(there)], said[len(there) :]
    see.check(
        "from there the tenant and the gateway answer, and nothing of the site",
        not any(reached) and all(refused),
        f"{reached.count('')} of {len(there)} answer; the site: {', '.join(sorted(set(refused)))}",
    )


async def is_configured(lab: "Lab") -> None:
    """Both authorities say what they want of the real device: a file, a unit, and a firewall rule."""
    run, device = lab.commands.run, lab.real.device
    if COLLECTION not in {one["name"] for one in await run("collection", "list")}:
        await run("collection", "create", COLLECTION)
        await run("collection", "add-member", COLLECTION, device)
    had = {one["name"] for one in await run("configuration", "list")}
    wanted = _settings(lab, Authority.SITE)
    for setting, value in wanted.items():
        name = f"{setting.partition('/')[2]} (site)"
        if name not in had:
            await run(
                "configuration", "create", name, "--setting", setting, "--value", value,
                "--collection", COLLECTION,
            )  # fmt: skip
    if GROUP not in {group["displayName"] for group in await run("group", "list")}:
        await run("group", "create", GROUP)
        await run("group", "add-member", GROUP, lab.real.upn)
    name = "Linux (MDM)"
    if name not in {one["displayName"] for one in await run("device-configuration", "list")}:
        sets = [w for s, v in _settings(lab, Authority.MDM).items() for w in ("--set", f"{s}={v}")]
        await run("device-configuration", "create", name, *sets)
        await run("device-configuration", "assign", name, "--include", GROUP)


def _settings(lab: "Lab", owner: Authority) -> dict[str, str]:
    found: dict[str, Any] = {
        "TandemFiles/Motd": {"path": f"/{_MOTD}", "content": _SAYS[owner]},
        "TandemUnits/Greeting": {"unit": UNIT, "enabled": _ENABLED[owner]},
    }
    if lab.own_network:
        rule = {"action": "drop", "protocol": "tcp", "port": _DROPS[owner]}
        found["TandemFirewall/Telnet"] = rule
    return {setting: json.dumps(value) for setting, value in found.items()}


async def effects(lab: "Lab", owner: Authority) -> tuple[bool, str]:
    """Whether file, unit and firewall rule are as this owner wants them, and how they are."""
    root = _root(lab)
    motd = root / _MOTD
    said = motd.read_text() if motd.exists() else ""
    enabled = (root / _WANTS).is_symlink()
    good = said == _SAYS[owner] and enabled is _ENABLED[owner]
    told = f"/{_MOTD}: {said.strip() or 'nothing'}; {UNIT}: {'en' if enabled else 'dis'}abled"
    if not lab.own_network:
        return good, told
    listed = await _inside(lab, "nft", "list", "ruleset")
    rules = [
        line.partition(" comment")[0].strip() for line in listed.splitlines() if "dport" in line
    ]
    return good and rules == [f"tcp dport {_DROPS[owner]} drop"], f"{told}; {', '.join(rules)}"
