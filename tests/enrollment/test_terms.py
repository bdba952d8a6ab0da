"""Terms of use: shown, accepted or declined, and proved at the enrolment (section 9)."""

import base64
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from mdm_world import Mdm, bearer, said, subcode
from tandem import audit
from tandem.tenant import directory
from tenant_world import first_form
from ways_world import choose, enrol, handed_over, issued, signs_in, token_for, user_name

BACK = "ms-appx-web://Microsoft.AAD.BrokerPlugin/x"
REQUEST = "27d0aabb-0000-4000-8000-8f2a3c4d5e6f"
ENGLISH, FRENCH = "Be kind.\nNo <b>games</b>.", "Soyez aimables.\nPas de jeux."


async def jwt(mdm: Mdm, name: str = "alex") -> str:
    async with mdm.database.transaction() as tx:
        user = await directory.find_user(tx, f"{name}@contoso.com")
    user = user or await mdm.world.user(name)
    return await mdm.mdm_token(await mdm.world.joined(user.user_principal_name))


async def asks(mdm: Mdm, token: str | None, language: str = "en", **query: str) -> httpx.Response:
    values = {
        "redirect_uri": BACK,
        "client-request-id": REQUEST,
        "api-version": "1.0",
        "mode": "azureadjoin",
        **query,
    }
    headers = {"accept-language": language}
    if token is not None:
        headers["authorization"] = f"Bearer {token}"
    return await mdm.world.client.get(
        "/EnrollmentServer/TermsOfUse",
        params={name: value for name, value in values.items() if value},
        headers=headers,
    )


def sent_back(answer: httpx.Response, to: str = BACK) -> dict[str, str]:
    assert answer.status_code == 302, answer.text
    location = answer.headers["location"]
    assert location.startswith(to)
    return {name: values[0] for name, values in parse_qs(urlsplit(location).query).items()}


async def accepts(mdm: Mdm, token: str) -> str:
    page = await asks(mdm, token)
    back = sent_back(await mdm.world.submit(page, decision="accept"))
    assert back["IsAccepted"] == "true"
    assert back["client-request-id"] == REQUEST
    return back["OpaqueBlob"]


@pytest.fixture
async def terms(mdm: Mdm) -> Mdm:
    await choose(mdm, terms_en=ENGLISH, terms_fr=FRENCH)
    return mdm


# ------------------------------------------------------------------ the page


async def test_the_page_shows_the_tenants_text_and_asks(terms: Mdm) -> None:
    token = await jwt(terms)
    page = await asks(terms, token)
    assert page.status_code == 200
    assert int(page.headers["content-length"]) == len(page.content)
    assert "No &lt;b&gt;games&lt;/b&gt;." in page.text
    assert 'value="accept"' in page.text
    assert 'value="decline"' not in page.text, "a device that joins cannot do without"
    assert "form-action 'self' ms-appx-web:;" in page.headers["content-security-policy"]
    french = await asks(terms, token, "fr", mode="")
    assert "Soyez aimables." in french.text
    assert ">Refuser</button>" in french.text


async def test_a_page_in_the_other_language_says_which_one_it_is(mdm: Mdm) -> None:
    await choose(mdm, terms_en=ENGLISH)
    page = await asks(mdm, await jwt(mdm), "fr")
    assert '<div lang="en">' in page.text
    assert "Conditions d&#39;utilisation" in page.text


async def test_without_a_text_of_its_own_the_tenant_says_what_management_is(mdm: Mdm) -> None:
    token = await jwt(mdm)
    assert "manages this device" in (await asks(mdm, token)).text
    await accepts(mdm, token)
    assert subcode(await enrol(mdm, bearer(token))) == "", "nobody has to prove it"


