# shellcheck shell=bash
# The Docker Engine: found, or installed and started. One that answers is left as it is. Sourced
# after install.sh.

DOCKER_LOG=$TOOLS/dockerd.log

# Where the engine is asked: DOCKER_HOST as Docker's own client reads it, else its usual socket.
docker_host() { printf '%s\n' "${DOCKER_HOST:-unix:///var/run/docker.sock}"; }

# docker_api PATH [CURL OPTIONS…]: one call of the Engine API, with no client but curl.
docker_api() {
    local path=$1 host
    host=$(docker_host)
    shift
    case $host in
        unix://*) curl -sS --fail-with-body --unix-socket "${host#unix://}" "$@" "http://docker$path" ;;
        tcp://*) curl -sS --fail-with-body "$@" "http://${host#tcp://}$path" ;;
        *) die "DOCKER_HOST=$host: only unix:// and tcp:// are known here" ;;
    esac
}

docker_answers() { docker_api /_ping --max-time 5 >/dev/null 2>&1; }

# Leaves an engine that answers, and that this user may use; `docker_missing` says why not.
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
    docker_missing=${docker_missing:-"dockerd does not start; its last words are in $DOCKER_LOG"}
    return 1
}

# An engine that runs but refuses this user: taken up again by the same user in its group.
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
    # A package's own start script may have been quicker.
    pgrep -x dockerd >/dev/null 2>&1 && wait_for 15 docker_answers && return
    start_dockerd_by_hand
}

# No init system: started here, and left running at the end. Where the machine allows no bridge or
# no overlay file system (a container, say), an engine without them still runs jobs: they get no
# network anyway.
start_dockerd_by_hand() {
    note "starting dockerd (it stays up; log: $DOCKER_LOG)"
    mkdir -p "$TOOLS"
    : >"$DOCKER_LOG"
    mountpoint -q /sys/fs/cgroup || as_root mount -t cgroup2 none /sys/fs/cgroup || true
    local plain=(--group "$(id -gn)")
    local bare=(--bridge=none --iptables=false --ip6tables=false)
    try_dockerd "${plain[@]}" || try_dockerd "${plain[@]}" "${bare[@]}" ||
        try_dockerd "${plain[@]}" "${bare[@]}" --storage-driver=vfs
}

try_dockerd() {
    # A session of its own, so that ctrl-C on this script does not end it.
    as_root setsid dockerd "$@" >>"$DOCKER_LOG" 2>&1 </dev/null &
    local pid=$!
    wait_for 30 docker_answers_or_ended "$pid"
    docker_answers
}

docker_answers_or_ended() { docker_answers || ! kill -0 "$1" 2>/dev/null; }

# import_image TAG FOLDER CHANGE…: a root file system as an image, unless the tag is there.
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

# busybox_root FOLDER: a root file system with a shell, from Debian's static busybox.
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

# Debian's packages of the two kinds of busybox exclude each other: a static one that is already
# there is taken whatever package it came with.
need_busybox() {
    has busybox && ! ldd "$(command -v busybox)" >/dev/null 2>&1 && return
    need_apt busybox-static
    has busybox || die "busybox-static was installed but has no busybox"
}
