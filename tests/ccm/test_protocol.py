from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st

from tandem import pki
from tandem.protocols import ccm, cmtrace

NOW = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
KEY = ec.generate_private_key(ec.SECP256R1())
NONCE = "n" * 20


def signed(body: bytes = b"{}", **changes: object) -> dict[str, str]:
    request = {
        "method": "POST",
        "target": "/ccm_incoming",
        "body": body,
        "client_id": "GUID:1",
        "now": NOW,
        "nonce": NONCE,
    }
    headers = ccm.sign_request(KEY, **{**request, **changes})  # type: ignore[arg-type]
    return {name.lower(): value for name, value in headers.items()}


def verify(headers: dict[str, str], **changes: object) -> None:
    request = {"method": "POST", "target": "/ccm_incoming", "body": b"{}", "now": NOW}
    ccm.verify_request(KEY.public_key(), ccm.read_signature(headers), **{**request, **changes})  # type: ignore[arg-type]


@given(st.binary(max_size=200), st.text("abc/?=.&", max_size=20))
def test_what_was_signed_verifies(body: bytes, path: str) -> None:
    target = f"/{path}"
    verify(signed(body, target=target), body=body, target=target)


@pytest.mark.parametrize(
    "changes",
    [
        {"body": b"{} "},
        {"target": "/CCM_STS"},
        {"method": "PUT"},
        {"now": NOW + timedelta(minutes=6)},
        {"now": NOW - timedelta(minutes=6)},
    ],
)
def test_any_change_on_the_way_is_noticed(changes: dict[str, object]) -> None:
    with pytest.raises(ccm.BadSignature):
        verify(signed(), **changes)


@pytest.mark.parametrize("header", ["ccm-client", "ccm-date", "ccm-nonce", "ccm-signature"])
@pytest.mark.parametrize("value", ["", "GUID:2", "2026-11-24T12:00:01Z", "m" * 20, "AAAA"])
def test_every_header_is_covered(header: str, value: str) -> None:
    with pytest.raises(ccm.BadSignature):
        verify({**signed(), header: value})


@given(st.dictionaries(st.sampled_from(list(signed())), st.text(max_size=30)))
def test_arbitrary_headers_are_refused_and_never_crash(headers: dict[str, str]) -> None:
    with pytest.raises(ccm.BadSignature):
        verify({**dict.fromkeys(signed(), ""), **headers})


def test_the_signed_target_is_the_same_on_both_sides_of_the_gateway() -> None:
    outside = "/CCM_Proxy_ServerAuth/72057594037927941/SMS_MP/.sms_aut"
    assert ccm.signed_target(outside, "MPLIST") == ccm.signed_target("/SMS_MP/.sms_aut", "MPLIST")


def test_a_key_proof_ties_one_token_to_one_key() -> None:
    proof = ccm.key_proof(KEY, "token", NOW, NONCE)
    assert ccm.open_key_proof(proof, KEY.public_key(), "token", NOW) == NONCE
    other = ec.generate_private_key(ec.SECP256R1()).public_key()
    for key, token, now in (
        (other, "token", NOW),
        (KEY.public_key(), "stolen", NOW),
        (KEY.public_key(), "token", NOW + timedelta(minutes=10)),
    ):
        with pytest.raises(ccm.BadSignature):
            ccm.open_key_proof(proof, key, token, now)


@given(st.text(max_size=60))
def test_arbitrary_proofs_are_refused(text: str) -> None:
    with pytest.raises(ccm.BadSignature):
        ccm.open_key_proof(text, KEY.public_key(), "token", NOW)


@pytest.mark.parametrize(
    "jwk",
    [
        {},
        {"kty": "RSA"},
        {"kty": "EC", "crv": "P-256", "x": "AA", "y": "AA"},
        {"kty": "EC", "crv": "P-384"},
    ],
)
def test_only_p256_keys_are_taken(jwk: dict[str, str]) -> None:
    with pytest.raises(ccm.BadSignature):
        ccm.public_key(jwk)


@pytest.fixture(scope="module")
def root() -> pki.Authority:
    return pki.new_root(pki.name("SMS Issuing"), now=NOW)


def identity(root: pki.Authority, *usages: str, days: int = 30) -> ccm.SigningIdentity:
    key = pki.generate_key()
    leaf = root.issue(key.public_key(), pki.name("Signing"), now=NOW, days=days, usages=usages)  # type: ignore[arg-type]
    return ccm.SigningIdentity(key, leaf, root.certificate)


def policy(**changes: object) -> ccm.Policy:
    base = ccm.Policy("GUID:1", "CM1", 1, NOW, NOW + timedelta(days=7), {"a": 1}, [], [])
    return msgspec.structs.replace(base, **changes)


