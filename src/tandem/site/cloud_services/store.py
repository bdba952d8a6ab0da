from collections.abc import Sequence
from datetime import date, datetime
from typing import Any

from psycopg.types.json import Jsonb

from tandem.infra.database import Tx
from tandem.protocols.tunnel import ConnectorReport, GatewayTelling, Traffic
from tandem.site.cloud_services.model import (
    LEAVING,
    AdminServiceApp,
    App,
    AzureService,
    CertificateRequest,
    ConnectionPoint,
    Directory,
    Gateway,
    GatewayInstance,
    GatewayState,
    TenantSignIn,
)

# ------------------------------------------------------------------ certificates

_REQUEST = (
    "id, service_name, subject, created_at, request, certificate, chain, missing_issuer, acme,"
    " problem"
)


async def requests(tx: Tx) -> list[CertificateRequest]:
    found = await tx.execute(
        f"SELECT {_REQUEST} FROM cloud_certificate ORDER BY created_at, id"  # noqa: S608
    )
    return [CertificateRequest(**row) async for row in found]


async def insert_request(tx: Tx, made: CertificateRequest, sealed_key: bytes) -> None:
    await tx.execute(
        "INSERT INTO cloud_certificate (id, service_name, subject, created_at, request,"
        " certificate, chain, missing_issuer, sealed_key)"
        " VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s)",
        (
            made.id,
            made.service_name,
            Jsonb(made.subject),
            made.created_at,
            made.request,
            made.certificate,
            made.chain,
            made.missing_issuer,
            sealed_key,
        ),
    )


async def sealed_key(tx: Tx, id: str) -> bytes:
    row = await (
        await tx.execute("SELECT sealed_key FROM cloud_certificate WHERE id = %s", (id,))
    ).fetchone()
    assert row is not None
    return bytes(row["sealed_key"])


async def save_certificate(
    tx: Tx, id: str, certificate: bytes, chain: bytes, missing_issuer: str | None
) -> None:
    await tx.execute(
        "UPDATE cloud_certificate SET certificate = %s, chain = %s, missing_issuer = %s"
        " WHERE id = %s",
        (certificate, chain, missing_issuer, id),
    )


async def set_acme(tx: Tx, id: str) -> None:
    await tx.execute("UPDATE cloud_certificate SET acme = true, problem = '' WHERE id = %s", (id,))


async def set_problem(tx: Tx, id: str, problem: str) -> None:
    await tx.execute("UPDATE cloud_certificate SET problem = %s WHERE id = %s", (problem, id))


async def acme_account(tx: Tx, directory: str) -> bytes | None:
    found = await tx.execute(
        "SELECT sealed_key FROM cloud_acme_account WHERE directory = %s", (directory,)
    )
    row = await found.fetchone()
    return bytes(row["sealed_key"]) if row else None


async def save_acme_account(tx: Tx, directory: str, sealed: bytes, now: datetime) -> None:
    await tx.execute(
        "INSERT INTO cloud_acme_account (directory, sealed_key, created_at) VALUES (%s, %s, %s)",
        (directory, sealed, now),
    )


async def delete_request(tx: Tx, id: str) -> None:
    await tx.execute("DELETE FROM cloud_certificate WHERE id = %s", (id,))


# ------------------------------------------------------------------ tenants

_SERVICE = (
    "id, name, description, environment, tenant_id, tenant_name, created_at, discovery_enabled,"
    " authentication_enabled"
)
_APP = "service_id, kind, app_id, object_id, name, app_id_uri, secret_expires_at, created_at"


async def services(tx: Tx) -> list[AzureService]:
    found = await tx.execute(
        f"SELECT {_SERVICE} FROM cloud_service ORDER BY created_at, id"  # noqa: S608
    )
    return [AzureService(**row) async for row in found]


async def insert_service(tx: Tx, made: AzureService) -> bool:
    done = await tx.execute(
        f"INSERT INTO cloud_service ({_SERVICE})"  # noqa: S608
        " VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s) ON CONFLICT DO NOTHING",
        (
            made.id,
            made.name,
            made.description,
            made.environment,
            made.tenant_id,
            made.tenant_name,
            made.created_at,
            made.discovery_enabled,
            made.authentication_enabled,
        ),
    )
    return done.rowcount == 1


async def change_service(tx: Tx, made: AzureService) -> None:
    await tx.execute(
        "UPDATE cloud_service SET name = %s, description = %s, authentication_enabled = %s"
        " WHERE id = %s",
        (made.name, made.description, made.authentication_enabled, made.id),
    )


