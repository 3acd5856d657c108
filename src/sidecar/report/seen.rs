//! What the sidecar signs and tells a hub of each program: its newest verdict, once it changes and every five minutes.
//!
//! Invariants: only the newest state is told, so that nothing waits; of a program, time never goes back behind what a hub
//! took; what it refused, as that of a clock that was wrong for a moment, binds nothing.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::chain::Key;
use crate::clock::{Clock, SystemClock, Timestamp};
use crate::fleet::rule::Trouble;
use crate::fleet::seen::{self, Answer, Answers, Gist, SIGNATURE_HEAD, Said};
use crate::http::{self, Client};
use crate::ids::Signature;
use crate::sidecar::program::Program;
use crate::sidecar::settings::HubLink;
use crate::sidecar::store::{Error, Judged, Store};
use crate::watch::verdict::Verdict;

/// How long a hub may take to say why it refuses.
const WORDS: Duration = Duration::from_secs(5);

/// So many verdicts are read to find out since when it is so: each start of the sidecar writes one down.
const VERDICTS_MAX: u32 = 50;

/// Signs what is told a hub, and knows what the hub has.
#[derive(Debug, Clone)]
pub struct Teller {
    key: Key,
    told: BTreeMap<String, Told>,
}

/// What a hub was told of a program.
#[derive(Debug, Clone)]
struct Told {
    /// When the newest was signed that a hub took.
    at: Option<Timestamp>,
    /// Since when it is so.
    since: Timestamp,
    /// When the hub took this, by the monotonic clock; `None`: it did not.
    taken: Option<Duration>,
    gist: Gist,
}

impl Teller {
    /// One that signs with this key.
    pub const fn new(key: Key) -> Self {
        Self { key, told: BTreeMap::new() }
    }

    /// Tells a hub of a program, if it is due. The error is a clause.
    pub async fn tell(
        &mut self,
        (link, client): (&HubLink, &Client),
        store: &Store,
        program: &Program,
        verdict: &Verdict,
    ) -> Result<(), String> {
        let clock = SystemClock;
        let before = self.told.get(program.name());
        let at = time(before, clock.now());
        let mut said = said(&self.key, program, verdict, at);
        let gist = said.gist();
        if !is_due(before, &gist, clock.monotonic()) {
            return Ok(());
        }
        said.since = match before {
            // What was written down is forgotten some day.
            Some(told) if told.gist == gist => told.since,
            _ => {
                let since = since(store, program.name(), verdict).await;
                since.map_err(|err| err.to_string())?.unwrap_or(at)
            }
        };
        let body = serde_json::to_vec(&said).map_err(|err| err.to_string())?;
        let signature = Signature(self.key.sign_digest(&said.digest(&body).0));
        let last = before.and_then(|it| it.at);
        let told = Told { at: last, since: said.since, taken: None, gist };
        let told = self.told.entry(program.name().to_owned()).insert_entry(told).into_mut();
        post(link, client, body, signature).await?;
        (told.at, told.taken) = (Some(at), Some(clock.monotonic()));
        Ok(())
    }
}

/// When what is signed now was said: after what the hub took last, also if the clock was set back.
fn time(told: Option<&Told>, now: Timestamp) -> Timestamp {
    let last = told.and_then(|it| it.at);
    last.map_or(now, |last| now.max(last.plus(Duration::from_millis(1))))
}

/// Whether a hub lacks this, or had it long ago.
fn is_due(told: Option<&Told>, gist: &Gist, now: Duration) -> bool {
    let Some(Told { taken: Some(taken), gist: known, .. }) = told else { return true };
    known != gist || now.saturating_sub(*taken) >= seen::EVERY
}

/// Since when the verdict is what it is, as far as that was written down.
async fn since(store: &Store, name: &str, verdict: &Verdict) -> Result<Option<Timestamp>, Error> {
    let written = store.verdicts(name, VERDICTS_MAX).await?;
    let is_same = |it: &&Judged| {
        let before = serde_json::from_str::<Verdict>(&it.body);
        before.is_ok_and(|before| gist(&before) == gist(verdict))
    };
    // A newer one may have been written down meanwhile.
    let newest = written.iter().skip_while(|it| !is_same(it));
    Ok(newest.take_while(is_same).last().map(|it| it.at))
}

/// What has to differ for a hub to take it for a change.
fn gist(verdict: &Verdict) -> ([Answer; 5], &[Trouble]) {
    let Verdict { alive, training, published, earning, swarm, troubles, .. } = verdict;
    ([alive, training, published, earning, swarm].map(|it| it.answer), troubles)
}

