"""The client's daily look at itself (ccmeval): its package is there and whole, or is fetched again.

Content comes from the gateway only where the client settings allow it.
"""

import shutil

from tandem.agent import download
from tandem.agent.folder import Folder
from tandem.agent.installation import Installation
from tandem.agent.journal import ERROR, WARNING, Journal
from tandem.agent.platform import Machine
from tandem.agent.session import Session
from tandem.infra.errors import AppError

LOG = "CcmEval"
EVERY_MINUTES = 1440


async def repair(
    machine: Machine,
    folder: Folder,
    installation: Installation,
    session: Session,
    journal: Journal,
    *,
    from_gateway: bool,
) -> bool:
    """Whether the client's package is whole afterwards."""
    wanted = installation.manifest
    if wanted is None:
        return True
    file = folder.below("client").path / wanted.file_name
    if file.exists() and download.digest(file) == wanted.sha256:
        journal.write(LOG, "The client's package is whole.")
        return True
    journal.write(LOG, f"{wanted.file_name} is missing or altered.", WARNING)
    if not from_gateway:
        journal.write(LOG, "Client settings do not allow content from the gateway.", WARNING)
        return False
    # The bootstrap's copy may be what was damaged: it is checked and fetched like the first time.
    cache = Folder(machine.state / "ccmsetup", machine.durable)
    try:
        found = await download.package(session, cache, wanted, journal)
    except AppError as error:
        journal.write(LOG, f"It could not be fetched: {error.message}", ERROR)
        return False
    whole = file.with_name(f".{wanted.file_name}")
    shutil.copyfile(found, whole)
    whole.replace(file)
    journal.write(LOG, "The client's package was repaired.")
    return True
