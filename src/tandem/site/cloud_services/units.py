"""The systemd unit of a gateway instance on a host of its own (systemd.exec(5), systemd.service(5)).

An instance listens, keeps a folder, and dials nobody. The unit leaves it that and nothing else: no
other file to write, no device, no new privilege, no namespace, of the capabilities the one for ports
below 1024. MemoryDenyWriteExecute is not set: it was not tried with every version of Python and libffi.
"""

import re
from dataclasses import dataclass
from pathlib import PurePosixPath

from tandem.site.cloud_services.model import Gateway, GatewayInstance

_TEMPLATE = """\
# Written by the site: changes are lost when it starts this instance again.
[Unit]
Description=Gateway {service_name}, instance {instance} ({region}, {group})
Wants=network-online.target
After=network-online.target
StartLimitIntervalSec=0

[Service]
Type=exec
ExecStart={program} gateway run --config {folder}/instance.toml
ExecReload=/bin/kill -HUP $MAINPID
Restart=on-failure
RestartSec=2
TimeoutStopSec=30
Slice={slice}
User={account}
Group={account}
UMask=0077
LimitNOFILE=262144
AmbientCapabilities=CAP_NET_BIND_SERVICE
CapabilityBoundingSet=CAP_NET_BIND_SERVICE
NoNewPrivileges=yes
ProtectSystem=strict
ReadWritePaths={folder}/state
ProtectHome=yes
PrivateTmp=yes
PrivateDevices=yes
PrivateIPC=yes
RemoveIPC=yes
ProtectProc=invisible
ProcSubset=pid
ProtectClock=yes
ProtectControlGroups=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
LockPersonality=yes
RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
SystemCallArchitectures=native
SystemCallErrorNumber=EPERM
SystemCallFilter=@system-service
SystemCallFilter=~@privileged @resources

[Install]
WantedBy=multi-user.target
"""


@dataclass(frozen=True, slots=True)
class Unit:
    """Names of one instance on its host, and the file that says them to systemd."""

    name: str
    folder: PurePosixPath
    text: str


def unit(
    gateway: Gateway, item: GatewayInstance, *, folder: PurePosixPath, program: str, account: str
) -> Unit:
    name = unit_name(item)
    mine = folder / name.removesuffix(".service")
    text = _TEMPLATE.format(
        service_name=gateway.service_name,
        instance=item.instance,
        region=_plain(gateway.region),
        group=_plain(gateway.resource_group),
        program=program,
        folder=mine,
        slice=f"tandem-{_escaped(gateway.resource_group)}.slice",
        account=account,
    )
    return Unit(name, mine, text)


def unit_name(item: GatewayInstance) -> str:
    """Prefixes are unique at a site, and letters and digits."""
    return f"tandem-gateway-{item.service_name.partition('.')[0]}-{item.instance}.service"


def _escaped(label: str) -> str:
    """As a part of a unit's name: a dash would make a slice inside a slice."""
    return re.sub(r"[^a-z0-9_.]", "_", label.lower()) or "_"


def _plain(label: str) -> str:
    """In a line of a unit file: no specifier, no line of its own."""
    return " ".join(label.replace("%", "%%").split())
