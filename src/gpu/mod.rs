//! The host's GPUs.
//!
//! [`GpuProbe`] is the interface. [`host`] is what the node uses: it asks [`nvml`], NVIDIA's management
//! library, which is opened at run time so that the program starts without it; `nvidia-smi` where that
//! library can't be loaded; and [`pci`] for the cards of other makers. [`toolkit`] is the
//! version of what hands cards to containers. [`fake`] is a list.
//!
//! Invariant: a driver call that hangs never blocks the agent; every call has a deadline.

mod ask;
pub mod fake;
pub mod host;
pub mod nvml;
pub mod pci;
mod smi;
pub mod toolkit;

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;

use tokio::sync::mpsc;

use crate::node::card::{Happened, Reading, Round};
use crate::node::toolkit::Verdict;
use crate::node::{GpuInventory, GpuUuid};

/// How many events may wait for the agent. A card in trouble sends a few a second; while the channel is full
/// the driver keeps the next ones.
pub const EVENTS_MAX: usize = 256;

/// A source of the host's GPUs, their samples and their events.
pub trait GpuProbe: fmt::Debug + Send + Sync + 'static {
    /// Lists all cards that the driver knows.
    fn inventory(&self) -> impl Future<Output = Result<GpuInventory, Error>> + Send;

    /// Samples all cards once. A card that was there at an earlier call and can't be reached any more is in
    /// the round with the reason.
    fn sample(&self) -> impl Future<Output = Result<Round, Error>> + Send;

    /// Energy that each of these cards has used since its driver was loaded, in millijoules, asked now: it costs the
    /// driver some milliseconds a card. A card that is not there is left out.
    fn energy(
        &self,
        cards: &[GpuUuid],
    ) -> impl Future<Output = Result<BTreeMap<GpuUuid, Reading<u64>>, Error>> + Send {
        let cards = cards.to_vec();
        async move {
            let round = self.sample().await?;
            let of = |card: GpuUuid| {
                let sample = round.get(&card)?;
                let energy = match sample {
                    Ok(sample) => sample.energy_mj.clone(),
                    Err(why) => Err(why.clone()),
                };
                Some((card, energy))
            };
            Ok(cards.into_iter().filter_map(of).collect())
        }
    }

    /// The cards' events from now on, of which at most [`EVENTS_MAX`] wait. A driver that is away or fails is
    /// opened again later, and the channel stays open; dropping the receiver ends the watch.
    fn events(&self) -> mpsc::Receiver<Happened>;

    /// What is known of the toolkit that hands the cards to containers, asked now.
    fn toolkit(&self) -> impl Future<Output = Verdict> + Send;
}

/// Why the GPUs can't be listed or sampled.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The library is not on this host: no driver, or a container without it.
    #[error(
        "NVIDIA's management library {library} can't be opened; is the NVIDIA driver installed?"
    )]
    NoLibrary {
        /// The path or name that was tried.
        library: String,
        /// The error of the dynamic loader.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The library is present but reports an error: driver not loaded, mismatched versions.
    #[error("the NVIDIA driver does not answer: {reason}")]
    Driver {
        /// The library's error message.
        reason: String,
    },
    /// The library can't be opened, and the tool that may stand in for it fails too.
    #[error("nvidia-smi does not tell the cards either: {reason}")]
    Tool {
        /// What is wrong with the tool's answer.
        reason: String,
        /// Why the tool was asked.
        #[source]
        library: Box<Error>,
    },
    /// The driver gave no answer before the deadline.
    #[error("the NVIDIA driver gave no answer in {seconds} s")]
    Hung {
        /// The deadline in seconds.
        seconds: u64,
    },
}
