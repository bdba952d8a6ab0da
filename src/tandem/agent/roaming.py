"""Where am I? Intranet or internet, found out by asking, at the start and when the network changes.

On the intranet is who reaches the management point that SMSMP names. Whoever does not, or knows none,
is on the internet, and takes the gateway. The site never decides it; the device tells it why.
"""

import contextlib
from datetime import datetime, timedelta
from hashlib import sha256
from pathlib import Path

import httpx
import msgspec

from tandem.agent.folder import Folder
from tandem.agent.journal import Journal
from tandem.agent.platform import Machine
from tandem.protocols import ccm

FILE = "location.json"
# The list of management points is looked at again so often (spec F12).
AGAIN_MINUTES = 25 * 60
# Who is on the intranet is answered at once.
_SECONDS = 5.0
_LINES = {"intranet": "Currently intranet", "internet": "Currently Internet"}
_KERNEL = Path("/proc/net")


def network_state(kernel: Path = _KERNEL, resolver: Path = Path("/etc/resolv.conf")) -> str:
    """A word that is another when the device's networks are: routes, addresses and name servers as
    Linux tells them. Empty where it does not: then there is the clock, and what fails."""
    told = []
    for path, columns in ((kernel / "route", (0, 1, 2, 7)), (kernel / "if_inet6", (0, 5))):
        try:
            lines = path.read_text("ascii", "replace").splitlines()
        except OSError:
            continue
        # The other columns count what was sent.
        for line in lines:
            words = line.split()
            told.append(" ".join(words[n] for n in columns if n < len(words)))
    with contextlib.suppress(OSError):
        told += [
            line
            for line in resolver.read_text("utf-8", "replace").splitlines()
            if line.startswith(("nameserver", "search"))
        ]
    return sha256("\n".join(sorted(told)).encode()).hexdigest() if told else ""


class Roaming:
    """`location` is what was decided last."""

    def __init__(
        self,
        machine: Machine,
        folder: Folder,
        journal: Journal,
        *,
        always_internet: bool,
        intranet: str,
        site_code: str,
    ) -> None:
        self._machine = machine
        self._folder = folder
        self._journal = journal
        self._intranet = intranet.rstrip("/")
        self._site_code = site_code
        self._network: str | None = None
        self._again_at: datetime | None = None
        self._forced = (
            "CCMALWAYSINF=1: this device is always on the internet."
            if always_internet
            else ""
            if self._intranet.startswith("https://")
            else "No management point of the intranet is known (SMSMP names none)."
        )
        self.location = folder.load(FILE, ccm.Location) or ccm.Location()
        if self._forced:
            line = "Always Internet" if always_internet else _LINES["internet"]
            self._take("internet", self._forced, line)

    async def look(self) -> bool:
        """Decide again when it is time to: at the start, after a change of the network, every 25
        hours. True when the device is somewhere else now."""
        if self._forced:
            return False
        network, now = self._machine.network(), self._machine.now()
        changed = network != self._network
        if not changed and self._again_at is not None and now < self._again_at:
            return False
        why = "the network has changed" if self._network is not None and changed else "it is time"
        self._network = network
        return await self.decide(why)

    async def decide(self, why: str) -> bool:
        """Find out now. True when the device is somewhere else."""
        if self._forced:
            return False
        minutes = timedelta(seconds=AGAIN_MINUTES * self._machine.minute_seconds)
        self._again_at = self._machine.now() + minutes
        self._journal.write("LocationServices", f"Looking where this device is: {why}.")
        trouble = await self._trouble()
        if trouble:
            reason = f"{self._intranet} does not answer: {trouble}"
            return self._take("internet", reason, _LINES["internet"])
        return self._take("intranet", f"{self._intranet} answers.", _LINES["intranet"])

    def doubt(self) -> None:
        """What was asked on the way of now did not answer: the next look decides again."""
        self._again_at = None

    async def _trouble(self) -> str:
        """Why the intranet's management point is not there; empty when it is."""
        url = f"{self._intranet}/SMS_MP/.sms_aut?MPLIST"
        try:
            response = await self._machine.http.get(url, timeout=_SECONDS)
        except httpx.HTTPError as error:
            return str(error) or type(error).__name__
        if response.status_code != 200:
            return f"it answers {response.status_code}."
        try:
            found = msgspec.json.decode(response.content, type=ccm.ManagementPointList)
        except msgspec.DecodeError:
            # The page of a hotel's network, say.
            return "what answers there is no management point."
        if found.site_code.upper() != self._site_code.upper():
            return f"it is one of site {found.site_code[:8]}."
        return ""

    def _take(self, network: ccm.Network, reason: str, line: str) -> bool:
        before, reason = self.location, reason.replace("\0", "")[:512]
        moved = before.network != network
        if moved or self._network is None or before.reason != reason:
            self._journal.write("LocationServices", line)
            self._journal.write("ClientLocation", f"{line}. {reason}")
        since = self._machine.now() if moved or before.since is None else before.since
        self.location = ccm.Location(network, reason, since)
        if self.location != before:
            # Only whoever starts anew reads it; where the disk is full it is found out again.
            with contextlib.suppress(OSError):
                self._folder.save(FILE, self.location)
        return moved
