//! GPU settings: whether the node must have a GPU, and which library reports them.

use std::path::PathBuf;

use super::env::{Env, Variable};

const GPU_MODE: Variable = Variable::new("GPU_MODE", "auto");
const NVML_LIB: Variable = Variable::new("NVML_LIB", "/usr/lib/x86_64-linux-gnu/libnvidia-ml.so.1");

/// How GPUs are detected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Gpu {
    /// `GPU_MODE=auto`: through NVIDIA's library, at this path or where the host has it. Without a GPU the
    /// node does not start.
    Auto {
        /// `NVML_LIB`: the library's path, if it is set.
        library: Option<PathBuf>,
    },
    /// `GPU_MODE=none`: the node has no GPUs and uses none.
    None,
}

impl Gpu {
    /// Whether the node runs without GPUs.
    pub fn is_none(&self) -> bool {
        *self == Self::None
    }
}

pub(super) fn read(env: &mut Env<'_>) -> Option<Gpu> {
    let library = env.path(NVML_LIB);
    let none = env.choice(GPU_MODE, &[("auto", false), ("none", true)])?;
    match library {
        _ if none => Some(Gpu::None),
        Some(path) if !path.is_file() => {
            env.problem(NVML_LIB, format!("there is no file {}", path.display()));
            None
        }
        library => Some(Gpu::Auto { library }),
    }
}
