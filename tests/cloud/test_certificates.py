"""Tutorial step 1: the name, the request, the certificate, the PFX."""

import shutil
import subprocess
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, pkcs7, pkcs12
from cryptography.x509.oid import NameOID

from site_world import PFX_PASSWORD, Site, pfx
from tandem import pki
from tandem.infra.clock import utc_now
from tandem.roles.lab_ca import LabCa
from tandem.site.cloud_services import BadServiceName, fold_service_name

NAME = "mycmg.contoso.com"


@pytest.fixture
def ca(tmp_path: Path) -> LabCa:
    return LabCa(tmp_path / "ca", ["127.0.0.11"])


async def _request(site: Site, name: str = NAME) -> bytes:
    made = await site.run(
        *("certificate", "request", name, "--organization", "Contoso", "--unit", "IT"),
        *("--city", "Seattle", "--state", "Washington", "--country", "US"),
        *("--output", site.folder / "request.csr"),
    )
    assert made["state"] == "waiting"
    return (site.folder / "request.csr").read_bytes()


async def _import(site: Site, data: bytes, name: str = "answer.pem") -> dict[str, object]:
    (site.folder / name).write_bytes(data)
    answer: dict[str, object] = await site.run("certificate", "import", site.folder / name)
    return answer


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("my-cmg.contoso.com", "3 to 24 letters and digits"),
        ("ab.contoso.com", "3 to 24 letters and digits"),
        ("mycmg", "a prefix and your company's public domain"),
        ("mycmg.local", "a domain like contoso.com"),
        ("mycmg..contoso.com", "a prefix and your company's public domain"),
    ],
)
def test_a_malformed_name_is_refused_with_the_reason(name: str, says: str) -> None:
    with pytest.raises(BadServiceName) as refused:
        fold_service_name(name)
    assert says in refused.value.cure


async def test_a_refused_name_is_a_refused_command(site: Site) -> None:
    refused = await site.refusal("gateway", "check-name", "my-cmg.contoso.com")
    assert (refused.code, "'my-cmg'" in refused.message) == ("gateway.bad-name", True)


async def test_a_free_name_is_confirmed_and_nothing_is_created(site: Site) -> None:
    found = await site.run("gateway", "check-name", "MyCMG.Contoso.com")
    assert found["available"]
    assert found["service_name"] == NAME
    assert found["deployment_name"] == "mycmg.cloudapp.example"
    assert found["notes"] == ["MyCMG.Contoso.com is written mycmg.contoso.com."]
    assert await site.run("gateway", "list") == []
    assert await site.run("certificate", "list") == []


async def test_a_name_that_someone_deployed_is_taken(site: Site) -> None:
    site.names.hosts["mycmg.cloudapp.example"] = ["203.0.113.7"]
    refused = await site.refusal("gateway", "check-name", NAME)
    assert "already belongs to a deployment of someone else" in refused.message
    assert refused.code == "gateway.name-taken"


async def test_a_name_that_is_an_alias_of_something_else_is_taken(site: Site) -> None:
    site.names.aliases[NAME] = "www.contoso.com"
    refused = await site.refusal("gateway", "check-name", NAME)
    assert "an alias of www.contoso.com" in refused.message


async def test_a_name_is_not_called_free_while_dns_does_not_answer(site: Site) -> None:
    """A server that is away is no word of anybody that the name is free."""
    site.names.away = True
    refused = await site.refusal("gateway", "check-name", NAME)
    assert refused.code == "net.dns-unavailable"
    assert "DNS" in refused.message
    assert "again" in refused.cure


