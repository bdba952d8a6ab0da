"""How a device proves whose it is: a sign-in on our page, a password, an issued token (section 4)."""

import asyncio
import base64
import json
import re
from typing import Any

import pytest
from lxml import etree

from mdm_world import Mdm, bearer, discover, envelope, new_id, said, subcode
from tandem.protocols import soap
from tandem.tenant import directory, licensing, oidc
from tenant_world import PASSWORD
from ways_world import (
    APPRU,
    DIGEST,
    choose,
    enrol,
    handed_over,
    issued,
    policies,
    signs_in,
    token_for,
    twice,
    user_name,
)

NOBODY, FORMAT = "s:Authentication", "s:MessageFormat"


async def enrolled_as(mdm: Mdm) -> list[tuple[str, str]]:
    rows = (await mdm.graph("GET", "deviceManagement/managedDevices")).json()["value"]
    return [(row["userPrincipalName"], row["deviceEnrollmentType"]) for row in rows]


# ------------------------------------------------------------------ a sign-in on our page


async def test_a_sign_in_on_our_page_enrols_one_device(mdm: Mdm) -> None:
    await mdm.world.user("alex")
    page = await signs_in(mdm, "alex")
    assert page.status_code == 200
    assert int(page.headers["content-length"]) == len(page.content)
    assert "transfer-encoding" not in page.headers
    action, token = handed_over(page)
    assert action == APPRU, "exactly as received"
    assert len(base64.b64decode(token, validate=True)) >= 32
    # GetPolicies and a retry of it do not use the token up; the first RST that succeeds does.
    for _ in range(2):
        assert subcode(await policies(mdm, issued(token))) == ""
    assert subcode(await enrol(mdm, issued(token), DeviceID="")) == FORMAT
    assert subcode(await enrol(mdm, issued(token))) == ""
    for answer in (await enrol(mdm, issued(token)), await policies(mdm, issued(token))):
        assert subcode(answer) == NOBODY
    assert await enrolled_as(mdm) == [("alex@contoso.com", "userEnrollment")]


async def test_the_page_runs_nothing_but_its_own_file_and_posts_to_windows_only(mdm: Mdm) -> None:
    await mdm.world.user("alex")
    page = await signs_in(mdm, "alex", "ms-app://S-1-15-2-1?x=1&amp;y")
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "script-src 'self'" in policy
    assert "form-action 'self' ms-app:;" in policy
    assert page.headers["cache-control"] == "no-store"
    assert "&amp;amp;y" in page.text, "escaped, so that the address arrives as it came"
    (source,) = re.findall(r"<script src=\"([^\"]+)\">", page.text)
    script = await mdm.world.client.get(source)
    assert (script.status_code, script.text) == (200, "document.forms[0].submit();\n")
    assert "javascript" in script.headers["content-type"]
    assert "<script>" not in page.text
    _, token = handed_over(page)
    async with mdm.database.transaction() as tx:
        row = await (await tx.execute("SELECT * FROM enrollment_token")).fetchone()
    assert row is not None
    assert token not in str(row)
    assert base64.b64decode(token).decode() not in str(row)


@pytest.mark.parametrize(
    "appru",
    [
        "https://evil.example/",
        "javascript:alert(1)",
        "ms-app:x",
        'ms-app://x"><script>',
        "ms-app://a b",
        "ms-app://" + "x" * 3000,
        "ms-apps://x",
        "ms-app://[x",
    ],
)
async def test_nothing_is_handed_to_an_address_that_is_not_windows(mdm: Mdm, appru: str) -> None:
    answer = await mdm.world.client.get("/EnrollmentServer/Auth", params={"appru": appru})
    assert answer.status_code == 400
    assert "<script" not in answer.text
    assert "location" not in answer.headers


async def test_who_opens_the_page_without_a_device_is_told_what_it_is_for(mdm: Mdm) -> None:
    answer = await mdm.world.client.get(
        "/enrollmentserver/auth", headers={"accept-language": "fr-FR,fr;q=0.9"}
    )
    assert answer.status_code == 200
    assert "Accès Professionnel ou Scolaire" in answer.text
    assert answer.headers["content-language"] == "fr"


