"""Co-management: enablement, the seven workloads, and the policies that come of them.

Owns the tables comanagement_…. `policy_content` is what the management point signs for a client.
Events: comanagement.switched (subject: the workload).
"""

from tandem.site.comanagement.http import routes
from tandem.site.comanagement.model import (
    COMMAND_LINE_LIMIT,
    AutoEnroll,
    Enablement,
    NeedsCollection,
    NotEnabled,
    Policy,
    Prerequisites,
    Slider,
    TooLongCommandLine,
    UnknownWorkload,
    command_line,
    read_workload,
)
from tandem.site.comanagement.service import (
    Collaborators,
    Move,
    Status,
    command_line_now,
    decided,
    enable,
    enablement,
    policies,
    policies_for,
    policy_content,
    sliders,
    status,
    switch,
)

__all__ = [
    "COMMAND_LINE_LIMIT",
    "AutoEnroll",
    "Collaborators",
    "Enablement",
    "Move",
    "NeedsCollection",
    "NotEnabled",
    "Policy",
    "Prerequisites",
    "Slider",
    "Status",
    "TooLongCommandLine",
    "UnknownWorkload",
    "command_line",
    "command_line_now",
    "decided",
    "enable",
    "enablement",
    "policies",
    "policies_for",
    "policy_content",
    "read_workload",
    "routes",
    "sliders",
    "status",
    "switch",
]
