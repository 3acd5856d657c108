//! Image settings: which images strangers may name, the accounts for pulling them, and what runs them.

use super::env::{Env, Variable, shown};
use crate::container::docker::{InvalidKey, SigningKey, WhenToPull};
use crate::container::{ImagePolicy, PUBLIC_REGISTRIES};

const JOB_REGISTRIES: Variable = Variable::new("JOB_REGISTRIES", "docker.io,ghcr.io");
const JOB_LOCAL_IMAGES: Variable = Variable::new("JOB_LOCAL_IMAGES", "my-app:*");

const JOB_IMAGES_ALLOW: Variable = Variable::new("JOB_IMAGES_ALLOW", "ghcr.io/acme/*,redis");
const JOB_IMAGES_DENY: Variable = Variable::new("JOB_IMAGES_DENY", "docker.io/evil/*");
const JOB_IMAGES_DIGEST: Variable = Variable::new("JOB_IMAGES_DIGEST", "optional");
const JOB_COSIGN_KEY: Variable = Variable::new("JOB_COSIGN_KEY", "/etc/lamda-node/cosign.pub");
const JOB_PULL: Variable = Variable::new("JOB_PULL", "newer");

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
    let (of_local, needs_digest) = (
        env.keep(JOB_LOCAL_IMAGES, of_local),
        env.choice(JOB_IMAGES_DIGEST, &[("optional", false), ("required", true)]),
    );
    let blank = env.is_blank(JOB_IMAGES_ALLOW);
    if blank {
        env.problem(JOB_IMAGES_ALLOW, "its list is empty: list some, or leave the line out");
    }
    let (allow, deny) = (env.list(JOB_IMAGES_ALLOW), env.list(JOB_IMAGES_DENY));
    let lists = |allow: &[String], deny: &[String]| ImagePolicy::default().with_lists(allow, deny);
    let (of_allow, of_deny) = (lists(&allow, &none), lists(&none, &deny));
    let of_allow = env.keep(JOB_IMAGES_ALLOW, of_allow);
    env.keep(JOB_IMAGES_DENY, of_deny).and(of_allow).and(of_local).and(of_registries)?;
    let policy = ImagePolicy::new(&registries, &local).ok()?.with_lists(&allow, &deny).ok()?;
    (!blank).then_some(policy.with_digests(needs_digest?))
}

/// Most bytes that are read of a public key's file.
const KEY_BYTES_MAX: u64 = 64 << 10;

/// The key that has to have signed images; `Some(None)` if none is set.
#[expect(clippy::option_option, reason = "unset and invalid are different outcomes")]
pub(super) fn cosign_key(env: &mut Env<'_>) -> Option<Option<SigningKey>> {
    use std::io::Read as _;
    let set = env.is_set(JOB_COSIGN_KEY);
    let Some(path) = env.path(JOB_COSIGN_KEY) else { return (!set).then_some(None) };
    let mut text = String::new();
    let file = std::fs::File::open(&path);
    let read = file.and_then(|file| file.take(KEY_BYTES_MAX).read_to_string(&mut text));
    let key = read.map_err(|err| format!("{} can't be read: {err}", path.display()));
    let parse = |_| text.parse().map_err(|err: InvalidKey| format!("{}: {err}", path.display()));
    env.keep(JOB_COSIGN_KEY, key.and_then(parse)).map(Some)
}

/// When a registry is asked for an image that an earlier job pulled.
pub(super) fn pull(env: &mut Env<'_>) -> Option<WhenToPull> {
    let choices = [
        ("newer", WhenToPull::Newer),
        ("missing", WhenToPull::Missing),
        ("always", WhenToPull::Always),
    ];
    env.choice(JOB_PULL, &choices)
}
