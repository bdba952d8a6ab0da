"""The sign-in log over Graph, and credentials that applications are given and lose."""

import asyncio
import base64
import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from asking import GRAPH, asking, client_assertion, number, register, self_signed
from cryptography.hazmat.primitives.serialization import Encoding

from tandem.cli import app_registration
from tandem.infra.clock import utc_now
from tandem.infra.database import Database
from tandem.tenant import oidc
from tenant_world import ADMIN, BASE, PASSWORD, World, make_world


async def test_every_sign_in_is_in_the_log_with_its_reason(with_graph: World) -> None:
    world = with_graph
    page = await world.sign_in_page(**asking())
    page = await world.submit(page, login=ADMIN, passwd="nonsense")
    await world.submit(page, login=ADMIN, passwd=PASSWORD)
    app = await register(world)
    form = {"grant_type": "client_credentials", "client_id": app.app_id, "scope": ".default"}
    await world.token(**form, client_secret="nonsense")
    await world.token(**form, client_secret=app.secret)
    tokens = await world.user_tokens(f"{GRAPH}/.default openid offline_access")
    await world.token(
        grant_type="refresh_token", client_id=oidc.CLI, refresh_token=tokens["refresh_token"]
    )
    bearer = {"Authorization": f"Bearer {tokens['access_token']}"}

    async def listed(query: str = "") -> Any:
        answer = await world.client.get(f"/v1.0/auditLogs/signIns{query}", headers=bearer)
        assert answer.status_code == 200, answer.text
        return answer.json()["value"]

    found = await listed()
    assert sorted(item["status"]["errorCode"] for item in found) == [0, 0, 0, 0, 50126, 7000215]
    (wrong,) = await listed("?$filter=status/errorCode eq 50126")
    assert wrong["userPrincipalName"] == ADMIN
    assert "password is wrong" in wrong["status"]["failureReason"]
    assert (wrong["ipAddress"], wrong["isInteractive"]) == ("127.0.0.1", True)
    assert wrong["appDisplayName"] == "Tandem command line"
    (secret,) = await listed("?$filter=status/errorCode eq 7000215")
    assert secret["appId"] == app.app_id
    mine = await listed(f"?$filter=userPrincipalName eq '{ADMIN}' and status/errorCode eq 0")
    assert [item["isInteractive"] for item in mine].count(False) == 1
    one = await world.client.get(f"/v1.0/auditLogs/signIns/{wrong['id']}", headers=bearer)
    assert one.json()["id"] == wrong["id"]
    everything = json.dumps(found)
    for value in ("nonsense", PASSWORD, app.secret, tokens["refresh_token"]):
        assert value not in everything
    await world.user("alex")
    refused = await world.client.get(
        "/v1.0/auditLogs/signIns", headers=await world.bearer("alex@contoso.com")
    )
    assert refused.status_code == 403


async def test_sign_ins_of_applications_are_written_together(tenant_db: Database) -> None:
    world = await make_world(tenant_db, authority={"sign_in_log_delay_seconds": 3600})
    app = await register(world)
    form = {
        "grant_type": "client_credentials",
        "client_id": app.app_id,
        "client_secret": app.secret,
        "scope": f"{GRAPH}/.default",
    }
    for _ in range(3):
        assert (await world.token(**form)).status_code == 200
    async with tenant_db.transaction() as tx:
        assert await oidc.sign_ins(tx) == []
    await oidc.flush(tenant_db, world.tokens)
    async with tenant_db.transaction() as tx:
        assert len(await oidc.sign_ins(tx, app_id=app.app_id, failed=False)) == 3
    await world.client.aclose()


async def test_upkeep_forgets_old_lines(world: World) -> None:
    await world.code("openid")
    world.wait(days=31)
    async with world.database.transaction() as tx:
        assert len(await oidc.sign_ins(tx)) == 1
        await oidc.tend(tx, world.tokens, world.at)
        assert await oidc.sign_ins(tx) == []


