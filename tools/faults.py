"""python -m tools.faults [--seconds N] [--seed N] [--json]: parts of the chain are killed under load.

devices ──▶ two gateway instances ◀── two connection points ──▶ management point (site) ──▶ PostgreSQL

All are processes of their own, as installed. Devices ask one thing after another, by either
instance, and keep account of what came of each request that they sent:

answered   by the site
failed     with a status that says why, by gateway, connection point or site
cut        the connection broke because the very instance that held it was killed
lost       anything else: no answer in time, a connection that broke by itself, a refusal that is not
           true, a request that was done twice, a message that was acknowledged and is not in the
           database once

Exit 1 when something was lost. The seed decides who is killed when, and for how long it is away.
"""

import argparse
import asyncio
import json
import os
import random
import signal
import ssl
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import ExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import msgspec
import psutil
import psycopg
from bench.processes import free_port
from bench.registered import CONNECTION_ID, NAME, ROLE_COMMAND, Registered
from cryptography.hazmat.primitives.asymmetric import ec

from tandem import pki
from tandem.infra import config
from tandem.infra.database import Tx
from tandem.infra.secrets import private_folder, write_private
from tandem.protocols import ccm, tunnel
from tandem.site import properties

GATEWAYS, CONNECTION_POINTS = ("gateway-1", "gateway-2"), ("CP01", "CP02")
PARTS = (*GATEWAYS, *CONNECTION_POINTS, "site", "postgresql")
# While the site is away nothing is answered: it is killed less often than the rest.
_OFTEN = (3, 3, 3, 3, 1, 1)
DEVICES = 12
# Longer than a request can take by the limits below, on a machine that is busy.
_PATIENCE = 60.0
_LIMITS = tunnel.Limits(request_seconds=20, queue_seconds=10)
_BACK_SECONDS = 90.0
# From the command on; the rest of five minutes is for what was killed last.
_KILLING_SECONDS = 210.0
# Before who was not answered asks again.
_AGAIN_SECONDS = 0.3
# A break is the killed instance's when it comes within this time of the kill.
_BREAK_SECONDS = 10.0
_POSTGRES = "import sys; from pathlib import Path; from tandem.infra.database import Embedded; Embedded.start(Path(sys.argv[1]))"


