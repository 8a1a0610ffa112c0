#!/bin/sh
# Installs nginx, behind which some tests put the server, where it is missing and this user may. Those tests are skipped
# without it.
set -eu

if command -v nginx >/dev/null 2>&1 || [ -x /usr/sbin/nginx ]; then exit 0; fi

if [ "$(id -u)" -eq 0 ]; then
    as_root=
elif command -v sudo >/dev/null 2>&1 && sudo -n true 2>/dev/null; then
    as_root=sudo
else
    as_root=none
fi

if [ "$as_root" = none ] || ! command -v apt-get >/dev/null 2>&1; then
    echo "note: without nginx, which cannot be installed from here, tests/integration/test_behind_nginx.py is skipped" >&2
    exit 0
fi

echo "Installing nginx for the tests with apt-get"
$as_root apt-get update -qq
$as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends nginx-light
