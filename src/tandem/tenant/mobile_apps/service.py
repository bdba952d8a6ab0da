"""Apps, their content, whom they are for, and what became of them on devices."""

import hmac
import uuid
from base64 import urlsafe_b64encode
from collections.abc import AsyncIterator, Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from urllib.parse import quote

from tandem.infra.blobs import Blobs
from tandem.infra.database import Tx
from tandem.infra.errors import AppError
from tandem.protocols import msi
from tandem.tenant import directory
from tandem.tenant.mobile_apps import store
from tandem.tenant.mobile_apps.model import (
    COMMAND_LINE_LIMIT,
    App,
    Assignment,
    BadApp,
    LinkExpired,
    NoSuchApp,
    NotPublished,
    Status,
    WrongFile,
)


def _check(name: str, description: str, publisher: str, command_line: str) -> None:
    if len(command_line) > COMMAND_LINE_LIMIT:
        raise BadApp(
            f"The command line has {len(command_line):,} characters; an app takes"
            f" {COMMAND_LINE_LIMIT:,} at most.",
            cure="Leave out what the client does not need.",
        )
    if any(character in command_line for character in "\r\n\x00"):
        raise BadApp("The command line is one line.", cure="Copy it again without line breaks.")
    for label, value in (("name", name), ("description", description), ("publisher", publisher)):
        if len(value) > 1000:
            raise BadApp(f"The {label} has more than 1,000 characters.")


async def create(
    tx: Tx,
    *,
    name: str,
    description: str,
    publisher: str,
    command_line: str,
    file_name: str,
    now: datetime,
) -> App:
    """A line-of-business app without its content: it is processing until the file arrives.

    Raises BadApp, and NoMdmAuthority while the tenant has none.
    """
    await directory.require_mdm_authority(tx)
    _check(name, description, publisher, command_line)
    if not file_name.lower().endswith(".msi"):
        raise WrongFile(
            f"{file_name!r} is not an MSI package.",
            cure="Take the client's MSI: `tandem client package`.",
        )
    made = App(
        str(uuid.uuid4()),
        name,
        description,
        publisher,
        command_line,
        file_name.rpartition("/")[2][:200],
        "",
        "",
        "",
        "",
        0,
        "processing",
        "",
        now,
    )
    await store.insert(tx, made)
    return made


async def update(
    tx: Tx, id: str, *, name: str, description: str, publisher: str, command_line: str
) -> App:
    """Raises NoSuchApp, BadApp."""
    await app(tx, id)
    _check(name, description, publisher, command_line)
    await store.update(tx, id, name, description, publisher, command_line)
    return await app(tx, id)


async def commit(tx: Tx, blobs: Blobs, id: str, data: bytes) -> App:
    """The app's file: read, kept, and the app published.

    Raises NoSuchApp; WrongFile for what is no MSI, or one that is installed for a user.
    """
    found = await app(tx, id)
    try:
        read = msi.read(data)
    except AppError as error:
        raise WrongFile(
            f"{found.file_name} is not a Windows Installer package that can be used."
            f" {error.message}",
            cure="Take the client's MSI: `tandem client package`.",
        ) from None
    if not read.per_machine:
        raise WrongFile(
            f"{found.file_name} installs for one user; devices need an MSI per machine.",
            cure="Take an MSI with ALLUSERS=1.",
        )
    blob = await blobs.put(data)
    await store.publish(
        tx,
        id,
        product_code=read.product_code.upper(),
        version=read.product_version,
        upgrade_code=read.upgrade_code,
        sha256=blob.sha256,
        size=blob.size_bytes,
        name=read.product_name,
    )
    return await app(tx, id)


async def apps(tx: Tx) -> list[App]:
    return await store.apps(tx)


async def app(tx: Tx, id: str) -> App:
    """Raises NoSuchApp."""
    found = await store.app(tx, id)
    if found is None:
        raise NoSuchApp(f"There is no app {id!r}.", cure="List them: `tandem app list`.")
    return found


