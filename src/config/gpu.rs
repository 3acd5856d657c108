//! GPU settings: whether the node must have a GPU, which library reports them, what proves that one
//! computes, and whether the host's own programs come first.

use std::path::PathBuf;

use super::env::{Env, Variable};
use crate::container::Reference;

const GPU_MODE: Variable = Variable::new("GPU_MODE", "auto");
const GPU_YIELD: Variable = Variable::new("GPU_YIELD", "false");
const GPU_PROBE_IMAGE: Variable = Variable::new("GPU_PROBE_IMAGE", "my-cuda-test:1");
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

/// `GPU_YIELD`: whether a card that a program of the host uses is given to no job.
pub(super) fn yields(env: &mut Env<'_>) -> Option<bool> {
    env.choice(GPU_YIELD, &[("false", false), ("true", true)])
}

/// `GPU_PROBE_IMAGE`: an image on this host that proves that a card computes, if one is set.
#[expect(clippy::option_option, reason = "unset and invalid are different outcomes")]
pub(super) fn probe_image(env: &mut Env<'_>) -> Option<Option<String>> {
    let Some(text) = env.text(GPU_PROBE_IMAGE) else { return Some(None) };
    let parsed = text.parse::<Reference>().map(|_| Some(text));
    env.keep(GPU_PROBE_IMAGE, parsed.map_err(|err| err.to_string()))
}
