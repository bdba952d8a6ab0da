"""What the pages of co-management call things. These are message ids."""

from collections.abc import Mapping
from typing import Any

from tandem.console.kit import N_, ROOT, Page
from tandem.workloads import CATALOGUE, Workload

API = "/api/v1/comanagement"
PATH = f"{ROOT}/comanagement"
WIZARD = "co-management"

# By the API's names, in the order of the field's pages. The shell's catalogue has the titles'
# French, api-workloads.po that of the other sentences.
WORKLOADS = {item.value: item.title for item in Workload}
COVERS = {item.value: CATALOGUE[item].covers for item in Workload}
POSITIONS = (
    ("site", N_("Configuration Manager")),
    ("pilot", N_("Pilot MDM")),
    ("mdm", N_("MDM service")),
)
POSITION = dict(POSITIONS)
ENROLS = (
    ("none", N_("None"), N_("The site enrols nobody. Devices enrol by themselves.")),
    ("pilot", N_("Pilot"), N_("The site enrols the clients of one collection.")),
    ("all", N_("All"), N_("The site enrols every eligible client, bit by bit.")),
)
ENROL = {value: title for value, title, _ in ENROLS}
FULL = "Full Administrator"
NOT_FULL = N_(
    "Only a full administrator moves workloads: ask one to do it, or to give you the role."
)


def locked(page: Page[Any]) -> str:
    """Why the sliders are grey for this person; empty when they are not."""
    return "" if page.session.role == FULL else NOT_FULL


def title(page: Page[Any], workload: str) -> str:
    return page.language.text(WORKLOADS.get(workload, workload))


def reach(page: Page[Any], preview: Mapping[str, Any]) -> list[str]:
    """The blast radius in sentences: which devices change owner, and which policies come of it."""
    text, plural = page.language.text, page.language.plural
    lines = []
    for item in preview["changes"]:
        name = title(page, item["workload"])
        if item["along"] and (item["to_mdm"] or item["to_site"]):
            name = text(N_("%(workload)s (goes along)"), workload=name)
        named = ", ".join(item["names"])
        if item["to_mdm"]:
            lines.append(
                plural(
                    "%(workload)s: %(number)s device goes to the MDM service (%(names)s)",
                    "%(workload)s: %(number)s devices go to the MDM service (%(names)s)",
                    item["to_mdm"],
                    workload=name,
                    names=named,
                )
            )
        if item["to_site"]:
            lines.append(
                plural(
                    "%(workload)s: %(number)s device goes back to the site (%(names)s)",
                    "%(workload)s: %(number)s devices go back to the site (%(names)s)",
                    item["to_site"],
                    workload=name,
                    names=named,
                )
            )
    if not lines:
        lines.append(text(N_("No co-managed device changes owner.")))
    if preview["enrols"]:
        lines.append(
            plural(
                "The site will enrol %(number)s client into the MDM service.",
                "The site will enrol %(number)s clients into the MDM service.",
                preview["enrols"],
            )
        )
    for name, members in preview["collections"].items():
        lines.append(
            plural(
                "The collection %(name)s is made, with %(number)s device.",
                "The collection %(name)s is made, with %(number)s devices.",
                members,
                name=name,
            )
        )
    for key, message in (
        ("creates", N_("New policies: %(names)s")),
        ("alters", N_("Policies with a new version: %(names)s")),
        ("removes", N_("Policies that are taken back: %(names)s")),
    ):
        if preview[key]:
            lines.append(text(message, names=", ".join(preview[key])))
    return lines


def moving(preview: Mapping[str, Any]) -> int:
    """The most devices that change owner for one workload."""
    return max((item["to_mdm"] + item["to_site"] for item in preview["changes"]), default=0)
