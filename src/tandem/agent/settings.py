"""Settings of the agent as a process of its own."""

from pathlib import Path

from tandem.infra.config import Settings


class AgentSettings(Settings, frozen=True):
    state: Path  # Everything of this device: key, policy, spool, logs.
    name: str  # The device's name, as the site shows it.
    meeting: Path  # The folder in which the MDM client and the agent meet.
    os_version: str = "10.0.22631.1"
    resolver: str = ""  # "address:port" of a DNS server; empty: the system's.
    ca_file: Path | None = None  # Trusted roots for TLS; empty: the system's.
    simulated: bool = False  # Said to the site wherever the device says what it is.
    minute_seconds: float = 60.0  # How long one minute of every interval lasts.
    durable: bool = True  # False leaves the time of writing to the disk.
    # Where policy has its effects on a Linux device: "/" changes the device itself, another folder
    # only what is in it. Empty: values are kept with who set them, and nothing acts on them.
    root: Path | None = None
    # True: this process has a network of its own (a namespace), so that firewall rules are the
    # device's also where `root` is a folder.
    own_network: bool = False
    # A client certificate with those above it, and its key, in PEM: what /UsePKICert uses.
    client_certificate: Path | None = None
    client_key: Path | None = None
    logs: Path | None = None  # JSON lines of the process; the device's own logs lie in state/Logs.
