"""IntuneCD as it comes from PyPI, unchanged, against a tenant that stands in for the vendor's.

It knows two hosts by name and takes no setting for them: a CONNECT proxy on loopback leads it to
the tenant, whose certificate names them and is issued by this test's own CA.
"""

import asyncio
import contextlib
import json
import os
import subprocess
from base64 import b64encode
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from mdm_world import Mdm, live_mdm
from tandem.infra.database import Database
from tandem.tenant import oidc

pytestmark = [pytest.mark.slow, pytest.mark.timeout(500)]
ROOT = Path(__file__).parents[2]
HOSTS = ("login.microsoftonline.com", "graph.microsoft.com")
DM = "deviceManagement"
GRAPH = "#microsoft.graph."
PERMISSIONS = (
    "DeviceManagementApps.ReadWrite.All",
    "DeviceManagementConfiguration.ReadWrite.All",
    "DeviceManagementManagedDevices.Read.All",
    "DeviceManagementServiceConfig.ReadWrite.All",
    "DeviceManagementRBAC.ReadWrite.All",
    "Group.ReadWrite.All",
    "Policy.Read.All",
    "Policy.ReadWrite.ConditionalAccess",
)
# Prints an error in the vendor's service too, as long as there is no certificate or account.
ABSENT = ["APNs", "ManagedGooglePlay"]


@pytest.fixture(scope="session")
def programs() -> Path:
    done = subprocess.run([ROOT / "tools" / "intunecd.sh"], check=True, stdout=subprocess.PIPE)
    return Path(done.stdout.decode().strip())


@asynccontextmanager
async def proxy(port: int) -> AsyncIterator[int]:
    """A CONNECT proxy that leads every name to one port of this machine."""
    open_ones: set[asyncio.Task[None]] = set()

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        open_ones.add(task)
        asked = await reader.readuntil(b"\r\n\r\n")
        assert asked.startswith(b"CONNECT "), asked
        inner, outer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        await asyncio.gather(pump(reader, outer), pump(inner, writer))
        for one in (writer, outer):
            with contextlib.suppress(ConnectionError):
                await one.wait_closed()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    yield server.sockets[0].getsockname()[1]
    server.close()
    await asyncio.wait(open_ones, timeout=5)


