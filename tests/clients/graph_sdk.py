"""The unmodified msgraph-sdk, pointed at a tenant on a real port with TLS."""

import hashlib
import hmac
import os
import ssl
import zipfile
from base64 import b64encode
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import httpx
import pytest
from azure.identity.aio import ClientSecretCredential
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.padding import PKCS7
from kiota_abstractions.base_request_configuration import RequestConfiguration
from kiota_authentication_azure.azure_identity_authentication_provider import (
    AzureIdentityAuthenticationProvider,
)
from msgraph import GraphServiceClient
from msgraph.generated.models.file_encryption_info import FileEncryptionInfo
from msgraph.generated.models.o_data_errors.o_data_error import ODataError
from msgraph.graph_request_adapter import GraphRequestAdapter, options
from msgraph_core import GraphClientFactory

from mdm_world import Mdm
from tandem.tenant import oidc
from tandem.workloads import Workload, capabilities

DEFAULT = "https://graph.microsoft.com/.default"
CO_MANAGED = f"flags={capabilities([Workload.CLIENT_APPS])};agent=1.0;client=GUID:1;policy=1"
# What a script of an administrator of co-management may ask for.
EVERYTHING = (
    "User.ReadWrite.All",
    "Group.ReadWrite.All",
    "Device.ReadWrite.All",
    "Directory.ReadWrite.All",
    "Organization.Read.All",
    "LicenseAssignment.ReadWrite.All",
    "Application.ReadWrite.All",
    "AppRoleAssignment.ReadWrite.All",
    "DelegatedPermissionGrant.ReadWrite.All",
    "Policy.Read.All",
    "AuditLog.Read.All",
    "DeviceManagementManagedDevices.ReadWrite.All",
    "DeviceManagementManagedDevices.PrivilegedOperations.All",
    "DeviceManagementConfiguration.ReadWrite.All",
    "DeviceManagementApps.ReadWrite.All",
    "DeviceManagementServiceConfig.ReadWrite.All",
    "DeviceManagementRBAC.ReadWrite.All",
)


@dataclass
class Sdk:
    mdm: Mdm
    root: Path
    client: Any
    adapter: Any
    # Every request that left the client: method, URL, status.
    sent: list[tuple[str, str, int]]

    @property
    def base(self) -> str:
        return str(self.mdm.world.tokens.settings.base)


class Wire(httpx.AsyncHTTPTransport):
    """The network below the SDK, which notes what goes over it."""

    def __init__(self, sent: list[tuple[str, str, int]], **options: Any) -> None:
        super().__init__(**options)
        self._sent = sent

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        answer = await super().handle_async_request(request)
        self._sent.append((request.method, str(request.url), answer.status_code))
        return answer


async def register(mdm: Mdm, name: str, *permissions: str) -> tuple[str, str]:
    """An application with consent to these application permissions: its id and secret."""
    async with mdm.database.transaction() as tx:
        graph = await oidc.applications.application(tx, oidc.GRAPH)
        needed = [
            {"id": role["id"], "type": "Role"}
            for role in graph.app_roles
            if role["value"] in permissions
        ]
        assert len(needed) == len(permissions)
        access = ({"resourceAppId": oidc.GRAPH, "resourceAccess": needed},)
        at = mdm.world.at
        app = await oidc.applications.create_application(tx, name, at, required_access=access)
        _, secret = await oidc.applications.add_secret(tx, app.id, at)
        await oidc.admin_consent(tx, app.id, at)
    return app.app_id, secret


