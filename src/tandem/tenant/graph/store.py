"""The SQL of the change log that delta queries read, and of reports over several modules."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from tandem.infra.database import Tx
from tandem.infra.listing import Source
from tandem.tenant.assignments import TargetKind
from tandem.tenant.mobile_apps import intents
from tandem.workloads import Workload


@dataclass(frozen=True, slots=True)
class Changed:
    """An object that something happened to; `gone` is why it may not be there any more."""

    id: str
    gone: str


@dataclass(frozen=True, slots=True)
class MemberChange:
    group_id: str
    member_id: str
    member_sort: str | None
    joined: bool


async def oldest_running(tx: Tx) -> int:
    """All transactions before this one have ended: what they wrote is there to be read."""
    cursor = await tx.execute("SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint AS xid")
    row = await cursor.fetchone()
    assert row is not None
    return int(row["xid"])


async def changed(
    tx: Tx, sort: str, since: int, until: int, after: str, limit: int, only: Sequence[str]
) -> list[Changed]:
    cursor = await tx.execute(
        """SELECT object_id::text AS id,
            CASE WHEN max(seq) FILTER (WHERE what = 'soft-delete')
                > coalesce(max(seq) FILTER (WHERE what = 'purge'), 0)
            THEN 'changed' ELSE 'deleted' END AS gone
        FROM graph_change
        WHERE sort = %(sort)s AND xid >= %(since)s AND xid < %(until)s
            AND object_id > %(after)s::uuid
            AND (%(only)s::uuid[] IS NULL OR object_id = ANY(%(only)s::uuid[]))
        GROUP BY object_id ORDER BY object_id LIMIT %(limit)s""",
        {
            "sort": sort,
            "since": since,
            "until": until,
            "after": after,
            "limit": limit,
            "only": list(only) or None,
        },
    )
    return [Changed(**row) for row in await cursor.fetchall()]


async def member_changes(
    tx: Tx, groups: Sequence[str], since: int, until: int
) -> list[MemberChange]:
    """The last that happened to each membership of these groups."""
    cursor = await tx.execute(
        """SELECT DISTINCT ON (object_id, member_id) object_id::text AS group_id,
            member_id::text AS member_id, member_sort, what = 'member' AS joined
        FROM graph_change
        WHERE sort = 'group' AND xid >= %(since)s AND xid < %(until)s
            AND object_id = ANY(%(groups)s::uuid[]) AND member_id IS NOT NULL
        ORDER BY object_id, member_id, seq DESC""",
        {"groups": list(groups), "since": since, "until": until},
    )
    return [MemberChange(**row) for row in await cursor.fetchall()]


async def prune(tx: Tx, before: datetime) -> int:
    cursor = await tx.execute("DELETE FROM graph_change WHERE at < %s", (before,))
    return cursor.rowcount


# ---------------------------------------------------------------------------------- app statuses


def _members(groups: str) -> str:
    """Everything in these groups, at any depth. Only groups are walked."""
    return f"""(WITH RECURSIVE nested (id) AS ({groups}
        UNION SELECT g.id FROM nested JOIN directory_member m ON m.group_id = nested.id
            JOIN directory_group g ON g.id = m.member_id)
        SELECT m.member_id FROM nested JOIN directory_member m ON m.group_id = nested.id)"""  # noqa: S608


_BITS = " ".join(f"WHEN '{intent.value}' THEN {bit}" for intent, bit in intents.BITS.items())
_BIT = f"(CASE coalesce(a.\"values\"->>'intent', 'required') {_BITS} ELSE 0 END)"
_ASSIGNED = "assignments_assignment a WHERE a.owner_kind = 'mobileApps' AND a.owner_id = %(app)s"


def _everybody(target: TargetKind) -> str:
    return f"""(SELECT coalesce(bit_or({_BIT}), 0) FROM {_ASSIGNED}
        AND a.target = '{target.value}' AND a.filter_mode = 'none')"""  # noqa: S608


# What `intents.explain` says of one device, over all of them: the parameter is the app. Each intent
# is a bit; what includes and what excludes is gathered for users and for devices, and the table that
# resolves it comes as a list by number (`resolved`). A device that is left out by a group counts
# among the rows, and says so.
_GROUPS = f"""nested (bit, out, id) AS (
        SELECT {_BIT}, a.target = '{TargetKind.EXCLUDED_GROUP.value}', a.subject::uuid
        FROM {_ASSIGNED} AND a.target IN ('{TargetKind.GROUP.value}',
            '{TargetKind.EXCLUDED_GROUP.value}') AND a.filter_mode = 'none'
        UNION SELECT n.bit, n.out, g.id FROM nested n
            JOIN directory_member m ON m.group_id = n.id JOIN directory_group g ON g.id = m.member_id),
    given AS (SELECT m.member_id AS id,
            coalesce(bit_or(n.bit) FILTER (WHERE NOT n.out), 0) AS included,
            coalesce(bit_or(n.bit) FILTER (WHERE n.out), 0) AS excluded
        FROM nested n JOIN directory_member m ON m.group_id = n.id GROUP BY m.member_id)"""  # noqa: S608
_MEANT = f"""(WITH RECURSIVE {_GROUPS}
    SELECT m.*, (%(resolved)s::text[])[((m.by_user & ~m.not_user) << 4)
            + (m.by_device & ~m.not_device) + 1] AS intent,
        m.by_user | m.by_device AS included,
        (m.by_user & ~m.not_user) | (m.by_device & ~m.not_device) AS lefts
    FROM (SELECT d.id, d.name, d.upn, d.user_id, d.os_version, d.config_info, d.directory_device_id,
        d.management_agent, coalesce(d.seen_at, d.enrolled_at) AS seen_at,
        s.state AS known, s.code, s.at, s.attempts, s.detail, s.version, s.found,
        {_everybody(TargetKind.ALL_USERS)} | coalesce(u.included, 0) AS by_user,
        coalesce(u.excluded, 0) AS not_user,
        {_everybody(TargetKind.ALL_DEVICES)} | coalesce(v.included, 0) AS by_device,
        coalesce(v.excluded, 0) AS not_device,
        p.brings, NOT p.brings AND d.management_agent = 'configurationManagerClientMdm'
            AND d.workload_flags & {Workload.CLIENT_APPS.bits} = 0 AS sites
    FROM enrollment_device d
    CROSS JOIN (SELECT position('CCMSETUPCMD' IN upper(p.command_line)) > 0 AS brings
        FROM mobile_apps_app p WHERE p.id = %(app)s) p
    LEFT JOIN directory_device o ON o.device_id = nullif(d.directory_device_id, '')::uuid
    LEFT JOIN given u ON u.id = d.user_id::uuid
    LEFT JOIN given v ON v.id = o.id
    LEFT JOIN mobile_apps_status s ON s.app_id = %(app)s AND s.device_id = d.id
    WHERE d.state <> 'unenrolled') m) r"""  # noqa: S608
# A state for each row; the site's say about apps stands before what nobody was told of yet.
_STATE = """CASE WHEN r.included <> 0 AND r.lefts = 0 THEN 'excluded'
    WHEN r.known IS NOT NULL THEN r.known
    WHEN r.sites AND r.intent <> 'notAvailable' THEN 'withheld'
    WHEN r.intent IN ('requiredInstall', 'requiredAndAvailableInstall',
        'requiredAndAvailableInstallWithoutEnrollment') THEN 'notInstalled'
    WHEN r.intent IN ('requiredUninstall', 'notAvailable') THEN 'absent'
    ELSE 'available' END"""
DEVICE_STATUSES = Source(
    _MEANT,
    {
        "id": "r.id",
        "device_name": "r.name",
        "user_principal_name": "r.upn",
        "user_id": "r.user_id",
        "azure_ad_device_id": "r.directory_device_id",
        "os_version": "r.os_version",
        "intent": "r.intent",
        "install_state": _STATE,
        "error_code": "coalesce(r.code, 0)",
        "detail": "coalesce(r.detail, 0)",
        "attempts": "coalesce(r.attempts, 0)",
        "installed_version": "coalesce(r.version, '')",
        "found": "coalesce(r.found, false)",
        "last_sync_date_time": "coalesce(r.at, r.seen_at)",
        "management_agent": "r.management_agent",
        "config_info": "r.config_info",
        "brings_client": "r.brings",
    },
)
# Who is among the rows: a device that is not meant any more, and has something to say, stays.
CONCERNED = "(r.included <> 0 OR r.known IS NOT NULL)"
_WAITING = "('notInstalled', 'offered', 'installing', 'uninstallFailed')"


def app_parameters(app_id: str) -> dict[str, object]:
    """Of these questions about one app."""
    return {"app": app_id, "resolved": intents.words()}


USER_STATUSES = Source(
    f"""(SELECT r.user_id AS id, max(r.upn) AS upn, count(*) AS devices,
        count(*) FILTER (WHERE {_STATE} = 'installed') AS installed,
        count(*) FILTER (WHERE {_STATE} = 'failed') AS failed,
        count(*) FILTER (WHERE {_STATE} = 'excluded') AS excluded,
        count(*) FILTER (WHERE {_STATE} IN {_WAITING}) AS waiting
    FROM {_MEANT} WHERE {CONCERNED} GROUP BY r.user_id) u""",  # noqa: S608
    {
        "id": "u.id",
        "user_principal_name": "u.upn",
        "device_count": "u.devices",
        "installed_count": "u.installed",
        "failed_count": "u.failed",
        "excluded_count": "u.excluded",
        "waiting_count": "u.waiting",
    },
)


async def count_app_states(tx: Tx, app_id: str) -> list[tuple[str, str, int]]:
    """(state of the app, management agent, devices) over all devices that an app concerns."""
    cursor = await tx.execute(
        f"SELECT {_STATE} AS state, r.management_agent AS agent, count(*) AS n FROM {_MEANT}"  # noqa: S608
        f" WHERE {CONCERNED} GROUP BY 1, 2".encode(),
        app_parameters(app_id),
    )
    return [(row["state"], row["agent"], row["n"]) for row in await cursor.fetchall()]


@dataclass(frozen=True, slots=True)
class Reach:
    users: int
    devices: int
    joined: int


async def reach(
    tx: Tx,
    included: Sequence[str],
    excluded: Sequence[str],
    *,
    all_users: bool,
    all_devices: bool,
) -> Reach:
    """How many users these targets mean, how many enrolled devices get something by them, and how
    many joined ones would once they are enrolled."""
    inside = _members("SELECT unnest(%(included)s::uuid[])")
    outside = _members("SELECT unnest(%(excluded)s::uuid[])")
    meant = f"""((%(users)s OR {{user}} IN {inside}) AND {{user}} NOT IN {outside})
        OR ((%(devices)s OR {{object}} IN {inside}) AND {{object}} NOT IN {outside})"""
    enrolled = meant.format(user="d.user_id::uuid", object="o.id")
    joined = meant.format(user="o.owner_id", object="o.id")
    cursor = await tx.execute(
        f"""SELECT (SELECT count(*) FROM directory_user u
                WHERE (%(users)s OR u.id IN {inside}) AND u.id NOT IN {outside}) AS users,
            (SELECT count(*) FROM enrollment_device d
                LEFT JOIN directory_device o ON o.device_id = nullif(d.directory_device_id, '')::uuid
                WHERE d.state <> 'unenrolled' AND ({enrolled})) AS devices,
            (SELECT count(*) FROM directory_device o
                WHERE NOT o.is_managed AND ({joined})) AS joined""".encode(),  # noqa: S608
        {
            "included": list(included),
            "excluded": list(excluded),
            "users": all_users,
            "devices": all_devices,
        },
    )
    row = await cursor.fetchone()
    assert row is not None
    return Reach(**row)


async def count_members(tx: Tx, group_ids: Sequence[str]) -> dict[str, tuple[int, int]]:
    """Users and devices in each of these groups, at any depth."""
    found = {}
    for id in group_ids:
        inside = _members("SELECT %(id)s::uuid")
        cursor = await tx.execute(
            f"""SELECT count(*) FILTER (WHERE o.sort = 'user') AS users,
                count(*) FILTER (WHERE o.sort = 'device') AS devices
            FROM directory_object o WHERE o.id IN {inside}""".encode(),  # noqa: S608
            {"id": id},
        )
        row = await cursor.fetchone()
        assert row is not None
        found[id] = (row["users"], row["devices"])
    return found


@dataclass(frozen=True, slots=True)
class Meant:
    """Whom an object is for, as its assignments say."""

    included: tuple[str, ...] = ()
    excluded: tuple[str, ...] = ()
    all_users: bool = False
    all_devices: bool = False


@dataclass(frozen=True, slots=True)
class Answered:
    """How many devices of these flags and this Windows answered so for a setting; `flags` is None
    without a client that has policy. `answer` is pending, success, notApplicable or error."""

    subject: str
    flags: int | None
    os_version: str
    answer: str
    devices: int


async def settings_answered(
    tx: Tx, meant: Meant, overlap: Sequence[Meant], settings: Sequence[tuple[str, str]]
) -> list[Answered]:
    """What the devices that an object is for answered for its settings and their values; with an
    `overlap` only those that one of these is for, too."""
    parameters: dict[str, Any] = {
        "subjects": [subject for subject, _ in settings],
        "values": [value for _, value in settings],
    }
    conditions = [_meant("m", meant, parameters)]
    if overlap:
        others = [_meant(f"o{n}", one, parameters) for n, one in enumerate(overlap)]
        conditions.append("(" + " OR ".join(others) + ")")
    cursor = await tx.execute(
        f"""WITH target AS MATERIALIZED (SELECT d.id,
                CASE WHEN d.config_info ~ '(^|;)policy=1(;|$)'
                    THEN substring(d.config_info from '(?:^|;)flags=([0-9]{{1,9}})')::integer END AS flags,
                coalesce(nullif(d.inventory->>'os_version', ''), d.os_version) AS os_version
            FROM enrollment_device d
            LEFT JOIN directory_device o ON o.device_id = nullif(d.directory_device_id, '')::uuid
            WHERE d.state = 'enrolled' AND {" AND ".join(conditions)}),
        alike AS MATERIALIZED (SELECT row_number() OVER () AS n, flags, os_version,
            count(*) AS devices FROM target GROUP BY flags, os_version),
        placed AS MATERIALIZED (SELECT t.id, a.n FROM target t JOIN alike a
            ON a.os_version = t.os_version AND a.flags IS NOT DISTINCT FROM t.flags),
        setting AS (SELECT * FROM unnest(%(subjects)s::text[], %(values)s::text[])
            WITH ORDINALITY AS given (subject, value, n)),
        said AS MATERIALIZED (SELECT s.n AS setting, p.n AS alike,
                CASE WHEN v.code BETWEEN 200 AND 299 THEN 1 WHEN v.code = 406 THEN 2 ELSE 3 END
                    AS answer, count(*) AS devices
            FROM sessions_delivery v
            JOIN setting s ON s.subject = v.subject AND s.value = v.value
            JOIN placed p ON p.id = v.device_id
            WHERE v.subject = ANY(%(subjects)s::text[]) AND v.code <> 0 GROUP BY 1, 2, 3)
        SELECT s.subject, a.flags, a.os_version,
            (ARRAY['success', 'notApplicable', 'error'])[x.answer] AS answer, x.devices
        FROM said x JOIN setting s ON s.n = x.setting JOIN alike a ON a.n = x.alike
        UNION ALL SELECT s.subject, a.flags, a.os_version, 'pending',
            a.devices - coalesce((SELECT sum(x.devices) FROM said x
                WHERE x.setting = s.n AND x.alike = a.n), 0)::bigint
        FROM setting s CROSS JOIN alike a""".encode(),  # noqa: S608
        parameters,
    )
    return [Answered(**row) for row in await cursor.fetchall()]


def _meant(name: str, meant: Meant, parameters: dict[str, Any]) -> str:
    """The condition that a device is meant: `given_to` (assignments), in SQL."""
    parameters[f"{name}_in"] = list(meant.included)
    parameters[f"{name}_out"] = list(meant.excluded)
    inside = _members(f"SELECT unnest(%({name}_in)s::uuid[])")
    outside = _members(f"SELECT unnest(%({name}_out)s::uuid[])")
    users = "true" if meant.all_users else f"d.user_id::uuid IN {inside}"
    devices = "true" if meant.all_devices else f"o.id IN {inside}"
    return f"""((({users}) AND d.user_id::uuid NOT IN {outside})
        OR (({devices}) AND (o.id IS NULL OR o.id NOT IN {outside})))"""
