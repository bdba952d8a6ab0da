"""Line-of-business apps (MSI), whom they are for, and what became of them on devices.

Owns the tables mobile_apps_…. The status here is the MSI's; what the MSI started is the agent's to
tell.
"""

from tandem.tenant.mobile_apps.http import routes
from tandem.tenant.mobile_apps.model import (
    COMMAND_LINE_LIMIT,
    PACKAGE_LIMIT,
    App,
    Assignment,
    BadApp,
    LinkExpired,
    NoSuchApp,
    NotPublished,
    Status,
    WrongFile,
)
from tandem.tenant.mobile_apps.service import (
    Content,
    app,
    apps,
    assign,
    assignments,
    choose,
    commit,
    create,
    delete,
    forget_device,
    required,
    save_status,
    statuses,
    update,
)

__all__ = [
    "COMMAND_LINE_LIMIT",
    "PACKAGE_LIMIT",
    "App",
    "Assignment",
    "BadApp",
    "Content",
    "LinkExpired",
    "NoSuchApp",
    "NotPublished",
    "Status",
    "WrongFile",
    "app",
    "apps",
    "assign",
    "assignments",
    "choose",
    "commit",
    "create",
    "delete",
    "forget_device",
    "required",
    "routes",
    "save_status",
    "statuses",
    "update",
]
