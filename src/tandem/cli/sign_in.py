"""tandem sign-in: sessions at the site and at the tenant, kept in private files.

At the tenant this is the authorization code flow with PKCE: the password goes into the tenant's own
form and nowhere else. Steps that need a global administrator sign in the same way for that one
step, and hand over the access token alone.
"""

import base64
import hashlib
import secrets
import ssl
import sys
import time
from datetime import datetime
from html.parser import HTMLParser
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import parse_qs, urljoin, urlsplit

import httpx
import msgspec
import typer

from tandem.cli.context import (
    Api,
    Json,
    NotReachable,
    NotSignedIn,
    Profile,
    Refused,
    Session,
    emit,
    graph_client,
    profile,
    profile_path,
    progress,
    read_secret,
    save_profile,
    save_session,
    site_client,
    table,
)

app = typer.Typer(help="Sign in to the site or to the tenant.", no_args_is_help=True)

# The public client that every tenant knows (graph-compat 3.7), and its loopback redirect.
_CLIENT = "04b07795-8ddb-461a-bbee-02f9e1bf7b46"
_REDIRECT = "http://localhost"
_GRAPH = "https://graph.microsoft.com/.default"
# Sign-in, consent, and a little more; then somebody sends us in circles.
_MOST_PAGES = 6

TenantAdmin = Annotated[
    str | None,
    typer.Option("--tenant-admin", help="The tenant's global administrator, for this step alone."),
]
TenantPassword = Annotated[
    Path | None,
    typer.Option("--tenant-password-file", help="File with that password; - is standard input."),
]
TenantSignIn = Annotated[
    str,
    typer.Option(
        "--tenant-sign-in", help="Id of a sign-in by code instead: `tandem sign-in code`."
    ),
]
User = Annotated[str | None, typer.Option("--user", help="Who signs in; asked when left out.")]
PasswordFile = Annotated[
    Path | None, typer.Option("--password-file", help="File with the password; - is stdin.")
]
CaFile = Annotated[
    Path | None, typer.Option("--ca-file", help="Roots to trust, instead of the system's.")
]


@app.command()
def site(
    url: Annotated[str | None, typer.Argument(help="The site, https://host:port.")] = None,
    user: User = None,
    password_file: PasswordFile = None,
    ca_file: CaFile = None,
    with_tenant: Annotated[
        bool,
        typer.Option("--with-tenant", help="USER is an account of the tenant, added to the site."),
    ] = False,
    json: Json = False,
) -> None:
    """Sign in to the site with an account of the site's own, which needs no tenant."""
    here = _changed(ca_file, site_url=url)
    if not here.site_url:
        raise NotSignedIn("No site is known yet.", cure="Run `tandem sign-in site URL`.")
    name = user or typer.prompt("Administrator of the site")
    password = read_secret(password_file, f"Password of {name}")
    anonymous = Api(here.site_url, "", here.ca_file, "site")
    if with_tenant:
        token = _token_for_site(anonymous, here, name, password)
        answer = anonymous.post("/api/v1/sign-in/tenant", {"access_token": token})
    else:
        answer = anonymous.post("/api/v1/sign-in", {"name": name, "password": password})
    save_profile(here)
    until = datetime.fromisoformat(answer["expires_at"])
    save_session("site", Session(answer["token"], until.timestamp()))
    who = answer["administrator"]
    value = {"site_url": here.site_url, "administrator": who, "expires_at": answer["expires_at"]}
    emit(value, lambda _: f"Signed in to {here.site_url} as {who['name']} ({who['role']}).", json)


def _token_for_site(site: Api, here: Profile, upn: str, password: str) -> str:
    """An access token of the tenant for the site itself. The password goes to the tenant that this
    computer's profile names, whatever the site says."""
    if not here.tenant_url:
        raise NotSignedIn(
            "This computer does not know the tenant yet.", cure="Run `tandem sign-in tenant URL`."
        )
    for item in site.get("/api/v1/sign-in/tenant"):
        if item["tenant_id"] == here.tenant_id:
            return str(_sign_in(here, upn, password, item["scope"])["access_token"])
    raise Refused(
        "The site is not connected to your tenant.",
        cure="Sign in with an account of the site, and connect it (tutorial step 2).",
    )


