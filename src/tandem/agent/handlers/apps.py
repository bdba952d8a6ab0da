"""Client apps: Debian packages and scripts, each with a rule that detects it.

A script runs with the root folder as its root, in mount and process namespaces of its own where
that is a folder, so what it starts ends with it and the device outside is not touched. On a device
(`/`) it runs like any administrator's.
"""

import asyncio
import os
import signal
from collections.abc import Callable, Sequence
from contextlib import suppress
from hashlib import sha256
from pathlib import Path

import httpx

from tandem.agent import locks
from tandem.agent.folder import Folder
from tandem.agent.handlers.model import Record, Trouble
from tandem.agent.handlers.packages import installed_packages
from tandem.agent.handlers.root import Root
from tandem.workloads.instructions import App, Package

MOST_BYTES = 512 * 1024 * 1024
_DPKG_SECONDS = 300
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_TAIL = 2000
_KILLED = 124  # As timeout(1) says it.


class Apps:
    """`said` gets what programs print: it goes into the device's own log, and nowhere else."""

    def __init__(
        self, root: Root, folder: Folder, http: httpx.AsyncClient, said: Callable[[str], None]
    ) -> None:
        self._root = root
        self._folder = folder
        self._http = http
        self._said = said

    def is_running(self, record: Record) -> bool:
        """Whether a run that an earlier agent began goes on without it."""
        path = self._lock(record)
        if not record.run or not path.exists():
            return False
        with locks.held(path, wait=False) as free:
            return not free

    async def detected(self, app: App) -> bool:
        rule = app.rule
        if rule.package:
            version = self._package_version(rule.package)
            return bool(version) and rule.version in ("", version)
        if rule.file:
            data = self._root.read_followed(rule.file)
            return data is not None and rule.sha256 in ("", sha256(data).hexdigest())
        return await self._script(rule.script, app.seconds, None) == 0

    async def install(self, app: App, record: Record) -> None:
        """Raises Trouble, after what was done half-way is undone where the app says how."""
        try:
            if app.package is not None:
                await self._install_package(app.package, record)
            else:
                ended = await self._script(app.install, app.seconds, record)
                if ended:
                    raise _ended("install", ended, app.seconds)
            if not await self.detected(app):
                raise Trouble(
                    "app.not-detected",
                    "It was installed without an error, and its rule does not detect it.",
                    cure="Look at the rule: it is what decides whether the app is there.",
                )
        except Trouble as trouble:
            undone = await self._undo(app, record)
            self.forget(record)
            raise Trouble(
                trouble.code, f"{trouble.message} {undone}".strip(), cure=trouble.cure
            ) from None
        self.forget(record)

    async def recover(self, app: App, record: Record) -> None:
        """After an agent that was killed meanwhile: undo the half, so the whole can be done."""
        await self._undo(app, record)
        self.forget(record)

    async def remove(self, app: App, record: Record) -> bool:
        """False: the app does not say how. Raises Trouble."""
        if app.package is not None:
            ended = await self.dpkg(["--remove", app.package.name], record)
            if ended:
                raise _ended("remove", ended, _DPKG_SECONDS)
        elif app.remove:
            ended = await self._script(app.remove, app.seconds, record)
            if ended:
                raise _ended("remove", ended, app.seconds)
        else:
            return False
        self.forget(record)
        return True

    async def _undo(self, app: App, record: Record) -> str:
        """What became of the half, in a sentence."""
        try:
            if not await self.remove(app, record):
                return "What it did half-way stays: it has no remove script."
        except Trouble as trouble:
            return f"Undoing it failed too: {trouble.message}"
        return "What it did was undone."

    async def _install_package(self, package: Package, record: Record) -> None:
        file = await self.download(package)
        try:
            ended = await self.dpkg(["--install", str(file)], record)
        finally:
            file.unlink(missing_ok=True)
        if ended:
            raise _ended("install", ended, _DPKG_SECONDS)

    async def download(self, package: Package) -> Path:
        """The package, whole and checked. Raises Trouble."""
        file = self._folder.path / f"{package.sha256}.deb"
        digest, size = sha256(), 0
        try:
            async with self._http.stream("GET", package.url) as response:
                if response.status_code != 200:
                    raise Trouble(
                        "app.no-content",
                        f"The package's server answers {response.status_code}.",
                        cure="Look whether the url is right and the device may read it.",
                    )
                with file.open("wb") as out:
                    async for chunk in response.aiter_bytes():
                        size += len(chunk)
                        if size > MOST_BYTES:
                            raise Trouble("app.too-large", "The package is too large.")
                        digest.update(chunk)
                        out.write(chunk)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            file.unlink(missing_ok=True)
            raise Trouble(
                "app.no-content", f"The package's server does not answer: {type(error).__name__}."
            ) from None
        except BaseException:
            file.unlink(missing_ok=True)
            raise
        if digest.hexdigest() != package.sha256:
            file.unlink()
            raise Trouble(
                "app.wrong-hash",
                "What was downloaded has not the hash that was announced.",
                cure="Deploy the package with the hash of what the url gives.",
            )
        return file

    def _package_version(self, name: str) -> str:
        """Of an installed package; empty when it is not installed."""
        found = (
            one.version for one in installed_packages(self._root) if one.whole and one.name == name
        )
        return next(found, "")

    async def dpkg(self, arguments: Sequence[str], record: Record) -> int:
        command = ["dpkg", "--force-confold"]
        if not self._root.is_system:
            command.append(f"--root={self._root.path}")
        return await self.run([*as_root(), *command, *arguments], b"", _DPKG_SECONDS, record)

    async def _script(self, script: str, seconds: int, record: Record | None) -> int:
        # Read whole before it runs, and closed to what it starts: nothing eats the script.
        text = f"{{\n{script}\n}} <&-\n".encode()
        command = ["/bin/sh", "-eu", "-s"]
        if not self._root.is_system:
            inside = ["--root", str(self._root.path), "--wd", "/"]
            spaces = ["--fork", "--pid", "--mount", "--kill-child"]
            command = ["unshare", *_mapped(), *spaces, *inside, *command]
        return await self.run(command, text, seconds, record)

    async def run(
        self, command: Sequence[str], text: bytes, seconds: float, record: Record | None
    ) -> int:
        """How a program ended. While one runs that changes something, it holds a lock of its own:
        an agent that comes after a killed one waits for it."""
        lock = None
        if record is not None:
            lock = locks.lasting(self._lock(record))
        try:
            process = await asyncio.create_subprocess_exec(
                *command,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
                env={"PATH": _PATH, "LANG": "C.UTF-8", "DEBIAN_FRONTEND": "noninteractive"},
                start_new_session=True,
                pass_fds=[lock] if lock is not None else [],
            )
        except OSError as error:
            raise Trouble(
                "app.cannot-run", f"{command[0]} cannot be run: {error.strerror}."
            ) from None
        finally:
            if lock is not None:
                os.close(lock)
        ended = _KILLED
        try:
            async with asyncio.timeout(seconds):
                output, _ = await process.communicate(text)
            ended = process.returncode or 0
            if output:
                self._said(output[-_TAIL:].decode("utf-8", "replace"))
        except TimeoutError:
            pass
        finally:
            if process.returncode is None:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                await process.wait()
        return ended

    def _lock(self, record: Record) -> Path:
        return self._folder.path / f"{record.run or 'none'}.run"

    def end(self, record: Record) -> None:
        """As `forget`, for a run that keeps its name."""
        self._lock(record).unlink(missing_ok=True)

    def forget(self, record: Record) -> None:
        """Its run is over, and nobody needs to wait for it."""
        self._lock(record).unlink(missing_ok=True)
        record.run = ""


def _mapped() -> list[str]:
    return [] if os.geteuid() == 0 else ["--user", "--map-root-user"]


def as_root() -> list[str]:
    """dpkg wants to be root; of a folder that is ours, a user namespace makes us that."""
    return ["unshare", *_mapped()] if _mapped() else []


def _ended(what: str, ended: int, seconds: float) -> Trouble:
    if ended == _KILLED:
        return Trouble(
            "app.timeout",
            f"Its {what} step was ended after {seconds:g} seconds.",
            cure="Give it more time (seconds), or let it do less.",
        )
    return Trouble(
        f"app.{what}-failed",
        f"Its {what} step ended with {ended}.",
        cure="What it printed is in AppIntentEval.log on the device.",
    )
