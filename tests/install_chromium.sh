#!/bin/sh
# Installs what the browser tests drive, Chromium and a font, where it is missing and this user may.
set -eu

for name in chromium chromium-browser google-chrome; do
    if command -v "$name" >/dev/null 2>&1; then exit 0; fi
done

if [ "$(id -u)" -eq 0 ]; then
    as_root=
elif command -v sudo >/dev/null 2>&1 && sudo -n true 2>/dev/null; then
    as_root=sudo
else
    as_root=none
fi

if [ "$as_root" = none ] || ! command -v apt-get >/dev/null 2>&1; then
    echo "error: the browser tests need Chromium on PATH, and it cannot be installed from here." >&2
    echo "Install it (Debian and Ubuntu: apt-get install chromium fonts-dejavu-core), or leave these tests out:" >&2
    echo "    make lint && .venv/bin/python -m pytest -m 'not browser'" >&2
    exit 1
fi

echo "Installing Chromium for the browser tests with apt-get (about 300 MB on disk)"
$as_root apt-get update -qq
$as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends chromium fonts-dejavu-core
