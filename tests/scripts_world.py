"""An administrator of the site who is an account of the tenant, and an app for her scripts."""

from site_world import Site
from tenant_world import World

SCOPE = "https://ConfigMgrService/user_impersonation"
REDIRECT = "http://localhost/scripts"


async def register(world: World, redirect: str = REDIRECT) -> str:
    """An app for scripts, as docs/guide/adminservice.md says."""
    headers = await world.bearer()
    body = {"displayName": "Scripts", "publicClient": {"redirectUris": [redirect]}}
    made = await world.client.post("/v1.0/applications", json=body, headers=headers)
    assert made.status_code == 201, made.text
    app_id = str(made.json()["appId"])
    principal = {"appId": app_id}
    answer = await world.client.post("/v1.0/servicePrincipals", json=principal, headers=headers)
    assert answer.status_code == 201, answer.text
    return app_id


async def add_ada(site: Site, world: World) -> None:
    await world.user("ada")
    await site.run("discovery", "run")
    await site.run(
        *("administrator", "add", "Ada", "--role", "operations-administrator"),
        *("--upn", "ada@contoso.com", "--tenant-id", world.tenant.id),
    )
