# shellcheck shell=bash
# Makes .gpu/: the scripts, and three packs with the program, an engine, NATS and a chain, for a machine without
# network. Also starts what is in it on a machine without a card. Sourced by gpu-check.
. "$ROOT/scripts/lib/install.sh"

# So much can be carried by hand or by most tools; a pack that grew beyond it needs a look.
PACK_MAX=$((58 << 20))
# The engine, a static shell for the jobs' image, and the libraries of the engine, for machines that lack some.
PACKAGES=(docker.io containerd runc tini busybox-static libdevmapper1.02.1 libseccomp2 libsystemd0 libselinux1
    libudev1 libpcre2-8-0 libcap2 libgcrypt20 libgpg-error0 liblz4-1 liblzma5 libzstd1)
LIBRARIES=(libdevmapper.so.1.02.1 libseccomp.so.2 libsystemd.so.0 libselinux.so.1 libudev.so.1 libpcre2-8.so.0
    libcap.so.2 libgcrypt.so.20 libgpg-error.so.0 liblz4.so.1 liblzma.so.5 libzstd.so.1)

# pack [FILE]: FILE is the program; else it is built.
pack() {
    local node=${1:-$TARGET/release/lamda-node} size
    packed=$ROOT/.gpu
    work=$TARGET/gpu-check
    say "What .gpu needs"
    need_python
    need_nats
    # Not need_foundry alone: it would install the contracts' packages anew for a compiler that is not needed here.
    [[ -x $TOOLS/bin/anvil ]] || need_foundry
    need_apt xz-utils binutils
    [[ -n ${1:-} ]] || build_release
    [[ -x $node ]] || die "$node is not a program"
    unpack_packages
    stage "$node"
    say "Packing"
    rm -rf "$packed/scripts" "$packed/py" "$packed/run"
    mkdir -p "$packed/pack" "$packed/py"
    compress engine bin/dockerd bin/runc bin/docker-init bin/busybox lib &
    local first=$!
    compress servers bin/containerd bin/containerd-shim-runc-v2 bin/nats-server bin/anvil || die "xz failed"
    wait "$first" || die "xz failed"
    compress node bin/lamda-node || die "xz failed"
    carry_scripts
    size=$(du -sb --apparent-size "$packed" | cut -f 1)
    ((size <= PACK_MAX)) || die "$packed has $((size >> 20)) MiB, more than $((PACK_MAX >> 20))"
    note "$packed: $((size >> 20)) MiB, $("$node" --version)"
    note "on the machine with the card, as root: OUT=results bash .gpu/run 400"
}

build_release() {
    say "Building lamda-node"
    (cd "$ROOT" && cargo build --release --locked --bin lamda-node)
}

# Debian's packages, taken apart without being installed. apt keeps a file that is there already.
unpack_packages() {
    mkdir -p "$work/debs"
    fetch_packages || { quietly as_root apt-get update && fetch_packages; } || die "apt-get could not download"
    rm -rf "$work/root"
    mkdir -p "$work/root"
    local deb
    for deb in "$work"/debs/*.deb; do dpkg-deb -x "$deb" "$work/root"; done
}

# -o: apt's own user may not write to this folder, and says so.
fetch_packages() { (cd "$work/debs" && quietly apt-get -qq -o APT::Sandbox::User=root download "${PACKAGES[@]}"); }

stage() {
    local name
    rm -rf "$work/stage"
    mkdir -p "$work/stage/bin" "$work/stage/lib"
    for name in dockerd runc containerd containerd-shim-runc-v2 busybox; do take "$name" "bin/$name"; done
    take tini-static bin/docker-init
    for name in "${LIBRARIES[@]}"; do take "$name" "lib/$name"; done
    for name in nats-server anvil; do cp -L "$TOOLS/bin/$name" "$work/stage/bin/$name"; done
    cp "$1" "$work/stage/bin/lamda-node"
    strip "$work/stage/bin/lamda-node"
    chmod 755 "$work"/stage/bin/*
}

# take FILE TARGET: from whichever folder of the packages has it.
take() {
    local folder
    for folder in usr/bin usr/sbin bin sbin usr/lib/x86_64-linux-gnu lib/x86_64-linux-gnu; do
        [[ -e $work/root/$folder/$1 ]] || continue
        cp -L "$work/root/$folder/$1" "$work/stage/$2"
        return
    done
    die "none of Debian's packages has $1"
}

# compress NAME FILE…: only if a file changed; three packs, so that they are unpacked side by side.
compress() {
    local name=$1 sums
    shift
    sums=$(cd "$work/stage" && find "$@" -type f -exec sha256sum {} + | sort -k 2)
    if [[ -s $packed/pack/$name.tar.xz && $sums == "$(cat "$work/$name.sums" 2>/dev/null)" ]]; then return; fi
    note "$name"
    rm -f "$work/$name.sums"
    tar -C "$work/stage" --owner=0 --group=0 --numeric-owner --mtime=@0 -c "$@" |
        xz -9 >"$packed/pack/$name.tar.xz" || return 1
    printf '%s\n' "$sums" >"$work/$name.sums"
}

carry_scripts() {
    local nats
    mkdir -p "$packed/scripts/lib"
    cp "$ROOT/scripts/gpu-check" "$packed/scripts/"
    cp "$ROOT"/scripts/lib/*.sh "$packed/scripts/lib/"
    cp -r "$CHECK" "$packed/scripts/lib/"
    nats=$("$TOOLS/nv/bin/python" -c 'import nats, os; print(os.path.dirname(nats.__file__))')
    cp -rL "$nats" "$packed/py/nats"
    git -C "$ROOT" describe --always --dirty >"$packed/commit" 2>/dev/null || echo unknown >"$packed/commit"
    find "$packed" -name __pycache__ -prune -exec rm -rf {} +
    # shellcheck disable=SC2016
    printf '#!/usr/bin/env bash\n# As scripts/gpu-check run.\nexec bash "$(dirname "$0")/scripts/gpu-check" run "$@"\n' \
        >"$packed/run"
    chmod +x "$packed/run"
}

# without_card [SECONDS]: runs .gpu with stand-ins for the driver's library, its tool and the job.
without_card() {
    need_apt gcc libc6-dev
    # The scripts as they are now; the packs may be older.
    packed=$ROOT/.gpu
    rm -rf "$packed/scripts" "$packed/py"
    mkdir -p "$packed/py"
    carry_scripts
    FAKE=$(mktemp -d)
    export FAKE GPU_CHECK_ROOM=$FAKE/room
    export ROUNDS=${ROUNDS:-4}
    cp "$CHECK"/without-card/* "$FAKE/"
    sed -i "s#@FAKE@#$FAKE#g" "$FAKE/nvidia-smi"
    cc -shared -fPIC -O2 -Wl,-soname,libnvidia-ml.so.1 "-DSTATE_FILE=\"$FAKE/state.txt\"" \
        -o "$FAKE/libnvidia-ml.so.1" "$ROOT/tests/support-c/fake_nvml.c"
    local status=0
    "$packed/run" "${1:-400}" || status=$?
    rm -rf "$FAKE"
    exit "$status"
}
