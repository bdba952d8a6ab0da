"""What the site deploys to collections of devices or of users: configurations, one setting each.

Owns the tables deployments_…. What reaches many devices waits for a second administrator.
"""

from tandem.site.approvals import Safeguards
from tandem.site.deployments.http import routes
from tandem.site.deployments.model import (
    BadConfiguration,
    Configuration,
    NameTaken,
    NoSuchConfiguration,
    read_workload,
)
from tandem.site.deployments.service import (
    Deployed,
    configurations,
    create,
    delete,
    deployed,
    held,
    holding,
    in_policy,
    named,
    reaching,
    used_for,
    visible,
)

__all__ = [
    "BadConfiguration",
    "Configuration",
    "Deployed",
    "NameTaken",
    "NoSuchConfiguration",
    "Safeguards",
    "configurations",
    "create",
    "delete",
    "deployed",
    "held",
    "holding",
    "in_policy",
    "named",
    "reaching",
    "read_workload",
    "routes",
    "used_for",
    "visible",
]
