"""The targets: what is read, which refusals are its own, and what must hold of what was read."""

import contextlib
from base64 import urlsafe_b64encode
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
from joserfc import jws
from joserfc.jwk import ECKey, RSAKey
from lxml import etree

from tandem import pki
from tandem.agent.mdm import MdmError, envelope, messages, provisioning
from tandem.agent.mdm.applications import read_job
from tandem.gateway.backend import Head
from tandem.gateway.gate import Gate
from tandem.gateway.model import Refusal
from tandem.gateway.reader import Reader, Refused
from tandem.gateway.tokens import UNKNOWN_KEY, Tokens
from tandem.pki import signed
from tandem.protocols import ddf, msi, soap, syncml, tunnel
from tandem.protocols.msi.cabinet import BadCabinet

SEEDS = Path(__file__).with_name("seeds")
# Inputs are no longer than this: what a front door lets in is larger, and no more telling.
MAX_BYTES = 32 * 1024
_AT = datetime(2026, 1, 1, tzinfo=UTC)
_KEY = pki.generate_key("p256").public_key()


def read_soap(data: bytes) -> None:
    """A request is read or refused, and every answer to it is XML that names it."""
    named = soap.message_id(data)
    for answer in (
        soap.fault(
            soap.DISCOVER_RESPONSE, named, soap.Fault("s:MessageFormat", named, "NotSupported")
        ),
        soap.policies_response(named),
        soap.token_response(named, soap.TokenResponse(data, _AT)),
    ):
        assert etree.fromstring(answer).findtext(".//{*}RelatesTo") == named
    try:
        found = soap.read(data)
    except soap.BadMessage:
        return
    assert found.message_id == named
    assert soap.read(data) == found
    try:
        assert soap.one_credential(found).value
    except soap.BadSecurity:
        assert len(found.credentials) != 1 or not found.credentials[0].value


def read_syncml(data: bytes) -> None:
    """What was read is written, and reads the same again: an answer is compared by that."""
    try:
        found = syncml.read(data)
    except syncml.BadMessage:
        return
    again = syncml.read(syncml.write(found))
    assert syncml.write(again) == syncml.write(found)
    assert (again.session, again.number, again.source) == (
        found.session,
        found.number,
        found.source,
    )
    assert len(again.statuses) == len(found.statuses)


def read_csr(data: bytes) -> None:
    """A key that is taken is one that would be taken again, and is strong."""
    for reader in (pki.windows_request, pki.read_request):
        try:
            found = reader(data)
        except pki.BadRequest:
            continue
        assert reader(data) is not found
        public = found if reader is pki.windows_request else found.public_key()  # type: ignore[union-attr]
        assert getattr(public, "key_size", 0) >= 256


def read_cms(data: bytes) -> None:
    for detached in (None, b"content"):
        try:
            found = signed.read_signed(data, detached)
        except signed.BadSignature:
            continue
        assert detached is None or found.content == detached


def read_ddf(data: bytes) -> None:
    try:
        found = ddf.read(data)
    except ddf.BadDdf:
        return
    for leaf in found.leaves:
        for value in ("", "0", "true", leaf.default, "\u0661", "<x/>", "9" * 400):
            try:
                assert isinstance(ddf.checked(leaf, value or ""), str)
            except ddf.BadValue:
                continue


def read_msi(data: bytes) -> None:
    for reader in (msi.read, msi.extract):
        try:
            reader(data)
        except msi.BadMsi:
            continue


def read_cabinet(data: bytes) -> None:
    try:
        files = msi.unpack(data)
    except BadCabinet:
        return
    assert all(isinstance(name, str) for name in files)


def read_device(data: bytes) -> None:
    """What a device reads of its service: a hostile one must not hurt it either."""
    for reader in (
        messages.read,
        envelope.read_discovery,
        envelope.read_policies,
        envelope.read_document,
        lambda raw: provisioning.read(raw, _KEY),
    ):
        try:
            reader(data)
        except MdmError:
            continue
    try:
        read_job(data.decode("utf-8", "replace"))
    except (MdmError, ValueError):
        return


class _Owner:
    """Of a stream in the tunnel that is fuzzed: it ends at most once."""

    def __init__(self, session: tunnel.Session, number: int) -> None:
        self.outgoing = tunnel.Outgoing(session, number)
        self.incoming = tunnel.Incoming(session, number)
        self.received = self.ends = self.heads = 0

    def head(self, payload: bytes, fin: bool) -> None:
        self.heads += 1

    def data(self, payload: bytes, fin: bool) -> None:
        self.received += len(payload)

    def writable(self) -> None:
        pass

    def reset(self, reason: str) -> None:
        self.ends += 1

    again = reset


def read_tunnel(data: bytes) -> None:
    """Either end of a tunnel: the first byte says which end, which version, and how it is cut."""
    if not data:
        return
    how, rest = data[0], data[1:]
    owners: list[_Owner] = []
    session: tunnel.Session

    def opened(frame: tunnel.Frame) -> None:
        session.streams[frame.stream] = owner = _Owner(session, frame.stream)
        owners.append(owner)
        owner.outgoing.send(b"x" * 70_000, fin=True)

    session = tunnel.Session(lambda frame: None, opened if how & 1 else None)
    session.version = 1 + (how >> 1 & 1)
    session.feed(tunnel.encode(tunnel.Type.HELLO))
    if not how & 1:
        for number in range(1, 4):
            owner = _Owner(session, number)
            assert session.begin(owner) == number
            owners.append(owner)
            owner.outgoing.send(b"x" * 20_000)
        session.take()
    size = 1 + (how >> 2) * 16
    try:
        for start in range(0, len(rest), size):
            session.feed(rest[start : start + size])
            session.take()
    except tunnel.BadFrame:
        pass
    session.lost("It broke.")
    for owner in owners:
        assert owner.ends <= 1
        assert owner.heads <= 1
        assert owner.received <= tunnel.WINDOW
        assert 0 <= owner.outgoing.credit <= tunnel.WINDOW


