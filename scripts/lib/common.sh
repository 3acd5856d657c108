# shellcheck shell=bash
# The common basis of the scripts: paths, messages, and process helpers. Sourced, never run.

set -euo pipefail

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
TOOLS=$ROOT/.tools
TARGET=${CARGO_TARGET_DIR:-$ROOT/target}
# Cargo resolves a relative path against its working folder, which is the root.
[[ $TARGET == /* ]] || TARGET=$ROOT/$TARGET
# Tools installed here come first. Daemons and iptables are in sbin, which a user's PATH may lack.
export PATH=$TOOLS/bin:$PATH:/usr/local/sbin:/usr/sbin:/sbin

say() { printf '\n== %s\n' "$*"; }
note() { printf '   %s\n' "$*"; }
warn() { printf '   note: %s\n' "$*" >&2; }

die() {
    printf '\n%s: %s\n' "${0##*/}" "$*" >&2
    exit 1
}

has() { command -v "$1" >/dev/null 2>&1; }

# Runs one command as root, with sudo if necessary.
as_root() {
    if [[ $(id -u) == 0 ]]; then
        "$@"
    elif has sudo; then
        sudo "$@"
    else
        die "this needs root: $* (run it as root, or install sudo)"
    fi
}

# Runs a command without showing its output; shows the end of the output if it fails.
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

# wait_for SECONDS COMMAND…: repeats the command until it succeeds, for at most SECONDS.
wait_for() {
    local deadline=$((SECONDS + $1))
    shift
    until "$@" >/dev/null 2>&1; do
        ((SECONDS < deadline)) || return 1
        sleep 0.05
    done
}

# listens PORT: whether something listens on this loopback port.
listens() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

# Prints a free loopback port. It is below the kernel's ephemeral range, so that no outgoing connection
# takes it before the server binds it.
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

# started_at PID: the start time of the process in ticks since boot; nothing if there is none. Id and
# start time together identify a process even after its id is reused.
started_at() {
    local stat
    stat=$(cat "/proc/$1/stat" 2>/dev/null) || return 0
    # The name in parentheses may contain spaces, so fields are counted after it.
    read -ra stat <<<"${stat##*) }"
    [[ ${stat[0]} == Z ]] || printf '%s\n' "${stat[19]}"
}

# end_process PID START SECONDS: sends SIGTERM, waits for up to SECONDS, then sends SIGKILL.
end_process() {
    local pid=$1 start=$2 deadline=$((SECONDS + $3))
    [[ -n $start && $(started_at "$pid") == "$start" ]] || return 0
    kill -TERM "$pid" 2>/dev/null || return 0
    while [[ $(started_at "$pid") == "$start" ]]; do
        if ((SECONDS >= deadline)); then
            warn "process $pid did not end after SIGTERM; killed"
            kill -KILL "$pid" 2>/dev/null || true
            return 0
        fi
        sleep 0.05
    done
}
