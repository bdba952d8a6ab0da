"""The site's own administrators: sign-in, sessions, roles."""

import asyncio
from typing import Any

import pytest

import site_api
from site_api import CHEAP, NOW, PASSWORD, TENANT, Api
from tandem import audit
from tandem.infra.database import Database, Tx
from tandem.site import administrators
from tandem.site.administrators import Role


async def add(api: Api, name: str, role: str, **more: str) -> dict[str, Any]:
    wanted = {"name": name, "role": role, "password": PASSWORD, **more}
    answer = await api.web.post("/api/v1/administrators", json=wanted)
    assert answer.status_code == 201, answer.text
    made: dict[str, Any] = answer.json()
    return made


async def test_the_first_administrator_is_made_once(site_tx: Tx) -> None:
    made = await administrators.create_first(site_tx, "Alex", PASSWORD, NOW, CHEAP)
    assert made is not None
    assert made.role is Role.FULL_ADMINISTRATOR
    assert await administrators.create_first(site_tx, "Mallory", PASSWORD, NOW, CHEAP) is None


async def test_a_wrong_password_and_an_unknown_name_get_the_same_answer(api: Api) -> None:
    wrong = await api.sign_in("siteadmin", "not-the-password")
    unknown = await api.sign_in("nobody", "not-the-password")
    assert (wrong.status_code, unknown.status_code) == (401, 401)
    for answer in (wrong, unknown):
        error = answer.json()["error"]
        assert error["message"] == "Name or password is wrong."
        assert error["cure"]


async def test_names_are_known_in_any_case(api: Api) -> None:
    assert (await api.sign_in("SiteAdmin")).status_code == 200


async def test_an_account_waits_after_too_many_wrong_passwords(api: Api) -> None:
    for _ in range(CHEAP.lock_after):
        assert (await api.sign_in(password="wrong")).status_code == 401
    locked = await api.sign_in()
    assert locked.status_code == 429
    assert "Wait 60 seconds" in locked.json()["error"]["cure"]
    api.wait(seconds=61)
    assert (await api.sign_in()).status_code == 200


async def test_guesses_at_the_same_time_are_all_counted(api: Api) -> None:
    guesses = [api.sign_in(password="wrong") for _ in range(CHEAP.lock_after + 5)]
    codes = sorted(answer.status_code for answer in await asyncio.gather(*guesses))
    assert codes == [401] * CHEAP.lock_after + [429] * 5


async def test_a_session_ends_when_nothing_is_done_with_it(api: Api) -> None:
    api.wait(minutes=59)
    await api.get("/api/v1/site")
    api.wait(minutes=59)
    await api.get("/api/v1/site")
    api.wait(minutes=61)
    code, error = await api.refusal("GET", "/api/v1/site")
    assert (code, error["code"]) == (401, "site.not-signed-in")
    assert "sign-in" in error["cure"]


async def test_a_session_ends_after_its_hours_whatever_is_done(api: Api) -> None:
    for _ in range(12):
        await api.get("/api/v1/site")
        api.wait(minutes=59)
    api.wait(minutes=30)
    assert (await api.web.get("/api/v1/site")).status_code == 401


async def test_signing_out_ends_the_session_at_once(api: Api) -> None:
    assert (await api.web.post("/api/v1/sign-out")).status_code == 204
    assert (await api.web.get("/api/v1/site")).status_code == 401


@pytest.mark.parametrize("header", ["", "Bearer", "Bearer x", "Basic c2l0ZTpzaXRl", "Bearer \x7f"])
async def test_nothing_is_answered_without_a_session(api: Api, header: str) -> None:
    api.web.headers["Authorization"] = header
    for path in ("site", "administrators", "collections", "client-settings", "comanagement"):
        assert (await api.web.get(f"/api/v1/{path}")).status_code == 401


async def test_the_database_knows_neither_password_nor_token(api: Api, site_db: Database) -> None:
    token = str(api.web.headers["Authorization"]).removeprefix("Bearer ")
    async with site_db.transaction() as tx:
        for table in ("administrators_administrator", "administrators_session", "audit_entry"):
            rows = await (await tx.execute(f"SELECT t::text FROM {table} t".encode())).fetchall()
            assert rows
            assert all(PASSWORD not in row["t"] and token not in row["t"] for row in rows)


async def test_an_analyst_reads_and_changes_nothing(api: Api) -> None:
    await add(api, "Ann", "read-only-analyst")
    await api.sign_in("Ann")
    await api.get("/api/v1/collections")
    code, error = await api.refusal("POST", "/api/v1/collections", {"name": "Pilot"})
    assert (code, error["code"]) == (403, "site.not-allowed")
    assert "Read-only Analyst" in error["message"]
    assert "Operations Administrator" in error["message"]


