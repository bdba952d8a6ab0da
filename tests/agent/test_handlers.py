"""Effects on Linux, by either authority, inside a root folder: read from the folder, not a database.

The site's settings come as signed policy over TLS; those of the MDM service through the branch of
its client that every SyncML command ends in, with a gate of its own on the device's folder.
"""

import hashlib
import json
import os
import shutil
import stat
import subprocess
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
from starlette.responses import Response

from one_site import Moment, Site, enrolled, log
from tandem.agent import Client, Machine, open_gate
from tandem.agent.folder import Folder
from tandem.agent.gate import Gate
from tandem.agent.handlers import Handlers, facts
from tandem.agent.handlers import apps as app_handler
from tandem.agent.handlers.root import Root
from tandem.agent.journal import Journal
from tandem.agent.mdm.branches import Policy
from tandem.agent.mdm.messages import Item
from tandem.agent.mdm.tree import FORBIDDEN, OK, Store
from tandem.protocols import ccm
from tandem.site import clients
from tandem.workloads import Authority, Workload, capabilities

CONFIGURATION, APPS = Workload.DEVICE_CONFIGURATION, Workload.CLIENT_APPS
COMPLIANCE = Workload.COMPLIANCE_POLICIES
WANTS = "/etc/systemd/system/multi-user.target.wants/tidy.service"
UNIT = "[Unit]\nDescription=A test\n[Install]\nWantedBy=multi-user.target\n"


