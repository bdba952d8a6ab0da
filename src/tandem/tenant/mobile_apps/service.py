"""Apps, whom they are for, and what became of them on devices; their content for devices."""

import hmac
import re
import uuid
from base64 import urlsafe_b64encode
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from hashlib import sha256
from typing import Any
from urllib.parse import quote

from tandem.infra.blobs import Blobs
from tandem.infra.database import Tx
from tandem.tenant import assignments, directory
from tandem.tenant.assignments import Assignment, Membership
from tandem.tenant.mobile_apps import intents, store
from tandem.tenant.mobile_apps.intents import Explained
from tandem.tenant.mobile_apps.model import (
    COMMAND_LINE_LIMIT,
    MSI,
    TIMING,
    WITH_CONTENT,
    App,
    BadApp,
    Chosen,
    LinkExpired,
    NoSuchApp,
    NotOffered,
    NotPublished,
    SameProduct,
    Status,
    WrongFile,
)

# Messages to devices are XML, which cannot carry them: each session would end there.
_UNWRITABLE = re.compile("[\x00-\x08\x0a-\x1f\x7f\ufffe\uffff]")
# As what apps are the owners of assignments.
OWNER = "mobileApps"


def _check(
    name: str, description: str, publisher: str, command_line: str, properties: Mapping[str, Any]
) -> None:
    for timing in TIMING:
        value = properties.get(timing)
        if value is not None and (type(value) is not int or not 0 <= value <= 255):
            raise BadApp(
                f"{timing} is a whole number from 0 to 255.",
                cure="Windows takes no more in an order to install; 0 minutes are no limit.",
                target=timing,
            )
    if len(command_line) > COMMAND_LINE_LIMIT:
        raise BadApp(
            f"The command line has {len(command_line):,} characters; an app takes"
            f" {COMMAND_LINE_LIMIT:,} at most.",
            cure="Leave out what the client does not need.",
        )
    if any(character in command_line for character in "\r\n\x00"):
        raise BadApp("The command line is one line.", cure="Copy it again without line breaks.")
    if _UNWRITABLE.search(command_line):
        raise BadApp(
            "The command line has control characters.", cure="Write it again as plain text."
        )
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
    type: str = MSI,
    properties: Mapping[str, Any] | None = None,
) -> App:
    """An app without its content: it is not published until a content version is committed.

    Raises BadApp, WrongFile, and NoMdmAuthority while the tenant has none.
    """
    await directory.require_mdm_authority(tx)
    _check(name, description, publisher, command_line, properties or {})
    if type == MSI and not file_name.lower().endswith(".msi"):
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
        "notPublished" if type in WITH_CONTENT else "published",
        "",
        now,
        type,
        properties or {},
        "",
        now,
    )
    await store.insert(tx, made)
    return made


async def update(tx: Tx, id: str, now: datetime, **changes: Any) -> App:
    """Raises NoSuchApp, BadApp."""
    await store.lock(tx, id)
    changed = replace(await app(tx, id), **changes, changed_at=now)
    _check(
        changed.name,
        changed.description,
        changed.publisher,
        changed.command_line,
        changed.properties,
    )
    await store.save(tx, changed)
    return changed


