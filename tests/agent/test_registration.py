"""How a client comes to be known: by a directory's token, a client certificate or a bulk token."""

import asyncio
import secrets
from base64 import b64encode, urlsafe_b64encode
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from device_caller import Caller, code, message
from one_site import TENANT, Broker, Moment, Site, log
from tandem import pki
from tandem.agent import Bootstrap, Client, Machine, SetupResult
from tandem.agent import client as agent_client
from tandem.agent.platform.certificate import CertificateFile
from tandem.protocols import ccm
from tandem.site import clients

MOST = 10_080


@dataclass
class Api:
    """The site's admin API."""

    site: Site
    web: httpx.AsyncClient

    async def call(self, method: str, path: str, value: Any = None) -> httpx.Response:
        url = f"https://localhost:{self.site.port}/api/v1{path}"
        return await self.web.request(method, url, json=value)

    async def token(self, **wanted: Any) -> dict[str, Any]:
        answer = await self.call("POST", "/registration-tokens", wanted)
        assert answer.status_code == 201, answer.text
        made: dict[str, Any] = answer.json()
        return made

    async def tokens(self) -> list[dict[str, Any]]:
        listed: list[dict[str, Any]] = (await self.call("GET", "/registration-tokens")).json()[
            "tokens"
        ]
        return listed


@pytest.fixture
def api(site: Site, web: httpx.AsyncClient) -> Api:
    return Api(site, web)


@pytest.fixture
def loner(machine: Machine) -> Machine:
    """A machine that is in no directory."""
    return replace(machine, directory=Broker(device=None, device_tokens=False, user_tokens=False))


async def set_up(site: Site, machine: Machine, token: str = "") -> Any:
    shown = f"/regtoken:{token} " if token else ""
    line = site.command_line.replace('="', f'="{shown}', 1)
    assert len(line) <= 1024
    return await Bootstrap(machine, line).run(asyncio.Event())


async def record(site: Site, client_id: str) -> clients.Client:
    async with site.db.transaction() as tx:
        return await clients.find(tx, client_id)


async def history(site: Site, client: clients.Client) -> list[str]:
    async with site.db.transaction() as tx:
        found = await clients.timeline(tx, client.tenant_id, client.device_id)
    return [entry.text for entry in found]


# ------------------------------------------------------------------ by a bulk registration token


async def test_a_device_in_no_directory_registers_by_a_bulk_token(
    site: Site, api: Api, loner: Machine
) -> None:
    made = await api.token(description="Kiosks")
    assert (await set_up(site, loner, made["token"])).code == 0
    client = Client(loner)
    await client.step()
    assert client.policy
    found = await record(site, client.client_id)
    assert (found.registered_by, found.approval, found.tenant_id) == ("bulk-token", 1, "")
    assert found.registration_token == made["id"]
    assert "Client deployment succeeded" in await history(site, found)
    (one,) = (await api.call("GET", "/clients")).json()["clients"]
    assert one["registration_token"] == made["id"]
    (listed,) = await api.tokens()
    assert (listed["registered"], listed["description"]) == (1, "Kiosks")
    # Another process goes on with what lies on the disk, and the site's own token.
    again = Client(loner)
    again.wake()
    await again.step()
    assert "Policy is not modified." in log(loner, "PolicyAgent")


async def test_a_bulk_token_is_kept_nowhere(site: Site, api: Api, loner: Machine) -> None:
    """Neither on the device, nor in a log of either side, nor in the database."""
    made = await api.token()
    await set_up(site, loner, made["token"])
    client = Client(loner)
    await client.step()
    signature = made["token"].rpartition(".")[2]
    for path in [*loner.state.rglob("*"), *site.folder.rglob("*")]:
        if path.is_file():
            assert signature.encode() not in path.read_bytes(), path
    assert any("/regtoken:*** " in line for line in log(loner, "ccmsetup"))
    async with site.db.transaction() as tx:
        for table in ("clients_registration_token", "clients_timeline", "audit_entry"):
            cursor = await tx.execute(f"SELECT to_jsonb(t)::text AS said FROM {table} t".encode())
            for row in await cursor.fetchall():
                assert signature not in row["said"]


