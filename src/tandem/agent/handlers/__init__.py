"""Handlers on Linux: what is in force becomes files, links of units, firewall rules, and apps.

    await Handlers(root, folder, gate, journal, http, now, …).act()

Each call looks at what the gate says is in force, asks it again before each write, detects first,
and writes only what differs. Under `root` alone: a folder in tests, `/` on a device. A device
without a root keeps values and has no effects. What was there before is kept beside the agent, and
comes back when the setting is withdrawn. Killed at any point, the next call goes on.
"""

from tandem.agent.handlers.compliance import facts
from tandem.agent.handlers.hardware import hardware, hardware_id
from tandem.agent.handlers.model import Effect
from tandem.agent.handlers.root import Root
from tandem.agent.handlers.service import FACTS, Handlers

__all__ = ["FACTS", "Effect", "Handlers", "Root", "facts", "hardware", "hardware_id"]