async def test_a_sign_in_ends_in_the_browser_that_began_it(mdm: Mdm) -> None:
    """A link with somebody else's code, an altered state, an old page: nothing is handed over."""
    await mdm.world.user("alex")
    client = mdm.world.client
    first = await client.get("/EnrollmentServer/Auth", params={"appru": APPRU})
    page = await mdm.world.submit(
        await client.get(first.headers["location"]), login="alex@contoso.com", passwd=PASSWORD
    )
    back = page.headers["location"]
    cookie = client.cookies["__Host-tandem_enrol"]
    client.cookies.delete("__Host-tandem_enrol")
    assert (await client.get(back)).status_code == 400
    client.cookies.set("__Host-tandem_enrol", cookie, domain="tenant.example")
    assert (await client.get(back.replace("state=", "state=A"))).status_code == 400
    assert (await client.get(re.sub(r"code=[^&]+", "code=x", back))).status_code == 400
    assert "wresult" in (await client.get(back)).text
    assert "wresult" not in (await client.get(back)).text, "a code is good once"


async def test_a_sign_in_that_fails_says_so(mdm: Mdm) -> None:
    await mdm.world.user("alex")
    client = mdm.world.client
    first = await client.get("/EnrollmentServer/Auth", params={"appru": APPRU})
    state = re.search(r"state=([^&]+)", first.headers["location"])
    assert state
    answer = await client.get(
        f"/EnrollmentServer/Auth/SignedIn?error=access_denied&state={state[1]}",
        headers={"accept-language": "fr"},
    )
    assert answer.status_code == 400
    assert "La connexion n&#39;a pas réussi" in answer.text


async def test_a_user_who_may_not_enrol_reads_it_on_the_page(mdm: Mdm) -> None:
    await mdm.world.user("alex")
    async with mdm.database.transaction() as tx:
        await licensing.require_licence(tx, True)
    page = await signs_in(mdm, "alex")
    assert page.status_code == 403
    assert "no licence" in page.text
    assert "wresult" not in page.text


@pytest.mark.parametrize("change", ["late", "disabled", "deleted"])
async def test_a_token_does_not_outlive_its_time_or_its_user(mdm: Mdm, change: str) -> None:
    user = await mdm.world.user("alex")
    _, token = handed_over(await signs_in(mdm, "alex"))
    if change == "late":
        mdm.world.wait(minutes=15, seconds=1)
    async with mdm.database.transaction() as tx:
        if change == "disabled":
            await directory.update_user(tx, user.id, {"account_enabled": False}, mdm.world.at)
        if change == "deleted":
            await directory.delete_user(tx, user.id, mdm.world.at)
    assert subcode(await enrol(mdm, issued(token))) == NOBODY


async def test_of_many_requests_with_one_token_one_succeeds(mdm: Mdm) -> None:
    await mdm.world.user("alex")
    token = await token_for(mdm)
    answers = await asyncio.gather(
        *(enrol(mdm, issued(token), DeviceID=new_id()) for _ in range(4))
    )
    assert sorted(subcode(answer) for answer in answers) == ["", NOBODY, NOBODY, NOBODY]
    assert len(await enrolled_as(mdm)) == 1


# ------------------------------------------------------------------ a token that was issued


async def test_an_issued_token_is_taken_with_one_level_of_base64_or_two(mdm: Mdm) -> None:
    """RegisterDeviceWithManagement passes on what its caller gave, which may be base64 already."""
    await mdm.world.user("alex")
    for shape in (lambda text: text, twice):
        token = shape(await token_for(mdm))
        assert subcode(await enrol(mdm, issued(token), DeviceID=new_id())) == ""
    raw = base64.b64decode(await token_for(mdm)).decode()
    assert subcode(await enrol(mdm, issued(raw), DeviceID=new_id())) == ""
    for bad in ("", "x" * 88, twice("e1" + "g" * 64), twice(twice(twice(raw)))):
        assert subcode(await enrol(mdm, issued(bad))) in {NOBODY, "a:InvalidSecurity"}


