# shellcheck shell=bash
# The processes of one run: started apart from the terminal, recorded in a file, and ended by process
# id only. Sourced after common.sh; expects PIDS (a file), LOGS and STATE (folders).

# start NAME COMMAND…: starts a process in a session of its own. Thus ctrl-C reaches only this script,
# which ends the processes in order.
start() {
    local name=$1
    shift
    (cd "$STATE" && exec setsid "$@" >>"$LOGS/$name.log" 2>&1 </dev/null) &
    local pid=$!
    printf '%s %s %s\n' "$name" "$pid" "$(started_at "$pid")" >>"$PIDS"
    disown "$pid"
}

pid_of() { awk -v name="$1" '$1 == name { pid = $2 } END { print pid }' "$PIDS"; }

# runs NAME: whether a recorded process of this name is alive.
runs() {
    local name pid start
    while read -r name pid start; do
        [[ $name == "$1" && -n $start && $(started_at "$pid") == "$start" ]] && return
    done <"$PIDS"
    return 1
}

# Whether any recorded process is alive.
any_runs() {
    local name pid start
    [[ -f $PIDS ]] || return 1
    while read -r name pid start; do
        [[ -n $start && $(started_at "$pid") == "$start" ]] && return
    done <"$PIDS"
    return 1
}

# await NAME PORT: waits until the server listens, or shows the end of its log and fails.
await() {
    wait_for 30 listens_or_ended "$1" "$2"
    listens "$2" && return
    tail -n 15 "$LOGS/$1.log" >&2
    die "$1 does not listen on 127.0.0.1:$2; its log is $LOGS/$1.log"
}

listens_or_ended() { listens "$2" || ! runs "$1"; }

# Ends all recorded processes, last started first, each within STOP_S. The 45 s include the grace that the agent gives
# jobs.
stop_all() {
    local name pid start
    [[ -f $PIDS ]] || return 0
    while read -r name pid start; do
        end_process "$pid" "$start" "${STOP_S:-45}"
    done < <(tac "$PIDS")
    rm -f "$PIDS"
}
