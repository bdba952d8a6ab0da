"""Site system roles: connection points, the management point, and the wizard that adds a role."""

import io
import shlex
import zipfile
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from starlette.responses import Response
from starlette.routing import BaseRoute

from tandem.console.kit import (
    N_,
    ROOT,
    Console,
    Draft,
    Fact,
    NotSignedIn,
    Outcome,
    Page,
    Problem,
    Step,
    UnknownPage,
    Wizard,
    drawn,
    field,
    read,
)
from tandem.infra import config
from tandem.infra.errors import HTTP_STATUS, AppError

BASE = f"{ROOT}/site-systems"
POINTS = "/api/v1/connection-points"
MANAGEMENT_POINT = "/api/v1/management-point"
UPDATE_POINT = "/api/v1/software-update-point"
REFRESH_SECONDS = 3
POINT = "connection-point"


def path_of(name: str) -> str:
    return f"{BASE}/{quote(name, safe='')}"


def api_of(name: str, more: str = "") -> str:
    return f"{POINTS}/{quote(name, safe='')}{more}"


def _named(page: Page[Any]) -> str:
    name: str = page.request.path_params["name"]
    if name == "-":
        raise UnknownPage(N_("There is no such connection point."))
    return name


async def _gateways(page: Page[Any], draft: Draft | None) -> list[tuple[str, str]]:
    """With its region, which the gateway brings along."""
    say = page.language.text
    return [
        (
            item["service_name"],
            say(N_("%(name)s (%(region)s)"), name=item["service_name"], region=item["region"]),
        )
        for item in await page.api.get("/api/v1/gateways")
    ]


GATEWAY = field(
    "gateway",
    N_("Cloud management gateway"),
    "select",
    options=_gateways,
    required=True,
    hint=N_("It can be changed later. The region is the gateway's own."),
)


PROXY = (
    field(
        "web_proxy",
        N_("Web proxy"),
        limit=260,
        hint=N_("Like proxy.corp:8080; empty for none. Only HTTPS goes by it."),
    ),
    field("web_proxy_user", N_("Account at the proxy"), limit=128),
    field(
        "web_proxy_password",
        N_("Password at the proxy"),
        "password",
        secret=True,
        hint=N_("Empty keeps the one that is kept. It is shown nowhere."),
    ),
)


def _state(point: Mapping[str, Any]) -> tuple[str, str]:
    if point["connected"]:
        return N_("Connected"), "good"
    if point["reported_at"] is None:
        return N_("Has never reported"), "waiting"
    return N_("Not connected"), "bad"


def _shown(point: Mapping[str, Any]) -> dict[str, Any]:
    title, look = _state(point)
    return {
        "name": point["name"],
        "url": path_of(point["name"]),
        "gateway": point["service_name"],
        "state": title,
        "look": look,
        "reported_at": point["reported_at"],
        "tunnels": sum(item["state"] == "connected" for item in point["connections"]),
        "connections": point["connections"],
    }


async def overview(page: Page[Any]) -> Response:
    points = await page.api.get(POINTS)
    return page.render(
        "gateways/roles.html",
        points=[_shown(item) for item in points],
        management=await page.api.get(MANAGEMENT_POINT),
        updates=await page.api.get(UPDATE_POINT),
        refresh_seconds=REFRESH_SECONDS,
    )


async def point(page: Page[Any]) -> Response:
    return await _draw_point(page)


async def _draw_point(
    page: Page[Any],
    problems: Mapping[str, AppError] | None = None,
    status: int = 200,
    proxy: Mapping[str, Any] | None = None,
) -> Response:
    name = _named(page)
    found = await page.api.get(api_of(name))
    management = await page.api.get(MANAGEMENT_POINT)
    return page.render(
        "gateways/point.html",
        status,
        point=_shown(found),
        fields=await drawn(page, (GATEWAY,), {"gateway": found["service_name"]}, problems or {}),
        proxy=await drawn(page, PROXY, proxy or found, problems or {}),
        password_kept=found["web_proxy_password_kept"],
        management_point=management["url"],
        install=shlex.join(
            ["tandem", "connection-point", "install", found["name"], "--folder", "."]
        ),
        run="tandem connector run --config connector.toml",
        refresh_seconds=REFRESH_SECONDS,
    )


async def change_gateway(page: Page[Any]) -> Response:
    form = await page.form()
    values, problems = read((GATEWAY,), form)
    name = _named(page)
    if not problems:
        try:
            await page.api.patch(api_of(name), {"gateway": values["gateway"]})
        except NotSignedIn:
            raise
        except AppError as error:
            return await _draw_point(page, {"gateway": error}, HTTP_STATUS[error.kind])
        said = N_("%(name)s serves %(gateway)s now.")
        return page.to(path_of(name), said, name=name, gateway=values["gateway"])
    return await _draw_point(page, problems, 422)


