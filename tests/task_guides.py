"""The commands of the task guides, and words that each of them answers with in the lab.

`docs/guide/tasks.md` names the pages. A page's commands are the lines of its blocks that begin with
`tandem`. A command that is not here, or is no longer on its page, fails a test.
"""

import re
from pathlib import Path

GUIDES = Path(__file__).parents[1] / "docs" / "guide"
# Pages that the index leads to and whose commands are run elsewhere, one by one.
ELSEWHERE = {
    "roll-outs.md",  # Step 7.2 of the lab, and tests/comanagement.
    "one-writer.md",  # The same: each device's ledger is checked there.
    "off-boarding.md",  # tests/comanagement
}
_BY_GATEWAY = r"Enable clients to use a cloud management gateway +Yes"
SHOWS = {
    "broken-hop.md": {
        "tandem health show": r"good +connection-point CP01 → site",
        "tandem connection-point show CP01": r"CP01 → mycmg\.contoso\.com: connected",
        "tandem gateway analyze": r"good +Management point through the gateway",
        "tandem gateway synchronize": r"mycmg\.contoso\.com: Ready",
        "tandem health ports": r"connection-points +tunnel",
    },
    "intranet-or-internet.md": {
        "tandem notify device LAB-002": r"Network: internet\. No management point",
        "tandem notify send evaluate-location --device LAB-002 --wait": r"on LAB-002: done 1",
        "tandem client-settings resultant LAB-002": _BY_GATEWAY,
        "tandem device timeline LAB-002": r"done +trace [0-9a-f]{32}",
    },
    "what-a-slider-covers.md": {
        "tandem comanagement workloads": r"effects on Linux +device-configuration",
        "tandem comanagement workload device-configuration": r"(?s)Files: .*Firewall rules: ",
        "tandem comanagement decode 12333": r"Endpoint Protection +mdm",
        "tandem device show LAB-002": r"(?m)^device-configuration +site +site",
        "tandem managed-device why LAB-002 DeviceLock/MaxInactivityTimeDeviceLock": (
            r"The site owns the workload on this device, so nothing is sent\."
        ),
        "tandem device ledger LAB-002": r"the proof holds",
    },
    "enrolment-that-waits.md": {
        "tandem comanagement show": r"Automatic enrolment: pilot",
        "tandem comanagement enrollments": r"Device +State +Planned for +Tries",
        "tandem comanagement enrollment-errors": r"(?s)0x80180003.*0x80180018.*0x8018002A",
        "tandem device list --failed": r"LAB-NOLICENCE",
        "tandem device timeline LAB-002": r"device: Its workload flags are",
        "tandem license list": r"INTUNE_A",
    },
    "client-app.md": {
        "tandem client package --output ccmsetup.msi": r"Saved .*ccmsetup\.msi",
        "tandem comanagement show": r'CCMSETUPCMD="CCMHOSTNAME=mycmg\.contoso\.com',
        "tandem app list": r"ConfigMgr Client Setup Bootstrap .*published",
        'tandem app status "ConfigMgr Client Setup Bootstrap"': r"LAB-002",
        "tandem app errors": r"0x80070643",
    },
    "tokens-that-ran-out.md": {
        "tandem client list --inactive": r"0 inactive",
        "tandem client list LAB-002": r"LAB-002 .*directory",
        "tandem notify device LAB-002": r"Online; it last asked 2",
        "tandem client-settings resultant LAB-002": _BY_GATEWAY,
        "tandem bulk-registration-token list": r"Good until",
    },
}


def pages() -> set[str]:
    """Those that the index's table leads to."""
    lines = (GUIDES / "tasks.md").read_text("utf-8").splitlines()
    table = "\n".join(line for line in lines if line.startswith("|"))
    return set(re.findall(r"\]\(([a-z-]+\.md)\)", table))


def commands(page: str) -> list[str]:
    blocks = re.findall(r"^```\n(.*?)^```", (GUIDES / page).read_text("utf-8"), re.M | re.S)
    lines = [line for block in blocks for line in block.splitlines()]
    return [line for line in lines if line.startswith("tandem ")]
