//! NVML for a machine without a GPU: tests/support-c/fake_nvml.c, built for one test with the path of its
//! state file.

use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use super::tools::tool;

/// A library for one test.
#[derive(Debug)]
pub(crate) struct FakeNvml {
    dir: TempDir,
}

impl FakeNvml {
    /// Builds a library that reports `state`; the C file describes its lines.
    pub(crate) fn build(state: &str) -> Self {
        Self::build_with(state, &[])
    }

    /// Builds an old one, without `nvmlDeviceGetMemoryInfo_v2`.
    pub(crate) fn build_without_memory_v2(state: &str) -> Self {
        Self::build_with(state, &["-DNO_MEMORY_V2"])
    }

    fn build_with(state: &str, flags: &[&str]) -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let fake = Self { dir };
        fake.tell(state);
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support-c/fake_nvml.c");
        let built = Command::new(tool("cc"))
            .args(["-shared", "-fPIC", "-O1", "-Wall", "-Wextra", "-Werror"])
            .arg(format!("-DSTATE_FILE=\"{}\"", fake.state_file().display()))
            .args(flags)
            .args(["-o".as_ref(), fake.library().as_os_str(), source.as_os_str()])
            .output()
            .expect("cc runs");
        assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
        fake
    }

    /// Replaces the reported state atomically.
    pub(crate) fn tell(&self, state: &str) {
        let new = self.dir.path().join("state.new");
        std::fs::write(&new, state).expect("the state is written");
        std::fs::rename(new, self.state_file()).expect("the state is changed");
    }

    /// The library's path.
    pub(crate) fn library(&self) -> PathBuf {
        self.dir.path().join("libnvidia-ml.so.1")
    }

    fn state_file(&self) -> PathBuf {
        self.dir.path().join("state")
    }
}
