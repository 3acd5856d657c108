# shellcheck shell=bash disable=SC2034,SC2154  # variables are shared by the files of one run
# Checks of the machine and its card, before anything of ours runs: what it is, what the driver's own tool and its
# library say. Sets `uuid`, `model`, `mib`, `driver`, `cuda` of the first card. Sourced by gpu-check.

unpack() {
    local pack pids=() pid
    for pack in "$ROOT"/pack/*.tar.xz; do
        if has xz; then tar -C "$ROOM" -xJf "$pack" & else python 60 untar "$ROOM" "$pack" & fi
        pids+=("$!")
    done
    for pid in "${pids[@]}"; do wait "$pid" || return 1; done
    cp "$CHECK"/stand-in/* "$ROOM/bin/"
    sed -i "s#@ROOM@#$ROOM#g; s#@PYTHON@#$(command -v python3)#g" "$ROOM/bin/nv-runtime" "$ROOM/bin/nv-edit.py"
    chmod +x "$ROOM"/bin/*
    lend_libraries
    figure version "$("$NODE" --version), packed at $(cat "$ROOT/commit")"
    seen="$("$NODE" --version); carried libraries in use: $(tr '\n' ' ' <"$ROOM/lent")"
}

# Copies the carried libraries that this machine lacks to where the loader looks: runc runs a child without our
# variables. `give_back` removes them.
lend_libraries() {
    local folder=/usr/lib/x86_64-linux-gnu program name again=1
    [[ -d $folder ]] || folder=/usr/lib64
    : >"$ROOM/lent"
    while ((again)); do
        again=0
        while read -r name; do
            [[ -e $ROOM/lib/$name && ! -e $folder/$name ]] || continue
            cp "$ROOM/lib/$name" "$folder/$name"
            printf '%s\n' "$folder/$name" >>"$ROOM/lent"
            again=1
        done < <(for program in dockerd runc containerd anvil lamda-node; do ldd "$ROOM/bin/$program"; done 2>/dev/null |
            awk '/not found/ { print $1 }' | sort -u)
    done
}

# Takes back what was lent to the machine, mounts included.
give_back() {
    local path
    while read -r path; do rm -f "$path"; done < <(cat "$ROOM/lent" 2>/dev/null)
    while read -r path; do umount -l "$path" || true; done \
        < <(awk -v room="$ROOM/" 'index($2, room) == 1 { print $2 }' /proc/mounts | sort -r)
}

machine() {
    {
        uname -srm
        cat /etc/os-release
        nproc
        free -m
        df -h
        ls -laR /dev/nvidia* /dev/nvidia-caps
        cat /proc/driver/nvidia/version /proc/driver/nvidia/params
        ldconfig -p | grep -iE 'nvidia|cuda'
        nvcc --version
        of_driver
    } 2>&1 || true
    # shellcheck source=/dev/null
    seen="Linux $(uname -r), $(. /etc/os-release && echo "$PRETTY_NAME"), $(nproc) cores, $(awk '/MemTotal/ { printf "%.0f GiB", $2 / 1048576 }' /proc/meminfo)"
    figure machine "$(nproc) cores, $(. /etc/os-release && echo "$PRETTY_NAME")"
}

# What the driver told the kernel's log.
of_driver() { dmesg 2>/dev/null | grep -iE 'nvrm|nvidia|xid' | tail -n 50; }

# One field of the first card, as nvidia-smi says it.
of_card() { timeout 30 nvidia-smi -i 0 --query-gpu="$1" --format=csv,noheader,nounits | head -n 1; }

nvidia_smi() {
    local began cold=() number
    smi=$(command -v nvidia-smi) || { seen="no nvidia-smi"; return 1; }
    find_library
    for number in 1 2 3; do
        began=$(now_ms)
        timeout 60 nvidia-smi -L >/dev/null || { seen="nvidia-smi -L failed"; return 1; }
        cold+=("$(($(now_ms) - began))")
    done
    timeout 60 nvidia-smi >"$LOGS/nvidia-smi.txt"
    timeout 60 nvidia-smi -q >"$LOGS/nvidia-smi-q.txt"
    serial=$(sed -nE 's/^ *Serial Number +: ([0-9]{6,}).*/\1/p' "$LOGS/nvidia-smi-q.txt" | head -n 1)
    sed -i -E 's/^( *GPU PDI +: ).*/\10x0/' "$LOGS/nvidia-smi-q.txt"
    mapfile -t uuids < <(timeout 30 nvidia-smi --query-gpu=uuid --format=csv,noheader)
    uuid=$(of_card uuid)
    model=$(of_card name)
    mib=$(of_card memory.total)
    driver=$(of_card driver_version)
    cuda=$(grep -oE 'CUDA Version *: *[0-9.]+' "$LOGS/nvidia-smi.txt" | grep -oE '[0-9.]+$')
    figure card "${FAKE:+no card: a stand-in for an }$model"
    figure driver "$driver"
    figure cuda "$cuda"
    seen="$model, $uuid, $mib MiB, driver $driver, CUDA $cuda; cards: ${#uuids[@]}; library $library (loader knows it: ${loader_knows:-no}); -L took ${cold[*]} ms"
    cat "$LOGS/nvidia-smi.txt"
    [[ -n $uuid && -n $mib && -n $cuda ]]
}

