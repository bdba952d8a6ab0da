"""One machine from its settings."""

from pathlib import Path

import httpx
from cryptography import x509

from tandem.agent.platform import Machine
from tandem.agent.platform.certificate import (
    CertificateBroker,
    CertificateFile,
    EitherBroker,
    MeetingChannel,
)
from tandem.agent.platform.meeting import FolderBridge, JoinBroker, MeetingPlace
from tandem.agent.platform.restart import SystemRestart
from tandem.agent.roaming import network_state
from tandem.agent.settings import AgentSettings
from tandem.infra import net
from tandem.infra.clock import utc_now


def machine_of(
    settings: AgentSettings,
    place: MeetingPlace,
    http: httpx.AsyncClient,
    trusted_root: x509.Certificate,
) -> Machine:
    resolver = net.Resolver(settings.resolver or None)
    enrolled = CertificateBroker(place, MeetingChannel(place, resolver, settings.ca_file))
    return Machine(
        state=settings.state,
        name=settings.name,
        mdm=FolderBridge(place),
        directory=EitherBroker(place, JoinBroker(place, http, utc_now), enrolled),
        http=http,
        trusted_root=trusted_root,
        os_version=settings.os_version,
        os_name="Windows (simulated)" if settings.simulated else "Windows",
        minute_seconds=settings.minute_seconds,
        durable=settings.durable,
        root=settings.root,
        own_network=settings.own_network,
        certificate=_certificate(settings, resolver),
        network=network_state,
        # A folder is not a device, and Windows is restarted by its own MDM client.
        restart=SystemRestart() if settings.root == Path("/") else None,
    )


def _certificate(settings: AgentSettings, resolver: net.Resolver) -> CertificateFile | None:
    if settings.client_certificate is None or settings.client_key is None:
        return None
    return CertificateFile(
        settings.client_certificate,
        settings.client_key,
        resolver=resolver,
        ca_file=settings.ca_file,
    )
