//! GPU settings: whether the node must have a GPU, which library reports them, what proves that one
//! computes, and whether the host's own programs come first.

use std::path::PathBuf;

use super::auth::is_loopback;
use super::env::{Env, Variable};
use crate::container::docker::Config as DockerConfig;
use crate::container::{Access, Reference};
use crate::gpu::toolkit::Toolkit;

const GPU_MODE: Variable = Variable::new("GPU_MODE", "auto");
const GPU_YIELD: Variable = Variable::new("GPU_YIELD", "false");
const GPU_PROBE_IMAGE: Variable = Variable::new("GPU_PROBE_IMAGE", "my-cuda-test:1");
const GPU_ACCESS: Variable = Variable::new("GPU_ACCESS", "auto");
const GPU_ALLOW_UNSAFE_TOOLKIT: Variable = Variable::new("GPU_ALLOW_UNSAFE_TOOLKIT", "false");
const PATH: Variable = Variable::new("PATH", "/usr/bin:/bin");
const NVML_LIB: Variable = Variable::new("NVML_LIB", "/usr/lib/x86_64-linux-gnu/libnvidia-ml.so.1");

/// How GPUs are detected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Gpu {
    /// `GPU_MODE=auto`: through NVIDIA's library, at this path or where the host has it. Without a GPU the
    /// node does not start.
    Auto {
        /// `NVML_LIB`: the library's path, if it is set.
        library: Option<PathBuf>,
        /// Folders of `PATH`, in which the programs of NVIDIA's container toolkit are looked for first.
        programs: Vec<PathBuf>,
    },
    /// `GPU_MODE=none`: the node has no GPUs and uses none.
    None,
}

impl Gpu {
    /// Whether the node runs without GPUs.
    pub fn is_none(&self) -> bool {
        *self == Self::None
    }

    /// The toolkit that hands the cards to this engine's containers.
    pub fn toolkit(&self, engine: &DockerConfig) -> Toolkit {
        match self {
            Self::None => Toolkit::default().unused(),
            // Nothing but the engine itself makes the device nodes.
            Self::Auto { .. } if engine.gpu_access == Access::Devices => {
                Toolkit::default().unused()
            }
            // Its address may be another host's.
            Self::Auto { .. }
                if engine.host.starts_with("tcp://") && !is_loopback(&engine.host) =>
            {
                Toolkit::default()
                    .elsewhere("the container engine is on another host (DOCKER_HOST)")
            }
            Self::Auto { programs, .. } => Toolkit::searched(programs),
        }
    }
}

pub(super) fn read(env: &mut Env<'_>) -> Option<Gpu> {
    let library = env.path(NVML_LIB);
    let programs = programs(env);
    let none = env.choice(GPU_MODE, &[("auto", false), ("none", true)])?;
    match library {
        _ if none => Some(Gpu::None),
        Some(path) if !path.is_file() => {
            env.problem(NVML_LIB, format!("there is no file {}", path.display()));
            None
        }
        library => Some(Gpu::Auto { library, programs }),
    }
}

/// `NVML_LIB`: the library's path, if it is set.
#[expect(clippy::option_option, reason = "unset and invalid are different outcomes")]
pub(super) fn library(env: &mut Env<'_>) -> Option<Option<PathBuf>> {
    if !env.is_set(NVML_LIB) {
        return Some(None);
    }
    let path = env.path(NVML_LIB)?;
    if path.is_file() {
        return Some(Some(path));
    }
    env.problem(NVML_LIB, format!("there is no file {}", path.display()));
    None
}

/// `GPU_YIELD`: whether a card that a program of the host uses is given to no job.
pub(super) fn yields(env: &mut Env<'_>) -> Option<bool> {
    env.choice(GPU_YIELD, &[("false", false), ("true", true)])
}

/// `GPU_ACCESS`: how containers get GPUs.
pub(super) fn access(env: &mut Env<'_>) -> Option<Access> {
    let ways = [
        ("auto", Access::Auto),
        ("nvidia", Access::Nvidia),
        ("cdi", Access::Cdi),
        ("devices", Access::Devices),
    ];
    env.choice(GPU_ACCESS, &ways)
}

/// `GPU_ALLOW_UNSAFE_TOOLKIT`: whether strangers' jobs get GPUs also by a toolkit with known escapes.
pub(super) fn allows_unsafe_toolkit(env: &mut Env<'_>) -> Option<bool> {
    env.choice(GPU_ALLOW_UNSAFE_TOOLKIT, &[("false", false), ("true", true)])
}

/// `PATH`: the folders in which NVIDIA's programs are looked for first.
fn programs(env: &mut Env<'_>) -> Vec<PathBuf> {
    let path = env.text(PATH).unwrap_or_default();
    std::env::split_paths(&path).filter(|folder| folder.is_absolute()).collect()
}

/// `GPU_PROBE_IMAGE`: an image on this host that proves that a card computes, if one is set.
#[expect(clippy::option_option, reason = "unset and invalid are different outcomes")]
pub(super) fn probe_image(env: &mut Env<'_>) -> Option<Option<String>> {
    let Some(text) = env.text(GPU_PROBE_IMAGE) else { return Some(None) };
    let parsed = text.parse::<Reference>().map(|_| Some(text));
    env.keep(GPU_PROBE_IMAGE, parsed.map_err(|err| err.to_string()))
}
