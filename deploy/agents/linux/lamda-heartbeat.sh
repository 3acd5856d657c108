#!/bin/sh
# Tells a hub (lamda-node hub, or the original monitor) whether the program on this machine runs: one beat a call.
# lamda-heartbeat.timer calls it each minute; docs/hub.md has the settings. Needs curl and pgrep (procps).
#
# lamda-heartbeat.sh --enroll CODE: gives the hub a code (lamda-node hub enroll), gets a secret of this node's own for it,
# and keeps that in the file of settings, mode 0600. CODE may be -: it is read from the input then.
#
# What must hold: the file of settings is read, never run; the secret stands in no command line; the script ends in
# less than a minute whatever the network does; it exits with 0 only if the hub took the beat.
set -u

ENV_FILE=${ENV_FILE:-/etc/gensyn-agent.env}

# The settings, with the original's names.
NAMES='SERVER_URL SHARED_SECRET NODE_ID META SCREEN_NAME CHECK_PORT PORT IP_CMD IP_CMD_V4 GSWARM_EOA GSWARM_PEER_IDS
GSWARM_TGID AUTO_KILL_EMPTY_SCREEN ALLOW_REGEX DENY_REGEX PROC_FALLBACK_WITHOUT_SCREEN REQUIRE_P2PD LOG_FILE
LOG_MAX_AGE JITTER_SEC'

say() { printf '%s\n' "$*" >&2; }
die() { say "error: $*"; exit 1; }
have() { command -v "$1" >/dev/null 2>&1; }
is_number() { case $1 in '' | *[!0-9]*) return 1 ;; esac; }

# set_default NAME VALUE: for what neither the environment nor the file sets. Only the listed names get here and into the
# other evaluated lines, so that these hold nothing that was read.
set_default() {
    eval "[ -n \"\${$1+set}\" ]" || eval "$1=\$2"
}

# Reads NAME=VALUE lines, of which the last of a name counts; quotes around a value are taken off, nothing in it is
# expanded or run. The environment goes before the file.
read_file() {
    [ -f "$ENV_FILE" ] || return 0
    [ -r "$ENV_FILE" ] || die "$ENV_FILE can't be read by this user"
    case $(ls -ld "$ENV_FILE") in
        ???????r*) say "warning: everybody can read $ENV_FILE, which holds a secret: chmod 600 $ENV_FILE" ;;
    esac
    while IFS= read -r line || [ -n "$line" ]; do
        line=$(printf '%s' "$line" | tr -d '\r' | sed 's/^[[:space:]]*//; s/^export[[:space:]]\{1,\}//; s/[[:space:]]*$//')
        case $line in '' | '#'*) continue ;; *=*) ;; *) continue ;; esac
        name=${line%%=*} value=${line#*=}
        case $value in
            \'*\' | \"*\") value=${value#?} value=${value%?} ;;
        esac
        for known in $NAMES; do
            [ "$name" = "$known" ] && eval "file_$known=\$value"
        done
    done <"$ENV_FILE"
    for known in $NAMES; do
        eval "[ -z \"\${file_$known+set}\" ]" || eval "set_default $known \"\$file_$known\""
    done
}

read_file
set_default SERVER_URL ''
set_default SHARED_SECRET ''
set_default NODE_ID "$(hostname 2>/dev/null || uname -n)-gensyn"
set_default META ''
set_default SCREEN_NAME gensyn
set_default CHECK_PORT true
set_default PORT 3000
set_default IP_CMD_V4 https://ipv4.icanhazip.com
set_default IP_CMD https://ifconfig.me
set_default GSWARM_EOA ''
set_default GSWARM_PEER_IDS ''
set_default GSWARM_TGID ''
set_default AUTO_KILL_EMPTY_SCREEN false
set_default ALLOW_REGEX '(rgym_exp|code_gen_exp)\.runner\.swarm_launcher|hivemind_cli/p2pd|(^|[/ ])rl-swarm( |$)|python[^ ]* .*rgym_exp'
set_default DENY_REGEX 'run_rl_swarm\.sh|while true|sleep 60'
set_default PROC_FALLBACK_WITHOUT_SCREEN true
set_default REQUIRE_P2PD false
set_default LOG_FILE ''
set_default LOG_MAX_AGE 300
set_default JITTER_SEC 0

[ -n "$SERVER_URL" ] || die "SERVER_URL is not set (environment, or $ENV_FILE)"

