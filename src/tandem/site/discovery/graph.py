"""The tenant as discovery sees it: where it asks, and how a user of Graph is a user of the site."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol

from tandem.infra.database import Tx
from tandem.site import collections

SELECT = (
    "id,displayName,mail,mailNickname,onPremisesSecurityIdentifier,userPrincipalName,"
    "onPremisesDomainName,onPremisesSamAccountName,onPremisesDistinguishedName"
)
_KEPT = (
    "mailNickname",
    "onPremisesDomainName",
    "onPremisesSamAccountName",
    "onPremisesDistinguishedName",
)


class Graph(Protocol):
    async def pages(
        self, path: str, seen: Callable[[int], Awaitable[None]] | None = None
    ) -> list[dict[str, Any]]: ...
    async def get(self, path: str) -> dict[str, Any]: ...
    async def changes(self, path: str) -> tuple[list[dict[str, Any]], str]: ...


class Source(Protocol):
    """A tenant to discover: its Azure service, and Graph with the site's own credentials. `enabled`
    is discovery of its users."""

    @property
    def id(self) -> str: ...
    @property
    def service(self) -> str: ...
    @property
    def tenant_id(self) -> str: ...
    @property
    def enabled(self) -> bool: ...
    async def graph(self, tx: Tx) -> Graph: ...


Sources = Callable[[Tx], Awaitable[Sequence[Source]]]


def user_of(tenant_id: str, value: dict[str, Any]) -> collections.UserResource:
    return collections.UserResource(
        tenant_id=tenant_id,
        object_id=str(value["id"]),
        upn=str(value.get("userPrincipalName") or ""),
        name=str(value.get("displayName") or ""),
        mail=str(value.get("mail") or ""),
        sid=str(value.get("onPremisesSecurityIdentifier") or ""),
        properties={name: value[name] for name in _KEPT if value.get(name)},
    )
