"""Classes that queries read, by the field's names: resources, and what is reported of them.

A resource class is a table with columns. Every other class is rows of `collections_inventory`, which
modules above hand in with `report`; it joins by ResourceID.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches


@dataclass(frozen=True, slots=True)
class Attribute:
    """`sql` is the column of a resource class; of other classes the value is looked up by name.
    An attribute that has many values is looked up in `each`, of which `sql` is then the column."""

    name: str
    number: bool = False
    sql: str = ""
    each: str = ""

    @property
    def key(self) -> str:
        return self.name.lower()


@dataclass(frozen=True, slots=True)
class Tables:
    """Where rows are looked for: among all that the site knows, or among those that have changed."""

    resource: str
    user: str
    inventory: str


EVERYTHING = Tables("collections_resource", "collections_known_user", "collections_inventory")
# Temporary tables of one transaction: `evaluation_store.gather`.
CHANGED = Tables("collections_seen_resource", "collections_seen_user", "collections_seen_inventory")


@dataclass(frozen=True, slots=True)
class Class:
    """`kept` names the one of `Tables` that has its rows, `where` which of them they are."""

    name: str
    attributes: tuple[Attribute, ...]
    kept: str = "inventory"
    where: str = ""

    @property
    def key(self) -> str:
        return self.name.lower()

    @property
    def is_resource(self) -> bool:
        return self.kept != "inventory"

    def table(self, among: Tables) -> str:
        found: str = getattr(among, self.kept)
        return found

    def attribute_named(self, name: str) -> Attribute | None:
        key = name.lower()
        return next((found for found in self.attributes if found.key == key), None)


_RESOURCE_ID = Attribute("ResourceID", number=True)

# `{0}` is the name that a statement gives to the row.
SYSTEM = Class(
    "SMS_R_System",
    (
        Attribute("ResourceId", number=True, sql="{0}.id"),
        Attribute("Name", sql="{0}.name"),
        Attribute("NetbiosName", sql="{0}.name"),
        Attribute("SMSUniqueIdentifier", sql="{0}.client_id"),
        Attribute("Client", number=True, sql="CASE WHEN {0}.client_id <> '' THEN 1 ELSE 0 END"),
        Attribute("ClientVersion", sql="{0}.client_version"),
        Attribute(
            "OperatingSystemNameandVersion", sql="trim({0}.os_name || ' ' || {0}.os_version)"
        ),
        Attribute("OperatingSystem", sql="{0}.os_name"),
        Attribute("Build", sql="{0}.os_version"),
        Attribute("AADDeviceID", sql="{0}.device_id"),
        Attribute("AADTenantID", sql="{0}.tenant_id"),
    ),
    kept="resource",
)
USER = Class(
    "SMS_R_User",
    (
        Attribute("ResourceId", number=True, sql="{0}.id"),
        Attribute("Name", sql="{0}.upn"),
        Attribute("UserName", sql="split_part({0}.upn, '@', 1)"),
        Attribute("UniqueUserName", sql="{0}.upn"),
        Attribute("UserPrincipalName", sql="{0}.upn"),
        Attribute("FullUserName", sql="{0}.name"),
        Attribute("Mail", sql="{0}.mail"),
        Attribute("AADUserID", sql="{0}.object_id"),
        Attribute("AADTenantID", sql="{0}.tenant_id"),
        Attribute("SID", sql="{0}.sid"),
        Attribute("FullDomainName", sql="({0}.properties->>'onPremisesDomainName')"),
        Attribute("DistinguishedName", sql="({0}.properties->>'onPremisesDistinguishedName')"),
        Attribute(
            "UserGroupName",
            sql="g.name",
            each="collections_group_member m JOIN collections_known_user g ON g.id = m.group_id"
            " WHERE m.user_id = {0}.id",
        ),
    ),
    kept="user",
    where="{0}.kind = 'user'",
)
USER_GROUP = Class(
    "SMS_R_UserGroup",
    (
        Attribute("ResourceId", number=True, sql="{0}.id"),
        Attribute("Name", sql="{0}.name"),
        Attribute("UsergroupName", sql="{0}.name"),
        Attribute("UniqueUsergroupName", sql="{0}.name"),
        Attribute("SID", sql="{0}.sid"),
        Attribute("MailNickname", sql="({0}.properties->>'mailNickname')"),
        Attribute("AADGroupID", sql="{0}.object_id"),
        Attribute("AADTenantID", sql="{0}.tenant_id"),
    ),
    kept="user",
    where="{0}.kind = 'group'",
)
COMANAGEMENT_STATE = Class(
    "SMS_Client_ComanagementState",
    (
        _RESOURCE_ID,
        Attribute("ComgmtPolicyPresent", number=True),
        Attribute("MDMEnrolled", number=True),
        Attribute("MDMProvisioned", number=True),
        Attribute("WorkloadFlags", number=True),
        Attribute("ClientVersion"),
        Attribute("UPN"),
        Attribute("MDMProvider"),
    ),
)


def _hardware(name: str, *texts: str, numbers: tuple[str, ...] = ()) -> Class:
    found = (*map(Attribute, texts), *(Attribute(number, number=True) for number in numbers))
    return Class(f"SMS_G_System_{name}", (_RESOURCE_ID, *found))


# Hardware inventory. Migrations have an index for each attribute.
HARDWARE = (
    _hardware(
        "OPERATING_SYSTEM",
        "Caption",
        "Version",
        "BuildNumber",
        numbers=("TotalVisibleMemorySize",),
    ),
    _hardware("COMPUTER_SYSTEM", "Name", "Manufacturer", "Model", numbers=("NumberOfProcessors",)),
    _hardware(
        "PROCESSOR",
        "DeviceID",
        "Name",
        "Manufacturer",
        numbers=("NumberOfCores", "NumberOfLogicalProcessors"),
    ),
    _hardware("X86_PC_MEMORY", numbers=("TotalPhysicalMemory",)),
    _hardware("PC_BIOS", "Manufacturer", "SMBIOSBIOSVersion", "ReleaseDate", "SerialNumber"),
    _hardware("LOGICAL_DISK", "DeviceID", "FileSystem", numbers=("Size",)),
    _hardware("NETWORK_ADAPTER", "Name", "MACAddress"),
)
CLASSES: Mapping[str, Class] = {
    found.key: found for found in (SYSTEM, COMANAGEMENT_STATE, *HARDWARE, USER, USER_GROUP)
}


def nearest(word: str, known: list[str]) -> str:
    """The known name that somebody may have meant; empty when none is near."""
    by_key = {name.lower(): name for name in known}
    found = get_close_matches(word.lower(), list(by_key), n=1, cutoff=0.6)
    return by_key[found[0]] if found else ""
