#!/bin/sh
# Are the tools there that setting up needs? Says what is missing in one line, and then exits with 1.
# Usage: check-tools.sh PYTHON

set -eu

fail() {
    echo "$1" >&2
    exit 1
}

python=$1
command -v "$python" >/dev/null 2>&1 || fail "$python is missing: install Python 3.11 or newer (or set PYTHON=/path/to/it)"
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
    || fail "$python is $("$python" -V 2>&1): install Python 3.11 or newer (or set PYTHON=/path/to/it)"
"$python" -c 'import ensurepip, venv' 2>/dev/null \
    || fail "$python has no venv module: install it (Debian and Ubuntu: apt install python3-venv)"

command -v node >/dev/null 2>&1 || fail "node is missing: install Node.js 20 or newer"
node -e 'process.exit(process.versions.node.split(".")[0] < 20 ? 1 : 0)' \
    || fail "node is $(node --version): install Node.js 20 or newer"
command -v npm >/dev/null 2>&1 || fail "npm is missing: install it (it comes with Node.js; Debian: apt install npm)"
