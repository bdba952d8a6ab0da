import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tandem.agent.commandline import BadCommandLine, parse

HOST = "MYCMG.CONTOSO.COM/CCM_Proxy_MutualAuth/72057594037927941"
PLAIN = f"CCMHOSTNAME={HOST} SMSSITECODE=CM1"


@pytest.mark.parametrize(
    "text",
    [
        PLAIN,
        f'CCMSETUPCMD="{PLAIN}"',
        f'/qn CCMSETUPCMD="{PLAIN}" REBOOT=R',
        f'ccmsetupcmd="CCMHOSTNAME={HOST}  SMSSITECODE=cm1"',
        f'CCMHOSTNAME="{HOST}" SMSSITECODE="CM1"',
    ],
)
def test_the_tutorials_command_line_in_all_its_wrappings(text: str) -> None:
    line = parse(text)
    assert (line.host, line.site_code) == (HOST, "CM1")
    assert line.remarks == []


def test_the_fields_full_example_is_refused_for_its_task_sequence_only() -> None:
    example = (
        'CCMSETUPCMD="CCMHOSTNAME=CONTOSO.CLOUDAPP.NET/CCM_Proxy_MutualAuth/72186325152220500 '
        "SMSSITECODE=ABC AADCLIENTAPPID=7506ee10 AADRESOURCEURI=https://contososerver "
        'SMSMP=https://mp1.contoso.com PROVISIONTS=PRI20001"'
    )
    with pytest.raises(BadCommandLine, match="PROVISIONTS cannot be used: task sequences"):
        parse(example)
    line = parse(example.replace(" PROVISIONTS=PRI20001", ""))
    assert line.properties["AADRESOURCEURI"] == "https://contososerver"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "CCMHOSTNAME is missing"),
        ("SMSSITECODE=CM1", "CCMHOSTNAME is missing"),
        (f"CCMHOSTNAME={HOST}", "SMSSITECODE is missing"),
        (f"CCMHOSTNAME={HOST} SMSSITECODE=AUTO", "AUTO finds no site from the internet"),
        (f"CCMHOSTNAME={HOST} SMSSITECODE=CM10", "is not a site code of three characters"),
        (f"CCMHOSTNAME=https://{HOST} SMSSITECODE=CM1", "has a scheme"),
        ("CCMHOSTNAME=mycmg.contoso.com SMSSITECODE=CM1", "is not `<service name>/CCM_Proxy"),
        ("CCMHOSTNAME=a/CCM_Proxy_MutualAuth/x1 SMSSITECODE=CM1", "is not `<service name>"),
        (f"/regtoken: {PLAIN}", "/regtoken has no token"),
        (f"/source:\\\\srv {PLAIN}", "/source cannot be used"),
        (f"/frobnicate {PLAIN}", "/frobnicate is not a parameter of ccmsetup"),
        (f"/retry:soon {PLAIN}", "not a number of minutes"),
        (f"{PLAIN} CCMLOGMAXSIZE=large", "CCMLOGMAXSIZE=large is not a number"),
        ("/?", "/? cannot be used: help installs nothing"),
        (f"loose {PLAIN}", "neither a /parameter nor a PROPERTY=value"),
        (f'CCMHOSTNAME="{HOST} SMSSITECODE=CM1', "quotation mark is not closed"),
        (PLAIN + " " * 1000, "at most 1024"),
    ],
)
def test_refusals_name_what_is_wrong_and_what_to_do(text: str, says: str) -> None:
    with pytest.raises(BadCommandLine) as caught:
        parse(text)
    assert says in caught.value.message
    assert caught.value.cure


def test_what_changes_nothing_is_remarked_on() -> None:
    line = parse(f"/NoCRLCheck /mp:https://mp {PLAIN} FSP=fsp.contoso.com COLOUR=blue")
    assert len(line.remarks) == 4
    assert line.remarks[-1] == "COLOUR is not a property that this client knows. It is ignored."


# Spec 2.17, whole: (what is written, what becomes of it).
FIELD = {
    **dict.fromkeys(("/retry:5", "/downloadtimeout:60", "/forceinstall", "/logon"), "used"),
    **dict.fromkeys(("/mp:https://mp1.contoso.com", "/noservice", "/service"), "remarked"),
    **dict.fromkeys(("/forcereboot", "/BITSPriority:HIGH", "/NoCRLCheck"), "remarked"),
    **dict.fromkeys(("/skipprereq:a.exe;b.exe", "/ExcludeFeatures:ClientUI"), "remarked"),
    "/regtoken:t": "used",
    "/UsePKICert": "used",
    **dict.fromkeys(("/?", "/source:\\\\srv\\c"), "refused"),
    "/config:c:\\p.ini": "refused",
    **dict.fromkeys(("SMSMP=https://mp1.contoso.com", "AADTENANTID=t", "AADCLIENTAPPID=a"), "used"),
    **dict.fromkeys(("AADRESOURCEURI=https://x", "CCMALWAYSINF=1"), "used"),
    **dict.fromkeys(("CCMLOGMAXSIZE=20000", "CCMLOGMAXHISTORY=2"), "used"),
    **dict.fromkeys(("CCMCERTSEL=x", "CCMCERTSTORE=x", "CCMFIRSTCERT=1"), "refused"),
    **dict.fromkeys(("CCMCERTISSUERS=x", "PROVISIONTS=PRI20001"), "refused"),
    **dict.fromkeys(
        (
            *("UPGRADETOLATEST=TRUE", "FSP=f", "DNSSUFFIX=d", "SMSPUBLICROOTKEY=0", "NOTIFYONLY=T"),
            *("SMSROOTKEYPATH=p", "RESETKEYINFORMATION=TRUE", "SMSSIGNCERT=c", "CCMLOGLEVEL=0"),
            *("CCMDEBUGLOGGING=1", "CCMENABLELOGGING=TRUE", "CCMEVALINTERVAL=60", "CCMEVALHOUR=1"),
            *("SMSCACHEDIR=d", "SMSCACHESIZE=1", "SMSCACHEFLAGS=f", "CCMHTTPPORT=80"),
            *("CCMHTTPSPORT=443", "CCMINSTALLDIR=d", "SITEREASSIGN=TRUE", "SMSCONFIGSOURCE=P"),
            *("DISABLESITEOPT=TRUE", "DISABLECACHEOPT=TRUE", "CCMADMINS=a"),
        ),
        "remarked",
    ),
}


@pytest.mark.parametrize(("entry", "fate"), FIELD.items())
def test_everything_the_field_knows_is_used_remarked_on_or_refused_by_name(
    entry: str, fate: str
) -> None:
    name = entry.partition(":")[0] if entry.startswith("/") else entry.partition("=")[0]
    text = f"{entry} {PLAIN}" if entry.startswith("/") else f"{PLAIN} {entry}"
    if fate == "refused":
        with pytest.raises(BadCommandLine) as caught:
            parse(text)
        assert caught.value.message.startswith(f"{name} cannot be used: ")
        return
    line = parse(text)
    given = {f"/{key}" for key in line.parameters} | set(line.properties)
    assert (name.lower() in {one.lower() for one in given}) is (fate == "used")
    remarks = [f"{name} changes nothing here"] if fate == "remarked" else []
    assert [remark.rstrip(".").partition(":")[0] for remark in line.remarks] == remarks


def test_uninstalling_needs_no_management_point() -> None:
    assert parse("/uninstall").uninstall


@given(st.text(max_size=80))
def test_any_text_is_read_or_refused(text: str) -> None:
    with contextlib.suppress(BadCommandLine):
        parse(text)
