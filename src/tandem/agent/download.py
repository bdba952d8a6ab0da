"""Fetching the client: signed manifest, bytes that resume where they stopped, and their hash."""

from collections.abc import Awaitable, Callable
from functools import partial
from hashlib import sha256
from pathlib import Path

import httpx

from tandem.agent.folder import Folder
from tandem.agent.journal import WARNING, Journal
from tandem.agent.platform import Machine
from tandem.agent.session import Refused, Session, Unreachable, decode, unreachable
from tandem.infra.errors import AppError, Kind
from tandem.protocols import ccm

_Opened = Callable[[dict[str, str]], Awaitable[httpx.Response]]


class WrongHash(AppError):
    """What came is not what the site signed for."""

    kind, code = Kind.FORBIDDEN, "setup.wrong-hash"


class WrongManifest(AppError):
    kind, code = Kind.FORBIDDEN, "setup.wrong-manifest"


async def manifest(session: Session, machine: Machine, site_code: str) -> ccm.ClientManifest:
    """What the site wants installed. Raises ccm.BadDocument or WrongManifest."""
    response = await session.get("/CCM_Client/manifest")
    found = ccm.open_manifest(response.text, machine.trusted_root, machine.now())
    if found.site_code != site_code:
        raise WrongManifest(f"The manifest is of site {found.site_code}, not of {site_code}.")
    if "/" in found.file_name or "\\" in found.file_name or found.file_name.startswith("."):
        raise WrongManifest("The manifest's file name is not the name of a file.")
    return found


async def package(
    session: Session, folder: Folder, wanted: ccm.ClientManifest, journal: Journal
) -> Path:
    """The package in this folder, whole and verified. What an earlier attempt got is kept.

    Raises WrongHash after throwing away what does not fit, and Unreachable when it broke off.
    """
    done = folder.path / wanted.sha256
    part = folder.path / f"{wanted.sha256}.part"
    if done.exists() and digest(done) == wanted.sha256:
        return done
    start = _kept(part, wanted)
    by_gateway = False
    if start < wanted.size_bytes:
        by_gateway = await _fetch(session, part, wanted, start, journal)
    if part.stat().st_size < wanted.size_bytes:
        raise Unreachable(
            f"The download of {wanted.file_name} ended after {part.stat().st_size} of "
            f"{wanted.size_bytes} bytes.",
            cure="It goes on from there by itself.",
        )
    if by_gateway and digest(part) != wanted.sha256:
        journal.write("ccmsetup", "What gateways gave is another file: asking the site.", WARNING)
        part.unlink()
        await _take(part, wanted, *_of_site(session, wanted))
    if digest(part) != wanted.sha256:
        part.unlink()
        raise WrongHash(
            f"The hash of {wanted.file_name} is not the one in the site's manifest.",
            cure="Distribute the client package again; something between site and device alters it.",
        )
    part.replace(done)
    folder.sync()
    return done


async def _fetch(
    session: Session, part: Path, wanted: ccm.ClientManifest, start: int, journal: Journal
) -> bool:
    """From the gateways that serve it, as far as they give it; from the management point otherwise.

    Returns whether a gateway gave some of it.
    """
    begun = start
    if start:
        journal.write("ccmsetup", f"Resuming the download of {wanted.file_name} at byte {start}.")
    for source in await _sources(session, wanted):
        try:
            await _take(part, wanted, source.url, start, partial(session.open_source, source))
        except (Unreachable, Refused, WrongHash) as error:
            journal.write("ccmsetup", f"{source.url} does not give it: {error.message}", WARNING)
        else:
            journal.write("ccmsetup", f"Downloaded {wanted.file_name} from {source.url}")
        start = _kept(part, wanted)
        if start == wanted.size_bytes:
            return True
    target, _, opened = _of_site(session, wanted)
    await _take(part, wanted, target, start, opened)
    return start != begun


def _of_site(session: Session, wanted: ccm.ClientManifest) -> tuple[str, int, _Opened]:
    """How the management point is asked for all of it."""
    target = f"/CCM_Client/{wanted.sha256}"
    return target, 0, partial(session.open, target)


async def _sources(session: Session, wanted: ccm.ClientManifest) -> list[ccm.ContentSource]:
    """On the internet, the gateways that have it; none where the site knows nothing of such."""
    if session.intranet:
        return []
    try:
        answer = await session.get(f"/CCM_Client/{wanted.sha256}/location")
        return decode(answer, ccm.ContentLocation).sources
    except (Refused, Unreachable):
        return []


async def _take(
    part: Path,
    wanted: ccm.ClientManifest,
    target: str,
    start: int,
    opened: _Opened,
) -> None:
    headers = {"Range": f"bytes={start}-", "If-Range": f'"{wanted.sha256}"'} if start else {}
    response = await opened(headers)
    resumed = response.status_code == 206
    if response.status_code == 416:
        # What lies here goes beyond what the site has: it is not a part of this package.
        await response.aclose()
        raise _begun_anew(part, wanted)
    try:
        with part.open("ab" if resumed else "wb") as file:
            size = start if resumed else 0
            async for chunk in response.aiter_bytes():
                size += len(chunk)
                if size > wanted.size_bytes:
                    raise WrongHash(f"{wanted.file_name} is larger than its manifest says.")
                file.write(chunk)
    except httpx.HTTPError as error:
        raise unreachable(error, target) from None
    finally:
        await response.aclose()


def _kept(part: Path, wanted: ccm.ClientManifest) -> int:
    """How much there is of it; what is too long is not of it."""
    start = part.stat().st_size if part.exists() else 0
    if start > wanted.size_bytes:
        part.unlink()
        return 0
    return start


def _begun_anew(part: Path, wanted: ccm.ClientManifest) -> Unreachable:
    part.unlink(missing_ok=True)
    return Unreachable(
        f"What was downloaded of {wanted.file_name} does not fit the site's package.",
        cure="The download begins anew by itself.",
    )


def digest(path: Path) -> str:
    digest = sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()