@app.command()
def tenant(
    url: Annotated[str | None, typer.Argument(help="The tenant, https://host:port.")] = None,
    tenant_id: Annotated[
        str | None, typer.Argument(help="Its id or domain; learnt at sign-in when left out.")
    ] = None,
    user: User = None,
    password_file: PasswordFile = None,
    ca_file: CaFile = None,
    json: Json = False,
) -> None:
    """Sign in to the tenant with an account of its directory."""
    here = _changed(ca_file, tenant_url=url)
    if url or tenant_id:  # Another tenant's id would not fit.
        here = _with(here, tenant_id=tenant_id or "")
    if not here.tenant_url:
        raise NotSignedIn("No tenant is known yet.", cure="Run `tandem sign-in tenant URL`.")
    upn = user or typer.prompt("Account of the tenant")
    password = read_secret(password_file, f"Password of {upn}")
    with progress(f"Signing in to {here.tenant_url}…", json):
        answer = _sign_in(here, upn, password, f"{_GRAPH} openid offline_access")
    if "id_token" in answer:
        here = _with(here, tenant_id=str(claims(answer["id_token"]).get("tid", here.tenant_id)))
    save_profile(here)
    until = time.time() + int(answer["expires_in"])
    refresh = answer.get("refresh_token", "")
    save_session("tenant", Session(answer["access_token"], until, refresh))
    value = {"tenant_url": here.tenant_url, "tenant_id": here.tenant_id, "upn": upn}
    emit(value, lambda _: f"Signed in to {here.tenant_url} as {upn}.", json)


@app.command("log")
def show_log(
    user: Annotated[str | None, typer.Option("--user", help="Only this user name.")] = None,
    failed: Annotated[bool, typer.Option("--failed", help="Only refused sign-ins.")] = False,
    most: Annotated[int, typer.Option("--most", help="How many lines.", min=1, max=1000)] = 50,
    json: Json = False,
) -> None:
    """Show who signed in to the tenant, and who was refused and why; the newest first."""
    wanted = []
    if user:
        wanted.append("userPrincipalName eq '{}'".format(user.replace("'", "''")))
    if failed:
        wanted.append("status/errorCode ne 0")
    query = {"$top": str(most)} | ({"$filter": " and ".join(wanted)} if wanted else {})
    found = graph_client().get("/v1.0/auditLogs/signIns", **query)["value"]
    rows = [
        {
            **item,
            "who": item["userPrincipalName"] or item["appDisplayName"] or item["appId"],
            "result": (
                "signed in"
                if item["status"]["errorCode"] == 0
                else f"AADSTS{item['status']['errorCode']}: {item['status']['failureReason']}"
            ),
        }
        for item in found
    ]
    columns = {
        "createdDateTime": "When",
        "who": "Who",
        "appDisplayName": "Application",
        "ipAddress": "From",
        "result": "Result",
    }
    emit(found, lambda _: table(rows, columns) if rows else "No sign-ins.", json)


@app.command("code")
def by_code(
    id: Annotated[str, typer.Argument(help="One that was begun before; a new one without.")] = "",
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Until it is done.")] = True,
    json: Json = False,
) -> None:
    """Sign a tenant's administrator in for the site, by a code on the tenant's own page.

    Whatever second factor the tenant asks for is asked there. The id that is printed stands for the
    administrator half an hour long: --tenant-sign-in.
    """
    api = site_client()
    found = api.get(f"/api/v1/tenant-sign-in/{id}") if id else api.post("/api/v1/tenant-sign-in")
    if found["state"] == "pending":
        where, code = found["verification_uri"], found["user_code"]
        sys.stderr.write(f"Open {where} and enter the code {code}.\n")
    with progress("Waiting for the sign-in…", json):
        while wait and found["state"] == "pending":
            time.sleep(found["interval_seconds"])
            found = api.get(f"/api/v1/tenant-sign-in/{found['id']}")
    if found["state"] in {"refused", "expired"}:
        raise Refused(
            found["reason"], cure=found["cure"], remote=f"tenant-sign-in.{found['state']}"
        )
    emit(found, _by_code, json)


