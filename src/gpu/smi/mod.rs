//! `nvidia-smi`, for hosts on which the driver's library can't be loaded but its tool answers.
//!
//! Invariants: one call at a time; a deadline and a bounded answer; the tool does not get the agent's
//! environment. An answer of another form than requested is refused as a whole.

mod csv;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::timeout;

use crate::node::GpuInventory;
use crate::node::card::Round;

/// The places where drivers, containers and WSL put it.
const TOOLS: [&str; 4] = [
    "/usr/bin/nvidia-smi",
    "/usr/local/bin/nvidia-smi",
    "/usr/local/nvidia/bin/nvidia-smi",
    "/usr/lib/wsl/lib/nvidia-smi",
];
/// It takes 30 ms with a healthy driver, and seconds if it has to load the driver.
const DEADLINE: Duration = Duration::from_secs(10);
/// A card's line has 150 bytes, a process's line 60; `-q` prints 14 KiB a card.
const ANSWER_MAX: u64 = 1024 * 1024;
const FORMAT: &str = "--format=csv,noheader,nounits";

/// Asks NVIDIA's tool.
#[derive(Debug, Clone)]
pub(super) struct Smi {
    candidates: Vec<PathBuf>,
    deadline: Duration,
    turn: Arc<Mutex<()>>,
}

impl Smi {
    /// The tool at `path`, or the host's own without one.
    pub(super) fn new(path: Option<PathBuf>) -> Self {
        let candidates = path.map_or_else(|| TOOLS.map(PathBuf::from).to_vec(), |path| vec![path]);
        Self { candidates, deadline: DEADLINE, turn: Arc::default() }
    }

    /// Sets the deadline for a whole answer.
    pub(super) fn with_deadline(self, deadline: Duration) -> Self {
        Self { deadline, ..self }
    }

    /// The tool, if this host has it.
    pub(super) fn found(&self) -> Option<&Path> {
        self.candidates.iter().map(PathBuf::as_path).find(|path| path.is_file())
    }

    /// The cards that it lists, or why it lists none, as a clause.
    pub(super) async fn inventory(&self, tool: &Path) -> Result<GpuInventory, String> {
        self.in_time(async {
            let cards = ask(tool, &[csv::LIST, FORMAT]).await?;
            let head = ask(tool, &["-q", "-d", "COMPUTE"]).await?;
            let cuda = csv::cuda(&head).unwrap_or_else(|| "unknown".to_owned());
            csv::inventory(&cards, &cuda)
        })
        .await
    }

    /// Samples of its cards, or why there are none, as a clause.
    pub(super) async fn sample(&self, tool: &Path) -> Result<Round, String> {
        self.in_time(async {
            let processes = csv::processes(&ask(tool, &[csv::PROCESSES, FORMAT]).await?)?;
            csv::round(&ask(tool, &[csv::SAMPLE, FORMAT]).await?, &processes)
        })
        .await
    }

    async fn in_time<T>(
        &self,
        asked: impl Future<Output = Result<T, String>>,
    ) -> Result<T, String> {
        let round = async {
            let _turn = self.turn.lock().await;
            asked.await
        };
        let answer = timeout(self.deadline, round).await;
        answer.unwrap_or_else(|_| Err(format!("no answer in {} s", self.deadline.as_secs())))
    }
}

/// One answer of the tool. A tool that hangs in the driver can't be killed, and nobody waits for it.
async fn ask(tool: &Path, arguments: &[&str]) -> Result<String, String> {
    super::ask::ask(tool, arguments, ANSWER_MAX).await
}
