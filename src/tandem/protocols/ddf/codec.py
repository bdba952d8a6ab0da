"""DDF v2 in."""

import re
from typing import Any

from lxml import etree

from tandem.protocols.ddf.model import ACTIONS, Allowed, BadDdf, Choice, Leaf, Tree

MS = "http://schemas.microsoft.com/MobileDevice/DM"
OWN = "urn:tandem:ddf"
_LANG = "{http://www.w3.org/XML/1998/namespace}lang"
# The largest published file has some 4 MiB and 3,000 nodes.
_BYTES = 16 * 1024 * 1024
_NODES = 50_000
_DEPTH = 32
_TEXT = 4096
_CHOICES = 1000
_FORMATS = frozenset(
    [
        "b64",
        "bin",
        "bool",
        "chr",
        "date",
        "float",
        "int",
        "node",
        "null",
        "time",
        "xml",
    ]  # the DTD's own list
)
# The published files begin with a DOCTYPE that names the DTD and, inside, holds one processing
# instruction at most. That much is taken off; anything more that a DOCTYPE can say is refused.
_PROLOG = re.compile(
    rb"(?:\xef\xbb\xbf)?\s*(?:<\?xml[^>]{0,200}\?>)?(?:\s|<!--(?:(?!-->).){0,20000}-->){0,50}", re.S
)
_DOCTYPE = re.compile(
    rb"<!DOCTYPE\s+MgmtTree(?:\s+(?:PUBLIC\s+(?:\"[^\"]{0,200}\"|'[^']{0,200}')|SYSTEM)"
    rb"\s+(?:\"[^\"]{0,400}\"|'[^']{0,400}'))?"
    rb"\s*(?:\[\s*(?:<\?[A-Za-z][^>]{0,200}\?>\s*){0,4}\])?\s*>"
)
_NAME = re.compile(r"[^/\x00-\x20\x7f?#]{1,256}|[^/\x00-\x1f\x7f?#]{1,256}")
_RANGE = re.compile(
    r"\[\s*(-?[0-9]{1,19}|0[xX][0-9A-Fa-f]{1,16})\s*(?:-\s*([0-9A-Fa-fxX-]{1,20})\s*)?\]"
)


def read(data: bytes) -> Tree:
    """The leaves of a file. Raises BadDdf.

    No DTD is loaded and no entity is known: a DOCTYPE that declares anything is refused.
    """
    root = _parse(data)
    if etree.QName(root).localname != "MgmtTree":
        raise BadDdf("It is not a MgmtTree.")
    leaves: list[Leaf] = []
    workloads: dict[str, str] = {}
    count = 0
    waiting = [(node, "", "", 1) for node in reversed([n for n in root if _local(n) == "Node"])]
    if not waiting:
        raise BadDdf("It describes no node.")
    while waiting:
        node, above, workload, depth = waiting.pop()
        count += 1
        if count > _NODES:
            raise BadDdf(f"It has more than {_NODES:,} nodes.")
        if depth > _DEPTH:
            raise BadDdf(f"Nodes are nested more than {_DEPTH} deep.")
        uri, properties = _placed(node, above)
        own = _said(properties, OWN, "Workload")
        workload = own or workload
        if own:
            workloads[uri] = own
        inner = [child for child in node if _local(child) == "Node"]
        format = _format(properties, uri)
        if not inner and format != "node":
            leaves.append(_leaf(uri, format, properties, workload))
        waiting += [(child, uri, workload, depth + 1) for child in reversed(inner)]
    return Tree(tuple(leaves), workloads)


def _parse(data: bytes) -> Any:
    if len(data) > _BYTES:
        raise BadDdf(f"It has more than {_BYTES // 1024 // 1024} MiB.")
    prolog = _PROLOG.match(data)
    start = prolog.end() if prolog is not None else 0
    if data[start : start + 9].upper() == b"<!DOCTYPE":
        found = _DOCTYPE.match(data, start)
        if found is None:
            raise BadDdf("Its DOCTYPE declares something; only the published one is taken.")
        data = data[:start] + data[found.end() :]
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        raise BadDdf("It is not UTF-8.") from None
    parser = etree.XMLParser(
        resolve_entities=False,
        no_network=True,
        load_dtd=False,
        huge_tree=False,
        remove_comments=True,
        remove_pis=True,
        encoding="utf-8",
    )
    try:
        root = etree.fromstring(data.removeprefix(b"\xef\xbb\xbf").lstrip(), parser)
    except (etree.XMLSyntaxError, ValueError):
        raise BadDdf("It is not well-formed XML.") from None
    information: Any = root.getroottree().docinfo
    if information.doctype:
        raise BadDdf("It has a DOCTYPE where none belongs.")
    return root


def _local(element: Any) -> str:
    return str(etree.QName(element).localname) if isinstance(element.tag, str) else ""


def _space(element: Any) -> str:
    return etree.QName(element).namespace or "" if isinstance(element.tag, str) else ""


def _child(parent: Any, name: str, space: str | None = None) -> Any:
    if parent is None:
        return None
    for item in parent:
        if _local(item) == name and (space is None or _space(item) == space):
            return item
    return None


def _said(parent: Any, space: str | None, name: str) -> str:
    found = _child(parent, name, space)
    return " ".join((found.text or "").split())[:_TEXT] if found is not None else ""


