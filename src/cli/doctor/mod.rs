//! `doctor`: checks every prerequisite of a node and prints one line for each, with a remedy if one is
//! lacking.
//!
//! Every check runs, whatever the others find, and none longer than [`DEADLINE`].
//!
//! With `--json`: `{"checks": [{"name", "status", "detail", "remedy"?, "problems"?}], "ok", "warn", "fail"}`.
//! `status` is `ok`, `warn` or `fail`; the last three keys are counts. Exit code 0 if all is well, 1 with
//! warnings, 2 with failures.

mod access;
pub(super) mod checks;
mod disk;
mod gpu;
mod hub;
mod internet;
mod nats;
mod toolkit;

use std::future::Future;
use std::pin::Pin;
use std::process::ExitCode;
use std::time::Duration;

use futures_util::future::join_all;
use serde::Serialize;
use serde_json::json;

use super::logging::{self, Audience};
use super::out;
use crate::config::{self, Env, Environment, Parts, Problem};
use crate::container::docker::Config as DockerConfig;
use crate::ids::Address;

/// Upper bound on one check. A service that takes longer to answer counts as failed.
const DEADLINE: Duration = Duration::from_secs(15);

/// Arguments of `doctor`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// One JSON object, for programs
    #[arg(long)]
    json: bool,
}

/// The grade of a prerequisite.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
enum Grade {
    /// It is as it should be.
    Ok,
    /// The node runs, but not as well as it could.
    Warn,
    /// The node does not run, or takes no jobs.
    Fail,
}

/// What a check found.
#[derive(Debug, Clone, Serialize)]
struct Finding {
    status: Grade,
    detail: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    remedy: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    problems: Vec<Problem>,
}

/// A finding and the name of its check.
#[derive(Debug, Clone, Serialize)]
struct Check {
    name: &'static str,
    #[serde(flatten)]
    finding: Finding,
}

impl Finding {
    fn ok(detail: impl Into<String>) -> Self {
        Self::new(Grade::Ok, detail, None)
    }

    fn warn(detail: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::new(Grade::Warn, detail, Some(remedy.into()))
    }

    fn fail(detail: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::new(Grade::Fail, detail, Some(remedy.into()))
    }

    fn new(status: Grade, detail: impl Into<String>, remedy: Option<String>) -> Self {
        Self { status, detail: out::clean(&detail.into()), remedy, problems: Vec::new() }
    }

    /// A failure whose detail is an error with its causes.
    fn failed(error: impl Into<anyhow::Error>, remedy: impl Into<String>) -> Self {
        Self::fail(out::chain(&error.into()), remedy)
    }
}

type Running<'a> = Pin<Box<dyn Future<Output = Check> + 'a>>;

pub(super) async fn execute(args: Args) -> anyhow::Result<ExitCode> {
    let environment = Environment::read();
    let mut env = Env::new(&environment);
    env.note(environment.problems());
    env.warn_of(environment.warnings());
    if let Some(logging) = config::logging(&mut env) {
        logging::start(&logging, Audience::Client);
    }
    let parts = Parts::read(&mut env);
    let mut found = vec![checks::settings(&mut env)];
    found.extend(join_all(all(&parts)).await);
    tell(&found, args.json)?;
    Ok(match found.iter().map(|check| check.finding.status).max() {
        Some(Grade::Fail) => 2.into(),
        Some(Grade::Warn) => 1.into(),
        Some(Grade::Ok) | None => ExitCode::SUCCESS,
    })
}

/// All checks except that of the settings; they run concurrently.
fn all(parts: &Parts) -> Vec<Running<'_>> {
    vec![
        run("key", checks::key(parts)),
        run("nats", nats::nats(parts)),
        run("docker", checks::docker(parts)),
        run("files in containers", checks::files_in_containers(parts)),
        run("sandbox", checks::sandbox(parts)),
        run("internet", internet::internet(parts)),
        run("gpu", gpu::gpu(parts)),
        run("gpu in containers", gpu::gpu_in_containers(parts)),
        run("gpu access", access::access(parts)),
        run("gpu toolkit", toolkit::toolkit(parts)),
        run("chain", checks::chain(parts)),
        run("pinning service", checks::pinata(parts)),
        run("gateways", checks::gateways(parts)),
        run("disk", disk::disk(parts)),
        run("hub", hub::hub(parts)),
        run("data folder", std::future::ready(checks::data_dir(parts))),
    ]
}

fn run<'a>(name: &'static str, check: impl Future<Output = Finding> + 'a) -> Running<'a> {
    Box::pin(async move {
        let seconds = DEADLINE.as_secs();
        let late = || Finding::fail(format!("no answer in {seconds} s"), "is the host overloaded?");
        let finding = tokio::time::timeout(DEADLINE, check).await.unwrap_or_else(|_| late());
        Check { name, finding }
    })
}

fn tell(found: &[Check], json: bool) -> std::io::Result<()> {
    let count = |grade| found.iter().filter(|check| check.finding.status == grade).count();
    let (ok, warn, fail) = (count(Grade::Ok), count(Grade::Warn), count(Grade::Fail));
    if json {
        return out::json(&json!({"checks": found, "ok": ok, "warn": warn, "fail": fail}));
    }
    for Check { name, finding } in found {
        let word = match finding.status {
            Grade::Ok => "ok  ",
            Grade::Warn => "warn",
            Grade::Fail => "fail",
        };
        let remedy = finding.remedy.as_ref().map(|text| format!(" -> {text}")).unwrap_or_default();
        out::line(&format!("{word}  {name}: {}{remedy}", finding.detail))?;
        for problem in &finding.problems {
            out::line(&format!("        {problem}"))?;
        }
    }
    out::line(&format!("{ok} ok, {warn} to look at, {fail} to mend"))
}

const DOCKER: &str = "install and start Docker Engine (https://docs.docker.com/engine/install), let \
                      this user into the group docker, or set DOCKER_HOST";

/// The finding of a check whose settings are wrong; the check of the settings reports those.
fn unset() -> Finding {
    Finding::fail("not checked", "mend the settings first")
}

/// The node address to label the probes' containers with.
fn node_of(parts: &Parts) -> Address {
    let address = parts.key.as_ref().and_then(|key| key.address().ok());
    address.unwrap_or(Address::new([0; 20]))
}

/// A configuration with short timeouts, so that a start that hangs fails before the check's deadline and its
/// container is removed.
fn hasty(config: &DockerConfig) -> DockerConfig {
    let (call_timeout, start_timeout) = (Duration::from_secs(3), Duration::from_secs(6));
    DockerConfig { call_timeout, start_timeout, ..config.clone() }
}
