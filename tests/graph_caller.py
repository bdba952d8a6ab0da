"""Graph as one caller sees it, for the tests of its resources."""

from typing import Any

import httpx

from tandem.tenant import oidc
from tenant_world import PASSWORD, World

USER = {
    "accountEnabled": True,
    "displayName": "Alex Wilber",
    "mailNickname": "alex",
    "userPrincipalName": "alex@contoso.com",
    "passwordProfile": {"password": PASSWORD, "forceChangePasswordNextSignIn": False},
    "usageLocation": "DE",
    "department": "Sales",
}


class Graph:
    """Graph as one caller sees it."""

    def __init__(self, world: World, headers: dict[str, str]) -> None:
        self.world = world
        self.headers = headers

    def eventual(self) -> "Graph":
        """The same caller, who asks advanced queries of the directory."""
        return Graph(self.world, {**self.headers, "ConsistencyLevel": "eventual"})

    async def raw(
        self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None
    ) -> httpx.Response:
        url = path if path.startswith(("http", "/")) else f"/v1.0/{path}"
        return await self.world.client.request(
            method, url, headers={**self.headers, **(headers or {})}, json=body
        )

    async def call(
        self, method: str, path: str, body: Any = None, status: int | None = None
    ) -> Any:
        answer = await self.raw(method, path, body)
        wanted = status or {"POST": 201, "PATCH": 204, "DELETE": 204}.get(method, 200)
        assert answer.status_code == wanted, answer.text
        if not answer.content:
            return None
        return answer.json() if "json" in answer.headers["content-type"] else answer.text

    async def get(self, path: str, status: int = 200) -> Any:
        return await self.call("GET", path, status=status)

    async def post(self, path: str, body: Any, status: int = 201) -> Any:
        return await self.call("POST", path, body, status)


async def app_graph(world: World, *names: str) -> Graph:
    """An application that was consented to these application permissions."""
    async with world.database.transaction() as tx:
        resource = await oidc.applications.application(tx, oidc.GRAPH)
        ids = {item["value"]: item["id"] for item in resource.app_roles}
        needed = {
            "resourceAppId": oidc.GRAPH,
            "resourceAccess": [{"id": ids[name], "type": "Role"} for name in names],
        }
        app = await oidc.applications.create_application(
            tx, "Server", world.at, required_access=(needed,)
        )
        _, secret = await oidc.applications.add_secret(tx, app.id, world.at)
        await oidc.admin_consent(tx, app.id, world.at)
    answer = await world.token(
        grant_type="client_credentials",
        client_id=app.app_id,
        client_secret=secret,
        scope="https://graph.microsoft.com/.default",
    )
    return Graph(world, {"Authorization": f"Bearer {answer.json()['access_token']}"})


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


async def role_user(world: World, name: str, *roles: str) -> Graph:
    """A user with these directory roles, signed in."""
    from tandem.tenant import directory

    made = await world.user(name)
    async with world.database.transaction() as tx:
        for role in roles:
            await directory.grant_role(tx, role, made.id)
    return Graph(world, await world.bearer(made.user_principal_name))


def group_body(name: str, **more: Any) -> dict[str, Any]:
    return {
        "displayName": name,
        "mailEnabled": False,
        "mailNickname": name.lower(),
        "securityEnabled": True,
        "groupTypes": [],
        **more,
    }


def ref(object_id: str) -> dict[str, str]:
    return {"@odata.id": f"https://graph.microsoft.com/v1.0/directoryObjects/{object_id}"}