async def change_proxy(page: Page[Any]) -> Response:
    form = await page.form()
    values, problems = read(PROXY, form)
    name = _named(page)
    if problems:
        return await _draw_point(page, problems, 422, values)
    body = {"web_proxy": values["web_proxy"], "web_proxy_user": values["web_proxy_user"]}
    if values["web_proxy_password"]:
        body["web_proxy_password"] = values["web_proxy_password"]
    try:
        await page.api.patch(api_of(name), body)
    except NotSignedIn:
        raise
    except AppError as error:
        at = str(error.details.get("field", "web_proxy"))
        return await _draw_point(page, {at: error}, HTTP_STATUS[error.kind], values)
    return page.to(path_of(name), N_("The web proxy of %(name)s is saved."), name=name)


async def ask_removal(page: Page[Any]) -> Response:
    name = _named(page)
    found = await page.api.get(api_of(name))
    others = [
        item["name"]
        for item in await page.api.get(POINTS)
        if item["service_name"] == found["service_name"] and item["name"] != found["name"]
    ]
    say = page.language.text
    reach = (
        N_("The gateway %(gateway)s goes on with %(others)s.")
        if others
        else N_(
            "It is the only one of %(gateway)s: no device on the internet reaches the site then."
        )
    )
    return page.confirm(
        say(N_("Take the role from %(name)s?"), name=name),
        say(reach, gateway=found["service_name"], others=", ".join(others))
        + " "
        + say(N_("Its certificate counts no longer, at once.")),
        say(N_("Remove the role")),
        back=path_of(name),
    )


async def remove(page: Page[Any]) -> Response:
    form = await page.form()
    if not form.get("confirmed"):
        return await ask_removal(page)
    name = _named(page)
    await page.api.delete(api_of(name))
    return page.to(BASE, N_("%(name)s is no connection point any more."), name=name)


async def credentials(page: Page[Any]) -> Response:
    """Settings, certificate and key for the server that has the role, as one file."""
    await page.form()
    name = _named(page)
    given = await page.api.post(api_of(name, "/credentials"))
    settings = {
        "connection_point": name,
        "management_point_url": given["management_point_url"],
        "certificate": "certificate.pem",
        "key": "key.pem",
        "site_root": "root.pem",
        "state": "state",
    }
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as made:
        for file, text in (
            ("connector.toml", config.toml(settings)),
            ("certificate.pem", given["certificate"]),
            ("key.pem", given["key"]),
            ("root.pem", given["root"]),
        ):
            entry = zipfile.ZipInfo(file, page.now.timetuple()[:6])
            entry.external_attr = 0o100600 << 16  # Unpacked, its owner alone reads it.
            made.writestr(entry, text)
    safe = "".join(c for c in name if c.isascii() and (c.isalnum() or c in "-_")) or "point"
    headers = {
        "Content-Disposition": f'attachment; filename="connection-point-{safe}.zip"',
        "Cache-Control": "no-store",
    }
    return Response(packed.getvalue(), headers=headers, media_type="application/zip")


# ---------------------------------------------------------------- the management point


def _insecure(values: Mapping[str, Any]) -> str:
    return (
        ""
        if values.get("possible") or values.get("allow_gateway_traffic")
        else N_(
            "The management point answers plain HTTP. Switch enhanced HTTP on in the site's"
            " properties first."
        )
    )


ALLOW = field(
    "allow_gateway_traffic",
    N_("Allow gateway traffic to this management point"),
    "checkbox",
    locked=_insecure,
    hint=N_(
        "Its endpoints are published through every gateway then, and nothing else of the site."
    ),
)


async def management_point(page: Page[Any]) -> Response:
    return await _draw_management_point(page)


async def _draw_management_point(
    page: Page[Any], problems: Mapping[str, AppError] | None = None, status: int = 200
) -> Response:
    found = await page.api.get(MANAGEMENT_POINT)
    values = {**found, "possible": found["can_allow_gateway_traffic"]}
    return page.render(
        "gateways/management_point.html",
        status,
        management=found,
        fields=await drawn(page, (ALLOW,), values, problems or {}),
        locked=bool(_insecure(values)),
    )


