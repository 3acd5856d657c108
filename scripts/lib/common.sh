# shellcheck shell=bash
# What every script of this folder begins with: where things are, how it speaks, how it ends.
# Sourced, never run.

set -euo pipefail

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
TOOLS=$ROOT/.tools
TARGET=${CARGO_TARGET_DIR:-$ROOT/target}
# Cargo reads a relative one from where it is started, which is the root.
[[ $TARGET == /* ]] || TARGET=$ROOT/$TARGET
# Ours first; the system's daemons and iptables lie in sbin, which a user's PATH may lack.
export PATH=$TOOLS/bin:$PATH:/usr/local/sbin:/usr/sbin:/sbin

say() { printf '\n== %s\n' "$*"; }
note() { printf '   %s\n' "$*"; }
warn() { printf '   note: %s\n' "$*" >&2; }

die() {
    printf '\n%s: %s\n' "${0##*/}" "$*" >&2
    exit 1
}

has() { command -v "$1" >/dev/null 2>&1; }

# Root's rights for one command, asked for only where they are missing.
as_root() {
    if [[ $(id -u) == 0 ]]; then
        "$@"
    elif has sudo; then
        sudo "$@"
    else
        die "this needs root: $* (run it as root, or install sudo)"
    fi
}

# Runs a command with its words kept aside; shows their end where it fails.
quietly() {
    local log
    log=$(mktemp)
    if "$@" >"$log" 2>&1; then
        rm -f "$log"
    else
        tail -n 20 "$log" >&2
        rm -f "$log"
        return 1
    fi
}

# wait_for SECONDS COMMAND…: tries until it succeeds, at most so long.
wait_for() {
    local deadline=$((SECONDS + $1))
    shift
    until "$@" >/dev/null 2>&1; do
        ((SECONDS < deadline)) || return 1
        sleep 0.05
    done
}

# Whether something listens on this loopback port.
listens() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

# A loopback port where nothing listens, from below the range that the kernel hands out by itself,
# so that no outgoing connection takes it before our server does.
free_port() {
    local port
    for _ in {1..100}; do
        port=$((20000 + RANDOM % 12000))
        if ! listens "$port"; then
            printf '%s\n' "$port"
            return
        fi
    done
    die "no free loopback port between 20000 and 32000"
}

# When the process of this id was started, in ticks since boot; nothing where there is none. With
# the id it names one process for good, though ids are used again.
started_at() {
    local stat
    stat=$(cat "/proc/$1/stat" 2>/dev/null) || return 0
    # The name in parentheses may hold spaces: fields count from behind it.
    read -ra stat <<<"${stat##*) }"
    [[ ${stat[0]} == Z ]] || printf '%s\n' "${stat[19]}"
}

# end_process PID START SECONDS: asks it to end, waits, and only then insists.
end_process() {
    local pid=$1 start=$2 deadline=$((SECONDS + $3))
    [[ -n $start && $(started_at "$pid") == "$start" ]] || return 0
    kill -TERM "$pid" 2>/dev/null || return 0
    while [[ $(started_at "$pid") == "$start" ]]; do
        if ((SECONDS >= deadline)); then
            warn "process $pid did not end when asked; killed"
            kill -KILL "$pid" 2>/dev/null || true
            return 0
        fi
        sleep 0.05
    done
}