async def test_the_same_command_line_without_the_token_changes_nothing(
    site: Site, api: Api, loner: Machine
) -> None:
    """What lies on the disk is the command line without it, so setup knows itself again."""
    await set_up(site, loner, (await api.token())["token"])
    client = Client(loner)
    await client.step()
    before = list(loner.mdm.published)  # type: ignore[attr-defined]
    again = await set_up(site, loner)
    assert again.message == "Already installed."
    # Nor does the MDM service hear of a setup that begins: it would take the policy for gone.
    assert loner.mdm.published == before  # type: ignore[attr-defined]


REFUSED = {
    "expired": ("401 client.token-expired", "The bulk registration token expired at "),
    "blocked": ("403 client.registration-token-blocked", "is blocked"),
    "deleted": ("401 client.bad-token", "The bulk registration token was deleted"),
    "altered": ("401 client.bad-token", "not issued by this site, or it was altered"),
    "of another site": ("401 client.bad-token", "The token is of site XYZ, and this is CM1"),
    "cut off": ("401 token.invalid", "The token is not one of the tenant"),
}


async def spoilt(how: str, site: Site, api: Api, moment: Moment) -> str:
    made = await api.token(minutes=60)
    token: str = made["token"]
    head, body, signature = token.split(".")
    match how:
        case "expired":
            moment.passes(minutes=61)
        case "blocked":
            await api.call("POST", f"/registration-tokens/{made['id']}/block")
        case "deleted":
            answer = await api.call("DELETE", f"/registration-tokens/{made['id']}")
            assert answer.status_code == 204
        case "altered":
            return f"{head}.{body}.{signature[:-6]}AAAAAA"
        case "of another site":
            said = b'{"iss":"urn:sccm:site:XYZ","SCCMTokenCategory":"SCCMPreAuthToken"}'
            return f"{head}.{urlsafe_b64encode(said).decode().rstrip('=')}.{signature}"
        case _:
            return token[:-30].rpartition(".")[0]
    return token


@pytest.mark.parametrize("how", REFUSED)
async def test_a_bulk_token_that_is_no_good_is_refused_with_the_reason(
    site: Site, api: Api, loner: Machine, moment: Moment, how: str
) -> None:
    token = await spoilt(how, site, api, moment)
    caller = Caller(site, api.web)
    answer = await caller.exchange(token)
    wanted, text = REFUSED[how]
    assert code(answer) == wanted
    assert text in answer.json()["error"]["message"]
    # The person at the device reads the same.
    result = await set_up(site, loner, token)
    assert (result.code, result.state) == (6, 322)
    assert text in result.message


async def test_a_token_that_is_blocked_after_it_was_shown_registers_nothing(
    site: Site, api: Api
) -> None:
    made = await api.token()
    caller = Caller(site, api.web)
    await caller.exchange(made["token"])
    await api.call("POST", f"/registration-tokens/{made['id']}/block")
    assert code(await caller.register()) == "403 client.registration-token-blocked"
    await api.call("POST", f"/registration-tokens/{made['id']}/unblock")
    assert (await caller.register()).status_code == 200
    # Who is registered stays so.
    await api.call("POST", f"/registration-tokens/{made['id']}/block")
    assert (await caller.register()).status_code == 200
    assert (await caller.send("GET", "/SMS_MP/.sms_pol")).status_code == 200


async def test_a_bulk_token_is_good_for_registering_and_for_nothing_else(
    site: Site, api: Api
) -> None:
    caller = Caller(site, api.web)
    caller.token = (await api.token())["token"]
    for answer in (
        await caller.register(),
        await caller.report(message(site)),
        await caller.send("GET", "/SMS_MP/.sms_pol"),
    ):
        assert code(answer) == "401 client.bad-token"


@pytest.mark.parametrize(
    "wanted",
    [
        {"minutes": 0},
        {"minutes": MOST + 1},
        {"minutes": "3"},
        {"description": "a\nb"},
        {"description": "x" * 201},
        {"lifetime": 5},
    ],
)
async def test_a_bulk_token_that_cannot_be_is_not_made(api: Api, wanted: dict[str, Any]) -> None:
    answer = await api.call("POST", "/registration-tokens", wanted)
    assert code(answer) == "400 request.invalid"
    assert await api.tokens() == []


