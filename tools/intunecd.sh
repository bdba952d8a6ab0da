#!/usr/bin/env bash
# IntuneCD in an environment of its own (its needs and ours exclude each other); prints its folder.
set -euo pipefail
here=$(cd "$(dirname "$0")/.." && pwd)
lock=$here/tests/intunecd/requirements.lock
venv=$here/.venv/intunecd
if ! cmp -s "$lock" "$venv/.stamp"; then
  "$here/.venv/bin/python" -m venv --clear "$venv" >&2
  "$venv/bin/pip" install -q --disable-pip-version-check --no-deps --require-hashes -r "$lock" >&2
  cp "$lock" "$venv/.stamp"
fi
echo "$venv/bin"
