"""A DNS server for tests: UDP and TCP, several records a name, and signed updates (RFC 2136, 8945)."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import dns.exception
import dns.message
import dns.name
import dns.opcode
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import dns.rrset
import dns.tsig

from site_world import free_ports


@dataclass
class SmallDns:
    """`records` by name and type, as they are written in a zone file. With `keys`, whoever signs with
    one of them may change records below `zone`."""

    port: int
    records: dict[tuple[str, str], list[str]] = field(default_factory=dict)
    keys: dict[str, bytes] = field(default_factory=dict)
    zone: str = ""
    asked: list[tuple[str, str]] = field(default_factory=list)
    updates: list[str] = field(default_factory=list)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def put(self, name: str, kind: str, *values: str) -> None:
        self.records[name, kind] = list(values)

    def answer(self, wire: bytes) -> bytes:
        ring = {
            dns.name.from_text(name): dns.tsig.Key(name, secret, dns.tsig.HMAC_SHA256)
            for name, secret in self.keys.items()
        }
        try:
            asked = dns.message.from_wire(wire, keyring=ring)
        except dns.exception.DNSException:
            # Of whom it is, is not known: refused without a signature (RFC 8945, 5.2).
            refused = dns.message.make_response(_unsigned(wire))
            refused.set_rcode(dns.rcode.NOTAUTH)
            return refused.to_wire()
        reply = dns.message.make_response(asked)
        if asked.opcode() == dns.opcode.UPDATE:
            self._update(asked, reply)
        else:
            self._look_up(asked, reply)
        return reply.to_wire()

    def _look_up(self, asked: Any, reply: Any) -> None:
        question = asked.question[0]
        name, kind = _text(question.name), dns.rdatatype.to_text(question.rdtype)
        self.asked.append((name, kind))
        while True:
            for found in (kind, "CNAME"):
                if values := self.records.get((name, found)):
                    owner = dns.name.from_text(name)
                    made = dns.rrset.from_text(owner, 1, dns.rdataclass.IN, found, *values)
                    reply.answer.append(made)
                    break
            if not values or found == kind:
                break
            name = values[0].rstrip(".").lower()
        if not reply.answer and not any(known == name for known, _ in self.records):
            reply.set_rcode(dns.rcode.NXDOMAIN)

    def _update(self, asked: Any, reply: Any) -> None:
        if not asked.had_tsig or _text(asked.zone[0].name) != self.zone:
            reply.set_rcode(dns.rcode.REFUSED)
            return
        for change in asked.update:
            name, kind = _text(change.name), dns.rdatatype.to_text(change.rdtype)
            if change.rdclass == dns.rdataclass.ANY or change.deleting == dns.rdataclass.ANY:
                self.records.pop((name, kind), None)
                self.updates.append(f"- {name}")
            else:
                known = self.records.setdefault((name, kind), [])
                known += [record.to_text() for record in change]
                self.updates.append(f"+ {name}")


def _text(name: dns.name.Name) -> str:
    return str(name).rstrip(".").lower()


def _unsigned(wire: bytes) -> Any:
    """The query without its signature, which nobody here can check."""
    return dns.message.from_wire(wire, keyring=False, ignore_trailing=True, question_only=True)


class _Datagrams(asyncio.DatagramProtocol):
    def __init__(self, server: SmallDns) -> None:
        self._server = server

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self._transport.sendto(self._server.answer(data), addr)


@asynccontextmanager
async def small_dns(**settings: Any) -> AsyncIterator[SmallDns]:
    made = SmallDns(free_ports(), **settings)
    writers: set[asyncio.StreamWriter] = set()

    async def stream(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.add(writer)
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                size = int.from_bytes(await reader.readexactly(2))
                answer = made.answer(await reader.readexactly(size))
                writer.write(len(answer).to_bytes(2) + answer)
        writer.close()

    loop = asyncio.get_running_loop()
    where = ("127.0.0.1", made.port)
    transport, _ = await loop.create_datagram_endpoint(lambda: _Datagrams(made), local_addr=where)
    server = await asyncio.start_server(stream, *where)
    try:
        yield made
    finally:
        transport.close()
        server.close()
        for writer in writers:
            writer.transport.abort()
        # The next round of the loop is the one in which they are closed.
        await asyncio.sleep(0)
