"""XML of strangers: read without entities, document types, the network, or surprises of encoding."""

import re
from typing import Any

from lxml import etree

MAX_DEPTH = 64
_TOO_DEEP = etree.XPath(f"boolean({'/*' * (MAX_DEPTH + 1)})")
_BOM = b"\xef\xbb\xbf"
# What may stand before the root or a document type. Nothing is tried twice, whatever stands there.
_PROLOG = re.compile(rb"(?:[ \t\r\n]++|<\?.*?\?>|<!--.*?-->)*+", re.DOTALL)
_ENCODING = re.compile(rb"<\?xml[^>]*?\sencoding\s*=\s*[\"']([A-Za-z0-9._\-]*)[\"']")
_ENCODINGS = {b"utf-8", b"utf8", b"us-ascii", b"ascii", b"iso-8859-1", b"latin1"}


class BadXml(ValueError):
    """The bytes are no XML that is read here; the text says why, without any of them."""


def parse(data: bytes) -> Any:
    """The root element, without comments and instructions. Raises BadXml.

    A BOM and white space before the root are passed over. Encodings that hide what they say from
    whoever looks at the bytes (UTF-16, UTF-7, EBCDIC) are refused, and so is a document type, before
    a parser sees it.
    """
    data = data.removeprefix(_BOM).lstrip()
    declared = _ENCODING.match(data)
    if not data.startswith(b"<") or b"\0" in data[:4]:
        raise BadXml("not XML in UTF-8")
    if declared and declared[1].lower() not in _ENCODINGS:
        raise BadXml("not UTF-8")
    prolog = _PROLOG.match(data)
    if prolog is not None and data.startswith(b"<!", prolog.end()):
        raise BadXml("a DOCTYPE is not taken")
    parser = etree.XMLParser(
        resolve_entities=False,
        no_network=True,
        load_dtd=False,
        huge_tree=False,
        remove_comments=True,
        remove_pis=True,
    )
    try:
        root: Any = etree.fromstring(data, parser)
    except (etree.XMLSyntaxError, ValueError):
        raise BadXml("not well-formed XML") from None
    if root.getroottree().docinfo.doctype:
        raise BadXml("a DOCTYPE is not taken")
    if _TOO_DEEP(root):
        raise BadXml("nested too deeply")
    return root
