"""Bends XML so that it stays XML: what a parser refuses at once tells nothing of what comes after."""

import random
from copy import deepcopy
from typing import Any

from lxml import etree

XML = {"soap", "syncml", "ddf", "device"}
TEXTS = [
    *("", " ", "0", "1", "-1", "00", "1.5", "nan", "inf", "1e999", "9" * 400, "\u0661", "true"),
    *("a.b.c", "====", "QUJD", "./DevInfo/DevId", "%7B%7D", "200", "1201", "\U0001f4a9", "\ufffd"),
    *("node", "b64", "x" * 300, "urn:uuid:1", "10.0.1", "[0-9]", "[9-0],[", "{0}", "<b/>"),
]


def bend(data: bytes, seed: int) -> bytes | None:
    """The document with some of it changed; None for what is none."""
    chance = random.Random(seed)
    try:
        root: Any = etree.fromstring(data, etree.XMLParser(resolve_entities=False, no_network=True))
    except (etree.XMLSyntaxError, ValueError):
        return None
    for _ in range(chance.randint(1, 4)):
        elements = [item for item in root.iter() if isinstance(item.tag, str)]
        one, other = chance.choice(elements), chance.choice(elements)
        match chance.randrange(7):
            case 0:
                one.text = chance.choice([*TEXTS, other.text or ""])
            case 1 if one.getparent() is not None:
                one.getparent().remove(one)
            case 2 if one.getparent() is not None:
                one.addnext(deepcopy(one))
            case 3 if len(list(other.iter())) < 50:
                one.insert(chance.randint(0, len(one)), deepcopy(other))
            case 4 if one.attrib:
                one.set(chance.choice(list(one.attrib)), chance.choice(TEXTS))
            case 5:
                one.tag = other.tag
            case _:
                one.attrib.update(other.attrib)
    return bytes(etree.tostring(root))