def test_a_policy_opens_for_its_client_only(root: pki.Authority) -> None:
    sealed = ccm.seal("policy", policy(), identity(root, "code"))
    opened = ccm.open_policy(sealed, root.certificate, NOW, client_id="GUID:1")
    assert opened == policy()
    with pytest.raises(ccm.BadDocument, match="another client"):
        ccm.open_policy(sealed, root.certificate, NOW, client_id="GUID:2")


def test_a_policy_ends(root: pki.Authority) -> None:
    sealed = ccm.seal("policy", policy(), identity(root, "code"))
    later = NOW + timedelta(days=8)
    with pytest.raises(ccm.BadDocument, match="expired"):
        ccm.open_policy(sealed, root.certificate, later, client_id="GUID:1")
    assert ccm.open_policy(sealed, root.certificate, later, client_id="GUID:1", expired=True)


def test_a_certificate_of_a_site_role_cannot_sign_policy(root: pki.Authority) -> None:
    sealed = ccm.seal("policy", policy(), identity(root, "server", "client"))
    with pytest.raises(ccm.BadDocument, match="not by the site that this device trusts"):
        ccm.open_policy(sealed, root.certificate, NOW, client_id="GUID:1")


def test_an_expired_signer_is_refused(root: pki.Authority) -> None:
    sealed = ccm.seal("policy", policy(), identity(root, "code", days=1))
    with pytest.raises(ccm.BadDocument, match="not valid now"):
        ccm.open_policy(sealed, root.certificate, NOW + timedelta(days=2), client_id="GUID:1")


def test_a_manifest_is_not_a_policy(root: pki.Authority) -> None:
    manifest = ccm.ClientManifest("CM1", "1", "f", "0" * 64, 1)
    sealed = ccm.seal("manifest", manifest, identity(root, "code"))
    assert ccm.open_manifest(sealed, root.certificate, NOW) == manifest
    with pytest.raises(ccm.BadDocument):
        ccm.open_policy(sealed, root.certificate, NOW, client_id="GUID:1")


@given(position=st.integers(0, 400), character=st.sampled_from("Ab0._-"))
def test_one_altered_character_spoils_a_document(position: int, character: str) -> None:
    root = _ROOT
    sealed = _SEALED
    at = position * len(sealed) // 401
    altered = sealed[:at] + character + sealed[at + 1 :]
    if altered == sealed:
        return
    try:
        opened = ccm.open_policy(altered, root.certificate, NOW, client_id="GUID:1")
    except ccm.BadDocument:
        return
    # The last character of base64 has bits that mean nothing.
    assert opened == policy()


_ROOT = pki.new_root(pki.name("SMS Issuing"), now=NOW)
_SEALED = ccm.seal("policy", policy(), identity(_ROOT, "code"))


@given(
    st.builds(
        ccm.ConfigInfo,
        flags=st.integers(0, 12543),
        agent=st.from_regex(r"[0-9.]{0,8}", fullmatch=True),
        client=st.from_regex(r"(GUID:[0-9A-F-]{0,36})?", fullmatch=True),
        policy=st.booleans(),
        setup=st.integers(1, 999),
        code=st.integers(0, 99),
        log=st.text(max_size=100),
    )
)
def test_config_info_is_read_back(info: ccm.ConfigInfo) -> None:
    try:
        info.log.encode()
    except UnicodeEncodeError:
        return
    assert ccm.ConfigInfo.read(info.text()) == info


@given(st.text())
def test_any_config_info_is_read(text: str) -> None:
    ccm.ConfigInfo.read(text)


def test_the_contracts_config_info() -> None:
    info = ccm.ConfigInfo(8193, "0.1.0", "GUID:1", True)
    assert info.text() == "flags=8193;agent=0.1.0;client=GUID:1;policy=1"


def test_a_cmtrace_line_is_the_fields() -> None:
    at = datetime(2026, 11, 24, 13, 7, 9, 123456, tzinfo=UTC)
    assert cmtrace.line("Merged", "CoManagementHandler", at, thread=7, file="m.cpp") == (
        '<![LOG[Merged]LOG]!><time="13:07:09.123+000" date="11-24-2026" '
        'component="CoManagementHandler" context="" type="1" thread="7" file="m.cpp">'
    )


@given(st.text(), st.text(max_size=20))
def test_nobody_forges_a_second_line(message: str, component: str) -> None:
    line = cmtrace.line(message, component, NOW)
    assert "\n" not in line
    assert "\r" not in line
    assert line.count("]LOG]!>") == 1
    assert cmtrace.message_of(line) is not None
