#!/usr/bin/env bash
# Makes the virtual environment with exactly the versions of constraints.txt. Usage: scripts/setup.sh FOLDER
set -euo pipefail
folder=${1:?usage: scripts/setup.sh FOLDER}

fail() { echo "setup: $1" >&2; exit 1; }

find_python() {
  local name
  for name in python3 python3.13 python3.12 python3.11 python3.10 python; do
    if command -v "$name" >/dev/null && "$name" -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null; then
      echo "$name"; return
    fi
  done
  fail "no Python 3.10 or newer was found on the PATH; install one and try again"
}

if [ ! -x "$folder/bin/python" ]; then
  python=$(find_python)
  echo "setup: making $folder with $("$python" --version)"
  "$python" -m venv "$folder" || fail "could not make $folder (on Debian: apt-get install python3-venv)"
fi
echo "setup: installing the packages of constraints.txt into $folder (a few minutes the first time)"
# setuptools first and no build isolation: the build, too, uses the pinned versions and needs no second download.
"$folder/bin/python" -m pip install --quiet --disable-pip-version-check -c constraints.txt setuptools \
  || fail "pip could not install setuptools; is the package index within reach?"
"$folder/bin/python" -m pip install --quiet --disable-pip-version-check -c constraints.txt torch \
  || fail "pip could not install torch in the version of constraints.txt"
"$folder/bin/python" -m pip install --quiet --disable-pip-version-check --no-build-isolation \
  -c constraints.txt -e ".[dev]" || fail "pip could not install the packages of constraints.txt"
echo "setup: done"
