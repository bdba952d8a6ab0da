"""The device side of the site: bootstrap (ccmsetup), registration, policy, co-management.

One device, in any event loop, beside any number of others:

    machine = Machine(
        state=folder,                 # all that this device keeps; the key in it never leaves
        name="LAB-001",
        mdm=bridge,                   # MdmBridge: the device's MDM client
        directory=broker,             # DirectoryBroker: join state and directory tokens
        http=net.client(...),         # httpx client, may be shared by many devices
        trusted_root=certificate,     # x509, from the MSI (SMSPUBLICROOTKEY)
        minute_seconds=60.0,          # how long one minute of every interval lasts
    )
    result = await Bootstrap(machine, command_line).run(stop)   # command_line: as the MSI got it
    if result.code in (0, 7):         # 0 success; result.state, result.message, result.cure otherwise
        await Client(machine).run(stop)

`command_line` is the whole text after the MSI's name (`CCMSETUPCMD="CCMHOSTNAME=… SMSSITECODE=…"`)
or what is between those quotes. `Bootstrap.run` goes on where a killed one stopped, retries what
passes, and returns at once when the client is already installed by the same command line.
`Client.run` runs until `stop`; `Client.step()` does everything that is due once and returns the
seconds until something is due again; `Client.wake()` makes policy and messages due now (a
notification, or a test). Both may be killed at any moment; a new object on the same folder goes on.

The agent hands its `gate` to `MdmBridge.install_gate` as soon as a Client exists: from then on an
MDM value is applied through `gate.offer(Authority.MDM, workload, setting, value)` only.

When MDM client and agent are two processes they meet in a folder (`MeetingPlace`): `Host` waits
there for the MSI's command line, sets up, and is the client from then on. The MDM client's process
asks `open_gate(state, now)`; `None` means that no client is installed.
"""

from tandem.agent.assembly import machine_of
from tandem.agent.client import Client
from tandem.agent.gate import Gate, open_gate
from tandem.agent.host import Host
from tandem.agent.platform import (
    ConfigurationGate,
    DeviceJoin,
    DirectoryBroker,
    Machine,
    MdmBridge,
    MdmEnrollment,
    NotJoined,
    NoToken,
)
from tandem.agent.platform.meeting import JoinRecord, MeetingPlace, SetupRequest, Wanted
from tandem.agent.settings import AgentSettings
from tandem.agent.setup import Bootstrap, SetupResult

__all__ = [
    "AgentSettings",
    "Bootstrap",
    "Client",
    "ConfigurationGate",
    "DeviceJoin",
    "DirectoryBroker",
    "Gate",
    "Host",
    "JoinRecord",
    "Machine",
    "MdmBridge",
    "MdmEnrollment",
    "MeetingPlace",
    "NoToken",
    "NotJoined",
    "SetupRequest",
    "SetupResult",
    "Wanted",
    "machine_of",
    "open_gate",
]
