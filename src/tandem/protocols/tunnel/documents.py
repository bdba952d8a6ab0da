"""What site, connection point and gateway tell each other about the gateway, as JSON.

The site makes a `Configuration` for each gateway. It reaches the connection point in a
`ConnectorConfiguration` and the gateway over the tunnel. The gateway gets the external half only:
what is published and whom to believe, never where it leads.
"""

from typing import Any, Literal

import msgspec

from tandem.protocols.tunnel.answers import EdgeAnswers
from tandem.protocols.tunnel.content import ContentService

Auth = Literal["anonymous", "token", "certificate"]
Ocsp = Literal["off", "soft", "hard"]

MEBIBYTE = 1024 * 1024


class Tenant(msgspec.Struct, frozen=True):
    """A directory whose tokens count. `jwks` holds its public keys; `authority` is for devices."""

    tenant_id: str
    client_app_id: str
    app_id_uri: str
    issuers: list[str]
    jwks: dict[str, Any]
    authority: str = ""
    # Version 2 tokens name the server app by its id, not by its URI.
    server_app_id: str = ""


class Endpoint(msgspec.Struct, frozen=True):
    """A published URL prefix. A path matches when it is the prefix or goes on with `/` or `?`."""

    prefix: str
    methods: list[str]
    max_body_bytes: int
    auth: list[Auth]
    # Requests here may be held for so long before they are answered; 0: they are like all others.
    hold_seconds: float = 0


class Limits(msgspec.Struct, frozen=True):
    header_bytes: int = 32 * 1024
    body_bytes: int = 16 * MEBIBYTE
    idle_seconds: float = 120
    request_seconds: float = 60
    requests_per_connection_point: int = 512
    # Held requests do nothing while they wait, so they are counted apart from the others.
    held_per_connection_point: int = 10_000
    # A tunnel on which nothing was heard for so long is closed: connection points send a PING
    # more than three times as often.
    tunnel_silence_seconds: float = 100
    # From a request's first byte until its head is whole; then its body has as long again and one
    # second more for each `body_bytes_per_second` of it.
    header_seconds: float = 20
    body_bytes_per_second: int = 1024
    # A client that takes nothing of its answer for so long is cut off.
    stall_seconds: float = 60
    # Requests that wait for a connection point with room, for how long, and for how long while
    # there is none at all.
    queue: int = 2048
    queue_seconds: float = 20
    reconnect_seconds: float = 2
    # Of one worker. When they are all taken, those that have been idle longest are closed.
    connections: int = 15_000
    # 0: no limit. Of one worker, too; requests in ten seconds. What is `unknown` has no token and no
    # certificate that counts.
    connections_per_address: int = 0
    requests_per_client: int = 0
    under_way_per_client: int = 0
    unknown_requests_per_address: int = 0


class Configuration(msgspec.Struct, frozen=True):
    """Everything a gateway knows besides its own addresses and key. `version` only grows."""

    version: int
    service_name: str
    site_code: str
    tenants: list[Tenant] = []
    site_token_keys: dict[str, Any] = {}
    trusted_roots: list[str] = []
    crls: list[str] = []
    check_revocation: bool = True
    # What else is asked about a client's certificate that names a responder (OCSP), while revocation
    # is checked: nothing; its responder, and who cannot be asked about passes (soft) or does not (hard).
    ocsp: Ocsp = "off"
    # At the latest after so many seconds it is asked again, whatever the answer said.
    ocsp_seconds: float = 3600
    endpoints: list[Endpoint] = []
    limits: Limits = Limits()
    # None: every request goes to the site.
    answers: EdgeAnswers | None = None
    # A gateway that knows nothing of content leaves this out, and serves none.
    content: ContentService | None = None


class Instance(msgspec.Struct, frozen=True):
    instance: int
    host: str
    https_port: int
    tunnel_port: int


class GatewayTarget(msgspec.Struct, frozen=True):
    """A gateway to dial. `server_name` is the name its certificate must carry."""

    service_name: str
    server_name: str
    connection_id: str
    instances: list[Instance]
    configuration: Configuration


