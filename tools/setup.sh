#!/bin/bash
# What `make` needs on a fresh Debian machine: packages, and a virtual environment with the pinned
# tools.  Needs root only where a package is missing.  The second run only looks.
set -euo pipefail
cd "$(dirname "$0")/.."

packages=()
want() { # a program, and the package that it comes in
    PATH=$PATH:/usr/sbin:/sbin command -v "$1" >/dev/null || packages+=("$2")
}
want python3 python3
want mmdebstrap mmdebstrap
want qemu-system-x86_64 qemu-system-x86
want mke2fs e2fsprogs
want cc gcc
want unshare util-linux
want ip iproute2
want groff groff-base
[[ -e /usr/include/stdio.h ]] || packages+=(libc6-dev)
python3 -c 'import ensurepip, venv' 2>/dev/null || packages+=(python3-venv)
if ((${#packages[@]})); then
    echo "installing ${packages[*]}" >&2
    apt-get update -q >/dev/null
    DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "${packages[@]}" >/dev/null
fi

stamp=.venv/requirements.sha256
if ! sha256sum --status -c "$stamp" 2>/dev/null; then
    echo "making .venv" >&2
    rm -rf .venv
    python3 -m venv .venv
    .venv/bin/python -m pip install -qq --disable-pip-version-check --require-hashes \
        --only-binary :all: -r requirements-dev.txt
    sha256sum requirements.txt requirements-dev.txt >"$stamp"
fi
