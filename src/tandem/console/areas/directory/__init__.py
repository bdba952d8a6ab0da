"""The tenant's directory: users, groups, roles, licences, applications, enrolment, logs."""

from typing import Any

from starlette.routing import BaseRoute

from tandem.console.areas.directory import (
    applications,
    audits,
    deleted,
    domains,
    enrolment,
    enrolment_ways,
    forms,
    groups,
    licences,
    roles,
    users,
)
from tandem.console.kit import N_, Area, Console, Place

_PARTS = (
    users,
    groups,
    roles,
    licences,
    applications,
    enrolment,
    enrolment_ways,
    domains,
    deleted,
    audits,
)


def _routes(console: Console[Any]) -> list[BaseRoute]:
    return [
        console.route(f"{forms.PICK}/{{field}}", forms.pick),
        *(route for part in _PARTS for route in part.routes(console)),
    ]


_DIRECTORY, _ADMINISTRATION = N_("Directory"), N_("Administration")

AREA = Area(
    name="directory",
    places=(
        Place(users.USERS, N_("Users"), "person", _DIRECTORY),
        Place(groups.GROUPS, N_("Groups"), "people_team", _DIRECTORY),
        Place(licences.LICENCES, N_("Licences"), "tag", _DIRECTORY),
        Place(roles.ROLES, N_("Roles"), "shield", _DIRECTORY),
        Place(applications.APPS, N_("App registrations"), "apps_list", _DIRECTORY),
        Place(enrolment.ENROLMENT, N_("Automatic enrolment"), "plug_connected", _DIRECTORY),
        Place(domains.DOMAINS, N_("Domains"), "globe", _DIRECTORY),
        Place(deleted.DELETED, N_("Deleted items"), "delete", _DIRECTORY),
        Place(audits.AUDIT, N_("Audit log"), "history", _ADMINISTRATION),
        Place(audits.SIGN_INS, N_("Sign-in log"), "clipboard_task", _ADMINISTRATION),
    ),
    routes=_routes,
    wizards=(licences.ASSIGN,),
    search=(users.search, groups.search, applications.search),
    notices=(licences.notices, applications.notices),
)

__all__ = ["AREA"]
