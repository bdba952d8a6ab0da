"""Messages that wait for the site: on disk before they count as said, gone when accepted.

One file a message, named by its order. A message keeps its id over every attempt, so the site
counts it once even when an answer is lost, and a restart loses none.
"""

from datetime import datetime
from typing import Any
from uuid import uuid4

import msgspec

from tandem.agent.folder import Folder
from tandem.protocols import ccm

# A device that cannot send for months keeps its newest messages.
MAX_MESSAGES = 2000


class Spool:
    def __init__(self, folder: Folder) -> None:
        self._folder = folder
        self._names = sorted(p.name for p in folder.path.glob("*.json"))
        self._next = int(self._names[-1].partition(".")[0]) + 1 if self._names else 1

    def __len__(self) -> int:
        return len(self._names)

    def add(self, topic: int, state: int, at: datetime, data: dict[str, Any]) -> ccm.Message:
        """Keep a message. When this returns, it will be sent."""
        message = ccm.Message(uuid4().hex, topic, state, at, data)
        name = f"{self._next:012d}.json"
        self._folder.write(name, msgspec.json.encode(message))
        self._names.append(name)
        self._next += 1
        if len(self._names) > MAX_MESSAGES:
            self._folder.remove(self._names.pop(0))
        return message

    def oldest(self, limit: int) -> list[ccm.Message]:
        """The next messages to send, oldest first. Files that cannot be read are dropped."""
        found: list[ccm.Message] = []
        for name in list(self._names):
            if len(found) == limit:
                break
            message = self._folder.load(name, ccm.Message)
            if message is None:
                self._drop(name)
            else:
                found.append(message)
        return found

    def accepted(self, ids: list[str]) -> None:
        """Forget what the site has."""
        done = set(ids)
        for name in list(self._names):
            message = self._folder.load(name, ccm.Message)
            if message is None or message.id in done:
                self._drop(name)
        self._folder.sync()

    def _drop(self, name: str) -> None:
        self._folder.remove(name)
        self._names.remove(name)
