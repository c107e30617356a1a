#!/bin/sh
# What the tests need from the system: a Redis besides the embedded Valkey, a browser, two database servers,
# what checks the units, two proxies, a C compiler for what benchmarks compare to, what counts system calls, and
# PHP for the Laravel example, and what tests the alerts.

set -eu

missing=
need() { # PACKAGE PROGRAM...: one of the programs is enough
    package=$1
    shift
    for program; do
        if command -v "$program" >/dev/null 2>&1; then
            return
        fi
    done
    missing="$missing $package"
}
need redis-server redis-server
need chromium-headless-shell chromium-headless-shell chromium
# The servers themselves are not on everybody's PATH.
need postgresql postgres pg_ctlcluster
need mariadb-server mariadb-install-db
need systemd systemd-analyze
# Debian has them in /usr/sbin.
need nginx nginx /usr/sbin/nginx
need haproxy haproxy /usr/sbin/haproxy
need "gcc libc6-dev" cc
need strace strace
need "php-cli php-redis" php
need prometheus promtool
[ -n "$missing" ] || exit 0

if [ "$(id -u)" != 0 ] || [ ! -f /etc/debian_version ] || ! command -v apt-get >/dev/null 2>&1; then
    echo "The tests need$missing: install it (Debian and Ubuntu: apt install$missing)" >&2
    exit 1
fi
echo "Installing$missing for the tests"
# Debian starts what it installs. The tests want promtool of this package, and nobody wants its server here.
if [ -d /run/systemd/system ] && [ "${missing#*prometheus}" != "$missing" ]; then
    systemctl --quiet mask prometheus.service
fi
apt-get -qq update
# shellcheck disable=SC2086 # one word per package
DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends $missing >/dev/null
