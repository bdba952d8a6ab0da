#!/usr/bin/env bash
# Make the virtual environment of this checkout: locked packages with hashes, then the project itself.
set -euo pipefail
cd "$(dirname "$0")/.."
: "${PYTHON:=python3}" "${VENV:=.venv}"
new_enough() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; }
if ! new_enough "$PYTHON"; then
  for other in python3.14 python3.13 python3.12 python3.11; do
    if new_enough "$other"; then PYTHON=$other; fi
  done
fi
if ! new_enough "$PYTHON"; then
  echo "Tandem needs Python 3.11 or newer, and '$PYTHON' is not. Name one: make PYTHON=python3.12 …" >&2
  exit 1
fi
if ! "$PYTHON" -c 'import ensurepip, venv' 2>/dev/null; then
  version=$("$PYTHON" -c 'import sys; print(f"{sys.version_info[0]}.{sys.version_info[1]}")')
  tools/packages.sh "python$version-venv"
fi
[ -x "$VENV/bin/python" ] || "$PYTHON" -m venv "$VENV"
echo "Setting up $VENV (the first time takes a minute) …" >&2
"$VENV/bin/python" -m pip install --quiet --no-compile --disable-pip-version-check --require-hashes -r requirements.lock
"$VENV/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
