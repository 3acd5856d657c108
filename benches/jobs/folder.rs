//! The cost of an output folder with very many small files: sealing, uploading, and storing in the
//! embedded store, which runs in this process.

use std::path::Path;
use std::time::{Duration, Instant};

use lamda_node::artifact::{self, Config, Pinata, seal};
use lamda_node::http::install_crypto;
use lamda_node::secret::Secret;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::Failure;

/// Seals and publishes a folder of `files` files of a few bytes each.
pub(super) async fn folder(dir: &Path, files: usize) -> Result<Value, Failure> {
    install_crypto();
    let output = dir.join("output");
    for file in 0..files {
        let folder = output.join((file / 1000).to_string());
        std::fs::create_dir_all(&folder)?;
        std::fs::write(folder.join(format!("{file}.json")), format!(r#"{{"row":{file}}}"#))?;
    }
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    let url = format!("http://{}", listener.local_addr()?);
    let pinata = Pinata::new(&Config {
        gateways: vec![url.clone()],
        gateway_token: None,
        pinata_url: url,
        pinata_jwt: Secret::new("bench"),
        pinata_rate_per_min: 600,
        connect_timeout: Duration::from_secs(5),
        idle_timeout: Duration::from_mins(1),
    })?;
    let (begun, before) = (Instant::now(), cpu_seconds()?);
    let sealed = seal(&output, 1 << 30).await?;
    let sealing = begun.elapsed().as_secs_f64();
    let store = dir.join("store");
    let cid = tokio::select! {
        cid = pinata.publish(&output, &sealed, "bench", |_| {}) => cid?,
        served = artifact::store::serve(&store, listener, std::future::pending()) => {
            return Err(format!("the store ended: {served:?}").into());
        }
    };
    assert_eq!(cid, sealed.cid, "it is published under its name");
    Ok(json!({
        "files": files,
        "seal_s": sealing,
        "seal_and_publish_s": begun.elapsed().as_secs_f64(),
        "cpu_s": cpu_seconds()? - before,
    }))
}

/// CPU seconds of this process, which is store and client together.
fn cpu_seconds() -> Result<f64, Failure> {
    /// Linux's `USER_HZ`, the unit of times in `/proc/PID/stat` (proc(5)).
    const TICKS_PER_S: f64 = 100.0;
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let after = stat.rsplit_once(')').ok_or("no stat")?.1;
    let ticks = after.split_whitespace().skip(11).take(2).map(str::parse::<f64>);
    Ok(ticks.sum::<Result<f64, _>>()? / TICKS_PER_S)
}
