"""Does a server say what the specification says it must? Written from the specification alone.

    async with Conversation(discovery_url, token("…")) as client:
        await client.whole()
    for verdict in verdicts(MUSTS, client.exchanges): …

A made-up device enrols, holds sessions and leaves, and every answer is held against every demand
(`Must`) that applies to it. Nothing here reads with the server's codecs.
"""

from tandem.simulator.checking import enrolling, managing, provisioning, refusals
from tandem.simulator.checking.conversation import Conversation, NoAnswer, NotChecked
from tandem.simulator.checking.model import Exchange, Facts, Must, Verdict, verdicts
from tandem.simulator.checking.report import Proof, Report, check
from tandem.simulator.checking.requests import Credential, token

MUSTS: list[Must] = [
    *enrolling.http,
    *enrolling.exists,
    *enrolling.soap,
    *enrolling.faults,
    *enrolling.discovery,
    *enrolling.page,
    *enrolling.policies,
    *enrolling.issue,
    *provisioning.document,
    *provisioning.early,
    *provisioning.renewal,
    *managing.session,
    *managing.message,
    *managing.challenged,
    *managing.proved,
    *managing.command,
    *managing.whole,
    *managing.head,
    *managing.part,
    *refusals.musts,
]

__all__ = [
    "MUSTS",
    "Conversation",
    "Credential",
    "Exchange",
    "Facts",
    "Must",
    "NoAnswer",
    "NotChecked",
    "Proof",
    "Report",
    "Verdict",
    "check",
    "token",
    "verdicts",
]