async def publish(tx: Tx, id: str, version: str, now: datetime) -> App:
    """Make a content version the app's content. Raises NoSuchApp, BadApp, SameProduct.

    What the package says of itself counts, whatever was written before.
    """
    await store.lock(tx, id)
    found = await app(tx, id)
    number = int(version) if version.isascii() and version.isdigit() and len(version) < 9 else 0
    files = await store.files(tx, id, number)
    if not files or not all(file.committed for file in files):
        raise BadApp(
            f"Content version {version[:32]!r} has no committed content.",
            cure="Upload its file and commit it; then set committedContentVersion.",
            target="committedContentVersion",
        )
    main = next((file for file in files if not file.is_dependency), files[0])
    facts = main.facts
    told = (str(facts.get(name, "")) for name in ("productVersion", "upgradeCode"))
    if any(_UNWRITABLE.search(text) for text in told):
        raise BadApp(
            "The version or the upgrade code of the package has control characters.",
            cure="Build the package again with a ProductVersion like 1.2.3.",
            target="committedContentVersion",
        )
    code = str(facts.get("productCode", ""))
    if code and code == found.product_code and main.sha256 != found.sha256:
        holders = await store.holders(tx, id)
        if holders:
            raise SameProduct(
                f"This package has the product code of the one before, which {holders:,} devices"
                " have: Windows would not install it there.",
                cure="Build a new version with a product code of its own (a major upgrade).",
                target="committedContentVersion",
            )
    changed = replace(
        found,
        name=found.name or str(facts.get("productName", "")),
        publisher=found.publisher or str(facts.get("publisher", "")),
        product_code=str(facts.get("productCode", found.product_code)),
        product_version=str(facts.get("productVersion", found.product_version)),
        upgrade_code=str(facts.get("upgradeCode", found.upgrade_code)),
        sha256=main.sha256,
        size_bytes=main.size_bytes,
        state="published",
        reason="",
        committed_version=str(number),
        changed_at=now,
        package_type=str(facts.get("packageType", found.package_type)),
    )
    await store.save(tx, changed)
    return changed


async def apps(tx: Tx, ids: list[str] | None = None) -> list[App]:
    return await store.apps(tx, ids)


async def app(tx: Tx, id: str) -> App:
    """Raises NoSuchApp."""
    found = await store.app(tx, id)
    if found is None:
        raise NoSuchApp(f"There is no app {id!r}.", cure="List them: `tandem app list`.")
    return found


async def delete(tx: Tx, id: str) -> list[str]:
    """The app with its assignments and uploads; the ids of its files, which may lie aside still.

    Raises NoSuchApp.
    """
    files = [file.id for file in await store.files(tx, id)]
    if not await store.delete(tx, id):
        raise NoSuchApp(f"There is no app {id!r}.", cure="List them: `tandem app list`.")
    await assignments.forget(tx, OWNER, id)
    return files


async def assignable(tx: Tx, id: str) -> App:
    """Raises NoSuchApp, NotPublished."""
    found = await app(tx, id)
    if found.state != "published":
        raise NotPublished(
            f"{found.name or found.file_name} is still processing: it has no content yet.",
            cure="Upload its file first, then assign it.",
        )
    return found


async def assign(tx: Tx, id: str, included: Sequence[str], excluded: Sequence[str]) -> None:
    """Required for the included groups without the excluded ones; for nobody else.

    Raises NoSuchApp, NotPublished, BadAssignment.
    """
    await assignable(tx, id)
    wanted = [
        replace(item, values={"intent": "required", "settings": None})
        for item in assignments.targets(included, excluded)
    ]
    await assignments.replace(tx, OWNER, id, wanted)


@dataclass(frozen=True, slots=True)
class Meant:
    """An app that assignments speak of to a device, and what they come to."""

    app: App
    explained: Explained


async def meant(
    tx: Tx, groups: Membership, *, every: bool = False, app_id: str = ""
) -> list[Meant]:
    """The MSI apps that concern a device of these groups, and what they come to.

    `every` is all of them, and those of other kinds too; `app_id` is one alone.
    """
    found = await store.apps(tx, [app_id]) if app_id else []
    if not app_id:
        found = await store.apps(tx) if every else await store.installable(tx)
    given: dict[str, list[Assignment]] = {}
    if found:
        for one in await assignments.every(tx, OWNER):
            given.setdefault(one.owner_id, []).append(one)
    concerned = [
        Meant(
            item,
            intents.explain(given.get(item.id, ()), groups, devices_choose=item.type != MSI),
        )
        for item in found
    ]
    return [item for item in concerned if every or app_id or item.explained.reasons]


