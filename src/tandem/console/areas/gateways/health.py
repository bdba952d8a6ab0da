"""The way in hop by hop, the connection analyzer, ports and endpoints, and the site about itself."""

from base64 import b64encode
from collections.abc import Mapping
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
from starlette.responses import Response
from starlette.routing import BaseRoute

from tandem.console.areas.gateways import picture, words
from tandem.console.areas.gateways.pages import BASE, api_of, named, path_of, tabs
from tandem.console.kit import (
    N_,
    ROOT,
    Console,
    Fact,
    NotSignedIn,
    Page,
    Problem,
    Upload,
    drawn,
    field,
    read,
)
from tandem.infra.errors import HTTP_STATUS, AppError

REFRESH_SECONDS = 3
_FORM_BYTES = 1_000_000
VENDOR = Path(__file__).parents[2] / "static" / "vendor"
# Which licence each of the third-party files has; their texts are in LICENSES.txt beside them.
LICENCES = {
    "htmx.org": "0BSD",
    "echarts": "Apache-2.0",
    "@fluentui/tokens": "MIT",
    "@fluentui/svg-icons": "MIT",
}


async def chain(page: Page[Any]) -> Response:
    found = await page.api.get("/api/v1/health")
    hops = [words.hop(page, hop) for hop in found["hops"]]
    gateways = list(dict.fromkeys(hop["gateway"] for hop in hops if hop["gateway"]))
    return page.render(
        "gateways/chain.html",
        state=found["state"],
        groups=[
            (name, [h for h in hops if h["gateway"] == name and h["kind"] != "site"])
            for name in gateways
        ],
        inside=[h for h in hops if h["kind"] in words.INSIDE],
        broken=sum(hop["state"] == "bad" for hop in hops),
        refresh_seconds=REFRESH_SECONDS,
    )


# ---------------------------------------------------------------- the analyzer

SITE, TOKEN, CERTIFICATE = "site", "token", "certificate"
IDENTITY = (
    field(
        "identity",
        N_("Who asks"),
        "radio",
        required=True,
        default=SITE,
        options=(
            (
                SITE,
                N_("The site itself"),
                N_("With a token of its own that is good for a minute and for no message."),
            ),
            (
                TOKEN,
                N_("An account of the tenant"),
                N_("With an access token for the site, as a device's user has it."),
            ),
            (CERTIFICATE, N_("A client certificate"), N_("A PFX with its password.")),
        ),
    ),
    field("access_token", N_("Access token"), "textarea", secret=True, limit=16_384, rows=3),
    field("pfx", N_("Client certificate (PFX)"), "file", accept=".pfx,.p12"),
    field("password", N_("Password of the file"), "password", secret=True),
)


async def ask_analysis(page: Page[Any]) -> Response:
    return await _draw_analysis(page, {"identity": SITE})


async def analyze(page: Page[Any]) -> Response:
    form = await page.form(_FORM_BYTES)
    values, problems = read(IDENTITY, form, files=page.files)
    body: dict[str, str] = {}
    if values["identity"] == TOKEN:
        body["access_token"] = "".join(str(values["access_token"]).split())
        if not body["access_token"] and not problems:
            problems["access_token"] = Problem("access_token", N_("Paste the token."))
    elif values["identity"] == CERTIFICATE:
        upload = values["pfx"]
        if isinstance(upload, Upload):
            body["data"] = b64encode(upload.data).decode()
            body["password"] = values["password"]
        else:
            problems.setdefault("pfx", Problem("pfx", N_("Choose a file.")))
    if problems:
        return await _draw_analysis(page, values, problems, status=422)
    try:
        found = await page.api.post(api_of(named(page), "/analyze"), body)
    except NotSignedIn:
        raise
    except AppError as error:
        at = {"pki.wrong-password": "password", "pki.bad-pfx": "pfx"}.get(error.code, "")
        wrong = {at: error} if at else {}
        general = None if at else error
        return await _draw_analysis(
            page, values, wrong, general=general, status=HTTP_STATUS[error.kind]
        )
    return await _draw_analysis(page, values, found=found)


