"""Software updates on Linux: what is installed, and how a newer version comes there.

With content of its own an update is downloaded, checked and given to dpkg, as a client app is; without,
apt takes it from the archives that the device has. Under `root` alone, like all handlers.
"""

from collections.abc import Callable
from datetime import UTC, datetime

import httpx

from tandem.agent.folder import Folder
from tandem.agent.handlers.apps import Apps, as_root
from tandem.agent.handlers.model import Effect, Record, Trouble
from tandem.agent.handlers.packages import STATUS, Installed, installed_packages, is_older
from tandem.agent.handlers.root import Root
from tandem.protocols import ccm
from tandem.workloads.instructions import Package

_APT_SECONDS = 1800
# The run whose lock tells a later agent that what an earlier one began goes on.
_RUN = "software-updates"
_RELEASE = "/etc/os-release"
_NEVER = datetime.fromtimestamp(0, UTC)


class Updates:
    def __init__(
        self, root: Root, folder: Folder, http: httpx.AsyncClient, said: Callable[[str], None]
    ) -> None:
        self._root = root
        self._apps = Apps(root, folder, http, said)
        self._folder = folder
        self._record = Record(_RUN, "site", "", Effect(_RUN, "site", "", "", _NEVER), run=_RUN)

    def stamp(self) -> tuple[int, ...]:
        """Another one whenever what is installed has changed."""
        found = self._root.status(STATUS)
        return (found.st_mtime_ns, found.st_size, found.st_ino) if found is not None else ()

    def release(self) -> str:
        """The code name of the system's release; empty when it says none."""
        text = (self._root.read_followed(_RELEASE) or b"").decode("utf-8", "replace")
        lines = dict(line.split("=", 1) for line in text.splitlines() if "=" in line)
        return lines.get("VERSION_CODENAME", "").strip("\"' ")

    def installed(self) -> list[Installed]:
        """Raises Trouble."""
        return installed_packages(self._root)

    @property
    def is_busy(self) -> bool:
        """Whether an earlier agent's installation goes on without it."""
        return self._apps.is_running(self._record)

    async def install(self, update: ccm.ApprovedUpdate, packages: list[str]) -> None:
        """Raises Trouble. What dpkg was killed in the middle of is ended first: as long as it is not,
        apt does nothing else."""
        try:
            await self._apps.dpkg(["--configure", "--pending"], self._record)
            if update.url:
                await self._from_content(update)
            else:
                await self._from_archives(update, packages)
            found = [one for one in self.installed() if one.name in packages]
            left = next((one for one in found if is_behind(update, one)), None)
            if left is not None and not left.whole:
                raise Trouble(
                    "update.not-there",
                    f"After the installation {left.name} is not configured.",
                    cure="What it printed is in WUAHandler.log on the device.",
                )
            if left is not None:
                raise Trouble(
                    "update.not-there",
                    f"After the installation {left.name} is of version {left.version}, and not of"
                    f" {update.fixed_version} or later.",
                    cure="Look whether the device's archives have the update.",
                )
        finally:
            self._apps.end(self._record)

    async def _from_content(self, update: ccm.ApprovedUpdate) -> None:
        package = Package(update.package, update.url, update.sha256, update.fixed_version)
        file = await self._apps.download(package)
        try:
            ended = await self._apps.dpkg(["--install", str(file)], self._record)
        finally:
            file.unlink(missing_ok=True)
        if ended:
            raise _failed("dpkg", ended)

    async def _from_archives(self, update: ccm.ApprovedUpdate, packages: list[str]) -> None:
        for words in (["update"], ["install", "--only-upgrade", *packages]):
            command = [*as_root(), "apt-get", *self._options(), *words]
            ended = await self._apps.run(command, b"", _APT_SECONDS, self._record)
            if ended:
                raise _failed(f"apt-get {words[0]}", ended)

    def _options(self) -> list[str]:
        options = ["-q", "-y", "-o", "Dpkg::Options::=--force-confold"]
        if self._root.is_system:
            return options
        root = str(self._root.path)
        more = {
            "Dir::Etc": f"{root}/etc/apt",
            "Dir::State": f"{root}/var/lib/apt",
            "Dir::State::status": f"{root}{STATUS}",
            "Dir::Cache": f"{root}/var/cache/apt",
            "Dir::Log": f"{root}/var/log/apt",
            "Dpkg::Options::": f"--root={root}",
            # Of a folder that is ours; who reads archives for a device is apt's to say.
            "APT::Sandbox::User": "root",
        }
        return [
            *options,
            *(word for name, value in more.items() for word in ("-o", f"{name}={value}")),
        ]


def concerned(
    update: ccm.ApprovedUpdate, installed: list[Installed], release: str
) -> list[Installed]:
    """What is installed that an update is about."""
    if update.release and update.release != release:
        return []
    return [
        one for one in installed if (one.source if update.source else one.name) == update.package
    ]


def is_behind(update: ccm.ApprovedUpdate, one: Installed) -> bool:
    if not one.whole:
        return True
    version = one.source_version if update.source else one.version
    return is_older(version, update.fixed_version)


def _failed(what: str, ended: int) -> Trouble:
    return Trouble(
        "update.install-failed",
        f"{what} ended with {ended}.",
        cure="What it printed is in WUAHandler.log on the device.",
    )