def _by_code(value: dict[str, Any]) -> str:
    if value["state"] == "pending":
        return f"Look again with: tandem sign-in code {value['id']}"
    roles = ", ".join(value["roles"]) or "no role"
    return (
        f"{value['upn']} of {value['tenant_name']} ({roles}).\n"
        f"For half an hour: --tenant-sign-in {value['id']}"
    )


def administrator_access(
    upn: str | None, password_file: Path | None, sign_in: str
) -> dict[str, str]:
    """What a request says of the tenant's administrator behind it: a sign-in or a token."""
    if sign_in:
        return {"tenant_sign_in": sign_in}
    return {"access_token": administrator_token(upn, password_file)}


def administrator_token(upn: str | None, password_file: Path | None) -> str:
    """An access token of the tenant's administrator for one step; it is kept nowhere."""
    here = profile()
    if not here.tenant_url:
        raise NotSignedIn(
            "This computer does not know the tenant yet.", cure="Run `tandem sign-in tenant URL`."
        )
    who = upn or typer.prompt("Global administrator of the tenant")
    password = read_secret(password_file, f"Password of {who} (for this step alone)")
    return str(_sign_in(here, who, password, _GRAPH)["access_token"])


def _changed(ca_file: Path | None, **urls: str | None) -> Profile:
    known = profile() if profile_path().exists() else Profile()
    values: dict[str, Any] = {name: url.rstrip("/") for name, url in urls.items() if url}
    if ca_file is not None:
        values["ca_file"] = ca_file.absolute()
    for url in urls.values():
        if url and urlsplit(url).scheme != "https":
            raise Refused(f"{url} is not an https address.", cure="Give it as https://host:port.")
    return _with(known, **values)


def _with(known: Profile, **values: Any) -> Profile:
    fields = {name: getattr(known, name) for name in known.__struct_fields__}
    return Profile(**{**fields, **values})


# ---------------------------------------------------------------------------- the tenant's pages


def _sign_in(here: Profile, upn: str, password: str, scope: str) -> dict[str, Any]:
    """The token endpoint's answer after upn signed in. Raises Refused, NotReachable."""
    authority = f"{here.tenant_url}/{here.tenant_id or 'organizations'}/oauth2/v2.0"
    verifier, state = secrets.token_urlsafe(48), secrets.token_urlsafe(16)
    digest = hashlib.sha256(verifier.encode()).digest()
    query = {
        "client_id": _CLIENT,
        "response_type": "code",
        "response_mode": "query",
        "redirect_uri": _REDIRECT,
        "scope": scope,
        "state": state,
        "login_hint": upn,
        "code_challenge": base64.urlsafe_b64encode(digest).rstrip(b"=").decode(),
        "code_challenge_method": "S256",
    }
    verify = ssl.create_default_context(cafile=str(here.ca_file) if here.ca_file else None)
    try:
        with httpx.Client(verify=verify, timeout=30, trust_env=False) as web:
            page = web.get(f"{authority}/authorize", params=query)
            back = _through_pages(web, page, {"login": upn, "passwd": password})
            if back.get("state") != state:
                raise Refused("The tenant's answer belongs to another sign-in.", cure="Try again.")
            return _redeem(web, f"{authority}/token", back, verifier, scope)
    except httpx.TransportError as error:
        raise NotReachable(
            f"The tenant at {here.tenant_url} does not answer ({error}).",
            cure="Check that the tenant runs and that its address is right.",
        ) from None


