"""The whole lab with three devices, as a newcomer starts it: real processes, then looked at from outside."""

import asyncio
import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from lxml import html
from typer.testing import CliRunner

import task_guides
import vendor_paths
from tandem.agent import mdm
from tandem.cli.lab.commands import Commands
from tandem.cli.lab.steps import STEPS
from tandem.cli.lab.topology import Timers
from tandem.cli.main import build
from tandem.cli.sign_in import Form

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

DEVICES = 3
ON_PREMISES = {"127.0.0.1", "::1"}


class RunningLab:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.contract_file = folder / "state" / "lab.json"
        self.report_file = folder / "report.json"
        self.output = folder / "out.txt"
        self.process: subprocess.Popen[bytes] | None = None
        self.half: tuple[Any, Any] = ({}, {})
        self.went_on = (0, "")
        self.last_words = ""  # What it printed when it last began to serve, or went on.

    def start(self, *more: str) -> float:
        """Start serving; seconds until lab.json is there."""
        self.contract_file.unlink(missing_ok=True)
        begun = time.monotonic()
        before = self.output.stat().st_size if self.output.exists() else 0
        command = [str(Path(sys.executable).with_name("tandem")), "lab"]
        options = ["--devices", str(DEVICES), "--state", str(self.folder / "state"), "--serve"]
        with self.output.open("ab") as file:
            self.process = subprocess.Popen(
                [*command, *options, *more, "--json", str(self.report_file)],
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
            )
        while not self.contract_file.exists():
            if self.process.poll() is not None or time.monotonic() > begun + 240:
                pytest.fail(self.output.read_text()[-6000:])
            time.sleep(0.05)
        self.last_words = self.output.read_bytes()[before:].decode()
        return time.monotonic() - begun

    def stop(self, how: signal.Signals = signal.SIGTERM) -> int:
        assert self.process is not None
        self.process.send_signal(how)
        return self.process.wait(60)

    @property
    def contract(self) -> Any:
        return json.loads(self.contract_file.read_text())

    @property
    def report(self) -> Any:
        return json.loads(self.report_file.read_text())


