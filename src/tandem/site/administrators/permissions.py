"""What each operation of the admin API asks of who calls it: one list, which the gate reads.

A new route needs its line here. Without one it is refused to everybody but a full administrator
over All, the role does not start, and the matrix of `tests/administrators/test_operations.py`
fails. Columns: the operation, which roles may (`|`: any of them; a full administrator always),
and how far it reaches:

    site     facts of the site itself: no object that is limited is in the answer
    seen     the operation itself leaves out, or does not find, what who asks may not see
    all      it is about everything: only for who has all scopes and no limiting collection
    KIND:x   about the one object of KIND that the path names at {x}; hidden: not found
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from starlette.routing import BaseRoute, Route, compile_path

from tandem.infra.errors import AppError, Kind
from tandem.site.administrators.model import Administrator, NotAllowed, Role

_ROLES = {
    "read": Role.READ_ONLY_ANALYST,
    "operate": Role.OPERATIONS_ADMINISTRATOR,
    "build": Role.INFRASTRUCTURE_ADMINISTRATOR,
    "full": Role.FULL_ADMINISTRATOR,
}

_TABLE = """
GET    /api/v1/administrators                              read          all
POST   /api/v1/administrators                              full          all
GET    /api/v1/administrators/{name}                       read          all
PATCH  /api/v1/administrators/{name}                       full          all
DELETE /api/v1/administrators/{name}                       full          all
GET    /api/v1/administrators/{name}/permissions           read          all
GET    /api/v1/me                                          read          site
GET    /api/v1/me/permissions                              read          site
POST   /api/v1/me/password                                 read          site
GET    /api/v1/scopes                                      read          all
POST   /api/v1/scopes                                      full          all
GET    /api/v1/scopes/{name}                               read          all
DELETE /api/v1/scopes/{name}                               full          all
GET    /api/v1/scopes/objects                              read          all
GET    /api/v1/scopes/objects/{kind}                       read          all
GET    /api/v1/scopes/objects/{kind}/{id}                  read          all
PUT    /api/v1/scopes/objects/{kind}/{id}                  full          all
PATCH  /api/v1/scopes/objects/{kind}/{id}                  full          all

GET    /api/v1/site                                        read          site
GET    /api/v1/site/audit                                  read          all
GET    /api/v1/site/properties                             read          site
PATCH  /api/v1/site/properties                             build         all
GET    /api/v1/about                                       read          site
GET    /api/v1/endpoints                                   read          all
GET    /api/v1/health                                      read          all
GET    /api/v1/guide                                       read          all
GET    /api/v1/guide/story                                 read          all
GET    /api/v1/expirations                                 read          all
POST   /api/v1/expirations/renew                           build         all
GET    /api/v1/audit                                       read          all
GET    /api/v1/audit/entries                               read          all
GET    /api/v1/audit/heads                                 read          all
GET    /api/v1/audit/key                                   read          site
GET    /api/v1/audit/verification                          read          all
POST   /api/v1/audit/verification                          read          all
GET    /api/v1/search                                      read          seen