async def lock_service(tx: Tx, id: str) -> None:
    await tx.execute("SELECT FROM cloud_service WHERE id = %s FOR UPDATE", (id,))


async def set_tenant(tx: Tx, id: str, tenant_id: str, tenant_name: str) -> None:
    await tx.execute(
        "UPDATE cloud_service SET tenant_id = %s, tenant_name = %s WHERE id = %s",
        (tenant_id, tenant_name, id),
    )


async def set_discovery(tx: Tx, id: str, enabled: bool) -> None:
    await tx.execute("UPDATE cloud_service SET discovery_enabled = %s WHERE id = %s", (enabled, id))


async def delete_service(tx: Tx, id: str) -> None:
    await tx.execute("DELETE FROM cloud_service WHERE id = %s", (id,))


async def apps(tx: Tx) -> list[App]:
    found = await tx.execute(f"SELECT {_APP} FROM cloud_app ORDER BY kind DESC")  # noqa: S608
    return [App(**row) async for row in found]


async def insert_app(tx: Tx, made: App, sealed_secret: bytes | None) -> bool:
    done = await tx.execute(
        f"INSERT INTO cloud_app ({_APP}, sealed_secret)"  # noqa: S608
        " VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s) ON CONFLICT DO NOTHING",
        (
            made.service_id,
            made.kind,
            made.app_id,
            made.object_id,
            made.name,
            made.app_id_uri,
            made.secret_expires_at,
            made.created_at,
            sealed_secret,
        ),
    )
    return done.rowcount == 1


async def sealed_secret(tx: Tx, service_id: str) -> bytes | None:
    row = await (
        await tx.execute(
            "SELECT sealed_secret FROM cloud_app WHERE service_id = %s AND kind = 'server'",
            (service_id,),
        )
    ).fetchone()
    return bytes(row["sealed_secret"]) if row and row["sealed_secret"] else None


async def save_secret(tx: Tx, service_id: str, sealed: bytes, expires_at: datetime) -> None:
    await tx.execute(
        "UPDATE cloud_app SET sealed_secret = %s, secret_expires_at = %s"
        " WHERE service_id = %s AND kind = 'server'",
        (sealed, expires_at, service_id),
    )


async def directory(tx: Tx, tenant_id: str) -> Directory | None:
    row = await (
        await tx.execute(
            "SELECT issuer, jwks, fetched_at FROM cloud_directory WHERE tenant_id = %s",
            (tenant_id,),
        )
    ).fetchone()
    return Directory(**row) if row else None


async def save_directory(tx: Tx, tenant_id: str, found: Directory) -> None:
    await tx.execute(
        "INSERT INTO cloud_directory (tenant_id, issuer, jwks, fetched_at)"
        " VALUES (%s, %s, %s, %s) ON CONFLICT (tenant_id) DO UPDATE SET"
        " issuer = EXCLUDED.issuer, jwks = EXCLUDED.jwks, fetched_at = EXCLUDED.fetched_at",
        (tenant_id, found.issuer, Jsonb(found.jwks), found.fetched_at),
    )


# ------------------------------------------------------------------ sign-ins to a tenant

_SIGN_IN = (
    "id, administrator, state, environment, user_code, verification_uri, interval_seconds,"
    " began_at, expires_at, tenant_id, tenant_name, upn, roles, mdm_licence, reason, cure"
)


async def sign_in(tx: Tx, id: str) -> TenantSignIn | None:
    found = await tx.execute(
        f"SELECT {_SIGN_IN} FROM cloud_tenant_sign_in WHERE id = %s",  # noqa: S608
        (id,),
    )
    row = await found.fetchone()
    return TenantSignIn(**{**row, "roles": tuple(row["roles"])}) if row else None


async def insert_sign_in(tx: Tx, made: TenantSignIn, sealed: bytes) -> None:
    await tx.execute(
        "INSERT INTO cloud_tenant_sign_in (id, administrator, state, environment, user_code,"
        " verification_uri, interval_seconds, began_at, expires_at, sealed)"
        " VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s)",
        (
            made.id,
            made.administrator,
            made.state,
            made.environment,
            made.user_code,
            made.verification_uri,
            made.interval_seconds,
            made.began_at,
            made.expires_at,
            sealed,
        ),
    )


async def take_turn(tx: Tx, id: str, now: datetime) -> bool:
    """Whether the tenant may be asked now; if so nobody else may for its interval."""
    done = await tx.execute(
        "UPDATE cloud_tenant_sign_in SET asked_at = %(now)s WHERE id = %(id)s"
        " AND state = 'pending' AND (asked_at IS NULL"
        " OR asked_at <= %(now)s - make_interval(secs => interval_seconds))",
        {"id": id, "now": now},
    )
    return done.rowcount == 1


