"""The checking client's demands: good answers pass them, and each is failed by answers that break
it. A demand without a spoiled answer here could not fail."""

import datetime as dt
import re
from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256

import checked_answers as good
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID

from tandem import pki
from tandem.simulator.checking import MUSTS, Exchange, Facts, Verdict, verdicts
from tandem.simulator.checking.refusals import FAULTS, SESSIONS

Answer = Callable[[], Exchange]
OTHER = rsa.generate_private_key(65537, 2048)
STRANGER = pki.new_root(pki.name("Device CA"), now=good.NOW - dt.timedelta(days=2))


def state(name: str, *exchanges: Exchange) -> Verdict:
    (found,) = [v for v in verdicts(MUSTS, exchanges) if v.name == name]
    return found


def put(answer: Answer, old: str, new: str) -> Answer:
    """The answer with a piece of its body replaced."""

    def made() -> Exchange:
        before = answer()
        assert old in before.body.decode(), old
        return good.with_body(before, before.body.decode().replace(old, new))

    return made


def header(answer: Answer, name: str, value: str | None) -> Answer:
    def made() -> Exchange:
        before = answer()
        kept = tuple((k, v) for k, v in before.headers if k != name)
        return replace(before, headers=(*kept, (name, value)) if value is not None else kept)

    return made


def status(answer: Answer, code: int) -> Answer:
    return lambda: replace(answer(), status=code)


def facts(answer: Answer, **changes: object) -> Answer:
    def made() -> Exchange:
        before = answer()
        return replace(before, facts=replace(before.facts, **changes))  # type: ignore[arg-type]

    return made


def document(old: str, new: str) -> Answer:
    before = good.provisioning()
    assert old in before, old
    return lambda: good.issue(before.replace(old, new))


def certified(certificate: x509.Certificate) -> Answer:
    return lambda: good.issue(good.provisioning(certificate))


def issued(
    serial: int = 1 << 120,
    critical: bool = True,
    ca: bool = False,
    purpose: str = "1.3.6.1.5.5.7.3.2",
) -> x509.Certificate:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "d1")])
    usage = x509.KeyUsage(True, False, False, False, False, False, False, False, False)
    made = (
        x509.CertificateBuilder(good.ROOT.certificate.subject, name, good.KEY.public_key(), serial)
        .not_valid_before(good.NOW - dt.timedelta(days=1))
        .not_valid_after(good.NOW + dt.timedelta(days=1))
        .add_extension(usage, critical)
        .add_extension(x509.BasicConstraints(ca, None), True)
        .add_extension(x509.ExtendedKeyUsage([x509.ObjectIdentifier(purpose)]), False)
    )
    return made.sign(good.ROOT.key, hashes.SHA256())


def exists() -> Exchange:
    return good.heard("http", "exists", (), b"")


def detailed() -> Exchange:
    return good.fault("issue.x", "s:Authorization", "UserLicense")


def renewal() -> Exchange:
    return good.issue(good.renewed(), "issue.renewal")


def asking() -> Exchange:
    return good.asking()


def proved() -> Exchange:
    return good.asking("session.digest", "212", "QW5vdGhlci1ub25jZS1oZXJl", earlier=good.asking())


def early() -> Exchange:
    return good.fault("issue.renewal", "s:Authorization", "NotEligibleToRenew")


def repeated() -> Exchange:
    return good.session("session.again", earlier=good.session())


def working(work: str) -> Answer:
    return lambda: good.session(work=work)


def quiet() -> Exchange:
    return good.session("session.busy", work="", quiet=True)


def nobody() -> Exchange:
    return good.session("session.nobody", user=False)


def page(step: str = "page", said: str = "<p>Sign in</p>") -> Answer:
    return lambda: good.heard("http", step, (), said)


PACKAGE = b"0123456789"


def content() -> Exchange:
    wanted = Facts(sha256=sha256(PACKAGE).hexdigest())
    return good.heard("content", "content", (), PACKAGE, wanted)


def head() -> Exchange:
    answer = good.heard("content", "content.head", (), b"", Facts(earlier=content()))
    return replace(answer, headers=(("content-length", "10"),))


