"""What a server has to refuse, and in which words (sections 4, 6, 8, 10, 11 and 20)."""

from dataclasses import dataclass

from tandem.simulator.checking import enrolling, managing
from tandem.simulator.checking.model import Exchange, Must, Problems, text

FORMAT = frozenset({"s:MessageFormat"})
SECURITY = frozenset({"a:InvalidSecurity"})
CREDENTIAL = frozenset({"s:Authentication"})
CERTIFICATE = frozenset({"s:CertificateRequest"})
NOBODY = frozenset({"s:Authentication", "a:InvalidSecurity"})


@dataclass(frozen=True)
class Fault:
    section: str
    text: str
    subcodes: frozenset[str]


# By the step of the exchange: what was tried, and the subcodes that answer it. An empty one stands
# for an answer that is no fault.
FAULTS = {
    "discover.lower-case": Fault("2", "The discovery path counts in any case.", frozenset({""})),
    "discover.newest": Fault(
        "3", "A client of a protocol version not yet known is taken.", frozenset({""})
    ),
    "discover.white-space": Fault(
        "2", "A BOM, blanks around values, comments and other prefixes are taken.", frozenset({""})
    ),
    "discover.doctype": Fault("20", "A document type is refused before parsing.", FORMAT),
    "discover.cut": Fault("10", "What is not well-formed is refused.", FORMAT),
    "discover.no-message-id": Fault("10", "A message without MessageID is refused.", FORMAT),
    "discover.utf-16": Fault("2", "UTF-16 is taken or refused as a message.", FORMAT | {""}),
    "discover.deep": Fault("20", "A message that is nested too deep is refused.", FORMAT),
    "policies.no-credential": Fault("10", "A request without a credential is refused.", SECURITY),
    "policies.two-credentials": Fault("4, 10", "Two credentials are refused.", SECURITY),
    "policies.unknown-token": Fault(
        "10", "A token that the server did not issue is refused.", CREDENTIAL
    ),
    "policies.forged-token": Fault("9, 20", "A JWT that says alg none is refused.", CREDENTIAL),
    "issue.unknown-token": Fault("10", "The same, when a certificate is asked for.", CREDENTIAL),
    "issue.no-device-id": Fault("6.1, 10", "A request without DeviceID is refused.", FORMAT),
    "issue.two-device-ids": Fault("6.1", "A request with two DeviceIDs is refused.", FORMAT),
    "issue.no-request": Fault(
        "10", "What is no certificate request is refused as one.", CERTIFICATE
    ),
    "issue.weak-key": Fault("6.2, 20", "An RSA key of 1024 bits is refused.", CERTIFICATE),
    "issue.odd-curve": Fault("20", "A key on an unexpected curve is refused.", CERTIFICATE),
    "issue.bad-signature": Fault(
        "6.2, 20", "A request that its key did not sign is refused.", CERTIFICATE
    ),
    "issue.doctype": Fault("20", "A document type is refused before parsing.", FORMAT),
    "issue.recovery": Fault("8", "Recovery is refused.", CREDENTIAL | {"s:Authorization"}),
    "issue.forged-renewal": Fault(
        "8", "A renewal that no certificate signed is refused.", CREDENTIAL | {"s:Authorization"}
    ),
    "issue.taken-token": Fault("20", "A token that enrolled a device enrols no other.", CREDENTIAL),
    "issue.taken-key": Fault(
        "20",
        "A key that was certified is not certified for another enrollment.",
        CERTIFICATE | CREDENTIAL,
    ),
}


@dataclass(frozen=True)
class Refusal:
    section: str
    text: str
    statuses: frozenset[int] = frozenset({400, 401, 403})


# Of sessions. Nothing of the server's commands may be in the answer.
SESSIONS = {
    "refused.no-certificate": Refusal("11.7", "Who proves nothing gets nothing."),
    "refused.unknown-device": Refusal("11.7", "An unknown device is answered like a known one."),
    "refused.source": Refusal("11.7, 20", "A certificate with another device's Source is refused."),
    "refused.dev-id": Refusal("11.7, 20", "A certificate with another device's DevId is refused."),
    "refused.doctype": Refusal("20", "A document type is refused before parsing."),
    "refused.cut": Refusal("20", "What is not well-formed is refused."),
    "refused.wbxml": Refusal("11.1", "WBXML is answered 415.", frozenset({415})),
    "refused.wrong-digest": Refusal("11.7", "A digest of another secret is refused."),
    "refused.replayed-digest": Refusal("11.7, 20", "A digest that was taken once is refused."),
    "refused.basic": Refusal("20", "A secret that is sent itself is refused."),
    "refused.signature": Refusal("11.7, 20", "A message signed by another key is refused."),
    "refused.superseded": Refusal("8", "A renewed certificate's predecessor gets nothing more."),
    "refused.left": Refusal("14", "A device that left gets nothing more."),
}


_ALIKE = {"refused.unknown-device"}


def _fault(step: str, wanted: Fault) -> Must:
    def judge(exchange: Exchange) -> Problems:
        if exchange.root is None:
            yield f"no message at all, status {exchange.status}"
        elif enrolling.subcode(exchange) not in wanted.subcodes:
            yield f"{enrolling.subcode(exchange) or 'no fault'} instead of {sorted(wanted.subcodes)}"

    return Must(step, wanted.section, wanted.text, lambda exchange: exchange.step == step, judge)


def _refusal(step: str, wanted: Refusal) -> Must:
    def judge(exchange: Exchange) -> Problems:
        challenged = managing.is_message(exchange) and managing.header_code(exchange) in (
            "401",
            "407",
        )
        if exchange.status not in wanted.statuses and not (challenged and 401 in wanted.statuses):
            yield f"status {exchange.status}"
        if managing.commands(exchange):
            yield "commands in the answer"
        earlier = exchange.facts.earlier
        if step in _ALIKE and earlier is not None and _seen(earlier) != _seen(exchange):
            yield "it can be told from the answer to a device that is known"

    return Must(step, wanted.section, wanted.text, lambda exchange: exchange.step == step, judge)


def _seen(exchange: Exchange) -> tuple[object, ...]:
    """What somebody outside sees of an answer; times, ids and nonces differ anyhow."""
    ignored = {"date", "x-request-id", "request-id", "client-request-id"}
    names = tuple(sorted(key.lower() for key, _ in exchange.headers if key.lower() not in ignored))
    found = [
        (text(status, managing.tag("Cmd")), text(status, managing.tag("Data")))
        for status in managing.statuses(exchange)
    ]
    return exchange.status, names, tuple(found)


musts = [
    *(_fault(step, wanted) for step, wanted in FAULTS.items()),
    *(_refusal(step, wanted) for step, wanted in SESSIONS.items()),
]
