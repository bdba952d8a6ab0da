"""The site's own administrators, their sign-in and their sessions.

Owns the tables administrators_administrator and administrators_session. Sign-in needs neither the
tenant nor the internet; an account of the tenant may sign in once a full administrator added it.
"""

from tandem.site.administrators.http import Gate, Require, allow, read_role, routes
from tandem.site.administrators.model import (
    Administrator,
    AdministratorsSettings,
    BadAccount,
    LastFullAdministrator,
    NameTaken,
    NoSuchAdministrator,
    NotAllowed,
    NotSignedIn,
    Role,
    Session,
    SignInFailed,
    TooManyAttempts,
    WeakPassword,
)
from tandem.site.administrators.service import (
    add,
    add_external,
    administrators,
    authenticate,
    create_first,
    find_external,
    remove,
    session,
    sign_in,
    sign_in_external,
    sign_out,
)

__all__ = [
    "Administrator",
    "AdministratorsSettings",
    "BadAccount",
    "Gate",
    "LastFullAdministrator",
    "NameTaken",
    "NoSuchAdministrator",
    "NotAllowed",
    "NotSignedIn",
    "Require",
    "Role",
    "Session",
    "SignInFailed",
    "TooManyAttempts",
    "WeakPassword",
    "add",
    "add_external",
    "administrators",
    "allow",
    "authenticate",
    "create_first",
    "find_external",
    "read_role",
    "remove",
    "routes",
    "session",
    "sign_in",
    "sign_in_external",
    "sign_out",
]
