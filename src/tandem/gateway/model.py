"""Settings of a gateway instance and of a connection point, and what clients are refused with."""

import math
import re
from dataclasses import dataclass
from pathlib import Path

import msgspec

from tandem.infra.config import Settings
from tandem.infra.errors import AppError, Kind
from tandem.protocols import tunnel

# Encoded dots, slashes, backslashes, percent signs and controls have no business in these paths.
UNSAFE_PATH = re.compile(
    r"%(2e|2f|5c|25|0[0-9a-f]|1[0-9a-f]|7f)|\\|//|/\.{1,2}(/|$)", re.IGNORECASE
)


class GatewaySettings(Settings, frozen=True):
    service_name: str
    pfx: Path
    pfx_password_file: Path
    connector_ca: Path  # Who may open a tunnel: certificates of this authority.
    connection_id: str  # …that know this, too.
    state: Path
    instance: int = 1
    host: str = "0.0.0.0"  # noqa: S104  The gateway is on the internet.
    port: int = 443
    tunnel_port: int = 10140
    health: str = "127.0.0.1:10300"
    workers: int = 1
    logs: Path | None = None
    # Where copies of content lie, encrypted: a folder or a URL like s3://bucket/prefix, whose options
    # (a table [options]) lie in a file; empty: a folder in `state`.
    content: str = ""
    content_options_file: Path | None = None
    # TLS in aiofastnet (38 KB an idle connection) or, switched off, in uvloop.
    fast_tls: bool = True
    # How long requests under way may take to end when the instance is told to stop.
    drain_seconds: float = 5.0
    # Seconds between two lines about each endpoint in CMGService.log, and two words to the site.
    tell_seconds: float = 60.0


class ConnectorSettings(Settings, frozen=True):
    connection_point: str
    management_point_url: str
    certificate: Path  # The role certificate, from the site's issuing root.
    key: Path
    site_root: Path
    state: Path
    gateway_ca_file: Path | None = None  # Roots for the gateway's certificate; unset: the system's.
    logs: Path | None = None
    health: str = ""
    # Seconds: how long a poll for news may wait, until a lost tunnel is dialled again at first and
    # at most, between two reports, between two signs of life on a tunnel.
    poll_seconds: float = 30.0
    retry_seconds: float = 1.0
    retry_most_seconds: float = 20.0
    report_seconds: float = 60.0
    ping_seconds: float = 30.0
    request_seconds: float = 60.0
    # How long requests under way may take to end when the connection point is told to stop.
    drain_seconds: float = 30.0
    # The ways to a gateway, the better one first: TLS to the tunnel's own port, HTTPS to the port
    # of the clients. While it has to take a worse one, it looks this often for a better one.
    carriers: tuple[tunnel.Carrier, ...] = ("tls", "https")
    repair_seconds: float = 60.0
    # "host:port" of the web proxy for HTTPS, in place of the one that the site names.
    web_proxy: str = ""
    web_proxy_user: str = ""
    web_proxy_password_file: Path | None = None
    fast_tls: bool = True

    def proxy(self) -> tunnel.WebProxy | None:
        """The web proxy of this file. Raises BadProxy."""
        if not self.web_proxy:
            return None
        host, _, port = self.web_proxy.rpartition(":")
        if not host or not port.isdigit() or not 0 < int(port) < 65536:
            raise BadProxy(
                f"web_proxy is host:port, not {self.web_proxy!r}.", cure="Write proxy.corp:8080."
            )
        password = ""
        if self.web_proxy_password_file is not None:
            try:
                password = self.web_proxy_password_file.read_text("utf-8").rstrip("\n")
            except OSError as error:
                raise BadProxy(
                    f"The web proxy's password cannot be read: {error}.",
                    cure="Check web_proxy_password_file in the settings.",
                ) from None
        return tunnel.WebProxy(host.strip("[]"), int(port), self.web_proxy_user, password)


class BadProxy(AppError):
    kind, code = Kind.INVALID, "connector.bad-proxy"


@dataclass(frozen=True, slots=True)
class Refusal:
    """An answer of the gateway's own. `code` is the field's status text; `why` is for the log alone."""

    status: int
    code: str
    message: str
    cure: str = ""
    why: str = ""
    # Seconds after which another attempt makes sense; 0: it does not, or at once.
    retry_after: int = 0
    allow: str = ""  # The methods that are, when this one is not.

    def body(self) -> bytes:
        error = {"code": self.code, "message": self.message, "cure": self.cure}
        return msgspec.json.encode({"error": error})


@dataclass(frozen=True, slots=True)
class EdgeAnswer:
    """What the gateway answers itself: bytes of JSON, or no content."""

    status: int
    content: bytes = b""


@dataclass(frozen=True, slots=True)
class Forward:
    """A request that may pass: its endpoint, how much body it may have, and who sends it."""

    endpoint: str
    max_body_bytes: int
    identity: str
    hold_seconds: float = 0
    # Until when the same rules say the same of the same client.
    until: float = math.inf


@dataclass(frozen=True, slots=True)
class Shelved:
    """A request for content, by its SHA-256. Whether it may have it says its token."""

    sha256: str


Decision = Refusal | EdgeAnswer | Forward | Shelved
