"""Drafts of wizards: a row each, keyed by the id in the address, so any replica answers any step."""

import uuid
from base64 import b64decode, b64encode
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Any

import msgspec
from psycopg.types.json import Jsonb

from tandem.console.fields import Upload
from tandem.console.labels import N_
from tandem.infra.clock import Clock
from tandem.infra.database import Database, Tx
from tandem.infra.errors import AppError, Kind
from tandem.infra.secrets import SecretBox

SEAL = "console-draft"
# A certificate authority may take days between a request and its answer.
KEPT_DAYS = 30
# Passwords and files of a draft that nobody touches are dropped sooner.
SECRETS_HOURS = 24
# A wizard that was opened and left at once leaves nothing behind.
UNTOUCHED_HOURS = 24
CLAIM_SECONDS = 120
MOST_BYTES = 4_000_000


class UnknownDraft(AppError):
    kind, code = Kind.NOT_FOUND, "console.unknown-draft"


class DraftTooLarge(AppError):
    kind, code = Kind.TOO_LARGE, "console.draft-too-large"


class Draft:
    """What has been answered so far. Change it, then `Drafts.save` it."""

    def __init__(self, id: str, kind: str, owner: str, created_at: datetime) -> None:
        self.id = id
        self.kind = kind
        self.owner = owner
        self.values: dict[str, Any] = {}
        self.passed: list[str] = []
        self.outcome: dict[str, Any] | None = None
        self.created_at = created_at
        self.changed_at = created_at
        self.session = b""
        self._secrets: dict[str, str] = {}
        self._files: dict[str, tuple[str, str]] = {}

    def secret(self, name: str) -> str:
        return self._secrets.get(name, "")

    def has_secret(self, name: str) -> bool:
        return bool(self._secrets.get(name))

    def keep_secret(self, name: str, text: str) -> None:
        self._secrets[name] = text

    def file(self, name: str) -> Upload | None:
        found = self._files.get(name)
        return Upload(found[0], b64decode(found[1])) if found else None

    def keep_file(self, name: str, upload: Upload) -> None:
        self._files[name] = (upload.name[:200], b64encode(upload.data).decode())

    def forget(self, *names: str) -> None:
        """Secrets and files that are no longer needed; all of them without a name."""
        for name in names or (*self._secrets, *self._files):
            self._secrets.pop(name, None)
            self._files.pop(name, None)

    def sealed(self) -> bytes | None:
        if not self._secrets and not self._files:
            return None
        return msgspec.json.encode([self._secrets, self._files])

    def open(self, data: bytes) -> None:
        self._secrets, files = msgspec.json.decode(data)
        self._files = {name: (pair[0], pair[1]) for name, pair in files.items()}


def digest(token: str) -> bytes:
    return sha256(token.encode()).digest()