GET    /api/v1/collections                                 read          seen
POST   /api/v1/collections                                 operate       seen
POST   /api/v1/collections/preview                         read          seen
GET    /api/v1/collections/classes                         read          site
GET    /api/v1/collections/waiting                         read          seen
GET    /api/v1/collections/{id}                            read          seen
PATCH  /api/v1/collections/{id}                            operate       seen
DELETE /api/v1/collections/{id}                            operate       seen
POST   /api/v1/collections/{id}/evaluate                   operate       seen
GET    /api/v1/collections/{id}/uses                       read          seen
GET    /api/v1/collections/{id}/dependencies               read          seen
GET    /api/v1/collections/{id}/members                    read          seen
POST   /api/v1/collections/{id}/members                    operate       seen
GET    /api/v1/collections/{id}/rules                      read          seen
POST   /api/v1/collections/{id}/rules                      operate       seen
DELETE /api/v1/collections/{id}/rules/{rule:int}           operate       seen
GET    /api/v1/resources                                   read          seen
GET    /api/v1/users                                       read          seen
GET    /api/v1/user-groups                                 read          seen
GET    /api/v1/user-groups/{id}                            read          seen
GET    /api/v1/user-groups/{id}/members                    read          seen
GET    /api/v1/client-settings                             read          site
PATCH  /api/v1/client-settings                             operate       all
GET    /api/v1/client-settings/catalogue                   read          site
GET    /api/v1/client-settings/waiting                     read          all
POST   /api/v1/client-settings/waiting/{id}/approve        operate       all
DELETE /api/v1/client-settings/waiting/{id}                operate       all
GET    /api/v1/client-settings/custom                      read          seen
POST   /api/v1/client-settings/custom                      operate       all
GET    /api/v1/client-settings/custom/{id}                 read          seen
PATCH  /api/v1/client-settings/custom/{id}                 operate       all
DELETE /api/v1/client-settings/custom/{id}                 operate       all
GET    /api/v1/client-settings/custom/{id}/reach           read          all
POST   /api/v1/client-settings/custom/{id}/deployments     operate       all
DELETE /api/v1/client-settings/custom/{id}/deployments/{collection} operate all
GET    /api/v1/client-settings/resultant/{device}          read          seen
GET    /api/v1/client-settings/resultant-user/{user}       read          all
GET    /api/v1/configurations                              read          seen
POST   /api/v1/configurations                              operate       seen
POST   /api/v1/configurations/preview                      read          seen
GET    /api/v1/configurations/waiting                      read          seen
POST   /api/v1/configurations/waiting/{id}/approve         operate       seen
DELETE /api/v1/configurations/waiting/{id}                 operate       seen
DELETE /api/v1/configurations/{id}                         operate       seen
GET    /api/v1/client-package                              read          site
GET    /api/v1/clients                                     read          seen
GET    /api/v1/client-setup                                read          all
GET    /api/v1/clients/{id}                                read          seen
DELETE /api/v1/clients/{id}                                operate       seen
POST   /api/v1/clients/{id}/block                          operate       seen
POST   /api/v1/clients/{id}/unblock                        operate       seen
GET    /api/v1/client-notifications                        read          seen
POST   /api/v1/client-notifications                        operate       seen
GET    /api/v1/client-notifications/actions                read          site
GET    /api/v1/client-notifications/reach                  read          seen
GET    /api/v1/client-notifications/clients/{id}           read          seen
GET    /api/v1/client-notifications/{id}                   read          seen
POST   /api/v1/client-notifications/{id}/cancel            operate       seen
GET    /api/v1/client-conflicts                            read          all
POST   /api/v1/client-conflicts/{id}/decide                operate       all
GET    /api/v1/software-updates                            read          all
POST   /api/v1/software-updates                            operate       all
POST   /api/v1/software-updates/import                     operate       all
POST   /api/v1/software-updates/decisions                  operate       all
GET    /api/v1/software-updates/waiting                    read          all
POST   /api/v1/software-updates/waiting/{id}/approve       operate       all
DELETE /api/v1/software-updates/waiting/{id}               operate       all
GET    /api/v1/software-updates/reach                      read          all
GET    /api/v1/software-updates/devices                    read          all
GET    /api/v1/software-updates/devices/{device}           read          all
GET    /api/v1/software-updates/{id}                       read          all
DELETE /api/v1/software-updates/{id}                       operate       all
DELETE /api/v1/software-updates/{id}/decisions/{collection} operate      all
GET    /api/v1/registration-tokens                         read          all
POST   /api/v1/registration-tokens                         full          all
DELETE /api/v1/registration-tokens/{id}                    full          all
POST   /api/v1/registration-tokens/{id}/block              operate       all
POST   /api/v1/registration-tokens/{id}/unblock            full          all
GET    /api/v1/devices                                     read          seen
POST   /api/v1/devices/selection                           operate       seen
POST   /api/v1/devices/block                               operate       seen
POST   /api/v1/devices/unblock                             operate       seen
POST   /api/v1/devices/add-to-collection                   operate       seen
GET    /api/v1/devices/{id}                                read          seen
GET    /api/v1/devices/{id}/timeline                       read          seen
GET    /api/v1/devices/{id}/settings                       read          seen
GET    /api/v1/devices/{id}/ledger                         read          seen
POST   /api/v1/devices/{id}/ledger/acknowledge              operate       seen

