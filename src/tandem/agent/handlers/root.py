"""Files under a root folder: links are followed inside it, and nothing leads out of it."""

import errno
import os
import stat
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from tandem.agent.handlers.model import Trouble

_LINKS = 40
if sys.platform == "win32":  # The agent of Windows has no root, and only has to load this.
    _FOLDER = _DIRECTORY = 0
else:
    _FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
    _DIRECTORY = _FOLDER | os.O_NOFOLLOW
MOST_BYTES = 16 * 1024 * 1024


class Root:
    def __init__(self, path: Path, forbidden: Path) -> None:
        """`forbidden` is the folder of the agent itself, which nobody configures by policy."""
        self.path = path
        self._forbidden = Path(os.path.realpath(forbidden))

    @property
    def is_system(self) -> bool:
        return os.path.realpath(self.path) == "/"

    @contextmanager
    def parent(self, path: str, *, make: bool = False) -> Iterator[tuple[int, str]]:
        """The open folder of a file, and the file's name in it.

        Raises FileNotFoundError unless folders that are missing are to be made, and Trouble where a
        path goes through something that is no folder.
        """
        *parts, name = path.strip("/").split("/")
        with ExitStack() as opened:

            def enter(name: str, above: int) -> int:
                descriptor = os.open(name, _DIRECTORY, dir_fd=above)
                opened.callback(os.close, descriptor)
                return descriptor

            top = os.open(self.path, _FOLDER)
            opened.callback(os.close, top)
            stack, waiting, links = [top], parts[::-1], 0
            while waiting:
                part = waiting.pop()
                if part in ("", "."):
                    continue
                if part == "..":
                    stack = stack[:-1] or [top]
                    continue
                try:
                    stack.append(enter(part, stack[-1]))
                except FileNotFoundError:
                    if not make:
                        raise
                    os.mkdir(part, 0o755, dir_fd=stack[-1])
                    os.fsync(stack[-1])
                    stack.append(enter(part, stack[-1]))
                except OSError as error:
                    if error.errno not in (errno.ELOOP, errno.ENOTDIR):
                        raise
                    links += 1
                    try:
                        target = os.readlink(part, dir_fd=stack[-1])
                    except OSError:
                        target = ""
                    if not target or links > _LINKS:
                        raise Trouble(
                            "path.not-a-folder",
                            f"{path} goes through {part}, which is no folder.",
                            cure="Name another path, or take away what lies there.",
                        ) from None
                    if target.startswith("/"):
                        stack = [top]
                    waiting += target.split("/")[::-1]
            here = Path(os.path.realpath(f"/proc/self/fd/{stack[-1]}"))
            if (here / name).is_relative_to(self._forbidden):
                raise Trouble("path.of-the-agent", f"{path} belongs to the agent itself.")
            yield stack[-1], name

    def missing(self, path: str) -> list[str]:
        """The folders above a path that are not there, the highest first."""
        parts = path.strip("/").split("/")[:-1]
        above = ["/" + "/".join(parts[: length + 1]) for length in range(len(parts))]
        return [folder for folder in above if self.status(folder) is None]

    def status(self, path: str) -> os.stat_result | None:
        """Of the path itself: a link is not followed. None when nothing is there."""
        try:
            with self.parent(path) as (folder, name):
                return os.stat(name, dir_fd=folder, follow_symlinks=False)
        except FileNotFoundError:
            return None

    def read(self, path: str) -> bytes | None:
        """The content of a regular file; None when nothing is there. Raises Trouble."""
        try:
            with self.parent(path) as (folder, name):
                status = os.stat(name, dir_fd=folder, follow_symlinks=False)
                if not stat.S_ISREG(status.st_mode):
                    raise Trouble(
                        "path.not-a-file",
                        f"{path} is a link, a folder or a device, and no file.",
                        cure="Name the file that is meant.",
                    )
                if status.st_size > MOST_BYTES:
                    raise Trouble("file.too-large", f"{path} is too large to be kept.")
                descriptor = os.open(
                    name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder
                )
                with os.fdopen(descriptor, "rb") as file:
                    return file.read(MOST_BYTES + 1)
        except FileNotFoundError:
            return None

    def read_followed(self, path: str) -> bytes | None:
        """A file that may be a link, as configuration of the system often is. None without one."""
        for _ in range(_LINKS):
            status = self.status(path)
            if status is None or not stat.S_ISLNK(status.st_mode):
                return None if status is None else self.read(path)
            target = self.link(path) or ""
            path = target if target.startswith("/") else f"{path.rpartition('/')[0]}/{target}"
        return None

    def write(self, path: str, data: bytes, mode: int, uid: int, gid: int) -> None:
        """Replace a file, all or nothing. An owner of -1 is whoever it comes to be."""
        with self.parent(path, make=True) as (folder, name):
            part = f".{name[:200]}.tandem"
            flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
            opened = os.open(part, flags, 0o600, dir_fd=folder)
            try:
                with os.fdopen(opened, "wb") as file:
                    file.write(data)
                    os.fchown(file.fileno(), uid, gid)
                    os.fchmod(file.fileno(), mode)
                    file.flush()
                    os.fsync(file.fileno())
                os.replace(part, name, src_dir_fd=folder, dst_dir_fd=folder)
                os.fsync(folder)
            except BaseException:
                with suppress(FileNotFoundError):
                    os.unlink(part, dir_fd=folder)
                raise

    def remove(self, path: str) -> None:
        try:
            with self.parent(path) as (folder, name):
                os.unlink(name, dir_fd=folder)
                os.fsync(folder)
        except FileNotFoundError:
            return

    def remove_folder(self, path: str) -> None:
        """Unless something lies in it."""
        try:
            with self.parent(path) as (folder, name):
                os.rmdir(name, dir_fd=folder)
        except (OSError, Trouble):
            return

    def link(self, path: str) -> str | None:
        """Where a link points; None when there is none."""
        try:
            with self.parent(path) as (folder, name):
                return os.readlink(name, dir_fd=folder)
        except (OSError, Trouble):
            return None

    def make_link(self, path: str, target: str) -> None:
        with self.parent(path, make=True) as (folder, name):
            part = f".{name[:200]}.tandem"
            with suppress(FileNotFoundError):
                os.unlink(part, dir_fd=folder)
            os.symlink(target, part, dir_fd=folder)
            os.replace(part, name, src_dir_fd=folder, dst_dir_fd=folder)
            os.fsync(folder)

    def names(self, path: str) -> list[str]:
        """What lies in a folder; nothing when there is none."""
        try:
            with self.parent(f"{path}/.x") as (folder, _):
                return sorted(os.listdir(folder))
        except (OSError, Trouble):
            return []
