#!/bin/sh
# What the tests need from the system: a Redis besides the embedded Valkey, and a browser.

set -eu

missing=
command -v redis-server >/dev/null 2>&1 || missing="$missing redis-server"
command -v chromium >/dev/null 2>&1 || missing="$missing chromium"
[ -n "$missing" ] || exit 0

if [ "$(id -u)" != 0 ] || [ ! -f /etc/debian_version ] || ! command -v apt-get >/dev/null 2>&1; then
    echo "The tests need$missing: install it (Debian and Ubuntu: apt install$missing)" >&2
    exit 1
fi
echo "Installing$missing for the tests"
apt-get -qq update
# shellcheck disable=SC2086 # one word per package
DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends $missing >/dev/null
