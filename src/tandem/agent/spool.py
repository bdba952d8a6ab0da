"""Messages that wait for the site: on disk before they count as said, gone when accepted.

One file a message, named by its order. A message keeps its id over every attempt, so the site
counts it once even when an answer is lost, and a restart loses none.
"""

from datetime import datetime
from hashlib import sha256
from typing import Any
from uuid import uuid4

import msgspec

from tandem.agent.folder import Folder
from tandem.protocols import ccm

# A device that cannot send for months keeps its newest messages.
MAX_MESSAGES = 2000


class Spool:
    """Several may be open on one folder: a bootstrap beside a client that runs."""

    def __init__(self, folder: Folder) -> None:
        self._folder = folder

    def _names(self) -> list[str]:
        return sorted(path.name for path in self._folder.path.glob("*.json"))

    def __len__(self) -> int:
        return len(self._names())

    def add(
        self, topic: int, state: int, at: datetime, data: dict[str, Any], once: str = ""
    ) -> ccm.Message:
        """Keep a message. When this returns, it will be sent.

        `once` names the occasion, for who notes only afterwards that it was said: killed in between
        it says it again, with the same id, and the site counts it once.
        """
        id = sha256(once.encode()).hexdigest()[:32] if once else uuid4().hex
        return self.keep(ccm.Message(id, topic, state, at, data))

    def keep(self, message: ccm.Message) -> ccm.Message:
        """Keep one that has its id already."""
        names = self._names()
        number = int(names[-1][:12]) + 1 if names else 1
        # The id keeps two that are added at the same moment apart.
        self._folder.write(f"{number:012d}-{message.id}.json", msgspec.json.encode(message))
        for name in names[: max(0, len(names) + 1 - MAX_MESSAGES)]:
            self._folder.remove(name)
        return message

    def oldest(self, limit: int) -> list[ccm.Message]:
        """The next messages to send, oldest first. Files that cannot be read are dropped."""
        found: list[ccm.Message] = []
        for name in self._names():
            if len(found) == limit:
                break
            message = self._folder.load(name, ccm.Message)
            if message is None:
                self._folder.remove(name)
            else:
                found.append(message)
        return found

    def accepted(self, ids: list[str]) -> None:
        """Forget what the site has."""
        done = set(ids)
        for name in self._names():
            message = self._folder.load(name, ccm.Message)
            if message is None or message.id in done:
                self._folder.remove(name)
        self._folder.sync()