async def test_a_token_is_shown_once_listed_and_revoked(mdm: Mdm) -> None:
    user = await mdm.world.user("alex")
    body = {"user": "alex@contoso.com", "lifetimeInMinutes": 60, "deviceName": "LAB-001"}
    made = (await mdm.graph("POST", "tandem/enrollmentTokens", body)).json()
    assert made["discoveryUrl"] == "https://tenant.example/EnrollmentServer/Discovery.svc"
    (row,) = (await mdm.graph("GET", "tandem/enrollmentTokens")).json()["value"]
    assert "token" not in row
    assert (row["userId"], row["deviceName"], row["usedDateTime"]) == (user.id, "LAB-001", None)
    assert row["issuedBy"]
    assert subcode(await enrol(mdm, issued(made["token"]), DeviceName="OTHER")) == NOBODY
    assert subcode(await enrol(mdm, issued(made["token"]), DeviceName="lab-001")) == ""
    (row,) = (await mdm.graph("GET", "tandem/enrollmentTokens")).json()["value"]
    assert row["usedDateTime"]
    (device,) = (await mdm.graph("GET", "deviceManagement/managedDevices")).json()["value"]
    assert row["managedDeviceId"] == device["id"]
    path = f"deviceManagement/managedDevices/{device['id']}/timeline"
    shown = (await mdm.graph("GET", path)).json()["value"]
    assert [item["text"] for item in shown] == [
        "Enrolled in MDM by alex@contoso.com, with a token that an administrator issued"
    ]

    other = (await mdm.graph("POST", "tandem/enrollmentTokens", body)).json()
    path = f"tandem/enrollmentTokens/{other['id']}"
    assert (await mdm.graph("DELETE", path)).status_code == 204
    assert (await mdm.graph("DELETE", path)).status_code == 404
    assert subcode(await policies(mdm, issued(other["token"]))) == NOBODY


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"user": "nobody@contoso.com"}, 404),
        ({"user": "alex@contoso.com", "lifetimeInMinutes": 0}, 400),
        ({"user": "alex@contoso.com", "lifetimeInMinutes": 1441}, 400),
        ({"user": "alex@contoso.com", "lifetimeInMinutes": 10**18}, 400),
        ({"user": "alex@contoso.com", "deviceName": "x" * 65}, 400),
        ({}, 400),
    ],
)
async def test_a_token_needs_a_user_and_a_usual_life(
    mdm: Mdm, body: dict[str, Any], status: int
) -> None:
    await mdm.world.user("alex")
    answer = await mdm.graph("POST", "tandem/enrollmentTokens", body)
    assert answer.status_code == status, answer.text


async def test_tokens_that_expired_long_ago_go(mdm: Mdm) -> None:
    await mdm.world.user("alex")
    await token_for(mdm)
    left = []
    for days in (30, 1):
        mdm.world.wait(days=days)
        async with mdm.database.transaction() as tx:
            await mdm.enrollment.tend(tx)
            left.append(await (await tx.execute("SELECT 1 FROM enrollment_token")).fetchall())
    assert [len(rows) for rows in left] == [1, 0]


# ------------------------------------------------------------------ a password in the request


async def test_passwords_are_off_until_somebody_switches_them_on(mdm: Mdm) -> None:
    await mdm.world.user("alex")
    only = discover(policies=["OnPremise"])
    assert subcode(await mdm.soap("Discovery", only)) == FORMAT
    assert subcode(await policies(mdm, user_name("alex@contoso.com"))) == NOBODY

    await choose(mdm, password_enrollment=True)
    found = said(await mdm.soap("Discovery", only))
    assert found["AuthPolicy"] == "OnPremise"
    assert "AuthenticationServiceUrl" not in found
    # Who can do both signs in on the page.
    both = said(await mdm.soap("Discovery", discover(policies=["OnPremise", "Federated"])))
    assert both["AuthPolicy"] == "Federated"
    assert both["AuthenticationServiceUrl"].startswith("https://")
    for header in (
        user_name("alex@contoso.com"),
        user_name("ALEX@contoso.com", attribute="Type"),
        user_name("alex@contoso.com", attribute=""),
    ):
        assert subcode(await policies(mdm, header)) == ""
    assert subcode(await enrol(mdm, user_name("alex@contoso.com"))) == ""
    assert await enrolled_as(mdm) == [("alex@contoso.com", "userEnrollment")]


