//! What the sidecar signs and tells a hub of each program: its newest verdict, once it changes and every five minutes.
//!
//! Invariants: only the newest state is told, so that nothing waits; of a program, time never goes back.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::chain::Key;
use crate::clock::{Clock, SystemClock, Timestamp};
use crate::fleet::seen::{self, Answers, Gist, SIGNATURE_HEAD, Said};
use crate::http::{self, Client};
use crate::ids::Signature;
use crate::sidecar::program::Program;
use crate::sidecar::settings::HubLink;
use crate::sidecar::store::{Error, Store};
use crate::watch::verdict::Verdict;

/// How long a hub may take to say why it refuses.
const WORDS: Duration = Duration::from_secs(5);

/// Signs what is told a hub, and knows what the hub has.
#[derive(Debug, Clone)]
pub struct Teller {
    key: Key,
    told: BTreeMap<String, Told>,
}

/// What a hub has of a program.
#[derive(Debug, Clone)]
struct Told {
    /// When it was signed.
    at: Timestamp,
    /// Since when it is so.
    since: Timestamp,
    /// When the hub took it, by the monotonic clock; `None`: it did not.
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
        let after = before.map(|it| it.at.plus(Duration::from_millis(1))).unwrap_or_default();
        let at = clock.now().max(after);
        let mut said = said(&self.key, program, verdict, at);
        let gist = said.gist();
        if !is_due(before, &gist, clock.monotonic()) {
            return Ok(());
        }
        said.since = match before {
            // What was written down is forgotten some day.
            Some(told) if told.gist == gist => told.since,
            _ => since(store, program.name()).await.map_err(|err| err.to_string())?.unwrap_or(at),
        };
        let body = serde_json::to_vec(&said).map_err(|err| err.to_string())?;
        let signature = Signature(self.key.sign_digest(&said.digest(&body).0));
        let told = Told { at, since: said.since, taken: None, gist };
        let told = self.told.entry(program.name().to_owned()).insert_entry(told).into_mut();
        post(link, client, body, signature).await?;
        told.taken = Some(clock.monotonic());
        Ok(())
    }
}

/// Whether a hub lacks this, or had it long ago.
fn is_due(told: Option<&Told>, gist: &Gist, now: Duration) -> bool {
    let Some(Told { taken: Some(taken), gist: known, .. }) = told else { return true };
    known != gist || now.saturating_sub(*taken) >= seen::EVERY
}

/// Since when the verdict is what it is: each that differs is written down.
async fn since(store: &Store, name: &str) -> Result<Option<Timestamp>, Error> {
    Ok(store.verdicts(name, 1).await?.first().map(|it| it.at))
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
    use crate::fleet::seen::Answer;
    use crate::fleet::seen::tests::said;

    #[test]
    fn a_hub_is_told_what_it_lacks_what_changed_and_the_same_every_five_minutes() {
        let (yes, no) = (said(1, Answer::Yes).gist(), said(1, Answer::No).gist());
        let seconds = Duration::from_secs;
        let at = Timestamp::default();
        let told = |taken| Told { at, since: at, taken, gist: yes.clone() };
        assert!(is_due(None, &yes, seconds(0)));
        assert!(is_due(Some(&told(None)), &yes, seconds(0)), "it was not taken");
        let taken = told(Some(seconds(100)));
        assert!(!is_due(Some(&taken), &yes, seconds(399)));
        assert!(is_due(Some(&taken), &yes, seconds(400)));
        assert!(is_due(Some(&taken), &no, seconds(101)));
    }
}
