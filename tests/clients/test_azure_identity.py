"""The unmodified azure-identity against a tenant over TLS, synchronous and asynchronous."""

import asyncio
import webbrowser
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from azure.core.exceptions import ClientAuthenticationError
from azure.identity import (
    AuthorizationCodeCredential,
    CertificateCredential,
    ClientSecretCredential,
    DeviceCodeCredential,
    EnvironmentCredential,
    InteractiveBrowserCredential,
)
from azure.identity import aio as azure_aio
from clients_served import Served
from person_browsing import Person, browser, walk

from tandem.tenant import oidc

pytestmark = [
    pytest.mark.slow,
    # The clients leave their connections to the garbage collector.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

DEFAULT = "https://graph.microsoft.com/.default"


def options(served: Served) -> dict[str, Any]:
    return {
        "authority": served.base,
        "disable_instance_discovery": True,
        "connection_verify": str(served.root),
    }


def works(served: Served, token: Any, path: str = "/users") -> None:
    with browser(served.root) as web:
        bearer = {"Authorization": f"Bearer {token.token}"}
        answer = web.get(f"{served.base}/v1.0{path}", headers=bearer)
    assert answer.status_code == 200, answer.text


async def test_applications_sign_in_by_secret_and_certificate(served: Served) -> None:
    names = (served.tenant_id, served.app_id)

    def run() -> None:
        with ClientSecretCredential(*names, served.secret, **options(served)) as credential:
            works(served, credential.get_token(DEFAULT))
            info = credential.get_token_info(DEFAULT)
            assert info.token_type == "Bearer"
        for certificate in (
            {"certificate_path": str(served.pem())},
            {"certificate_data": served.pfx("pw").read_bytes(), "password": "pw"},
        ):
            with CertificateCredential(*names, **certificate, **options(served)) as credential:
                works(served, credential.get_token(DEFAULT))
        with ClientSecretCredential(*names, "nonsense", **options(served)) as credential:
            with pytest.raises(ClientAuthenticationError, match="AADSTS7000215"):
                credential.get_token(DEFAULT)

    await asyncio.to_thread(run)


async def test_the_asynchronous_credentials_work_too(served: Served) -> None:
    """They make their assertions themselves, with padded base64."""
    names = (served.tenant_id, served.app_id)
    trust = options(served)
    async with azure_aio.ClientSecretCredential(*names, served.secret, **trust) as credential:
        await asyncio.to_thread(works, served, await credential.get_token(DEFAULT))
    async with azure_aio.CertificateCredential(
        *names, certificate_path=str(served.pem()), **trust
    ) as certified:
        await asyncio.to_thread(works, served, await certified.get_token(DEFAULT))


async def test_the_environment_is_enough(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AZURE_AUTHORITY_HOST", served.base)
    monkeypatch.setenv("AZURE_TENANT_ID", served.tenant_id)
    monkeypatch.setenv("AZURE_CLIENT_ID", served.app_id)
    monkeypatch.setenv("AZURE_CLIENT_SECRET", served.secret)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(served.root))

    def run() -> None:
        with EnvironmentCredential(disable_instance_discovery=True) as credential:
            works(served, credential.get_token(DEFAULT))

    await asyncio.to_thread(run)


async def test_people_sign_in_with_a_browser_and_with_a_device_code(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    helper = Person(served.root, served.upn, served.password)
    monkeypatch.setattr(webbrowser, "get", lambda *_: helper)
    monkeypatch.setattr(webbrowser, "open", helper.open)

    def run() -> None:
        who = {"tenant_id": served.tenant_id, **options(served)}
        with InteractiveBrowserCredential(timeout=30, **who) as credential:
            works(served, credential.get_token(DEFAULT), "/me")
            record = credential.authenticate(scopes=[DEFAULT])
            assert (record.username, record.tenant_id) == (served.upn, served.tenant_id)

        def prompt(uri: str, code: str, until: Any) -> None:
            helper.sign_in(uri, otc=code)

        with DeviceCodeCredential(prompt_callback=prompt, timeout=30, **who) as credential:
            works(served, credential.get_token(DEFAULT), "/me")

    await asyncio.to_thread(run)


async def test_a_web_application_redeems_its_code(served: Served) -> None:
    def run() -> None:
        url = (
            f"{served.authority}/oauth2/v2.0/authorize?client_id={served.web_id}"
            "&response_type=code&redirect_uri=https://web.example/back&scope=User.Read&state=x"
        )
        with browser(served.root) as web:
            target, _ = walk(web, url, {"login": served.upn, "passwd": served.password})
        code = parse_qs(urlsplit(target).query)["code"][0]
        with AuthorizationCodeCredential(
            served.tenant_id,
            served.web_id,
            code,
            "https://web.example/back",
            client_secret=served.web_secret,
            **options(served),
        ) as credential:
            works(served, credential.get_token("https://graph.microsoft.com/User.Read"), "/me")

    await asyncio.to_thread(run)


def test_the_default_client_is_known() -> None:
    from azure.identity._constants import DEVELOPER_SIGN_ON_CLIENT_ID

    assert DEVELOPER_SIGN_ON_CLIENT_ID == oidc.CLI
