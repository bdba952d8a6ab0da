"""The demands against what real services sent and the specifications print.

They are no stricter than what a device was seen to take, but where the specification is: each row
names the demands that an example fails, and why.
"""

import datetime as dt
from dataclasses import replace
from pathlib import Path

import checked_answers as good
import pytest

from tandem.simulator.checking import MUSTS, Exchange, Facts, verdicts
from tandem.simulator.checking.provisioning import leaf

# The action and addresses are printed with line breaks around them.
PRINTED = {"soap.action", "discover.urls"}
# A service for demonstrations: SHA-1, serial 2, constant secrets, a name with a blank, ROLE, no
# schedule. Its root is not the issuer of the certificate that it hands out.
DEMO = {
    *("document.chain", "document.profile", "document.provider", "document.no-init-role"),
    *("document.secrets", "document.identity", "document.poll"),
}
DISCOVERY = {
    "discover-response-real": set[str](),
    "discover-response-real-b": set(),
    "discover-response-spec-federated": PRINTED,
    "discover-response-spec-onpremise": PRINTED,
    "discover-response-spec-certificate": PRINTED,
}
POLICY = {
    "getpolicies-response-spec": {"soap.action"},
    # SHA-1 for the signature.
    "getpolicies-response-spec-attestation": {"soap.action", "policies.hash"},
    # Not well-formed, so nothing of it can be found.
    "getpolicies-response-real": {"soap.envelope", "soap.action", "soap.relates-to"},
}
# Dumped with line breaks in the base64, and a Timestamp of years ago, which devices do not mind.
CERTIFICATE = {"rstrc-response-real": {*DEMO, "issue.one-line", "issue.timestamp"}}
DOCUMENT = {
    "wap-provisioningdoc-real-b": DEMO,
    # For applications alone: no certificates, no secrets, http.
    "wap-provisioningdoc-spec-mam": {
        *("document.csps", "document.authorities", "document.certificate"),
        *("document.key-container", "document.account", "document.provider"),
        *("document.secrets", "document.identity"),
    },
}
SESSION = {
    "syncml-response-real-two-replace": (
        Facts(
            session="1",
            number=1,
            device_id="1E08C6E95D8BB843B1278FF45BC60CC6",
            commands=(("2", "Alert"), ("3", "Alert"), ("4", "Replace")),
        ),
        {"message.namespaces"},  # Type without the namespace of Meta.
    ),
    "syncml-response-real-unenroll": (
        Facts(session="2", number=1, device_id="B5B954E81FBCB94EB79BD08BE625F4EE"),
        set[str](),
    ),
    "syncml-spec-gets": (
        Facts(session="1", number=1, device_id="{unique device id}"),
        {"command.loc-uri"},  # A blank in the second one.
    ),
}


def raw(samples: Path, name: str) -> bytes:
    return (samples / "mdm" / f"s2d-{name}.xml").read_bytes().strip()


def failed(exchange: Exchange) -> set[str]:
    return {verdict.name for verdict in verdicts(MUSTS, [exchange]) if verdict.state == "fail"}


def own(exchange: Exchange) -> Exchange:
    """As if it had been for the key that it certifies, at a time when it was valid."""
    seen = replace(exchange, facts=replace(exchange.facts, store="User"))
    found = leaf(seen)
    if found is None:
        return seen
    at = found.not_valid_before_utc + dt.timedelta(days=30)
    return replace(seen, facts=replace(seen.facts, public_key=found.public_key(), at=at))


@pytest.mark.parametrize("name", DISCOVERY)
def test_discovery(samples: Path, name: str) -> None:
    answer = good.heard("soap", "discover", good.SOAP, raw(samples, name), Facts(version=5.0))
    assert failed(answer) == DISCOVERY[name]


@pytest.mark.parametrize("name", POLICY)
def test_certificate_policies(samples: Path, name: str) -> None:
    answer = good.heard("soap", "policies", good.SOAP, raw(samples, name))
    assert failed(answer) == POLICY[name]


@pytest.mark.parametrize("name", CERTIFICATE)
def test_certificates(samples: Path, name: str) -> None:
    answer = good.heard("soap", "issue", good.SOAP, raw(samples, name))
    assert failed(own(answer)) == CERTIFICATE[name]


@pytest.mark.parametrize("name", DOCUMENT)
def test_provisioning_documents(samples: Path, name: str) -> None:
    answer = own(good.issue(raw(samples, name).decode()))
    assert failed(answer) - {"issue.timestamp"} == DOCUMENT[name]


def test_the_renewal_answer_has_what_it_must_but_a_certificate(samples: Path) -> None:
    """The published one has a placeholder for it."""
    answer = good.issue(raw(samples, "wap-renewal").decode(), "issue.renewal")
    found = [v for v in verdicts(MUSTS, [answer]) if v.state == "fail"]
    assert [verdict.problems for verdict in found] == [
        ["issue.renewal: no certificate for the new key in the store of the enrollment"]
    ]


@pytest.mark.parametrize("name", ["fault-spec-authorization", "fault-spec-devicecapreached"])
def test_faults_in_lower_case_are_no_faults(samples: Path, name: str) -> None:
    answer = good.heard("soap", "issue", good.SOAP, raw(samples, name))
    assert "soap.envelope" in failed(answer)


@pytest.mark.parametrize("name", SESSION)
def test_sessions(samples: Path, name: str) -> None:
    facts, wanted = SESSION[name]
    answer = good.heard("syncml", "session", good.SYNCML, raw(samples, name), facts)
    assert failed(answer) == wanted
