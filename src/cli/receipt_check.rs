//! Checks what a node claims about a job from the status and the receipt alone, without trust in whoever
//! delivered them.

use serde_json::Value;

use super::{out, usage_check};
use crate::chain::key::recover;
use crate::ids::{Address, Domain, Hash};
use crate::job::Reason;
use crate::job::receipt::Signed;
use crate::job::status::{Stage, Status};

/// What the requester knows on its own.
#[derive(Debug, Clone, Default)]
pub(super) struct Expected {
    /// The hash of the job that was submitted.
    pub(super) spec_hash: Option<Hash>,
    /// The node that the job was submitted to; `None` for a pool.
    pub(super) agent: Option<Address>,
    /// The chain and contract that signatures must be bound to, if known.
    pub(super) domain: Option<Domain>,
}

/// The result of checking a terminal status.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Verdict {
    /// The node signed a receipt for exactly this end of exactly this job.
    Valid(Box<Signed>),
    /// There is no receipt and none is due, because the container was never started.
    Absent,
    /// The receipt is missing or wrong, and why.
    Invalid(String),
}

/// Checks a terminal status against its receipt, and the receipt against what was submitted.
pub(super) fn check(status: &Status, expected: &Expected) -> Verdict {
    let Some(document) = &status.receipt else {
        return if is_due(status) {
            Verdict::Invalid(NO_RECEIPT.to_owned())
        } else {
            Verdict::Absent
        };
    };
    let signed = match Signed::from_json(document) {
        Ok(signed) => signed,
        Err(err) => return Verdict::Invalid(err.to_string()),
    };
    let wrong = fault(status, &signed, expected).map(str::to_owned);
    let of_usage = || {
        let usage = status.usage.as_ref()?;
        usage_check::check(usage, &signed).err()
    };
    match wrong.or_else(of_usage) {
        None => Verdict::Valid(Box::new(signed)),
        Some(fault) => Verdict::Invalid(fault),
    }
}

/// The fault of a status that should carry a receipt and does not.
const NO_RECEIPT: &str = "its container was started, so it must have a receipt, and has none";

/// Whether the status itself says that the job's container ran and ended.
fn is_due(status: &Status) -> bool {
    let ran = matches!(
        status.reason_code,
        Some(
            Reason::NonzeroExit
                | Reason::OutOfMemory
                | Reason::Timeout
                | Reason::DeadlineReached
                | Reason::OutputMissing
                | Reason::OutputUnsupported
                | Reason::OutputTooLarge
                | Reason::UploadFailed
                | Reason::OutputUnverified
        )
    );
    let exited = status.exit_code.is_some() || status.duration_ms.run.is_some();
    status.stage == Stage::Completed || exited || ran
}

/// Why a terminal status was not signed by the node that it names; `None` if it was. `domain` is the chain
/// and contract that the node must sign for, if known.
pub(super) fn forged(
    status: &Status,
    body: &Value,
    domain: Option<Domain>,
) -> Option<&'static str> {
    let (Some(signature), Some(signed_for)) = (status.signature, status.signed_for) else {
        return Some("it carries no signature");
    };
    let signed_for = Domain::from(signed_for);
    if domain.is_some_and(|domain| signed_for != domain && signed_for != Domain::OWN) {
        return Some("it was signed for another chain or contract");
    }
    let signer = status.digest(body).map(|digest| recover(&digest.0, &signature.0));
    (signer != Some(Ok(status.agent_address))).then_some(UNSIGNED)
}

/// The fault of a receipt or status with a wrong signature.
pub(super) const UNSIGNED: &str = "its signature is not that of the node it names";

/// Whether the node that a receipt names signed it.
pub(super) fn is_signed(signed: &Signed) -> bool {
    let Signed { domain, receipt, signature } = signed;
    recover(&receipt.digest(domain).0, &signature.0) == Ok(receipt.node)
}

/// A receipt's claims as lines of text.
pub(super) fn describe(signed: &Signed) -> String {
    let Signed { domain, receipt, .. } = signed;
    let gpus = if receipt.gpu_uuids.is_empty() { "none" } else { &receipt.gpu_uuids };
    let took_ms = receipt.finished_at.saturating_sub(receipt.started_at);
    format!(
        "  image {}\n  gpus {}\n  exit code {}, ran {took_ms} ms\n  chain {}, contract {}",
        out::clean(&receipt.image_digest),
        out::clean(gpus),
        receipt.exit_code,
        domain.chain_id,
        domain.contract,
    )
}

