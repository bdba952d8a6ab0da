"""What the agent needs of the machine it runs on. `agent.mdm` and tests implement it."""

from tandem.agent.platform.model import (
    CannotRestart,
    ConfigurationGate,
    DeviceJoin,
    DirectoryBroker,
    Machine,
    MdmBridge,
    MdmEnrollment,
    NotJoined,
    NoToken,
    Restart,
)

__all__ = [
    "CannotRestart",
    "ConfigurationGate",
    "DeviceJoin",
    "DirectoryBroker",
    "Machine",
    "MdmBridge",
    "MdmEnrollment",
    "NoToken",
    "NotJoined",
    "Restart",
]
