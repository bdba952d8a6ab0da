"""What every command shares: whom to talk to, as whom, and how to answer.

A profile names the site and the tenant; `tandem sign-in` keeps a session for each in private files
beside it. Commands print text for people, and exactly one JSON value with `--json`.
"""

import os
import ssl
import sys
import time
import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Annotated, Any, NoReturn

import httpx
import msgspec
import typer
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from tandem.infra import config
from tandem.infra.errors import AppError, Kind
from tandem.infra.secrets import private_folder, write_private

Json = Annotated[bool, typer.Option("--json", help="Print one JSON value instead of text.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]

_TIMEOUT_SECONDS = 120.0


class Profile(config.Settings, frozen=True):
    """Whom the commands talk to."""

    site_url: str = ""  # The site's API and console.
    tenant_url: str = ""  # The tenant: sign-in authority and Graph.
    tenant_id: str = ""
    ca_file: Path | None = None  # Roots that are trusted besides nothing; unset: the system's.
    resolver: str | None = None  # "address:port" of a DNS server; unset: the system's.


class Refused(AppError):
    """What a role answered, in its own words."""

    code = "cli.refused"

    def __init__(self, message: str, *, cure: str = "", status: int = 0, remote: str = "") -> None:
        super().__init__(message, cure=cure, status=status, remote=remote)
        self.status = status
        self.remote = remote


class NotReachable(AppError):
    kind, code = Kind.UNAVAILABLE, "cli.not-reachable"


class NotSignedIn(AppError):
    kind, code = Kind.UNAUTHENTICATED, "cli.not-signed-in"


def profile_path() -> Path:
    named = os.environ.get("TANDEM_PROFILE")
    return Path(named) if named else Path.home() / ".config" / "tandem" / "profile.toml"


def profile() -> Profile:
    path = profile_path()
    if not path.exists():
        raise NotSignedIn(
            "This computer does not know a site or a tenant yet.",
            cure="Run `tandem sign-in site URL` or `tandem sign-in tenant URL`,"
            " or name a profile with TANDEM_PROFILE.",
        )
    return config.load(path, Profile)


def save_profile(value: Profile) -> None:
    private_folder(profile_path().parent)
    write_private(profile_path(), config.dump(value).encode())


class Session(msgspec.Struct):
    """A bearer token with its end, in seconds since 1970."""

    token: str
    expires_at: float
    refresh_token: str = ""


def session_path(which: str) -> Path:
    return profile_path().with_name(f"{profile_path().stem}.{which}.json")


def save_session(which: str, session: Session) -> None:
    write_private(session_path(which), msgspec.json.encode(session))


def load_session(which: str) -> Session:
    try:
        session = msgspec.json.decode(session_path(which).read_bytes(), type=Session)
    except (FileNotFoundError, msgspec.DecodeError):
        session = Session("", 0)
    if session.expires_at <= time.time():
        raise NotSignedIn(
            f"You are not signed in to the {which}.", cure=f"Run `tandem sign-in {which}`."
        )
    return session


class Api:
    """One role's HTTP API. Its refusals are raised as Refused with its words and its cure."""

    def __init__(self, base_url: str, token: str, ca_file: Path | None, role: str) -> None:
        self.role = role
        verify = ssl.create_default_context(cafile=str(ca_file) if ca_file else None)
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._client = httpx.Client(
            base_url=base_url,
            headers=headers,
            verify=verify,
            timeout=_TIMEOUT_SECONDS,
            trust_env=False,
        )
        weakref.finalize(self, self._client.close)

    def get(self, path: str, **query: Any) -> Any:
        return self.call("GET", path, params={k: v for k, v in query.items() if v is not None})

    def every(self, path: str, **query: Any) -> list[dict[str, Any]]:
        """All items of a collection of Graph's, whatever its pages."""
        page = self.get(path, **query)
        items: list[dict[str, Any]] = page["value"]
        while "@odata.nextLink" in page:
            page = self.call("GET", page["@odata.nextLink"])
            items += page["value"]
        return items

    def post(self, path: str, value: Any = None, **options: Any) -> Any:
        return self.call("POST", path, json=value, **options)

    def put(self, path: str, value: Any = None) -> Any:
        return self.call("PUT", path, json=value)

    def patch(self, path: str, value: Any) -> Any:
        return self.call("PATCH", path, json=value)

    def delete(self, path: str) -> Any:
        return self.call("DELETE", path)

    def put_content(self, url: str, content: bytes, headers: dict[str, str]) -> None:
        """To a signed URL, which says by itself what it is for: the session stays out of it.

        A connection that breaks is tried again: the same part may come twice.
        """
        for attempt in range(3):
            try:
                plain = self._client.build_request("PUT", url, content=content, headers=headers)
                plain.headers.pop("Authorization", None)
                response = self._client.send(plain)
                break
            except httpx.TransportError as error:
                if attempt == 2:
                    raise NotReachable(
                        f"The upload to the {self.role} broke off ({error}).",
                        cure="Check the connection, and upload the file again.",
                    ) from None
        if response.status_code >= 400:
            code = response.headers.get("x-ms-error-code", "")
            raise Refused(
                f"The upload was refused ({response.status_code} {code}).".replace(" )", ")"),
                cure="Upload the file again.",
                status=response.status_code,
                remote=code,
            )

    def lines(self, path: str, value: Any) -> Iterator[dict[str, Any]]:
        """What a long question finds, each as soon as it is found."""
        headers = {"Accept": "application/x-ndjson"}
        try:
            with self._client.stream("POST", path, json=value, headers=headers) as response:
                if response.status_code >= 400:
                    response.read()
                    raise _refusal(response, self.role)
                for line in response.iter_lines():
                    yield msgspec.json.decode(line)
        except httpx.TransportError as error:
            raise self._silent(error) from None

    def _silent(self, error: httpx.TransportError) -> NotReachable:
        return NotReachable(
            f"The {self.role} at {self._client.base_url} does not answer ({error}).",
            cure=f"Check that the {self.role} runs and that its address is right.",
        )

    def call(self, method: str, path: str, **options: Any) -> Any:
        """The decoded JSON answer, bytes for another content type, None for no content."""
        if isinstance(options.get("json"), msgspec.Struct):
            options["json"] = msgspec.to_builtins(options["json"])
        try:
            response = self._client.request(method, path, **options)
        except httpx.TransportError as error:
            raise self._silent(error) from None
        if response.status_code >= 400:
            raise _refusal(response, self.role)
        if not response.content:
            return None
        if "json" in response.headers.get("content-type", ""):
            return response.json()
        return response.content


def _refusal(response: httpx.Response, role: str) -> Refused:
    """Both error shapes: ours ({error: {code, message, cure}}) and Graph's."""
    try:
        error = response.json()["error"]
        message, code = error["message"], error["code"]
        cure = error.get("cure", "")
    except (ValueError, KeyError, TypeError):
        message, code, cure = f"The {role} answered {response.status_code}.", "http", ""
    return Refused(message, cure=cure, status=response.status_code, remote=code)


def site_client(_: object = None) -> Api:
    """The site's API with the session of `tandem sign-in site`."""
    here = profile()
    return Api(here.site_url, load_session("site").token, here.ca_file, "site")


def graph_client(_: object = None) -> Api:
    """The tenant's Graph (paths like /v1.0/users) with the session of `tandem sign-in tenant`."""
    here = profile()
    return Api(here.tenant_url, load_session("tenant").token, here.ca_file, "tenant")


_captured: ContextVar[list[Any] | None] = ContextVar("captured", default=None)


@contextmanager
def captured() -> Iterator[list[Any]]:
    """Collect what commands answer with `--json` as values, for a program in this process."""
    answers: list[Any] = []
    token = _captured.set(answers)
    try:
        yield answers
    finally:
        _captured.reset(token)


def emit(value: Any, text: Callable[[Any], str | None], json: bool) -> None:
    """Answer: JSON for programs, or what `text` makes of the value."""
    if json:
        encoded = msgspec.json.encode(value, enc_hook=str)
        answers = _captured.get()
        if answers is not None:
            answers.append(msgspec.json.decode(encoded))
            return
        sys.stdout.write(msgspec.json.format(encoded, indent=2).decode() + "\n")
        return
    said = text(value)
    if said:
        sys.stdout.write(said.rstrip("\n") + "\n")


def table(rows: list[dict[str, Any]], columns: dict[str, str]) -> str:
    """Rows as aligned text; `columns` maps a key to its heading."""
    cells = [
        [str(row.get(key, "") if row.get(key) is not None else "") for key in columns]
        for row in rows
    ]
    lines = [list(columns.values()), *cells]
    widths = [max(len(line[i]) for line in lines) for i in range(len(columns))]
    return "\n".join(
        "  ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


@contextmanager
def progress(what: str, json: bool = False) -> Iterator[Callable[[str], None]]:
    """A moving line on the terminal while something takes longer than a second."""
    console = Console(stderr=True)
    if json or not console.is_terminal:
        yield lambda _: None
        return
    with Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        TimeElapsedColumn(),
        console=console,
        transient=True,
    ) as bar:
        task = bar.add_task(what, total=None)
        yield lambda said: bar.update(task, description=said)


def confirm(question: str, yes: bool, json: bool) -> None:
    """Ask a person at a terminal before what cannot be taken back; programs are not asked."""
    if not yes and not json and sys.stdin.isatty():
        typer.confirm(question, abort=True)


def read_secret(file: Path | None, prompt: str) -> str:
    """A secret from a file, from standard input (`-`), or from a prompt. Never from argv."""
    if file is None:
        secret: str = typer.prompt(prompt, hide_input=True)
        return secret
    if str(file) == "-":
        return sys.stdin.readline().rstrip("\n")
    return file.read_text("utf-8").rstrip("\n")


def fail(error: AppError) -> NoReturn:
    """The one way a command ends badly: what happened, why, what to do next."""
    sys.stderr.write(f"Error: {error.message}\n")
    if error.cure:
        sys.stderr.write(f"  → {error.cure}\n")
    raise SystemExit(1)


def named(
    items: Iterable[dict[str, Any]], wanted: str, *, kind: str, cure: str, key: str = "displayName"
) -> dict[str, Any]:
    """The one of this id, or of this name whatever its case. Raises Refused for none, and for
    several of one name: a command must not choose among them."""
    found = [item for item in items if wanted.casefold() in (item["id"], str(item[key]).casefold())]
    if len(found) == 1:
        return dict(found[0])
    if found:
        raise Refused(f"{len(found)} are called {wanted!r}.", cure=f"Name it by its id. {cure}")
    raise Refused(f"There is no {kind} {wanted!r}.", cure=cure)
