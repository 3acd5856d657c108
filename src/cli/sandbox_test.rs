//! `sandbox-test`: starts a container under exactly a job's policy, tries each way out of it from inside, and
//! prints the results.
//!
//! Exit code 0 if everything was refused, 1 if an attempt got through or could not be made. With `--json` it
//! prints a line for each attempt: `profile`, `name`, `tried`, `passed`, `found`.

use std::process::ExitCode;

use anyhow::Context as _;
use serde_json::json;

use super::logging::{self, Audience};
use super::out;
use crate::config::{self, Env, Environment, Parts};
use crate::container::docker::Docker;
use crate::container::{Sandbox, Tried, User};
use crate::ids::Address;

/// Arguments of `sandbox-test`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Only this profile (default: both)
    #[arg(long, value_enum)]
    profile: Option<Profile>,
    /// One JSON object a line, for programs
    #[arg(long)]
    json: bool,
}

/// A sandbox profile that jobs can get.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Profile {
    /// The image's user, with the capabilities that ordinary images need.
    Standard,
    /// `JOB_USER`, no capability, a read-only root file system.
    Strict,
}

impl Profile {
    const fn name(self) -> &'static str {
        match self {
            Self::Standard => "standard",
            Self::Strict => "strict",
        }
    }

    const fn sandbox(self, user: User) -> Sandbox {
        match self {
            Self::Standard => Sandbox::Standard,
            Self::Strict => Sandbox::Strict(user),
        }
    }
}

pub(super) async fn execute(args: Args) -> anyhow::Result<ExitCode> {
    let environment = Environment::read();
    let mut env = Env::new(&environment);
    if let Some(logging) = config::logging(&mut env) {
        logging::start(&logging, Audience::Client);
    }
    // Only the engine's and the sandbox's settings matter: others may be missing.
    let parts = Parts::read(&mut env);
    let config = parts.docker.as_ref().context(
        "the engine's settings are wrong (DOCKER_HOST, JOB_RUNTIME, JOB_REGISTRY_AUTH_FILE): \
         `lamda-node doctor` says how",
    )?;
    let docker = Docker::connect(config)?;
    let user = parts.settings.as_ref().map_or(User::NOBODY, |settings| settings.sandbox.user);
    let node = parts.key.as_ref().and_then(|key| key.address().ok());
    let node = node.unwrap_or(Address::new([0; 20]));
    let profiles = args.profile.map_or(vec![Profile::Standard, Profile::Strict], |one| vec![one]);
    let mut failed = 0;
    for profile in profiles {
        let what = format!("sandbox-{}", profile.name());
        let tried = docker.try_sandbox(node, &what, profile.sandbox(user)).await?;
        failed += tried.iter().filter(|one| !one.passed).count();
        tell(profile, &tried, args.json)?;
    }
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn tell(profile: Profile, tried: &[Tried], json: bool) -> std::io::Result<()> {
    if json {
        for one in tried {
            out::json(&json!({
                "profile": profile.name(), "name": one.name, "tried": one.what, "passed": one.passed,
                "found": one.found,
            }))?;
        }
        return Ok(());
    }
    out::line(&format!("{}: what a job shall not be able to do", profile.name()))?;
    for Tried { name, what, passed, found } in tried {
        let word = if *passed { "pass" } else { "FAIL" };
        out::line(&format!("{word}  {name:<18}  {what:<60}  {}", out::clean(found)))?;
    }
    let failed = tried.iter().filter(|one| !one.passed).count();
    out::line(&format!("{} passed, {failed} failed", tried.len() - failed))
}
