"""Outgoing HTTP, and names resolved by the DNS server that the settings name."""

import random
import ssl
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import anyio
import dns.asyncresolver
import dns.exception
import dns.resolver
import httpcore
import httpx
from httpcore._backends.auto import AutoBackend

from tandem.infra.errors import AppError, Kind


class NameNotResolved(AppError):
    kind, code = Kind.UNAVAILABLE, "net.name-not-resolved"


class DnsUnavailable(NameNotResolved):
    """No DNS server answered: whether there is such a record is not known."""

    code = "net.dns-unavailable"


def no_answer(server: str) -> DnsUnavailable:
    return DnsUnavailable(
        f"DNS does not answer ({server}).",
        cure="Check the network and the resolver in the settings, then try again.",
    )


class Resolver:
    """Names to addresses. `server` is "address:port" of a DNS server; None uses the system's."""

    def __init__(self, server: str | None = None) -> None:
        self.server = server
        self.patience = 5.0
        self._dns: dns.asyncresolver.Resolver | None = None
        if server:
            host, _, port = server.rpartition(":")
            self._dns = dns.asyncresolver.Resolver(configure=False)
            self._dns.nameservers = [host]
            self._dns.port = int(port)

    async def addresses(self, host: str) -> list[str]:
        """The host's IPv4 addresses in random order. Raises NameNotResolved."""
        if self._dns is None or _is_address(host) or host == "localhost":
            return [host]
        found = await self.lookup(host)
        if not found:
            raise NameNotResolved(
                f"The name {host} has no address.",
                cure="Check its record in DNS, and the resolver in the settings.",
            )
        random.shuffle(found)
        return found

    async def lookup(self, host: str) -> list[str]:
        """The IPv4 addresses that DNS has for the host; none without a record.

        Unlike `addresses` it asks DNS in any case. Raises DnsUnavailable.
        """
        return [record.address for record in await self._ask(host, "A")]

    async def lookup6(self, host: str) -> list[str]:
        """Its IPv6 addresses in the same way. Raises DnsUnavailable."""
        return [record.address for record in await self._ask(host, "AAAA")]

    async def cname(self, host: str) -> str | None:
        """What the host's CNAME record names, in lower case without the final dot.

        Raises DnsUnavailable.
        """
        for record in await self._ask(host, "CNAME"):
            return str(record.target).rstrip(".").lower()
        return None

    async def _ask(self, host: str, kind: str) -> list[Any]:
        try:
            resolver = self._dns or dns.asyncresolver.Resolver()
            return list(await resolver.resolve(host, kind, lifetime=self.patience))
        except (dns.resolver.NXDOMAIN, dns.resolver.NoAnswer):
            return []
        except (dns.exception.DNSException, OSError):
            raise no_answer(self.server or "the system's server") from None

    async def texts(self, name: str) -> list[str]:
        """The TXT records of a name; none when it has none or DNS does not answer."""
        resolver = self._dns or dns.asyncresolver.Resolver()
        try:
            answer = await resolver.resolve(name, "TXT")
        except (dns.exception.DNSException, OSError):
            return []
        return [b"".join(record.strings).decode("utf-8", "replace") for record in answer]


def _is_address(host: str) -> bool:
    return host.replace(".", "").isdigit() or ":" in host


class _Stream(httpcore.AsyncNetworkStream):
    """A connection that is closed when its TLS handshake is given up: httpcore closes it when the
    handshake fails, but leaves it open when whoever asked is cancelled or has waited long enough."""

    def __init__(self, stream: httpcore.AsyncNetworkStream) -> None:
        self._stream = stream

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return await self._stream.read(max_bytes, timeout)

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        await self._stream.write(buffer, timeout)

    async def aclose(self) -> None:
        await self._stream.aclose()

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> httpcore.AsyncNetworkStream:
        try:
            # What it returns takes the place of this one: requests pay nothing.
            return await self._stream.start_tls(ssl_context, server_hostname, timeout)
        except BaseException:
            with anyio.CancelScope(shield=True):
                await self._stream.aclose()
            raise

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


class _Backend(AutoBackend):
    """Connects to the addresses that the resolver gives; TLS still checks the name asked for."""

    def __init__(self, resolver: Resolver) -> None:
        super().__init__()
        self._resolver = resolver

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        try:
            addresses = await self._resolver.addresses(host)
        except NameNotResolved as error:
            raise httpcore.ConnectError(error.message) from None
        failure: Exception = httpcore.ConnectError(f"{host} has no address")
        for address in addresses:
            try:
                return _Stream(
                    await super().connect_tcp(address, port, timeout, local_address, socket_options)
                )
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failure = error
        raise failure


def tls_context(
    ca_file: Path | None, certificate: tuple[Path, Path] | None = None
) -> ssl.SSLContext:
    """A verifying client context: the system's roots, or only those of `ca_file`."""
    context = ssl.create_default_context(cafile=str(ca_file) if ca_file else None)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if certificate is not None:
        context.load_cert_chain(certificate[0], certificate[1])
    return context


def plain_client(*, timeout: float = 5.0) -> httpx.AsyncClient:
    """For http:// addresses on this machine. It trusts no certificate, so it need not read the
    system's roots, which takes longer than the request."""
    return httpx.AsyncClient(
        verify=ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), trust_env=False, timeout=timeout
    )


def client(
    *,
    resolver: Resolver | None = None,
    ca_file: Path | None = None,
    certificate: tuple[Path, Path] | None = None,
    context: ssl.SSLContext | None = None,
    timeout: float = 30.0,
    base_url: str = "",
    headers: dict[str, str] | None = None,
    max_connections: int = 20,
) -> httpx.AsyncClient:
    """An HTTP client that resolves through `resolver`, tries every address and verifies names.

    Proxies of the environment are not used. Pass `context` to share one TLS context.
    """
    tls = context or tls_context(ca_file, certificate)
    transport = httpx.AsyncHTTPTransport(verify=tls, trust_env=False)
    transport._pool = httpcore.AsyncConnectionPool(
        ssl_context=tls,
        max_connections=max_connections,
        max_keepalive_connections=max_connections,
        keepalive_expiry=60,
        network_backend=_Backend(resolver or Resolver()),
    )
    return httpx.AsyncClient(
        transport=transport, timeout=timeout, base_url=base_url, headers=headers, trust_env=False
    )
