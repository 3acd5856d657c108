//! `store`: runs the embedded IPFS store as its own process.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;

use super::logging::Audience;
use super::{load, out};
use crate::artifact::store;

/// Arguments of `store`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The folder of the blocks; created if it is missing
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
    /// The address to listen on: whoever can reach it can read and add anything, so keep it on this machine
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:5080")]
    listen: SocketAddr,
}

pub(super) async fn execute(args: Args) -> anyhow::Result<ExitCode> {
    load(Audience::Owner, |env| env.finish(Some(())))?;
    let listener = tokio::net::TcpListener::bind(args.listen).await;
    let listener = listener.with_context(|| format!("{} can't be listened on", args.listen))?;
    let address = listener.local_addr()?;
    out::line(&format!("store: listening on http://{address}, files in {}", args.dir.display()))?;
    store::serve(&args.dir, listener, super::run::first_signal()).await?;
    Ok(ExitCode::SUCCESS)
}
