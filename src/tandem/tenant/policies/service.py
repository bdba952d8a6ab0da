"""Policies: made and assigned, compiled once for each change, and asked what a device is to have."""

import uuid
from collections.abc import Sequence
from datetime import datetime
from hashlib import sha256

import msgspec

from tandem.infra.database import Tx
from tandem.protocols import ddf
from tandem.tenant import assignments
from tandem.tenant.policies import catalogue as catalogues
from tandem.tenant.policies import store
from tandem.tenant.policies.catalogue import Catalogue, Source
from tandem.tenant.policies.compiling import KINDS, compiled
from tandem.tenant.policies.desired import Desired, Key, Profile
from tandem.tenant.policies.model import (
    KIND,
    BadObject,
    Configuration,
    NoSuchObject,
    PolicyObject,
    oma_setting,
)
from tandem.workloads import Workload

_FILE_NAME_CHARACTERS = 128
_FILES = 400


class Policies:
    """Keeps what is compiled of all policies, and compiles anew what changed.

    One small query tells whether anything changed, so a session reads no policy. Whoever asks sees
    what was committed when it asked.
    """

    def __init__(self) -> None:
        self._desired: Desired | None = None
        self._compiled: dict[Key, tuple[int, int, Profile]] = {}
        self._catalogue: tuple[int, Catalogue] = (-1, catalogues.built_in())

    async def desired(self, tx: Tx) -> Desired:
        """All policies as they are now."""
        revision, files = await store.revision(tx)
        known = self._desired
        if known is not None and known.revision == revision:
            return known
        catalogue = await self._catalogue_at(tx, files)
        given: dict[Key, list[assignments.Assignment]] = {}
        objects: list[PolicyObject] = []
        for kind in KINDS:
            for one in await assignments.every(tx, kind):
                given.setdefault((kind, one.owner_id), []).append(one)
        versions = await store.object_versions(tx, KINDS)
        stale = [
            key
            for key, version in versions.items()
            if self._compiled.get(key, (0, -2))[:2] != (version, files)
        ]
        for kind in KINDS:
            wanted = [id for of, id in stale if of == kind]
            if wanted:
                objects += await store.objects(tx, kind, wanted)
        for item in objects:
            made = compiled(item, catalogue)
            key = (item.kind, item.id)
            profile = Profile(item.kind, item.id, item.name, 0, made.settings, made.problems, ())
            self._compiled[key] = (item.version, files, profile)
        self._compiled = {key: found for key, found in self._compiled.items() if key in versions}
        profiles = [
            _placed(self._compiled[key][2], age, tuple(given.get(key, ())))
            for age, key in enumerate(versions)
            if key in self._compiled
        ]
        self._desired = Desired(revision, profiles, catalogue)
        return self._desired

    async def catalogue(self, tx: Tx) -> Catalogue:
        """Our own settings, and those of imported files."""
        _, files = await store.revision(tx)
        return await self._catalogue_at(tx, files)

    async def _catalogue_at(self, tx: Tx, files: int) -> Catalogue:
        if self._catalogue[0] != files:
            sources = await store.sources(tx) if files else []
            made = Catalogue([*catalogues.own(), *sources]) if sources else catalogues.built_in()
            self._catalogue = (files, made)
        return self._catalogue[1]


def _placed(profile: Profile, age: int, given: tuple[assignments.Assignment, ...]) -> Profile:
    return Profile(
        profile.kind, profile.id, profile.name, age, profile.settings, profile.problems, given
    )


# ---------------------------------------------------------------------------------- the catalogue


async def import_ddf(tx: Tx, name: str, content: bytes, now: datetime, by: str) -> Source:
    """A published file as a part of the catalogue; it takes the place of one of the same name.

    Raises BadObject.
    """
    name = name.strip().replace("\\", "/").rpartition("/")[2]
    if not name or len(name) > _FILE_NAME_CHARACTERS or not name.isprintable():
        raise BadObject("The file has no name that can be kept.", cure="Give it a short one.")
    try:
        tree = ddf.read(content)
    except ddf.BadDdf as error:
        raise BadObject(
            f"{name} is not a DDF file. {error}",
            cure="Take a file of the published DDF, version 2, as it is.",
        ) from None
    if not tree.leaves:
        raise BadObject(f"{name} describes no setting.", cure="Take another file.")
    known = await store.file_names(tx)
    if name not in known and len(known) >= _FILES:
        raise BadObject(f"There are {_FILES} files already.", cure="Remove some.")
    # Who owns a setting is this product's to say, whatever a file claims.
    source = Source(name, tuple(_unowned(leaf) for leaf in tree.leaves), {})
    await store.save_file(tx, source, sha256(content).hexdigest(), now, by)
    return source


def _unowned(leaf: ddf.Leaf) -> ddf.Leaf:
    return msgspec.structs.replace(leaf, workload="")


async def remove_ddf(tx: Tx, name: str) -> None:
    """Raises NoSuchObject."""
    if not await store.remove_file(tx, name):
        raise NoSuchObject(
            f"There is no imported file {name!r}.",
            cure="List them: `tandem settings-catalogue files`.",
        )


# ---------------------------------------------------------------------------------- configurations


async def create(
    tx: Tx,
    name: str,
    setting: str,
    value: str,
    now: datetime,
    workload: Workload = Workload.DEVICE_CONFIGURATION,
) -> Configuration:
    """A custom configuration of one setting. Raises BadObject."""
    properties = {"workload": workload.value, "omaSettings": [oma_setting(setting, value)]}
    made = PolicyObject(
        KIND,
        str(uuid.uuid4()),
        "windows10CustomConfiguration",
        name.strip(),
        1,
        now,
        now,
        properties,
    )
    await store.add(tx, made, "")
    return compiled(made, catalogues.built_in()).settings[0]


async def change(tx: Tx, id: str, value: str, now: datetime) -> None:
    """Another value for a configuration of one setting. Raises BadObject, NoSuchObject."""
    found = await store.find(tx, KIND, id)
    if found is None:
        raise NoSuchObject(
            f"There is no configuration {id!r}.",
            cure="List them: `tandem device-configuration list`.",
        )
    (known,) = compiled(found, catalogues.built_in()).settings
    properties = {**found.properties, "omaSettings": [oma_setting(known.setting, value)]}
    await store.save(tx, found, found.name, properties, now, "")


async def assign(tx: Tx, id: str, included: Sequence[str], excluded: Sequence[str]) -> None:
    """Give it to these groups, and to nobody else."""
    await assignments.replace(tx, KIND, id, assignments.targets(included, excluded))