async def test_the_life_of_a_bulk_token_is_three_days_and_at_most_seven(
    site: Site, api: Api
) -> None:
    for wanted, minutes in (({}, 4_320), ({"minutes": MOST}, MOST)):
        ends = msgspec.convert((await api.token(**wanted))["expires_at"], type=type(site.now()))
        assert ends - site.now() == timedelta(minutes=minutes)


async def test_a_bulk_token_that_is_not_there_is_not_found(api: Api) -> None:
    for method, path in (("POST", "/x/block"), ("POST", "/x/unblock"), ("DELETE", "/x")):
        answer = await api.call(method, f"/registration-tokens{path}")
        assert code(answer) == "404 client.no-such-registration-token"


# ------------------------------------------------------------------ which of several ways


async def test_a_joined_device_shows_its_directorys_token_whatever_else_it_was_given(
    site: Site, api: Api, machine: Machine
) -> None:
    await set_up(site, machine, (await api.token())["token"])
    client = Client(machine)
    await client.step()
    found = await record(site, client.client_id)
    assert (found.registered_by, found.approval, found.tenant_id) == ("directory", 3, TENANT)


async def test_a_client_that_joins_a_directory_stays_the_client_it_is(site: Site, api: Api) -> None:
    """With its history, so a message whose answer was lost does not count again."""
    caller = Caller(site, api.web)
    await caller.exchange((await api.token())["token"])
    await caller.register()
    first = caller.client_id
    await caller.report(message(site))
    before = len(site.resources)
    await caller.exchange()
    await caller.register()
    assert caller.client_id == first
    await caller.report(message(site))
    assert len(site.resources) == before + 1  # The registration's.
    found = await record(site, first)
    assert (found.registered_by, found.device_id) == ("directory", "d1")
    assert (await history(site, found)).count("Heartbeat") == 1
    # And back: its place in the directory stays its place.
    await caller.exchange((await api.token())["token"])
    await caller.register()
    assert (caller.client_id, (await record(site, first)).device_id) == (first, "d1")
    await caller.report(message(site))
    assert (await history(site, found)).count("Heartbeat") == 1


# ------------------------------------------------------------------ the site's own token


@pytest.fixture
async def registered(site: Site, api: Api, loner: Machine) -> Client:
    await set_up(site, loner, (await api.token())["token"])
    made = Client(loner)
    await made.step()
    assert made.client_id
    return made


async def polls(client: Client) -> bool:
    """Whether the site answers a poll now."""
    machine = client._machine
    before = len(log(machine, "PolicyAgent"))
    client.wake()
    await client.step()
    return any(
        line.startswith(("Policy is not", "Policy version"))
        for line in log(machine, "PolicyAgent")[before:]
    )


async def test_a_site_token_is_renewed_after_a_month(
    site: Site, registered: Client, loner: Machine, moment: Moment
) -> None:
    def renewals() -> int:
        return log(loner, "ClientIDManagerStartup").count("Renewing the site token...")

    moment.passes(days=29)
    assert await polls(registered)
    assert renewals() == 0
    moment.passes(days=2)
    assert await polls(registered)
    assert renewals() == 1
    assert await polls(registered)
    assert renewals() == 1


async def test_a_device_that_was_off_longer_than_its_token_renews_it_with_its_key(
    site: Site, registered: Client, loner: Machine, moment: Moment
) -> None:
    moment.passes(days=120)
    assert await polls(Client(loner))


async def test_a_device_that_was_off_for_too_long_says_what_to_do(
    site: Site, api: Api, registered: Client, loner: Machine, moment: Moment
) -> None:
    moment.passes(days=181)
    client = Client(loner)
    assert not await polls(client)
    said = log(loner, "CcmMessaging")
    assert any("The token expired at " in line for line in said)
    assert any("/regtoken:<token>" in line for line in said)
    # A new registration token makes it the client that it was.
    line = site.command_line.replace(
        '="', f'="/forceinstall /regtoken:{(await api.token())["token"]} '
    )
    assert (await Bootstrap(loner, line).run(asyncio.Event())).code == 0
    back = Client(loner)
    assert await polls(back)
    assert back.client_id == registered.client_id


