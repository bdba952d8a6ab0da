"""Apps, their content and its upload, whom they are for, and what became of them on devices.

Owns the tables mobile_apps_…. The status here is the MSI's; what the MSI started is the agent's to
tell. `uploads` tells how content arrives; assignments are those of `assignments`, of `OWNER`.
"""

from tandem.tenant.mobile_apps import rules
from tandem.tenant.mobile_apps.http import routes
from tandem.tenant.mobile_apps.model import (
    BLOCK_BYTES,
    COMMAND_LINE_LIMIT,
    FILE_BYTES,
    MSI,
    WIN32,
    WITH_CONTENT,
    App,
    BadApp,
    ContentFile,
    LinkExpired,
    NoSuchApp,
    NoSuchContent,
    NotOpen,
    NotPublished,
    Status,
    UploadState,
    WrongFile,
)
from tandem.tenant.mobile_apps.service import (
    OWNER,
    Content,
    app,
    apps,
    assign,
    assignable,
    choose,
    create,
    delete,
    forget_device,
    forget_status,
    publish,
    required,
    save_status,
    statuses,
    unwanted,
    update,
)
from tandem.tenant.mobile_apps.store import files, versions
from tandem.tenant.mobile_apps.uploads import UNSTAGE, Uploads
from tandem.tenant.mobile_apps.uploads_http import upload_routes

__all__ = [
    "BLOCK_BYTES",
    "COMMAND_LINE_LIMIT",
    "FILE_BYTES",
    "MSI",
    "OWNER",
    "UNSTAGE",
    "WIN32",
    "WITH_CONTENT",
    "App",
    "BadApp",
    "Content",
    "ContentFile",
    "LinkExpired",
    "NoSuchApp",
    "NoSuchContent",
    "NotOpen",
    "NotPublished",
    "Status",
    "UploadState",
    "Uploads",
    "WrongFile",
    "app",
    "apps",
    "assign",
    "assignable",
    "choose",
    "create",
    "delete",
    "files",
    "forget_device",
    "forget_status",
    "publish",
    "required",
    "routes",
    "rules",
    "save_status",
    "statuses",
    "unwanted",
    "update",
    "upload_routes",
    "versions",
]
