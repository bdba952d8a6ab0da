"""Every operation, every permission, every role: allowed exactly when the description says so.

What the description says is read from the published OpenAPI; who is let in is asked of the frame,
and of the front door with signed tokens: a refusal comes before any effect, and tells nothing.
"""

import dataclasses
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import Any

import pytest
from starlette.routing import BaseRoute

from mdm_world import mdm_service
from tandem.infra.database import Database
from tandem.protocols.odata import Query
from tandem.tenant import directory, oidc
from tandem.tenant.graph import bodies, describe
from tandem.tenant.graph.http import GraphRoute
from tandem.tenant.graph.model import BadProperty, Call, Caller, Forbidden
from tandem.tenant.graph.service import Frame, Operation, authorize
from tenant_world import World

NOTHING = "00000000-0000-0000-0000-00000000abcd"


@pytest.fixture
async def everything(tenant_db: Database, tmp_path: Path) -> AsyncIterator[World]:
    """The tenant with all that its role serves."""
    async with mdm_service(tenant_db, tmp_path) as mdm:
        yield mdm.world


def frame_of(world: World) -> Frame:
    routes: list[BaseRoute] = world.app.routes
    (route,) = [item for item in routes if isinstance(item, GraphRoute)]
    return route._frame


async def catalogue(world: World) -> tuple[set[str], set[str]]:
    """The delegated and the application permissions that the tenant's Graph has."""
    async with world.database.transaction() as tx:
        known = await oidc.applications.application(tx, oidc.GRAPH)
    return {i["value"] for i in known.scopes}, {i["value"] for i in known.app_roles}


async def published(world: World) -> dict[tuple[str, str], dict[str, list[str]]]:
    document = (await world.client.get("/beta/openapi.json")).json()
    return {
        (method.upper(), path): operation["x-ms-permissions"]
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
        if method != "parameters"
    }


def url(operation: Operation, key: str = NOTHING) -> str:
    parts = [key if part.startswith("{") else part for part in operation.path.split("/")]
    return "/beta/" + "/".join(parts)


async def test_each_permission_and_role_opens_what_the_description_says(everything: World) -> None:
    delegated, application = await catalogue(everything)
    told = await published(everything)
    frame, roles = frame_of(everything), dict(directory.ROLES)
    checked, unknown = 0, set[str]()
    for operation in describe.served(frame):
        said = told[operation.method, describe._template(operation.path)[0]]
        unknown |= set(said["delegated"]) - delegated | set(said["application"]) - application
        for name in application | {"Nonsense.All"}:
            caller = Caller("app", NOTHING, "a", "t", app_roles=frozenset({name}))
            assert await _may(operation, caller) is (name in said["application"]), operation.path
            checked += 1
        for name in delegated | {"Nonsense.All"}:
            scopes = frozenset({name})
            nobody = Caller("user", NOTHING, "a", "t", scopes, directory_roles=frozenset())
            known = name in said["delegated"]
            assert await _may(operation, nobody) is (known and not said["roles"]), operation.path
            every = dataclasses.replace(nobody, directory_roles=frozenset(roles))
            assert await _may(operation, every) is known, operation.path
            checked += 2
            for role, title in roles.items() if known else ():
                one = dataclasses.replace(nobody, directory_roles=frozenset({role}))
                enough = (
                    not said["roles"]
                    or title in said["roles"]
                    or role == directory.GLOBAL_ADMINISTRATOR
                )
                assert await _may(operation, one) is enough, (operation.path, name, title)
                checked += 1
        # The other kind of token never counts, and a device's opens nothing.
        both = {"scopes": frozenset(delegated), "app_roles": frozenset(application)}
        device = Caller("device", NOTHING, "a", "t", **both)
        assert not await _may(operation, device), operation.path
    assert checked > 50_000
    assert unknown == set(), "nobody can be granted these"


async def _may(operation: Operation, caller: Caller) -> bool:
    call = Call(None, None, caller, "beta", "", "", Query())  # type: ignore[arg-type]
    try:
        await authorize(call, operation.access, writing=operation.writing)
    except Forbidden:
        return False
    return True


# ---------------------------------------------------------------------------------- front door


