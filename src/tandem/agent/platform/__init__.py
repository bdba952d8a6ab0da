"""What the agent needs of the machine it runs on. `agent.mdm` and tests implement it."""

from tandem.agent.platform.model import (
    ConfigurationGate,
    DeviceJoin,
    DirectoryBroker,
    Machine,
    MdmBridge,
    MdmEnrollment,
    NotJoined,
    NoToken,
)

__all__ = [
    "ConfigurationGate",
    "DeviceJoin",
    "DirectoryBroker",
    "Machine",
    "MdmBridge",
    "MdmEnrollment",
    "NoToken",
    "NotJoined",
]
