//! The job's message: built from the arguments, signed, and parsed as the node will parse it.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Map, Value};

use super::super::Misused;
use super::{Args, parse_deadline, parse_pair, parse_timeout, random_id};
use crate::bus::Target;
use crate::chain::Key;
use crate::clock::Timestamp;
use crate::ids::{Cid, Domain, Hash, JobId, Signature};
use crate::job::spec::{Parsed, parse, spec_hash};

/// Deadline of a signed job for which none is given, from the time of signing.
const DEADLINE: Duration = Duration::from_hours(24);

/// Options for what a job needs from its node.
#[derive(Debug, clap::Args)]
pub(super) struct Needs {
    /// Whole GPUs (default: 1, or 0 on a node without any)
    #[arg(long, value_name = "N")]
    gpus: Option<u32>,
    /// Words of the GPU's model, such as H100 or "A100 80GB"
    #[arg(long, value_name = "MODEL")]
    gpu_model: Option<String>,
    /// Memory that each GPU must have, as it is printed on its box: 24576 for 24 GB
    #[arg(long, value_name = "MIB")]
    min_vram_mib: Option<u64>,
    /// Processor cores, such as 1.5 (default: a slot's share of the node)
    #[arg(long, value_name = "CORES")]
    cpus: Option<f64>,
    /// Memory (default: a slot's share of the node)
    #[arg(long, value_name = "MIB")]
    memory_mib: Option<u64>,
    /// Disk for all inputs together, and as much for the output
    #[arg(long, value_name = "MIB")]
    disk_mib: Option<u64>,
    /// Shared memory under /dev/shm (default: 1024)
    #[arg(long, value_name = "MIB")]
    shm_mib: Option<u64>,
    /// What the container may reach
    #[arg(long, value_parser = ["none", "internet", "bridge"])]
    network: Option<String>,
    /// How far the container is closed in: strict gives no capability, no root and a read-only root
    #[arg(long, value_parser = ["standard", "strict"])]
    sandbox: Option<String>,
    /// How long it may run: seconds, or a span such as 90m
    #[arg(long, value_name = "SPAN", value_parser = parse_timeout)]
    timeout: Option<u64>,
    /// Must have ended by then, and is never started later: a time, or a span from now such as 2h
    #[arg(long, value_name = "TIME|SPAN", value_parser = parse_deadline)]
    deadline: Option<Timestamp>,
    /// Higher goes first if several jobs wait: -100 to 100
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    priority: Option<i32>,
    /// An environment variable for the container (repeatable)
    #[arg(long = "env", value_name = "NAME=VALUE", value_parser = parse_pair)]
    env: Vec<(String, String)>,
    /// The job's id (default: job- and random characters)
    #[arg(long, value_name = "ID")]
    job_id: Option<JobId>,
}

/// A message that is being built.
#[derive(Debug)]
pub(super) struct Draft(Map<String, Value>);

/// A message that a node can parse as a job.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) id: JobId,
    pub(super) spec_hash: Hash,
    pub(super) body: Vec<u8>,
}

impl Draft {
    /// The message without a signature.
    pub(super) fn new(args: &Args, input: Option<&Cid>) -> anyhow::Result<Self> {
        let needs = &args.needs;
        let id = needs.job_id.clone().map_or_else(random_id, Ok)?;
        let env: BTreeMap<&String, &String> = needs.env.iter().map(|(k, v)| (k, v)).collect();
        let mut draft = Self(Map::new());
        draft.put("job_id", Some(id.as_str()));
        draft.put("image_name", Some(&args.image));
        draft.put("input_file_cid", input.map(ToString::to_string));
        draft.put("output_path", args.output_path.as_ref());
        draft.put("command", Some(&args.command).filter(|command| !command.is_empty()));
        draft.put("env", Some(env).filter(|env| !env.is_empty()));
        draft.put("gpus", needs.gpus);
        draft.put("gpu_model", needs.gpu_model.as_ref());
        draft.put("min_vram_mib", needs.min_vram_mib);
        draft.put("cpus", needs.cpus);
        draft.put("memory_mib", needs.memory_mib);
        draft.put("disk_mib", needs.disk_mib);
        draft.put("shm_mib", needs.shm_mib);
        draft.put("network", needs.network.as_ref());
        draft.put("sandbox", needs.sandbox.as_ref());
        draft.put("timeout_s", needs.timeout);
        draft.put("deadline", needs.deadline);
        draft.put("priority", needs.priority);
        Ok(draft)
    }