# A text within JSON.
escaped() { printf '%s' "$1" | tr -d '[:cntrl:]' | sed 's/\\/\\\\/g; s/"/\\"/g'; }

# Keeps the secret in the file of settings: its other lines stay, and nobody else can read it at any moment.
keep_secret() {
    new=$ENV_FILE.new.$$
    (
        umask 077
        set -C
        { [ ! -f "$ENV_FILE" ] || grep -v '^[[:space:]]*\(export[[:space:]]\{1,\}\)\{0,1\}SHARED_SECRET=' "$ENV_FILE"
          [ -n "${file_NODE_ID+set}" ] || printf "NODE_ID='%s'\n" "$NODE_ID"
          [ -n "${file_SERVER_URL+set}" ] || printf "SERVER_URL='%s'\n" "$SERVER_URL"
          printf "SHARED_SECRET='%s'\n" "$1"; } >"$new"
    ) && { sync "$new" 2>/dev/null || :; } && mv -f "$new" "$ENV_FILE" && return
    rm -f "$new"
    return 1
}

# Changes a code for a secret of this node's own. The code goes through a pipe.
enroll() {
    have curl || die "curl is missing"
    code=$1
    [ "$code" != - ] || IFS= read -r code || die "no code on the input"
    case $code in '' | *[!A-Za-z0-9\ -]*) die "that is no code: lamda-node hub enroll prints one" ;; esac
    case $NODE_ID in *\'*) die "NODE_ID has a quote: set it in $ENV_FILE first" ;; esac
    # Before the code is used up.
    [ -w "$ENV_FILE" ] || [ ! -e "$ENV_FILE" ] || die "$ENV_FILE can't be written by this user"
    [ -w "$(dirname "$ENV_FILE")" ] || die "$(dirname "$ENV_FILE") can't be written by this user"
    answer=$(printf '{"code":"%s","node_id":"%s"}' "$code" "$(escaped "$NODE_ID")" |
        curl --silent --show-error --max-time 20 --header 'Content-Type: application/json' --data-binary @- \
            "${SERVER_URL%/}/api/enroll" | head -c 4096)
    secret=$(printf '%s' "$answer" | tr -d '\n' | sed -n 's/.*"secret":"\([A-Za-z0-9_-]\{16,128\}\)".*/\1/p')
    [ -n "$secret" ] || die "the hub at $SERVER_URL gives no secret: $(printf '%s' "$answer" | tr -d '[:cntrl:]' | head -c 300)"
    keep_secret "$secret" || die "$ENV_FILE can't be written, and the code is used up: make another"
    say "enrolled $NODE_ID; its secret is in $ENV_FILE"
}

case ${1-} in
    '') ;;
    --enroll) [ $# -eq 2 ] || die "it is: $0 --enroll CODE"
        enroll "$2"
        exit 0 ;;
    *) die "it is: $0, or: $0 --enroll CODE" ;;
esac

[ -n "$SHARED_SECRET" ] || die "SHARED_SECRET is not set (environment, or $ENV_FILE)"
case $SHARED_SECRET in *[!!-~]*) die "SHARED_SECRET has a space, or a letter that can't stand in a head" ;; esac
is_number "$PORT" || die "PORT is no number"
is_number "$LOG_MAX_AGE" || LOG_MAX_AGE=300
is_number "$JITTER_SEC" && [ "$JITTER_SEC" -le 30 ] || JITTER_SEC=0
have curl || die "curl is missing"

# The processes of the program, without those that only start it.
programs() {
    pgrep -f "$1" 2>/dev/null | while IFS= read -r pid; do
        [ "$pid" = "$$" ] && continue
        tr '\0' ' ' <"/proc/$pid/cmdline" 2>/dev/null | grep -Eq "$DENY_REGEX" || printf '%s\n' "$pid"
    done
}

# The session of screen, such as 12345.gensyn.
session() {
    have screen || return 0
    screen -list 2>/dev/null | awk -v name="$SCREEN_NAME" '
        { split($1, part, "."); if (part[1] ~ /^[0-9]+$/ && substr($1, length(part[1]) + 2) == name) { print $1; exit } }'
}

# is_within SESSION REGEX: whether such a process belongs to the session.
is_within() {
    programs "$2" | while IFS= read -r pid; do
        tr '\0' '\n' <"/proc/$pid/environ" 2>/dev/null | grep -Fqx "STY=$1" && echo yes && break
    done | grep -q yes
}