@dataclass
class Client:
    mdm: Mdm
    programs: Path
    environment: dict[str, str]
    headers: dict[str, str]

    async def graph(self, method: str, path: str, body: Any = None) -> Any:
        answer = await self.mdm.world.client.request(
            method, f"/beta/{path}", json=body, headers=self.headers
        )
        assert answer.status_code < 300, answer.text
        return answer.json() if answer.content else None

    async def run(self, program: str, *words: str) -> str:
        process = await asyncio.create_subprocess_exec(
            self.programs / program,
            *words,
            env=self.environment,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        said, _ = await process.communicate()
        text = said.decode()
        assert process.returncode == 0, text
        return text

    async def backup(self, folder: Path, *words: str) -> str:
        folder.mkdir()
        return await self.run(
            "IntuneCD-startbackup", "-m", "1", "-o", "json", "-p", str(folder),
            "-e", *ABSENT, *words,
        )  # fmt: skip

    async def update(self, folder: Path, *words: str) -> str:
        return await self.run("IntuneCD-startupdate", "-m", "1", "-p", str(folder), *words)


@asynccontextmanager
async def intunecd(database: Database, folder: Path, programs: Path) -> AsyncIterator[Client]:
    async with live_mdm(database, folder, HOSTS) as (mdm, root, _):
        async with database.transaction() as tx:
            app = await oidc.applications.create_application(tx, "IntuneCD", mdm.world.at)
            client = await oidc.applications.create_principal(tx, app.app_id, mdm.world.at)
            _, secret = await oidc.applications.add_secret(tx, app.id, mdm.world.at)
            graph = await oidc.applications.application(tx, oidc.GRAPH)
            resource = await oidc.applications.principal(tx, oidc.GRAPH)
            for role in graph.app_roles:
                if role["value"] in PERMISSIONS:
                    await oidc.applications.assign_role(
                        tx, role["id"], client.id, resource.id, mdm.world.at
                    )
        port = int(mdm.world.tokens.settings.base.rpartition(":")[2])
        async with proxy(port) as at:
            environment = {
                "PATH": os.environ["PATH"],
                "HOME": str(folder),
                "HTTPS_PROXY": f"http://127.0.0.1:{at}",
                "REQUESTS_CA_BUNDLE": str(root),
                "TENANT_NAME": "contoso.com",
                "CLIENT_ID": app.app_id,
                "CLIENT_SECRET": secret,
            }
            yield Client(mdm, programs, environment, await mdm.world.bearer())


def written(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*.json")}


def clean(said: str) -> None:
    wrong = [line for line in said.splitlines() if "[ERROR]" in line or "Traceback" in line]
    assert wrong == [], said


OBJECTS: list[tuple[str, dict[str, Any], str]] = [
    (
        "deviceConfigurations",
        {
            "@odata.type": f"{GRAPH}windows10CustomConfiguration",
            "displayName": "Lock",
            "omaSettings": [
                {
                    "@odata.type": f"{GRAPH}omaSettingInteger",
                    "displayName": "Lock",
                    "omaUri": "./Device/Vendor/MSFT/Policy/Config/DeviceLock/MaxDevicePasswordFailedAttempts",
                    "value": 15,
                }
            ],
        },
        "assignments",
    ),
    (
        "deviceCompliancePolicies",
        {
            "@odata.type": f"{GRAPH}windows10CompliancePolicy",
            "displayName": "Base",
            "bitLockerEnabled": True,
            "scheduledActionsForRule": [
                {
                    "ruleName": "PasswordRequired",
                    "scheduledActionConfigurations": [
                        {"actionType": "block", "gracePeriodHours": 12}
                    ],
                }
            ],
        },
        "assignments",
    ),
    (
        "configurationPolicies",
        {
            "name": "Firewall",
            "platforms": "windows10",
            "technologies": "mdm",
            "settings": [
                {
                    "settingInstance": {
                        "@odata.type": f"{GRAPH}deviceManagementConfigurationChoiceSettingInstance",
                        "settingDefinitionId": "vendor_msft_firewall_x",
                        "choiceSettingValue": {"value": "vendor_msft_firewall_x_1", "children": []},
                    }
                }
            ],
        },
        "assignments",
    ),
    (
        "deviceManagementScripts",
        {
            "displayName": "Hello",
            "fileName": "hello.ps1",
            "scriptContent": b64encode(b"Write-Host hello").decode(),
        },
        "deviceManagementScriptAssignments",
    ),
    (
        "deviceHealthScripts",
        {
            "displayName": "Repair",
            "publisher": "Contoso",
            "detectionScriptContent": b64encode(b"exit 1").decode(),
            "remediationScriptContent": b64encode(b"exit 0").decode(),
        },
        "deviceHealthScriptAssignments",
    ),
    ("deviceCategories", {"displayName": "Kiosk", "description": "In the lobby"}, ""),
    (
        "assignmentFilters",
        {"displayName": "Laptops", "platform": "windows10AndLater", "rule": "(device.model -eq 1)"},
        "",
    ),
]


async def fill(client: Client) -> None:
    group = await client.mdm.group("Everyone")
    target = {"@odata.type": f"{GRAPH}groupAssignmentTarget", "groupId": group.id}
    for path, body, assign in OBJECTS:
        made = await client.graph("POST", f"{DM}/{path}", body)
        if assign:
            given = {assign: [{"target": target}]}
            await client.graph("POST", f"{DM}/{path}/{made['id']}/assign", given)
    policy = {
        "displayName": "Compliant devices",
        "state": "disabled",
        "conditions": {
            "users": {"includeUsers": ["All"]},
            "applications": {"includeApplications": ["All"]},
        },
        "grantControls": {"operator": "OR", "builtInControls": ["compliantDevice"]},
    }
    await client.graph("POST", "identity/conditionalAccess/policies", policy)
    app = {
        "@odata.type": f"{GRAPH}windowsMobileMSI",
        "displayName": "Client",
        "fileName": "ccmsetup.msi",
    }
    await client.graph("POST", "deviceAppManagement/mobileApps", app)
    template = await client.graph(
        "POST", f"{DM}/notificationMessageTemplates", {"displayName": "Late"}
    )
    await client.graph(
        "POST",
        f"{DM}/notificationMessageTemplates/{template['id']}/localizedNotificationMessages",
        {"locale": "en-us", "subject": "S", "messageTemplate": "M", "isDefault": True},
    )


async def test_a_tenant_is_backed_up_and_written_back(
    tenant_db: Database, tmp_path: Path, programs: Path
) -> None:
    async with intunecd(tenant_db, tmp_path, programs) as client:
        empty = tmp_path / "empty"
        clean(await client.backup(empty, "--autopilot"))
        before = written(empty)
        await fill(client)
        full = tmp_path / "full"
        clean(await client.backup(full))
        new = written(full) - before
        for name in (
            "Device Configurations/Lock_windows10CustomConfiguration.json",
            "Compliance Policies/Policies/Base_windows10CompliancePolicy.json",
            "Settings Catalog/Firewall_mdm.json",
            "Scripts/Powershell/Hello.json",
            "Device Categories/Kiosk.json",
            "Filters/Laptops.json",
            "Conditional Access/Compliant devices.json",
        ):
            assert name in new, sorted(new)
        assigned = json.loads((full / "Settings Catalog/Firewall_mdm.json").read_text())
        assert assigned["assignments"][0]["target"]["groupName"] == "Everyone"

        # Gone, and written back.
        for path, _, _ in OBJECTS:
            for item in (await client.graph("GET", f"{DM}/{path}"))["value"]:
                await client.graph("DELETE", f"{DM}/{path}/{item['id']}")
        said = await client.update(full, "-u")
        clean(said)
        for path, body, assign in OBJECTS:
            (item,) = (await client.graph("GET", f"{DM}/{path}"))["value"]
            name = "name" if "name" in body else "displayName"
            assert item[name] == body[name]
            if assign:
                given = await client.graph("GET", f"{DM}/{path}/{item['id']}/assignments")
                assert len(given["value"]) == 1, path

        # What differs is changed, and only that.
        file = full / "Device Categories/Kiosk.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), "description": "Upstairs"}))
        clean(await client.update(full, "-u"))
        (kiosk,) = (await client.graph("GET", f"{DM}/deviceCategories"))["value"]
        assert kiosk["description"] == "Upstairs"
        (lock,) = (await client.graph("GET", f"{DM}/deviceConfigurations"))["value"]
        assert lock["version"] == 1
