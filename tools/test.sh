#!/usr/bin/env bash
# Run the tests. FAST=1 leaves out those marked slow, browser and e2e.
set -euo pipefail
cd "$(dirname "$0")/.."
args=(-q)
if [ -n "${FAST:-}" ]; then
  args+=(-m "not slow and not browser and not e2e")
fi
exec .venv/bin/python -m pytest "${args[@]}"