class Drafts:
    def __init__(self, db: Database, box: SecretBox, now: Clock) -> None:
        self._db = db
        self._box = box
        self._now = now

    async def begin(self, kind: str, owner: str, session: str, values: dict[str, Any]) -> Draft:
        now = self._now()
        draft = Draft(str(uuid.uuid4()), kind, owner, now)
        draft.values = values
        async with self._db.transaction() as tx:
            await tx.execute(
                """DELETE FROM console_draft WHERE changed_at < %s
                   OR (changed_at < %s AND passed = '{}' AND changed_at = created_at)""",
                (now - timedelta(days=KEPT_DAYS), now - timedelta(hours=UNTOUCHED_HOURS)),
            )
            await tx.execute(
                "UPDATE console_draft SET sealed = NULL WHERE sealed IS NOT NULL AND changed_at < %s",
                (now - timedelta(hours=SECRETS_HOURS),),
            )
            await tx.execute(
                """INSERT INTO console_draft (id, kind, owner, session, given, created_at, changed_at)
                   VALUES (%s, %s, %s, %s, %s, %s, %s)""",
                (draft.id, kind, owner, digest(session), Jsonb(values), now, now),
            )
        return draft

    async def get(self, id: str, kind: str, owner: str) -> Draft:
        """Raises UnknownDraft, also for a draft of somebody else."""
        async with self._db.transaction() as tx:
            return await self._one(tx, id, kind, owner)

    async def open_ones(self, kind: str, owner: str) -> list[Draft]:
        """Drafts of this wizard that are not finished, the newest first."""
        async with self._db.transaction() as tx:
            cursor = await tx.execute(
                """SELECT * FROM console_draft WHERE kind = %s AND owner = %s AND outcome IS NULL
                   AND passed <> '{}' ORDER BY changed_at DESC LIMIT 20""",
                (kind, owner),
            )
            return [self._draft(row) for row in await cursor.fetchall()]

    async def save(self, draft: Draft, session: str) -> None:
        sealed = draft.sealed()
        if len(sealed or b"") + len(msgspec.json.encode(draft.values)) > MOST_BYTES:
            raise DraftTooLarge(N_("This is more than a wizard can keep, so nothing was saved."))
        async with self._db.transaction() as tx:
            await tx.execute(
                """UPDATE console_draft SET given = %s, sealed = %s, passed = %s, session = %s,
                   changed_at = %s WHERE id = %s""",
                (
                    Jsonb(draft.values),
                    self._box.seal(sealed, f"{SEAL}.{draft.id}") if sealed else None,
                    draft.passed,
                    digest(session),
                    self._now(),
                    draft.id,
                ),
            )

    async def adopt(self, draft: Draft, session: str) -> None:
        """The owner goes on in another session: what is typed in that one counts from now on."""
        if draft.session == digest(session):
            return
        async with self._db.transaction() as tx:
            await tx.execute(
                "UPDATE console_draft SET session = %s WHERE id = %s", (digest(session), draft.id)
            )

    async def keep_typed(self, id: str, kind: str, token: str, values: dict[str, Any]) -> None:
        """What was typed in a session that has ended meanwhile: nothing is accepted by it."""
        try:
            key = str(uuid.UUID(id))
        except ValueError:
            return
        async with self._db.transaction() as tx:
            await tx.execute(
                """UPDATE console_draft SET given = given || %s, changed_at = %s
                   WHERE id = %s AND kind = %s AND session = %s AND outcome IS NULL""",
                (Jsonb(values), self._now(), key, kind, digest(token)),
            )

    async def claim(self, draft: Draft) -> bool:
        """Whether this request may finish the draft: one at a time, and once."""
        now = self._now()
        async with self._db.transaction() as tx:
            cursor = await tx.execute(
                """UPDATE console_draft SET claimed_at = %s
                   WHERE id = %s AND outcome IS NULL AND (claimed_at IS NULL OR claimed_at < %s)
                   RETURNING id""",
                (now, draft.id, now - timedelta(seconds=CLAIM_SECONDS)),
            )
            return await cursor.fetchone() is not None

    async def release(self, draft: Draft) -> None:
        async with self._db.transaction() as tx:
            await tx.execute(
                "UPDATE console_draft SET claimed_at = NULL WHERE id = %s", (draft.id,)
            )

    async def finish(self, draft: Draft, outcome: dict[str, Any]) -> None:
        async with self._db.transaction() as tx:
            await tx.execute(
                """UPDATE console_draft SET outcome = %s, sealed = NULL, changed_at = %s
                   WHERE id = %s""",
                (Jsonb(outcome), self._now(), draft.id),
            )

    async def discard(self, draft: Draft) -> None:
        async with self._db.transaction() as tx:
            await tx.execute("DELETE FROM console_draft WHERE id = %s", (draft.id,))

    async def _one(self, tx: Tx, id: str, kind: str, owner: str) -> Draft:
        row = None
        try:
            key = str(uuid.UUID(id))
        except ValueError:
            key = ""
        if key:
            cursor = await tx.execute(
                "SELECT * FROM console_draft WHERE id = %s AND kind = %s AND owner = %s",
                (key, kind, owner),
            )
            row = await cursor.fetchone()
        if row is None:
            raise UnknownDraft(
                N_("This draft is not there any more, or it is somebody else's."),
                cure=N_("Start the wizard anew."),
            )
        return self._draft(row)

    def _draft(self, row: Any) -> Draft:
        draft = Draft(str(row["id"]), row["kind"], row["owner"], row["created_at"])
        draft.values = row["given"]
        draft.passed = list(row["passed"])
        draft.outcome = row["outcome"]
        draft.changed_at = row["changed_at"]
        draft.session = bytes(row["session"])
        if row["sealed"] is not None:
            draft.open(self._box.unseal(bytes(row["sealed"]), f"{SEAL}.{draft.id}"))
        return draft