class Chain(Registered):
    """Every part of it, and hands to kill one and to start it again."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        super().__init__(folder, stack, DEVICES)
        self.running: dict[str, subprocess.Popen[bytes]] = {}
        self.killed: dict[str, list[float]] = {part: [] for part in PARTS}
        self.ports = {name: free_port() for name in GATEWAYS}
        self.tunnel_ports = {name: free_port() for name in GATEWAYS}
        self.health = {name: free_port() for name in (*GATEWAYS, *CONNECTION_POINTS)}
        self.commands: dict[str, list[str]] = {}
        self.ended: list[str] = []

    async def _edge(self, tx: Tx, now: datetime) -> None:
        await super()._edge(tx, now)
        role = await properties.role_certificate(
            tx, self.box, "CP02", dns=["localhost"], usages=["client"], now=now
        )
        write_private(self.folder / "CP02.key", pki.key_pem(role.key))
        write_private(self.folder / "CP02.pem", pki.pem(role.certificate))

    def serve(self) -> None:
        self._know("site", self.site_settings(), [_tandem(), "site", "run", "--config"])
        role = [sys.executable, "-c", ROLE_COMMAND]
        for name in GATEWAYS:
            settings = self.gateway_settings(
                instance=int(name[-1]),
                port=self.ports[name],
                tunnel_port=self.tunnel_ports[name],
                health=f"127.0.0.1:{self.health[name]}",
                state=str(self.folder / name),
                drain_seconds=5,
                # One instance is a process alone, the other a parent with workers.
                workers=int(name[-1]),
            )
            self._know(name, settings, [*role, "gateway"])
        for name in CONNECTION_POINTS:
            told = self._told(name)
            kept = private_folder(self.folder / name) / "configuration.json"
            write_private(kept, msgspec.json.encode(told))
            settings = self.connector_settings(
                connection_point=name,
                certificate=str(self.folder / f"{name}.pem"),
                key=str(self.folder / f"{name}.key"),
                state=str(self.folder / name),
                logs=str(private_folder(self.folder / "logs" / name)),
                health=f"127.0.0.1:{self.health[name]}",
                retry_seconds=0.2,
                retry_most_seconds=1.0,
                request_seconds=15.0,
                drain_seconds=5,
            )
            self._know(name, settings, [*role, "connector"])
        for name in PARTS[:-1]:
            self.start(name)
        self.stack.callback(self.end)

    def _told(self, name: str) -> tunnel.ConnectorConfiguration:
        told = self._configuration()
        (target,) = told.gateways
        limited = msgspec.structs.replace(target.configuration, limits=_LIMITS)
        instances = [
            tunnel.Instance(int(one[-1]), "127.0.0.1", self.ports[one], self.tunnel_ports[one])
            for one in GATEWAYS
        ]
        target = tunnel.GatewayTarget(NAME, NAME, CONNECTION_ID, instances, limited)
        return msgspec.structs.replace(told, connection_point=name, gateways=[target])

    def _know(self, name: str, settings: dict[str, Any], command: list[str]) -> None:
        file = self.folder / f"{name}.toml"
        write_private(file, config.toml(settings).encode())
        self.commands[name] = [*command, str(file)]

    def start(self, name: str) -> None:
        if name == "postgresql":
            # What is left of the one before may hold its memory for a moment, or be taken for the
            # server itself until somebody has asked for its end.
            command = [sys.executable, "-c", _POSTGRES, str(self.folder / "pg")]
            while True:
                subprocess.run(command, capture_output=True, check=False)
                with suppress(psycopg.OperationalError):
                    psycopg.connect(self.dsn, connect_timeout=5).close()
                    return
                time.sleep(0.2)
        with (self.folder / f"{name}.out").open("ab") as out:
            self.running[name] = subprocess.Popen(self.commands[name], stdout=out, stderr=out)

    def again(self) -> None:
        """As a service manager does: who could not start, because what was there before still held
        its address or the database was away, is started again."""
        for name, process in list(self.running.items()):
            if process.poll() is not None:
                self.ended.append(name)
                self.start(name)

    def kill(self, name: str) -> None:
        """Without a word."""
        self.killed[name].append(time.monotonic())
        if name == "postgresql":
            os.kill(self._postmaster(), signal.SIGKILL)
            return
        process = self.running.pop(name)
        process.kill()
        process.wait()

    def end(self) -> None:
        for process in self.running.values():
            process.terminate()
        for process in self.running.values():
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        # Not the one that was started first, when it was killed since.
        with suppress(FileNotFoundError, psutil.NoSuchProcess):
            database = psutil.Process(self._postmaster())
            database.send_signal(signal.SIGINT)
            database.wait(60)

    def _postmaster(self) -> int:
        return int((self.folder / "pg" / "postmaster.pid").read_text().split()[0])

    async def ready(self, name: str, seconds: float = _BACK_SECONDS) -> None:
        """A gateway holds the tunnels of both connection points, a connection point all of its own."""
        async with httpx.AsyncClient(trust_env=False) as web, asyncio.timeout(seconds):
            while True:
                with suppress(httpx.TransportError):
                    answer = await web.get(f"http://127.0.0.1:{self.health[name]}/readyz")
                    told = answer.json()
                    if answer.status_code == 200 and told.get("tunnels", 2) == 2:
                        return
                await asyncio.sleep(0.1)


def _tandem() -> str:
    return str(Path(sys.executable).with_name("tandem"))


@dataclass
class Account:
    """What came of every request that was sent."""

    answered: int = 0
    nobody: int = 0  # Who finds nobody to connect to has sent nothing.
    cut: int = 0
    failed: Counter[str] = field(default_factory=Counter)
    lost: list[str] = field(default_factory=list)
    acknowledged: set[str] = field(default_factory=set)
    messages: int = 0
    in_database: int = 0

    @property
    def accepted(self) -> int:
        return self.answered + self.cut + self.failed.total() + len(self.lost)

    def told(self) -> dict[str, Any]:
        return {
            "accepted": self.accepted,
            "answered": self.answered,
            "failed": dict(self.failed.most_common()),
            "cut_with_the_instance": self.cut,
            "nobody_to_connect_to": self.nobody,
            "messages": self.messages,
            "acknowledged": len(self.acknowledged),
            "in_database": self.in_database,
            "lost": len(self.lost),
            "what_was_lost": self.lost[:20],
        }


class Device:
    """One registered device: it asks, and sends a message until it is acknowledged."""

    def __init__(self, chain: Chain, number: int, line: str, account: Account) -> None:
        self._chain = chain
        self._account = account
        self._id, self._token, secret = line.split()
        self._key = ec.derive_private_key(int(secret, 16), ec.SECP256R1())
        self._number = number
        self._count = 0
        self._message: ccm.Message | None = None
        self._instance = number % 2
        self._random = random.Random(number)
        self._context = ssl.create_default_context(cafile=str(chain.folder / "public.pem"))

    async def live(self, stop: asyncio.Event) -> None:
        options: dict[str, Any] = {"verify": self._context, "trust_env": False}
        async with httpx.AsyncClient(timeout=_PATIENCE, **options) as web:
            while not stop.is_set():
                before = self._account.answered
                await self._turn(web)
                calm = self._account.answered > before
                await asyncio.sleep(self._random.uniform(0, 0.1) if calm else _AGAIN_SECONDS)

    async def _turn(self, web: httpx.AsyncClient) -> None:
        kind = self._random.choice(("message", "message", "policy", "list"))
        if kind == "policy":
            await self._ask(web, "GET", "/SMS_MP/.sms_pol")
        elif kind == "list":
            await self._ask(web, "GET", "/SMS_MP/.sms_aut?MPLIST")
        else:
            if self._message is None:
                self._count += 1
                self._account.messages += 1
                id = f"m-{self._number}-{self._count}"
                self._message = ccm.Message(id, ccm.FRAMEWORK_TOPIC, 1, datetime.now(UTC))
            body = msgspec.json.encode(ccm.IncomingRequest([self._message]))
            answer = await self._ask(web, "POST", "/ccm_incoming", body)
            if answer is not None and self._message.id in answer.json()["accepted"]:
                self._account.acknowledged.add(self._message.id)
                self._message = None

    async def _ask(
        self, web: httpx.AsyncClient, method: str, target: str, body: bytes = b""
    ) -> httpx.Response | None:
        """The answer, when it is one; what else came of it stands in the account."""
        name, account = GATEWAYS[self._instance], self._account
        now = datetime.now(UTC)
        nonce = f"{self._random.getrandbits(128):032x}"
        path, _, query = target.partition("?")
        headers = ccm.sign_request(
            self._key, method=method, target=ccm.signed_target(path, query), body=body,
            client_id=self._id, now=now, nonce=nonce,
        )  # fmt: skip
        headers["Authorization"] = f"Bearer {self._token}"
        if self._number % 3 == 0:
            headers["Connection"] = "close"
        url = f"https://localhost:{self._chain.ports[name]}/CCM_Proxy_ServerAuth/{self._chain.role_id}{target}"
        begun = time.monotonic()
        try:
            answer = await web.request(method, url, content=body or None, headers=headers)
        except (httpx.ConnectError, httpx.ConnectTimeout):
            account.nobody += 1
            self._instance = 1 - self._instance
            return None
        except httpx.TransportError as error:
            kills = self._chain.killed[name]
            if any(begun - _BREAK_SECONDS <= kill <= time.monotonic() for kill in kills):
                account.cut += 1
                self._instance = 1 - self._instance
            else:
                took = time.monotonic() - begun
                account.lost.append(f"{method} {path} by {name} after {took:.1f} s: {error!r}")
            return None
        if answer.is_success:
            account.answered += 1
            return answer
        self._refused(f"{method} {path} by {name}", method, answer)
        return None

    def _refused(self, what: str, method: str, answer: httpx.Response) -> None:
        try:
            error = answer.json()["error"]
            code, text = str(error["code"]), str(error["message"])
        except (ValueError, KeyError, TypeError):
            self._account.lost.append(f"{what}: {answer.status_code} {answer.text[:200]}")
            return
        # A question may be asked again by the chain, and its first answer be the one that was lost.
        again = code == "client.replayed" and method == "GET"
        if answer.status_code >= 500 or again:
            self._account.failed[f"{answer.status_code} {code}"] += 1
        else:
            self._account.lost.append(f"{what}: {answer.status_code} {code}: {text}")


@asynccontextmanager
async def loaded(chain: Chain, account: Account) -> AsyncIterator[None]:
    """Devices that ask all the time; at the end everything is counted that they were told."""
    stop = asyncio.Event()
    lines = chain.file.read_text().splitlines()
    devices = [Device(chain, number, line, account) for number, line in enumerate(lines)]
    living = [asyncio.create_task(device.live(stop)) for device in devices]
    try:
        yield
    finally:
        stop.set()
        for one in await asyncio.gather(*living, return_exceptions=True):
            if isinstance(one, BaseException):
                raise one
    with psycopg.connect(chain.dsn) as connection:
        found = connection.execute(
            "SELECT message_id, count(*) FROM clients_timeline WHERE message_id LIKE 'm-%'"
            " GROUP BY message_id"
        ).fetchall()
    times: dict[str, int] = dict(found)
    account.in_database = len(times)
    account.lost += [
        f"message {id} was acknowledged and is in the database {times.get(id, 0)} times"
        for id in sorted(account.acknowledged)
        if times.get(id) != 1
    ]


async def served(account: Account, count: int = DEVICES, seconds: float = _BACK_SECONDS) -> float:
    """Wait until so many more are answered; how long that took."""
    before, begun = account.answered, time.monotonic()
    async with asyncio.timeout(seconds):
        while account.answered < before + count:
            await asyncio.sleep(0.02)
    return time.monotonic() - begun


async def one_after_another(chain: Chain, parts: Sequence[str], account: Account) -> None:
    """Each is killed, comes back, and is waited for."""
    for part in parts:
        await served(account)
        await asyncio.to_thread(chain.kill, part)
        await asyncio.sleep(0.3)
        await asyncio.to_thread(chain.start, part)
        if part in chain.health:
            await chain.ready(part)
        await served(account)


async def at_random(
    chain: Chain,
    account: Account,
    chance: random.Random,
    seconds: float,
    say: Callable[[str], None],
) -> None:
    """Who is killed when, and for how long it is away, is the seed's to say."""
    begun, away = time.monotonic(), set()
    returning: set[asyncio.Task[None]] = set()

    async def restart(part: str, pause: float) -> None:
        await asyncio.sleep(pause)
        await asyncio.to_thread(chain.start, part)
        with suppress(TimeoutError):
            if part in chain.health:
                # Not all of its tunnels while others are killed, too.
                await chain.ready(part, 10)
            else:
                await served(account)
                await asyncio.sleep(5)
        away.discard(part)

    while (at := time.monotonic() - begun) < seconds:
        (part,) = chance.choices(PARTS, _OFTEN)
        pause, wait = chance.uniform(0.1, 2), chance.uniform(0.5, 4)
        if part not in away:
            away.add(part)
            say(f"{at:6.1f} s  {part} is killed, and comes back after {pause:.1f} s")
            await asyncio.to_thread(chain.kill, part)
            task = asyncio.create_task(restart(part, pause))
            returning.add(task)
        await asyncio.sleep(wait)
    await asyncio.gather(*returning)