def _placed(node: Any, above: str) -> tuple[str, Any]:
    """A node's URI and properties."""
    properties = _child(node, "DFProperties")
    name = _said(node, None, "NodeName")
    at = above
    if not above:
        at = _said(node, None, "Path").rstrip("/") or "."
        if at != "." and not at.startswith("./"):
            raise BadDdf(f"The path {at[:100]!r} does not begin with './'.")
        for part in at.split("/")[1:]:
            if not _NAME.fullmatch(part) or part in {".", ".."}:
                raise BadDdf(f"The path {at[:100]!r} is none.")
    if not name:
        title = _said(properties, None, "DFTitle")
        name = "{" + (re.sub(r"[^A-Za-z0-9_-]", "", title)[:64] or "Name") + "}"
    if not _NAME.fullmatch(name) or name in {".", ".."}:
        raise BadDdf(f"A node below {at[:200]!r} has a name that is none: {name[:100]!r}.")
    if properties is None:
        raise BadDdf(f"The node {at[:200]}/{name[:100]} has no DFProperties.")
    return f"{at}/{name}", properties


def _format(properties: Any, uri: str) -> str:
    holder = _child(properties, "DFFormat")
    names = [_local(item) for item in holder] if holder is not None else []
    if len(names) != 1 or names[0] not in _FORMATS:
        raise BadDdf(f"The node {uri[:300]} has no format that is known.")
    return names[0]


def _leaf(uri: str, format: str, properties: Any, workload: str) -> Leaf:
    access = _child(properties, "AccessType")
    default = _child(properties, "DefaultValue")
    applies = _child(properties, "Applicability", MS)
    deprecated = _child(properties, "Deprecated", MS)
    return Leaf(
        uri=uri,
        format=format,
        access=frozenset(_local(item) for item in access if _local(item) in ACTIONS)
        if access is not None
        else frozenset(),
        default=(default.text or "").strip()[:_TEXT] if default is not None else None,
        allowed=_values(properties, uri),
        builds=tuple(
            build.strip()[:40]
            for build in re.split(r"[,;]", _said(applies, MS, "OsBuildVersion"))[:40]
            if build.strip()
        ),
        csp_version=_said(applies, MS, "CspVersion")[:40],
        titles=_texts(properties, "DFTitle", "Title"),
        descriptions=_texts(properties, "Description", "Description"),
        workload=workload,
        deprecated=(deprecated.get("OsBuildDeprecated", "")[:40] or "?")
        if deprecated is not None
        else "",
        reboot=_said(properties, MS, "RebootBehavior")[:40],
    )


def _texts(properties: Any, published: str, own: str) -> dict[str, str]:
    """A text by language: the published one is English, ours say their own."""
    found = {}
    english = _said(properties, None, published)
    if english:
        found["en"] = english
    for item in properties:
        if _local(item) == own and _space(item) == OWN and item.get(_LANG):
            found[item.get(_LANG)[:8]] = " ".join((item.text or "").split())[:_TEXT]
    return found


def _values(properties: Any, uri: str) -> Allowed:
    holder = _child(properties, "AllowedValues", MS)
    if holder is None:
        return Allowed()
    kind = (holder.get("ValueType") or "").strip().lower()
    single = _said(holder, MS, "Value")
    separator = _child(holder, "List", MS)
    delimiter = _delimiter(separator.get("Delimiter") or "") if separator is not None else ""
    match kind:
        case "enum" | "flag":
            choices = tuple(_choices(holder))
            if not choices:
                return Allowed(delimiter=delimiter)
            return Allowed(kind, choices, delimiter=delimiter)
        case "range":
            return Allowed("range", ranges=_ranges(single, uri), delimiter=delimiter)
        case "regex":
            return Allowed("regex", pattern=single, delimiter=delimiter)
        case "admx":
            admx = _child(holder, "AdmxBacked", MS)
            if admx is None:
                return Allowed("admx")
            named = tuple((admx.get(key) or "")[:256] for key in ("Area", "Name", "File"))
            return Allowed("admx", admx=(named[0], named[1], named[2]))
        case "none" | "":
            return Allowed(delimiter=delimiter)
        case _:
            return Allowed("other", pattern=kind, delimiter=delimiter)


def _delimiter(text: str) -> str:
    """As it is, or as the number of the character that it is."""
    if re.fullmatch(r"0[xX][0-9A-Fa-f]{1,4}", text):
        return chr(int(text, 16))
    return text[:8]


def _choices(holder: Any) -> list[Choice]:
    found: list[Choice] = []
    for item in holder:
        if _local(item) != "Enum" or len(found) >= _CHOICES:
            continue
        value = _child(item, "Value", MS)
        texts = {}
        english = _said(item, MS, "ValueDescription")
        if english:
            texts["en"] = english
        for text in item:
            if _space(text) == OWN and text.get(_LANG):
                texts[text.get(_LANG)[:8]] = " ".join((text.text or "").split())[:_TEXT]
        if value is not None:
            found.append(Choice((value.text or "").strip()[:_TEXT], texts))
    return found


def _ranges(text: str, uri: str) -> tuple[tuple[int, int], ...]:
    found: list[tuple[int, int]] = []
    for low, high in _RANGE.findall(text)[:40]:
        try:
            first = int(low, 0) if low.lower().startswith("0x") else int(low)
            last = int(high, 0) if high.lower().startswith("0x") else int(high or low)
        except ValueError:
            raise BadDdf(f"The range {text[:100]!r} of {uri[:300]} is none.") from None
        found.append((first, last))
    if not found:
        raise BadDdf(f"The range {text[:100]!r} of {uri[:300]} is none.")
    return tuple(found)