async def test_who_declines_goes_back_without_a_proof(terms: Mdm) -> None:
    page = await asks(terms, await jwt(terms), mode="")
    back = sent_back(await terms.world.submit(page, decision="decline"))
    assert back == {"IsAccepted": "false", "client-request-id": REQUEST}
    joining = await asks(terms, await jwt(terms))
    back = sent_back(await terms.world.submit(joining, decision="decline"))
    assert back["error"] == "invalid_request"


@pytest.mark.parametrize(
    "back",
    [
        "https://evil.example/",
        "//evil.example",
        "javascript:alert(1)",
        "ms-appx://x",
        "ms-appx-web://x\r\nLocation: https://evil.example",
        'ms-appx-web://x"><script>',
        "ms-appx-web://[x",
        "",
    ],
)
async def test_nobody_is_sent_anywhere_but_to_windows(mdm: Mdm, back: str) -> None:
    answer = await asks(mdm, await jwt(mdm), redirect_uri=back)
    assert answer.status_code == 400
    assert "location" not in answer.headers
    assert "<script" not in answer.text
    assert "evil" not in answer.text


async def test_refusals_go_back_to_windows_in_its_words(mdm: Mdm) -> None:
    token = await jwt(mdm)
    for query, error in (
        ({"api-version": "2.0"}, "invalid_request"),
        ({"api-version": ""}, "invalid_request"),
        ({"client-request-id": "x&IsAccepted=true"}, "invalid_request"),
    ):
        back = sent_back(await asks(mdm, token, **query))
        assert back["error"] == error
        assert back["error_description"]
        assert "IsAccepted" not in back
    graph = (await mdm.world.bearer("alex@contoso.com"))["Authorization"].removeprefix("Bearer ")
    for bad in (None, "", "a.b.c", token[:-4] + "AAAA", graph, await token_for(mdm)):
        assert sent_back(await asks(mdm, bad))["error"] == "unauthorized_client"
    async with mdm.database.transaction() as tx:
        await directory.set_mdm_scope(tx, directory.MdmScope.NONE)
    assert sent_back(await asks(mdm, token))["error"] == "unauthorized_client"
    async with mdm.database.transaction() as tx:
        await directory.set_mdm_scope(tx, directory.MdmScope.ALL)
    page = await asks(mdm, token)
    await mdm.database.close()
    for answer in (await asks(mdm, token), await mdm.world.submit(page, decision="accept")):
        back = sent_back(answer)
        assert back["error"] == "server_error"
        assert back["error_description"] == "The service cannot answer now."


async def test_an_address_with_a_query_keeps_it(mdm: Mdm) -> None:
    uri = "ms-aadj-redir://auth/drs?a=1"
    page = await asks(mdm, await jwt(mdm), redirect_uri=uri)
    back = sent_back(await mdm.world.submit(page, decision="accept"), uri)
    assert (back["a"], back["IsAccepted"]) == ("1", "true")


async def test_the_pages_answer_is_good_for_half_an_hour_and_not_for_others(terms: Mdm) -> None:
    page = await asks(terms, await jwt(terms))
    action, fields = first_form(page.text)
    for ctx in ("", "AAAA", fields["ctx"][:-8] + "AAAAAAA="):
        answer = await terms.world.client.post(action, data={"ctx": ctx, "decision": "accept"})
        assert answer.status_code == 400
    terms.world.wait(minutes=31)
    assert (await terms.world.submit(page, decision="accept")).status_code == 400


# ------------------------------------------------------------------ at the enrolment


async def test_where_there_are_terms_a_joined_device_brings_the_proof(terms: Mdm) -> None:
    token = await jwt(terms)
    for value in ("", "null", "AAAA", base64.b64encode(b"x" * 40).decode()):
        answer = await enrol(terms, bearer(token), EnrollmentData=value)
        assert (subcode(answer), said(answer)["ErrorType"]) == (
            "s:MessageFormat",
            "InvalidEnrollmentData",
        )
    blob = await accepts(terms, token)
    other = await jwt(terms, "sam")
    assert subcode(await enrol(terms, bearer(other), EnrollmentData=blob)) == "s:MessageFormat"
    assert subcode(await enrol(terms, bearer(token), EnrollmentData=blob)) == ""