HALF = "5.3"


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningLab]:
    """A lab that stopped half-way, with its devices waiting, and was told to go on."""
    running = RunningLab(tmp_path_factory.mktemp("lab"))
    running.start("--until", HALF)
    running.half = (running.report, running.contract)
    command = [str(Path(sys.executable).with_name("tandem")), "lab", "continue"]
    went_on = subprocess.run(
        [*command, "--state", str(running.folder / "state")],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    running.went_on = (went_on.returncode, went_on.stdout)
    running.last_words = went_on.stdout
    yield running
    if running.process is not None and running.process.poll() is None:
        left = running.contract["processes"]
        assert running.stop() == 0
        assert not [p for p in left if _alive(p["pid"])]


def test_it_stops_behind_a_step_with_its_devices_waiting_and_goes_on(lab: RunningLab) -> None:
    report, contract = lab.half
    assert report["ok"]
    assert report["steps"][-1]["id"] == HALF
    assert 0 < report["devices"]["mdm_enrolled"] < DEVICES
    assert report["devices"]["co_managed"] == 0
    assert {"agent", "simulator"} <= {item["role"] for item in contract["processes"]}
    code, said = lab.went_on
    assert code == 0, said
    assert "5.3" not in said
    assert "6.4" in said


def test_the_report_lists_the_shortened_timers(lab: RunningLab) -> None:
    report = lab.report
    assert report["timers"]["cadence"] == "lab"
    assert set(report["timers"]) == set(Timers.__struct_fields__)
    assert set(report) >= {"ok", "seconds", "timers", "devices", "steps"}
    assert set(report["steps"][0]) == {"id", "title", "ok", "seconds", "checks"}
    assert set(report["steps"][0]["checks"][0]) == {"text", "ok", "seen"}


def test_every_step_of_the_tutorial_holds(lab: RunningLab) -> None:
    report = lab.report
    assert [step["id"] for step in report["steps"]] == [step.id for step in STEPS]
    failed = [
        (step["id"], check)
        for step in report["steps"]
        for check in step["checks"]
        if not check["ok"]
    ]
    assert failed == []
    assert all(step["checks"] for step in report["steps"])
    assert report["ok"]


def test_all_devices_are_co_managed_and_one_is_real(lab: RunningLab) -> None:
    devices = lab.report["devices"]
    assert (devices["total"], devices["real"], devices["simulated"]) == (DEVICES, 1, DEVICES - 1)
    assert devices["mdm_enrolled"] == devices["client_registered"] == DEVICES
    assert devices["co_managed"] == DEVICES


def test_the_three_that_must_fail_say_why_and_what_to_do(lab: RunningLab) -> None:
    refusals = lab.report["devices"]["expected_refusals"]
    assert {item["device"] for item in refusals} == {"LAB-NOLICENCE", "LAB-NOSCOPE", "LAB-EXCLUDED"}
    assert all(item["code"] and item["text"] and item["cure"] for item in refusals)
    assert any("80180018" in item["code"] for item in refusals)


def test_the_contract_for_other_programs_is_complete(lab: RunningLab) -> None:
    contract = lab.contract
    assert set(contract) >= {
        "tenant_id", "tenant_url", "graph_url", "site_url", "site_code", "console_url", "ca_file",
        "admin", "graph_client", "mdm", "users", "gateways", "logs", "processes",
    }  # fmt: skip
    assert len(contract["users"]) >= 5
    assert any(not user["licensed"] for user in contract["users"])
    assert any(not user["in_scope"] for user in contract["users"])
    assert {"upn", "password", "licensed", "in_scope", "groups"} <= set(contract["users"][0])
    with httpx.Client(verify=_trust(contract["ca_file"]), trust_env=False) as client:
        token = client.post(
            f"{contract['tenant_url']}/{contract['tenant_id']}/oauth2/v2.0/token",
            data={
                "grant_type": "client_credentials",
                "client_id": contract["graph_client"]["client_id"],
                "client_secret": contract["graph_client"]["client_secret"],
                "scope": "https://graph.microsoft.com/.default",
            },
        ).json()["access_token"]
        devices = client.get(
            f"{contract['graph_url']}/deviceManagement/managedDevices",
            headers={"Authorization": f"Bearer {token}"},
        )
        assert devices.status_code == 200, devices.text
        assert len(devices.json()["value"]) >= DEVICES
        page = client.get(contract["console_url"], follow_redirects=True)
        assert 'name="password"' in page.text


def _trust(ca_file: str) -> Any:
    import ssl

    return ssl.create_default_context(cafile=ca_file)


def test_nothing_of_the_inside_listens_to_the_internet(lab: RunningLab) -> None:
    """The inside is 127.0.0.1; every other loopback address stands for the internet."""
    names = {"site", "connector-1", "connector-2"}
    inside = [p for p in lab.contract["processes"] if p["role"] in names]
    assert {p["role"] for p in inside} == names
    # Instances of the gateway are the site's children on this machine, and new ones when one died.
    gateway_pids = {
        process.pid
        for p in inside
        for process in _family(p["pid"])
        if "gateway run" in " ".join(process.cmdline())
    }
    listening = {
        (p["role"], connection.laddr.ip, connection.laddr.port)
        for p in inside
        for process in _family(p["pid"])
        if process.pid not in gateway_pids
        for connection in process.net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    }
    assert {address for _, address, _ in listening} <= ON_PREMISES, listening
    # Were the processes not readable, nothing would seem to listen anywhere.
    assert "site" in {role for role, _, _ in listening}
    internet = {
        (connection.laddr.ip, connection.laddr.port)
        for pid in gateway_pids
        for process in _family(pid)
        for connection in process.net_connections("inet")
        if connection.status == psutil.CONN_LISTEN and connection.laddr.ip not in ON_PREMISES
    }
    assert internet
    # Nor does anything answer who knocks from there.
    for address in {ip for ip, _ in internet}:
        for _, _, port in listening:
            if (address, port) not in internet:
                with pytest.raises(ConnectionRefusedError):
                    socket.create_connection((address, port), 5).close()
    gateways = [p for p in lab.contract["processes"] if p["role"].startswith("gateway")]
    assert gateways
    # An instance that was killed before may be on its way back.
    deadline = time.monotonic() + 30
    for role in ("connector-1", "connector-2"):
        (one,) = [p for p in inside if p["role"] == role]
        while len(_dialled([one])) != len(gateways):
            assert time.monotonic() < deadline, _dialled([one])
            time.sleep(0.5)


def _dialled(inside: list[Any]) -> set[str]:
    """Where on the internet a connection point holds a connection."""
    return {
        connection.raddr.ip
        for p in inside
        if p["role"].startswith("connector")
        for process in _family(p["pid"])
        for connection in process.net_connections("inet")
        if connection.status == psutil.CONN_ESTABLISHED and connection.raddr.ip not in ON_PREMISES
    }


def _family(pid: int) -> list[psutil.Process]:
    top = psutil.Process(pid)
    return [top, *top.children(recursive=True)]


def test_what_the_lab_says_to_try_works(lab: RunningLab) -> None:
    """A killed instance makes its hops of the console red, with their cause, and comes back; and a
    workload moves. Both are the very lines that the lab prints."""
    said = [line.strip() for line in lab.last_words.splitlines()]
    (kill,) = [line for line in said if line.startswith("kill -9")]
    (command,) = [line for line in said if "comanagement switch" in line]
    victims, victim = _pids(lab.contract), int(kill.split()[-1])
    assert victim in victims
    with closing(_console(lab)) as console:
        assert _red(console) == []
        subprocess.run(kill, shell=True, check=True)
        red = _until(lambda: _red(console))
        # From each of the two connection points, as soon as it has said so.
        assert 1 <= len(red) <= 2
        assert all(cause for *_, cause in red), red
        _until(lambda: _red(console) == [] and _instances(console) == len(victims))
        _until(lambda: victim not in _pids(lab.contract))
        done = subprocess.run(command, shell=True, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        _until(lambda: "owner=mdm" in _moved(console))


def _pids(contract: Any) -> set[int]:
    """Of the gateway's instances."""
    return {item["pid"] for gateway in contract["gateways"] for item in gateway["instances"]}


def _until(what: Callable[[], Any], seconds: float = 150) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < deadline
        time.sleep(0.2)
    return found


def _console(lab: RunningLab) -> httpx.Client:
    """A browser that is signed in to the site's pages."""
    contract = lab.contract
    base = contract["site_url"]
    browser = httpx.Client(
        verify=_trust(contract["ca_file"]), trust_env=False, base_url=base, follow_redirects=True
    )
    form = Form()
    form.feed(browser.get("/console/sign-in").text)
    admin = contract["site_admin"]
    browser.post(
        "/console/sign-in",
        data={**form.fields, "user": admin["name"], "password": admin["password"]},
        headers={"Origin": base},
    ).raise_for_status()
    return browser


def _rows(console: httpx.Client, path: str, where: str) -> list[list[str]]:
    page = html.fromstring(console.get(path).content)
    return [
        [" ".join(cell.text_content().split()) for cell in row.xpath("./th|./td")]
        for row in page.xpath(where)
    ]


def _red(console: httpx.Client) -> list[list[str]]:
    found = _rows(console, "/console/gateways", "//tr[@class='bad']")
    return [[*row[:3], row[4].strip("– ")] for row in found]


def _instances(console: httpx.Client) -> int:
    return len(
        _rows(
            console,
            "/console/gateways",
            "//h3/following::tr[@class='good'][td[2]='Connection point CP01']",
        )
    )


def _moved(console: httpx.Client) -> str:
    """The links of the bar of Windows Update that lead to devices."""
    page = html.fromstring(console.get("/console/").content)
    links = page.xpath("//table//a[contains(@href, 'workload=windows-update')]")
    return " ".join(link.get("href") for link in links if link.text_content().strip() != "0")


def test_the_commands_of_the_task_guides_show_what_their_pages_say(
    lab: RunningLab, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TANDEM_PROFILE", str(lab.folder / "state" / "settings" / "profile.toml"))
    monkeypatch.chdir(tmp_path)
    tandem, wrong = build(), []
    for page, shown in task_guides.SHOWS.items():
        for command, words in shown.items():
            said = CliRunner().invoke(tandem, shlex.split(command)[1:])
            if said.exit_code != 0 or not re.search(words, said.output):
                wrong.append(f"{page}: {command}\n{said.output}")
    assert wrong == []


def test_a_client_without_mdm_is_enrolled_by_the_site(lab: RunningLab) -> None:
    """Path 1 of co-management, with a device that has the client and whose user left the MDM service:
    the site's policy has it enrol, with its own credentials, and it is co-managed again."""
    (command,) = [line for line in lab.last_words.splitlines() if "comanagement switch" in line]
    tandem = command.split(" comanagement switch")[0].strip()
    said = subprocess.run(
        f"{tandem} collection members 'Pilot devices' --json",
        shell=True, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    name = sorted(item["name"] for item in json.loads(said))[0]
    control = next(
        path
        for path in (lab.folder / "state").glob("*.sock")
        if path.stem in {"agent", "simulator"} and name in _devices(path)
    )
    before = _devices(control)[name]
    assert before.mdm_enrolled
    assert before.policy
    left = asyncio.run(mdm.ask(control, "unenrol", name))
    assert left.ok
    assert left.device is not None
    assert not left.device.mdm_enrolled
    after = _until(lambda: (now := _devices(control)[name]).mdm_enrolled and now.policy and now)
    assert after.client_id == before.client_id
    assert after.mdm_device_id != before.mdm_device_id
    with closing(_console(lab)) as console:
        page = _until(lambda: _enrolled_again(console, name))
    assert "MDM enrollment scheduled" in page


def test_what_is_deployed_to_users_goes_with_them(
    lab: RunningLab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A simulated device, its user by the tenant's token, the gateway and the site's collections: the
    device's value comes first, the client setting decides, and who signs in next has nothing of it."""
    monkeypatch.setenv("TANDEM_PROFILE", str(lab.folder / "state" / "settings" / "profile.toml"))
    tandem, contract = Commands(), lab.contract
    control = lab.folder / "state" / "simulator.sock"
    passwords = {user["upn"]: user["password"] for user in contract["users"]}
    assert lab.went_on[0] == 0, lab.went_on[1]
    name, of_user = _until(
        lambda: next(
            (
                (one.name, one.upn)
                for one in _devices(control).values()
                if one.mdm_enrolled and one.policy
            ),
            None,
        )
    )
    other = next(
        user["upn"] for user in contract["users"] if user["licensed"] and user["upn"] != of_user
    )

    def does(*words: str) -> Any:
        return asyncio.run(tandem.run(*words))

    def signs_in(upn: str) -> None:
        file = lab.folder / "typed-password"
        file.write_text(passwords[upn])
        answer = asyncio.run(mdm.ask(control, "sign-in", name, upn=upn, password_file=file))
        assert answer.ok, answer.error

    def has(**wanted: str) -> None:
        """The device's own account of what is in force at its desk."""
        _until(lambda: _at_the_desk(_devices(control)[name]) == wanted)

    does("collection", "create", "Painters", "--user", of_user)
    for what, value, to in (
        ("Colour", "grey", "SMS00001"),
        ("Colour", "blue", "Painters"),
        ("Size", "big", "Painters"),
    ):
        does(
            "configuration", "create", f"{what} of {to}", "--setting", f"Desk/{what}",
            "--value", value, "--collection", to,
        )  # fmt: skip
    try:
        signs_in(of_user)
        has(Colour="grey", Size="big")
        shown = _until(
            lambda: (
                (now := does("device", "settings", name))
                and next(
                    (
                        s
                        for s in now["settings"]
                        if (s["setting"], s["user"]) == ("Desk/Size", of_user)
                    ),
                    None,
                )
            )
        )
        assert shown["value"] == "big"
        signs_in(other)
        has(Colour="grey")
        signs_in(of_user)
        has(Colour="grey", Size="big")
        does("client-settings", "set", "enable_user_policy_from_internet=no")
        has(Colour="grey")
        does("client-settings", "set", "enable_user_policy_from_internet=yes")
        has(Colour="grey", Size="big")
    finally:
        does("client-settings", "set", "enable_user_policy_from_internet=yes")
        for one in does("configuration", "list"):
            if one["setting"].startswith("Desk/"):
                does("configuration", "delete", one["name"], "--yes")
    has()

    def told() -> list[str]:
        """What the device's ledger says of the size, by the site's own check."""
        ledger = does("device", "ledger", name, "--check")
        assert ledger["holds"]
        return [entry["kind"] for entry in ledger["entries"] if entry.get("setting") == "Desk/Size"]

    _until(lambda: sorted(told()) == ["remove"] * 3 + ["write"] * 3)


def _at_the_desk(status: mdm.Status) -> dict[str, str]:
    return {
        setting.removeprefix("Desk/"): one.value
        for setting, one in status.configuration.items()
        if setting.startswith("Desk/")
    }


def _devices(control: Path) -> dict[str, mdm.Status]:
    return {one.name: one for one in asyncio.run(mdm.ask(control, "list")).devices or []}


def _enrolled_again(console: httpx.Client, name: str) -> str:
    """The device's timeline, when its enrolment by the site stands in it."""
    found = html.fromstring(console.get("/console/devices", params={"q": name}).content)
    (link,) = found.xpath(f"//th//a[normalize-space()='{name}']/@href")
    page = console.get(f"{link}/timeline").text
    return page if "MDM enrollment succeeded" in page else ""


def test_the_site_asks_the_tenant_for_nothing_that_the_vendor_has_not(lab: RunningLab) -> None:
    """Registration, consent and discovery of the tutorial: one URL would point them there."""
    lines = (Path(lab.contract["logs"]) / "site.jsonl").read_text("utf-8").splitlines()
    events = [json.loads(line) for line in lines if '"tenant asked"' in line]
    asked = {(event["method"], event["path"]) for event in events}
    assert {"users", "applications", "token"} <= {path.rpartition("/")[2] for _, path in asked}
    strange = {item for item in asked if not vendor_paths.knows(*item)}
    assert {path for _, path in strange if not vendor_paths.DOES_WITHOUT.fullmatch(path)} == set()


def test_secrets_of_people_are_in_no_log(lab: RunningLab) -> None:
    passwords = [lab.contract["admin"]["password"].encode()]
    passwords += [user["password"].encode() for user in lab.contract["users"]]
    passwords.append(lab.contract["graph_client"]["client_secret"].encode())
    logs = [path for path in (lab.folder / "state").rglob("*") if path.suffix in _LOGS]
    assert logs
    for path in logs:
        content = path.read_bytes()
        assert not any(password in content for password in passwords), path


_LOGS = {".log", ".jsonl", ".out", ".lo_"}


def test_it_stops_everything_and_resumes_in_seconds(lab: RunningLab) -> None:
    before = lab.contract["processes"]
    assert lab.stop(signal.SIGINT) == 0
    assert not [p for p in before if _alive(p["pid"])]
    assert not lab.contract_file.exists()
    seconds = lab.start()
    assert seconds < 60
    assert lab.report["ok"]
    assert lab.report["devices"]["co_managed"] == DEVICES


def _alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE and pid != os.getpid()
    except psutil.NoSuchProcess:
        return False
