//! Whose job it is: the requester's signature and the owner's list.

use super::Intake;
use crate::agent::settings::JobAuth;
use crate::bus::Target;
use crate::chain::key;
use crate::job::Reason;
use crate::job::spec::Parsed;

/// Why a job is nobody's yet.
pub(super) enum Unfit {
    /// It can't be told yet: the chain's id, which signatures are made with, is not known.
    Later,
    /// Nobody has proved that it is the requester's.
    Unproven(Reason, String),
}

impl<E, C> Intake<E, C> {
    /// Whether the job is its requester's, and the requester one of ours.
    pub(super) fn authorize(&self, parsed: &Parsed, target: &Target) -> Result<(), Unfit> {
        let spec = &parsed.spec;
        let allowed = match &self.auth {
            JobAuth::Open if spec.signature.is_none() => return Ok(()),
            JobAuth::Open => None,
            JobAuth::Requesters(allowed) => Some(allowed),
        };
        let (Some(signature), Some(requester)) = (spec.signature, spec.requester) else {
            let error = "this node takes signed jobs only: `requester`, `deadline` and `signature`";
            return Err(Unfit::Unproven(Reason::RequesterNotAllowed, error.to_owned()));
        };
        if allowed.is_some_and(|allowed| !allowed.contains(&requester)) {
            let error = format!("{requester} is not on this node's list of requesters");
            return Err(Unfit::Unproven(Reason::RequesterNotAllowed, error));
        }
        let Some(domain) = *self.domain.borrow() else { return Err(Unfit::Later) };
        let digest = domain.job_digest(&target.to_string(), parsed.spec_hash);
        if key::recover(&digest.0, &signature.0) == Ok(requester) {
            Ok(())
        } else {
            let error = format!("the signature is not {requester}'s over this job for {target}");
            Err(Unfit::Unproven(Reason::SignatureInvalid, error))
        }
    }
}
