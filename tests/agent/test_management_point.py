"""The management point against callers that are not our agent."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from joserfc import jwt
from joserfc.jwk import KeySet

from device_caller import Caller, code, message
from one_site import PACKAGE, TENANT, Moment, Site
from tandem import pki
from tandem.agent import Machine
from tandem.infra.database import Tx
from tandem.infra.secrets import SecretBox
from tandem.protocols import ccm
from tandem.protocols.ccm import jws as ccm_jws
from tandem.site import clients


@pytest.fixture
async def caller(site: Site, web: httpx.AsyncClient) -> Caller:
    made = Caller(site, web)
    await made.exchange()
    await made.register()
    assert made.client_id
    return made


async def test_a_ccm_token_lasts_eight_hours_and_is_bound_to_the_key(
    site: Site, caller: Caller
) -> None:
    async with site.db.transaction() as tx:
        keys = await clients.token_keys(
            tx, SecretBox.open(site.folder / "keys" / "box"), site.now()
        )
    claims = jwt.decode(caller.token, KeySet.import_key_set(keys), algorithms=["ES256"]).claims
    assert claims["exp"] - claims["iat"] == 8 * 3600
    assert claims["cnf"]["jkt"] == pki.jwk_thumbprint(caller.key)
    assert (claims["tid"], claims["deviceid"], claims["token_type"]) == (TENANT, "d1", "DA")


async def test_a_directory_token_alone_buys_nothing(site: Site, caller: Caller) -> None:
    other = ec.generate_private_key(ec.SECP256R1())
    assert code(await caller.exchange("forged:d1")) == "401 token.invalid"
    assert code(await caller.exchange(key=pki.public_jwk(other))) == "401 client.bad-signature"
    assert code(await caller.exchange(proof="x.y.z")) == "401 client.bad-signature"
    assert code(await caller.exchange("user:")) == "403 client.device-unnamed"


async def test_a_proof_counts_once(site: Site, web: httpx.AsyncClient) -> None:
    caller = Caller(site, web)
    proof = ccm.key_proof(caller.key, "device:d1", site.now(), "n" * 20)
    assert (await caller.exchange(proof=proof)).status_code == 200
    assert code(await caller.exchange(proof=proof)) == "401 client.replayed"


async def test_a_replayed_request_is_refused(site: Site, caller: Caller) -> None:
    body = ccm.IncomingRequest([message(site)])
    headers = caller.sign("POST", "/ccm_incoming", msgspec.json.encode(body))
    assert (await caller.send("POST", "/ccm_incoming", body, headers)).status_code == 200
    assert code(await caller.send("POST", "/ccm_incoming", body, headers)) == "401 client.replayed"


async def test_a_nonce_is_remembered_as_long_as_its_date_is_taken(
    site: Site, caller: Caller, moment: Moment
) -> None:
    headers = caller.sign("GET", "/SMS_MP/.sms_pol", b"", now=site.now() + timedelta(minutes=4))
    assert (await caller.send("GET", "/SMS_MP/.sms_pol", headers=headers)).status_code == 200
    for _ in range(4):
        moment.passes(minutes=3)
        async with site.db.transaction() as tx:
            from tandem.site.clients import service

            await service.forget_nonces(tx, moment())
        again = await caller.send("GET", "/SMS_MP/.sms_pol", headers=headers)
        assert again.status_code == 401


async def test_a_tampered_body_is_refused(site: Site, caller: Caller) -> None:
    honest = msgspec.json.encode(ccm.IncomingRequest([message(site, flags=1)]))
    headers = caller.sign("POST", "/ccm_incoming", honest)
    altered = ccm.IncomingRequest([message(site, flags=2)])
    answer = await caller.send("POST", "/ccm_incoming", altered, headers)
    assert code(answer) == "401 client.bad-signature"


async def test_a_stolen_token_is_of_no_use_without_the_key(
    site: Site, web: httpx.AsyncClient, caller: Caller
) -> None:
    thief = Caller(site, web)
    thief.token, thief.client_id = caller.token, caller.client_id
    assert code(await thief.send("GET", "/SMS_MP/.sms_pol")) == "401 client.bad-signature"
    # Nor does the header in which a gateway says who it thinks is there.
    headers = {"CMG-Client-Identity": caller.client_id}
    answer = await web.get(f"{caller.base}/SMS_MP/.sms_pol", headers=headers)
    assert code(answer) == "401 client.bad-token"


@pytest.mark.parametrize(
    "header",
    [
        {"alg": "none"},
        {"alg": "HS256"},
        {"alg": "ES384"},
        {"crit": ["exp"]},
        {"kid": "another"},
        {"kid": None},
        {},
    ],
)
async def test_a_token_that_the_site_did_not_sign_as_it_signs_is_refused(
    caller: Caller, header: dict[str, object]
) -> None:
    """Each with the honest token's claims, and the signature of a key that is not the site's."""
    head, payload, *_ = ccm_jws.parse(caller.token)
    forger = ec.generate_private_key(ec.SECP256R1())
    caller.token = ccm_jws.serialize({**head, **header}, payload, forger)
    assert code(await caller.send("GET", "/SMS_MP/.sms_pol")) == "401 client.bad-token"


@pytest.mark.parametrize("cut", ["x", "x.y", "x.y.z", "..", "e30.e30.", "{head}.{payload}."])
async def test_what_is_no_token_is_refused(caller: Caller, cut: str) -> None:
    head, payload, _ = caller.token.split(".")
    caller.token = cut.format(head=head, payload=payload)
    assert code(await caller.send("GET", "/SMS_MP/.sms_pol")) == "401 client.bad-token"


async def test_one_client_does_not_speak_for_another(
    site: Site, web: httpx.AsyncClient, caller: Caller
) -> None:
    other = Caller(site, web, "d2")
    await other.exchange()
    await other.register()
    other.client_id = caller.client_id
    assert code(await other.send("GET", "/SMS_MP/.sms_pol")) == "401 client.unknown"


async def test_an_expired_token_is_refused(site: Site, caller: Caller, moment: Moment) -> None:
    moment.passes(hours=8, minutes=2)
    assert code(await caller.send("GET", "/SMS_MP/.sms_pol")) == "401 client.token-expired"


async def test_a_token_of_another_site_is_refused(site: Site, caller: Caller) -> None:
    head, body, signature = caller.token.split(".")
    for token in (
        "",
        "x",
        "a.b.c",
        f"{head}.{body}.{signature[:-4]}AAAA",
        f"{head}.e30.{signature}",
    ):
        caller.token = token or "none"
        assert code(await caller.send("GET", "/SMS_MP/.sms_pol")) == "401 client.bad-token"


async def test_registering_twice_makes_one_record(site: Site, caller: Caller) -> None:
    first = caller.client_id
    await caller.register(name="LAB-NEW")
    async with site.db.transaction() as tx:
        (record,) = await clients.list_clients(tx)
    assert (record.id, record.name) == (first, "LAB-NEW")


async def test_a_device_with_a_new_key_stays_the_same_client(
    site: Site, web: httpx.AsyncClient, caller: Caller
) -> None:
    reset = Caller(site, web)
    await reset.exchange()
    await reset.register()
    assert reset.client_id == caller.client_id
    assert code(await caller.send("GET", "/SMS_MP/.sms_pol")) == "401 client.unknown"
    assert (await reset.send("GET", "/SMS_MP/.sms_pol")).status_code == 200


async def test_a_device_that_joined_again_stays_the_same_client(site: Site, caller: Caller) -> None:
    first, caller.device = caller.client_id, "d1-again"
    await caller.exchange()
    await caller.register()
    assert caller.client_id == first


async def test_registration_needs_the_key_of_the_token(site: Site, caller: Caller) -> None:
    other = ec.generate_private_key(ec.SECP256R1())
    answer = await caller.register(key=pki.public_jwk(other))
    assert code(answer) == "401 client.bad-signature"


async def test_an_unknown_site_code_is_named_with_its_cure(site: Site, caller: Caller) -> None:
    answer = await caller.register(site_code="XYZ")
    assert code(answer) == "400 client.unknown-site"
    assert answer.json()["error"]["cure"].startswith("Put SMSSITECODE=CM1 into")


async def test_a_message_counts_once(site: Site, caller: Caller) -> None:
    before = len(site.resources)
    for _ in range(3):
        answer = await caller.report(message(site), message(site, "m2"), message(site))
        assert answer.json() == {"accepted": ["m1", "m2", "m1"]}
    assert len(site.resources) == before + 2


async def test_message_ids_are_each_devices_own(
    site: Site, web: httpx.AsyncClient, caller: Caller
) -> None:
    other = Caller(site, web, "d2")
    await other.exchange()
    await other.register(name="LAB-010")
    await caller.report(message(site))
    before = len(site.resources)
    await other.report(message(site))
    assert len(site.resources) == before + 1


async def test_an_older_state_does_not_replace_a_newer(
    site: Site, caller: Caller, moment: Moment
) -> None:
    def state(message_id: str, flags: int) -> ccm.Message:
        data = msgspec.to_builtins(ccm.ComanagementState(flags, True, True, flags))
        return ccm.Message(message_id, ccm.COMANAGEMENT_TOPIC, 100, moment(), data)

    old = state("old", 1)
    moment.passes(minutes=1)
    await caller.report(state("new", 8193))
    await caller.report(old)
    async with site.db.transaction() as tx:
        found = await clients.find(tx, caller.client_id)
    assert found.state
    assert found.state.flags == 8193


@pytest.mark.parametrize(
    "messages",
    [
        [{"id": "", "topic": 1, "state": 1, "at": "2026-11-24T00:00:00Z"}],
        [{"id": "site:1", "topic": 1, "state": 1, "at": "2026-11-24T00:00:00Z"}],
        [{"id": "x", "topic": "1", "state": 1, "at": "2026-11-24T00:00:00Z"}],
        [{"id": "x", "topic": 2**40, "state": 1, "at": "2026-11-24T00:00:00Z"}],
        [{"id": "x\x00", "topic": 1, "state": 1, "at": "2026-11-24T00:00:00Z"}],
        [{"id": "x", "topic": 1, "state": 1, "at": "2026-11-24T00:00:00"}],
        [{"id": "x", "topic": 1, "state": 1, "at": "2026-11-24T00:00:00Z", "data": {"a": "\x00"}}],
        [{"id": f"{n}", "topic": 1, "state": 1, "at": "2026-11-24T00:00:00Z"} for n in range(201)],
    ],
)
async def test_messages_that_cannot_be_kept_are_refused(
    caller: Caller, messages: list[dict[str, Any]]
) -> None:
    answer = await caller.send("POST", "/ccm_incoming", {"messages": messages})
    assert code(answer) == "400 request.invalid"


async def test_state_that_cannot_be_read_is_kept_as_history(site: Site, caller: Caller) -> None:
    odd = ccm.Message("odd", ccm.COMANAGEMENT_TOPIC, 100, site.now(), {"flags": "many"})
    assert (await caller.report(odd)).json() == {"accepted": ["odd"]}


async def test_a_body_over_the_limit_is_refused(site: Site, caller: Caller) -> None:
    answer = await caller.report(message(site, text="x" * 600_000))
    assert code(answer) == "413 request.too-large"


async def test_a_blocked_client_is_told_so(site: Site, caller: Caller) -> None:
    api = f"https://localhost:{site.port}/api/v1/clients/{caller.client_id}"
    assert (await caller.web.post(f"{api}/block")).json()["blocked"] is True
    assert code(await caller.send("GET", "/SMS_MP/.sms_pol")) == "403 client.blocked"
    caller.client_id = ""
    assert code(await caller.register()) == "403 client.blocked"
    assert (await caller.web.post(f"{api}/unblock")).json()["blocked"] is False
    assert (await caller.register()).status_code == 200


async def test_policy_needs_registration(site: Site, web: httpx.AsyncClient) -> None:
    caller = Caller(site, web)
    await caller.exchange()
    assert code(await caller.send("GET", "/SMS_MP/.sms_pol")) == "401 client.unknown"


async def test_user_policy_needs_the_user(site: Site, caller: Caller) -> None:
    assert code(await caller.send("GET", "/SMS_MP/.sms_pol?user")) == "401 client.bad-token"


async def test_location_answers_as_a_browser_may_ask(site: Site, caller: Caller) -> None:
    answer = await caller.web.get(
        f"{caller.base}/sms_mp/.sms_aut?mplist".replace("sms_mp", "SMS_MP")
    )
    assert answer.json()["site_code"] == "CM1"
    answer = await caller.web.get(f"{caller.base}/SMS_MP/.sms_aut?SITESIGNCERT")
    assert answer.json()["root"] == pki.pem(site.root.certificate).decode()
    assert code(await caller.web.get(f"{caller.base}/SMS_MP/.sms_aut?x")) == "400 request.invalid"


@pytest.mark.parametrize(
    ("asked", "status", "span"),
    [
        ("bytes=0-9", 206, (0, 10)),
        ("bytes=511990-", 206, (511990, 512000)),
        ("bytes=-5", 206, (511995, 512000)),
        ("bytes=511990-999999", 206, (511990, 512000)),
        ("bytes=512000-", 416, None),
        ("bytes=9-3", 416, None),
        ("bytes=0-1,5-6", 416, None),
    ],
)
async def test_the_package_comes_in_ranges(
    site: Site, caller: Caller, asked: str, status: int, span: tuple[int, int] | None
) -> None:
    url = f"{caller.base}/CCM_Client/{site.manifest.sha256}"
    answer = await caller.web.get(url, headers={"Range": asked})
    assert answer.status_code == status
    if span:
        assert answer.content == PACKAGE[slice(*span)]
        assert answer.headers["content-range"] == f"bytes {span[0]}-{span[1] - 1}/{len(PACKAGE)}"


async def test_an_unknown_package_is_said_to_be_unknown(site: Site, caller: Caller) -> None:
    answer = await caller.web.get(f"{caller.base}/CCM_Client/{'0' * 64}")
    assert code(answer) == "404 client.no-package"


async def test_administrators_see_clients_and_their_history(site: Site, caller: Caller) -> None:
    api = f"https://localhost:{site.port}/api/v1"
    listed = (await caller.web.get(f"{api}/clients?search=lab-0")).json()
    assert (listed["total"], listed["clients"][0]["id"]) == (1, caller.client_id)
    assert (await caller.web.get(f"{api}/clients?search=%25")).json()["total"] == 0
    shown = (await caller.web.get(f"{api}/clients/{caller.client_id}")).json()
    assert [e["text"] for e in shown["timeline"]] == ["Registered with the site"]
    assert code(await caller.web.get(f"{api}/clients/GUID:NO")) == "404 client.not-found"
    assert code(await caller.web.get(f"{api}/clients?limit=x")) == "400 request.invalid"


def test_every_route_is_one_that_a_gateway_is_told_of(site: Site) -> None:
    for route in clients.routes(site.db, site.point):
        first = route.path.split("/")[1]  # type: ignore[attr-defined]
        (endpoint,) = [one for one in clients.ENDPOINTS if one.path == first]
        assert set(endpoint.methods) == set(route.methods) - {"HEAD"}  # type: ignore[attr-defined]


async def test_names_with_nul_are_refused(site: Site, caller: Caller) -> None:
    api = f"https://localhost:{site.port}/api/v1/clients"
    assert code(await caller.web.get(f"{api}?search=%00")) == "400 request.invalid"
    assert code(await caller.web.get(f"{api}/%00")) == "400 request.invalid"


async def test_a_clock_that_is_ahead_does_not_outrank_later_reports(
    site: Site, caller: Caller, moment: Moment
) -> None:
    def state(message_id: str, flags: int, days: int) -> ccm.Message:
        data = msgspec.to_builtins(ccm.ComanagementState(flags, True, True, flags))
        at = moment() + timedelta(days=days)
        return ccm.Message(message_id, ccm.COMANAGEMENT_TOPIC, 100, at, data)

    await caller.report(state("ahead", 1, days=4000))
    moment.passes(minutes=1)
    await caller.report(state("right", 8193, days=0))
    async with site.db.transaction() as tx:
        found = await clients.find(tx, caller.client_id)
    assert found.state
    assert found.state.flags == 8193


async def test_secrets_are_sealed_at_rest(site: Site, caller: Caller, installed: Machine) -> None:
    async with site.db.transaction() as tx:
        row = await (await tx.execute("SELECT sealed FROM clients_token_key")).fetchone()
    assert row
    assert b"PRIVATE KEY" not in row["sealed"]
    token: Path = installed.state / "CCM" / "token-device"
    assert b"eyJ" not in token.read_bytes()
    for log in installed.logs.glob("*.log"):
        assert b"eyJ" not in log.read_bytes()


async def test_two_management_points_share_one_key(site: Site, site_tx: Tx) -> None:
    box = SecretBox.open(site.folder / "keys" / "box")
    first = await clients.token_keys(site_tx, box, site.now())
    assert await clients.token_keys(site_tx, box, site.now()) == first
    assert len(first["keys"]) == 1
    assert "d" not in first["keys"][0]