def _copy_program(root: Path, program: str) -> None:
    """A program with the libraries it is linked with."""
    listed = subprocess.run(["ldd", program], capture_output=True, text=True, check=True).stdout
    libraries = [word for word in listed.split() if word.startswith("/")]
    for source in [program, *libraries]:
        target = root / source.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        if not target.exists():
            shutil.copy(os.path.realpath(source), target)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A small system: a shell, a package database, users, a unit that nobody enabled."""
    made = tmp_path / "root"
    for folder in ("etc/systemd/system", "usr/lib/systemd/system", "opt", "var/lib/dpkg/updates"):
        (made / folder).mkdir(parents=True)
    for folder in ("info", "triggers"):
        (made / "var/lib/dpkg" / folder).mkdir()
    for name in ("status", "available"):
        (made / "var/lib/dpkg" / name).touch()
    (made / "etc/os-release").write_text('ID=debian\nVERSION_ID="13"\nPRETTY_NAME="Debian 13"\n')
    (made / "etc/passwd").write_text(f"keeper:x:{os.getuid()}:{os.getgid()}::/:/bin/sh\n")
    (made / "etc/group").write_text(f"keeper:x:{os.getgid()}:\n")
    (made / "usr/lib/systemd/system/tidy.service").write_text(UNIT)
    (made / "lib").symlink_to("usr/lib")
    _copy_program(made, "/bin/dash")
    (made / "bin/sh").symlink_to("dash")
    for program in ("/bin/touch", "/bin/rm"):
        _copy_program(made, program)
    return made


@pytest.fixture
def machine(machine: Machine, root: Path) -> Machine:
    enrolled(machine)
    return replace(machine, root=root)


class Device:
    """One device, its site, and its MDM client."""

    def __init__(self, site: Site, machine: Machine, client: Client, root: Path) -> None:
        self.site, self.machine, self.client, self.root = site, machine, client, root
        self.settings: dict[str, ccm.Configuration] = {}
        self.moved: tuple[Workload, ...] = ()
        self.stored = Store({})

    def site_sets(self, setting: str, value: object, workload: Workload = CONFIGURATION) -> None:
        text = value if isinstance(value, str) else json.dumps(value)
        self.settings[setting] = ccm.Configuration(setting, workload.value, setting, text)

    def site_withdraws(self, setting: str) -> None:
        del self.settings[setting]

    @property
    def mdm(self) -> Policy:
        gate = open_gate(self.machine.state, self.machine.now)
        return Policy(self.stored, lambda: gate)

    def mdm_sets(self, setting: str, value: object) -> int:
        path = ("Config", *setting.split("/"))
        return self.mdm.write(path, Item(data=json.dumps(value), format="chr"), add=False)

    def mdm_deletes(self, setting: str) -> int:
        return self.mdm.delete(("Config", *setting.split("/")))

    def mdm_has(self, *workloads: Workload) -> None:
        self.moved = workloads

    async def poll(self) -> ccm.ComanagementState:
        """One step of the client after new policy; what it reports to the site."""
        policy = ccm.ConfigurationPolicy(
            "p", "Prod", 1, "production", True, False, capabilities(self.moved)
        )
        self.site.content = ccm.PolicyContent(
            configuration_policies=[policy], configurations=list(self.settings.values())
        )
        self.client.wake()
        await self.client.step()
        async with self.site.db.transaction() as tx:
            (summary,) = await clients.list_clients(tx)
            state = (await clients.find(tx, summary.id)).state
        assert state is not None
        return state

    async def again(self) -> None:
        """The agent is started anew."""
        self.client = Client(self.machine)

    def text(self, path: str) -> str:
        return (self.root / path.lstrip("/")).read_text()

    def has(self, path: str) -> bool:
        return os.path.lexists(self.root / path.lstrip("/"))


@pytest.fixture
def device(site: Site, client: Client, machine: Machine, root: Path) -> Device:
    return Device(site, machine, client, root)


def banner(text: str, **more: object) -> dict[str, object]:
    return {"path": "/etc/motd", "content": text, **more}


# Files.


async def test_a_file_is_written_with_mode_and_owner_and_put_back_when_withdrawn(
    device: Device, root: Path
) -> None:
    (root / "etc/motd").write_text("of the maker")
    (root / "etc/motd").chmod(0o600)
    device.site_sets("TandemFiles/Motd", banner("of the site", mode="0640", owner="keeper"))
    state = await device.poll()
    assert device.text("/etc/motd") == "of the site"
    assert stat.S_IMODE((root / "etc/motd").stat().st_mode) == 0o640
    told = state.enacted["TandemFiles/Motd"]
    assert (told.source, told.code, told.failed) == ("site", "written", False)
    device.site_withdraws("TandemFiles/Motd")
    state = await device.poll()
    assert device.text("/etc/motd") == "of the maker"
    assert stat.S_IMODE((root / "etc/motd").stat().st_mode) == 0o600
    assert state.enacted == {}
    assert "'TandemFiles/Motd' of site was withdrawn: what was there before is back." in log(
        device.machine, "DCMAgent"
    )


async def test_after_a_switch_the_file_is_the_new_owners(device: Device) -> None:
    device.site_sets("TandemFiles/Motd", banner("of the site"))
    assert device.mdm_sets("TandemFiles/Motd", banner("of the service")) == FORBIDDEN
    await device.poll()
    assert device.text("/etc/motd") == "of the site"

    device.mdm_has(CONFIGURATION)
    state = await device.poll()
    # Make before break: what the site wrote stays until the service writes.
    assert device.text("/etc/motd") == "of the site"
    assert state.enacted["TandemFiles/Motd"].code == "kept"
    assert device.mdm_sets("TandemFiles/Motd", banner("of the service")) == OK
    device.site_sets("TandemFiles/Motd", banner("of the site again"))
    state = await device.poll()
    assert device.text("/etc/motd") == "of the service"
    assert state.enacted["TandemFiles/Motd"].source == "mdm"

    device.mdm_has()
    state = await device.poll()
    assert device.text("/etc/motd") == "of the site again"
    assert state.enacted["TandemFiles/Motd"].source == "site"
    assert device.mdm_sets("TandemFiles/Motd", banner("too late")) == FORBIDDEN
    await device.poll()
    assert device.text("/etc/motd") == "of the site again"


async def test_a_new_owner_takes_a_file_over_under_another_name_and_gives_back_the_first(
    device: Device, root: Path
) -> None:
    (root / "etc/motd").write_text("of the maker")
    device.site_sets("TandemFiles/Banner", banner("of the site"))
    await device.poll()
    device.mdm_has(CONFIGURATION)
    await device.poll()
    assert device.mdm_sets("TandemFiles/Motd", banner("of the service")) == OK
    state = await device.poll()
    assert device.text("/etc/motd") == "of the service"
    assert state.enacted["TandemFiles/Motd"].source == "mdm"
    assert device.mdm_deletes("TandemFiles/Motd") == OK
    await device.poll()
    assert device.text("/etc/motd") == "of the maker"


async def test_two_settings_of_one_owner_for_one_file_are_refused(device: Device) -> None:
    device.site_sets("TandemFiles/A", banner("first"))
    device.site_sets("TandemFiles/B", banner("second"))
    state = await device.poll()
    assert device.text("/etc/motd") == "first"
    assert state.enacted["TandemFiles/B"].code == "file.claimed"
    device.site_withdraws("TandemFiles/A")
    await device.poll()
    assert device.text("/etc/motd") == "second"
    device.site_withdraws("TandemFiles/B")
    await device.poll()
    assert not device.has("/etc/motd")


async def test_what_is_in_place_is_not_written_again_and_a_drift_is_corrected(
    device: Device, root: Path
) -> None:
    device.site_sets("TandemFiles/Motd", banner("of the site"))
    await device.poll()
    before = (root / "etc/motd").stat()
    for _ in range(3):
        await device.poll()
    assert (root / "etc/motd").stat().st_ino == before.st_ino
    (root / "etc/motd").write_text("of somebody")
    state = await device.poll()
    assert device.text("/etc/motd") == "of the site"
    assert state.enacted["TandemFiles/Motd"].code == "corrected"


async def test_a_file_that_somebody_changed_since_stays_when_the_setting_goes(
    device: Device, root: Path
) -> None:
    device.site_sets("TandemFiles/Motd", banner("of the site"))
    await device.poll()
    (root / "etc/motd").write_text("of somebody")
    device.site_withdraws("TandemFiles/Motd")
    await device.poll()
    assert device.text("/etc/motd") == "of somebody"
    assert "it stays" in log(device.machine, "DCMAgent")[-1]


async def test_folders_that_were_made_for_a_file_go_with_it(device: Device) -> None:
    device.site_sets("TandemFiles/Deep", {"path": "/etc/a/b/c.conf", "content": "x"})
    await device.poll()
    assert device.text("/etc/a/b/c.conf") == "x"
    device.site_withdraws("TandemFiles/Deep")
    await device.poll()
    assert not device.has("/etc/a")


async def test_a_setting_that_names_another_file_gives_the_first_one_back(device: Device) -> None:
    device.site_sets("TandemFiles/Motd", banner("x"))
    await device.poll()
    device.site_sets("TandemFiles/Motd", {"path": "/etc/issue", "content": "y"})
    await device.poll()
    assert not device.has("/etc/motd")
    assert device.text("/etc/issue") == "y"


@pytest.mark.parametrize(
    ("value", "code"),
    [
        ("no JSON", "setting.not-understood"),
        ({"path": "/etc/../../outside", "content": ""}, "setting.not-understood"),
        ({"path": "etc/motd", "content": ""}, "setting.not-understood"),
        ({"path": "/proc/sysrq-trigger", "content": "b"}, "setting.not-understood"),
        ({"path": "/etc/motd", "content": "", "mood": "good"}, "setting.not-understood"),
        ({"path": "/etc/motd", "content": "", "mode": "0999"}, "setting.not-understood"),
        ({"path": "/etc/motd", "content": "", "owner": "nobody-here"}, "file.no-such-owner"),
        ({"path": "/bin/sh", "content": ""}, "path.not-a-file"),
        ({"path": "/etc/passwd/x", "content": ""}, "path.not-a-folder"),
        ("[" * 4000, "setting.not-understood"),
    ],
)
async def test_a_file_that_cannot_be_is_refused_in_words(
    device: Device, value: object, code: str
) -> None:
    before = sorted(str(path) for path in device.root.rglob("*"))
    device.site_sets("TandemFiles/Bad", value)
    state = await device.poll()
    told = state.enacted["TandemFiles/Bad"]
    assert (told.code, told.failed) == (code, True)
    assert len(told.text) > 20
    assert sorted(str(path) for path in device.root.rglob("*")) == before


async def test_links_lead_nowhere_outside_of_the_root(device: Device, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (device.root / "etc/away").symlink_to(outside)
    (device.root / "etc/up").symlink_to("../../../../../../outside")
    device.site_sets("TandemFiles/A", {"path": "/etc/away/x", "content": "1"})
    device.site_sets("TandemFiles/B", {"path": "/etc/up/x", "content": "2"})
    await device.poll()
    assert list(outside.iterdir()) == []
    # An absolute link is one inside the root, as it is for whoever runs there.
    assert (device.root / str(outside).lstrip("/") / "x").read_text() == "1"
    assert device.text("/outside/x") == "2"


async def test_a_link_that_goes_round_is_refused(device: Device) -> None:
    (device.root / "etc/round").symlink_to("round")
    device.site_sets("TandemFiles/A", {"path": "/etc/round/x", "content": "1"})
    state = await device.poll()
    assert state.enacted["TandemFiles/A"].code == "path.not-a-folder"


async def test_no_policy_reaches_into_the_agents_own_folder(
    device: Device, machine: Machine, tmp_path: Path
) -> None:
    device.machine = replace(machine, root=tmp_path)
    await device.again()
    key = (machine.state / "CCM" / "key.pem").read_bytes()
    device.site_sets("TandemFiles/Key", {"path": "/device/CCM/key.pem", "content": "mine"})
    state = await device.poll()
    assert state.enacted["TandemFiles/Key"].code == "path.of-the-agent"
    assert (machine.state / "CCM" / "key.pem").read_bytes() == key


async def test_a_device_without_a_root_keeps_values_and_touches_nothing(
    device: Device, machine: Machine
) -> None:
    device.machine = replace(machine, root=None)
    await device.again()
    device.site_sets("TandemFiles/Motd", banner("of the site"))
    state = await device.poll()
    assert state.applied["TandemFiles/Motd"]["source"] == "site"
    assert (state.enacted, state.facts) == ({}, {})
    assert not device.has("/etc/motd")


class Killed(BaseException):
    """The process ends here, whatever it was doing."""


async def test_killed_at_any_write_it_goes_on_and_still_knows_what_was_before(
    root: Path, tmp_path: Path, web: httpx.AsyncClient, moment: Moment
) -> None:
    """Every name that comes or goes on the disk is a moment to be killed at, each tried in turn."""
    calls = ("replace", "symlink", "mkdir", "unlink", "rmdir", "fsync")
    for step in range(200):
        here = tmp_path / f"try{step}"
        shutil.copytree(root, here / "root", symlinks=True)
        (here / "root/etc/motd").write_text("of the maker")
        folder = Folder(here / "CCM", durable=False)
        journal = Journal(here / "Logs", moment)

        def handlers(here: Path = here, folder: Folder = folder, journal: Journal = journal):  # type: ignore[no-untyped-def]
            gate = Gate(folder, journal, moment)
            return gate, Handlers(
                here / "root", folder, gate, journal, web, moment,
                forbidden=folder.path, minute_seconds=1,
            )  # fmt: skip

        async def killed_at(step: int, work) -> bool:  # type: ignore[no-untyped-def]
            left = [step]
            with pytest.MonkeyPatch.context() as patch:
                for name in calls:

                    def call(*args, real=getattr(os, name), **named):  # type: ignore[no-untyped-def]
                        left[0] -= 1
                        if left[0] < 0:
                            raise Killed
                        return real(*args, **named)

                    patch.setattr(os, name, call)
                try:
                    await work()
                except Killed:
                    return True
            return False

        gate, made = handlers()
        gate.set(8193, registered=True)
        wanted = {
            "TandemFiles/Motd": json.dumps(banner("of the site")),
            "TandemFiles/Deep": json.dumps({"path": "/etc/a/b", "content": "x"}),
            "TandemUnits/Tidy": json.dumps({"unit": "tidy.service", "enabled": True}),
        }
        for setting, value in wanted.items():
            gate.offer(Authority.SITE, CONFIGURATION, setting, value)
        dead = await killed_at(step, made.act)
        gate, made = handlers()
        await made.act()
        assert (here / "root/etc/motd").read_text() == "of the site"
        assert (here / "root/etc/a/b").read_text() == "x"
        assert (here / "root" / WANTS[1:]).is_symlink()
        gate.keep_only(Authority.SITE, ())
        dead = await killed_at(step, made.act) or dead
        gate, made = handlers()
        await made.act()
        assert (here / "root/etc/motd").read_text() == "of the maker"
        assert not (here / "root/etc/a").exists()
        assert not (here / "root" / WANTS[1:]).parent.exists()
        assert made.effects == []
        shutil.rmtree(here)
        if not dead:
            break
    assert 20 < step < 199


async def test_a_full_disk_is_reported_and_nothing_is_half_written(
    device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    (device.root / "etc/motd").write_text("of the maker")
    real = os.replace

    def full(source: object, target: object, **named: object) -> None:
        if str(target) == "motd":
            raise OSError(28, "No space left on device")
        real(source, target, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "replace", full)
    device.site_sets("TandemFiles/Motd", banner("of the site"))
    state = await device.poll()
    assert state.enacted["TandemFiles/Motd"].text == "No space left on device."
    assert device.text("/etc/motd") == "of the maker"
    assert [path.name for path in (device.root / "etc").iterdir() if "tandem" in path.name] == []
    monkeypatch.undo()
    await device.poll()
    assert device.text("/etc/motd") == "of the site"


# Units.


def is_enabled(root: Path, unit: str) -> str:
    """What systemd itself says of a unit in this root."""
    done = subprocess.run(
        ["systemctl", f"--root={root}", "is-enabled", unit], capture_output=True, text=True
    )
    return done.stdout.strip()


async def test_a_unit_is_enabled_and_disabled_by_its_links(device: Device) -> None:
    device.site_sets("TandemUnits/Tidy", {"unit": "tidy.service", "enabled": True})
    state = await device.poll()
    assert os.readlink(device.root / WANTS[1:]) == "/usr/lib/systemd/system/tidy.service"
    assert state.enacted["TandemUnits/Tidy"].text == "tidy.service was enabled."
    device.site_sets("TandemUnits/Tidy", {"unit": "tidy.service", "enabled": False})
    await device.poll()
    assert not device.has(WANTS)


@pytest.mark.skipif(shutil.which("systemctl") is None, reason="systemctl says what systemd thinks")
async def test_systemd_itself_agrees_on_what_is_enabled(device: Device) -> None:
    folder = device.root / "usr/lib/systemd/system"
    (folder / "both@.service").write_text(
        "[Install]\nWantedBy=multi-user.target \\\n graphical.target\n# RequiredBy=no.target\n"
    )
    (folder / "known.service").write_text("[Install]\nAlias=other.service\nWantedBy=a.target\n")
    units = ("tidy.service", "both@one.service", "known.service")
    for number, unit in enumerate(units):
        assert is_enabled(device.root, unit) == "disabled"
        device.site_sets(f"TandemUnits/U{number}", {"unit": unit, "enabled": True})
    await device.poll()
    assert [is_enabled(device.root, unit) for unit in units] == ["enabled"] * 3
    subprocess.run(
        ["systemctl", f"--root={device.root}", "disable", *units], check=True, capture_output=True
    )
    assert not device.has(WANTS)
    state = await device.poll()
    assert {one.code for one in state.enacted.values()} == {"corrected"}
    for number, unit in enumerate(units):
        device.site_sets(f"TandemUnits/U{number}", {"unit": unit, "enabled": False})
    await device.poll()
    assert [is_enabled(device.root, unit) for unit in units] == ["disabled"] * 3


async def test_a_unit_that_was_enabled_is_so_again_when_its_setting_goes(device: Device) -> None:
    link = device.root / WANTS[1:]
    link.parent.mkdir()
    link.symlink_to("/usr/lib/systemd/system/tidy.service")
    device.site_sets("TandemUnits/Tidy", {"unit": "tidy.service", "enabled": False})
    await device.poll()
    assert not device.has(WANTS)
    device.site_sets("TandemUnits/Tidy", {"unit": "tidy.service", "enabled": True})
    await device.poll()
    assert device.has(WANTS)
    device.site_withdraws("TandemUnits/Tidy")
    await device.poll()
    assert device.has(WANTS)


async def test_a_unit_changes_hands_with_its_workload(device: Device) -> None:
    device.site_sets("TandemUnits/Tidy", {"unit": "tidy.service", "enabled": True})
    await device.poll()
    device.mdm_has(CONFIGURATION)
    await device.poll()
    assert device.has(WANTS)
    assert device.mdm_sets("TandemUnits/Tidy", {"unit": "tidy.service", "enabled": False}) == OK
    state = await device.poll()
    assert not device.has(WANTS)
    assert state.enacted["TandemUnits/Tidy"].source == "mdm"


@pytest.mark.parametrize(
    ("text", "code"),
    [
        (None, "unit.not-found"),
        ("[Unit]\nDescription=static\n", "unit.not-installable"),
        ("[Install]\nWantedBy=../../../x.target\n", "unit.not-understood"),
        ("[Install]\nWantedBy=%i.target\n", "unit.not-understood"),
        ("/dev/null", "unit.masked"),
    ],
)
async def test_a_unit_that_cannot_be_enabled_says_why(
    device: Device, text: str | None, code: str
) -> None:
    path = device.root / "etc/systemd/system/odd.service"
    if text == "/dev/null":
        path.symlink_to("/dev/null")
    elif text is not None:
        path.write_text(text)
    device.site_sets("TandemUnits/Odd", {"unit": "odd.service", "enabled": True})
    state = await device.poll()
    assert state.enacted["TandemUnits/Odd"].code == code
    assert not list((device.root / "etc/systemd/system").glob("*.wants"))


# Apps.

TOOL = {
    "install": "touch /opt/tool",
    "remove": "rm -f /opt/tool /opt/half",
    "detect": {"file": "/opt/tool"},
}


# Leaves a file of its own at each run; the process's number is the same in each namespace.
COUNT = "n=0; while [ -e /opt/t$n ]; do n=$((n + 1)); done; touch /opt/t$n"


async def test_an_app_is_installed_once_and_removed_when_it_is_withdrawn(device: Device) -> None:
    device.site_sets("TandemApps/Tool", {**TOOL, "install": f"touch /opt/tool; {COUNT}"}, APPS)
    state = await device.poll()
    assert state.enacted["TandemApps/Tool"].code == "written"
    runs = sorted(path.name for path in (device.root / "opt").iterdir())
    for _ in range(3):
        await device.poll()
    assert sorted(path.name for path in (device.root / "opt").iterdir()) == runs
    device.site_withdraws("TandemApps/Tool")
    await device.poll()
    assert not device.has("/opt/tool")
    assert not (Path("/opt/tool")).exists()


async def test_an_app_that_was_there_already_is_not_installed_and_not_removed(
    device: Device,
) -> None:
    (device.root / "opt/tool").write_text("of the maker")
    device.site_sets("TandemApps/Tool", {**TOOL, "install": "rm /opt/tool; exit 1"}, APPS)
    state = await device.poll()
    assert state.enacted["TandemApps/Tool"].text == "It was there already."
    device.site_withdraws("TandemApps/Tool")
    await device.poll()
    assert device.text("/opt/tool") == "of the maker"


@pytest.mark.parametrize(
    ("install", "code"),
    [
        ("touch /opt/half; exit 3", "app.install-failed"),
        ("touch /opt/half; no-such-program; touch /opt/tool", "app.install-failed"),
        ("touch /opt/half", "app.not-detected"),
        ("touch /opt/half; while :; do :; done", "app.timeout"),
        ("touch /opt/half; if", "app.not-detected"),
    ],
)
async def test_a_failed_script_leaves_nothing_half_way(
    device: Device, install: str, code: str
) -> None:
    if install.endswith("if"):
        code = "app.install-failed"  # Read whole first, so not even its beginning runs.
    device.site_sets("TandemApps/Tool", {**TOOL, "install": install, "seconds": 1}, APPS)
    state = await device.poll()
    told = state.enacted["TandemApps/Tool"]
    assert (told.code, told.failed) == (code, True)
    assert "What it did was undone." in told.text
    assert list((device.root / "opt").iterdir()) == []


async def test_a_failed_app_is_tried_again_later_and_at_once_when_it_is_another(
    device: Device, moment: Moment
) -> None:
    count = "[ -e /opt/1 ] && touch /opt/2; touch /opt/1; exit 1"
    device.site_sets("TandemApps/Tool", {"install": count, "detect": {"file": "/opt/tool"}}, APPS)
    state = await device.poll()
    assert "it has no remove script" in state.enacted["TandemApps/Tool"].text
    await device.poll()
    assert not device.has("/opt/2")
    moment.passes(seconds=61 * 0.02)
    await device.poll()
    assert device.has("/opt/2")
    device.site_sets("TandemApps/Tool", TOOL, APPS)
    await device.poll()
    assert device.has("/opt/tool")


async def test_apps_follow_the_owner_of_their_workload(device: Device) -> None:
    """The device configuration may be with the other one: each workload has its own owner."""
    device.mdm_has(APPS)
    device.site_sets("TandemApps/Tool", TOOL, APPS)
    device.site_sets("TandemFiles/Motd", banner("of the site"))
    await device.poll()
    assert not device.has("/opt/tool")
    assert device.text("/etc/motd") == "of the site"
    theirs = {"install": "touch /opt/theirs", "detect": {"file": "/opt/theirs"}}
    assert device.mdm_sets("TandemApps/Theirs", theirs) == OK
    assert device.mdm_sets("TandemFiles/Motd", banner("of the service")) == FORBIDDEN
    state = await device.poll()
    assert device.has("/opt/theirs")
    assert state.enacted["TandemApps/Theirs"].source == "mdm"
    device.mdm_has()
    state = await device.poll()
    assert device.has("/opt/tool")
    assert state.enacted["TandemApps/Tool"].source == "site"


async def test_an_app_cannot_come_in_as_part_of_another_workload(device: Device) -> None:
    device.mdm_has(APPS)
    device.site_sets("TandemApps/Tool", TOOL, CONFIGURATION)
    await device.poll()
    assert not device.has("/opt/tool")
    device.mdm_has()
    state = await device.poll()
    assert state.enacted["TandemApps/Tool"].code == "setting.other-workload"
    assert not device.has("/opt/tool")


async def test_an_agent_that_was_killed_while_it_installed_undoes_the_half_and_goes_on(
    device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    value = {**TOOL, "install": "touch /opt/half; touch /opt/tool; rm /opt/half"}
    device.site_sets("TandemApps/Tool", value, APPS)
    real = app_handler.Apps.install

    async def killed(self, app, record):  # type: ignore[no-untyped-def]
        (device.root / "opt/half").touch()
        raise Killed

    monkeypatch.setattr(app_handler.Apps, "install", killed)
    with pytest.raises(Killed):
        await device.poll()
    monkeypatch.setattr(app_handler.Apps, "install", real)
    await device.again()
    state = await device.poll()
    assert state.enacted["TandemApps/Tool"].code == "written"
    assert [path.name for path in (device.root / "opt").iterdir()] == ["tool"]


async def test_a_run_that_goes_on_without_its_agent_is_waited_for(device: Device) -> None:
    (device.root / "opt/tool").touch()
    device.site_sets("TandemApps/Tool", TOOL, APPS)
    await device.poll()
    (device.root / "opt/tool").unlink()
    folder = device.machine.state / "CCM" / "handlers"
    (record,) = [path for path in folder.glob("*.json") if b"TandemApps" in path.read_bytes()]
    begun = {**json.loads(record.read_bytes()), "run": "r1", "done": False}
    record.write_text(json.dumps(begun))
    lock = folder / "runs" / "r1.run"
    with subprocess.Popen(["flock", str(lock), "cat"], stdin=subprocess.PIPE) as other:
        while subprocess.run(["flock", "--nonblock", str(lock), "true"]).returncode == 0:
            pass
        await device.again()
        state = await device.poll()
        assert state.enacted["TandemApps/Tool"].code == "app.running"
        assert not device.has("/opt/tool")
        other.stdin.close()  # type: ignore[union-attr]
        other.wait()
    await device.poll()
    assert device.has("/opt/tool")


def package(folder: Path, version: str, script: str = "") -> bytes:
    """A real Debian package with one file."""
    made = folder / f"deb-{version}"
    (made / "DEBIAN").mkdir(parents=True)
    (made / "opt").mkdir()
    (made / "opt/lab").write_text(f"lab {version}\n")
    (made / "DEBIAN/control").write_text(
        f"Package: tandem-lab\nVersion: {version}\nArchitecture: all\n"
        "Maintainer: Nobody <nobody@example.org>\nDescription: for a test\n"
    )
    if script:
        (made / "DEBIAN/postinst").write_text(f"#!/bin/sh\n{script}\n")
        (made / "DEBIAN/postinst").chmod(0o755)
    target = folder / f"{version}.deb"
    subprocess.run(
        ["dpkg-deb", "--root-owner-group", "--build", str(made), str(target)],
        check=True,
        capture_output=True,
    )
    return target.read_bytes()


@pytest.mark.skipif(shutil.which("dpkg") is None, reason="packages are Debian's")
async def test_a_package_is_installed_upgraded_and_removed_by_dpkg_itself(
    device: Device, tmp_path: Path, site: Site
) -> None:
    served = {f"/{v}.deb": package(tmp_path, v) for v in ("1.0", "2.0")}

    def serve(request):  # type: ignore[no-untyped-def]
        found = served.get(request.url.path)
        return Response(found) if found else None

    site.relay = serve

    def wanted(version: str, data: bytes) -> dict[str, object]:
        url = f"https://localhost:{site.port}/{version}.deb"
        digest = hashlib.sha256(data).hexdigest()
        return {"package": {"name": "tandem-lab", "version": version, "url": url, "sha256": digest}}

    def listed() -> str:
        done = subprocess.run(
            ["dpkg-query", f"--admindir={device.root}/var/lib/dpkg", "-W", "tandem-lab"],
            capture_output=True,
            text=True,
        )
        return done.stdout.strip()

    device.site_sets("TandemApps/Lab", wanted("1.0", served["/1.0.deb"]), APPS)
    state = await device.poll()
    assert state.enacted["TandemApps/Lab"].code == "written", state.enacted
    assert listed() == "tandem-lab\t1.0"
    assert device.text("/opt/lab") == "lab 1.0\n"

    device.mdm_has(APPS)
    await device.poll()
    assert device.mdm_sets("TandemApps/Lab", wanted("2.0", served["/2.0.deb"])) == OK
    state = await device.poll()
    assert (state.enacted["TandemApps/Lab"].source, listed()) == ("mdm", "tandem-lab\t2.0")

    assert device.mdm_sets("TandemApps/Lab", wanted("3.0", b"not what comes")) == OK
    served["/3.0.deb"] = served["/1.0.deb"]
    state = await device.poll()
    assert state.enacted["TandemApps/Lab"].code == "app.wrong-hash"
    assert not list((device.machine.state / "CCM/handlers/runs").glob("*.deb"))
    assert device.mdm_deletes("TandemApps/Lab") == OK
    await device.poll()
    assert not device.has("/opt/lab")
    assert "ok installed" not in device.text("/var/lib/dpkg/status")


@pytest.mark.skipif(shutil.which("dpkg") is None, reason="packages are Debian's")
async def test_a_package_whose_script_fails_is_taken_away_again(
    device: Device, tmp_path: Path, site: Site
) -> None:
    data = package(tmp_path, "1.0", "exit 7")
    site.relay = lambda request: Response(data) if request.url.path == "/x.deb" else None
    url, digest = f"https://localhost:{site.port}/x.deb", hashlib.sha256(data).hexdigest()
    wanted = {"package": {"name": "tandem-lab", "url": url, "sha256": digest}}
    device.site_sets("TandemApps/Lab", wanted, APPS)
    state = await device.poll()
    told = state.enacted["TandemApps/Lab"]
    assert told.code == "app.install-failed"
    assert "What it did was undone." in told.text
    assert not device.has("/opt/lab")


async def test_an_app_that_cannot_be_removed_is_not_tried_every_minute(
    device: Device, moment: Moment
) -> None:
    tries = f"{COUNT}; exit 5"
    device.site_sets("TandemApps/Tool", {**TOOL, "remove": tries}, APPS)
    await device.poll()

    def tried() -> int:
        return len(list((device.root / "opt").glob("t[0-9]*")))

    device.site_withdraws("TandemApps/Tool")
    state = await device.poll()
    told = state.enacted["TandemApps/Tool"]
    assert (told.code, told.failed, tried()) == ("undo.failed", True, 1)
    await device.poll()
    assert tried() == 1
    # Another app under the same name waits for the first to go.
    other = {"install": "touch /opt/other", "detect": {"file": "/opt/other"}}
    device.site_sets("TandemApps/Tool", other, APPS)
    await device.poll()
    assert (tried(), device.has("/opt/other")) == (1, False)
    moment.passes(seconds=61 * 0.02)
    await device.poll()
    assert (tried(), device.has("/opt/other")) == (2, False)


# Compliance facts.


async def test_facts_go_to_the_owner_of_compliance_and_to_nobody_else(device: Device) -> None:
    def laid_out() -> bool:
        return (device.machine.state / "CCM" / "facts.json").exists()

    state = await device.poll()
    assert (state.facts["os"], state.facts["os_version"]) == ("debian", "13")
    assert state.facts["firewall"] == "no"
    assert state.facts["encryption"] == "unknown"
    assert not laid_out()
    device.mdm_has(COMPLIANCE)
    state = await device.poll()
    assert state.facts == {}
    assert laid_out()
    device.mdm_has()
    state = await device.poll()
    assert state.facts["os"] == "debian"
    assert not laid_out()


async def test_a_firewall_counts_when_it_starts_with_the_system(device: Device) -> None:
    folder = device.root / "usr/lib/systemd/system"
    (folder / "nftables.service").write_text("[Install]\nWantedBy=sysinit.target\n")
    device.site_sets("TandemUnits/Firewall", {"unit": "nftables.service", "enabled": True})
    state = await device.poll()
    assert state.facts["firewall"] == "yes"
    assert state.facts["firewall_by"] == "nftables.service starts with the system"
    device.site_sets("TandemUnits/Firewall", {"unit": "nftables.service", "enabled": False})
    assert (await device.poll()).facts["firewall"] == "no"


async def test_encryption_is_what_the_kernel_says_of_the_devices_below(device: Device) -> None:
    """LVM on LUKS, laid out as the kernel lays it out in /proc and /sys."""
    (device.root / "proc/self").mkdir(parents=True)
    (device.root / "proc/self/mountinfo").write_text("22 1 253:1 / / rw - ext4 /dev/vg/root rw\n")
    for name, uuid in (("253:1", "LVM-abc"), ("253:0", "CRYPT-LUKS2-0f-crypt")):
        (device.root / f"sys/dev/block/{name}/dm").mkdir(parents=True)
        (device.root / f"sys/dev/block/{name}/dm/uuid").write_text(uuid + "\n")
    slaves = device.root / "sys/dev/block/253:1/slaves"
    slaves.mkdir()
    (slaves / "dm-0").symlink_to("../../253:0")
    facts = (await device.poll()).facts
    assert (facts["encryption"], facts["encryption_by"]) == ("yes", "253:1 is LUKS2")
    (device.root / "sys/dev/block/253:0/dm/uuid").write_text("LVM-def\n")
    assert (await device.poll()).facts["encryption"] == "no"


def test_the_facts_of_the_machine_that_runs_this_are_the_kernels(tmp_path: Path) -> None:
    found = facts(Root(Path("/"), tmp_path))
    lines = Path("/etc/os-release").read_text().splitlines()
    assert f"ID={found['os']}" in lines or f'ID="{found["os"]}"' in lines
    assert found["encryption"] in ("yes", "no", "unknown")
    if shutil.which("lsblk") and found["encryption"] != "unknown":
        device = subprocess.run(
            ["findmnt", "-no", "SOURCE", "/"], capture_output=True, text=True
        ).stdout.strip()
        types = subprocess.run(
            ["lsblk", "-snlo", "TYPE", device], capture_output=True, text=True
        ).stdout.split()
        assert (found["encryption"] == "yes") is ("crypt" in types)


async def test_what_the_device_holds_never_names_another_host(
    device: Device, web: httpx.AsyncClient
) -> None:
    """What a script prints stays in the device's own log."""
    value = {**TOOL, "install": "echo secret-word; exit 3"}
    device.site_sets("TandemApps/Tool", value, APPS)
    state = await device.poll()
    assert "secret-word" not in str(state.enacted)
    assert any("secret-word" in line for line in log(device.machine, "AppIntentEval"))


async def test_a_system_that_is_not_laid_out_like_one_does_not_stop_the_client(
    device: Device,
) -> None:
    shutil.rmtree(device.root / "etc/systemd")
    (device.root / "etc/systemd").write_text("not a folder")
    (device.root / "etc/os-release").unlink()
    device.site_sets("TandemUnits/Tidy", {"unit": "tidy.service", "enabled": True})
    device.site_sets("TandemFiles/Motd", banner("of the site"))
    state = await device.poll()
    assert state.facts["os"] == "unknown"
    assert state.enacted["TandemUnits/Tidy"].code == "path.not-a-folder"
    assert device.text("/etc/motd") == "of the site"