async def test_the_request_has_every_field_and_openssl_verifies_it(site: Site) -> None:
    csr = x509.load_pem_x509_csr(await _request(site))
    subject = {item.oid: item.value for item in csr.subject}
    assert subject == {
        NameOID.COMMON_NAME: NAME,
        NameOID.ORGANIZATION_NAME: "Contoso",
        NameOID.ORGANIZATIONAL_UNIT_NAME: "IT",
        NameOID.LOCALITY_NAME: "Seattle",
        NameOID.STATE_OR_PROVINCE_NAME: "Washington",
        NameOID.COUNTRY_NAME: "US",
    }
    names = csr.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == [NAME]
    assert csr.public_key().key_size == 2048  # type: ignore[union-attr]
    done = subprocess.run(
        ["openssl", "req", "-verify", "-noout", "-in", str(site.folder / "request.csr")],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "verify OK" in done.stdout + done.stderr


async def test_the_key_stays_on_the_site_server_and_sealed(site: Site) -> None:
    await _request(site)
    shown = str(await site.run("certificate", "list"))
    assert "PRIVATE KEY" not in shown
    async with site.db.transaction() as tx:
        row = await (await tx.execute("SELECT sealed_key FROM cloud_certificate")).fetchone()
    assert row is not None
    assert b"PRIVATE KEY" not in row["sealed_key"]


async def test_a_subject_that_no_ca_takes_is_refused(site: Site) -> None:
    refused = await site.refusal("certificate", "request", NAME, "--country", "USA")
    assert "two letters" in refused.cure
    refused = await site.refusal("certificate", "request", NAME, "--organization", "x" * 65)
    assert "64 characters" in refused.message


def _der(chain: list[x509.Certificate]) -> bytes:
    return chain[0].public_bytes(Encoding.DER)


def _p7b(chain: list[x509.Certificate]) -> bytes:
    return pkcs7.serialize_certificates(chain, Encoding.DER)


def _p7b_pem(chain: list[x509.Certificate]) -> bytes:
    return pkcs7.serialize_certificates(chain, Encoding.PEM)


def _pem(chain: list[x509.Certificate]) -> bytes:
    return pki.pem(*chain)


def _bundle(chain: list[x509.Certificate]) -> bytes:
    return pki.pem(*reversed(chain))


@pytest.mark.parametrize("form", [_pem, _p7b, _p7b_pem, _bundle])
async def test_the_answer_of_the_ca_pairs_with_its_waiting_key(
    site: Site, ca: LabCa, form: object
) -> None:
    """Several keys may wait; each certificate finds its own."""
    first = await _request(site)
    await _request(site, "other.contoso.com")
    chain = pki.read_certificates(ca.issue(first))
    made = await _import(site, form(chain))  # type: ignore[operator]
    assert (made["service_name"], made["state"]) == (NAME, "complete")
    states = {c["service_name"]: c["state"] for c in await site.run("certificate", "list")}
    assert states == {NAME: "complete", "other.contoso.com": "waiting"}


async def test_a_missing_intermediate_is_named_and_may_come_later(site: Site, ca: LabCa) -> None:
    chain = pki.read_certificates(ca.issue(await _request(site)))
    made = await _import(site, _der(chain), "leaf.cer")
    assert made["missing_issuer"] == "CN=Lab Public Issuing CA"
    refused = await site.refusal(
        *("certificate", "export", NAME, "--output", site.folder / "x.pfx"),
        *("--password-file", site.secret("p", "secret")),
    )
    assert "Lab Public Issuing CA" in refused.message
    made = await _import(site, pki.pem(*chain[1:]), "path.pem")
    assert made["state"] == "complete"


async def test_each_certificate_may_come_in_a_file_of_its_own(site: Site, ca: LabCa) -> None:
    """DER holds one: leaf, intermediate and root one after the other, in any order above the leaf."""
    leaf, intermediate, root = pki.read_certificates(ca.issue(await _request(site)))
    assert (await _import(site, _der([leaf]), "leaf.cer"))["state"] == "incomplete"
    made = await _import(site, _der([intermediate]), "intermediate.cer")
    assert made["missing_issuer"] == "CN=Lab Public Root CA"
    assert (await _import(site, _der([root]), "root.cer"))["state"] == "complete"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"usages": ["client"]}, "not for servers"),
        ({"days": -1}, "expired"),
        ({"later": 3}, "valid only from"),
        ({"dns": ["other.contoso.com"]}, "not for mycmg.contoso.com"),
    ],
)
async def test_a_certificate_of_the_right_key_that_serves_nobody_is_refused(
    site: Site, change: dict[str, Any], says: str
) -> None:
    """Its key waits here, and yet no client would accept a gateway with it."""
    request = pki.read_request(await _request(site))
    root = pki.new_root(pki.name("Careless CA"), now=utc_now())
    values: dict[str, Any] = {"days": 30, "dns": [NAME], "usages": ["server"], **change}
    now = utc_now() + timedelta(days=values.pop("later", 0))
    if values["days"] < 0:
        now -= timedelta(days=30)
    leaf = root.issue(request.public_key(), pki.name(NAME), now=now, **values)  # type: ignore[arg-type]
    (site.folder / "careless.pem").write_bytes(pki.pem(leaf, root.certificate))
    refused = await site.refusal("certificate", "import", site.folder / "careless.pem")
    assert says in refused.message
    assert refused.cure
    assert [item["state"] for item in await site.run("certificate", "list")] == ["waiting"]


