"""Every message of enrollment among the wire examples, through the service's own endpoints.

The table says what each may be answered with; examples that are new in the folder have to be put
into it.
"""

import base64
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from lxml import etree

from mdm_world import Mdm, certificate_request, get_policies, request_token, said, subcode
from tandem import pki

GOOD = {""}
BROKEN = {"s:MessageFormat"}
NOBODY = {"s:Authentication"}
SECURITY = {"s:Authentication", "a:InvalidSecurity"}
UNUSABLE = {"s:Authentication", "s:CertificateRequest", "a:InvalidSecurity"}

EXAMPLES = {
    "Discovery": {
        "discover-docs-certificate": GOOD,
        "discover-docs-onpremise": BROKEN,
        "discover-docs-truncated": BROKEN,
        "discover-fleet-integration-b": BROKEN,
        "discover-fleet-integration-c": GOOD,
        "discover-fleet-testclient": GOOD,
        "discover-intune-style": GOOD,
        "discover-minimal-no-authpolicies": BROKEN,
        "discover-real-win10-19043-b": GOOD,
        "discover-spec-certificate": BROKEN,
        "discover-spec-federated": GOOD,
        "discover-spec-onpremise": BROKEN,
    },
    "Policy": {
        "getpolicies-docs-broken-valuetype": SECURITY,
        "getpolicies-fleet-empty-token": {"a:InvalidSecurity"},
        "getpolicies-fleet-jwt-tpm": NOBODY,
        "getpolicies-real-usernametoken-b": NOBODY,
        "getpolicies-spec-certificate": SECURITY,
        "getpolicies-spec-federated": SECURITY,
        "getpolicies-spec-onpremise": NOBODY,
    },
    "Enrollment": {
        "rst-aadj-device-ztd": NOBODY,
        "rst-docs-certificate": BROKEN,
        "rst-docs-federated-malformed": BROKEN,
        "rst-docs-onpremise": UNUSABLE,
        "rst-fleet-devicetoken": NOBODY,
        "rst-fleet-jwt": NOBODY,
        "rst-minimal-template": SECURITY | BROKEN,
        "rst-real-usernametoken-b": NOBODY,
        "rst-renew-robo": {"s:Authorization"},
        "rst-spec-certificate": UNUSABLE,
        "rst-spec-federated": UNUSABLE,
        "rst-spec-federated-azure-attestation": UNUSABLE,
        "rst-spec-onpremise": UNUSABLE,
    },
}
CASES = [(path, name) for path, names in EXAMPLES.items() for name in names]


def raw(samples: Path, name: str) -> bytes:
    return (samples / "mdm" / f"d2s-{name}.xml").read_bytes()


def test_every_example_is_in_the_table(samples: Path) -> None:
    kinds = ("d2s-discover-", "d2s-getpolicies-", "d2s-rst-")
    there = {f.stem for f in (samples / "mdm").glob("d2s-*.xml") if f.name.startswith(kinds)}
    assert there == {f"d2s-{name}" for _, name in CASES}


@pytest.mark.parametrize("path", EXAMPLES)
async def test_each_example_is_answered_as_it_deserves(mdm: Mdm, samples: Path, path: str) -> None:
    for name, allowed in EXAMPLES[path].items():
        message = raw(samples, name)
        answer = await mdm.soap(path, message)
        assert answer.status_code == 200, name
        assert answer.headers["content-type"] == "application/soap+xml; charset=utf-8"
        assert int(answer.headers["content-length"]) == len(answer.content)
        assert subcode(answer) in allowed, name
        lenient = etree.XMLParser(recover=True)
        identity = etree.fromstring(message, lenient).findtext(".//{*}MessageID") or ""
        if subcode(answer) != "s:MessageFormat":
            assert said(answer)["RelatesTo"] == identity.strip(), name
        if path == "Discovery" and b"AuthPolicy>" in message and not subcode(answer):
            assert said(answer)["AuthPolicy"] in message.decode(), "one that the device offers"


async def test_a_renewal_is_refused_in_its_own_words(mdm: Mdm, samples: Path) -> None:
    answer = await mdm.soap("Enrollment", raw(samples, "rst-renew-robo"))
    assert said(answer)["ErrorType"] == "NotEligibleToRenew"


