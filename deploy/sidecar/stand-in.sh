#!/bin/sh
# Writes the log of a training node, in its form, to the file that is named: a round every 30 s.
set -eu

log=$1
ends=false
trap 'ends=true' TERM INT

say() {
    printf '[%s,000][genrl.logging_utils.global_defs][INFO] - %s\n' "$(date -u '+%Y-%m-%d %H:%M:%S')" "$1" >>"$log"
}

say '🐝 Hello [stand in node] [QmStandinStandinStandinStandinStandinStandinSt]!'
round=1
until $ends; do
    say "Starting round: $round/1000000."
    say "🐝 Joining round: $round"
    round=$((round + 1))
    # In the background: a shell that waits for it hears signals.
    sleep 30 &
    wait $! || true
done
