"""Settings of the simulator."""

from pathlib import Path

from tandem.infra.config import Settings


class SimulatedDevice(Settings, frozen=True):
    name: str
    upn: str
    password_file: Path  # Read when the user signs in.
    os_version: str = "10.0.22631.4317"
    join: bool = True  # False: its user enrols it in MDM alone, as with a directory it cannot join.


class SimulatorSettings(Settings, frozen=True):
    state: Path  # What all devices keep, one folder each.
    control: Path  # The socket on which it is directed; its path is short and private.
    tenant_url: str
    tenant_id: str
    devices: list[SimulatedDevice] = []
    resolver: str = ""  # "address:port" of a DNS server; empty: the system's.
    ca_file: Path | None = None  # Trusted roots for TLS; empty: the system's.
    minute_seconds: float = 60.0  # How long a minute of the MDM clients' intervals lasts.
    client_minute_seconds: float = 60.0  # The same for the agents.
    enroll_at_once: int = 8  # How many devices enrol at the same time.
    logs: Path | None = None
