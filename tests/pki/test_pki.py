import base64
import re
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, pkcs7
from hypothesis import given
from hypothesis import strategies as st

from tandem import pki

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)


def openssl(*arguments: str, data: bytes = b"") -> str:
    done = subprocess.run(["openssl", *arguments], input=data, capture_output=True, check=True)
    return (done.stdout + done.stderr).decode()


@pytest.fixture(scope="module")
def root() -> pki.Authority:
    return pki.new_root(pki.name("Contoso Root"), now=NOW)


@pytest.fixture(scope="module")
def intermediate(root: pki.Authority) -> pki.Authority:
    key = pki.generate_key()
    subject = pki.name("Contoso Issuing")
    certificate = root.issue(key.public_key(), subject, now=NOW, days=100, ca=True, path_length=0)
    return pki.Authority(certificate, key, (root.certificate,))


def leaf(authority: pki.Authority) -> tuple[pki.PrivateKey, x509.Certificate]:
    key = pki.generate_key("rsa2048")
    certificate = authority.issue(
        key.public_key(), pki.name("mycmg.contoso.com"), dns=["mycmg.contoso.com"],
        usages=["server"], now=NOW, days=90,
    )  # fmt: skip
    return key, certificate


def test_openssl_verifies_a_request() -> None:
    subject = pki.name(
        "mycmg.contoso.com", organization="Contoso", organizational_unit="IT",
        locality="Redmond", state="WA", country="us",
    )  # fmt: skip
    request = pki.certificate_request(
        pki.generate_key("rsa2048"), subject, dns=["mycmg.contoso.com"]
    )
    said = openssl("req", "-verify", "-noout", "-subject", data=request)
    assert "verify OK" in said
    assert "C = US, ST = WA, L = Redmond, O = Contoso, OU = IT, CN = mycmg.contoso.com" in said


def test_openssl_verifies_what_an_authority_issues(
    tmp_path: Path, root: pki.Authority, intermediate: pki.Authority
) -> None:
    _, certificate = leaf(intermediate)
    for name, item in (
        ("root", root.certificate),
        ("sub", intermediate.certificate),
        ("leaf", certificate),
    ):
        (tmp_path / name).write_bytes(pki.pem(item))
    said = openssl(
        "verify", "-x509_strict", "-attime", str(int(NOW.timestamp())), "-purpose", "sslserver",
        "-CAfile", str(tmp_path / "root"), "-untrusted", str(tmp_path / "sub"),
        str(tmp_path / "leaf"),
    )  # fmt: skip
    assert said.strip().endswith("OK")


def test_a_crl_names_what_is_revoked(root: pki.Authority) -> None:
    der = root.crl([(77, NOW)], now=NOW, next_update=NOW + timedelta(days=7), number=3)
    crl = x509.load_der_x509_crl(der)
    assert crl.is_signature_valid(root.certificate.public_key())  # type: ignore[arg-type]
    assert crl.get_revoked_certificate_by_serial_number(77) is not None
    assert crl.get_revoked_certificate_by_serial_number(78) is None


def test_a_path_is_built_in_any_order(root: pki.Authority, intermediate: pki.Authority) -> None:
    _, certificate = leaf(intermediate)
    path = pki.build_path(certificate, [root.certificate, intermediate.certificate])
    assert path.complete
    assert path.certificates == (certificate, intermediate.certificate, root.certificate)


def test_a_missing_intermediate_is_named(root: pki.Authority, intermediate: pki.Authority) -> None:
    _, certificate = leaf(intermediate)
    path = pki.build_path(certificate, [root.certificate])
    assert path.missing_issuer == "CN=Contoso Issuing"


def test_an_issuer_of_the_same_name_with_another_key_does_not_count(
    intermediate: pki.Authority,
) -> None:
    _, certificate = leaf(intermediate)
    impostor = pki.new_root(pki.name("Contoso Issuing"), now=NOW)
    assert pki.build_path(certificate, [impostor.certificate]).missing_issuer is not None


