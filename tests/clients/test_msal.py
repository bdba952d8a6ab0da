"""The unmodified MSAL for Python against a tenant over TLS: every flow that it has."""

import asyncio
import hashlib
import webbrowser
from typing import Any

import httpx
import msal
import pytest
from clients_served import Served
from cryptography.hazmat.primitives.serialization import Encoding
from person_browsing import Person, browser, walk

from tandem.tenant import oidc

pytestmark = [
    pytest.mark.slow,
    # The clients leave their connections to the garbage collector.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

GRAPH = "https://graph.microsoft.com"
DEFAULT = [f"{GRAPH}/.default"]


def options(served: Served) -> dict[str, Any]:
    return {
        "authority": served.authority,
        "instance_discovery": False,
        "verify": str(served.root),
    }


def confidential(served: Served, credential: Any, client_id: str = "") -> Any:
    return msal.ConfidentialClientApplication(
        client_id or served.app_id, client_credential=credential, **options(served)
    )


def public(served: Served, **changes: Any) -> Any:
    return msal.PublicClientApplication(oidc.CLI, **{**options(served), **changes})


def person(served: Served) -> Person:
    return Person(served.root, served.upn, served.password)


def good(answer: Any) -> dict[str, Any]:
    assert "access_token" in answer, answer
    return dict(answer)


def graph(served: Served, path: str, answer: dict[str, Any]) -> httpx.Response:
    with browser(served.root) as web:
        bearer = {"Authorization": f"Bearer {answer['access_token']}"}
        return web.get(f"{served.base}/v1.0{path}", headers=bearer)


async def test_an_application_signs_in_by_secret_and_by_certificate(served: Served) -> None:
    der = served.certificate.public_bytes(Encoding.DER)
    credentials = [
        served.secret,
        {
            "thumbprint": hashlib.sha1(der).hexdigest(),
            "private_key": served.key_pem,
        },
        {"private_key": served.key_pem, "public_certificate": served.certificate_pem},
        {"private_key_pfx_path": str(served.pfx("pw")), "passphrase": "pw"},
    ]

    def run() -> None:
        for credential in credentials:
            app = confidential(served, credential)
            answer = good(app.acquire_token_for_client(DEFAULT))
            assert graph(served, "/users", answer).status_code == 200
            assert app.acquire_token_for_client(DEFAULT)["token_source"] == "cache"
            # Another resource with the same, cached assertion.
            good(app.acquire_token_for_client([f"{oidc.MDM_APP}/.default"]))

    await asyncio.to_thread(run)


async def test_its_refusals_are_understood(served: Served) -> None:
    def run() -> None:
        wrong = confidential(served, "nonsense").acquire_token_for_client(DEFAULT)
        assert (wrong["error"], wrong["error_codes"]) == ("invalid_client", [7000215])
        unknown = confidential(
            served, served.secret, "11111111-1111-1111-1111-111111111111"
        ).acquire_token_for_client(DEFAULT)
        assert unknown["error_codes"] == [700016]
        elsewhere = {**options(served), "authority": f"{served.base}/fabrikam.com"}
        with pytest.raises(ValueError, match="Unable to get authority configuration"):
            msal.ConfidentialClientApplication(
                served.app_id, client_credential=served.secret, **elsewhere
            )

    await asyncio.to_thread(run)


async def test_a_person_signs_in_in_the_browser(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Interactive, on a loopback port, silent from the cache, and by refreshing."""
    helper = person(served)
    monkeypatch.setattr(webbrowser, "get", lambda *_: helper)
    monkeypatch.setattr(webbrowser, "open", helper.open)

    def run() -> None:
        app = public(served)
        answer = good(
            app.acquire_token_interactive(
                ["User.Read"], prompt="select_account", timeout=30, max_age=1200
            )
        )
        assert "form_post" in helper.opened[0]
        assert answer["id_token_claims"]["preferred_username"] == served.upn
        assert answer["id_token_claims"]["auth_time"]
        (account,) = app.get_accounts()
        assert account["home_account_id"].endswith(f".{served.tenant_id}")
        cached = app.acquire_token_silent(["User.Read"], account)
        assert cached["access_token"] == answer["access_token"]
        fresh = good(app.acquire_token_silent(["User.Read"], account, force_refresh=True))
        assert fresh["access_token"] != answer["access_token"]
        other = good(app.acquire_token_silent([f"{oidc.MDM_APP}/.default"], account))
        assert other["access_token"] != fresh["access_token"]
        assert graph(served, "/me", fresh).json()["userPrincipalName"] == served.upn
        app.remove_account(account)
        assert app.get_accounts() == []

    await asyncio.to_thread(run)


async def test_a_web_application_signs_a_person_in(served: Served) -> None:
    def run() -> None:
        app = confidential(served, served.web_secret, served.web_id)
        flow = app.initiate_auth_code_flow(
            ["User.Read"], redirect_uri="https://web.example/back", response_mode="form_post"
        )
        with browser(served.root) as web:
            answers = {"login": served.upn, "passwd": served.password}
            target, fields = walk(web, flow["auth_uri"], answers)
        assert target == "https://web.example/back"
        with pytest.raises(ValueError, match="state"):
            app.acquire_token_by_auth_code_flow(flow, {**fields, "state": "other"})
        answer = good(app.acquire_token_by_auth_code_flow(flow, fields))
        assert answer["id_token_claims"]["aud"] == served.web_id

    await asyncio.to_thread(run)


async def test_a_device_without_browser_is_signed_in(served: Served) -> None:
    def run() -> None:
        app = public(served)
        flow = app.initiate_device_flow(["User.Read"])
        assert flow["user_code"] in flow["message"]
        person(served).sign_in(flow["verification_uri"], otc=flow["user_code"])
        answer = good(app.acquire_token_by_device_flow(flow))
        assert graph(served, "/me", answer).json()["userPrincipalName"] == served.upn

    await asyncio.to_thread(run)


async def test_an_issuer_address_is_enough(served: Served) -> None:
    """`oidc_authority` compares the issuer with the address."""

    def run() -> None:
        app = msal.ConfidentialClientApplication(
            served.app_id,
            client_credential=served.secret,
            oidc_authority=f"{served.authority}/v2.0",
            verify=str(served.root),
        )
        good(app.acquire_token_for_client(DEFAULT))

    await asyncio.to_thread(run)