def part() -> Exchange:
    told = (("content-range", "bytes 1-7/10"),)
    answer = good.heard("content", "content.range", told, PACKAGE[1:8], Facts(earlier=content()))
    return replace(answer, status=206)


FINE = [
    *(content, head, part, page(), page("page.data", "No."), status(page("page.script"), 400)),
    *(exists, good.discover, good.policies, good.issue, renewal, early, detailed, good.session),
    *(repeated, quiet, nobody, asking, proved),
]
NODE = "./Vendor/MSFT/Policy/Config/A/B"
CUT = '<parm name="ROBOSupport"'
LEVEL = '<parm name="AAUTHLEVEL" value="CLIENT"/>'
POLL = re.findall(r'<characteristic type="Poll">.*?</characteristic>', good.provisioning())[0]
SPOILED: dict[str, list[Answer]] = {
    "page.address": [
        page("page.script", "<form action='javascript:alert(document.domain)'>"),
        header(page("page.elsewhere"), "location", "https://elsewhere.example/take"),
    ],
    "page.escaped": [page("page.markup", '<p>x"><script>alert(4711)</script>')],
    "page.there": [status(page(), 404)],
    "content.hash": [lambda: good.with_body(content(), "other"), status(content, 404)],
    "content.head": [header(head, "content-length", "9"), status(head, 405)],
    "content.range": [
        status(part, 200),
        lambda: good.with_body(part(), PACKAGE),
        header(part, "content-range", None),
    ],
    "http.length": [
        header(good.discover, "content-length", None),
        header(good.session, "content-length", "7"),
    ],
    "http.whole": [header(good.issue, "transfer-encoding", "chunked")],
    "http.plain": [header(good.policies, "content-encoding", "gzip")],
    "exists.empty": [status(exists, 404), lambda: good.with_body(exists(), "hello")],
    "soap.status": [status(good.discover, 500)],
    "soap.type": [
        header(good.discover, "content-type", "text/xml; charset=utf-8"),
        header(good.issue, "content-type", None),
    ],
    "soap.envelope": [
        put(good.discover, "2003/05/soap-envelope", "2003/05/other"),
        put(good.discover, "</s:Envelope>", ""),
        put(good.discover, "<s:Envelope", "<!DOCTYPE x><s:Envelope"),
        put(good.discover, "</s:Body>", "<x/></s:Body>"),
        put(good.discover, "<s:Header>", "<s:Body/><s:Header>"),
    ],
    "soap.action": [
        put(good.discover, "DiscoverResponse</a:Action>", "Discover</a:Action>"),
        put(good.issue, '<a:Action s:mustUnderstand="1">', "<a:Action>"),
        put(detailed, "a:Action", "a:action"),
    ],
    "soap.relates-to": [
        put(good.discover, good.ID, "urn:uuid:0"),
        put(good.issue, "a:RelatesTo", "a:To"),
    ],
    "fault.shape": [
        put(detailed, "s:Receiver", "s:Sender"),
        put(detailed, "s:Authorization", "s:NoSuchThing"),
        put(detailed, "s:Subcode", "s:subcode"),
        put(detailed, ' xml:lang="en-us"', ""),
    ],
    "fault.detail": [
        put(detailed, "UserLicense", "Licence"),
        put(detailed, "<TraceId>t1</TraceId>", ""),
        put(detailed, "<TraceId>t1</TraceId>", "<TraceId/>"),
    ],
    "fault.silent": [
        put(detailed, "No.", "lxml.etree.XMLSyntaxError: line 1, column 2"),
        put(detailed, "No.", "psycopg.errors.UndefinedTable"),
    ],
    "discover.order": [
        put(good.discover, "AuthenticationServiceUrl", "AuthServiceUrl"),
        put(good.discover, "<AuthPolicy>Federated</AuthPolicy>", ""),
        put(
            good.discover,
            "<AuthPolicy>Federated</AuthPolicy><EnrollmentVersion>4.0</EnrollmentVersion>",
            "<EnrollmentVersion>4.0</EnrollmentVersion><AuthPolicy>Federated</AuthPolicy>",
        ),
    ],
    "discover.policy": [put(good.discover, ">Federated<", ">Certificate<")],
    "discover.version": [put(good.discover, "4.0", "6.0"), put(good.discover, "4.0", "four")],
    "discover.sign-in": [
        put(good.discover, ">Federated<", ">OnPremise<"),
        put(good.discover, f"{good.URL}/Auth<", "<"),
    ],
    "discover.urls": [
        put(good.discover, f"{good.URL}/Policy.svc", f" {good.URL}/Policy.svc"),
        put(good.discover, f"{good.URL}/Auth", "http://mdm.example/Auth"),
    ],
    "discover.one-host": [
        put(good.discover, f"{good.URL}/Policy.svc", "https://p.example/Policy.svc")
    ],
    "policies.order": [
        put(good.policies, '<keySpec xsi:nil="true"/>', ""),
        put(good.policies, '<extensions xsi:nil="true"/>', "<extensions/>"),
        put(good.policies, "<policySchema>3</policySchema>", ""),
        put(good.policies, "<defaultName>szOID_NIST_sha256</defaultName>", ""),
        put(good.policies, "<revision>", '<revision xmlns="urn:x">'),
    ],
    "policies.schema": [put(good.policies, "<policySchema>3", "<policySchema>2")],
    "policies.key": [put(good.policies, ">2048<", ">1024<"), put(good.policies, ">2048<", "><")],
    "policies.hash": [
        put(good.policies, "2.16.840.1.101.3.4.2.1", "1.3.14.3.2.26"),
        put(good.policies, "<oIDReferenceID>0", "<oIDReferenceID>1"),
    ],
    "issue.timestamp": [
        facts(good.issue, at=good.NOW + dt.timedelta(hours=1)),
        put(good.issue, "u:Created", "u:created"),
        put(good.issue, "o:Security", "o:security"),
    ],
    "issue.order": [
        put(good.issue, "RequestSecurityTokenResponseCollection", "RequestSecurityTokenResponses"),
        put(good.issue, "DispositionMessage", "Disposition"),
        put(good.issue, "DeviceEnrollmentToken", "Token"),
    ],
    "issue.token": [
        put(good.issue, "DeviceEnrollmentProvisionDoc", "Doc"),
        put(good.issue, "#base64binary", "base64binary"),
    ],
    "issue.one-line": [
        put(good.issue, 'base64binary">', 'base64binary">\n'),
        put(good.issue, 'base64binary">', 'base64binary">-'),
    ],
    "document.root": [
        document('version="1.1"', 'version="1.0"'),
        document("wap-provisioningdoc", "provisioning"),
        document('name="NAME" ', ""),
        document(CUT, "<other/>" + CUT),
    ],
    "document.csps": [
        document('type="DMClient"', 'type="Firewall"'),
        lambda: good.issue(good.provisioning().replace('type="APPLICATION"', 'type="DMClient"', 1)),
    ],
    "document.thumbprints": [
        document(pki.sha1_thumbprint(good.LEAF), "A" * 40),
        document(pki.sha1_thumbprint(good.LEAF), pki.sha1_thumbprint(good.LEAF).lower()),
        document('"EncodedCertificate" value="', '"EncodedCertificate" value=" '),
    ],
    "document.authorities": [
        document('type="Root"', 'type="Roots"'),
        lambda: good.issue(good.provisioning(root=good.LEAF)),
        document(
            '<characteristic type="My">',
            '<characteristic type="CA"><characteristic type="System">'
            f"{good.certificate(good.LEAF)}{good.certificate(issued())}"
            '</characteristic></characteristic><characteristic type="My">',
        ),
    ],
    "document.certificate": [
        facts(good.issue, store="User"),
        document(good.certificate(good.LEAF), ""),
    ],
    "document.key": [certified(good.leaf(OTHER))],
    "document.chain": [
        lambda: good.issue(good.provisioning(root=STRANGER.certificate)),
        document('type="Root"', 'type="Roots"'),
    ],
    "document.profile": [
        certified(issued(serial=77)),
        certified(issued(critical=False)),
        certified(issued(ca=True)),
        certified(issued(purpose="1.3.6.1.5.5.7.3.1")),
    ],
    "document.validity": [
        certified(good.leaf(now=good.NOW + dt.timedelta(days=2))),
        facts(good.issue, at=good.NOW + dt.timedelta(days=400)),
    ],
    "document.subject": [facts(good.issue, subject="CN=d1")],
    "document.key-container": [document('<characteristic type="PrivateKeyContainer"/>', "")],
    "document.renew": [
        document('"RenewPeriod"', '"RenewalPeriod"'),
        document('name="RetryInterval" value="4"', 'name="RetryInterval" value="61"'),
        document('"true" datatype="boolean"', '"true" datatype="bool"'),
        document('name="ROBOSupport" value="true"', 'name="ROBOSupport" value="false"'),
    ],
    "document.account": [
        document('"w7"', '"w4"'),
        document("Example MDM", ""),
        document(f'value="{good.ADDRESS}"', 'value="http://mdm.example/"'),
        document("vnd.syncml.dm+xml", "vnd.syncml.dm+wbxml"),
    ],
    "document.case": [
        document('name="ADDR"', 'name="Addr"'),
        document('type="APPAUTH"', 'type="AppAuth"'),
        document("AAUTHSECRET", "AAuthSecret"),
    ],
    "document.provider": [
        document('"PROVIDER-ID" value="Example"', '"PROVIDER-ID" value="Example MDM"'),
        document('<characteristic type="Example">', '<characteristic type="Another">'),
    ],
    "document.no-init-role": [
        document('<parm name="APPID"', '<parm name="INIT"/><parm name="APPID"'),
        document('<parm name="APPID"', '<parm name="ROLE" value="8"/><parm name="APPID"'),
    ],
    "document.secrets": [
        document(LEVEL, LEVEL.replace("CLIENT", "APPSRV")),
        document("secret-of-the-server", "dummy"),
        document("secret-of-the-server", "secret-of-the-device"),
        document('"DIGEST"', '"BASIC"'),
        document('name="AAUTHNAME" value="u"', 'name="AAUTHNAME" value=""'),
        document('name="AAUTHDATA" value="', 'name="AAUTHDATA" value="!'),
    ],
    "document.criteria": [
        document("Subject=CN%3Dd1", "Subject=CN=d1"),
        document("Subject=CN%3Dd1", "Subject=CN%3Dd2"),
        document("My%5CSystem", "My%5CUser"),
    ],
    "document.identity": [document('name="EntDMID" value="d1"', 'name="EntDMID" value=""')],
    "document.poll": [
        document(POLL, ""),
        document('name="NumberOfFirstRetries" value="8"', 'name="NumberOfFirstRetries" value="0"'),
        document('name="NumberOfFirstRetries" value="8"', 'name="NumberOfFirstRetries" value="x"'),
    ],
    "renewal.refused": [
        lambda: good.fault("issue.renewal", "s:Authentication"),
        lambda: good.fault("issue.renewal", "s:Authorization", "UserLicense"),
    ],
    "renewal.document": [
        lambda: good.issue(step="issue.renewal"),
        lambda: good.issue(good.renewed().replace("PROVIDER-ID", "ADDR"), "issue.renewal"),
        facts(renewal, public_key=OTHER.public_key()),
    ],
    "session.status": [
        status(good.session, 500),
        lambda: good.with_body(good.session(), ""),
        put(good.session, "</SyncML>", ""),
    ],
    "session.type": [header(good.session, "content-type", "text/xml")],
    "message.namespaces": [
        put(good.session, "SYNCML:SYNCML1.2", "SYNCML:SYNCML1.1"),
        put(good.session, "syncml:metinf", "syncml:metinfo"),
        put(good.session, ' xmlns="syncml:metinf"', ""),
    ],
    "message.order": [
        put(
            good.session,
            "<VerDTD>1.2</VerDTD><VerProto>DM/1.2</VerProto>",
            "<VerProto>DM/1.2</VerProto><VerDTD>1.2</VerDTD>",
        ),
        working(f"<Get>{good.item(NODE)}<CmdID>4</CmdID></Get>"),
        working(good.command("Replace", 4, f"<Item><Data>1</Data>{good.meta('int')}</Item>")),
        working(good.command("Get", 4, good.item(NODE).replace("<Target>", "<Other/><Target>"))),
        working(good.command("Get", 4, f"<CmdID>5</CmdID>{good.item(NODE)}")),
    ],
    "message.header": [
        put(good.session, "<SessionID>2F", "<SessionID>30"),
        put(good.session, "DM/1.2", "DM/1.1"),
        put(good.session, f"<Target><LocURI>{good.DEVICE}", "<Target><LocURI>x"),
        put(good.session, f"<Source><LocURI>{good.ADDRESS}", "<Source><LocURI>"),
    ],
    "message.number": [put(good.session, "<MsgID>1", "<MsgID>2")],
    "message.header-status": [
        put(good.session, "<CmdRef>0</CmdRef><Cmd>SyncHdr", "<CmdRef>1</CmdRef><Cmd>SyncHdr"),
        put(good.session, "<Cmd>SyncHdr</Cmd><Data>200", "<Cmd>SyncHdr</Cmd><Data>401"),
        put(good.session, "<SyncBody>", f"<SyncBody>{good.command('Get', 99, good.item(NODE))}"),
    ],
    "message.statuses": [
        put(good.session, "<CmdRef>3</CmdRef>", "<CmdRef>4</CmdRef>"),
        facts(good.session, commands=(("3", "Replace"), ("2", "Alert"))),
        facts(good.session, commands=(("2", "Alert"),)),
        put(good.session, "<Cmd>Alert</Cmd><Data>200", "<Cmd>Alert</Cmd><Data>soon"),
    ],
    "message.statuses-first": [
        put(
            good.session,
            "<Final/>",
            "<Status><CmdID>77</CmdID><MsgRef>1</MsgRef><CmdRef>9</CmdRef><Cmd>Alert</Cmd>"
            "<Data>200</Data></Status><Final/>",
        )
    ],
    "message.ids": [
        put(good.session, "<CmdID>8</CmdID>", ""),
        put(good.session, "<CmdID>8</CmdID>", "<CmdID>0</CmdID>"),
        put(good.session, "<CmdID>8</CmdID>", "<CmdID>4</CmdID>"),
        put(good.session, "<CmdID>1</CmdID>", "<CmdID>10</CmdID>"),
    ],
    "message.final": [
        put(good.session, "<Final/>", ""),
        put(good.session, "</SyncHdr><SyncBody>", "</SyncHdr><SyncBody><Final/>"),
    ],
    "message.size": [facts(good.session, max_bytes=1000)],
    "message.count": [
        working("".join(good.command("Get", n, good.item(NODE)) for n in range(10, 111)))
    ],
    "message.quiet": [lambda: good.session("session.busy", quiet=True)],
    "message.repeat": [lambda: good.session("session.again", earlier=good.session(work=""))],
    "challenge.form": [
        put(asking, "syncml:auth-md5", "syncml:auth-basic"),
        put(asking, "Tm9uY2Utb2YtMTYtYnl0ZXM=", "c2hvcnQ="),
        put(asking, "<Chal>", "<Data>407</Data><Chal>"),
        lambda: good.asking(commands=True),
    ],
    "digest.next-nonce": [
        put(proved, "QW5vdGhlci1ub25jZS1oZXJl", "Tm9uY2Utb2YtMTYtYnl0ZXM="),
        put(proved, "QW5vdGhlci1ub25jZS1oZXJl", ""),
    ],
    "command.item": [
        working(good.command("Get", 4, "")),
        working(good.command("Replace", 4, "<Item><Data>1</Data></Item>")),
    ],
    "command.loc-uri": [
        working(good.command("Get", 4, good.item(uri)))
        for uri in (
            "/Vendor",
            "Vendor/MSFT",
            "./A/{b}",
            "./A/b c",
            "./A//B",
            "./A/../B",
            "./A?x=1",
            "./",
        )
    ],
    "command.user": [
        lambda: good.session(
            work=good.command("Get", 4, good.item("./User/Vendor/MSFT/X")), user=False
        )
    ],
    "command.format": [
        working(good.command("Replace", 4, good.item(NODE, data, kind)))
        for data, kind in (
            ("1", "integer"),
            ("x", "int"),
            ("yes", "bool"),
            ("x", "node"),
            ("!", "b64"),
        )
    ],
    "command.data": [
        working(good.command("Replace", 4, good.item(NODE, "<enabled/>", "chr"))),
        working(good.command("Replace", 4, good.item(NODE, "&lt;a", "xml"))),
        working(
            good.command(
                "Replace", 4, good.item(NODE, "&lt;?xml version='1.0'?&gt;&lt;a/&gt;", "xml")
            )
        ),
        working(good.command("Replace", 4, good.item(NODE, "x" * 524288, "chr"))),
    ],
    "command.get": [
        working(good.command("Get", 4, good.item(NODE, "1", "int"))),
        working(good.command("Delete", 4, good.item(NODE, "", "chr"))),
    ],
    "command.add-exec": [
        put(good.session, good.command("Add", 5, good.item(good.MSI)), ""),
    ],
    "command.atomic": [
        working(good.command("Atomic", 4, good.command(name, 5, good.item(NODE))))
        for name in ("Get", "Atomic")
    ]
    + [
        working(good.command("Atomic", 4, "")),
        working(
            good.command(
                "Atomic",
                4,
                good.command("Add", 5, good.item(NODE))
                + good.command("Replace", 6, good.item(NODE, "1", "int")),
            )
        ),
    ],
    "command.install-job": [
        put(good.session, "AB" * 32, "AB" * 31),
        put(good.session, "TimeOut&gt;10", "TimeOut&gt;256"),
        put(good.session, 'id="{1', 'id="{2'),
        put(good.session, 'Version="1.2.3"', 'Version=""'),
        put(good.session, "https://mdm.example/a.msi", "file:///a.msi"),
        put(good.session, "RetryCount", "Retries"),
        put(good.session, "&lt;/MsiInstallJob&gt;", ""),
        put(good.session, "%7B11111111", "%7Bz1111111"),
    ],
}