def _through_pages(
    web: httpx.Client, page: httpx.Response, answers: dict[str, str]
) -> dict[str, str]:
    """Fill in the forms until the tenant sends us back; what it sends along."""
    asked = False
    for _ in range(_MOST_PAGES):
        if page.has_redirect_location:
            target = urljoin(str(page.url), page.headers["location"])
            if target.startswith(_REDIRECT):
                return _answer(target)
            page = web.get(_same_origin(page, target))
            continue
        form = Form.of(page.text)
        if form.error or not form.action:
            raise Refused(
                form.error or f"The tenant answered {page.status_code} without a sign-in page.",
                cure="Check the account, its password, and the tenant's address.",
                status=page.status_code,
                remote="sign-in",
            )
        if "passwd" in form.empty:
            if asked:
                break
            asked = True
        fields = form.fields | {name: answers[name] for name in form.empty if name in answers}
        page = web.post(_same_origin(page, urljoin(str(page.url), form.action)), data=fields)
    raise Refused(
        "The tenant's sign-in asks for more than a name and a password.",
        cure="Sign in to the tenant with a browser once, then try again.",
    )


def _same_origin(page: httpx.Response, target: str) -> str:
    """A password goes to the server that showed the form, and to no other."""
    here, there = urlsplit(str(page.url)), urlsplit(target)
    if (here.scheme, here.netloc) != (there.scheme, there.netloc):
        raise Refused(
            f"The sign-in leads away from the tenant, to {there.netloc}.",
            cure="Check the tenant's address.",
        )
    return target


def _answer(target: str) -> dict[str, str]:
    back = {name: values[0] for name, values in parse_qs(urlsplit(target).query).items()}
    if "error" in back:
        raise Refused(
            back.get("error_description", back["error"]), status=400, remote=back["error"]
        )
    return back


def _redeem(
    web: httpx.Client, endpoint: str, back: dict[str, str], verifier: str, scope: str
) -> dict[str, Any]:
    answer = web.post(
        endpoint,
        data={
            "grant_type": "authorization_code",
            "client_id": _CLIENT,
            "code": back.get("code", ""),
            "redirect_uri": _REDIRECT,
            "code_verifier": verifier,
            "scope": scope,
        },
    )
    value: dict[str, Any] = answer.json()
    if answer.status_code != 200:
        raise Refused(
            str(value.get("error_description", "The tenant gives no token.")),
            status=answer.status_code,
            remote=str(value.get("error", "")),
        )
    return value


def claims(token: str) -> dict[str, Any]:
    """What a token says. Its signature is not looked at: it is for the display alone."""
    part = token.split(".")[1]
    found: dict[str, Any] = msgspec.json.decode(
        base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))
    )
    return found


class Form(HTMLParser):
    """The first form of a page with its first button, and what the page says is wrong."""

    def __init__(self) -> None:
        super().__init__()
        self.action = ""
        self.fields: dict[str, str] = {}
        self.empty: set[str] = set()  # What a person fills in.
        self.error = ""
        self._inside = self._done = self._pressed = self._in_error = False

    @classmethod
    def of(cls, html: str) -> "Form":
        form = cls()
        form.feed(html)
        return form

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        if tag == "form" and not self._done:
            self._inside, self.action = True, values.get("action", "")
        elif tag == "input" and self._inside:
            self._input(values)
        elif tag == "button" and self._inside and not self._pressed:
            self._pressed = True
            if "name" in values:
                self.fields[values["name"]] = values.get("value", "")
        elif values.get("role") == "alert":
            self._in_error = True

    def _input(self, values: dict[str, str]) -> None:
        kind, name = values.get("type", "text"), values.get("name", "")
        if kind == "hidden":
            self.fields[name] = values.get("value", "")
        elif kind not in {"checkbox", "radio", "submit", "button"}:
            self.empty.add(name)

    def handle_data(self, data: str) -> None:
        if self._in_error:
            self.error = f"{self.error} {data.strip()}".strip()

    def handle_endtag(self, tag: str) -> None:
        if tag == "form" and self._inside:
            self._inside, self._done = False, True
        if tag == "p":
            self._in_error = False
