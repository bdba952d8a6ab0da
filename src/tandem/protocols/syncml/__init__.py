"""OMA-DM 1.2 messages: SyncML in and out, no I/O (windows-mdm.md 11).

device                                         server
  Alert 1201, Replace DevInfo (message 1)  →
                                           ←   Status for each, then Get, Add, Exec …
  Status for each, Results (message 2)     →
                                           ←   Status for the header, more commands
  Status … (message 3)                     →
                                           ←   Status for the header, Final: the session ends
"""

from tandem.protocols.syncml.codec import normal, read, same_node, whole, write
from tandem.protocols.syncml.model import (
    BadMessage,
    Challenge,
    Command,
    Credential,
    Item,
    Message,
    Results,
    Status,
)

__all__ = [
    "BadMessage",
    "Challenge",
    "Command",
    "Credential",
    "Item",
    "Message",
    "Results",
    "Status",
    "normal",
    "read",
    "same_node",
    "whole",
    "write",
]
