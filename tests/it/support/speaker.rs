//! The holder of a key, registered as a node or not, who publishes statuses, receipts and claims.

use lamda_node::chain::Key;
use lamda_node::clock::Timestamp;
use lamda_node::ids::{Address, Cid, Domain, Hash, Signature};
use lamda_node::job::receipt::{Facts, Signed};
use lamda_node::job::{Receipt, Status};
use serde_json::{Value, json};

use super::nats::Nats;

pub(crate) const CID: &str = "bafybeiczsscdsbs7ffqz55asqdf3smv6klcw3gofszvwlyarci47bgf354";

/// The holder of a key, who signs as nodes do.
pub(crate) struct Speaker {
    pub(crate) key: Key,
    domain: Domain,
}

impl Speaker {
    pub(crate) fn new(key: Key, domain: Domain) -> Self {
        Self { key, domain }
    }

    fn sign(&self, digest: Hash) -> Signature {
        Signature(self.key.sign_digest(&digest.0))
    }

    /// A status with these further fields, signed by this key whatever address it names.
    pub(crate) fn status(&self, job: &str, seq: u64, stage: &str, more: &Value) -> Value {
        let mut body = json!({
            "agent_address": self.key.address(), "job_id": job, "status": stage, "stage": stage,
            "timestamp": "2026-11-22T12:00:05.120Z", "seq": seq, "attempt": 1,
        });
        let more = more.as_object().expect("an object").clone();
        body.as_object_mut().expect("an object").extend(more);
        let (mut status, _) = Status::read(body.to_string().as_bytes()).expect("a status");
        status.sign(self.domain, |digest| self.sign(digest));
        serde_json::to_value(&status).expect("JSON")
    }

    /// A completed job's end with its receipt; all of it is valid if this key is a node's.
    pub(crate) fn completed(&self, job: &str, seq: u64, spec_hash: Hash) -> Value {
        let cid: Cid = CID.parse().expect("a CID");
        let (id, at) = (job.parse().expect("an id"), Timestamp::from_unix_ms(1));
        let facts = Facts {
            image_digest: "sha256:ab",
            gpus: &[],
            input: None,
            output: Some(&cid),
            exit_code: 0,
            ran: (at, at),
        };
        let receipt = Receipt::new(id, self.key.address(), spec_hash, facts);
        let signature = self.sign(receipt.digest(&self.domain));
        let receipt = Signed { domain: self.domain, receipt, signature }.to_json();
        let more = json!({"output_cid": CID, "exit_code": 0, "receipt": receipt});
        self.status(job, seq, "completed", &more)
    }

    /// A claim that this key's node has ended a pool's job.
    pub(crate) fn claim(&self, nats: &Nats, pool: &str, job: &str, spec_hash: Hash) {
        self.claim_as("done", nats, (pool, job), spec_hash);
    }

    pub(crate) fn claim_as(
        &self,
        state: &str,
        nats: &Nats,
        (pool, job): (&str, &str),
        spec_hash: Hash,
    ) {
        let claim = json!({
            "agent": self.key.address(), "state": state, "stream_seq": 1, "delivered": 1,
            "attempt": 1, "starts": 1, "spec_hash": spec_hash, "at": "2026-11-22T12:00:00.000Z",
        });
        nats.put_claim(&format!("{pool}.{job}"), &claim);
    }
}

/// Publishes each status on the subject of the agent and the job that it names.
pub(crate) fn say(nats: &Nats, statuses: &[&Value]) {
    let texts: Vec<String> = statuses.iter().map(ToString::to_string).collect();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    nats.python(
        "for body in args:\n    \
             said = json.loads(body)\n    \
             await js.publish(f\"jobs.status.{said['agent_address']}.{said['job_id']}\", body.encode())",
        &texts,
    );
}

pub(crate) fn without_chain() -> Domain {
    Domain { chain_id: 31337, contract: Address::new([3; 20]) }
}