async def test_a_blocked_or_deleted_client_gets_no_new_token(
    site: Site, api: Api, moment: Moment
) -> None:
    caller = Caller(site, api.web)
    await caller.exchange((await api.token())["token"])
    own = (await caller.register()).json()["token"]
    assert (await caller.exchange(own)).json()["kind"] == "site"
    await api.call("POST", f"/clients/{caller.client_id}/block")
    assert code(await caller.exchange(own)) == "403 client.blocked"
    await api.call("POST", f"/clients/{caller.client_id}/unblock")
    thief = Caller(site, api.web)
    assert code(await thief.exchange(own)) == "401 client.bad-signature"
    # A short token is not made long by this door.
    await caller.exchange((await api.token())["token"])
    assert code(await caller.exchange(caller.token)) == "401 client.bad-token"
    async with site.db.transaction() as tx:
        await tx.execute("DELETE FROM clients_client")
    assert code(await caller.exchange(own)) == "401 client.unknown"


async def test_a_site_token_ends_when_the_device_is_known_by_something_else(
    site: Site, api: Api
) -> None:
    """Who takes the device out of its directory takes it away from the site."""
    caller = Caller(site, api.web)
    await caller.exchange((await api.token())["token"])
    own = (await caller.register()).json()["token"]
    await caller.exchange()
    await caller.register()
    assert code(await caller.exchange(own)) == "401 client.unknown"
    caller.token = own
    assert code(await caller.send("GET", "/SMS_MP/.sms_pol")) == "401 client.unknown"


async def test_a_deleted_client_does_not_come_back_by_a_token_that_has_ended(
    site: Site, api: Api, moment: Moment
) -> None:
    caller = Caller(site, api.web)
    await caller.exchange((await api.token())["token"])
    own = (await caller.register()).json()["token"]
    async with site.db.transaction() as tx:
        await tx.execute("DELETE FROM clients_client")
    caller.token, caller.client_id = own, ""
    assert (await caller.register()).status_code == 200
    async with site.db.transaction() as tx:
        await tx.execute("DELETE FROM clients_client")
    moment.passes(days=4)
    caller.client_id = ""
    assert code(await caller.register()) == "401 client.token-expired"


async def test_a_blocked_client_is_not_heard_without_its_name_either(site: Site, api: Api) -> None:
    caller = Caller(site, api.web)
    await caller.exchange((await api.token())["token"])
    await caller.register()
    await api.call("POST", f"/clients/{caller.client_id}/block")
    caller.client_id = ""
    assert code(await caller.report(message(site))) == "403 client.blocked"


async def test_a_site_token_speaks_for_its_key_alone(site: Site, api: Api) -> None:
    caller = Caller(site, api.web)
    await caller.exchange((await api.token())["token"])
    caller.token = (await caller.register()).json()["token"]
    assert (await caller.send("GET", "/SMS_MP/.sms_pol")).status_code == 200
    caller.key = ec.generate_private_key(ec.SECP256R1())
    assert code(await caller.send("GET", "/SMS_MP/.sms_pol")) == "401 client.bad-signature"


async def test_a_clock_that_is_put_back_and_right_again_costs_nothing(
    site: Site, registered: Client, loner: Machine, moment: Moment
) -> None:
    """Refused with the cause while it is wrong; then everything is said, once."""
    wrong = replace(loner, now=lambda: moment() - timedelta(days=400))
    client = Client(wrong)
    assert not await polls(client)
    assert any("Set the clock of the device." in line for line in log(loner, "CcmMessaging"))
    moment.passes(minutes=1)
    assert await polls(Client(loner))
    found = await record(site, registered.client_id)
    assert (await history(site, found)).count("Client assigned") == 1


