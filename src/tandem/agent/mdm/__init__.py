"""The MDM client of a device: what the operating system is on Windows (MS-MDE2, OMA-DM).

    devices = Devices([DeviceSettings(...), ...], folder, resolver=..., ca_file=...)
    await devices.run(stop)                         # sessions by schedule and on demand
    await devices.enroll("LAB-001")                 # sign in, join, enrol; raises AppError
    await serve(devices, socket, stop, simulated=…) # run, and follow orders through a socket

Written from the specification, on the other side of the wire from the server's, of whose codecs it
uses none. Everything lasting is in the device's state folder:

    AAD/       join key and certificate, refresh token      MDM/    enrollment, settings, packages
    meeting/   where MDM client and agent meet              agent/  the agent's own state and logs
"""

from tandem.agent.mdm.computer import run
from tandem.agent.mdm.control import Answer, NotRunning, Refusal, ask, serve
from tandem.agent.mdm.device import Device, Network
from tandem.agent.mdm.devices import Devices, NoSuchDevice
from tandem.agent.mdm.directory import enrollment_token
from tandem.agent.mdm.installer import AgentHosts, BadBootstrap
from tandem.agent.mdm.model import (
    Account,
    Applied,
    BadAnswer,
    ComputerSettings,
    DeviceSettings,
    EnrollmentRefused,
    JoinRefused,
    MdmError,
    Problem,
    SignInRefused,
    Status,
    Unreachable,
)
from tandem.agent.mdm.session import SessionRefused

__all__ = [
    "Account",
    "AgentHosts",
    "Answer",
    "Applied",
    "BadAnswer",
    "BadBootstrap",
    "ComputerSettings",
    "Device",
    "DeviceSettings",
    "Devices",
    "EnrollmentRefused",
    "JoinRefused",
    "MdmError",
    "Network",
    "NoSuchDevice",
    "NotRunning",
    "Problem",
    "Refusal",
    "SessionRefused",
    "SignInRefused",
    "Status",
    "Unreachable",
    "ask",
    "enrollment_token",
    "run",
    "serve",
]
