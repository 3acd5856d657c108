//! Every key of the original's file: of which kind it is, and what it does here.

/// One key.
#[derive(Debug, Clone, Copy)]
pub(super) struct Key {
    /// Its section and its name.
    pub(super) path: &'static str,
    pub(super) is_for: Use,
}

/// What becomes of a key.
#[derive(Debug, Clone, Copy)]
pub(super) enum Use {
    /// It does something.
    Something,
    /// It does nothing here, because of this.
    Nothing(&'static str),
}

const fn used(path: &'static str) -> Key {
    Key { path, is_for: Use::Something }
}

const fn unused(path: &'static str, why: &'static str) -> Key {
    Key { path, is_for: Use::Nothing(why) }
}

/// All keys.
pub(super) const KEYS: [Key; 40] = [
    used("node_id"),
    used("jwt_token"),
    used("logs.swarm_log_path"),
    used("logs.yarn_log_path"),
    used("logs.wandb_log_path"),
    used("dht.bootstrap_peers"),
    unused("dht.port", "peers are found by the bootnodes, whatever the program's own port is"),
    used("system.poll_interval"),
    used("system.enable_gpu"),
    used("system.enable_cpu"),
    used("system.enable_ram"),
    unused(
        "system.batch_size",
        "each post has one sample; what waits goes first, the oldest first",
    ),
    used("system.metrics_interval"),
    used("system.health_port"),
    used("log_monitoring.api_endpoint"),
    used("log_monitoring.auth_token"),
    unused("log_monitoring.batch_size", "the sidecar has its own pace"),
    unused("log_monitoring.batch_flush_interval", "the sidecar has its own pace"),
    used("log_monitoring.initial_tail_lines"),
    used("log_monitoring.log_files"),
    used("api.base_url"),
    used("api.metrics_endpoint"),
    unused("api.health_endpoint", "the original never calls it, and GET /health is served here"),
    used("api.blockchain_latest_endpoint"),
    used("api.auth_token"),
    used("api.timeout"),
    unused("api.retry_count", "what was not taken is kept and tried until it is taken or refused"),
    used("blockchain.contract_address"),
    used("blockchain.rpc_url"),
    used("blockchain.chain_id"),
    unused("blockchain.contract_abi_path", "the coordinator's interface is built in"),
    unused("blockchain.poll_interval", "the sidecar has its own pace"),
    unused("blockchain.send_interval", "the sidecar has its own pace"),
    unused("blockchain.node_eoa", "the contract is asked for the account by the peer id"),
    used("blockchain.node_peer_id"),
    used("storage.data_path"),
    used("telegram.bot_token"),
    used("telegram.chat_id"),
    used("telegram.alert_on_down"),
    used("telegram.down_alert_delay"),
];
