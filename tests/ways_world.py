"""What tests of the ways into MDM share: passwords, tokens and the tenant's choices."""

import base64
from dataclasses import replace
from html import unescape
from typing import Any

import httpx

from mdm_world import WSSE, Mdm, bearer, certificate_request, get_policies, request_token
from tandem import pki
from tandem.protocols import soap
from tandem.tenant import enrollment
from tenant_world import PASSWORD, first_form

APPRU = "ms-app://S-1-15-2-1910091885-1573563583/?a=1&b=2"
PASSWORD_TEXT = (
    "http://docs.oasis-open.org/wss/2004/01/oasis-200401-wss-username-token-profile-1.0"
    "#PasswordText"
)
DIGEST = PASSWORD_TEXT.replace("PasswordText", "PasswordDigest")


def user_name(
    name: str, password: str = PASSWORD, attribute: str = "wsse:Type", sort: str = PASSWORD_TEXT
) -> str:
    """A Security header with a UsernameToken, as Windows writes it."""
    kind = f' {attribute}="{sort}"' if attribute else ""
    return (
        f'<wsse:Security xmlns:wsse="{WSSE}"><wsse:UsernameToken><wsse:Username>{name}'
        f"</wsse:Username><wsse:Password{kind}>{password}</wsse:Password></wsse:UsernameToken>"
        "</wsse:Security>"
    )


def issued(token: str) -> str:
    """A Security header with a token of ours. Windows encodes what a page posted to it."""
    return bearer(token, soap.USER_TOKEN_TYPE)


async def policies(mdm: Mdm, security: str) -> httpx.Response:
    message = get_policies("x").replace(bearer("x").encode(), security.encode())
    return await mdm.soap("Policy", message)


async def enrol(mdm: Mdm, security: str, **items: str) -> httpx.Response:
    request = certificate_request(pki.generate_key("rsa2048"))
    return await mdm.soap("Enrollment", request_token("", request, security=security, **items))


async def choose(mdm: Mdm, **values: Any) -> None:
    async with mdm.database.transaction() as tx:
        chosen = replace(await enrollment.options(tx), **values)
        await enrollment.choose(tx, chosen)


async def signs_in(mdm: Mdm, name: str, appru: str = APPRU) -> httpx.Response:
    """The page after the sign-in pages of the federated way."""
    client = mdm.world.client
    first = await client.get(
        "/EnrollmentServer/Auth", params={"appru": appru, "login_hint": f"{name}@contoso.com"}
    )
    assert first.status_code == 302, first.text
    page = await client.get(first.headers["location"])
    assert f'value="{name}@contoso.com"' in page.text
    page = await mdm.world.submit(page, login=f"{name}@contoso.com", passwd=PASSWORD)
    assert page.status_code == 302, page.text
    return await client.get(page.headers["location"])


def handed_over(page: httpx.Response) -> tuple[str, str]:
    """Where the page posts to, and the token."""
    action, fields = first_form(page.text)
    return unescape(action), fields["wresult"]


async def token_for(mdm: Mdm, name: str = "alex", **values: Any) -> str:
    """What an administrator issues."""
    answer = await mdm.graph(
        "POST", "tandem/enrollmentTokens", {"user": f"{name}@contoso.com", **values}
    )
    assert answer.status_code == 201, answer.text
    return str(answer.json()["token"])


def twice(token: str) -> str:
    return base64.b64encode(token.encode()).decode()