fn fault(status: &Status, signed: &Signed, expected: &Expected) -> Option<&'static str> {
    let Signed { domain, receipt, .. } = signed;
    let output = status.output_cid.map(|cid| cid.to_string()).unwrap_or_default();
    let checks = [
        (is_signed(signed), UNSIGNED),
        (receipt.node == status.agent_address, "it names another node than the status"),
        (
            expected.agent.is_none_or(|agent| agent == receipt.node),
            "it is of another node than was asked",
        ),
        (receipt.job_id == status.job_id, "it is of another job"),
        (
            expected.spec_hash.is_none_or(|hash| hash == receipt.spec_hash),
            "it is of another job description under the same id",
        ),
        (receipt.output_cid == output, "it names another output than the status"),
        (
            status.exit_code.is_none_or(|code| code == receipt.exit_code),
            "it names another exit code than the status",
        ),
        (
            expected.domain.is_none_or(|expected| expected == *domain),
            "it was signed for another chain or contract",
        ),
    ];
    checks.into_iter().find(|(holds, _)| !holds).map(|(_, fault)| fault)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chain::Key;
    use crate::clock::Timestamp;
    use crate::ids::{Cid, Signature};
    use crate::job::Receipt;
    use crate::job::receipt::Facts;

    const DOMAIN: Domain = Domain { chain_id: 31337, contract: Address::new([3; 20]) };

    fn cid() -> Cid {
        "bafybeiczsscdsbs7ffqz55asqdf3smv6klcw3gofszvwlyarci47bgf354".parse().unwrap()
    }

    fn completed(key: &Key, sign: impl FnOnce(&mut Receipt)) -> Status {
        let mut receipt = Receipt::new(
            "job-1".parse().unwrap(),
            key.address(),
            Hash([2; 32]),
            Facts {
                image_digest: "sha256:ab",
                gpus: &[],
                input: None,
                output: Some(&cid()),
                exit_code: 0,
                ran: (Timestamp::from_unix_ms(1), Timestamp::from_unix_ms(2)),
            },
        );
        sign(&mut receipt);
        let signature = Signature(key.sign_digest(&receipt.digest(&DOMAIN).0));
        let document = Signed { domain: DOMAIN, receipt, signature }.to_json();
        let status = serde_json::json!({
            "agent_address": key.address(), "job_id": "job-1", "status": "completed",
            "output_cid": cid(), "timestamp": "2024-01-01T12:00:00.000Z", "seq": 5, "attempt": 1,
            "stage": "completed", "exit_code": 0, "receipt": document,
        });
        serde_json::from_value(status).unwrap()
    }

    fn expected(key: &Key) -> Expected {
        Expected {
            spec_hash: Some(Hash([2; 32])),
            agent: Some(key.address()),
            domain: Some(DOMAIN),
        }
    }

    #[test]
    fn a_receipt_that_is_right_in_every_respect_is_valid() {
        let key = Key::random();
        let verdict = check(&completed(&key, |_| {}), &expected(&key));
        assert!(matches!(verdict, Verdict::Valid(_)), "{verdict:?}");
    }

    #[test]
    fn whatever_differs_from_what_was_asked_for_makes_it_invalid() {
        let (key, other) = (Key::random(), Key::random());
        let good = expected(&key);
        let invalid = |status: &Status, expected: &Expected, word: &str| {
            let Verdict::Invalid(why) = check(status, expected) else { panic!("{word}") };
            assert!(why.contains(word), "{why}");
        };
        let spec = Expected { spec_hash: Some(Hash([9; 32])), ..good.clone() };
        invalid(&completed(&key, |_| {}), &spec, "same id");
        let agent = Expected { agent: Some(other.address()), ..good.clone() };
        invalid(&completed(&key, |_| {}), &agent, "another node than was asked");
        let chain = Expected { domain: Some(Domain { chain_id: 1, ..DOMAIN }), ..good.clone() };
        invalid(&completed(&key, |_| {}), &chain, "another chain");
        let stolen = completed(&key, |receipt| receipt.node = other.address());
        invalid(&stolen, &good, "signature");
        let swapped = completed(&key, |receipt| receipt.output_cid = "bafy".to_owned());
        invalid(&swapped, &good, "another output");
        let renamed = completed(&key, |receipt| receipt.job_id = "job-2".parse().unwrap());
        invalid(&renamed, &good, "another job");
        let mut bare = completed(&key, |_| {});
        bare.receipt = None;
        invalid(&bare, &good, "must have a receipt");
        bare.stage = Stage::Failed;
        invalid(&bare, &good, "must have a receipt");
        bare.exit_code = None;
        assert_eq!(check(&bare, &good), Verdict::Absent);
        bare.duration_ms.run = Some(1);
        invalid(&bare, &good, "must have a receipt");
        bare.duration_ms.run = None;
        bare.reason_code = Some(Reason::ContainerLost);
        assert_eq!(check(&bare, &good), Verdict::Absent);
        bare.reason_code = Some(Reason::Timeout);
        invalid(&bare, &good, "must have a receipt");
    }
}