async def test_a_clock_that_was_ahead_does_not_put_off_what_is_due(
    site: Site, registered: Client, loner: Machine, moment: Moment
) -> None:
    """Times that were written down in the future are not waited for."""
    ahead = [timedelta(days=4000)]
    client = Client(replace(loner, now=lambda: moment() + ahead[0]))
    client.wake()
    await client.step()
    ahead[0] = timedelta()
    await client.step()
    moment.passes(minutes=agent_client.HEARTBEAT_MINUTES * loner.minute_seconds / 60 + 1)
    await client.step()
    assert any("put back" in line for line in log(loner, "CcmMessaging"))
    found = await record(site, registered.client_id)
    assert (await history(site, found)).count("Heartbeat") == 3
    # The client of another process, too.
    heartbeats = (await history(site, found)).count("Heartbeat")
    (loner.state / "CCM" / "heartbeat").write_text((moment() + timedelta(days=4000)).isoformat())
    again = Client(loner)
    moment.passes(days=8)
    await again.step()
    assert (await history(site, found)).count("Heartbeat") == heartbeats + 1


async def test_what_the_agent_says_about_itself_can_be_read(site: Site, api: Api) -> None:
    """An id of hardware that is none is refused, and nothing is registered."""
    caller = Caller(site, api.web)
    await caller.exchange((await api.token())["token"])
    for odd in ("2:xyz", "2:" + "A" * 41, "\x00"):
        assert code(await caller.register(hardware_id=odd)) == "400 request.invalid"
    assert (await caller.register(hardware_id="2:" + "A" * 40)).status_code == 200
    assert (await record(site, caller.client_id)).hardware_id == "2:" + "A" * 40
    assert ccm.RegistrationRequest("CM1", "n", {}, "0").hardware_id == ""


# ------------------------------------------------------------------ by a certificate


class Pki:
    """The organisation's own authority, and what it gave one machine."""

    def __init__(self, site: Site, folder: Path, kind: Any = "p256") -> None:
        self.site = site
        self.root = pki.new_root(pki.name("Contoso Root"), now=site.now())
        site.client_roots = [self.root.certificate]
        self.key = pki.generate_key(kind)
        self.files = folder / "client.pem", folder / "client.key"
        self.files[1].write_bytes(pki.key_pem(self.key))
        self.give()

    def give(self, **changes: Any) -> None:
        given = {"now": self.site.now(), "days": 365, "usages": ["client"], **changes}
        authority = given.pop("authority", self.root)
        self.leaf = authority.issue(self.key.public_key(), pki.name("srv-1.contoso.com"), **given)
        self.files[0].write_bytes(pki.pem(self.leaf))

    def crl(self, now: datetime, revoked: bool = False) -> x509.CertificateRevocationList:
        gone = [(self.leaf.serial_number, now)] if revoked else []
        end = now + timedelta(days=30)
        return x509.load_der_x509_crl(self.root.crl(gone, now=now, next_update=end, number=1))

    def certified(self, machine: Machine) -> Machine:
        ca_file = self.site.folder / "ca.pem"
        return replace(machine, certificate=CertificateFile(*self.files, ca_file=ca_file))


async def set_up_with_certificate(site: Site, machine: Machine) -> SetupResult:
    line = site.command_line.replace('="', '="/UsePKICert ', 1)
    return await Bootstrap(machine, line).run(asyncio.Event())


WAYS = {
    "device token": ("directory", 3, TENANT),
    "user token": ("directory", 3, TENANT),
    "bulk token": ("bulk-token", 1, ""),
    "certificate, P-256": ("certificate", 1, ""),
    "certificate, RSA": ("certificate", 1, ""),
}


@pytest.mark.parametrize("way", WAYS)
async def test_each_way_to_register(
    site: Site, api: Api, machine: Machine, loner: Machine, tmp_path: Path, way: str
) -> None:
    """The record says by which way; the client gets policy, and is the same one after a restart
    and when it registers again."""
    if way.endswith("token"):
        kind = {
            "device token": machine,
            "user token": replace(machine, directory=Broker(device_tokens=False)),
            "bulk token": loner,
        }[way]
        token = (await api.token())["token"] if way == "bulk token" else ""
        assert (await set_up(site, kind, token)).code == 0
    else:
        kind = Pki(site, tmp_path, "rsa2048" if way.endswith("RSA") else "p256").certified(loner)
        assert (await set_up_with_certificate(site, kind)).code == 0
    client = Client(kind)
    await client.step()
    assert client.policy
    found = await record(site, client.client_id)
    assert (found.registered_by, found.approval, found.tenant_id) == WAYS[way]
    again = Client(kind)
    await again._forget_registration()
    assert await polls(again)
    assert again.client_id == client.client_id
    async with site.db.transaction() as tx:
        assert await clients.count(tx) == 1


