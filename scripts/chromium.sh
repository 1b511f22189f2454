#!/usr/bin/env bash
# Makes sure that the browser tests find a Chromium.
set -euo pipefail
for name in chromium chromium-browser google-chrome; do
  if command -v "$name" >/dev/null; then exit 0; fi
done
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
  echo "setup: installing Debian's chromium"
  { apt-get update -qq && apt-get install -y -qq chromium fonts-dejavu-core; } >/dev/null \
    || { echo "setup: apt-get could not install chromium" >&2; exit 1; }
else
  echo "setup: the browser tests need Chromium: install the package 'chromium' and try again" >&2
  exit 1
fi