GET    /api/v1/comanagement                                read          all
PUT    /api/v1/comanagement                                full          all
POST   /api/v1/comanagement/preview                        read          all
GET    /api/v1/comanagement/waiting                        read          all
POST   /api/v1/comanagement/waiting/{id}/approve           full          all
DELETE /api/v1/comanagement/waiting/{id}                   full          all
GET    /api/v1/comanagement/dashboard                      read          all
GET    /api/v1/comanagement/prerequisites                  read          all
GET    /api/v1/comanagement/policies                       read          all
GET    /api/v1/comanagement/status                         read          all
GET    /api/v1/comanagement/command-line                   read          all
GET    /api/v1/comanagement/enrollments                    read          all
GET    /api/v1/comanagement/enrollment-errors              read          all
POST   /api/v1/comanagement/enroll-now                     full          all
GET    /api/v1/comanagement/capabilities/{value}           read          site
GET    /api/v1/comanagement/workloads                      read          all
GET    /api/v1/comanagement/workloads/{workload}           read          all
PUT    /api/v1/comanagement/workloads/{workload}           full          all
GET    /api/v1/comanagement/workloads/{workload}/steps     read          all
POST   /api/v1/comanagement/workloads/{workload}/back      full          all
GET    /api/v1/comanagement/offboardings                   read          all
POST   /api/v1/comanagement/offboardings                   full          all
GET    /api/v1/comanagement/offboardings/preview           read          all
GET    /api/v1/comanagement/offboardings/{id}              read          all
POST   /api/v1/comanagement/offboardings/{id}/cancel       full          all
POST   /api/v1/comanagement/offboardings/{id}/readmit      full          all
GET    /api/v1/comanagement/rollouts                       read          all
POST   /api/v1/comanagement/rollouts                       full          all
GET    /api/v1/comanagement/rollouts/{id}                  read          all
GET    /api/v1/comanagement/rollouts/{id}/devices          read          all
POST   /api/v1/comanagement/rollouts/{id}/start            full          all
POST   /api/v1/comanagement/rollouts/{id}/analyse              full          all
POST   /api/v1/comanagement/rollouts/{id}/approve              full          all
POST   /api/v1/comanagement/rollouts/{id}/pause                full          all
POST   /api/v1/comanagement/rollouts/{id}/resume               full          all
POST   /api/v1/comanagement/rollouts/{id}/cancel               full          all
POST   /api/v1/comanagement/rollouts/{id}/back                 full          all

GET    /api/v1/discovery/runs                              read          all
POST   /api/v1/discovery/runs                              operate|build all
GET    /api/v1/discovery/runs/{id:int}                     read          all
POST   /api/v1/discovery/delta-runs                        operate|build all
POST   /api/v1/discovery/group-runs                        operate|build all
GET    /api/v1/discovery/groups/{service}                  read          all
PATCH  /api/v1/discovery/groups/{service}                  build         all
GET    /api/v1/discovery/groups/{service}/found            read          all
POST   /api/v1/discovery/groups/{service}/scope            build         all
DELETE /api/v1/discovery/groups/{service}/scope/{group}    build         all
GET    /api/v1/discovery/schedules/{service}               read          all
PUT    /api/v1/discovery/schedules/{service}               build         all

