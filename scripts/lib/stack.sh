# shellcheck shell=bash
# The environment of demo and bench: the program, an image, a NATS server, a chain, a store, a key and a
# contract. Its state is under one folder, with the agent's settings in BASE/env. Sourced after docker.sh
# and processes.sh; expects BASE.

STATE=$BASE/state
LOGS=$BASE/logs
PIDS=$BASE/pids
ENV_FILE=$BASE/env
NODE=$TARGET/release/lamda-node
# anvil's default chain id. GPU_MODE=none is allowed on a local chain only.
CHAIN_ID=31337

# Only the variables that a program needs: a setting or key of the user's real node must not reach the
# demo's. For the same reason, programs run in a folder without a .env file.
clean=(env -i)
for name in PATH HOME USER LANG TERM COLUMNS DOCKER_HOST LD_LIBRARY_PATH; do
    [[ -z ${!name:-} ]] || clean+=("$name=${!name}")
done
# The same with the settings of BASE/env, loaded as a person would load them by hand.
# shellcheck disable=SC2016
configured=("${clean[@]}" bash -c 'set -a; . "$1"; shift; exec "$@"' _ "$ENV_FILE")

with_settings() { (cd "$STATE" && exec "${configured[@]}" "$@"); }

setting() { printf '%s=%q\n' "$1" "$2" >>"$ENV_FILE"; }

build_node() {
    local quiet=()
    say "Building lamda-node (the first time takes some minutes)"
    # Cargo's progress is for a terminal; in a file it is hundreds of lines. Errors are shown either way.
    [[ -t 1 ]] || quiet=(--quiet)
    (cd "$ROOT" && cargo build --release --locked --bin lamda-node "${quiet[@]}")
}

# Builds the job's image from a static busybox and the renderer, so that no registry is needed.
build_image() {
    local folder=$ROOT/.demo/image source
    mkdir -p "$folder/bin"
    for source in "$ROOT"/examples/render/*.rs; do
        if [[ $source -nt $folder/bin/render ]]; then
            note "compiling examples/render"
            rustc --edition 2024 -O -C target-feature=+crt-static -C strip=symbols \
                "$ROOT/examples/render/main.rs" -o "$folder/bin/render"
            break
        fi
    done
    busybox_root "$folder"
    image=lamda-demo:$(cat "$folder/bin/render" "$folder/bin/busybox" | sha256sum | cut -c1-12)
    import_image "$image" "$folder" 'CMD ["/bin/render"]' 'ENV PATH=/bin'
    note "image $image"
}

# Makes the folders for state anew; pictures of earlier runs are kept.
prepare() {
    rm -rf "$STATE" "$LOGS" "$PIDS" "$ENV_FILE" "$BASE/agent.pid"
    mkdir -p "$STATE" "$LOGS"
    chmod 700 "$BASE"
    : >"$PIDS"
    (umask 077 && : >"$ENV_FILE")
}

start_servers() {
    local nats_port anvil_port store_port
    say "Starting NATS, a chain and a store on loopback"
    nats_port=$(free_port)
    start nats-server nats-server --addr 127.0.0.1 --port "$nats_port" --jetstream \
        --store_dir "$STATE/nats"
    anvil_port=$(free_port)
    # One block a second, as on a real chain, so that receipts take time and confirmations accumulate.
    start anvil anvil --host 127.0.0.1 --port "$anvil_port" --chain-id "$CHAIN_ID" \
        --block-time 1 --silent
    store_port=$(free_port)
    start store "${clean[@]}" "$NODE" store --dir "$STATE/store" --listen "127.0.0.1:$store_port"
    await nats-server "$nats_port"
    await anvil "$anvil_port"
    await store "$store_port"
    setting NATS_URL "nats://127.0.0.1:$nats_port"
    setting OPBNB_RPC_URL "http://127.0.0.1:$anvil_port"
    setting IPFS_GATEWAYS "http://127.0.0.1:$store_port"
    setting PINATA_API_URL "http://127.0.0.1:$store_port"
    # The store needs no key and has no rate limit; both settings are for the real service.
    setting PINATA_JWT demo
    setting PINATA_RATE_PER_MIN 100000
    setting LAMDA_NODE "$NODE"
    setting DATA_DIR "$STATE/agent"
    rpc=http://127.0.0.1:$anvil_port
    gateway=http://127.0.0.1:$store_port
    nats_url=nats://127.0.0.1:$nats_port
    note "nats-server $nats_url, anvil $rpc, store $gateway"
}

make_key() {
    local passphrase=$STATE/passphrase
    (umask 077 && head -c 24 /dev/urandom | base64 >"$passphrase")
    with_settings "$NODE" key new --keystore "$STATE/key.json" --passphrase-file "$passphrase" \
        >>"$LOGS/key.log" 2>&1 || { cat "$LOGS/key.log" >&2 && die "the key could not be created"; }
    address=$(with_settings "$NODE" key address --keystore "$STATE/key.json" \
        --passphrase-file "$passphrase" | grep -oiE '0x[0-9a-f]{40}' | head -n 1)
    setting AGENT_KEYSTORE "$STATE/key.json"
    setting AGENT_KEYSTORE_PASSPHRASE_FILE "$passphrase"
    setting AGENT_ADDRESS "$address"
    credit || die "the local chain did not credit the account"
}

# Gives the account ten coins of the local chain, for gas.
credit() {
    local body='{"jsonrpc":"2.0","id":1,"method":"anvil_setBalance","params":["'"$address"'","0x8ac7230489e80000"]}'
    if has curl; then
        quietly curl -sS --fail "$rpc" -H 'Content-Type: application/json' --data "$body"
    else
        quietly python3 -c 'import sys, urllib.request as web
request = web.Request(sys.argv[1], sys.argv[2].encode(), {"Content-Type": "application/json"})
web.build_opener(web.ProxyHandler({})).open(request, timeout=10).read()' "$rpc" "$body"
    fi
}

deploy_contract() {
    say "A key, and the contract on the chain"
    make_key
    local answer
    answer=$(with_settings "$NODE" contract deploy --json) || die "the contract was not deployed"
    contract=$(grep -oiE '"(contract|address|contract_address)": *"0x[0-9a-f]{40}"' <<<"$answer" |
        head -n 1 | grep -oiE '0x[0-9a-f]{40}') || die "no contract address in: $answer"
    setting REPUTATION_CONTRACT_ADDRESS "$contract"
    note "node     $address"
    note "contract $contract"
}

# Removes containers that the agent left behind, with a warning, since each is a bug.
sweep_containers() {
    [[ -n ${address:-} ]] || return 0
    local name=${address:2:8} left id
    left=$(docker_api '/containers/json?all=1' -G --data-urlencode \
        "filters={\"name\":[\"^/lamda-${name,,}-\"]}" 2>/dev/null | grep -oE '"Id":"[0-9a-f]+"' |
        cut -d'"' -f4) || return 0
    for id in $left; do
        warn "a container was left behind: ${id:0:12}; removed"
        docker_api "/containers/$id?force=1&v=1" -X DELETE >/dev/null || true
    done
}