async def slow_down(tx: Tx, id: str, seconds: int) -> None:
    await tx.execute(
        "UPDATE cloud_tenant_sign_in SET interval_seconds = interval_seconds + %s WHERE id = %s",
        (seconds, id),
    )


async def sealed_sign_in(tx: Tx, id: str) -> bytes:
    found = await tx.execute("SELECT sealed FROM cloud_tenant_sign_in WHERE id = %s", (id,))
    row = await found.fetchone()
    return bytes(row["sealed"]) if row and row["sealed"] else b""


async def save_sign_in(tx: Tx, made: TenantSignIn, sealed: bytes | None) -> None:
    await tx.execute(
        "UPDATE cloud_tenant_sign_in SET state = %s, expires_at = %s, tenant_id = %s,"
        " tenant_name = %s, upn = %s, roles = %s, mdm_licence = %s, reason = %s, cure = %s,"
        " sealed = %s WHERE id = %s AND state = 'pending'",
        (
            made.state,
            made.expires_at,
            made.tenant_id,
            made.tenant_name,
            made.upn,
            list(made.roles),
            made.mdm_licence,
            made.reason,
            made.cure,
            sealed,
            made.id,
        ),
    )


async def delete_sign_in(tx: Tx, id: str) -> None:
    await tx.execute("DELETE FROM cloud_tenant_sign_in WHERE id = %s", (id,))


async def keep_newest_sign_ins(tx: Tx, administrator: str, count: int) -> None:
    await tx.execute(
        "DELETE FROM cloud_tenant_sign_in WHERE id IN (SELECT id FROM cloud_tenant_sign_in"
        " WHERE administrator = %s ORDER BY began_at DESC, id OFFSET %s)",
        (administrator, count),
    )


async def delete_old_sign_ins(tx: Tx, now: datetime) -> None:
    await tx.execute(
        "DELETE FROM cloud_tenant_sign_in WHERE expires_at <= %(now)s"
        " AND (state = 'done' OR expires_at <= %(now)s - interval '1 hour')",
        {"now": now},
    )


# ------------------------------------------------------------------ gateways

_GATEWAY = (
    "service_name, deployment_name, tenant_id, region, resource_group, description, instances,"
    " check_revocation, serve_content, alerts, state, reason, connection_id, created_at,"
    " changed_at, expires_at, environment, content_only, acme, renewal_reason, renewal_tried_at,"
    " edge_answers"
)
_INSTANCE = (
    "service_name, instance, host, port, tunnel_port, health_port, pid, started, state, reason,"
    " environment"
)


def _gateway(row: dict[str, Any]) -> Gateway:
    return Gateway(**{**row, "state": GatewayState(row["state"])})


async def gateways(tx: Tx) -> list[Gateway]:
    found = await tx.execute(
        f"SELECT {_GATEWAY} FROM cloud_gateway ORDER BY service_name"  # noqa: S608
    )
    return [_gateway(row) async for row in found]


async def gateway(tx: Tx, service_name: str) -> Gateway | None:
    row = await (
        await tx.execute(
            f"SELECT {_GATEWAY} FROM cloud_gateway WHERE service_name = %s",  # noqa: S608
            (service_name,),
        )
    ).fetchone()
    return _gateway(row) if row else None


async def insert_gateway(tx: Tx, made: Gateway, pfx: bytes, password: bytes) -> bool:
    done = await tx.execute(
        f"INSERT INTO cloud_gateway ({_GATEWAY}, sealed_pfx, sealed_password)"  # noqa: S608
        f" VALUES ({', '.join(['%s'] * 24)})"
        " ON CONFLICT DO NOTHING",
        (
            made.service_name,
            made.deployment_name,
            made.tenant_id,
            made.region,
            made.resource_group,
            made.description,
            made.instances,
            made.check_revocation,
            made.serve_content,
            Jsonb(made.alerts),
            made.state.value,
            made.reason,
            made.connection_id,
            made.created_at,
            made.changed_at,
            made.expires_at,
            made.environment,
            made.content_only,
            made.acme,
            made.renewal_reason,
            made.renewal_tried_at,
            made.edge_answers,
            pfx,
            password,
        ),
    )
    return done.rowcount == 1


async def sealed_pfx(tx: Tx, service_name: str) -> tuple[bytes, bytes]:
    row = await (
        await tx.execute(
            "SELECT sealed_pfx, sealed_password FROM cloud_gateway WHERE service_name = %s",
            (service_name,),
        )
    ).fetchone()
    assert row is not None
    return bytes(row["sealed_pfx"]), bytes(row["sealed_password"])