async def test_the_request_says_that_it_folded_the_name(site: Site) -> None:
    made = await site.run("certificate", "request", "MyCMG.Contoso.com", "-o", site.folder / "r")
    assert made["service_name"] == NAME
    assert made["note"] == "MyCMG.Contoso.com is written mycmg.contoso.com."
    csr = x509.load_pem_x509_csr((site.folder / "r").read_bytes())
    assert csr.subject.rfc4514_string() == f"CN={NAME}"


async def test_a_foreign_certificate_is_refused(site: Site, ca: LabCa) -> None:
    await _request(site)
    key = pki.generate_key("rsa2048")
    foreign = ca.issue(pki.certificate_request(key, pki.name(NAME), [NAME]))
    (site.folder / "foreign.pem").write_bytes(foreign)
    refused = await site.refusal("certificate", "import", site.folder / "foreign.pem")
    assert refused.code == "certificate.foreign"
    assert "No key on this server waits" in refused.message
    assert "where its request was made" in refused.cure


async def test_what_is_no_certificate_is_refused(site: Site) -> None:
    (site.folder / "photo.cer").write_bytes(b"\x89PNG")
    refused = await site.refusal("certificate", "import", site.folder / "photo.cer")
    assert "no certificate" in refused.message


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")
async def test_the_exported_pfx_opens_with_openssl_and_holds_the_path(
    site: Site, ca: LabCa
) -> None:
    await _import(site, ca.issue(await _request(site)))
    pfx, password = site.folder / "cmg.pfx", site.secret("pfx-password", "Pfx-Secret-1")
    await site.run(
        *("certificate", "export", NAME, "--output", pfx, "--password-file", password, "--remove")
    )
    assert pfx.stat().st_mode & 0o077 == 0
    command = ["openssl", "pkcs12", "-in", str(pfx), "-nodes", "-passin", f"file:{password}"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.count("BEGIN CERTIFICATE") == 3
    assert done.stdout.count("BEGIN PRIVATE KEY") == 1
    assert await site.run("certificate", "list") == []


async def test_a_pfx_made_elsewhere_is_taken_with_its_password_only(site: Site) -> None:
    root = pki.new_root(pki.name("Corporate CA"), now=utc_now())
    key = pki.generate_key("rsa2048")
    leaf = root.issue(
        key.public_key(), pki.name(NAME), now=utc_now(), days=30, dns=[NAME], usages=["server"]
    )
    file = site.folder / "made-elsewhere.pfx"
    file.write_bytes(pki.pfx_export(key, leaf, [root.certificate], "right", NAME))
    wrong, right = site.secret("wrong", "wrong"), site.secret("right", "right")
    refused = await site.refusal("certificate", "import", file, "--password-file", wrong)
    assert refused.code == "pki.wrong-password"
    made = await site.run("certificate", "import", file, "--password-file", right)
    assert (made["service_name"], made["state"]) == (NAME, "complete")


async def test_a_pfx_without_its_intermediate_names_it_and_is_completed_later(
    site: Site, ca: LabCa
) -> None:
    key = pki.generate_key("rsa2048")
    answer = ca.issue(pki.certificate_request(key, pki.name(NAME), [NAME]))
    leaf, *path = pki.read_certificates(answer)
    file, password = site.folder / "half.pfx", site.secret("right", "right")
    file.write_bytes(pki.pfx_export(key, leaf, [], "right", NAME))
    made = await site.run("certificate", "import", file, "--password-file", password)
    assert made["missing_issuer"] == "CN=Lab Public Issuing CA"
    export = ("certificate", "export", NAME, "--output", site.folder / "x.pfx")
    refused = await site.refusal(*export, "--password-file", password)
    assert refused.code == "certificate.incomplete-path"
    assert "CN=Lab Public Issuing CA" in refused.message
    assert not (site.folder / "x.pfx").exists()
    assert (await _import(site, pki.pem(*path), "path.pem"))["state"] == "complete"
    await site.run(*export, "--password-file", password)
    opened = pki.pfx_open((site.folder / "x.pfx").read_bytes(), "right")
    assert (pki.same_key(opened.key, key), len(opened.chain)) == (True, 2)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"\x89PNG", "not a PFX"),
        (b"", "not a PFX"),
        (pfx("localhost"), "none of it is a service name"),
        (pfx(NAME, usages=["client"]), "not for servers"),
        (pfx(NAME, begins=-60), "expired"),
    ],
)
async def test_a_pfx_that_is_of_no_use_is_refused(site: Site, content: bytes, says: str) -> None:
    (site.folder / "bad.pfx").write_bytes(content)
    words = ("--password-file", site.secret("p", PFX_PASSWORD))
    refused = await site.refusal("certificate", "import", site.folder / "bad.pfx", *words)
    assert says in refused.message
    assert refused.cure
    assert await site.run("certificate", "list") == []


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")
@pytest.mark.parametrize("how", [["PBE-SHA1-3DES"], ["PBE-SHA1-RC2-40"], ["AES-256-CBC"]])
async def test_a_pfx_of_an_older_windows_is_taken_or_refused_in_words(
    site: Site, ca: LabCa, how: list[str]
) -> None:
    key = pki.generate_key("rsa2048")
    answer = ca.issue(pki.certificate_request(key, pki.name(NAME), [NAME]))
    (site.folder / "key.pem").write_bytes(pki.key_pem(key))
    (site.folder / "path.pem").write_bytes(answer)
    file = site.folder / "windows.pfx"
    made = subprocess.run(
        [
            *("openssl", "pkcs12", "-export", "-legacy", "-keypbe", how[0], "-certpbe", how[0]),
            *("-inkey", str(site.folder / "key.pem"), "-in", str(site.folder / "path.pem")),
            *("-passout", "pass:right", "-out", str(file)),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    if made.returncode != 0:
        pytest.skip("this OpenSSL has no legacy provider")
    words = ("certificate", "import", file, "--password-file", site.secret("right", "right"))
    if how == ["PBE-SHA1-RC2-40"] and not _knows_rc2(file):
        refused = await site.refusal(*words)
        assert (refused.code, "encryption" in refused.message) == ("pki.bad-pfx", True)
    else:
        assert (await site.run(*words))["state"] == "complete"


def _knows_rc2(file: Path) -> bool:
    try:
        pkcs12.load_pkcs12(file.read_bytes(), b"right")
    except UnsupportedAlgorithm:
        return False
    return True
