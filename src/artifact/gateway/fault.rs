//! Why gateways did not give an object, and what that comes to.
//!
//! What must hold: an object is called wrong only where every gateway gave bytes that contradict
//! their hash; whatever else went wrong may be otherwise at the next try, and says so by its reason.

use reqwest::{Response, StatusCode};

use super::super::{Error, http};
use crate::ids::Cid;
use crate::report::{BoxError, causes};

/// Gateways that are named in one error.
const NAMED_MAX: usize = 4;
/// Characters of one gateway's reason.
const REASON_CHARS_MAX: usize = 120;

/// Why one gateway did not give it.
#[derive(Debug)]
pub(super) enum Fault {
    /// No other gateway can do better.
    Final(Error),
    /// It may do better later.
    Later(Error),
    /// It does not let us.
    Refused(Error),
    /// It doesn't have it.
    Absent,
    /// What it gave is not all of it, or something else altogether: an archive that ends early, a
    /// web page.
    Missing(String),
    /// A block that it gave is not what its name says.
    Wrong(String),
    /// It says that this is larger than allowed, which nobody can check.
    TooLarge { limit_bytes: u64 },
    /// It said that it gives an archive, but didn't.
    NotCar,
}

impl Fault {
    /// It does not answer.
    pub(super) fn silent(gateway: &str, source: BoxError) -> Self {
        Self::Later(nobody(format!("{gateway} does not answer"), Some(source)))
    }

    /// What an answer without content means.
    pub(super) fn of(answer: &Response) -> Self {
        match http::refusal(answer) {
            Some(err @ Error::Refused { .. }) => Self::Refused(err),
            Some(err) => Self::Later(err),
            None if is_absence(answer.status()) => Self::Absent,
            None => Self::Missing(format!("it answers {}", answer.status())),
        }
    }

    /// What went wrong, for a person.
    pub(super) fn words(&self) -> String {
        let words = match self {
            Self::Final(err) | Self::Later(err) | Self::Refused(err) => causes(err),
            Self::Absent => "it does not have it".to_owned(),
            Self::Missing(why) | Self::Wrong(why) => why.clone(),
            Self::TooLarge { limit_bytes } => format!("it is larger than {limit_bytes} bytes"),
            Self::NotCar => "what it calls an archive is none".to_owned(),
        };
        words.chars().take(REASON_CHARS_MAX).collect()
    }
}

impl From<Error> for Fault {
    fn from(err: Error) -> Self {
        Self::Final(err)
    }
}

fn is_absence(status: StatusCode) -> bool {
    matches!(status, StatusCode::NOT_FOUND | StatusCode::GONE)
}

/// What it comes to when no gateway gave it.
pub(super) fn verdict(cid: &Cid, mut faults: Vec<(String, Fault)>) -> Error {
    if let Some(at) = faults.iter().position(|(_, fault)| matches!(fault, Fault::Final(_)))
        && let (_, Fault::Final(err)) = faults.swap_remove(at)
    {
        return err;
    }
    let all = |is: fn(&Fault) -> bool| faults.iter().all(|(_, fault)| is(fault));
    if faults.is_empty() {
        return nobody("no gateway is set".to_owned(), None);
    }
    if all(|fault| matches!(fault, Fault::Wrong(_))) {
        return Error::Unverified { cid: *cid };
    }
    // A size is one gateway's word, which nothing but the lack of any other makes good.
    let is_settled = |fault: &Fault| matches!(fault, Fault::TooLarge { .. } | Fault::Absent);
    if all(is_settled)
        && let Some(limit_bytes) = faults.iter().find_map(|(_, fault)| match fault {
            Fault::TooLarge { limit_bytes } => Some(*limit_bytes),
            _ => None,
        })
    {
        return Error::TooLarge { limit_bytes };
    }
    let is_refused = all(|fault| matches!(fault, Fault::Refused(_)));
    // Who only wants to be asked less often is nearer to an answer than who is silent.
    let limited = |fault: &Fault| matches!(fault, Fault::Later(Error::RateLimited { .. }));
    let best = faults.iter().position(|(_, fault)| limited(fault));
    let best = best.or((faults.len() == 1 || is_refused).then_some(0));
    let reasons: Vec<String> = (faults.iter().take(NAMED_MAX))
        .map(|(gateway, fault)| format!("{gateway}: {}", fault.words()))
        .collect();
    if let Some(at) = best
        && let (_, Fault::Later(err) | Fault::Refused(err)) = faults.swap_remove(at)
    {
        return err;
    }
    nobody(format!("no gateway gives {cid} now"), Some(reasons.join("; ").into()))
}

/// Nobody who could do it does it now.
pub(super) fn nobody(what: String, source: Option<BoxError>) -> Error {
    Error::Unavailable { what, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CID: &str = "bafybeiczsscdsbs7ffqz55asqdf3smv6klcw3gofszvwlyarci47bgf354";

    fn of(faults: impl IntoIterator<Item = Fault>) -> Error {
        let named = (0..).zip(faults).map(|(at, fault)| (format!("https://{at}"), fault));
        verdict(&CID.parse().unwrap(), named.collect())
    }

    fn wrong() -> Fault {
        Fault::Wrong("a block that is not what its CID says".to_owned())
    }

    fn refused() -> Fault {
        Fault::Refused(Error::Refused { service: "https://0".to_owned(), words: None })
    }

    #[test]
    fn content_is_wrong_only_where_every_gateway_contradicts_its_name() {
        assert!(matches!(of([wrong()]), Error::Unverified { .. }));
        assert!(matches!(of([wrong(), wrong()]), Error::Unverified { .. }));
        for other in [Fault::Absent, refused(), Fault::Missing("half".to_owned()), Fault::NotCar] {
            let text = format!("{other:?}");
            assert!(of([wrong(), other]).is_transient(), "{text}");
        }
        let both = causes(&of([wrong(), Fault::Missing("an archive that ends early".to_owned())]));
        assert!(both.contains("https://0: a block") && both.contains("ends early"), "{both}");
    }

    #[test]
    fn a_refusal_is_one_only_where_nobody_else_is_asked_in_vain() {
        assert!(matches!(of([refused(), refused()]), Error::Refused { .. }));
        assert!(of([refused(), Fault::Absent]).is_transient());
        assert!(matches!(
            of([Fault::TooLarge { limit_bytes: 7 }, Fault::Absent]),
            Error::TooLarge { limit_bytes: 7 }
        ));
        assert!(
            of([Fault::TooLarge { limit_bytes: 7 }, Fault::Missing(String::new())]).is_transient()
        );
        let many = (0..100).map(|_| Fault::Missing("x".repeat(1000)));
        assert!(causes(&of(many)).len() < 800);
    }
}
