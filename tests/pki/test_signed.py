"""CMS signatures: written by another implementation, and everything that makes one worth nothing."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from asn1crypto import cms
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.serialization import Encoding, pkcs7
from hypothesis import given
from hypothesis import strategies as st

from tandem import pki

NOW = datetime(2026, 11, 24, 9, 0, tzinfo=UTC)
ROOT = pki.new_root(pki.name("Root"), now=NOW)
KEYS: dict[str, Any] = {kind: pki.generate_key(kind) for kind in ("p256", "rsa2048")}
CERTIFICATES = {
    kind: ROOT.issue(key.public_key(), pki.name(kind), now=NOW, days=1, usages=["client"])
    for kind, key in KEYS.items()
}
CONTENT = b"what is signed \x00\r\n\xff"


def signed(
    content: bytes = CONTENT,
    kind: str = "rsa2048",
    hash: Any = None,
    *options: pkcs7.PKCS7Options,
    key: Any = None,
) -> bytes:
    builder = pkcs7.PKCS7SignatureBuilder().set_data(content)
    builder = builder.add_signer(CERTIFICATES[kind], key or KEYS[kind], hash or hashes.SHA256())
    return builder.sign(Encoding.DER, [pkcs7.PKCS7Options.Binary, *options])


DETACHED = pkcs7.PKCS7Options.DetachedSignature
BARE = pkcs7.PKCS7Options.NoAttributes


@pytest.mark.parametrize("kind", KEYS)
@pytest.mark.parametrize("hash", [hashes.SHA256(), hashes.SHA384(), hashes.SHA512()])
@pytest.mark.parametrize("options", [(), (BARE,)])
def test_what_a_holder_of_the_key_signed_is_read(kind: str, hash: Any, options: Any) -> None:
    found = pki.read_signed(signed(CONTENT, kind, hash, *options))
    assert found.content == CONTENT
    assert found.certificate == CERTIFICATES[kind]
    assert (found.signed_at is None) == (BARE in options)
    if found.signed_at is not None:
        assert abs(found.signed_at - datetime.now(UTC)) < timedelta(minutes=5)


def test_a_signature_beside_its_content_is_for_that_content_alone() -> None:
    made = signed(CONTENT, "rsa2048", None, DETACHED)
    assert pki.read_signed(made, CONTENT).content == CONTENT
    for other in (b"", CONTENT + b" ", CONTENT[:-1]):
        with pytest.raises(pki.BadSignature):
            pki.read_signed(made, other)
    with pytest.raises(pki.BadSignature):
        pki.read_signed(made)
    with pytest.raises(pki.BadSignature):
        pki.read_signed(signed(), CONTENT)


def test_the_signature_of_another_key_does_not_hold() -> None:
    """The certificate may be anybody's: it is public. The key is what counts."""
    for options in ((), (BARE,)):
        stranger: Any = pki.generate_key("rsa2048")
        made = cms.ContentInfo.load(signed(CONTENT, "rsa2048", None, *options))
        signer = made["content"]["signer_infos"][0]
        attributes = signer["signed_attrs"]
        covered = CONTENT if attributes.native is None else b"\x31" + attributes.dump()[1:]
        signer["signature"] = stranger.sign(covered, padding.PKCS1v15(), hashes.SHA256())
        with pytest.raises(pki.BadSignature):
            pki.read_signed(made.dump(force=True))


def test_content_cannot_be_exchanged_below_a_signature() -> None:
    for options in ((), (BARE,)):
        parsed = cms.ContentInfo.load(signed(CONTENT, "rsa2048", None, *options))
        parsed["content"]["encap_content_info"]["content"] = b"other"
        with pytest.raises(pki.BadSignature):
            pki.read_signed(parsed.dump(force=True))


def test_one_signer_with_its_certificate_is_what_is_taken() -> None:
    twice = pkcs7.PKCS7SignatureBuilder().set_data(CONTENT)
    for kind, key in KEYS.items():
        twice = twice.add_signer(CERTIFICATES[kind], key, hashes.SHA256())
    bare = signed(CONTENT, "rsa2048", None, pkcs7.PKCS7Options.NoCerts)
    for made in (twice.sign(Encoding.DER, [pkcs7.PKCS7Options.Binary]), bare):
        with pytest.raises(pki.BadSignature):
            pki.read_signed(made)


def test_sha1_is_taken_only_where_it_is_asked_for() -> None:
    # The library writes no SHA-1 any more: signed by hand, as old machines do.
    certificate = CERTIFICATES["rsa2048"]
    holder = x509.load_der_x509_certificate(certificate.public_bytes(Encoding.DER))
    parsed = cms.ContentInfo.load(signed(CONTENT, "rsa2048", None, BARE))
    signer = parsed["content"]["signer_infos"][0]
    signer["digest_algorithm"]["algorithm"] = "sha1"
    signer["signature"] = KEYS["rsa2048"].sign(CONTENT, padding.PKCS1v15(), hashes.SHA1())
    made = parsed.dump(force=True)
    with pytest.raises(pki.BadSignature):
        pki.read_signed(made)
    assert pki.read_signed(made, sha1=True).certificate == holder


@given(st.binary(max_size=300))
def test_anything_else_is_refused_in_words(data: bytes) -> None:
    with pytest.raises(pki.BadSignature):
        pki.read_signed(data)


@given(st.integers(0, 10_000), st.integers(0, 255))
def test_a_damaged_signature_is_refused_or_says_the_same(place: int, value: int) -> None:
    """Not every byte is signed, the certificate is not: content and key are what cannot change."""
    made = bytearray(signed())
    made[place % len(made)] = value
    try:
        found = pki.read_signed(bytes(made))
    except pki.BadSignature:
        return
    assert found.content == CONTENT
    found_key: Any = found.certificate.public_key()
    assert pki.same_key(found_key, KEYS["rsa2048"])
