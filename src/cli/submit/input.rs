//! The job's input: a CID, or a file or folder that is uploaded first.

use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use serde_json::json;

use super::super::Misused;
use super::report::Report;
use crate::artifact::{self, Pinata, seal};
use crate::backoff::Backoff;
use crate::config::Client;
use crate::ids::{Cid, JobId};

/// Upper bound that the pinning service sets on one upload.
const INPUT_BYTES_MAX: u64 = 25 * 1_000_000_000;
/// Retries of an upload or download, so that a short outage does not fail the whole command.
const RETRY: Backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(15));
const TRIES: u32 = 6;

/// The CID of the `--input` argument; uploads a file or folder.
pub(super) async fn resolve(
    input: &str,
    client: &Client,
    report: &mut Report,
) -> anyhow::Result<Cid> {
    if let Ok(cid) = input.parse() {
        return Ok(cid);
    }
    let path = Path::new(input);
    if !path.exists() {
        return Err(
            Misused(format!("--input: {input} is neither a CID nor a file or folder")).into()
        );
    }
    if !client.can_publish {
        let text = "to upload an input, set PINATA_JWT (for a local `lamda-node store` any word, \
                    with PINATA_API_URL and IPFS_GATEWAYS)";
        return Err(Misused(text.to_owned()).into());
    }
    upload(path, client, report).await.with_context(|| format!("{input} could not be uploaded"))
}

async fn upload(named: &Path, client: &Client, report: &mut Report) -> anyhow::Result<Cid> {
    // A symbolic link stands for its target.
    let path = &named.canonicalize()?;
    report.busy(&format!("hashing {}", path.display()));
    let sealed = seal(path, INPUT_BYTES_MAX).await?;
    let pinata = Pinata::new(&client.artifact)?;
    let name = pin_name(named);
    let progress = report.transfer(&format!("uploading {}", path.display()), Some(sealed.bytes));
    let publish = patiently(async || pinata.publish(path, &sealed, &name, &progress).await);
    let cid = publish.await?;
    report.quiet();
    let text = format!("input {} is {cid} ({} bytes)", path.display(), sealed.bytes);
    report.event("input", &json!({"cid": cid, "bytes": sealed.bytes}), &text)?;
    Ok(cid)
}

/// The pin's name in the service's listing: the file's name, if it contains only plain characters.
fn pin_name(path: &Path) -> String {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let plain = name.parse::<JobId>().is_ok();
    format!("input-{}", if plain { name } else { "file" })
}

/// Runs `work`, and retries transient errors a few times.
pub(super) async fn patiently<T>(
    mut work: impl AsyncFnMut() -> Result<T, artifact::Error>,
) -> Result<T, artifact::Error> {
    let mut failures = 0;
    loop {
        match work().await {
            Err(err) if err.is_transient() && failures + 1 < TRIES => {
                failures += 1;
                tracing::warn!("trying again: {err}");
                let wait = match &err {
                    artifact::Error::RateLimited { retry_after: Some(wait), .. } => *wait,
                    _ => RETRY.jittered(failures),
                };
                tokio::time::sleep(wait).await;
            }
            ended => return ended,
        }
    }
}
