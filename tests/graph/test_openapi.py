"""What the tenant says that it serves, and whether it does: no 5xx, no status that is not told."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from lxml import etree
from schemathesis.checks import not_a_server_error
from schemathesis.core.failures import FailureGroup
from schemathesis.specs.openapi.checks import response_schema_conformance, status_code_conformance

from graph_caller import Graph, group_body
from mdm_world import mdm_service
from tandem.infra import http
from tandem.infra.database import Database

EDM = "{http://docs.oasis-open.org/odata/ns/edm}"
CHECKS = [not_a_server_error, status_code_conformance, response_schema_conformance]
# So many requests are made of each operation; `make fuzz FUZZ=tests/graph/test_openapi.py` makes
# more of them, and others each time.
EXAMPLES = 1


@asynccontextmanager
async def served(database: Database, folder: Path) -> AsyncIterator[tuple[Graph, str]]:
    """Everything of Graph that the role serves, on a port of its own."""
    async with mdm_service(database, folder) as mdm:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        stop = asyncio.Event()
        listener = http.Listener(mdm.world.app, "127.0.0.1", port)
        serving = asyncio.create_task(http.serve([listener], stop, drain_seconds=1))
        try:
            yield Graph(mdm.world, await mdm.world.bearer()), f"http://127.0.0.1:{port}"
        finally:
            stop.set()
            await serving


async def test_both_descriptions_are_whole(tenant_db: Database, tmp_path: Path) -> None:
    async with mdm_service(tenant_db, tmp_path) as mdm:
        for version in ("v1.0", "beta"):
            answer = await mdm.world.client.get(f"/{version}/openapi.json")
            document = answer.json()
            assert document["openapi"] == "3.1.0"
            users = document["paths"]["/users/{user}"]
            assert users["patch"]["responses"]["204"]
            assert "User.ReadWrite.All" in users["patch"]["x-ms-permissions"]["application"]
            assert "User Administrator" in users["patch"]["x-ms-permissions"]["roles"]
            ids = [
                operation["operationId"]
                for path in document["paths"].values()
                for method, operation in path.items()
                if method != "parameters"
            ]
            assert len(ids) == len(set(ids))
            assert _dangling(document) == []
            xml = await mdm.world.client.get(f"/{version}/$metadata")
            tree = etree.fromstring(xml.content)
            known = {
                item.get("Name") for item in tree.iter(f"{EDM}EntityType", f"{EDM}ComplexType")
            }
            named = {
                value.removeprefix("Collection(").rstrip(")").removeprefix("graph.")
                for item in tree.iter()
                for value in (item.get("Type"), item.get("BaseType"), item.get("EntityType"))
                if value and "graph." in value
            }
            assert named <= known
            assert {"user", "group", "managedDevice", "win32LobApp"} <= known


def _dangling(document: dict[str, Any]) -> list[str]:
    """References to schemas that are not there."""
    known, missing, waiting = document["components"]["schemas"], [], [document]
    while waiting:
        item: Any = waiting.pop()
        if isinstance(item, dict):
            target = item.get("$ref")
            if isinstance(target, str) and target.rpartition("/")[2] not in known:
                missing.append(target)
            waiting += item.values()
        elif isinstance(item, list):
            waiting += item
    return missing


@pytest.mark.slow
async def test_every_operation_answers_as_it_is_described(
    tenant_db: Database, tmp_path: Path
) -> None:
    async with served(tenant_db, tmp_path) as (admin, base):
        document = (await admin.world.client.get("/v1.0/openapi.json")).json()
        real = await _objects(admin, document)
        failures, statuses = await asyncio.to_thread(_ask, document, base, admin.headers, real)
    assert failures == []
    assert statuses[200] > 150, "the questions reach what is there"
    assert statuses[201] > 0
    assert 401 not in statuses


SEEDS: dict[str, dict[str, Any]] = {
    "groups": group_body("Seed"),
    "applications": {"displayName": "Seed"},
    "deviceManagement/deviceConfigurations": {
        "@odata.type": "#microsoft.graph.windows10CustomConfiguration",
        "displayName": "Seed",
        "omaSettings": [],
    },
    "deviceAppManagement/mobileApps": {
        "@odata.type": "#microsoft.graph.webApp",
        "displayName": "Seed",
        "publisher": "Seed",
        "appUrl": "https://app.example",
    },
    "deviceManagement/deviceCategories": {"displayName": "Seed"},
    "deviceManagement/roleScopeTags": {"displayName": "Seed"},
}


async def _objects(admin: Graph, document: dict[str, Any]) -> dict[str, list[str]]:
    """Ids of objects that are there, by the name of the path's parameter."""
    target = await admin.world.user("target")
    for path, body in SEEDS.items():
        await admin.raw("POST", path, body)
    found = {}
    for path in document["paths"]:
        collection, _, last = path.rpartition("/")
        if last.startswith("{") and "{" not in collection and collection in document["paths"]:
            answer = await admin.raw("GET", collection[1:])
            if answer.status_code == 200:
                found[last[1:-1]] = [item.get("id") for item in answer.json()["value"]][:3]
    return {**found, "user": [target.id]}


def _ask(
    document: dict[str, Any], base: str, headers: dict[str, str], real: dict[str, list[str]]
) -> tuple[list[str], dict[int, int]]:
    schema = schemathesis.openapi.from_dict(document)
    fuzzing = settings().max_examples > 1_000
    failures: list[str] = []
    statuses: dict[int, int] = {}
    for result in schema.get_all_operations():
        operation = result.ok()

        @settings(
            max_examples=50 if fuzzing else EXAMPLES,
            derandomize=not fuzzing,
            deadline=None,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(case=operation.as_strategy(), some=st.randoms(use_true_random=False))
        def asked(case: Any, some: Any) -> None:
            for name in case.path_parameters or {}:
                if real.get(name) and some.random() < 0.7:
                    case.path_parameters[name] = some.choice(real[name])
            response = case.call(base_url=f"{base}/v1.0", headers=headers)
            statuses[response.status_code] = statuses.get(response.status_code, 0) + 1
            try:
                case.validate_response(response, checks=CHECKS, headers=headers)
            except FailureGroup as error:
                failures.append(f"{case.operation.label}: {str(error)[:600]}")

        asked()
    return failures, statuses
