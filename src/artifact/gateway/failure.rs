//! Why gateways failed to serve an object, and the error that results.
//!
//! Invariant: an object is reported as wrong only if every gateway gave bytes that contradict their
//! hash. Mixed failures are reported as transient, unless one of them is final. A length that a
//! gateway merely claims or sends is never final: only verified blocks call an object too large.

use crate::http::{Response, StatusCode};

use super::super::{Error, http};
use crate::ids::Cid;
use crate::report::{BoxError, causes};

/// Maximum number of gateways named in one error.
const NAMED_MAX: usize = 4;
/// Maximum characters of one gateway's reason.
const REASON_CHARS_MAX: usize = 120;

/// Why one gateway did not serve the object.
#[derive(Debug)]
pub(super) enum FetchFailure {
    /// The failure doesn't depend on the gateway: no other one can do better.
    Final(Error),
    /// The gateway may succeed later.
    Later(Error),
    /// The gateway denies access.
    Refused(Error),
    /// The gateway does not have the object.
    Absent,
    /// The answer is incomplete or something else altogether: a truncated archive, a web page.
    Missing(String),
    /// The gateway gave a block or file that doesn't match its CID.
    Wrong(String),
    /// The flat answer is, or claims to be, longer than the limit, and no verified block says that
    /// the object is.
    Overlong { limit_bytes: u64 },
    /// The answer is declared as an archive but is not one.
    NotCar,
}

impl FetchFailure {
    /// The fault of a gateway that does not answer.
    pub(super) fn silent(gateway: &str, source: BoxError) -> Self {
        Self::Later(nobody(format!("{gateway} does not answer"), Some(source)))
    }

    /// The fault that an answer without content stands for.
    pub(super) fn of(answer: &Response) -> Self {
        match http::refusal(answer) {
            Some(err @ Error::Refused { .. }) => Self::Refused(err),
            Some(err) => Self::Later(err),
            None if is_absence(answer.status()) => Self::Absent,
            None => Self::Missing(format!("it answers {}", answer.status())),
        }
    }

    /// The reason for people, at most [`REASON_CHARS_MAX`] characters.
    pub(super) fn words(&self) -> String {
        let words = match self {
            Self::Final(err) | Self::Later(err) | Self::Refused(err) => causes(err),
            Self::Absent => "it does not have it".to_owned(),
            Self::Missing(why) | Self::Wrong(why) => why.clone(),
            Self::Overlong { limit_bytes } => format!(
                "it would send more than the {limit_bytes} bytes there is room for, and doesn't \
                 show that the object has them"
            ),
            Self::NotCar => "what it declares as an archive is not one".to_owned(),
        };
        words.chars().take(REASON_CHARS_MAX).collect()
    }
}

impl From<Error> for FetchFailure {
    fn from(err: Error) -> Self {
        Self::Final(err)
    }
}

fn is_absence(status: StatusCode) -> bool {
    matches!(status, StatusCode::NOT_FOUND | StatusCode::GONE)
}

/// The error to report if no gateway served the object.
pub(super) fn verdict(cid: &Cid, mut faults: Vec<(String, FetchFailure)>) -> Error {
    if let Some(at) = faults.iter().position(|(_, fault)| matches!(fault, FetchFailure::Final(_)))
        && let (_, FetchFailure::Final(err)) = faults.swap_remove(at)
    {
        return err;
    }
    let all = |is: fn(&FetchFailure) -> bool| faults.iter().all(|(_, fault)| is(fault));
    if faults.is_empty() {
        return nobody("no gateway is set".to_owned(), None);
    }
    if all(|fault| matches!(fault, FetchFailure::Wrong(_))) {
        return Error::Unverified { cid: *cid };
    }
    let is_refused = all(|fault| matches!(fault, FetchFailure::Refused(_)));
    // A rate-limited gateway will answer sooner than a silent one, so its error goes first.
    let limited =
        |fault: &FetchFailure| matches!(fault, FetchFailure::Later(Error::RateLimited { .. }));
    let best = faults.iter().position(|(_, fault)| limited(fault));
    let best = best.or((faults.len() == 1 || is_refused).then_some(0));
    let reasons: Vec<String> = (faults.iter().take(NAMED_MAX))
        .map(|(gateway, fault)| format!("{gateway}: {}", fault.words()))
        .collect();
    if let Some(at) = best
        && let (_, FetchFailure::Later(err) | FetchFailure::Refused(err)) = faults.swap_remove(at)
    {
        return err;
    }
    nobody(format!("no gateway gives {cid} now"), Some(reasons.join("; ").into()))
}

/// Builds [`Error::Unavailable`]: nobody can do it at present.
pub(super) fn nobody(what: String, source: Option<BoxError>) -> Error {
    Error::Unavailable { what, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CID: &str = "bafybeiczsscdsbs7ffqz55asqdf3smv6klcw3gofszvwlyarci47bgf354";

    fn of(faults: impl IntoIterator<Item = FetchFailure>) -> Error {
        let named = (0..).zip(faults).map(|(at, fault)| (format!("https://{at}"), fault));
        verdict(&CID.parse().unwrap(), named.collect())
    }

    fn wrong() -> FetchFailure {
        FetchFailure::Wrong("a block that is not what its CID says".to_owned())
    }

    fn refused() -> FetchFailure {
        FetchFailure::Refused(Error::Refused { service: "https://0".to_owned(), words: None })
    }

    #[test]
    fn content_is_wrong_only_where_every_gateway_contradicts_its_name() {
        assert!(matches!(of([wrong()]), Error::Unverified { .. }));
        assert!(matches!(of([wrong(), wrong()]), Error::Unverified { .. }));
        for other in [
            FetchFailure::Absent,
            refused(),
            FetchFailure::Missing("half".to_owned()),
            FetchFailure::NotCar,
        ] {
            let text = format!("{other:?}");
            assert!(of([wrong(), other]).is_transient(), "{text}");
        }
        let both =
            causes(&of([wrong(), FetchFailure::Missing("an archive that ends early".to_owned())]));
        assert!(both.contains("https://0: a block") && both.contains("ends early"), "{both}");
    }

    #[test]
    fn a_length_that_nobody_checked_is_never_the_objects() {
        let overlong = || FetchFailure::Overlong { limit_bytes: 7 };
        for faults in [vec![overlong()], vec![overlong(), FetchFailure::Absent]] {
            let told = of(faults);
            assert!(told.is_transient(), "{told:?}");
            assert!(causes(&told).contains("more than the 7 bytes"), "{told:?}");
        }
        let checked = FetchFailure::Final(Error::TooLarge { limit_bytes: 7 });
        assert!(matches!(of([overlong(), checked]), Error::TooLarge { limit_bytes: 7 }));
    }

    #[test]
    fn a_refusal_is_one_only_where_nobody_else_is_asked_in_vain() {
        assert!(matches!(of([refused(), refused()]), Error::Refused { .. }));
        assert!(of([refused(), FetchFailure::Absent]).is_transient());
        let many = (0..100).map(|_| FetchFailure::Missing("x".repeat(1000)));
        assert!(causes(&of(many)).len() < 800);
    }
}
