//! Authorization of a job: the requester's signature, and the owner's list of requesters.

use super::Intake;
use crate::agent::settings::JobAuth;
use crate::bus::Target;
use crate::chain::key;
use crate::ids::Address;
use crate::job::spec::Parsed;
use crate::job::{JobSpec, Reason};

/// Why a job is not authorized.
pub(super) enum Unfit {
    /// Can't be checked yet: the signature's domain needs the chain's id, which is not known.
    Later,
    /// It is not proved to come from a requester that is allowed here.
    Unproven(Reason, String),
}

/// Whether the owner signed the job, if its signature is right.
pub(super) fn is_owners(spec: &JobSpec, owner: Option<Address>) -> bool {
    spec.signature.is_some() && owner.is_some() && spec.requester == owner
}

impl<E, C> Intake<E, C> {
    /// Checks that the requester signed the job, and that this node takes jobs from them.
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::jobs::fakes::body;
    use crate::job::spec::parse;

    #[test]
    fn only_a_job_that_the_owner_signed_is_the_owners() {
        let mut spec = parse(&body("j")).unwrap().spec;
        let owner = Some(Address::new([2; 20]));
        assert!(!is_owners(&spec, owner) && !is_owners(&spec, None));
        spec.requester = owner;
        assert!(!is_owners(&spec, owner), "anybody can name the owner");
        spec.signature = Some(crate::ids::Signature([0; 65]));
        assert!(is_owners(&spec, owner));
        assert!(!is_owners(&spec, Some(Address::new([3; 20]))) && !is_owners(&spec, None));
    }
}
