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
    configurations_for,
    create,
    delete,
    deployed,
    holding,
    used_for,
)

__all__ = [
    "BadConfiguration",
    "Configuration",
    "Deployed",
    "NameTaken",
    "NoSuchConfiguration",
    "configurations",
    "configurations_for",
    "create",
    "delete",
    "deployed",
    "holding",
    "read_workload",
    "routes",
    "used_for",
]