async def set_gateway_state(
    tx: Tx, service_name: str, state: GatewayState, reason: str, now: datetime
) -> bool:
    """False when it is in a state that this one does not follow."""
    done = await tx.execute(
        "UPDATE cloud_gateway SET state = %s, reason = %s, changed_at = %s"
        " WHERE service_name = %s AND state = ANY(%s)",
        (state.value, reason, now, service_name, [item.value for item in state.before]),
    )
    return done.rowcount == 1


async def change_gateway(tx: Tx, made: Gateway, now: datetime) -> None:
    await tx.execute(
        "UPDATE cloud_gateway SET description = %s, instances = %s, check_revocation = %s,"
        " serve_content = %s, alerts = %s, expires_at = %s, acme = %s, edge_answers = %s,"
        " changed_at = %s"
        " WHERE service_name = %s",
        (
            made.description,
            made.instances,
            made.check_revocation,
            made.serve_content,
            Jsonb(made.alerts),
            made.expires_at,
            made.acme,
            made.edge_answers,
            now,
            made.service_name,
        ),
    )


async def redeploy(tx: Tx, made: Gateway) -> None:
    """Its instances are given up where they are, and it is known by another connection id."""
    await tx.execute(
        "UPDATE cloud_gateway SET environment = %s, region = %s, resource_group = %s,"
        " connection_id = %s WHERE service_name = %s",
        (
            made.environment,
            made.region,
            made.resource_group,
            made.connection_id,
            made.service_name,
        ),
    )
    await tx.execute(
        "UPDATE cloud_instance SET state = %s WHERE service_name = %s",
        (LEAVING, made.service_name),
    )


async def set_renewal(tx: Tx, service_name: str, reason: str, now: datetime) -> None:
    await tx.execute(
        "UPDATE cloud_gateway SET renewal_reason = %s, renewal_tried_at = %s"
        " WHERE service_name = %s",
        (reason, now, service_name),
    )


async def save_pfx(tx: Tx, service_name: str, pfx: bytes, password: bytes) -> None:
    await tx.execute(
        "UPDATE cloud_gateway SET sealed_pfx = %s, sealed_password = %s WHERE service_name = %s",
        (pfx, password, service_name),
    )


async def delete_instance(tx: Tx, service_name: str, number: int) -> None:
    await tx.execute(
        "DELETE FROM cloud_instance WHERE service_name = %s AND instance = %s",
        (service_name, number),
    )
    # What it said of its copies counts no more.
    await tx.execute(
        "DELETE FROM cloud_content_state WHERE service_name = %s AND instance = %s",
        (service_name, number),
    )


async def delete_gateway(tx: Tx, service_name: str) -> None:
    await tx.execute("DELETE FROM cloud_gateway WHERE service_name = %s", (service_name,))


async def instances(tx: Tx, service_name: str) -> list[GatewayInstance]:
    found = await tx.execute(
        f"SELECT {_INSTANCE} FROM cloud_instance"  # noqa: S608
        " WHERE service_name = %s ORDER BY instance",
        (service_name,),
    )
    return [GatewayInstance(**row) async for row in found]


async def save_instance(tx: Tx, item: GatewayInstance) -> None:
    await tx.execute(
        f"INSERT INTO cloud_instance ({_INSTANCE})"  # noqa: S608
        " VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)"
        " ON CONFLICT (service_name, instance) DO UPDATE SET host = EXCLUDED.host,"
        " port = EXCLUDED.port, tunnel_port = EXCLUDED.tunnel_port,"
        " health_port = EXCLUDED.health_port, pid = EXCLUDED.pid, started = EXCLUDED.started,"
        " state = EXCLUDED.state, reason = EXCLUDED.reason, environment = EXCLUDED.environment",
        (
            item.service_name,
            item.instance,
            item.host,
            item.port,
            item.tunnel_port,
            item.health_port,
            item.pid,
            item.started,
            item.state,
            item.reason,
            item.environment,
        ),
    )


async def configuration_version(tx: Tx, service_name: str, digest: str) -> int:
    """The number of a gateway's configuration: the next one whenever its content differs."""
    values = {"d": digest, "s": service_name}
    await tx.execute(
        "UPDATE cloud_gateway SET configuration_version = configuration_version + 1,"
        " configuration_digest = %(d)s"
        " WHERE service_name = %(s)s AND configuration_digest <> %(d)s",
        values,
    )
    row = await (
        await tx.execute(
            "SELECT configuration_version FROM cloud_gateway WHERE service_name = %(s)s", values
        )
    ).fetchone()
    return int(row["configuration_version"]) if row else 0


