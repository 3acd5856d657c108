//! Judges reported ends of a job while the caller goes on following it.
//!
//! Invariants: nobody's status delays anybody else's. All open ends are judged by the same look, one look at
//! a time, and at most [`OPEN_MAX`] of them are kept. What can't be found out is tried again as long as the
//! job is followed.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::time::{Instant, Sleep, sleep, sleep_until};

use super::authority::{Authority, Seen, Word};
use crate::ids::Address;
use crate::job::Status;

/// The pause between looks. A message leaves the queue soon after its refusal is published, and a newly
/// registered node is active once that is in a block.
const AGAIN: Duration = Duration::from_millis(500);
const TRIES: u32 = 10;

/// Tries after which an end that can't be judged is reported; looks get rarer after [`TRIES`].
const TOLD_AFTER: u32 = 3;
const AGAIN_AT_LAST: Duration = Duration::from_secs(5);

/// Upper bound on open ends. Beyond it, the oldest is dropped as not believed.
const OPEN_MAX: usize = 256;

/// Upper bound on agents remembered as having no say. Their ends are tried only once.
const NOBODY_MAX: usize = 4096;

/// After an end was not believed, the true one may follow within this time.
const PATIENCE: Duration = Duration::from_secs(3);

/// Collects reported ends and judges them.
pub(super) struct Judge {
    authority: Arc<Authority>,
    open: VecDeque<Case>,
    judged: VecDeque<Judged>,
    nobody: VecDeque<Address>,
    doing: Doing,
}

/// An end and whether it is believed.
#[derive(Debug)]
pub(super) struct Judged {
    /// The status that reports the end.
    pub(super) status: Box<Status>,
    /// The status's body as it was sent.
    pub(super) body: Value,
    /// Why it is not believed; `None` if it is.
    pub(super) doubt: Option<String>,
    /// Whether waiting for a better end is useless: this one is from the node whose word would count, or
    /// nobody can tell whose would.
    pub(super) is_last_word: bool,
}

/// An end that is not judged yet.
#[derive(Debug)]
struct Case {
    status: Box<Status>,
    body: Value,
    tries: u32,
    /// Whether it was already reported as undecidable.
    is_told: bool,
    why: String,
}

/// The look in progress, or the pause before it.
enum Doing {
    Nothing,
    Resting(Pin<Box<Sleep>>),
    Looking(Pin<Box<dyn Future<Output = Seen>>>),
}

impl Judge {
    pub(super) fn new(authority: Authority) -> Self {
        let (open, judged, nobody) = (VecDeque::new(), VecDeque::new(), VecDeque::new());
        Self { authority: Arc::new(authority), open, judged, nobody, doing: Doing::Nothing }
    }

    /// Takes an end; [`Judge::next`] returns it once it is judged.
    pub(super) fn hear(&mut self, status: Box<Status>, body: Value) {
        let agent = status.agent_address;
        let doubt = match self.authority.at_once(&status, &body) {
            Some(Word::Believed) => None,
            Some(Word::Doubted(why) | Word::NotYet(why) | Word::Unknown(why)) => Some(why),
            Some(Word::Unasked) | None => return self.doubt(status, body),
        };
        let is_last_word = self.authority.is_the_one(agent);
        self.judged.push_back(Judged { status, body, doubt, is_last_word });
    }

    /// Takes an end that can't be judged without a look.
    fn doubt(&mut self, status: Box<Status>, body: Value) {
        let key = |status: &Status| (status.agent_address, status.stage);
        if self.open.iter().any(|case| key(&case.status) == key(&status)) {
            let doubt = Some(format!("{} reported such an end before", status.agent_address));
            self.judged.push_back(Judged { status, body, doubt, is_last_word: false });
            return;
        }
        if self.open.len() >= OPEN_MAX
            && let Some(oldest) = self.open.pop_front()
        {
            self.judged.push_back(oldest.end(false));
        }
        let why = "too many report an end of the job".to_owned();
        self.open.push_back(Case { status, body, tries: 0, is_told: false, why });
        if matches!(self.doing, Doing::Resting(_)) {
            self.doing = Doing::Nothing;
        }
    }

