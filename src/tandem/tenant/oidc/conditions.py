"""Conditional access: who else has a say when a token is issued.

    conditions = Conditions()
    conditions.register(require_compliant_device)       async (tx, attempt) → Decision
    await conditions.decide(tx, attempt)                the strictest answer of all

Asked for every token of a user or application, the silent ones included, and before a browser is
sent back with a code. Nothing is registered until policies exist: then everything is granted.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from enum import IntEnum
from typing import Literal

import msgspec

from tandem.infra.database import Tx
from tandem.tenant.oidc.refusals import OAuthError


class Result(IntEnum):
    """From lenient to strict."""

    GRANT = 0
    MFA = 50076
    COMPLIANT_DEVICE = 53000
    BLOCK = 53003


_STRICTNESS = (Result.GRANT, Result.MFA, Result.COMPLIANT_DEVICE, Result.BLOCK)


@dataclass(frozen=True, slots=True)
class Attempt:
    """What is decided about: a token for `resource_id`, asked by `app_id`."""

    subject: Literal["user", "app"]
    object_id: str
    app_id: str
    resource_id: str
    address: str
    sort: str  # As in the sign-in log: interactive, refresh, device-code, password, app.
    at: datetime
    upn: str = ""
    device_id: str = ""  # Proven by the device's key, never merely claimed.
    device_compliant: bool | None = None
    methods: tuple[str, ...] = ()  # How the user proved himself: pwd.


@dataclass(frozen=True, slots=True)
class Decision:
    """`policies` are the ids of those that said so; they reach the client in `claims`."""

    result: Result = Result.GRANT
    policies: tuple[str, ...] = ()

    def refusal(self) -> OAuthError:
        message, cure, suberror = _WORDS[self.result]
        claims = ""
        if self.policies and self.result is not Result.BLOCK:
            wanted = {"essential": True, "values": list(self.policies)}
            claims = msgspec.json.encode({"access_token": {"capolids": wanted}}).decode()
        return OAuthError(int(self.result), message, cure=cure, suberror=suberror, claims=claims)


_WORDS = {
    Result.MFA: (
        "Due to a configuration change made by your administrator, you must use multi-factor "
        "authentication to access this resource.",
        "Sign in again with a second factor.",
        "basic_action",
    ),
    Result.COMPLIANT_DEVICE: (
        "Device is not in required device state. Conditional Access policy requires a compliant "
        "device, and the device is not compliant.",
        "Enrol the device, and bring it into compliance.",
        "message_only",
    ),
    Result.BLOCK: (
        "Access has been blocked by Conditional Access policies. The access policy does not "
        "allow token issuance.",
        "Ask an administrator which policy applies; the sign-in log names it.",
        "message_only",
    ),
}

Condition = Callable[[Tx, Attempt], Awaitable[Decision]]


class Conditions:
    """The registered decision points."""

    def __init__(self) -> None:
        self._registered: list[Condition] = []

    def register(self, condition: Condition) -> None:
        self._registered.append(condition)

    @property
    def any(self) -> bool:
        return bool(self._registered)

    async def decide(self, tx: Tx, attempt: Attempt) -> Decision:
        answers = [await condition(tx, attempt) for condition in self._registered]
        if not answers:
            return Decision()
        worst = max((a.result for a in answers), key=_STRICTNESS.index)
        policies = [p for a in answers if a.result is worst for p in a.policies]
        return Decision(worst, tuple(policies))