async def test_a_wrong_password_and_an_unknown_user_get_one_answer(mdm: Mdm) -> None:
    await mdm.world.user("alex")
    await choose(mdm, password_enrollment=True)
    faults = []
    for header in (
        user_name("alex@contoso.com", "Wrong-Horse-1"),
        user_name("nobody@contoso.com"),
        user_name("alex"),
        user_name("alex@contoso.com", f" {PASSWORD} "),
    ):
        answer = await enrol(mdm, header)
        assert subcode(answer) == NOBODY
        faults.append(said(answer)["Text"])
    assert len(set(faults)) == 1
    assert subcode(await enrol(mdm, user_name("alex@contoso.com", sort=DIGEST))) == NOBODY
    assert subcode(await enrol(mdm, user_name("alex@contoso.com", ""))) == "a:InvalidSecurity"
    assert PASSWORD not in " ".join(faults)


async def test_guessing_stops_for_the_user_and_for_the_address(mdm: Mdm) -> None:
    """Also when it goes on with the right password, and for names that nobody has."""
    for name in ("alex", "sam"):
        await mdm.world.user(name)
    await choose(mdm, password_enrollment=True)
    for _ in range(10):
        await policies(mdm, user_name("alex@contoso.com", "Wrong-Horse-1"))
    assert subcode(await policies(mdm, user_name("alex@contoso.com"))) == NOBODY
    assert subcode(await policies(mdm, user_name("sam@contoso.com"))) == ""
    async with mdm.world.from_address("203.0.113.9"):
        for number in range(10):
            await policies(mdm, user_name(f"name{number}@contoso.com"))
        assert subcode(await policies(mdm, user_name("sam@contoso.com"))) == NOBODY
    assert subcode(await policies(mdm, user_name("sam@contoso.com"))) == ""
    async with mdm.database.transaction() as tx:
        seen = await oidc.sign_ins(tx, limit=100)
    assert {item.app_id for item in seen if item.number == 50126} == {oidc.MDM_ENROLLMENT}


async def test_a_name_of_the_old_domain_is_known_where_the_directory_knows_it(mdm: Mdm) -> None:
    user = await mdm.world.user("alex")
    body = {"onPremisesSamAccountName": "AlexW", "onPremisesDomainName": "corp.contoso.com"}
    async with mdm.database.transaction() as tx:
        await tx.execute(
            "UPDATE directory_user SET profile = profile || %s::jsonb WHERE id = %s",
            (json.dumps(body), user.id),
        )
    await choose(mdm, password_enrollment=True)
    for name in ("CORP\\alexw", "corp.contoso.com\\ALEXW"):
        assert subcode(await policies(mdm, user_name(name))) == ""
    for name in ("OTHER\\alexw", "CORP\\", "\\alexw"):
        assert subcode(await policies(mdm, user_name(name))) == NOBODY


async def test_a_password_that_has_to_be_changed_is_changed_on_the_page(mdm: Mdm) -> None:
    await mdm.world.user("alex", must_change_password=True)
    await choose(mdm, password_enrollment=True)
    assert subcode(await policies(mdm, user_name("alex@contoso.com"))) == NOBODY


# ------------------------------------------------------------------ the header