    fn put(&mut self, key: &str, value: Option<impl serde::Serialize>) {
        let value = value.and_then(|value| serde_json::to_value(value).ok());
        if let Some(value) = value {
            self.0.insert(key.to_owned(), value);
        }
    }

    /// Adds the requester, a deadline if there is none, and the signature over the job and the target.
    pub(super) fn sign(&mut self, key: &Key, domain: &Domain, target: &Target, now: Timestamp) {
        self.put("requester", Some(key.address()));
        if !self.0.contains_key("deadline") {
            self.put("deadline", Some(now.plus(DEADLINE)));
        }
        let digest = domain.job_digest(&target.to_string(), spec_hash(&self.0));
        self.put("signature", Some(Signature(key.sign_digest(&digest.0))));
    }

    /// The finished message. Fails here for everything that makes a node refuse it as malformed.
    pub(super) fn finish(self) -> anyhow::Result<Job> {
        let body = serde_json::to_vec(&Value::Object(self.0))?;
        match parse(&body) {
            Ok(Parsed { spec, spec_hash }) => Ok(Job { id: spec.id, spec_hash, body }),
            Err(refused) => Err(Misused(refused.error).into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::chain::key::recover;
    use crate::ids::Address;

    #[derive(Debug, clap::Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    fn args(line: &[&str]) -> Args {
        Line::try_parse_from([&["submit", "--image", "img"], line].concat()).unwrap().args
    }

    #[test]
    fn a_job_says_what_was_asked_and_leaves_the_rest_to_the_node() {
        let line = [
            "--gpus",
            "0",
            "--cpus",
            "1.5",
            "--env",
            "A=b=c",
            "--timeout",
            "90m",
            "--job-id",
            "j-1",
            "--network",
            "none",
            "--shm-mib",
            "2048",
            "--",
            "sh",
            "-c",
            "echo hi",
        ];
        let job = Draft::new(&args(&line), None).unwrap().finish().unwrap();
        let body: Value = serde_json::from_slice(&job.body).unwrap();
        let wanted = serde_json::json!({
            "job_id": "j-1", "image_name": "img", "gpus": 0, "cpus": 1.5, "env": {"A": "b=c"},
            "timeout_s": 5400, "network": "none", "shm_mib": 2048, "command": ["sh", "-c", "echo hi"],
        });
        assert_eq!(body, wanted);
    }

    #[test]
    fn a_signature_is_the_one_that_a_node_checks() {
        let (key, now) = (Key::random(), Timestamp::from_unix_ms(1_700_000_000_000));
        let domain = Domain { chain_id: 31337, contract: Address::new([3; 20]) };
        let target = Target::Agent(Address::new([0xab; 20]));
        let mut draft = Draft::new(&args(&[]), None).unwrap();
        draft.sign(&key, &domain, &target, now);
        let job = draft.finish().unwrap();
        let spec = parse(&job.body).unwrap().spec;
        let digest = domain.job_digest(&target.to_string(), job.spec_hash);
        let signature = spec.signature.unwrap();
        assert_eq!(recover(&digest.0, &signature.0), Ok(key.address()));
        assert_eq!(spec.requester, Some(key.address()));
        assert_eq!(spec.deadline, Some(now.plus(DEADLINE)));
    }

    #[test]
    fn what_a_node_would_refuse_is_refused_before_it_is_sent() {
        for (line, word) in [
            (["--output-path", "relative"], "output_path"),
            (["--env", "=x"], "env"),
            (["--timeout", "0"], "timeout_s"),
            (["--cpus", "-1"], "cpus"),
        ] {
            let line = line.join("\u{0}");
            let (flag, value) = line.split_once('\u{0}').unwrap();
            let args = args(&[&format!("{flag}={value}")]);
            let err = Draft::new(&args, None).unwrap().finish().unwrap_err().to_string();
            assert!(err.contains(word), "{err}");
        }
    }

    #[test]
    fn jobs_without_a_name_get_one_of_their_own() {
        let id = || Draft::new(&args(&[]), None).unwrap().finish().unwrap().id;
        assert!(id().as_str().starts_with("job-") && id() != id());
    }
}