async def save_management_point(page: Page[Any]) -> Response:
    form = await page.form()
    values, _ = read((ALLOW,), form)
    wanted = bool(values["allow_gateway_traffic"])
    known = await page.api.get(MANAGEMENT_POINT)
    say, number = page.language.text, page.language.number
    if known["allow_gateway_traffic"] and not wanted and not form.get("confirmed"):
        traffic = await page.api.get("/api/v1/traffic", by="day", days=14)
        return page.confirm(
            say(N_("Take no more gateway traffic?")),
            say(
                N_(
                    "Every device on the internet loses the site at once: %(requests)s requests came"
                    " through gateways in the last 14 days."
                ),
                requests=number(sum(row["requests"] for row in traffic)),
            ),
            say(N_("Close the way")),
            back=f"{BASE}/management-point",
        )
    try:
        await page.api.patch(MANAGEMENT_POINT, {"allow_gateway_traffic": wanted})
    except NotSignedIn:
        raise
    except AppError as error:
        at = {"allow_gateway_traffic": error}
        return await _draw_management_point(page, at, HTTP_STATUS[error.kind])
    said = (
        N_("The management point takes gateway traffic.")
        if wanted
        else N_("The management point takes no gateway traffic.")
    )
    return page.to(f"{BASE}/management-point", said)


# ---------------------------------------------------------------- the wizard


async def _free_name(page: Page[Any], draft: Draft | None, value: str) -> None:
    for item in await page.api.get(POINTS):
        if item["name"].casefold() == value.casefold():
            raise Problem(
                "name",
                N_("%(name)s is a connection point already."),
                cure=N_("Take another name, or change that one's gateway on its own page."),
                name=item["name"],
            )


async def _some_gateway(page: Page[Any], draft: Draft) -> None:
    if not await page.api.get("/api/v1/gateways"):
        raise Problem(
            "role",
            N_("There is no gateway that a connection point could serve."),
            cure=N_("Create the gateway first."),
        )


async def _summary(page: Page[Any], draft: Draft) -> list[Fact]:
    wanted = draft.values["gateway"]
    regions = {
        item["service_name"]: item["region"] for item in await page.api.get("/api/v1/gateways")
    }
    return [
        Fact(N_("Role"), page.language.text(N_("Connection point of the gateway"))),
        Fact(N_("Server"), draft.values["name"]),
        Fact(N_("Cloud management gateway"), wanted),
        Fact(N_("Region"), regions.get(wanted, "")),
    ]


async def _command(page: Page[Any], draft: Draft) -> str:
    values = draft.values
    line = ["tandem", "connection-point", "add", values["name"], "--gateway", values["gateway"]]
    return shlex.join(line)


async def _finish(page: Page[Any], draft: Draft) -> Outcome:
    body = {"name": draft.values["name"], "gateway": draft.values["gateway"]}
    made = await page.api.post(POINTS, body)
    return Outcome(
        said=N_("%(name)s has the role. Now install it on its server, as is said here."),
        path=path_of(made["name"]),
        values={"name": made["name"]},
    )


WIZARD = Wizard(
    key="add-role",
    title=N_("Add site system roles"),
    back=BASE,
    finish_label=N_("Add the role"),
    steps=(
        Step(
            key="role",
            title=N_("System role selection"),
            check=_some_gateway,
            fields=(
                field(
                    "role",
                    N_("Role"),
                    "radio",
                    required=True,
                    default=POINT,
                    options=(
                        (
                            POINT,
                            N_("Connection point of the gateway"),
                            N_("It dials every instance of a gateway from inside."),
                        ),
                    ),
                ),
                field(
                    "others",
                    N_(
                        "The management point and the software update point are part of the site"
                        " server. A distribution point of its own is not in this version."
                    ),
                    "note",
                ),
            ),
        ),
        Step(
            key="connection-point",
            title=N_("Connection point"),
            fields=(
                field(
                    "name",
                    N_("Name of the server"),
                    required=True,
                    limit=64,
                    default="CP01",
                    check=_free_name,
                ),
                GATEWAY,
            ),
        ),
    ),
    summary=_summary,
    command=_command,
    finish=_finish,
)


def routes(console: Console[Any]) -> list[BaseRoute]:
    one = f"{BASE}/{{name}}"
    management = f"{BASE}/management-point"
    return [
        console.route(BASE, overview),
        console.route(management, management_point),
        console.route(management, save_management_point, post=True),
        console.route(one, point),
        console.route(one, change_gateway, post=True),
        console.route(f"{one}/web-proxy", change_proxy, post=True),
        console.route(f"{one}/remove", ask_removal),
        console.route(f"{one}/remove", remove, post=True),
        console.route(f"{one}/credentials", credentials, post=True),
    ]