def read_token(data: bytes) -> None:
    """As a token it is refused; as what a good key signed, it passes for what it says and no more."""
    given = data.decode("latin-1")
    for service in (False, True):
        found = _TOKENS.identity(given, _NOW, service)
        assert isinstance(found, Refusal) or (service and found[0] == UNKNOWN_KEY)
    for header, key in _SIGNERS:
        signed = f"{_unpadded(msgspec.json.encode(header))}.{_unpadded(data)}"
        signature = jws.JWSRegistry.algorithms[header["alg"]].sign(signed.encode(), key)
        found = _TOKENS.identity(f"{signed}.{_unpadded(signature)}", _NOW, False)
        if isinstance(found, Refusal):
            assert found.status == 401
            continue
        claims = msgspec.json.decode(data, type=dict[str, Any])
        assert claims["iss"] == (_SITE if header["alg"] == "ES256" else _ISSUER)
        assert claims["aud"] == ("urn:sccm:service" if header["alg"] == "ES256" else "https://app")
        assert _NOW < claims["exp"] < float("inf")


def read_client(data: bytes) -> None:
    """No certificate that a stranger made is one of ours, whatever it says; the gate answers."""
    found = _GATE.decide("GET", b"/x", {}, data)
    assert isinstance(found, Refusal)
    assert found.status == 403
    with contextlib.suppress(pki.BadCertificate):
        pki.read_crl(data)


def _unpadded(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode()


_NOW = 1_800_000_000.0
_SITE, _ISSUER = "urn:sccm:site:CM1", "https://sts/"
_SIGNERS: tuple[tuple[dict[str, str], Any], ...] = (
    ({"alg": "ES256", "kid": "s"}, ECKey.generate_key("P-256", {"kid": "s"}, private=True)),
    ({"alg": "RS256", "kid": "t"}, RSAKey.generate_key(2048, {"kid": "t"}, private=True)),
)
_KEYS = [{"keys": [key.as_dict(private=False)]} for _, key in _SIGNERS]
_CONFIGURATION = tunnel.Configuration(
    1,
    "gw.example.com",
    "CM1",
    tenants=[tunnel.Tenant("t1", "app", "https://app", [_ISSUER], _KEYS[1])],
    site_token_keys=_KEYS[0],
    trusted_roots=[pki.pem(pki.new_root(pki.name("Root"), now=_AT).certificate).decode()],
    endpoints=[tunnel.Endpoint("/x", ["GET"], 0, ["certificate"])],
)
_TOKENS = Tokens(_CONFIGURATION)
_GATE = Gate(_CONFIGURATION, lambda: _NOW)


class _Requests:
    """The first request of a connection, as far as it could be read."""

    def __init__(self, pieces: list[bytes]) -> None:
        self.body = b""
        self.written = b""
        self.refused = ""
        self._reader = Reader(self, 32 * 1024)
        try:
            for piece in pieces:
                if not self.written:
                    self._reader.feed(piece)
        except Refused as error:
            self.refused = error.refusal.code

    def head_read(self) -> None:
        assert self._reader.method

    def body_read(self, piece: bytes) -> None:
        self.body += piece

    def request_read(self) -> None:
        assert not self.written
        self.written = self._reader.written(b"me", b"id")


def read_front(data: bytes) -> None:
    """What a client sends is read the same in whatever pieces it comes, and what is written of it
    is one request, which the connection point reads as it was meant."""
    found = _Requests([data])
    middle = len(data) // 2
    for pieces in ([data[:middle], data[middle:]], [data[i : i + 1] for i in range(len(data))]):
        again = _Requests(pieces)
        assert (again.written, again.refused) == (found.written, found.refused)
        assert not found.written or again.body == found.body
    if not found.written:
        return
    head, rest = Head.read(found.written)
    assert not rest
    fields = [(name, value) for name, _, value in (line.partition(b": ") for line in head.lines)]
    assert [value for name, value in fields if name == b"cmg-client-identity"] == [b"me"]
    assert [value for name, value in fields if name == b"x-correlation-id"] == [b"id"]
    names = {name.replace(b"_", b"-") for name, _ in fields}
    assert not names & {b"connection", b"transfer-encoding", b"upgrade", b"x-forwarded-for", b"te"}


TARGETS: dict[str, Callable[[bytes], None]] = {
    "soap": read_soap,
    "syncml": read_syncml,
    "csr": read_csr,
    "cms": read_cms,
    "ddf": read_ddf,
    "msi": read_msi,
    "cabinet": read_cabinet,
    "device": read_device,
    "tunnel": read_tunnel,
    "token": read_token,
    "client": read_client,
    "front": read_front,
}


def seeds(name: str) -> list[bytes]:
    return [file.read_bytes() for file in sorted((SEEDS / name).iterdir())]
