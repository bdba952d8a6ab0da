"""docs/guide/adminservice.md: every block of it is run as it stands."""

import asyncio
import re
import ssl
from pathlib import Path

import httpx

from site_api import add_device
from site_world import PASSWORD, Site
from tandem.infra.secrets import write_private

GUIDE = Path(__file__).parents[2] / "docs" / "guide" / "adminservice.md"
REQUEST = re.compile(
    r'Invoke-RestMethod "(?P<url>[^"]+)"(?: -Method (?P<method>\w+))?'
    r"""(?: -ContentType "[^"]+")?(?: -Body '(?P<body>[^']+)')? @login"""
)


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", GUIDE.read_text("utf-8"), re.DOTALL)


async def test_every_curl_line_works(site: Site) -> None:
    async with site.db.transaction() as tx:
        await add_device(tx, "LAB-001")
    netrc = site.folder / "netrc"
    write_private(netrc, f"machine localhost login siteadmin password {PASSWORD}\n".encode())
    names = {"SITE": site.url, "CA": str(site.folder / "site-root.pem"), "NETRC": str(netrc)}
    said = []
    for block in blocks("sh"):
        process = await asyncio.create_subprocess_exec(
            *("bash", "-euo", "pipefail", "-c", block),
            env={"PATH": "/usr/bin:/bin", **names},
            cwd=site.folder,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, errors = await asyncio.wait_for(process.communicate(), 60)
        assert process.returncode == 0, (block, errors.decode())
        said.append(out.decode())
    first, conditions, members, documents = said
    assert '"SiteCode":"CM1"' in first
    assert '"Name":"LAB-001"' in conditions
    assert '"@odata.count":1' in conditions
    assert '"QueryID":' in members
    assert '"Name":"LAB-001"' in members
    assert "<edmx:Edmx" in documents


async def test_every_request_of_powershell_works(site: Site) -> None:
    (block,) = blocks("powershell")
    lines = [line for line in block.splitlines() if "Invoke-RestMethod" in line]
    found = [REQUEST.search(line) for line in lines]
    assert lines
    tls = ssl.create_default_context(cafile=str(site.folder / "site-root.pem"))
    async with httpx.AsyncClient(verify=tls, trust_env=False) as web:
        for line, request in zip(lines, found, strict=True):
            assert request is not None, line
            answer = await web.request(
                (request["method"] or "Get").upper(),
                request["url"].replace("$site", site.url).replace("`", ""),
                content=request["body"],
                headers={"Content-Type": "application/json"} if request["body"] else {},
                auth=("siteadmin", PASSWORD),
            )
            assert answer.is_success, (line, answer.text)
