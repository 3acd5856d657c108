//! Image settings: which images strangers may name, the accounts for pulling them, and what runs them.

use super::env::{Env, Variable, shown};
use crate::container::{ImagePolicy, PUBLIC_REGISTRIES};

const JOB_REGISTRIES: Variable = Variable::new("JOB_REGISTRIES", "docker.io,ghcr.io");
const JOB_LOCAL_IMAGES: Variable = Variable::new("JOB_LOCAL_IMAGES", "my-app:*");

const JOB_REGISTRY_AUTH_FILE: Variable =
    Variable::new("JOB_REGISTRY_AUTH_FILE", "/etc/lamda-node/docker.json");

const JOB_RUNTIME: Variable = Variable::new("JOB_RUNTIME", "runsc");
/// Longest name of a runtime in bytes.
const RUNTIME_BYTES_MAX: usize = 64;

/// The engine's runtime for jobs' containers. Only the engine knows which it has.
#[expect(clippy::option_option, reason = "unset and invalid are different outcomes")]
pub(super) fn runtime(env: &mut Env<'_>) -> Option<Option<String>> {
    let Some(name) = env.text(JOB_RUNTIME) else { return Some(None) };
    let is_name = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    let begins = name.starts_with(|c: char| c.is_ascii_alphanumeric());
    if begins && name.len() <= RUNTIME_BYTES_MAX && name.chars().all(is_name) {
        return Some(Some(name));
    }
    let what = format!("{} is no name of a runtime of the container engine", shown(&name));
    env.problem(JOB_RUNTIME, what);
    None
}

/// The file with registry accounts. It is read at each pull; here only its presence is checked.
pub(super) fn accounts(env: &mut Env<'_>) -> Option<std::path::PathBuf> {
    let file = env.path(JOB_REGISTRY_AUTH_FILE)?;
    if !file.is_file() {
        let what = format!("there is no file {}", file.display());
        env.problem(JOB_REGISTRY_AUTH_FILE, what);
    }
    Some(file)
}

pub(super) fn read(env: &mut Env<'_>) -> Option<ImagePolicy> {
    let set = env.is_set(JOB_REGISTRIES) || env.is_blank(JOB_REGISTRIES);
    let listed = env.list(JOB_REGISTRIES);
    let public = || PUBLIC_REGISTRIES.map(str::to_owned).to_vec();
    let registries = if set { listed } else { public() };
    if registries.is_empty() {
        env.problem(JOB_REGISTRIES, "its list is empty: list some, or leave the line out");
        return None;
    }
    let local = env.list(JOB_LOCAL_IMAGES);
    let none: [String; 0] = [];
    let (of_registries, of_local) =
        (ImagePolicy::new(&registries, &none), ImagePolicy::new(&none, &local));
    let of_registries = env.keep(JOB_REGISTRIES, of_registries);
    env.keep(JOB_LOCAL_IMAGES, of_local).and(of_registries)?;
    ImagePolicy::new(&registries, &local).ok()
}