is_anywhere() { [ -n "$(programs "$1")" ]; }

has_p2pd() {
    case $REQUIRE_P2PD in
        any) pgrep -f 'hivemind_cli/p2pd' >/dev/null 2>&1 ;;
        screen) [ -n "$1" ] && is_within "$1" 'hivemind_cli/p2pd' ;;
        *) return 0 ;;
    esac
}

# Whether something listens; curl says when it was connected.
has_port() {
    [ "$CHECK_PORT" = true ] || return 0
    connected=$(curl --silent --noproxy '*' --max-time 2 --output /dev/null --write-out '%{time_connect}' \
        "http://127.0.0.1:$PORT/" 2>/dev/null)
    case $connected in *[1-9]*) return 0 ;; *) return 1 ;; esac
}

has_fresh_log() {
    [ -z "$LOG_FILE" ] && return 0
    changed=$(stat -c %Y "$LOG_FILE" 2>/dev/null) || return 1
    [ $(($(date +%s) - changed)) -le "$LOG_MAX_AGE" ]
}

# Why the program is not well; nothing if it is.
reason() {
    session=$(session)
    if [ -n "$session" ]; then
        is_within "$session" "$ALLOW_REGEX" || { echo empty_screen_no_runtime; return; }
        has_p2pd "$session" || { echo no_p2pd_in_screen; return; }
    else
        [ "$PROC_FALLBACK_WITHOUT_SCREEN" = true ] && is_anywhere "$ALLOW_REGEX" || { echo no_screen_no_proc; return; }
        has_p2pd '' || { echo no_p2pd; return; }
    fi
    has_port || { echo "port_closed_$PORT"; return; }
    has_fresh_log || echo stale_log
}

# The address by which others see this machine; what is none is left out.
public_ip() {
    for url in "$IP_CMD_V4" "$IP_CMD"; do
        [ -n "$url" ] || continue
        ip=$(curl --silent --fail --max-time 3 "$url" 2>/dev/null | head -c 100 | tr -d '[:space:]')
        case $ip in '' | *[!0-9a-fA-F.:]*) ;; *) printf '%s' "$ip"; return ;; esac
    done
}

body() {
    printf '{"node_id":"%s","ip":"%s","meta":"%s","status":"%s"' \
        "$(escaped "$NODE_ID")" "$(escaped "$1")" "$(escaped "$2")" "$3"
    [ -z "$GSWARM_EOA" ] || printf ',"gswarm_eoa":"%s"' "$(escaped "$GSWARM_EOA")"
    [ -z "$GSWARM_PEER_IDS" ] || printf ',"gswarm_peer_ids":"%s"' "$(escaped "$GSWARM_PEER_IDS")"
    [ -z "$GSWARM_TGID" ] || printf ',"gswarm_tgid":"%s"' "$(escaped "$GSWARM_TGID")"
    printf '}'
}

# post BODY: four tries in half a minute at most. The head with the secret goes through a pipe.
post() {
    secret=$(escaped "$SHARED_SECRET")
    printf '%s' "$1" | curl --silent --show-error --fail --max-time 8 --retry 3 --retry-delay 2 --retry-max-time 30 \
        --retry-connrefused --header 'Content-Type: application/json' --data-binary @- --output /dev/null \
        --config /dev/fd/3 "${SERVER_URL%/}/api/heartbeat" 3<<EOF
header = "Authorization: Bearer $secret"
EOF
}

if [ "$JITTER_SEC" -gt 0 ]; then
    # No two machines beat at the same moment for long.
    sleep $(($(od -An -N2 -tu2 /dev/urandom) % (JITTER_SEC + 1)))
fi

reason=$(reason)
status=UP
meta=$META
if [ -n "$reason" ]; then
    status=DOWN
    meta="${META:+$META,}reason=$reason"
    if [ "$reason" = empty_screen_no_runtime ] && [ "$AUTO_KILL_EMPTY_SCREEN" = true ]; then
        screen -S "$SCREEN_NAME" -X quit >/dev/null 2>&1 && say "closed the empty screen $SCREEN_NAME"
    fi
fi
if post "$(body "$(public_ip)" "$meta" "$status")"; then
    say "beat node_id=$NODE_ID status=$status${reason:+ reason=$reason}"
else
    die "the hub at $SERVER_URL did not take the beat of $NODE_ID (status=$status)"
fi
