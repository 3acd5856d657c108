# shellcheck shell=bash disable=SC2034,SC2154  # variables are shared by the files of one run
# Jobs through the whole node: what they compute, which cards they see, what their receipts say, and which jobs are
# refused. Sourced by gpu-check.

# job NAME SECONDS OPTION… -- COMMAND: submits it and follows it to its end. `of NAME KEY` reads what was told of it.
job() {
    local name=$1 lamda_s=$2 status=0
    shift 2
    lamda submit --job-id "$name" --json --follow --image "$image" "$@" >"$STATE/$name.jsonl" 2>"$LOGS/$name.err" ||
        status=$?
    told "$name"
    cat "$LOGS/$name.err"
    return "$status"
}

# follow NAME OPTION…: the same in the background, up to 75 s; its pid is in `follower`.
follow() {
    local name=$1 lamda_s=75
    shift
    lamda submit --job-id "$name" --json --follow --image "$image" "$@" >"$STATE/$name.jsonl" 2>"$LOGS/$name.err" &
    follower=$!
}

told() { python 10 told "$STATE/$1.jsonl" | tee "$STATE/$1.told"; }
of() { python 10 field "$STATE/$1.told" "$2"; }
# said NAME TEXT: whether the job's log had it.
said() { python 10 said "$STATE/$1.jsonl" "$2"; }

job_compute() {
    needs agent || return
    local status=0 output=$STATE/out-compute/output
    job j-compute 90 --agent "$address" --gpus 1 --fetch "$STATE/out-compute" -- /bin/gpujob compute || status=$?
    seen="$(of j-compute status), receipt valid $(of j-compute receipt_valid), $(of j-compute duration_ms), $(cat "$output")"
    [[ $status == 0 && $(of j-compute status) == completed && $(of j-compute receipt_valid) == true ]] || return 1
    # The receipt names the card that computed.
    [[ " ${uuids[*]} " == *" $(of j-compute gpu_uuids) "* ]] && grep -q '"ok":true' "$output" &&
        grep -qF "\"uuid\":\"$(of j-compute gpu_uuids)\"" "$output"
}

receipts() {
    needs agent || return
    local card
    lamda receipt show j-compute >"$STATE/receipt.json" || return 1
    cat "$STATE/receipt.json"
    # shellcheck disable=SC2154
    seen=$(lamda verify "$STATE/receipt.json" --contract "$contract" --json) || return 1
    card=$(of j-compute gpu_uuids)
    sed "s/$card/GPU-00000000-0000-0000-0000-000000000000/" "$STATE/receipt.json" >"$STATE/forged.json"
    if lamda verify "$STATE/forged.json"; then
        seen="a receipt with another card was called valid"
        return 1
    fi
    grep -q '"valid": *true' <<<"$seen"
}

job_sees_one() {
    needs agent || return
    local output=$STATE/out-sees/output count
    job j-sees 60 --agent "$address" --gpus 1 --fetch "$STATE/out-sees" -- /bin/sh -c \
        '{ nvidia-smi -L; ls /dev; env | grep NVIDIA; id; grep -E "Cap|NoNewPrivs|Seccomp" /proc/self/status; } >/output/output 2>&1' ||
        return 1
    cat "$output"
    count=$(grep -c '^GPU [0-9]' "$output")
    seen="cards in the container: $count; $(grep '^GPU' "$output" | head -n 1); $(grep -E 'CapEff|NoNewPrivs' "$output" | tr '\t\n' '  ')"
    [[ $count == 1 ]] && grep -qF "$(of j-sees gpu_uuids)" "$output"
}

# Also if it sets the variable by which the toolkit chooses cards.
job_cpu_none() {
    needs agent || return
    local output=$STATE/out-cpu/output
    job j-cpu 60 --agent "$address" --gpus 0 --env NVIDIA_VISIBLE_DEVICES=all --fetch "$STATE/out-cpu" -- /bin/sh -c \
        '{ ls /dev | grep nvidia || echo no device; env | grep NVIDIA; OUTPUT_PATH= /bin/gpujob ctx; } >/output/output 2>&1; true' ||
        return 1
    cat "$output"
    seen="$(of j-cpu status), gpuUuids '$(of j-cpu gpu_uuids)': $(tr '\n' ' ' <"$output")"
    [[ $(of j-cpu status) == completed && -z $(of j-cpu gpu_uuids) ]] && grep -qx 'no device' "$output"
}

# refused NAME WANTED OPTION…: a job that must end as WANTED.
refused() {
    local name=$1 wanted=$2 status=0
    shift 2
    job "$name" 40 "$@" || true
    status=$(of "$name" status)
    seen+="$name: $status/$(of "$name" reason_code); "
    [[ $status == "$wanted" ]] || wrong+=("$name")
}

refusals() {
    needs agent || return
    local wrong=() count=${#uuids[@]} word=${model##* }
    local touch=(-- /bin/sh -c 'echo x >/output/output')
    refused too-many rejected --agent "$address" --gpus $((count + 1)) -- /bin/true
    refused other-model rejected --agent "$address" --gpus 1 --gpu-model "RTX 1234" -- /bin/true
    refused too-much-memory rejected --agent "$address" --gpus 1 --min-vram-mib $((mib * 2)) -- /bin/true
    refused fits completed --agent "$address" --gpus 1 --gpu-model "$word" --min-vram-mib "$mib" "${touch[@]}"
    refused of-pool completed --pool gpu --gpus 1 "${touch[@]}"
    ((${#wrong[@]} == 0)) || seen="wrong: ${wrong[*]}; $seen"
    ((${#wrong[@]} == 0))
}