async def _draw_analysis(
    page: Page[Any],
    values: Mapping[str, Any],
    problems: Mapping[str, AppError] | None = None,
    *,
    general: AppError | None = None,
    found: Mapping[str, Any] | None = None,
    status: int = 200,
) -> Response:
    name = named(page)
    await page.api.get(api_of(name))
    return page.render(
        "gateways/analyzer.html",
        status,
        name=name,
        url=path_of(name),
        tabs=tabs(name, "analyze"),
        fields=await drawn(page, IDENTITY, values, problems or {}),
        general=general,
        rows=[words.hop(page, item) for item in found["checks"]] if found else None,
        ok=bool(found and found["ok"]),
        cut=words.hop(page, found["broken"]) if found and found["broken"] else None,
        picture=picture.draw(page, name, found["checks"]) if found else None,
    )


# ---------------------------------------------------------------- ports, and the site about itself


async def ports(page: Page[Any]) -> Response:
    found = await page.api.get("/api/v1/endpoints")
    listeners = [
        {
            **item,
            "role": words.ROLES.get(item["role"], item["role"]),
            "peer": words.PEERS.get(item["peer"], item["peer"]),
            "purpose": words.PURPOSES.get(item["purpose"], item["purpose"]),
        }
        for item in found["listeners"]
    ]
    return page.render(
        "gateways/ports.html",
        inbound=[item for item in listeners if item["direction"] == "in"],
        outbound=[item for item in listeners if item["direction"] == "out"],
        published=found["published"],
    )


@cache
def assets() -> tuple[tuple[str, str, str], ...]:
    """Name, version and licence of what others made and the console serves."""
    try:
        manifest = msgspec.json.decode((VENDOR / "manifest.json").read_bytes())
    except (OSError, msgspec.DecodeError):
        return ()
    return tuple(
        (name, version, LICENCES.get(name, "")) for name, version in manifest["versions"].items()
    )


async def about(page: Page[Any]) -> Response:
    found = await page.api.get("/api/v1/about")
    versions, database, jobs = found["versions"], found["database"], found["jobs"]
    say, number = page.language.text, page.language.number
    kinds = {"embedded": N_("Embedded"), "external": N_("A server of its own")}
    facts = [
        Fact(N_("Site"), f"{found['site_code']} {found['site_name']}".strip()),
        Fact(N_("Tandem"), versions["tandem"]),
        Fact(N_("Python"), versions["python"]),
        Fact(N_("PostgreSQL"), versions["postgresql"]),
        Fact(N_("Operating system"), versions["system"]),
        Fact(N_("Started at"), words.at(found["started_at"])),
        Fact(N_("Running for"), _duration(page, found["uptime_seconds"])),
        Fact(N_("Memory"), _megabytes(page, found["memory_bytes"])),
        Fact(N_("Free on the disk of the state"), _megabytes(page, found["disk_free_bytes"])),
    ]
    stored = [
        Fact(N_("Database"), say(kinds[database["kind"]])),
        Fact(N_("Size"), _megabytes(page, database["size_bytes"])),
        Fact(N_("Schema"), database["migration"]),
        Fact(N_("Connections"), database["connections"]),
        Fact(
            N_("Its clock differs by"),
            say(N_("%(seconds)s seconds"), seconds=number(database["clock_seconds"])),
        ),
    ]
    return page.render(
        "gateways/about.html",
        facts=facts,
        stored=stored,
        jobs=jobs,
        now=words.at(found["time"]),
        logs=found["logs"],
        state=found["state"],
        assets=assets(),
        clock_wrong=abs(database["clock_seconds"]) > 5,
        refresh_seconds=10,
    )


def _megabytes(page: Page[Any], size: int | None) -> str:
    if size is None:
        return ""
    return page.language.text(N_("%(size)s MB"), size=page.language.number(round(size / 1e6)))


def _duration(page: Page[Any], seconds: int | None) -> str:
    if seconds is None:
        return ""
    gone = timedelta(seconds=seconds)
    hours, rest = divmod(gone.seconds, 3600)
    return page.language.text(
        N_("%(days)s d %(hours)s h %(minutes)s min"),
        days=page.language.number(gone.days),
        hours=hours,
        minutes=rest // 60,
    )


def routes(console: Console[Any]) -> list[BaseRoute]:
    return [
        console.route(f"{ROOT}/health", chain),
        console.route(f"{BASE}/{{name}}/analyze", ask_analysis),
        console.route(f"{BASE}/{{name}}/analyze", analyze, post=True),
        console.route(f"{ROOT}/ports", ports),
        console.route(f"{ROOT}/about", about),
    ]
