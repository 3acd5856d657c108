//! The requests of a day, and what each job does if nothing goes wrong.

use fastrand::Rng;
use lamda_node::bus::Target;
use lamda_node::ids::{Address, Cid, JobId};
use lamda_node::job::Job;
use multihash::Multihash;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

/// A run time beyond every timeout of a day, in milliseconds.
const FOR_EVER_MS: u64 = 36_000_000;

/// The exit code of the second body under a used id.
pub(crate) const RIVAL_CODE: i32 = 9;

/// What a job's command does. Its two words are the run time in milliseconds and the exit code.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Work {
    pub(crate) run_ms: u64,
    pub(crate) code: i32,
}

impl Work {
    pub(crate) fn of(job: &Job) -> Self {
        let words = job.spec.command.clone().unwrap_or_default();
        let number = |at: usize| words.get(at).and_then(|word: &String| word.parse().ok());
        let code = number(1).and_then(|code: u64| i32::try_from(code).ok());
        Self { run_ms: number(0).unwrap_or(0), code: code.unwrap_or(0) }
    }

    /// The CID of an attempt's output, unique per agent, job and attempt.
    pub(crate) fn output(agent: Address, job: &JobId, attempt: u32) -> Cid {
        let digest = Sha256::digest(format!("{agent} {job} {attempt}"));
        let hash = Multihash::wrap(0x12, &digest).expect("32 bytes");
        Cid::new(cid::Cid::new_v1(0x55, hash)).expect("raw SHA-256")
    }
}

/// One action of a requester.
#[derive(Debug, Clone)]
pub(crate) enum Deed {
    Publish { target: Target, body: Vec<u8> },
    Cancel { job: JobId },
}

/// A requested job.
#[derive(Debug, Clone)]
pub(crate) struct Wanted {
    pub(crate) id: JobId,
    pub(crate) target: Target,
    pub(crate) body: Value,
    /// Whether a second body is sent under the same id.
    pub(crate) has_rival: bool,
}

/// Draws a day's requests with their times in milliseconds, in order, and the jobs that they ask for.
pub(crate) fn of_a_day(rng: &mut Rng, agents: &[Address]) -> (Vec<(u64, Deed)>, Vec<Wanted>) {
    let (mut deeds, mut wanted) = (Vec::new(), Vec::new());
    for number in 0..rng.usize(1..=4) {
        let id: JobId = format!("job-{number}").parse().expect("an id");
        let target = if rng.u32(..3) == 0 {
            Target::Pool("p".parse().expect("a pool"))
        } else {
            Target::Agent(agents[rng.usize(..agents.len())])
        };
        let body = body(rng, &id);
        let bytes = body.to_string().into_bytes();
        let at_ms = rng.u64(..60_000);
        let publish = |body: Vec<u8>| Deed::Publish { target: target.clone(), body };
        deeds.push((at_ms, publish(bytes.clone())));
        if rng.u32(..4) == 0 {
            deeds.push((at_ms + rng.u64(..300_000), publish(bytes)));
        }
        let has_rival = rng.u32(..8) == 0;
        if has_rival {
            let mut other = body.clone();
            other["command"] = json!(["1", RIVAL_CODE.to_string()]);
            deeds.push((at_ms + 1 + rng.u64(..300_000), publish(other.to_string().into_bytes())));
        }
        if rng.u32(..8) == 0 {
            deeds.push((at_ms + rng.u64(..200_000), Deed::Cancel { job: id.clone() }));
        }
        wanted.push(Wanted { id, target, body, has_rival });
    }
    if rng.u32(..6) == 0 {
        let target = Target::Agent(agents[0]);
        deeds.push((rng.u64(..60_000), Deed::Publish { target, body: b"{\"job_id\": 3".to_vec() }));
    }
    deeds.sort_by_key(|(at, _)| *at);
    (deeds, wanted)
}

fn body(rng: &mut Rng, id: &JobId) -> Value {
    let run_ms = match rng.u32(..8) {
        0 => FOR_EVER_MS,
        1..=3 => rng.u64(..1_000),
        _ => rng.u64(..60_000),
    };
    let code = if rng.u32(..5) == 0 { rng.u32(1..=3) } else { 0 };
    let image = if rng.u32(..12) == 0 { "missing" } else { "image" };
    let timeout_s = rng.u64(20..200);
    let mut body = json!({
        "job_id": id, "image_name": image, "command": [run_ms.to_string(), code.to_string()],
        "gpus": rng.u32(..=2), "timeout_s": timeout_s, "priority": rng.i32(-1..=1),
    });
    if rng.u32(..6) == 0 {
        let deadline = lamda_node::clock::Timestamp::from_unix_ms(
            super::time::DAWN_MS + rng.u64(10_000..400_000),
        );
        body["deadline"] = json!(deadline);
    }
    body
}

/// The number at `at` in the command of a job's body; 0 if there is none.
pub(crate) fn number(body: &Value, at: usize) -> u64 {
    body["command"][at].as_str().and_then(|word| word.parse().ok()).unwrap_or(0)
}
