# shellcheck shell=bash disable=SC2034,SC2154  # variables are shared by the files of one run
# How a check runs: its output goes to a log, its verdict to one line of the summary. Sourced by gpu-check.
#
# A check is a function that prints what it sees, puts the one line for the summary into `seen`, and succeeds only if
# everything held. It ends within what is left of LIMIT, since each command that may take long runs under `bounded`.

ROOM=${GPU_CHECK_ROOM:-/opt/lamda-gpu-check}
# The stand-ins' folder on a machine without a card.
FAKE=${FAKE:-}
OUT=${OUT:-$PWD/gpu-check-out}
SUMMARY=$OUT/summary.txt
FIGURES=$ROOM/figures
# What the ending needs, in seconds.
RESERVE=20
SKIPPED=77
BASE=$ROOM
export PATH=${FAKE:+$FAKE:}$ROOM/bin:$PATH:/usr/local/nvidia/bin:/usr/local/cuda/bin
# shellcheck disable=SC2153
export PYTHONPATH=$ROOT/py PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
. "$ROOT/scripts/lib/processes.sh"
. "$ROOT/scripts/lib/stack.sh"
NODE=$ROOM/bin/lamda-node
# Of a program that does not end.
STOP_S=10
image=gpu-check:1
current=
# Of the card, until nvidia-smi has told.
uuid='' serial='' uuids=()

begin() {
    mkdir -p "$OUT" "$ROOM/bin"
    [[ -z $(ls -A "$ROOM/bin") ]] || die "$ROOM is in use, or left from a run that was killed: remove it"
    OUT=$(realpath "$OUT")
    SUMMARY=$OUT/summary.txt
    : >"$SUMMARY"
    : >"$FIGURES"
    prepare
    export TMPDIR=$STATE
    started_ms=$(now_ms)
    trap finish EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM
}

now_ms() { echo $(($(date +%s%N) / 1000000)); }

# Seconds left for checks.
left() { echo $((LIMIT - RESERVE - ($(now_ms) - started_ms) / 1000)); }

# bounded SECONDS COMMAND…: ends it after so long, or when no time is left.
bounded() {
    local most=$1 rest
    shift
    rest=$(left)
    ((most <= rest)) || most=$((rest > 1 ? rest : 1))
    timeout -k 2 "$most" "$@"
}

# python SECONDS COMMAND ARGUMENT…: one of the commands in python/.
python() {
    local most=$1
    shift
    bounded "$most" python3 "$CHECK/python" "$@"
}

# The program with the node's settings, within `lamda_s` seconds.
# shellcheck disable=SC2016
lamda() { bounded "${lamda_s:-60}" "$BASH" -c 'cd "$1" && shift && exec "$@"' _ "$STATE" "${configured[@]}" "$NODE" "$@"; }

line() { printf '%s\n' "$*" | tee -a "$SUMMARY"; }

# figure NAME VALUE: for the row of docs/hardware.md.
figure() { printf '%s\t%s\n' "$1" "$2" >>"$FIGURES"; }

# skip WHY: what a check returns that can't be tried here.
skip() {
    seen=$*
    return "$SKIPPED"
}

# check NAME FUNCTION SECONDS: SECONDS is what it usually needs.
check() {
    [[ -z ${ONLY:-} || " $ONLY " == *" $1 "* ]] || return 0
    needed "$@"
}

# The same of one that others need, which ONLY does not leave out.
needed() {
    local status=0
    current=$1 current_ms=$(now_ms) seen=
    if (($(left) < $3)); then
        verdict SKIP "no time left"
        return
    fi
    "$2" >"$LOGS/$1.log" 2>&1 || status=$?
    case $status in
        0) verdict ok "$seen" ;;
        "$SKIPPED") verdict SKIP "$seen" ;;
        *) verdict FAIL "${seen:-$(tail -n 2 "$LOGS/$1.log")}" ;;
    esac
}

verdict() {
    local took=$(($(now_ms) - current_ms))
    line "$(printf '%-4s %s %d.%d %s' "$1" "$current" $((took / 1000)) $((took % 1000 / 100)) \
        "$(tr '\n' ' ' <<<"$2" | cut -c1-1500)")"
    current=
}

# Of a check without which others make no sense: `needs engine` skips the one that calls it.
needs() {
    [[ -n ${have[$1]:-} ]] || skip "$1 is not there"
}
declare -A have=()

finish() {
    # An error in a subshell must not end the run.
    [[ $BASHPID == "$$" ]] || return 0
    trap - EXIT
    trap '' INT TERM
    [[ -z $current ]] || verdict FAIL "the run ended here: $(tail -n 2 "$LOGS/$current.log")"
    keep_words
    stop_all
    remove_image
    give_back
    local ok failed skipped
    ok=$(grep -c '^ok ' "$SUMMARY" || true)
    failed=$(grep -c '^FAIL ' "$SUMMARY" || true)
    skipped=$(grep -c '^SKIP ' "$SUMMARY" || true)
    figure checks "$ok of $((ok + failed)) held, $skipped skipped, $((($(now_ms) - started_ms) / 1000)) s"
    cp "$FIGURES" "$LOGS/figures.tsv"
    python3 "$CHECK/python" row "$FIGURES" >"$OUT/row.md" || true
    anonymous
    tar -C "$ROOM" -czf "$OUT/logs.tar.gz" logs
    line "DONE $ok ok, $failed failed, $skipped skipped after $((($(now_ms) - started_ms) / 1000)) s; results in $OUT"
    rm -rf --one-file-system "$ROOM"
    ((failed == 0 && ok > 0)) || exit 1
    exit 0
}

# What the driver and the jobs said, beside the logs.
keep_words() {
    local file
    of_driver >"$LOGS/driver-end.txt" || true
    for file in "$STATE"/*.jsonl "$STATE"/*.told "$STATE/receipt.json"; do
        [[ ! -e $file ]] || cp "$file" "$LOGS/"
    done
}

# Nothing leaves this machine that names the card: its UUID, and the board's serial number, which the driver
# prints beside an Xid.
anonymous() {
    local file at
    for file in "$OUT"/*.txt "$OUT"/*.md "$OUT"/*.json "$LOGS"/*; do
        [[ -f $file ]] || continue
        [[ -z $serial ]] || sed -i "s/$serial/0/g" "$file"
        # The stand-in's card is none.
        [[ -z $FAKE ]] || continue
        for at in "${!uuids[@]}"; do
            sed -i "s/${uuids[at]}/$(printf 'GPU-00000000-0000-4000-8000-%012d' "$((at + 1))")/g" "$file"
        done
    done
}
