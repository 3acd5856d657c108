# shellcheck shell=bash
# Finds the Docker Engine, or installs and starts one. A running engine is left as it is. Sourced after
# install.sh.

DOCKER_LOG=$TOOLS/dockerd.log

# The engine's address: DOCKER_HOST in the syntax of Docker's client, else the default socket.
docker_host() { printf '%s\n' "${DOCKER_HOST:-unix:///var/run/docker.sock}"; }

# docker_api PATH [CURL OPTIONS…]: one call of the Engine API, with curl alone.
docker_api() {
    local path=$1 host
    host=$(docker_host)
    shift
    case $host in
        unix://*) curl -sS --fail-with-body --unix-socket "${host#unix://}" "$@" "http://docker$path" ;;
        tcp://*) curl -sS --fail-with-body "$@" "http://${host#tcp://}$path" ;;
        *) die "DOCKER_HOST=$host: only unix:// and tcp:// are supported" ;;
    esac
}

docker_answers() { docker_api /_ping --max-time 5 >/dev/null 2>&1; }

# Ensures that an engine answers and that this user may use it. On failure, `docker_missing` has the
# reason.
need_docker() {
    docker_missing=
    docker_answers && return
    if [[ -n ${DOCKER_HOST:-} ]]; then
        docker_missing="DOCKER_HOST=$DOCKER_HOST does not answer"
        return 1
    fi
    may_not_use_socket && return 1
    has dockerd || need_apt docker.io iptables
    start_docker && return
    may_not_use_socket && return 1
    docker_missing=${docker_missing:-"dockerd does not start; its log is $DOCKER_LOG"}
    return 1
}

# Whether an engine runs whose socket this user may not use; if so, `docker_missing` has the remedy.
may_not_use_socket() {
    local socket=/var/run/docker.sock group
    [[ -S $socket && ! -w $socket ]] || return 1
    as_root curl -sS --max-time 5 --unix-socket "$socket" http://docker/_ping >/dev/null 2>&1 ||
        return 1
    group=$(stat -c %G "$socket")
    docker_missing="user $(id -un) may not use $socket: sudo usermod -aG $group $(id -un), log in again"
}

start_docker() {
    if [[ -d /run/systemd/system ]]; then
        note "starting Docker Engine with systemd"
        as_root systemctl start docker || return 1
        wait_for 30 docker_answers
        return
    fi
    # The package's own start script may have started one already.
    pgrep -x dockerd >/dev/null 2>&1 && wait_for 15 docker_answers && return
    start_dockerd_by_hand
}

# Without an init system, starts dockerd here and leaves it running at the end. If the machine (for
# example, a container) allows no bridge or no overlay file system, an engine without them still runs
# jobs, which get no network anyway.
start_dockerd_by_hand() {
    note "starting dockerd (it keeps running; log: $DOCKER_LOG)"
    mkdir -p "$TOOLS"
    : >"$DOCKER_LOG"
    mountpoint -q /sys/fs/cgroup || as_root mount -t cgroup2 none /sys/fs/cgroup || true
    local plain=(--group "$(id -gn)")
    local bare=(--bridge=none --iptables=false --ip6tables=false)
    try_dockerd "${plain[@]}" || try_dockerd "${plain[@]}" "${bare[@]}" ||
        try_dockerd "${plain[@]}" "${bare[@]}" --storage-driver=vfs
}

try_dockerd() {
    # A session of its own keeps ctrl-C on this script from ending it.
    as_root setsid dockerd "$@" >>"$DOCKER_LOG" 2>&1 </dev/null &
    local pid=$!
    wait_for 30 docker_answers_or_ended "$pid"
    docker_answers
}

docker_answers_or_ended() { docker_answers || ! kill -0 "$1" 2>/dev/null; }

# import_image TAG FOLDER CHANGE…: imports a root file system as an image, unless the tag exists.
import_image() {
    local tag=$1 folder=$2 query="" change
    shift 2
    docker_api "/images/$tag/json" >/dev/null 2>&1 && return
    for change in "$@"; do
        query+="&changes=$(printf '%s' "$change" | sed 's/ /%20/g; s/\[/%5B/g; s/]/%5D/g; s/"/%22/g')"
    done
    tar -C "$folder" --sort=name --owner=0 --group=0 --numeric-owner --mtime=@0 -c . |
        docker_api "/images/create?fromSrc=-&repo=${tag%:*}&tag=${tag##*:}$query" \
            -X POST -H 'Content-Type: application/x-tar' --data-binary @- >/dev/null ||
        die "the engine refused the image $tag"
    docker_api "/images/$tag/json" >/dev/null || die "the image $tag was not imported"
}

# busybox_root FOLDER: makes a root file system with a shell, from Debian's static busybox.
busybox_root() {
    local folder=$1 applet
    need_busybox
    mkdir -p "$folder/bin" "$folder/tmp"
    chmod 1777 "$folder/tmp"
    cp -f "$(readlink -f "$(command -v busybox)")" "$folder/bin/busybox"
    for applet in sh true false echo cat cp ls mkdir sleep head dd tail env id wc sha256sum; do
        ln -sfn busybox "$folder/bin/$applet"
    done
}

# Debian's static and dynamic busybox packages exclude each other, so a static busybox that is already
# installed is used, whichever package it came from.
need_busybox() {
    has busybox && ! ldd "$(command -v busybox)" >/dev/null 2>&1 && return
    need_apt busybox-static
    has busybox || die "busybox-static was installed but has no busybox"
}
