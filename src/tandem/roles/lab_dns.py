"""The lab's DNS server for `contoso.com`, over UDP and TCP, with records set over HTTP.

It answers for the names it was given and says NXDOMAIN for the rest. Roles ask it by their
`resolver` setting; nothing else on the machine does.
"""

import asyncio
import contextlib
from pathlib import Path
from typing import Any

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import dns.rrset
import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from tandem.infra import config, http, logs
from tandem.infra.config import Settings
from tandem.infra.process import run_role
from tandem.infra.secrets import private_folder, write_private

_TTL = 1


class LabDnsSettings(Settings, frozen=True):
    state: Path
    host: str = "127.0.0.1"
    port: int = 0
    control_port: int = 0
    logs: Path | None = None


class Record(msgspec.Struct, frozen=True):
    """`kind` is A or CNAME; `values` are addresses, or the one target."""

    kind: str
    values: list[str]


class Zone:
    """Names and records, kept in a file."""

    def __init__(self, file: Path) -> None:
        self._file = file
        try:
            self.records = msgspec.json.decode(file.read_bytes(), type=dict[str, Record])
        except (FileNotFoundError, msgspec.DecodeError):
            self.records = {}

    def put(self, name: str, record: Record) -> None:
        self.records[name.rstrip(".").lower()] = record
        self._keep()

    def remove(self, name: str) -> None:
        self.records.pop(name.rstrip(".").lower(), None)
        self._keep()

    def _keep(self) -> None:
        write_private(self._file, msgspec.json.encode(self.records))

    def answer(self, wire: bytes) -> bytes | None:
        """The answer to a query; None for what is no query."""
        try:
            query = dns.message.from_wire(wire)
        except dns.exception.DNSException:
            return None
        if query.flags & dns.flags.QR or len(query.question) != 1:
            return None
        reply = dns.message.make_response(query)
        reply.flags |= dns.flags.AA
        question = query.question[0]
        wanted = str(question.name).rstrip(".").lower()
        if wanted not in self.records:
            reply.set_rcode(dns.rcode.NXDOMAIN)
            return reply.to_wire()
        for _ in range(8):
            record = self.records.get(wanted)
            if record is None:
                break
            asked = dns.rdatatype.to_text(question.rdtype)
            if record.kind in {asked, "CNAME"}:
                values = record.values
                if record.kind == "CNAME":
                    values = [f"{value.rstrip('.')}." for value in values]
                owner = dns.name.from_text(wanted)
                reply.answer.append(
                    dns.rrset.from_text(owner, _TTL, dns.rdataclass.IN, record.kind, *values)
                )
            if record.kind != "CNAME" or asked == "CNAME":
                break
            wanted = record.values[0].rstrip(".").lower()
        return reply.to_wire()


class _Datagrams(asyncio.DatagramProtocol):
    def __init__(self, zone: Zone) -> None:
        self._zone = zone

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def datagram_received(self, data: bytes, addr: Any) -> None:
        answer = self._zone.answer(data)
        if answer is not None:
            self._transport.sendto(answer, addr)


async def _stream(zone: Zone, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError, TimeoutError):
        while True:
            async with asyncio.timeout(20):
                size = int.from_bytes(await reader.readexactly(2))
                answer = zone.answer(await reader.readexactly(size))
            if answer is None:
                break
            writer.write(len(answer).to_bytes(2) + answer)
            await writer.drain()
    writer.close()


def run(path: Path) -> None:
    settings = config.load(path, LabDnsSettings)
    logs.configure("dns", settings.logs)
    run_role(lambda stop: _main(settings, stop))


async def _main(settings: LabDnsSettings, stop: asyncio.Event) -> None:
    zone = Zone(private_folder(settings.state) / "zone.json")
    loop = asyncio.get_running_loop()
    where = (settings.host, settings.port)
    transport, _ = await loop.create_datagram_endpoint(lambda: _Datagrams(zone), local_addr=where)
    server = await asyncio.start_server(lambda r, w: _stream(zone, r, w), *where)

    async def put(request: Request) -> Response:
        zone.put(request.path_params["name"], await http.decode(request, Record))
        return Response(status_code=204)

    async def remove(request: Request) -> Response:
        zone.remove(request.path_params["name"])
        return Response(status_code=204)

    async def listed(_: Request) -> Response:
        return http.reply(zone.records)

    async def ready(_: Request) -> Response:
        return http.reply({"ok": True})

    routes: list[Any] = [
        Route("/records", listed, methods=["GET"]),
        Route("/records/{name}", put, methods=["PUT"]),
        Route("/records/{name}", remove, methods=["DELETE"]),
        Route("/readyz", ready, methods=["GET"]),
    ]
    app = http.application(routes, role="dns")
    try:
        await http.serve([http.Listener(app, settings.host, settings.control_port)], stop)
    finally:
        transport.close()
        server.close()
