"""What the API's words are called on the pages, and what of a page's address is a filter."""

from collections.abc import Mapping
from typing import Any

from tandem.console import labels
from tandem.console.kit import N_

DEVICES = "/api/v1/devices"
# What the API says of a tenant that has not been read; the page translates it.
NOT_READ_YET = N_("The site has not read it yet.")

OPERATING_SYSTEM = {
    "legacy": N_("Windows 7 and 8.x"),
    "before-1709": N_("Windows 10 before 1709"),
    "current": N_("Windows 10 1709 and later"),
    "other": N_("Other"),
}
FUNNEL = {
    "eligible": N_("Eligible devices"),
    "scheduled": N_("Scheduled"),
    "initiated": N_("Enrolment initiated"),
    "enrolled": N_("Enrolled"),
}
ENROLLMENT = {
    "success-hybrid": N_("Success, hybrid joined"),
    "success-joined": N_("Success, directory joined"),
    "enrolling-hybrid": N_("Enrolling, hybrid joined"),
    "failure-hybrid": N_("Failure, hybrid joined"),
    "failure-joined": N_("Failure, directory joined"),
    "pending-sign-in": N_("Pending user sign-in"),
}
STAGE = {
    "licensed": N_("Licensed"),
    "enrolled": N_("Enrolled"),
    "app-offered": N_("App offered"),
    "msi-installed": N_("MSI installed"),
    "registered": N_("Registered with the site"),
    "policy": N_("Policy present"),
    "co-managed": N_("Co-managed"),
}
MANAGEMENT = {
    "co-managed": N_("Co-managed"),
    "mdm": N_("MDM service"),
    "site": N_("Site"),
    "nobody": N_("Nobody yet"),
}
AUTHORITY = {key.value: title for key, title in labels.AUTHORITY.items()}
POSITION = {key.value: title for key, title in labels.POSITION.items()}
WORKLOAD = {key.value: title for key, title in labels.WORKLOAD.items()}
COLUMNS = {
    "name": N_("Device name"),
    "user": N_("Primary user"),
    "os": N_("OS version"),
    "management": N_("Managed by"),
    "stage": N_("Stage"),
    "client": N_("Client version"),
    "seen": N_("Last seen"),
}

# What can be wrong with a device's ledger; the number is the entry's.
FLAW = {
    "gap": N_("Entries from %(number)s on are missing, and the device has them no longer."),
    "fork": N_(
        "Entry %(number)s exists twice, both signed by this device: its disk was put back to an"
        " earlier state, or copied to another machine."
    ),
    "began-anew": N_(
        "The ledger begins anew though the site has entries of it: what the device had written was"
        " deleted."
    ),
    "bad-entry": N_("Entry %(number)s is not one that this device signed."),
    "altered": N_("Entry %(number)s was changed or removed in the site's database."),
    "not-owner": N_(
        "Entry %(number)s: an authority wrote a setting whose workload it did not own."
    ),
    "removed-first": N_(
        "Entry %(number)s: a value was removed before its successor was confirmed."
    ),
    "unbounded": N_("Entry %(number)s: a hand-over took longer than it may, and nobody was told."),
    "clock-back": N_("Entry %(number)s: the device's clock was turned back."),
    "clock-ahead": N_("Entry %(number)s: the device's clock is ahead of the site's."),
    "state-lost": N_(
        "Entry %(number)s: the device had lost its state, or its client was installed anew; what was"
        " in force then is not known."
    ),
    "new-key": N_("The client was registered with another key, and a new ledger began."),
}
# What an entry tells of.
ENTRY = {
    "begin": N_("The ledger begins"),
    "own": N_("Owns the workload from now on"),
    "confirm": N_("Hand-over confirmed"),
    "overdue": N_("Hand-over overdue: the old values stay"),
    "write": N_("Setting written"),
    "remove": N_("Setting removed"),
    "checkpoint": N_("Shortened: what comes before is in this signature"),
}

# Of each filter: its name, and the words of its values; None where the value is data.
FILTERS: dict[str, tuple[str, Mapping[str, str] | None]] = {
    "search": (N_("Search"), None),
    "management": (N_("Managed by"), MANAGEMENT),
    "os": (N_("Operating system"), OPERATING_SYSTEM),
    "funnel": (N_("Co-management status"), FUNNEL),
    "enrollment": (N_("Enrolment status"), ENROLLMENT),
    "failed": (N_("Enrolment failures"), {"1": N_("Yes")}),
    "stage": (N_("Has reached"), STAGE),
    "missing": (N_("Has not reached"), STAGE),
    "workload": (N_("Workload"), WORKLOAD),
    "owner": (N_("Owner"), AUTHORITY),
    "error": (N_("Error code"), None),
    "unlicensed": (N_("Co-managed without licence"), {"1": N_("Yes")}),
    "blocked": (N_("Blocked"), {"1": N_("Yes")}),
}


def filter_of(query: Mapping[str, str]) -> dict[str, str]:
    """The filter in an address. An unknown word filters nothing: an old bookmark still opens."""
    found = {}
    for name, (_, values) in FILTERS.items():
        value = query.get(name, "").replace("\0", "")
        if name == "search":
            value = value.strip()[:100]
        elif name == "error":
            fits = value.isascii() and value.isdigit() and len(value) < 11
            value = value if fits and int(value) < 2**32 else ""
        elif values is not None and value not in values:
            value = ""
        if value:
            found[name] = value
    return found


def asked(wanted: Mapping[str, str]) -> dict[str, Any]:
    """The filter as the API takes it in a body."""
    found: dict[str, Any] = dict(wanted)
    for name in ("failed", "unlicensed", "blocked"):
        if name in found:
            found[name] = True
    if "error" in found:
        found["error"] = int(found["error"])
    return found


def shown(wanted: Mapping[str, str]) -> list[tuple[str, str, str, bool]]:
    """Each filter that holds: its name, its value, its key, and whether the value is data."""
    found = []
    for name, value in wanted.items():
        title, values = FILTERS[name]
        text = labels.code(int(value)) if name == "error" else value
        found.append((title, values[value] if values else text, name, values is None))
    return found


# Where a device says it is.
NETWORK = {"intranet": N_("Intranet"), "internet": N_("Internet"), "unknown": N_("Not known")}

# What is so with a setting over both authorities, and what became of each one's wish.
SETTING_STATE = {
    "in-force": ("good", N_("In force")),
    "left": ("waiting", N_("Left from before")),
    "waits": ("waiting", N_("On its way")),
    "conflict": ("bad", N_("In conflict")),
    "failed": ("bad", N_("Failed")),
    "nobody": ("plain", N_("Nobody sets it")),
}
ROLE = {
    "wins": N_("wins"),
    "agrees": N_("wants the same"),
    "waits": N_("on its way"),
    "loses": N_("loses"),
}