async def meant_for_each(tx: Tx, groups: Iterable[Membership]) -> dict[Membership, list[Meant]]:
    """As `meant`, of apps of every kind, for the devices of all these groups at once."""
    given: dict[str, list[Assignment]] = {}
    for one in await assignments.every(tx, OWNER):
        given.setdefault(one.owner_id, []).append(one)
    apps = await store.apps(tx, sorted(given))
    # Groups that no app is given to make no difference: devices are alike by the others.
    named = {one.target.subject for several in given.values() for one in several}
    alike: dict[Membership, list[Meant]] = {}
    found = {}
    for mine in groups:
        counting = Membership(mine.user & named, mine.device & named)
        if counting not in alike:
            every = [
                Meant(
                    item, intents.explain(given[item.id], counting, devices_choose=item.type != MSI)
                )
                for item in apps
            ]
            alike[counting] = [item for item in every if item.explained.reasons]
        found[mine] = alike[counting]
    return found


async def choices(tx: Tx, device_id: str) -> dict[str, Chosen]:
    """By app, what the user of a device chose."""
    return await store.choices(tx, device_id)


async def request(
    tx: Tx, id: str, device_id: str, user_id: str, groups: Membership, now: datetime
) -> App:
    """Somebody chooses an app that is available for a device: it is installed there.

    Raises NoSuchApp; NotOffered for one that is not available, or not of a kind that reaches
    devices.
    """
    (found,) = await meant(tx, groups, app_id=(await app(tx, id)).id)
    if found.explained.resolved.available is None:
        raise NotOffered(
            f"{found.app.name} is not available for this device.",
            cure="Assign it as available to a group of its user first.",
        )
    if found.app.type != MSI or found.app.state != "published":
        raise NotOffered(
            f"{found.app.name} cannot be installed by the MDM service.",
            cure="Line-of-business apps of MSI packages reach devices, once they are published.",
        )
    known = (await store.choices(tx, device_id)).get(id, Chosen(id))
    # Without a copy from here there is none to be removed: the user's own install stays.
    has = await store.statuses(tx, app_id=id, device_id=device_id)
    removed_at = known.removed_at or (now if not has else None)
    await store.save_choice(tx, device_id, Chosen(id, user_id, now, removed_at))
    return found.app


async def withdraw(tx: Tx, id: str, device_id: str) -> None:
    """The choice is taken back; what is installed already stays. Raises NoSuchApp."""
    await app(tx, id)
    known = (await store.choices(tx, device_id)).get(id)
    if known is not None:
        await store.save_choice(tx, device_id, replace(known, requested_at=None))


async def save_choice(tx: Tx, device_id: str, chosen: Chosen) -> None:
    await store.save_choice(tx, device_id, chosen)


async def statuses(tx: Tx, *, app_id: str = "", device_id: str = "") -> list[Status]:
    return await store.statuses(tx, app_id=app_id, device_id=device_id)


async def statuses_of(tx: Tx, device_ids: Sequence[str]) -> dict[tuple[str, str], Status]:
    """By device and app, of many devices at once."""
    found = await store.statuses_of(tx, list(device_ids))
    return {(one.device_id, one.app_id): one for one in found}


async def save_status(tx: Tx, status: Status) -> None:
    await store.save_status(tx, status)


async def forget_status(tx: Tx, app_id: str, device_id: str) -> None:
    """The device does not have it any more."""
    await store.forget_status(tx, app_id, device_id)


async def forget_device(tx: Tx, device_id: str) -> None:
    """A device that enrols anew has nothing of before."""
    await store.forget_device(tx, device_id)


# ---------------------------------------------------------------------- content


@dataclass(frozen=True)
class Content:
    """Signed links to app content, and what is behind them.

    A link names the app and its end, and is signed: whoever has it may read that content until
    then, and nothing else. Where the store signs links itself, devices download from it; a link
    of the store outlives the app that it was for.
    """

    blobs: Blobs
    secret: bytes
    public_url: str
    seconds: float = 4 * 3600
    # Whether devices may be sent to the store, if it can sign links.
    by_store: bool = False

    async def link(self, found: App, now: datetime) -> str:
        """Where a device downloads the app from, until the link's end."""
        if self.by_store:
            signed = await self.blobs.link(found.sha256, self.seconds)
            if signed is not None:
                return signed
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