# ------------------------------------------------------------------ trust


async def trust(tx: Tx, kind: str) -> list[bytes]:
    """Uploaded roots or revocation lists, in DER."""
    found = await tx.execute(
        "SELECT der FROM cloud_trust WHERE kind = %s ORDER BY added_at, id", (kind,)
    )
    return [bytes(row["der"]) async for row in found]


async def trusted(tx: Tx, kind: str) -> list[dict[str, Any]]:
    found = await tx.execute(
        "SELECT id, der, added_at FROM cloud_trust WHERE kind = %s ORDER BY added_at, id", (kind,)
    )
    return [row async for row in found]


async def delete_trust(tx: Tx, kind: str, id: int) -> bool:
    done = await tx.execute("DELETE FROM cloud_trust WHERE kind = %s AND id = %s", (kind, id))
    return done.rowcount == 1


async def add_trust(tx: Tx, kind: str, issuer: str, der: bytes, now: datetime) -> None:
    """A root, or a list (crl) of an issuer."""
    await tx.execute(
        "INSERT INTO cloud_trust (kind, issuer, der, added_at) VALUES (%s, %s, %s, %s)"
        " ON CONFLICT (kind, der) DO NOTHING",
        (kind, issuer, der, now),
    )


# ------------------------------------------------------------------ connection points

_POINT = (
    "name, service_name, created_at, reported_at, web_proxy, web_proxy_user,"
    " sealed_web_proxy_password IS NOT NULL AS web_proxy_password_kept"
)


async def connection_points(tx: Tx) -> list[ConnectionPoint]:
    found = await tx.execute(
        f"SELECT {_POINT} FROM cloud_connection_point ORDER BY name"  # noqa: S608
    )
    return [ConnectionPoint(**row) async for row in found]


async def insert_connection_point(tx: Tx, made: ConnectionPoint, fingerprint: str) -> bool:
    done = await tx.execute(
        "INSERT INTO cloud_connection_point (name, service_name, created_at, fingerprint)"
        " VALUES (%s, %s, %s, %s) ON CONFLICT DO NOTHING",
        (made.name, made.service_name, made.created_at, fingerprint),
    )
    return done.rowcount == 1


async def connection_point_by(tx: Tx, fingerprint: str) -> ConnectionPoint | None:
    row = await (
        await tx.execute(
            f"SELECT {_POINT} FROM cloud_connection_point WHERE fingerprint = %s",  # noqa: S608
            (fingerprint,),
        )
    ).fetchone()
    return ConnectionPoint(**row) if row else None


async def set_fingerprint(tx: Tx, name: str, fingerprint: str) -> None:
    await tx.execute(
        "UPDATE cloud_connection_point SET fingerprint = %s WHERE name = %s", (fingerprint, name)
    )


async def delete_connection_point(tx: Tx, name: str) -> None:
    await tx.execute("DELETE FROM cloud_connection_point WHERE name = %s", (name,))


async def save_report(tx: Tx, name: str, report: ConnectorReport, now: datetime) -> None:
    await tx.execute(
        "UPDATE cloud_connection_point SET reported_at = %s WHERE name = %s", (now, name)
    )
    await tx.execute("DELETE FROM cloud_connection WHERE connection_point = %s", (name,))
    for item in report.connections:
        await tx.execute(
            "INSERT INTO cloud_connection"
            " (connection_point, service_name, instance, worker, state, since, reason, carrier,"
            " through, failures) VALUES (%s, %s, %s, %s, %s, to_timestamp(%s), %s, %s, %s, %s)"
            " ON CONFLICT DO NOTHING",
            (
                name,
                item.service_name,
                item.instance,
                item.worker,
                item.state,
                item.since,
                item.reason[:500],
                item.carrier[:16],
                item.through[:300],
                Jsonb(
                    [
                        {"at": one.at, "carrier": one.carrier[:16], "reason": one.reason[:500]}
                        for one in item.failures[:5]
                    ]
                ),
            ),
        )


