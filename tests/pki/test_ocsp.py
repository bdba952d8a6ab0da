"""What a responder's answer says, and which answers say nothing."""

from datetime import datetime, timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp
from cryptography.x509.ocsp import OCSPCertStatus, OCSPResponderEncoding
from hypothesis import given
from hypothesis import strategies as st

from tandem import pki
from tandem.infra.clock import utc_now

NOW = utc_now().replace(microsecond=0)
ROOT = pki.new_root(pki.name("Clients' root"), now=NOW)
LEAF = ROOT.issue(
    pki.generate_key().public_key(), pki.name("PC-1"), now=NOW, days=30, usages=["client"]
)


def answer(
    status: OCSPCertStatus = OCSPCertStatus.GOOD,
    *,
    about: x509.Certificate = LEAF,
    issuer: pki.Authority = ROOT,
    signer: tuple[Any, x509.Certificate] | None = None,
    begins: datetime = NOW,
    ends: datetime | None = NOW + timedelta(hours=1),
    algorithm: Any = None,
) -> bytes:
    revoked = NOW if status is OCSPCertStatus.REVOKED else None
    key, certificate = signer or (issuer.key, issuer.certificate)
    builder = ocsp.OCSPResponseBuilder().add_response(
        about,
        issuer.certificate,
        hashes.SHA1(),
        status,
        begins,
        ends,
        revoked,
        None,
    )
    builder = builder.responder_id(OCSPResponderEncoding.HASH, certificate)
    if signer is not None:
        builder = builder.certificates([certificate])
    made = builder.sign(key, algorithm or hashes.SHA256())
    return made.public_bytes(Encoding.DER)


def delegated(by: pki.Authority = ROOT, **changes: Any) -> tuple[Any, x509.Certificate]:
    key = pki.generate_key("rsa2048")
    given: dict[str, Any] = {"now": NOW, "days": 9, "usages": ["ocsp"], **changes}
    return key, by.issue(key.public_key(), pki.name("Responder"), **given)


def test_what_an_answer_says_of_a_certificate() -> None:
    for status, standing in (
        (OCSPCertStatus.GOOD, pki.Standing.GOOD),
        (OCSPCertStatus.REVOKED, pki.Standing.REVOKED),
        (OCSPCertStatus.UNKNOWN, pki.Standing.UNKNOWN),
    ):
        for signer in (None, delegated()):
            found = pki.read_ocsp(answer(status, signer=signer), LEAF, ROOT.certificate, NOW)
            assert found == pki.OcspAnswer(standing, NOW, NOW + timedelta(hours=1))
    # Without an end it counts for minutes.
    short = pki.read_ocsp(answer(ends=None), LEAF, ROOT.certificate, NOW)
    assert short.ends - short.begins == timedelta(minutes=5)


OTHER = pki.new_root(pki.name("Clients' root"), now=NOW)
SISTER = ROOT.issue(pki.generate_key().public_key(), pki.name("PC-2"), now=NOW, days=30)
BAD: dict[str, tuple[bytes, str]] = {
    "about another": (answer(about=SISTER), "another certificate"),
    "by an authority of the same name": (answer(issuer=OTHER), "not signed"),
    "by a responder of another authority": (answer(signer=delegated(OTHER)), "not signed"),
    "by a certificate that is not for it": (
        answer(signer=delegated(usages=["client"])),
        "not signed",
    ),
    "by a responder whose time is over": (
        answer(signer=delegated(now=NOW - timedelta(days=60))),
        "not signed",
    ),
    "old": (answer(begins=NOW - timedelta(days=2), ends=NOW - timedelta(days=1)), "it is old"),
    "of the future": (
        answer(begins=NOW + timedelta(hours=1), ends=NOW + timedelta(hours=2)),
        "future",
    ),
    "no answer": (
        ocsp.OCSPResponseBuilder.build_unsuccessful(ocsp.OCSPResponseStatus.TRY_LATER).public_bytes(
            Encoding.DER
        ),
        "try_later",
    ),
    "nothing": (b"", "cannot be read"),
    "a page": (b"<html>", "cannot be read"),
}


@pytest.mark.parametrize("name", BAD)
def test_answers_that_say_nothing(name: str) -> None:
    data, why = BAD[name]
    with pytest.raises(pki.BadAnswer, match=why):
        pki.read_ocsp(data, LEAF, ROOT.certificate, NOW)


@given(st.integers(0, 2000), st.integers(0, 255))
def test_a_changed_answer_is_never_another_answer(at: int, value: int) -> None:
    """Whatever byte is changed: it is refused, or it says what it said."""
    good = answer(OCSPCertStatus.REVOKED)
    data = bytearray(good)
    data[at % len(data)] = value
    try:
        found = pki.read_ocsp(bytes(data), LEAF, ROOT.certificate, NOW)
    except pki.BadAnswer:
        return
    assert found == pki.read_ocsp(good, LEAF, ROOT.certificate, NOW)
