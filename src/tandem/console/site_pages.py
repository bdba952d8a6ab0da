"""Signing in to the site's pages: a session of the console is one of the admin API."""

from tandem.console.model import Session
from tandem.infra.clock import Clock
from tandem.infra.database import Database
from tandem.site import administrators


class SitePages:
    """Implements SiteReads."""

    def __init__(
        self, db: Database, *, now: Clock, settings: administrators.AdministratorsSettings
    ) -> None:
        self._db = db
        self._now = now
        self._settings = settings

    async def sign_in(self, user: str, password: str) -> Session:
        found = await administrators.sign_in(self._db, user, password, self._now(), self._settings)
        return _session(found.token, found.administrator)

    async def session(self, token: str) -> Session | None:
        async with self._db.transaction() as tx:
            try:
                who = await administrators.session(tx, token, self._now(), self._settings)
            except administrators.NotSignedIn:
                return None
        return _session(token, who)

    async def sign_out(self, session: Session) -> None:
        async with self._db.transaction() as tx:
            await administrators.sign_out(tx, session.token)


def _session(token: str, who: administrators.Administrator) -> Session:
    # Who is limited gets no button of a full administrator: the API would refuse it.
    role = who.role.value if who.over_all else f"{who.role.value} (limited)"
    return Session(token, who.name, role)