async def test_a_certificate_that_is_asked_for_and_not_there_is_said_to_be_missing(
    site: Site, loner: Machine
) -> None:
    result = await set_up_with_certificate(site, loner)
    assert (result.code, result.state) == (6, 315)
    assert result.message == "This device has no client certificate."


UNTRUSTED = {
    "of another authority": "not of an authority that this site trusts",
    "for servers": "it has not the usage client authentication",
    "expired": "is not valid now",
    "revoked": "is revoked",
    "with a list that is missing": "(CRL) of CN=Contoso Root is missing",
    "with a list that expired": "has expired",
}


@pytest.mark.parametrize("how", UNTRUSTED)
async def test_a_certificate_that_is_not_trusted_registers_nothing(
    site: Site, loner: Machine, tmp_path: Path, how: str
) -> None:
    made, now = Pki(site, tmp_path), site.now()
    match how:
        case "of another authority":
            made.give(authority=pki.new_root(pki.name("Contoso Root"), now=now))
        case "for servers":
            made.give(usages=["server"])
        case "expired":
            made.give(now=now - timedelta(days=30), days=20)
        case "revoked":
            site.crls = [made.crl(now, revoked=True)]
        case "with a list that is missing":
            site.crls = []
        case _:
            site.crls = [made.crl(now - timedelta(days=60))]
    result = await set_up_with_certificate(site, made.certified(loner))
    assert (result.code, result.state) == (6, 322)
    assert UNTRUSTED[how] in result.message
    async with site.db.transaction() as tx:
        assert await clients.count(tx) == 0


async def test_a_certificate_without_its_key_buys_nothing(
    site: Site, web: httpx.AsyncClient, tmp_path: Path
) -> None:
    """It is no secret; nor is a proof that another device made of it."""
    made = Pki(site, tmp_path)
    der = made.leaf.public_bytes(Encoding.DER)
    caller, thief = Caller(site, web), Caller(site, web)

    async def shows(who: Caller, possession: str, **changes: str) -> httpx.Response:
        over = sha256(der).hexdigest()
        proof = ccm.key_proof(who.key, over, site.now(), secrets.token_urlsafe(18))
        said = b64encode(der).decode()
        body = {"key": pki.public_jwk(who.key), "proof": proof, "certificate": said}
        return await web.post(
            f"{who.base}/CCM_STS", json={**body, "possession": possession, **changes}
        )

    def proof_for(who: Caller, key: Any) -> str:
        thumbprint = pki.jwk_thumbprint(who.key)
        return ccm.key_proof(key, thumbprint, site.now(), secrets.token_urlsafe(18))

    assert code(await shows(thief, "")) == "401 client.bad-signature"
    assert code(await shows(thief, proof_for(thief, thief.key))) == "401 client.bad-signature"
    his = proof_for(caller, made.key)
    assert code(await shows(thief, his)) == "401 client.bad-signature"
    assert (await shows(caller, his)).status_code == 200
    assert code(await shows(caller, his)) == "401 client.replayed"
    odd = await shows(caller, his, certificate="AAAA")
    assert code(odd) == "403 client.bad-certificate"


async def test_a_certificate_that_is_taken_away_ends_with_the_day(
    site: Site, loner: Machine, tmp_path: Path, moment: Moment
) -> None:
    """There is no site token for it, which would go on for months."""
    made = Pki(site, tmp_path)
    site.crls = [made.crl(moment())]
    machine = made.certified(loner)
    await set_up_with_certificate(site, machine)
    client = Client(machine)
    await client.step()
    site.crls = [made.crl(moment(), revoked=True)]
    moment.passes(hours=9)
    assert not await polls(client)
    assert any("is revoked" in line for line in log(machine, "CcmMessaging"))
