"""What the site deploys to collections: configurations, one setting each.

Owns the table deployments_configuration.
"""

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
    used_for,
)

__all__ = [
    "BadConfiguration",
    "Configuration",
    "Deployed",
    "NameTaken",
    "NoSuchConfiguration",
    "configurations",
    "create",
    "delete",
    "deployed",
    "held",
    "holding",
    "in_policy",
    "read_workload",
    "routes",
    "used_for",
]
