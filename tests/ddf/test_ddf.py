"""DDF files: the published format read, every hostile form of it refused, values checked."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tandem.protocols import ddf
from tandem.protocols.ddf import BadDdf, BadValue, Leaf

DOCTYPE = (
    '<!DOCTYPE MgmtTree PUBLIC " -//OMA//DTD-DM-DDF 1.2//EN" '
    '"http://www.openmobilealliance.org/tech/DTD/DM_DDF-V1_2.dtd"'
    '[<?oma-dm-ddf-ver supported-versions="1.2"?>]>'
)


def node(name: str, format: str = "int", more: str = "", inner: str = "", path: str = "") -> str:
    at = f"<Path>{path}</Path>" if path else ""
    return (
        f"<Node><NodeName>{name}</NodeName>{at}<DFProperties><AccessType><Add /><Get /><Replace />"
        f"</AccessType><DFFormat><{format} /></DFFormat><Occurrence><One /></Occurrence>"
        f"<Scope><Dynamic /></Scope><DFType><MIME /></DFType>{more}</DFProperties>{inner}</Node>"
    )


def file(inner: str, doctype: str = DOCTYPE) -> bytes:
    return (
        f'<?xml version="1.0" encoding="UTF-8"?>\n{doctype}\n'
        '<MgmtTree xmlns:MSFT="http://schemas.microsoft.com/MobileDevice/DM"'
        ' xmlns:T="urn:tandem:ddf"><VerDTD>1.2</VerDTD>'
        f"<MSFT:Diagnostics></MSFT:Diagnostics>{inner}</MgmtTree>"
    ).encode()


TOP = "./Device/Vendor/MSFT/Policy/Config"
ENUM = (
    '<DefaultValue>1</DefaultValue><MSFT:AllowedValues ValueType="ENUM">'
    "<MSFT:Enum><MSFT:Value>0</MSFT:Value><MSFT:ValueDescription>Off.</MSFT:ValueDescription>"
    '<T:ValueDescription xml:lang="fr">Non</T:ValueDescription></MSFT:Enum>'
    "<MSFT:Enum><MSFT:Value>1</MSFT:Value></MSFT:Enum></MSFT:AllowedValues>"
    "<MSFT:Applicability><MSFT:OsBuildVersion>10.0.22000, 10.0.19041.1202</MSFT:OsBuildVersion>"
    "<MSFT:CspVersion>1.3</MSFT:CspVersion></MSFT:Applicability>"
)


def test_a_file_of_the_published_format_gives_its_leaves() -> None:
    data = file(
        node(
            "Area",
            "node",
            "<T:Workload>windows-update</T:Workload>",
            node("Name", "int", ENUM),
            TOP,
        )
        + node(
            "WiFi",
            "node",
            inner=node("", "node", "<DFTitle>SSID</DFTitle>", inner=node("WlanXml", "xml")),
            path="./Vendor/MSFT",
        )
    )
    first, second = ddf.read(data).leaves
    assert first.uri == f"{TOP}/Area/Name"
    assert (first.format, first.default, first.workload) == ("int", "1", "windows-update")
    assert [choice.value for choice in first.allowed.choices] == ["0", "1"]
    assert first.allowed.choices[0].texts == {"en": "Off.", "fr": "Non"}
    assert (first.builds, first.csp_version) == (("10.0.22000", "10.0.19041.1202"), "1.3")
    assert first.settable
    assert second.uri == "./Vendor/MSFT/WiFi/{SSID}/WlanXml"


@pytest.mark.parametrize(
    ("spec", "good", "bad"),
    [
        ('ValueType="Range"><MSFT:Value>[0-5],[10]</MSFT:Value>', ["0", "5", "10"], ["6", "-1"]),
        ('ValueType="Range"><MSFT:Value>[0x0-0xF]</MSFT:Value>', ["15", "0xf"], ["16"]),
        (
            'ValueType="Flag"><MSFT:Enum><MSFT:Value>0x1</MSFT:Value></MSFT:Enum>'
            "<MSFT:Enum><MSFT:Value>0x4</MSFT:Value></MSFT:Enum>",
            ["0", "5"],
            ["2", "8"],
        ),
    ],
)
def test_values_are_held_against_what_a_node_allows(
    spec: str, good: list[str], bad: list[str]
) -> None:
    more = f"<MSFT:AllowedValues {spec}</MSFT:AllowedValues>"
    (leaf,) = ddf.read(file(node("N", "int", more, path=TOP))).leaves
    for value in good:
        assert ddf.checked(leaf, value) == str(int(value, 0))
    for value in (*bad, "x", ""):
        with pytest.raises(BadValue):
            ddf.checked(leaf, value)


def test_a_list_is_checked_part_by_part() -> None:
    more = (
        '<MSFT:AllowedValues ValueType="Range"><MSFT:Value>[1-3]</MSFT:Value>'
        '<MSFT:List Delimiter="0xF000" /></MSFT:AllowedValues>'
    )
    (leaf,) = ddf.read(file(node("N", "chr", more, path=TOP))).leaves
    assert ddf.checked(leaf, "1\uf0003") == "1\uf0003"
    with pytest.raises(BadValue):
        ddf.checked(leaf, "1\uf0004")


@pytest.mark.parametrize(
    ("format", "value", "as_sent"),
    [
        ("bool", "1", "true"),
        ("bool", "False", "false"),
        ("int", " 07 ", "7"),
        ("b64", "QU\nI=", "QUI="),
        ("float", "1.5", "1.5"),
        ("null", "", ""),
    ],
)
def test_each_format_has_one_way_to_write_a_value(format: str, value: str, as_sent: str) -> None:
    assert ddf.checked(Leaf("./X/Y", format), value) == as_sent


def test_an_older_windows_does_not_have_what_came_later() -> None:
    builds = ("10.0.22000", "10.0.19041.1202", "10.0.17763.2114")
    for version, has in (
        ("10.0.22631.4317", True),
        ("10.0.19041.1203", True),
        ("10.0.19041.1201", False),
        ("10.0.19045.3000", True),
        ("10.0.17134.5000", False),
        ("unknown", True),
        ("", True),
    ):
        assert ddf.runs_on(builds, version) is has, version
    assert not ddf.runs_on(("10.0.22621",), "10.0.19045.1")
    assert ddf.runs_on((), "10.0.1.1")


BOMB = '<!DOCTYPE MgmtTree [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;&a;">]>'
HOSTILE = {
    "entities": file(node("&b;", path=TOP), BOMB),
    "an external entity": file(
        node("&x;", path=TOP), '<!DOCTYPE MgmtTree [<!ENTITY x SYSTEM "file:///etc/hostname">]>'
    ),
    "a parameter entity": file(
        node("N", path=TOP), '<!DOCTYPE MgmtTree [<!ENTITY % p SYSTEM "http://127.0.0.1/x"> %p;]>'
    ),
    "a DTD inside": file(node("N", path=TOP), "<!DOCTYPE MgmtTree [<!ELEMENT MgmtTree ANY>]>"),
    "another root": file(node("N", path=TOP), "<!DOCTYPE html>"),
    "two DOCTYPEs": file(node("N", path=TOP), DOCTYPE + DOCTYPE),
    "an entity nobody declared": file(node("&nbsp;", path=TOP)),
    "UTF-16": file(node("N", path=TOP)).decode().replace("UTF-8", "UTF-16").encode("utf-16"),
    "Latin-1": file(node("N", path=TOP, more="<DFTitle>é</DFTitle>")).decode().encode("latin-1"),
    "deep nesting": file(
        "".join(
            f"<Node><NodeName>n</NodeName>{'<Path>./X</Path>' if n == 0 else ''}<DFProperties>"
            "<DFFormat><node /></DFFormat></DFProperties>"
            for n in range(40)
        )
        + "</Node>" * 40
    ),
    "no format": file("<Node><NodeName>N</NodeName><DFProperties></DFProperties></Node>"),
    "a format nobody knows": file(node("N", "script", path=TOP)),
    "no properties": file("<Node><NodeName>N</NodeName></Node>"),
    "a name with a slash": file(node("a/b", path=TOP)),
    "a name of dots": file(node("..", path=TOP)),
    "a path that leaves": file(node("N", path="./Device/../Vendor")),
    "no path of a device": file(node("N", path="/etc")),
    "a range of nothing": file(
        node("N", "int", '<MSFT:AllowedValues ValueType="Range"><MSFT:Value>x</MSFT:Value>'
             "</MSFT:AllowedValues>", path=TOP)
    ),
    "nothing": b"",
    "no XML": b"PK\x03\x04",
    "cut off": file(node("N", path=TOP))[:-20],
    "another document": b"<html/>",
    "no node": file(""),
}  # fmt: skip


@pytest.mark.parametrize("why", HOSTILE)
def test_what_is_no_ddf_is_refused(why: str) -> None:
    with pytest.raises(BadDdf) as refusal:
        ddf.read(HOSTILE[why])
    assert "root:" not in str(refusal.value)


def test_a_file_with_more_nodes_than_any_is_refused() -> None:
    with pytest.raises(BadDdf, match="more than"):
        ddf.read(file(node("A", "node", path="./X", inner=node("N") * 50_001)))


@given(st.binary(max_size=400))
def test_no_bytes_do_more_than_be_refused(data: bytes) -> None:
    with suppress(BadDdf):
        ddf.read(data)


@given(st.lists(st.tuples(st.integers(0, 2000), st.binary(max_size=8)), max_size=6))
def test_no_damage_to_a_file_does_more_than_be_refused(edits: list[tuple[int, bytes]]) -> None:
    data = bytearray(file(node("Area", "node", inner=node("Name", "int", ENUM), path=TOP)))
    for at, put in edits:
        data[at % len(data) : at % len(data) + len(put)] = put
    try:
        for leaf in ddf.read(bytes(data)).leaves:
            assert leaf.uri.startswith(".")
    except BadDdf:
        pass


TEXT = st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"]), max_size=60)


@given(st.sampled_from(["chr", "int", "bool", "b64", "float", "xml", "date", "time", "null"]), TEXT)
def test_a_checked_value_is_checked_to_itself(format: str, value: str) -> None:
    leaf = Leaf("./X/Y", format)
    try:
        once = ddf.checked(leaf, value)
    except BadValue:
        return
    assert ddf.checked(leaf, once) == once