async def test_certificates_are_registered_over_graph(with_graph: World) -> None:
    world = with_graph
    bearer = await world.bearer()
    key, certificate = self_signed(world.at)
    der = base64.b64encode(certificate.public_bytes(Encoding.DER)).decode()
    made = await world.client.post(
        "/v1.0/applications",
        headers=bearer,
        json={
            "displayName": "Script",
            "keyCredentials": [{"type": "AsymmetricX509Cert", "usage": "Verify", "key": der}],
            "web": {
                "redirectUris": ["https://app.example/back"],
                "logoutUrl": "https://app.example/bye",
                "implicitGrantSettings": {"enableIdTokenIssuance": True},
            },
        },
    )
    assert made.status_code == 201, made.text
    app = made.json()
    (held,) = app["keyCredentials"]
    assert (held["type"], held["usage"], held["key"]) == ("AsymmetricX509Cert", "Verify", None)
    assert app["web"]["implicitGrantSettings"]["enableIdTokenIssuance"] is True
    assert app["web"]["logoutUrl"] == "https://app.example/bye"
    await world.client.post("/v1.0/servicePrincipals", headers=bearer, json={"appId": app["appId"]})

    async def sign_in() -> httpx.Response:
        where = f"{BASE}/{world.tenant.id}/oauth2/v2.0/token"
        return await world.token(
            grant_type="client_credentials",
            client_id=app["appId"],
            scope=f"{GRAPH}/.default",
            client_assertion_type="urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
            client_assertion=client_assertion(key, certificate, app["appId"], where, world.at),
        )

    assert (await sign_in()).status_code == 200
    at = f"/v1.0/applications/{app['id']}"
    kept = await world.client.patch(
        at, headers=bearer, json={"keyCredentials": [{"keyId": held["keyId"]}]}
    )
    assert kept.status_code == 204, kept.text
    assert (await sign_in()).status_code == 200
    # addKey and removeKey ask for a proof by an earlier key: the tests of registrations have it.
    removed = await world.client.patch(at, headers=bearer, json={"keyCredentials": []})
    assert removed.status_code == 204, removed.text
    assert number(await sign_in()) == 700027
    added = await world.client.patch(at, headers=bearer, json={"keyCredentials": [{"key": der}]})
    assert added.status_code == 204, added.text
    assert (await sign_in()).status_code == 200
    for bad in ("nonsense", "AAAA", ""):
        refused = await world.client.patch(
            at, headers=bearer, json={"keyCredentials": [{"key": bad}]}
        )
        assert refused.status_code == 400, bad


async def test_credentials_that_end_are_warned_of_in_time(world: World) -> None:
    app = await register(world)
    async with world.database.transaction() as tx:
        (first,) = await oidc.applications.secrets(tx, [app.id])
        await oidc.applications.remove_secret(tx, app.id, first.key_id)
        for days in (5, 20, 50, 100):
            ends = world.at + timedelta(days=days)
            await oidc.applications.add_secret(
                tx, app.id, world.at, display_name=f"{days} days", ends_at=ends
            )
        _, certificate = self_signed(world.at)
        await oidc.applications.add_certificate(
            tx, app.id, certificate.public_bytes(Encoding.DER), display_name="a year"
        )
        found = await oidc.applications.expiring(tx, world.at)
        urgency = oidc.applications.urgency
        assert [(item.display_name, urgency(item, world.at)) for item in found] == [
            ("5 days", 7),
            ("20 days", 30),
            ("50 days", 60),
        ]
        world.wait(days=10)
        late = await oidc.applications.expiring(tx, world.at)
        assert urgency(late[0], world.at) == 0
        world.wait(days=350)
        last = await oidc.applications.expiring(tx, world.at)
    assert [item.sort for item in last] == ["secret"] * 4 + ["certificate"]


async def test_the_command_line_lists_and_renews_them(
    with_graph: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    world = with_graph
    world.at = utc_now()  # The command line has no other clock.
    at = {"headers": await world.bearer()}
    made = (
        await world.client.post("/v1.0/applications", json={"displayName": "Script"}, **at)
    ).json()

    class Direct:
        """The command line's API, in this process."""

        def _run(self, method: str, path: str, **options: Any) -> Any:
            return asyncio.run_coroutine_threadsafe(
                world.client.request(method, path, **at, **options), loop
            ).result(20)

        def get(self, path: str, **query: Any) -> Any:
            return self._run("GET", path, params=query).json()

        def every(self, path: str, **query: Any) -> Any:
            return self.get(path, **query)["value"]

        def post(self, path: str, body: Any) -> Any:
            answer = self._run("POST", path, json=body)
            assert answer.status_code < 300, answer.text
            return answer.json() if answer.content else None

    loop = asyncio.get_running_loop()
    monkeypatch.setattr(app_registration, "graph_client", Direct)
    secret = tmp_path / "secret"
    await asyncio.to_thread(
        app_registration.renew_secret, made["appId"], secret, days=20, remove=None, json=True
    )
    assert oct(secret.stat().st_mode & 0o777) == "0o600"
    capsys.readouterr()
    await asyncio.to_thread(app_registration.expiring, days=60, json=True)
    printed = capsys.readouterr().out
    (line,) = json.loads(printed[printed.index("[\n") :])
    assert (line["app_id"], line["sort"]) == (made["appId"], "secret")
    await asyncio.to_thread(app_registration.expiring, days=0, json=False)
    assert "Nothing ends" in capsys.readouterr().out