POST   /api/v1/tenant-sign-in                              build         site
GET    /api/v1/tenant-sign-in/{id}                         build         site
DELETE /api/v1/tenant-sign-in/{id}                         build         site
GET    /api/v1/cloud-environments                          read          site
GET    /api/v1/azure-services                              read          all
POST   /api/v1/azure-services                              build         all
POST   /api/v1/azure-service-apps/verify                   build         all
GET    /api/v1/azure-services/{name}                       read          all
PATCH  /api/v1/azure-services/{name}                       build         all
DELETE /api/v1/azure-services/{name}                       build         all
GET    /api/v1/azure-services/{name}/consent               read          all
POST   /api/v1/azure-services/{name}/consent               build         all
POST   /api/v1/azure-services/{name}/apps/{kind}           build         all
POST   /api/v1/azure-services/{name}/apps/{kind}/import    build         all
POST   /api/v1/azure-services/{name}/secret                build         all
POST   /api/v1/azure-services/{name}/app-settings          build         all
POST   /api/v1/azure-services/{name}/verify                operate|build all
PUT    /api/v1/azure-services/{name}/discovery             build         all
GET    /api/v1/certificates                                read          all
POST   /api/v1/certificates                                build         all
POST   /api/v1/certificates/import                         build         all
POST   /api/v1/certificates/import-pfx                     build         all
GET    /api/v1/certificates/{id}                           read          all
DELETE /api/v1/certificates/{id}                           build         all
POST   /api/v1/certificates/{id}/export                    build         all
POST   /api/v1/certificates/{id}/order                     build         all
GET    /api/v1/gateway-names/{name}                        read          site
GET    /api/v1/gateways                                    read          seen
POST   /api/v1/gateways                                    build         seen
POST   /api/v1/gateways/check                              build         site
GET    /api/v1/gateways/provider                           read          site
POST   /api/v1/gateways/provider/test                      build         site
GET    /api/v1/gateways/{name}                             read          gateway:name
PATCH  /api/v1/gateways/{name}                             build         gateway:name
DELETE /api/v1/gateways/{name}                             build         gateway:name
GET    /api/v1/gateways/{name}/alerts                      read          gateway:name
POST   /api/v1/gateways/{name}/analyze                     build         gateway:name
GET    /api/v1/gateways/{name}/content                     read          gateway:name
DELETE /api/v1/gateways/{name}/content/{content}           build         gateway:name
POST   /api/v1/gateways/{name}/content/{content}/redistribute build      gateway:name
GET    /api/v1/gateways/{name}/dns                         read          gateway:name
POST   /api/v1/gateways/{name}/redeploy                    build         gateway:name
POST   /api/v1/gateways/{name}/start                       build         gateway:name
POST   /api/v1/gateways/{name}/stop                        build         gateway:name
POST   /api/v1/gateways/{name}/synchronize                 build         gateway:name
GET    /api/v1/gateways/{name}/traffic                     read          gateway:name
GET    /api/v1/traffic                                     read          all
GET    /api/v1/trust                                       read          all
POST   /api/v1/trust/roots                                 build         all
DELETE /api/v1/trust/roots/{id:int}                        build         all
POST   /api/v1/trust/crls                                  build         all
GET    /api/v1/connection-points                           read          all
POST   /api/v1/connection-points                           build         all
GET    /api/v1/connection-points/{name}                    read          all
PATCH  /api/v1/connection-points/{name}                    build         all
DELETE /api/v1/connection-points/{name}                    build         all
POST   /api/v1/connection-points/{name}/credentials        build         all
GET    /api/v1/management-point                            read          all
PATCH  /api/v1/management-point                            build         all
GET    /api/v1/software-update-point                       read          all
PATCH  /api/v1/software-update-point                       build         all
PUT    /api/v1/management-point/adminservice/{app_id}      full          all
DELETE /api/v1/management-point/adminservice/{app_id}      full          all
"""
# Whoever comes has no session yet, or ends it.
OPEN = frozenset(
    {
        "POST /api/v1/sign-in",
        "POST /api/v1/sign-out",
        "GET /api/v1/sign-in/tenant",
        "POST /api/v1/sign-in/tenant",
    }
)


class Reach(Enum):
    SITE = "site"
    SEEN = "seen"
    ALL = "all"
    ONE = "one"


@dataclass(frozen=True, slots=True)
class Permission:
    operation: str
    roles: tuple[Role, ...]
    reach: Reach
    # Of Reach.ONE: which kind of object, and where the path names it.
    kind: str = ""
    parameter: str = ""

    def check(self, who: Administrator) -> None:
        """Raises NotAllowed, which says what is missing."""
        if not any(who.role.covers(role) for role in self.roles):
            wanted = self.needs
            raise NotAllowed(
                f"{who.name} is {who.role.value}; this needs {wanted}{self._over}.",
                cure="Ask a full administrator to do it, or to give you the role.",
            )
        if self.reach is Reach.ALL and not who.over_all:
            wanted = self.needs
            raise NotAllowed(
                f"{who.name} is {who.title}; this needs {wanted} over All: all scopes, and no"
                " limiting collection.",
                cure="Ask a full administrator over All to do it, or to widen what you reach.",
            )

    @property
    def needs(self) -> str:
        """The roles in words; a full administrator may all that another may who changes things."""
        some = self.roles
        if Role.READ_ONLY_ANALYST not in some:
            some = (Role.FULL_ADMINISTRATOR, *some)
        return " or ".join(dict.fromkeys(role.value for role in some))

    @property
    def _over(self) -> str:
        full = self.roles == (Role.FULL_ADMINISTRATOR,)
        return " over All" if full and self.reach is Reach.ALL else ""

    def allows(self, who: Administrator) -> bool:
        try:
            self.check(who)
        except NotAllowed:
            return False
        return True


# What a route without a line here needs.
UNDECLARED = Permission("", (Role.FULL_ADMINISTRATOR,), Reach.ALL)


def _read() -> dict[str, Permission]:
    found = {}
    for line in filter(None, _TABLE.splitlines()):
        method, path, roles, reach = line.split()
        kind, _, parameter = reach.partition(":")
        found[f"{method} {path}"] = Permission(
            f"{method} {path}",
            tuple(_ROLES[name] for name in roles.split("|")),
            Reach.ONE if parameter else Reach(reach),
            kind if parameter else "",
            parameter,
        )
    return found


PERMISSIONS = _read()


def _order(operation: str) -> tuple[str, int]:
    """Words before parameters: a path that is both is the word's."""
    return operation.partition(" ")[0], operation.count("{")


