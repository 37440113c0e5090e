#!/usr/bin/env bash
# Lint, format, types and import rules; needs the extra `dev` installed.
set -euo pipefail
cd "$(dirname "$0")/.."
ruff check .
ruff format --check .
mypy
lint-imports