class Mapping(msgspec.Struct, frozen=True):
    """An external prefix, and the internal URL that takes its place."""

    prefix: str
    url: str
    hold_seconds: float = 0


class WebProxy(msgspec.Struct, frozen=True):
    """The HTTP proxy by which a connection point leaves its network, and its account there."""

    host: str
    port: int
    user: str = ""
    password: str = ""

    def __repr__(self) -> str:
        return f"WebProxy({self.host}:{self.port})"


class ConnectorConfiguration(msgspec.Struct, frozen=True):
    connection_point: str
    gateways: list[GatewayTarget]
    map: list[Mapping]
    web_proxy: WebProxy | None = None


# How a tunnel comes to the gateway: TLS to the tunnel's own port, or a WebSocket through HTTPS.
Carrier = Literal["tls", "https"]


class Failure(msgspec.Struct, frozen=True):
    """An attempt at a tunnel that failed, or a tunnel that broke."""

    at: float
    carrier: str
    reason: str


class ConnectionState(msgspec.Struct, frozen=True):
    """One tunnel, or the attempt at one. `worker` names a process of the instance; `failures` are
    those of late, the latest first."""

    service_name: str
    instance: int
    state: Literal["connected", "connecting", "disconnected"]
    worker: str = ""
    since: float = 0.0
    reason: str = ""
    carrier: str = ""
    through: str = ""  # The web proxy, where it goes through one.
    failures: list[Failure] = []


class Traffic(msgspec.Struct, frozen=True):
    """Requests through one endpoint since the last report."""

    service_name: str
    endpoint: str
    requests: int
    failures: int
    request_bytes: int
    response_bytes: int
    elapsed_ms: float
    max_concurrent: int = 0


class Counted(msgspec.Struct, frozen=True):
    """What a gateway's worker counted of one published prefix by one connection point (empty: it
    answered itself). Bytes of answers are bodies and heads, of requests bodies."""

    endpoint: str
    connection_point: str
    requests: int
    failures: int
    request_bytes: int
    response_bytes: int
    elapsed_ms: float


class LogLine(msgspec.Struct, frozen=True):
    """Of a worker's CMGService.log; `at` in seconds since 1970."""

    at: float
    severity: int
    text: str


class Telling(msgspec.Struct, frozen=True):
    """What one worker tells the site. `run` is new with each process; each `sequence` of it counts
    once, however often it arrives. `online` devices wait for news at the site just now."""

    run: str
    sequence: int
    worker: int = 1
    counts: list[Counted] = []
    connections: int = 0
    online: int = 0
    lines: list[LogLine] = []


class Told(msgspec.Struct, frozen=True):
    """The site has written a telling down."""

    run: str
    sequence: int


class GatewayTelling(msgspec.Struct, frozen=True):
    """A worker's telling in the report of a connection point, which knows whose it is."""

    service_name: str
    instance: int
    telling: Telling


class ConnectorReport(msgspec.Struct, frozen=True):
    """`traffic` is what this process counted under `sequence`, as a telling is. Sites of the
    release before know neither, and take it each time."""

    connection_point: str
    connections: list[ConnectionState] = []
    traffic: list[Traffic] = []
    run: str = ""
    sequence: int = 0
    tellings: list[GatewayTelling] = []


class ReportAnswer(msgspec.Struct, frozen=True):
    """Which tellings the site has now."""

    told: list[Told] = []


class Hello(msgspec.Struct, frozen=True):
    """The connection point's first frame. Peers of version 1 say nothing of versions."""

    connection_id: str
    connection_point: str
    newest: int = 1
    oldest: int = 1


class GatewayHello(msgspec.Struct, frozen=True):
    """The worker's answer: which of how many it is, which configuration it has, and which version
    of the tunnel's protocol both speak from now on."""

    instance: int
    worker: str
    workers: int
    version: int
    protocol: int = 1
