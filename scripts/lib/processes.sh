# shellcheck shell=bash
# The processes of one run: started apart from the terminal, written down, ended by their ids and
# no other way. Sourced after common.sh; expects PIDS (a file), LOGS and STATE (folders).

# start NAME COMMAND…: in a session of its own, so that ctrl-C reaches this script alone, which then
# ends them in order.
start() {
    local name=$1
    shift
    (cd "$STATE" && exec setsid "$@" >>"$LOGS/$name.log" 2>&1 </dev/null) &
    local pid=$!
    printf '%s %s %s\n' "$name" "$pid" "$(started_at "$pid")" >>"$PIDS"
    disown "$pid"
}

pid_of() { awk -v name="$1" '$1 == name { pid = $2 } END { print pid }' "$PIDS"; }

# Whether a process of this name that we started is alive.
runs() {
    local name pid start
    while read -r name pid start; do
        [[ $name == "$1" && -n $start && $(started_at "$pid") == "$start" ]] && return
    done <"$PIDS"
    return 1
}

# Whether anything that the file names is still alive.
any_runs() {
    local name pid start
    [[ -f $PIDS ]] || return 1
    while read -r name pid start; do
        [[ -n $start && $(started_at "$pid") == "$start" ]] && return
    done <"$PIDS"
    return 1
}

# await NAME PORT: a server that listens, or its last words.
await() {
    wait_for 30 listens_or_ended "$1" "$2"
    listens "$2" && return
    tail -n 15 "$LOGS/$1.log" >&2
    die "$1 does not listen on 127.0.0.1:$2; its log is $LOGS/$1.log"
}

listens_or_ended() { listens "$2" || ! runs "$1"; }

# Ends everything that the file names, last started first: the agent gets the time that it gives
# its own jobs.
stop_all() {
    local name pid start
    [[ -f $PIDS ]] || return 0
    while read -r name pid start; do
        end_process "$pid" "$start" 45
    done < <(tac "$PIDS")
    rm -f "$PIDS"
}
