# shellcheck shell=bash disable=SC2034,SC2154  # variables are shared by the files of one run
# The engine that the jobs run in, and how it hands out cards: this machine's with NVIDIA's Container Toolkit if it
# has both, else an engine of our own with a stand-in for the toolkit (stand-in/). Sourced by gpu-check.

own_engine() { [[ $toolkit == stand-in* ]]; }

engine_up() {
    choose_engine
    make_image || { seen="no image for the jobs"; return 1; }
    if own_engine; then
        card_nodes || { seen="the stand-in for the toolkit does not find the card's files"; return 1; }
        open_cgroups
        own_engine_up || { seen="no container runs: $(tail -n 3 "$LOGS/smoke.txt" "$LOGS/dockerd.log" | tr '\n' ' ')"; return 1; }
    else
        smoke || { seen="this machine's engine runs no container: $(tail -n 3 "$LOGS/smoke.txt")"; return 1; }
    fi
    have[engine]=1
    engine=$(python 30 version)
    figure engine "$engine"
    figure toolkit "$toolkit"
    seen="$engine; toolkit: $toolkit"
}

# Which engine and which toolkit: both real, or both ours.
choose_engine() {
    local host=${DOCKER_HOST:-unix:///var/run/docker.sock} version
    toolkit=stand-in
    if [[ -z $FAKE ]] && DOCKER_HOST=$host python 10 ping; then
        version=$(nvidia-container-cli --version 2>/dev/null || nvidia-ctk --version 2>/dev/null) &&
            toolkit="NVIDIA's, $(head -n 1 <<<"$version")"
    fi
    if own_engine; then host=unix://$ROOM/docker.sock; fi
    export DOCKER_HOST=$host
}

# card_nodes: the card's devices and the driver's files, which the stand-in puts into containers.
card_nodes() {
    local folders
    if [[ -n $FAKE ]]; then
        python 30 cards "$ROOM/gpu.json" "$smi" /nowhere "$uuid"
        return
    fi
    folders=$(dirname "$(readlink -f "$library")"):$(dirname "$library"):/usr/local/nvidia/lib64
    folders+=:$(ldconfig -p | awk '/libcuda\.so\.1 .*x86-64/ { print $NF; exit }' | xargs -r dirname)
    python 60 cards "$ROOM/gpu.json" "$smi" "$folders"
    grep -q libcuda.so.1 "$ROOM/gpu.json"
}

# A root file system with a shell and the job, and the libraries that these and the driver's files need.
make_image() {
    local root=$ROOM/image name file
    mkdir -p "$root"/{bin,usr/bin,lib64,usr/lib/x86_64-linux-gnu,tmp,etc,proc,sys,dev,root}
    chmod 1777 "$root/tmp"
    # NVIDIA's toolkit looks for this to know where libraries lie.
    : >"$root/etc/debian_version"
    ln -sfn usr/lib "$root/lib"
    cp "$ROOM/bin/busybox" "$root/bin/"
    for name in sh true false echo cat ls mkdir sleep tail env id wc grep rm; do ln -sfn busybox "$root/bin/$name"; done
    cp "$ROOM/gpujob" "$root/bin/gpujob"
    cp -L /lib64/ld-linux-x86-64.so.2 "$root/lib64/"
    for file in "$ROOM/gpujob" "$smi" "$library" "$(dirname "$library")/libcuda.so.1"; do
        { ldd "$file" 2>/dev/null || true; } | awk '/=> \// { print $3 }'
    done | sort -u | { grep -vE 'nvidia|cuda' || true; } |
        while read -r file; do cp -L "$file" "$root/usr/lib/x86_64-linux-gnu/"; done
    for name in libc.so.6 libm.so.6 libdl.so.2 libpthread.so.0 librt.so.1 libgcc_s.so.1 libstdc++.so.6; do
        file=$(ldconfig -p | awk -v name="$name" '$1 == name && /x86-64/ { print $NF; exit }')
        [[ -z $file ]] || cp -L "$file" "$root/usr/lib/x86_64-linux-gnu/"
    done
    tar -C "$root" --owner=0 --group=0 --numeric-owner -cf "$ROOM/image.tar" .
}

remove_image() {
    [[ -n ${have[engine]:-} ]] && ! own_engine || return 0
    python3 "$CHECK/python" remove "$image" "${address:-}" || true
}

# Puts controllers into the hands of the engine where no init system did.
open_cgroups() {
    local root=/sys/fs/cgroup controller pid
    mountpoint -q "$root" || { mkdir -p "$root" && mount -t cgroup2 none "$root"; }
    [[ -e $root/cgroup.subtree_control ]] || return 0
    enable_controllers && return
    # Where this is not the real root, processes have to leave it first.
    [[ -z $FAKE ]] || return 0
    mkdir -p "$root/init"
    while read -r pid; do echo "$pid" >"$root/init/cgroup.procs" || true; done <"$root/cgroup.procs"
    enable_controllers || true
}

enable_controllers() {
    local controllers controller status=0
    read -ra controllers </sys/fs/cgroup/cgroup.controllers
    for controller in "${controllers[@]}"; do
        echo "+$controller" >/sys/fs/cgroup/cgroup.subtree_control || status=1
    done
    return "$status"
}

own_engine_up() {
    printf '{"default-runtime": "nv", "runtimes": {"nv": {"path": "%s"}}}\n' "$ROOM/bin/nv-runtime" >"$ROOM/daemon.json"
    # A machine without disk of its own (a container) may allow layers on memory only, or no layers at all.
    try_engine "$ROOM/data" || { memory_disk && try_engine "$ROOM/memory/data"; } ||
        try_engine "$ROOM/data-vfs" --storage-driver=vfs
}

memory_disk() { mkdir -p "$ROOM/memory" && mount -t tmpfs -o size=8g none "$ROOM/memory"; }

# try_engine FOLDER OPTION…
try_engine() {
    local folder=$1 pid
    shift
    mkdir -p "$folder" "$ROOM/exec"
    start dockerd dockerd --config-file "$ROOM/daemon.json" -H "$DOCKER_HOST" --data-root "$folder" \
        --exec-root "$ROOM/exec" --pidfile "$ROOM/docker.pid" --group root --bridge=none --iptables=false \
        --ip6tables=false "$@"
    pid=$(pid_of dockerd)
    wait_for 20 engine_answers_or_ended
    smoke && return
    end_process "$pid" "$(started_at "$pid")" 15
    rm -f "$ROOM/docker.pid"
    return 1
}

engine_answers_or_ended() { python 5 ping || ! runs dockerd; }

# The image goes in, and a container says a word.
smoke() {
    { python 60 import "$ROOM/image.tar" "$image" && python 40 container "$image" - /bin/sh -c 'echo hello'; } \
        >"$LOGS/smoke.txt" 2>&1
}

# By the engine alone, before the agent comes to it: one card for whoever asks, none for others, no unknown one.
toolkit() {
    needs engine || return
    local wrong=()
    python 60 container "$image" "$uuid" /bin/sh -c 'nvidia-smi -L; ls /dev; env' >"$STATE/with.txt" 2>&1 || true
    [[ $(grep -c '^GPU [0-9]' "$STATE/with.txt") == 1 ]] || wrong+=("one card")
    python 60 container "$image" "$uuid" /bin/gpujob compute >"$STATE/computes.txt" 2>&1 || true
    grep -q '"ok":true' "$STATE/computes.txt" || wrong+=(computing)
    VISIBLE=all python 60 container "$image" - /bin/ls /dev >"$STATE/without.txt" 2>&1 || true
    if own_engine && grep -q '^nvidia' "$STATE/without.txt"; then wrong+=("a card unasked"); fi
    python 60 container "$image" GPU-00000000-0000-0000-0000-000000000000 /bin/true >"$STATE/unknown.txt" 2>&1 || true
    grep -q 'unknown device' "$STATE/unknown.txt" || wrong+=("an unknown card")
    tail -n +1 "$STATE"/{with,computes,without,unknown}.txt
    seen="${wrong[*]:+wrong: ${wrong[*]}; }$(grep '^GPU' "$STATE/with.txt" | head -n 1)"
    ((${#wrong[@]} == 0))
}