async def test_exactly_one_credential_is_taken(mdm: Mdm) -> None:
    await mdm.world.user("alex")
    token = await token_for(mdm)
    two = issued(token) + issued(token)
    inside = issued(token).replace(
        "</wsse:Security>", user_name("alex@contoso.com").split("Security", 1)[1].split(">", 1)[1]
    )
    for header in ("", "<wsse:Security/>", two, inside, bearer("", soap.USER_TOKEN_TYPE)):
        for answer in (await policies(mdm, header), await enrol(mdm, header)):
            assert subcode(answer) == "a:InvalidSecurity"
    broken = '<wsse:Security><wsse:BinarySecurityToken ValueType="x">?</wsse:BinarySecurityToken>'
    assert subcode(await enrol(mdm, broken + "</wsse:Security>")) == "a:InvalidSecurity"
    assert subcode(await enrol(mdm, issued(token))) == "", "nothing of this used it up"


async def test_only_windows_on_a_computer_enrols(mdm: Mdm) -> None:
    await mdm.world.user("alex")
    token = await token_for(mdm)
    for sort, found in (
        ("WindowsPhone", ("s:Authorization", "DeviceNotSupported")),
        ("", (FORMAT, "InvalidEnrollmentData")),
    ):
        answer = await enrol(mdm, issued(token), DeviceType=sort)
        assert (subcode(answer), said(answer)["ErrorType"]) == found
    assert subcode(await enrol(mdm, issued(token))) == ""


# ------------------------------------------------------------------ faults by the tenant's choice


async def test_in_maintenance_devices_are_told_to_come_back(mdm: Mdm) -> None:
    await mdm.world.user("alex")
    token = await token_for(mdm)
    await choose(mdm, maintenance=True)
    for answer in (await policies(mdm, issued(token)), await enrol(mdm, issued(token))):
        assert subcode(answer) == "s:EnrollmentServer"
        assert said(answer)["ErrorType"] == "InMaintenance"
        assert said(answer)["TraceId"]
    await choose(mdm, maintenance=False)
    assert subcode(await enrol(mdm, issued(token))) == ""


async def test_without_the_database_devices_try_again_later(mdm: Mdm) -> None:
    await mdm.world.user("alex")
    token = await token_for(mdm)
    await mdm.database.close()
    for answer in (await policies(mdm, issued(token)), await enrol(mdm, issued(token))):
        assert (answer.status_code, subcode(answer)) == (200, "s:EnrollmentServer")
        assert "PostgreSQL" not in answer.text
    assert said(answer)["ActivityId"], "what finds it in our log"
    assert subcode(await mdm.soap("Discovery", discover())) == ""


async def test_an_administrator_has_the_last_word_to_refused_users(mdm: Mdm) -> None:
    await mdm.world.user("alex")
    token = await token_for(mdm)
    await choose(mdm, refusal_text="Call 4711 & ask for <Sam>.")
    async with mdm.database.transaction() as tx:
        await directory.set_mdm_scope(tx, directory.MdmScope.NONE)
    for answer in (await policies(mdm, issued(token)), await enrol(mdm, issued(token))):
        found = subcode(answer), said(answer)["ErrorType"]
        assert found == ("s:Authorization", "CustomServerError")
        assert said(answer)["Text"] == "Call 4711 & ask for <Sam>."
    events = (await mdm.graph("GET", "deviceManagement/troubleshootingEvents")).json()["value"]
    codes = [event["failureCode"] for event in events]
    assert codes == ["0x80180003"] * 2, "the list keeps the reason"


async def test_soap_1_1_is_answered_in_soap_1_1(mdm: Mdm) -> None:
    old = "http://schemas.xmlsoap.org/soap/envelope/"
    message = discover().replace(b"http://www.w3.org/2003/05/soap-envelope", old.encode())
    answer = await mdm.soap("Discovery", message)
    top = etree.fromstring(answer.content)
    assert top.tag == f"{{{old}}}Envelope"
    assert said(answer)["AuthPolicy"] == "Federated"
    bad = envelope("urn:nothing", "").replace(
        b"http://www.w3.org/2003/05/soap-envelope", old.encode()
    )
    fault = etree.fromstring((await mdm.soap("Discovery", bad)).content)
    assert fault.findtext(".//faultcode") == "s:MessageFormat"
    assert "read" in fault.findtext(".//faultstring", "")