async def add_point_traffic(tx: Tx, name: str, counted: Sequence[Traffic], now: datetime) -> None:
    # In an order of their own: two connection points that report at once add to the same sums.
    for traffic in sorted(counted, key=lambda one: (one.service_name, one.endpoint)):
        values = (
            traffic.service_name,
            traffic.endpoint,
            now.date(),
            traffic.requests,
            traffic.failures,
            traffic.request_bytes,
            traffic.response_bytes,
            traffic.elapsed_ms,
        )
        for table, key, more in (
            ("cloud_traffic", "service_name, endpoint, day", ()),
            ("cloud_point_traffic", "connection_point, service_name, endpoint, day", (name,)),
        ):
            await tx.execute(
                f"INSERT INTO {table} AS known ({key}, requests, failures, request_bytes,"  # noqa: S608
                f" response_bytes, elapsed_ms) VALUES ({', '.join(['%s'] * len((*more, *values)))})"
                f" ON CONFLICT ({key}) DO UPDATE SET"
                " requests = known.requests + EXCLUDED.requests,"
                " failures = known.failures + EXCLUDED.failures,"
                " request_bytes = known.request_bytes + EXCLUDED.request_bytes,"
                " response_bytes = known.response_bytes + EXCLUDED.response_bytes,"
                " elapsed_ms = known.elapsed_ms + EXCLUDED.elapsed_ms",
                (*more, *values),
            )


async def connections(tx: Tx) -> list[dict[str, Any]]:
    found = await tx.execute(
        "SELECT connection_point, service_name, instance, worker, state, since, reason, carrier,"
        " through, failures FROM cloud_connection ORDER BY connection_point, service_name, instance, worker"
    )
    return [row async for row in found]


async def traffic(tx: Tx) -> list[dict[str, Any]]:
    found = await tx.execute(
        "SELECT service_name, endpoint, sum(requests)::bigint AS requests,"
        " sum(failures)::bigint AS failures, sum(request_bytes)::bigint AS request_bytes,"
        " sum(response_bytes)::bigint AS response_bytes, sum(elapsed_ms) AS elapsed_ms"
        " FROM cloud_traffic GROUP BY service_name, endpoint ORDER BY service_name, endpoint"
    )
    return [row async for row in found]


_SUMS = (
    "sum(requests)::bigint AS requests, sum(failures)::bigint AS failures,"
    " sum(request_bytes)::bigint AS request_bytes,"
    " sum(response_bytes)::bigint AS response_bytes, sum(elapsed_ms) AS elapsed_ms"
)


async def traffic_by_day(tx: Tx, service_name: str, since: date) -> list[dict[str, Any]]:
    found = await tx.execute(
        f"SELECT service_name, day, {_SUMS} FROM cloud_traffic"  # noqa: S608
        " WHERE day >= %(since)s AND (%(name)s = '' OR service_name = %(name)s)"
        " GROUP BY service_name, day ORDER BY service_name, day",
        {"since": since, "name": service_name},
    )
    return [row async for row in found]


async def traffic_by_point(tx: Tx, service_name: str, since: date) -> list[dict[str, Any]]:
    found = await tx.execute(
        f"SELECT connection_point, service_name, endpoint, {_SUMS}"  # noqa: S608
        " FROM cloud_point_traffic"
        " WHERE day >= %(since)s AND (%(name)s = '' OR service_name = %(name)s)"
        " GROUP BY connection_point, service_name, endpoint"
        " ORDER BY connection_point, service_name, endpoint",
        {"since": since, "name": service_name},
    )
    return [row async for row in found]


async def save_web_proxy(
    tx: Tx, name: str, address: str, user: str, sealed_password: bytes | None
) -> None:
    await tx.execute(
        "UPDATE cloud_connection_point SET web_proxy = %s, web_proxy_user = %s,"
        " sealed_web_proxy_password = %s WHERE name = %s",
        (address, user, sealed_password, name),
    )


async def sealed_web_proxy_password(tx: Tx, name: str) -> bytes | None:
    found = await tx.execute(
        "SELECT sealed_web_proxy_password AS sealed FROM cloud_connection_point WHERE name = %s",
        (name,),
    )
    row = await found.fetchone()
    return bytes(row["sealed"]) if row and row["sealed"] is not None else None


async def change_gateway_of_point(tx: Tx, name: str, service_name: str) -> None:
    await tx.execute(
        "UPDATE cloud_connection_point SET service_name = %s WHERE name = %s", (service_name, name)
    )
    await tx.execute("DELETE FROM cloud_connection WHERE connection_point = %s", (name,))


# ------------------------------------------------------------------ what gateways counted

_MOST_CLIENTS = 1_000_000


