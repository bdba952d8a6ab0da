"""Whether a certificate speaks for a client: one set of rules, for gateway and site."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID

from tandem import pki

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
ROOT = pki.new_root(pki.name("Root"), now=NOW)
CLIENT = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH])
Change = Callable[[x509.CertificateBuilder], x509.CertificateBuilder]


def authority(above: pki.Authority = ROOT, name: str = "Issuing", **changes: Any) -> pki.Authority:
    key = pki.generate_key()
    given: dict[str, Any] = {"now": NOW, "days": 60, "ca": True, **changes}
    return pki.Authority(above.issue(key.public_key(), pki.name(name), **given), key)


def leaf(above: pki.Authority = ROOT, *, key: Any = None, **changes: Any) -> x509.Certificate:
    public = (key or pki.generate_key()).public_key()
    given: dict[str, Any] = {"now": NOW, "days": 9, "usages": ["client"], **changes}
    return above.issue(public, pki.name("PC-1"), **given)


def built(change: Change, algorithm: Any = None) -> x509.Certificate:
    """A certificate of the root that our own authority would not issue."""
    made = (
        x509.CertificateBuilder()
        .subject_name(pki.name("PC-1"))
        .issuer_name(ROOT.certificate.subject)
        .public_key(pki.generate_key().public_key())
        .serial_number(7)
        .not_valid_before(NOW - timedelta(days=1))
        .not_valid_after(NOW + timedelta(days=9))
    )
    return change(made).sign(ROOT.key, algorithm or hashes.SHA256())


def critical(builder: x509.CertificateBuilder) -> x509.CertificateBuilder:
    odd = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\x05\x00")
    return builder.add_extension(CLIENT, critical=False).add_extension(odd, critical=True)


def signs_nothing(builder: x509.CertificateBuilder) -> x509.CertificateBuilder:
    usage = x509.KeyUsage(*[number == 2 for number in range(9)])
    return builder.add_extension(CLIENT, critical=False).add_extension(usage, critical=True)


def verdict(certificate: x509.Certificate, *trusted: pki.Authority) -> str:
    roots = [one.certificate for one in (ROOT, *trusted)]
    try:
        pki.client_path(certificate, roots, NOW)
    except pki.NotAClient as error:
        return error.reason
    return "good"


def test_paths_that_hold() -> None:
    issuing = authority()
    assert verdict(leaf()) == "good"
    assert verdict(leaf(issuing), issuing) == "good"
    lower = authority(issuing, "Lower")
    assert verdict(leaf(lower), issuing, lower) == "good"
    assert verdict(leaf(key=ec.generate_private_key(ec.SECP384R1()))) == "good"
    assert verdict(leaf(key=rsa.generate_private_key(65537, 2048))) == "good"


@pytest.mark.parametrize(
    ("reason", "make"),
    [
        ("unknown-authority", lambda: leaf(pki.new_root(pki.name("Other"), now=NOW))),
        ("unknown-authority", lambda: leaf(pki.new_root(pki.name("Root"), now=NOW))),
        ("unknown-authority", lambda: leaf(authority())),
        ("self-signed", lambda: pki.new_root(pki.name("PC-1"), now=NOW).certificate),
        ("expired", lambda: leaf(now=NOW - timedelta(days=30))),
        ("not-yet-valid", lambda: leaf(now=NOW + timedelta(days=2))),
        ("usage", lambda: leaf(usages=["server"])),
        ("usage", lambda: leaf(usages=[])),
        ("usage", lambda: built(signs_nothing)),
        ("weak", lambda: leaf(key=rsa.generate_private_key(65537, 1024))),
        ("weak", lambda: leaf(key=ec.generate_private_key(ec.SECP256K1()))),
        ("not-understood", lambda: built(critical)),
    ],
)
def test_certificates_that_speak_for_nobody(
    reason: str, make: Callable[[], x509.Certificate]
) -> None:
    assert verdict(make()) == reason


def test_what_stands_between_has_to_be_an_authority() -> None:
    friend = authority(name="Friend", ca=False, usages=["client"])
    assert verdict(leaf(friend), friend) == "not-an-authority"
    ended = authority(now=NOW - timedelta(days=90))
    assert verdict(leaf(ended), ended) == "expired"
    shallow = authority(name="Shallow", path_length=0)
    below = authority(shallow, "Below")
    assert verdict(leaf(shallow), shallow) == "good"
    assert verdict(leaf(below), shallow, below) == "not-an-authority"
    servers = authority(name="Servers", usages=["server"])
    assert verdict(leaf(servers), servers) == "not-an-authority"


def test_every_list_below_the_topmost_is_asked() -> None:
    issuing = authority()
    certificate = leaf(issuing)
    roots = [ROOT.certificate, issuing.certificate]
    path = pki.client_path(certificate, roots, NOW)

    def crl(of: pki.Authority, *serials: int, days: float = 7, number: int = 1) -> Any:
        gone = [(serial, NOW) for serial in serials]
        begins = NOW - timedelta(days=3) + timedelta(hours=number)
        end = NOW + timedelta(days=days)
        return x509.load_der_x509_crl(of.crl(gone, now=begins, next_update=end, number=number))

    def outcome(*lists: x509.CertificateRevocationList) -> str:
        try:
            until = pki.Revocations(roots, lists).check(path, NOW)
        except pki.NotAClient as error:
            return error.reason
        assert until == min(path.until, NOW + timedelta(days=7))
        return "good"

    assert outcome(crl(ROOT), crl(issuing)) == "good"
    assert outcome(crl(issuing)) == "crl-missing"
    assert outcome(crl(ROOT)) == "crl-missing"
    assert outcome(crl(ROOT), crl(issuing, certificate.serial_number)) == "revoked"
    assert outcome(crl(ROOT, issuing.certificate.serial_number), crl(issuing)) == "revoked"
    assert outcome(crl(ROOT, certificate.serial_number), crl(issuing)) == "good"
    assert outcome(crl(ROOT), crl(issuing, days=-1)) == "crl-expired"
    # Revoked is revoked, also by a list that is over.
    assert outcome(crl(ROOT), crl(issuing, certificate.serial_number, days=-1)) == "revoked"
    # The newer list of the two counts, in whatever order they come.
    old, new = crl(issuing, number=1), crl(issuing, certificate.serial_number, number=2)
    assert outcome(crl(ROOT), old, new) == outcome(crl(ROOT), new, old) == "revoked"
    # A list that somebody else signed is none.
    other = pki.Authority(issuing.certificate, pki.generate_key())
    assert outcome(crl(ROOT), crl(other)) == "crl-missing"


@pytest.mark.parametrize(
    ("life", "left", "alarm"),
    [
        (timedelta(days=7), timedelta(days=2), None),
        (timedelta(days=7), timedelta(hours=23), pki.Alarm.EXPIRES),
        (timedelta(days=1), timedelta(hours=12), None),
        (timedelta(days=1), timedelta(hours=5), pki.Alarm.EXPIRES),
        (timedelta(days=1), timedelta(hours=-1), pki.Alarm.EXPIRED),
    ],
)
def test_a_list_is_told_of_before_it_ends(
    life: timedelta, left: timedelta, alarm: pki.Alarm | None
) -> None:
    end = NOW + left
    made = x509.load_der_x509_crl(ROOT.crl([], now=end - life, next_update=end, number=1))
    found = pki.Revocations([ROOT.certificate], [made]).alarms(NOW)
    assert [one.alarm for one in found] == ([alarm] if alarm else [])
