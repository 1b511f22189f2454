#!/usr/bin/env bash
# Makes the virtual environment with exactly the versions of constraints.txt. Usage: scripts/setup.sh FOLDER
set -euo pipefail
folder=${1:?usage: scripts/setup.sh FOLDER}
python="$folder/bin/python"
log="$folder/setup.log"

fail() { echo "setup: $1" >&2; exit 1; }

find_python() {
  local name
  for name in python3 python3.14 python3.13 python3.12 python3.11 python3.10 python; do
    if command -v "$name" >/dev/null && "$name" -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null; then
      echo "$name"; return
    fi
  done
  fail "no Python 3.10 or newer was found on the PATH; install one and try again"
}

# The names of what is fetched, without addresses; the whole of pip's output goes to the log.
progress() { tee -a "$log" | sed -un 's#^ *Downloading \(.*/\)\{0,1\}\([^/ ]*\.whl\)\( .*\)\{0,1\}$#setup:   fetched \2\3#p'; }

install() {
  "$python" -m pip install --disable-pip-version-check --no-input --progress-bar off -c constraints.txt "$@" \
    2>>"$log" </dev/null | progress
}

if [ ! -x "$python" ]; then
  found=$(find_python)
  echo "setup: making $folder with $("$found" --version)"
  "$found" -m venv "$folder" || fail "could not make $folder (on Debian: apt-get install python3-venv)"
fi
: >"$log"
echo "setup: installing the packages of constraints.txt into $folder (a few minutes the first time)"
# No build isolation: the build, too, uses the pinned versions and needs no second download.
install setuptools || fail "pip could not install setuptools; is the package index within reach? See $log"
install torch || fail "pip could not install torch in the version of constraints.txt; see $log"
install --no-build-isolation -e ".[dev]" || fail "pip could not install the packages of constraints.txt; see $log"
"$python" -m pip check >>"$log" 2>&1 || fail "the installed packages do not fit together; see $log"
touch "$folder/.stepscope-installed"
echo "setup: done"
