//! Tells a hub how the programs are, as the agents of the original monitor do: one beat a program; and beside it what
//! was seen, signed ([`seen`]).
//!
//! Invariant: a beat says what the newest verdict says; a program of which nothing is known yet says nothing.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

use super::seen;
use crate::chain::Key;
use crate::clock::{Clock as _, SystemClock};
use crate::http::{self, Client};
use crate::report::{BoxError, one_line};
use crate::seldom::Seldom;
use crate::sidecar::probe::Programs;
use crate::sidecar::program::Program;
use crate::sidecar::settings::HubLink;
use crate::sidecar::store::Store;
use crate::sidecar::watcher::Verdicts;
use crate::supervise::Failure;
use crate::watch::verdict::{Answer, Verdict};

/// How often a hub is told.
const EVERY: Duration = Duration::from_secs(30);

/// How long a hub may take to answer.
const WITHIN: Duration = Duration::from_secs(10);

/// The longest `meta`, in characters: a hub cuts more.
const META_CHARS_MAX: usize = 500;

/// Tells a hub. One service.
#[derive(Debug, Clone)]
pub struct HubReporter {
    link: HubLink,
    client: Client,
    store: Store,
    programs: Programs,
    verdicts: Verdicts,
    changed: Arc<tokio::sync::Notify>,
    signed: seen::Teller,
    /// The programs that the hub knows.
    has_beaten: BTreeSet<String>,
}

impl HubReporter {
    /// A reporter to this hub.
    pub fn new(
        link: HubLink,
        (store, programs, verdicts): (Store, Programs, Verdicts),
        changed: Arc<tokio::sync::Notify>,
        key: Key,
    ) -> Result<Self, BoxError> {
        let client = http::client().timeout(WITHIN).build().map_err(http::boxed)?;
        let signed = seen::Teller::new(key);
        Ok(Self {
            link,
            client,
            store,
            programs,
            verdicts,
            changed,
            signed,
            has_beaten: BTreeSet::new(),
        })
    }

    /// Tells the hub until it is aborted.
    pub async fn run(mut self) -> Result<(), Failure> {
        let (clock, said) = (SystemClock, Seldom::within(1, Duration::from_hours(1)));
        loop {
            // While nothing can be written down, the verdicts are those of before.
            let is_blind = self.store.answers().await.is_err();
            for program in Arc::clone(&self.programs).iter().filter(|_| !is_blind) {
                let Some(verdict) = self.verdicts.of(program.name()) else { continue };
                if let Err(why) = self.tell(program, &verdict).await
                    && let Some(more) = said.line()
                {
                    tracing::warn!(
                        "the hub at {} is not told: {why}{more}",
                        http::shown(&self.link.url)
                    );
                }
            }
            tokio::select! {
                () = self.changed.notified() => {}
                () = clock.sleep(EVERY) => {}
            }
        }
    }

    /// Tells the hub by a beat, then by a signed observation, which it takes of nodes that have beaten.
    async fn tell(&mut self, program: &Program, verdict: &Verdict) -> Result<(), String> {
        if let Some(status) = status(verdict) {
            self.beat(program.name(), verdict, status).await?;
            self.has_beaten.insert(program.name().to_owned());
        }
        if !self.has_beaten.contains(program.name()) {
            return Ok(());
        }
        let hub = (&self.link, &self.client);
        self.signed.tell(hub, &self.store, program, verdict).await
    }

    async fn beat(&self, name: &str, verdict: &Verdict, status: &str) -> Result<(), String> {
        let body = json!({
            "node_id": name,
            "ip": "",
            "meta": one_line(&verdict.says, META_CHARS_MAX),
            "status": status,
        });
        let url = self.link.url.join("api/heartbeat").map_err(|err| err.to_string())?;
        let call = self.client.post(url).bearer_auth(self.link.secret.expose()).json(&body);
        let answer = call.send().await.map_err(|err| crate::report::causes(&err.without_url()))?;
        let code = answer.status();
        if code.is_success() { Ok(()) } else { Err(format!("it answers {code}")) }
    }
}

/// What a hub is told; nothing while nobody can say.
const fn status(verdict: &Verdict) -> Option<&'static str> {
    match verdict.alive.answer {
        Answer::Yes => Some("UP"),
        Answer::No => Some("DOWN"),
        Answer::Waiting | Answer::Unknown | Answer::NotExpected => None,
    }
}
