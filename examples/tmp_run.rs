use lamda_node::{
    agent::*, artifact, bus, chain, clock::SystemClock, container::docker, gpu, secret::Secret,
};
use std::sync::Arc;
use std::time::Duration;
#[tokio::main]
async fn main() {
    artifact::install_crypto();
    tracing_subscriber::fmt()
        .with_env_filter("info,lamda_node=debug")
        .with_writer(std::io::stderr)
        .init();
    let v = |k: &str| std::env::var(k).unwrap();
    let key = chain::Key::from_hex(&Secret::new(v("AGENT_PRIVATE_KEY"))).unwrap();
    let contract = v("REPUTATION_CONTRACT_ADDRESS").parse().unwrap();
    let ac = artifact::Config {
        gateways: vec![v("IPFS_GATEWAYS")],
        gateway_token: None,
        pinata_url: v("PINATA_API_URL"),
        pinata_jwt: Secret::new("x"),
        pinata_rate_per_min: 60000,
        connect_timeout: Duration::from_secs(5),
        idle_timeout: Duration::from_secs(30),
    };
    let cc = chain::Config {
        rpc_url: v("OPBNB_RPC_URL"),
        chain_id: None,
        contract,
        receipt_deadline: Duration::from_secs(30),
        request_timeout: Duration::from_secs(10),
    };
    let node = Node {
        settings: Settings {
            data_dir: v("DATA_DIR").into(),
            without_gpu: true,
            slots: Some(v("JOB_SLOTS").parse().unwrap()),
            pools: vec![],
            pool_prefetch: 0,
            auth: JobAuth::Open,
            allow_bridge: false,
            rules: lamda_node::job::phase::Rules {
                timeout_max: Duration::from_secs(86400),
                fetch_give_up: Duration::from_secs(60),
                upload_give_up: Duration::from_secs(86400),
            },
            disk_free_min_mib: 100,
            heartbeat_interval: Duration::from_secs(300),
            shutdown_grace: Duration::from_secs(30),
            keep_jobs: false,
            stop_grace: Duration::from_secs(10),
        },
        owner: None,
        key: Arc::new(key.clone()),
        bus: bus::Config {
            url: v("NATS_URL"),
            credentials: bus::Credentials::None,
            tls_ca: None,
            name: "t".into(),
            manage_streams: true,
        },
        runtime: docker::Docker::connect(&docker::Config::new(v("DOCKER_HOST"))).unwrap(),
        gpu: gpu::nvml::Nvml::new(None),
        chain: chain::Evm::new(cc, key).unwrap(),
        contract,
        gateways: artifact::Gateways::new(&ac).unwrap(),
        pinata: artifact::Pinata::new(&ac).unwrap(),
        clock: SystemClock,
    };
    let (tx, rx) = tokio::sync::watch::channel(Shutdown::No);
    #[allow(clippy::disallowed_methods)]
    tokio::spawn(async move {
        let mut s =
            tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()).unwrap();
        s.recv().await;
        tx.send_replace(Shutdown::Graceful);
        s.recv().await;
        tx.send_replace(Shutdown::Now);
        std::future::pending::<()>().await
    });
    println!("{:?}", node.run(rx).await);
}