    /// The next judged end; waits until there is one. Cancel-safe.
    pub(super) async fn next(&mut self) -> Judged {
        loop {
            if let Some(judged) = self.judged.pop_front() {
                return judged;
            }
            match &mut self.doing {
                Doing::Nothing if self.open.is_empty() => std::future::pending().await,
                Doing::Nothing => self.doing = self.begin(),
                Doing::Resting(rest) => {
                    rest.await;
                    self.doing = self.look();
                }
                Doing::Looking(look) => {
                    let seen = look.await;
                    self.doing = Doing::Nothing;
                    self.weigh(&seen);
                }
            }
        }
    }

    /// Starts a look at once if there is a new end, else after a pause.
    fn begin(&self) -> Doing {
        match self.open.iter().map(|case| case.tries).min() {
            None | Some(0) => self.look(),
            Some(tries) => {
                let pause = if tries < TRIES { AGAIN } else { AGAIN_AT_LAST };
                Doing::Resting(Box::pin(sleep(pause)))
            }
        }
    }

    /// Starts a look, with the least tried ends first.
    fn look(&self) -> Doing {
        let mut cases: Vec<&Case> = self.open.iter().collect();
        cases.sort_by_key(|case| case.tries);
        let Some(job) = cases.first().map(|case| case.status.job_id.clone()) else {
            return Doing::Nothing;
        };
        let of = |case: &&Case| (case.status.agent_address, case.status.stage);
        let speakers: Vec<_> = cases.iter().map(of).collect();
        let authority = Arc::clone(&self.authority);
        Doing::Looking(Box::pin(async move { authority.look(&job, &speakers).await }))
    }

    /// Closes the cases that the look has decided.
    fn weigh(&mut self, seen: &Seen) {
        for mut case in std::mem::take(&mut self.open) {
            let agent = case.status.agent_address;
            let held = seen.is_held_by(agent);
            match self.authority.weigh(seen, agent, case.status.stage) {
                Word::Unasked => self.open.push_back(case),
                Word::Believed => self.judged.push_back(case.believed()),
                Word::Doubted(why) => {
                    case.why = why;
                    self.judged.push_back(case.end(held));
                }
                Word::NotYet(why) => {
                    (case.why, case.tries) = (why, case.tries + 1);
                    if case.tries < TRIES && !self.nobody.contains(&agent) {
                        self.open.push_back(case);
                        continue;
                    }
                    self.remember(agent);
                    self.judged.push_back(case.end(held));
                }
                Word::Unknown(why) => {
                    (case.why, case.tries) = (why, case.tries.saturating_add(1));
                    if case.tries >= TOLD_AFTER && !case.is_told {
                        case.is_told = true;
                        self.judged.push_back(case.tell());
                    }
                    self.open.push_back(case);
                }
            }
        }
    }

    fn remember(&mut self, nobody: Address) {
        if !self.nobody.contains(&nobody) {
            self.nobody.push_back(nobody);
        }
        if self.nobody.len() > NOBODY_MAX {
            self.nobody.pop_front();
        }
    }

    /// The fault of the receipt of a believed end, if it is invalid.
    pub(super) fn receipt_fault(&self, status: &Status) -> Option<String> {
        self.authority.receipt_fault(status)
    }
}

impl Case {
    fn believed(self) -> Judged {
        Judged { status: self.status, body: self.body, doubt: None, is_last_word: true }
    }

    fn end(self, is_last_word: bool) -> Judged {
        Judged { status: self.status, body: self.body, doubt: Some(self.why), is_last_word }
    }

    /// Reports that the end can't be judged at present; the case stays open.
    fn tell(&self) -> Judged {
        let (status, body) = (self.status.clone(), self.body.clone());
        Judged { status, body, doubt: Some(self.why.clone()), is_last_word: true }
    }
}

/// A deadline for an end that can be believed.
#[derive(Debug, Default)]
pub(super) struct Patience(Option<Instant>);

impl Patience {
    /// Starts the wait, after an end was not believed and no better one is expected.
    pub(super) fn begin(&mut self) {
        self.0.get_or_insert_with(|| Instant::now() + PATIENCE);
    }

    /// Returns at the deadline; never if the wait has not started.
    pub(super) async fn over(&self) {
        match self.0 {
            Some(end) => sleep_until(end).await,
            None => std::future::pending().await,
        }
    }
}
