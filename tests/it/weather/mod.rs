//! Failures of the real parts while jobs are in hand: a requester sees gapless statuses in order, one
//! terminal status, and the right result.

pub(crate) mod disk;
mod engine;
pub(crate) mod limits;
mod logs;
pub(crate) mod nats;
mod room;
mod store;

use std::path::PathBuf;

use serde_json::{Value, json};

use crate::support::world::{World, last};

/// A job's end: status, reason, attempt, exit code.
fn end(statuses: &[Value]) -> Value {
    let end = last(statuses);
    json!([end["status"], end["reason_code"], end["attempt"], end["exit_code"]])
}

impl World {
    /// The host's path of `/output` in a job's first attempt.
    pub(crate) fn output_folder(&self, id: &str) -> PathBuf {
        self.dir.path().join("data/jobs").join(id).join("1/output")
    }

    /// The output of a completed job.
    pub(crate) async fn output(&self, statuses: &[Value]) -> String {
        let end = last(statuses);
        assert_eq!(end["status"], "completed", "{end}");
        let output = self.content(end["output_cid"].as_str().expect("an output")).await;
        String::from_utf8(output).expect("text")
    }
}
