# shellcheck shell=bash disable=SC2034,SC2154  # variables are shared by the files of one run
# The node and what it needs, and what it says of the cards against nvidia-smi. Sourced by gpu-check.

stack() {
    start_servers
    setting GPU_MODE auto
    setting AGENT_POOLS auto
    setting DOCKER_HOST "${DOCKER_HOST:-}"
    # No registry has the image.
    setting JOB_LOCAL_IMAGES "$image"
    # The time until a card is free again is told at this level.
    setting LOG_LEVEL "info,lamda_node::agent::health=debug"
    # Otherwise the node has to find it by itself.
    [[ -n $loader_knows ]] || setting NVML_LIB "$library"
    deploy_contract
    have[stack]=1
    seen="node $address"
}

doctor_full() {
    needs stack || return
    local lines=$STATE/doctor.txt
    lamda doctor >"$lines" 2>&1 || true
    cp "$lines" "$OUT/doctor.txt"
    cat "$lines"
    seen=$(grep -E '^(ok|warn|fail) +gpu' "$lines" | tr '\n' '|')
    grep -qE '^fail' "$lines" && { seen="fails: $(grep -E '^fail' "$lines" | tr '\n' ' ')"; return 1; }
    python 30 compare-doctor "$lines" || { seen="$(tail -n 1 "$LOGS/doctor-full.log"); $seen"; return 1; }
}

agent_start() {
    start agent "${configured[@]}" "$NODE" run
    agent_pid=$(pid_of agent)
}

registered() { lamda contract show "$address" --json | grep -qE '"(registered|is_registered)": *true'; }

agent_up() {
    needs engine && needs stack || return
    local began
    began=$(now_ms)
    agent_start
    wait_for 30 registered || { seen="not registered: $(tail -n 3 "$LOGS/agent.log")"; return 1; }
    have[agent]=1
    lamda contract show "$address" | tee "$STATE/registered.txt"
    seen="registered after $(($(now_ms) - began)) ms: $(grep -i 'registered as' "$STATE/registered.txt")"
    # With several cards it registers the one that the chain has room for.
    grep -F "$model" "$STATE/registered.txt" | grep -qF "$mib" || ((${#uuids[@]} > 1)) || return 1
    grep -F "uuid=$uuid" "$LOGS/agent.log" | grep -F "driver=\"$driver\"" | grep -qF "cuda=\"$cuda\"" ||
        { seen="the log does not name the card's UUID, driver and CUDA; $seen"; return 1; }
}

# Every fact of every card.
gpus() {
    needs agent || return
    local began status=0
    began=$(now_ms)
    lamda gpus --json >"$STATE/gpus.json" || status=$?
    seen="exit $status after $(($(now_ms) - began)) ms"
    cat "$STATE/gpus.json"
    lamda gpus || true
    ((status == 0)) || return 1
    python 30 compare-facts "$STATE/gpus.json" | tee "$STATE/facts.txt" || { seen+="; $(tail -n 1 "$STATE/facts.txt")"; return 1; }
    seen+="; $(tail -n 1 "$STATE/facts.txt")"
}

# The attacks that sandbox-test tries from inside of a container.
sandbox_test() {
    needs engine || return
    local status=0
    lamda sandbox-test >"$STATE/sandbox.txt" 2>&1 || status=$?
    cat "$STATE/sandbox.txt"
    figure sandbox "sandbox-test: exit $status"
    seen="exit $status; $(grep -c . "$STATE/sandbox.txt") lines; $(grep -iE '^(fail|not)' "$STATE/sandbox.txt" | tr '\n' ' ')"
    return "$status"
}
