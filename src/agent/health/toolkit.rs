//! Keeps strangers' jobs off the GPUs while NVIDIA's container toolkit lets programs out of their containers
//! (docs/adr/0034-unsafe-toolkits.md). [`crate::node::toolkit`] judges its version.
//!
//! Invariants: the first look is over before the first job is taken. A version is said once, and again when it
//! is another one.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::agent::jobs::board::Board;
use crate::agent::settings::{JobAuth, Settings};
use crate::clock::Clock;
use crate::fleet::kinds;
use crate::gpu::GpuProbe;
use crate::node::toolkit::Verdict;
use crate::supervise::Failure;

/// Time between two looks: the owner may have brought another version without restarting the node.
const EVERY: Duration = Duration::from_mins(10);

/// The service that looks at the toolkit.
#[derive(Debug)]
pub(in crate::agent) struct Gate<G> {
    gpu: Arc<G>,
    board: Board,
    /// Whether the node takes jobs of people whom its owner did not name.
    has_strangers: bool,
    is_allowed: bool,
    told: Mutex<Option<Verdict>>,
}

impl<G: GpuProbe> Gate<G> {
    /// A gate for the jobs that these settings let in.
    pub(in crate::agent) fn new(gpu: Arc<G>, board: Board, settings: &Settings) -> Self {
        let has_strangers = settings.auth == JobAuth::Open;
        let is_allowed = settings.allows_unsafe_toolkit;
        Self { gpu, board, has_strangers, is_allowed, told: Mutex::default() }
    }

    /// Looks once.
    pub(in crate::agent) async fn look(&self) {
        let verdict = self.gpu.toolkit().await;
        match &verdict {
            Verdict::Unsafe(_) => {
                self.board.bar_strangers(self.has_strangers && !self.is_allowed);
            }
            Verdict::Safe(_) | Verdict::Unused => self.board.bar_strangers(false),
            // On a busy host the programs may not answer in time: what they answered before stands.
            Verdict::Unknown(_) => {}
        }
        let before = {
            let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
            told.replace(verdict.clone())
        };
        if before.as_ref() != Some(&verdict) {
            self.push(&verdict);
            self.tell(&verdict, before.is_some());
        }
    }

    /// Looks from time to time; a service that never ends.
    pub(in crate::agent) async fn run<C: Clock>(self: Arc<Self>, clock: C) -> Result<(), Failure> {
        loop {
            clock.sleep(EVERY).await;
            self.look().await;
        }
    }

    /// Others read it: without the version, which would tell what this node is open to.
    fn push(&self, verdict: &Verdict) {
        let (kind, text) = match verdict {
            Verdict::Unsafe(_) => (kinds::TOOLKIT_UNSAFE, "is not safe"),
            Verdict::Unknown(_) => (kinds::TOOLKIT_UNKNOWN, "is of a version that is not known"),
            Verdict::Safe(_) => (kinds::TOOLKIT_SAFE, "is safe"),
            Verdict::Unused => return,
        };
        let text = format!("NVIDIA's container toolkit {text}");
        let bars = self.has_strangers && !self.is_allowed && kind == kinds::TOOLKIT_UNSAFE;
        self.board.events().tell(kind, &text, |event| event.with("bars_strangers", bars));
    }

    fn tell(&self, verdict: &Verdict, was_told: bool) {
        match verdict {
            Verdict::Unsafe(escapes) if self.is_allowed => {
                tracing::warn!(
                    "{escapes}; GPU_ALLOW_UNSAFE_TOOLKIT=true: jobs get GPUs all the same"
                );
            }
            Verdict::Unsafe(escapes) if self.has_strangers => tracing::warn!(
                "no stranger's job gets a GPU: {escapes}; update it and restart the engine, or set \
                 GPU_ALLOW_UNSAFE_TOOLKIT=true"
            ),
            Verdict::Unsafe(escapes) => tracing::warn!(
                "{escapes}: update it and restart the engine; only those in JOB_ALLOWED_REQUESTERS could \
                 use that"
            ),
            Verdict::Unknown(why) => tracing::warn!(
                "whether NVIDIA's container toolkit lets programs out of their containers is not known: {why}"
            ),
            Verdict::Safe(version) if was_told => {
                tracing::info!(
                    "NVIDIA's container toolkit is {version} now, without known ways out"
                );
            }
            Verdict::Safe(version) => tracing::debug!("NVIDIA's container toolkit is {version}"),
            Verdict::Unused => {}
        }
    }
}
