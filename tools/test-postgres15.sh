#!/usr/bin/env bash
# Migrations and the tests that use a database, on Debian's PostgreSQL 15 in a folder of its own.
set -euo pipefail
cd "$(dirname "$0")/.."
tools/packages.sh postgresql-15
programs=/usr/lib/postgresql/15/bin
folder=$(mktemp -d /tmp/pg15.XXXXXX)
as() { "$@"; }
if [ "$(id -u)" = 0 ]; then
  chown postgres "$folder"
  as() { runuser -u postgres -- "$@"; }
fi
stop() {
  as "$programs/pg_ctl" -D "$folder/data" -m immediate stop >/dev/null 2>&1 || true
  rm -rf "$folder"
}
trap stop EXIT
as "$programs/initdb" -D "$folder/data" -U postgres -A trust -E UTF8 --no-sync >/dev/null
as "$programs/pg_ctl" -D "$folder/data" -w -l "$folder/log" \
  -o "-c listen_addresses='' -k $folder -c fsync=off" start >/dev/null
export TANDEM_TEST_POSTGRES="host=$folder user=postgres"
.venv/bin/python -m pytest -q -m "not browser and not e2e and not slow" "$@"