/// What the watcher says of a program, as if that began now.
fn said(key: &Key, program: &Program, verdict: &Verdict, at: Timestamp) -> Said {
    let known = program.look();
    let watching = &program.watching;
    let Verdict { alive, training, published, earning, swarm, troubles, says, .. } =
        verdict.clone();
    let said = Said {
        watcher: key.address(),
        program: program.name().to_owned(),
        at,
        since: at,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        profile: watching.profile.profile.clone(),
        peer: watching.peer.clone().or_else(|| known.state.peer.clone()),
        account: known.state.account.clone(),
        answers: Answers { alive, training, published, earning, swarm },
        troubles,
        says,
    };
    said.bounded()
}

async fn post(
    link: &HubLink,
    client: &Client,
    body: Vec<u8>,
    signature: Signature,
) -> Result<(), String> {
    let url = link.url.join("api/observations").map_err(|err| err.to_string())?;
    let call = client.post(url).bearer_auth(link.secret.expose()).body(body);
    let call = call.header("content-type", "application/json");
    let call = call.header(SIGNATURE_HEAD, signature.to_string());
    let answer = call.send().await.map_err(|err| crate::report::causes(&err.without_url()))?;
    if answer.status().is_success() {
        return Ok(());
    }
    Err(format!("it refuses a signed observation: {}", http::explanation(answer, WORDS).await))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::seen::tests::said;
    use crate::watch::expect::Expect;
    use crate::watch::state::Watched;
    use crate::watch::verdict::{Finding, verdict};

    #[test]
    fn a_hub_is_told_what_it_lacks_what_changed_and_the_same_every_five_minutes() {
        let (yes, no) = (said(1, Answer::Yes).gist(), said(1, Answer::No).gist());
        let seconds = Duration::from_secs;
        let at = Timestamp::default();
        let told = |taken| Told { at: Some(at), since: at, taken, gist: yes.clone() };
        assert!(is_due(None, &yes, seconds(0)));
        assert!(is_due(Some(&told(None)), &yes, seconds(0)), "it was not taken");
        let taken = told(Some(seconds(100)));
        assert!(!is_due(Some(&taken), &yes, seconds(399)));
        assert!(is_due(Some(&taken), &yes, seconds(400)));
        assert!(is_due(Some(&taken), &no, seconds(101)));
    }

    #[test]
    fn a_clock_that_was_wrong_for_a_moment_binds_nothing_that_no_hub_took() {
        let at = |second: u64| Timestamp::from_unix_ms(second * 1_000);
        let gist = said(1, Answer::Yes).gist();
        let told = |at| Told { at, since: at.unwrap_or_default(), taken: None, gist: gist.clone() };
        assert_eq!(time(None, at(100)), at(100));
        assert_eq!(
            time(Some(&told(None)), at(100)),
            at(100),
            "what was refused was of a day later"
        );
        let took = told(Some(at(100)));
        assert_eq!(time(Some(&took), at(90)), at(100).plus(Duration::from_millis(1)));
        assert_eq!(time(Some(&took), at(130)), at(130));
    }

    #[tokio::test]
    async fn a_start_of_the_sidecar_is_no_change_of_what_it_says() {
        let store = Store::in_memory().unwrap();
        let judged = |answer: Answer, says: &str| {
            let mut it = verdict(&Watched::default(), &expect(), Timestamp::default());
            (it.alive, it.says) = (Finding { answer, ..it.alive }, says.to_owned());
            it
        };
        let at = |second: u64| Timestamp::from_unix_ms(second * 1_000);
        let (yes, no) = (judged(Answer::Yes, "a"), judged(Answer::No, "b"));
        assert_eq!(since(&store, "one", &yes).await.unwrap(), None);
        for (second, verdict) in [(1, &yes), (2, &no), (3, &yes), (4, &judged(Answer::Yes, "c"))] {
            store.judged("one", 0, at(second), verdict, Vec::new()).await.unwrap();
        }
        assert_eq!(since(&store, "one", &yes).await.unwrap(), Some(at(3)), "not at the restart");
        store.judged("one", 0, at(5), &no, Vec::new()).await.unwrap();
        assert_eq!(since(&store, "one", &yes).await.unwrap(), Some(at(3)), "as it was told");
        assert_eq!(since(&store, "one", &no).await.unwrap(), Some(at(5)));
    }

    fn expect() -> Expect {
        Expect {
            logs: Vec::new(),
            has_process: true,
            ports: Vec::new(),
            says_work: false,
            idle: None,
            grace: Duration::from_secs(1),
            published_for: None,
            earning: None,
            causes: BTreeMap::new(),
        }
    }
}