def test_a_server_that_does_all_it_must_fails_nothing() -> None:
    found = verdicts(MUSTS, [answer() for answer in FINE])
    assert [(v.name, v.problems) for v in found if v.state == "fail"] == []
    refusals = {*FAULTS, *SESSIONS} - {"refused.no-certificate"}
    assert {v.name for v in found if v.state == "not seen"} == refusals


def test_every_demand_has_an_answer_here_that_fails_it() -> None:
    names = [must.name for must in MUSTS]
    assert len(names) == len(set(names))
    assert {*SPOILED, *FAULTS, *SESSIONS} == set(names)


@pytest.mark.parametrize(
    ("name", "number"),
    [(name, n) for name, answers in SPOILED.items() for n in range(len(answers))],
)
def test_an_answer_that_breaks_a_demand_fails_it(name: str, number: int) -> None:
    found = state(name, SPOILED[name][number]())
    assert found.state == "fail"
    assert found.problems


@pytest.mark.parametrize("name", FAULTS)
def test_a_refusal_in_other_words_or_none_is_a_failure(name: str) -> None:
    wanted = FAULTS[name]
    for subcode in wanted.subcodes:
        fine = good.fault(name, subcode) if subcode else good.soap(name, "<x/>")
        assert state(name, fine).state == "pass"
    others = {"s:EnrollmentServer", "s:Authorization", ""} - wanted.subcodes
    for other in others:
        wrong = good.fault(name, other) if other else good.soap(name, "<x/>")
        assert state(name, wrong).state == "fail"
    assert state(name, good.with_body(good.soap(name, "<x/>"), "oops")).state == "fail"


@pytest.mark.parametrize("name", SESSIONS)
def test_a_session_that_ought_to_be_refused_and_is_not_is_a_failure(name: str) -> None:
    code = next(iter(SESSIONS[name].statuses))
    assert state(name, good.refused(name, code)).state == "pass"
    assert state(name, good.session(name)).state == "fail"
    assert state(name, good.session(name, work="")).state == "fail"
    assert state(name, good.refused(name, 500)).state == "fail"
    earlier = good.refused("refused.no-certificate", 403)
    alike = name != "refused.unknown-device" or code == 403
    found = state(name, good.refused(name, code, earlier=earlier)).state
    assert found == ("pass" if alike else "fail")


def test_a_challenge_without_commands_is_a_refusal_too() -> None:
    """Who may prove itself by digest is asked to, in SyncML (section 11.7)."""
    name = "refused.no-certificate"
    challenge = put(
        lambda: good.session(name, work=""),
        "<Cmd>SyncHdr</Cmd><Data>200",
        "<Cmd>SyncHdr</Cmd><Data>407",
    )
    assert state(name, challenge()).state == "pass"
