//! NVIDIA's container toolkit on this host: its version, as its programs tell it.
//!
//! Invariants: only `--version` is asked; each answer has a deadline and is bounded; what the version means is
//! decided in [`crate::node::toolkit`].

use std::path::{Path, PathBuf};
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::timeout;

use super::ask::ask;
use crate::node::toolkit::{Verdict, Version, judge};

/// Its programs: the newer tool, the tool of `libnvidia-container`, and the runtime. Older versions lack the
/// first, and hosts that only use `--gpus` lack the last.
const PROGRAMS: [&str; 3] = ["nvidia-ctk", "nvidia-container-cli", "nvidia-container-runtime"];
/// Where packages, installers by hand and NVIDIA's own containers put them.
const FOLDERS: [&str; 4] =
    ["/usr/bin", "/usr/local/bin", "/usr/local/nvidia/toolkit", "/run/current-system/sw/bin"];
/// Most folders that are looked into.
const FOLDERS_MAX: usize = 64;
/// Each takes some 20 ms; the runtime asks the one below it for its version too.
const DEADLINE: Duration = Duration::from_secs(5);
/// Their answers have some 300 bytes.
const ANSWER_MAX: u64 = 16 * 1024;

/// Asks the programs of the toolkit.
#[derive(Debug, Clone)]
pub struct Toolkit {
    folders: Vec<PathBuf>,
    deadline: Duration,
    /// Why this host's programs say nothing of the toolkit that is used.
    elsewhere: Option<&'static str>,
    is_unused: bool,
}

impl Default for Toolkit {
    fn default() -> Self {
        Self::searched(&[])
    }
}

impl Toolkit {
    /// The programs in these folders, else where they usually lie.
    pub fn searched(folders: &[PathBuf]) -> Self {
        let own = folders.iter().filter(|folder| folder.is_absolute()).take(FOLDERS_MAX).cloned();
        let folders = own.chain(FOLDERS.map(PathBuf::from)).collect();
        Self { folders, deadline: DEADLINE, elsewhere: None, is_unused: false }
    }

    /// Sets the deadline for each answer; the default is 5 s.
    #[must_use]
    pub fn with_deadline(self, deadline: Duration) -> Self {
        Self { deadline, ..self }
    }

    /// The toolkit that is used lies where this host's programs say nothing of it.
    #[must_use]
    pub fn elsewhere(self, why: &'static str) -> Self {
        Self { elsewhere: Some(why), ..self }
    }

    /// None is used.
    #[must_use]
    pub fn unused(self) -> Self {
        Self { is_unused: true, ..self }
    }

    /// Asks now. Takes at most the deadline.
    pub async fn look(&self) -> Verdict {
        if self.is_unused {
            return Verdict::Unused;
        }
        if let Some(why) = self.elsewhere {
            return Verdict::Unknown(why.to_owned());
        }
        let asked = PROGRAMS.into_iter().filter_map(|name| Some((name, self.found(name)?)));
        let asked = asked.map(|(name, path)| async move { (name, self.version(&path).await) });
        judge(&join_all(asked).await)
    }

    fn found(&self, name: &str) -> Option<PathBuf> {
        self.folders.iter().map(|folder| folder.join(name)).find(|path| path.is_file())
    }

    async fn version(&self, program: &Path) -> Result<Version, String> {
        let answer = timeout(self.deadline, ask(program, &["--version"], ANSWER_MAX)).await;
        let late = || format!("no answer in {} s", self.deadline.as_secs_f64());
        let answer = answer.unwrap_or_else(|_| Err(late()))?;
        Version::told(&answer).ok_or_else(|| "it tells no version".to_owned())
    }
}