@pytest.mark.parametrize(
    ("name", "store"), [("rst-fleet-jwt", "User"), ("rst-aadj-device-ztd", "System")]
)
async def test_an_example_with_a_good_token_enrols(
    mdm: Mdm, samples: Path, name: str, store: str
) -> None:
    """The rest of the message stays as it was captured: items, CSR with line breaks, white space."""
    user = await mdm.world.user("alex")
    token = await mdm.mdm_token(await mdm.world.joined(user.user_principal_name))
    top = etree.fromstring(raw(samples, name).strip())
    tokens: list[Any] = list(top.iter("{*}BinarySecurityToken"))
    tokens[0].text = base64.b64encode(token.encode()).decode()
    answer = await mdm.soap("Enrollment", b"\n  " + etree.tostring(top))
    assert subcode(answer) == "", answer.text
    document = etree.fromstring(base64.b64decode(said(answer)["BinarySecurityToken"]))
    (encoded,) = document.xpath(f"//*[@type='My']/*[@type='{store}']//@value")
    leaf = x509.load_der_x509_certificate(base64.b64decode(encoded))
    request = base64.b64decode(tokens[1].text)
    assert leaf.public_key() == pki.windows_request(request)


# ------------------------------------------------------------------ what we send, beside theirs


def shape(element: Any) -> list[str]:
    """Paths of a document's elements; hashes stand for any hash."""
    found = []
    for item in element.iter():
        path = []
        while item is not None:
            kind, name = item.get("type", ""), item.get("name", "")
            kind = "#" if len(kind) == 40 else kind
            path.append(etree.QName(item).localname + (f"[{kind or name}]" if kind or name else ""))
            item = item.getparent()
        found.append("/".join(reversed(path)))
    return found


async def test_the_provisioning_document_is_built_like_one_that_windows_took(
    mdm: Mdm, samples: Path
) -> None:
    theirs = etree.parse(str(samples / "mdm" / "s2d-wap-provisioningdoc-real-b.xml")).getroot()
    ours = (await mdm.enrolled()).document
    provider = ours.xpath("//parm[@name='PROVIDER-ID']/@value")[0]
    wanted = {
        line.replace("DEMO MDM", provider).replace("[User]", "[System]")
        for line in shape(theirs)
        # Optional, and only for the enrollment client to set (section 7).
        if not line.endswith(("parm[ServerList]", "parm[ROLE]"))
    }
    assert wanted <= set(shape(ours))
    assert [item.get("type") for item in ours] == [item.get("type") for item in theirs]


async def test_the_policy_holds_every_element_of_the_specifications(
    mdm: Mdm, samples: Path
) -> None:
    theirs = etree.parse(str(samples / "mdm" / "s2d-getpolicies-response-spec.xml")).getroot()
    user = await mdm.world.user("alex")
    token = await mdm.mdm_token(await mdm.world.joined(user.user_principal_name))
    ours = etree.fromstring((await mdm.soap("Policy", get_policies(token))).content)
    # Attestation is for enrollment versions that are not answered here (section 5).
    attested = ("}AttestationFailureBehavior", "}OperationTimeout")
    assert body(ours) == [line for line in body(theirs) if not line.endswith(attested)]


async def test_discovery_holds_every_element_of_the_real_one_in_order(
    mdm: Mdm, samples: Path
) -> None:
    theirs = etree.parse(str(samples / "mdm" / "s2d-discover-response-spec-federated.xml"))
    message = raw(samples, "discover-real-win10-19043-b")
    ours = etree.fromstring((await mdm.soap("Discovery", message)).content)
    assert body(ours) == body(theirs.getroot())


async def test_the_certificates_answer_is_built_like_one_that_windows_took(
    mdm: Mdm, samples: Path
) -> None:
    theirs = etree.parse(str(samples / "mdm" / "s2d-rstrc-response-real.xml")).getroot()
    user = await mdm.world.user("alex")
    token = await mdm.mdm_token(await mdm.world.joined(user.user_principal_name))
    request = certificate_request(pki.generate_key("rsa2048"))
    answer = await mdm.soap("Enrollment", request_token(token, request))
    ours = etree.fromstring(answer.content)
    assert body(ours) == body(theirs)
    for path in (".//{*}Security/{*}Timestamp/{*}Created", ".//{*}Action", ".//{*}RelatesTo"):
        assert ours.find(path) is not None, path
        assert ours.find(path).tag == theirs.find(path).tag


def body(envelope: Any) -> list[str]:
    """The tags of a body with their attributes' names, in order."""
    found = envelope.find("{*}Body")
    return [
        " ".join([item.tag, *sorted(k for k in item.attrib if k != "Id")])
        for item in found.iter()
        if item is not found and isinstance(item.tag, str)
    ]
