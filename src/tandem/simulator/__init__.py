"""Many simulated devices in one process, each with the real protocols.

A simulated device is the same code as a real one (`tandem.agent.mdm`, and an agent that runs from
the wheel in the MSI it was told to install); what is simulated is the machine: its name, its
hardware, and that the operating system obeys. It says so wherever it says what it is.

Who starts it directs it through a private socket (`ask`).

`checking` has one device more, which holds every answer of a server against the specification.
"""

from tandem.agent.mdm import Answer, NotRunning, ask
from tandem.simulator.fleet import run
from tandem.simulator.settings import SimulatedDevice, SimulatorSettings

__all__ = ["Answer", "NotRunning", "SimulatedDevice", "SimulatorSettings", "ask", "run"]