# The driver's library as the loader finds it, else where it lies.
find_library() {
    library=$(ldconfig -p | awk '/libnvidia-ml\.so\.1 .*x86-64/ { print $NF; exit }')
    loader_knows=${library:+yes}
    [[ -n $library ]] ||
        library=$(find -L /usr/local/nvidia /usr/lib /usr/lib64 -name libnvidia-ml.so.1 -print -quit 2>/dev/null || true)
    if [[ -n $FAKE ]]; then library=$FAKE/libnvidia-ml.so.1 loader_knows=; fi
}

# Each getter's answer and cost, with NVIDIA's own Python binding: what the tests' vectors are made of.
nvml_dump() {
    [[ -z $FAKE ]] || { skip "the stand-in library is not asked"; return; }
    python3 -c 'import pynvml' || { skip "python3 has no pynvml"; return; }
    python 60 nvml "$OUT/nvml.json" | tee "$LOGS/nvml.txt" || return 1
    seen=$(tail -n 1 "$LOGS/nvml.txt")
}

# doctor when nothing else is there: it exits with 1 or 2, and only its word on the card counts. Where the loader
# does not know the library, the setting is needed.
doctor_alone() {
    local setting told="" began good=1
    for setting in "" "$library"; do
        began=$(now_ms)
        (cd "$STATE" && bounded 60 "${clean[@]}" GPU_MODE=auto ${setting:+NVML_LIB="$setting"} "$NODE" doctor) \
            >"$STATE/doctor.txt" 2>&1 || true
        cat "$STATE/doctor.txt"
        told+="NVML_LIB ${setting:-unset}: $(grep -E '^(ok|warn|fail) +gpu:' "$STATE/doctor.txt" | head -n 1) ($(($(now_ms) - began)) ms); "
        [[ -n $setting || -n $loader_knows ]] || continue
        grep -E '^ok +gpu:' "$STATE/doctor.txt" | grep -F "$uuid" | grep -F "$mib MiB" | grep -qF "$model" || good=
    done
    seen=$told
    [[ -n $good ]]
}

build_job() {
    if [[ -n $FAKE ]]; then
        cp "$FAKE/gpujob" "$ROOM/gpujob"
        chmod +x "$ROOM/gpujob"
        seen="the job is a stand-in"
        return
    fi
    local capability began
    has nvcc || { seen="no nvcc: install CUDA's compiler, the job is built on this machine"; return 1; }
    capability=$(of_card compute_cap | tr -dc 0-9)
    began=$(now_ms)
    bounded 90 nvcc -O2 "-arch=sm_$capability" -cudart static -Xcompiler -static-libstdc++,-static-libgcc \
        -o "$ROOM/gpujob" "$CHECK/gpujob.cu" || return 1
    seen="nvcc $(nvcc --version | grep -oE 'release [0-9.]+'), sm_$capability, $(($(now_ms) - began)) ms"
}

# The job on the bare machine: what is wrong here is no fault of ours.
on_host() {
    local number
    OUTPUT_PATH=$STATE/host.json bounded 60 "$ROOM/gpujob" compute || return 1
    for number in 1 2 3; do bounded 60 "$ROOM/gpujob" ctx || return 1; done
    seen=$(cat "$STATE/host.json")
    grep -q '"ok":true' "$STATE/host.json"
}
