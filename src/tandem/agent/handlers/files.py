"""Files: content, mode and owner."""

import stat
from hashlib import sha256

from tandem.agent.folder import Folder
from tandem.agent.handlers.model import Before, Record, Trouble
from tandem.agent.handlers.root import Root
from tandem.workloads.instructions import File

_MODE_BITS = 0o7777


class Files:
    """`kept` is where contents lie that were there before."""

    def __init__(self, root: Root, kept: Folder) -> None:
        self._root = root
        self._kept = kept

    def in_place(self, wanted: File) -> bool:
        """Whether the file is as it is to be. Raises Trouble."""
        status = self._root.status(wanted.path)
        if wanted.absent:
            return status is None
        if status is None or not stat.S_ISREG(status.st_mode):
            return False
        uid, gid = self._owner(wanted)
        return (
            stat.S_IMODE(status.st_mode) == int(wanted.mode, 8)
            and uid in (-1, status.st_uid)
            and gid in (-1, status.st_gid)
            and self._root.read(wanted.path) == wanted.content.encode()
        )

    def prepare(self, wanted: File, record: Record, name: str) -> None:
        """Note in the record what is there, before it is replaced. Raises Trouble."""
        self._owner(wanted)
        if record.before is None:
            data = self._root.read(wanted.path)
            status = self._root.status(wanted.path)
            if data is None or status is None:
                record.before = Before(False)
            else:
                self._kept.write(f"{name}.before", data)
                record.before = Before(
                    True, stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid
                )
        if not wanted.absent:
            record.folders += self._root.missing(wanted.path)
        digest = _digest(None if wanted.absent else wanted.content.encode())
        if digest not in record.wrote:
            record.wrote.append(digest)

    def write(self, wanted: File, record: Record) -> None:
        if wanted.absent:
            self._root.read(wanted.path)  # Refuses what is no file.
            self._root.remove(wanted.path)
        else:
            data, mode = wanted.content.encode(), int(wanted.mode, 8)
            self._root.write(wanted.path, data, mode, *self._owner(wanted))
        record.wrote = record.wrote[-1:]

    def undo(self, path: str, record: Record, name: str) -> bool:
        """Put back what was there. False: somebody else has changed it since, and it stays."""
        if record.before is None:
            return True
        before = record.before
        data = self._kept.read(f"{name}.before") if before.exists else None
        if before.exists and data is None:
            raise Trouble("file.nothing-kept", f"What {path} was before is not kept any more.")
        # What was there before is there when an agent was killed while it undid this.
        if _digest(self._root.read(path)) not in (*record.wrote, _digest(data)):
            return False
        if data is not None:
            self._root.write(path, data, before.mode, before.uid, before.gid)
        else:
            self._root.remove(path)
            for folder in reversed(record.folders):
                self._root.remove_folder(folder)
        return True

    def _owner(self, wanted: File) -> tuple[int, int]:
        return self._id("etc/passwd", wanted.owner), self._id("etc/group", wanted.group)

    def _id(self, table: str, name: str) -> int:
        """The number of a user or group of this root; -1 where none is asked for."""
        if not name:
            return -1
        if name.isascii() and name.isdigit():
            return int(name)
        lines = (self._root.read_followed(f"/{table}") or b"").decode("utf-8", "replace")
        for line in lines.splitlines():
            fields = line.split(":")
            if fields[0] == name and len(fields) > 2 and fields[2].isdigit():
                return int(fields[2])
        raise Trouble(
            "file.no-such-owner",
            f"There is no {name} in /{table}.",
            cure="Name one that the device has, or let an app make it first.",
        )


def _digest(data: bytes | None) -> str:
    return "absent" if data is None else sha256(data).hexdigest()