async def _keep(chain: Chain) -> None:
    while True:
        await asyncio.sleep(0.5)
        chain.again()


async def run(
    folder: Path, stack: ExitStack, hurt: Callable[[Chain, Account], Any]
) -> tuple[Chain, Account, float]:
    """The chain, under load, while `hurt` does what it does; how long it took until it served again."""
    chain, account = Chain(folder, stack), Account()
    await asyncio.to_thread(chain.prepare)
    chain.serve()
    for name in (*GATEWAYS, *CONNECTION_POINTS):
        await chain.ready(name)
    async with loaded(chain, account):
        await served(account)
        keeping = asyncio.create_task(_keep(chain))
        await hurt(chain, account)
        back = time.monotonic()
        for name in (*GATEWAYS, *CONNECTION_POINTS):
            await chain.ready(name)
        await served(account, 3 * DEVICES)
        back = time.monotonic() - back
        keeping.cancel()
    return chain, account, back


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tools.faults")
    parser.add_argument("--seconds", type=float, default=180, help="under load, at most 210")
    parser.add_argument("--seed", type=int, help="of another run, to have it again")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--keep", type=Path, help="run in this empty folder, and leave it")
    given = parser.parse_args()
    seed = random.SystemRandom().randrange(1_000_000) if given.seed is None else given.seed
    begun = time.monotonic()

    def say(text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    def left() -> float:
        """All of it is to be over in five minutes, however long the beginning took."""
        return min(float(given.seconds), begun + _KILLING_SECONDS - time.monotonic())

    say(f"seed {seed}, {given.seconds:.0f} s")
    chance = random.Random(seed)
    with ExitStack() as stack:
        temporary = tempfile.TemporaryDirectory(prefix="tandem-faults-")
        folder = given.keep or stack.enter_context(temporary)
        chain, account, back = asyncio.run(
            run(
                Path(folder),
                stack,
                lambda *parts: at_random(parts[0], parts[1], chance, left(), say),
            )
        )
    found = {
        "seed": seed,
        "seconds": round(time.monotonic() - begun),
        "killed": {part: len(times) for part, times in chain.killed.items()},
        "could_not_start_at_once": dict(Counter(chain.ended)),
        **account.told(),
        "served_again_after_seconds": round(back, 1),
    }
    if given.json:
        print(json.dumps(found, indent=2))
    else:
        _table(found)
    return 1 if account.lost else 0


def _table(found: dict[str, Any]) -> None:
    lost = found.pop("what_was_lost")
    for name, value in found.items():
        many = value.items() if isinstance(value, dict) else [("", value)]
        for under, count in many:
            print(f"{name.replace('_', ' '):<28} {under:<48} {count:>8}")
    for line in lost:
        print(f"lost: {line}")


if __name__ == "__main__":
    sys.exit(main())
