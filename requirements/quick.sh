#!/usr/bin/env bash
# One Python beside 3.11: `make test-pythons` calls this with PYTHON, LOCK and TORCH. torch is left out where no CPU build is had.
set -euo pipefail
version=$("$PYTHON" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
folder=".venv-$version"
rm -rf "$folder"
"$PYTHON" -m venv "$folder"
# shellcheck disable=SC2086  # TORCH is words
torch=with
"$folder/bin/pip" install --quiet --no-deps $TORCH || torch=without
"$folder/bin/pip" install --quiet --no-deps --require-hashes -r "$LOCK"
"$folder/bin/pip" install --quiet --no-deps --no-build-isolation -e .
"$folder/bin/ruff" check .
"$folder/bin/python" requirements/imports.py
tests=$(grep -v '^#' requirements/quick_tests.txt)
# shellcheck disable=SC2086
"$folder/bin/python" -m pytest --noconftest --durations=0 -o addopts=-q $tests
echo "Python $version, $torch torch: imported, linted and tested"