async def delete(tx: Tx, id: str) -> None:
    if not await store.delete(tx, id):
        raise NoSuchApp(f"There is no app {id!r}.", cure="List them: `tandem app list`.")


async def assign(tx: Tx, id: str, included: Sequence[str], excluded: Sequence[str]) -> None:
    """Required for the included groups without the excluded ones; for nobody else.

    Raises NoSuchApp, NotPublished, BadApp.
    """
    found = await app(tx, id)
    if found.state != "published":
        raise NotPublished(
            f"{found.name or found.file_name} is still processing: it has no content yet.",
            cure="Upload its file first, then assign it.",
        )
    for group_id in (*included, *excluded):
        await directory.group(tx, group_id)
    both = set(included) & set(excluded)
    if both:
        raise BadApp("A group cannot be included and excluded at once.", groups=sorted(both))
    groups = [(group, False) for group in dict.fromkeys(included)]
    groups += [(group, True) for group in dict.fromkeys(excluded)]
    await store.assign(tx, id, groups)


async def assignments(tx: Tx, id: str) -> list[Assignment]:
    return [item for item in await store.assignments(tx) if item.app_id == id]


async def required(tx: Tx, groups: Collection[str]) -> list[App]:
    """The published apps that a member of these groups is to have."""
    return choose(await store.apps(tx), await store.assignments(tx), groups)


def choose(
    apps: Iterable[App], assignments: Iterable[Assignment], groups: Collection[str]
) -> list[App]:
    """Included by a group and excluded by none."""
    given = list(assignments)
    found = []
    for item in apps:
        mine = [a for a in given if a.app_id == item.id and a.group_id in groups]
        if item.state == "published" and mine and not any(a.excluded for a in mine):
            found.append(item)
    return found


async def statuses(tx: Tx, *, app_id: str = "", device_id: str = "") -> list[Status]:
    return await store.statuses(tx, app_id=app_id, device_id=device_id)


async def save_status(
    tx: Tx, app_id: str, device_id: str, state: str, code: int, sha256_hex: str, now: datetime
) -> None:
    await store.save_status(tx, app_id, device_id, state, code, sha256_hex, now)


async def forget_device(tx: Tx, device_id: str) -> None:
    """A device that enrols anew has nothing of before."""
    await store.forget_device(tx, device_id)


# ---------------------------------------------------------------------- content


@dataclass(frozen=True)
class Content:
    """Signed links to app content, and what is behind them.

    A link names the app and its end, and is signed: whoever has it may read that content until
    then, and nothing else.
    """

    blobs: Blobs
    secret: bytes
    public_url: str
    seconds: float = 4 * 3600

    def link(self, found: App, now: datetime) -> str:
        end = int(now.timestamp() + self.seconds)
        name = quote(found.file_name, safe="")
        return f"{self.public_url}/content/{self._token(found.id, end)}/{name}"

    def _token(self, app_id: str, end: int) -> str:
        signed = f"{app_id}.{end}"
        digest = hmac.digest(self.secret, signed.encode(), sha256)
        return f"{signed}.{urlsafe_b64encode(digest).rstrip(b'=').decode()}"

    def app_id(self, token: str, now: datetime) -> str:
        """Raises LinkExpired for a link that is over, altered or made up."""
        app_id, _, rest = token.partition(".")
        end, _, _ = rest.partition(".")
        good = end.isascii() and end.isdigit() and len(end) < 12
        if (
            not good
            or not hmac.compare_digest(self._token(app_id, int(end)), token)
            or int(end) < now.timestamp()
        ):
            raise LinkExpired(
                "This link is not valid, or not any more.",
                cure="The device gets a new one at its next check-in.",
            )
        return app_id

    def read(self, found: App, start: int, end: int) -> AsyncIterator[bytes]:
        return self.blobs.read(found.sha256, start, end)