async def test_a_refusal_comes_before_any_effect_and_tells_nothing(everything: World) -> None:
    """An application with all permissions but those that count, and a user without a role."""
    delegated, application = await catalogue(everything)
    target = await everything.user("target")
    nobody = await everything.user("nobody")
    principal = await _principal(everything)
    before = await _counts(everything)
    tokens: dict[frozenset[str], str] = {}
    asked = 0
    for operation in describe.served(frame_of(everything)):
        lacking = frozenset(application - operation.access.application)
        if lacking not in tokens:
            tokens[lacking] = await _token(everything, "app", principal, roles=lacking)
        answers = set()
        for key in (NOTHING, target.id):
            answers.add(await _refusal(everything, operation, key, tokens[lacking]))
        assert len(answers) == 1, (operation.method, operation.path, answers)
        asked += 1
        if operation.access.roles:
            token = await _scoped(everything, tokens, nobody.id, delegated)
            await _refusal(everything, operation, target.id, token)
            asked += 1
    assert asked > 500
    assert await _counts(everything) == before


async def _refusal(world: World, operation: Operation, key: str, token: str) -> tuple[Any, ...]:
    body = {"displayName": "x"} if operation.method in ("POST", "PATCH", "PUT") else None
    answer = await world.client.request(
        operation.method,
        url(operation, key),
        headers={"Authorization": f"Bearer {token}"},
        json=body,
    )
    assert answer.status_code == 403, (operation.method, operation.path, answer.text[:300])
    error = answer.json()["error"]
    return error["code"], error["message"]


async def _scoped(
    world: World, tokens: dict[frozenset[str], str], user: str, scopes: Iterable[str]
) -> str:
    wanted = frozenset({*scopes, "user"})
    if wanted not in tokens:
        tokens[wanted] = await _token(world, "user", user, scopes=scopes)
    return tokens[wanted]


async def _principal(world: World) -> str:
    async with world.database.transaction() as tx:
        app = await oidc.applications.create_application(tx, "Caller", world.at)
        made = await oidc.applications.create_principal(tx, app.app_id, world.at)
        return str(made.id)


async def _token(
    world: World,
    sort: str,
    object_id: str,
    roles: Iterable[str] = (),
    scopes: Iterable[str] = (),
    **changes: Any,
) -> str:
    at = int(world.at.timestamp())
    claims = {
        "aud": "https://graph.microsoft.com",
        "iss": world.tokens.issuer(world.tenant.id, 1),
        "iat": at,
        "nbf": at,
        "exp": at + 3600,
        "idtyp": sort,
        "oid": object_id,
        "tid": world.tenant.id,
        "appid": NOTHING,
        "roles": sorted(roles),
        "scp": " ".join(sorted(scopes)),
        **changes,
    }
    async with world.database.transaction() as tx:
        return await world.tokens.sign(tx, claims, world.at, x5t=True)


async def _counts(world: World) -> dict[str, int]:
    """How many rows each table holds: also of the audit log, which tells of every change."""
    async with world.database.transaction() as tx:
        cursor = await tx.execute(
            "SELECT table_name AS name FROM information_schema.tables"
            " WHERE table_schema = 'public' AND table_type = 'BASE TABLE'"
        )
        found = {}
        for row in await cursor.fetchall():
            counted = await tx.execute(f'SELECT count(*) AS n FROM "{row["name"]}"'.encode())
            number = await counted.fetchone()
            assert number is not None
            found[row["name"]] = number["n"]
    return found


async def test_tokens_of_another_tenant_open_nothing(everything: World) -> None:
    _, application = await catalogue(everything)
    principal = await _principal(everything)
    other = everything.tokens.issuer("11111111-1111-1111-1111-111111111111", 1)
    token = await _token(everything, "app", principal, roles=application, iss=other)
    for path in ("users", "organization", "deviceManagement/managedDevices"):
        headers = {"Authorization": f"Bearer {token}"}
        answer = await everything.client.get(f"/v1.0/{path}", headers=headers)
        assert answer.status_code == 401


# ---------------------------------------------------------------------------------- bodies


async def test_nobody_writes_what_is_read_only_or_unknown(everything: World) -> None:
    """Every property of every resource, for a new object and for one that is there."""
    checked = 0
    for operation in describe.served(frame_of(everything)):
        resource = operation.resource
        if resource is None or operation.sort not in ("create", "update", "replace"):
            continue

        for item in (*(i.name for i in resource.fields if not i.writable), "isSystemOwned"):
            body, fields = {item: "x", item.upper(): "x"}, resource.fields
            if not resource.open:
                with pytest.raises(BadProperty) as refused:
                    bodies.taken(body, fields, resource.type, creating=False)
                assert refused.value.details["target"] in body
                checked += 1
                continue
            kept = bodies.taken(body, fields, resource.type, creating=False, opened=True)
            known = {i.name.lower() for i in fields}
            assert not {name.lower() for name in kept} & known, (resource.type, item)
            checked += 1
    assert checked > 100
