"""One table of status texts: in the code, in the docs, and nowhere a third."""

import ast
import re
from pathlib import Path

import tandem.gateway
import tandem.pki
from tandem import pki
from tandem.gateway.statuses import STATUSES, refusal

PAGE = Path(__file__).parents[2] / "docs/protocols/gateway.md"
_ROW = re.compile(r"^\| (\d{3}) `(CMG\w+)` \| (.+) \| (.+) \|$", re.MULTILINE)


def test_the_docs_have_the_same_table() -> None:
    rows = {
        code: (int(status), cause, cure)
        for status, code, cause, cure in _ROW.findall(PAGE.read_text("utf-8"))
    }
    assert rows == {code: (item.status, item.cause, item.cure) for code, item in STATUSES.items()}


def test_no_refusal_has_a_status_text_that_is_not_in_the_table() -> None:
    """Also those with a text of their own: gate and connection point write some with their case."""
    found = set()
    folders = (Path(tandem.gateway.__path__[0]), Path(tandem.pki.__path__[0]))
    for path in (path for folder in folders for path in folder.glob("*.py")):
        if path.name == "statuses.py":
            continue
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Constant) and re.fullmatch(r"CMG[SC]\w+_\w+", str(node.value)):
                found.add(node.value)
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "Refusal":
                words = [a.value for a in node.args if isinstance(a, ast.Constant)]
                if str(words[1:2]).startswith("['CMG"):
                    assert STATUSES[words[1]].status == words[0], (path.name, words)
    # Names of alarms that no client is refused with.
    found -= {alarm.value for alarm in pki.Alarm} - set(STATUSES)
    assert found <= set(STATUSES)
    assert set(STATUSES) <= found, "an entry that nobody uses"


def test_what_cannot_be_helped_by_asking_again_has_no_retry_after() -> None:
    for code, item in STATUSES.items():
        made = refusal(code)
        assert (made.retry_after > 0) == (
            item.status in {429, 503} or code.endswith("Disconnected")
        )
        assert made.message
        assert made.cure
