#!/usr/bin/env bash
# Run the tests. FAST=1 leaves out those marked slow, browser and e2e; the walk has its own target.
set -euo pipefail
cd "$(dirname "$0")/.."
# A worker for each processor, at most four; a file's tests stay together.
workers=$(nproc)
args=(-q -n "$((workers < 4 ? workers : 4))" --dist loadfile --no-loadscope-reorder)
wanted="not walk"
if [ -n "${FAST:-}" ]; then
  wanted="not walk and not slow and not browser and not e2e"
fi
args+=(-m "$wanted")
exec .venv/bin/python -m pytest "${args[@]}"