async def take_sequence(tx: Tx, source: str, run: str, sequence: int, now: datetime) -> bool:
    """Whether this number of a run is news. The last runs of a source are remembered."""
    found = await tx.execute(
        "INSERT INTO cloud_told AS known (source, run, sequence, told_at) VALUES (%s, %s, %s, %s)"
        " ON CONFLICT (source, run) DO UPDATE SET sequence = EXCLUDED.sequence,"
        " told_at = EXCLUDED.told_at WHERE known.sequence < EXCLUDED.sequence"
        " RETURNING xmax = 0 AS begins",
        (source, run, sequence, now),
    )
    row = await found.fetchone()
    if row is not None and row["begins"]:
        await tx.execute(
            "DELETE FROM cloud_told WHERE source = %(source)s AND run NOT IN (SELECT run"
            " FROM cloud_told WHERE source = %(source)s ORDER BY told_at DESC, run LIMIT 256)",
            {"source": source},
        )
    return row is not None


async def add_gateway_traffic(
    tx: Tx,
    service_name: str,
    instance: int,
    point: str,
    endpoint: str,
    now: datetime,
    figures: Sequence[float],
) -> None:
    """Requests, failures, bytes in, bytes out, milliseconds; in the hour in which they are told."""
    await tx.execute(
        "INSERT INTO cloud_gateway_traffic AS known (service_name, instance, connection_point,"
        " endpoint, hour, requests, failures, request_bytes, response_bytes, elapsed_ms)"
        " VALUES (%s, %s, %s, %s, date_trunc('hour', %s, 'UTC'), %s, %s, %s, %s, %s)"
        " ON CONFLICT (service_name, hour, endpoint, connection_point, instance) DO UPDATE SET"
        " requests = known.requests + EXCLUDED.requests,"
        " failures = known.failures + EXCLUDED.failures,"
        " request_bytes = known.request_bytes + EXCLUDED.request_bytes,"
        " response_bytes = known.response_bytes + EXCLUDED.response_bytes,"
        " elapsed_ms = known.elapsed_ms + EXCLUDED.elapsed_ms",
        (service_name, instance, point, endpoint, now, *figures),
    )


async def save_gateway_worker(tx: Tx, item: GatewayTelling, now: datetime) -> None:
    telling = item.telling
    await tx.execute(
        "INSERT INTO cloud_gateway_worker (service_name, instance, worker, connections, online,"
        " told_at) VALUES (%s, %s, %s, %s, %s, %s)"
        " ON CONFLICT (service_name, instance, worker) DO UPDATE SET"
        " connections = EXCLUDED.connections, online = EXCLUDED.online, told_at = EXCLUDED.told_at",
        (
            item.service_name,
            item.instance,
            telling.worker,
            min(max(telling.connections, 0), _MOST_CLIENTS),
            min(max(telling.online, 0), _MOST_CLIENTS),
            now,
        ),
    )


async def gateway_workers(tx: Tx, service_name: str) -> list[dict[str, Any]]:
    found = await tx.execute(
        "SELECT instance, worker, connections, online, told_at FROM cloud_gateway_worker"
        " WHERE service_name = %s ORDER BY instance, worker",
        (service_name,),
    )
    return [row async for row in found]


async def gateway_days(tx: Tx, service_name: str, since: date) -> list[dict[str, Any]]:
    """By day and endpoint, what the gateway counted or its connection points did: whichever is more.

    A gateway of the release before tells nothing, and one that was killed not all.
    """
    found = await tx.execute(
        """
        SELECT day, endpoint,
            greatest(g.requests, p.requests) AS requests,
            greatest(g.failures, p.failures) AS failures,
            greatest(g.request_bytes, p.request_bytes) AS request_bytes,
            greatest(g.response_bytes, p.response_bytes) AS response_bytes,
            greatest(g.elapsed_ms, p.elapsed_ms) AS elapsed_ms
        FROM (
            SELECT (hour AT TIME ZONE 'UTC')::date AS day, endpoint,
                sum(requests)::bigint AS requests, sum(failures)::bigint AS failures,
                sum(request_bytes)::bigint AS request_bytes,
                sum(response_bytes)::bigint AS response_bytes, sum(elapsed_ms) AS elapsed_ms
            FROM cloud_gateway_traffic
            WHERE service_name = %(name)s
                AND hour >= %(since)s::date::timestamp AT TIME ZONE 'UTC'
            GROUP BY 1, 2
        ) g
        FULL JOIN (
            SELECT day, CASE WHEN endpoint = 'AdminService_Gateway' THEN 'AdminService'
                    ELSE regexp_replace(endpoint, '^/CCM_Proxy_[A-Za-z]+/[0-9]+/', '')
                END AS endpoint,
                sum(requests)::bigint AS requests, sum(failures)::bigint AS failures,
                sum(request_bytes)::bigint AS request_bytes,
                sum(response_bytes)::bigint AS response_bytes, sum(elapsed_ms) AS elapsed_ms
            FROM cloud_traffic WHERE service_name = %(name)s AND day >= %(since)s
            GROUP BY 1, 2
        ) p USING (day, endpoint)
        ORDER BY day, endpoint
        """,
        {"name": service_name, "since": since},
    )
    return [row async for row in found]