async def test_a_proof_is_of_one_text_and_of_the_last_hour(terms: Mdm) -> None:
    token = await jwt(terms)
    blob = await accepts(terms, token)
    await choose(terms, terms_fr="Autre chose.")
    assert subcode(await enrol(terms, bearer(token), EnrollmentData=blob)) == "s:MessageFormat"
    await choose(terms, terms_fr=FRENCH)
    terms.world.wait(minutes=59)
    assert subcode(await enrol(terms, bearer(token), EnrollmentData=blob)) == ""
    terms.world.wait(minutes=2)
    again = await jwt(terms)
    assert subcode(await enrol(terms, bearer(again), EnrollmentData=blob)) == "s:MessageFormat"


async def test_a_sign_in_on_the_page_asks_before_it_hands_over(terms: Mdm) -> None:
    await terms.world.user("alex")
    page = await signs_in(terms, "alex")
    assert "Be kind." in page.text
    assert "wresult" not in page.text
    async with terms.world.from_address("203.0.113.9"):
        declined = await terms.world.submit(page, decision="decline")
    async with terms.database.transaction() as tx:
        (entry,) = [one for one in await audit.entries(tx) if one.action.endswith("terms of use")]
    assert (entry.action, entry.actor) == ("decline terms of use", "user:alex@contoso.com")
    assert entry.details["address"] == "203.0.113.9"
    assert "declined the terms" in declined.text
    assert "wresult" not in declined.text
    _, token = handed_over(await terms.world.submit(page, decision="accept"))
    assert subcode(await enrol(terms, issued(token))) == ""


async def test_terms_that_changed_meanwhile_are_asked_again(terms: Mdm) -> None:
    await terms.world.user("alex")
    page = await terms.world.submit(await signs_in(terms, "alex"), decision="accept")
    await choose(terms, terms_en="Something else.")
    answer = await enrol(terms, issued(handed_over(page)[1]))
    assert said(answer)["ErrorType"] == "InvalidEnrollmentData"


async def test_an_administrators_token_needs_no_terms_and_a_password_is_not_taken(
    terms: Mdm,
) -> None:
    await terms.world.user("alex")
    await choose(terms, password_enrollment=True)
    assert subcode(await enrol(terms, user_name("alex@contoso.com"))) == "s:Authentication"
    assert subcode(await enrol(terms, issued(await token_for(terms)))) == ""


async def test_what_was_chosen_and_accepted_is_on_the_record(mdm: Mdm) -> None:
    body: dict[str, Any] = {"termsOfUseEnglish": "Be kind.", "maintenance": False}
    answer = await mdm.graph("PATCH", "tandem/enrollmentOptions", body)
    assert answer.status_code == 200, answer.text
    assert answer.json()["termsOfUseEnglish"] == "Be kind."
    for bad in ({"termsOfUseFrench": "x" * 20_001}, {"refusalText": "x" * 501}, {"else": 1}):
        assert (await mdm.graph("PATCH", "tandem/enrollmentOptions", bad)).status_code == 400
    token = await jwt(mdm)
    async with mdm.world.from_address("203.0.113.9"):
        await accepts(mdm, token)
    async with mdm.database.transaction() as tx:
        rows = await (await tx.execute("SELECT actor, action, details FROM audit_entry")).fetchall()
    told = [row["details"] for row in rows if row["action"].endswith("terms of use")]
    assert [(item["way"], item["address"]) for item in told] == [("directory", "203.0.113.9")]
    said_so = {(row["actor"], row["action"]) for row in rows}
    assert ("user:alex@contoso.com", "accept terms of use") in said_so
    assert any(action.endswith("tandemEnrollmentOptions") for _, action in said_so), said_so