@pytest.mark.parametrize("form", ["pem", "der", "p7b-der", "p7b-pem", "bundle"])
def test_certificates_are_read_in_every_form(form: str, root: pki.Authority) -> None:
    one = root.certificate
    data = {
        "pem": lambda: pki.pem(one),
        "der": lambda: one.public_bytes(Encoding.DER),
        "p7b-der": lambda: pkcs7.serialize_certificates([one], Encoding.DER),
        "p7b-pem": lambda: pkcs7.serialize_certificates([one], Encoding.PEM),
        "bundle": lambda: b"Bag Attributes\n" + pki.pem(one, one),
    }[form]()
    assert pki.read_certificates(data)[0] == one


@given(st.binary(max_size=300))
def test_garbage_is_no_certificate(data: bytes) -> None:
    with pytest.raises(pki.BadCertificate):
        pki.read_certificates(data)


def test_a_pfx_opens_with_its_password_only(tmp_path: Path, intermediate: pki.Authority) -> None:
    key, certificate = leaf(intermediate)
    chain = [intermediate.certificate, *intermediate.chain]
    data = pki.pfx_export(key, certificate, chain, "P@ss-wörd", "gateway")
    opened = pki.pfx_open(data, "P@ss-wörd")
    assert opened.certificate == certificate
    assert set(opened.chain) == set(chain)
    with pytest.raises(pki.WrongPassword):
        pki.pfx_open(data, "other")
    with pytest.raises(pki.BadPfx):
        pki.pfx_open(b"not a pfx", "P@ss-wörd")
    file = tmp_path / "a.pfx"
    file.write_bytes(data)
    said = openssl(
        "pkcs12", "-in", str(file), "-passin", "stdin", "-nodes", data="P@ss-wörd\n".encode()
    )
    assert said.count("BEGIN CERTIFICATE") == 3


def test_thumbprints_have_the_field_s_spelling(root: pki.Authority) -> None:
    der = root.certificate.public_bytes(Encoding.DER)
    said = openssl("x509", "-inform", "der", "-noout", "-fingerprint", "-sha1", data=der)
    assert pki.sha1_thumbprint(root.certificate) == said.strip().split("=")[1].replace(":", "")


def test_a_real_windows_request_is_read(samples: Path) -> None:
    """The illegal PrintableString, the NUL and SHA-1 of windows-mdm.md 6.2 are survived."""
    text = (samples / "mdm" / "d2s-rst-real-usernametoken-b.xml").read_text("utf-8")
    found = re.search(r"#PKCS10\"[^>]*>([^<]+)<", text)
    assert found is not None
    key = pki.windows_request(base64.b64decode(found[1]))
    assert key.key_size >= 2048


def test_a_request_signed_by_another_key_is_refused() -> None:
    good = pki.certificate_request(pki.generate_key(), pki.name("a"))
    der = bytearray(x509.load_pem_x509_csr(good).public_bytes(Encoding.DER))
    der[-1] ^= 1
    with pytest.raises(pki.BadRequest):
        pki.windows_request(bytes(der))
    with pytest.raises(pki.BadRequest):
        pki.read_request(bytes(der))


@given(st.binary(max_size=200))
def test_garbage_is_no_request(data: bytes) -> None:
    with pytest.raises(pki.BadRequest):
        pki.windows_request(data)


def test_another_version_of_a_request_or_certificate_is_a_refusal(root: pki.Authority) -> None:
    """The library has an error of its own for it, which is no ValueError."""
    request = pki.certificate_request(pki.generate_key(), pki.name("a"))
    der = x509.load_pem_x509_csr(request).public_bytes(Encoding.DER)
    odd = der.replace(b"\x02\x01\x00", b"\x02\x01\x20", 1)
    with pytest.raises(pki.BadRequest):
        pki.read_request(odd)
    certificate = root.certificate.public_bytes(Encoding.DER)
    odd = certificate.replace(b"\x02\x01\x02", b"\x02\x01\x20", 1)
    with pytest.raises(pki.BadCertificate):
        pki.read_certificates(odd)
    with pytest.raises(pki.UNREADABLE):
        x509.load_der_x509_certificate(odd)
