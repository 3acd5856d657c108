# shellcheck shell=bash disable=SC2034,SC2154  # variables are shared by the files of one run
# What is measured with the card: samples under load against nvidia-smi's, the cost of sampling, of a job, of the
# sandbox, the time until a card is free, and what a card that stays awake would save. Sourced by gpu-check.

# The agent's own patience, after which it warns of a card that is not free.
FREE_MAX_MS=5000

# A job keeps the card busy; both tell the same of it, at the same time.
load() {
    needs agent || return
    local pids=()
    follow j-load --agent "$address" --gpus 1 -- /bin/gpujob load 12 $((mib / 8))
    wait_for 40 said j-load LOADING || { seen="the job does not run"; return 1; }
    mapfile -t pids < <(python 20 pids j-load)
    [[ -z $FAKE ]] || play_load "${pids[-1]}"
    # The driver's own share of busy time is of the last second.
    sleep 2
    python 30 compare-load "$STATE/load.json" "${FAKE:+0}" "${pids[*]}" "${configured[@]}" "$NODE" gpus --json |
        tee "$STATE/load.txt" || { stop_load; seen=$(tail -n 1 "$STATE/load.txt"); return 1; }
    stop_load
    seen=$(tail -n 1 "$STATE/load.txt")
    figure load "$seen"
    grep -q '"job_id": *"j-load"' "$STATE/load.json" || { seen="gpus does not name the job that holds the card; $seen"; return 1; }
}

# The stand-ins become idle while the job still runs, as a card does before its job is told to have ended.
stop_load() {
    [[ -z $FAKE ]] || mv "$FAKE/idle.txt" "$FAKE/state.txt"
    wait "$follower" || true
}

# play_load PID: makes the stand-ins tell of a busy card.
play_load() {
    cp "$FAKE/state.txt" "$FAKE/idle.txt"
    sed -e "s/@PID@/$1/" "$FAKE/load.txt" | cat "$FAKE/idle.txt" - >"$FAKE/next.txt"
    mv "$FAKE/next.txt" "$FAKE/state.txt"
}

# The CPU time of the idle agent, which samples each 10 s and listens to the card's events.
sampling_cost() {
    needs agent || return
    seen=$(python 40 cpu "$agent_pid" 20) || return 1
    figure idle "$seen"
    # The stand-in library reads a file at each call.
    [[ -n $FAKE ]] || awk '{ exit $1 > 1 }' <<<"$seen" || { seen="more than 1 % of a core: $seen"; return 1; }
}

bench() {
    needs agent || return
    local status=0
    # shellcheck disable=SC2154
    AGENT_ADDRESS=$address NATS_URL=$nats_url python 110 bench "$OUT/bench.json" "$image" "$uuid" "$agent_pid" \
        "${ROUNDS:-20}" 80 >"$STATE/bench.txt" 2>&1 || status=$?
    cat "$STATE/bench.txt"
    seen=$(tail -n 1 "$STATE/bench.txt")
    ((status != 0)) || figure bench "$seen"
    return "$status"
}

# A CUDA context on a card that slept for 4 s, on one that was just used, and on one that another process keeps
# awake with a context of its own; and what that costs.
awake() {
    python 60 awake "$ROOM/gpujob" "$([[ -n $FAKE ]] && echo 0.1 || echo 4)" 4 | tee "$STATE/awake.txt" || return 1
    seen=$(tail -n 1 "$STATE/awake.txt")
    figure awake "$seen"
}

sandbox_cost() {
    needs engine || return
    python 100 sandbox-cost "$image" "$uuid" "$([[ -n $FAKE ]] && echo 1 || echo 6)" "$STATE" | tee "$STATE/cost.txt" ||
        return 1
    seen=$(tail -n 1 "$STATE/cost.txt")
}

# How long cards were held back after their jobs, as the agent logs it; and no card was ever called unwell.
freed() {
    needs agent || return
    local times
    times=$(grep -oE 'is free after [0-9]+ ms' "$LOGS/agent.log" | grep -oE '[0-9]+' | sort -n)
    seen=$(awk '{ all[NR] = $1 } END { printf "n %d, p50 %d ms, max %d ms", NR, all[int((NR + 1) / 2)], all[NR] }' <<<"$times")
    [[ -n $times ]] || { seen="no card was seen free after a job"; return 1; }
    figure freed "a card is seen free after its job: $seen"
    (($(tail -n 1 <<<"$times") < FREE_MAX_MS)) || { seen="a card was held back for too long: $seen"; return 1; }
    if grep -E 'is suspect|is quarantined|is retired|given to no job yet|not watched' "$LOGS/agent.log"; then
        seen="the agent's log tells of a card that is not well; $seen"
        return 1
    fi
}
