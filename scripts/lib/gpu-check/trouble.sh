# shellcheck shell=bash disable=SC2034,SC2154  # variables are shared by the files of one run
# Jobs that end badly, and what must hold afterwards: the card is free, the job ran once, the next one works.
# Sourced by gpu-check.

# MiB of the first card in use, as nvidia-smi says.
vram() { of_card memory.used; }

# Within 100 MiB of what it was before.
vram_back() { (($(vram) <= $1 + 100)); }

# Whose processes hold the card, by nvidia-smi: the host's id, its container, its name.
compute_pids() {
    local pid
    timeout 30 nvidia-smi --query-compute-apps=pid --format=csv,noheader | while read -r pid; do
        printf 'pid %s in %s (%s); ' "$pid" \
            "$(grep -oE 'docker[/-][0-9a-f]{12}' "/proc/$pid/cgroup" | head -n 1)" "$(cat "/proc/$pid/comm")"
    done 2>/dev/null || true
}

# A cancel while the job holds nine tenths of the memory.
hog_cancel() {
    needs agent || return
    local before during began answered ended freed holders wrong=()
    before=$(vram)
    follow j-hog --agent "$address" --gpus 1 -- /bin/gpujob hog $((mib * 9 / 10)) 120
    wait_for 40 said j-hog HOLDING || wrong+=("does not hold")
    during=$(vram)
    holders=$(compute_pids)
    began=$(now_ms)
    lamda cancel j-hog --agent "$address" --json || wrong+=(cancel)
    answered=$(($(now_ms) - began))
    wait "$follower" || true
    ended=$(($(now_ms) - began))
    told j-hog
    wait_for 10 vram_back "$before" || wrong+=("memory in use: $(vram) MiB")
    freed=$(($(now_ms) - began))
    [[ $(of j-hog status) == cancelled ]] || wrong+=("$(of j-hog status)")
    [[ -n $FAKE ]] || ((during > before + mib / 2)) || wrong+=("memory held: $during MiB")
    seen="${wrong[*]:+wrong: ${wrong[*]}; }VRAM MiB $before, $during, $(vram); cancel answered $answered ms, told $ended ms, VRAM seen free $freed ms; $holders"
    figure hog "cancel of a job that held $during MiB: told after $ended ms, memory seen free after $freed ms"
    ((${#wrong[@]} == 0))
}

timeout_oom() {
    needs agent || return
    local before wrong=()
    before=$(vram)
    job j-timeout 60 --agent "$address" --gpus 1 --timeout 6s -- /bin/gpujob hog $((mib / 2)) 120 || true
    [[ $(of j-timeout status) == timed_out ]] || wrong+=("time limit")
    job j-oom 60 --agent "$address" --gpus 1 -- /bin/gpujob hog $((mib * 2)) 1 || true
    [[ $(of j-oom status) == failed && $(of j-oom exit_code) == 10 ]] || wrong+=("too much memory")
    wait_for 5 vram_back "$before" || wrong+=("memory in use")
    seen="${wrong[*]:+wrong: ${wrong[*]}; }$(of j-timeout status)/$(of j-timeout reason_code); $(of j-oom status)/$(of j-oom reason_code) exit $(of j-oom exit_code); VRAM $before, $(vram)"
    ((${#wrong[@]} == 0))
}

# The agent is killed within a job and started again: the same container, started once, completed.
sigkill() {
    needs agent || return
    local since starts rest wrong=()
    since=$(date +%s.%3N)
    follow j-kill --agent "$address" --gpus 1 --fetch "$STATE/out-kill" -- /bin/gpujob spin 12
    wait_for 40 said j-kill round || wrong+=("does not run")
    kill -KILL "$agent_pid"
    wait_for 5 agent_gone
    python 20 containers "$address" | tee "$STATE/left.txt"
    grep -q running "$STATE/left.txt" || wrong+=("the container ended")
    agent_start
    wait "$follower" || true
    told j-kill
    starts=$(python 20 starts j-kill "$since")
    [[ $(of j-kill status) == completed ]] || wrong+=("$(of j-kill status)")
    [[ $starts == 1 ]] || wrong+=("starts: $starts")
    wait_for 10 no_containers || wrong+=("containers are left")
    rest=$(cut -c1-300 "$STATE/out-kill/output")
    seen="${wrong[*]:+wrong: ${wrong[*]}; }$(of j-kill status), starts $starts, attempts $(of j-kill attempts); $rest"
    ((${#wrong[@]} == 0))
}

agent_gone() { ! runs agent; }
# Networks that are made ahead are none of a job's.
no_containers() { ! python 20 containers "$address" | grep -q 'job='; }

# A job that writes to a null pointer on the card: the driver reports Xid 31, the job is charged with it, the next job
# completes.
xid() {
    needs agent || return
    local wrong=()
    job j-fault 60 --agent "$address" --gpus 1 -- /bin/gpujob fault || true
    [[ -z $FAKE ]] || echo "event 1 $uuid 8 31" >>"$FAKE/state.txt"
    [[ $(of j-fault exit_code) == 10 ]] || wrong+=("exit $(of j-fault exit_code)")
    wait_for 10 grep -q 'caused Xid 31' "$LOGS/agent.log" || wrong+=("the agent heard of no Xid 31")
    job j-after 60 --agent "$address" --gpus 1 -- /bin/gpujob compute || true
    [[ $(of j-after status) == completed ]] || wrong+=("the next job: $(of j-after status)")
    seen="${wrong[*]:+wrong: ${wrong[*]}; }$(of j-fault status) exit $(of j-fault exit_code), then $(of j-after status); $(grep -E 'caused Xid' "$LOGS/agent.log" | tail -n 1); dmesg: $(dmesg 2>/dev/null | grep -i xid | tail -n 1 | cut -c1-160)"
    figure xid "${wrong[*]:-Xid 31 reported and charged to the job, the next one completed}"
    ((${#wrong[@]} == 0))
}

# SIGTERM: nothing is left.
ending() {
    needs agent || return
    local began rest
    lamda jobs --all >"$LOGS/jobs.txt" 2>&1 || true
    began=$(now_ms)
    end_process "$agent_pid" "$(started_at "$agent_pid")" 45
    rest=$(python 20 containers "$address" | wc -l)
    seen="SIGTERM to end $(($(now_ms) - began)) ms, containers left $rest, VRAM $(vram) MiB, the agent's warnings: $(grep -cE ' (ERROR|WARN) ' "$LOGS/agent.log")"
    grep -E ' (ERROR|WARN) ' "$LOGS/agent.log" || true
    [[ $rest == 0 ]]
}