_COMPILED = [
    (method, compile_path(path)[0], PERMISSIONS[operation])
    for operation in sorted(PERMISSIONS, key=_order)
    for method, _, path in [operation.partition(" ")]
]


def permission_for(method: str, path: str) -> Permission:
    """What a request needs."""
    method = "GET" if method == "HEAD" else method
    for known, pattern, permission in _COMPILED:
        if known == method and pattern.match(path):
            return permission
    return UNDECLARED


def operations(routes: Sequence[BaseRoute]) -> list[str]:
    """The operations of the admin API among an application's routes."""
    return [
        f"{method} {route.path}"
        for route in routes
        if isinstance(route, Route) and route.path.startswith("/api/v1/")
        for method in sorted(route.methods or ())
        if method != "HEAD"
    ]


def undeclared(routes: Sequence[BaseRoute]) -> list[str]:
    """Operations that say nowhere who may call them."""
    return [one for one in operations(routes) if one not in PERMISSIONS and one not in OPEN]


def check_declared(routes: Sequence[BaseRoute]) -> None:
    """A role that serves these routes does not start before each says who may call it. Raises
    Undeclared."""
    if missing := undeclared(routes):
        raise Undeclared(
            f"Operations without a permission: {', '.join(missing)}.",
            cure="Add a line for each to tandem.site.administrators.permissions.",
        )


class Undeclared(AppError):
    kind, code = Kind.INVALID, "site.undeclared-operation"