async def gateway_hours(tx: Tx, service_name: str, since: datetime) -> list[dict[str, Any]]:
    found = await tx.execute(
        f"SELECT hour, endpoint, {_SUMS} FROM cloud_gateway_traffic"  # noqa: S608
        " WHERE service_name = %s AND hour > %s GROUP BY hour, endpoint ORDER BY hour, endpoint",
        (service_name, since),
    )
    return [row async for row in found]


async def gateway_points(tx: Tx, service_name: str, since: date) -> list[dict[str, Any]]:
    found = await tx.execute(
        f"SELECT connection_point, endpoint, {_SUMS} FROM cloud_gateway_traffic"  # noqa: S608
        " WHERE service_name = %s AND hour >= %s::date::timestamp AT TIME ZONE 'UTC'"
        " GROUP BY connection_point, endpoint ORDER BY connection_point, endpoint",
        (service_name, since),
    )
    return [row async for row in found]


async def fold_gateway_traffic(tx: Tx, before: date) -> None:
    """Of days that are long past, the day is enough."""
    await tx.execute(
        """
        WITH gone AS (
            DELETE FROM cloud_gateway_traffic
            WHERE hour < %(before)s::date::timestamp AT TIME ZONE 'UTC'
                AND hour <> date_trunc('day', hour, 'UTC')
            RETURNING *
        )
        INSERT INTO cloud_gateway_traffic AS known (service_name, instance, connection_point,
            endpoint, hour, requests, failures, request_bytes, response_bytes, elapsed_ms)
        SELECT service_name, instance, connection_point, endpoint,
            date_trunc('day', hour, 'UTC'), sum(requests), sum(failures), sum(request_bytes),
            sum(response_bytes), sum(elapsed_ms)
        FROM gone GROUP BY 1, 2, 3, 4, 5
        ON CONFLICT (service_name, hour, endpoint, connection_point, instance) DO UPDATE SET
            requests = known.requests + EXCLUDED.requests,
            failures = known.failures + EXCLUDED.failures,
            request_bytes = known.request_bytes + EXCLUDED.request_bytes,
            response_bytes = known.response_bytes + EXCLUDED.response_bytes,
            elapsed_ms = known.elapsed_ms + EXCLUDED.elapsed_ms
        """,
        {"before": before},
    )


# ------------------------------------------------------------------ management point


async def gateway_traffic_allowed(tx: Tx) -> bool:
    row = await (await tx.execute("SELECT allowed FROM cloud_management_point")).fetchone()
    return bool(row and row["allowed"])


async def allow_gateway_traffic(tx: Tx, allowed: bool, now: datetime) -> None:
    await tx.execute(
        "INSERT INTO cloud_management_point (allowed, changed_at) VALUES (%s, %s)"
        " ON CONFLICT (singleton) DO UPDATE SET allowed = EXCLUDED.allowed,"
        " changed_at = EXCLUDED.changed_at",
        (allowed, now),
    )


async def adminservice_apps(tx: Tx) -> list[AdminServiceApp]:
    found = await tx.execute(
        "SELECT app_id, published, writes, changed_at, changed_by FROM cloud_adminservice_app"
        " ORDER BY app_id"
    )
    return [AdminServiceApp(**row) async for row in found]


async def adminservice_app(tx: Tx, app_id: str) -> AdminServiceApp | None:
    found = await tx.execute(
        "SELECT app_id, published, writes, changed_at, changed_by FROM cloud_adminservice_app"
        " WHERE app_id = lower(%s)",
        (app_id,),
    )
    row = await found.fetchone()
    return AdminServiceApp(**row) if row else None


async def save_adminservice_app(tx: Tx, app: AdminServiceApp) -> None:
    await tx.execute(
        "INSERT INTO cloud_adminservice_app (app_id, published, writes, changed_at, changed_by)"
        " VALUES (%s, %s, %s, %s, %s) ON CONFLICT (app_id) DO UPDATE SET"
        " published = EXCLUDED.published, writes = EXCLUDED.writes,"
        " changed_at = EXCLUDED.changed_at, changed_by = EXCLUDED.changed_by",
        (app.app_id, app.published, app.writes, app.changed_at, app.changed_by),
    )
