"""Roles and passwords change; the last full administrator stays."""

from typing import Any

import pytest

from site_api import PASSWORD, TENANT, Api
from tandem import audit

NEW = "Battery-Staple-3"


async def add(api: Api, name: str, role: str, **more: str) -> dict[str, Any]:
    wanted = {"name": name, "role": role, "password": PASSWORD, **more}
    answer = await api.web.post("/api/v1/administrators", json=wanted)
    assert answer.status_code == 201, answer.text
    made: dict[str, Any] = answer.json()
    return made


async def password(api: Api, current: str, wanted: str) -> Any:
    given = {"current": current, "password": wanted}
    return await api.web.post("/api/v1/me/password", json=given)


async def test_a_role_is_changed_and_holds_for_open_sessions(api: Api) -> None:
    await add(api, "Ola", "read-only-analyst")
    answer = await api.web.patch("/api/v1/administrators/ola", json={"role": "full-administrator"})
    assert answer.json()["role"] == "Full Administrator"
    async with api.db.transaction() as tx:
        (entry,) = await audit.entries(tx, target="Ola", limit=1)
    assert entry.action == "administrator.change"
    assert entry.details["changed"] == [
        {"name": "role", "old": "Read-only Analyst", "new": "Full Administrator"}
    ]
    await api.sign_in("Ola")
    down = await api.web.patch(
        "/api/v1/administrators/siteadmin", json={"role": "read-only-analyst"}
    )
    assert down.status_code == 200
    await api.sign_in()
    code, error = await api.refusal("PATCH", "/api/v1/administrators/Ola", {"role": "x"})
    assert (code, error["code"]) == (403, "site.not-allowed")


async def test_the_last_full_administrator_stays_one(api: Api) -> None:
    """An account of the tenant does not count: it cannot sign in when the tenant is away."""
    await add(api, "Tia", "full-administrator", upn="tia@contoso.com", tenant_id=TENANT)
    await add(api, "Ola", "operations-administrator")
    for method, body in (("PATCH", {"role": "read-only-analyst"}), ("DELETE", None)):
        code, error = await api.refusal(method, "/api/v1/administrators/SITEADMIN", body)
        assert (code, error["code"]) == (409, "site.last-full-administrator")
        assert error["cure"]
    same = await api.web.patch(
        "/api/v1/administrators/siteadmin", json={"role": "Full Administrator"}
    )
    assert same.status_code == 200


@pytest.mark.parametrize(
    ("name", "body", "code"),
    [
        ("nobody", {"role": "full-administrator"}, "site.no-such-administrator"),
        ("siteadmin", {"role": "god"}, "request.invalid"),
        ("siteadmin", {}, "request.invalid"),
    ],
)
async def test_a_change_that_cannot_be_is_refused(
    api: Api, name: str, body: dict[str, str], code: str
) -> None:
    _, error = await api.refusal("PATCH", f"/api/v1/administrators/{name}", body)
    assert error["code"] == code


async def test_two_who_change_one_administrator(api: Api) -> None:
    await add(api, "Ola", "read-only-analyst")
    path = "/api/v1/administrators/Ola"
    stale = {"If-Match": (await api.web.get(path)).headers["etag"]}
    first = await api.web.patch(path, json={"role": "full-administrator"}, headers=stale)
    second = await api.web.patch(path, json={"role": "operations-administrator"}, headers=stale)
    assert (first.status_code, second.status_code) == (200, 412)


async def test_one_s_own_password_is_changed_and_other_sessions_end(api: Api) -> None:
    elsewhere = api.web.headers["Authorization"]
    await api.sign_in()
    assert (await password(api, PASSWORD, NEW)).status_code == 204
    assert (await api.get("/api/v1/me"))["name"] == "siteadmin"
    gone = await api.web.get("/api/v1/me", headers={"Authorization": elsewhere})
    assert gone.status_code == 401
    assert (await api.sign_in(password=PASSWORD)).status_code == 401
    assert (await api.sign_in(password=NEW)).status_code == 200
    async with api.db.transaction() as tx:
        for entry in await audit.entries(tx, target="siteadmin"):
            assert NEW not in str(entry.details)


async def test_a_wrong_password_is_at_its_field_and_counts(api: Api) -> None:
    answer = await password(api, "not-the-password", NEW)
    assert (answer.status_code, answer.json()["error"]["details"]["field"]) == (403, "current")
    weak = await password(api, PASSWORD, "short")
    assert (weak.status_code, weak.json()["error"]["details"]["field"]) == (400, "password")
    codes = {(await password(api, "not-the-password", NEW)).status_code for _ in range(10)}
    assert codes == {403, 429}


async def test_an_analyst_changes_their_own_password_and_nothing_else(api: Api) -> None:
    await add(api, "Ola", "read-only-analyst")
    await api.sign_in("Ola")
    assert (await password(api, PASSWORD, NEW)).status_code == 204
    assert (await api.refusal("DELETE", "/api/v1/administrators/siteadmin"))[0] == 403