async def test_co_management_and_accounts_are_for_full_administrators(api: Api) -> None:
    await add(api, "Ola", "operations-administrator")
    await api.sign_in("Ola")
    assert (await api.web.post("/api/v1/collections", json={"name": "Pilot"})).status_code == 201
    moved = {"position": "mdm"}
    code, _ = await api.refusal("PUT", "/api/v1/comanagement/workloads/client-apps", moved)
    assert code == 403
    code, _ = await api.refusal("POST", "/api/v1/administrators", {"name": "x", "password": "y"})
    assert code == 403


async def test_a_removed_administrator_is_signed_out(api: Api) -> None:
    await add(api, "Ola", "operations-administrator")
    mine = api.web.headers["Authorization"]
    await api.sign_in("Ola")
    theirs = api.web.headers["Authorization"]
    api.web.headers["Authorization"] = mine
    assert (await api.web.delete("/api/v1/administrators/ola")).status_code == 204
    api.web.headers["Authorization"] = theirs
    assert (await api.web.get("/api/v1/site")).status_code == 401


async def test_the_last_full_administrator_stays(api: Api) -> None:
    code, error = await api.refusal("DELETE", "/api/v1/administrators/siteadmin")
    assert (code, error["code"]) == (409, "site.last-full-administrator")
    account = {"upn": "alex@contoso.com", "tenant_id": TENANT}
    await add(api, "Alex", "full-administrator", **account)
    # An account of the tenant cannot sign in when the internet is down.
    code, _ = await api.refusal("DELETE", "/api/v1/administrators/siteadmin")
    assert code == 409
    await add(api, "Second", "full-administrator")
    assert (await api.web.delete("/api/v1/administrators/siteadmin")).status_code == 204


async def test_an_account_of_the_tenant_signs_in_once_it_was_added(api: Api) -> None:
    account = {"upn": "alex@contoso.com", "tenant_id": TENANT.upper()}
    await add(api, "Alex", "read-only-analyst", **account)
    mine, now = "o-alex@contoso.com", NOW
    async with api.db.transaction() as tx:
        session = await administrators.sign_in_external(tx, TENANT, mine, "Alex@x", now, CHEAP)
        # Somebody else who got the name later is not Alex.
        for tenant, id in ((TENANT, "o-mallory"), (TENANT, ""), ("", ""), ("x", ""), ("x", mine)):
            with pytest.raises(administrators.SignInFailed):
                await administrators.sign_in_external(
                    tx, tenant, id, "alex@contoso.com", now, CHEAP
                )
    assert session.administrator.role is Role.READ_ONLY_ANALYST
    # Its name is no second way in: it has no password here.
    assert (await api.sign_in("Alex", "")).status_code == 401


@pytest.mark.parametrize(
    ("wanted", "code"),
    [
        ({"name": "A", "password": "short"}, "site.weak-password"),
        ({"name": "A", "password": "x" * 2000}, "site.weak-password"),
        ({"name": "", "password": PASSWORD}, "site.bad-account"),
        ({"name": "a/b", "password": PASSWORD}, "site.bad-account"),
        ({"name": "x" * 200, "password": PASSWORD}, "site.bad-account"),
        ({"name": "SITEADMIN", "password": PASSWORD}, "site.administrator-exists"),
        ({"name": "A", "role": "King", "password": PASSWORD}, "request.invalid"),
        ({"name": "A", "upn": "alex@contoso.com", "tenant_id": "contoso"}, "site.bad-account"),
        ({"name": "A", "upn": "alex", "tenant_id": TENANT}, "site.bad-account"),
        ({"password": PASSWORD}, "request.invalid"),
    ],
)
async def test_an_administrator_that_cannot_be_is_refused(
    api: Api, wanted: dict[str, str], code: str
) -> None:
    _, error = await api.refusal("POST", "/api/v1/administrators", wanted)
    assert error["code"] == code


async def test_every_change_and_every_sign_in_is_in_the_audit_log(api: Api) -> None:
    await add(api, "Ola", "operations-administrator")
    await api.sign_in(password="wrong")
    await api.web.delete("/api/v1/administrators/Ola")
    found = await api.get("/api/v1/site/audit", limit=5)
    said = [(item["actor"], item["action"], item["target"], item["outcome"]) for item in found]
    assert said == [
        ("siteadmin", "administrator.remove", "Ola", "done"),
        ("siteadmin", "administrator.sign-in", "siteadmin", "refused"),
        ("siteadmin", "administrator.add", "Ola", "done"),
        ("siteadmin", "administrator.sign-in", "siteadmin", "done"),
        ("set-up", "administrator.add", "siteadmin", "done"),
    ]
    async with api.db.transaction() as tx:
        assert await audit.verify(tx) is None


def test_the_password_work_is_argon2id_of_the_recommended_size() -> None:
    settings = administrators.AdministratorsSettings()
    assert (settings.password_memory_kib, settings.password_passes) >= (19_456, 2)
    assert site_api.CHEAP.password_memory_kib < settings.password_memory_kib
