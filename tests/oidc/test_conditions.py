"""Conditional access: whoever is registered decides about every token, silent ones included."""

from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from asking import GRAPH, asking, number, register

from tandem.tenant import oidc
from tandem.tenant.oidc import Attempt, Decision, Result
from tenant_world import ADMIN, PASSWORD, World

POLICY = "7a0f3c1e-0000-4000-8000-000000000001"


class Policy:
    """What a test decides, and what it was asked."""

    def __init__(self, world: World) -> None:
        self.decision = Decision()
        self.asked: list[Attempt] = []
        world.tokens.conditions.register(self.decide)

    async def decide(self, tx: Any, attempt: Attempt) -> Decision:
        self.asked.append(attempt)
        return self.decision


REFUSED = [
    (Result.BLOCK, 53003, "message_only", "access_denied", False),
    (Result.COMPLIANT_DEVICE, 53000, "message_only", "interaction_required", True),
    (Result.MFA, 50076, "basic_action", "interaction_required", True),
]


@pytest.mark.parametrize(("result", "code", "suberror", "word", "claims"), REFUSED)
async def test_a_refusal_reaches_the_client_in_its_own_words(
    world: World, result: Result, code: int, suberror: str, word: str, claims: bool
) -> None:
    policy = Policy(world)
    tokens = await world.user_tokens(f"{GRAPH}/.default openid offline_access")
    policy.decision = Decision(result, (POLICY,))
    answer = await world.token(
        grant_type="refresh_token", client_id=oidc.CLI, refresh_token=tokens["refresh_token"]
    )
    said = answer.json()
    assert (answer.status_code, said["error"], number(answer)) == (400, "invalid_grant", code)
    assert said["suberror"] == suberror
    assert (POLICY in said.get("claims", "")) is claims
    page = await world.sign_in_page(**asking(prompt="login"))
    back = await world.submit(page, login=ADMIN, passwd=PASSWORD)
    fields = parse_qs(urlsplit(back.headers["location"]).query)
    assert fields["error"] == [word]
    assert f"AADSTS{code}" in fields["error_description"][0]
    assert "code" not in fields
    async with world.database.transaction() as tx:
        log = await oidc.sign_ins(tx, failed=True)
    assert {(item.sort, item.number, item.conditions) for item in log} == {
        ("refresh", code, "failure"),
        ("interactive", code, "failure"),
    }


async def test_a_decision_after_the_code_was_handed_out_still_counts(world: World) -> None:
    policy = Policy(world)
    back, verifier = await world.code("openid")
    policy.decision = Decision(Result.BLOCK, (POLICY,))
    answer = await world.token(
        grant_type="authorization_code",
        client_id=oidc.CLI,
        code=back["code"],
        redirect_uri="http://localhost",
        code_verifier=verifier,
    )
    assert number(answer) == 53003


async def test_who_decides_learns_who_asks_for_what_from_where(world: World) -> None:
    policy = Policy(world)
    joined = await world.joined(ADMIN)
    policy.asked.clear()
    async with world.from_address("198.51.100.7"):
        await world.token(
            grant_type="refresh_token",
            client_id=oidc.BROKER,
            refresh_token=joined.refresh_token,
            scope=f"{oidc.MDM_APP}/.default",
            device_assertion=world.assertion(joined),
        )
    (asked,) = policy.asked
    assert (asked.subject, asked.upn, asked.app_id) == ("user", ADMIN, oidc.BROKER)
    assert (asked.resource_id, asked.address) == (oidc.MDM_APP, "198.51.100.7")
    assert (asked.sort, asked.device_id) == ("refresh", joined.device_id)
    assert asked.methods == ("pwd",)


async def test_applications_are_decided_about_as_well(world: World) -> None:
    policy = Policy(world)
    app = await register(world)
    form = {
        "grant_type": "client_credentials",
        "client_id": app.app_id,
        "client_secret": app.secret,
        "scope": f"{GRAPH}/.default",
    }
    assert (await world.token(**form)).status_code == 200
    policy.decision = Decision(Result.BLOCK)
    assert number(await world.token(**form)) == 53003
    assert [item.subject for item in policy.asked] == ["app", "app"]


async def test_the_strictest_of_several_decides(world: World) -> None:
    for result in (Result.MFA, Result.BLOCK, Result.COMPLIANT_DEVICE, Result.GRANT):
        Policy(world).decision = Decision(result)
    back, _ = await world.code("openid")
    assert "AADSTS53003" in back["error_description"]
