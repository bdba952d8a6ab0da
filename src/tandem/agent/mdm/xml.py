"""Reading XML of a server: no entities, no DTD, no network."""

from lxml import etree

from tandem.agent.mdm.model import BadAnswer

MAX_BYTES = 4 * 1024 * 1024


def parse(data: bytes) -> etree._Element:
    """The root element. Raises BadAnswer."""
    if len(data) > MAX_BYTES:
        raise BadAnswer("0x80180001", "The management server's answer is too large.")
    parser = etree.XMLParser(
        resolve_entities=False, no_network=True, load_dtd=False, remove_comments=True
    )
    try:
        root = etree.fromstring(data.lstrip(b"\xef\xbb\xbf \t\r\n"), parser)
    except (etree.XMLSyntaxError, ValueError) as error:
        raise BadAnswer("0x80180001", "The management server's answer is not XML.") from error
    if root.getroottree().docinfo.internalDTD is not None:
        raise BadAnswer("0x80180001", "The management server's answer has a document type.")
    return root


def local(element: etree._Element) -> str:
    """The element's name without its namespace; empty for what is no element."""
    tag = element.tag
    return etree.QName(tag).localname if isinstance(tag, str) else ""


def find(element: etree._Element, *names: str) -> etree._Element | None:
    """The first descendant by a path of local names."""
    here: etree._Element | None = element
    for name in names:
        if here is None:
            return None
        here = next((child for child in here if local(child) == name), None)
    return here


def anywhere(element: etree._Element, name: str) -> etree._Element | None:
    return next((item for item in element.iter() if local(item) == name), None)


def text(element: etree._Element | None) -> str:
    """The element's own and inner text, without white space around it."""
    if element is None:
        return ""
    return "".join(str(part) for part in element.itertext()).strip()