@asynccontextmanager
async def connect(mdm: Mdm, root: Path, *permissions: str, base: str = "") -> AsyncIterator[Sdk]:
    """The SDK as an application with these permissions. `base` ends where the paths begin."""
    app_id, secret = await register(mdm, "Script", *permissions)
    home = str(mdm.world.tokens.settings.base)
    base = base or f"{home}/v1.0"
    sent: list[tuple[str, str, int]] = []
    wire = Wire(sent, verify=ssl.create_default_context(cafile=str(root)))
    async with (
        ClientSecretCredential(
            mdm.world.tenant.id, app_id, secret, authority=home, connection_verify=str(root)
        ) as credential,
        httpx.AsyncClient(transport=wire) as plain,
        wire,  # The SDK puts its own transport in its place, which does not close it.
    ):
        web = GraphClientFactory.create_with_default_middleware(client=plain, options=options)
        provider = AzureIdentityAuthenticationProvider(credential, scopes=[DEFAULT])
        adapter = GraphRequestAdapter(provider, web)
        adapter.base_url = base
        client = GraphServiceClient(request_adapter=adapter)
        yield Sdk(mdm, root, client, adapter, sent)


def ask(builder: Any, headers: dict[str, str] | None = None, **query: Any) -> Any:
    """Query options for `builder.get`, and headers."""
    sort = getattr(type(builder), f"{type(builder).__name__}GetQueryParameters")
    made = RequestConfiguration(query_parameters=sort(**query))
    for name, value in (headers or {}).items():
        made.headers.add(name, value)
    return made


def with_headers(**headers: str) -> Any:
    made: Any = RequestConfiguration()
    for name, value in headers.items():
        made.headers.add(name.replace("_", "-"), value)
    return made


async def refused(work: Callable[[], Any], status: int, code: str, text: str = "") -> Any:
    """What the SDK raises, checked."""
    with pytest.raises(ODataError) as caught:
        await work()
    error = caught.value
    assert (error.response_status_code, error.error.code) == (status, code), error.error.message
    assert error.error.message
    assert text in error.error.message
    assert error.error.inner_error.request_id
    return error


def sealed(plain: bytes) -> tuple[bytes, FileEncryptionInfo]:
    """Content as the packaging tools encrypt it."""
    key, mac_key, iv = os.urandom(32), os.urandom(32), os.urandom(16)
    padder, cipher = PKCS7(128).padder(), Cipher(algorithms.AES(key), modes.CBC(iv)).encryptor()
    secret = cipher.update(padder.update(plain) + padder.finalize()) + cipher.finalize()
    mac = hmac.digest(mac_key, iv + secret, "sha256")
    info = FileEncryptionInfo(
        encryption_key=key,
        mac_key=mac_key,
        initialization_vector=iv,
        mac=mac,
        file_digest=hashlib.sha256(plain).digest(),
        file_digest_algorithm="SHA256",
        profile_identifier="ProfileVersion1",
    )
    return mac + iv + secret, info


def intunewin(setup: str, plain: bytes) -> bytes:
    """A package as the packaging tool makes it: encrypted content, and a file that describes it."""
    content, info = sealed(plain)
    top = ElementTree.Element("ApplicationInfo", ToolVersion="1.8.6.0")
    for name, value in {
        "Name": setup,
        "UnencryptedContentSize": len(plain),
        "FileName": "IntunePackage.intunewin",
        "SetupFile": setup,
    }.items():
        ElementTree.SubElement(top, name).text = str(value)
    keys = ElementTree.SubElement(top, "EncryptionInfo")
    for name, value in {
        "EncryptionKey": info.encryption_key,
        "MacKey": info.mac_key,
        "InitializationVector": info.initialization_vector,
        "Mac": info.mac,
        "FileDigest": info.file_digest,
    }.items():
        ElementTree.SubElement(keys, name).text = b64encode(value or b"").decode()
    ElementTree.SubElement(keys, "ProfileIdentifier").text = "ProfileVersion1"
    ElementTree.SubElement(keys, "FileDigestAlgorithm").text = "SHA256"
    out = BytesIO()
    with zipfile.ZipFile(out, "w") as package:
        package.writestr("IntuneWinPackage/Contents/IntunePackage.intunewin", content)
        package.writestr("IntuneWinPackage/Metadata/Detection.xml", ElementTree.tostring(top))
    return out.getvalue()
