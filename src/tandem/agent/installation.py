"""What the bootstrap leaves behind for the client, and where everything of it lies."""

import shutil
from pathlib import Path

import msgspec

from tandem.agent.folder import Folder
from tandem.agent.session import Connection
from tandem.protocols import ccm

FILE = "client.json"


class Installation(msgspec.Struct, frozen=True):
    """An installed client. `client_id` is empty until the site has registered it."""

    command_line: str
    site_code: str
    connection: Connection
    version: str
    file_name: str
    always_internet: bool = False
    smsmp: str = ""
    client_id: str = ""
    manifest: ccm.ClientManifest | None = None


def client_folder(state: Path, durable: bool) -> Folder:
    return Folder(state / "CCM", durable)


def remove(folder: Folder) -> None:
    """Take the client away. Its key and its ledger stay: they prove what was."""
    for name in (FILE, "gate.json", "policy.json", "handler.json"):
        folder.remove(name)
    shutil.rmtree(folder.path / "client", ignore_errors=True)


def installed(folder: Folder) -> Installation | None:
    return folder.load(FILE, Installation)
