"""One suite for everything that can keep signing keys: software, and a module that keys never
leave, here a process of its own."""

import subprocess
import sys
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import pytest
from asking import claims_of, header_of
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding

from tandem import pki
from tandem.infra.database import Database
from tandem.infra.secrets import SecretBox
from tandem.tenant import oidc
from tandem.tenant.oidc.model import KeyElsewhere
from tenant_world import World, make_world

_MODULE = """
import sys
from datetime import datetime
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.serialization import Encoding
from tandem import pki
keys = {}
for line in sys.stdin:
    what, *rest = line.split()
    if what == "make":
        made = pki.new_root(pki.name("module"), now=datetime.fromisoformat(rest[0]), key="rsa2048")
        label = f"slot-{len(keys)}"
        keys[label] = made.key
        print(label, made.certificate.public_bytes(Encoding.DER).hex(), flush=True)
    else:
        data = bytes.fromhex("".join(rest[1:]))
        print(keys[rest[0]].sign(data, padding.PKCS1v15(), hashes.SHA256()).hex(), flush=True)
"""


class Module:
    """A KeyKeeper whose handles are names."""

    name = "module"

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", _MODULE],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ask(self, *words: str) -> list[str]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(" ".join(words) + "\n")
        self.process.stdin.flush()
        return self.process.stdout.readline().split()

    def make(self, subject: x509.Name, now: datetime, days: int) -> oidc.MadeKey:
        label, certificate = self.ask("make", now.isoformat())
        return oidc.MadeKey(label.encode(), bytes.fromhex(certificate))

    def open(self, handle: bytes, certificate: bytes) -> "ModuleSigner":
        return ModuleSigner(self, handle.decode())

    def close(self) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        self.process.stdout.close()
        self.process.wait(10)


class ModuleSigner:
    def __init__(self, module: Module, label: str) -> None:
        self.module, self.label = module, label

    async def sign(self, data: bytes) -> bytes:
        return bytes.fromhex(self.module.ask("sign", self.label, data.hex())[0])


@pytest.fixture(params=["software", "module"])
def keeper(request: pytest.FixtureRequest) -> Iterator[Any]:
    if request.param == "software":
        yield oidc.SoftwareKeys(SecretBox(bytes(32)))
        return
    module = Module()
    yield module
    module.close()


async def test_a_keeper_makes_keys_and_signs_with_them(keeper: Any) -> None:
    now = datetime.fromisoformat("2026-11-24T09:00:00+00:00")
    made = keeper.make(pki.name("Token signing"), now, 100)
    other = keeper.make(pki.name("Token signing"), now, 100)
    assert made.handle != other.handle
    public = x509.load_der_x509_certificate(made.certificate).public_key()
    for data in (b"", b"a.b", b"x" * 5000):
        signature = await keeper.open(made.handle, made.certificate).sign(data)
        public.verify(signature, data, padding.PKCS1v15(), hashes.SHA256())  # type: ignore[union-attr,call-arg,arg-type]


async def test_tokens_of_a_keeper_are_verified_with_the_published_keys(
    keeper: Any, tenant_db: Database
) -> None:
    world = await make_world(tenant_db, keeper=keeper)
    tokens = await world.user_tokens("https://graph.microsoft.com/.default openid")
    assert (await claims_of(world, tokens["access_token"]))["tid"] == world.tenant.id
    first = header_of(tokens["access_token"])["kid"]
    async with world.database.transaction() as tx:
        await world.tokens.rotate(tx, world.at)
    world.wait(hours=25)
    later = await world.user_tokens("https://graph.microsoft.com/.default openid")
    assert header_of(later["access_token"])["kid"] != first
    await claims_of(world, later["access_token"])
    await world.client.aclose()


async def test_no_private_key_lies_open_in_the_database(keeper: Any, tenant_db: Database) -> None:
    world = await make_world(tenant_db, keeper=keeper)
    async with tenant_db.transaction() as tx:
        cursor = await tx.execute("SELECT sealed, keeper FROM oidc_key WHERE purpose = 'token'")
        (row,) = await cursor.fetchall()
    assert b"PRIVATE" not in bytes(row["sealed"])
    assert row["keeper"] == keeper.name
    await world.client.aclose()


async def test_a_key_is_opened_by_its_own_keeper_alone(tenant_db: Database) -> None:
    module = Module()
    world = await make_world(tenant_db, keeper=module)
    software = oidc.Tokens(world.tokens.settings, SecretBox(bytes(32)))
    async with tenant_db.transaction() as tx:
        with pytest.raises(KeyElsewhere):
            await software.sign(tx, {}, world.at, x5t=False)
    module.close()
    await world.client.aclose()


async def test_an_old_key_is_published_while_its_tokens_live(world: World) -> None:
    async def published() -> set[str]:
        keys = (await world.client.get("/common/discovery/keys")).json()["keys"]
        return {key["kid"] for key in keys}

    async def upkeep() -> None:
        async with world.database.transaction() as tx:
            await oidc.tend(tx, world.tokens, world.at)

    (old,) = await published()
    async with world.database.transaction() as tx:
        new = await world.tokens.rotate(tx, world.at)
    assert await published() == {old, new}, "announced before it signs"
    world.wait(hours=23, minutes=59)
    last = (await world.user_tokens("User.Read"))["access_token"]
    assert header_of(last)["kid"] == old
    world.wait(hours=1)
    await upkeep()
    assert await published() == {old, new}, "the last token lives for an hour"
    await claims_of(world, last)
    world.wait(minutes=10)
    await upkeep()
    assert await published() == {new}


async def test_a_lost_key_is_replaced_at_once(world: World) -> None:
    token = (await world.user_tokens("User.Read"))["access_token"]
    async with world.database.transaction() as tx:
        await world.tokens.rotate(tx, world.at, at_once=True)
    bearer = {"Authorization": f"Bearer {token}"}
    assert (await world.client.get("/oidc/userinfo", headers=bearer)).status_code == 401
    fresh = (await world.user_tokens("User.Read"))["access_token"]
    bearer = {"Authorization": f"Bearer {fresh}"}
    assert (await world.client.get("/oidc/userinfo", headers=bearer)).status_code == 200
