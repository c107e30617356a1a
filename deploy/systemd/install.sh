#!/bin/sh
# Installs or upgrades Legato for systemd: see --help.

set -eu

usage() {
    cat <<'USAGE'
usage: install.sh [--dry-run] [--extras LIST] WHEEL

Installs Legato as two services, or upgrades it: run it again with a newer wheel.

  WHEEL          the wheel, such as dist/legato-0.1.0-py3-none-any.whl
  --extras LIST  drivers of databases: postgres, mysql, or postgres,mysql
  --dry-run      print the commands and change nothing
  --help         show this

It makes the user legato, /opt/legato/.venv with Legato in it, /etc/legato with legato.toml and
environment, and the units. Files in /etc/legato that are there stay as they are. It starts and restarts
nothing, and says what to do next. PYTHON names the Python to use, 3.11 or newer; python3 is the default.
USAGE
}

fail() {
    echo "install.sh: $1" >&2
    exit "${2:-1}"
}

dry=
extras=
wheel=
while [ $# -gt 0 ]; do
    case $1 in
        --help | -h) usage && exit 0 ;;
        --dry-run) dry=1 ;;
        --extras)
            [ $# -gt 1 ] || fail "--extras: expected postgres, mysql or postgres,mysql" 2
            extras=$2
            shift
            ;;
        -*) fail "$1: no such option; see --help" 2 ;;
        *)
            [ -z "$wheel" ] || fail "expected one WHEEL; see --help" 2
            wheel=$1
            ;;
    esac
    shift
done
[ -n "$wheel" ] || fail "expected a WHEEL; \`make wheel\` builds one. See --help" 2
case $extras in
    "" | postgres | mysql | postgres,mysql | mysql,postgres) ;;
    *) fail "--extras $extras: expected postgres, mysql or postgres,mysql" 2 ;;
esac
[ -f "$wheel" ] || fail "$wheel: no such file"
python=${PYTHON:-python3}
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null ||
    fail "$python is not Python 3.11 or newer: set PYTHON"
[ -n "$dry" ] || [ "$(id -u)" = 0 ] || fail "run it as root, or with --dry-run"

legato=/opt/legato/.venv/bin/legato
run() {
    if [ -n "$dry" ]; then
        echo "$*"
    else
        "$@"
    fi
}
into() { # FILE MODE GROUP: from standard input, at once
    if [ -n "$dry" ]; then
        cat >/dev/null
        echo "install -m $2 -o root -g $3 /dev/stdin $1"
    else
        install -m "$2" -o root -g "$3" /dev/stdin "$1.new"
        mv "$1.new" "$1"
    fi
}
from_sample() { # SAMPLE FILE MODE GROUP
    if [ -n "$dry" ]; then
        echo "$legato sample $1 | install -m $3 -o root -g $4 /dev/stdin $2"
    else
        text=$("$legato" sample "$1")
        printf '%s\n' "$text" | into "$2" "$3" "$4"
    fi
}

# What is made for the services can be read by them, whatever root's umask is.
umask 022
getent group legato >/dev/null || run groupadd --system legato
getent passwd legato >/dev/null ||
    run useradd --system --gid legato --home-dir /var/lib/legato --no-create-home --shell /usr/sbin/nologin legato

run install -d -m 0755 /opt/legato
[ -x /opt/legato/.venv/bin/python ] || run "$python" -m venv /opt/legato/.venv
# Of the same version, too: a wheel that was built again is another.
run /opt/legato/.venv/bin/python -m pip install --quiet --upgrade "$wheel${extras:+[$extras]}"
run /opt/legato/.venv/bin/python -m pip install --quiet --force-reinstall --no-deps "$wheel"

run install -d -m 0750 -o root -g legato /etc/legato
[ -e /etc/legato/legato.toml ] || from_sample legato.toml /etc/legato/legato.toml 0640 legato
[ -e /etc/legato/environment ] || into /etc/legato/environment 0600 root <<'ENVIRONMENT'
# NAME=value lines for both services, readable by root alone: what should not be in legato.toml.
#LEGATO_APP_ID=1
#LEGATO_APP_KEY=
#LEGATO_APP_SECRET=
#LEGATO_AUTH_JWT_SECRET=
#REDIS_URL=redis://127.0.0.1:6379
#DATABASE_URL=
#ANTHROPIC_API_KEY=
ENVIRONMENT

for unit in legato-broadcaster.service legato-worker.service; do
    from_sample "$unit" "/etc/systemd/system/$unit" 0644 root
done
if [ -n "$dry" ] || [ -d /run/systemd/system ]; then
    run systemctl daemon-reload
fi

[ -z "$dry" ] || exit 0
cat <<'NEXT'
Legato is installed. Next:
  1. set an application, Redis and secrets in /etc/legato/legato.toml and /etc/legato/environment
  2. systemctl enable --now legato-broadcaster legato-worker
     (after an upgrade: systemctl restart legato-broadcaster legato-worker)
  3. journalctl --follow --unit legato-broadcaster --unit legato-worker
NEXT
