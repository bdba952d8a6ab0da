"""The agent's platform on Windows: service, registry, msiexec, CIM, the MDM client and its certificate.

    registry = LocalMachine()                                  HKEY_LOCAL_MACHINE
    shell = PowerShell()                                       fixed scripts, JSON in and out
    WindowsBridge(registry, shell)                             `MdmBridge`: Windows's MDM client
    StoreChannel(shell, thumbprint)                            HTTPS and signatures with the MDM key
    inventory(shell), msiexec.install(…), service.status()

    python -m tandem.agent.platform.windows service            what the service manager starts
    python -m tandem.agent.platform.windows run | status | inventory | sync | enroll

It imports on every system, so that it is type-checked and tested there with recorded output; the few
functions that talk to Windows itself exist on Windows alone.
"""

from tandem.agent.platform.windows import msiexec, service
from tandem.agent.platform.windows.bridge import (
    BRIDGE_PROVIDER,
    CannotEnroll,
    RegistrationFailed,
    WindowsBridge,
    register,
)
from tandem.agent.platform.windows.certificates import StoreChannel
from tandem.agent.platform.windows.inventory import Inventory, inventory
from tandem.agent.platform.windows.programs import Done, PowerShell, ProgramFailed, Run
from tandem.agent.platform.windows.registry import (
    CLIENT_KEY,
    ENROLLMENTS_KEY,
    Enrollment,
    Registry,
    enrollment,
)

__all__ = [
    "BRIDGE_PROVIDER",
    "CLIENT_KEY",
    "ENROLLMENTS_KEY",
    "CannotEnroll",
    "Done",
    "Enrollment",
    "Inventory",
    "PowerShell",
    "ProgramFailed",
    "RegistrationFailed",
    "Registry",
    "Run",
    "StoreChannel",
    "WindowsBridge",
    "enrollment",
    "inventory",
    "msiexec",
    "register",
    "service",
]
