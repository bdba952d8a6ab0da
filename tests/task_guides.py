"""The commands of the task guides, and what each shows where it is run as it stands.

`docs/guide/tasks.md` names the pages. A page's commands are the lines of its blocks that begin with
`tandem`; each has to be here, with words of its answer.
"""

import re
from pathlib import Path

GUIDES = Path(__file__).parents[1] / "docs" / "guide"
# Written before there was an index of tasks, in the words of larger places than the lab.
ELSEWHERE = {
    "roll-outs.md": "step 7.2 of the lab plans, starts, halts and switches back",
    "off-boarding.md": "tests/comanagement/test_offboarding*.py",
    "one-writer.md": "step 7.2 of the lab checks each ledger",
    "timeline.md": "tests/fleet",
    "staging.md": "tests/comanagement",
}


def pages() -> list[str]:
    """Those that the index's table leads to, in its order."""
    table = [
        line for line in (GUIDES / "tasks.md").read_text("utf-8").splitlines() if line[:1] == "|"
    ]
    found = [name for line in table for name in re.findall(r"\]\(([a-z-]+\.md)\)", line)]
    return list(dict.fromkeys(found))


def commands(page: str) -> list[str]:
    blocks = re.findall(r"^```\n(.*?)^```", (GUIDES / page).read_text("utf-8"), re.M | re.S)
    lines = [line for block in blocks for line in block.splitlines()]
    return [line for line in lines if line.startswith("tandem ")]
