//! Bad weather on the real parts: each of them fails while jobs are in hand, and what a requester
//! notices is one terminal status, in order and gapless, with the right result.

pub(crate) mod disk;
mod engine;
mod logs;
pub(crate) mod nats;
mod store;

use std::path::PathBuf;

use serde_json::{Value, json};

use crate::support::world::{World, shell};

fn last(statuses: &[Value]) -> &Value {
    statuses.last().expect("there are statuses")
}

fn stages(statuses: &[Value]) -> String {
    let names = statuses.iter().map(|status| status["stage"].as_str().unwrap_or("?"));
    names.collect::<Vec<_>>().join(" ")
}

/// `shell(script)` with further keys.
fn shell_with(script: &str, more: &Value) -> Value {
    let mut job = shell(script);
    let fields = more.as_object().expect("an object").clone();
    job.as_object_mut().expect("an object").extend(fields);
    job
}

/// What a job ended as: its status, its reason, its attempt, its exit code.
fn end(statuses: &[Value]) -> Value {
    let end = last(statuses);
    json!([end["status"], end["reason_code"], end["attempt"], end["exit_code"]])
}

impl World {
    /// What the first attempt of a job sees as `/output`.
    fn output_folder(&self, id: &str) -> PathBuf {
        self.dir.path().join("data/jobs").join(id).join("1/output")
    }

    /// The output of a job that has ended well.
    async fn output(&self, statuses: &[Value]) -> String {
        let end = last(statuses);
        assert_eq!(end["status"], "completed", "{end}");
        let output = self.content(end["output_cid"].as_str().expect("an output")).await;
        String::from_utf8(output).expect("text")
    }
}
